package planner

import (
	"container/list"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
)

// queue holds calls that wait for a slot: one line per user, and the users take turns, so that one user's flood is that
// user's wait.
type queue struct {
	lines map[skein.User]*line
	turns *list.List // of *line, those that are not empty; the front one is next
	calls int
	bytes int64
}

type line struct {
	user  skein.User
	calls *list.List // of *record
	bytes int64
	turn  *list.Element
}

func newQueue() queue { return queue{lines: map[skein.User]*line{}, turns: list.New()} }

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

// admits says whether a call may wait. A user may hold at most half of the queue, so that the others always find room.
func (q *queue) admits(call skein.Call, l Limits, freeSlot bool) error {
	if freeSlot && q.calls == 0 {
		return nil // it will not wait
	}
	mine, myBytes := 0, int64(0)
	if ln := q.lines[call.Function.User]; ln != nil {
		mine, myBytes = ln.calls.Len(), ln.bytes
	}
	size := weight(&call)
	switch {
	case q.calls >= l.QueueCalls || mine >= (l.QueueCalls+1)/2:
		return fault.Exhausted.New("QUEUE_FULL", "%d calls are waiting, %d of them of user %s", q.calls, mine, call.Function.User).
			WithHint("retry later, call less often, or attach more executors").WithRetry(retryAfter)
	case q.bytes+size > l.QueueBytes || mine > 0 && myBytes+size > l.QueueBytes/2:
		return fault.Exhausted.New("QUEUE_FULL", "the inputs of the calls that wait take %d bytes, %d of them of user %s; at most %d and half of it are allowed",
			q.bytes, myBytes, call.Function.User, l.QueueBytes).
			WithHint("retry later, or pass large inputs through state or files").WithRetry(retryAfter)
	}
	return nil
}

func (q *queue) push(r *record) {
	ln := q.lines[r.Function.User]
	if ln == nil {
		ln = &line{user: r.Function.User, calls: list.New()}
		ln.turn = q.turns.PushBack(ln)
		q.lines[ln.user] = ln
	}
	r.queuedAt = ln.calls.PushBack(r)
	size := weight(&r.Call)
	q.calls++
	q.bytes += size
	ln.bytes += size
}

// next is the call whose turn it is; it stays in the queue until remove.
func (q *queue) next() *record {
	return q.turns.Front().Value.(*line).calls.Front().Value.(*record)
}

// pass gives the turn to the next user, after r was served. A call that leaves the queue in another way costs its user
// no turn: one whose calls expire one by one would never come to the front.
func (q *queue) pass(r *record) {
	if ln := q.lines[r.Function.User]; ln != nil {
		q.turns.MoveToBack(ln.turn)
	}
}

// remove takes a call out, wherever it stands.
func (q *queue) remove(r *record) {
	ln := q.lines[r.Function.User]
	ln.calls.Remove(r.queuedAt)
	r.queuedAt = nil
	size := weight(&r.Call)
	q.calls--
	q.bytes -= size
	ln.bytes -= size
	if ln.calls.Len() == 0 {
		q.turns.Remove(ln.turn)
		delete(q.lines, ln.user)
	}
}
