package planner

import (
	"os"
	"testing"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
	"skein.dev/platform/redistest"
)

// What a leader says after another has led changes nothing, and it steps down.
func TestStaleLeader(t *testing.T) {
	url := redistest.Start(t).URL()
	s := sit(t, url).leads()
	id := s.submit(Request{Input: []byte("1")}).ID
	j, _ := s.leader()
	other, err := openDB(url, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.close() }()
	if err := other.client.Del(t.Context(), keys+"lease").Err(); err != nil {
		t.Fatal(err)
	}
	lease, err := other.acquire(t.Context(), "another host 10.0.0.1:1", "")
	if err != nil || lease == j.lease {
		t.Fatal(lease, err)
	}
	for _, kind := range []opKind{acceptOp, updateOp, finishOp, removeOp} {
		o := &op{kind: kind, rec: *s.find(id), meta: []byte("x")}
		o.rec.Ended = time.Now()
		if j.db.write(t.Context(), j.lease, []*op{o}); o.err == nil && o.answer == "" || o.answer != leaseLost && o.err == nil {
			t.Errorf("kind %d: %q %v", kind, o.answer, o.err)
		}
		if o.eval { // it was told the script, and is asked again
			if j.db.write(t.Context(), j.lease, []*op{o}); o.answer != leaseLost {
				t.Errorf("kind %d: %q %v", kind, o.answer, o.err)
			}
		}
	}
	x := newStream()
	_ = s.enter(x, Executor{ID: "x", Slots: 1}, nil)
	s.eventually("it steps down", func() bool { return s.standing() != nil })
	_, err = s.Submit(t.Context(), Request{Function: skein.Function{User: "ann", Name: "f"}, Async: true})
	wantFault(t, err, fault.Unavailable, "STANDBY")
	s.eventually("it knows who leads", func() bool { return fault.From(s.standing()).Hint == "the leader is 10.0.0.1:1" })
	got, err := other.read(t.Context(), []skein.CallID{id}, "i")
	if err != nil || got[0].rec == nil || got[0].rec.State != skein.Queued || string(got[0].rec.Input) != "1" {
		t.Errorf("%+v %v", got, err)
	}
	if ok, err := other.renew(t.Context(), j.lease); ok || err != nil {
		t.Error("the old lease was renewed", err)
	}
	_ = other.release(t.Context(), lease)
	s.leads()
	if got := s.find(id); got.State != skein.Queued {
		t.Errorf("%v", got.State)
	}
	// A lease that ran out without a successor is taken again: nothing was missed.
	again, _ := s.leader()
	if err := other.client.Del(t.Context(), keys+"lease").Err(); err != nil {
		t.Fatal(err)
	}
	s.submit(Request{})
	if j, err := s.leader(); j != again || err != nil {
		t.Error("it stepped down", err)
	}
}

func TestStandby(t *testing.T) {
	url := redistest.Start(t).URL()
	a := sit(t, url).leads()
	b := sitAt(t, "0.0.0.0:2", url)
	b.eventually("b stands by", func() bool { return fault.From(b.standing()).Hint == "the leader is 127.0.0.1:1" })
	id := a.submit(Request{Input: []byte("1")}).ID
	_, err := b.Submit(t.Context(), Request{Function: skein.Function{User: "ann", Name: "f"}, Async: true})
	wantFault(t, err, fault.Unavailable, "STANDBY")
	if err := a.SetPolicy(t.Context(), Spot); err != nil {
		t.Fatal(err)
	}

	// In good order: at once, and who waits hears of it.
	waits := make(chan error, 1)
	go func() { _, err := a.Wait(t.Context(), id, time.Minute); waits <- err }()
	a.eventually("somebody waits", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.waiters) == 1 })
	if err := a.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	wantFault(t, <-waits, fault.Unavailable, "DRAINING")
	b.leads()
	if got := b.find(id); got.State != skein.Queued || b.Policy() != Spot {
		t.Errorf("%v %v", got.State, b.Policy())
	}
	// After a crash: when the lease has run out.
	c := sitAt(t, "127.0.0.1:3", url)
	b.crash()
	host, _ := os.Hostname()
	c.eventually("c stands by", func() bool { return fault.From(c.standing()).Hint == "the leader is "+host+":2" })
	c.leads()
	if c.find(id).State != skein.Queued {
		t.Error("the call is lost")
	}
}
