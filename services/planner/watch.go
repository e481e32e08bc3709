package planner

import (
	"context"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
)

// Event is something new about a call that somebody watches: its record, or a part of its log. With neither it only says that
// the watch stands.
type Event struct {
	Call    *Record
	Attempt int32
	Offset  int64 // of Log in the attempt's log
	Log     []byte
}

// LogPosition is how far a watcher has read a call's log: the next byte of an attempt's log, of the present one's if Attempt is 0.
type LogPosition struct {
	Attempt int32
	Offset  int64
}

// Limits of watchers: each is a goroutine, and is woken under the planner's lock.
const (
	maxWatchers     = 10_000
	maxCallWatchers = 1_000
)

const (
	watchTick = 2 * time.Second // what changes without a command, such as the end of a pause between attempts, is seen then
	watchBeat = 15 * time.Second
	watchLog  = 64 << 10 // bytes of a log that an event holds
)

// watches are the wake-up calls of those who watch, by call.
type watches struct {
	calls map[skein.CallID]map[chan struct{}]struct{}
	count int
}

// watch registers a watcher until leave is called.
func (p *Planner) watch(id skein.CallID) (wake <-chan struct{}, leave func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ws := &p.watches
	if ws.count >= maxWatchers || len(ws.calls[id]) >= maxCallWatchers {
		return nil, nil, fault.Exhausted.New("TOO_MANY_WATCHERS", "calls are watched by %d already, %d of them watch this one", ws.count, len(ws.calls[id])).
			WithHint("ask for the call from time to time: GET /v1/calls/%s:wait", id).WithRetry(10 * time.Second)
	}
	if ws.calls == nil {
		ws.calls = map[skein.CallID]map[chan struct{}]struct{}{}
	}
	if ws.calls[id] == nil {
		ws.calls[id] = map[chan struct{}]struct{}{}
	}
	c := make(chan struct{}, 1)
	ws.calls[id][c] = struct{}{}
	ws.count++
	return c, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		ws.count--
		if delete(ws.calls[id], c); len(ws.calls[id]) == 0 {
			delete(ws.calls, id)
		}
	}, nil
}

// notify wakes those who watch a call. The caller holds mu.
func (p *Planner) notify(id skein.CallID) {
	for c := range p.watches.calls[id] {
		select {
		case c <- struct{}{}:
		default: // it has not looked since the last time
		}
	}
}

// Watch tells of a call until it has ended: its record at the beginning and when its state or attempt changes, with logs what its
// guest writes, and last the record of its end. A slow receiver misses states in between, and no byte of the last attempt's log.
func (p *Planner) Watch(ctx context.Context, id skein.CallID, logs bool, from LogPosition, send func(Event) error) error {
	if from.Offset < 0 || from.Attempt < 0 {
		return fault.Invalid.New("BAD_OFFSET", "a log has no byte %d of attempt %d", from.Offset, from.Attempt)
	}
	wake, leave, err := p.watch(id)
	if err != nil {
		return err
	}
	defer leave()
	f := follower{send: send, logs: logs, at: from, heard: time.Now()}
	tick := time.NewTicker(watchTick)
	defer tick.Stop()
	for {
		r, err := p.Find(ctx, id)
		if idle := p.standing(); err != nil && idle != nil { // it is another's now, and not found here for that
			return idle
		}
		if err != nil {
			return err
		}
		if ended, err := f.tell(r); ended || err != nil {
			return err
		}
		if r.Durable && p.leaving() { // it goes on with our successor, and so must who watches it
			return fault.Unavailable.New("DRAINING", "this planner is shutting down; the call goes on").WithRetry(time.Second)
		}
		select {
		case <-wake:
		case <-tick.C:
		case <-ctx.Done():
			return fault.From(ctx.Err())
		}
	}
}

func (p *Planner) leaving() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.draining
}

// follower is what one watcher has been told.
type follower struct {
	send  func(Event) error
	logs  bool
	at    LogPosition
	shown shown
	heard time.Time
}

// shown is what of a record makes it worth telling anew.
type shown struct {
	state    skein.CallState
	attempt  int32
	executor string
	retryAt  time.Time
}

// tell sends what is new in a record, and says whether that was its end.
func (f *follower) tell(r *Record) (ended bool, err error) {
	ended = r.State.Terminal()
	if now := (shown{r.State, r.Attempt, r.Executor, r.RetryAt}); now != f.shown && !ended {
		f.shown = now
		if err := f.emit(Event{Call: r, Attempt: r.Attempt}); err != nil {
			return false, err
		}
	}
	if f.at.Attempt == 0 {
		f.at.Attempt = r.Attempt
	}
	if f.at.Attempt != r.Attempt {
		f.at = LogPosition{Attempt: r.Attempt}
	}
	for f.logs && f.at.Offset < int64(len(r.Log)) {
		part := r.Log[f.at.Offset:]
		part = part[:min(len(part), watchLog)]
		if err := f.emit(Event{Attempt: r.Attempt, Offset: f.at.Offset, Log: part}); err != nil {
			return false, err
		}
		f.at.Offset += int64(len(part))
	}
	if ended {
		return true, f.emit(Event{Call: r, Attempt: r.Attempt})
	}
	if time.Since(f.heard) >= watchBeat {
		return false, f.emit(Event{Attempt: r.Attempt})
	}
	return false, nil
}

func (f *follower) emit(e Event) error {
	f.heard = time.Now()
	return f.send(e)
}
