package executor

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
	plannerv1 "skein.dev/proto/skein/planner/v1"
	"skein.dev/services/executor/internal/host"
)

// direct are the calls that come past the planner. It hears how many slots they take, so that it places no more than the rest.
type direct struct {
	link    atomic.Pointer[link]
	leaving atomic.Bool // no more of them begin
	running atomic.Int32
	peak    atomic.Int32 // of running, since the last report
	told    atomic.Int32 // what the planner believes
	full    atomic.Bool  // when it was told no slot was free
}

// runDirect is Run for a caller who would rather be refused than wait for a slot.
func (e *Executor) runDirect(ctx context.Context, call skein.Call) (skein.Result, error) {
	switch size, err := skein.CheckArgs(call.Args); {
	case err != nil:
		return skein.Result{}, fault.Invalid.New("BAD_ARGS", "%s", err).WithHint("pass bytes as input")
	case len(call.Args) > skein.MaxArgs || size > skein.MaxArgBytes:
		return skein.Result{}, fault.TooLarge.New("TOO_LARGE", "%d arguments of %d bytes in all: at most %d and %d are allowed", len(call.Args), size, skein.MaxArgs, skein.MaxArgBytes).
			WithHint("pass the data as input")
	}
	if e.direct.leaving.Load() {
		return skein.Result{}, fault.Unavailable.New("DRAINING", "executor %s is shutting down", e.name)
	}
	if !e.slots.try() {
		return skein.Result{}, fault.Exhausted.New("NO_SLOT", "all %d slots of executor %s are taken", e.slots.size, e.name).WithRetry(100 * time.Millisecond)
	}
	e.direct.begins()
	defer e.direct.ends()
	r := &run{call: call, holds: true}
	return e.execute(ctx, r, &host.Chain{Turn: func(c *host.Call) { // it makes no calls, and still others may have to go on
		runtime.Gosched()
		e.lend(c, r)
	}}), nil
}

func (d *direct) begins() {
	n := d.running.Add(1)
	for {
		peak := d.peak.Load()
		if n <= peak || d.peak.CompareAndSwap(peak, n) {
			break
		}
	}
	if n > d.told.Load() {
		d.tellSoon()
	}
}

func (d *direct) ends() {
	if n := d.running.Add(-1); d.full.Load() && n < d.told.Load() { // somebody may wait for the slot
		d.tellSoon()
	}
}

func (d *direct) tellSoon() {
	if l := d.link.Load(); l != nil {
		l.soon()
	}
}

// report is what the planner is to be told, nil if it knows.
func (d *direct) report(slots *slots) *plannerv1.Load {
	n := d.peak.Swap(d.running.Load())
	told := d.told.Swap(n)
	d.full.Store(n > 0 && slots.used() == slots.size)
	if d.full.Load() && d.running.Load() < n { // no other end may come to say so
		d.tellSoon()
	}
	if n == told {
		return nil
	}
	return &plannerv1.Load{DirectSlots: n}
}

// flushLoad tells the planner how many slots calls take that it did not place.
func (l *link) flushLoad(stream upstream) error {
	load := l.e.direct.report(l.e.slots)
	if load == nil {
		return nil
	}
	return stream.Send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Load{Load: load}})
}
