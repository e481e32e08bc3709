package prepare

import (
	"errors"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// threadCPU is the CPU time of this thread.
func threadCPU(t testing.TB) time.Duration {
	const clockThreadCPU = 3
	var ts syscall.Timespec
	if _, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clockThreadCPU, uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
		t.Fatal(errno)
	}
	return time.Duration(ts.Nano())
}

// watch is what a machine does at a yield, on the clock of the guest's thread: it ends the guest at its deadline and fits
// the allowance to what the last one was worth.
type watch struct {
	t        testing.TB
	deadline time.Duration
	wall     time.Time // for a guest that sleeps
	last     time.Duration
	gaps     []time.Duration
	fuel     int32
}

func (w *watch) begin(budget time.Duration) {
	w.last = threadCPU(w.t)
	w.deadline, w.wall = w.last+budget, time.Now().Add(2*time.Second+budget)
	w.gaps, w.fuel = w.gaps[:0], 50_000
}

func (w *watch) yield() int32 {
	now := threadCPU(w.t)
	gap := now - w.last
	w.last = now
	w.gaps = append(w.gaps, gap)
	if now >= w.deadline || time.Now().After(w.wall) {
		panic(errOverdue)
	}
	const target = 500 * time.Microsecond
	switch {
	case gap > 2*target:
		w.fuel = max(w.fuel/4, int32(float64(w.fuel)*float64(target)/float64(gap)))
	case gap < target/2:
		w.fuel += w.fuel / 4
	}
	w.fuel = min(max(w.fuel, MinFuel), MaxFuel)
	return w.fuel
}

// hostile is a module whose function "run" goes on for ever, or much too long. Its functions have these types, in this
// order: () first, then what types adds.
func hostile(pages uint64, functions ...[]byte) []byte { return hostileWith(nil, pages, functions...) }

func hostileWith(elements []byte, pages uint64, functions ...[]byte) []byte {
	kinds := make([][]byte, len(functions))
	for i := range kinds {
		kinds[i] = []byte{0}
	}
	kinds[len(kinds)-1] = []byte{1} // the last one takes an i32
	sections := [][]byte{
		types(ftype(nil, nil), ftype([]byte{i32}, nil)),
		section(secFunction, vec(kinds...)),
		section(secTable, vec(cat([]byte{funcref, 1}, u(1<<20), u(1<<20)))),
		section(secMemory, vec(cat([]byte{3}, u(pages), u(max(pages, 1))))),
		section(secTag, vec([]byte{0, 0})),
		section(secExport, vec(export("run", 0, 0))),
	}
	if elements != nil {
		sections = append(sections, section(secElement, vec(elements)))
	}
	sections = append(sections, section(secDataCount, u(1)), section(secCode, vec(functions...)), section(secData, vec(cat([]byte{1}, u(1<<20), times(1<<20, 7)))))
	return wasmOf(sections...)
}

func constant32(v uint32) []byte {
	e := emitter{}
	e.constant(opI32Const, int64(int32(v)))
	return e.b
}

// forever is a loop around code.
func forever(code ...[]byte) []byte {
	return cat([]byte{0x03, 0x40}, cat(code...), []byte{0x0c, 0, 0x0b})
}

var end1 = body(noLocals) // the last function, where it isn't needed

// Whatever a guest does, it comes back to its host soon: within 50 ms of its own CPU time, most of which is page faults.
func TestHostile(t *testing.T) {
	const pages = 2048 // 128 MiB
	one := []byte{1, 1, i32}
	anyFunc := []byte{0, 0x41, 0, 0x0b, 1, 0}
	less := []byte{0x20, 0, 0x41, 1, 0x6b} // n - 1
	big, mask := constant32(pages*pageSize), constant32(pages*pageSize-4)
	chase := cat([]byte{0x20, 0}, constant32(1664525), []byte{0x6c}, constant32(1013904223), []byte{0x6a, 0x20, 0, 0x28, 2, 0, 0x6a}, mask, []byte{0x71, 0x21, 0})
	for _, c := range []struct {
		name string
		wasm []byte
	}{
		{"loop", hostile(0, body(noLocals, forever()...), end1)},
		{"loop in dead code's neighbour", hostile(0, body(noLocals, cat([]byte{0x02, 0x40, 0x0c, 0, 0x03, 0x40, 0x0b, 0x0b}, forever([]byte{0x01}))...), end1)},
		{"loop with parameter", hostile(0, body(noLocals, 0x41, 0, 0x03, 1, 0x41, 1, 0x6a-1, 0x1a, 0x41, 0, 0x0c, 0, 0x0b), end1)},
		{"call tree", hostile(0, body(noLocals, 0x41, 32, 0x10, 1),
			body(noLocals, cat([]byte{0x20, 0, 0x04, 0x40}, less, []byte{0x10, 1}, less, []byte{0x10, 1, 0x0b})...))},
		{"tail call", hostile(0, body(noLocals, 0x12, 0), end1)},
		{"tail calls of two", hostile(0, body(noLocals, 0x12, 1), body(noLocals, 0x12, 0), end1)},
		{"indirect tail call", hostileWith(anyFunc, 0, body(noLocals, 0x41, 0, 0x13, 0, 0), end1)},
		{"tail call of a reference", hostileWith(anyFunc, 0, body(noLocals, 0xd2, 0, 0x15, 0), end1)},
		{"br_table", hostile(0, body(noLocals, 0x03, 0x40, 0x41, 0, 0x0e, 3, 0, 0, 1, 0, 0x0b), end1)},
		{"br_if out and in", hostile(0, body(noLocals, 0x03, 0x40, 0x02, 0x40, 0x41, 1, 0x0d, 0, 0x0b, 0x0c, 0, 0x0b), end1)},
		{"br_on_null", hostile(0, body(noLocals, 0x03, 0x40, 0xd0, funcref, 0xd5, 0, 0x1a, 0x0b), end1)},
		{"exceptions", hostile(0, body(noLocals, 0x03, 0x40, 0x1f, 0x40, 1, 2, 0, 0x08, 0, 0x0b, 0x0b), end1)},
		{"exceptions of a callee", hostile(0, body(noLocals, 0x03, 0x40, 0x02, 0x40, 0x1f, 0x40, 1, 2, 0, 0x10, 1, 0x0b, 0x0b, 0x0c, 0, 0x0b), body(noLocals, 0x08, 0), end1)},
		{"short loops called in a loop", hostile(0, body(noLocals, forever([]byte{0x10, 1})...),
			body(one, 0x41, 3, 0x21, 0, 0x03, 0x40, 0x20, 0, 0x41, 1, 0x6b, 0x22, 0, 0x0d, 0, 0x0b), end1)},
		{"divisions", hostile(0, body([]byte{1, 1, i64}, forever(slices.Repeat([]byte{0x20, 0, 0x42, 1, 0x84, 0x42, 3, 0x80, 0x21, 0}, 64))...), end1)},
		{"exceptions above a loop", hostile(0, body(one, 0x03, 0x40, 0x02, 0x40, 0x1f, 0x40, 1, 2, 0,
			0x41, 0xe4, 0, 0x21, 0, 0x03, 0x40, 0x20, 0, 0x41, 1, 0x6b, 0x22, 0, 0x0d, 0, 0x0b, 0x08, 0, 0x0b, 0x0b, 0x0c, 0, 0x0b), end1)},
		{"references", hostileWith(anyFunc, 0, body(noLocals, forever([]byte{0xd2, 0, 0x1a})...), end1)},
		{"fill", hostile(pages, body(noLocals, forever([]byte{0x41, 0, 0x41, 1}, big, []byte{0xfc, 0x0b, 0})...), end1)},
		{"fills in a row", hostile(pages, body(noLocals, slices.Repeat(cat([]byte{0x41, 0, 0x41, 1}, big, []byte{0xfc, 0x0b, 0}), 64)...), end1)},
		{"copy", hostile(pages, body(noLocals, forever([]byte{0x41, 4, 0x41, 0}, constant32(pages*pageSize-4), []byte{0xfc, 0x0a, 0, 0})...), end1)},
		{"init", hostile(pages, body(noLocals, forever([]byte{0x41, 0, 0x41, 0}, constant32(1<<20), []byte{0xfc, 0x08, 0, 0})...), end1)},
		{"small fills", hostile(1, body(noLocals, forever(slices.Repeat(cat([]byte{0x41, 0, 0x41, 1}, constant32(inlineBulk), []byte{0xfc, 0x0b, 0}), 100))...), end1)},
		{"fills of a piece", hostile(pages, body(one, forever([]byte{0x41, 0, 0x41, 1}, constant32(piece), []byte{0xfc, 0x0b, 0})...), end1)},
		{"table.fill", hostile(0, body(noLocals, forever([]byte{0x41, 0, 0xd0, funcref}, constant32(1<<20), []byte{0xfc, 0x11, 0})...), end1)},
		{"table.copy", hostile(0, body(noLocals, forever([]byte{0x41, 0, 0x41, 0}, constant32(1<<20), []byte{0xfc, 0x0e, 0, 0})...), end1)},
		{"table.grow", hostile(0, body(noLocals, forever([]byte{0xd0, funcref}, constant32(1<<20), []byte{0xfc, 0x0f, 0, 0x1a})...), end1)},
		{"memory.grow", hostile(1, body(noLocals, forever([]byte{0x41, 0, 0x40, 0, 0x1a})...), end1)},
		{"dependent loads", hostile(pages, body(one, forever(chase)...), end1)},
		{"cheap, then dear", hostile(pages, body([]byte{1, 2, i32}, cat([]byte{0x03, 0x40, 0x20, 1, 0x41, 1, 0x6a, 0x22, 1}, constant32(100_000_000), []byte{0x49, 0x0d, 0, 0x0b}, forever(chase))...), end1)},
		{"wait", hostile(1, body(noLocals, forever([]byte{0x41, 0, 0x41, 0, 0x42, 0x7f, 0xfe, 0x01, 2, 0, 0x1a})...), end1)},
	} {
		t.Run(c.name, func(t *testing.T) { runHostile(t, c.wasm) })
	}
}

func runHostile(t *testing.T, wasm []byte) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p, err := Prepare(wasm, DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	w := &watch{t: t}
	e := newEngine(t, func() int32 { return w.yield() })
	w.begin(time.Hour)
	mod, err := e.boot(t.Context(), p, "")
	if err != nil {
		t.Fatal(err)
	}
	defer mod.Close(t.Context())
	const budget = 200 * time.Millisecond
	run := mod.ExportedFunction("run")
	watchdog := time.AfterFunc(20*time.Second, func() { panic("a guest does not come back") })
	defer watchdog.Stop()
	began := time.Now()
	w.begin(budget)
	_, err = run.Call(t.Context())
	over := threadCPU(t) - w.deadline
	if !errors.Is(err, errOverdue) && cause(err) != "" {
		t.Logf("ended by %v", cause(err))
	}
	if err == nil {
		t.Error("it ended by itself: it isn't hostile")
	}
	slices.Sort(w.gaps)
	n := len(w.gaps)
	if n == 0 {
		t.Fatal("it never yielded")
	}
	t.Logf("%d yields, CPU between two: p50 %v, p99 %v, most %v; %v after the deadline, wall %v, fuel %d",
		n, w.gaps[n/2], w.gaps[n*99/100], w.gaps[n-1], over, time.Since(began).Round(time.Millisecond), w.fuel)
	if most := w.gaps[n-1]; most > 50*time.Millisecond || over > 50*time.Millisecond {
		t.Errorf("%v of CPU between two yields, %v after the deadline", most, over)
	}
}
