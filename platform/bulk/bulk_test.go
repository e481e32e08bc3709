package bulk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	oteltrace "go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"skein.dev/platform/bulk"
	"skein.dev/platform/fault"
	"skein.dev/platform/relaytest"
	"skein.dev/platform/service"
	bulkv1 "skein.dev/proto/skein/bulk/v1"
	statev1 "skein.dev/proto/skein/state/v1"
)

// owner is a service of which each method does what a test needs.
type owner struct {
	statev1.UnimplementedStateServiceServer
	read  func(*statev1.ReadChangesRequest, grpc.ServerStreamingServer[statev1.ReadChangesResponse]) error
	write func(grpc.ClientStreamingServer[statev1.WriteValueRequest, statev1.WriteValueResponse]) error
	get   func(context.Context, *statev1.GetValueRequest) (*statev1.GetValueResponse, error)
}

func (o *owner) ReadChanges(r *statev1.ReadChangesRequest, out grpc.ServerStreamingServer[statev1.ReadChangesResponse]) error {
	return o.read(r, out)
}

func (o *owner) WriteValue(in grpc.ClientStreamingServer[statev1.WriteValueRequest, statev1.WriteValueResponse]) error {
	return o.write(in)
}

func (o *owner) GetValue(ctx context.Context, r *statev1.GetValueRequest) (*statev1.GetValueResponse, error) {
	return o.get(ctx, r)
}

// start runs a service and gives its address and what stops it, which waits for its end.
func start(t testing.TB, listen string, o *owner, spans ...trace.SpanProcessor) (string, func()) {
	cfg := service.DefaultConfig()
	listening, done := make(chan string, 1), make(chan error, 1)
	cfg.Name, cfg.Listen, cfg.Quiet, cfg.Grace, cfg.Spans = "owner", listen, true, 5*time.Second, spans
	cfg.OnListen = func(addr string) { listening <- addr }
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		done <- service.Run(ctx, cfg, func(_ context.Context, s *service.Server) error {
			statev1.RegisterStateServiceServer(s, o)
			return nil
		})
	}()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	select {
	case addr := <-listening:
		return addr, stop
	case err := <-done:
		done <- nil
		t.Fatal(err)
	}
	return "", nil
}

func dial(t testing.TB, addr string) (*bulk.Conn, statev1.StateServiceClient) {
	conn, err := service.Connect(addr)
	if err != nil {
		t.Fatal(err)
	}
	c := service.Bulk(conn)
	t.Cleanup(func() { _, _ = c.Close(), conn.Close() })
	return c, statev1.NewStateServiceClient(c)
}

// way says how a call came.
func way(ctx context.Context) string {
	if grpc.ServerTransportStreamFromContext(ctx) == nil {
		return "bulk"
	}
	return "grpc"
}

// Bytes, metadata, deadlines and errors arrive, both ways, and where the caller wants them; messages of all sizes.
func TestCalls(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	sizes := []int{0, 1, 100, 5000, 256 << 10, 1 << 20, 4 << 20}
	o := &owner{
		read: func(r *statev1.ReadChangesRequest, out grpc.ServerStreamingServer[statev1.ReadChangesResponse]) error {
			md, _ := metadata.FromIncomingContext(out.Context())
			_, timed := out.Context().Deadline()
			if way(out.Context()) != "bulk" || len(md["who"]) != 1 || md["who"][0] != "ann" || !timed {
				return fault.Internal.New("WAY", "%s %v", way(out.Context()), md)
			}
			for _, n := range sizes {
				if err := out.Send(&statev1.ReadChangesResponse{Offset: int64(n), Data: bytes.Repeat(r.GetKey(), n)}); err != nil {
					return err
				}
			}
			return fault.Conflict.New("VALUE_CHANGED", "as it is").WithHint("again")
		},
		write: func(in grpc.ClientStreamingServer[statev1.WriteValueRequest, statev1.WriteValueResponse]) error {
			total, room := 0, make([]byte, 256<<10)
			for {
				m := &statev1.WriteValueRequest{Data: room}
				if err := in.RecvMsg(m); errors.Is(err, io.EOF) {
					return in.SendAndClose(&statev1.WriteValueResponse{Info: &statev1.ValueInfo{Size: int64(total)}})
				} else if err != nil {
					return err
				}
				if d := m.GetData(); len(d) > 0 && len(d) <= len(room) && &d[0] != &room[0] {
					return fault.Internal.New("ELSEWHERE", "bytes are not where they were wanted")
				}
				total += len(m.GetData())
			}
		},
		get: func(_ context.Context, r *statev1.GetValueRequest) (*statev1.GetValueResponse, error) {
			if r.GetLength() < 0 {
				panic("of a handler")
			}
			return &statev1.GetValueResponse{Data: make([]byte, r.GetLength())}, nil
		},
	}
	addr, stop := start(t, "127.0.0.1:0", o, spans)
	_, c := dial(t, addr)
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "who", "ann"), time.Minute)
	defer cancel()
	for range 3 {
		stream, err := c.ReadChanges(ctx, &statev1.ReadChangesRequest{Key: []byte("k")}, bulk.Prefer())
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range sizes {
			m, err := stream.Recv()
			if err != nil || len(m.GetData()) != n || m.GetOffset() != int64(n) || !bytes.Equal(m.GetData(), bytes.Repeat([]byte("k"), n)) {
				t.Fatalf("of %d bytes %d came, %v", n, len(m.GetData()), err)
			}
		}
		if _, err := stream.Recv(); !errors.Is(err, fault.Conflict) || *fault.From(err) != *fault.Conflict.New("VALUE_CHANGED", "as it is").WithHint("again") {
			t.Fatalf("%+v", fault.From(err))
		}
		w, err := c.WriteValue(ctx, bulk.Prefer())
		sum := 0
		for _, n := range sizes {
			sum += n
			if err == nil {
				err = w.Send(&statev1.WriteValueRequest{Data: make([]byte, n)})
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := w.CloseAndRecv(); err != nil || resp.GetInfo().GetSize() != int64(sum) {
			t.Fatal(resp, err)
		}
		if resp, err := c.GetValue(ctx, &statev1.GetValueRequest{Length: 1 << 20}, bulk.Prefer()); err != nil || len(resp.GetData()) != 1<<20 {
			t.Fatal(len(resp.GetData()), err)
		}
		if _, err := c.GetValue(ctx, &statev1.GetValueRequest{Length: -1}, bulk.Prefer()); fault.From(err).Reason != "PANIC" {
			t.Fatal(err)
		}
	}
	stop()
	kinds := map[string]int{}
	traces := map[string]int{}
	for _, s := range spans.Ended() {
		kinds[s.Name()+" "+s.SpanKind().String()]++
		traces[s.SpanContext().TraceID().String()]++
	}
	for _, m := range []string{"ReadChanges", "WriteValue", "GetValue"} {
		n := 3
		if m == "GetValue" {
			n = 6
		}
		if name := "skein.state.v1.StateService/" + m; kinds[name+" client"] != n || kinds[name+" server"] != n {
			t.Errorf("%s: spans %v", name, kinds)
		}
	}
	for id, n := range traces {
		if n != 2 {
			t.Errorf("trace %s has %d spans", id, n)
		}
	}
}

// What is sent to a call that has failed already is passed over, and the connection carries the next call.
func TestRefusedWhileSending(t *testing.T) {
	var froms sync.Map
	o := &owner{write: func(in grpc.ClientStreamingServer[statev1.WriteValueRequest, statev1.WriteValueResponse]) error {
		p, _ := peer.FromContext(in.Context())
		froms.Store(p.Addr.String(), true)
		return fault.TooLarge.New("TOO_LARGE", "no")
	}}
	addr, _ := start(t, "127.0.0.1:0", o)
	_, c := dial(t, addr)
	for range 3 {
		w, err := c.WriteValue(t.Context(), bulk.Prefer())
		for range 40 {
			if err == nil {
				err = w.Send(&statev1.WriteValueRequest{Data: make([]byte, 1<<20)})
			}
		}
		if err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		if _, err := w.CloseAndRecv(); fault.From(err).Reason != "TOO_LARGE" {
			t.Fatal(err)
		}
	}
	n := 0
	froms.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("%d connections", n)
	}
}

// Cancelling a call, or its deadline, ends it on both sides; the next goes on another connection.
func TestCancel(t *testing.T) {
	begun, ended := make(chan struct{}, 1), make(chan error, 1)
	o := &owner{
		read: func(_ *statev1.ReadChangesRequest, out grpc.ServerStreamingServer[statev1.ReadChangesResponse]) (err error) {
			begun <- struct{}{}
			for err == nil {
				err = out.Send(&statev1.ReadChangesResponse{Data: make([]byte, 1<<20)})
			}
			ended <- err
			return err
		},
		get: func(ctx context.Context, _ *statev1.GetValueRequest) (*statev1.GetValueResponse, error) {
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, ctx.Err()
		},
	}
	addr, _ := start(t, "127.0.0.1:0", o)
	_, c := dial(t, addr)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := c.ReadChanges(ctx, &statev1.ReadChangesRequest{}, bulk.Prefer())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	<-begun
	cancel()
	for err == nil {
		_, err = stream.Recv()
	}
	if !errors.Is(err, fault.Cancelled) {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, fault.Cancelled) {
		t.Error(err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.GetValue(ctx, &statev1.GetValueRequest{}, bulk.Prefer()); !errors.Is(err, fault.Timeout) {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// Calls that their caller gives up without reading their end leave no connection behind: as many as may be open at a time are no bound to
// how many there ever are.
func TestGivenUp(t *testing.T) {
	var ways sync.Map
	o := &owner{write: func(in grpc.ClientStreamingServer[statev1.WriteValueRequest, statev1.WriteValueResponse]) error {
		m, err := in.Recv()
		ways.Store(string(m.GetKey()), way(in.Context()))
		for err == nil {
			_, err = in.Recv()
		}
		if !errors.Is(err, io.EOF) {
			return err
		}
		return in.SendAndClose(&statev1.WriteValueResponse{})
	}}
	spans := tracetest.NewSpanRecorder()
	addr, _ := start(t, "127.0.0.1:0", o, spans)
	_, c := dial(t, addr)
	const calls = 300
	for i := range calls {
		ctx, cancel := context.WithCancel(t.Context())
		w, err := c.WriteValue(ctx, bulk.Prefer())
		if err == nil {
			err = w.Send(&statev1.WriteValueRequest{Key: fmt.Append(nil, i), Data: []byte("x")})
		}
		cancel()
		if err != nil {
			t.Fatal(err)
		}
	}
	ended := func() (n int) {
		for _, s := range spans.Ended() {
			if s.SpanKind() == oteltrace.SpanKindClient && s.Name() == "skein.state.v1.StateService/WriteValue" {
				n++
			}
		}
		return n
	}
	for until := time.Now().Add(20 * time.Second); ended() < calls; time.Sleep(time.Millisecond) { // they end beside their caller
		if time.Now().After(until) {
			t.Fatalf("%d of %d calls ended", ended(), calls)
		}
	}
	w, err := c.WriteValue(t.Context(), bulk.Prefer())
	if err == nil {
		err = w.Send(&statev1.WriteValueRequest{Key: []byte("last"), Data: []byte("x")})
	}
	if err == nil {
		_, err = w.CloseAndRecv()
	}
	if got, _ := ways.Load("last"); got != "bulk" || err != nil {
		t.Errorf("the last of %d calls went by %v: %v", calls+1, got, err)
	}
}

// A process that ends lets calls end, does not wait for connections without one, and its successor is found.
func TestDrain(t *testing.T) {
	begun, on := make(chan struct{}, 1), make(chan struct{})
	o := &owner{read: func(r *statev1.ReadChangesRequest, out grpc.ServerStreamingServer[statev1.ReadChangesResponse]) error {
		if len(r.GetKey()) > 0 {
			begun <- struct{}{}
			<-on
		}
		return out.Send(&statev1.ReadChangesResponse{Data: []byte(way(out.Context()))})
	}}
	addr, stop := start(t, "127.0.0.1:0", o)
	_, c := dial(t, addr)
	read := func(key string) (string, error) {
		s, err := c.ReadChanges(t.Context(), &statev1.ReadChangesRequest{Key: []byte(key)}, bulk.Prefer())
		if err != nil {
			return "", err
		}
		m, err := s.Recv()
		if err == nil {
			_, end := s.Recv()
			if !errors.Is(end, io.EOF) {
				err = end
			}
		}
		return string(m.GetData()), err
	}
	type answer struct {
		text string
		err  error
	}
	slow := make(chan answer, 1)
	go func() { text, err := read("slow"); slow <- answer{text, err} }()
	<-begun
	if text, err := read(""); text != "bulk" || err != nil { // its connection will be idle
		t.Fatal(text, err)
	}
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	close(on)
	if a := <-slow; a.text != "bulk" || a.err != nil {
		t.Error(a)
	}
	<-stopped
	start(t, addr, o)
	for range 200 { // gRPC looks for it again, too
		if text, err := read(""); err == nil {
			if text == "bulk" {
				return
			}
		} else if !errors.Is(err, fault.Unavailable) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("the way past gRPC is not found again")
}

// A service that has no such way is called by gRPC.
func TestWithout(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	old := grpc.NewServer(grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
		asked.Add(1)
		return fault.Unsupported.New("UNIMPLEMENTED", "unknown").GRPCStatus().Err()
	}))
	statev1.RegisterStateServiceServer(old, &owner{get: func(ctx context.Context, _ *statev1.GetValueRequest) (*statev1.GetValueResponse, error) {
		return &statev1.GetValueResponse{Data: []byte(way(ctx))}, nil
	}})
	go func() { _ = old.Serve(lis) }()
	t.Cleanup(old.Stop)
	_, c := dial(t, lis.Addr().String())
	for range 3 {
		if r, err := c.GetValue(t.Context(), &statev1.GetValueRequest{}, bulk.Prefer()); err != nil || string(r.GetData()) != "grpc" {
			t.Error(r, err)
		}
	}
	if asked.Load() != 1 {
		t.Errorf("it was asked %d times", asked.Load())
	}
}

// A connection that breaks: what was read goes on by gRPC if nothing was answered; else it is an error, of the kind that gRPC has.
func TestBroken(t *testing.T) {
	for _, after := range []int{0, 1} {
		var cut atomic.Pointer[net.Conn]
		came := make(chan struct{})
		o := &owner{read: func(_ *statev1.ReadChangesRequest, out grpc.ServerStreamingServer[statev1.ReadChangesResponse]) error {
			if way(out.Context()) == "bulk" {
				for range after {
					if err := out.Send(&statev1.ReadChangesResponse{Data: make([]byte, 1<<10)}); err != nil {
						return err
					}
				}
				if after > 0 {
					<-came
				}
				_ = (*cut.Load()).Close()
				return fault.Internal.New("CUT", "nobody hears this")
			}
			return out.Send(&statev1.ReadChangesResponse{Data: []byte(way(out.Context()))})
		}}
		addr, _ := start(t, "127.0.0.1:0", o)
		_, c := dial(t, relay(t, addr, &cut))
		s, err := c.ReadChanges(t.Context(), &statev1.ReadChangesRequest{}, bulk.Prefer())
		if err != nil {
			t.Fatal(err)
		}
		m, err := s.Recv()
		if after == 0 && (err != nil || string(m.GetData()) != "grpc") {
			t.Error(m, err)
		}
		if after == 1 && err == nil {
			close(came)
			if _, err = s.Recv(); !errors.Is(err, fault.Unavailable) {
				t.Error(err)
			}
		}
	}
}

// What only reads, and can't be answered for now, is asked again by gRPC, which tries for a while.
func TestUnavailable(t *testing.T) {
	o := &owner{get: func(ctx context.Context, _ *statev1.GetValueRequest) (*statev1.GetValueResponse, error) {
		if way(ctx) == "bulk" {
			return nil, fault.Unavailable.New("REDIS_DOWN", "for now")
		}
		return &statev1.GetValueResponse{Data: []byte("grpc")}, nil
	}}
	addr, _ := start(t, "127.0.0.1:0", o)
	_, c := dial(t, addr)
	if r, err := c.GetValue(t.Context(), &statev1.GetValueRequest{}, bulk.Prefer()); err != nil || string(r.GetData()) != "grpc" {
		t.Error(r, err)
	}
}

// relay passes connections on; cut has the last that is not gRPC's.
func relay(t *testing.T, to string, cut *atomic.Pointer[net.Conn]) string {
	r, grpcs := relaytest.Listen(t), true
	r.Serve(to, func(near, far net.Conn) {
		if !grpcs {
			cut.Store(&near)
		}
		grpcs = false // the first is
		go relaytest.Pass(far, near, nil)
		go relaytest.Pass(near, far, nil)
	})
	return r.Addr
}

// A ticket lets one connection in, and nobody comes in without.
func TestTicket(t *testing.T) {
	addr, _ := start(t, "127.0.0.1:0", &owner{})
	b, _ := dial(t, addr)
	r, err := bulkv1.NewBulkServiceClient(b).OpenBulk(t.Context(), &bulkv1.OpenBulkRequest{})
	if err != nil || len(r.GetTicket()) != 32 {
		t.Fatal(r, err)
	}
	enter := func(ticket []byte) bool {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_, _ = conn.Write(append([]byte(bulk.Preface), ticket...))
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		var answer [4]byte
		_, err = io.ReadFull(conn, answer[:])
		return err == nil
	}
	if !enter(r.GetTicket()) || enter(r.GetTicket()) || enter(make([]byte, 32)) {
		t.Error("who has no ticket comes in, or who has one does not")
	}
}
