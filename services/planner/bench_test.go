package planner

import (
	"encoding/binary"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"skein.dev"
)

// fleet is a core with executors that answer at once: what a decision costs and nothing else.
type fleet struct {
	c    *Core
	now  time.Time
	n    uint64
	runs []running
	user func() skein.User // nil for ann
}

type running struct {
	ex string
	id skein.CallID
}

// newFleet has executors of 16 slots, 10 modules of which each is held by a tenth of them, and 800 calls that run: as many
// for every size, since the memory that calls take is not the question.
func newFleet(executors int) *fleet {
	l := DefaultLimits()
	l.HistoryCalls, l.Silence = 1000, time.Hour
	f := &fleet{c: NewCore(l), now: t0}
	for i := range executors {
		name := fmt.Sprint("x", i)
		_, _ = f.c.Attach(t0, Executor{ID: name, Slots: 16}, nil)
		f.c.Heartbeat(t0, name, 0, []skein.Digest{{byte(i % 10)}}, nil)
	}
	for range 800 {
		f.submit()
	}
	return f
}

func (f *fleet) submit() {
	f.n++
	call := skein.Call{Function: skein.Function{User: "ann", Name: "f"}, Deadline: f.now.Add(time.Hour)}
	if f.user != nil {
		call.Function.User = f.user()
	}
	binary.LittleEndian.PutUint64(call.ID[:], f.n)
	call.Version.Digest[0] = byte(f.n % 10)
	_, commands, err := f.c.Submit(f.now, call, Options{})
	if err != nil || len(commands) != 1 {
		panic(fmt.Sprint(commands, err))
	}
	f.runs = append(f.runs, running{commands[0].Executor, call.ID})
}

// answer ends the call that was given out longest ago.
func (f *fleet) answer() {
	r := f.runs[0]
	f.runs = f.runs[1:]
	f.c.Outcome(f.now, r.ex, r.id, 1, skein.Result{State: skein.Succeeded})
}

// processTime is the time of processors that this process used.
func processTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A decision is a call accepted, placed, and ended. The figures are medians of bursts that alternate between the sizes.
func BenchmarkDecisions(b *testing.B) {
	sizes := []int{100, 1000, 10_000}
	fleets := make([]*fleet, len(sizes))
	for i, n := range sizes {
		fleets[i] = newFleet(n)
	}
	const burst = 1000
	times := make([][]float64, len(sizes))
	cpu := processTime()
	for b.Loop() {
		for i, f := range fleets {
			began := time.Now()
			for range burst {
				f.submit()
				f.answer()
			}
			times[i] = append(times[i], float64(time.Since(began).Nanoseconds())/burst)
		}
	}
	ratios := make([]float64, len(times[0])) // of bursts that followed each other
	for i := range ratios {
		ratios[i] = times[2][i] / times[0][i]
	}
	slices.Sort(ratios)
	for name, at := range map[string]int{"ratio-q1": len(ratios) / 4, "ratio": len(ratios) / 2, "ratio-q3": len(ratios) * 3 / 4} {
		b.ReportMetric(ratios[at], name) // of a decision among 10,000 to one among 100
	}
	b.ReportMetric(float64(b.N*burst*len(sizes))/(processTime()-cpu).Seconds(), "decisions/cpu-s") // the collector's work included, others' load not
	medians := make([]float64, len(sizes))
	for i, n := range sizes {
		slices.Sort(times[i])
		medians[i] = times[i][len(times[i])/2]
		b.ReportMetric(1e9/medians[i], fmt.Sprintf("decisions/s(%d)", n))
	}
	b.ReportMetric(medians[2], "ours-ns")
	b.ReportMetric(medians[0], "bare-ns")
	b.ReportMetric(0, "ns/op")
}

// One message of a parent's 1,000 calls, over four executors, and their ends.
func BenchmarkFanOut(b *testing.B) {
	l := DefaultLimits()
	l.Silence = time.Hour
	c := NewCore(l)
	for i := range 4 {
		_, _ = c.Attach(t0, Executor{ID: fmt.Sprint("x", i), Slots: 250}, nil)
	}
	n := uint64(0)
	id := func() (id skein.CallID) {
		n++
		binary.LittleEndian.PutUint64(id[:], n)
		return id
	}
	cpu := processTime()
	for b.Loop() {
		root := skein.Call{ID: id(), Function: skein.Function{User: "ann", Name: "f"}, Deadline: t0.Add(time.Hour)}
		_, commands, err := c.Submit(t0, root, Options{})
		if err != nil {
			b.Fatal(err)
		}
		home := commands[0].Executor
		spawns, wait := make([]Spawn, 1000), Wait{ID: root.ID}
		for i := range spawns {
			spawns[i] = Spawn{ID: id(), Parent: root.ID, Function: "f"}
			wait.Children = append(wait.Children, spawns[i].ID)
		}
		var runs []running
		dispatched := func(commands []Command) {
			for _, cmd := range commands {
				if cmd.Kind == Dispatch {
					runs = append(runs, running{cmd.Executor, cmd.Call.ID})
				}
			}
		}
		dispatched(c.Spawn(t0, home, spawns))
		dispatched(c.Waits(t0, home, []Wait{wait}))
		for _, r := range append(runs, running{home, root.ID}) {
			c.Outcome(t0, r.ex, r.id, 1, skein.Result{State: skein.Succeeded})
		}
		if len(runs) != 1000 {
			b.Fatal(len(runs))
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/child")
	b.ReportMetric(float64((processTime()-cpu).Nanoseconds())/float64(b.N)/1000, "cpu-ns/child")
}
