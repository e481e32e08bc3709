package executor

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"skein.dev/abi"
	callv1 "skein.dev/proto/skein/call/v1"
)

const reactor = "-mexec-model=reactor"

// chains has the functions chain and echo.
func chains(t *testing.T) (*desk, *place) {
	d, p := newDesk(t), newPlace(t)
	d.add(t, p, "chain", "testdata/chain.c", reactor)
	d.add(t, p, "echo", "../../examples/echo/c/echo.c", reactor)
	return d, p
}

func (d *desk) want(t *testing.T, name, input, output string) {
	t.Helper()
	if o := d.call(t, name, input); o.GetState() != callv1.CallState_CALL_STATE_SUCCEEDED || string(o.GetOutput()) != output {
		t.Fatalf("%s %q: %v", name, input, o)
	}
}

// The rows from the guest's side: on one slot, where nothing runs beside the parent; on many; and all children elsewhere.
func TestChain(t *testing.T) {
	for name, slots := range map[string][]int{"one slot": {1}, "eight slots": {8}, "elsewhere": {4, 4}} {
		t.Run(name, func(t *testing.T) {
			d, p := chains(t)
			d.apart = true
			for _, n := range slots {
				d.attach(t, p, n)
			}
			d.want(t, "chain", "checks", "")
			d.want(t, "chain", "checks", "") // in the same instance: handles of the call before mean nothing
			d.want(t, "chain", "hedge", "")
			d.want(t, "chain", "deep 32", "32")
			d.want(t, "chain", "deep 64", "64")
			if o := d.call(t, "chain", "deep 65"); o.GetState() != callv1.CallState_CALL_STATE_FAILED || o.GetExitCode() != 6 {
				t.Errorf("the call below the 64th is not refused: %v", o)
			}
			d.want(t, "chain", "tree 7", "255")
			d.want(t, "chain", "fan 100", fmt.Sprint(sumOf(100)))
			d.want(t, "chain", "fan 1000", fmt.Sprint(sumOf(1000)))
			t.Logf("%d children were placed, %d ran where they were made, %d waits were told", d.spawned, d.started, d.waited)
			if name == "eight slots" && d.started == 0 {
				t.Error("no child has run where it was made")
			}
		})
	}
}

func sumOf(n int) (sum int) {
	for i := range n {
		sum += i % 7
	}
	return sum
}

// Many trees at once on few slots all end.
func TestManyTrees(t *testing.T) {
	d, p := chains(t)
	d.attach(t, p, 2)
	d.attach(t, p, 1)
	var wait sync.WaitGroup
	for i := range 30 {
		wait.Go(func() {
			for _, c := range [][2]string{{"deep 20", "20"}, {"tree 6", "127"}, {"fan 50", fmt.Sprint(sumOf(50))}} {
				if o := d.call(t, "chain", c[0]); string(o.GetOutput()) != c[1] {
					t.Errorf("%d: %s: %v", i, c[0], o)
				}
			}
		})
	}
	wait.Wait()
	t.Logf("%d children were placed, %d ran where they were made, %d waits were told", d.spawned, d.started, d.waited)
}

// hold starts a call that waits for another, which spins.
func (d *desk) hold(t *testing.T, timeout time.Duration) (root, child *task) {
	t.Helper()
	root = d.start("chain", "hold", timeout)
	for end := time.Now().Add(10 * time.Second); child == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the child does not run")
		}
		d.mu.Lock()
		if len(root.children) > 0 && root.children[0].at != nil && root.waits {
			child = root.children[0]
		}
		d.mu.Unlock()
	}
	return root, child
}

// When the stream breaks, calls that wait end as those that run do, and all slots come back.
func TestChainLost(t *testing.T) {
	d, p := chains(t)
	e := d.attach(t, p, 3)
	d.hold(t, time.Minute)
	d.start("chain", "fan 1000", time.Minute)
	d.server.Stop()
	for end := time.Now().Add(10 * time.Second); e.slots.used() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d slots are still taken", e.slots.used())
		}
	}
}

// An executor that drains runs what it has to its end, children too.
func TestChainDrains(t *testing.T) {
	d, p := chains(t)
	var root *task
	t.Run("attached", func(t *testing.T) {
		d.attach(t, p, 2)
		root = d.start("chain", "deep 40", time.Minute)
		for n := 0; n == 0; time.Sleep(time.Millisecond) { // until it runs
			d.mu.Lock()
			n = len(root.children)
			d.mu.Unlock()
		}
	})
	if root.outcome.GetState() != callv1.CallState_CALL_STATE_SUCCEEDED {
		t.Errorf("%v", root.outcome)
	}
}

// A child's span is its parent's child, wherever it runs.
func TestChainTrace(t *testing.T) {
	before := otel.GetTextMapPropagator()
	otel.SetTextMapPropagator(propagation.TraceContext{})
	t.Cleanup(func() { otel.SetTextMapPropagator(before) })
	d, p := chains(t)
	d.apart = true
	d.attach(t, p, 1)
	d.attach(t, p, 1)
	d.want(t, "chain", "deep 5", "5")
	parents := map[trace.SpanID]trace.SpanID{}
	traces := map[trace.TraceID]bool{}
	for end := time.Now().Add(10 * time.Second); len(parents) < 6 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		for _, s := range p.spans.Ended() {
			if s.Name() == "call ann/chain" {
				parents[s.SpanContext().SpanID()] = s.Parent().SpanID()
				traces[s.SpanContext().TraceID()] = true
			}
		}
	}
	roots := 0
	for _, parent := range parents {
		if !parent.IsValid() {
			roots++
		} else if _, ok := parents[parent]; !ok {
			t.Error("a span has a parent that is no call")
		}
	}
	if len(parents) != 6 || roots != 1 || len(traces) != 1 {
		t.Errorf("%d spans, %d roots, %d traces", len(parents), roots, len(traces))
	}
}

// A child that nobody waited for has a link, from its parent's span or to it; others have none. Attempts have a number.
func TestTraceLinks(t *testing.T) {
	before := otel.GetTextMapPropagator()
	otel.SetTextMapPropagator(propagation.TraceContext{})
	t.Cleanup(func() { otel.SetTextMapPropagator(before) })
	d, p := chains(t)
	d.attach(t, p, 2)
	d.want(t, "chain", "deep 5", "5")
	links := func(calls int) (n int) {
		p.await("call ann/chain", calls)
		for _, s := range p.spans.Ended() {
			if s.Name() != "call ann/chain" {
				continue
			}
			n += len(s.Links())
			if !slices.Contains(s.Attributes(), attribute.Int("skein.attempt", 1)) {
				t.Errorf("%v", s.Attributes())
			}
		}
		return n
	}
	if n := links(6); n != 0 {
		t.Errorf("%d links where all was awaited", n)
	}
	root := d.start("chain", "leave", time.Minute)
	<-root.done
	d.mu.Lock()
	child := root.children[0]
	d.mu.Unlock()
	d.until(t, "the child runs", func() bool { return child.at != nil })
	d.stop(child)
	<-child.done
	if n := links(8); n != 1 {
		t.Errorf("%d links where a child was left", n)
	}
}

// A cancelled root takes all below it along within a second, and so does one that passes its deadline.
func TestChainEnds(t *testing.T) {
	d, p := chains(t)
	d.attach(t, p, 2)
	d.attach(t, p, 2)
	d.want(t, "chain", "deep 1", "1")
	for name, want := range map[string]callv1.CallState{"cancel": callv1.CallState_CALL_STATE_CANCELLED, "deadline": callv1.CallState_CALL_STATE_TIMED_OUT} {
		timeout := time.Minute
		if name == "deadline" {
			timeout = 300 * time.Millisecond
		}
		root, child := d.hold(t, timeout)
		if name == "cancel" {
			d.stop(root)
		}
		for _, c := range []*task{root, child} {
			select {
			case <-c.done:
			case <-time.After(time.Second + timeout%time.Minute):
				t.Fatalf("%s: a call goes on", name)
			}
		}
		// The child's deadline is the same and may be seen first: then the parent has a moment to say so.
		if o := root.outcome; o.GetState() != want && (name != "deadline" || o.GetExitCode() != int32(abi.ETIMEDOUT)) {
			t.Errorf("%s: %v", name, root.outcome)
		}
	}
	// A parent that ends by itself leaves its child alone.
	root := d.start("chain", "leave", time.Minute)
	<-root.done
	d.mu.Lock()
	child := root.children[0]
	d.mu.Unlock()
	select {
	case <-child.done:
		t.Errorf("the child has ended with its parent: %v", child.outcome)
	case <-time.After(50 * time.Millisecond):
	}
	d.stop(child)
	<-child.done
}

// Calls that wait keep their memory: when that is too much, no call makes another, and once they have ended all is as before.
func TestParkedIsBounded(t *testing.T) {
	d, p := chains(t)
	d.parked = 1 << 20
	d.attach(t, p, 1)
	for range 2 {
		o := d.call(t, "chain", "deep 60")
		if o.GetState() != callv1.CallState_CALL_STATE_FAILED || o.GetExitCode() != int32(abi.EAGAIN) {
			t.Errorf("%v", o)
		}
		d.want(t, "chain", "deep 1", "1")
	}
	if o := d.call(t, "chain", "tree 20"); o.GetState() != callv1.CallState_CALL_STATE_FAILED {
		t.Errorf("%v", o)
	}
}

// An outcome says what moved between here and the state service.
func TestTraffic(t *testing.T) {
	d, p := chains(t)
	d.attach(t, p, 1)
	o := d.call(t, "chain", "state")
	if o.GetState() != callv1.CallState_CALL_STATE_SUCCEEDED || o.GetStateReadBytes() != 1010 || o.GetStateWrittenBytes() != 2000 {
		t.Errorf("%v", o)
	}
	d.until(t, "the planner hears where the state is", func() bool { return slices.Contains(d.homes, d.functions["chain"]) })
}
