package machine

import (
	"context"
	"reflect"
	"runtime"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"skein.dev/platform/compile"
	"skein.dev/platform/prepare"
)

// Guest is the context that a guest runs under: host functions get it as theirs.
type Guest interface {
	context.Context
	Meter() *Meter
	Space() *Space
	// Turn is called when the guest has computed for a while: it may wait for others, and returns soon after the context
	// is done.
	Turn()
}

// Meter watches one run: it stops the guest at its deadline and measures what it uses. The zero value is ready; it
// belongs to the goroutine of the run. Embed it to be a Guest.
type Meter struct {
	done      <-chan struct{}
	deadline  time.Duration // on the machine's clock; 0 for none
	allowance int32         // of fuel, until the next yield
	most      int32         // of it
	stackMost int
	stack     engineStack

	last  time.Duration // yield
	turn  time.Duration // of others
	cpu   time.Duration // until mark
	mark  time.Duration
	taint string

	reentered bool // by a host function

	// The thread that the guest was on at the mark and the CPU time it had used; 0 if it was not asked.
	thread     int
	threadTime time.Duration
}

const (
	// Units of fuel between yields. Cheap ones pass in 0.4 ns, so that the most lasts 25 µs; a unit of cache misses takes
	// a thousand times longer, and a guest may change from one to the other.
	leastFuel, firstFuel, mostFuel = prepare.MinFuel, 50_000, prepare.MaxFuel

	interval = 500 * time.Microsecond // between yields, of the guest's CPU time
	precise  = time.Millisecond       // spans from here on are measured by the thread's clock, which costs a system call
	fair     = 2 * time.Millisecond   // after which others have a turn

	// stackMost bounds a guest's native stack in bytes. It is looked at when the guest yields, and it doubles when it
	// grows, from 10 KiB: the last doubling that is allowed is to 10 MiB.
	stackMost = 16 << 20
	// With try_table the engine copies the whole stack for every handler in force.
	stackMostExceptions = 1 << 20
	handlersMost        = 64 << 20
)

// epoch is where the machine's clock begins, which is monotonic.
var epoch = time.Now()

func clock() time.Duration { return time.Since(epoch) }

// Meter makes whatever embeds one a Guest.
func (m *Meter) Meter() *Meter { return m }

// Turn lets others have the processor.
func (m *Meter) Turn() { runtime.Gosched() }

// Taint says that the guest has had from the host what is only right for the call that it serves. A boot's instance of
// which it is said becomes no snapshot. The first reason stays.
func (m *Meter) Taint(why string) {
	if m.taint == "" {
		m.taint = why
	}
}

// Tainted is what Taint was told, "" if nothing.
func (m *Meter) Tainted() string { return m.taint }

// Waiting runs what a host function waits for: its time is not the guest's.
func (m *Meter) Waiting(f func()) {
	m.account(clock())
	defer func() { m.resume(clock()) }()
	f()
}

// CPU is the time that the guest has computed, as of the last yield or wait.
func (m *Meter) CPU() time.Duration { return m.cpu }

func (m *Meter) begin(ctx context.Context, exceptions bool) {
	now := clock()
	m.done, m.deadline = ctx.Done(), 0
	if d, ok := ctx.Deadline(); ok {
		m.deadline = now + max(time.Until(d), 1)
	}
	m.allowance, m.most, m.stackMost = firstFuel, mostFuel, stackMost
	if exceptions {
		m.allowance, m.most, m.stackMost = leastFuel, leastFuel, stackMostExceptions
	}
	m.last, m.turn, m.cpu = now, now, 0
	m.resume(now)
}

// enter is called before each function of the guest's that is called.
func (m *Meter) enter(fn api.Function) { m.stack = stackOf(fn) }

func (m *Meter) end() { m.account(clock()) }

// account adds the time since the mark and sets it to now. It returns what it added.
func (m *Meter) account(now time.Duration) time.Duration {
	used := now - m.mark
	if used < precise {
		m.thread = 0 // what the thread's clock says of the mark is out of date
	} else {
		thread, t := threadTime()
		if thread != 0 && thread == m.thread {
			used = min(used, t-m.threadTime)
		}
		m.thread, m.threadTime = thread, t
	}
	m.cpu += used
	m.mark = now
	return used
}

// resume sets the mark without adding.
func (m *Meter) resume(now time.Duration) {
	m.mark, m.last, m.thread = now, now, 0
}

// yield is where the guest comes by at least every few hundred microseconds. It returns the fuel until the next time, or
// panics to end the call.
func (m *Meter) yield(g Guest) int32 {
	now := clock()
	if m.deadline != 0 && now >= m.deadline {
		panic(stopped{})
	}
	select {
	case <-m.done:
		panic(stopped{})
	default:
	}
	if m.stack.exceeds(m.stackMost) {
		panic(overflow{})
	}
	m.adapt(now)
	if now-m.turn >= fair {
		m.account(now)
		g.Turn()
		now = clock()
		m.resume(now)
		m.turn = now
	}
	m.last = now
	return m.allowance
}

// adapt brings the allowance to where it lasts for an interval. A thread that the system took off the core is no reason
// to lower it, so that a long time is checked against the thread's clock.
func (m *Meter) adapt(now time.Duration) {
	took := now - m.last
	if now-m.mark >= precise {
		took = min(took, m.account(now))
	}
	switch fuel := int64(m.allowance); {
	case took > 2*interval:
		m.allowance = int32(max(fuel*int64(interval)/int64(took), fuel/4, leastFuel))
	case took < interval/2:
		m.allowance = int32(min(fuel*5/4, int64(m.most)))
	}
}

// linkYield adds the host module that prepared modules yield to.
func linkYield(ctx context.Context, rt wazero.Runtime) error {
	_, err := rt.NewHostModuleBuilder(prepare.YieldFrom).NewFunctionBuilder().
		WithGoFunction(api.GoFunc(func(ctx context.Context, stack []uint64) {
			g := ctx.(Guest)
			stack[0] = uint64(uint32(g.Meter().yield(g)))
		}), nil, []api.ValueType{api.ValueTypeI32}).Export(prepare.YieldName).Instantiate(ctx)
	return err
}

// engineStack is a view of the stack that the engine keeps for a function of a guest, and of its handlers of exceptions.
type engineStack struct{ stack, handlers reflect.Value }

func (s engineStack) exceeds(most int) bool {
	if !s.stack.IsValid() {
		return false
	}
	n := s.stack.Len()
	return n > most || n*s.handlers.Len() > handlersMost
}

// stackOf is the view for fn; it sees nothing if this engine is not built as we know it, whose limit is 400 MB.
func stackOf(fn api.Function) engineStack {
	at := stackFields()
	if fn == nil || at.stack == nil {
		return engineStack{}
	}
	v := reflect.ValueOf(fn)
	if v.Type() != at.engine {
		return engineStack{}
	}
	v = v.Elem()
	return engineStack{v.FieldByIndex(at.stack), v.FieldByIndex(at.handlers)}
}

func stackSize(fn api.Function) int {
	if s := stackOf(fn).stack; s.IsValid() {
		return s.Len()
	}
	return 0
}

type fields struct {
	engine          reflect.Type
	stack, handlers []int // nil if they are not as known
}

// stackFields finds out where the engine keeps a guest's stack, by looking at one before and after it had to grow. The
// lengths of slices are all that is read, by reflection that the language checks.
var stackFields = sync.OnceValue(func() (found fields) {
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, compile.Config())
	defer func() { _ = rt.Close(ctx) }()
	// (func (export "f") (param i32) (if (local.get 0) (then (call 0 (i32.sub (local.get 0) (i32.const 1))))))
	inst, err := rt.Instantiate(ctx, []byte("\x00asm\x01\x00\x00\x00\x01\x05\x01\x60\x01\x7f\x00\x03\x02\x01\x00\x07\x05\x01\x01f\x00\x00"+
		"\x0a\x10\x01\x0e\x00\x20\x00\x04\x40\x20\x00\x41\x01\x6b\x10\x00\x0b\x0b"))
	if err != nil {
		return fields{}
	}
	fn := inst.ExportedFunction("f")
	v := reflect.ValueOf(fn)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return fields{}
	}
	v = v.Elem()
	stack, ok1 := v.Type().FieldByName("stack")
	handlers, ok2 := v.Type().FieldByName("tryHandlers")
	if !ok1 || !ok2 || stack.Type.Kind() != reflect.Slice || handlers.Type.Kind() != reflect.Slice {
		return fields{}
	}
	const calls = 10_000
	before := v.FieldByIndex(stack.Index).Len()
	if _, err := fn.Call(ctx, calls); err != nil {
		return fields{}
	}
	if after := v.FieldByIndex(stack.Index).Len(); before == 0 || after <= before || after < 16*calls || after > 1<<20*16 {
		return fields{}
	}
	return fields{reflect.TypeOf(fn), stack.Index, handlers.Index}
})
