package planner

import (
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
func (p *Planner) Graph(id skein.CallID) (Node, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.core.calls[id]
	if r == nil {
		return Node{}, noCall(id)
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

// Waits is what a call waits for: a slot, if Position is not 0; calls that it made; or nothing.
type Waits struct {
	Call     *Record
	Position int // in the queue, from 1
	Children []*Record
	Since    time.Time // zero for a call that has ended
	Until    time.Time
}

// Waits says what a call waits for now.
func (p *Planner) Waits(id skein.CallID) (Waits, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.core.calls[id]
	if r == nil {
		return Waits{}, noCall(id)
	}
	w := Waits{Call: r.visible()}
	switch r.State {
	case skein.Queued:
		w.Since, w.Until = r.Created, r.Deadline
		if r.queuedAt != nil {
			w.Position = p.core.queue.position(r)
		}
	case skein.Running:
		w.Since, w.Until = r.Started, r.Deadline
		ex := p.core.executors[r.Executor]
		if ex == nil { // it may come back
			break
		}
		waits, ok := ex.waiting[id]
		if !ok {
			break
		}
		w.Since, w.Until = waits.since, waits.until
		room := graphBytes
		for _, child := range waits.children[:min(len(waits.children), skein.MaxChildren)] {
			if c := p.core.calls[child]; c != nil && room > 0 {
				room -= nodeBytes + len(c.Message)
				w.Children = append(w.Children, c.visible())
			}
		}
	}
	return w, nil
}
