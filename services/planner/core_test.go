package planner

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
)

// The core is given its time, so these tests need no clock: t0 plus what the story needs.
var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func testLimits() Limits {
	return Limits{
		QueueCalls: 8, QueueBytes: 800, HistoryCalls: 6, HistoryBytes: 1 << 20, HistoryAge: time.Hour,
		LogBytes: 3000, TreeCalls: 20, TreeBytes: 300, Silence: 5 * time.Second, Grace: 3 * time.Second, Overdue: 2 * time.Second,
	}
}

// story drives a core by short words and remembers what it commanded.
type story struct {
	*testing.T
	c   *Core
	now time.Time
	got []string
	ids map[string]skein.CallID
}

func newStory(t *testing.T, limits Limits) *story {
	return &story{T: t, c: NewCore(limits), now: t0, ids: map[string]skein.CallID{}}
}

// did notes commands as "dispatch a to x", with calls by the names that submit gave them.
func (s *story) did(commands []Command) {
	for _, c := range commands {
		name := ""
		for n, id := range s.ids {
			if c.Call != nil && c.Call.ID == id {
				name = n
			}
		}
		switch c.Kind {
		case Dispatch:
			s.got = append(s.got, fmt.Sprintf("dispatch %s to %s", name, c.Executor))
		case CancelOn:
			s.got = append(s.got, fmt.Sprintf("cancel %s on %s: %s", name, c.Executor, c.Reason))
		case Ended:
			s.got = append(s.got, strings.TrimSpace(fmt.Sprintf("ended %s %s %s", name, c.Call.State, c.Call.Reason)))
		case Drop:
			s.got = append(s.got, "drop "+c.Executor)
		case Accepted:
			s.got = append(s.got, fmt.Sprintf("%s: accepted %s version %d", c.Executor, name, c.Call.Version.Number))
		case Refused:
			s.got = append(s.got, fmt.Sprintf("%s: refused %s %s", c.Executor, name, c.Reason))
		case ChildEnded:
			s.got = append(s.got, fmt.Sprintf("%s: child %s %s", c.Executor, name, c.Call.State))
		case Resolve:
			s.got = append(s.got, fmt.Sprintf("resolve %s for %s", c.Function, name))
		case Store:
			s.got = append(s.got, fmt.Sprintf("store %s %s", name, c.Call.State))
		case Drained:
			s.got = append(s.got, "drained "+c.Executor)
		}
	}
}

// want compares what was commanded since the last want, and checks the books.
func (s *story) want(lines ...string) {
	s.Helper()
	if !slices.Equal(s.got, lines) {
		s.Fatalf("commands\n got %q\nwant %q", s.got, lines)
	}
	s.got = nil
	if err := audit(s.c); err != nil {
		s.Fatal(err)
	}
}

func (s *story) after(d time.Duration) { s.now = s.now.Add(d) }

// try submits a call of user/f that takes at most a minute.
func (s *story) try(name, user string, input int) error {
	call := skein.Call{
		ID: skein.NewCallID(), Function: skein.Function{User: skein.User(user), Name: "f"}, Input: make([]byte, input),
		Deadline: s.now.Add(time.Minute),
	}
	s.ids[name] = call.ID
	_, commands, err := s.c.Submit(s.now, call, Options{})
	s.did(commands)
	return err
}

func (s *story) submit(name, user string) {
	s.Helper()
	if err := s.try(name, user, 1); err != nil {
		s.Fatalf("submit %s: %v", name, err)
	}
}

func (s *story) attach(id string, slots int) {
	s.Helper()
	commands, err := s.c.Attach(s.now, Executor{ID: id, Slots: slots}, nil)
	if err != nil {
		s.Fatal(err)
	}
	s.did(commands)
}

func (s *story) outcome(executor, name string, attempt int32) {
	s.did(s.c.Outcome(s.now, executor, s.ids[name], attempt, skein.Result{State: skein.Succeeded, Output: []byte(name)}))
}

func (s *story) cancel(name string) { s.did(s.c.Cancel(s.now, s.ids[name])) }
func (s *story) detach(id string)   { s.did(s.c.Detach(s.now, id, "test")) }
func (s *story) tick()              { s.did(s.c.Tick(s.now)) }

func TestEvents(t *testing.T) {
	for _, c := range []struct {
		name string
		tell func(s *story)
	}{
		{"a call waits for an executor and ends once", func(s *story) {
			s.submit("a", "ann")
			s.want()
			s.attach("x", 1)
			s.want("dispatch a to x")
			s.outcome("x", "a", 1)
			s.want("ended a SUCCEEDED")
			s.outcome("x", "a", 1)
			s.cancel("a")
			s.after(time.Hour / 2)
			s.want()
			if r := s.c.calls[s.ids["a"]]; string(r.Output) != "a" || r.Input != nil || r.InputSize != 1 || r.Expires != t0.Add(time.Hour) {
				s.Errorf("record %+v", r.Record)
			}
		}},
		{"outcomes of others change nothing", func(s *story) {
			s.attach("x", 1)
			s.attach("y", 1)
			s.submit("a", "ann")
			s.want("dispatch a to x")
			s.outcome("x", "a", 0)
			s.outcome("x", "a", 2)
			s.outcome("y", "a", 1)
			s.outcome("nobody", "a", 1)
			s.outcome("x", "unknown", 1)
			s.want()
			s.outcome("x", "a", 1)
			s.want("ended a SUCCEEDED")
		}},
		{"a cancelled call keeps its slot until its executor lets go", func(s *story) {
			s.attach("x", 1)
			s.submit("a", "ann")
			s.submit("b", "ann")
			s.submit("c", "ann")
			s.want("dispatch a to x")
			s.cancel("c") // it waits
			s.want("ended c CANCELLED CANCELLED")
			s.cancel("a") // it runs
			s.want("cancel a on x: CANCELLED", "ended a CANCELLED CANCELLED")
			s.outcome("x", "a", 1)
			s.want("dispatch b to x")
			if r := s.c.calls[s.ids["a"]]; r.State != skein.Cancelled || r.Output != nil {
				s.Errorf("a late outcome changed %+v", r.Record)
			}
		}},
		{"an executor's end is its calls' end", func(s *story) {
			s.attach("x", 1)
			s.submit("a", "ann")
			s.submit("b", "ann")
			s.attach("y", 1)
			s.want("dispatch a to x", "dispatch b to y")
			s.detach("x")
			s.detach("x")
			s.want("ended a FAILED EXECUTOR_LOST")
			s.cancel("b")
			s.want("cancel b on y: CANCELLED", "ended b CANCELLED CANCELLED")
			s.detach("y") // what was ended before does not end again
			s.want()
		}},
		{"deadlines: in the queue at once, on an executor a little later", func(s *story) {
			s.attach("x", 1)
			s.submit("a", "ann")
			s.submit("b", "ann")
			s.want("dispatch a to x")
			s.after(time.Minute - 1)
			s.c.Heartbeat(s.now, "x", 0, nil, nil)
			s.tick()
			s.want()
			s.after(1)
			s.tick()
			s.want("ended b TIMED_OUT DEADLINE")
			s.after(2*time.Second - 1)
			s.tick()
			s.want()
			s.after(1)
			s.tick()
			s.want("cancel a on x: DEADLINE", "ended a TIMED_OUT DEADLINE")
			s.submit("c", "ann")
			s.want() // the slot is x's still
		}},
		{"a slot is not for a call whose deadline passed between two ticks", func(s *story) {
			s.submit("a", "ann")
			s.after(time.Second)
			s.submit("b", "ann")
			s.after(59 * time.Second)
			s.attach("x", 1)
			s.want("ended a TIMED_OUT DEADLINE", "dispatch b to x")
		}},
		{"a drained executor finishes and takes nothing new", func(s *story) {
			s.attach("x", 2)
			s.submit("a", "ann")
			s.c.Drain(s.now, "x")
			s.c.Drain(s.now, "nobody")
			s.submit("b", "ann")
			s.want("dispatch a to x")
			s.outcome("x", "a", 1)
			s.want("ended a SUCCEEDED")
			s.attach("y", 1)
			s.want("dispatch b to y")
		}},
		{"silence", func(s *story) {
			s.tick()
			s.attach("x", 1)
			for range 50 {
				s.after(100 * time.Millisecond)
				s.tick()
			}
			s.want() // exactly the limit
			s.after(1)
			s.tick()
			s.want("drop x")
			s.c.Heartbeat(s.now, "x", 7, nil, nil)
			s.tick()
			s.want()
		}},
		{"a planner that stood still blames nobody", func(s *story) {
			s.tick()
			s.attach("x", 1)
			s.after(time.Minute) // it was stopped; x's heartbeats are in the socket
			s.tick()
			s.want()
			for range 50 {
				s.after(100 * time.Millisecond)
				s.tick()
			}
			s.want()
			s.after(100 * time.Millisecond)
			s.tick()
			s.want("drop x") // there were none
		}},
		{"the executor that holds the module, then the fullest, then by name", func(s *story) {
			s.attach("x", 3)
			s.attach("y", 3)
			s.attach("z", 3)
			s.submit("a", "ann")
			s.submit("b", "ann")
			s.want("dispatch a to x", "dispatch b to x")
			s.c.Heartbeat(s.now, "z", 0, []skein.Digest{{}}, nil)
			s.submit("c", "ann")
			s.want("dispatch c to z")
			s.c.Heartbeat(s.now, "z", 0, nil, []skein.Digest{{}})
			s.submit("d", "ann")
			s.submit("e", "ann")
			s.want("dispatch d to x", "dispatch e to z")
		}},
		{"among those that hold the module the one that has the state of its calls, before the one where the parent runs", func(s *story) {
			for _, x := range []string{"x", "y", "z"} {
				s.attach(x, 3)
				s.c.Heartbeat(s.now, x, 0, []skein.Digest{{}}, nil)
			}
			s.submit("a", "ann")
			s.want("dispatch a to x")
			s.c.Homes("z", []skein.Digest{{}}, nil)
			s.c.Homes("nobody", []skein.Digest{{}}, nil)
			s.submit("b", "ann")
			s.submit("c", "ann")
			s.submit("d", "ann")
			s.want("dispatch b to z", "dispatch c to z", "dispatch d to z")
			s.submit("e", "ann") // no slot is free there
			s.want("dispatch e to x")
			s.outcome("z", "b", 1)
			s.want("ended b SUCCEEDED")
			s.spawn("x", "a", "f", "f", false)
			s.want("x: accepted f version 0", "dispatch f to z")
			s.c.Homes("z", nil, []skein.Digest{{}, {9}})
			s.outcome("z", "c", 1)
			s.submit("g", "ann")
			s.want("ended c SUCCEEDED", "dispatch g to x")
		}},
		{"history: the oldest of the ended go first, those alive stay", func(s *story) {
			s.attach("x", 100)
			s.submit("alive", "ann")
			for i := range 8 {
				n := fmt.Sprint(i)
				s.submit(n, "ann")
				s.outcome("x", n, 1)
			}
			s.got = nil
			for n, known := range map[string]bool{"alive": true, "0": false, "1": false, "2": true, "7": true} {
				if _, ok := s.c.calls[s.ids[n]]; ok != known {
					s.Errorf("call %s known: %v", n, ok)
				}
			}
			s.after(time.Hour)
			s.c.Heartbeat(s.now, "x", 0, nil, nil)
			s.tick()
			if s.c.ended.len != 1 || s.c.endedSize != s.c.ended.first.size() { // alive has timed out
				s.Errorf("%d ended are left after their age", s.c.ended.len)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) { c.tell(newStory(t, testLimits())) })
	}
}

func TestAttachTwice(t *testing.T) {
	s := newStory(t, testLimits())
	s.attach("x", 1)
	if _, err := s.c.Attach(t0, Executor{ID: "x", Slots: 9}, nil); fault.From(err).Reason != "EXECUTOR_NAME_TAKEN" || !errors.Is(err, fault.Exists) {
		t.Errorf("error %v", err)
	}
	if s.c.executors["x"].Slots != 1 {
		t.Error("the second took the first one's place")
	}
}

// A history bounded by bytes counts what records hold, and a record too large for it is forgotten as soon as it is told.
func TestHistoryBytes(t *testing.T) {
	l := testLimits()
	l.HistoryBytes = 4000
	s := newStory(t, l)
	s.attach("x", 9)
	for _, n := range []string{"a", "b", "c"} {
		s.submit(n, "ann")
	}
	s.got = nil
	end := func(name string, output int) {
		s.did(s.c.Outcome(s.now, "x", s.ids[name], 1, skein.Result{State: skein.Succeeded, Output: make([]byte, output)}))
	}
	end("a", 1000)
	end("b", 1000)
	s.want("ended a SUCCEEDED", "ended b SUCCEEDED")
	if len(s.c.calls) != 2 { // b and c: a had to go
		t.Errorf("%d calls are known", len(s.c.calls))
	}
	end("c", 4000)
	s.want("ended c SUCCEEDED")
	if len(s.c.calls) != 0 || s.c.endedSize != 0 {
		t.Errorf("%d calls of %d bytes are known", len(s.c.calls), s.c.endedSize)
	}
}

func TestQueueLimits(t *testing.T) {
	full := func(t *testing.T, err error) {
		t.Helper()
		e := fault.From(err)
		if err == nil || e.Reason != "QUEUE_FULL" || e.RetryAfter <= 0 || e.Hint == "" || !errors.Is(err, fault.Exhausted) {
			t.Fatalf("want QUEUE_FULL, got %v", err)
		}
	}
	t.Run("calls", func(t *testing.T) {
		s := newStory(t, testLimits()) // 8, of which a user may hold 4
		for i := range 4 {
			s.submit(fmt.Sprint("a", i), "ann")
		}
		full(t, s.try("a4", "ann", 1))
		for i := range 3 {
			s.submit(fmt.Sprint("b", i), "bob")
		}
		s.submit("c0", "cid") // the eighth
		full(t, s.try("c1", "cid", 1))
		full(t, s.try("b3", "bob", 1))
		s.want()
		if len(s.c.calls) != 8 {
			t.Errorf("%d calls are known, refused ones among them", len(s.c.calls))
		}
		s.cancel("b1")
		s.submit("c1", "cid")
		full(t, s.try("c2", "cid", 1))
	})
	t.Run("bytes", func(t *testing.T) {
		s := newStory(t, testLimits()) // 800, of which a user may hold 400
		for i := range 4 {
			if err := s.try(fmt.Sprint("a", i), "ann", 100); err != nil {
				t.Fatal(err)
			}
		}
		s.cancel("a3")
		full(t, s.try("a4", "ann", 101))
		if err := s.try("b", "bob", 500); err != nil { // his first may be larger than half
			t.Fatal(err)
		}
		full(t, s.try("c", "cid", 1))
	})
	t.Run("arguments count", func(t *testing.T) {
		s := newStory(t, testLimits())
		call := skein.Call{ID: skein.NewCallID(), Function: skein.Function{User: "ann", Name: "f"}, Args: []string{strings.Repeat("x", 801)}}
		_, _, err := s.c.Submit(t0, call, Options{})
		full(t, err)
	})
	t.Run("a free slot needs no queue", func(t *testing.T) {
		l := testLimits()
		l.QueueCalls, l.QueueBytes = 0, 0
		s := newStory(t, l)
		full(t, s.try("a", "ann", 1))
		s.attach("x", 1)
		s.submit("b", "ann")
		s.outcome("x", "b", 1)
		s.want("dispatch b to x", "ended b SUCCEEDED")
	})
}

// One user's flood is that user's wait.
func TestFairness(t *testing.T) {
	l := testLimits()
	l.QueueCalls, l.QueueBytes = 4000, 1<<20
	s := newStory(t, l)
	s.attach("x", 1)
	s.submit("first", "ann")
	for i := range 1000 {
		s.submit(fmt.Sprint("a", i), "ann")
	}
	s.submit("b", "bob")
	s.got = nil
	s.outcome("x", "first", 1)
	s.outcome("x", "a0", 1)
	s.want("ended first SUCCEEDED", "dispatch a0 to x", "ended a0 SUCCEEDED", "dispatch b to x")
	// Taking turns goes on when both have many.
	for i := range 4 {
		s.submit(fmt.Sprint("b", i), "bob")
	}
	s.outcome("x", "b", 1)
	s.outcome("x", "a1", 1)
	s.outcome("x", "b0", 1)
	s.outcome("x", "a2", 1)
	s.want("ended b SUCCEEDED", "dispatch a1 to x", "ended a1 SUCCEEDED", "dispatch b0 to x",
		"ended b0 SUCCEEDED", "dispatch a2 to x", "ended a2 SUCCEEDED", "dispatch b1 to x")
}

// A user whose waiting calls are cancelled or expire one by one still comes to the front.
func TestLeavingTheQueueCostsNoTurn(t *testing.T) {
	s := newStory(t, testLimits())
	s.attach("x", 1)
	for _, n := range []string{"a0", "a1", "a2"} {
		s.submit(n, "ann")
	}
	for _, n := range []string{"b0", "b1"} {
		s.submit(n, "bob")
	}
	s.outcome("x", "a0", 1) // a1 runs, bob is next
	s.got = nil
	s.cancel("b0")
	s.outcome("x", "a1", 1)
	s.want("ended b0 CANCELLED CANCELLED", "ended a1 SUCCEEDED", "dispatch b1 to x")
}

func TestRequestID(t *testing.T) {
	s := newStory(t, testLimits())
	submit := func(user, requestID string, hash byte) (skein.CallID, error) {
		call := skein.Call{ID: skein.NewCallID(), Function: skein.Function{User: skein.User(user), Name: "f"}, Deadline: s.now.Add(time.Minute)}
		id, _, err := s.c.Submit(s.now, call, Options{RequestID: requestID, BodyHash: [32]byte{hash}})
		return id, err
	}
	first, err := submit("ann", "r", 1)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := submit("ann", "r", 1); err != nil || id != first {
		t.Errorf("the same request: %v %v", id, err)
	}
	if _, err := submit("ann", "r", 2); fault.From(err).Reason != "REQUEST_ID_REUSED" {
		t.Errorf("another body: %v", err)
	}
	if id, err := submit("bob", "r", 2); err != nil || id == first {
		t.Errorf("another user's: %v %v", id, err)
	}
	s.c.Cancel(s.now, first)
	if id, err := submit("ann", "r", 1); err != nil || id != first {
		t.Errorf("after its end: %v %v", id, err)
	}
	s.after(time.Hour)
	s.c.Tick(s.now)
	if id, err := submit("ann", "r", 2); err != nil || id == first {
		t.Errorf("after it was forgotten: %v %v", id, err)
	}
	if err := audit(s.c); err != nil {
		t.Error(err)
	}
}
