package executor

import (
	"container/heap"
	"context"
	"sync"
	"sync/atomic"
)

// slots are the rights to run a call. Who finds none free stands in line: first the deeper call, so that what others wait
// for ends; of equals first one that goes on after a wait or a turn of others, then the one that came first. Spares, which the planner has not
// placed here, come after all others.
type slots struct {
	size int

	mu    sync.Mutex
	taken int
	line  line // empty while a slot is free
	drawn uint64

	resumed atomic.Int32 // how many of the line were interrupted
}

// ticket is a place in the line.
type ticket struct {
	spare   bool
	depth   int32
	resumed bool
	grant   func() // called once, with no lock held, by who gave the slot
	number  uint64
	at      int // -1 out of line
}

func newSlots(size int) *slots { return &slots{size: size} }

// used is how many are taken.
func (s *slots) used() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken
}

// try takes a slot if one is free.
func (s *slots) try() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken == s.size {
		return false
	}
	s.taken++
	return true
}

// stand puts a ticket into the line, unless a slot is free: then that is taken and stand says true.
func (s *slots) stand(t *ticket) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken < s.size {
		s.taken++
		t.at = -1
		return true
	}
	s.drawn++
	t.number = s.drawn
	heap.Push(&s.line, t)
	if t.resumed {
		s.resumed.Add(1)
	}
	return false
}

// leave takes a ticket out of the line; false if its turn has come.
func (s *slots) leave(t *ticket) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.at < 0 {
		return false
	}
	s.remove(t)
	return true
}

// take waits for a slot. An error is ctx's, and nothing is taken then.
func (s *slots) take(ctx context.Context, depth int32, resumed bool) error {
	if s.try() {
		return nil
	}
	ready := make(chan struct{})
	t := &ticket{depth: depth, resumed: resumed, grant: func() { close(ready) }}
	if s.stand(t) {
		return nil
	}
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
	}
	if s.leave(t) {
		return ctx.Err()
	}
	<-ready
	return nil
}

// give gives a slot back: to the first in line, if there is one.
func (s *slots) give() {
	s.mu.Lock()
	if len(s.line) == 0 {
		s.taken--
		s.mu.Unlock()
		return
	}
	t := s.line[0]
	s.remove(t)
	s.mu.Unlock()
	t.grant()
}

// remove takes a ticket out of the line. The caller holds mu.
func (s *slots) remove(t *ticket) {
	heap.Remove(&s.line, t.at)
	if t.resumed {
		s.resumed.Add(-1)
	}
}

// pass gives a slot to the one that has waited longest of those that were interrupted, however deep they are; false if there
// is none. Without it a call that computes for ever would keep the slot from the parent that means to cancel it.
func (s *slots) pass() bool {
	if s.resumed.Load() == 0 {
		return false
	}
	s.mu.Lock()
	var first *ticket
	for _, t := range s.line {
		if t.resumed && (first == nil || t.number < first.number) {
			first = t
		}
	}
	if first != nil {
		s.remove(first)
	}
	s.mu.Unlock()
	if first == nil {
		return false
	}
	first.grant()
	return true
}

// line is a heap of tickets.
type line []*ticket

func (l line) Len() int { return len(l) }

func (l line) Less(i, j int) bool {
	a, b := l[i], l[j]
	switch {
	case a.spare != b.spare:
		return b.spare
	case a.depth != b.depth:
		return a.depth > b.depth
	case a.resumed != b.resumed:
		return a.resumed
	}
	return a.number < b.number
}

func (l line) Swap(i, j int) {
	l[i], l[j] = l[j], l[i]
	l[i].at, l[j].at = i, j
}

func (l *line) Push(t any) {
	ticket := t.(*ticket)
	ticket.at = len(*l)
	*l = append(*l, ticket)
}

func (l *line) Pop() any {
	last := len(*l) - 1
	t := (*l)[last]
	(*l)[last] = nil
	*l = (*l)[:last]
	t.at = -1
	return t
}
