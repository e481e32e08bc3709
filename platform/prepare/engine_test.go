package prepare

import (
	"context"
	"crypto/rand"
	"errors"
	"reflect"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

// The tests run prepared modules as the machine does, on the engine it uses.

const features = api.CoreFeaturesV2 | experimental.CoreFeaturesThreads | experimental.CoreFeaturesTailCall |
	experimental.CoreFeaturesExtendedConst | experimental.CoreFeaturesExceptionHandling | experimental.CoreFeaturesTypedFunctionReferences

// engine is a runtime with the host module of interruption points.
type engine struct {
	wazero.Runtime
	yields int
	refill func() int32 // what a yield answers; it may panic to end the guest
}

func newEngine(t testing.TB, refill func() int32) *engine {
	t.Helper()
	e := &engine{refill: refill}
	e.Runtime = wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfigCompiler().WithCoreFeatures(features).WithDebugInfoEnabled(false))
	t.Cleanup(func() { _ = e.Close(context.Background()) })
	_, err := e.NewHostModuleBuilder(YieldFrom).NewFunctionBuilder().
		WithGoFunction(api.GoFunc(func(_ context.Context, stack []uint64) {
			e.yields++
			stack[0] = api.EncodeI32(e.refill())
		}), nil, []api.ValueType{api.ValueTypeI32}).Export(YieldName).Instantiate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func plain(name string) wazero.ModuleConfig {
	return wazero.NewModuleConfig().WithName(name).WithStartFunctions().WithRandSource(rand.Reader)
}

// boot makes an instance of a prepared module, as the machine does: memory from the image, then the start function.
func (e *engine) boot(ctx context.Context, p *Prepared, name string) (api.Module, error) {
	compiled, err := e.CompileModule(ctx, p.Wasm)
	if err != nil {
		return nil, err
	}
	if m := p.Module.Memory; m != nil && !m.Shared {
		ctx = experimental.WithMemoryAllocator(ctx, bounded{uint64(p.MaxPages)})
	}
	mod, err := e.InstantiateModule(ctx, compiled, plain(name))
	if err != nil {
		return nil, err
	}
	fillTables(mod, p.Elements)
	for _, s := range p.Image {
		if !mod.Memory().Write(s.Offset, s.Data) {
			return nil, errors.New("a segment lies outside the memory")
		}
	}
	mod.ExportedGlobal(FuelName).(api.MutableGlobal).Set(api.EncodeI32(e.refill()))
	if start := mod.ExportedFunction(StartName); start != nil {
		if _, err := start.Call(ctx); err != nil {
			return nil, errors.Join(err, mod.Close(ctx))
		}
	}
	return mod, nil
}

// fillTables does what the active element segments did, with references that the engine makes.
func fillTables(mod api.Module, segments []ElementSegment) {
	v := reflect.ValueOf(mod).Elem()
	engine := v.FieldByName("Engine").Interface().(interface{ FunctionInstanceReference(index uint32) uintptr })
	for _, s := range segments {
		references := v.FieldByName("Tables").Index(int(s.Table)).Elem().FieldByName("References").Interface().([]uintptr)
		for i, f := range s.Funcs {
			references[int(s.Offset)+i] = 0
			if f != NoFunc {
				references[int(s.Offset)+i] = engine.FunctionInstanceReference(f)
			}
		}
	}
}

// bounded allocates memories of at most so many pages: it keeps the maximum that a prepared module doesn't declare.
type bounded struct{ pages uint64 }

func (b bounded) Allocate(_, _ uint64) experimental.LinearMemory {
	return &memory{most: b.pages * pageSize}
}

type memory struct {
	most uint64
	b    []byte
}

func (m *memory) Reallocate(size uint64) []byte {
	if size > m.most {
		return nil
	}
	if size > uint64(len(m.b)) {
		m.b = append(m.b, make([]byte, size-uint64(len(m.b)))...)
	}
	return m.b[:size]
}

func (m *memory) Free() {}
