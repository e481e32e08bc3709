package planner

import (
	"cmp"
	"container/heap"
	"container/list"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
)

// Core is the planner's bookkeeping: which calls there are, where they run, who waits in the queue. It is a pure machine:
// each method takes the time and an event, changes the state and returns what has to be done about it. It starts nothing,
// waits for nothing and reads no clock, so a test can drive it through any history. It is not safe for concurrent use.
//
// A slot in use is never counted: it is a call in an executor's running map, which only the executor's own words, or
// its end, take out again.
type Core struct {
	limits    Limits
	calls     map[skein.CallID]*record
	executors map[string]*executor
	queue     queue
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
	Silence      time.Duration // an executor that says nothing for so long is lost
	Overdue      time.Duration // past its deadline, how long an executor may take to say that a call has ended
}

// DefaultLimits suit a planner of 512 MiB.
func DefaultLimits() Limits {
	return Limits{
		QueueCalls: 10_000, QueueBytes: 256 << 20, HistoryCalls: 100_000, HistoryBytes: 64 << 20, HistoryAge: 24 * time.Hour,
		Silence: 5 * time.Second, Overdue: 2 * time.Second,
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
	children []skein.CallID
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
	loaded  map[skein.Digest]struct{}
}

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

// Command is something the core wants done.
type Command struct {
	Kind     CommandKind
	Executor string // Dispatch, CancelOn, Drop
	Call     *Record
	Reason   string
}

// CommandKind tells the commands apart.
type CommandKind uint8

// The commands.
const (
	Dispatch CommandKind = iota + 1 // send Call to Executor
	CancelOn                        // tell Executor to stop Call
	Ended                           // wake those who wait for Call
	Drop                            // close Executor's stream
)

// NewCore is a planner that knows nothing yet.
func NewCore(limits Limits) *Core {
	return &Core{
		limits: limits, calls: map[skein.CallID]*record{}, executors: map[string]*executor{},
		queue: newQueue(), listed: list.New(), ended: list.New(), requests: map[requestKey]skein.CallID{},
	}
}

// take gives the commands gathered by the event and starts anew.
func (c *Core) take() []Command {
	out := c.commands
	c.commands = nil
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
	if err := c.queue.admits(call, c.limits, c.hasFreeSlot()); err != nil {
		return call.ID, nil, err
	}
	c.seq++
	r := &record{
		Record: Record{
			Call: call, State: skein.Queued, RequestID: requestID, TraceID: traceID, Created: now, Seq: c.seq,
			InputSize: int64(len(call.Input)),
		},
		bodyHash: bodyHash,
		due:      call.Deadline,
		heapAt:   -1,
	}
	r.Attempt = 1
	r.listedAt = c.listed.PushBack(r)
	c.calls[call.ID] = r
	if requestID != "" {
		c.requests[key] = call.ID
	}
	if parent := c.calls[call.Parent]; parent != nil {
		parent.children = append(parent.children, call.ID)
	}
	heap.Push(&c.deadlines, r)
	c.queue.push(r)
	c.schedule(now)
	return call.ID, c.take(), nil
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
		c.queue.remove(r)
		c.queue.pass(r)
		r.State, r.Executor, r.Started = skein.Running, ex.ID, now
		r.due = r.Deadline.Add(c.limits.Overdue) // the executor keeps the deadline; ours is for one that does not
		heap.Fix(&c.deadlines, r.heapAt)
		ex.running[r.ID] = r
		c.emit(Dispatch, ex.ID, r, "")
	}
}

// place picks the executor for a call: one that holds the module before one that does not, then the fullest, so that
// others stay empty; nil if no slot is free.
func (c *Core) place(r *record) *executor {
	var best *executor
	var bestWarm bool
	for _, ex := range c.executors {
		if ex.Draining || len(ex.running) >= ex.Slots {
			continue
		}
		_, warm := ex.loaded[r.Version.Digest]
		if best == nil || better(ex, warm, best, bestWarm) {
			best, bestWarm = ex, warm
		}
	}
	return best
}

func better(a *executor, aWarm bool, b *executor, bWarm bool) bool {
	if aWarm != bWarm {
		return aWarm
	}
	if d := cmp.Compare(len(a.running), len(b.running)); d != 0 {
		return d > 0
	}
	return a.ID < b.ID
}

func (c *Core) hasFreeSlot() bool {
	for _, ex := range c.executors {
		if !ex.Draining && len(ex.running) < ex.Slots {
			return true
		}
	}
	return false
}

// Attach adds an executor.
func (c *Core) Attach(now time.Time, ex Executor) ([]Command, error) {
	if c.executors[ex.ID] != nil {
		return nil, fault.Exists.New("EXECUTOR_NAME_TAKEN", "an executor named %q is attached already", ex.ID).
			WithHint("give each executor its own --name, or none")
	}
	ex.Attached, ex.LastHeard = now, now
	c.executors[ex.ID] = &executor{Executor: ex, running: map[skein.CallID]*record{}, loaded: map[skein.Digest]struct{}{}}
	c.schedule(now)
	return c.take(), nil
}

// Detach removes an executor; calls that it still had have failed.
func (c *Core) Detach(now time.Time, id, why string) []Command {
	ex := c.executors[id]
	if ex == nil {
		return nil
	}
	delete(c.executors, id)
	for _, r := range ex.running {
		c.end(now, r, skein.Result{State: skein.Failed, Reason: "EXECUTOR_LOST", Message: "executor " + id + " was lost: " + why, Executor: id})
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
		ex.loaded[d] = struct{}{}
	}
	for _, d := range unloaded {
		delete(ex.loaded, d)
	}
}

// Drain stops the placing of calls on an executor.
func (c *Core) Drain(now time.Time, id string) {
	if ex := c.executors[id]; ex != nil {
		ex.Draining, ex.LastHeard = true, now
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
	if res.Cold {
		ex.loaded[r.Version.Digest] = struct{}{}
	}
	res.Executor = executorID
	c.end(now, r, res)
	c.schedule(now)
	return c.take()
}

// Cancel ends a call on request. What runs is told to stop; its slot is free once its executor says so.
func (c *Core) Cancel(now time.Time, id skein.CallID) []Command {
	if r := c.calls[id]; r != nil && !r.State.Terminal() {
		c.stop(now, r, skein.Result{State: skein.Cancelled, Reason: "CANCELLED", Message: "the call was cancelled"})
		c.schedule(now)
	}
	return c.take()
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
		c.queue.remove(r)
	}
	if r.heapAt >= 0 {
		heap.Remove(&c.deadlines, r.heapAt)
	}
	r.Result, r.State, r.Executor, r.Ended = res, res.State, res.Executor, now
	r.Expires = now.Add(c.limits.HistoryAge)
	r.Input, r.Args, r.Trace = nil, nil, nil // nobody asks for them, and the history's size does not count them
	c.emit(Ended, r.Executor, r, "")
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
	copied := r.Record
	c.commands = append(c.commands, Command{Kind: kind, Executor: executor, Call: &copied, Reason: reason})
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
