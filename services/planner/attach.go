package planner

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"skein.dev"
	"skein.dev/platform/fault"
	callv1 "skein.dev/proto/skein/call/v1"
	plannerv1 "skein.dev/proto/skein/planner/v1"
)

// stream is the planner's end of an executor's standing stream. Calls are put into its outbox under the planner's lock and
// one goroutine sends whatever has gathered there as one message, so a burst costs one message and a lone call no delay.
type stream struct {
	mu      sync.Mutex
	calls   []*callv1.Assignment
	cancels []*plannerv1.Cancel
	wake    chan struct{}
	dropped chan struct{}
	once    sync.Once
	why     string
}

func newStream() *stream {
	return &stream{wake: make(chan struct{}, 1), dropped: make(chan struct{})}
}

func (s *stream) dispatch(r *Record) {
	a := toAssignment(r)
	s.mu.Lock()
	s.calls = append(s.calls, a)
	s.mu.Unlock()
	s.nudge()
}

func (s *stream) cancel(id skein.CallID, reason string) {
	s.mu.Lock()
	s.cancels = append(s.cancels, &plannerv1.Cancel{CallId: id[:], Reason: reason})
	s.mu.Unlock()
	s.nudge()
}

func (s *stream) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *stream) drop(why string) {
	s.once.Do(func() { s.why = why; close(s.dropped) })
}

// batchBytes keeps a batch of calls below the message limit.
const batchBytes = skein.MaxPayload

// send empties the outbox into the stream until it breaks.
func (s *stream) send(out grpc.BidiStreamingServer[plannerv1.AttachRequest, plannerv1.AttachResponse]) error {
	for {
		select {
		case <-s.wake:
		case <-s.dropped:
			return nil
		case <-out.Context().Done():
			return nil
		}
		s.mu.Lock()
		calls, cancels := s.calls, s.cancels
		s.calls, s.cancels = nil, nil
		s.mu.Unlock()
		for len(calls) > 0 {
			n := batch(calls)
			msg := &plannerv1.Assignments{Assignments: calls[:n]}
			if err := out.Send(&plannerv1.AttachResponse{Command: &plannerv1.AttachResponse_Assignments{Assignments: msg}}); err != nil {
				return err
			}
			calls = calls[n:]
		}
		for _, c := range cancels {
			if err := out.Send(&plannerv1.AttachResponse{Command: &plannerv1.AttachResponse_Cancel{Cancel: c}}); err != nil {
				return err
			}
		}
	}
}

// batch says how many of the calls fit one message; at least one does.
func batch(calls []*callv1.Assignment) int {
	size := 0
	for i, c := range calls {
		if size += proto.Size(c); size > batchBytes && i > 0 {
			return i
		}
	}
	return len(calls)
}

// heartbeatInterval is a fifth of the silence after which an executor counts as lost.
func (p *Planner) heartbeatInterval() time.Duration { return p.core.limits.Silence / 5 }

// attach serves an executor's standing stream until it ends; the executor's calls end with it.
func (p *Planner) attach(in grpc.BidiStreamingServer[plannerv1.AttachRequest, plannerv1.AttachResponse]) error {
	first, err := in.Recv()
	if err != nil {
		return err
	}
	hello := first.GetHello()
	if hello == nil {
		return fault.Invalid.New("NO_HELLO", "the first message of a stream must be hello")
	}
	if hello.GetExecutorId() == "" || hello.GetSlots() < 1 {
		return fault.Invalid.New("BAD_HELLO", "an executor needs a name and at least one slot, not %q and %d", hello.GetExecutorId(), hello.GetSlots())
	}
	id := hello.GetExecutorId()
	// Welcome goes before any call can.
	if err := in.Send(&plannerv1.AttachResponse{Command: &plannerv1.AttachResponse_Welcome{
		Welcome: &plannerv1.Welcome{HeartbeatInterval: durationpb.New(p.heartbeatInterval())},
	}}); err != nil {
		return err
	}
	s := newStream()
	if err := p.enter(s, Executor{ID: id, Slots: int(hello.GetSlots()), Memory: hello.GetMemoryBytes(), Address: hello.GetAddress()}); err != nil {
		return err
	}
	p.log.Info("executor attached", "executor", id, "slots", hello.GetSlots())

	// Two ends: one receives, one sends; the first to stop decides why.
	why := make(chan string, 2)
	go func() { why <- "its stream broke: " + reason(p.receive(in, id)) }()
	go func() { why <- "sending to it failed: " + reason(s.send(in)) }()
	lost := ""
	select {
	case lost = <-why:
	case <-s.dropped:
		lost = s.why
	}
	s.drop(lost)
	p.leave(id, lost)
	p.log.Info("executor detached", "executor", id, "why", lost)
	return nil
}

func (p *Planner) enter(s *stream, ex Executor) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.draining {
		return fault.Unavailable.New("DRAINING", "this planner is shutting down")
	}
	if p.core.executors[ex.ID] == nil { // before Attach: it may dispatch at once
		p.streams[ex.ID] = s
	}
	commands, err := p.core.Attach(p.now(), ex)
	if err != nil {
		return err
	}
	p.carryOut(commands)
	return nil
}

func (p *Planner) leave(id, why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.streams, id)
	p.carryOut(p.core.Detach(p.now(), id, why))
}

func (p *Planner) dropAll(why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.streams {
		s.drop(why)
	}
}

func (p *Planner) receive(in grpc.BidiStreamingServer[plannerv1.AttachRequest, plannerv1.AttachResponse], id string) error {
	for {
		m, err := in.Recv()
		if err != nil {
			return err
		}
		switch e := m.GetEvent().(type) {
		case *plannerv1.AttachRequest_Outcomes:
			p.mu.Lock()
			for _, o := range e.Outcomes.GetOutcomes() {
				callID, res, err := fromOutcome(o)
				if err != nil {
					p.mu.Unlock()
					return err
				}
				p.carryOut(p.core.Outcome(p.now(), id, callID, o.GetAttempt(), res))
			}
			p.mu.Unlock()
		case *plannerv1.AttachRequest_Heartbeat:
			h := e.Heartbeat
			p.mu.Lock()
			p.core.Heartbeat(p.now(), id, h.GetMemoryUsedBytes(), toDigests(h.GetLoaded()), toDigests(h.GetUnloaded()))
			p.mu.Unlock()
		case *plannerv1.AttachRequest_Drain:
			p.mu.Lock()
			p.core.Drain(id)
			p.mu.Unlock()
		}
	}
}

func reason(err error) string {
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return "it went away"
	case errors.Is(err, context.Canceled):
		return "the connection was cut"
	}
	return fault.From(err).Message
}
