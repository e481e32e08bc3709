package planner

import (
	"cmp"
	"encoding/binary"
	"maps"
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
	case "EXECUTOR_LOST", "STORE_DOWN", "STATE_DOWN", "FS_DOWN", "UPLOAD_DOWN", "UNAVAILABLE", "DRAINING":
		return true
	}
	return false
}

// store has a call written to the journal as it is now: once what is being written of it is there.
func (c *Core) store(r *record) {
	if r.storing {
		r.stale = true
		return
	}
	r.storing = true
	c.emit(Store, "", r, "")
}

// Stored says that the journal has what a call's Store asked for.
func (c *Core) Stored(now time.Time, id skein.CallID) []Command {
	r := c.calls[id]
	if r == nil || !r.storing {
		return nil
	}
	r.storing, r.saved = false, true
	switch {
	case r.stale:
		r.stale = false
		c.store(r)
	case r.State.Terminal():
		r.Unsaved = false
		c.unsaved -= r.size()
		c.emit(Ended, "", r, "")
		c.remember(now, r)
	case now.Before(r.RetryAt):
		r.delayed, r.due = true, r.RetryAt
		c.deadlines.fix(r)
	case r.held:
		c.release(now, r)
	}
	return c.take()
}

// Withdraw takes back a call whose first Store failed: it was never one, also if it was cancelled meanwhile.
func (c *Core) Withdraw(_ time.Time, id skein.CallID) {
	r := c.calls[id]
	if r == nil || !r.storing || r.saved {
		return
	}
	if r.Unsaved {
		c.unsaved -= r.size()
	}
	c.unhold(r)
	if r.heapAt >= 0 {
		c.deadlines.remove(r)
	}
	c.erase(r)
}

// hold keeps a call out of the queue until its next attempt may begin; its input counts as if it were there.
func (c *Core) hold(r *record) {
	r.held = true
	c.queue.hold(r, 1)
}

func (c *Core) unhold(r *record) {
	if !r.held {
		return
	}
	r.held, r.delayed = false, false
	c.queue.hold(r, -1)
}

// chokes tells whether a call must not begin because of what the journal has not taken: a result would be one more to keep.
func (c *Core) chokes(r *record) bool { return r.Durable && c.unsaved > c.limits.HistoryBytes }

// postpone keeps a call out of the queue for a moment: the journal is behind, or each free slot is on an executor that has an earlier
// attempt of it.
func (c *Core) postpone(now time.Time, r *record) {
	c.dequeue(r)
	c.hold(r)
	r.delayed, r.due = true, now.Add(leastBackoff)
	c.deadlines.fix(r)
}

// release lets the next attempt of a held call begin.
func (c *Core) release(now time.Time, r *record) {
	c.unhold(r)
	r.RetryAt = time.Time{}
	r.due = r.Deadline
	c.deadlines.fix(r)
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
	c.liveLogs -= int64(len(r.Log))
	r.Attempt++
	r.State, r.Executor, r.Started, r.RetryAt, r.Deadline = skein.Queued, "", time.Time{}, at, r.GiveUp
	c.sever(now, r, "is tried again")
	r.severed = false
	if r.tree != nil { // it keeps its versions
		r.tree = &tree{root: r, calls: 1, versions: r.tree.versions}
	}
	r.children, r.Log = nil, nil
	r.due = r.Deadline
	c.deadlines.fix(r)
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
	all := c.orphans[r.Executor]
	if all == nil {
		all = map[skein.CallID]*record{}
		c.orphans[r.Executor] = all
	}
	all[r.ID], r.orphan = r, true
	r.due = now.Add(c.limits.Grace)
	c.deadlines.fix(r)
}

// unorphan must come before the call's executor changes.
func (c *Core) unorphan(r *record) {
	if !r.orphan {
		return
	}
	r.orphan = false
	if delete(c.orphans[r.Executor], r.ID); len(c.orphans[r.Executor]) == 0 {
		delete(c.orphans, r.Executor)
	}
}

// adopt gives an executor that attaches the calls it still has. Others that were its own are lost, and what it names without
// having it is stopped.
func (c *Core) adopt(now time.Time, ex *executor, kept []Kept) {
	for _, k := range kept {
		r := c.calls[k.ID]
		switch {
		case ex.running[k.ID] != nil: // said twice
			continue
		case r == nil || !r.orphan || r.Attempt != k.Attempt || r.Executor != "" && r.Executor != ex.ID:
			c.haunt(ex, r, k)
			continue
		}
		c.unorphan(r)
		started, deadline := r.Started, r.Deadline
		c.run(now, ex, r)
		if !started.IsZero() { // it kept its own deadline
			r.Started, r.Deadline = started, deadline
		}
	}
	for _, r := range slices.SortedFunc(maps.Values(c.orphans[ex.ID]), func(a, b *record) int { return cmp.Compare(a.Seq, b.Seq) }) {
		c.lose(now, r, "it came back without the call")
	}
}

// haunt has an executor stop an attempt that is none any more (r is its call, if that is known). It takes a slot there until
// the executor says that it has ended, as every call does.
func (c *Core) haunt(ex *executor, r *record, k Kept) {
	ghost := &record{Record: Record{Call: skein.Call{ID: k.ID, Attempt: k.Attempt}, State: skein.Cancelled, Executor: ex.ID}, heapAt: -1}
	ghost.severed = true
	if r != nil {
		ghost.Function, ghost.Version = r.Function, r.Version
	}
	ex.running[k.ID] = ghost
	c.places.count(ex, ghost, 1)
	c.places.update(ex)
	c.emit(CancelOn, ex.ID, ghost, "CANCELLED")
}

// lose ends an attempt whose executor did not come back. Which executor had a call from before a restart is not known,
// and that it did not end is not the call's fault.
func (c *Core) lose(now time.Time, r *record, why string) {
	c.unorphan(r)
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
		r := &record{Record: calls[i], heapAt: -1, saved: true}
		c.seq++
		r.Seq, r.Root, r.Unsaved = c.seq, r.ID, false
		if r.RequestID != "" {
			c.requests[requestKey{r.Function, r.RequestID}] = r.ID
		}
		c.listed.push(r)
		c.calls[r.ID] = r
		if r.State.Terminal() {
			if r.Expires.IsZero() {
				r.Expires = r.Ended.Add(cmp.Or(r.ResultAge, c.limits.HistoryAge))
			}
			r.due = r.Expires
			c.aging.push(r) // they did not come in the order of their ends
			c.endedSize += r.size()
			continue
		}
		r.State, r.Executor, r.Started, r.due = skein.Queued, "", time.Time{}, r.Deadline
		c.deadlines.push(r)
		if now.Before(r.RetryAt) {
			c.hold(r)
			if most := now.Add(mostBackoff); r.RetryAt.After(most) { // a clock was far ahead
				r.RetryAt = most
			}
			r.Attempt++ // it may have begun all the same, by a clock that was ahead of this one
			c.store(r)
			continue
		}
		c.orphan(now, r)
	}
	c.forget(now)
	return c.take()
}
