package machine

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/tetratelabs/wazero"

	"skein.dev"
	"skein.dev/platform/fault"
	"skein.dev/platform/prepare"
)

// Module is a compiled module with, if it can have one, the snapshot that its instances come from.
type Module struct {
	m        *Machine
	compiled wazero.CompiledModule
	digest   skein.Digest
	begins   uint64 // bytes of memory
	limit    uint64 // of these
	globals  []string
	memory   bool
	ownHeap  bool  // the guest takes for its own whatever memory grows by
	tables   int64 // bytes that an instance's tables take
	elements elements

	command, deep, exceptions   bool
	plain                       bool // see Plain
	start, initialize, restored bool // it has the export
	constructors                bool // a command that exports them
	zygote                      string

	references atomic.Pointer[[]reference] // of elements; nil until the first instance was made

	snapshot atomic.Pointer[Snapshot]
	booting  sync.Mutex
	replay   atomic.Pointer[string]
	first    atomic.Pointer[func() *image] // what its data segments make of the memory; nil once there is a snapshot

	// Guarded by the pool's mutex.
	clean, dirty list
	busy         int // instances that are neither
	resetting    int // of these
	waiting      int // calls, for one that is being reset
	closed       bool
	free         sync.Cond
}

// Plain tells a program that knows nothing of the host interface: a command that imports no row of its own or of Faasm's.
func (mod *Module) Plain() bool { return mod.plain }

// Run serves one call: it takes an instance, calls it and leaves it to be brought back to its snapshot. ctx carries the
// deadline and is what host functions get; its cause, if it ends first, tells a cancelled call from an overdue one.
func (mod *Module) Run(ctx Guest) Exit { return mod.run(ctx, nil) }

// RunPointer is Run of a function that the module's table has. BAD_ENTRY if p names none that can be called so.
func (mod *Module) RunPointer(ctx Guest, p Pointer) Exit { return mod.run(ctx, &p) }

func (mod *Module) run(ctx Guest, p *Pointer) Exit {
	inst, err := mod.acquire()
	if err != nil {
		if ctx.Err() != nil {
			return Interrupted(ctx)
		}
		e := fault.From(err)
		return Exit{State: skein.Failed, Reason: e.Reason, Message: e.Message}
	}
	exit, usable := inst.serve(ctx, p)
	mod.release(inst, usable)
	return exit
}

// Boot initialises an instance and takes the snapshot that later ones come from: it runs the start function, and for a
// reactor _initialize and the zygote function. boot is the call that it runs under; it has no user, and whatever it can't
// give without one taints it. If no snapshot can be had, for a reason that is the module's, each call is going to
// initialise an instance of its own, and Replay says why; an error is about the machine or the end of boot's context.
func (mod *Module) Boot(boot Guest) error {
	mod.booting.Lock()
	defer mod.booting.Unlock()
	if mod.snapshot.Load() != nil || mod.replay.Load() != nil {
		return nil
	}
	if mod.deep {
		mod.setReplay("its tables or segments can change, or it has globals that can't be copied")
		return nil
	}
	inst, err := mod.fresh()
	if err != nil {
		return err
	}
	defer inst.close()
	meter := boot.Meter()
	meter.begin(boot, mod.exceptions)
	space := boot.Space()
	space.inst = inst
	code, err := inst.initialise(boot)
	space.inst = nil
	meter.end()
	switch {
	case err != nil && boot.Err() != nil:
		return fault.From(context.Cause(boot))
	case err != nil || code != 0:
		exit := classify(boot, code, err)
		mod.setReplay("its initialisation failed: " + exit.Message)
	case meter.Tainted() != "":
		mod.setReplay(meter.Tainted())
	default:
		return mod.adopt(inst.capture())
	}
	return nil
}

// Replay is why each call initialises an instance of its own; "" if none needs to, or if Boot has not been called.
func (mod *Module) Replay() string {
	if why := mod.replay.Load(); why != nil {
		return *why
	}
	return ""
}

func (mod *Module) setReplay(why string) { mod.replay.Store(&why) }

// Snapshot is what instances come from, nil if there is none.
func (mod *Module) Snapshot() *Snapshot { return mod.snapshot.Load() }

// Adopt takes a snapshot that another machine made of the same module, in place of Boot. DATA_LOSS if it can't be one.
func (mod *Module) Adopt(s *Snapshot) error {
	mod.booting.Lock()
	defer mod.booting.Unlock()
	if mod.snapshot.Load() != nil {
		return nil
	}
	switch {
	case mod.deep:
		return badSnapshot("the module can't have one")
	case s.digest != mod.digest:
		return badSnapshot("it is of module %.12s, not of %.12s", s.digest, mod.digest)
	case s.image.size < mod.begins || s.image.size > 1<<32-pageSize || len(s.globals) != len(mod.globals):
		return badSnapshot("it has %d bytes of memory and %d globals", s.image.size, len(s.globals))
	case s.image.size > mod.limit:
		return fault.Exhausted.New("GUEST_MEMORY", "the module has %d MiB of memory once it is initialised, the executor allows %d MiB", s.image.size>>20, mod.limit>>20).
			WithHint("start executors with the same --guest-memory")
	}
	return mod.adopt(s)
}

func (mod *Module) adopt(s *Snapshot) error {
	if err := mod.m.tier.seal(s.image); err != nil {
		return err
	}
	mod.snapshot.Store(s)
	mod.first.Store(nil)
	return nil
}

// Close frees the code and the idle instances once those that serve calls are done. If ctx ends before, it gives up and
// may be called again; in any case the module takes no more calls.
func (mod *Module) Close(ctx context.Context) error {
	p := &mod.m.pool
	p.mu.Lock()
	mod.closed = true
	wake := context.AfterFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		mod.free.Broadcast()
	})
	defer wake()
	for mod.busy > 0 && ctx.Err() == nil {
		mod.free.Wait()
	}
	busy := mod.busy
	p.mu.Unlock()
	if busy > 0 {
		return fault.From(ctx.Err())
	}
	p.drain(mod)
	return mod.compiled.Close(ctx)
}

// fresh makes an instance, of the snapshot if there is one.
func (mod *Module) fresh() (*instance, error) {
	img, s := mod.source()
	m := mod.m
	slab, err := m.tier.reserve()
	if err != nil {
		return nil, fault.Exhausted.New("NO_MEMORY", "no memory for an instance: %v", err).WithHint("fewer slots, or a smaller --guest-memory")
	}
	inst := &instance{mod: mod, image: img, snapshot: s}
	inst.mem = linear{m: m, slab: slab, limit: max(mod.limit, img.size), high: img.size, set: true, to: img.size}
	inst.mem.held, err = m.tier.restore(slab, img)
	if err == nil {
		err = inst.instantiate()
	}
	if err == nil && s != nil {
		for i, v := range s.globals {
			inst.globals[i].Set(v)
		}
	}
	if err != nil {
		inst.close()
		return nil, err
	}
	return inst, nil
}

// source is what an instance begins as. s is nil as long as the module has no snapshot.
func (mod *Module) source() (img *image, s *Snapshot) {
	first := mod.first.Load() // before the snapshot, since adopt puts that in its place
	if s = mod.snapshot.Load(); s != nil {
		return s.image, s
	}
	return (*first)(), nil
}

// entry is the export that a call calls.
func (mod *Module) entry() string {
	if mod.command {
		return prepare.StartExport
	}
	return prepare.HandleExport
}
