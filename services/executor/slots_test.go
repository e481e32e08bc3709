package executor

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"
)

// Who is first in line: the deeper, the one that goes on, the one that came first; spares last.
func TestSlotsOrder(t *testing.T) {
	s := newSlots(1)
	if !s.try() || s.try() {
		t.Fatal("one slot is not one")
	}
	var got []string
	add := func(name string, of ticket) *ticket {
		of.grant = func() { got = append(got, name) }
		if s.stand(&of) {
			t.Fatal("a taken slot was given to", name)
		}
		return &of
	}
	add("spare", ticket{spare: true, depth: 9})
	add("root", ticket{})
	add("second root", ticket{})
	left := add("left", ticket{depth: 7})
	add("resumed root", ticket{resumed: true})
	add("child", ticket{depth: 1})
	add("grandchild", ticket{depth: 2})
	if !s.leave(left) || s.leave(left) {
		t.Error("a ticket leaves the line once")
	}
	for range 6 {
		s.give()
	}
	if want := []string{"grandchild", "child", "resumed root", "root", "second root", "spare"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if s.used() != 1 {
		t.Errorf("%d slots are used by the last one", s.used())
	}
	s.give()
	if s.used() != 0 {
		t.Errorf("%d slots are used by nobody", s.used())
	}
}

// However tokens are taken, waited for in vain, withdrawn and given, none is lost and none is made.
func TestSlotsAreKept(t *testing.T) {
	const size = 3
	s := newSlots(size)
	var wait sync.WaitGroup
	var mu sync.Mutex
	held, most := 0, 0
	hold := func(n int) {
		mu.Lock()
		defer mu.Unlock()
		held += n
		most = max(most, held)
	}
	for i := range 16 {
		wait.Go(func() {
			for j := range 500 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(j%5)*20*time.Microsecond)
				if err := s.take(ctx, int32(i%3), j%2 == 0); err == nil {
					hold(1)
					time.Sleep(time.Duration(i) * time.Microsecond)
					hold(-1)
					s.give()
				} else if !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				cancel()
				ticket := &ticket{spare: true, grant: s.give}
				if s.stand(ticket) {
					s.give()
				} else if j%2 == 0 {
					s.leave(ticket)
				}
			}
		})
	}
	wait.Wait()
	if s.used() != 0 || len(s.line) != 0 || most > size {
		t.Errorf("%d used and %d in line at the end, %d held at once", s.used(), len(s.line), most)
	}
}

// Those that were interrupted get their turn in the order in which they came, however deep; others wait for a slot to be given.
func TestSlotsPass(t *testing.T) {
	s := newSlots(1)
	if s.pass() || !s.try() || s.pass() {
		t.Fatal("a slot was passed to nobody")
	}
	var got []string
	add := func(name string, of ticket) *ticket {
		of.grant = func() { got = append(got, name) }
		s.stand(&of)
		return &of
	}
	add("child", ticket{depth: 5})
	add("root", ticket{resumed: true})
	left := add("left", ticket{depth: 1, resumed: true})
	add("deeper", ticket{depth: 3, resumed: true})
	s.leave(left)
	for s.pass() {
	}
	s.give()
	if want := []string{"root", "deeper", "child"}; !slices.Equal(got, want) || s.resumed.Load() != 0 {
		t.Errorf("%q, want %q", got, want)
	}
}
