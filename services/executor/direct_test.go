package executor

import (
	"context"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"skein.dev"
	"skein.dev/platform/fault"
	callv1 "skein.dev/proto/skein/call/v1"
	executorv1 "skein.dev/proto/skein/executor/v1"
)

// direct runs a call past the planner.
func (e *Executor) directly(d *desk, input string, timeout time.Duration, args ...string) (*callv1.Outcome, error) {
	id, digest := skein.NewCallID(), d.functions["chain"]
	resp, err := (&server{e: e}).Run(context.Background(), &executorv1.RunRequest{Assignment: &callv1.Assignment{
		CallId: id[:], User: "ann", Function: "chain", Version: 1, Digest: digest[:], Input: []byte(input), Args: args, Timeout: durationpb.New(timeout),
		Attempt: 1, Depth: 60, ParentId: digest[:16], RootId: digest[:16], Keep: true,
	}})
	return resp.GetOutcome(), err
}

func (d *desk) untilDirect(t *testing.T, n int32) {
	t.Helper()
	d.until(t, "the planner knows of direct calls", func() bool { return d.direct == n })
}

// The planner hears of the slots that direct calls take, on each stream anew, and of their end.
func TestDirectIsTold(t *testing.T) {
	d, p := chains(t)
	e := d.attach(t, p, 2)
	done := make(chan *callv1.Outcome, 2)
	nap := func() {
		o, err := e.directly(d, "nap 1500", time.Minute)
		if err != nil {
			t.Error(err)
		}
		done <- o
	}
	go nap()
	d.untilDirect(t, 1)
	d.cut()
	d.mu.Lock()
	d.direct = 0
	d.mu.Unlock()
	d.untilDirect(t, 1)
	go nap()
	d.untilDirect(t, 2)
	if _, err := e.directly(d, "nap 1", time.Minute); fault.From(err).Reason != "NO_SLOT" || fault.From(err).Kind != fault.Exhausted {
		t.Error(err)
	}
	for range 2 {
		if o := <-done; o.GetState() != succeeded || string(o.GetOutput()) != "1500" {
			t.Error(o)
		}
	}
	d.untilDirect(t, 0)
}

func TestDirectIsRefused(t *testing.T) {
	d, p := chains(t)
	e := d.attach(t, p, 2)
	if o, err := e.directly(d, "deep 1", time.Minute); err != nil || o.GetExitCode() == 0 || o.GetState() != callv1.CallState_CALL_STATE_FAILED {
		t.Errorf("it made a call: %v %v", o, err)
	}
	for _, args := range [][]string{{"a\x00b"}, {"\xff"}, make([]string, skein.MaxArgs+1)} {
		if _, err := e.directly(d, "nap 1", time.Minute, args...); fault.From(err).Reason != "BAD_ARGS" && fault.From(err).Reason != "TOO_LARGE" {
			t.Errorf("%q: %v", args[0], err)
		}
	}
	e.direct.leaving.Store(true)
	if _, err := e.directly(d, "nap 1", time.Minute); fault.From(err).Reason != "DRAINING" {
		t.Error(err)
	}
}

// A direct call that computes lets one go on that had waited, on one slot.
func TestDirectTakesTurns(t *testing.T) {
	d, p := chains(t)
	e := d.attach(t, p, 1)
	d.want(t, "chain", "deep 1", "1")
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, _ = e.directly(d, "spin", 5*time.Second)
	}()
	d.untilDirect(t, 1)
	if !e.slots.try() { // it has the only one
		ready := make(chan struct{})
		if e.slots.stand(&ticket{resumed: true, grant: func() { close(ready) }}) {
			t.Fatal("a slot is free")
		}
		select {
		case <-ready:
			e.slots.give()
		case <-over:
			t.Error("it kept its slot to its end")
		}
	} else {
		t.Error("a slot is free")
	}
	<-over
}
