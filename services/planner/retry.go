package planner

import (
	"cmp"
	"container/heap"
	"encoding/binary"
	"slices"
	"time"

	"skein.dev"
)

// Attempts of durable calls. What is in the journal about one is written before it begins, so that after a restart no attempt
// has the number of one that may still run somewhere.

// MaxLosses is how many executors may be lost with a call: the next would be lost by it.
const MaxLosses = 2

// Back-off between attempts: full jitter below a bound that doubles.
const (
	leastBackoff = time.Second
	mostBackoff  = 5 * time.Minute
)

// infrastructure tells whether a call failed for a reason that is not its guest's.
func infrastructure(reason string) bool {
	switch reason {
	case "EXECUTOR_LOST", "STORE_DOWN", "REDIS_DOWN", "STATE_DOWN", "FS_DOWN", "UPLOAD_DOWN", "UNAVAILABLE", "DRAINING":
		return true
	}
	return false
}

// store has a call written to the journal as it is now.
func (c *Core) store(r *record) {
	r.stores++
	c.emit(Store, "", r, "")
}

// Stored says that the journal has what the oldest Store of a call that was not answered yet asked for.
func (c *Core) Stored(now time.Time, id skein.CallID) []Command {
	r := c.calls[id]
	if r == nil || r.stores == 0 {
		return nil
	}
	if r.stores--; r.stores > 0 {
		return nil
	}
	switch {
	case r.State.Terminal():
		r.Unsaved = false
		c.emit(Ended, "", r, "")
		c.remember(now, r)
	case now.Before(r.RetryAt):
		r.delayed, r.due = true, r.RetryAt
		heap.Fix(&c.deadlines, r.heapAt)
	case r.held:
		c.release(now, r)
	}
	return c.take()
}

// Withdraw takes back a call that the journal did not accept: it was never one.
func (c *Core) Withdraw(now time.Time, id skein.CallID) {
	r := c.calls[id]
	if r == nil || !r.held {
		return
	}
	c.unhold(r)
	if r.heapAt >= 0 {
		heap.Remove(&c.deadlines, r.heapAt)
	}
	c.erase(r)
	c.schedule(now)
}

// hold keeps a call out of the queue until its next attempt may begin; its input counts as if it were there.
func (c *Core) hold(r *record) {
	r.held = true
	c.queue.held++
	c.queue.heldBytes += weight(&r.Call)
}

func (c *Core) unhold(r *record) {
	if !r.held {
		return
	}
	r.held, r.delayed = false, false
	c.queue.held--
	c.queue.heldBytes -= weight(&r.Call)
}

// Pause keeps calls of the journal from beginning while it does not take the ends of others: these are held in memory.
func (c *Core) Pause(on bool) { c.paused = on }

// later holds a call that could begin, while the journal's calls pause.
func (c *Core) later(now time.Time, r *record) {
	c.hold(r)
	r.delayed, r.due = true, earliest(now.Add(time.Second), r.Deadline)
	heap.Fix(&c.deadlines, r.heapAt)
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// release lets the next attempt of a held call begin.
func (c *Core) release(now time.Time, r *record) {
	c.unhold(r)
	r.RetryAt = time.Time{}
	r.due = r.Deadline
	heap.Fix(&c.deadlines, r.heapAt)
	c.begin(now, r)
	c.schedule(now)
}

// finish takes the end of an attempt: of the call, unless there is another attempt.
func (c *Core) finish(now time.Time, r *record, res skein.Result) {
	if r.State.Terminal() {
		return
	}
	if !r.Durable || r.Sync || res.State != skein.Failed && res.State != skein.TimedOut ||
		!infrastructure(res.Reason) && !r.RetryFailures {
		c.end(now, r, res)
		return
	}
	r.Attempts = append(r.Attempts, Attempt{r.Attempt, r.Executor, res.Reason, res.Message, r.Started, now})
	at := now.Add(backoff(r.ID, len(r.Attempts)))
	switch {
	case r.Losses >= MaxLosses:
		res.Reason = "POISON"
		res.Message = "executors were lost with it, and it could be why: " + res.Message
	case len(r.Attempts) < int(r.MaxAttempts) && at.Before(r.GiveUp):
		c.again(now, r, at)
		return
	}
	r.Dead = true
	c.end(now, r, res)
}

// again makes the next attempt, to begin at a time. All that the last one called ends.
func (c *Core) again(now time.Time, r *record, at time.Time) {
	c.sever(now, r, "is tried again")
	r.severed = false
	if r.tree != nil { // it keeps its versions
		r.tree = &tree{root: r, calls: 1, versions: r.tree.versions}
	}
	r.children, r.Log = nil, nil
	r.Attempt++
	r.State, r.Executor, r.Started, r.RetryAt, r.Deadline = skein.Queued, "", time.Time{}, at, r.GiveUp
	r.due = r.Deadline
	heap.Fix(&c.deadlines, r.heapAt)
	c.hold(r)
	c.store(r)
}

// backoff is how long to wait after the n-th failure. The jitter comes from the call's id, so that a history can be played
// again.
func backoff(id skein.CallID, n int) time.Duration {
	bound := mostBackoff
	if n < 20 {
		bound = min(mostBackoff, leastBackoff<<(n-1))
	}
	h := binary.LittleEndian.Uint64(id[:8]) ^ uint64(n)*0x9e3779b97f4a7c15
	h = (h ^ h>>31) * 0xbf58476d1ce4e5b9
	h ^= h >> 27
	return time.Duration(h % uint64(bound))
}

// orphan keeps a call whose executor may come back with it.
func (c *Core) orphan(now time.Time, r *record) {
	c.orphans[r.ID] = r
	r.due = now.Add(c.limits.Grace)
	heap.Fix(&c.deadlines, r.heapAt)
}

// adopt gives an executor that attaches the calls it still has. Others that were its own are lost, and what it names without
// having it is stopped.
func (c *Core) adopt(now time.Time, ex *executor, kept []Kept) {
	for _, k := range kept {
		r := c.orphans[k.ID]
		if r == nil || r.Attempt != k.Attempt || r.Executor != "" && r.Executor != ex.ID {
			c.emit(CancelOn, ex.ID, &record{Record: Record{Call: skein.Call{ID: k.ID, Attempt: k.Attempt}}}, "CANCELLED")
			continue
		}
		delete(c.orphans, k.ID)
		started := r.Started
		deadline := r.Deadline
		c.run(now, ex, r)
		if !started.IsZero() { // it kept its own deadline
			r.Started, r.Deadline = started, deadline
		}
	}
	var lost []*record
	for _, r := range c.orphans {
		if r.Executor == ex.ID {
			lost = append(lost, r)
		}
	}
	slices.SortFunc(lost, func(a, b *record) int { return cmp.Compare(a.Seq, b.Seq) })
	for _, r := range lost {
		c.lose(now, r, "it came back without the call")
	}
}

// lose ends an attempt whose executor did not come back. Which executor had a call from before a restart is not known,
// and that it did not end is not the call's fault.
func (c *Core) lose(now time.Time, r *record, why string) {
	delete(c.orphans, r.ID)
	if r.Executor != "" {
		r.Losses++
		c.finish(now, r, lost(r.Executor, why))
		return
	}
	if r.Sync {
		c.end(now, r, skein.Result{State: skein.Failed, Reason: "EXECUTOR_LOST", Message: "the planner started anew while the call may have run"})
		return
	}
	c.again(now, r, now)
}

func lost(executor, why string) skein.Result {
	return skein.Result{State: skein.Failed, Reason: "EXECUTOR_LOST", Message: "executor " + executor + " was lost: " + why, Executor: executor}
}

// Kept is a call that an executor had when it attaches.
type Kept struct {
	ID      skein.CallID
	Attempt int32
}

// Recover takes the calls of the journal, in the order of their acceptance, into a core that is new. One that may run
// somewhere gets time to be named by its executor.
func (c *Core) Recover(now time.Time, calls []Record) []Command {
	for i := range calls {
		r := &record{Record: calls[i], heapAt: -1}
		c.seq++
		r.Seq = c.seq
		if r.RequestID != "" {
			c.requests[requestKey{r.Function, r.RequestID}] = r.ID
		}
		r.listedAt = c.listed.PushBack(r)
		c.calls[r.ID] = r
		if r.State.Terminal() {
			c.ended.PushBack(r)
			c.endedSize += r.size()
			continue
		}
		r.State, r.Executor, r.Started, r.due = skein.Queued, "", time.Time{}, r.Deadline
		heap.Push(&c.deadlines, r)
		if now.Before(r.RetryAt) {
			c.hold(r)
			r.delayed, r.due = true, r.RetryAt
			heap.Fix(&c.deadlines, r.heapAt)
			continue
		}
		c.orphan(now, r)
	}
	c.forget(now)
	return c.take()
}
