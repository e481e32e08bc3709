package planner

import (
	"cmp"
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
// A slot in use is never counted: it is a call in an executor's running map that does not wait for others, or one that its
// executor says others use, and only the executor's own words, or its end, change either.
type Core struct {
	limits    Limits
	calls     map[skein.CallID]*record
	executors map[string]*executor
	places    places
	queue     queue
	lookups   map[lookup][]pending                // spawns by what they wait for; none is in calls yet
	orphans   map[string]map[skein.CallID]*record // that their executors may still have, by those; "" is from before a restart
	labels    map[string]label                    // of executors that went away a moment ago
	liveLogs  int64                               // bytes of logs of calls that run
	policy    Policy
	clearing  clearing
	rescan    bool // under Compact, anybody who waits may have a place now
	deadlines deadlineHeap
	listed    records      // all calls
	ended     records      // in the order of their ends: the history, but for those in aging
	aging     deadlineHeap // ended calls that are kept for a time of their own, by when it is over
	unsaved   int64        // bytes of ended calls that the journal does not have yet
	endedSize int64        // bytes of both
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
	LogBytes     int64         // of calls that run, together
	TreeCalls    int           // that may descend from one call from outside, itself included
	TreeBytes    int64         // inputs of a tree's calls that wait for a slot
	Silence      time.Duration // an executor that says nothing for so long is lost
	Grace        time.Duration // how long an executor may take to attach again with the calls it had
	Overdue      time.Duration // past its deadline, how long an executor may take to say that a call has ended
}

// DefaultLimits suit a planner of 512 MiB.
func DefaultLimits() Limits {
	return Limits{
		QueueCalls: 10_000, QueueBytes: 256 << 20, HistoryCalls: 100_000, HistoryBytes: 64 << 20, HistoryAge: 24 * time.Hour, LogBytes: 64 << 20,
		TreeCalls: skein.MaxTree, TreeBytes: 64 << 20, Silence: 5 * time.Second, Grace: 3 * time.Second, Overdue: 2 * time.Second,
	}
}

// executor is an attached process.
type executor struct {
	Executor
	running map[skein.CallID]*record
	waiting map[skein.CallID]waiting // those of them that gave their slots back
	users   map[skein.User]int       // of those that run, under Compact
	loaded  map[skein.Digest]struct{}
	direct  int                       // slots that calls take which did not come by this planner
	homes   map[skein.Digest]struct{} // modules whose calls' state is there
	owner   skein.User                // in places, under Compact; "" for none, or for several
	seat    int                       // in places
	freed   bool                      // it is in places.freed
	level   int                       // there; -1 if it has no free slot or takes no calls
}

// Draining tells whether nothing is placed there any more.
func (ex *Executor) Draining() bool { return ex.Leaving || ex.Cordoned }

// used is how many slots are in use. It can be more than there are: a call that waited takes its slot again, and one that
// was started there takes a free one, while another is on its way to it.
func (ex *executor) used() int { return len(ex.running) - len(ex.waiting) + ex.direct }

// Executor is what an executor said of itself.
type Executor struct {
	ID         string
	Address    string
	Slots      int
	Memory     int64
	MemoryUsed int64
	Attached   time.Time
	LastHeard  time.Time
	Leaving    bool // it said so
	Cordoned   bool // an operator wants nothing placed there
	Marked     bool // its machine will be taken away
	Used       int  // slots
	Direct     int  // of those, by calls that did not come by this planner
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
	Store                             // write Call, as it is now, to the journal, then say Stored
	Drained                           // tell Executor that nothing more is placed on it
	Resolve                           // look Function up for the tree whose root is Call, and answer by Resolved
)

// NewCore is a planner that knows nothing yet.
func NewCore(limits Limits) *Core {
	return &Core{
		limits: limits, calls: map[skein.CallID]*record{}, executors: map[string]*executor{},
		places: newPlaces(), queue: newQueue(), lookups: map[lookup][]pending{}, orphans: map[string]map[skein.CallID]*record{},
		labels: map[string]label{}, listed: records{slot: acceptance}, ended: records{slot: turn}, requests: map[requestKey]skein.CallID{},
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
func (c *Core) Submit(now time.Time, call skein.Call, opts Options) (skein.CallID, []Command, error) {
	key := requestKey{call.Function, opts.RequestID}
	if opts.RequestID != "" {
		if id, ok := c.requests[key]; ok {
			if c.calls[id].BodyHash != opts.BodyHash {
				return id, nil, requestReused(opts.RequestID, call.Function)
			}
			return id, nil, nil
		}
	}
	r := &record{Record: Record{Call: call, Options: opts}}
	r.Root = r.ID
	switch { // an attempt's time begins with the attempt; until then only that to give up counts
	case !opts.Durable || opts.Sync:
	case opts.GiveUp.IsZero():
		r.GiveUp = r.Deadline
	default:
		r.Deadline = r.GiveUp
	}
	if err := c.queue.admits(call, c.limits, !opts.Durable && c.opens(r)); err != nil {
		return call.ID, nil, err
	}
	if opts.RequestID != "" {
		c.requests[key] = call.ID
	}
	c.enter(now, r)
	if opts.Durable {
		c.hold(r)
		c.store(r)
		return call.ID, c.take(), nil
	}
	c.begin(now, r)
	if c.policy == Compact { // the queue may hold what only others wait for
		c.schedule(now)
	}
	return call.ID, c.take(), nil
}

// opens tells whether a new call would begin at once.
func (c *Core) opens(r *record) bool {
	if c.policy == Compact { // others may wait for what this one need not
		return !c.queue.waits(r.Function.User) && c.place(r) != nil
	}
	return c.queue.len() == 0 && !c.places.free.empty()
}

// enter gives a call that is accepted its places in the books.
func (c *Core) enter(now time.Time, r *record) {
	c.seq++
	r.Attempt, r.State, r.Created, r.Seq, r.InputSize = 1, skein.Queued, now, c.seq, int64(len(r.Input))
	r.due = r.Deadline
	c.listed.push(r)
	c.calls[r.ID] = r
	c.deadlines.push(r)
}

// begin gives a call a slot, or a place in the queue if there is none: while calls wait no slot is free.
func (c *Core) begin(now time.Time, r *record) {
	if c.policy != Compact && c.queue.len() == 0 && now.Before(r.Deadline) && !c.chokes(r) {
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
	if c.policy == Compact { // its user may have a place although others wait
		c.serve(now, r.Function.User)
		if r.queuedAt != nil {
			c.seek(now)
		}
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
	if c.policy == Compact {
		c.scheduleCompact(now)
		return
	}
	for c.queue.len() > 0 {
		r := c.queue.next()
		ex := c.place(r)
		if ex == nil && !c.places.free.empty() || c.chokes(r) {
			c.postpone(now, r)
			continue
		}
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
	if r.Timeout > 0 {
		r.Deadline = now.Add(r.Timeout)
	}
	r.due = r.Deadline.Add(c.limits.Overdue) // the executor keeps the deadline; ours is for one that does not
	c.deadlines.fix(r)
	ex.running[r.ID] = r
	c.places.count(ex, r, 1)
	c.places.update(ex)
}

// vacate takes a call off its executor.
func (c *Core) vacate(ex *executor, r *record) {
	delete(ex.running, r.ID)
	delete(ex.waiting, r.ID)
	c.places.count(ex, r, -1)
	c.places.update(ex)
}

// place picks the executor for a call; nil if no slot is free for it. An executor that has an earlier attempt still, which it
// was told to stop, gets no other: it would take what it is told of one for the other.
func (c *Core) place(r *record) *executor {
	ex := c.choose(r)
	if ex == nil || !r.Durable || ex.running[r.ID] == nil {
		return ex
	}
	level := ex.level
	c.places.move(ex, -1)
	other := c.place(r)
	c.places.move(ex, level)
	return other
}

func (c *Core) choose(r *record) *executor {
	var near *executor
	if r.parent != nil {
		near = c.executors[r.parent.Executor]
	}
	if c.policy == Compact {
		return c.placeCompact(r, near)
	}
	return c.places.pick(r.Version.Digest, near)
}

// Attach adds an executor; kept is what it still has of an earlier stream.
func (c *Core) Attach(now time.Time, ex Executor, kept []Kept) ([]Command, error) {
	if c.executors[ex.ID] != nil {
		return nil, fault.Exists.New("EXECUTOR_NAME_TAKEN", "an executor named %q is attached already", ex.ID).
			WithHint("give each executor its own --name, or none")
	}
	ex.Attached, ex.LastHeard = now, now
	e := &executor{
		Executor: ex, running: map[skein.CallID]*record{}, waiting: map[skein.CallID]waiting{}, users: map[skein.User]int{}, loaded: map[skein.Digest]struct{}{}, homes: map[skein.Digest]struct{}{},
	}
	if l, ok := c.labels[ex.ID]; ok {
		e.Cordoned, e.Marked = l.cordoned, l.marked
		delete(c.labels, ex.ID)
	}
	c.executors[ex.ID] = e
	c.places.seat(e)
	c.adopt(now, e, kept)
	c.rescan = true
	c.schedule(now)
	return c.take(), nil
}

// Detach removes an executor. Durable calls that it still had may come back with it, unless they called others; the rest
// has failed, and what is below them is cancelled.
func (c *Core) Detach(now time.Time, id, why string) []Command {
	ex := c.executors[id]
	if ex == nil {
		return nil
	}
	delete(c.executors, id)
	c.places.leave(ex)
	c.rescan = true
	had := slices.SortedFunc(maps.Values(ex.running), func(a, b *record) int { return cmp.Compare(a.Seq, b.Seq) })
	if ex.Cordoned || ex.Marked {
		c.labels[id] = label{ex.Cordoned, ex.Marked, now.Add(labelAge)}
	}
	for _, r := range had {
		if !r.State.Terminal() && !r.Durable { // first, so that nobody is told to stop them
			c.end(now, r, lost(id, why))
		}
	}
	for _, r := range had {
		switch {
		case r.State.Terminal():
		case r.tree == nil:
			c.orphan(now, r)
		default:
			r.Losses++
			c.finish(now, r, lost(id, why))
		}
	}
	for _, r := range had {
		if r.State.Terminal() {
			c.sever(now, r, "was lost with its executor")
		}
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
		c.places.holders.put(ex.loaded, d, ex.seat)
	}
	for _, d := range unloaded {
		c.places.holders.drop(ex.loaded, d, ex.seat)
	}
}

// Homes notes for which modules' calls an executor has state that they used last.
func (c *Core) Homes(id string, here, gone []skein.Digest) {
	if ex := c.executors[id]; ex != nil {
		for _, d := range here {
			c.places.homes.put(ex.homes, d, ex.seat)
		}
		for _, d := range gone {
			c.places.homes.drop(ex.homes, d, ex.seat)
		}
	}
}

// Drain stops the placing of calls on an executor that said it will leave, and answers it.
func (c *Core) Drain(now time.Time, id string) []Command {
	if ex := c.executors[id]; ex != nil {
		ex.Leaving, ex.LastHeard = true, now
		c.places.update(ex)
		c.commands = append(c.commands, Command{Kind: Drained, Executor: id})
	}
	return c.take()
}

// Log appends to what is known of a running call's log. What does not follow what is there is dropped: its outcome has it all.
// It tells whether there is something new.
func (c *Core) Log(now time.Time, executorID string, id skein.CallID, attempt int32, offset int64, data []byte) bool {
	ex := c.executors[executorID]
	if ex == nil {
		return false
	}
	ex.LastHeard = now
	r := ex.running[id]
	if r == nil || r.State.Terminal() || r.Attempt != attempt || offset < 0 || offset > int64(len(r.Log)) {
		return false
	}
	data = data[min(int64(len(data)), int64(len(r.Log))-offset):]
	data = data[:min(int64(len(data)), max(0, skein.MaxLog-int64(len(r.Log))), c.limits.LogBytes-c.liveLogs)]
	c.liveLogs += int64(len(data))
	r.Log = append(r.Log, data...)
	return len(data) > 0
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
	c.vacate(ex, r)
	if res.Cold && r.Function.Name != "" { // of a call that was forgotten it is not known what it ran
		c.places.holders.put(ex.loaded, r.Version.Digest, ex.seat)
	}
	res.Executor = executorID
	c.finish(now, r, res)
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
		c.expire(now, c.deadlines[0])
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
	for id, l := range c.labels {
		if !now.Before(l.until) {
			delete(c.labels, id)
		}
	}
	c.rescan = true
	c.forget(now)
	c.schedule(now)
	return c.take()
}

// expire does what is due for a call.
func (c *Core) expire(now time.Time, r *record) {
	switch {
	case r.delayed:
		c.release(now, r)
	case r.orphan && (r.State == skein.Running && !r.Sync || now.Before(r.Deadline.Add(c.limits.Overdue))): // an attempt's deadline is for its executor
		c.lose(now, r, "it did not come back")
	default:
		c.stop(now, r, overdue)
	}
}

// overdue is how a call ends whose deadline passed here.
var overdue = skein.Result{State: skein.TimedOut, Reason: "DEADLINE", Message: "the deadline passed"}

// stop ends a call before its executor does.
func (c *Core) stop(now time.Time, r *record, res skein.Result) {
	if r.State == skein.Running && !r.orphan {
		c.emit(CancelOn, r.Executor, r, res.Reason)
	}
	if r.State == skein.Queued && res.State == skein.TimedOut && r.Durable && !r.Sync { // it is too old, and not by its own fault
		r.Dead = true
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
		c.rescan = true
	}
	if r.heapAt >= 0 {
		c.deadlines.remove(r)
	}
	c.unhold(r)
	c.unorphan(r)
	c.liveLogs -= int64(len(r.Log))
	if res.Log == nil {
		res.Log = r.Log // what had come of it
	}
	r.Result, r.State, r.Executor, r.Ended = res, res.State, res.Executor, now
	r.OutputSize, r.LogSize = int64(len(r.Output)), int64(len(r.Log))
	r.Expires = now.Add(cmp.Or(r.ResultAge, c.limits.HistoryAge))
	r.Input, r.Trace = nil, nil // nobody asks for them, and the history's size does not count them
	if !r.Durable {
		r.Args = nil
	}
	if r.Durable { // it is known when the journal has it
		r.Unsaved = true
		c.unsaved += r.size()
		c.store(r)
	} else {
		c.emit(Ended, "", r, "")
	}
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
	if !r.Durable {
		c.remember(now, r)
	}
}

func (c *Core) emit(kind CommandKind, executor string, r *record, reason string) {
	c.commands = append(c.commands, Command{Kind: kind, Executor: executor, Call: &r.Record, Reason: reason})
}
