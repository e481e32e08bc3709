package bulk

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"
	"google.golang.org/protobuf/proto"

	bulkv1 "skein.dev/proto/skein/bulk/v1"
	statev1 "skein.dev/proto/skein/state/v1"
)

type sink struct {
	statev1.UnimplementedStateServiceServer
}

func (sink) WriteValue(in grpc.ClientStreamingServer[statev1.WriteValueRequest, statev1.WriteValueResponse]) error {
	m := &statev1.WriteValueRequest{}
	for in.RecvMsg(m) == nil {
	}
	return in.SendAndClose(&statev1.WriteValueResponse{})
}

func (sink) GetValue(context.Context, *statev1.GetValueRequest) (*statev1.GetValueResponse, error) {
	return &statev1.GetValueResponse{Data: []byte("x")}, nil
}

// recorded is what a client sends, so that the fuzzer begins with something that gets far.
type recorded struct {
	net.Conn
	bytes.Buffer
}

func (r *recorded) Write(p []byte) (int, error)      { return r.Buffer.Write(p) }
func (r *recorded) Read(p []byte) (int, error)       { return r.Buffer.Read(p) }
func (r *recorded) SetWriteDeadline(time.Time) error { return nil }

func calls(method string, messages ...proto.Message) []byte {
	var r recorded
	w := newWire(&r)
	if w.add(kindCall, &bulkv1.BulkCall{Method: "/skein.state.v1.StateService/" + method}, 0) != nil {
		panic("a call")
	}
	for _, m := range messages {
		if w.send(m) != nil {
			panic("a message")
		}
	}
	if w.add(kindLast, nil, 0) != nil || w.flush(nil) != nil {
		panic("the last")
	}
	return r.Bytes()
}

// Whatever a client sends that has been let in, the server answers or closes, and takes no more memory than a frame may have.
func FuzzServer(f *testing.F) {
	f.Add(calls("WriteValue", &statev1.WriteValueRequest{User: "ann", Data: []byte("some")}, &statev1.WriteValueRequest{Data: []byte("more")}))
	f.Add(calls("GetValue", &statev1.GetValueRequest{User: "ann"}))
	f.Add(calls("GetValue"))
	f.Add(calls("HoldLock"))
	f.Add([]byte{kindCall, 0xff, 0xff, 0xff, 0, 0, 0, 0})
	f.Add([]byte{kindMessage, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	pass := Around{
		Unary: func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			return h(ctx, req)
		},
		Stream: func(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			return h(srv, s)
		},
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		s := NewServer(pass, nobody{})
		s.Register(&statev1.StateService_ServiceDesc, sink{})
		ours, theirs := net.Pipe()
		w := newWire(ours)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for s.turn(w, true) && s.call(w) && s.turn(w, false) {
			}
			_ = ours.Close()
		}()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		_, _ = theirs.Write(input)
		_ = theirs.Close()
		<-done
	})
}

// nobody sees no calls.
type nobody struct{}

func (nobody) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (nobody) HandleRPC(context.Context, stats.RPCStats)                         {}
func (nobody) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (nobody) HandleConn(context.Context, stats.ConnStats)                       {}

// A server that leaves says so on connections without a call, also if one is just coming: it is made again by gRPC, changes too.
func TestLeave(t *testing.T) {
	s := NewServer(Around{}, nobody{})
	s.Register(&statev1.StateService_ServiceDesc, sink{})
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(lis) }()
	ticket, err := s.OpenBulk(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	w := newWire(conn)
	w.out = append(w.out, ticket.GetTicket()...)
	answer := make([]byte, len(welcome))
	if err := w.flush(nil); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(w.in, answer); err != nil || string(answer) != welcome {
		t.Fatal(string(answer), err)
	}
	left := make(chan struct{})
	go func() { s.Drain(t.Context()); close(left) }()
	if _, err := w.in.Peek(1); err != nil { // it has said so
		t.Fatal(err)
	}
	c := (&Conn{watch: nobody{}, open: 1}).call(t.Context(), w, unary, "/skein.state.v1.StateService/SetValue", nil)
	by := &other{}
	c.again = func() (grpc.ClientStream, error) { return by, nil }
	_ = c.SendMsg(&statev1.SetValueRequest{Data: make([]byte, 1<<20)})
	_ = c.CloseSend()
	if err := c.RecvMsg(&statev1.SetValueResponse{}); err != nil || len(by.sent) != 1 || len(by.sent[0].(*statev1.SetValueRequest).GetData()) != 1<<20 {
		t.Error(by.sent, err)
	}
	<-left
	s.Stop()
	_ = lis.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// other is a call by gRPC.
type other struct {
	grpc.ClientStream
	sent []any
}

func (o *other) SendMsg(m any) error { o.sent = append(o.sent, m); return nil }
func (o *other) CloseSend() error    { return nil }
func (o *other) RecvMsg(any) error   { return nil }
