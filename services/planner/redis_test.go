package planner

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// redisServer is a real Redis.
type redisServer struct {
	addr string
	args []string
	cmd  *exec.Cmd
}

// newRedis gives a Redis that keeps what it acknowledged. Without the program the test is skipped, which CI forbids.
func newRedis(t testing.TB, args ...string) *redisServer {
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
	return &redisServer{addr: addr, args: append([]string{
		"--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always",
	}, args...)}
}

// startRedis starts one of a test's own, which it may kill.
func startRedis(t *testing.T, args ...string) *redisServer {
	t.Helper()
	r := newRedis(t, append(args, "--dir", t.TempDir())...)
	r.start(t)
	t.Cleanup(r.kill)
	return r
}

var shared struct {
	sync.Once
	redis     *redisServer
	databases atomic.Int64
}

// sharedRedis gives the URL of an empty database for a test that does no harm to the server.
func sharedRedis(t *testing.T) string {
	t.Helper()
	shared.Do(func() {
		shared.redis = newRedis(t, "--databases", "5000", "--appendonly", "no", "--dir", os.TempDir())
		shared.redis.start(t)
	})
	return fmt.Sprintf("%s/%d", shared.redis.url(), shared.databases.Add(1))
}

func (r *redisServer) url() string { return "redis://" + r.addr }

func (r *redisServer) start(t testing.TB) {
	t.Helper()
	var out bytes.Buffer
	r.cmd = exec.Command("redis-server", r.args...)
	r.cmd.Stdout, r.cmd.Stderr = &out, &out
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if r.says("PING") == "+PONG" {
			return
		}
		if time.Now().After(end) {
			r.kill()
			t.Fatalf("redis-server does not answer:\n%s", out.String())
		}
	}
}

// says gives the first line of the answer to a command.
func (r *redisServer) says(command string) string {
	conn, err := net.DialTimeout("tcp", r.addr, time.Second)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	_, _ = fmt.Fprintf(conn, "%s\r\n", command)
	buf := make([]byte, 512)
	n, _ := conn.Read(buf)
	line, _, _ := strings.Cut(string(buf[:n]), "\r\n")
	return line
}

func (r *redisServer) kill() {
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
}

// pause stops the server where it is: it accepts connections and says nothing.
func (r *redisServer) pause()  { _ = r.cmd.Process.Signal(syscall.SIGSTOP) }
func (r *redisServer) resume() { _ = r.cmd.Process.Signal(syscall.SIGCONT) }
