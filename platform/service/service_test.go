package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"skein.dev/platform/fault"
)

// patience is longer than anything here takes on a busy machine.
const patience = 20 * time.Second

// running is a service that a test started.
type running struct {
	t    *testing.T
	addr string
	stop context.CancelFunc
	done chan error
}

// run starts a service whose start function is start; what the test does not stop ends with it.
func run(t *testing.T, grace time.Duration, start Start) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{t: t, stop: cancel, done: make(chan error, 1)}
	listening := make(chan string, 1)
	cfg := DefaultConfig().Named("test")
	cfg.Listen, cfg.Grace, cfg.Quiet, cfg.OnListen = "127.0.0.1:0", grace, true, func(addr string) { listening <- addr }
	go func() { r.done <- Run(ctx, cfg, start) }()
	select {
	case r.addr = <-listening:
	case err := <-r.done:
		t.Fatalf("it ended: %v", err)
	case <-time.After(patience):
		t.Fatal("it does not listen")
	}
	t.Cleanup(func() { cancel(); r.ended() })
	return r
}

// ended waits for the service's end.
func (r *running) ended() error {
	select {
	case err := <-r.done:
		r.done <- err // for the next who asks
		return err
	case <-time.After(patience):
		r.t.Error("the service does not end")
		return nil
	}
}

func (r *running) dial() *grpc.ClientConn {
	r.t.Helper()
	conn, err := Connect(r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (r *running) get(path string) (status int, body string, err error) {
	resp, err := http.Get("http://" + r.addr + path)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

func (r *running) await(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// say is a unary method, test.Say/Say, that a function answers.
func say(s *Server, f func(ctx context.Context, in string) (string, error)) {
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "test.Say", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Say", Handler: func(_ any, ctx context.Context, dec func(any) error, mw grpc.UnaryServerInterceptor) (any, error) {
			in := &wrapperspb.StringValue{}
			if err := dec(in); err != nil {
				return nil, err
			}
			return mw(ctx, in, &grpc.UnaryServerInfo{FullMethod: "/test.Say/Say"}, func(ctx context.Context, in any) (any, error) {
				out, err := f(ctx, in.(*wrapperspb.StringValue).GetValue())
				return wrapperspb.String(out), err
			})
		}}},
	}, nil)
}

func ask(ctx context.Context, conn *grpc.ClientConn, in string) (string, error) {
	out := &wrapperspb.StringValue{}
	err := conn.Invoke(ctx, "/test.Say/Say", wrapperspb.String(in), out)
	return out.GetValue(), err
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func TestOnePortForBoth(t *testing.T) {
	r := run(t, time.Second, func(_ context.Context, s *Server) error {
		say(s, func(_ context.Context, in string) (string, error) { return "heard " + in, nil })
		s.Handle("POST /raw", func(w http.ResponseWriter, r *http.Request) error {
			_, err := io.Copy(w, r.Body)
			return err
		})
		return nil
	})
	if got, err := ask(within(t), r.dial(), "a"); got != "heard a" || err != nil {
		t.Errorf("gRPC answers %q, %v", got, err)
	}
	resp, err := http.Post("http://"+r.addr+"/raw", "", strings.NewReader("bytes"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if b, _ := io.ReadAll(resp.Body); string(b) != "bytes" {
		t.Errorf("REST answers %q", b)
	}
	if status, body, err := r.get("/nowhere"); status != http.StatusNotFound || !strings.Contains(body, "NO_ROUTE") {
		t.Errorf("an unknown route answers %d %s %v", status, body, err)
	}
	for _, path := range []string{"/livez", "/metrics"} {
		if status, _, err := r.get(path); status != http.StatusOK || err != nil {
			t.Errorf("%s: %d, %v", path, status, err)
		}
	}
}

func TestReflection(t *testing.T) {
	r := run(t, time.Second, func(_ context.Context, s *Server) error {
		say(s, func(context.Context, string) (string, error) { return "", nil })
		return nil
	})
	stream, err := reflectionpb.NewServerReflectionClient(r.dial()).ServerReflectionInfo(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	resp, err := stream.Recv()
	if err != nil || !strings.Contains(fmt.Sprint(resp.GetListServicesResponse()), "test.Say") {
		t.Errorf("%v, %v", resp, err)
	}
}

// Readiness follows the checks both ways, on /healthz and for whoever watches by gRPC.
func TestReadiness(t *testing.T) {
	var mu sync.Mutex
	broken := errors.New("the store is away")
	r := run(t, time.Second, func(_ context.Context, s *Server) error {
		s.Ready(func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			return broken
		})
		return nil
	})
	watch, err := healthpb.NewHealthClient(r.dial()).Watch(within(t), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	next := func(want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		if got, err := watch.Recv(); err != nil || got.GetStatus() != want {
			t.Fatalf("health is %v, %v; want %v", got, err, want)
		}
	}
	next(healthpb.HealthCheckResponse_NOT_SERVING)
	r.await("/healthz says why", func() bool {
		status, body, _ := r.get("/healthz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "the store is away")
	})
	set := func(err error) { mu.Lock(); broken = err; mu.Unlock() }
	set(nil)
	next(healthpb.HealthCheckResponse_SERVING)
	if status, _, _ := r.get("/healthz"); status != http.StatusOK {
		t.Errorf("/healthz answers %d while it serves", status)
	}
	set(errors.New("again"))
	next(healthpb.HealthCheckResponse_NOT_SERVING)
	r.stop()
	if err := r.ended(); err != nil { // a health watch does not hold the drain up
		t.Error(err)
	}
}

// A service that is ready and hears so again stays ready.
func TestStaysReady(t *testing.T) {
	s := newServer(Config{Quiet: true}, slog.New(slog.DiscardHandler), &net.TCPAddr{})
	defer s.close()
	state := func() healthpb.HealthCheckResponse_ServingStatus {
		resp, err := s.health.Check(t.Context(), &healthpb.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetStatus()
	}
	for i, step := range []struct {
		notReady error
		want     healthpb.HealthCheckResponse_ServingStatus
	}{
		{nil, healthpb.HealthCheckResponse_SERVING},
		{nil, healthpb.HealthCheckResponse_SERVING},
		{errors.New("why"), healthpb.HealthCheckResponse_NOT_SERVING},
		{nil, healthpb.HealthCheckResponse_SERVING},
		{errDraining, healthpb.HealthCheckResponse_NOT_SERVING},
		{nil, healthpb.HealthCheckResponse_NOT_SERVING},
	} {
		if s.turn(step.notReady); state() != step.want {
			t.Errorf("step %d: %v after %v", i, state(), step.notReady)
		}
	}
}

func TestKindsCrossTheWire(t *testing.T) {
	r := run(t, time.Second, func(_ context.Context, s *Server) error {
		say(s, func(_ context.Context, in string) (string, error) {
			for _, k := range fault.Kinds() {
				if k.Text == in {
					return "", fmt.Errorf("on the way: %w", k.New("A_REASON", "about %s", in).WithHint("change it").WithRetry(2*time.Second))
				}
			}
			return "", errors.New("a secret of the house")
		})
		return nil
	})
	conn := r.dial()
	for _, k := range fault.Kinds() {
		_, err := ask(within(t), conn, k.Text)
		e := fault.From(err)
		if !errors.Is(err, k) && k != fault.Internal || e.Reason != "A_REASON" || e.Hint != "change it" || e.RetryAfter != 2*time.Second {
			t.Errorf("%s arrives as %#v", k.Text, e)
		}
	}
	if _, err := ask(within(t), conn, "?"); !errors.Is(err, fault.Internal) || strings.Contains(err.Error(), "secret") {
		t.Errorf("an error without a kind arrives as %v", err)
	}
}

func TestPanics(t *testing.T) {
	r := run(t, time.Second, func(_ context.Context, s *Server) error {
		say(s, func(context.Context, string) (string, error) { panic("by gRPC") })
		s.Handle("GET /panic", func(http.ResponseWriter, *http.Request) error { panic("by REST") })
		s.Handle("GET /half", func(w http.ResponseWriter, _ *http.Request) error {
			_, _ = io.WriteString(w, "half an answer")
			_ = http.NewResponseController(w).Flush()
			panic("too late")
		})
		return nil
	})
	if _, err := ask(within(t), r.dial(), ""); !errors.Is(err, fault.Internal) || fault.From(err).Reason != "PANIC" {
		t.Errorf("gRPC: %v", err)
	}
	if status, body, err := r.get("/panic"); status != http.StatusInternalServerError || !strings.Contains(body, "PANIC") || strings.Contains(body, "by REST") {
		t.Errorf("REST: %d %s %v", status, body, err)
	}
	if _, body, err := r.get("/half"); err == nil || strings.Contains(body, "PANIC") {
		t.Errorf("half an answer reads as a whole one: %q, %v", body, err)
	}
	if status, _, err := r.get("/livez"); status != http.StatusOK {
		t.Errorf("it lives no more: %d %v", status, err)
	}
}

// A client that sends more than we read gets our answer all the same, not a reset connection.
func TestAnswerBeforeTheBodyIsRead(t *testing.T) {
	r := run(t, time.Second, func(_ context.Context, s *Server) error {
		s.Handle("POST /refuse", func(http.ResponseWriter, *http.Request) error { return fault.TooLarge.New("TOO_LARGE", "no") })
		return nil
	})
	for i := range 20 {
		req, err := http.NewRequest(http.MethodPost, "http://"+r.addr+"/refuse", io.LimitReader(zeros{}, 16<<20))
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength, req.Close = 16<<20, i%2 == 0
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("request %d: %d", i, resp.StatusCode)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestLargeJSON(t *testing.T) {
	r := run(t, time.Second, func(context.Context, *Server) error { return nil })
	for name, body := range map[string]io.Reader{
		"announced": strings.NewReader(strings.Repeat(" ", maxJSON+1)),
		"streamed":  io.LimitReader(struct{ io.Reader }{strings.NewReader(strings.Repeat(" ", maxJSON+1))}, maxJSON+1),
	} {
		resp, err := http.Post("http://"+r.addr+"/v1/any", "application/json", body)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode/100 != 4 {
			t.Errorf("%s: %d", name, resp.StatusCode)
		}
	}
}

// What runs when the service is told to go may end; what is closed is closed after it, in reverse order.
func TestDrain(t *testing.T) {
	entered, release := make(chan struct{}, 2), make(chan struct{})
	var mu sync.Mutex
	var order []string
	note := func(s string) { mu.Lock(); order = append(order, s); mu.Unlock() }
	r := run(t, patience, func(_ context.Context, s *Server) error {
		s.Close(func() error { note("closed first opened"); return nil })
		s.Close(func() error { note("closed last opened"); return nil })
		s.Drain(func(context.Context) error { note("drained"); return nil })
		say(s, func(context.Context, string) (string, error) {
			entered <- struct{}{}
			<-release
			note("handled")
			return "done", nil
		})
		s.Handle("GET /slow", func(w http.ResponseWriter, _ *http.Request) error {
			entered <- struct{}{}
			<-release
			note("handled")
			_, err := io.WriteString(w, "done")
			return err
		})
		return nil
	})
	answers := make(chan string, 2)
	conn := r.dial()
	go func() { got, err := ask(context.Background(), conn, ""); answers <- fmt.Sprint(got, err) }()
	go func() { _, body, err := r.get("/slow"); answers <- fmt.Sprint(body, err) }()
	for range 2 {
		select {
		case <-entered:
		case <-time.After(patience):
			t.Fatal("the requests don't arrive")
		}
	}
	r.stop()
	r.await("the drain step runs", func() bool { mu.Lock(); defer mu.Unlock(); return len(order) > 0 })
	close(release)
	for range 2 {
		if got := <-answers; got != "done<nil>" && got != "done <nil>" {
			t.Errorf("a request that was running got %s", got)
		}
	}
	if err := r.ended(); err != nil {
		t.Error(err)
	}
	if got := strings.Join(order, ", "); got != "drained, handled, handled, closed last opened, closed first opened" {
		t.Error(got)
	}
	if _, err := net.Dial("tcp", r.addr); err == nil {
		t.Error("the port is still open")
	}
}

// A request that doesn't end within the grace period is cut, and its handler has ended before anything is closed.
func TestGraceEnds(t *testing.T) {
	entered, closed := make(chan struct{}), make(chan struct{})
	handled := make(chan bool, 1)
	r := run(t, 50*time.Millisecond, func(_ context.Context, s *Server) error {
		s.Close(func() error { close(closed); return nil })
		say(s, func(ctx context.Context, _ string) (string, error) {
			close(entered)
			<-ctx.Done()
			select {
			case <-closed:
				handled <- false
			default:
				handled <- true
			}
			return "", ctx.Err()
		})
		return nil
	})
	conn := r.dial()
	go func() { _, _ = ask(context.Background(), conn, "") }()
	<-entered
	r.stop()
	if err := r.ended(); err != nil {
		t.Error(err)
	}
	if !<-handled {
		t.Error("it was closed under a handler")
	}
}

func TestLoopThatFails(t *testing.T) {
	why := errors.New("the loop broke")
	r := run(t, time.Second, func(_ context.Context, s *Server) error {
		s.Go(func(context.Context) error { return nil }) // only ends itself
		s.Go(func(ctx context.Context) error {
			select {
			case <-time.After(20 * time.Millisecond):
				return why
			case <-ctx.Done():
				return nil
			}
		})
		return nil
	})
	if err := r.ended(); !errors.Is(err, why) {
		t.Errorf("Run gives %v", err)
	}
}

// split serves a splitter with this patience, and says how it ended.
func split(t *testing.T, patience time.Duration) (*splitter, chan error) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newSplitter(lis)
	s.patience = patience
	served := make(chan error, 1)
	go func() { served <- s.serve() }()
	return s, served
}

// silent opens a connection that says first and no more.
func silent(t *testing.T, s *splitter, first string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", s.lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_, _ = io.WriteString(conn, first)
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	return conn
}

// A connection that says nothing must not hold its place, nor the end of the service.
func TestSilentConnections(t *testing.T) {
	quick, served := split(t, 30*time.Millisecond)
	for _, first := range []string{"", "PRI"} {
		_, err := silent(t, quick, first).Read(make([]byte, 1))
		if timeout := net.Error(nil); err == nil || errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("after %q it is told: %v", first, err)
		}
	}
	quick.close()
	if err := <-served; err != nil {
		t.Error(err)
	}

	slow, served := split(t, time.Hour)
	conn := silent(t, slow, "PR")
	for fresh := 0; fresh == 0; time.Sleep(time.Millisecond) {
		slow.mu.Lock()
		fresh = len(slow.fresh)
		slow.mu.Unlock()
	}
	slow.close()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a silent connection outlives the splitter")
	}
}
