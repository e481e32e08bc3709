package planner

import (
	"cmp"
	"context"
	"errors"

	"skein.dev"
	"skein.dev/platform/fault"
)

// redrivenSeen bounds how many calls are looked at for a dead letter's successor.
const redrivenSeen = 10_000

// Redrive accepts a new call with a dead letter's input, of the function's current version, and removes the dead letter. Asked
// for again it gives the same call: the request id is made of the dead letter's. The call has the dead letter's options where
// the function's configuration, which may have been changed for it, says nothing.
func (p *Planner) Redrive(ctx context.Context, id skein.CallID) (*Record, error) {
	letter, err := p.deadLetter(ctx, id)
	if errors.Is(err, fault.NotFound) {
		if next := p.successor(id); !next.IsZero() {
			return p.Find(ctx, next)
		}
	}
	if err != nil {
		return nil, err
	}
	now, err := p.resolve(ctx, letter.Function)
	if err != nil {
		return nil, err
	}
	rec, err := p.Submit(ctx, Request{
		Function: letter.Function, Input: letter.Input, Args: letter.Args, RequestID: "redrive/" + id.String(), RedriveOf: id, Async: true,
		Timeout: cmp.Or(now.Settings.Timeout, letter.Timeout), MaxAttempts: cmp.Or(now.Settings.MaxAttempts, letter.MaxAttempts),
		RetryFailures: letter.RetryFailures, MaxAge: letter.GiveUp.Sub(letter.Created), ResultAge: letter.ResultAge, Webhook: letter.Webhook,
	})
	if err != nil {
		return nil, err
	}
	if err := p.removeDead(ctx, id); err != nil && !errors.Is(err, fault.NotFound) { // another who asked for the same may have been faster
		return nil, err
	}
	return rec, nil
}

// successor finds the call that a dead letter became, if that was not long ago.
func (p *Planner) successor(id skein.CallID) skein.CallID {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := 0
	for r := range p.core.listed.backward {
		if r.RedriveOf == id {
			return r.ID
		}
		if seen++; seen == redrivenSeen {
			break
		}
	}
	return skein.CallID{}
}
