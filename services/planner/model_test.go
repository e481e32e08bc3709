package planner

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
)

// model is what a core must amount to, by the simplest means: what was said to it and what it commanded.
type model struct {
	rng     *rand.Rand
	c       *Core
	now     time.Time
	calls   map[skein.CallID]*modelCall // all ever accepted
	order   []skein.CallID
	execs   map[string]*modelExecutor
	dropped []string // told to be dropped, not yet detached
	names   int
	policy  Policy           // not Compact: what is placed then is another question
	labels  map[string]label // of executors that went
	modelTrees
}

type modelCall struct {
	call      skein.Call
	requestID string
	hash      byte
	ran       string // executor it was given to
	final     *Record

	parent *modelCall
	root   *modelCall
	made   int  // children
	cut    bool // cancelled, timed out or lost: nothing may be alive below it
	// of roots
	versions map[string]skein.Version
	size     int // calls of the tree
}

type modelExecutor struct {
	slots    int
	draining bool
	cordoned bool
	marked   bool
	holds    map[skein.CallID]bool // given to it, no right outcome yet
	waits    map[skein.CallID]bool // of those, calls that gave their slots back
	heard    time.Time
}

// takes tells whether calls may be placed there, if a slot is free.
func (m *model) takes(e *modelExecutor) bool {
	return !e.draining && !e.cordoned && !(m.policy == Spot && e.marked)
}

func (e *modelExecutor) used() int { return len(e.holds) - len(e.waits) }

// waiting is how many calls from outside of a user (all users if none is named) wait, and their bytes.
func (m *model) waiting(user skein.User) (n int, bytes int64) {
	for _, id := range m.order {
		if k := m.calls[id]; k.final == nil && k.ran == "" && k.parent == nil && (user == "" || user == k.call.Function.User) {
			n++
			bytes += weight(&k.call)
		}
	}
	return n, bytes
}

// obey takes the core's commands and says which of them it must not have given.
func (m *model) obey(commands []Command) error {
	var cancelled *skein.CallID // CancelOn is followed at once by that call's end, or the refusal of it
	var tells *modelCall        // and the end of a call at once by its parent's executor being told, if it must be
	for _, cmd := range commands {
		if cancelled != nil && (cmd.Kind != Ended && cmd.Kind != Refused || cmd.Call.ID != *cancelled) {
			return fmt.Errorf("call %s is cancelled, then comes %+v", cancelled, cmd)
		}
		if (tells != nil) != (cmd.Kind == ChildEnded) || tells != nil && (cmd.Call.ID != tells.call.ID || cmd.Executor != tells.parent.ran || cmd.Call.State != tells.final.State) {
			return fmt.Errorf("call %s ended, then comes %+v", tells.call.ID, cmd)
		}
		cancelled, tells = nil, nil
		if other, err := m.obeyTree(&cmd); err != nil {
			return err
		} else if other {
			if cmd.Kind == CancelOn {
				cancelled = &cmd.Call.ID
			}
			continue
		}
		if cmd.Kind == Drop {
			ex := m.execs[cmd.Executor]
			if ex == nil || m.now.Sub(ex.heard) <= m.c.limits.Silence {
				return fmt.Errorf("drop %s, heard of %s ago", cmd.Executor, m.now.Sub(ex.heard))
			}
			if !slices.Contains(m.dropped, cmd.Executor) {
				m.dropped = append(m.dropped, cmd.Executor)
			}
			continue
		}
		k := m.calls[cmd.Call.ID]
		if k == nil || k.final != nil {
			return fmt.Errorf("command %d for call %s, which is unknown or has ended", cmd.Kind, cmd.Call.ID)
		}
		switch ex := m.execs[cmd.Executor]; cmd.Kind {
		case Dispatch:
			if k.ran != "" || ex == nil || !m.takes(ex) || ex.used() >= ex.slots || !m.now.Before(k.call.Deadline) {
				return fmt.Errorf("dispatch of %s (it was on %q) to %q: %+v", cmd.Call.ID, k.ran, cmd.Executor, ex)
			}
			if len(cmd.Call.Input) != len(k.call.Input) || cmd.Call.Attempt != 1 {
				return fmt.Errorf("dispatched as %+v", cmd.Call)
			}
			k.ran = cmd.Executor
			ex.holds[cmd.Call.ID] = true
		case CancelOn:
			if k.ran != cmd.Executor || ex == nil || !ex.holds[cmd.Call.ID] {
				return fmt.Errorf("cancel of %s on %q, it is on %q", cmd.Call.ID, cmd.Executor, k.ran)
			}
			cancelled = &cmd.Call.ID
		case Ended:
			if !cmd.Call.State.Terminal() || cmd.Call.Executor != k.ran {
				return fmt.Errorf("ended: %+v", cmd.Call)
			}
			final := *cmd.Call
			k.final = &final
			k.cut = k.cut || cmd.Call.State == skein.Cancelled || cmd.Call.State == skein.TimedOut
			if p := k.parent; p != nil && p.final == nil && p.ran != "" && p.ran != k.ran && m.execs[p.ran] != nil {
				tells = k
			}
		}
	}
	if tells != nil {
		return fmt.Errorf("nobody is told that call %s ended", tells.call.ID)
	}
	if cancelled != nil {
		return fmt.Errorf("call %s is cancelled and does not end", cancelled)
	}
	return nil
}

// forget takes out what the core may forget; a command for it would be one for an unknown call.
func (m *model) forget() {
	m.order = slices.DeleteFunc(m.order, func(id skein.CallID) bool {
		gone := m.c.calls[id] == nil && m.calls[id].final != nil
		if gone {
			delete(m.calls, id)
		}
		return gone
	})
}

// compare checks that the core knows what the model does.
func (m *model) compare() error {
	m.forget()
	for id, k := range m.calls {
		r := m.c.calls[id]
		switch {
		case r == nil && k.final == nil:
			return fmt.Errorf("call %s was forgotten before its end", id)
		case k.final != nil && (r.State != k.final.State || r.Reason != k.final.Reason || r.Ended != k.final.Ended || string(r.Output) != string(k.final.Output)):
			return fmt.Errorf("call %s ended as %+v and now is %+v", id, k.final, r.Record)
		case k.final == nil && r.State != map[bool]skein.CallState{true: skein.Queued, false: skein.Running}[k.ran == ""]:
			return fmt.Errorf("call %s is %s, it was given to %q", id, r.State, k.ran)
		}
	}
	if len(m.calls) != len(m.c.calls) || len(m.execs) != len(m.c.executors) {
		return fmt.Errorf("%d calls and %d executors, want %d and %d", len(m.c.calls), len(m.c.executors), len(m.calls), len(m.execs))
	}
	for name, ex := range m.execs {
		running := m.c.executors[name].running
		if len(running) != len(ex.holds) {
			return fmt.Errorf("executor %s uses %d slots, it holds %d calls", name, len(running), len(ex.holds))
		}
		if used := m.c.executors[name].used(); used != ex.used() {
			return fmt.Errorf("executor %s uses %d slots, %d of those it holds do not wait", name, used, ex.used())
		}
		for id := range ex.holds {
			if running[id] == nil {
				return fmt.Errorf("executor %s holds %s, the core does not know", name, id)
			}
		}
	}
	for id, k := range m.calls {
		for p := k.parent; p != nil && k.final == nil; p = p.parent {
			if p.cut {
				return fmt.Errorf("call %s is alive, call %s above it was cancelled, timed out or lost", id, p.call.ID)
			}
		}
	}
	return audit(m.c)
}

func (m *model) id() (id skein.CallID) {
	for i := range id {
		id[i] = byte(m.rng.Uint32())
	}
	return id
}

// some is any element, or the zero value; in an order that depends on the seed alone.
func some[T any](m *model, from []T) (one T) {
	if len(from) > 0 {
		one = from[m.rng.IntN(len(from))]
	}
	return one
}

func (m *model) executor() string { return some(m, slices.Sorted(maps.Keys(m.execs))) }

func (m *model) submit() error {
	call := skein.Call{
		ID: m.id(), Function: skein.Function{User: some(m, []skein.User{"ann", "ann", "ann", "bob", "cid"}), Name: some(m, []string{"f", "g"})},
		Input: make([]byte, m.rng.IntN(60)), Args: []string{"x"},
		Deadline: m.now.Add(time.Duration(m.rng.IntN(8000)) * time.Millisecond),
	}
	call.Version.Digest[0] = byte(m.rng.IntN(3))
	requestID, hash := "", byte(0)
	if m.rng.IntN(3) == 0 {
		requestID, hash = fmt.Sprint(m.rng.IntN(10)), byte(m.rng.IntN(2))
	}
	// What must come of it.
	var joins *modelCall
	for _, id := range m.order {
		if k := m.calls[id]; requestID != "" && k.requestID == requestID && k.call.Function == call.Function {
			joins = k
		}
	}
	l, free := m.c.limits, false
	for _, ex := range m.execs {
		free = free || m.takes(ex) && ex.used() < ex.slots
	}
	for _, k := range m.calls {
		free = free && (k.final != nil || k.ran != "")
	}
	all, bytes := m.waiting("")
	mine, myBytes := m.waiting(call.Function.User)
	size := weight(&call)
	room := free || all < l.QueueCalls && mine < (l.QueueCalls+1)/2 && bytes+size <= l.QueueBytes && (mine == 0 || myBytes+size <= l.QueueBytes/2)

	if joins == nil && room {
		k := &modelCall{call: call, requestID: requestID, hash: hash, size: 1, versions: map[string]skein.Version{call.Function.Name: call.Version}}
		k.root = k
		m.calls[call.ID] = k
		m.order = append(m.order, call.ID)
	}
	id, commands, err := m.c.Submit(m.now, call, Options{
		RequestID: requestID, BodyHash: [32]byte{hash}, ResultAge: some(m, []time.Duration{0, 0, time.Second, time.Minute}),
	})
	reason := ""
	if err != nil {
		reason = fault.From(err).Reason
	}
	switch {
	case joins != nil && joins.hash == hash && (err != nil || id != joins.call.ID || commands != nil):
		return fmt.Errorf("request %s did not join %s: %v", requestID, joins.call.ID, err)
	case joins != nil && joins.hash != hash && reason != "REQUEST_ID_REUSED",
		joins == nil && !room && reason != "QUEUE_FULL",
		joins == nil && room && (err != nil || id != call.ID):
		return fmt.Errorf("submit with %d (%d) waiting, free %v: %v", all, mine, free, err)
	}
	return m.obey(commands)
}

// outcome says something of a call: mostly what is right, else of another call, attempt or executor.
func (m *model) outcome() error {
	name, id, attempt := m.executor(), some(m, m.order), int32(1)
	if ex := m.execs[name]; ex != nil && m.rng.IntN(4) > 0 {
		var held []skein.CallID
		for _, h := range m.order {
			if ex.holds[h] {
				held = append(held, h)
			}
		}
		id = some(m, held)
	}
	switch m.rng.IntN(12) {
	case 0:
		attempt = int32(m.rng.IntN(4))
	case 1:
		name = "nobody"
	case 2:
		id = m.id()
	}
	res := skein.Result{
		State:  some(m, []skein.CallState{skein.Succeeded, skein.Succeeded, skein.Failed, skein.Cancelled, skein.TimedOut}),
		Output: make([]byte, m.rng.IntN(3000)), Cold: m.rng.IntN(2) == 0, Reason: "SAID",
	}
	ex := m.execs[name]
	right := ex != nil && ex.holds[id] && attempt == 1
	if ex != nil {
		ex.heard = m.now
	}
	if right {
		delete(ex.holds, id)
		delete(ex.waits, id)
	}
	times := 1 + m.rng.IntN(2)
	for n := range times {
		k := m.calls[id]
		first := right && n == 0 && k != nil && k.final == nil
		commands := m.c.Outcome(m.now, name, id, attempt, res)
		if !right && commands != nil || n > 0 && commands != nil {
			return fmt.Errorf("a doubled or foreign outcome of %s commands %+v", id, commands)
		}
		if err := m.obey(commands); err != nil {
			return err
		}
		if first && (k.final == nil || k.final.State != res.State || k.final.Reason != "SAID") {
			return fmt.Errorf("outcome %s of %s made it %+v", res.State, id, k.final)
		}
	}
	return nil
}

func (m *model) detach(name string) error {
	m.dropped = slices.DeleteFunc(m.dropped, func(d string) bool { return d == name })
	ex := m.execs[name]
	delete(m.execs, name)
	if ex != nil {
		for id := range ex.holds {
			if k := m.calls[id]; k != nil {
				k.cut = true
			}
		}
		if ex.cordoned || ex.marked {
			m.labels[name] = label{ex.cordoned, ex.marked, m.now.Add(labelAge)}
		}
	}
	commands := m.c.Detach(m.now, name, "test")
	if err := m.obey(commands); err != nil || ex == nil {
		return err
	}
	for id := range ex.holds {
		if k := m.calls[id]; k != nil && k.final == nil {
			return fmt.Errorf("call %s outlived %s", id, name)
		}
	}
	return nil
}

func (m *model) attach() error {
	name, slots := m.executor(), 1+m.rng.IntN(4)
	if len(m.execs) < 4 && (name == "" || m.rng.IntN(4) > 0) {
		m.names++
		name = fmt.Sprint("x", m.names%7) // names come back
	}
	taken := m.execs[name] != nil
	if !taken {
		l := m.labels[name]
		delete(m.labels, name)
		m.execs[name] = &modelExecutor{
			slots: slots, holds: map[skein.CallID]bool{}, waits: map[skein.CallID]bool{}, heard: m.now, cordoned: l.cordoned, marked: l.marked,
		}
	}
	commands, err := m.c.Attach(m.now, Executor{ID: name, Slots: slots}, nil)
	if taken != (err != nil) {
		return fmt.Errorf("attach %s: %v", name, err)
	}
	return m.obey(commands)
}

func (m *model) tick() error {
	d := time.Duration(m.rng.IntN(300)) * time.Millisecond
	switch m.rng.IntN(30) {
	case 0:
		d = time.Duration(m.rng.IntN(20)) * time.Second
	case 1:
		d = -d // no clock of ours does that; nothing may break all the same
	}
	m.now = m.now.Add(d)
	if err := m.obey(m.c.Tick(m.now)); err != nil {
		return err
	}
	maps.DeleteFunc(m.labels, func(_ string, l label) bool { return !m.now.Before(l.until) })
	for _, r := range m.c.deadlines {
		if !m.now.Before(r.due) {
			return fmt.Errorf("call %s is alive after %s", r.ID, r.due)
		}
	}
	if r := m.c.ended.first; r != nil && !m.now.Before(r.Expires) {
		return fmt.Errorf("call %s is remembered after its time", r.ID)
	}
	for _, r := range m.c.aging {
		if !m.now.Before(r.Expires) {
			return fmt.Errorf("call %s is remembered after its time", r.ID)
		}
	}
	return nil
}

// operate lets an operator do something.
func (m *model) operate() error {
	name, on := m.executor(), m.rng.IntN(3) == 0
	ex := m.execs[name]
	var commands []Command
	var err error
	switch m.rng.IntN(3) {
	case 0:
		m.policy = some(m, []Policy{BinPack, Spot})
		return m.obey(m.c.SetPolicy(m.now, m.policy))
	case 1:
		if ex != nil {
			ex.cordoned = on
		}
		commands, err = m.c.Cordon(m.now, name, on)
	default:
		if ex != nil {
			ex.marked = on
		}
		commands, err = m.c.Mark(m.now, name, on)
	}
	if (err != nil) != (ex == nil) {
		return fmt.Errorf("operate on %q: %v", name, err)
	}
	return m.obey(commands)
}

// step lets one event happen.
func (m *model) step() error {
	if m.rng.IntN(10) == 0 { // events come between the ticks
		m.now = m.now.Add(time.Duration(m.rng.IntN(1500)) * time.Millisecond)
	}
	switch p := m.rng.IntN(100); {
	case p < 15:
		return m.submit()
	case p < 40:
		return m.spawn()
	case p < 47:
		return m.resolve()
	case p < 55:
		return m.wait()
	case p < 73:
		return m.outcome()
	case p < 77:
		id := some(m, append([]skein.CallID{{}}, m.order...))
		if k := m.calls[id]; k != nil {
			k.cut = true
		}
		return m.obey(m.c.Cancel(m.now, id))
	case p < 79:
		return m.cancelChildren()
	case p < 81:
		return m.attach()
	case p < 82:
		return m.detach(some(m, []string{m.executor(), "nobody"}))
	case p < 84 && len(m.dropped) > 0: // a stream takes its time to go
		return m.detach(m.dropped[0])
	case p < 84:
		return m.operate()
	case p < 85:
		name := m.executor()
		if ex := m.execs[name]; ex != nil {
			ex.draining, ex.heard = true, m.now
		}
		m.c.Drain(m.now, name)
		return nil
	case p < 93:
		name := m.executor()
		if ex := m.execs[name]; ex != nil {
			ex.heard = m.now
		}
		m.c.Heartbeat(m.now, name, 1, []skein.Digest{{byte(m.rng.IntN(3))}}, []skein.Digest{{byte(m.rng.IntN(3))}})
		m.c.Homes(name, []skein.Digest{{byte(m.rng.IntN(3))}}, []skein.Digest{{byte(m.rng.IntN(3))}})
		return nil
	}
	return m.tick()
}

// Any history, checked after every event. A failure names its seed and step: both repeat it.
func TestModel(t *testing.T) {
	t.Parallel()
	seeds, steps := uint64(200), 2000
	if testing.Short() {
		seeds = 20
	}
	calls, children := 0, 0
	for seed := range seeds {
		m := &model{
			rng: rand.New(rand.NewPCG(seed, 1)), now: t0, calls: map[skein.CallID]*modelCall{}, execs: map[string]*modelExecutor{},
			modelTrees: newModelTrees(), labels: map[string]label{}, c: NewCore(Limits{
				QueueCalls: 12, QueueBytes: 300, HistoryCalls: 20, HistoryBytes: 40_000, HistoryAge: 10 * time.Second,
				TreeCalls: 20, TreeBytes: 200, Silence: 2 * time.Second, Overdue: time.Second,
			}),
		}
		for step := range steps {
			err := m.step()
			if err == nil {
				err = m.compare()
			}
			if err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, step, err)
			}
		}
		// Time alone ends everything that is left, once the look-ups are answered.
		m.now = m.now.Add(time.Minute)
		err := m.obey(m.c.Tick(m.now))
		for err == nil && len(m.asked) > 0 {
			err = m.resolve()
		}
		if err == nil {
			err = m.obey(m.c.Tick(m.now))
		}
		if err == nil {
			err = m.compare()
		}
		if err != nil || len(m.c.deadlines) != 0 || m.c.queue.len() != 0 || len(m.c.lookups) != 0 {
			t.Fatalf("seed %d: %d calls and a queue of %d outlive their deadlines: %v", seed, len(m.c.deadlines), m.c.queue.len(), err)
		}
		calls, children = calls+int(m.c.seq), children+m.accepts
	}
	t.Logf("%d calls, %d of them made by others", calls, children)
	if children < calls/5 || calls < int(seeds)*250 { // a model that is refused everything proves nothing
		t.Errorf("%d calls, %d of them made by others: too few", calls, children)
	}
}
