package planner

import (
	"time"

	"skein.dev"
)

// Record is all that is known of a call.
type Record struct {
	skein.Call
	skein.Result
	Options
	State      skein.CallState
	Executor   string
	Created    time.Time
	Started    time.Time // handed to an executor
	Ended      time.Time
	Expires    time.Time // may be forgotten then; zero while the call has not ended
	Seq        uint64    // order of acceptance
	InputSize  int64
	OutputSize int64 // of one that has ended, as is LogSize; output and log themselves may be in the journal only
	LogSize    int64
	Losses     int32     // executors that were lost with it
	Attempts   []Attempt // those that failed and were followed by another, or by none
	RetryAt    time.Time // when the next may begin, while it waits for that
	Dead       bool      // it was given up after its attempts: its input is kept
	Unsaved    bool      // its end is not in the journal yet: nobody may be told
}

// Options are how a call is kept and tried: what its caller and its function's configuration say together.
type Options struct {
	RequestID     string
	TraceID       string
	BodyHash      [32]byte
	Durable       bool          // it is in the journal
	Sync          bool          // its caller waits for it: it is never tried again
	Timeout       time.Duration // of each attempt; 0 if the call's deadline counts from its acceptance
	MaxAttempts   int32
	RetryFailures bool          // also after the guest's own
	GiveUp        time.Time     // no attempt begins later; zero if the deadline says so
	ResultAge     time.Duration // how long its record is kept after its end; 0 for the planner's default
	Webhook       string
	RedriveOf     skein.CallID // the dead letter it was
}

// Attempt is how one attempt ended.
type Attempt struct {
	Number   int32
	Executor string
	Reason   string
	Message  string
	Started  time.Time
	Ended    time.Time
}

// record is a Record with its places in the core's structures.
type record struct {
	Record
	kin
	tree     *tree          // nil for a call from outside that made no call
	children []skein.CallID // all it made, in their order
	due      time.Time      // when Tick ends it
	storing  bool           // a Store was not answered
	stale    bool           // the journal will have something older than this then
	saved    bool           // the journal has something of it
	orphan   bool           // its executor may come back with it
	held     bool           // its next attempt may not begin yet: until the journal has it, and, if delayed, until RetryAt
	delayed  bool
	heapAt   int   // in deadlines, or in aging; -1 if in neither
	queuedAt *line // in the queue; nil if not there
	links    [slots]links
}

type requestKey struct {
	fn skein.Function
	id string
}

// remember makes an ended call a part of the history.
func (c *Core) remember(now time.Time, r *record) {
	if r.ResultAge != 0 {
		r.due = r.Expires
		c.aging.push(r)
	} else {
		c.ended.push(r)
	}
	c.endedSize += r.size()
	c.forget(now)
}

// size is what a record costs in memory, roughly.
func (r *record) size() int64 { return int64(len(r.Output)+len(r.Log)+len(r.Message)) + 1024 }

// forget drops ended calls whose time is over, and the oldest that are over a limit. Those with a time of their own may take half
// of the room; the others expire in the order of their ends.
func (c *Core) forget(now time.Time) {
	for c.ended.len+len(c.aging) > 0 {
		r := c.ended.first
		over := c.ended.len+len(c.aging) > c.limits.HistoryCalls || c.endedSize > c.limits.HistoryBytes
		if len(c.aging) > 0 && (r == nil || !now.Before(c.aging[0].due) || over && len(c.aging) > c.limits.HistoryCalls/2) {
			r = c.aging[0]
		}
		if !over && now.Before(r.Expires) {
			return
		}
		c.drop(r)
	}
}

// remove takes a call out of the history, if it is there.
func (c *Core) remove(id skein.CallID) {
	if r := c.calls[id]; r != nil && r.State.Terminal() && !r.Unsaved {
		c.drop(r)
	}
}

// drop takes a call that the history has out of it, and out of the books.
func (c *Core) drop(r *record) {
	if r.heapAt >= 0 {
		c.aging.remove(r)
	} else {
		c.ended.remove(r)
	}
	c.endedSize -= r.size()
	c.erase(r)
}

// erase takes a call out of the books.
func (c *Core) erase(r *record) {
	c.listed.remove(r)
	delete(c.calls, r.ID)
	if key := (requestKey{r.Function, r.RequestID}); r.RequestID != "" && c.requests[key] == r.ID {
		delete(c.requests, key)
	}
}
