// Package machine is the only wrapper of wazero: it compiles modules and runs instances of them. A Module is compiled once
// and Run makes an instance for each call; nothing of a call outlives it.
package machine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/sys"

	"skein.dev"
	"skein.dev/platform/fault"
	"skein.dev/platform/prepare"
)

// pageSize is wasm's, in bytes.
const pageSize = 64 << 10

// features are all that the engine has; prepare knows their opcodes.
const features = api.CoreFeaturesV2 | experimental.CoreFeaturesThreads | experimental.CoreFeaturesTailCall |
	experimental.CoreFeaturesExtendedConst | experimental.CoreFeaturesExceptionHandling | experimental.CoreFeaturesTypedFunctionReferences

// Machine holds the engine and the host modules that every guest links to.
type Machine struct {
	rt      wazero.Runtime
	limit   uint64 // bytes of linear memory a guest may have
	inUse   atomic.Int64
	compile chan struct{} // one permit: a compilation takes a core, and calls need the others
}

// Open makes a machine whose guests have at most memoryLimit bytes each; link adds the host modules.
func Open(ctx context.Context, memoryLimit int64, link func(context.Context, wazero.Runtime) error) (*Machine, error) {
	if memoryLimit < pageSize || memoryLimit > 4<<30-pageSize {
		return nil, fault.Invalid.New("BAD_MEMORY_LIMIT", "a memory limit of %d bytes is not between one page of 64 KiB and 4 GiB less one", memoryLimit)
	}
	cfg := wazero.NewRuntimeConfigCompiler().
		WithCoreFeatures(features).
		WithMemoryLimitPages(65535). // the allocator keeps the real limit, and so knows what was refused
		// The engine looks at the deadline in every loop. It is slow, and it misses call trees and bulk operations: the
		// prepared module's own interruption points replace it.
		WithCloseOnContextDone(true)
	m := &Machine{rt: wazero.NewRuntimeWithConfig(ctx, cfg), limit: uint64(memoryLimit), compile: make(chan struct{}, 1)}
	if err := link(ctx, m.rt); err != nil {
		return nil, errors.Join(err, m.rt.Close(ctx))
	}
	return m, nil
}

// Close frees the engine. No call may run.
func (m *Machine) Close(ctx context.Context) error { return m.rt.Close(ctx) }

// MemoryInUse is the linear memory of all instances, in bytes.
func (m *Machine) MemoryInUse() int64 { return m.inUse.Load() }

// Module is a compiled module.
type Module struct {
	m        *Machine
	compiled wazero.CompiledModule
	command  bool
}

// Compile makes native code of a module whose bytes have passed prepare, as info says: what the engine still finds is a
// type error. GUEST_MEMORY if the module begins with more memory than a guest may have.
func (m *Machine) Compile(ctx context.Context, wasm []byte, info *prepare.Module) (mod *Module, err error) {
	if mem := info.Memory; mem != nil && uint64(mem.Min)*pageSize > m.limit {
		return nil, fault.Exhausted.New("GUEST_MEMORY", "the module begins with %d MiB of memory, the executor allows %d MiB", mem.Min/16, m.limit>>20).
			WithHint("link it with a smaller initial memory, or start executors with a larger --guest-memory")
	}
	select {
	case m.compile <- struct{}{}:
		defer func() { <-m.compile }()
	case <-ctx.Done():
		return nil, fault.From(ctx.Err())
	}
	defer func() {
		if p := recover(); p != nil {
			err = fault.Invalid.New("BAD_MODULE", "the module breaks the compiler: %v", p)
		}
	}()
	compiled, err := m.rt.CompileModule(ctx, wasm)
	if err != nil {
		return nil, fault.Invalid.New("BAD_MODULE", "the module does not compile: %v", err).
			WithHint("upload only knows a module's structure; build it again with a toolchain for wasm32-wasip1")
	}
	return &Module{m, compiled, info.Kind == prepare.Command}, nil
}

// Close frees the code once the last instance is gone.
func (mod *Module) Close(ctx context.Context) error { return mod.compiled.Close(ctx) }

// Params is what an instance gets besides its host functions.
type Params struct {
	Args           []string // argv, [0] included
	Env            [][2]string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	FS             fs.FS
}

// Exit is how a run ended.
type Exit struct {
	State      skein.CallState
	Code       int32 // 0–255
	Reason     string
	Message    string
	Backtrace  string // of the guest, after a trap
	MemoryPeak int64  // bytes
}

// Run makes an instance, runs it to its end and takes it down. ctx carries the deadline and is what host functions get;
// its cause, if it ends first, tells a cancelled call from an overdue one.
func (mod *Module) Run(ctx context.Context, p Params) Exit {
	mem := &allocator{m: mod.m}
	defer mem.free()
	code, err := mod.run(ctx, mem, p)
	exit := classify(ctx, code, err)
	exit.MemoryPeak = mem.peak
	if mem.refused && exit.State == skein.Failed {
		exit.Reason = "GUEST_MEMORY"
		exit.Message = fmt.Sprintf("the guest wanted more than its %d MiB of memory and failed: %s", mod.m.limit>>20, exit.Message)
	}
	return exit
}

func (mod *Module) run(ctx context.Context, mem *allocator, p Params) (_ uint32, err error) {
	defer func() { // the engine's own panics, such as when memory can't be reserved, end this call and no other
		if p := recover(); p != nil {
			err = Abort{fault.Internal.New("ENGINE", "the engine failed: %v", p)}
		}
	}()
	cfg := wazero.NewModuleConfig().
		WithName(""). // anonymous: instances of one module live side by side
		WithStartFunctions().
		WithArgs(p.Args...).
		WithStdin(p.Stdin).WithStdout(p.Stdout).WithStderr(p.Stderr).
		WithFSConfig(wazero.NewFSConfig().WithFSMount(p.FS, "/")).
		WithRandSource(rand.Reader).
		WithSysWalltime().WithSysNanotime().
		WithNanosleep(func(ns int64) { sleep(ctx, time.Duration(ns)) })
	for _, e := range p.Env {
		cfg = cfg.WithEnv(e[0], e[1])
	}
	inst, err := mod.m.rt.InstantiateModule(experimental.WithMemoryAllocator(ctx, mem), mod.compiled, cfg)
	if err != nil {
		return 0, err
	}
	defer func() { _ = inst.Close(context.WithoutCancel(ctx)) }()
	if mod.command {
		_, err := inst.ExportedFunction("_start").Call(ctx)
		return 0, err
	}
	if init := inst.ExportedFunction("_initialize"); init != nil {
		if _, err := init.Call(ctx); err != nil {
			return 0, err
		}
	}
	results, err := inst.ExportedFunction("handle").Call(ctx)
	if err != nil {
		return 0, err
	}
	return uint32(results[0]), nil
}

// sleep is poll_oneoff's. If the call ends first it ends the guest, which must not take it for a night's rest.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		panic(Abort{ctx.Err()})
	}
}

// Abort is panicked by a host function that can't go on: the call fails with it.
type Abort struct{ Err error }

func (a Abort) Error() string { return a.Err.Error() }
func (a Abort) Unwrap() error { return a.Err }

// classify turns what the engine says into how the call ended.
func classify(ctx context.Context, code uint32, err error) Exit {
	if ctx.Err() != nil && err != nil {
		return Interrupted(ctx)
	}
	if exit, ok := errors.AsType[*sys.ExitError](err); ok {
		code, err = exit.ExitCode(), nil
	}
	switch {
	case err == nil && code == 0:
		return Exit{State: skein.Succeeded}
	case err == nil:
		// The exit code is a byte, as everywhere; one that would read as success is not one.
		c := int32(code & 0xff)
		if c == 0 {
			c = 255
		}
		return Exit{State: skein.Failed, Code: c, Reason: "GUEST_EXIT", Message: fmt.Sprintf("the guest exited with code %d", c)}
	}
	if abort, ok := errors.AsType[Abort](err); ok {
		e := fault.From(abort.Err)
		return Exit{State: skein.Failed, Reason: e.Reason, Message: e.Message}
	}
	name, trace, _ := strings.Cut(err.Error(), "\n")
	name = strings.TrimPrefix(name, "wasm error: ")
	return Exit{State: skein.Failed, Reason: "GUEST_TRAP", Message: "the guest trapped: " + name, Backtrace: trace}
}

// ErrCancelled is the cause of a context that ended on request.
var ErrCancelled = errors.New("the call was cancelled")

// Interrupted is the end of a call whose context is done.
func Interrupted(ctx context.Context) Exit {
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, ErrCancelled):
		return Exit{State: skein.Cancelled, Reason: "CANCELLED", Message: "the call was cancelled"}
	case errors.Is(cause, context.DeadlineExceeded):
		return Exit{State: skein.TimedOut, Reason: "DEADLINE", Message: "the call's deadline passed"}
	}
	return Exit{State: skein.Failed, Reason: "EXECUTOR_LOST", Message: "the executor stopped: " + cause.Error()}
}
