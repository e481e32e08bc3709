package executor

import (
	"context"
	"math/rand/v2"
	"runtime"
	"time"

	"google.golang.org/grpc"

	"skein.dev"
	"skein.dev/platform/fault"
	callv1 "skein.dev/proto/skein/call/v1"
	plannerv1 "skein.dev/proto/skein/planner/v1"
)

// planner is one that may be attached to.
type planner struct {
	address string
	client  plannerv1.DispatchServiceClient
}

type upstream = grpc.BidiStreamingClient[plannerv1.AttachRequest, plannerv1.AttachResponse]

const (
	// patience is how long a planner may take to welcome an executor: one that is there does at once.
	patience = 3 * time.Second
	// farewell is how long an executor that drains looks for a planner to tell what it still owes.
	farewell = 5 * time.Second
)

// attach keeps a stream to one of the planners standing until ctx ends; drain tells it to take no more calls. One that can't
// be reached, or stands by for another, is followed by the next at once; there is a pause when all were tried.
func (e *Executor) attach(ctx context.Context, planners []planner, address string, drain <-chan struct{}) error {
	const least, most = 50 * time.Millisecond, time.Second
	running, end := context.WithCancel(ctx)
	defer end()
	l := newLink(running, e, address, drain)
	defer l.lose()
	pause, at, failed := least, 0, 0
	for {
		began := time.Now()
		p := planners[at]
		stood, err := l.serve(ctx, p)
		if ctx.Err() != nil || l.left() {
			return nil
		}
		if stood {
			failed = 0
		} else {
			failed++
			at = (at + 1) % len(planners)
		}
		if failed%len(planners) != 0 {
			continue
		}
		if stood && time.Since(began) > time.Second {
			pause = least
		}
		e.log.Warn("not attached to the planner", "planner", p.address, "error", err, "retry", pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause/2)):
		}
		pause = min(2*pause, most)
	}
}

// serve is one stream, to its end. stood says whether the planner took it.
func (l *link) serve(ctx context.Context, p planner) (stood bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, welcome, err := l.greet(ctx, cancel, p.client)
	if err != nil {
		return false, err
	}
	every := max(welcome.GetHeartbeatInterval().AsDuration(), 10*time.Millisecond)
	l.stand()
	l.e.log.Info("attached to the planner", "planner", p.address, "executor", l.e.name)

	sent := make(chan error, 1)
	go func() {
		err := l.send(ctx, stream, every)
		sent <- err
		if err != nil {
			cancel(err) // wakes Recv; without an error all is sent, and cancelling could overtake it
		}
	}()
	err = l.receive(stream)
	cancel(err)
	l.breaks()
	if e := <-sent; e != nil { // it is why receive ended
		err = e
	}
	return true, err
}

// greet opens a stream and waits for the planner's welcome, but not for ever.
func (l *link) greet(ctx context.Context, cancel context.CancelCauseFunc, planner plannerv1.DispatchServiceClient) (upstream, *plannerv1.Welcome, error) {
	silent := time.AfterFunc(patience, func() {
		cancel(fault.Unavailable.New("NO_WELCOME", "the planner does not answer within %s", patience))
	})
	defer silent.Stop()
	stream, err := planner.Attach(ctx)
	if err != nil {
		return nil, nil, whyEnded(ctx, err)
	}
	// Send says only EOF; Recv has the reason.
	_ = stream.Send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Hello{Hello: &plannerv1.Hello{
		ExecutorId: l.e.name, Slots: int32(l.e.slots.size), MemoryBytes: l.e.memory, Address: l.address, Running: l.keeps(),
	}}})
	first, err := stream.Recv()
	if err != nil {
		return nil, nil, whyEnded(ctx, err)
	}
	welcome := first.GetWelcome()
	if welcome == nil {
		return nil, nil, fault.Internal.New("NO_WELCOME", "the planner's first word was not welcome")
	}
	return stream, welcome, nil
}

func whyEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (l *link) receive(stream upstream) error {
	for {
		m, err := stream.Recv()
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
				l.goRun(l.assigned(call, a.GetKeep()))
			}
		case *plannerv1.AttachResponse_Cancel:
			l.cancelled(c.Cancel)
		case *plannerv1.AttachResponse_Spawned:
			l.spawned(c.Spawned.GetResults())
		case *plannerv1.AttachResponse_ChildOutcomes:
			l.childOutcomes(c.ChildOutcomes.GetOutcomes())
		case *plannerv1.AttachResponse_Drained:
			l.mu.Lock()
			l.drained = true
			l.mu.Unlock()
			l.now()
		}
	}
}

// now has the planner told what has gathered.
func (l *link) now() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// soon is now, within linger.
func (l *link) soon() {
	if l.late.CompareAndSwap(false, true) {
		time.AfterFunc(linger, func() {
			l.due.Store(true)
			l.now()
		})
	}
}

// send carries what gathers, and heartbeats, until the stream breaks. Once draining, it ends when the planner has said that
// no call follows and the last outcome is sent.
func (l *link) send(ctx context.Context, stream upstream, every time.Duration) error {
	beat, logs := time.NewTicker(every), time.NewTicker(logInterval)
	defer beat.Stop()
	defer logs.Stop()
	var told told
	if err := l.heartbeat(stream, &told); err != nil {
		return err
	}
	l.now() // for what has gathered while there was no stream
	drain := l.drain
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
			runtime.Gosched() // those who are about to end do so first: a message costs more than what is in it
			err = l.flush(stream)
		case <-logs.C:
			err = l.flushLogs(stream)
		case <-beat.C:
			l.forget(6 * every) // the planner would have noticed a broken stream after five
			err = l.heartbeat(stream, &told)
		case <-drain:
			drain = nil
			err = stream.Send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Drain{Drain: &plannerv1.Drain{}}})
		}
		if err != nil {
			return err
		}
		if drain == nil && l.done() {
			return stream.CloseSend()
		}
	}
}

// flush sends what has gathered. The planner hears of a call before it hears of its end, and of its children before that.
func (l *link) flush(stream upstream) error {
	due := l.due.Swap(false)
	if due {
		l.late.Store(false)
	}
	l.mu.Lock()
	spawns := l.takeSpawns(time.Now())
	var waits []*plannerv1.Wait
	if due { // those that end sooner are not worth telling
		waits = l.takeWaits()
	}
	cancels, outcomes := l.cancels, l.outcomes
	l.cancels, l.outcomes = nil, nil
	again := len(l.spawns) > 0
	l.mu.Unlock()
	if again {
		l.soon()
	}
	err := inBatches(spawns, spawnSize, func(some []*plannerv1.Spawn) error {
		return stream.Send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Spawns{Spawns: &plannerv1.Spawns{Spawns: some}}})
	})
	if err == nil {
		err = inBatches(waits, waitSize, func(some []*plannerv1.Wait) error {
			return stream.Send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Waits{Waits: &plannerv1.Waits{Waits: some}}})
		})
	}
	if err == nil && len(cancels) > 0 {
		err = stream.Send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_CancelChildren{CancelChildren: &plannerv1.CancelChildren{CallIds: cancels}}})
	}
	if err == nil {
		err = inBatches(outcomes, outcomeSize, func(some []*callv1.Outcome) error {
			return stream.Send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Outcomes{Outcomes: &plannerv1.Outcomes{Outcomes: some}}})
		})
	}
	if err != nil && len(outcomes) > 0 {
		l.mu.Lock()
		l.owes = true
		l.mu.Unlock()
	}
	return err
}

// logInterval is how often what guests have logged is sent while they run.
const logInterval = 100 * time.Millisecond

// flushLogs sends what calls have logged since it was sent last; a call that began since the last time has to wait for the
// next, so that short ones cost nothing.
func (l *link) flushLogs(stream upstream) error {
	var logs []*plannerv1.CallLog
	l.mu.Lock()
	for _, r := range l.running {
		if !r.lasting {
			r.lasting = true
			continue
		}
		if more := r.log.From(r.logged); len(more) > 0 {
			id := r.call.ID
			logs = append(logs, &plannerv1.CallLog{CallId: id[:], Attempt: r.call.Attempt, Chunk: &plannerv1.LogChunk{Offset: r.logged, Data: more}})
			r.logged += int64(len(more))
		}
	}
	l.mu.Unlock()
	return inBatches(logs, logSize, func(some []*plannerv1.CallLog) error {
		return stream.Send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Logs{Logs: &plannerv1.Logs{Logs: some}}})
	})
}

// takeSpawns are the children to be told of; those that may yet find a slot here stay. The caller holds mu.
func (l *link) takeSpawns(now time.Time) (out []*plannerv1.Spawn) {
	stay := l.spawns[:0]
	for _, s := range l.spawns {
		if s.waitsOn(now, l.turned) {
			stay = append(stay, s)
			continue
		}
		if s.ticket != nil {
			s.started = !l.e.slots.leave(s.ticket) // or its turn has come just now
		}
		out = append(out, toSpawn(s))
	}
	clear(l.spawns[len(stay):])
	l.spawns = stay
	return out
}

// takeWaits are the changes that the planner has not heard of. The caller holds mu.
func (l *link) takeWaits() (out []*plannerv1.Wait) {
	for r := range l.waits {
		if r.awaits == nil && !r.told {
			continue // it was too short to tell
		}
		r.told = r.awaits != nil
		out = append(out, toWait(r))
	}
	clear(l.waits)
	return out
}

// inBatches sends messages together as far as a message may be large. size is a bound, not the size: that is computed when the
// message is made, and is as dear as making it.
func inBatches[M any](all []M, size func(M) int, send func([]M) error) error {
	for len(all) > 0 {
		n, sum := 0, 0
		for n < len(all) {
			if sum += size(all[n]); n > 0 && sum > skein.MaxPayload {
				break
			}
			n++
		}
		if err := send(all[:n]); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

// fixed is more than all fields of a message have together whose length is bounded.
const fixed = 256

func spawnSize(s *plannerv1.Spawn) int {
	n := fixed + len(s.GetFunction()) + len(s.GetInput())
	for k, v := range s.GetTrace() {
		n += len(k) + len(v) + 16
	}
	return n
}

func waitSize(w *plannerv1.Wait) int { return fixed + len(w.GetChildIds())*(2+len(skein.CallID{})) }

func logSize(c *plannerv1.CallLog) int { return fixed + len(c.GetChunk().GetData()) }

func outcomeSize(o *callv1.Outcome) int {
	return fixed + len(o.GetReason()) + len(o.GetMessage()) + len(o.GetOutput()) + len(o.GetLog()) + len(o.GetExecutor())
}

// told is what a planner knows of: modules that are loaded here, and those whose state is here.
type told struct{ loaded, homes map[skein.Digest]bool }

// heartbeat tells what changed since the last one.
func (l *link) heartbeat(stream upstream, was *told) error {
	h := &plannerv1.Heartbeat{MemoryUsedBytes: l.e.machine.MemoryInUse()}
	loaded := l.e.modules.digests()
	homes := l.e.homes.here(loaded, l.e.state.Has)
	h.Loaded, h.Unloaded = changes(was.loaded, loaded)
	h.StateHere, h.StateGone = changes(was.homes, homes)
	*was = told{loaded, homes}
	return stream.Send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Heartbeat{Heartbeat: h}})
}

// changes are what is in now and was not before, and what was and is no more.
func changes(before, now map[skein.Digest]bool) (added, removed [][]byte) {
	for d := range now {
		if !before[d] {
			added = append(added, d[:])
		}
	}
	for d := range before {
		if !now[d] {
			removed = append(removed, d[:])
		}
	}
	return added, removed
}
