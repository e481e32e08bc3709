package planner

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
)

func (s *story) policy(p Policy) { s.did(s.c.SetPolicy(s.now, p)) }

func (s *story) cordon(x string, on bool) {
	s.Helper()
	commands, err := s.c.Cordon(s.now, x, on)
	if err != nil {
		s.Fatal(err)
	}
	s.did(commands)
}

func (s *story) mark(x string, on bool) {
	s.Helper()
	commands, err := s.c.Mark(s.now, x, on)
	if err != nil {
		s.Fatal(err)
	}
	s.did(commands)
}

// child is spawn for any user.
func (s *story) child(x, parent, name string) {
	s.spawn(x, parent, name, "f", false)
	if r := s.record(name); r == nil {
		s.Fatalf("no call %s", name)
	}
}

func TestPolicies(t *testing.T) {
	tellAll(t, []tale{
		{"compact: an executor runs calls of one user at a time", func(s *story) {
			s.policy(Compact)
			s.attach("x", 2)
			s.submit("a", "ann")
			s.submit("b", "bob")
			s.want("dispatch a to x")
			s.submit("c", "ann") // bob waits, and an executor is cleared for him
			s.want()
			s.attach("y", 2)
			s.want("dispatch b to y", "dispatch c to x")
			s.submit("d", "bob")
			s.want("dispatch d to y")
		}},
		{"compact: who has no executor gets one, though its user goes on calling", func(s *story) {
			s.policy(Compact)
			s.attach("x", 2)
			s.submit("a", "ann")
			s.want("dispatch a to x")
			s.submit("b", "bob")
			s.submit("c", "ann")
			s.want()
			s.outcome("x", "a", 1)
			s.want("ended a SUCCEEDED", "dispatch b to x")
			s.outcome("x", "b", 1)
			s.want("ended b SUCCEEDED", "dispatch c to x")
		}},
		{"compact: an executor that is cleared for nobody any more serves the others", func(s *story) {
			s.policy(Compact)
			s.attach("x", 2)
			s.submit("a", "ann")
			s.submit("b", "bob")
			s.want("dispatch a to x")
			s.cancel("b")
			s.submit("c", "ann")
			s.want("ended b CANCELLED CANCELLED", "dispatch c to x")
		}},
		{"compact: another's seat is not cleared by mistake", func(s *story) {
			s.policy(Compact)
			s.attach("x", 2)
			s.submit("a", "ann")
			s.submit("b", "bob")
			s.want("dispatch a to x")
			s.cordon("x", true)
			s.attach("y", 2)
			s.want("dispatch b to y")
			s.detach("x")
			s.want("ended a FAILED EXECUTOR_LOST")
			s.attach("z", 2) // takes x's seat
			s.submit("c", "ann")
			s.want("dispatch c to z")
		}},
		{"compact: parents of two users that wait on one executor get their children run", func(s *story) {
			s.attach("x", 2)
			s.submit("a", "ann")
			s.submit("b", "bob")
			s.want("dispatch a to x", "dispatch b to x")
			s.policy(Compact)
			s.child("x", "a", "a1")
			s.child("x", "b", "b1")
			s.got = nil
			s.wait("x", "a", "a1")
			s.want("dispatch a1 to x")
			s.wait("x", "b", "b1")
			s.want("dispatch b1 to x")
			s.submit("c", "ann") // but nothing new while two users' calls are there
			s.outcome("x", "a1", 1)
			s.wait("x", "a")
			s.outcome("x", "a", 1)
			s.want("ended a1 SUCCEEDED", "ended a SUCCEEDED")
			s.outcome("x", "b1", 1)
			s.wait("x", "b")
			s.outcome("x", "b", 1)
			s.want("ended b1 SUCCEEDED", "ended b SUCCEEDED", "dispatch c to x")
		}},
		{"compact: what waits on executors that drain goes on elsewhere", func(s *story) {
			s.attach("x", 1)
			s.submit("a", "ann")
			s.attach("y", 2)
			s.policy(Compact)
			s.submit("b", "bob")
			s.want("dispatch a to x", "dispatch b to y")
			s.cordon("x", true)
			s.child("x", "a", "a1")
			s.wait("x", "a", "a1")
			s.submit("c", "bob") // y is cleared for ann
			s.want("x: accepted a1 version 0")
			s.outcome("y", "b", 1)
			s.want("ended b SUCCEEDED", "dispatch a1 to y")
			s.outcome("y", "a1", 1)
			s.want("ended a1 SUCCEEDED", "x: child a1 SUCCEEDED", "dispatch c to y")
		}},
		{"compact: a cleared executor still runs what its calls wait for", func(s *story) {
			s.policy(Compact)
			s.attach("x", 2)
			s.submit("a", "ann")
			s.submit("b", "bob") // x is cleared for bob
			s.want("dispatch a to x")
			s.child("x", "a", "a1")
			s.want("x: accepted a1 version 0", "dispatch a1 to x")
			s.child("x", "a1", "a2")
			s.wait("x", "a1", "a2")
			s.want("x: accepted a2 version 0", "dispatch a2 to x")
		}},
		{"compact: an executor with long calls does not keep others from being cleared", func(s *story) {
			s.policy(Compact)
			s.attach("x", 2)
			s.attach("y", 2)
			for _, c := range []string{"a0", "a1", "a2"} {
				s.submit(c, "ann")
			}
			s.want("dispatch a0 to x", "dispatch a1 to x", "dispatch a2 to y")
			s.submit("b", "bob") // y has the fewest calls
			s.outcome("x", "a0", 1)
			s.want("ended a0 SUCCEEDED")
			for range 3 {
				s.after(clearFor / 2)
				s.c.Heartbeat(s.now, "x", 0, nil, nil)
				s.c.Heartbeat(s.now, "y", 0, nil, nil)
				s.tick()
			}
			s.submit("a3", "ann") // now it is x
			s.want("dispatch a3 to y")
			s.outcome("x", "a1", 1)
			s.want("ended a1 SUCCEEDED", "dispatch b to x")
		}},
		{"spot: nothing is placed on marked executors, what runs there stays", func(s *story) {
			s.policy(Spot)
			s.attach("x", 2)
			s.submit("a", "ann")
			s.mark("x", true)
			s.submit("b", "ann")
			s.want("dispatch a to x")
			s.attach("y", 1)
			s.want("dispatch b to y")
			s.child("x", "a", "c")
			s.outcome("x", "a", 1)
			s.want("x: accepted c version 0", "ended a SUCCEEDED")
			s.mark("x", false)
			s.want("dispatch c to x")
			s.mark("x", true)
			s.submit("d", "ann")
			s.want()
			s.policy(BinPack) // a mark means nothing there
			s.want("dispatch d to x")
		}},
		{"cordon: nothing is placed there, and again", func(s *story) {
			s.attach("x", 2)
			s.cordon("x", true)
			s.submit("a", "ann")
			s.want()
			s.cordon("x", false)
			s.want("dispatch a to x")
			s.did(s.c.Drain(s.now, "x"))
			s.cordon("x", true)
			s.cordon("x", false) // it leaves all the same
			s.submit("b", "ann")
			s.want("drained x")
			if _, err := s.c.Cordon(s.now, "nobody", true); fault.From(err).Reason != "NO_EXECUTOR" {
				s.Error(err)
			}
			if _, err := ParsePolicy("worst-fit"); fault.From(err).Reason != "BAD_POLICY" {
				s.Error(err)
			}
		}},
	})
}

// users is how many users' calls an executor has.
func users(ex *executor) int {
	all := map[skein.User]bool{}
	for _, r := range ex.running {
		all[r.Function.User] = true
	}
	return len(all)
}

// Trees of four users under policies that change while they run: all end well, and under Compact an executor that has calls
// of one user has not of two before the next change.
func TestPolicySwitches(t *testing.T) {
	t.Parallel()
	seeds := uint64(30)
	if testing.Short() {
		seeds = 5
	}
	for seed := range seeds {
		s := newSim(seed, simLimits(), nil)
		s.fan = func(c *skein.Call) int { return max(0, s.rng.IntN(7)-2*int(c.Depth)) }
		s.local = seed%2 == 0
		executors := 1 + s.rng.IntN(4)
		for i := range executors {
			s.attach(fmt.Sprint("x", i), 1+s.rng.IntN(3))
		}
		for range 400 {
			user := skein.User(fmt.Sprint("u", min(s.rng.IntN(4), s.rng.IntN(8))))
			s.after(time.Duration(s.rng.IntN(100))*time.Millisecond, func() { s.submit(user, time.Hour) })
		}
		settled := map[string]bool{}
		for step := range 400 {
			s.after(time.Duration(step)*time.Millisecond, func() {
				if s.rng.IntN(20) == 0 && step < 200 || step == 200 {
					settled = map[string]bool{}
					p := Policy(s.rng.IntN(3))
					if step == 200 {
						p = Compact
					}
					s.obey(s.c.SetPolicy(s.now, p))
				}
				if name := fmt.Sprint("x", s.rng.IntN(executors)); executors > 1 && s.rng.IntN(10) == 0 {
					var commands []Command
					if s.rng.IntN(2) == 0 {
						commands, _ = s.c.Cordon(s.now, name, step < 300 && s.rng.IntN(2) == 0)
					} else {
						commands, _ = s.c.Mark(s.now, name, step < 300 && s.rng.IntN(2) == 0)
					}
					s.obey(commands)
				}
				if step == 300 {
					for name := range s.execs {
						commands, _ := s.c.Cordon(s.now, name, false)
						s.obey(commands)
					}
				}
				s.obey(s.c.Tick(s.now))
				if err := audit(s.c); err != nil && s.wrong == nil {
					s.wrong = err
				}
			})
		}
		events := 0
		s.each = func() {
			if events++; events%10 == 0 && s.wrong == nil && !s.c.rescan { // not only after a Tick, which looks at all
				s.wrong = auditCompact(s.c)
			}
			for name, ex := range s.c.executors {
				switch n := users(ex); {
				case s.c.policy != Compact:
				case n <= 1:
					settled[name] = true
				case settled[name] && s.wrong == nil:
					s.wrong = fmt.Errorf("executor %s has calls of %d users", name, n)
				}
			}
		}
		err := s.run()
		if err == nil {
			err = s.idle()
		}
		for id, state := range s.ends {
			if err == nil && state != skein.Succeeded {
				err = fmt.Errorf("call %s: %s", id, state)
			}
		}
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// Nobody starves under Compact: one user floods all executors, another calls now and then and is served within a few of the
// flood's rounds.
func TestCompactIsFair(t *testing.T) {
	for _, executors := range []int{1, 3} {
		s := newSim(1, simLimits(), func(*skein.Call) int { return 0 })
		s.obey(s.c.SetPolicy(s.now, Compact))
		for i := range executors {
			s.attach(fmt.Sprint("x", i), 4)
		}
		worst := time.Duration(0)
		s.each = func() {
			for _, r := range s.c.calls {
				if r.Function.User == "bob" && !r.Started.IsZero() {
					worst = max(worst, r.Started.Sub(r.Created))
				}
			}
		}
		for i := range 3000 {
			s.after(time.Duration(i)*20*time.Microsecond, func() { s.submit("ann", time.Hour) })
			if i%100 == 0 {
				s.after(time.Duration(i)*20*time.Microsecond, func() { s.submit("bob", time.Hour) })
			}
		}
		if err := s.run(); err != nil {
			t.Fatal(err)
		}
		if worst == 0 || worst > 5*time.Millisecond { // of 600 µs at most for each call, there and back
			t.Errorf("%d executors: a call waited %s", executors, worst)
		}
	}
}

// A decision under each policy with 20 users.
func BenchmarkPolicies(b *testing.B) {
	for _, p := range []Policy{BinPack, Compact, Spot} {
		for _, n := range []int{100, 10_000} {
			b.Run(fmt.Sprintf("%s/%d", p, n), func(b *testing.B) {
				f := newFleet(n)
				rng := rand.New(rand.NewPCG(1, 1))
				_ = f.c.SetPolicy(f.now, p)
				for len(f.runs) > 0 {
					f.answer()
				}
				f.user = func() skein.User { return skein.User(fmt.Sprint("u", rng.IntN(20))) }
				for range 400 {
					f.submit()
				}
				for b.Loop() {
					f.answer()
					f.submit()
				}
			})
		}
	}
}

// An outcome and what it lets begin, while calls of many users wait for executors that are others'.
func BenchmarkCompactWaiters(b *testing.B) {
	for _, users := range []int{10, 1000} {
		b.Run(fmt.Sprint(users), func(b *testing.B) {
			l := DefaultLimits()
			l.HistoryCalls, l.Silence = 1000, time.Hour
			f := &fleet{c: NewCore(l), now: t0}
			_ = f.c.SetPolicy(f.now, Compact)
			for i := range 10 {
				_, _ = f.c.Attach(t0, Executor{ID: fmt.Sprint("x", i), Slots: 16}, nil)
			}
			call := func(user skein.User) []Command {
				c := skein.Call{ID: skein.NewCallID(), Function: skein.Function{User: user, Name: "f"}, Deadline: t0.Add(time.Hour)}
				_, commands, err := f.c.Submit(t0, c, Options{})
				if err != nil {
					b.Fatal(err)
				}
				return commands
			}
			take := func(commands []Command) {
				for _, cmd := range commands {
					if cmd.Kind == Dispatch {
						f.runs = append(f.runs, running{cmd.Executor, cmd.Call.ID})
					}
				}
			}
			for n := range 5000 {
				take(call(skein.User(fmt.Sprint("u", n%users))))
			}
			for b.Loop() {
				r := f.runs[0]
				f.runs = f.runs[1:]
				user := f.c.calls[r.id].Function.User
				take(f.c.Outcome(t0, r.ex, r.id, 1, skein.Result{State: skein.Succeeded}))
				take(call(user))
			}
		})
	}
}
