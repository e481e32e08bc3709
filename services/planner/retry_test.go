package planner

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
)

// durable is how the calls of these stories are tried.
func durable() Options {
	return Options{Durable: true, Timeout: time.Minute, MaxAttempts: 3, GiveUp: t0.Add(time.Hour)}
}

func (s *story) try2(name string, opts Options) error {
	if s.ids[name].IsZero() {
		s.ids[name] = skein.NewCallID()
	}
	call := skein.Call{
		ID: s.ids[name], Function: skein.Function{User: "ann", Name: "f"}, Input: []byte("in"), Args: []string{"x"}, Deadline: s.now.Add(time.Minute),
	}
	_, commands, err := s.c.Submit(s.now, call, opts)
	s.did(commands)
	return err
}

// accept submits a durable call of ann/f, of which the journal hears.
func (s *story) accept(name string, opts Options) {
	s.Helper()
	if err := s.try2(name, opts); err != nil {
		s.Fatal(err)
	}
}

func (s *story) stored(name string)         { s.did(s.c.Stored(s.now, s.ids[name])) }
func (s *story) withdraw(name string)       { s.c.Withdraw(s.now, s.ids[name]) }
func (s *story) record(name string) *record { return s.c.calls[s.ids[name]] }

// begins accepts a call that begins on x at once.
func (s *story) begins(name, x string, opts Options) {
	s.Helper()
	s.accept(name, opts)
	s.stored(name)
	s.want("store "+name+" QUEUED", "dispatch "+name+" to "+x)
}

// fails ends an attempt for a reason.
func (s *story) fails(x, name string, attempt int32, reason string) {
	state := skein.Failed
	if reason == "DEADLINE" {
		state = skein.TimedOut
	}
	s.did(s.c.Outcome(s.now, x, s.ids[name], attempt, skein.Result{State: state, Reason: reason, Message: "it failed"}))
}

// retries lets time pass until a call's next attempt may begin, and its record is stored.
func (s *story) retries(name string) {
	s.Helper()
	s.stored(name)
	s.want("store " + name + " QUEUED")
	if at := s.record(name).RetryAt; at.After(s.now) {
		s.now = at
		s.tick()
	}
}

// back attaches an executor that has calls still: "a 1" is a's first attempt.
func (s *story) back(x string, slots int, kept ...string) {
	s.Helper()
	var all []Kept
	for _, k := range kept {
		var name string
		var attempt int32
		_, _ = fmt.Sscan(k, &name, &attempt)
		all = append(all, Kept{s.ids[name], attempt})
	}
	commands, err := s.c.Attach(s.now, Executor{ID: x, Slots: slots}, all)
	if err != nil {
		s.Fatal(err)
	}
	s.did(commands)
}

// is checks a call's state, and its reason if it has ended.
func (s *story) is(name, want string) {
	s.Helper()
	r := s.record(name)
	if r == nil {
		s.Fatalf("call %s is forgotten, want %s", name, want)
	}
	got := r.State.String()
	if r.State.Terminal() {
		got += " " + r.Reason
	}
	if r.Dead {
		got += " dead"
	}
	if got = strings.TrimSpace(got); got != want {
		s.Fatalf("call %s is %s, want %s", name, got, want)
	}
}

type tale struct {
	name string
	tell func(s *story)
}

func tellAll(t *testing.T, tales []tale) {
	t.Helper()
	for _, c := range tales {
		t.Run(c.name, func(t *testing.T) {
			c.tell(newStory(t, testLimits()))
		})
	}
}

func TestDurable(t *testing.T) {
	tellAll(t, []tale{
		{"it begins when the journal has it, and has ended when the journal has that", func(s *story) {
			s.attach("x", 1)
			s.accept("a", durable())
			s.tick()
			s.want("store a QUEUED")
			s.stored("a")
			s.want("dispatch a to x")
			s.stored("a") // said twice
			s.want()
			s.outcome("x", "a", 1)
			s.want("store a SUCCEEDED")
			if !s.record("a").Unsaved || s.c.ended.len != 0 {
				s.Error("an end that is not stored counts")
			}
			s.after(2 * time.Hour)
			s.tick()
			s.want()
			s.stored("a")
			s.want("ended a SUCCEEDED")
			s.stored("a")
			s.want()
		}},
		{"a free slot lets in no more than the bounds", func(s *story) {
			s.attach("x", 100)
			for i := range 4 { // half of the queue's eight
				s.accept(fmt.Sprint("a", i), durable())
			}
			s.got = nil
			if f := fault.From(s.try2("b", durable())); f == nil || f.Reason != "QUEUE_FULL" {
				s.Fatalf("the fifth held call of one user: %v", f)
			}
			s.stored("a0")
			s.want("dispatch a0 to x")
			s.accept("b", durable())
			s.want("store b QUEUED")
		}},
		{"what is held counts when others are let in", func(s *story) {
			for i := range 4 {
				s.accept(fmt.Sprint("a", i), durable())
			}
			if f := fault.From(s.try("b", "ann", 1)); f == nil || f.Reason != "QUEUE_FULL" {
				s.Fatalf("a fifth call of one user waits: %v", f)
			}
			for i := range 4 {
				s.submit(fmt.Sprint("c", i), "bob")
			}
			if f := fault.From(s.try("d", "cid", 1)); f == nil || f.Reason != "QUEUE_FULL" {
				s.Fatalf("a ninth call waits: %v", f)
			}
			s.got = nil
			s.want()
		}},
		{"withdrawn it was never a call", func(s *story) {
			o := durable()
			o.RequestID = "r"
			s.accept("a", o)
			s.withdraw("a")
			if s.record("a") != nil || len(s.c.requests) != 0 || s.c.listed.len != 0 {
				s.Error("something is left of it")
			}
			s.stored("a")
			s.accept("b", o) // its request id is free
			s.want("store a QUEUED", "store b QUEUED")
		}},
		{"cancelled before it is stored", func(s *story) {
			s.attach("x", 1)
			s.accept("a", durable())
			s.cancel("a")
			s.want("store a QUEUED")
			s.stored("a")
			s.want("store a CANCELLED")
			s.stored("a")
			s.want("ended a CANCELLED CANCELLED")
		}},
		{"cancelled and then withdrawn", func(s *story) {
			s.accept("a", durable())
			s.cancel("a")
			s.withdraw("a")
			if s.record("a") != nil {
				s.Error("it is kept for ever")
			}
			s.want("store a QUEUED")
		}},
		{"a store that comes after the first can't withdraw it", func(s *story) {
			s.attach("x", 1)
			s.begins("a", "x", durable())
			s.fails("x", "a", 1, "STORE_DOWN")
			s.withdraw("a")
			s.retries("a")
			s.want("dispatch a to x")
			s.outcome("x", "a", 2)
			s.withdraw("a")
			s.stored("a")
			s.want("store a SUCCEEDED", "ended a SUCCEEDED")
		}},
		{"too old while it waits it is a dead letter", func(s *story) {
			s.accept("a", durable())
			s.stored("a")
			s.after(time.Hour)
			s.tick()
			s.stored("a")
			s.want("store a QUEUED", "store a TIMED_OUT", "ended a TIMED_OUT DEADLINE")
			s.is("a", "TIMED_OUT DEADLINE dead")
		}},
		{"too old before the journal has it", func(s *story) {
			s.accept("a", durable())
			s.after(time.Hour)
			s.tick()
			s.stored("a")
			s.stored("a")
			s.want("store a QUEUED", "store a TIMED_OUT", "ended a TIMED_OUT DEADLINE")
		}},
		{"its time begins with the attempt", func(s *story) {
			s.accept("a", durable())
			s.stored("a")
			s.after(50 * time.Minute)
			s.attach("x", 1)
			s.want("store a QUEUED", "dispatch a to x")
			if got := s.record("a").Deadline; got != s.now.Add(time.Minute) {
				s.Errorf("deadline %s", got)
			}
			s.after(time.Minute + 2*time.Second)
			s.c.Heartbeat(s.now, "x", 0, nil, nil)
			s.tick()
			s.want("cancel a on x: DEADLINE", "store a TIMED_OUT")
			s.is("a", "TIMED_OUT DEADLINE")
			s.outcome("x", "a", 1) // the slot
			s.stored("a")
			s.want("ended a TIMED_OUT DEADLINE")
		}},
		{"an equal request joins, another is refused, also after a retry", func(s *story) {
			o := durable()
			o.RequestID = "r"
			s.attach("x", 1)
			s.begins("a", "x", o)
			s.fails("x", "a", 1, "STORE_DOWN")
			s.want("store a QUEUED")
			id, commands, err := s.c.Submit(s.now, skein.Call{ID: skein.NewCallID(), Function: skein.Function{User: "ann", Name: "f"}}, o)
			if id != s.ids["a"] || commands != nil || err != nil {
				s.Fatalf("%s, %v, %v", id, commands, err)
			}
			o.BodyHash[0] = 1
			if f := fault.From(s.try2("b", o)); f == nil || f.Reason != "REQUEST_ID_REUSED" {
				s.Fatal(f)
			}
		}},
		{"the answer that somebody waits for is never tried again", func(s *story) {
			o := Options{Durable: true, Sync: true, MaxAttempts: 3, RetryFailures: true, RequestID: "r"}
			s.attach("x", 1)
			s.begins("a", "x", o)
			s.fails("x", "a", 1, "STORE_DOWN")
			s.stored("a")
			s.want("store a FAILED", "ended a FAILED STORE_DOWN")
			s.is("a", "FAILED STORE_DOWN")
			o.RequestID = "q"
			s.begins("b", "x", o)
			s.detach("x")
			s.want()
			s.after(3 * time.Second)
			s.tick()
			s.stored("b")
			s.want("store b FAILED", "ended b FAILED EXECUTOR_LOST")
		}},
		{"while the journal takes no results none are made", func(s *story) {
			s.c.limits.HistoryBytes = 3000
			s.attach("x", 1)
			for _, n := range []string{"a", "b", "c", "d"} {
				s.accept(n, durable())
				s.stored(n)
			}
			s.outcome("x", "a", 1)
			s.outcome("x", "b", 1)
			s.outcome("x", "c", 1)
			s.got = nil
			s.submit("e", "bob") // others need no journal
			s.want("dispatch e to x")
			s.outcome("x", "e", 1)
			s.want("ended e SUCCEEDED")
			for _, n := range []string{"a", "b", "c"} {
				s.stored(n)
			}
			s.got = nil
			s.after(time.Second)
			s.c.Heartbeat(s.now, "x", 0, nil, nil)
			s.tick()
			s.want("dispatch d to x")
		}},
		{"an executor that says it leaves is answered after what was given to it", func(s *story) {
			s.attach("x", 2)
			s.begins("a", "x", durable())
			s.did(s.c.Drain(s.now, "x"))
			s.accept("b", durable())
			s.stored("b")
			s.did(s.c.Drain(s.now, "nobody"))
			s.want("drained x", "store b QUEUED")
		}},
	})
}

func TestAttempts(t *testing.T) {
	tellAll(t, []tale{
		{"a failure that is not its own is tried again, and results of earlier attempts are refused", func(s *story) {
			s.attach("x", 1)
			s.begins("a", "x", durable())
			s.fails("x", "a", 1, "STORE_DOWN")
			s.is("a", "QUEUED")
			s.retries("a")
			s.want("dispatch a to x")
			s.outcome("x", "a", 1)
			s.want()
			s.fails("x", "a", 2, "UPLOAD_DOWN")
			s.retries("a")
			s.want("dispatch a to x")
			s.outcome("x", "a", 3)
			s.stored("a")
			s.want("store a SUCCEEDED", "ended a SUCCEEDED")
			r := s.record("a")
			if len(r.Attempts) != 2 || r.Attempts[0].Reason != "STORE_DOWN" || r.Attempts[0].Number != 1 || r.Attempts[0].Executor != "x" || r.Attempts[1].Reason != "UPLOAD_DOWN" || r.Attempt != 3 {
				s.Errorf("%+v", r.Record)
			}
		}},
		{"the next attempt begins when the journal has it and its time has come, in either order", func(s *story) {
			s.attach("x", 1)
			s.begins("a", "x", durable())
			s.fails("x", "a", 1, "STORE_DOWN")
			s.want("store a QUEUED")
			s.now = s.record("a").RetryAt
			s.tick()
			s.want()
			s.stored("a")
			s.want("dispatch a to x")
			s.fails("x", "a", 2, "STORE_DOWN")
			s.stored("a")
			s.tick()
			s.want("store a QUEUED")
			s.now = s.record("a").RetryAt.Add(-1)
			s.tick()
			s.want()
			s.after(1)
			s.tick()
			s.want("dispatch a to x")
		}},
		{"the last attempt's failure makes it a dead letter", func(s *story) {
			s.attach("x", 1)
			s.begins("a", "x", durable())
			for n := range int32(2) {
				s.fails("x", "a", n+1, "STORE_DOWN")
				s.retries("a")
				s.want("dispatch a to x")
			}
			s.fails("x", "a", 3, "STORE_DOWN")
			s.stored("a")
			s.want("store a FAILED", "ended a FAILED STORE_DOWN")
			if s.is("a", "FAILED STORE_DOWN dead"); len(s.record("a").Attempts) != 3 {
				s.Errorf("%+v", s.record("a").Attempts)
			}
		}},
		{"no attempt begins after it is given up", func(s *story) {
			o := durable()
			o.GiveUp = s.now.Add(time.Millisecond)
			s.attach("x", 1)
			s.begins("a", "x", o)
			s.after(time.Second)
			s.fails("x", "a", 1, "STORE_DOWN")
			s.stored("a")
			s.want("store a FAILED", "ended a FAILED STORE_DOWN")
			s.is("a", "FAILED STORE_DOWN dead")
		}},
		{"without a time to give up the deadline is it", func(s *story) {
			o := durable()
			o.GiveUp = time.Time{}
			s.attach("x", 1)
			s.begins("a", "x", o)
			s.fails("x", "a", 1, "STORE_DOWN")
			s.retries("a")
			s.want("dispatch a to x")
		}},
		{"a guest's own failure is none, unless asked for", func(s *story) {
			s.attach("x", 1)
			s.begins("a", "x", durable())
			s.fails("x", "a", 1, "GUEST_TRAP")
			s.stored("a")
			s.want("store a FAILED", "ended a FAILED GUEST_TRAP")
			s.is("a", "FAILED GUEST_TRAP")
			o := durable()
			o.RetryFailures = true
			s.begins("b", "x", o)
			s.fails("x", "b", 1, "GUEST_TRAP")
			s.retries("b")
			s.want("dispatch b to x")
			s.fails("x", "b", 2, "DEADLINE")
			s.retries("b")
			s.want("dispatch b to x")
			s.did(s.c.Outcome(s.now, "x", s.ids["b"], 3, skein.Result{State: skein.Cancelled, Reason: "CANCELLED"}))
			s.stored("b")
			s.want("store b CANCELLED", "ended b CANCELLED CANCELLED")
		}},
		{"cancelled while it waits for the next attempt", func(s *story) {
			s.attach("x", 1)
			s.begins("a", "x", durable())
			s.fails("x", "a", 1, "STORE_DOWN")
			s.stored("a")
			s.cancel("a")
			s.stored("a")
			s.want("store a QUEUED", "store a CANCELLED", "ended a CANCELLED CANCELLED")
			s.after(time.Minute)
			s.tick()
			s.want()
		}},
		{"what it called ends with the attempt, its tree's versions stay", func(s *story) {
			s.attach("x", 2)
			s.attach("y", 2)
			s.begins("a", "x", durable())
			s.spawn("x", "a", "b", "g", false)
			s.resolved("a", "g", 7, nil)
			s.spawn("x", "a", "c", "g", false)
			s.got = nil
			s.fails("x", "a", 1, "STATE_DOWN")
			s.is("b", "CANCELLED CANCELLED")
			s.is("c", "CANCELLED CANCELLED")
			for _, g := range s.got {
				if strings.Contains(g, "child") {
					s.Errorf("%q, though no parent is there", s.got)
				}
			}
			s.got = nil
			s.stored("a")
			s.now = s.record("a").RetryAt
			s.tick()
			home := s.record("a").Executor
			s.got = nil
			s.spawn(home, "a", "d", "g", false)
			if !slices.Contains(s.got, home+": accepted d version 7") || s.record("a").tree.calls != 2 {
				s.Errorf("%q", s.got)
			}
		}},
		{"a version that is looked up for an attempt serves the next", func(s *story) {
			s.attach("x", 9)
			s.begins("a", "x", durable())
			s.spawn("x", "a", "b", "g", false)
			s.want("resolve ann/g for a")
			s.fails("x", "a", 1, "STATE_DOWN")
			s.retries("a")
			s.want("dispatch a to x")
			s.spawn("x", "a", "c", "g", false)
			s.want() // it is asked for already
			s.resolved("a", "g", 2, nil)
			s.want("x: refused b NO_PARENT", "x: accepted c version 2", "dispatch c to x")
		}},
	})
}

// Back-off: full jitter below a bound that doubles from 1 s to 5 min, the same for the same call.
func TestBackoff(t *testing.T) {
	for n, bound := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 9: 256 * time.Second, 10: 5 * time.Minute, 100: 5 * time.Minute} {
		var most, sum time.Duration
		for range 2000 {
			id := skein.NewCallID()
			d := backoff(id, n)
			if d < 0 || d >= bound || d != backoff(id, n) {
				t.Fatalf("after %d failures %s, the bound is %s", n, d, bound)
			}
			most, sum = max(most, d), sum+d
		}
		if mean := sum / 2000; most < bound*9/10 || mean < bound*4/10 || mean > bound*6/10 {
			t.Errorf("after %d failures at most %s, %s in the mean: not spread below %s", n, most, mean, bound)
		}
	}
}
