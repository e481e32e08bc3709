package planner

import (
	"cmp"
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"skein.dev"
)

// sim is a planner's core and executors with a network between them, in a time of their own: what is said comes late, in
// order on one stream and in any order on two, and is lost with the stream.
type sim struct {
	rng    *rand.Rand
	c      *Core
	now    time.Time
	skew   time.Duration // of the planner's clock
	events simEvents
	seq    int
	execs  map[string]*simExecutor
	fan    func(c *skein.Call) int // how many calls a call makes
	local  bool                    // executors start children themselves where they can
	ends   map[skein.CallID]skein.CallState
	born   int    // calls that were accepted
	begun  int    // and began to run, wherever
	each   func() // after every event
	faults *faults
	wrong  error
}

type simEvent struct {
	at  time.Time
	seq int
	do  func()
}

type simEvents []simEvent

func (e simEvents) Len() int { return len(e) }
func (e simEvents) Less(i, j int) bool {
	return e[i].at.Before(e[j].at) || e[i].at.Equal(e[j].at) && e[i].seq < e[j].seq
}
func (e simEvents) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *simEvents) Push(x any)   { *e = append(*e, x.(simEvent)) }
func (e *simEvents) Pop() any {
	old := *e
	last := old[len(old)-1]
	*e = old[:len(old)-1]
	return last
}

// simExecutor keeps the executor's part of the contract: a call runs while it has a token, gives it back while it waits,
// and who wants one gets it by depth.
type simExecutor struct {
	s        *sim
	name     string
	dead     bool
	stream   int // its number: what was said on an earlier one does not arrive
	attached bool
	slots    int
	tokens   int
	calls    map[skein.CallID]*simCall
	children map[skein.CallID]*simCall // of calls here, wherever they run: the parent
	wanting  []*simCall
	unsaid   []*simCall // kept calls that ended while no stream was there
	up, down time.Time  // when the last thing said arrives
}

type simCall struct {
	skein.Call
	keep    bool // it outlasts a break of the stream unless it calls others
	chained bool
	worked  bool
	left    int // children that have not ended
	then    func()
	token   bool
	over    bool
	result  skein.Result
}

func newSim(seed uint64, limits Limits, fan func(c *skein.Call) int) *sim {
	return &sim{
		rng: rand.New(rand.NewPCG(seed, 2)), c: NewCore(limits), now: t0, execs: map[string]*simExecutor{}, fan: fan,
		ends: map[skein.CallID]skein.CallState{},
	}
}

func (s *sim) after(d time.Duration, do func()) { s.at(s.now.Add(d), do) }

func (s *sim) at(t time.Time, do func()) {
	s.seq++
	heap.Push(&s.events, simEvent{t, s.seq, do})
}

func (s *sim) delay() time.Duration { return time.Duration(1+s.rng.IntN(300)) * time.Microsecond }

// run lets time pass until nothing happens any more.
func (s *sim) run() error {
	for len(s.events) > 0 && s.wrong == nil {
		e := heap.Pop(&s.events).(simEvent)
		s.now = e.at
		e.do()
		if s.each != nil {
			s.each()
		}
	}
	return s.wrong
}

func (s *sim) id() (id skein.CallID) {
	for i := range id {
		id[i] = byte(s.rng.Uint32())
	}
	return id
}

// clock is what the planner believes.
func (s *sim) clock() time.Time { return s.now.Add(s.skew) }

func (s *sim) attach(name string, slots int) {
	x := &simExecutor{s: s, name: name, attached: true, slots: slots, tokens: slots, calls: map[skein.CallID]*simCall{}, children: map[skein.CallID]*simCall{}, up: s.now, down: s.now}
	s.execs[name] = x
	commands, err := s.c.Attach(s.clock(), Executor{ID: name, Slots: slots}, nil)
	if err != nil {
		s.wrong = err
	}
	s.obey(commands)
}

func (s *sim) submit(user skein.User, timeout time.Duration) skein.CallID {
	call := skein.Call{ID: s.id(), Function: skein.Function{User: user, Name: "f"}, Deadline: s.now.Add(timeout)}
	_, commands, err := s.c.Submit(s.clock(), call, Options{})
	if err != nil {
		s.wrong = err
		return call.ID
	}
	s.born++
	s.obey(commands)
	return call.ID
}

func (s *sim) obey(commands []Command) {
	for _, cmd := range commands {
		x := s.execs[cmd.Executor]
		if s.faults != nil && s.faults.hears(&cmd) {
			continue
		}
		switch cmd.Kind {
		case Ended:
			if state, twice := s.ends[cmd.Call.ID]; twice {
				s.wrong = fmt.Errorf("call %s ended %s, then %s", cmd.Call.ID, state, cmd.Call.State)
			}
			s.ends[cmd.Call.ID] = cmd.Call.State
		case Accepted:
			if _, ended := s.ends[cmd.Call.ID]; !ended && cmd.Call.Created.Equal(s.now) {
				s.born++
			}
		case Dispatch:
			call, keep := cmd.Call.Call, cmd.Call.Durable
			x.tell(func() { x.take(&call, keep) })
		case CancelOn:
			id := cmd.Call.ID
			x.tell(func() { x.stop(id) })
		case ChildEnded:
			id := cmd.Call.ID
			x.tell(func() { x.childEnded(id) })
		case Refused:
			id, reason := cmd.Call.ID, cmd.Reason
			if reason != "CANCELLED" && reason != "NO_PARENT" {
				s.wrong = fmt.Errorf("spawn refused: %+v", cmd)
			}
			x.tell(func() { x.childEnded(id) })
		}
	}
}

// tell brings something to the executor, and say something to the planner.
func (x *simExecutor) tell(do func()) {
	if !x.attached {
		return
	}
	if at := x.s.now.Add(x.s.delay()); at.After(x.down) {
		x.down = at
	}
	stream := x.stream
	x.s.at(x.down, func() {
		if !x.dead && x.stream == stream {
			do()
		}
	})
}

func (x *simExecutor) say(do func() []Command) {
	if !x.attached {
		return
	}
	if at := x.s.now.Add(x.s.delay()); at.After(x.up) {
		x.up = at
	}
	stream := x.stream
	x.s.at(x.up, func() {
		if !x.dead && x.stream == stream {
			x.s.obey(do())
		}
	})
}

// take begins a call.
func (x *simExecutor) take(call *skein.Call, keep bool) {
	x.s.begun++
	c := &simCall{Call: *call, keep: keep}
	if old := x.calls[c.ID]; old != nil && x.s.wrong == nil {
		x.s.wrong = fmt.Errorf("executor %s is given attempt %d of call %s, it has attempt %d still", x.name, c.Attempt, c.ID, old.Attempt)
	}
	x.calls[c.ID] = c
	x.want(c, func() { x.begin(c) })
}

// want queues a call for a token.
func (x *simExecutor) want(c *simCall, then func()) {
	c.then = then
	x.wanting = append(x.wanting, c)
	x.grant()
}

func (x *simExecutor) grant() {
	slices.SortStableFunc(x.wanting, func(a, b *simCall) int { return cmp.Compare(b.Depth, a.Depth) })
	for x.tokens > 0 && len(x.wanting) > 0 {
		c := x.wanting[0]
		x.wanting = slices.Delete(x.wanting, 0, 1)
		x.tokens--
		c.token = true
		x.s.after(x.s.delay(), func() {
			if !x.dead && !c.over {
				c.then()
			}
		})
	}
}

func (x *simExecutor) release(c *simCall) {
	if c.token {
		c.token = false
		x.tokens++
	}
	x.grant()
}

// begin is the program of every call: make calls, wait for them, end.
func (x *simExecutor) begin(c *simCall) {
	if x.s.faults != nil && x.s.faults.begins(x, c) {
		return
	}
	n := x.s.fan(&c.Call)
	if n == 0 {
		x.end(c, skein.Succeeded)
		return
	}
	if !x.attached { // it can call nobody
		x.end(c, skein.Failed)
		return
	}
	c.chained = true
	var spawns []Spawn
	waits := Wait{ID: c.ID}
	for range n {
		sp := Spawn{ID: x.s.id(), Parent: c.ID, Function: c.Function.Name, Started: x.s.local && x.tokens > 0 && len(x.wanting) == 0}
		spawns, waits.Children = append(spawns, sp), append(waits.Children, sp.ID)
		x.children[sp.ID] = c
		if sp.Started {
			x.take(&skein.Call{ID: sp.ID, Parent: c.ID, Function: c.Function, Depth: c.Depth + 1, Root: c.Root, Attempt: 1}, false)
		}
	}
	c.left = n
	x.say(func() []Command { return x.s.c.Spawn(x.s.clock(), x.name, spawns) })
	x.release(c)
	x.say(func() []Command { return x.s.c.Waits(x.s.clock(), x.name, []Wait{waits}) })
}

// childEnded wakes a call when the last of its children has ended; what is said twice counts once.
func (x *simExecutor) childEnded(id skein.CallID) {
	p := x.children[id]
	delete(x.children, id)
	if p == nil || p.over {
		return
	}
	if p.left--; p.left > 0 {
		return
	}
	x.want(p, func() {
		x.say(func() []Command { return x.s.c.Waits(x.s.clock(), x.name, []Wait{{ID: p.ID}}) })
		x.end(p, skein.Succeeded)
	})
}

func (x *simExecutor) end(c *simCall, state skein.CallState) {
	c.result = skein.Result{State: state, Cold: x.s.rng.IntN(9) == 0}
	if x.s.faults != nil {
		x.s.faults.ends(x, c)
	}
	x.forget(c)
	if x.attached {
		x.report(c)
	} else if c.keep {
		x.unsaid = append(x.unsaid, c)
	}
	x.release(c)
	x.childEnded(c.ID)
}

// forget takes a call off the executor.
func (x *simExecutor) forget(c *simCall) {
	c.over = true
	delete(x.calls, c.ID)
	x.wanting = slices.DeleteFunc(x.wanting, func(o *simCall) bool { return o == c })
}

// report says a call's end, now and then twice.
func (x *simExecutor) report(c *simCall) {
	times := 1
	if x.s.rng.IntN(50) == 0 {
		times = 2
	}
	for range times {
		x.say(func() []Command { return x.s.c.Outcome(x.s.clock(), x.name, c.ID, max(1, c.Attempt), c.result) })
	}
}

func (x *simExecutor) stop(id skein.CallID) {
	if c := x.calls[id]; c != nil {
		x.end(c, skein.Cancelled)
	}
}

// idle checks that nothing is left of any call.
func (s *sim) idle() error {
	if err := audit(s.c); err != nil {
		return err
	}
	if len(s.c.deadlines) != 0 || len(s.c.lookups) != 0 || s.c.queue.len() != 0 || s.born != len(s.ends) {
		return fmt.Errorf("%d calls were accepted, %d ended, %d are alive, %d wait", s.born, len(s.ends), len(s.c.deadlines), s.c.queue.len())
	}
	for name, x := range s.execs {
		if ex := s.c.executors[name]; len(ex.running) != 0 || len(ex.waiting) != 0 || len(x.calls) != 0 || x.tokens != ex.Slots {
			return fmt.Errorf("executor %s: %d calls in the books, %d there, %d of %d tokens", name, len(ex.running), len(x.calls), x.tokens, ex.Slots)
		}
	}
	return nil
}

func simLimits() Limits {
	l := DefaultLimits()
	l.HistoryCalls, l.HistoryBytes, l.TreeCalls = 100, 1<<40, 1<<20
	return l
}

// Programs that a planner which counts a waiting call's slot could not finish.
func TestPrograms(t *testing.T) {
	t.Parallel()
	for _, p := range []struct {
		name             string
		roots, slots     int
		executors, calls int
		fan              func(c *skein.Call) int
	}{
		{"a chain of depth 32 on one slot", 1, 1, 1, 33, func(c *skein.Call) int { return min(1, 32-int(c.Depth)) }},
		{"a chain of the greatest depth over two executors", 1, 1, 2, skein.MaxDepth + 1, func(c *skein.Call) int { return min(1, skein.MaxDepth-int(c.Depth)) }},
		{"100 parents of 1,000 on 8 slots", 100, 8, 1, 100_100, func(c *skein.Call) int { return 1000 * int(1-c.Depth) }},
		{"100 parents of 1,000 on 4 executors of 2 slots", 100, 2, 4, 100_100, func(c *skein.Call) int { return 1000 * int(1-c.Depth) }},
		{"a binary tree of depth 14 on two slots", 1, 2, 1, 1<<15 - 1, func(c *skein.Call) int { return min(2, 2*(14-int(c.Depth))) }},
		{"a binary tree of depth 14 on two executors of one slot", 1, 1, 2, 1<<15 - 1, func(c *skein.Call) int { return min(2, 2*(14-int(c.Depth))) }},
	} {
		for _, local := range []bool{false, true} {
			if p.calls > 1000 && local != (p.executors > 1) { // the large ones once each
				continue
			}
			t.Run(fmt.Sprintf("%s, local %v", p.name, local), func(t *testing.T) {
				s := newSim(1, simLimits(), p.fan)
				s.local = local
				for i := range p.executors {
					s.attach(fmt.Sprint("x", i), p.slots)
				}
				for i := range p.roots {
					s.submit(skein.User(fmt.Sprint("u", i%3)), time.Hour)
				}
				err := s.run()
				if err == nil {
					err = s.idle()
				}
				if err != nil || s.born != p.calls || s.begun != p.calls {
					t.Fatalf("%d calls were accepted, %d begun, want %d: %v", s.born, s.begun, p.calls, err)
				}
				for id, state := range s.ends {
					if state != skein.Succeeded {
						t.Fatalf("call %s: %s", id, state)
					}
				}
			})
		}
	}
}

// Executors die and come, callers cancel, deadlines pass: all that was accepted ends, once, and no slot is left taken.
func TestSimulation(t *testing.T) {
	t.Parallel()
	seeds := uint64(50)
	if testing.Short() {
		seeds = 6
	}
	calls, states := 0, map[skein.CallState]int{}
	for seed := range seeds {
		s := newSim(seed, simLimits(), nil)
		s.fan = func(c *skein.Call) int { return max(0, s.rng.IntN(8)-2*int(c.Depth)) }
		s.local = seed%2 == 0
		for i := range 4 {
			s.attach(fmt.Sprint("x", i), 1+s.rng.IntN(4))
		}
		for i := range 200 {
			s.after(time.Duration(s.rng.IntN(200))*time.Millisecond, func() {
				id := s.submit(skein.User(fmt.Sprint("u", i%3)), time.Duration(1+s.rng.IntN(500))*time.Millisecond)
				if s.rng.IntN(4) == 0 {
					s.after(time.Duration(s.rng.IntN(20))*time.Millisecond, func() { s.obey(s.c.Cancel(s.clock(), id)) })
				}
			})
		}
		for range 10 {
			s.after(time.Duration(s.rng.IntN(200))*time.Millisecond, s.kill)
		}
		for tick := range 300 {
			s.after(time.Duration(tick)*10*time.Millisecond, func() {
				s.obey(s.c.Tick(s.clock()))
				if err := audit(s.c); err != nil && s.wrong == nil {
					s.wrong = err
				}
			})
		}
		err := s.run()
		if err == nil {
			err = s.idle()
		}
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		calls += s.born
		for _, state := range s.ends {
			states[state]++
		}
	}
	t.Logf("%d calls: %v", calls, states)
	if states[skein.Succeeded] < calls/4 || states[skein.Cancelled] < calls/100 || states[skein.Failed] < calls/1000 || states[skein.TimedOut] == 0 {
		t.Errorf("%d calls: %v: some histories did not happen", calls, states)
	}
}

// kill ends an executor; one of its name comes after a while.
func (s *sim) kill() {
	name := fmt.Sprint("x", s.rng.IntN(4))
	x := s.execs[name]
	if x == nil || x.dead {
		return
	}
	x.dead = true
	delete(s.execs, name)
	s.obey(s.c.Detach(s.clock(), name, "killed"))
	s.after(time.Duration(s.rng.IntN(30))*time.Millisecond, func() { s.attach(name, 1+s.rng.IntN(4)) })
}
