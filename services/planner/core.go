package planner

import (
	"cmp"
	"container/heap"
	"container/list"
	"maps"
	"slices"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
)

// Core is the planner's bookkeeping: which calls there are, where they run, who waits in the queue. It is a pure machine:
// each method takes the time and an event, changes the state and returns what has to be done about it. It starts nothing,
// waits for nothing and reads no clock, so a test can drive it through any history. It is not safe for concurrent use.
//
// A slot in use is never counted: it is a call in an executor's running map that does not wait for others, and only the
// executor's own words, or its end, change either.
type Core struct {
	limits    Limits
	calls     map[skein.CallID]*record
	executors map[string]*executor
	places    places
	queue     queue
	lookups   map[lookup][]pending // spawns by what they wait for; none is in calls yet
	deadlines deadlineHeap
	listed    *list.List // of *record, all of them in the order of acceptance
	ended     *list.List // of *record in the order of their ends: the history
	endedSize int64      // bytes of it
	requests  map[requestKey]skein.CallID
	seq       uint64
	ticked    time.Time // the last Tick
	awake     time.Time // the first Tick after a gap: silence before it is no executor's fault
	commands  []Command
}

// Limits bound what the planner holds in memory.
type Limits struct {
	QueueCalls   int           // calls that wait for a slot
	QueueBytes   int64         // their inputs together
	HistoryCalls int           // ended calls that are remembered
	HistoryBytes int64         // with their outputs and logs
	HistoryAge   time.Duration // and for how long
	TreeCalls    int           // that may descend from one call from outside, itself included
	TreeBytes    int64         // inputs of a tree's calls that wait for a slot
	Silence      time.Duration // an executor that says nothing for so long is lost
	Overdue      time.Duration // past its deadline, how long an executor may take to say that a call has ended
}

// DefaultLimits suit a planner of 512 MiB.
func DefaultLimits() Limits {
	return Limits{
		QueueCalls: 10_000, QueueBytes: 256 << 20, HistoryCalls: 100_000, HistoryBytes: 64 << 20, HistoryAge: 24 * time.Hour,
		TreeCalls: skein.MaxTree, TreeBytes: 64 << 20, Silence: 5 * time.Second, Overdue: 2 * time.Second,
	}
}

// Record is all that is known of a call.
type Record struct {
	skein.Call
	skein.Result
	State     skein.CallState
	Executor  string
	RequestID string
	TraceID   string
	Created   time.Time
	Started   time.Time // handed to an executor
	Ended     time.Time
	Expires   time.Time // may be forgotten then; zero while the call has not ended
	Seq       uint64    // order of acceptance
	InputSize int64
}

// record is a Record with its places in the core's structures.
type record struct {
	Record
	kin
	tree     *tree          // nil for a call from outside that made no call
	children []skein.CallID // all it made, in their order
	bodyHash [32]byte
	due      time.Time     // when Tick ends it
	heapAt   int           // in deadlines; -1 if not there
	queuedAt *list.Element // in the queue; nil if not there
	listedAt *list.Element // in listed
}

type requestKey struct {
	fn skein.Function
	id string
}

// executor is an attached process.
type executor struct {
	Executor
	running map[skein.CallID]*record
	waiting map[skein.CallID]waiting // those of them that gave their slots back
	loaded  map[skein.Digest]struct{}
	seat    int // in places
	level   int // there; -1 if it has no free slot or takes no calls
}

// used is how many slots are in use. It can be more than there are: a call that waited takes its slot again, and one that
// was started there takes a free one, while another is on its way to it.
func (ex *executor) used() int { return len(ex.running) - len(ex.waiting) }

// Executor is what an executor said of itself.
type Executor struct {
	ID         string
	Address    string
	Slots      int
	Memory     int64
	MemoryUsed int64
	Attached   time.Time
	LastHeard  time.Time
	Draining   bool
	Used       int // slots
	Modules    int
}

// Command is something the core wants done before it hears of the next event: until then the list is not used again, and
// Call, which is its own record, does not change. A record that has ended never does, so it may be kept.
type Command struct {
	Kind     CommandKind
	Executor string // whom it concerns; none for Ended and Resolve
	Call     *Record
	Reason   string
	Message  string         // Refused
	Function skein.Function // Resolve
}

// CommandKind tells the commands apart.
type CommandKind uint8

// The commands.
const (
	Dispatch   CommandKind = iota + 1 // send Call to Executor
	CancelOn                          // tell Executor to stop Call
	Ended                             // wake those who wait for Call
	Drop                              // close Executor's stream
	Accepted                          // tell Executor that the spawned Call is one, and its version
	Refused                           // tell Executor that the spawned Call is none, and why
	ChildEnded                        // tell Executor, where Call's parent runs, how Call ended elsewhere
	Resolve                           // look Function up for the tree whose root is Call, and answer by Resolved
)

// NewCore is a planner that knows nothing yet.
func NewCore(limits Limits) *Core {
	return &Core{
		limits: limits, calls: map[skein.CallID]*record{}, executors: map[string]*executor{},
		places: newPlaces(), queue: newQueue(), lookups: map[lookup][]pending{}, listed: list.New(), ended: list.New(), requests: map[requestKey]skein.CallID{},
	}
}

// take gives the commands gathered by the event and starts anew. They are the caller's until the next event.
func (c *Core) take() []Command {
	out := c.commands
	if c.commands = out[:0]; cap(out) > 1024 { // a rare flood must not be kept
		c.commands = nil
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// Submit accepts a call, or says why not. With a request id that was seen before for this function it gives the earlier
// call's id, if bodyHash is the same.
func (c *Core) Submit(now time.Time, call skein.Call, requestID, traceID string, bodyHash [32]byte) (skein.CallID, []Command, error) {
	key := requestKey{call.Function, requestID}
	if requestID != "" {
		if id, ok := c.requests[key]; ok {
			if c.calls[id].bodyHash != bodyHash {
				return id, nil, fault.Exists.New("REQUEST_ID_REUSED", "request id %q was used for another call of %s", requestID, call.Function).
					WithHint("choose a new request id for a new input")
			}
			return id, nil, nil
		}
	}
	if err := c.queue.admits(call, c.limits, !c.places.free.empty()); err != nil {
		return call.ID, nil, err
	}
	r := &record{
		Record:   Record{Call: call, RequestID: requestID, TraceID: traceID},
		bodyHash: bodyHash,
	}
	r.Root = r.ID
	if requestID != "" {
		c.requests[key] = call.ID
	}
	c.enter(now, r)
	c.begin(now, r)
	return call.ID, c.take(), nil
}

// enter gives a call that is accepted its places in the books.
func (c *Core) enter(now time.Time, r *record) {
	c.seq++
	r.Attempt, r.State, r.Created, r.Seq, r.InputSize = 1, skein.Queued, now, c.seq, int64(len(r.Input))
	r.due = r.Deadline
	r.listedAt = c.listed.PushBack(r)
	c.calls[r.ID] = r
	heap.Push(&c.deadlines, r)
}

// begin gives a call a slot, or a place in the queue if there is none: while calls wait no slot is free.
func (c *Core) begin(now time.Time, r *record) {
	if c.queue.len() == 0 && now.Before(r.Deadline) {
		if ex := c.place(r); ex != nil {
			c.run(now, ex, r)
			c.emit(Dispatch, ex.ID, r, "")
			return
		}
	}
	c.queue.push(r)
	if r.tree != nil {
		r.tree.waiting += weight(&r.Call)
	}
}

func (c *Core) dequeue(r *record) {
	c.queue.remove(r)
	if r.tree != nil {
		r.tree.waiting -= weight(&r.Call)
	}
}

// schedule moves calls from the queue to free slots.
func (c *Core) schedule(now time.Time) {
	for c.queue.len() > 0 {
		r := c.queue.next()
		ex := c.place(r)
		if ex == nil {
			return
		}
		if !now.Before(r.Deadline) { // the clock ran ahead of Tick; a slot is not for what nobody waits for
			c.stop(now, r, overdue)
			continue
		}
		c.dequeue(r)
		c.queue.pass(r)
		c.run(now, ex, r)
		c.emit(Dispatch, ex.ID, r, "")
	}
}

// run puts a call on an executor.
func (c *Core) run(now time.Time, ex *executor, r *record) {
	r.State, r.Executor, r.Started = skein.Running, ex.ID, now
	r.due = r.Deadline.Add(c.limits.Overdue) // the executor keeps the deadline; ours is for one that does not
	heap.Fix(&c.deadlines, r.heapAt)
	ex.running[r.ID] = r
	c.places.update(ex)
}

// place picks the executor for a call; nil if no slot is free.
func (c *Core) place(r *record) *executor {
	var near *executor
	if r.parent != nil {
		near = c.executors[r.parent.Executor]
	}
	return c.places.pick(r.Version.Digest, near)
}

// Attach adds an executor.
func (c *Core) Attach(now time.Time, ex Executor) ([]Command, error) {
	if c.executors[ex.ID] != nil {
		return nil, fault.Exists.New("EXECUTOR_NAME_TAKEN", "an executor named %q is attached already", ex.ID).
			WithHint("give each executor its own --name, or none")
	}
	ex.Attached, ex.LastHeard = now, now
	e := &executor{
		Executor: ex, running: map[skein.CallID]*record{}, waiting: map[skein.CallID]waiting{}, loaded: map[skein.Digest]struct{}{},
	}
	c.executors[ex.ID] = e
	c.places.seat(e)
	c.schedule(now)
	return c.take(), nil
}

// Detach removes an executor; calls that it still had have failed, and what is below them is cancelled.
func (c *Core) Detach(now time.Time, id, why string) []Command {
	ex := c.executors[id]
	if ex == nil {
		return nil
	}
	delete(c.executors, id)
	c.places.leave(ex)
	lost := slices.SortedFunc(maps.Values(ex.running), func(a, b *record) int { return cmp.Compare(a.Seq, b.Seq) })
	for _, r := range lost {
		c.end(now, r, skein.Result{State: skein.Failed, Reason: "EXECUTOR_LOST", Message: "executor " + id + " was lost: " + why, Executor: id})
	}
	for _, r := range lost {
		c.sever(now, r, "was lost with its executor")
	}
	c.schedule(now)
	return c.take()
}

// Heartbeat notes that an executor lives, and what it holds.
func (c *Core) Heartbeat(now time.Time, id string, memoryUsed int64, loaded, unloaded []skein.Digest) {
	ex := c.executors[id]
	if ex == nil {
		return
	}
	ex.LastHeard, ex.MemoryUsed = now, memoryUsed
	for _, d := range loaded {
		c.places.load(ex, d)
	}
	for _, d := range unloaded {
		c.places.unload(ex, d)
	}
}

// Drain stops the placing of calls on an executor.
func (c *Core) Drain(now time.Time, id string) {
	if ex := c.executors[id]; ex != nil {
		ex.Draining, ex.LastHeard = true, now
		c.places.update(ex)
	}
}

// Outcome takes a call's result from its executor and frees the slot. A result for an earlier attempt, from another
// executor or for a call that is terminal changes nothing.
func (c *Core) Outcome(now time.Time, executorID string, id skein.CallID, attempt int32, res skein.Result) []Command {
	ex := c.executors[executorID]
	if ex == nil {
		return nil
	}
	ex.LastHeard = now
	r := ex.running[id]
	if r == nil || r.Attempt != attempt {
		return nil
	}
	delete(ex.running, id)
	delete(ex.waiting, id)
	c.places.update(ex)
	if res.Cold {
		c.places.load(ex, r.Version.Digest)
	}
	res.Executor = executorID
	c.end(now, r, res)
	c.schedule(now)
	return c.take()
}

// Cancel ends a call on request, and all below it: also what a call that has ended left behind. What runs is told to stop;
// its slot is free once its executor says so.
func (c *Core) Cancel(now time.Time, id skein.CallID) []Command {
	if r := c.calls[id]; r != nil {
		c.cancel(now, r)
		c.schedule(now)
	}
	return c.take()
}

func (c *Core) cancel(now time.Time, r *record) {
	if r.State.Terminal() {
		c.sever(now, r, "was cancelled")
		return
	}
	c.stop(now, r, skein.Result{State: skein.Cancelled, Reason: "CANCELLED", Message: "the call was cancelled"})
}

// Tick does what time alone causes: deadlines, silent executors, forgotten history.
func (c *Core) Tick(now time.Time) []Command {
	for len(c.deadlines) > 0 && !now.Before(c.deadlines[0].due) {
		c.stop(now, c.deadlines[0], overdue)
	}
	if now.Sub(c.ticked) > c.limits.Silence/2 { // this process stood still: what was said meanwhile is not read yet
		c.awake = now
	}
	c.ticked = now
	for id, ex := range c.executors {
		if quiet := now.Sub(ex.LastHeard); quiet > c.limits.Silence && now.Sub(c.awake) > c.limits.Silence {
			c.commands = append(c.commands, Command{Kind: Drop, Executor: id, Reason: "it was silent for " + quiet.Round(time.Millisecond).String()})
		}
	}
	c.forget(now)
	c.schedule(now)
	return c.take()
}

// overdue is how a call ends whose deadline passed here.
var overdue = skein.Result{State: skein.TimedOut, Reason: "DEADLINE", Message: "the deadline passed"}

// stop ends a call before its executor does.
func (c *Core) stop(now time.Time, r *record, res skein.Result) {
	if r.State == skein.Running {
		c.emit(CancelOn, r.Executor, r, res.Reason)
	}
	res.Executor = r.Executor
	c.end(now, r, res)
}

// end makes a call terminal, once.
func (c *Core) end(now time.Time, r *record, res skein.Result) {
	if r.State.Terminal() {
		return
	}
	if r.queuedAt != nil {
		c.dequeue(r)
	}
	if r.heapAt >= 0 {
		heap.Remove(&c.deadlines, r.heapAt)
	}
	r.Result, r.State, r.Executor, r.Ended = res, res.State, res.Executor, now
	r.Expires = now.Add(c.limits.HistoryAge)
	r.Input, r.Args, r.Trace = nil, nil, nil // nobody asks for them, and the history's size does not count them
	c.emit(Ended, "", r, "")
	if p := r.parent; p != nil && p.State == skein.Running && p.Executor != r.Executor && c.executors[p.Executor] != nil {
		c.emit(ChildEnded, p.Executor, r, "")
	}
	switch {
	case r.severed: // whoever did it sees to all that is below
	case res.State == skein.Cancelled:
		c.sever(now, r, "was cancelled")
	case res.State == skein.TimedOut:
		c.sever(now, r, "timed out")
	}
	prune(r)
	c.ended.PushBack(r)
	c.endedSize += r.size()
	c.forget(now)
}

// size is what a record costs in memory, roughly.
func (r *record) size() int64 { return int64(len(r.Output)+len(r.Log)+len(r.Message)) + 1024 }

// forget drops the oldest ended calls that are over a limit.
func (c *Core) forget(now time.Time) {
	for e := c.ended.Front(); e != nil; e = c.ended.Front() {
		r := e.Value.(*record)
		if c.ended.Len() <= c.limits.HistoryCalls && c.endedSize <= c.limits.HistoryBytes && now.Before(r.Expires) {
			return
		}
		c.ended.Remove(e)
		c.endedSize -= r.size()
		c.listed.Remove(r.listedAt)
		delete(c.calls, r.ID)
		if r.RequestID != "" {
			delete(c.requests, requestKey{r.Function, r.RequestID})
		}
	}
}

func (c *Core) emit(kind CommandKind, executor string, r *record, reason string) {
	c.commands = append(c.commands, Command{Kind: kind, Executor: executor, Call: &r.Record, Reason: reason})
}

// deadlineHeap orders the calls that have not ended by when Tick is to end them.
type deadlineHeap []*record

func (h deadlineHeap) Len() int           { return len(h) }
func (h deadlineHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h deadlineHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].heapAt, h[j].heapAt = i, j
}

func (h *deadlineHeap) Push(x any) {
	r := x.(*record)
	r.heapAt = len(*h)
	*h = append(*h, r)
}

func (h *deadlineHeap) Pop() any {
	old := *h
	r := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	r.heapAt = -1
	return r
}
