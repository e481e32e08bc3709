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
	why     string // with err, set before dropped is closed
	err     error
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

// drop ends the stream, once; err is what its executor is told.
func (s *stream) drop(why string, err error) {
	s.once.Do(func() { s.why, s.err = why, err; close(s.dropped) })
}

func detached(why string) error { return fault.Unavailable.New("DETACHED", "%s", why) }

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
		if size += proto.Size(c) + 8; size > batchBytes && i > 0 { // 8 for the field's tag and length
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

	// One receives, one sends, and others may drop the stream; the first to do so decides why.
	go func() {
		err := p.receive(in, s, id)
		s.drop("its stream broke: "+reason(err), err)
	}()
	go func() {
		err := s.send(in)
		s.drop("sending to it failed: "+reason(err), err)
	}()
	<-s.dropped
	p.leave(id, s.why)
	p.log.Info("executor detached", "executor", id, "why", s.why)
	if errors.Is(s.err, io.EOF) {
		return nil
	}
	return s.err
}

func (p *Planner) enter(s *stream, ex Executor) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.draining {
		return fault.Unavailable.New("DRAINING", "this planner is shutting down")
	}
	commands, err := p.core.Attach(p.now(), ex)
	if err != nil {
		return err
	}
	p.streams[ex.ID] = s
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
		s.drop(why, detached(why))
	}
}

func (p *Planner) receive(in grpc.BidiStreamingServer[plannerv1.AttachRequest, plannerv1.AttachResponse], s *stream, id string) error {
	for {
		m, err := in.Recv()
		if err != nil {
			return err
		}
		if err := p.heard(s, id, m); err != nil {
			return err
		}
	}
}

// heard takes what an executor said.
func (p *Planner) heard(s *stream, id string, m *plannerv1.AttachRequest) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.streams[id] != s { // the rest of a stream that was given up must not speak for its successor of the same name
		return nil
	}
	switch e := m.GetEvent().(type) {
	case *plannerv1.AttachRequest_Outcomes:
		for _, o := range e.Outcomes.GetOutcomes() {
			callID, res, err := fromOutcome(o)
			if err != nil {
				return err
			}
			p.carryOut(p.core.Outcome(p.now(), id, callID, o.GetAttempt(), res))
		}
	case *plannerv1.AttachRequest_Heartbeat:
		h := e.Heartbeat
		p.core.Heartbeat(p.now(), id, h.GetMemoryUsedBytes(), toDigests(h.GetLoaded()), toDigests(h.GetUnloaded()))
	case *plannerv1.AttachRequest_Drain:
		p.core.Drain(p.now(), id)
	}
	return nil
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
