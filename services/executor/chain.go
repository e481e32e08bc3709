package executor

import (
	"context"
	"runtime"
	"time"

	"go.opentelemetry.io/otel/trace"

	"skein.dev"
	"skein.dev/abi"
	callv1 "skein.dev/proto/skein/call/v1"
	plannerv1 "skein.dev/proto/skein/planner/v1"
	"skein.dev/services/executor/internal/host"
	"skein.dev/services/executor/internal/machine"
)

// maxKept bounds, in bytes, the inputs of a call's children that run and the outputs of those that have ended.
const maxKept = 64 << 20

// run is a call that runs here. What isn't set when it begins is guarded by link.mu.
type run struct {
	link *link // nil for a call that no planner knows
	call skein.Call
	ctx  context.Context
	stop context.CancelCauseFunc
	tree *tree
	as   *child   // what it is to its parent, if that runs here too
	log  host.Log // what the guest says

	keep    bool  // when a stream breaks it goes on, until it has made a call
	lost    bool  // the planner has given it up
	lasting bool  // it runs for long enough to send its log
	logged  int64 // bytes of it that were sent

	holds bool // a slot; the run's own goroutine alone knows

	children []*child // by handle, less one
	kept     int64
	wake     chan struct{}     // of size 1: something happened to a child
	trace    map[string]string // its span, for children
	linked   bool              // its span has the links to children that it has
	ended    bool

	awaits []*child // what it waits for, if it does
	until  time.Time
	told   bool // that it waits: what the planner knows
}

// tree is what the calls of one root that run here have in common.
type tree struct {
	runs     int
	deadline time.Time
	ctx      context.Context // ends with it: most calls of a tree have the same
	free     context.CancelFunc
	versions map[string]skein.Version // that calls of a function are of, by its name
}

// child is a call that a call here has made.
type child struct {
	id       skein.CallID
	name     string
	parent   *run
	size     int64         // of its input, while it runs
	result   *skein.Result // nil until it has ended
	lost     bool          // its output was not kept
	accepted bool          // by the planner, or known to be good for it
	refused  *plannerv1.SpawnResult
	awaited  bool
	span     trace.SpanContext // if it runs here and is traced
}

// spawn is a child of which the planner doesn't know yet.
type spawn struct {
	child   *child
	call    skein.Call
	started bool    // it runs here
	known   bool    // the tree has its version here: the planner need not tell
	ticket  *ticket // for a slot here, while it stands in line
	made    time.Time
	hurry   bool // it must be told
}

const (
	// linger is how long news may wait for others to be told together with, if nobody waits for them: those of calls that
	// run where they were made. A child for which no slot is free here waits as long for one before it is the planner's to
	// place, and longer while others like it get one, but
	linger = time.Millisecond
	// not longer than this: there may be slots elsewhere.
	longest = 10 * time.Millisecond
)

// waitsOn says whether a child may yet find a slot here; turned is when the last one did.
func (s *spawn) waitsOn(now, turned time.Time) bool {
	waited := now.Sub(s.made)
	return s.ticket != nil && !s.hurry && (waited < linger || waited < longest && now.Sub(turned) < linger)
}

// rows are the semantics of the room chain.
func (l *link) rows() *host.Chain {
	return &host.Chain{Start: l.start, Wait: l.wait, Result: l.result, Cancel: l.cancelChild, Turn: l.turn}
}

// runOf is the run of a call here. The caller holds mu.
func (l *link) runOf(c *host.Call) (*run, error) {
	if r := l.running[c.ID]; r != nil && r.call.Attempt == c.Attempt {
		return r, nil
	}
	if err := c.Err(); err != nil {
		return nil, err
	}
	return nil, abi.ENOTSUP
}

// standingRun is runOf, once a stream stands: a kept call that would make another waits until there is a planner to tell.
// Without an error mu is held.
func (l *link) standingRun(c *host.Call) (*run, error) {
	for {
		l.mu.Lock()
		r, err := l.runOf(c)
		if err == nil && l.stands {
			return r, nil
		}
		standing := l.standing
		l.mu.Unlock()
		if err != nil {
			return nil, err
		}
		select {
		case <-standing:
		case <-c.Done():
			return nil, c.Err()
		}
	}
}

// start is host.Chain's.
func (l *link) start(c *host.Call, name string, entry *uint32, input []byte) (int32, error) {
	r, err := l.standingRun(c)
	if err != nil {
		return 0, err
	}
	switch {
	case r.call.Depth >= skein.MaxDepth, len(r.children) >= skein.MaxChildren, r.kept+int64(len(input)) > maxKept:
		l.mu.Unlock()
		return 0, abi.EAGAIN
	case l.parked > l.e.parked: // those that wait would have ever more company
		l.mu.Unlock()
		c.Say("chain " + name + ": calls that wait on this executor keep more memory than it has for them")
		return 0, abi.EAGAIN
	}
	if entry != nil {
		name = r.call.Function.Name
	}
	if r.wake == nil {
		r.wake, r.trace = make(chan struct{}, 1), traceOf(c)
	}
	version, known := r.tree.versions[name]
	k := &child{id: skein.NewCallID(), name: name, parent: r, size: int64(len(input)), accepted: known}
	r.children = append(r.children, k)
	r.kept += k.size
	handle := int32(len(r.children))
	l.children[k.id] = k
	s := &spawn{child: k, known: known, call: skein.Call{
		ID: k.id, Function: skein.Function{User: r.call.Function.User, Name: name}, Version: version, Parent: r.call.ID,
		Root: r.call.Root, Depth: r.call.Depth + 1, Entry: entry, Input: input, Deadline: r.call.Deadline, Attempt: 1, Trace: r.trace,
	}}
	here := known && l.e.modules.ready(version.Digest)
	if here {
		s.made = time.Now()
		s.ticket = &ticket{spare: true, depth: s.call.Depth, grant: func() { l.granted(s) }}
		if l.e.slots.stand(s.ticket) {
			l.launch(s)
		}
	}
	l.spawns = append(l.spawns, s)
	l.mu.Unlock()
	if here {
		l.soon()
		return handle, nil
	}
	l.now()
	if known {
		return handle, nil
	}
	return l.accepted(c, k, handle)
}

// accepted waits until the planner has found the function of a child that this tree has not called here before.
func (l *link) accepted(c *host.Call, k *child, handle int32) (int32, error) {
	for {
		l.mu.Lock()
		accepted, refused := k.accepted, k.refused
		l.mu.Unlock()
		switch {
		case accepted:
			return handle, nil
		case refused != nil:
			c.Say("chain " + k.name + ": " + refused.GetMessage())
			return 0, refusal(refused.GetReason())
		}
		select {
		case <-k.parent.wake:
		case <-c.Done():
			return 0, c.Err()
		}
	}
}

func refusal(reason string) abi.Errno {
	switch reason {
	case "NO_FUNCTION":
		return abi.ENOENT
	case "TOO_DEEP", "TOO_MANY_CHILDREN", "TREE_TOO_LARGE":
		return abi.EAGAIN
	case "AWAIT_CYCLE":
		return abi.EDEADLK
	}
	return abi.EIO
}

// granted is called when a slot has become free for a child that stood in line.
func (l *link) granted(s *spawn) {
	l.mu.Lock()
	lost := s.child.parent.lost
	if !lost {
		l.turned = time.Now()
		l.launch(s)
	}
	l.mu.Unlock()
	if lost {
		l.e.slots.give()
	}
}

// launch runs a child here, in a slot that it has been given. The caller holds mu.
func (l *link) launch(s *spawn) {
	s.started, s.ticket = true, nil
	r := l.begin(s.call)
	r.holds = true
	l.goRun(r)
}

// goRun runs a call on a goroutine that has run others, if there is one: its stack has grown.
func (l *link) goRun(r *run) {
	select {
	case l.idle <- r:
	default:
		go l.work(r)
	}
}

func (l *link) work(r *run) {
	for r != nil {
		l.run(r)
		r = nil
		if int(l.idlers.Add(1)) <= l.e.slots.size {
			select {
			case r = <-l.idle:
			case <-l.ctx.Done():
			}
		}
		l.idlers.Add(-1)
	}
}

// begin makes a run of a call. The caller holds mu.
func (l *link) begin(call skein.Call) *run {
	r := &run{link: l, call: call, as: l.children[call.ID]}
	if r.tree = l.trees[call.Root]; r.tree == nil {
		r.tree = &tree{versions: map[string]skein.Version{}, deadline: call.Deadline}
		r.tree.ctx, r.tree.free = context.WithDeadline(l.ctx, call.Deadline)
		l.trees[call.Root] = r.tree
	}
	within := r.tree.ctx
	if call.Deadline.After(r.tree.deadline) {
		within = l.ctx
	}
	r.ctx, r.stop = context.WithCancelCause(within)
	r.tree.runs++
	r.tree.versions[call.Function.Name] = call.Version
	l.running[call.ID] = r
	return r
}

// run executes a call and tells who is to know how it ended.
func (l *link) run(r *run) {
	defer r.stop(nil)
	local := r.holds // it was made here, and found a slot
	res := l.e.execute(r.ctx, r, l.chain)
	outcome := toOutcome(&r.call, &res)
	l.mu.Lock()
	if l.running[r.call.ID] == r {
		delete(l.running, r.call.ID)
	}
	r.ended = true
	if r.tree.runs--; r.tree.runs == 0 {
		if l.trees[r.call.Root] == r.tree {
			delete(l.trees, r.call.Root)
		}
		r.tree.free()
	}
	if r.lost {
		l.mu.Unlock()
		return
	}
	if len(r.children) > 0 { // most calls make none, and all that were made lately are among the spawns
		for _, k := range r.children {
			delete(l.children, k.id)
		}
		for _, s := range l.spawns {
			if s.child.parent == r {
				s.hurry = true // the planner must hear of it before it hears of its parent's end
			}
		}
	}
	delete(l.waits, r)
	if r.keep && len(r.children) == 0 {
		l.unheard.add(outcome)
	}
	if l.stands {
		l.unheard.bound()
		l.outcomes = append(l.outcomes, outcome)
	} else {
		l.owes = true
	}
	if r.as != nil {
		l.childEnded(r.as, &res)
	}
	l.mu.Unlock()
	if local {
		l.soon()
	} else {
		l.now() // the planner waits for the slot
	}
}

// childEnded keeps a child's result for its parent. The caller holds mu.
func (l *link) childEnded(k *child, res *skein.Result) {
	r := k.parent
	delete(l.children, k.id)
	if k.result != nil || r.ended {
		return
	}
	r.kept -= k.size
	res.Log = nil
	if r.kept+int64(len(res.Output)) > maxKept {
		res.Output, k.lost = nil, true
	}
	r.kept += int64(len(res.Output))
	k.result = res
	r.nudge()
}

func (r *run) nudge() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// kids are the children that handles mean. The caller holds mu.
func (l *link) kids(c *host.Call, handles ...int32) (*run, []*child, error) {
	r, err := l.runOf(c)
	if err != nil {
		return nil, nil, err
	}
	kids := make([]*child, len(handles))
	for i, h := range handles {
		if h < 1 || int(h) > len(r.children) || r.children[h-1].refused != nil {
			return nil, nil, abi.ECHILD
		}
		kids[i] = r.children[h-1]
	}
	return r, kids, nil
}

func firstEnded(kids []*child) int {
	for i, k := range kids {
		if k.result != nil {
			return i
		}
	}
	return -1
}

// wait is host.Chain's. While it waits the slot is another's.
func (l *link) wait(c *host.Call, handles []int32, timeout time.Duration, memory int64) (int, error) {
	l.mu.Lock()
	r, kids, err := l.kids(c, handles...)
	if err != nil {
		l.mu.Unlock()
		return 0, err
	}
	for _, k := range kids {
		k.awaited = true
	}
	i := firstEnded(kids)
	if i >= 0 || timeout == 0 {
		l.mu.Unlock()
		if i < 0 {
			return 0, abi.EAGAIN
		}
		return i, nil
	}
	r.awaits, r.until = kids, time.Time{}
	if timeout > 0 {
		r.until = time.Now().Add(timeout)
	}
	l.waits[r] = struct{}{}
	l.parked += memory
	l.mu.Unlock()
	l.soon()

	l.e.slots.give()
	r.holds = false
	i, err = l.sleep(c, r, kids, timeout)
	if e := l.e.slots.take(c, r.call.Depth, true); e == nil {
		r.holds = true
	} else {
		err = e // a call that is over needs no slot to end
	}
	l.mu.Lock()
	l.parked -= memory
	r.awaits = nil
	if !r.lost {
		l.waits[r] = struct{}{}
	}
	l.mu.Unlock()
	l.soon()
	return i, err
}

// park waits for what a call can't go on without, which others may have to bring about: they can have its slot meanwhile.
func (e *Executor) park(c *host.Call, r *run, memory int64, wait func() error) error {
	l := r.link
	count := func(n int64) {
		if l != nil {
			l.mu.Lock()
			l.parked += n
			l.mu.Unlock()
		}
	}
	count(memory)
	e.slots.give()
	r.holds = false
	err := wait()
	if e.slots.take(c, r.call.Depth, true) == nil { // a call that is over needs no slot to end
		r.holds = true
	}
	count(-memory)
	return err
}

// sleep waits for one of the children.
func (l *link) sleep(ctx context.Context, r *run, kids []*child, timeout time.Duration) (int, error) {
	var over <-chan time.Time
	if timeout > 0 {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		over = timer.C
	}
	for {
		l.mu.Lock()
		i := firstEnded(kids)
		l.mu.Unlock()
		if i >= 0 {
			return i, nil
		}
		select {
		case <-r.wake:
		case <-over:
			return 0, abi.EAGAIN
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// turn is host.Chain's: a call that computes lets one go on that was interrupted, if all slots are taken, and is in line then.
func (l *link) turn(c *host.Call) {
	runtime.Gosched()
	if l.e.slots.resumed.Load() == 0 {
		return
	}
	l.mu.Lock()
	r, err := l.runOf(c)
	l.mu.Unlock()
	if err == nil {
		l.e.lend(c, r)
	}
}

// lend gives a call's slot to one that was interrupted, if there is one, and takes it again after that.
func (e *Executor) lend(c *host.Call, r *run) {
	if e.slots.pass() {
		r.holds = e.slots.take(c, r.call.Depth, true) == nil // a call that is over needs no slot to end
	}
}

// result is host.Chain's.
func (l *link) result(c *host.Call, handle int32) (*skein.Result, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, kids, err := l.kids(c, handle)
	switch {
	case err != nil:
		return nil, err
	case kids[0].result == nil:
		return nil, abi.EAGAIN
	case kids[0].lost:
		return kids[0].result, abi.ENOBUFS
	}
	return kids[0].result, nil
}

// cancelChild is host.Chain's. The planner cancels what the child has made.
func (l *link) cancelChild(c *host.Call, handle int32) error {
	l.mu.Lock()
	_, kids, err := l.kids(c, handle)
	if err != nil || kids[0].result != nil {
		l.mu.Unlock()
		return err
	}
	k := kids[0]
	for _, s := range l.spawns {
		if s.child == k {
			s.hurry = true
		}
	}
	l.cancels = append(l.cancels, k.id[:])
	r := l.running[k.id]
	l.mu.Unlock()
	if r != nil {
		r.stop(machine.ErrCancelled)
	}
	l.now()
	return nil
}

// spawned takes the planner's answers to spawns.
func (l *link) spawned(results []*plannerv1.SpawnResult) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, res := range results {
		k := l.children[skein.CallID(padded(res.GetCallId()))]
		switch {
		case k == nil: // it has ended, or its parent has
		case res.GetReason() == "":
			if len(res.GetDigest()) == len(skein.Digest{}) {
				version := skein.Version{
					Function: skein.Function{User: k.parent.call.Function.User, Name: k.name}, Number: res.GetVersion(), Digest: skein.Digest(res.GetDigest()),
				}
				copy(version.Config[:], res.GetConfigDigest())
				k.parent.tree.versions[k.name] = version
			}
			k.accepted = true
			k.parent.nudge()
		case k.accepted: // its handle has been given away
			l.stopCall(res.GetCallId(), 0) // it may run already
			l.childEnded(k, &skein.Result{State: skein.Failed, Reason: res.GetReason(), Message: res.GetMessage()})
		default:
			delete(l.children, k.id)
			k.refused = res
			k.parent.kept -= k.size
			k.parent.nudge()
		}
	}
}

// childOutcomes takes the ends of children that ran elsewhere.
func (l *link) childOutcomes(outcomes []*callv1.Outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, o := range outcomes {
		if k := l.children[skein.CallID(padded(o.GetCallId()))]; k != nil {
			l.childEnded(k, fromOutcome(o))
		}
	}
}
