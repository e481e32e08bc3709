package executor

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"skein.dev"
	"skein.dev/platform/fault"
	callv1 "skein.dev/proto/skein/call/v1"
	plannerv1 "skein.dev/proto/skein/planner/v1"
	"skein.dev/services/executor/internal/machine"
)

// link is the executor's end of the standing stream. A new one is made for each stream; calls that came on a stream end
// with it, because the planner has given them up by then.
type link struct {
	e       *Executor
	stream  grpc.BidiStreamingClient[plannerv1.AttachRequest, plannerv1.AttachResponse]
	address string

	mu       sync.Mutex
	outcomes []*callv1.Outcome
	running  map[skein.CallID]context.CancelCauseFunc
	wake     chan struct{}
	drain    <-chan struct{}
}

// attach keeps a stream to the planner standing until ctx ends; drain tells it to take no more calls.
func (e *Executor) attach(ctx context.Context, planner plannerv1.DispatchServiceClient, address string, drain <-chan struct{}) error {
	const least, most = 100 * time.Millisecond, 3 * time.Second
	pause := least
	for ctx.Err() == nil {
		l := &link{e: e, address: address, running: map[skein.CallID]context.CancelCauseFunc{}, wake: make(chan struct{}, 1), drain: drain}
		began := time.Now()
		err := l.serve(ctx, planner)
		e.attached.Store(false)
		select {
		case <-drain:
			return nil
		default:
		}
		if ctx.Err() != nil {
			return nil
		}
		e.log.Warn("not attached to the planner", "error", err, "retry", pause)
		if time.Since(began) > 10*time.Second {
			pause = least
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause)):
		}
		pause = min(2*pause, most)
	}
	return nil
}

func (l *link) serve(ctx context.Context, planner plannerv1.DispatchServiceClient) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := planner.Attach(ctx)
	if err != nil {
		return err
	}
	l.stream = stream
	if err := stream.Send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Hello{Hello: &plannerv1.Hello{
		ExecutorId: l.e.name, Slots: int32(cap(l.e.slots)), MemoryBytes: l.e.memory, Address: l.address,
	}}}); err != nil {
		_, err = stream.Recv() // Send says only EOF
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	welcome := first.GetWelcome()
	if welcome == nil {
		return fault.Internal.New("NO_WELCOME", "the planner's first word was not welcome")
	}
	l.e.attached.Store(true)
	l.e.log.Info("attached to the planner", "executor", l.e.name)

	sent := make(chan error, 1)
	go func() {
		err := l.send(ctx, max(welcome.GetHeartbeatInterval().AsDuration(), 10*time.Millisecond))
		sent <- err
		if err != nil {
			cancel() // wakes Recv; without an error all is sent, and cancelling could overtake it
		}
	}()
	err = l.receive(ctx)
	cancel()
	if e := <-sent; e != nil { // it is why receive ended
		err = e
	}
	return err
}

func (l *link) receive(ctx context.Context) error {
	for {
		m, err := l.stream.Recv()
		if err != nil {
			return err
		}
		switch c := m.GetCommand().(type) {
		case *plannerv1.AttachResponse_Assignments:
			for _, a := range c.Assignments.GetAssignments() {
				call, err := fromAssignment(a)
				if err != nil {
					return err
				}
				ctx, stop := context.WithCancelCause(ctx)
				l.mu.Lock()
				l.running[call.ID] = stop
				l.mu.Unlock()
				go func() {
					defer stop(nil)
					l.ended(call, l.e.Run(ctx, call))
				}()
			}
		case *plannerv1.AttachResponse_Cancel:
			l.mu.Lock()
			stop := l.running[skein.CallID(padded(c.Cancel.GetCallId()))]
			l.mu.Unlock()
			if stop != nil {
				stop(machine.ErrCancelled)
			}
		}
	}
}

func (l *link) ended(call skein.Call, res skein.Result) {
	o := toOutcome(call, res)
	l.mu.Lock()
	delete(l.running, call.ID)
	l.outcomes = append(l.outcomes, o)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// send carries outcomes as they gather, and heartbeats, until the stream breaks. Once draining, it ends when the last
// outcome is sent.
func (l *link) send(ctx context.Context, every time.Duration) error {
	beat := time.NewTicker(every)
	defer beat.Stop()
	told := map[skein.Digest]bool{}
	if err := l.heartbeat(told); err != nil {
		return err
	}
	drain, draining := l.drain, false
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
			err = l.sendOutcomes()
		case <-beat.C:
			err = l.heartbeat(told)
		case <-drain:
			drain, draining = nil, true
			err = l.stream.Send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Drain{Drain: &plannerv1.Drain{}}})
		}
		if err != nil {
			return err
		}
		if draining && l.idle() {
			return l.stream.CloseSend()
		}
	}
}

func (l *link) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.running) == 0 && len(l.outcomes) == 0
}

func (l *link) sendOutcomes() error {
	l.mu.Lock()
	all := l.outcomes
	l.outcomes = nil
	l.mu.Unlock()
	for len(all) > 0 {
		n, size := 0, 0
		for n < len(all) {
			if size += proto.Size(all[n]); n > 0 && size > skein.MaxPayload {
				break
			}
			n++
		}
		if err := l.stream.Send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Outcomes{Outcomes: &plannerv1.Outcomes{Outcomes: all[:n]}}}); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

// heartbeat tells what changed since the last one; told is what the planner knows of.
func (l *link) heartbeat(told map[skein.Digest]bool) error {
	h := &plannerv1.Heartbeat{MemoryUsedBytes: l.e.machine.MemoryInUse()}
	now := map[skein.Digest]bool{}
	for _, d := range l.e.modules.digests() {
		now[d] = true
		if !told[d] {
			told[d] = true
			h.Loaded = append(h.Loaded, d[:])
		}
	}
	for d := range told {
		if !now[d] {
			delete(told, d)
			h.Unloaded = append(h.Unloaded, d[:])
		}
	}
	return l.stream.Send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Heartbeat{Heartbeat: h}})
}
