using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [ (name = "fan", worker = .fan), (name = "echo", worker = .echo) ],
  sockets = [ (name = "http", http = (), service = "fan") ],
);
const fan :Workerd.Worker = (
  modules = [ (name = "fan.js", esModule = embed "fan.js") ],
  bindings = [ (name = "echo", service = "echo") ],
  compatibilityDate = "2026-11-01",
);
const echo :Workerd.Worker = (
  modules = [ (name = "echo.js", esModule = embed "echo.js") ],
  compatibilityDate = "2026-11-01",
);
