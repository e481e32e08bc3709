package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"skein.dev"
	"skein.dev/platform/relaytest"
	"skein.dev/platform/service"
)

// guest builds testdata/guest or an example once.
func guest(t *testing.T, dir string) string {
	t.Helper()
	module := filepath.Join(t.TempDir(), "guest.wasm")
	if err := buildGuest(t.Context(), dir, module); err != nil {
		t.Fatal(err)
	}
	return module
}

// at runs command lines against one server.
func at(t *testing.T, server string) func(stdin string, args ...string) result {
	return func(stdin string, args ...string) result {
		t.Helper()
		return skeinRun(t, stdin, append([]string{"--server", server}, args...)...)
	}
}

// fields decodes a JSON document.
func fields(t *testing.T, r result) map[string]any {
	t.Helper()
	if r.code != 0 {
		t.Fatalf("exit code %d: %s", r.code, r.stderr)
	}
	var doc map[string]any
	if err := json.Unmarshal([]byte(r.stdout), &doc); err != nil {
		t.Fatalf("%v in %q", err, r.stdout)
	}
	return doc
}

func TestState(t *testing.T) {
	run := at(t, startDev(t))
	want(t, run("", "state", "get", "ann/none"), exitFailure, "", "[")
	doc := fields(t, run("", "state", "put", "ann/a/b%2F ü", "--value", "one"))
	if doc["key"] != "a/b%2F ü" || doc["size"] != float64(3) {
		t.Errorf("put gave %v", doc)
	}
	want(t, run("", "state", "get", "ann/a/b%2F ü"), 0, "one")
	fields(t, run(" and two", "state", "append", "ann/a/b%2F ü"))
	want(t, run("", "state", "get", "ann/a/b%2F ü"), 0, "one and two")
	want(t, run("", "state", "get", "ann/a/b%2F ü", "--offset", "4", "--length", "3"), 0, "and")
	fields(t, run("", "state", "put", "ann/a/b%2F ü", "--value", "AND", "--offset", "4"))
	want(t, run("", "state", "get", "ann/a/b%2F ü"), 0, "one AND two")

	big := strings.Repeat("0123456789abcdef", 6<<20/16) // more than one message holds
	file := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(file, []byte(big), 0o600); err != nil {
		t.Fatal(err)
	}
	fields(t, run("", "state", "put", "ann/big", file))
	if r := run("", "state", "get", "ann/big"); r.stdout != big {
		t.Errorf("got %d bytes back of %d: %s", len(r.stdout), len(big), r.stderr)
	}
	want(t, run(big, "state", "append", "ann/big"), exitFailure, "", "[PAYLOAD_SIZE]", "hint: append it in pieces")
	fields(t, run("", "state", "put", "ann/\xff", "--value", ""))
	list := fields(t, run("", "state", "list", "ann"))
	keys := ""
	for _, v := range list["values"].([]any) {
		v := v.(map[string]any)
		if k, ok := v["key"]; ok {
			keys += k.(string) + ";"
		} else {
			keys += v["keyBase64"].(string) + ";"
		}
	}
	if keys != "a/b%2F ü;big;/w==;" {
		t.Errorf("keys %s", keys)
	}
	if r := run("", "state", "list", "ann", "--prefix", "b", "-o", "text"); !strings.Contains(r.stdout, "ann/big  6.0 MiB") {
		t.Errorf("list as text: %+v", r)
	}
	want(t, run("", "state", "delete", "ann/big"), 0, "")
	want(t, run("", "state", "stat", "ann/big"), exitFailure, "", "error: ")
}

func TestFiles(t *testing.T) {
	data := t.TempDir()
	run := at(t, startDev(t, "--data", data))
	dir := t.TempDir()
	file := filepath.Join(dir, "in")
	big := bytes.Repeat([]byte("skein"), 1<<20)
	if err := os.WriteFile(file, big, 0o600); err != nil {
		t.Fatal(err)
	}
	if doc := fields(t, run("", "files", "put", "ann/docs//a.txt", file)); doc["path"] != "docs/a.txt" || doc["digest"] != skein.DigestOf(big).String() {
		t.Errorf("put gave %v", doc)
	}
	out := filepath.Join(dir, "out")
	want(t, run("", "files", "get", "ann/docs/a.txt", out), 0, "")
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, big) {
		t.Errorf("%d bytes of %d came back: %v", len(got), len(big), err)
	}
	want(t, run("", "files", "get", "ann/docs/a.txt", "--offset", "3", "--length", "4"), 0, "insk")
	fields(t, run("small", "files", "put", "ann/b", "-"))
	if r := run("", "files", "list", "ann", "--shallow", "-o", "text"); !strings.Contains(r.stdout, "docs/") || !strings.Contains(r.stdout, "b  ") {
		t.Errorf("list: %+v", r)
	}
	want(t, run("", "files", "delete", "ann/b"), 0, "")
	want(t, run("", "files", "get", "ann/b", filepath.Join(dir, "none")), exitFailure, "", "error: ")
	if left, _ := filepath.Glob(filepath.Join(dir, "*none*")); left != nil {
		t.Errorf("a failed get left %v", left)
	}
	// Another server over the same directory has the files still.
	want(t, at(t, startDev(t, "--data", data))("", "files", "get", "ann/docs/a.txt", "--length", "5"), 0, "skein")
}

func TestFunctions(t *testing.T) {
	run := at(t, startDev(t))
	want(t, run("no module", "upload", "ann/f", "-"), exitFailure, "", "error: ")
	want(t, run("", "invoke", "ann/f"), exitFailure, "", "error: ")
	module := guest(t, "testdata/guest")
	first := fields(t, run("", "upload", "ann/f", module))
	if again := fields(t, run("", "upload", "ann/f", module)); first["created"] != true || again["created"] != false {
		t.Errorf("created: %v, then %v", first["created"], again["created"])
	}
	if r := run("", "functions", "list", "ann", "-o", "text"); !strings.Contains(r.stdout, "ann/f") || !strings.Contains(r.stdout, "command") {
		t.Errorf("functions: %+v", r)
	}
	if r := run("", "functions", "get", "ann/f", "-o", "text"); !strings.Contains(r.stdout, "wasi_snapshot_preview1.fd_write") {
		t.Errorf("get: %+v", r)
	}
	fields(t, run("", "upload", "ann/f", guest(t, "../../examples/echo/go")))
	if r := run("", "functions", "versions", "ann/f", "-o", "text"); strings.Count(r.stdout, "\n") != 3 {
		t.Errorf("versions: %+v", r)
	}
	if doc := fields(t, run("", "functions", "rollback", "ann/f")); doc["current"].(map[string]any)["number"] != "1" {
		t.Errorf("rollback gave %v", doc)
	}
	want(t, run("", "functions", "delete", "ann/f"), 0, "")
	want(t, run("", "functions", "get", "ann/f"), exitFailure, "", "error: ")
}

func TestInvoke(t *testing.T) {
	run := at(t, startDev(t))
	fields(t, run("", "upload", "ann/guest", guest(t, "testdata/guest")))
	fields(t, run("", "upload", "ann/echo", guest(t, "../../examples/echo/go")))

	want(t, run("", "invoke", "ann/echo", "--input", "hello"), 0, "hello")
	want(t, run("pi\x00ped\xff", "invoke", "ann/echo"), 0, "pi\x00ped\xff")
	file := filepath.Join(t.TempDir(), "in")
	if err := os.WriteFile(file, []byte("from a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, run("", "invoke", "ann/echo", "--input", "@"+file), 0, "from a file")
	want(t, run("", "invoke", "ann/echo", "-f", file), 0, "from a file")
	want(t, run(strings.Repeat("x", skein.MaxPayload+1), "invoke", "ann/echo"), exitFailure, "", "[PAYLOAD_SIZE]")
	doc := fields(t, run("", "invoke", "ann/echo", "--input", "hello", "-o", "json"))
	if doc["output"] != "hello" || doc["call"].(map[string]any)["state"] != "CALL_STATE_SUCCEEDED" {
		t.Errorf("as JSON: %v", doc)
	}

	// The guest's exit code is ours, and its log can be read.
	r := run("", "invoke", "ann/guest", "-v", "--args", "exit", "--", "7")
	want(t, r, 7, "before the exit\n", "[GUEST_EXIT]", "skein logs ") // it imports nothing of ours, so what it prints is its output
	call := strings.TrimPrefix(strings.SplitN(r.stderr, "\n", 2)[0], "call ")
	if log := run("", "logs", call); !strings.Contains(log.stdout, "guest says: exit\n") {
		t.Errorf("logs: %+v", log)
	}
	if doc := fields(t, run("", "calls", "get", call)); doc["exitCode"] != float64(7) || doc["reason"] != "GUEST_EXIT" {
		t.Errorf("record: %v", doc)
	}
	if r := run("", "calls", "graph", call, "-o", "text"); !strings.Contains(r.stdout, "ann/guest  "+call+"  FAILED") {
		t.Errorf("graph: %+v", r)
	}
	if r := run("", "calls", "-o", "text"); !strings.Contains(r.stdout, call) {
		t.Errorf("calls: %+v", r)
	}
	if r := run("", "executors", "-o", "text"); !strings.Contains(r.stdout, "\ndev ") {
		t.Errorf("executors: %+v", r)
	}

	want(t, run("", "invoke", "ann/guest", "--timeout", "300ms", "--", "spin"), exitFailure, "", "error: ann/guest: ")
	id := strings.TrimSpace(run("", "invoke", "ann/guest", "--async", "--", "spin").stdout)
	want(t, run("", "calls", "wait", id, "--timeout", "200ms"), exitFailure, "", "[STILL_", "skein calls cancel "+id)
	fields(t, run("", "calls", "cancel", id))
	want(t, run("", "calls", "wait", id), exitFailure, "", "CANCELLED")
	id = strings.TrimSpace(run("later", "invoke", "ann/echo", "--async").stdout)
	want(t, run("", "calls", "wait", id), 0, "later")

	// Only the spans of RPCs are looked for: those that services make themselves go to the first server of the process,
	// because a package's tracer is bound to the first provider that is set.
	if r := run("", "trace", id, "-o", "text"); r.code != 0 || !strings.Contains(r.stdout, "\n└─ skein.planner.v1.PlannerService/CreateCall") {
		t.Errorf("trace: %+v", r)
	}
}

// lockedBuffer is read while `skein dev` still writes to it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestExample(t *testing.T) {
	ctx, stop := context.WithTimeout(context.Background(), 5*time.Minute)
	defer stop()
	var stdout, stderr lockedBuffer
	done := make(chan int)
	go func() {
		done <- Run(ctx, []string{"dev", "--listen", "127.0.0.1:0", "--data", t.TempDir(), "--example", "../../examples/wordcount/go"}, nil, &stdout, &stderr)
	}()
	for !strings.Contains(stdout.String(), "Ctrl-C") {
		select {
		case code := <-done:
			t.Fatalf("ended with %d: %s", code, stderr.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
	said := stdout.String()
	for _, s := range []string{"lost at exit", "\n100 the\n69 or\n", "└─", "curl --data-binary"} {
		if !strings.Contains(said, s) {
			t.Errorf("%q is missing in:\n%s\n%s", s, said, stderr.String())
		}
	}
	_, rest, _ := strings.Cut(said, "gRPC, REST  http://")
	addr, _, _ := strings.Cut(rest, "\n")
	resp, err := http.Get("http://" + addr + "/v1/state/ann/wordcount")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("the second curl line gives %s", resp.Status)
	}
	stop()
	if code := <-done; code != 0 {
		t.Errorf("dev ended with %d: %s", code, stderr.String())
	}
}

// The embedded Redis must let keys expire as a real one does.
func TestRedisClockRuns(t *testing.T) {
	m, _, err := newRedis()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Set("k", "v"); err != nil {
		t.Fatal(err)
	}
	m.SetTTL("k", 30*time.Millisecond)
	for deadline := time.Now().Add(5 * time.Second); m.Exists("k"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the key never expired")
		}
	}
}

// Redis' protocol is served in the process that computes: on a busy machine answers take longer than a Redis that is there ever
// would, and calls that are kept must not fail for it.
func TestSlowEmbeddedRedis(t *testing.T) {
	m, url, err := newRedis()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var late atomic.Int64
	journal := strings.Replace(url, m.Addr(), slowly(t, m.Addr(), &late), 1)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	addr, done := make(chan string, 1), make(chan error)
	cfg := service.DefaultConfig()
	cfg.Name, cfg.Listen, cfg.Quiet, cfg.OnListen = "skein", "127.0.0.1:0", true, func(at string) { addr <- at }
	go func() {
		done <- service.Run(ctx, cfg, func(ctx context.Context, s *service.Server) error {
			return (&devServer{}).start(ctx, s, url, journal, "file:"+t.TempDir(), "")
		})
	}()
	server := <-addr
	run := at(t, server)
	if err := ready(ctx, server); err != nil {
		t.Fatal(err)
	}
	fields(t, run("", "upload", "ann/echo", guest(t, "../../examples/echo/go")))
	late.Store(int64(1200 * time.Millisecond))
	r := run("kept", "invoke", "ann/echo", "--async")
	if r.code != 0 {
		t.Fatalf("not accepted: %s", r.stderr)
	}
	want(t, run("", "calls", "wait", strings.TrimSpace(r.stdout), "--timeout", "1m"), 0, "kept")
	late.Store(0)
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// slowly gives an address that leads to another whose answers come late.
func slowly(t *testing.T, to string, late *atomic.Int64) string {
	r := relaytest.Listen(t)
	r.Serve(to, func(near, far net.Conn) {
		go relaytest.Pass(far, near, nil)
		go relaytest.Pass(near, far, func(int) bool {
			time.Sleep(time.Duration(late.Load()))
			return true
		})
	})
	return r.Addr
}
