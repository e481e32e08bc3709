package prepare

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// errOverdue ends a guest that has had its time.
var errOverdue = errors.New("overdue")

// bench holds what a module is tried on: the engine for prepared ones, and one that stops plain ones by the clock, slowly.
type bench struct {
	prepared *engine
	plain    wazero.Runtime
	left     int // yields until a guest is ended

	accepted, valid, ran, calls int
}

func newBench(t testing.TB) *bench {
	b := &bench{}
	b.prepared = newEngine(t, func() int32 {
		if b.left--; b.left < 0 {
			panic(errOverdue)
		}
		return int32(b.left*37%300 + MinFuel)
	})
	b.plain = wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfigCompiler().WithCoreFeatures(features).
		WithDebugInfoEnabled(false).WithCloseOnContextDone(true))
	t.Cleanup(func() { _ = b.plain.Close(context.Background()) })
	return b
}

// fuzzLimits keep what a mutated module may cost the engine small.
func fuzzLimits() Limits {
	l := DefaultLimits()
	l.ModuleBytes, l.MemoryPages, l.TableElements, l.Nesting, l.Targets, l.Locals, l.Flow = 64<<10, 64, 1<<12, 64, 256, 256, 10_000
	return l
}

// try holds a module against what Prepare promises: no panic, the same answer again, a size in proportion, valid whenever
// the module is, and the same results.
func (b *bench) try(t testing.TB, wasm []byte) {
	ctx := t.Context()
	p, err := Prepare(wasm, fuzzLimits())
	if err != nil {
		return
	}
	b.accepted++
	if again, _ := Prepare(wasm, fuzzLimits()); again == nil || !bytes.Equal(p.Wasm, again.Wasm) {
		t.Errorf("%x: not the same twice", wasm)
	}
	if len(p.Wasm) > 8*len(wasm)+1024 {
		t.Errorf("%x: %d bytes have become %d", wasm, len(wasm), len(p.Wasm))
	}
	plainCode, err := b.plain.CompileModule(ctx, wasm)
	if err != nil {
		return
	}
	defer plainCode.Close(ctx)
	b.valid++
	code, err := b.prepared.CompileModule(ctx, p.Wasm)
	if err != nil {
		t.Errorf("%x: prepared, it is invalid: %v", wasm, err)
		return
	}
	defer code.Close(ctx)
	if len(p.Module.Imports) == 0 {
		b.compare(t, wasm, p, plainCode)
	}
}

// compare calls what a module exports, prepared and plain. Guests that use up their yields say nothing.
func (b *bench) compare(t testing.TB, wasm []byte, p *Prepared, plainCode wazero.CompiledModule) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	b.left = 2000
	mod, err := b.prepared.boot(ctx, p, "")
	if err != nil {
		return
	}
	defer mod.Close(ctx)
	other, err := b.plain.InstantiateModule(ctx, plainCode, plain(""))
	if err != nil {
		t.Errorf("%x: instantiated only prepared: %v", wasm, err)
		return
	}
	defer other.Close(ctx)
	b.ran++
	calls := 0
	for _, e := range p.Module.Exports {
		if e.Kind != ExternFunc || calls == 8 {
			continue
		}
		calls++
		f := other.ExportedFunction(e.Name)
		args := arguments(f.Definition().ParamTypes(), uint64(calls))
		b.left = 500
		got, errB := mod.ExportedFunction(e.Name).Call(ctx, args...)
		if errors.Is(errB, errOverdue) {
			return
		}
		want, errA := f.Call(ctx, args...)
		b.calls++
		if cause(errA) != cause(errB) {
			t.Errorf("%x: %s(%v): %v, prepared: %v", wasm, e.Name, args, errA, errB)
			return
		}
		if errA == nil && !sameResults(f.Definition().ResultTypes(), want, got) {
			t.Errorf("%x: %s(%v): %#x, prepared %#x", wasm, e.Name, args, want, got)
		}
		if errA != nil && ctx.Err() != nil {
			return
		}
	}
}

func arguments(kinds []api.ValueType, seed uint64) (args []uint64) {
	for i, kind := range kinds {
		v := []uint64{0, 1, 7, 0x41000000, 1000}[(seed+uint64(i))%5]
		switch kind {
		case v128:
			args = append(args, v, v)
		case i32, i64, api.ValueTypeF32, f64:
			args = append(args, v)
		default:
			args = append(args, 0)
		}
	}
	return args
}

func sameResults(kinds []api.ValueType, a, b []uint64) bool {
	i := 0
	for _, kind := range kinds {
		for range map[bool]int{true: 2, false: 1}[kind == v128] {
			if !same(kind, a[i], b[i]) {
				return false
			}
			i++
		}
	}
	return true
}

// specModules are modules of the suite whose code has much to rewrite.
func specModules(t testing.TB) (list [][]byte) {
	dir := filepath.Join(wazeroDir(t), "internal/integration_test/spectest")
	for _, name := range []string{
		"v2/testdata/loop.0", "v2/testdata/block.0", "v2/testdata/br_table.0", "v2/testdata/br_if.0", "v2/testdata/if.0", "v2/testdata/call.0",
		"v2/testdata/call_indirect.0", "v2/testdata/fac.0", "v2/testdata/memory_copy.0", "v2/testdata/memory_fill.0", "v2/testdata/memory_init.0",
		"v2/testdata/table_copy.2", "v2/testdata/bulk.7", "v2/testdata/ref_func.1", "v2/testdata/global.0", "v2/testdata/simd_load.0",
		"v2/testdata/nop.0", "v2/testdata/labels.0", "v2/testdata/unwind.0", "v2/testdata/data.0", "v2/testdata/switch.0", "v2/testdata/float_exprs.60",
		"tail-call/testdata/return_call.0", "tail-call/testdata/return_call_indirect.0", "exception-handling/testdata/try_table.1",
		"typed-function-references/testdata/br_on_null.0", "typed-function-references/testdata/call_ref.0", "threads/testdata/atomic.0",
		"extended-const/testdata/data.1", "extended-const/testdata/global.0",
	} {
		wasm, err := os.ReadFile(filepath.Join(dir, name+".wasm"))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, wasm)
	}
	return list
}

// Mutants of real modules: the fuzz target goes on from here.
func TestPrepareMutants(t *testing.T) {
	b := newBench(t)
	random := rand.New(rand.NewPCG(3, 4))
	bases := append(append(specModules(t), seeds()[:2]...), buildC(t, "-O1", "-mbulk-memory"))
	rounds := 400
	if testing.Short() {
		rounds = 40
	}
	mutants := 0
	for _, base := range bases {
		b.try(t, base)
		for range rounds {
			m := append([]byte(nil), base...)
			for range 1 + random.IntN(2) {
				m[8+random.IntN(len(m)-8)] = byte(random.Uint32() >> random.IntN(8))
			}
			b.try(t, m)
			mutants++
		}
	}
	t.Logf("%d mutants of %d modules: %d accepted, %d valid, %d ran, %d calls compared", mutants, len(bases), b.accepted, b.valid, b.ran, b.calls)
	if !testing.Short() && (mutants < 5000 || b.valid < 1000 || b.calls < 1000) {
		t.Error("too few got so far as to mean something")
	}
}

func FuzzPrepare(f *testing.F) {
	for _, s := range append(seeds(), specModules(f)...) {
		f.Add(s)
	}
	f.Add(buildC(f, "-O1"))
	b := newBench(f)
	f.Fuzz(func(t *testing.T, wasm []byte) { b.try(t, wasm) })
}
