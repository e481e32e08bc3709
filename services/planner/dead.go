package planner

import (
	"cmp"
	"context"
	"errors"

	"skein.dev"
	"skein.dev/platform/fault"
)

// redrivenKept bounds how many dead letters' successors are remembered.
const redrivenKept = 10_000

// Redrive accepts a new call with a dead letter's input, of the function's current version, and removes the dead letter. Asked
// for again it gives the same call: the request id is made of the dead letter's. The call has the dead letter's options where
// the function's configuration, which may have been changed for it, says nothing.
func (p *Planner) Redrive(ctx context.Context, id skein.CallID) (*Record, error) {
	letter, err := p.deadLetter(ctx, id)
	if errors.Is(err, fault.NotFound) {
		p.mu.Lock()
		next, ok := p.redriven[id]
		p.mu.Unlock()
		if ok {
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
	p.mu.Lock()
	if p.redriven == nil || len(p.redriven) >= redrivenKept {
		p.redriven = map[skein.CallID]skein.CallID{}
	}
	p.redriven[id] = rec.ID
	p.mu.Unlock()
	if err := p.removeDead(ctx, id); err != nil && !errors.Is(err, fault.NotFound) { // another who asked for the same may have been faster
		return nil, err
	}
	return rec, nil
}
