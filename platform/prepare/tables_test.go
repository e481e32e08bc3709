package prepare

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"skein.dev/platform/fault"
)

// withTables has an imported function, three functions of two types, and these tables and element segments.
func withTables(globals []byte, tables, elements [][]byte, code ...byte) []byte {
	return wasmOf(
		types(ftype(nil, nil), ftype([]byte{i32}, nil)),
		section(secImport, vec(imp("a", "b", 0, 0))),
		section(secFunction, vec([]byte{0}, []byte{0}, []byte{1})),
		section(secTable, vec(tables...)),
		globals,
		section(secElement, vec(elements...)),
		section(secCode, vec(body(noLocals), body(noLocals, code...), body(noLocals))),
	)
}

// Segments are lifted whatever their form, with functions numbered as they are in the prepared module, and the sections of
// what is left keep their numbers.
func TestTables(t *testing.T) {
	ten, typed, extern := []byte{funcref, 0, 10}, []byte{0x63, 0, 0, 10}, []byte{0x6f, 0, 10}
	funcGlobal := section(secGlobal, vec([]byte{funcref, 0, 0xd2, 1, 0x0b}, []byte{i32, 0, 0x41, 4, 0x0b}))
	indices := func(table uint32, offset uint32, f ...uint32) ElementSegment { return ElementSegment{table, offset, f} }
	for _, c := range []struct {
		name     string
		globals  []byte
		tables   [][]byte
		elements [][]byte
		want     []ElementSegment
	}{
		{"indices", nil, [][]byte{ten}, [][]byte{{0, 0x41, 7, 0x0b, 3, 0, 1, 3}}, []ElementSegment{indices(0, 7, 0, 2, 4)}},
		{"of a named table", nil, [][]byte{ten, ten}, [][]byte{{2, 1, 0x41, 1, 0x0b, 0, 1, 2}}, []ElementSegment{indices(1, 1, 3)}},
		{"expressions", nil, [][]byte{ten}, [][]byte{{4, 0x41, 0, 0x0b, 2, 0xd2, 1, 0x0b, 0xd0, 0x70, 0x0b}}, []ElementSegment{indices(0, 0, 2, NoFunc)}},
		{"expressions of a named table", nil, [][]byte{ten}, [][]byte{{6, 0, 0x41, 0, 0x0b, funcref, 1, 0xd2, 0, 0x0b}}, []ElementSegment{indices(0, 0, 0)}},
		{"calculated offset", funcGlobal, [][]byte{ten}, [][]byte{{0, 0x23, 1, 0x41, 2, 0x6a, 0x0b, 1, 1}}, []ElementSegment{indices(0, 6, 2)}},
		{"none", nil, [][]byte{ten}, [][]byte{{0, 0x41, 10, 0x0b, 0}}, nil},
		{
			"several", nil,
			[][]byte{ten, ten},
			[][]byte{{0, 0x41, 0, 0x0b, 1, 1}, {1, 0, 1, 3}, {2, 1, 0x41, 0, 0x0b, 0, 1, 2}, {3, 0, 1, 1}, {0, 0x41, 0, 0x0b, 1, 0}},
			[]ElementSegment{indices(0, 0, 2), indices(1, 0, 3), indices(0, 0, 0)},
		},
		{
			"from a global", funcGlobal,
			[][]byte{ten, ten},
			[][]byte{{4, 0x41, 0, 0x0b, 1, 0x23, 0, 0x0b}, {0, 0x41, 0, 0x0b, 1, 1}, {2, 1, 0x41, 0, 0x0b, 0, 1, 1}},
			[]ElementSegment{indices(1, 0, 2)},
		},
		{"of one type", nil, [][]byte{typed}, [][]byte{{0, 0x41, 0, 0x0b, 1, 1}}, nil},
		{"of no functions", nil, [][]byte{extern}, [][]byte{{6, 0, 0x41, 0, 0x0b, 0x6f, 1, 0xd0, 0x6f, 0x0b}}, nil},
		{"two in one", nil, [][]byte{ten}, [][]byte{{4, 0x41, 0, 0x0b, 1, 0xd2, 1, 0xd2, 1, 0x0b}}, nil},
		{"no offset", nil, [][]byte{ten}, [][]byte{{0, 0x42, 0, 0x0b, 1, 1}}, nil},
		{"table of a value", nil, [][]byte{{0x40, 0, funcref, 0, 10, 0xd2, 1, 0x0b}}, [][]byte{{0, 0x41, 0, 0x0b, 1, 1}}, nil},
	} {
		p, err := Prepare(withTables(c.globals, c.tables, c.elements), DefaultLimits())
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if !reflect.DeepEqual(p.Elements, c.want) {
			t.Errorf("%s: %v, want %v", c.name, p.Elements, c.want)
		}
		again, err := parse(p.Wasm, &[]Limits{DefaultLimits()}[0])
		if err != nil {
			t.Errorf("%s: prepared: %v", c.name, err)
			continue
		}
		active := func(list []elements) (n int) {
			for _, e := range list {
				if e.active && len(e.funcs) > 0 {
					n++
				}
			}
			return n
		}
		before, err := parse(withTables(c.globals, c.tables, c.elements), &[]Limits{DefaultLimits()}[0])
		if err != nil {
			t.Fatal(err)
		}
		if len(again.layout.elements) != len(c.elements) || active(again.layout.elements)+len(c.want) != active(before.layout.elements) {
			t.Errorf("%s: %d segments, %d of them active", c.name, len(again.layout.elements), active(again.layout.elements))
		}
	}
}

// What the engine refuses of active segments it refuses still: a reference of another type in a table would be called
// without a check.
func TestTablesAreSafe(t *testing.T) {
	e := newEngine(t, func() int32 { return MaxFuel })
	if _, err := e.NewHostModuleBuilder("a").NewFunctionBuilder().WithFunc(func() {}).Export("b").Instantiate(t.Context()); err != nil {
		t.Fatal(err)
	}
	typed := [][]byte{{0x63, 0, 0, 10}}
	for name, wasm := range map[string][]byte{
		"any function":         withTables(nil, typed, [][]byte{{0, 0x41, 0, 0x0b, 1, 3}}),
		"function as a host's": withTables(nil, [][]byte{{0x6f, 0, 10}}, [][]byte{{0, 0x41, 0, 0x0b, 1, 1}}),
		"host's as a function": withTables(nil, [][]byte{{funcref, 0, 10}}, [][]byte{{6, 0, 0x41, 0, 0x0b, 0x6f, 1, 0xd0, 0x6f, 0x0b}}),
		"null of a host's":     withTables(nil, [][]byte{{funcref, 0, 10}}, [][]byte{{4, 0x41, 0, 0x0b, 1, 0xd0, 0x6f, 0x0b}}),
	} {
		p, err := Prepare(wasm, DefaultLimits())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		_, plain := e.CompileModule(t.Context(), wasm)
		if _, err := e.CompileModule(t.Context(), p.Wasm); plain == nil || err == nil || len(p.Elements) > 0 {
			t.Errorf("%s: %v, prepared: %v %v", name, plain, err, p.Elements)
		}
	}
}

func TestElementsOutside(t *testing.T) {
	for _, offset := range [][]byte{{8}, {11}, {0x7f}, {0xff, 0xff, 0xff, 0xff, 7}} {
		segment := slices.Concat([]byte{0, 0x41}, offset, []byte{0x0b, 3, 1, 1, 1})
		_, err := Prepare(withTables(nil, [][]byte{{funcref, 0, 10}}, [][]byte{segment}), DefaultLimits())
		if f := fault.From(err); err == nil || f.Reason != "BAD_MODULE" || !strings.Contains(f.Message, "outside its table, which begins with 10") {
			t.Errorf("%x: %+v", offset, err)
		}
	}
}
