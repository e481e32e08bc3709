package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"skein.dev/platform/compile/compiletest"
)

func TestMain(m *testing.M) {
	os.Exit(compiletest.Main(m, "skein.dev/cmd/skein"))
}

// result is what one command line did.
type result struct {
	stdout, stderr string
	code           int
}

// skeinRun runs a command line as main does.
func skeinRun(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var in io.Reader
	if stdin != "" {
		in = strings.NewReader(stdin)
	}
	var stdout, stderr bytes.Buffer
	code := Run(t.Context(), args, in, &stdout, &stderr)
	return result{stdout.String(), stderr.String(), code}
}

// startDev runs `skein dev` on a free port until the test ends, and gives its address.
func startDev(t *testing.T, args ...string) string {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	out, in := io.Pipe()
	done := make(chan int)
	var stderr bytes.Buffer
	go func() {
		line := append([]string{"dev", "--listen", "127.0.0.1:0", "--data", t.TempDir(), "--quiet"}, args...)
		code := Run(ctx, line, nil, in, &stderr)
		_ = in.Close()
		done <- code
	}()
	t.Cleanup(func() {
		stop()
		go func() { _, _ = io.Copy(io.Discard, out) }()
		if code := <-done; code != 0 {
			t.Errorf("skein dev ended with %d:\n%s", code, &stderr)
		}
	})
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		t.Fatalf("skein dev did not start: %v", err)
	}
	return strings.TrimSpace(addr)
}

func want(t *testing.T, r result, code int, stdout string, stderr ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d; stderr:\n%s", r.code, code, r.stderr)
	}
	if r.stdout != stdout {
		t.Errorf("stdout %q, want %q", r.stdout, stdout)
	}
	for _, s := range stderr {
		if !strings.Contains(r.stderr, s) {
			t.Errorf("stderr %q lacks %q", r.stderr, s)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, test := range []struct {
		line string
		say  string
	}{
		{"bogus", `unknown command "bogus"`},
		{"version --bogus", "unknown flag: --bogus"},
		{"invoke", "which function?"},
		{"invoke nonsense", "BAD_NAME"},
		{"invoke ann/f g", "one function at a time"},
		{"invoke ann/f --input x -f y", "not both"},
		{"invoke Ann/f", `invalid user name "Ann"`},
		{"calls get 17", "32 hexadecimal digits"},
		{"calls bogus", `unknown command "bogus" for "skein calls"`},
		{"functions rollback ann/f zero", "want a number from 1"},
		{"state get ann", "want USER/KEY"},
		{"state put ann/k --value v file", "not both"},
		{"state put ann/k", "no value"},
		{"files put ann/../x file", "leaves the tree"},
		{"version -o yaml", "want json or text"},
		{"dev --listen nowhere", "want HOST:PORT"},
	} {
		r := skeinRun(t, "", strings.Fields(test.line)...)
		want(t, r, exitUsage, "", "error: ", test.say)
		if strings.Contains(r.stderr, "Usage:") {
			t.Errorf("skein %s: usage spam: %s", test.line, r.stderr)
		}
	}
}

func TestVersion(t *testing.T) {
	if r := skeinRun(t, "", "version"); r.code != 0 || !strings.Contains(r.stdout, `"version"`) {
		t.Errorf("version: %+v", r)
	}
	if r := skeinRun(t, "", "version", "-o", "text"); r.code != 0 || !strings.HasPrefix(r.stdout, "skein ") {
		t.Errorf("version -o text: %+v", r)
	}
}

func TestHelpListsEveryCommand(t *testing.T) {
	r := skeinRun(t, "")
	if r.code != 0 {
		t.Fatalf("skein alone: %+v", r)
	}
	for _, name := range []string{"upload", "invoke", "calls", "logs", "trace", "functions", "state", "files", "executors", "dev", "version", "completion"} {
		if !strings.Contains(r.stdout, "\n  "+name+" ") {
			t.Errorf("help lacks %s", name)
		}
	}
	if strings.Contains(r.stdout, "internal") {
		t.Error("help shows the hidden command")
	}
}

// freePort is an address that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lis.Close() }()
	return lis.Addr().String()
}

func TestUnreachable(t *testing.T) {
	addr := freePort(t)
	wasm := filepath.Join(t.TempDir(), "f.wasm")
	if err := os.WriteFile(wasm, []byte("\x00asm\x01\x00\x00\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"calls", "functions", "executors", "state list ann", "files list ann", "state get ann/k", "state put ann/k --value v",
		"upload ann/f " + wasm, "invoke ann/f", "files get ann/f",
	} {
		r := skeinRun(t, "", append([]string{"--server", addr}, strings.Fields(line)...)...)
		want(t, r, exitFailure, "", addr+" can't be reached: connection refused [UNREACHABLE]", "start one with: skein dev", "--server")
	}
	// The address of one service, by its flag and by its variable.
	want(t, skeinRun(t, "", "calls", "--planner", addr), exitFailure, "", "the planner service at "+addr, "--planner")
	t.Setenv("SKEIN_STATE", addr)
	want(t, skeinRun(t, "", "state", "list", "ann"), exitFailure, "", "the state service at "+addr, "--state")
	t.Setenv("SKEIN_SERVER", "https://example.org")
	want(t, skeinRun(t, "", "calls"), exitFailure, "", "NO_TLS")
}

func TestDevRefuses(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		say  []string
	}{
		{[]string{"--listen", "0.0.0.0:0"}, []string{"NOT_LOOPBACK", "--insecure"}},
		{[]string{"--listen", ":0"}, []string{"NOT_LOOPBACK"}},
		{[]string{"--listen", "example.org:0"}, []string{"NOT_LOOPBACK"}},
		{[]string{"--listen", taken.Addr().String(), "--data", t.TempDir()}, []string{"PORT_TAKEN", taken.Addr().String(), "--listen 127.0.0.1:0"}},
		{[]string{"--listen", "127.0.0.1:0", "--data", filepath.Join(file, "below")}, []string{"DATA_DIR", "--data"}},
	} {
		want(t, skeinRun(t, "", append([]string{"dev"}, test.args...)...), exitFailure, "", test.say...)
	}
}

func TestDocs(t *testing.T) {
	dir := t.TempDir()
	want(t, skeinRun(t, "", "internal", "docs", dir), 0, "")
	for name, say := range map[string]string{
		"configuration.md": "| `--listen` | `SKEIN_LISTEN` | `127.0.0.1:8080` | address for gRPC and REST",
		"errors.md":        "| not found | NotFound | 404 | 44 |",
	} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), say) {
			t.Errorf("%s lacks %q:\n%s", name, say, text)
		}
	}
}
