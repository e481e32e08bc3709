package planner

import (
	"context"
	"time"

	"skein.dev"
)

// Node is a call with the calls it made.
type Node struct {
	Call     *Record
	Children []Node
	Totals   Totals
}

// Totals are sums over a call and all below it, as far as their records are kept.
type Totals struct {
	Calls, Alive, Failed, Cold int64
	Queued, Ran, CPU           time.Duration
	Memory                     int64 // the largest peak of them
	Input, Output              int64 // bytes
	skein.Traffic
}

func (t *Totals) add(o Totals) {
	t.Calls += o.Calls
	t.Alive += o.Alive
	t.Failed += o.Failed
	t.Cold += o.Cold
	t.Queued += o.Queued
	t.Ran += o.Ran
	t.CPU += o.CPU
	t.Memory = max(t.Memory, o.Memory)
	t.Input += o.Input
	t.Output += o.Output
	t.StateRead += o.StateRead
	t.StateWritten += o.StateWritten
	t.FileRead += o.FileRead
	t.FileWritten += o.FileWritten
}

func (r *Record) totals() Totals {
	t := Totals{
		Calls: 1, Queued: r.queued(), Ran: r.ran(), CPU: r.CPU, Memory: r.Memory, Input: r.InputSize, Output: r.OutputSize, Traffic: r.Traffic,
	}
	switch {
	case !r.State.Terminal():
		t.Alive = 1
	case r.State != skein.Succeeded:
		t.Failed = 1
	}
	if r.Cold {
		t.Cold = 1
	}
	return t
}

// queued is how long a call waited for its executor; 0 while it does.
func (r *Record) queued() time.Duration {
	if r.Started.IsZero() {
		return 0
	}
	return r.Started.Sub(r.Created)
}

// ran is how long a call was on its executor; 0 while it is.
func (r *Record) ran() time.Duration {
	if r.Started.IsZero() || r.Ended.IsZero() {
		return 0
	}
	return r.Ended.Sub(r.Started)
}

// graphBytes bounds a graph that is given out: as a message it stays below 4 MiB.
const graphBytes = 3 << 20

// nodeBytes is what a node takes of it, at most, beside its call's message.
const nodeBytes = 750

// Graph gives a call and all below it. The sums are over all, the nodes as many as a message can hold.
func (p *Planner) Graph(ctx context.Context, id skein.CallID) (Node, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.core.calls[id]
	if r == nil { // the journal may have it; what it called is forgotten
		p.mu.Unlock()
		rec, err := p.Find(ctx, id)
		p.mu.Lock()
		if err != nil {
			return Node{}, err
		}
		return Node{Call: rec, Totals: rec.totals()}, nil
	}
	room := graphBytes
	return p.walk(r, &room), nil
}

func (p *Planner) walk(r *record, room *int) Node {
	*room -= nodeBytes + len(r.Message)
	n := Node{Totals: r.visible().totals()}
	if *room >= 0 {
		n.Call = r.visible()
	}
	for _, child := range r.children {
		c := p.core.calls[child]
		if c == nil {
			continue
		}
		below := p.walk(c, room)
		n.Totals.add(below.Totals)
		if below.Call != nil {
			n.Children = append(n.Children, below)
		}
	}
	return n
}

// WaitsFor is what a call waits for, in the order of the contract's enumeration.
type WaitsFor uint8

// What a call can wait for.
const (
	WaitsForNothing  WaitsFor = iota + 1 // it runs, or has ended
	WaitsForSlot                         // Position says how many are before it
	WaitsForChildren                     // any of Children
	WaitsForRetry                        // its next attempt begins at Until
	WaitsForExecutor                     // that was cut off with it, and may come back
	WaitsForJournal                      // what became of it is not there yet
)

// Waits is what a call waits for.
type Waits struct {
	Call     *Record
	For      WaitsFor
	Position int // in the queue, from 1
	Children []*Record
	Since    time.Time // zero for a call that has ended
	Until    time.Time
}

// Waits says what a call waits for now.
func (p *Planner) Waits(ctx context.Context, id skein.CallID) (Waits, error) {
	p.mu.Lock()
	r := p.core.calls[id]
	if r == nil {
		p.mu.Unlock()
		rec, err := p.Find(ctx, id)
		return Waits{Call: rec, For: WaitsForNothing}, err
	}
	defer p.mu.Unlock()
	return p.waits(r), nil
}

func (p *Planner) waits(r *record) Waits {
	w := Waits{Call: r.visible(), For: WaitsForNothing, Since: r.Created, Until: r.Deadline}
	if n := len(r.Attempts); n > 0 && r.State == skein.Queued {
		w.Since = r.Attempts[n-1].Ended
	}
	switch {
	case r.Unsaved:
		w.For, w.Since, w.Until = WaitsForJournal, r.Ended, time.Time{}
	case r.State.Terminal():
		w.Since, w.Until = time.Time{}, time.Time{}
	case r.orphan:
		w.For, w.Until = WaitsForExecutor, r.due
		if !r.Started.IsZero() {
			w.Since = r.Started
		}
	case r.held && !r.RetryAt.IsZero() && r.delayed:
		w.For, w.Until = WaitsForRetry, r.RetryAt
	case r.held:
		w.For = WaitsForJournal
	case r.State == skein.Queued:
		w.For, w.Position = WaitsForSlot, p.core.queue.position(r)
	default:
		w.Since = r.Started
		p.waitsBelow(r, &w)
	}
	return w
}

// waitsBelow says which calls that it made a call waits for.
func (p *Planner) waitsBelow(r *record, w *Waits) {
	ex := p.core.executors[r.Executor]
	if ex == nil {
		return
	}
	waits, ok := ex.waiting[r.ID]
	if !ok {
		return
	}
	w.For, w.Since, w.Until = WaitsForChildren, waits.since, waits.until
	room := graphBytes
	for _, child := range waits.children[:min(len(waits.children), skein.MaxChildren)] {
		if c := p.core.calls[child]; c != nil && room > 0 {
			room -= nodeBytes + len(c.Message)
			w.Children = append(w.Children, c.visible())
		}
	}
}
