package planner

import (
	"fmt"

	"skein.dev"
)

// audit says what is wrong within a core's books, whatever happened to it before.
func audit(c *Core) error {
	alive := 0
	for id, r := range c.calls {
		queued, running := r.queuedAt != nil, false
		if ex := c.executors[r.Executor]; ex != nil {
			running = ex.running[id] == r
		}
		heaped := r.heapAt >= 0 && r.heapAt < len(c.deadlines) && c.deadlines[r.heapAt] == r
		switch {
		case r.State == skein.Queued && queued && !running && heaped && r.Executor == "":
			alive++
		case r.State == skein.Running && !queued && running && heaped:
			alive++
		case r.State.Terminal() && !queued && r.heapAt == -1 && !r.Ended.IsZero() && r.Input == nil && r.Args == nil:
		default:
			return fmt.Errorf("call %s is %s, queued %v, running %v, in deadlines %v (%d)", id, r.State, queued, running, heaped, r.heapAt)
		}
		if r.RequestID != "" && c.requests[requestKey{r.Function, r.RequestID}] != id {
			return fmt.Errorf("request %q of call %s is not known", r.RequestID, id)
		}
	}
	if alive != len(c.deadlines) {
		return fmt.Errorf("%d calls are alive, %d have deadlines", alive, len(c.deadlines))
	}
	for i := 1; i < len(c.deadlines); i++ {
		if c.deadlines[i].due.Before(c.deadlines[(i-1)/2].due) {
			return fmt.Errorf("deadlines are no heap at %d", i)
		}
	}
	for k, id := range c.requests {
		if r := c.calls[id]; r == nil || r.RequestID != k.id || r.Function != k.fn {
			return fmt.Errorf("request %v stands for %s, which is %+v", k, id, r)
		}
	}
	for id, ex := range c.executors {
		for callID, r := range ex.running {
			if r.Executor != id || r.ID != callID || !r.State.Terminal() && c.calls[callID] != r {
				return fmt.Errorf("executor %s runs %+v", id, r.Record)
			}
		}
		for callID := range ex.waiting {
			if ex.running[callID] == nil {
				return fmt.Errorf("call %s waits on %s and does not run there", callID, id)
			}
		}
		if c.queue.len() > 0 && !ex.Draining() && ex.used() < ex.Slots {
			return fmt.Errorf("%d calls wait although %s has a free slot", c.queue.len(), id)
		}
	}
	for _, check := range []func(*Core) error{auditPlaces, auditTrees, auditQueue, auditHistory} {
		if err := check(c); err != nil {
			return err
		}
	}
	return nil
}

// auditPlaces compares the index with what it is of.
func auditPlaces(c *Core) error {
	p := &c.places
	if len(p.seats) != len(c.executors)+len(p.vacant) {
		return fmt.Errorf("%d executors on %d seats, %d of them vacant", len(c.executors), len(p.seats), len(p.vacant))
	}
	held := map[skein.Digest]int{}
	for id, ex := range c.executors {
		level := -1
		if ex.used() < ex.Slots && !ex.Draining() {
			level = ex.used()
		}
		if p.seats[ex.seat] != ex || ex.level != level || p.free.has(ex.seat) != (level >= 0) {
			return fmt.Errorf("executor %s with %d of %d slots in use is on level %d, in free %v", id, ex.used(), ex.Slots, ex.level, p.free.has(ex.seat))
		}
		for l := range p.levels {
			if p.levels[l].has(ex.seat) != (l == level) {
				return fmt.Errorf("executor %s of level %d is on %d", id, level, l)
			}
		}
		for d := range ex.loaded {
			if held[d]++; p.holders[d] == nil || !p.holders[d].has(ex.seat) {
				return fmt.Errorf("executor %s is no holder of %s", id, d)
			}
		}
	}
	for l := range p.levels {
		if p.filled.has(l) == p.levels[l].empty() {
			return fmt.Errorf("level %d is filled: %v", l, p.filled.has(l))
		}
	}
	for d, s := range p.holders {
		n := 0
		for i := s.first(); i >= 0; i = s.first() { // a set is taken apart and put together again
			s.remove(i)
			defer s.add(i)
			n++
		}
		if n == 0 || n != held[d] {
			return fmt.Errorf("%d executors hold %s, the index has %d", held[d], d, n)
		}
	}
	return nil
}

// auditTrees checks that what is alive can be reached from above, and only that is kept.
func auditTrees(c *Core) error {
	pending, sizes := map[*record]int{}, map[*tree]int64{}
	for key, list := range c.lookups {
		for _, p := range list {
			pending[p.parent]++
			if p.parent.Root != key.root || p.parent.Function.User != key.function.User || c.calls[p.ID] != nil && p.parent.ID != c.calls[p.ID].Parent {
				return fmt.Errorf("lookup %v has a spawn of %+v", key, p.parent.Record)
			}
		}
	}
	for id, r := range c.calls {
		if p := r.parent; p != nil {
			if r.Parent != p.ID || r.Root != p.Root || r.Depth != p.Depth+1 || r.tree != p.tree || r.Deadline.After(p.Deadline) || r.Function.User != p.Function.User {
				return fmt.Errorf("call %s below %s: %+v", id, p.ID, r.Record)
			}
		} else if !r.Parent.IsZero() || r.Root != id || r.Depth != 0 {
			return fmt.Errorf("call %s from outside: %+v", id, r.Record)
		}
		needed := !r.State.Terminal() || r.kids != nil || r.pending > 0
		if r.parent != nil && r.linked != needed || r.pending != pending[r] {
			return fmt.Errorf("call %s (%s) is kept %v, with %d pending", id, r.State, r.linked, r.pending)
		}
		for k := r.kids; k != nil; k = k.next {
			if k.parent != r || !k.linked || k.next != nil && k.next.prev != k {
				return fmt.Errorf("call %s has a kid %+v", id, k.Record)
			}
		}
		if r.severed && !r.State.Terminal() {
			return fmt.Errorf("call %s is %s, severed", id, r.State)
		}
		for p := r.parent; p != nil && !r.State.Terminal(); p = p.parent {
			if p.severed {
				return fmt.Errorf("call %s is %s, call %s above it is severed", id, r.State, p.ID)
			}
			kept := p.parent == nil
			if kept = kept || p.linked; !kept {
				return fmt.Errorf("call %s is %s, call %s above it is not kept", id, r.State, p.ID)
			}
		}
		if r.queuedAt != nil && r.tree != nil {
			sizes[r.tree] += weight(&r.Call)
		}
		if r.tree != nil {
			sizes[r.tree] += 0
		}
	}
	for t, size := range sizes {
		if t.waiting != size || t.calls > c.limits.TreeCalls {
			return fmt.Errorf("the tree of %s has %d calls, %d bytes wait, it says %d", t.root.ID, t.calls, size, t.waiting)
		}
	}
	return nil
}

func auditQueue(c *Core) error {
	q := &c.queue
	all := 0
	for depth := range q.levels {
		t := &q.levels[depth]
		calls, bytes := 0, int64(0)
		for e := t.order.Front(); e != nil; e = e.Next() {
			ln := e.Value.(*line)
			if ln.turn != e || t.lines[ln.user] != ln || ln.calls.Len() == 0 {
				return fmt.Errorf("the line of %s is wrong", ln.user)
			}
			mine := int64(0)
			for f := ln.calls.Front(); f != nil; f = f.Next() {
				r := f.Value.(*record)
				if r.queuedAt != f || r.Function.User != ln.user || c.calls[r.ID] != r || int(r.Depth) != depth {
					return fmt.Errorf("the line of %s holds %+v", ln.user, r.Record)
				}
				mine += weight(&r.Call)
			}
			if mine != ln.bytes {
				return fmt.Errorf("the line of %s has %d bytes, it says %d", ln.user, mine, ln.bytes)
			}
			calls, bytes = calls+ln.calls.Len(), bytes+mine
		}
		if calls != t.calls || bytes != t.bytes || len(t.lines) != t.order.Len() || calls > 0 && depth > q.deepest {
			return fmt.Errorf("depth %d has %d calls of %d bytes, it says %d of %d", depth, calls, bytes, t.calls, t.bytes)
		}
		all += calls
	}
	if all != q.calls {
		return fmt.Errorf("the queue has %d calls, it says %d", all, q.calls)
	}
	if q.levels[0].calls > c.limits.QueueCalls || q.levels[0].bytes > c.limits.QueueBytes {
		return fmt.Errorf("the queue has %d calls of %d bytes, which is over its limits", q.levels[0].calls, q.levels[0].bytes)
	}
	return nil
}

func auditHistory(c *Core) error {
	size, seq := int64(0), uint64(0)
	for e := c.ended.Front(); e != nil; e = e.Next() {
		r := e.Value.(*record)
		if !r.State.Terminal() || c.calls[r.ID] != r {
			return fmt.Errorf("the history holds %+v", r.Record)
		}
		size += r.size()
	}
	if size != c.endedSize || size > c.limits.HistoryBytes || c.ended.Len() > c.limits.HistoryCalls {
		return fmt.Errorf("the history has %d calls of %d bytes, it says %d", c.ended.Len(), size, c.endedSize)
	}
	if c.ended.Len()+len(c.deadlines) != len(c.calls) || c.listed.Len() != len(c.calls) {
		return fmt.Errorf("%d ended and %d alive are %d calls, %d listed", c.ended.Len(), len(c.deadlines), len(c.calls), c.listed.Len())
	}
	for e := c.listed.Front(); e != nil; e = e.Next() {
		r := e.Value.(*record)
		if r.Seq <= seq || r.listedAt != e || c.calls[r.ID] != r {
			return fmt.Errorf("the list holds %d after %d", r.Seq, seq)
		}
		seq = r.Seq
	}
	return nil
}
