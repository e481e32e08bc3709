package cluster

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Redis gives a redis-server that is not started yet. It keeps what it acknowledged.
func Redis(t testing.TB) *Process {
	t.Helper()
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		missing(t, "there is no redis-server on PATH: %v (Debian: apt-get install redis-server; `make test` does)", err)
	}
	dir := t.TempDir()
	p := &Process{Name: "redis-server", Addr: FreePort(t), Dir: dir, t: t, bin: bin, ready: ping}
	p.serve = func(addr string) []string {
		_, port, _ := net.SplitHostPort(addr)
		return []string{"--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "yes", "--appendfsync", "always", "--dir", dir}
	}
	return p
}

func ping(ctx context.Context, p *Process) error {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", p.Addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprint(conn, "PING\r\n"); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && line != "+PONG\r\n" {
		err = fmt.Errorf("it answers %q", line)
	}
	return err
}

// Tracing is a Jaeger.
type Tracing struct {
	*Process        // Addr is that of its query API
	OTLP     string // where it takes spans, by gRPC
}

// Jaeger starts the all-in-one whose binary JAEGER_BIN names. Without it the test is skipped, or fails if
// SKEIN_REQUIRE_JAEGER is set.
func Jaeger(t testing.TB) *Tracing {
	t.Helper()
	bin := os.Getenv("JAEGER_BIN")
	if bin == "" {
		const why = "JAEGER_BIN is not set; `make test-jaeger` builds one and runs this test"
		if v := os.Getenv("SKEIN_REQUIRE_JAEGER"); v != "" && v != "0" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	bin, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	otlp := FreePort(t)
	p := &Process{Name: "jaeger", Addr: FreePort(t), t: t, bin: bin, args: []string{
		"--memory.max-traces=1000", "--log-level=warn", "--collector.otlp.grpc.host-port=" + otlp,
	}}
	for _, unused := range []string{"admin.http", "collector.grpc-server", "collector.http-server", "collector.otlp.http", "query.grpc-server"} {
		p.args = append(p.args, "--"+unused+".host-port="+FreePort(t))
	}
	p.env = []string{"SPAN_STORAGE_TYPE=memory"}
	p.serve = func(addr string) []string { return []string{"--query.http-server.host-port=" + addr} }
	p.ready = func(ctx context.Context, p *Process) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Addr+"/api/services", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("/api/services answers %d", resp.StatusCode)
		}
		_ = resp.Body.Close()
		return err
	}
	return &Tracing{p.Start(), otlp}
}
