package machine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"time"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"skein.dev"
	"skein.dev/platform/fault"
	"skein.dev/platform/prepare"
)

// instance is a module made live. Whoever has taken it out of its module's lists is alone with it.
type instance struct {
	mod      *Module
	image    *image    // what its memory is before a call
	snapshot *Snapshot // nil if every call has to initialise it, which it serves one of
	engine   api.Module
	mem      linear
	globals  []api.MutableGlobal
	fuel     api.MutableGlobal // nil in a module without code

	references []reference // of elements of tables: nothing else keeps them

	entry, refresh api.Function // nil until wanted: each has a stack
	pointed        pointed      // the function of the table that was called last
	stack          [1]uint64    // for an argument and a result

	// Guarded by the pool's mutex.
	links   [2]link
	since   time.Duration // it is idle since
	age     *list         // that it is in
	cost    int64         // bytes that it keeps
	trimmed bool
	blank   bool // its memory was given back as well: the image must be copied again
}

const (
	instanceCost = 2 << 10 // bytes the engine keeps for an instance, without a table and handles
	tableCost    = 8       // for an element of a table
	elementCost  = 24      // for one that isn't null
	handleCost   = 12 << 10
	// largeStack is the size beyond which a handle is not worth its memory.
	largeStack = 256 << 10
)

func (inst *instance) instantiate() (err error) {
	defer recoverEngine(&err)
	mod := inst.mod
	ctx := experimental.WithMemoryAllocator(context.Background(), &inst.mem)
	if inst.engine, err = mod.m.rt.InstantiateModule(ctx, mod.compiled, mod.m.instance); err != nil {
		return fault.Invalid.New("BAD_MODULE", "the module can't be instantiated: %v", err)
	}
	dropSystem(inst.engine)
	inst.fillTables()
	return inst.findGlobals()
}

// findGlobals makes the handles of globals that reset and invoke need.
func (inst *instance) findGlobals() (err error) {
	if inst.engine.ExportedGlobal(prepare.FuelName) != nil {
		if inst.fuel, err = global(inst.engine, prepare.FuelName); err != nil {
			return err
		}
	}
	inst.globals = make([]api.MutableGlobal, len(inst.mod.globals))
	for i, name := range inst.mod.globals {
		if inst.globals[i], err = global(inst.engine, name); err != nil {
			return err
		}
	}
	return nil
}

// dropSystem lets go of what the engine keeps for its own WASI, descriptors and clocks: a kilobyte that nobody asks for.
func dropSystem(inst api.Module) {
	v := reflect.ValueOf(inst)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return
	}
	if sys := v.Elem().FieldByName("Sys"); sys.Kind() == reflect.Pointer && sys.CanSet() {
		sys.SetZero()
	}
}

func global(inst api.Module, name string) (api.MutableGlobal, error) {
	g, ok := inst.ExportedGlobal(name).(api.MutableGlobal)
	if !ok {
		return nil, fault.Internal.New("PREPARE", "the prepared module has no mutable global %q", name)
	}
	return g, nil
}

// recoverEngine turns the engine's own panics, such as for memory that can't be had, into the end of one call.
func recoverEngine(err *error) {
	if p := recover(); p != nil {
		*err = fault.Internal.New("ENGINE", "the engine failed: %v", p)
	}
}

// serve runs one call. usable says that the instance can be brought back to what it was.
func (inst *instance) serve(ctx Guest, p *Pointer) (exit Exit, usable bool) {
	meter := ctx.Meter()
	meter.begin(ctx, inst.mod.exceptions)
	inst.mem.begin()
	space := ctx.Space()
	space.inst = inst
	code, err := inst.call(ctx, p)
	meter.end()
	space.leave(0, inst.mem.size, true)
	space.inst = nil
	exit = classify(ctx, code, err)
	exit.CPU, exit.MemoryPeak = meter.cpu, int64(inst.mem.high)
	if inst.mem.refused && exit.State == skein.Failed {
		exit.Reason = "GUEST_MEMORY"
		exit.Message = fmt.Sprintf("the guest wanted more than its %s of memory and failed: %s", sizeText(inst.mem.limit), exit.Message)
	}
	inst.mem.end()
	usable = inst.snapshot != nil && !inst.engine.IsClosed() && expected(err)
	if !expected(err) {
		slog.ErrorContext(ctx, "a guest's call ended in a way that should not be", "err", err)
	}
	return exit, usable
}

func sizeText(n uint64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

func (inst *instance) call(ctx Guest, p *Pointer) (uint32, error) {
	mod := inst.mod
	if inst.snapshot == nil {
		if code, err := inst.initialise(ctx); err != nil || code != 0 {
			return code, err
		}
	} else if mod.restored {
		if inst.refresh == nil {
			inst.refresh = inst.engine.ExportedFunction(prepare.RestoredExport)
		}
		if _, err := inst.invoke(ctx, inst.refresh); err != nil {
			return 0, err
		}
	}
	if p != nil {
		return inst.callPointer(ctx, *p)
	}
	if inst.entry == nil {
		inst.entry = inst.engine.ExportedFunction(mod.entry())
	}
	return inst.invoke(ctx, inst.entry)
}

// initialise does what is done once, before a snapshot or before the only call.
func (inst *instance) initialise(ctx Guest) (uint32, error) {
	mod := inst.mod
	var names []string
	if mod.start {
		names = append(names, prepare.StartName)
	}
	if mod.initialize {
		names = append(names, prepare.InitializeExport)
	}
	if mod.zygote != "" {
		names = append(names, mod.zygote)
	}
	for _, name := range names {
		if code, err := inst.invoke(ctx, inst.engine.ExportedFunction(name)); err != nil || code != 0 {
			return code, err
		}
	}
	return 0, nil
}

// invoke calls a function without parameters; its result, if it has one, is an exit code.
func (inst *instance) invoke(ctx Guest, fn api.Function) (code uint32, err error) {
	return inst.invokeWith(ctx, fn, 0)
}

// invokeWith is invoke for a function that may have an i32 parameter.
func (inst *instance) invokeWith(ctx Guest, fn api.Function, arg uint32) (code uint32, err error) {
	defer recoverEngine(&err)
	if fn == nil {
		return 0, fault.Invalid.New("NO_ENTRY", "the module has no %s", inst.mod.entry())
	}
	meter := ctx.Meter()
	meter.enter(fn)
	if inst.fuel != nil {
		inst.fuel.Set(uint64(uint32(meter.allowance)))
	}
	inst.stack[0] = uint64(arg)
	err = fn.CallWithStack(ctx, inst.stack[:])
	return uint32(inst.stack[0]), err
}

// reset makes the instance what it was before the call. After an error it must not serve another.
func (inst *instance) reset() error {
	mod := inst.mod
	if err := inst.mem.unmapAll(inst.image); err != nil {
		return err
	}
	if inst.mem.size != inst.image.size {
		if err := inst.resize(); err != nil {
			return err
		}
	}
	resident, err := mod.m.tier.reset(inst.mem.slab, inst.mem.high, inst.image, inst.mem.held)
	if err != nil {
		return fmt.Errorf("reset memory: %w", err)
	}
	inst.mem.high, inst.mem.refused = inst.image.size, false
	for i, v := range inst.snapshot.globals {
		inst.globals[i].Set(v)
	}
	inst.dropLargeHandles()
	inst.cost = instanceCost + mod.tables + elementCost*int64(len(inst.references)) + resident
	for _, fn := range []api.Function{inst.entry, inst.refresh, inst.pointed.fn} {
		if fn != nil {
			inst.cost += handleCost
		}
	}
	if mod.m.compare {
		if i := inst.image.differs(inst.mem.slab[:inst.mem.size]); i >= 0 {
			mod.m.differences.Add(1)
			return fmt.Errorf("page %d is not what it was", i)
		}
	}
	return nil
}

// resize gives the memory the size of the image. The engine knows only growth, so it is asked for that: whatever the
// allocator answers is the memory.
func (inst *instance) resize() error {
	inst.mem.set, inst.mem.to = true, inst.image.size
	if _, ok := inst.engine.Memory().Grow(1); !ok || inst.mem.size != inst.image.size {
		return errors.New("the memory could not be resized")
	}
	return nil
}

// dropLargeHandles lets go of stacks that grew.
func (inst *instance) dropLargeHandles() {
	if stackSize(inst.entry) > largeStack {
		inst.entry = nil
	}
	if stackSize(inst.refresh) > largeStack {
		inst.refresh = nil
	}
	if stackSize(inst.pointed.fn) > largeStack {
		inst.pointed = pointed{}
	}
}

// trim lets go of what an instance can do without until its next call.
func (inst *instance) trim() {
	inst.entry, inst.refresh, inst.globals, inst.fuel = nil, nil, nil, nil
	inst.pointed = pointed{}
	inst.dropTables()
	inst.trimmed = true
	inst.blank = inst.mod.m.tier.trim(inst.mem.slab, inst.mem.high, inst.mem.held)
	inst.cost = instanceCost + inst.mod.tables + elementCost*int64(len(inst.references))
}

// wake undoes trim.
func (inst *instance) wake() (err error) {
	defer recoverEngine(&err)
	if !inst.trimmed {
		return nil
	}
	inst.trimmed = false
	if inst.blank {
		inst.image.copyTo(inst.mem.slab)
		inst.blank = false
	}
	inst.fillTables()
	return inst.findGlobals()
}

// capture takes the snapshot of an initialised instance.
func (inst *instance) capture() *Snapshot {
	s := &Snapshot{digest: inst.mod.digest, image: capture(inst.mem.slab[:inst.mem.size])}
	for _, g := range inst.globals {
		s.globals = append(s.globals, g.Get())
	}
	return s
}

// close takes the instance down. Only who is alone with it may: the engine frees its memory at once.
func (inst *instance) close() {
	if inst.engine != nil {
		_ = inst.engine.Close(context.Background())
	}
	if inst.mem.unmapAll(nil) != nil { // the engine knows nothing of it and is gone
		return // what it shows is not its own
	}
	inst.mod.m.tier.release(inst.mem.slab, inst.mem.high, inst.mem.held)
	inst.mem.slab = nil
}
