// Package machine runs guests on wazero. A Module is a compiled module with a snapshot of its memory after it was
// initialised; Run takes an instance of it that is as the snapshot says, calls it once, and brings it back to that state
// for the next call. Nothing of a call is left for another to see.
package machine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/tetratelabs/wazero"

	"skein.dev/abi"
	"skein.dev/platform/compile"
	"skein.dev/platform/fault"
	"skein.dev/platform/prepare"
)

// pageSize is wasm's, in bytes.
const pageSize = 64 << 10

// Config is what a machine may use.
type Config struct {
	GuestMemory int64 // bytes of linear memory that a guest may have
	WarmMemory  int64 // bytes that idle instances may keep together; 0 keeps none
	Mappings    int   // of the kernel, that memories may have together; 0 is its limit less headroom
	Portable    bool  // use what every system has, for tests
}

// Machine holds the engine, the host modules that every guest links to, and the instances that wait for calls.
type Machine struct {
	rt       wazero.Runtime
	cache    wazero.CompilationCache
	dir      string
	instance wazero.ModuleConfig // of every instance
	limit    uint64              // bytes of linear memory a guest may have
	portable bool
	tier     tier
	pool     pool
	inUse    atomic.Int64

	compare     bool // every reset memory with its image, for tests
	differences atomic.Int64

	stop    context.CancelFunc
	stopped sync.WaitGroup
}

// Open makes a machine; link adds the host modules. BAD_MEMORY_LIMIT if a guest would have less than a page or too much.
func Open(ctx context.Context, cfg Config, link func(context.Context, wazero.Runtime) error) (*Machine, error) {
	// At 4 GiB the engine takes the size of a memory for 0, and to shrink one it must be able to ask for a page more.
	if cfg.GuestMemory < pageSize || cfg.GuestMemory > 4<<30-pageSize {
		return nil, fault.Invalid.New("BAD_MEMORY_LIMIT", "a memory limit of %d bytes is not between one page of 64 KiB and 4 GiB less one", cfg.GuestMemory)
	}
	dir, err := os.MkdirTemp("", "skein-code-")
	if err != nil {
		return nil, fmt.Errorf("code directory: %w", err)
	}
	cache, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("code directory: %w", err), os.RemoveAll(dir))
	}
	m := &Machine{
		cache: cache, dir: dir, limit: uint64(cfg.GuestMemory) / pageSize * pageSize, portable: cfg.Portable,
		rt: wazero.NewRuntimeWithConfig(ctx, compile.Config().WithCompilationCache(cache)),
		// What calls differ in, they bring along in their context. The engine's own source of randomness costs more to make
		// than all else of a small instance.
		instance: wazero.NewModuleConfig().WithName("").WithStartFunctions().WithRandSource(rand.Reader),
	}
	m.pool.open(cfg)
	m.tier = newTier(m, int(m.limit))
	if err := errors.Join(linkYield(ctx, m.rt), link(ctx, m.rt)); err != nil {
		return nil, errors.Join(err, m.rt.Close(ctx), m.cache.Close(ctx), os.RemoveAll(dir))
	}
	if err := checkTables(ctx, m.rt); err != nil {
		return nil, errors.Join(err, m.rt.Close(ctx), m.cache.Close(ctx), os.RemoveAll(dir))
	}
	idle, stop := context.WithCancel(context.WithoutCancel(ctx))
	m.stop = stop
	m.stopped.Go(func() { m.age(idle) })
	return m, nil
}

// Close frees the engine. No call may run.
func (m *Machine) Close(ctx context.Context) error {
	m.stop()
	m.stopped.Wait()
	m.pool.drain(nil)
	err := errors.Join(m.rt.Close(ctx), m.cache.Close(ctx), os.RemoveAll(m.dir))
	m.tier.close()
	return err
}

// Runtime is where modules are compiled for Load.
func (m *Machine) Runtime() wazero.Runtime { return m.rt }

// MemoryInUse is the linear memory of the instances that serve calls, in bytes.
func (m *Machine) MemoryInUse() int64 { return m.inUse.Load() }

// LoadArtifact is Load of what package compile has made. Errors are those of compile.Load and Load.
func (m *Machine) LoadArtifact(ctx context.Context, a *compile.Artifact) (*Module, error) {
	code, err := compile.Load(ctx, m.rt, m.dir, a)
	if err != nil {
		return nil, err
	}
	mod, err := m.Load(ctx, code, a.Prepared)
	if err != nil {
		return nil, errors.Join(err, code.Close(ctx))
	}
	return mod, nil
}

// Load makes a module of its code and what prepare knows of it; both belong to it from then on. It has no snapshot yet:
// Boot makes one, Adopt takes one from elsewhere, and without either every call initialises an instance of its own.
// GUEST_MEMORY if the module begins with more memory than a guest may have, SHARED_MEMORY if it shares or imports it.
func (m *Machine) Load(_ context.Context, compiled wazero.CompiledModule, p *prepare.Prepared) (*Module, error) {
	mod := &Module{
		m: m, compiled: compiled, digest: p.Module.Digest,
		command: p.Module.Kind == prepare.Command, ownHeap: p.Module.Flags.Go, deep: p.Deep, exceptions: p.Module.Flags.Exceptions,
		elements: elementsOf(p),
		limit:    min(m.limit, uint64(p.MaxPages)*pageSize),
	}
	mod.plain = mod.command && !slices.ContainsFunc(p.Module.Imports, func(i prepare.Import) bool {
		return i.Module == abi.Native || i.Module == abi.Env
	})
	mod.free.L = &m.pool.mu
	if mem := p.Module.Memory; mem != nil {
		switch {
		case mem.Imported || mem.Shared:
			return nil, fault.Unsupported.New("SHARED_MEMORY", "the module's memory is shared or imported; an instance needs one of its own").
				WithHint("build without -pthread and without --import-memory")
		case uint64(mem.Min)*pageSize > m.limit:
			return nil, fault.Exhausted.New("GUEST_MEMORY", "the module begins with %d MiB of memory, the executor allows %d MiB", mem.Min/16, m.limit>>20).
				WithHint("link it with a smaller initial memory, or start executors with a larger --guest-memory")
		}
		mod.begins, mod.memory = uint64(mem.Min)*pageSize, true
	}
	first := sync.OnceValue(func() *image {
		img := firstImage(mod.begins, p.Image)
		if mod.deep {
			_ = m.tier.seal(img) // all its instances come from it; it is copied if it can't be mapped
		}
		return img
	})
	mod.first.Store(&first)
	for _, g := range p.Globals {
		mod.globals = append(mod.globals, g.Name)
	}
	if len(p.Image) > 0 && !mod.memory {
		return nil, fault.Invalid.New("BAD_MODULE", "the module has data and no memory")
	}
	exports := compiled.ExportedFunctions()
	mod.start = exports[prepare.StartName] != nil
	mod.constructors = mod.command && exports[constructorsExport] != nil
	if !mod.command {
		mod.initialize = exports[prepare.InitializeExport] != nil
		mod.restored = exports[prepare.RestoredExport] != nil
		for _, name := range []string{prepare.ZygoteExport, prepare.InitExport} { // Faasm's goes first
			if mod.zygote == "" && exports[name] != nil {
				mod.zygote = name
			}
		}
	}
	for _, t := range p.Module.Tables {
		mod.tables += int64(t.Min) * tableCost
	}
	return mod, nil
}

// constructorsExport is wasm-ld's name. A command's _start calls it; what is called by pointer has no _start.
const constructorsExport = "__wasm_call_ctors"
