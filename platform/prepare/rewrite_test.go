package prepare

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"skein.dev/abi"
	"skein.dev/platform/fault"
)

// rich is a module with something in every section.
func rich() []byte {
	return wasmOf(
		custom("producers", 1, 2, 3), custom("dylink.0", 1, 0),
		types(ftype(nil, nil), ftype(nil, []byte{i32})),
		section(secImport, vec(imp("faasm", "f", 0, 0))),
		section(secFunction, vec([]byte{1}, []byte{0})),
		section(secTable, vec([]byte{funcref, 1, 2, 4})),
		section(secMemory, vec([]byte{1, 1, 9})),
		section(secGlobal, vec(
			[]byte{i32, 0, 0x41, 0x10, 0x0b},
			[]byte{i64, 1, 0x42, 5, 0x0b},
			[]byte{funcref, 0, 0xd2, 1, 0x0b},
			[]byte{i32, 0, 0x41, 0x10, 0x41, 3, 0x6c, 0x0b}, // 16 * 3
			[]byte{f64, 1, 0x44, 0, 0, 0, 0, 0, 0, 0, 0, 0x0b},
		)),
		section(secExport, vec(export("handle", 0, 1), export("memory", 2, 0))),
		section(secStart, u(2)),
		section(secElement, vec([]byte{0, 0x41, 0, 0x0b, 2, 1, 2})),
		section(secCode, vec(
			body(noLocals, 0x41, 0, 0x2d, 0, 0),                            // the byte at 0
			body(noLocals, 0x41, 0, 0x41, 7, 0x3a, 0, 0, 0x42, 9, 0x24, 1), // stores 7 there, and 9 in global 1
		)),
		section(secData, vec(
			[]byte{0, 0x41, 4, 0x0b, 2, 'a', 'b'},
			[]byte{0, 0x23, 3, 0x41, 1, 0x6b, 0x0b, 1, 'c'}, // at 47
			[]byte{0, 0x41, 5, 0x0b, 1, 'd'},
			[]byte{0, 0x41, 0x80, 0x80, 4, 0x0b, 0}, // nothing, at the memory's end
		)),
		custom("name", cat([]byte{0, 2}, str("m"), []byte{1, 10}, vec(cat([]byte{0}, str("f")), cat([]byte{1}, str("h")), cat([]byte{2}, str("s"))), []byte{2, 1, 0})...),
		custom(".debug_info", 1, 2),
	)
}

func TestPrepare(t *testing.T) {
	p, err := Prepare(rich(), DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	if want := []Segment{{4, []byte("ab")}, {47, []byte("c")}, {5, []byte("d")}}; !reflect.DeepEqual(p.Image, want) {
		t.Errorf("image %v, want %v", p.Image, want)
	}
	if want := []Global{{"skein:global1", abi.I64}, {"skein:global4", abi.F64}}; !reflect.DeepEqual(p.Globals, want) {
		t.Errorf("globals %v, want %v", p.Globals, want)
	}
	if p.MaxPages != 9 || p.Deep || p.Module.Size != len(rich()) || !p.Module.HasStart {
		t.Errorf("%+v", p)
	}
	// What was made is a module that Inspect takes.
	m, err := Inspect(p.Wasm, DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	if m.HasStart || m.Memory.HasMax || m.Data != 0 || !m.Flags.Dylink || !m.Flags.Names || m.Flags.Debug {
		t.Errorf("%+v", m)
	}
	if last := m.Imports[len(m.Imports)-1]; last.Module != YieldFrom || last.Name != YieldName || !last.Type.Equal(abi.Signature{Results: []abi.ValueType{abi.I32}}) {
		t.Errorf("last import %v", last)
	}
	if start, ok := m.Export(StartName); !ok || start.Index != 3 {
		t.Errorf("start %+v", start)
	}
	if fuel, ok := m.Export(FuelName); !ok || fuel.Kind != ExternGlobal || fuel.Index != 5 {
		t.Errorf("fuel %+v", fuel)
	}
	if !bytes.Contains(p.Wasm, append([]byte{2}, "\x01h\x03\x01s"...)) || !bytes.Contains(p.Wasm, []byte("skein:slow_entry")) {
		t.Errorf("no names of functions in their new places: %q", p.Wasm)
	}
	if bytes.Contains(p.Wasm, []byte("producers")) || !bytes.HasPrefix(p.Wasm[14:], []byte("\x08dylink.0")) {
		t.Errorf("custom sections: %q", p.Wasm[:40])
	}

	e := newEngine(t, func() int32 { return MinFuel })
	if _, err := e.NewHostModuleBuilder("faasm").NewFunctionBuilder().WithFunc(func() {}).Export("f").Instantiate(t.Context()); err != nil {
		t.Fatal(err)
	}
	mod, err := e.boot(t.Context(), p, "")
	if err != nil {
		t.Fatal(err)
	}
	if v, err := mod.ExportedFunction("handle").Call(t.Context()); err != nil || v[0] != 7 {
		t.Errorf("%v %v: the start function did not run", v, err)
	}
	if b, _ := mod.Memory().Read(4, 2); string(b) != "ad" {
		t.Errorf("memory has %q", b)
	}
	if v := mod.ExportedGlobal("skein:global1").Get(); v != 9 {
		t.Errorf("global 1 is %d", v)
	}
}

// What makes an instance serve one call.
func TestDeep(t *testing.T) {
	for name, c := range map[string]struct {
		wasm []byte
		want bool
	}{
		"nothing":     {code(0x01), false},
		"memory.init": {code(0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 8, 0, 0), false},
		"data.drop":   {code(0xfc, 9, 0), true},
		"elem.drop":   {code(0xfc, 0x0d, 0), true},
		"table.set":   {code(0x41, 0, 0xd0, funcref, 0x26, 0), true},
		"v128 global": {wasmOf(section(secGlobal, vec(cat([]byte{v128, 1, 0xfd, 0x0c}, times(16, 0), []byte{0x0b})))), true},
		"constant":    {wasmOf(section(secGlobal, vec(cat([]byte{v128, 0, 0xfd, 0x0c}, times(16, 0), []byte{0x0b})))), false},
	} {
		p, err := Prepare(c.wasm, DefaultLimits())
		if err != nil || p.Deep != c.want {
			t.Errorf("%s: %v, deep is %v", name, err, !c.want)
		}
	}
}

func TestPrepareRefused(t *testing.T) {
	memory := section(secMemory, vec([]byte{0, 1}))
	for _, c := range []struct {
		name string
		wasm []byte
		text string
	}{
		{"not a module", []byte("hello, world"), "text"},
		{"data outside", wasmOf(memory, section(secData, vec(cat([]byte{0, 0x41}, signed(nil, 65535), []byte{0x0b, 2, 1, 2})))), "reaches up to 0x10001"},
		{"nothing outside", wasmOf(memory, section(secData, vec(cat([]byte{0, 0x41}, signed(nil, 65537), []byte{0x0b, 0})))), "--initial-memory"},
		{"data far outside", wasmOf(memory, section(secData, vec([]byte{0, 0x41, 0x7f, 0x0b, 1, 1}))), "0x100000000"},
		{"offset of an imported global", wasmOf(section(secImport, vec(imp("env", "__memory_base", 3, i32, 0))), memory,
			section(secData, vec([]byte{0, 0x23, 0, 0x41, 1, 0x6a, 0x0b, 0}))), "imported global"},
		{"offset of a variable", wasmOf(memory, section(secGlobal, vec([]byte{i32, 1, 0x41, 0, 0x0b})), section(secData, vec([]byte{0, 0x23, 0, 0x0b, 0}))), "constant i32"},
		{"offset of another type", wasmOf(memory, section(secData, vec([]byte{0, 0x42, 0, 0x0b, 0}))), "constant i32"},
		{"no offset", wasmOf(memory, section(secData, vec([]byte{0, 0x0b, 0}))), "constant i32"},
		{"sum of one", wasmOf(memory, section(secData, vec([]byte{0, 0x41, 0, 0x6a, 0x0b, 0}))), "constant i32"},
		{"import of ours", wasmOf(types(ftype(nil, nil)), section(secImport, vec(imp(YieldFrom, YieldName, 0, 0)))), "reserved"},
		{"import named like ours", wasmOf(types(ftype(nil, nil)), section(secImport, vec(imp("env", "skein:x", 0, 0)))), "reserved"},
		{"export of ours", wasmOf(memory, section(secExport, vec(export(FuelName, 2, 0)))), "reserved"},
	} {
		_, err := Prepare(c.wasm, DefaultLimits())
		f := fault.From(err)
		if err == nil || !errors.Is(err, fault.Invalid) || f.Reason != "BAD_MODULE" || !strings.Contains(f.Message+" — "+f.Hint, c.text) || f.Hint == "" {
			t.Errorf("%s: want %q, got %+v", c.name, c.text, f)
		}
	}
	loops := body(noLocals, slices.Repeat([]byte{0x03, 0x40, 0x0b}, 300_000)...)
	_, err := Prepare(wasmOf(types(ftype(nil, nil)), section(secFunction, vec([]byte{0}, []byte{0})), section(secCode, vec(loops, loops))), DefaultLimits())
	if f := fault.From(err); err == nil || f.Reason != "MODULE_LIMIT" || !strings.Contains(f.Message, "interruption points") {
		t.Errorf("nothing but loops: %v", err)
	}
	again, err := Prepare(rich(), DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Prepare(again.Wasm, DefaultLimits()); err == nil || !strings.Contains(fault.From(err).Hint, "already") {
		t.Errorf("prepared twice: %v", err)
	}
}

// Segments keep their numbers for code that reads them, and what memory.init finds in one that was active is what it found
// before: nothing.
func TestDataNumbers(t *testing.T) {
	wasm := wasmOf(
		types(ftype([]byte{i32}, nil), ftype(nil, nil)),
		section(secFunction, vec([]byte{0}, []byte{1})),
		section(secMemory, vec([]byte{0, 1})),
		section(secExport, vec(export("active", 0, 0), export("passive", 0, 1))),
		section(secDataCount, u(2)),
		section(secCode, vec(
			body(noLocals, 0x41, 0, 0x41, 0, 0x20, 0, 0xfc, 8, 0, 0),
			body(noLocals, 0x41, 0, 0x41, 1, 0x41, 1, 0xfc, 8, 1, 0))),
		section(secData, vec([]byte{0, 0x41, 8, 0x0b, 1, 'a'}, []byte{1, 2, 'x', 'y'})),
	)
	p, err := Prepare(wasm, DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	mod, err := newEngine(t, func() int32 { return MinFuel }).boot(t.Context(), p, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mod.ExportedFunction("active").Call(t.Context(), 0); err != nil {
		t.Error(err)
	}
	if _, err := mod.ExportedFunction("active").Call(t.Context(), 1); !strings.Contains(cause(err), "out of bounds") {
		t.Error(err)
	}
	if _, err := mod.ExportedFunction("passive").Call(t.Context()); err != nil {
		t.Error(err)
	}
	if b, _ := mod.Memory().Read(0, 9); string(b) != "y\x00\x00\x00\x00\x00\x00\x00a" {
		t.Errorf("memory has %q", b)
	}
}

// Fills and copies in pieces do what they would in one: overlapping, at the edges, and nothing at all when out of bounds.
func TestBulk(t *testing.T) {
	const pages = 32
	get := []byte{0x20, 0, 0x20, 1, 0x20, 2}
	wasm := wasmOf(
		types(ftype([]byte{i32, i32, i32}, nil)),
		section(secFunction, vec([]byte{0}, []byte{0})),
		section(secMemory, vec([]byte{0, pages})),
		section(secExport, vec(export("fill", 0, 0), export("copy", 0, 1))),
		section(secCode, vec(body(noLocals, append(get, 0xfc, 0x0b, 0)...), body(noLocals, append(get, 0xfc, 0x0a, 0, 0)...))),
	)
	p, err := Prepare(wasm, DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	a, b := newEngine(t, func() int32 { return 0 }), newEngine(t, func() int32 { return MinFuel })
	plainMod, err := a.InstantiateWithConfig(t.Context(), wasm, plain(""))
	if err != nil {
		t.Fatal(err)
	}
	prepared, err := b.boot(t.Context(), p, "")
	if err != nil {
		t.Fatal(err)
	}
	const size = pages * pageSize
	pattern := make([]byte, size)
	for i := 0; i < size; i += 4 {
		binary.LittleEndian.PutUint32(pattern[i:], uint32(i)*2654435761)
	}
	lengths := []uint64{0, 1, smallBulk, smallBulk + 1, piece - 1, piece, piece + 1, 2 * piece, 2*piece + 7, size - 1, size, size + 1, 1<<32 - 1}
	places := []uint64{0, 1, piece - 3, piece, size - 2*piece - 7, size - 1, size, 1<<32 - 1}
	for _, name := range []string{"fill", "copy"} {
		for _, n := range lengths {
			for _, d := range places {
				for _, s := range places {
					plainMod.Memory().Write(0, pattern)
					prepared.Memory().Write(0, pattern)
					_, errA := plainMod.ExportedFunction(name).Call(t.Context(), d, s, n)
					_, errB := prepared.ExportedFunction(name).Call(t.Context(), d, s, n)
					want, _ := plainMod.Memory().Read(0, size)
					got, _ := prepared.Memory().Read(0, size)
					if cause(errA) != cause(errB) || !bytes.Equal(want, got) {
						t.Fatalf("%s(%d, %d, %d): %v, prepared: %v, same memory: %v", name, d, s, n, errA, errB, bytes.Equal(want, got))
					}
				}
			}
		}
	}
	if b.yields == 0 {
		t.Error("no yield")
	}
}
