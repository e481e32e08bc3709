package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"skein.dev/platform/subprocess"
)

// Process is a child of the test: one of the suite's, or a server that it needs.
type Process struct {
	Name string
	Addr string // host:port
	Dir  string // where a redis-server keeps what it has

	t     testing.TB
	bin   string
	args  []string // without the address
	env   []string
	serve func(addr string) []string                  // arguments that make it listen there
	ready func(ctx context.Context, p *Process) error // one try

	cmd      *exec.Cmd
	out      *output
	gone     chan struct{} // closed when cmd is
	expected *atomic.Bool  // its end is
}

const (
	startTime = 60 * time.Second
	stopTime  = 40 * time.Second // more than the grace period we give
	grace     = "30s"
)

// service makes a process of ours. It takes a free port at its first start and keeps it.
func service(t testing.TB, name, bin string, args ...string) *Process {
	p := &Process{Name: name, Addr: "127.0.0.1:0", t: t, bin: bin, args: args, ready: healthy}
	p.serve = func(addr string) []string { return []string{"--listen", addr} }
	return p
}

// Start runs the process and waits until it is ready.
func (p *Process) Start() *Process {
	p.t.Helper()
	p.Launch()
	p.AwaitReady()
	return p
}

// Launch runs the process and waits until it listens.
func (p *Process) Launch() *Process {
	p.t.Helper()
	if p.cmd == nil {
		p.t.Cleanup(p.finish)
	}
	cmd := exec.Command(p.bin, append(slices.Clone(p.args), p.serve(p.Addr)...)...)
	cmd.Env = append(append(environ(), "SKEIN_RACE_COMPILER="+compiler()), p.env...)
	cmd.SysProcAttr = subprocess.Bound(syscall.SysProcAttr{Setpgid: true})
	out, gone, expected := &output{listening: make(chan string, 1)}, make(chan struct{}), &atomic.Bool{}
	cmd.Stdout, cmd.Stderr = out, out
	started := make(chan error)
	go func() {
		// The kernel kills the child when the thread that started it ends, so that thread stays.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		err = cmd.Wait()
		if !expected.Load() {
			p.t.Errorf("%s ended by itself: %v\n%s", p.Name, err, out.tail(4<<10))
		}
		close(gone)
	}()
	if err := <-started; err != nil {
		p.t.Fatalf("%s: %v", p.Name, err)
	}
	p.cmd, p.out, p.gone, p.expected = cmd, out, gone, expected
	if strings.HasSuffix(p.Addr, ":0") {
		select {
		case p.Addr = <-out.listening:
		case <-gone:
			p.t.Fatalf("%s did not start", p.Name)
		case <-time.After(startTime):
			p.t.Fatalf("%s did not say where it listens within %s:\n%s", p.Name, startTime, out.tail(4<<10))
		}
	}
	return p
}

// AwaitReady waits until the process can work.
func (p *Process) AwaitReady() {
	p.t.Helper()
	p.Await("is ready", startTime, func(ctx context.Context) error { return p.ready(ctx, p) })
}

// Await tries until try succeeds or the process ends; the test fails after d.
func (p *Process) Await(what string, d time.Duration, try func(context.Context) error) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return
		}
		select {
		case <-p.gone:
			p.t.Fatalf("%s ended before it %s: %v", p.Name, what, err)
		case <-ctx.Done():
			p.t.Fatalf("not in %s: %s %s: %v", d, p.Name, what, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// healthy asks /healthz.
func healthy(ctx context.Context, p *Process) error {
	status, err := p.Health(ctx)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("/healthz answers %d", status)
	}
	return err
}

// Health is the status of GET /healthz: 200 if the process can work.
func (p *Process) Health(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Addr+"/healthz", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// Kill ends the process as a power failure would.
func (p *Process) Kill() {
	p.expected.Store(true)
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.gone
}

// Terminate asks the process to end in good order and returns at once.
func (p *Process) Terminate() {
	p.expected.Store(true)
	_ = syscall.Kill(p.cmd.Process.Pid, syscall.SIGTERM)
}

// Stop asks the process to end in good order and waits until it has.
func (p *Process) Stop() {
	p.t.Helper()
	p.Terminate()
	p.AwaitEnd()
}

// AwaitEnd waits until a process that was asked to end has done so. It must, with exit code 0.
func (p *Process) AwaitEnd() {
	p.t.Helper()
	select {
	case <-p.gone:
		if code := p.cmd.ProcessState.ExitCode(); code != 0 {
			p.t.Errorf("%s ended with exit code %d after SIGTERM\n%s", p.Name, code, p.out.tail(4<<10))
		}
	case <-time.After(stopTime):
		p.t.Errorf("%s did not end within %s of SIGTERM\n%s", p.Name, stopTime, p.out.tail(4<<10))
		p.Kill()
	}
}

// Pause stops the process where it is: it accepts connections and says nothing. Resume lets it go on.
func (p *Process) Pause()  { _ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGSTOP) }
func (p *Process) Resume() { _ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGCONT) }

// Running reports whether the process lives.
func (p *Process) Running() bool {
	select {
	case <-p.gone:
		return false
	default:
		return p.cmd != nil
	}
}

// Log is what the process has written since its last start.
func (p *Process) Log() string { return p.out.String() }

// finish ends what still runs and looks at what it said.
func (p *Process) finish() {
	if p.cmd == nil {
		return
	}
	if p.Running() {
		p.Stop()
	}
	log := p.Log()
	for _, bad := range []string{"WARNING: DATA RACE", "\npanic: ", "\nfatal error: "} {
		if i := strings.Index(log, bad); i >= 0 {
			p.t.Errorf("%s:%.4000s", p.Name, log[i:])
		}
	}
	if p.t.Failed() {
		p.t.Logf("--- the last that %s at %s said:\n%s", p.Name, p.Addr, p.out.tail(8<<10))
	}
}

// environ is ours without what would configure the suite from outside.
func environ() []string {
	return slices.DeleteFunc(os.Environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return strings.HasPrefix(name, "SKEIN_") || strings.HasPrefix(name, "OTEL_") || name == "REDIS_URL" || name == "GOWORK" ||
			strings.HasSuffix(strings.ToLower(name), "_proxy")
	})
}

// FreePort is an address that nobody listens on for the moment.
func FreePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// output keeps what a process says, at most outputMax, and finds the address that it listens on.
type output struct {
	mu        sync.Mutex
	buf       bytes.Buffer
	seen      int // bytes of buf that were looked through
	listening chan string
	known     bool
}

const outputMax = 4 << 20

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if room := outputMax - o.buf.Len(); room > 0 {
		o.buf.Write(b[:min(room, len(b))])
	}
	for !o.known {
		line, _, whole := bytes.Cut(o.buf.Bytes()[o.seen:], []byte("\n"))
		if !whole {
			break
		}
		o.seen += len(line) + 1
		var entry struct{ Msg, Address string }
		if json.Unmarshal(line, &entry) == nil && entry.Msg == "listening" && entry.Address != "" {
			o.known = true
			o.listening <- entry.Address
		}
	}
	return len(b), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func (o *output) tail(n int) string {
	s := o.String()
	return s[max(0, len(s)-n):]
}

var errNotYet = errors.New("not yet")
