package executor

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"skein.dev"
	"skein.dev/platform/fault"
	callv1 "skein.dev/proto/skein/call/v1"
	plannerv1 "skein.dev/proto/skein/planner/v1"
	"skein.dev/services/executor/internal/host"
	"skein.dev/services/executor/internal/machine"
)

// link is the executor's end of the standing stream. A new one is made for each stream; calls that came on a stream end
// with it, because the planner has given them up by then.
type link struct {
	e       *Executor
	stream  grpc.BidiStreamingClient[plannerv1.AttachRequest, plannerv1.AttachResponse]
	address string

	ctx   context.Context // ends with the stream
	chain *host.Chain
	wake  chan struct{}
	late  atomic.Bool // a wake is on its way
	due   atomic.Bool // it has come

	idle   chan *run // to goroutines that wait for one
	idlers atomic.Int32

	drain <-chan struct{}

	mu       sync.Mutex
	running  map[skein.CallID]*run
	trees    map[skein.CallID]*tree  // by their roots
	children map[skein.CallID]*child // of calls that run here, that have not ended

	turned time.Time // when a child last found a slot that was not free when it was made

	// What the planner is to be told, in this order.
	spawns   []*spawn
	waits    map[*run]struct{} // who have begun or ceased to wait
	cancels  [][]byte
	outcomes []*callv1.Outcome
}

func newLink(e *Executor, address string, drain <-chan struct{}) *link {
	l := &link{
		e: e, address: address, wake: make(chan struct{}, 1), idle: make(chan *run), drain: drain, running: map[skein.CallID]*run{},
		trees: map[skein.CallID]*tree{}, children: map[skein.CallID]*child{}, waits: map[*run]struct{}{},
	}
	l.chain = l.rows()
	return l
}

// attach keeps a stream to the planner standing until ctx ends; drain tells it to take no more calls.
func (e *Executor) attach(ctx context.Context, planner plannerv1.DispatchServiceClient, address string, drain <-chan struct{}) error {
	const least, most = 100 * time.Millisecond, 3 * time.Second
	pause := least
	for ctx.Err() == nil {
		l := newLink(e, address, drain)
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
	l.ctx = ctx
	stream, err := planner.Attach(ctx)
	if err != nil {
		return err
	}
	l.stream = stream
	if err := stream.Send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Hello{Hello: &plannerv1.Hello{
		ExecutorId: l.e.name, Slots: int32(l.e.slots.size), MemoryBytes: l.e.memory, Address: l.address,
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
	err = l.receive()
	cancel()
	l.abandon()
	if e := <-sent; e != nil { // it is why receive ended
		err = e
	}
	return err
}

// abandon forgets children that have not begun.
func (l *link) abandon() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.spawns {
		if s.ticket != nil {
			l.e.slots.leave(s.ticket)
		}
	}
	l.spawns = nil
}

func (l *link) receive() error {
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
				l.mu.Lock()
				r := l.begin(call)
				l.mu.Unlock()
				l.goRun(r)
			}
		case *plannerv1.AttachResponse_Cancel:
			l.mu.Lock()
			r := l.running[skein.CallID(padded(c.Cancel.GetCallId()))]
			l.mu.Unlock()
			if r != nil {
				r.stop(machine.ErrCancelled)
			}
		case *plannerv1.AttachResponse_Spawned:
			l.spawned(c.Spawned.GetResults())
		case *plannerv1.AttachResponse_ChildOutcomes:
			l.childOutcomes(c.ChildOutcomes.GetOutcomes())
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

// send carries what gathers, and heartbeats, until the stream breaks. Once draining, it ends when the last outcome is sent.
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
			runtime.Gosched() // those who are about to end do so first: a message costs more than what is in it
			err = l.flush()
		case <-beat.C:
			err = l.heartbeat(told)
		case <-drain:
			drain, draining = nil, true
			err = l.stream.Send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Drain{Drain: &plannerv1.Drain{}}})
		}
		if err != nil {
			return err
		}
		if draining && l.empty() {
			return l.stream.CloseSend()
		}
	}
}

func (l *link) empty() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.running) == 0 && len(l.outcomes) == 0 && len(l.spawns) == 0 && len(l.cancels) == 0
}

// flush sends what has gathered. The planner hears of a call before it hears of its end, and of its children before that.
func (l *link) flush() error {
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
		return l.stream.Send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Spawns{Spawns: &plannerv1.Spawns{Spawns: some}}})
	})
	if err == nil {
		err = inBatches(waits, waitSize, func(some []*plannerv1.Wait) error {
			return l.stream.Send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Waits{Waits: &plannerv1.Waits{Waits: some}}})
		})
	}
	if err == nil && len(cancels) > 0 {
		err = l.stream.Send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_CancelChildren{CancelChildren: &plannerv1.CancelChildren{CallIds: cancels}}})
	}
	if err == nil {
		err = inBatches(outcomes, outcomeSize, func(some []*callv1.Outcome) error {
			return l.stream.Send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Outcomes{Outcomes: &plannerv1.Outcomes{Outcomes: some}}})
		})
	}
	return err
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

func outcomeSize(o *callv1.Outcome) int {
	return fixed + len(o.GetReason()) + len(o.GetMessage()) + len(o.GetOutput()) + len(o.GetLog()) + len(o.GetExecutor())
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
