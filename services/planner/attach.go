package planner

import (
	"context"
	"errors"
	"io"
	"iter"
	"runtime"
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

// stream is the planner's end of an executor's standing stream. What an event causes is put into its outbox under the
// planner's lock, and one goroutine sends whatever has gathered there as one message of each kind, so a burst costs one
// message and a lone call no delay.
type stream struct {
	mu sync.Mutex
	outbox
	filled  bool // it is among the planner's filled, under the planner's lock
	wake    chan struct{}
	dropped chan struct{}
	once    sync.Once
	why     string // with err, set before dropped is closed
	err     error
}

// outbox is what an executor is to be told. It is sent in the order of the fields: a call is known to its parent's executor
// before its end is, and is assigned before it is cancelled.
type outbox struct {
	spawned []*plannerv1.SpawnResult
	calls   []*callv1.Assignment
	ended   []*callv1.Outcome
	cancels []*plannerv1.Cancel
	drained bool
}

func newStream() *stream {
	return &stream{wake: make(chan struct{}, 1), dropped: make(chan struct{})}
}

// put takes a command for the executor; nudge must follow.
func (s *stream) put(c *Command) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch c.Kind {
	case Dispatch:
		s.calls = append(s.calls, toAssignment(c.Call))
	case CancelOn:
		if n := len(s.cancels); n > 0 && s.cancels[n-1].Reason == c.Reason && s.cancels[n-1].Attempt == c.Call.Attempt && len(s.cancels[n-1].MoreIds) < cancelBatch {
			s.cancels[n-1].MoreIds = append(s.cancels[n-1].MoreIds, c.Call.ID[:])
			return
		}
		s.cancels = append(s.cancels, &plannerv1.Cancel{CallId: c.Call.ID[:], Reason: c.Reason, Attempt: c.Call.Attempt})
	case Drained:
		s.drained = true
	case Accepted:
		s.spawned = append(s.spawned, &plannerv1.SpawnResult{
			CallId: c.Call.ID[:], Version: c.Call.Version.Number, Digest: c.Call.Version.Digest[:], ConfigDigest: digestBytes(&c.Call.Version.Config),
		})
	case Refused:
		s.spawned = append(s.spawned, &plannerv1.SpawnResult{CallId: c.Call.ID[:], Reason: c.Reason, Message: c.Message})
	case ChildEnded:
		s.ended = append(s.ended, toOutcome(c.Call))
	}
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

// cancelBatch is how many calls one message cancels.
const cancelBatch = 10_000

// send empties the outbox into the stream until it breaks.
func (s *stream) send(out grpc.BidiStreamingServer[plannerv1.AttachRequest, plannerv1.AttachResponse]) error {
	for {
		select {
		case <-s.wake:
			runtime.Gosched() // those who are about to put something in do so first: a message costs more than what is in it
		case <-s.dropped:
			return nil
		case <-out.Context().Done():
			return nil
		}
		s.mu.Lock()
		o := s.outbox
		s.outbox = outbox{}
		s.mu.Unlock()
		for m := range o.messages {
			if err := out.Send(m); err != nil {
				return err
			}
		}
	}
}

// messages packs what has gathered.
func (o *outbox) messages(send func(*plannerv1.AttachResponse) bool) {
	for some := range batches(o.spawned) {
		if !send(&plannerv1.AttachResponse{Command: &plannerv1.AttachResponse_Spawned{Spawned: &plannerv1.Spawned{Results: some}}}) {
			return
		}
	}
	for some := range batches(o.calls) {
		if !send(&plannerv1.AttachResponse{Command: &plannerv1.AttachResponse_Assignments{Assignments: &plannerv1.Assignments{Assignments: some}}}) {
			return
		}
	}
	for some := range batches(o.ended) {
		if !send(&plannerv1.AttachResponse{Command: &plannerv1.AttachResponse_ChildOutcomes{ChildOutcomes: &plannerv1.ChildOutcomes{Outcomes: some}}}) {
			return
		}
	}
	for _, c := range o.cancels {
		if !send(&plannerv1.AttachResponse{Command: &plannerv1.AttachResponse_Cancel{Cancel: c}}) {
			return
		}
	}
	if o.drained {
		send(&plannerv1.AttachResponse{Command: &plannerv1.AttachResponse_Drained{Drained: &plannerv1.Drained{}}})
	}
}

// batches cuts a list so that each part fits one message; one of its own is small enough for that.
func batches[M proto.Message](all []M) iter.Seq[[]M] {
	return func(yield func([]M) bool) {
		size, from := 0, 0
		for i, m := range all {
			n := proto.Size(m) + 8 // for the field's tag and length
			if size += n; size > batchBytes && i > from {
				if !yield(all[from:i]) {
					return
				}
				from, size = i, n
			}
		}
		if from < len(all) {
			yield(all[from:])
		}
	}
}

// heartbeatInterval is a fifth of the silence after which an executor counts as lost.
func (p *Planner) heartbeatInterval() time.Duration { return p.limits.Silence / 5 }

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
	s := newStream()
	kept, err := fromRunning(hello.GetRunning())
	if err != nil {
		return err
	}
	ex := Executor{ID: id, Slots: int(hello.GetSlots()), Memory: hello.GetMemoryBytes(), Address: reachedAt(in.Context(), hello.GetAddress())}
	if err := p.enter(s, ex, kept); err != nil {
		return err // and no welcome, so that it goes on looking for another planner
	}
	// Welcome goes before what is in the outbox by now.
	if err := in.Send(&plannerv1.AttachResponse{Command: &plannerv1.AttachResponse_Welcome{
		Welcome: &plannerv1.Welcome{HeartbeatInterval: durationpb.New(p.heartbeatInterval())},
	}}); err != nil {
		s.drop("welcoming it failed: "+reason(err), err)
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
	p.leave(s, id)
	p.log.Info("executor detached", "executor", id, "why", s.why)
	if errors.Is(s.err, io.EOF) {
		return nil
	}
	return s.err
}

func (p *Planner) enter(s *stream, ex Executor, kept []Kept) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.draining {
		return fault.Unavailable.New("DRAINING", "this planner is shutting down")
	}
	if err := p.standing(); err != nil {
		return err
	}
	commands, err := p.core.Attach(p.now(), ex, kept)
	if err != nil {
		return err
	}
	p.streams[ex.ID] = s
	p.carryOut(commands)
	return nil
}

func (p *Planner) leave(s *stream, id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.streams[id] != s { // this planner has stepped down, and the executor is another's
		return
	}
	delete(p.streams, id)
	p.carryOut(p.core.Detach(p.now(), id, s.why))
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
	now := p.now()
	defer p.wake() // once for all that the message says: what it causes goes out together
	switch e := m.GetEvent().(type) {
	case *plannerv1.AttachRequest_Outcomes:
		for _, o := range e.Outcomes.GetOutcomes() {
			callID, res, err := fromOutcome(o)
			if err != nil {
				return err
			}
			p.deliver(p.core.Outcome(now, id, callID, o.GetAttempt(), res))
		}
	case *plannerv1.AttachRequest_Spawns:
		var good []Spawn
		for _, w := range e.Spawns.GetSpawns() {
			spawn, err := fromSpawn(now, w)
			if err != nil {
				return err
			}
			good = append(good, spawn)
		}
		p.deliver(p.core.Spawn(now, id, good))
	case *plannerv1.AttachRequest_Waits:
		var waits []Wait
		for _, w := range e.Waits.GetWaits() {
			wait, err := fromWait(w)
			if err != nil {
				return err
			}
			waits = append(waits, wait)
		}
		p.deliver(p.core.Waits(now, id, waits))
	case *plannerv1.AttachRequest_CancelChildren:
		ids, err := toIDs(e.CancelChildren.GetCallIds())
		if err != nil {
			return err
		}
		p.deliver(p.core.CancelChildren(now, id, ids))
	case *plannerv1.AttachRequest_Heartbeat:
		h := e.Heartbeat
		p.core.Heartbeat(now, id, h.GetMemoryUsedBytes(), toDigests(h.GetLoaded()), toDigests(h.GetUnloaded()))
		p.core.Homes(id, toDigests(h.GetStateHere()), toDigests(h.GetStateGone()))
	case *plannerv1.AttachRequest_Drain:
		p.deliver(p.core.Drain(now, id))
	case *plannerv1.AttachRequest_Load:
		p.deliver(p.core.Load(now, id, int(e.Load.GetDirectSlots())))
	case *plannerv1.AttachRequest_Logs:
		return p.heardLogs(now, id, e.Logs)
	}
	return nil
}

// heardLogs takes what guests have written. The caller holds mu.
func (p *Planner) heardLogs(now time.Time, id string, logs *plannerv1.Logs) error {
	for _, l := range logs.GetLogs() {
		callID, err := toID(l.GetCallId())
		if err != nil {
			return err
		}
		if p.core.Log(now, id, callID, l.GetAttempt(), l.GetChunk().GetOffset(), l.GetChunk().GetData()) {
			p.notify(callID)
		}
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
