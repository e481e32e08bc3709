package executor

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"skein.dev/platform/fault"
	callv1 "skein.dev/proto/skein/call/v1"
)

// until polls for what the desk says under its lock.
func (d *desk) until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		d.mu.Lock()
		ok := is()
		d.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatal("in vain: ", what)
		}
	}
}

// kept starts a call with keep set and waits until it runs.
func (d *desk) kept(t *testing.T, input string, timeout time.Duration) *task {
	t.Helper()
	k := d.accept("chain", input, timeout, true)
	d.runs(t, k)
	return k
}

// runs waits until a call does, by what its guest says.
func (d *desk) runs(t *testing.T, k *task) {
	t.Helper()
	if strings.HasPrefix(string(k.a.GetInput()), "nap") || strings.HasPrefix(string(k.a.GetInput()), "later") {
		d.until(t, "it runs", func() bool { return len(d.logs[[16]byte(k.a.GetCallId())]) > 0 })
		return
	}
	d.until(t, "it runs", func() bool { return k.at != nil })
}

func (d *desk) away(yes bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refuse, d.refused = nil, 0
	if yes {
		d.refuse = fault.Unavailable.New("STANDBY", "planned").GRPCStatus().Err()
	}
}

func (k *task) want(t *testing.T, state callv1.CallState, output string) {
	t.Helper()
	select {
	case <-k.done:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s has not ended", k.a.GetInput())
	}
	if k.outcome.GetState() != state || string(k.outcome.GetOutput()) != output || k.a.GetAttempt() != 1 {
		t.Fatalf("%s, attempt %d: %v", k.a.GetInput(), k.a.GetAttempt(), k.outcome)
	}
}

func (e *Executor) freed(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); e.slots.used() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d slots are still taken", e.slots.used())
		}
	}
}

const succeeded, timedOut = callv1.CallState_CALL_STATE_SUCCEEDED, callv1.CallState_CALL_STATE_TIMED_OUT

// A kept call goes on when its stream breaks, and its first attempt is its last, whether it ends after the next stream stands
// or before; others end with the stream.
func TestKept(t *testing.T) {
	d, p := chains(t)
	e := d.attach(t, p, 4)
	d.want(t, "chain", "deep 1", "1")

	over, other := d.kept(t, "nap 1000", time.Minute), d.start("chain", "nap 60000", 2*time.Minute)
	d.runs(t, other)
	d.cut()
	over.want(t, succeeded, "1000")
	if <-other.done; other.outcome.GetReason() != "EXECUTOR_LOST" {
		t.Errorf("%v", other.outcome)
	}
	e.freed(t)

	between := d.kept(t, "nap 300", time.Minute)
	d.away(true)
	d.cut()
	e.freed(t)
	d.away(false)
	between.want(t, succeeded, "300")

	late := d.kept(t, "spin", 300*time.Millisecond)
	d.away(true)
	d.cut()
	e.freed(t) // it keeps its deadline without a planner
	d.away(false)
	late.want(t, timedOut, "")
}

// A call that has made others is not kept, and one that a planner does not know is stopped.
func TestNotKept(t *testing.T) {
	d, p := chains(t)
	e := d.attach(t, p, 3)
	hold := d.accept("chain", "hold", time.Minute, true)
	d.until(t, "it waits", func() bool { return hold.waits && hold.children[0].at != nil })
	d.cut()
	if <-hold.done; hold.outcome.GetReason() != "EXECUTOR_LOST" {
		t.Errorf("%v", hold.outcome)
	}
	e.freed(t)

	d.until(t, "it is back", func() bool { return len(d.stations) == 1 })
	spin := d.kept(t, "spin", time.Minute)
	d.mu.Lock()
	d.strange = true
	d.mu.Unlock()
	d.cut()
	d.until(t, "the next attempt runs", func() bool { return spin.a.GetAttempt() == 2 && spin.at != nil })
	d.stop(spin) // which must not have been taken for the first
	<-spin.done
	e.freed(t)
}

// A kept call that makes another while no planner is there waits for one.
func TestKeptChains(t *testing.T) {
	d, p := chains(t)
	d.attach(t, p, 2)
	later := d.kept(t, "later 150", time.Minute)
	d.away(true)
	d.cut()
	d.until(t, "it tries again", func() bool { return d.refused >= 5 })
	d.away(false)
	later.want(t, succeeded, "1")
}

// However often streams break, kept calls end once, and well: an end that was lost on its way is told again.
func TestKeptAlways(t *testing.T) {
	d, p := chains(t)
	e := d.attach(t, p, 4)
	var all []*task
	for i := range 100 {
		all = append(all, d.accept("chain", fmt.Sprint("nap ", i%20), time.Minute, true))
	}
	for _, k := range all {
		for ended := false; !ended; {
			select {
			case <-k.done:
				ended = true
			case <-time.After(rand.N(30 * time.Millisecond)):
				d.cut()
			}
		}
		if k.outcome.GetState() != succeeded {
			t.Fatal(k.outcome)
		}
	}
	e.freed(t)
}

// What a call logs arrives while it runs.
func TestLogsArrive(t *testing.T) {
	d, p := chains(t)
	d.attach(t, p, 1)
	k := d.accept("chain", "nap 60000", 2*time.Minute, true)
	id := [16]byte(k.a.GetCallId())
	d.until(t, "the log", func() bool { return string(d.logs[id]) == "napping\n" })
	d.mu.Lock()
	d.logs[id] = nil // as a planner that has started anew
	d.mu.Unlock()
	d.cut()
	d.until(t, "the log again", func() bool { return string(d.logs[id]) == "napping\n" })
	d.stop(k)
	<-k.done
	if string(k.outcome.GetLog()) != "napping\n" {
		t.Errorf("%q", k.outcome.GetLog())
	}
}

// An executor that drains under load serves what was on its way to it: no call is lost.
func TestDrainUnderLoad(t *testing.T) {
	d, p := chains(t)
	d.attach(t, p, 2) // stays
	d.want(t, "chain", "deep 1", "1")
	for range 5 {
		var all []*task
		t.Run("leaves", func(t *testing.T) {
			d.attach(t, p, 2)
			for range 200 {
				all = append(all, d.start("echo", "x", time.Minute))
			}
		})
		for _, k := range all {
			k.want(t, succeeded, "x")
		}
	}
}

// A planner that stands by, or is not there, is passed over for the next.
func TestPlannersInTurn(t *testing.T) {
	standby, active, p := newDesk(t), newDesk(t), newPlace(t)
	standby.away(true)
	active.add(t, p, "echo", "../../examples/echo/c/echo.c", reactor)
	active.others = []string{"127.0.0.1:1", standby.address}
	active.attach(t, p, 1)
	active.want(t, "echo", "x", "x")
	active.away(true)
	active.cut()
	standby.mu.Lock()
	standby.functions = active.functions
	standby.mu.Unlock()
	standby.away(false)
	standby.want(t, "echo", "y", "y")
	if standby.refused == 0 {
		t.Error("nobody came by")
	}
}

func TestUnheardIsBounded(t *testing.T) {
	var u unheard
	for range 2 * maxUnheard {
		u.add(&callv1.Outcome{Output: make([]byte, 10)})
		u.bound()
	}
	if len(u.ends) != maxUnheard || u.size != 10*maxUnheard {
		t.Errorf("%d ends of %d bytes", len(u.ends), u.size)
	}
	for range 20 {
		u.add(&callv1.Outcome{Output: make([]byte, maxUnheardBytes/10)})
		u.bound()
	}
	if u.size > maxUnheardBytes || len(u.ends) > 10 {
		t.Errorf("%d ends of %d bytes", len(u.ends), u.size)
	}
	u.forget(time.Now().Add(time.Hour))
	if len(u.ends) != 0 || u.size != 0 {
		t.Errorf("%d ends of %d bytes", len(u.ends), u.size)
	}
}
