package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	callv1 "skein.dev/proto/skein/call/v1"
	plannerv1 "skein.dev/proto/skein/planner/v1"
)

// streamsOf is how many of the idle executors share a connection: a process has not as many connections as they are.
const streamsOf = 100

// idleExecutors attaches so many executors to a planner, as real ones do. Each answers its calls at once with their input:
// what then remains is the planner's cost and the streams'. They all live in this process.
func idleExecutors(planner, many, slots string) error {
	n, errN := strconv.Atoi(many)
	size, errS := strconv.Atoi(slots)
	if err := cmp.Or(errN, errS); err != nil {
		return err
	}
	all := make([]*idle, n)
	var conn *grpc.ClientConn
	for i := range all {
		if i%streamsOf == 0 {
			var err error
			if conn, err = dial(planner); err != nil {
				return err
			}
		}
		var err error
		if all[i], err = attachIdle(conn, fmt.Sprint("idle-", i), int32(size)); err != nil {
			return fmt.Errorf("executor %d: %w", i, err)
		}
	}
	ended := make(chan error, len(all))
	for _, x := range all {
		go func() { ended <- x.answer() }()
	}
	listening("none") // attached, that is
	// The heartbeats are spread over the interval, as those of many machines would be.
	tick := time.NewTicker(max(all[0].beat/time.Duration(n), time.Microsecond))
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case err := <-ended:
			return err
		case <-tick.C:
			if err := all[i%n].send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Heartbeat{Heartbeat: &plannerv1.Heartbeat{}}}); err != nil {
				return err
			}
		}
	}
}

// idle is an executor whose work is nothing.
type idle struct {
	name   string
	beat   time.Duration // between heartbeats
	stream grpc.BidiStreamingClient[plannerv1.AttachRequest, plannerv1.AttachResponse]
	mu     sync.Mutex // of sending
}

func attachIdle(conn *grpc.ClientConn, name string, slots int32) (*idle, error) {
	stream, err := plannerv1.NewDispatchServiceClient(conn).Attach(context.Background())
	if err != nil {
		return nil, err
	}
	x := &idle{name: name, stream: stream}
	if err := x.send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Hello{Hello: &plannerv1.Hello{ExecutorId: name, Slots: slots}}}); err != nil {
		return nil, err
	}
	first, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	if first.GetWelcome() == nil {
		return nil, errors.New("no welcome")
	}
	x.beat = first.GetWelcome().GetHeartbeatInterval().AsDuration()
	return x, nil
}

func (x *idle) send(m *plannerv1.AttachRequest) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.stream.Send(m)
}

// answer ends calls until the stream breaks.
func (x *idle) answer() error {
	for {
		m, err := x.stream.Recv()
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
				Output: c.GetInput(), RunTime: durationpb.New(time.Microsecond), Executor: x.name,
			}
		}
		if err := x.send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Outcomes{Outcomes: &plannerv1.Outcomes{Outcomes: outcomes}}}); err != nil {
			return err
		}
	}
}
