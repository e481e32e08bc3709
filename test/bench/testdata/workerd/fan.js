// fan is asked as calls.c is: "fan 1000".
export default {
  async fetch(request, env) {
    const [, n] = (await request.text()).split(" ");
    const body = "skein.0123456789".repeat(4);
    const one = async () => (await (await env.echo.fetch("http://echo/", { method: "POST", body })).text()) === body;
    const all = await Promise.all(Array.from({ length: Number(n) }, one));
    const text = String(all.filter(Boolean).length);
    return new Response(text, { headers: { "Content-Length": String(text.length) } });
  },
};
