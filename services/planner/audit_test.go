package planner

import (
	"errors"
	"fmt"
	"maps"

	"skein.dev"
)

// audit says what is wrong within a core's books, whatever happened to it before.
func audit(c *Core) error {
	alive, logs := 0, int64(0)
	for id, r := range c.calls {
		queued, running := r.queuedAt != nil, false
		if err := auditDurable(c, r); err != nil {
			return err
		}
		if ex := c.executors[r.Executor]; ex != nil {
			running = ex.running[id] == r
		}
		heaped := r.heapAt >= 0 && r.heapAt < len(c.deadlines) && c.deadlines[r.heapAt] == r
		switch {
		case r.State == skein.Queued && one(queued, r.held, r.orphan) && !running && heaped && r.Executor == "" && r.Log == nil:
			alive++
		case r.State == skein.Running && !queued && !r.held && running != r.orphan && heaped:
			alive++
			logs += int64(len(r.Log))
		case r.State.Terminal() && !queued && !r.held && !r.orphan && !heaped && !r.Ended.IsZero() && r.Input == nil && (r.Durable || r.Args == nil):
		default:
			return fmt.Errorf("call %s is %s, queued %v, running %v, in deadlines %v (%d)", id, r.State, queued, running, heaped, r.heapAt)
		}
		if r.RequestID != "" && c.requests[requestKey{r.Function, r.RequestID}] != id {
			return fmt.Errorf("request %q of call %s is not known", r.RequestID, id)
		}
	}
	if alive != len(c.deadlines) || logs != c.liveLogs {
		return fmt.Errorf("%d calls are alive, %d have deadlines; their logs have %d bytes, it says %d", alive, len(c.deadlines), logs, c.liveLogs)
	}
	for _, h := range []deadlineHeap{c.deadlines, c.aging} {
		for i, r := range h {
			if r.due.Before(h[max(0, i-1)/2].due) || r.heapAt != i {
				return fmt.Errorf("deadlines are no heap at %d", i)
			}
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
		if c.policy != Compact && c.queue.len() > 0 && takes(c, ex) {
			return fmt.Errorf("%d calls wait although %s has a free slot", c.queue.len(), id)
		}
	}
	for _, check := range []func(*Core) error{auditOrphans, auditCompact, auditPlaces, auditTrees, auditQueue, auditHistory} {
		if err := check(c); err != nil {
			return err
		}
	}
	return nil
}

func one(conditions ...bool) bool {
	n := 0
	for _, c := range conditions {
		if c {
			n++
		}
	}
	return n == 1
}

// takes tells whether an executor has a free slot that calls may be given.
func takes(c *Core, ex *executor) bool {
	return ex.used() < ex.Slots && !ex.Leaving && !ex.Cordoned && (c.policy != Spot || !ex.Marked)
}

// auditDurable checks what must hold of one call and the journal.
func auditDurable(c *Core, r *record) error {
	switch {
	case !r.Durable && (r.held || r.storing || r.saved || r.orphan || r.Unsaved || r.Dead || r.Attempt != 1):
	case r.stale && !r.storing, r.delayed && (!r.held || r.storing):
	case r.State == skein.Running && r.Durable && (!r.saved || r.storing):
	case r.queuedAt != nil && r.Durable && (!r.saved || r.storing):
	case r.held && !r.storing && !r.delayed: // nothing would ever release it
	case r.Unsaved != (r.Durable && r.State.Terminal() && r.storing):
	case r.Durable && (r.parent != nil || len(r.Attempts) > int(max(1, r.MaxAttempts)) || r.Losses > MaxLosses):
	case r.Durable && r.Sync && r.Attempt != 1:
	default:
		return nil
	}
	return fmt.Errorf("call %s: held %v, delayed %v, storing %v, saved %v, stale %v, orphan %v: %+v", r.ID, r.held, r.delayed, r.storing, r.saved, r.stale, r.orphan, r.Record)
}

func auditOrphans(c *Core) error {
	n := 0
	for id, r := range c.calls {
		if r.orphan != (c.orphans[r.Executor][id] == r) {
			return fmt.Errorf("call %s is an orphan of %q: %v", id, r.Executor, r.orphan)
		}
		if r.orphan {
			n++
		}
	}
	for _, all := range c.orphans {
		if n -= len(all); len(all) == 0 {
			return fmt.Errorf("an executor has no orphans, and a place among those that have")
		}
	}
	if n != 0 {
		return fmt.Errorf("%d orphans are missing or too many", n)
	}
	return nil
}

// auditCompact checks that under Compact nobody waits who need not.
func auditCompact(c *Core) error {
	if c.policy != Compact {
		return nil
	}
	tried := map[skein.User]bool{}
	for r := range c.queue.fronts {
		if !tried[r.Function.User] && c.place(r) != nil {
			return fmt.Errorf("call %s waits although there is a place for it", r.ID)
		}
		tried[r.Function.User] = true
	}
	for id, ex := range c.executors {
		users, owner := map[skein.User]int{}, skein.User("")
		for _, r := range ex.running {
			users[r.Function.User]++
			owner = r.Function.User
		}
		if len(users) != 1 {
			owner = ""
		}
		if !maps.Equal(users, ex.users) || ex.owner != owner || c.places.empty.has(ex.seat) != (len(users) == 0) {
			return fmt.Errorf("executor %s of %q runs calls of %v, it says %v", id, ex.owner, users, ex.users)
		}
		for u, s := range c.places.owned {
			if s.has(ex.seat) != (u == owner) || s.empty() {
				return fmt.Errorf("executor %s of %q is among those of %q", id, owner, u)
			}
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
	held, home := map[skein.Digest]int{}, map[skein.Digest]int{}
	for id, ex := range c.executors {
		level := -1
		if takes(c, ex) {
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
		for d := range ex.homes {
			if home[d]++; p.homes[d] == nil || !p.homes[d].has(ex.seat) {
				return fmt.Errorf("executor %s is no home of %s", id, d)
			}
		}
	}
	for l := range p.levels {
		if p.filled.has(l) == p.levels[l].empty() {
			return fmt.Errorf("level %d is filled: %v", l, p.filled.has(l))
		}
	}
	return errors.Join(auditIndex(p.holders, held), auditIndex(p.homes, home))
}

// auditIndex compares the sizes of an index's sets with what they are to be.
func auditIndex(x index, held map[skein.Digest]int) error {
	for d, s := range x {
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
			if r.Parent != p.ID || r.Root != p.Root || r.Depth != p.Depth+1 || r.Function.User != p.Function.User ||
				!r.State.Terminal() && (r.tree != p.tree || r.Deadline.After(p.Deadline)) { // a parent that is tried again has another tree
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
	all, held, heldFor := 0, tally{}, map[skein.User]tally{}
	for _, r := range c.calls {
		if r.held {
			size, mine := weight(&r.Call), heldFor[r.Function.User]
			held = tally{held.calls + 1, held.bytes + size}
			heldFor[r.Function.User] = tally{mine.calls + 1, mine.bytes + size}
		}
	}
	if held != q.held || !maps.Equal(heldFor, q.heldFor) {
		return fmt.Errorf("%v calls are held, it says %v: by user %v, it says %v", held, q.held, heldFor, q.heldFor)
	}
	lasting := tally{} // what was let in, and not by an earlier attempt
	for depth := range q.levels {
		t := &q.levels[depth]
		calls, bytes := 0, int64(0)
		for e := t.order.Front(); e != nil; e = e.Next() {
			ln := e.Value.(*line)
			if ln.turn != e || t.lines[ln.user] != ln || ln.calls.len == 0 {
				return fmt.Errorf("the line of %s is wrong", ln.user)
			}
			mine := int64(0)
			for r := range ln.calls.all {
				if r.queuedAt != ln || r.Function.User != ln.user || c.calls[r.ID] != r || int(r.Depth) != depth {
					return fmt.Errorf("the line of %s holds %+v", ln.user, r.Record)
				}
				mine += weight(&r.Call)
				if depth == 0 && r.Attempt == 1 {
					lasting = tally{lasting.calls + 1, lasting.bytes + weight(&r.Call)}
				}
			}
			if mine != ln.bytes {
				return fmt.Errorf("the line of %s has %d bytes, it says %d", ln.user, mine, ln.bytes)
			}
			calls, bytes = calls+ln.calls.len, bytes+mine
		}
		if calls != t.calls || bytes != t.bytes || len(t.lines) != t.order.Len() || calls > 0 && depth > q.deepest {
			return fmt.Errorf("depth %d has %d calls of %d bytes, it says %d of %d", depth, calls, bytes, t.calls, t.bytes)
		}
		all += calls
	}
	if all != q.calls {
		return fmt.Errorf("the queue has %d calls, it says %d", all, q.calls)
	}
	if lasting.calls > c.limits.QueueCalls || lasting.bytes > c.limits.QueueBytes {
		return fmt.Errorf("the queue has %d calls of %d bytes, which is over its limits", q.levels[0].calls, q.levels[0].bytes)
	}
	return nil
}

func auditHistory(c *Core) error {
	size, seq, unsaved, waits := int64(0), uint64(0), 0, int64(0)
	for _, r := range c.aging {
		if !r.State.Terminal() || c.calls[r.ID] != r || r.due != r.Expires {
			return fmt.Errorf("the history holds %+v", r.Record)
		}
		size += r.size()
	}
	for _, r := range c.calls {
		if r.Unsaved {
			unsaved++
			waits += r.size()
		}
	}
	for r := range c.ended.all {
		if !r.State.Terminal() || c.calls[r.ID] != r || r.Unsaved || r.heapAt != -1 {
			return fmt.Errorf("the history holds %+v", r.Record)
		}
		size += r.size()
	}
	if waits != c.unsaved {
		return fmt.Errorf("%d bytes are not in the journal, it says %d", waits, c.unsaved)
	}
	if n := c.ended.len + len(c.aging); size != c.endedSize || size > c.limits.HistoryBytes || n > c.limits.HistoryCalls {
		return fmt.Errorf("the history has %d calls of %d bytes, it says %d", n, size, c.endedSize)
	}
	if c.ended.len+len(c.aging)+unsaved+len(c.deadlines) != len(c.calls) || c.listed.len != len(c.calls) {
		return fmt.Errorf("%d ended and %d alive are %d calls, %d listed", c.ended.len, len(c.deadlines), len(c.calls), c.listed.len)
	}
	for r := range c.listed.all {
		if r.Seq <= seq || c.calls[r.ID] != r {
			return fmt.Errorf("the list holds %d after %d", r.Seq, seq)
		}
		seq = r.Seq
	}
	return nil
}
