// Package redistest runs real Redis servers for tests.
package redistest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"skein.dev/platform/subprocess"
)

// Server is a Redis server, a child process of the test that may be killed and started again.
type Server struct {
	Addr string
	args []string
	cmd  *exec.Cmd
}

// New gives a server on a free port that keeps what it acknowledged, and is not started yet; args are further settings, the last
// of one kind wins. Without the program the test is skipped, or fails if SKEIN_REQUIRE_TOOLS is set.
func New(t testing.TB, args ...string) *Server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		if os.Getenv("SKEIN_REQUIRE_TOOLS") == "1" {
			t.Fatal("redis-server is not installed, and SKEIN_REQUIRE_TOOLS=1")
		}
		t.Skip("redis-server is not installed")
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := lis.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	_ = lis.Close()
	return At(addr, append([]string{
		"--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always",
	}, args...)...)
}

// At gives a server that listens at an address by what its arguments say.
func At(addr string, args ...string) *Server { return &Server{Addr: addr, args: args} }

// Start gives a server that runs for the length of the test.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	r := New(t, append([]string{"--dir", t.TempDir()}, args...)...)
	r.Start(t)
	t.Cleanup(r.Kill)
	return r
}

// URL is for --redis-url.
func (r *Server) URL() string { return "redis://" + r.Addr }

// Start starts the server and waits until it answers.
func (r *Server) Start(t testing.TB) {
	t.Helper()
	var out bytes.Buffer
	r.cmd = exec.Command("redis-server", r.args...)
	r.cmd.Stdout, r.cmd.Stderr = &out, &out
	r.cmd.SysProcAttr = subprocess.Bound(syscall.SysProcAttr{})
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if r.Says("PING") == "+PONG" {
			return
		}
		if time.Now().After(end) {
			r.Kill()
			t.Fatalf("redis-server does not answer:\n%s", out.String())
		}
	}
}

// Says gives the first line of the answer to a command.
func (r *Server) Says(command string) string {
	line, _, _ := strings.Cut(r.Text(command), "\r\n")
	return line
}

// Text gives what one read of the answer to a command has.
func (r *Server) Text(command string) string {
	conn, err := net.DialTimeout("tcp", r.Addr, time.Second)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	_, _ = fmt.Fprintf(conn, "%s\r\n", command)
	buf := make([]byte, 4096)
	n, _ := conn.Read(buf)
	return string(buf[:n])
}

// Kill ends the server as a crash would.
func (r *Server) Kill() {
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
}

// Pause stops the server where it is: it accepts connections and says nothing.
func (r *Server) Pause(t testing.TB) { r.signal(t, syscall.SIGSTOP) }

// Resume lets it go on.
func (r *Server) Resume(t testing.TB) { r.signal(t, syscall.SIGCONT) }

func (r *Server) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := r.cmd.Process.Signal(sig); err != nil {
		t.Error(err)
	}
}
