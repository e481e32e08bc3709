package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	callv1 "skein.dev/proto/skein/call/v1"
	plannerv1 "skein.dev/proto/skein/planner/v1"
)

// roleArg makes this program one of its own children.
const roleArg = "role"

// play is what a child does until it is killed.
func play(role string, args []string) error {
	switch {
	case role == "grpc-echo":
		return serve(func(lis net.Listener) error {
			s := grpc.NewServer()
			s.RegisterService(&echoService, nil)
			return s.Serve(lis)
		})
	case role == "http-echo":
		return serve(func(lis net.Listener) error {
			return (&http.Server{Handler: http.HandlerFunc(echoHTTP), ReadHeaderTimeout: 10 * time.Second}).Serve(lis)
		})
	case role == "idle-executor" && len(args) == 1:
		return idleExecutor(args[0])
	}
	return fmt.Errorf("no role %s %q", role, args)
}

func serve(on func(net.Listener) error) error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	listening(lis.Addr().String())
	return on(lis)
}

// listening says it as platform/service does.
func listening(addr string) {
	slog.New(slog.NewJSONHandler(os.Stderr, nil)).Info("listening", "address", addr)
}

// echoService is the least that a gRPC service can be: grpc-go without options and a handler that does nothing.
var echoService = grpc.ServiceDesc{
	ServiceName: "bench.Echo",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Echo",
		Handler: func(_ any, _ context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.BytesValue)
			if err := dec(in); err != nil {
				return nil, err
			}
			return in, nil
		},
	}},
}

// echoHTTP is the same for net/http, as one would write it.
func echoHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body)
}

// idleExecutor attaches to a planner as executors do and answers each call at once with its input: what then remains is
// the planner's cost and the stream's.
func idleExecutor(planner string) error {
	conn, err := grpc.NewClient(planner, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	stream, err := plannerv1.NewDispatchServiceClient(conn).Attach(context.Background())
	if err != nil {
		return err
	}
	var mu sync.Mutex
	send := func(m *plannerv1.AttachRequest) error {
		mu.Lock()
		defer mu.Unlock()
		return stream.Send(m)
	}
	if err := send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Hello{Hello: &plannerv1.Hello{ExecutorId: "idle", Slots: 1024}}}); err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if first.GetWelcome() == nil {
		return errors.New("no welcome")
	}
	listening("none") // attached, that is
	go func() {
		for range time.Tick(max(first.GetWelcome().GetHeartbeatInterval().AsDuration(), time.Millisecond)) {
			if send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Heartbeat{Heartbeat: &plannerv1.Heartbeat{}}}) != nil {
				return
			}
		}
	}()
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		calls := m.GetAssignments().GetAssignments()
		if len(calls) == 0 {
			continue
		}
		outcomes := make([]*callv1.Outcome, len(calls))
		for i, c := range calls {
			outcomes[i] = &callv1.Outcome{
				CallId: c.GetCallId(), Attempt: c.GetAttempt(), State: callv1.CallState_CALL_STATE_SUCCEEDED,
				Output: c.GetInput(), RunTime: durationpb.New(time.Microsecond), Executor: "idle",
			}
		}
		if err := send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Outcomes{Outcomes: &plannerv1.Outcomes{Outcomes: outcomes}}}); err != nil {
			return err
		}
	}
}
