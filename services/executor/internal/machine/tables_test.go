package machine

import (
	"context"
	"strings"
	"testing"
	"unsafe"

	"github.com/tetratelabs/wazero"

	"skein.dev/platform/compile"
	"skein.dev/platform/prepare"
)

// The check of the engine's tables sees every way in which references could be wrong, and finds this engine right.
func TestCheckTables(t *testing.T) {
	ctx := t.Context()
	rt := wazero.NewRuntimeWithConfig(ctx, compile.Config())
	t.Cleanup(func() { _ = rt.Close(context.Background()) })
	if err := checkTables(ctx, rt); err == nil {
		t.Error("without yield there is nothing to check with")
	}
	if err := linkYield(ctx, rt); err != nil {
		t.Fatal(err)
	}
	if err := checkTables(ctx, rt); err != nil {
		t.Fatal(err)
	}
	code, err := rt.CompileModule(ctx, []byte(tablesProbe))
	if err != nil {
		t.Fatal(err)
	}
	inst, err := rt.InstantiateModule(ctx, code, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		t.Fatal(err)
	}
	in := look(inst)
	e := elements{own: 1, segments: []prepare.ElementSegment{{Table: 1, Offset: 1, Funcs: []uint32{2, prepare.NoFunc, 0, 1}}}}
	for name, spoil := range map[string]func(list []reference){
		"code":             func(list []reference) { list[0].code++ },
		"context":          func(list []reference) { list[0].context = 1 },
		"imported context": func(list []reference) { list[2].context = 0 },
		"type":             func(list []reference) { list[3].kind++ },
		"index":            func(list []reference) { list[3].index++ },
		"swapped":          func(list []reference) { list[0], list[3] = list[3], list[0] },
		"null":             func(list []reference) { list[1] = list[0] },
		"not null":         func(list []reference) { list[0] = reference{} },
	} {
		list := e.template(in)
		if err := e.sameAs(in, list); err != nil {
			t.Fatal(err)
		}
		spoil(list)
		if err := e.sameAs(in, list); err == nil {
			t.Errorf("%s: it is not seen", name)
		}
	}
}

type otherEngine struct{ localFunctionInstances []*otherFunction }

type otherFunction struct {
	executable             *byte
	typeID, indexInModule  uint32
	moduleContextOpaquePtr *byte
}

func (e *otherEngine) FunctionInstanceReference(uint32) uintptr {
	return uintptr(unsafe.Pointer(e.localFunctionInstances[0]))
}

func TestUnknownLayout(t *testing.T) {
	err := knownLayout(inside{functions: &otherEngine{[]*otherFunction{{}}}})
	if err == nil || !strings.Contains(err.Error(), "field 1") {
		t.Error(err)
	}
}
