package planner

import (
	"context"
	"sync"
	"testing"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
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
	url := startRedis(t).url()
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
	_, err = s.Redrive(t.Context(), skein.NewCallID())
	wantFault(t, err, fault.NotFound, "NO_DEAD_LETTER")
}

// What the function is configured to do now goes before what it was when the call was made.
func TestRedriveAsConfigured(t *testing.T) {
	s := sit(t, startRedis(t).url()).leads()
	x := s.attach("x", 10)
	dead := s.die(Request{Timeout: time.Hour}, x)
	s.resolve = func(_ context.Context, f skein.Function) (Target, error) {
		return Target{skein.Version{Function: f, Number: 2}, Settings{Timeout: time.Second, MaxAttempts: 7}}, nil
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
