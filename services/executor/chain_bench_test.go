package executor

import (
	"sync"
	"testing"
	"time"

	"skein.dev"
	callv1 "skein.dev/proto/skein/call/v1"
)

// BenchmarkChainLocal is a guest that chains a function on its own executor and awaits it, out of a loop in the guest, against
// the round trip of a value between two goroutines.
func BenchmarkChainLocal(b *testing.B) {
	const chains = 10 * skein.MaxChildren // of ten calls
	ask, answer := make(chan int), make(chan int)
	go func() {
		for v := range ask {
			answer <- v
		}
	}()
	defer close(ask)
	versusDesk(b, "loop 1000", 10, func() {
		for range chains {
			ask <- 1
			<-answer
		}
	}, chains)
}

// BenchmarkFanoutLocal is a guest that chains a thousand on its own executor and then awaits them all, against a thousand
// goroutines that do nothing.
func BenchmarkFanoutLocal(b *testing.B) {
	versusDesk(b, "fan 1000", 1, func() {
		var wait sync.WaitGroup
		for range 1000 {
			wait.Go(func() {})
		}
		wait.Wait()
	}, 1)
}

// versusDesk lets calls of the guest and the bare thing take turns; ops is what one turn's calls or bare do.
func versusDesk(b *testing.B, input string, calls int, bare func(), ops float64) {
	d, p := newDesk(b), newPlace(b)
	d.add(b, p, "chain", "testdata/chain.c", reactor)
	d.attach(b, p, 8)
	turn := func() time.Duration {
		began := time.Now()
		for range calls {
			if o := d.call(b, "chain", input); o.GetState() != callv1.CallState_CALL_STATE_SUCCEEDED {
				b.Fatalf("%v", o)
			}
		}
		return time.Since(began)
	}
	turn()
	var ours, theirs, ratios []float64
	for b.Loop() {
		o := turn()
		began := time.Now()
		bare()
		t := time.Since(began)
		ours, theirs, ratios = append(ours, float64(o)/ops), append(theirs, float64(t)/ops), append(ratios, float64(o)/float64(t))
	}
	b.ReportMetric(0, "ns/op")
	for q, suffix := range map[float64]string{.25: "-q1", .5: "", .75: "-q3"} {
		b.ReportMetric(middle(ratios, q), "ratio"+suffix)
	}
	b.ReportMetric(middle(ours, .5), "ours-ns")
	b.ReportMetric(middle(theirs, .5), "bare-ns")
	d.mu.Lock()
	defer d.mu.Unlock()
	b.ReportMetric(float64(d.started)/float64(d.started+d.spawned), "here")
}
