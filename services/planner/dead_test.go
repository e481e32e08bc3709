package planner

import (
	"context"
	"sync"
	"testing"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
	"skein.dev/platform/redistest"
)

// die makes a dead letter of a call.
func (s *seat) die(q Request, x *stream) *Record {
	s.t.Helper()
	q.MaxAttempts = 1
	r := s.submit(q)
	s.eventually("it is dead", func() bool {
		x.mu.Lock()
		calls := x.calls
		x.calls = nil
		x.mu.Unlock()
		for _, a := range calls {
			s.apply(func(now time.Time) []Command {
				return s.core.Outcome(now, "x", skein.CallID(a.GetCallId()), a.GetAttempt(), skein.Result{State: skein.Failed, Reason: "STORE_DOWN"})
			})
		}
		return s.find(r.ID).Dead
	})
	return r
}

// However often and by how many a dead letter is tried again, it becomes one call, over a restart too.
func TestRedrive(t *testing.T) {
	url := redistest.Start(t).URL()
	s := sit(t, url).leads()
	x := s.attach("x", 10)
	dead := s.die(Request{Input: []byte("in"), Args: []string{"a", "b"}, Timeout: time.Minute, MaxAge: time.Hour, ResultAge: 2 * time.Hour, Webhook: "http://h/", RetryFailures: true}, x)
	var wg sync.WaitGroup
	got := make([]skein.CallID, 20)
	for i := range got {
		wg.Go(func() {
			r, err := s.Redrive(t.Context(), dead.ID)
			if err != nil {
				t.Error(err)
				return
			}
			got[i] = r.ID
		})
	}
	wg.Wait()
	r := s.find(got[0])
	for _, id := range got {
		if id != got[0] {
			t.Fatalf("%v", got)
		}
	}
	if r.RedriveOf != dead.ID || r.ID == dead.ID || string(r.Input) != "in" || len(r.Args) != 2 || r.Timeout != time.Minute || r.GiveUp.Sub(r.Created) != time.Hour ||
		r.ResultAge != 2*time.Hour || r.Webhook != "http://h/" || !r.RetryFailures || r.MaxAttempts != 1 || r.Losses != 0 || len(r.Attempts) != 0 {
		t.Errorf("%+v", r)
	}
	_, err := s.deadLetter(t.Context(), dead.ID)
	wantFault(t, err, fault.NotFound, "NO_DEAD_LETTER")
	s.crash()
	s = sit(t, url).leads()
	if again, err := s.Redrive(t.Context(), dead.ID); err != nil || again.ID != r.ID {
		t.Errorf("after a restart: %v, %v, want %s", again, err, r.ID)
	}
	s.submit(Request{})
	for _, id := range []skein.CallID{skein.NewCallID(), {}} { // most calls are redriven of none
		_, err = s.Redrive(t.Context(), id)
		wantFault(t, err, fault.NotFound, "NO_DEAD_LETTER")
	}
}

// What the function is configured to do now goes before what it was when the call was made.
func TestRedriveAsConfigured(t *testing.T) {
	s := sit(t, redistest.Start(t).URL()).leads()
	x := s.attach("x", 10)
	dead := s.die(Request{Timeout: time.Hour}, x)
	s.resolve = func(_ context.Context, f skein.Function) (Target, error) {
		return Target{Version: skein.Version{Function: f, Number: 2}, Settings: Settings{Timeout: time.Second, MaxAttempts: 7}}, nil
	}
	r, err := s.Redrive(t.Context(), dead.ID)
	if err != nil || r.Timeout != time.Second || r.MaxAttempts != 7 {
		t.Errorf("%+v, %v", r, err)
	}
	// A function that is gone keeps its dead letters.
	dead = s.die(Request{}, x)
	s.resolve = func(context.Context, skein.Function) (Target, error) {
		return Target{}, fault.NotFound.New("NO_FUNCTION", "there is none")
	}
	_, err = s.Redrive(t.Context(), dead.ID)
	wantFault(t, err, fault.NotFound, "NO_FUNCTION")
	if _, err := s.deadLetter(t.Context(), dead.ID); err != nil {
		t.Error(err)
	}
}

// What a durable call waits for, from its acceptance to its end.
func TestWaitsFor(t *testing.T) {
	s := sit(t, redistest.Start(t).URL(), func(l *Limits) { l.Grace = time.Hour }).leads()
	id := s.submit(Request{RetryFailures: true, MaxAttempts: 3}).ID
	waits := func(want WaitsFor) Waits {
		t.Helper()
		var w Waits
		s.eventually("it waits for what it should", func() bool {
			var err error
			if w, err = s.Waits(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			return w.For == want
		})
		return w
	}
	if w := waits(WaitsForSlot); w.Position != 1 || w.Since.IsZero() || !w.Until.After(w.Since) {
		t.Errorf("%+v", w)
	}
	x := s.attach("x", 1)
	waits(WaitsForNothing)
	s.apply(func(now time.Time) []Command {
		return s.core.Outcome(now, "x", id, 1, skein.Result{State: skein.Failed, Reason: "GUEST_TRAP", Message: "unreachable"})
	})
	if w, err := s.Waits(t.Context(), id); err != nil || w.For != WaitsForJournal && w.For != WaitsForRetry && w.For != WaitsForNothing {
		t.Errorf("%+v %v", w, err)
	}
	w := waits(WaitsForNothing) // the second attempt runs
	s.eventually("it runs", func() bool { return s.find(id).State == skein.Running })
	if r := s.find(id); len(r.Attempts) != 1 || r.Attempts[0].Reason != "GUEST_TRAP" || w.Call.Attempt != 2 {
		t.Errorf("%+v", r)
	}
	x.drop("its cable was cut", nil)
	s.leave(x, "x")
	if w := waits(WaitsForExecutor); w.Call.Executor != "x" || time.Until(w.Until) < 30*time.Minute {
		t.Errorf("%+v", w)
	}
	_, _ = s.Cancel(t.Context(), id)
	if w := waits(WaitsForNothing); w.Call.State != skein.Cancelled {
		s.eventually("it has ended", func() bool { return s.find(id).State == skein.Cancelled })
	}
	if w, err := s.Waits(t.Context(), id); err != nil || !w.Until.IsZero() || !w.Since.IsZero() {
		t.Errorf("%+v %v", w, err)
	}
	_, err := s.Waits(t.Context(), skein.NewCallID())
	wantFault(t, err, fault.NotFound, "NO_CALL")
}
