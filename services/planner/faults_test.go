package planner

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
)

var simCalls = flag.Int("sim-calls", 0, "calls of TestFaults' histories together; 0 for a few")

// faults adds to a sim what goes wrong: executors die, streams break and come back, the planner starts anew from a journal
// whose writes are slow, fail or are not confirmed, clocks jump, and outcomes are said late. It checks what must hold all the
// same, after every command.
type faults struct {
	*sim
	term     int // of the planner: what was said to an earlier one does not arrive
	journal  map[skein.CallID]Record
	writing  []*write
	lives    map[skein.CallID]*life
	requests map[string]skein.CallID
	names    int
	counts   map[string]int
	until    time.Time // nothing goes wrong later
	late     []func()  // outcomes that were said once
}

// life is what is known of one call from outside.
type life struct {
	id       skein.CallID
	durable  bool
	sync     bool
	poison   bool
	acked    bool
	given    map[int32]int     // how often each attempt was given to an executor
	outputs  map[string]string // what executions said, and which attempt on which executor did
	harmed   int               // executors that died of it
	restarts int               // of the planner while it lived
	ended    *Record           // as the client was told
}

// write is one to the journal.
type write struct{ rec Record }

func newFaults(seed uint64, limits Limits) *faults {
	f := &faults{
		sim: newSim(seed, limits, nil), journal: map[skein.CallID]Record{}, lives: map[skein.CallID]*life{},
		requests: map[string]skein.CallID{}, counts: map[string]int{},
	}
	f.sim.faults = f
	f.sim.fan = func(c *skein.Call) int {
		if c.Depth == 0 && c.ID[0]%3 > 0 {
			return 0
		}
		return max(0, f.rng.IntN(5)-2*int(c.Depth))
	}
	f.sim.local = seed%2 == 0
	return f
}

func (f *faults) fail(format string, args ...any) {
	if f.wrong == nil {
		f.wrong = fmt.Errorf(format, args...)
	}
}

// chance is true once in n times, while things go wrong.
func (f *faults) chance(n int) bool { return f.now.Before(f.until) && f.rng.IntN(n) == 0 }

func (f *faults) span(most time.Duration) time.Duration {
	return time.Duration(f.rng.Int64N(int64(most)))
}

// pause is a span, and now and then one that is longer than most calls' back-off.
func (f *faults) pause(most time.Duration) time.Duration {
	if f.rng.IntN(10) == 0 {
		most = 2 * time.Second
	}
	return f.span(most)
}

// call lets a client call: mostly durably, now and then waiting for the answer, or a second time.
func (f *faults) call() {
	id := f.id()
	call := skein.Call{ID: id, Function: skein.Function{User: skein.User(fmt.Sprint("u", f.rng.IntN(3))), Name: "f"}, Deadline: f.clock().Add(time.Minute)}
	l := &life{id: id, given: map[int32]int{}, outputs: map[string]string{}}
	var opts Options
	switch p := f.rng.IntN(10); {
	case p < 7:
		l.durable = true
		opts = Options{Durable: true, Timeout: 50 * time.Millisecond, MaxAttempts: int32(1 + f.rng.IntN(5)), RetryFailures: f.rng.IntN(3) == 0, GiveUp: f.clock().Add(time.Hour)}
		l.poison = f.chance(100)
	case p < 9:
		l.durable, l.sync = true, true
		opts = Options{Durable: true, Sync: true, MaxAttempts: 3}
	}
	if l.durable && (l.sync || f.rng.IntN(3) == 0) {
		opts.RequestID = fmt.Sprint(call.Function, f.rng.IntN(500))
	}
	if old, known := f.journal[f.requests[opts.RequestID]]; opts.RequestID != "" && known && f.c.calls[old.ID] == nil {
		return // the core has forgotten it; the journal has not, and would say so
	}
	got, commands, err := f.c.Submit(f.clock(), call, opts)
	switch {
	case err != nil && fault.From(err).Reason != "QUEUE_FULL":
		f.fail("submit: %v", err)
	case err != nil:
		f.counts["refused"]++
	case got != id:
		if f.requests[opts.RequestID] != got || f.c.calls[got] == nil {
			f.fail("request %s joined %s, want %s", opts.RequestID, got, f.requests[opts.RequestID])
		}
		f.counts["joined"]++
	default:
		if old := f.requests[opts.RequestID]; opts.RequestID != "" && f.c.calls[old] != nil {
			f.fail("request %s did not join %s", opts.RequestID, old)
		}
		f.born++
		f.lives[id] = l
		if opts.RequestID != "" {
			f.requests[opts.RequestID] = id
		}
		f.obey(commands)
		if f.rng.IntN(10) == 0 {
			f.after(f.span(20*time.Millisecond), func() { f.obey(f.c.Cancel(f.clock(), id)) })
		}
	}
}

// hears checks a command and obeys those that a sim knows nothing of. It tells whether nothing is left to do.
func (f *faults) hears(cmd *Command) bool {
	var l *life
	if cmd.Call != nil {
		l = f.lives[cmd.Call.ID]
	}
	x := f.execs[cmd.Executor]
	switch cmd.Kind {
	case Dispatch:
		if l != nil {
			f.dispatched(l, cmd.Call)
		}
		if ex := f.c.executors[cmd.Executor]; ex.Leaving || ex.running[cmd.Call.ID] == nil {
			f.fail("call %s is given to %s, which leaves: %v", cmd.Call.ID, ex.ID, ex.Leaving)
		}
	case Store:
		f.store(*cmd.Call)
		return true
	case Drained:
		if x != nil {
			x.tell(func() { f.leave(x, x.stream) })
		}
		return true
	case Drop:
		if x != nil && x.attached {
			f.sever(x)
		}
		return true
	case Ended:
		if l != nil {
			f.told(l, cmd.Call)
		}
		return true
	case Accepted:
		f.born++
		return true
	}
	return x == nil || cmd.Kind == Resolve
}

func (f *faults) dispatched(l *life, r *Record) {
	l.given[r.Attempt]++
	if name, attempt := r.Executor, r.Attempt; f.rng.IntN(2) == 0 { // whoever may say so, another attempt's result is none
		f.after(f.span(2*time.Millisecond), func() {
			f.obey(f.c.Outcome(f.clock(), name, l.id, attempt-1, skein.Result{State: skein.Succeeded, Output: []byte("another's")}))
		})
	}
	switch {
	case l.given[r.Attempt] > 1:
		f.fail("attempt %d of call %s is given out twice", r.Attempt, l.id)
	case l.ended != nil:
		f.fail("call %s begins, it ended %s", l.id, l.ended.State)
	case l.durable && f.journal[l.id].Attempt != r.Attempt:
		f.fail("attempt %d of call %s begins, the journal has %d", r.Attempt, l.id, f.journal[l.id].Attempt)
	case l.sync && len(l.given) > 1:
		f.fail("call %s, for which somebody waits, is given out twice", l.id)
	}
}

// told checks what a client hears of a call's end.
func (f *faults) told(l *life, r *Record) {
	f.counts[r.State.String()]++
	f.counts[r.Reason]++
	if r.Dead {
		f.counts["dead"]++
	}
	if l.ended != nil {
		f.fail("call %s ended %s, now it ended %s", l.id, l.ended.State, r.State)
	}
	copied := *r
	l.ended = &copied
	if j := f.journal[l.id]; l.durable && (j.State != r.State || j.Attempt != r.Attempt || string(j.Output) != string(r.Output)) {
		f.fail("call %s ended %s, the journal has %s of attempt %d", l.id, r.State, j.State, j.Attempt)
	}
	f.resulted(l, r)
}

// resulted checks that a result is that of the attempt that counts.
func (f *faults) resulted(l *life, r *Record) {
	if want := fmt.Sprintf("%d on %s", r.Attempt, r.Executor); r.State == skein.Succeeded && l.outputs[string(r.Output)] != want {
		f.fail("the result of call %s is that of attempt %s, want %s", l.id, l.outputs[string(r.Output)], want)
	}
}

// begins runs the first step of a call, and tells whether there is no other.
func (f *faults) begins(x *simExecutor, c *simCall) bool {
	l := f.lives[c.ID]
	if l == nil {
		return false
	}
	if !c.worked && f.rng.IntN(3) == 0 { // for a while
		c.worked = true
		f.after(f.pause(10*time.Millisecond), func() {
			if !x.dead && !c.over {
				x.begin(c)
			}
		})
		return true
	}
	if !l.poison {
		return false
	}
	if l.harmed++; l.harmed > 2+l.restarts { // of an executor that was lost while the planner was, the next one knows nothing
		f.fail("call %s ends executor number %d; the planner started anew %d times", l.id, l.harmed, l.restarts)
	}
	f.counts["poisoned"]++
	f.die(x)
	return true
}

// ends decides a call's result.
func (f *faults) ends(x *simExecutor, c *simCall) {
	l := f.lives[c.ID]
	if l == nil || c.result.State == skein.Cancelled {
		return
	}
	switch p := f.rng.IntN(30); {
	case c.result.State == skein.Failed || p == 0:
		c.result.State, c.result.Reason = skein.Failed, "UNAVAILABLE"
	case p == 1:
		c.result.State, c.result.Reason = skein.Failed, "GUEST_TRAP"
	default:
		out := fmt.Sprint("result ", len(l.outputs))
		l.outputs[out] = fmt.Sprintf("%d on %s", c.Attempt, x.name)
		c.result.Output = []byte(out)
	}
	if f.chance(10) { // it is said once more, at any time
		f.late = append(f.late, func() { f.obey(f.c.Outcome(f.clock(), x.name, c.ID, c.Attempt, c.result)) })
	}
}

// store writes a record, with all that can go wrong.
func (f *faults) store(rec Record) {
	w, term, l := &write{rec: rec}, f.term, f.lives[rec.ID]
	f.writing = append(f.writing, w)
	var try func()
	try = func() {
		_, there := f.journal[rec.ID]
		switch {
		case f.term != term: // the lease is lost: nothing of it is written any more
			return
		case !there && f.chance(30):
			f.counts["withdrawn"]++
			f.finished(w)
			f.c.Withdraw(f.clock(), rec.ID)
			return
		case f.chance(15):
			f.after(f.span(10*time.Millisecond), try)
			return
		}
		f.land(w)
		f.after(f.delay(), func() {
			if f.term == term {
				l.acked = true
				f.obey(f.c.Stored(f.clock(), rec.ID))
			}
		})
	}
	f.after(f.delay(), try)
}

func (f *faults) finished(w *write) {
	f.writing = slices.DeleteFunc(f.writing, func(o *write) bool { return o == w })
}

func (f *faults) land(w *write) {
	if old := f.journal[w.rec.ID]; old.State.Terminal() && (w.rec.State != old.State || w.rec.Attempt != old.Attempt) || old.Attempt > w.rec.Attempt {
		f.fail("the journal's record of call %s goes from %s of attempt %d to %s of %d", w.rec.ID, old.State, old.Attempt, w.rec.State, w.rec.Attempt)
	}
	f.journal[w.rec.ID] = w.rec
	f.finished(w)
}

// die ends an executor; another attaches after a while.
func (f *faults) die(x *simExecutor) {
	if x.dead {
		return
	}
	f.counts["deaths"]++
	x.dead = true
	f.detached(x)
	delete(f.execs, x.name)
	f.replace(x)
}

// replace lets an executor come in place of another: under its name, or a new one.
func (f *faults) replace(x *simExecutor) {
	name := x.name
	if f.rng.IntN(2) == 0 {
		f.names++
		name = fmt.Sprint("y", f.names)
	}
	f.after(f.span(20*time.Millisecond), func() { f.join(name, 1+f.rng.IntN(4), nil) })
}

// detached has the planner hear of a stream's end.
func (f *faults) detached(x *simExecutor) {
	if !x.attached {
		return
	}
	x.attached = false
	x.stream++
	term := f.term
	f.after(f.delay(), func() {
		if f.term == term {
			f.obey(f.c.Detach(f.clock(), x.name, "its stream broke"))
		}
	})
}

// sever breaks a stream: the executor keeps what it may, and comes back.
func (f *faults) sever(x *simExecutor) {
	f.counts["breaks"]++
	f.detached(x)
	f.keep(x)
	f.after(f.pause(12*time.Millisecond), func() { f.join(x.name, x.slots, x) })
}

// keep drops an executor's calls that don't outlast a stream.
func (f *faults) keep(x *simExecutor) {
	for _, id := range slices.SortedFunc(maps.Keys(x.calls), func(a, b skein.CallID) int { return slices.Compare(a[:], b[:]) }) {
		if c := x.calls[id]; !c.keep || c.chained {
			x.forget(c)
			x.release(c)
		}
	}
	clear(x.children)
}

// join attaches an executor, which may have been there before; one whose name is taken tries again.
func (f *faults) join(name string, slots int, x *simExecutor) {
	if x != nil && (x.dead || x.attached) {
		return
	}
	if f.c.executors[name] != nil || f.execs[name] != x {
		f.after(f.delay()+time.Millisecond, func() { f.join(name, slots, x) })
		return
	}
	if x == nil {
		x = &simExecutor{s: f.sim, name: name, slots: slots, tokens: slots, calls: map[skein.CallID]*simCall{}, children: map[skein.CallID]*simCall{}}
		f.execs[name] = x
	}
	x.attached, x.up, x.down = true, f.now, f.now
	x.stream++
	var kept []Kept
	for _, c := range append(slices.Collect(maps.Values(x.calls)), x.unsaid...) {
		kept = append(kept, Kept{c.ID, c.Attempt})
	}
	slices.SortFunc(kept, func(a, b Kept) int { return slices.Compare(a.ID[:], b.ID[:]) })
	f.counts["kept"] += len(kept)
	commands, err := f.c.Attach(f.clock(), Executor{ID: name, Slots: slots}, kept)
	if err != nil {
		f.fail("attach: %v", err)
	}
	f.obey(commands)
	for _, c := range x.unsaid {
		x.report(c)
	}
	x.unsaid = nil
	f.beat(x, x.stream)
}

func (f *faults) beat(x *simExecutor, stream int) {
	if x.dead || x.stream != stream {
		return
	}
	if f.chance(100) { // it stands still for too long
		f.counts["mute"]++
		return
	}
	x.say(func() []Command { f.c.Heartbeat(f.clock(), x.name, 0, nil, nil); return nil })
	f.after(f.c.limits.Silence/5, func() { f.beat(x, stream) })
}

// leave lets an executor that was told that nothing follows go once its calls have ended. On another stream it would have to say
// again that it drains.
func (f *faults) leave(x *simExecutor, stream int) {
	if x.dead || x.stream != stream {
		return
	}
	if len(x.calls) > 0 {
		f.after(time.Millisecond, func() { f.leave(x, stream) })
		return
	}
	x.say(func() []Command {
		for _, r := range f.c.executors[x.name].running {
			if !r.State.Terminal() {
				f.fail("executor %s left with call %s", x.name, r.ID)
			}
		}
		f.counts["drained"]++
		x.dead, x.attached = true, false
		delete(f.execs, x.name)
		f.replace(x)
		return f.c.Detach(f.clock(), x.name, "it left")
	})
}

// crash ends the planner, and starts another from the journal. Of what was being written, some is there.
func (f *faults) crash() {
	f.counts["crashes"]++
	for _, w := range slices.Clone(f.writing) {
		if f.rng.IntN(2) == 0 {
			f.land(w)
		}
	}
	f.term++
	f.writing = nil
	for _, name := range slices.Sorted(maps.Keys(f.execs)) {
		if x := f.execs[name]; x.attached {
			x.attached = false
			x.stream++
			f.keep(x)
			f.after(f.pause(12*time.Millisecond), func() { f.join(x.name, x.slots, x) })
		}
	}
	limits, policy := f.c.limits, f.c.policy
	f.c = NewCore(limits)
	_ = f.c.SetPolicy(f.clock(), policy)
	f.skew += time.Duration(f.rng.IntN(2001)-1000) * time.Millisecond
	all := slices.SortedFunc(maps.Values(f.journal), func(a, b Record) int { return cmp.Compare(a.Seq, b.Seq) })
	for i := range all {
		r := &all[i]
		l := f.lives[r.ID]
		switch {
		case !r.State.Terminal():
			l.restarts++
			r.Executor, r.Started = "", time.Time{}
		case l.ended == nil: // its end was written and not confirmed
			f.resulted(l, r)
			l.ended = r
		}
	}
	f.obey(f.c.Recover(f.clock(), all))
	for id, j := range f.journal {
		if r := f.c.calls[id]; r != nil { // else it is forgotten already
			j.Seq = r.Seq
			f.journal[id] = j
		}
	}
	for id, l := range f.lives {
		if _, there := f.journal[id]; l.acked && !there {
			f.fail("call %s was acknowledged, and is lost", l.id)
		}
	}
}

// mishap lets one thing go wrong.
func (f *faults) mishap() {
	names := slices.Sorted(maps.Keys(f.execs))
	if len(names) == 0 {
		return
	}
	x := f.execs[names[f.rng.IntN(len(names))]]
	switch p := f.rng.IntN(20); {
	case p < 5:
		f.die(x)
	case p < 10 && x.attached:
		f.sever(x)
	case p < 11:
		f.crash()
	case p < 13:
		f.skew += time.Duration(f.rng.IntN(200)-100) * time.Millisecond
	case p < 14 && x.attached:
		x.say(func() []Command { return f.c.Drain(f.clock(), x.name) })
	case p < 15:
		f.obey(f.c.SetPolicy(f.clock(), Policy(f.rng.IntN(3))))
	case len(f.late) > 0:
		f.late[f.rng.IntN(len(f.late))]()
	}
}

// play lets a history of so many calls from outside happen.
func (f *faults) play(roots int) error {
	f.until = f.now.Add(time.Duration(roots) * 250 * time.Microsecond)
	for i := range 5 {
		f.join(fmt.Sprint("x", i), 1+f.rng.IntN(4), nil)
	}
	for i := range roots {
		f.after(time.Duration(i)*250*time.Microsecond, f.call)
	}
	for at := time.Duration(0); at < f.until.Sub(f.now); at += time.Duration(1+f.rng.IntN(10)) * time.Millisecond {
		f.after(at, f.mishap)
	}
	f.tick(1)
	if err := f.run(); err != nil {
		return err
	}
	return f.over()
}

func (f *faults) tick(n int) {
	f.obey(f.c.Tick(f.clock()))
	if n%32 == 0 {
		if err := audit(f.c); err != nil {
			f.fail("%v", err)
		}
	}
	switch {
	case f.now.Before(f.until):
		f.after(time.Millisecond, func() { f.tick(n + 1) })
	case f.now.Sub(f.until) > time.Hour:
		f.fail("%d calls are alive an hour later", len(f.c.deadlines))
	case len(f.c.deadlines) > 0 || len(f.writing) > 0:
		f.after(20*time.Millisecond, func() { f.tick(n + 1) })
	default:
		f.after(3*time.Second, func() { f.events = nil }) // the last executors are back; heartbeats would go on for ever
	}
}

// over checks that all calls have ended, and that nothing is left of them.
func (f *faults) over() error {
	for id, l := range f.lives {
		switch j := f.journal[id]; {
		case !l.durable || !l.acked:
		case l.ended == nil:
			return fmt.Errorf("call %s was acknowledged and has no end: %+v", id, j)
		case j.State != l.ended.State || j.Attempt != l.ended.Attempt || string(j.Output) != string(l.ended.Output):
			return fmt.Errorf("call %s ended %s, the journal says %s", id, l.ended.State, j.State)
		}
	}
	if err := audit(f.c); err != nil {
		return err
	}
	if len(f.c.orphans) != 0 || f.c.queue.len() != 0 || f.c.queue.held.calls != 0 {
		return fmt.Errorf("%d orphans and %d calls in the queue are left", len(f.c.orphans), f.c.queue.len())
	}
	for name, x := range f.execs {
		ex := f.c.executors[name]
		if ex == nil || len(ex.running) != 0 || len(x.calls) != 0 || x.tokens != x.slots {
			return fmt.Errorf("executor %s has %d calls and %d of %d tokens; the books: %+v", name, len(x.calls), x.tokens, x.slots, ex)
		}
	}
	return nil
}

func faultLimits() Limits {
	l := DefaultLimits()
	l.HistoryCalls, l.HistoryBytes, l.HistoryAge, l.TreeCalls = 1<<30, 1<<50, 1000*time.Hour, 1<<20
	l.Grace, l.Silence, l.Overdue = 5*time.Millisecond, 50*time.Millisecond, 5*time.Millisecond
	return l
}

// Whatever goes wrong, what was acknowledged ends once, by the attempt that counts, and no slot is left taken.
func TestFaults(t *testing.T) {
	t.Parallel()
	most, began := *simCalls, time.Now()
	if most == 0 {
		if most = 40_000; testing.Short() {
			most = 4_000
		}
	}
	calls, begun, counts := 0, 0, map[string]int{}
	for seed := uint64(0); calls < most; seed++ {
		limits := faultLimits()
		switch seed % 4 {
		case 1:
			limits.Grace = 200 * time.Millisecond
		case 3: // the journal alone knows most of what has ended
			limits.HistoryCalls = 20
		}
		f := newFaults(seed, limits)
		if err := f.play(1000); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for k, n := range f.counts {
			counts[k] += n
		}
		calls, begun = calls+f.born, begun+f.begun
	}
	t.Logf("%d calls were accepted, and began %d times; %.0f a second: %v", calls, begun, float64(calls)/time.Since(began).Seconds(), counts)
	for _, k := range []string{
		"SUCCEEDED", "FAILED", "CANCELLED", "TIMED_OUT", "dead", "POISON", "EXECUTOR_LOST", "joined", "withdrawn", "poisoned", "deaths", "breaks", "kept",
		"drained", "crashes", "mute",
	} {
		if counts[k] == 0 && !testing.Short() {
			t.Errorf("no %s: some histories did not happen", k)
		}
	}
}
