package executor

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"skein.dev"
	callv1 "skein.dev/proto/skein/call/v1"
	plannerv1 "skein.dev/proto/skein/planner/v1"
	"skein.dev/services/executor/internal/host"
	"skein.dev/services/executor/internal/machine"
)

// link is the calls that a planner has given this executor, those that they have made, and what the planner is to be told
// of them. It outlives the streams on which they came. When a stream breaks the planner gives up what it had given, but for
// calls with keep set that have made no others: those go on, and are named when the executor attaches again.
type link struct {
	e       *Executor
	address string
	ctx     context.Context //nolint:containedctx // of all that runs here
	chain   *host.Chain
	wake    chan struct{}
	late    atomic.Bool // a wake is on its way
	due     atomic.Bool // it has come

	idle   chan *run // to goroutines that wait for one
	idlers atomic.Int32

	drain <-chan struct{}

	mu       sync.Mutex
	stands   bool          // a stream does
	standing chan struct{} // closed when the next one does
	drained  bool          // no call follows on this stream
	broke    time.Time     // when the first stream broke while draining
	owes     bool          // ends of kept calls that no stream has carried

	running  map[skein.CallID]*run
	trees    map[skein.CallID]*tree  // by their roots
	children map[skein.CallID]*child // of calls that run here, that have not ended

	turned time.Time // when a child last found a slot that was not free when it was made
	parked int64     // bytes of memory of calls that wait for others

	// What the planner is to be told, in this order.
	spawns   []*spawn
	waits    map[*run]struct{} // who have begun or ceased to wait
	cancels  [][]byte
	outcomes []*callv1.Outcome

	unheard unheard // also while there is a stream
}

func newLink(ctx context.Context, e *Executor, address string, drain <-chan struct{}) *link {
	l := &link{
		e: e, address: address, ctx: ctx, wake: make(chan struct{}, 1), idle: make(chan *run), drain: drain, standing: make(chan struct{}),
		running: map[skein.CallID]*run{}, trees: map[skein.CallID]*tree{}, children: map[skein.CallID]*child{}, waits: map[*run]struct{}{},
	}
	l.chain = l.rows()
	return l
}

// keeps names the calls of earlier streams that the planner may still want. Each that is named is told the end of later, so that
// the planner knows when its slot is free.
func (l *link) keeps() (out []*plannerv1.Running) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, r := range l.running {
		out = append(out, &plannerv1.Running{CallId: id[:], Attempt: r.call.Attempt})
	}
	for _, u := range l.unheard.ends {
		out = append(out, &plannerv1.Running{CallId: u.outcome.GetCallId(), Attempt: u.outcome.GetAttempt()})
	}
	return out
}

// stand begins a stream: what ended of kept calls is told (again), and calls may make others.
func (l *link) stand() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stands, l.owes = true, false
	close(l.standing)
	now := time.Now()
	for i := range l.unheard.ends {
		l.unheard.ends[i].told = now
		l.outcomes = append(l.outcomes, l.unheard.ends[i].outcome)
	}
	l.e.attached.Store(true)
}

// breaks ends a stream, and all calls of it that are not kept.
func (l *link) breaks() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.e.attached.Store(false)
	l.stands, l.standing, l.drained, l.owes = false, make(chan struct{}), false, l.owes || len(l.outcomes) > 0
	for _, r := range l.running {
		if !r.keep || len(r.children) > 0 {
			l.drop(r)
		}
		r.logged = 0 // another planner knows nothing of it
	}
	for _, s := range l.spawns {
		if s.ticket != nil {
			l.e.slots.leave(s.ticket)
		}
	}
	clear(l.children)
	clear(l.waits)
	l.spawns, l.cancels, l.outcomes = nil, nil, nil
}

// lose ends all calls: nobody will hear of them.
func (l *link) lose() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.running {
		l.drop(r)
	}
}

// drop ends a call that the planner has given up. The caller holds mu.
func (l *link) drop(r *run) {
	r.lost = true
	if l.running[r.call.ID] == r {
		delete(l.running, r.call.ID)
	}
	if l.trees[r.call.Root] == r.tree {
		delete(l.trees, r.call.Root) // another attempt has another
	}
	r.stop(machine.ErrCancelled)
}

// assigned begins a call that the planner has placed here.
func (l *link) assigned(call skein.Call, keep bool) *run {
	l.mu.Lock()
	defer l.mu.Unlock()
	if before := l.running[call.ID]; before != nil { // an attempt that the planner has given up
		l.drop(before)
	}
	r := l.begin(call)
	r.keep = keep
	return r
}

// cancelled stops what the planner wants stopped.
func (l *link) cancelled(c *plannerv1.Cancel) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopCall(c.GetCallId(), c.GetAttempt())
	for _, id := range c.GetMoreIds() {
		l.stopCall(id, c.GetAttempt())
	}
}

// stopCall stops an attempt of a call, or any of them if it is 0. The caller holds mu.
func (l *link) stopCall(id []byte, attempt int32) {
	if r := l.running[skein.CallID(padded(id))]; r != nil && (attempt == 0 || attempt == r.call.Attempt) {
		r.stop(machine.ErrCancelled)
	}
}

// done says whether nothing is left to do or to tell, and nothing follows.
func (l *link) done() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.drained && len(l.running) == 0 && len(l.outcomes) == 0 && len(l.spawns) == 0 && len(l.cancels) == 0
}

// left says, after a stream has ended, whether the executor has left for good: it drains, and owes the planner nothing, or
// has looked for one long enough.
func (l *link) left() bool {
	select {
	case <-l.drain:
	default:
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broke.IsZero() {
		l.broke = time.Now()
	}
	return len(l.running) == 0 && !l.owes || time.Since(l.broke) > farewell
}

// forget lets go of ends that the planner has heard.
func (l *link) forget(after time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unheard.forget(time.Now().Add(-after))
}

// unheard are the ends of kept calls of which the planner may not have heard: those while no stream stood, and those that
// were sent on a stream that may turn out to be broken. A planner that has heard of one already takes no notice.
type unheard struct {
	ends []end // in the order in which they were told
	size int64 // bytes of their outputs and logs
}

type end struct {
	outcome *callv1.Outcome
	told    time.Time
}

// Beyond these the oldest goes: its planner tries the call again.
const (
	maxUnheard      = 10_000
	maxUnheardBytes = 64 << 20
)

func weight(o *callv1.Outcome) int64 { return int64(len(o.GetOutput()) + len(o.GetLog())) }

func (u *unheard) add(o *callv1.Outcome) {
	u.ends = append(u.ends, end{o, time.Now()})
	u.size += weight(o)
}

// bound must be called only while a stream stands: without one nothing can be let go of that was named already, and no more
// comes than ran when it broke.
func (u *unheard) bound() {
	for len(u.ends) > maxUnheard || u.size > maxUnheardBytes {
		u.shift()
	}
}

func (u *unheard) shift() {
	u.size -= weight(u.ends[0].outcome)
	u.ends[0] = end{}
	u.ends = u.ends[1:]
}

func (u *unheard) forget(before time.Time) {
	for len(u.ends) > 0 && u.ends[0].told.Before(before) {
		u.shift()
	}
}
