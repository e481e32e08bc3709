package machine_test

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"

	"skein.dev/services/executor/internal/host"
)

// BenchmarkGap is the longest that a ticker of 1 ms waits while guests compute on every core and the collector works, and
// while nothing else does: native code without interruption points would hold both up for as long as it runs. In
// nanoseconds; the machine's other load is in both.
func BenchmarkGap(b *testing.B) {
	mod := boot(b, open(b, tiers["native"]), "tiny.c")
	const span = 2 * time.Second
	var idle, busy []float64
	for b.Loop() {
		idle = append(idle, float64(longestGap(span)))
		ctx, cancel := context.WithTimeout(b.Context(), span+time.Minute)
		var wait sync.WaitGroup
		for range runtime.GOMAXPROCS(0) {
			wait.Go(func() { mod.Run(&host.Call{Context: ctx, Args: []string{"tiny"}, Input: []byte("f")}) })
		}
		busy = append(busy, float64(longestGap(span)))
		cancel()
		wait.Wait()
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(quantile(idle, .5), "bare-ns")
	b.ReportMetric(quantile(busy, .5), "ours-ns")
	b.ReportMetric(quantile(busy, 1), "ours-most-ns")
}

// longestGap watches a ticker, and makes garbage so that the collector runs all the time.
func longestGap(span time.Duration) (longest time.Duration) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	for last := began; last.Sub(began) < span; {
		<-tick.C
		garbage = make([]byte, 256<<10)
		now := time.Now()
		longest = max(longest, now.Sub(last))
		last = now
	}
	return longest
}

var garbage []byte
