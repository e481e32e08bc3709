package planner

import (
	"container/list"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
)

// queue holds calls that wait for a slot. Those with more calls above them go first, because others wait for them; among
// equals users take turns, so that one user's flood is that user's wait, and a user's calls go in the order of their coming.
type queue struct {
	levels  []turns // by depth
	deepest int     // nothing waits at a greater depth
	calls   int

	held    tally                // durable calls that are not in the queue yet
	heldFor map[skein.User]tally // of those, by user
}

// tally counts calls and the bytes that they hold.
type tally struct {
	calls int
	bytes int64
}

// turns is one line per user, and the users take turns.
type turns struct {
	lines map[skein.User]*line
	order *list.List // of *line, those that are not empty; the front one is next
	calls int
	bytes int64
}

type line struct {
	user  skein.User
	calls records
	bytes int64
	turn  *list.Element
}

func newQueue() queue {
	q := queue{levels: make([]turns, skein.MaxDepth+1), heldFor: map[skein.User]tally{}}
	for i := range q.levels {
		q.levels[i] = turns{lines: map[skein.User]*line{}, order: list.New()}
	}
	return q
}

func (q *queue) len() int { return q.calls }

// retryAfter is what a caller is told when the queue is full: long enough for a queue to move, short enough to be used.
const retryAfter = time.Second

// weight is what a call that waits costs in memory: what its caller sent.
func weight(c *skein.Call) int64 {
	n := len(c.Input)
	for _, a := range c.Args {
		n += len(a)
	}
	return int64(n)
}

// hold counts a call that is held (n is 1) or is so no more (-1).
func (q *queue) hold(r *record, n int) {
	size := int64(n) * weight(&r.Call)
	q.held = tally{q.held.calls + n, q.held.bytes + size}
	mine := q.heldFor[r.Function.User]
	if mine = (tally{mine.calls + n, mine.bytes + size}); mine.calls == 0 {
		delete(q.heldFor, r.Function.User)
		return
	}
	q.heldFor[r.Function.User] = mine
}

// admits says whether a call from outside may wait, in the queue or held. A user may hold at most half of the queue, so that the others always
// find room. What calls make is not counted: it is bounded by the limits of their trees, and refusing it would not help
// those that wait for it.
func (q *queue) admits(call skein.Call, l Limits, waitsNot bool) error {
	if waitsNot {
		return nil
	}
	t := &q.levels[0]
	mine, myBytes := q.heldFor[call.Function.User].calls, q.heldFor[call.Function.User].bytes
	if ln := t.lines[call.Function.User]; ln != nil {
		mine, myBytes = mine+ln.calls.len, myBytes+ln.bytes
	}
	size := weight(&call)
	switch {
	case t.calls+q.held.calls >= l.QueueCalls || mine >= (l.QueueCalls+1)/2:
		return fault.Exhausted.New("QUEUE_FULL", "%d calls are waiting, %d of them of user %s", t.calls+q.held.calls, mine, call.Function.User).
			WithHint("retry later, call less often, or attach more executors").WithRetry(retryAfter)
	case t.bytes+q.held.bytes+size > l.QueueBytes || mine > 0 && myBytes+size > l.QueueBytes/2:
		return fault.Exhausted.New("QUEUE_FULL", "the inputs of the calls that wait take %d bytes, %d of them of user %s; at most %d and half of it are allowed",
			t.bytes+q.held.bytes, myBytes, call.Function.User, l.QueueBytes).
			WithHint("retry later, or pass large inputs through state or files").WithRetry(retryAfter)
	}
	return nil
}

func (q *queue) push(r *record) {
	t := &q.levels[r.Depth]
	ln := t.lines[r.Function.User]
	if ln == nil {
		ln = &line{user: r.Function.User, calls: records{slot: turn}}
		ln.turn = t.order.PushBack(ln)
		t.lines[ln.user] = ln
	}
	ln.calls.push(r)
	r.queuedAt = ln
	size := weight(&r.Call)
	q.calls++
	t.calls++
	t.bytes += size
	ln.bytes += size
	q.deepest = max(q.deepest, int(r.Depth))
}

// next is the call whose turn it is; it stays in the queue until remove.
func (q *queue) next() *record {
	for q.levels[q.deepest].calls == 0 {
		q.deepest--
	}
	return q.levels[q.deepest].order.Front().Value.(*line).calls.first
}

// fronts gives the first call of each line, in the order in which they would be next. Nothing may change meanwhile.
func (q *queue) fronts(yield func(*record) bool) {
	for depth := q.deepest; depth >= 0; depth-- {
		for e := q.levels[depth].order.Front(); e != nil; e = e.Next() {
			if !yield(e.Value.(*line).calls.first) {
				return
			}
		}
	}
}

// nextOf is the call of a user whose turn it is among the user's own; nil if none waits.
func (q *queue) nextOf(u skein.User) *record {
	for depth := q.deepest; depth >= 0; depth-- {
		if ln := q.levels[depth].lines[u]; ln != nil {
			return ln.calls.first
		}
	}
	return nil
}

// waits tells whether a call of this user is in the queue.
func (q *queue) waits(u skein.User) bool { return q.nextOf(u) != nil }

// pass gives the turn to the next user, after r was served. A call that leaves the queue in another way costs its user
// no turn: one whose calls expire one by one would never come to the front.
func (q *queue) pass(r *record) {
	t := &q.levels[r.Depth]
	if ln := t.lines[r.Function.User]; ln != nil {
		t.order.MoveToBack(ln.turn)
	}
}

// remove takes a call out, wherever it stands.
func (q *queue) remove(r *record) {
	t := &q.levels[r.Depth]
	ln := r.queuedAt
	ln.calls.remove(r)
	r.queuedAt = nil
	size := weight(&r.Call)
	q.calls--
	t.calls--
	t.bytes -= size
	ln.bytes -= size
	if ln.calls.len == 0 {
		t.order.Remove(ln.turn)
		delete(t.lines, ln.user)
	}
}

// position is a waiting call's place, counted from 1, if none came and none left but by being served; 0 for one that is not in
// the queue.
func (q *queue) position(r *record) int {
	if r.queuedAt == nil {
		return 0
	}
	n := 1
	for depth := int(r.Depth) + 1; depth < len(q.levels); depth++ {
		n += q.levels[depth].calls
	}
	t := &q.levels[r.Depth]
	own := r.queuedAt
	ahead := 0 // of its own user
	for other := range own.calls.all {
		if other == r {
			break
		}
		ahead++
	}
	n += ahead
	rounds := ahead + 1 // that the users before its own have until then
	for e := t.order.Front(); e != nil; e = e.Next() {
		ln := e.Value.(*line)
		if ln == own {
			rounds = ahead
			continue
		}
		n += min(ln.calls.len, rounds)
	}
	return n
}
