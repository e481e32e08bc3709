package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	callv1 "skein.dev/proto/skein/call/v1"
	executorv1 "skein.dev/proto/skein/executor/v1"
	plannerv1 "skein.dev/proto/skein/planner/v1"
)

// world is the processes that benchmarks need. Each is started when it is first asked for.
type world struct {
	cfg   config
	root  string
	out   io.Writer
	dir   string // binaries and data
	procs map[string]*process
	order []*process

	guest       string // what it is
	wasm        []byte
	digest      [32]byte
	callsDigest [32]byte // of the function that calls others, once it is uploaded
	filesDigest [32]byte // of the one that reads files
	profiling   []*process
	planners    int // that were started
}

// The function that is called, and with what.
const user, function = "ann", "echo"

var payload = bytes.Repeat([]byte("skein.0123456789"), 4) // 64 bytes

func (w *world) close() {
	for i := len(w.order) - 1; i >= 0; i-- {
		w.order[i].kill()
	}
	if w.dir != "" {
		_ = os.RemoveAll(w.dir)
	}
}

// retire ends the processes that only the benchmarks before needed: they beat, and hold memory. Profiles are of all.
func (w *world) retire() {
	if w.cfg.profile != "" {
		return
	}
	w.order = slices.DeleteFunc(w.order, func(p *process) bool {
		if slices.Contains(shared, p.name) {
			return false
		}
		p.kill()
		delete(w.procs, p.name)
		return true
	})
}

// shared are processes of more than one family of benchmarks.
var shared = []string{"redis", "upload", "planner", "executor", "grpc-echo"}

func (w *world) bin(service string) string { return filepath.Join(w.dir, service) }

// build makes the binaries of the services, as users run them.
func (w *world) build(ctx context.Context) (err error) {
	if w.dir != "" {
		return nil
	}
	if w.dir, err = os.MkdirTemp("", "skein-bench-"); err != nil {
		return err
	}
	args := []string{"build", "-o", w.dir + "/"}
	services := []string{"planner", "executor", "state", "upload", "fs"}
	if w.cfg.profile != "" {
		overlay, err := w.profiler(services)
		if err != nil {
			return err
		}
		args = append(args, "-overlay", overlay)
	}
	for _, s := range services {
		args = append(args, "./services/"+s+"/cmd/"+s)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = w.root
	if msg, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, msg)
	}
	return nil
}

// profiler adds a file to each service's main that profiles the process until SIGUSR2.
func (w *world) profiler(services []string) (overlay string, err error) {
	const source = `package main

import (
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"
)

func init() {
	name := os.Getenv("BENCH_PROFILE")
	f, err := os.Create(name + ".part")
	if err != nil {
		panic(err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		panic(err)
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR2)
	go func() {
		<-c
		pprof.StopCPUProfile()
		_ = f.Close()
		_ = os.Rename(name+".part", name)
	}()
}
`
	if err := os.MkdirAll(w.cfg.profile, 0o755); err != nil {
		return "", err
	}
	file := filepath.Join(w.dir, "profile.go.txt")
	if err := os.WriteFile(file, []byte(source), 0o600); err != nil {
		return "", err
	}
	replace := map[string]string{}
	for _, s := range services {
		replace[filepath.Join(w.root, "services", s, "cmd", s, "profile.go")] = file
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(w.dir, "overlay.json")
	return overlay, os.WriteFile(overlay, text, 0o600)
}

// profileOf is where the profile of a process goes.
func (w *world) profileOf(name string) string { return filepath.Join(w.cfg.profile, name+".pprof") }

// saveProfiles ends the profiles and waits until they are written.
func (w *world) saveProfiles() error {
	for _, p := range w.profiling {
		if err := p.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	for _, p := range w.profiling {
		for tries := 0; ; tries++ {
			if _, err := os.Stat(w.profileOf(p.name)); err == nil {
				break
			} else if tries == 500 {
				return fmt.Errorf("%s: no profile within 5 s", p.name)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return nil
}

// role starts this program as one of its own children, once.
func (w *world) role(ctx context.Context, name, role string, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return w.start(ctx, name, self, append([]string{roleArg, role}, args...)...)
}

func (w *world) service(ctx context.Context, name, service string, args ...string) (*process, error) {
	if w.cfg.profile != "" && w.procs[name] == nil {
		file := w.profileOf(name)
		_ = os.Remove(file)
		if err := os.Setenv("BENCH_PROFILE", file); err != nil {
			return nil, err
		}
		p, err := w.start(ctx, name, w.bin(service), append(args, "--listen", "127.0.0.1:0")...)
		if err == nil {
			w.profiling = append(w.profiling, p)
		}
		return p, err
	}
	return w.start(ctx, name, w.bin(service), append(args, "--listen", "127.0.0.1:0")...)
}

func (w *world) start(ctx context.Context, name, bin string, args ...string) (*process, error) {
	if p := w.procs[name]; p != nil {
		return p, nil
	}
	p, err := start(ctx, name, bin, args...)
	if err != nil {
		return nil, err
	}
	w.keep(p)
	return p, nil
}

// keep has a process killed at the end.
func (w *world) keep(p *process) {
	if w.procs == nil {
		w.procs = map[string]*process{}
	}
	w.procs[p.name] = p
	w.order = append(w.order, p)
}

// upload runs the upload service and gives it the function.
func (w *world) upload(ctx context.Context) (*process, error) {
	if p := w.procs["upload"]; p != nil {
		return p, nil
	}
	if err := w.build(ctx); err != nil {
		return nil, err
	}
	wasm, what, err := echoGuest(ctx, w.root, w.dir)
	if err != nil {
		return nil, err
	}
	w.guest, w.wasm, w.digest = what, wasm, sha256.Sum256(wasm)
	p, err := w.service(ctx, "upload", "upload", "--bucket", w.bucket())
	if err != nil {
		return nil, err
	}
	return p, soon(ctx, func(ctx context.Context) error { return register(ctx, p, function, wasm) })
}

// register uploads a function of the user's.
func register(ctx context.Context, upload *process, name string, wasm []byte) error {
	return put(ctx, upload, "/v1/functions/"+user+"/"+name, wasm)
}

// put sends content to a service's path.
func put(ctx context.Context, to *process, path string, content []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+to.addr+path, bytes.NewReader(content))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("put of %s: %s: %s", path, resp.Status, body)
	}
	return err
}

func (w *world) bucket() string { return "file:" + filepath.Join(w.dir, "objects") }

// slots are more than any benchmark has clients: a direct call is refused, not queued, when all are taken.
const slots = "80"

// suite is a planner and an executor, attached, that have run the function once.
func (w *world) suite(ctx context.Context) (planner, executor *process, err error) {
	upload, err := w.upload(ctx)
	if err != nil {
		return nil, nil, err
	}
	if planner, err = w.planner(ctx, "planner", "--upload", upload.addr); err != nil {
		return nil, nil, err
	}
	// state and fs are dialled when a guest needs them; echo does not.
	if executor, err = w.service(ctx, "executor", "executor", "--planner", planner.addr, "--bucket", w.bucket(), "--name", "bench", "--slots", slots,
		"--state", upload.addr, "--fs", upload.addr); err != nil {
		return nil, nil, err
	}
	return planner, executor, w.works(ctx, planner)
}

// works waits until a planner can run the function.
func (w *world) works(ctx context.Context, planner *process) error {
	conn, err := dial(planner.addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	call := invoke(conn)
	return soon(ctx, call)
}

// soon tries until it works, for at most a minute.
func soon(ctx context.Context, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("still not after a minute: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// dial is what every gRPC client here has, on both sides.
func dial(addr string) (*grpc.ClientConn, error) {
	return grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// overGRPC makes a side whose clients share a connection to p, as the goroutines of a program do.
func overGRPC(p *process, clients int, op func(*grpc.ClientConn) func(context.Context) error, others ...*process) (side, error) {
	conn, err := dial(p.addr)
	if err != nil {
		return side{}, err
	}
	s := side{procs: append(others, p), close: func() { _ = conn.Close() }}
	for range clients {
		s.clients = append(s.clients, op(conn))
	}
	return s, nil
}

var errWrong = errors.New("the answer is another")

func check(output []byte, err error) error {
	if err == nil && !bytes.Equal(output, payload) {
		return fmt.Errorf("%w: %.100q", errWrong, output)
	}
	return err
}

// echo is the operation of the baseline.
func echo(conn *grpc.ClientConn) func(context.Context) error {
	return func(ctx context.Context) error {
		var out wrapperspb.BytesValue
		err := conn.Invoke(ctx, "/bench.Echo/Echo", &wrapperspb.BytesValue{Value: payload}, &out)
		return check(out.GetValue(), err)
	}
}

// invoke is a call by way of the planner.
func invoke(conn *grpc.ClientConn) func(context.Context) error {
	return invokeOf(function, payload, payload)(conn)
}

// invokeOf is a call of a function that must answer what is said.
func invokeOf(function string, input, answer []byte) func(*grpc.ClientConn) func(context.Context) error {
	return func(conn *grpc.ClientConn) func(context.Context) error {
		planner := plannerv1.NewPlannerServiceClient(conn)
		return func(ctx context.Context) error {
			resp, err := planner.Invoke(ctx, &plannerv1.InvokeRequest{User: user, Function: function, Input: input})
			if err == nil && resp.GetCall().GetState() != callv1.CallState_CALL_STATE_SUCCEEDED {
				err = fmt.Errorf("the call ended as %s: %s: %s", resp.GetCall().GetState(), resp.GetCall().GetReason(), resp.GetCall().GetMessage())
			}
			if err == nil && !bytes.Equal(resp.GetOutput(), answer) {
				err = fmt.Errorf("%w: %.100q", errWrong, resp.GetOutput())
			}
			return err
		}
	}
}

// run is a call that an executor gets directly.
func (w *world) run(conn *grpc.ClientConn) func(context.Context) error {
	return runOf(function, w.digest, payload, payload)(conn)
}

func runOf(function string, digest [32]byte, input, answer []byte) func(*grpc.ClientConn) func(context.Context) error {
	return func(conn *grpc.ClientConn) func(context.Context) error {
		executor := executorv1.NewExecutorServiceClient(conn)
		return func(ctx context.Context) error {
			var id [16]byte
			_, _ = rand.Read(id[:])
			resp, err := executor.Run(ctx, &executorv1.RunRequest{Assignment: &callv1.Assignment{
				CallId: id[:], User: user, Function: function, Version: 1, Digest: digest[:], Input: input,
				Timeout: durationpb.New(time.Minute), Attempt: 1,
			}})
			o := resp.GetOutcome()
			if err == nil && o.GetState() != callv1.CallState_CALL_STATE_SUCCEEDED {
				err = fmt.Errorf("the call ended as %s: %s: %s", o.GetState(), o.GetReason(), o.GetMessage())
			}
			if err == nil && !bytes.Equal(o.GetOutput(), answer) {
				err = fmt.Errorf("%w: %.100q", errWrong, o.GetOutput())
			}
			return err
		}
	}
}

func (w *world) bareGRPC(ctx context.Context, clients int) (side, error) {
	p, err := w.role(ctx, "grpc-echo", "grpc-echo")
	if err != nil {
		return side{}, err
	}
	return overGRPC(p, clients, echo)
}

func direct(ctx context.Context, w *world, clients int) (ours, bare side, err error) {
	planner, executor, err := w.suite(ctx)
	if err != nil {
		return side{}, side{}, err
	}
	if ours, err = overGRPC(executor, clients, w.run, planner, w.procs["upload"]); err == nil {
		bare, err = w.bareGRPC(ctx, clients)
	}
	return ours, bare, err
}

func planned(ctx context.Context, w *world, clients int) (ours, bare side, err error) {
	planner, executor, err := w.suite(ctx)
	if err != nil {
		return side{}, side{}, err
	}
	if ours, err = overGRPC(planner, clients, invoke, executor, w.procs["upload"]); err == nil {
		bare, err = w.bareGRPC(ctx, clients)
	}
	return ours, bare, err
}
