package planner

import (
	"fmt"
	"testing"
	"time"

	"skein.dev"
)

func TestOrphans(t *testing.T) {
	tellAll(t, []tale{
		{"an executor comes back with a call, which goes on", func(s *story) {
			s.attach("x", 1)
			s.begins("a", "x", durable())
			started, deadline := s.record("a").Started, s.record("a").Deadline
			s.detach("x")
			s.want()
			s.is("a", "RUNNING")
			s.after(2 * time.Second)
			s.tick()
			s.back("x", 1, "a 1")
			s.want()
			if r := s.record("a"); r.Started != started || r.Deadline != deadline || r.Losses != 0 {
				s.Errorf("%+v", r.Record)
			}
			s.after(5 * time.Second)
			s.outcome("x", "a", 1)
			s.stored("a")
			s.want("store a SUCCEEDED", "ended a SUCCEEDED")
		}},
		{"it does not come back in time", func(s *story) {
			s.attach("x", 1)
			s.begins("a", "x", durable())
			s.detach("x")
			s.after(3 * time.Second)
			s.tick()
			s.retries("a")
			s.back("x", 1, "a 1") // too late: it is to stop, and until then takes a slot
			s.want("cancel a on x: CANCELLED")
			if r := s.record("a"); r.Losses != 1 || r.Attempts[0].Reason != "EXECUTOR_LOST" || r.Attempts[0].Executor != "x" {
				s.Errorf("%+v", r.Record)
			}
			s.outcome("x", "a", 1)
			s.want("dispatch a to x")
			s.outcome("x", "a", 1) // again: it is not this attempt's
			s.want()
			s.outcome("x", "a", 2)
			s.want("store a SUCCEEDED")
		}},
		{"an attempt is not given to an executor that has an earlier one still", func(s *story) {
			s.attach("x", 3)
			s.begins("a", "x", durable())
			s.detach("x")
			s.after(3 * time.Second)
			s.tick()
			s.retries("a")
			s.back("x", 3, "a 1")
			s.want("cancel a on x: CANCELLED")
			s.submit("b", "bob") // others are not kept waiting
			s.want("dispatch b to x")
			s.after(time.Second)
			s.c.Heartbeat(s.now, "x", 0, nil, nil)
			s.tick()
			s.want()
			s.attach("y", 1)
			s.after(time.Second)
			s.tick()
			s.want("dispatch a to y")
			s.spawn("x", "a", "c", "f", false) // the earlier one makes no calls
			s.want("x: refused c CANCELLED")
			s.did(s.c.Outcome(s.now, "x", s.ids["a"], 1, skein.Result{State: skein.Succeeded, Cold: true}))
			s.want()
			s.outcome("y", "a", 2)
			s.want("store a SUCCEEDED")
		}},
		{"it comes back without the call", func(s *story) {
			s.attach("x", 1)
			s.begins("a", "x", durable())
			s.detach("x")
			s.back("x", 1)
			s.retries("a")
			s.want("dispatch a to x")
			s.detach("x")
			s.back("x", 1, "a 1", "a 2", "a 1") // the first is none, and what is said of it later counts no more
			s.want("cancel a on x: CANCELLED", "store a FAILED")
			s.is("a", "FAILED POISON dead")
		}},
		{"another executor can't have it", func(s *story) {
			s.attach("x", 1)
			s.begins("a", "x", durable())
			s.detach("x")
			s.back("y", 1, "a 1")
			s.want("cancel a on y: CANCELLED")
			s.back("x", 1, "a 1")
			s.want()
			s.is("a", "RUNNING")
		}},
		{"one that called others is lost at once, with them", func(s *story) {
			s.attach("x", 1)
			s.attach("y", 1)
			s.begins("a", "x", durable())
			s.spawn("x", "a", "b", "f", false)
			s.spawn("x", "a", "c", "f", true)
			s.want("x: accepted b version 0", "dispatch b to y", "x: accepted c version 0")
			s.detach("x")
			s.want("ended c FAILED EXECUTOR_LOST", "cancel b on y: CANCELLED", "ended b CANCELLED CANCELLED", "store a QUEUED")
			s.outcome("y", "b", 1)
			s.back("x", 1, "a 1")
			s.want("cancel a on x: CANCELLED")
		}},
		{"executors are lost with it twice, not more", func(s *story) {
			o := durable()
			o.MaxAttempts = 10
			s.attach("x", 1)
			s.begins("a", "x", o)
			s.detach("x")
			s.after(3 * time.Second)
			s.tick()
			s.retries("a")
			s.want()
			s.attach("y", 1)
			s.want("dispatch a to y")
			s.detach("y")
			s.after(3 * time.Second)
			s.tick()
			s.stored("a")
			s.want("store a FAILED", "ended a FAILED POISON")
			s.is("a", "FAILED POISON dead")
		}},
		{"lost with its time over it is tried again all the same", func(s *story) {
			o := durable()
			o.Timeout = time.Millisecond
			s.attach("x", 1)
			s.begins("a", "x", o)
			s.detach("x")
			s.after(time.Minute)
			s.tick()
			s.retries("a")
			s.back("y", 1)
			s.want("dispatch a to y")
		}},
		{"cancelled while its executor is away", func(s *story) {
			s.attach("x", 1)
			s.begins("a", "x", durable())
			s.detach("x")
			s.cancel("a")
			s.stored("a")
			s.want("store a CANCELLED", "ended a CANCELLED CANCELLED")
			s.back("x", 1, "a 1")
			s.submit("b", "bob")
			s.want("cancel a on x: CANCELLED")
			s.did(s.c.Outcome(s.now, "x", s.ids["a"], 1, skein.Result{State: skein.Cancelled}))
			s.want("dispatch b to x")
		}},
		{"what an operator said of an executor outlasts a break of its stream", func(s *story) {
			s.attach("x", 1)
			_, _ = s.c.Cordon(s.now, "x", true)
			s.detach("x")
			s.attach("x", 1)
			s.submit("a", "ann")
			s.want()
			commands, err := s.c.Cordon(s.now, "x", false)
			s.did(commands)
			if s.want("dispatch a to x"); err != nil {
				s.Error(err)
			}
			_, _ = s.c.Mark(s.now, "x", true)
			s.detach("x")
			s.want("ended a FAILED EXECUTOR_LOST")
			s.after(time.Hour)
			s.tick()
			if len(s.c.labels) != 0 {
				s.Error("labels of executors that are gone are kept")
			}
		}},
	})
}

// restart gives the story a new core with what a journal would have of the old one's calls.
func (s *story) restart(names ...string) {
	s.Helper()
	var all []Record
	for _, n := range names {
		r := s.record(n).Record
		r.State, r.Executor, r.Started, r.Deadline = max(skein.Queued, r.State), "", time.Time{}, r.GiveUp
		if r.Sync {
			r.Deadline = s.record(n).Deadline
		}
		all = append(all, r)
	}
	s.c = NewCore(s.c.limits)
	s.did(s.c.Recover(s.now, all))
}

func TestRecover(t *testing.T) {
	tellAll(t, []tale{
		{"an executor names what it has, the rest is tried again, and that is no failure", func(s *story) {
			s.attach("x", 2)
			s.begins("a", "x", durable())
			s.begins("b", "x", durable())
			s.restart("a", "b")
			s.want()
			s.back("x", 2, "a 1")
			s.is("a", "RUNNING")
			s.is("b", "QUEUED")
			s.after(3 * time.Second)
			s.c.Heartbeat(s.now, "x", 0, nil, nil)
			s.tick()
			s.want("store b QUEUED")
			s.stored("b")
			s.want("dispatch b to x")
			if r := s.record("b"); r.Attempt != 2 || len(r.Attempts) != 0 || r.Losses != 0 {
				s.Errorf("%+v", r.Record)
			}
			s.outcome("x", "a", 1)
			s.want("store a SUCCEEDED")
			if r := s.record("a"); r.Executor != "x" || r.Ended.IsZero() {
				s.Errorf("%+v", r.Record)
			}
		}},
		{"one that waits for its next attempt waits on", func(s *story) {
			s.attach("x", 1)
			s.begins("a", "x", durable())
			s.fails("x", "a", 1, "STORE_DOWN")
			s.stored("a")
			s.want("store a QUEUED")
			s.restart("a")
			s.stored("a")
			s.back("x", 1)
			s.tick()
			s.want("store a QUEUED")
			s.now = s.record("a").RetryAt
			s.tick()
			s.want("dispatch a to x")
			if s.record("a").Attempt != 3 { // clocks may differ, numbers not be used twice
				s.Errorf("attempt %d", s.record("a").Attempt)
			}
		}},
		{"nobody tries the answer again that somebody waited for", func(s *story) {
			s.attach("x", 1)
			s.begins("a", "x", Options{Durable: true, Sync: true, RequestID: "r"})
			s.restart("a")
			id, _, err := s.c.Submit(s.now, skein.Call{ID: skein.NewCallID(), Function: skein.Function{User: "ann", Name: "f"}}, Options{Durable: true, Sync: true, RequestID: "r"})
			if id != s.ids["a"] || err != nil {
				s.Fatal(id, err)
			}
			s.after(3 * time.Second)
			s.tick()
			s.stored("a")
			s.want("store a FAILED", "ended a FAILED EXECUTOR_LOST")
		}},
		{"given up before its executor came back", func(s *story) {
			o := durable()
			o.GiveUp = t0.Add(time.Second)
			s.attach("x", 1)
			s.begins("a", "x", o)
			s.restart("a")
			s.after(time.Minute)
			s.tick()
			s.want("store a TIMED_OUT")
			s.is("a", "TIMED_OUT DEADLINE dead")
		}},
		{"cancelled before anybody named it", func(s *story) {
			s.attach("x", 1)
			s.begins("a", "x", durable())
			s.restart("a")
			s.cancel("a")
			s.want("store a CANCELLED")
			s.back("x", 1, "a 1")
			s.want("cancel a on x: CANCELLED")
		}},
		{"what has ended is known, and forgotten in time", func(s *story) {
			s.attach("x", 2)
			for i, age := range []time.Duration{time.Minute, 0, time.Second} {
				o := durable()
				name := fmt.Sprint("a", i)
				o.ResultAge = age
				s.begins(name, "x", o)
				s.outcome("x", name, 1)
				s.stored(name)
				s.want("store "+name+" SUCCEEDED", "ended "+name+" SUCCEEDED")
			}
			s.restart("a0", "a1", "a2")
			s.is("a2", "SUCCEEDED")
			s.after(time.Second)
			s.tick()
			s.want()
			if s.is("a0", "SUCCEEDED"); s.record("a2") != nil {
				s.Error("a2 is remembered")
			}
			s.after(time.Minute)
			s.tick()
			if s.is("a1", "SUCCEEDED"); s.record("a0") != nil {
				s.Error("a0 is remembered")
			}
			s.after(time.Hour)
			s.tick()
			s.want()
			if len(s.c.calls) != 0 {
				s.Error("something is remembered")
			}
		}},
	})
}

// Results are kept as long as each is to be, whatever the others' ages.
func TestResultAge(t *testing.T) {
	s := newStory(t, testLimits())
	s.c.limits.HistoryCalls = 100
	s.attach("x", 1)
	ages := []time.Duration{0, time.Minute, 10 * time.Hour, time.Second, 0, time.Minute, 3 * time.Hour}
	for i, age := range ages {
		call := skein.Call{ID: skein.NewCallID(), Function: skein.Function{User: "ann", Name: "f"}, Deadline: s.now.Add(time.Minute)}
		name := fmt.Sprint(i)
		s.ids[name] = call.ID
		if _, _, err := s.c.Submit(s.now, call, Options{ResultAge: age}); err != nil {
			t.Fatal(err)
		}
		s.outcome("x", name, 1)
	}
	s.got = nil
	for _, after := range []time.Duration{0, time.Second, time.Minute, time.Hour, 3 * time.Hour, 10 * time.Hour} {
		s.now = t0.Add(after)
		s.tick()
		s.want()
		for i, age := range ages {
			if age == 0 {
				age = s.c.limits.HistoryAge
			}
			if known := s.record(fmt.Sprint(i)) != nil; known != (after < age) {
				t.Errorf("after %s, call %d of age %s is known: %v", after, i, age, known)
			}
		}
	}
}

// Those that are kept for long take no more than half of a full history.
func TestResultAgeRoom(t *testing.T) {
	s := newStory(t, testLimits()) // a history of six
	s.attach("x", 1)
	end := func(name string, age time.Duration) {
		call := skein.Call{ID: skein.NewCallID(), Function: skein.Function{User: "ann", Name: "f"}, Deadline: s.now.Add(time.Minute)}
		s.ids[name] = call.ID
		if _, _, err := s.c.Submit(s.now, call, Options{ResultAge: age}); err != nil {
			t.Fatal(err)
		}
		s.outcome("x", name, 1)
		s.got = nil
		s.want()
	}
	for i := range 3 {
		end(fmt.Sprint("a", i), 0)
	}
	for i := range 20 {
		end(fmt.Sprint("b", i), 30*24*time.Hour)
	}
	if s.is("a0", "SUCCEEDED"); len(s.c.aging) != 3 {
		t.Errorf("%d are kept for long", len(s.c.aging))
	}
	for i := range 10 {
		end(fmt.Sprint("c", i), 0)
	}
	if len(s.c.aging) != 3 || s.c.ended.len != 3 {
		t.Errorf("%d are kept for long, %d for the usual time", len(s.c.aging), s.c.ended.len)
	}
}

// The log of a call that runs: parts that follow, within bounds, of this attempt.
func TestLog(t *testing.T) {
	s := newStory(t, testLimits()) // 3,000 bytes of logs
	s.attach("x", 3)
	s.begins("a", "x", durable())
	s.begins("b", "x", durable())
	say := func(x, name string, attempt int32, offset int64, data string) bool {
		return s.c.Log(s.now, x, s.ids[name], attempt, offset, []byte(data))
	}
	for i, c := range []struct {
		x, name string
		attempt int32
		offset  int64
		data    string
		news    bool
		log     string
	}{
		{"x", "a", 1, 0, "one", true, "one"},
		{"x", "a", 1, 0, "one", false, "one"},
		{"x", "a", 1, 1, "ne t", true, "one t"},
		{"x", "a", 1, 9, "?", false, "one t"},
		{"x", "a", 1, -1, "?", false, "one t"},
		{"x", "a", 2, 5, "?", false, "one t"},
		{"y", "a", 1, 5, "?", false, "one t"},
		{"x", "c", 1, 0, "?", false, "one t"},
		{"x", "a", 1, 5, "wo", true, "one two"},
	} {
		if got := say(c.x, c.name, c.attempt, c.offset, c.data); got != c.news || string(s.record("a").Log) != c.log {
			t.Errorf("%d: %v, %q", i, got, s.record("a").Log)
		}
	}
	say("x", "b", 1, 0, string(make([]byte, 5000)))
	if n := len(s.record("b").Log); n != 3000-7 || say("x", "a", 1, 7, "?") {
		t.Errorf("%d bytes of the other's", n)
	}
	s.want()
	s.cancel("b")
	r := s.record("b").Record
	if say("x", "b", 1, int64(len(r.Log)), "?") || len(s.record("b").Log) != len(r.Log) {
		t.Error("the log of a call that has ended changed")
	}
	s.fails("x", "a", 1, "STORE_DOWN")
	if s.record("a").Log != nil || s.c.liveLogs != 0 {
		t.Error("the log outlived its attempt")
	}
	s.want("cancel b on x: CANCELLED", "store b CANCELLED", "store a QUEUED")
	s.detach("x")
	s.want()
}

// What a call waits for can be asked at any time of its life.
func TestWhyDurable(t *testing.T) {
	s := newStory(t, testLimits())
	p := &Planner{core: s.c}
	s.attach("x", 1)
	s.accept("a", durable())
	for _, next := range []func(){
		func() { s.stored("a") },
		func() { s.detach("x") },
		func() { s.back("x", 1); s.stored("a") },
		func() { s.cancel("a") },
	} {
		if w, err := p.Waits(t.Context(), s.ids["a"]); err != nil || w.Position != 0 || len(w.Children) != 0 {
			t.Errorf("%+v, %v", w, err)
		}
		next()
	}
}
