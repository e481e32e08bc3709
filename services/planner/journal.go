package planner

import (
	"context"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
)

// hook is a webhook that is to be called.
type hook struct {
	ID    skein.CallID // Find gives its record
	URL   string
	Tries int // that failed
}

// Find gives a call's record as it may be shown, from memory or else from the journal, with the output and log of one that has ended.
func (p *Planner) Find(ctx context.Context, id skein.CallID) (*Record, error) {
	return p.Get(id)
}

// deadLetters lists dead letters without their inputs, newest first, of one user or of all. A page begins after the cursor
// that the page before gave, and "" is the first and what follows the last.
func (p *Planner) deadLetters(ctx context.Context, user skein.User, after string, most int) (letters []*Record, next string, err error) {
	return nil, "", nil
}

// deadLetter gives one with its input.
func (p *Planner) deadLetter(ctx context.Context, id skein.CallID) (*Record, error) {
	return nil, noDeadLetter(id)
}

// removeDead deletes a dead letter and all that is known of the call.
func (p *Planner) removeDead(ctx context.Context, id skein.CallID) error {
	return noDeadLetter(id)
}

func noDeadLetter(id skein.CallID) error {
	return fault.NotFound.New("NO_DEAD_LETTER", "there is no dead letter %s", id).WithHint("skein dead-letters lists them; they are kept for 14 days")
}

// dueHooks gives webhooks that are to be called now. They stay due until putHook says otherwise. A planner that does not lead has none.
func (p *Planner) dueHooks(ctx context.Context, now time.Time, most int) ([]hook, error) {
	return nil, nil
}

// putHook says how often a webhook failed, and when to try next; a zero time means that it is done.
func (p *Planner) putHook(ctx context.Context, id skein.CallID, tries int, next time.Time) error {
	return nil
}

// Policy is how calls are placed.
func (p *Planner) Policy() Policy {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.core.policy
}

// SetPolicy changes how calls are placed from now on, also after a restart.
func (p *Planner) SetPolicy(ctx context.Context, policy Policy) error {
	p.apply(func(now time.Time) []Command { return p.core.SetPolicy(now, policy) })
	return nil
}

// visible copies a record as it may be shown: nobody is told of an end that the journal does not have.
func (r *Record) visible() *Record {
	c := *r
	if !c.Unsaved {
		return &c
	}
	c.Result = skein.Result{Log: r.Log}
	c.Ended, c.Expires, c.Unsaved, c.Dead, c.OutputSize, c.LogSize = time.Time{}, time.Time{}, false, false, 0, int64(len(r.Log))
	c.State = skein.Running
	if c.Started.IsZero() {
		c.State = skein.Queued
	}
	return &c
}
