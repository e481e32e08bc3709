package executor

import (
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace/noop"

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

// versusDesk lets calls of the guest and the bare thing take turns; a turn is ops operations.
func versusDesk(b *testing.B, input string, calls int, bare func(), ops float64) {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // as platform/service sets it
	d, p := newDesk(b), newPlace(b)
	otel.SetTracerProvider(noop.NewTracerProvider())
	d.add(b, p, "chain", "testdata/chain.c", reactor)
	d.attach(b, p, 8)
	type cost struct{ time, cpu float64 } // ns an operation
	turn := func(f func()) cost {
		before, began := cpuTime(), time.Now()
		f()
		return cost{float64(time.Since(began)) / ops, float64(cpuTime()-before) / ops}
	}
	ours := func() {
		for range calls {
			if o := d.call(b, "chain", input); o.GetState() != callv1.CallState_CALL_STATE_SUCCEEDED {
				b.Fatalf("%v", o)
			}
		}
	}
	ours()
	results := map[string][]float64{}
	add := func(name string, v float64) { results[name] = append(results[name], v) }
	for b.Loop() {
		o, e := turn(ours), turn(bare)
		add("ratio", o.time/e.time)
		add("cpu-ratio", o.cpu/e.cpu)
		add("ours-ns", o.time)
		add("bare-ns", e.time)
		add("ours-cpu-ns", o.cpu)
		add("bare-cpu-ns", e.cpu)
	}
	b.ReportMetric(0, "ns/op")
	for name, values := range results {
		b.ReportMetric(middle(values, .5), name)
		if strings.HasSuffix(name, "ratio") {
			b.ReportMetric(middle(values, .25), name+"-q1")
			b.ReportMetric(middle(values, .75), name+"-q3")
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	b.ReportMetric(float64(d.started)/float64(d.started+d.spawned), "here")
}

// cpuTime is this process's.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
