package blobtest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"skein.dev/platform/blob"
	"skein.dev/platform/subprocess"
)

const (
	user     = "skein-test"
	password = "skein-test-password"
)

// MinIO starts a real MinIO for this test and gives the URL of a bucket in it; its credentials are in the test's
// environment. Without a minio binary the test is skipped, or fails if SKEIN_REQUIRE_TOOLS is set.
func MinIO(t testing.TB) (url string) { return Start(t, "minio").URL() }

// Server is an S3 server, a child process of the test.
type Server struct {
	kind, bin, dir, addr string

	t   testing.TB
	out *output
	cmd *exec.Cmd
	end chan struct{} // closed when cmd is gone
}

// Start runs a server of a kind, "minio" or "versitygw", for the length of the test.
func Start(t testing.TB, kind string) *Server {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", user)
	t.Setenv("AWS_SECRET_ACCESS_KEY", password)
	t.Setenv("AWS_SESSION_TOKEN", "")
	s := &Server{kind: kind, bin: find(t, kind), dir: t.TempDir(), t: t}
	t.Cleanup(s.Kill)
	var err error
	for range 5 {
		s.addr = freePort(t)
		if err = s.start(); err == nil {
			return s
		}
	}
	t.Fatal(err)
	return nil
}

// URL is for blob.Open.
func (s *Server) URL() string { return "s3://skein-test?endpoint=http://" + s.addr }

// Kill ends the server at once.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	<-s.end
	s.cmd = nil
}

// Pause stops the server where it is: it accepts connections and says nothing. Resume lets it go on.
func (s *Server) Pause()  { _ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGSTOP) }
func (s *Server) Resume() { _ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGCONT) }

// Restart brings a killed server back with its objects and address.
func (s *Server) Restart() {
	s.t.Helper()
	if err := s.start(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *Server) start() error {
	s.out = &output{}
	var cmd *exec.Cmd
	switch s.kind {
	case "minio":
		cmd = exec.Command(s.bin, "server", "--quiet", "--address", s.addr, "--console-address", freePort(s.t), s.dir)
		cmd.Env = append(os.Environ(), "MINIO_ROOT_USER="+user, "MINIO_ROOT_PASSWORD="+password, "MINIO_BROWSER=off", "MINIO_UPDATE=off")
	case "versitygw":
		cmd = exec.Command(s.bin, "--port", s.addr, "-q", "--keep-alive", "posix", s.dir)
		cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+user, "ROOT_SECRET_KEY="+password)
	default:
		return fmt.Errorf("no server of kind %q", s.kind)
	}
	cmd.Stdout, cmd.Stderr = s.out, s.out
	cmd.SysProcAttr = subprocess.Bound(syscall.SysProcAttr{Setpgid: true})
	started, end := make(chan error), make(chan struct{})
	go func() {
		// The kernel kills the child when the thread that started it ends, so that thread stays.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(end)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	s.cmd, s.end = cmd, end
	if err := s.await(); err != nil {
		s.Kill()
		return fmt.Errorf("%s: %w\n%s", s.bin, err, s.out)
	}
	return nil
}

// await returns when the server does what a bucket needs.
func (s *Server) await() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	b, err := blob.Open(ctx, s.URL())
	if err != nil {
		return err
	}
	for {
		if err = b.Ping(ctx); err == nil {
			return nil
		}
		select {
		case <-s.end:
			return fmt.Errorf("it ended: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("not ready in time: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// find looks for a binary where the environment says (MINIO_BIN), on PATH, and in the .bin of a directory above.
func find(t testing.TB, name string) string {
	t.Helper()
	if bin := os.Getenv(strings.ToUpper(name) + "_BIN"); bin != "" {
		return bin
	}
	if bin, err := exec.LookPath(name); err == nil {
		return bin
	}
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		bin := filepath.Join(dir, ".bin", name)
		if st, err := os.Stat(bin); err == nil && st.Mode().IsRegular() {
			return bin
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	why := fmt.Sprintf("there is no %s on PATH or in .bin; `make test` installs it", name)
	if require := os.Getenv("SKEIN_REQUIRE_TOOLS"); require != "" && require != "0" {
		t.Fatal(why)
	}
	t.Skip(why)
	return ""
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// output keeps the beginning of what a server says.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if room := 16<<10 - o.buf.Len(); room > 0 {
		o.buf.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
