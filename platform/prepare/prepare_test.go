package prepare

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"skein.dev"
	"skein.dev/platform/fault"
)

// check is what an upload asks of a module.
func check(wasm []byte, limits Limits) (*Module, error) {
	m, err := Inspect(wasm, limits)
	if err == nil {
		err = CheckEntry(m)
	}
	if err == nil {
		err = CheckImports(m)
	}
	return m, err
}

func TestRefused(t *testing.T) {
	fn := section(secFunction, vec([]byte{0}))
	void := types(ftype(nil, nil))
	start := section(secExport, vec(export("_start", 0, 0)))
	end := section(secCode, vec(body(noLocals)))
	for _, c := range []struct {
		name   string
		wasm   []byte
		reason string
		text   string // part of message or hint
	}{
		{"empty", nil, "BAD_MODULE", "it is empty"},
		{"one byte", []byte{0}, "BAD_MODULE", "truncated"},
		{"half a header", []byte("\x00asm\x01\x00"), "BAD_MODULE", "truncated"},
		{"magic and junk", []byte("\x00asm\x09"), "BAD_MODULE", "truncated"},
		{"gzip", []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00"), "BAD_MODULE", "a gzip file"},
		{"elf", []byte("\x7fELF\x02\x01\x01\x00"), "BAD_MODULE", "an ELF binary"},
		{"zip", []byte("PK\x03\x04\x14\x00"), "BAD_MODULE", "a zip file"},
		{"text", []byte("hello, world\n"), "BAD_MODULE", "it is text"},
		{"long text", []byte(strings.Repeat("é", 600)), "BAD_MODULE", "it is text"},
		{"wat", []byte("  (module (func))"), "BAD_MODULE", "wat2wasm"},
		{"binary", []byte{0xff, 0xfe, 0x01, 0x00, 0x99}, "BAD_MODULE", "some other kind"},
		{"component", []byte("\x00asm\x0d\x00\x01\x00\x07\x00"), "MODULE_IS_COMPONENT", "wasm32-wasip1"},
		{"version 2", []byte("\x00asm\x02\x00\x00\x00"), "BAD_MODULE", "version"},

		{"no entry", wasmOf(), "NO_ENTRY", "_start"},
		{"library", wasmOf(custom("dylink.0")), "NO_ENTRY", "dlopen"},
		{"start takes an argument", wasmOf(types(ftype([]byte{i32}, nil)), fn, start, end), "ABI_MISMATCH", "(i32), not ()"},
		{"start is a memory", wasmOf(section(secMemory, vec([]byte{0, 1})), section(secExport, vec(export("_start", 2, 0)))), "ABI_MISMATCH", "memory"},
		{"handle without result", wasmOf(void, fn, section(secExport, vec(export("handle", 0, 0))), end), "ABI_MISMATCH", "() -> i32"},
		{"initialize with result", wasmOf(types(ftype(nil, []byte{i32})), fn, section(secExport, vec(export("handle", 0, 0), export("_initialize", 0, 0))), section(secCode, vec(body(noLocals, 0x41, 0)))), "ABI_MISMATCH", "_initialize"},
		{"restored with result", wasmOf(types(ftype(nil, []byte{i32})), fn, section(secExport, vec(export("handle", 0, 0), export("skein_restored", 0, 0))), section(secCode, vec(body(noLocals, 0x41, 0)))), "ABI_MISMATCH", "skein_restored has type () -> i32, not ()"},
		{"init without result", wasmOf(void, fn, section(secExport, vec(export("_start", 0, 0), export("skein_init", 0, 0))), end), "ABI_MISMATCH", "skein_init has type (), not () -> i32"},
		{"zygote without result", wasmOf(void, fn, section(secExport, vec(export("_start", 0, 0), export("_faasm_zygote", 0, 0))), end), "ABI_MISMATCH", "another name"},
		{"init is a memory", wasmOf(void, fn, section(secMemory, vec([]byte{0, 1})), section(secExport, vec(export("_start", 0, 0), export("skein_init", 2, 0))), end), "ABI_MISMATCH", "skein_init is a memory"},

		{"section kind", wasmOf([]byte{14, 0}), "BAD_MODULE", "section of unknown kind 14"},
		{"section truncated", wasmOf([]byte{1, 9, 1}), "BAD_MODULE", "truncated: its type section has 9 bytes, of which 1 are there"},
		{"section size cut", wasmOf([]byte{1, 0x80}), "BAD_MODULE", "truncated"},
		{"sections swapped", wasmOf(section(secMemory, vec([]byte{0, 1})), void), "BAD_MODULE", "out of order"},
		{"section twice", wasmOf(void, void), "BAD_MODULE", "there are two"},
		{"section too long", wasmOf(section(secType, []byte{0, 0})), "BAD_MODULE", "1 bytes longer"},
		{"long integer", wasmOf([]byte{1, 0x80, 0x80, 0x80, 0x80, 0x10}), "BAD_MODULE", "longer than 32 bits"},
		{"longer integer", wasmOf([]byte{1, 0x80, 0x80, 0x80, 0x80, 0x80, 0}), "BAD_MODULE", "longer than 32 bits"},
		{"types that are not there", wasmOf(section(secType, u(40_000))), "BAD_MODULE", "40000 function types are announced"},
		{"gc type", wasmOf(types([]byte{0x5f, 0})), "BAD_MODULE", "garbage-collected"},
		{"value type", wasmOf(types(ftype([]byte{0x11}, nil))), "BAD_MODULE", "value type 0x11"},
		{"memory64", wasmOf(section(secMemory, vec([]byte{4, 1}))), "BAD_MODULE", "wasm32"},
		{"two memories", wasmOf(section(secMemory, vec([]byte{0, 1}, []byte{0, 1}))), "BAD_MODULE", "more than one memory"},
		{"max below min", wasmOf(section(secMemory, vec([]byte{1, 2, 1}))), "BAD_MODULE", "below the minimum"},
		{"shared without max", wasmOf(section(secMemory, vec([]byte{2, 1}))), "BAD_MODULE", "--max-memory"},
		{"function without code", wasmOf(void, fn), "BAD_MODULE", "declares 1 functions and has code for 0"},
		{"code without function", wasmOf(end), "BAD_MODULE", "declares 0 functions and has code for 1"},
		{"export of nothing", wasmOf(start), "BAD_MODULE", "function 0 of 0"},
		{"export twice", wasmOf(void, fn, section(secExport, vec(export("a", 0, 0), export("a", 0, 0))), end), "BAD_MODULE", "two exports"},
		{"name is not UTF-8", wasmOf(section(secExport, vec(export("\xff", 0, 0)))), "BAD_MODULE", "UTF-8"},
		{"start function type", wasmOf(types(ftype([]byte{i32}, nil)), fn, section(secStart, u(0)), end), "BAD_MODULE", "start function"},
		{"data count", wasmOf(section(secDataCount, u(1))), "BAD_MODULE", "announces 1 data segments and has 0"},
		{"data without memory", wasmOf(section(secData, vec([]byte{0, 0x41, 0, 0x0b, 0}))), "BAD_MODULE", "without a memory"},
		{"loop in a constant", wasmOf(section(secGlobal, vec([]byte{i32, 0, 0x03, 0x40, 0x0b, 0x0b}))), "BAD_MODULE", "constant expression"},
		{"names that are not there", wasmOf(custom("name", 1, 5, 0xff, 0xff, 0xff, 0xff, 0x0f)), "MODULE_LIMIT", "4294967295 entries of the name section"},
		{"fewer names", wasmOf(custom("name", 1, 3, 0x80, 0x80, 1)), "BAD_MODULE", "announced"},
		{"names twice", wasmOf(custom("name"), custom("name")), "BAD_MODULE", "two name sections"},
		{"names too long", wasmOf(custom("name", 1, 2, 0, 0)), "BAD_MODULE", "not well formed"},

		{"opcode", code(0xc5), "BAD_MODULE", "unknown instruction 0xc5"},
		{"opcode misc", code(0xfc, 0x12), "BAD_MODULE", "unknown instruction 0xfc12"},
		{"opcode vector", code(0xfd, 0x9a, 0x01), "BAD_MODULE", "unknown instruction 0xfd9a"},
		{"opcode atomic", code(0xfe, 0x4f), "BAD_MODULE", "unknown instruction 0xfe4f"},
		{"relaxed simd", code(0xfd, 0x80, 0x02), "BAD_MODULE", "relaxed SIMD"},
		// wazero takes 0xfd 0x8c for i16x8.shr_s, whatever follows.
		{"vector opcode in two bytes", code(0xfd, 0x8c, 0x00), "BAD_MODULE", "longer than it need be"},
		{"legacy try", code(0x06, 0x40, 0x0b), "BAD_MODULE", "wasm-opt --translate-to-exnref"},
		{"no end", wasmOf(void, fn, section(secCode, vec([]byte{2, 0, 1}))), "BAD_MODULE", "truncated"},
		{"code after the end", code(0x0b, 0x01), "BAD_MODULE", "longer than its code"},
		{"open block", code(0x02, 0x40), "BAD_MODULE", "truncated"},
		{"else without if", code(0x02, 0x40, 0x05, 0x0b), "BAD_MODULE", "else without an if"},
		{"two elses", code(0x04, 0x40, 0x05, 0x05, 0x0b), "BAD_MODULE", "else without an if"},
		{"label", code(0x0c, 1), "BAD_MODULE", "label 1 of 1"},
		{"local", code(0x20, 0), "BAD_MODULE", "local 0 of 0"},
		{"call", code(0x10, 7), "BAD_MODULE", "function 7 of 1"},
		{"block type", code(0x02, 9, 0x0b), "BAD_MODULE", "block type 9 of 2"},
		{"alignment", code(0x28, 3, 0), "BAD_MODULE", "alignment 2^3"},
		{"second memory", code(0x28, 0x42, 0, 0), "BAD_MODULE", "more than one memory"},
		{"memory.grow of another", code(0x40, 1), "BAD_MODULE", "more than one memory"},
		{"lane", code(0xfd, 0x15, 16), "BAD_MODULE", "lane 16 of 16"},
		{"shuffle lane", code(cat([]byte{0xfd, 0x0d}, times(16, 32))...), "BAD_MODULE", "shuffle lane 32"},
		{"long i32.const", code(0x41, 0xff, 0xff, 0xff, 0xff, 0x17), "BAD_MODULE", "longer than 32 bits"},
		{"long i64.const", code(cat([]byte{0x42}, times(9, 0xff), []byte{0x41})...), "BAD_MODULE", "longer than 64 bits"},
		{"br_table that is not there", code(0x0e, 0x80, 0x08), "BAD_MODULE", "1024 targets"},
		{"memory.init without count", wasmOf(void, fn, section(secMemory, vec([]byte{0, 1})), section(secCode, vec(body(noLocals, 0xfc, 8, 0, 0)))), "BAD_MODULE", "data count"},
		{"load without memory", wasmOf(void, fn, section(secCode, vec(body(noLocals, 0x28, 0, 0)))), "BAD_MODULE", "needs a memory"},

		{"unknown import", importer(imp("env", "reed", 0, 0)), "UNKNOWN_IMPORT", "imports env.reed"},
		{"near import", importer(imp("faasm", "read_call_inputs", 0, 0)), "UNKNOWN_IMPORT", "nearest is faasm.read_call_input;"},
		{"unknown module", importer(imp("wasi_snapshot_preview2", "fd_write", 0, 0)), "UNKNOWN_IMPORT", "nearest is wasi_snapshot_preview1.fd_write"},
		{"long import", importer(imp("env", strings.Repeat("x", 10_000), 0, 0)), "UNKNOWN_IMPORT", "…"},
		{"import type", importer(imp("faasm", "read_call_input", 0, 0)), "ABI_MISMATCH", "type (), which is (i32, i32) -> i32"},
		{"imported memory", importer(imp("env", "memory", 2, 3, 1, 2)), "UNSUPPORTED_IMPORT", "threads"},
		{"imported table", importer(imp("env", "__indirect_function_table", 1, funcref, 0, 1)), "UNSUPPORTED_IMPORT", "dynlink"},
		{"imported global", importer(imp("env", "__stack_pointer", 3, i32, 1)), "UNSUPPORTED_IMPORT", "global env.__stack_pointer"},
		{"import kind", importer(imp("env", "x", 9, 0)), "BAD_MODULE", "import of unknown kind 9"},
	} {
		_, err := check(c.wasm, DefaultLimits())
		f := fault.From(err)
		if err == nil || !errors.Is(err, fault.Invalid) || f.Reason != c.reason || !strings.Contains(f.Message+" — "+f.Hint, c.text) {
			t.Errorf("%s: want %s %q, got %+v", c.name, c.reason, c.text, f)
		} else if f.Hint == "" {
			t.Errorf("%s: no hint in %+v", c.name, f)
		} else if len(f.Message) > 700 {
			t.Errorf("%s: message of %d bytes", c.name, len(f.Message))
		}
	}
}

// Every limit holds at its figure and refuses the next one.
func TestLimits(t *testing.T) {
	void := ftype(nil, nil)
	fns := func(n int) []byte {
		bodies := slices.Repeat([][]byte{body(noLocals)}, n)
		return wasmOf(types(void), section(secFunction, vec(slices.Repeat([][]byte{{0}}, n)...)), section(secCode, vec(bodies...)))
	}
	for _, c := range []struct {
		what string
		at   func(n int) []byte
		set  func(*Limits, int)
	}{
		{"bytes", func(n int) []byte { return wasmOf(custom("x", times(n-8-4, 0)...)) }, func(l *Limits, n int) { l.ModuleBytes = n }},
		{"function types", func(n int) []byte { return wasmOf(types(slices.Repeat([][]byte{void}, n)...)) }, func(l *Limits, n int) { l.Types = n }},
		{"function types", func(n int) []byte {
			return wasmOf(types(cat([]byte{0x4e}, vec(slices.Repeat([][]byte{void}, n)...))))
		}, func(l *Limits, n int) { l.Types = n }},
		{"parameters of a function", func(n int) []byte { return wasmOf(types(ftype(times(n, i32), nil))) }, func(l *Limits, n int) { l.Params = n }},
		{"results of a function", func(n int) []byte { return wasmOf(types(ftype(nil, times(n, i32)))) }, func(l *Limits, n int) { l.Params = n }},
		{"parameters and results of all function types", func(n int) []byte {
			return wasmOf(types(ftype(times(n-1, i32), nil), ftype(nil, []byte{i32})))
		}, func(l *Limits, n int) { l.AllParams = n }},
		{"imports", func(n int) []byte {
			return wasmOf(types(void), section(secImport, vec(slices.Repeat([][]byte{imp("a", "b", 0, 0)}, n)...)))
		}, func(l *Limits, n int) { l.Imports = n }},
		{"exports", func(n int) []byte {
			var list [][]byte
			for i := range n {
				list = append(list, export(strings.Repeat("x", i), 2, 0))
			}
			return wasmOf(section(secMemory, vec([]byte{0, 1})), section(secExport, vec(list...)))
		}, func(l *Limits, n int) { l.Exports = n }},
		{"functions", fns, func(l *Limits, n int) { l.Functions = n }},
		{"globals", func(n int) []byte {
			return wasmOf(section(secGlobal, vec(slices.Repeat([][]byte{{i32, 0, 0x41, 0, 0x0b}}, n)...)))
		}, func(l *Limits, n int) { l.Globals = n }},
		{"tags", func(n int) []byte {
			return wasmOf(types(void), section(secTag, vec(slices.Repeat([][]byte{{0, 0}}, n)...)))
		}, func(l *Limits, n int) { l.Tags = n }},
		{"tables", func(n int) []byte {
			return wasmOf(section(secTable, vec(slices.Repeat([][]byte{{funcref, 0, 1}}, n)...)))
		}, func(l *Limits, n int) { l.Tables = n }},
		{"table elements", func(n int) []byte {
			return wasmOf(section(secTable, vec([]byte{funcref, 0, 1}, []byte{funcref, 0, byte(n - 1)})))
		}, func(l *Limits, n int) { l.TableElements = n }},
		{"table that the code grows", func(n int) []byte {
			return wasmOf(types(void), section(secFunction, vec([]byte{0})), section(secTable, vec([]byte{funcref, 1, 0, byte(n)})),
				section(secCode, vec(body(noLocals, 0xfc, 0x0f, 0))))
		}, func(l *Limits, n int) { l.TableElements = n }},
		{"pages of 64 KiB", func(n int) []byte { return wasmOf(section(secMemory, vec([]byte{0, byte(n)}))) }, func(l *Limits, n int) { l.MemoryPages = n }},
		{"element segments", func(n int) []byte {
			return wasmOf(section(secElement, vec(slices.Repeat([][]byte{{1, 0, 0}}, n)...)))
		}, func(l *Limits, n int) { l.Elements = n }},
		{"entries of element segments", func(n int) []byte {
			return wasmOf(section(secElement, vec([]byte{5, funcref, 1, 0xd0, funcref, 0x0b}, cat([]byte{5, funcref}, vec(slices.Repeat([][]byte{{0xd0, funcref, 0x0b}}, n-1)...)))))
		}, func(l *Limits, n int) { l.SegmentItems = n }},
		{"data segments", func(n int) []byte { return wasmOf(section(secData, vec(slices.Repeat([][]byte{{1, 0}}, n)...))) }, func(l *Limits, n int) { l.Data = n }},
		{"data segments", func(n int) []byte {
			return wasmOf(section(secDataCount, u(uint64(n))), section(secData, vec(slices.Repeat([][]byte{{1, 0}}, n)...)))
		}, func(l *Limits, n int) { l.Data = n }},
		{"custom sections", func(n int) []byte { return wasmOf(slices.Repeat([][]byte{custom("x")}, n)...) }, func(l *Limits, n int) { l.Customs = n }},
		{"entries of the name section", func(n int) []byte {
			list := vec(slices.Repeat([][]byte{{0, 0}}, n)...)
			return wasmOf(custom("name", cat([]byte{1}, u(uint64(len(list))), list)...))
		}, func(l *Limits, n int) { l.Names = n }},
		{"bytes of a name", func(n int) []byte { return wasmOf(custom(strings.Repeat("x", n))) }, func(l *Limits, n int) { l.NameBytes = n }},
		{"bytes of code", func(n int) []byte { return code(times(n-2, 0x01)...) }, func(l *Limits, n int) { l.BodyBytes = n }},
		{"locals in one function", func(n int) []byte { return run([]byte{2, 1, i32, byte(n - 1), f64}) }, func(l *Limits, n int) { l.Locals = n }},
		{"locals in all functions", func(n int) []byte {
			return wasmOf(types(void), section(secFunction, vec([]byte{0}, []byte{0})),
				section(secCode, vec(body([]byte{1, 1, i32}), body([]byte{1, byte(n - 1), i32}))))
		}, func(l *Limits, n int) { l.AllLocals = n }},
		{"blocks inside one another", func(n int) []byte { return code(cat(times(n, 0x02, 0x40), times(n, 0x0b))...) }, func(l *Limits, n int) { l.Nesting = n }},
		{"targets of a br_table", func(n int) []byte { return code(cat([]byte{0x0e, byte(n)}, times(n+1, 0))...) }, func(l *Limits, n int) { l.Targets = n }},
		{"catches of a try_table", func(n int) []byte {
			return code(cat([]byte{0x1f, 0x40, byte(n)}, times(n, 2, 0), []byte{0x0b})...)
		}, func(l *Limits, n int) { l.Targets = n }},
		{"branches times locals", func(n int) []byte { return run([]byte{1, 2, i32}, times(n/2, 0x0c, 0)...) }, func(l *Limits, n int) { l.Flow = n }},
	} {
		const n = 40
		limits := DefaultLimits()
		c.set(&limits, n)
		if _, err := Inspect(c.at(n), limits); err != nil {
			t.Errorf("%s: %d are refused: %v", c.what, n, err)
		}
		for _, more := range []int{n + 2, 100} {
			_, err := Inspect(c.at(more), limits)
			if f := fault.From(err); err == nil || f.Reason != "MODULE_LIMIT" || !strings.Contains(f.Message, c.what) || !strings.Contains(f.Message, "at most 40 ") || f.Hint == "" {
				t.Errorf("%s: %d: %+v", c.what, more, f)
			}
		}
	}
}

// A few bytes must not make anybody allocate gigabytes.
func TestBombs(t *testing.T) {
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0x0f}
	fn := cat(types(ftype(nil, nil)), section(secFunction, vec([]byte{0})))
	for name, wasm := range map[string][]byte{
		"locals":       wasmOf(fn, section(secCode, vec(cat([]byte{8, 1}, huge, []byte{i32, 0x0b})))),
		"locals twice": wasmOf(fn, section(secCode, vec(cat([]byte{14, 2}, huge, []byte{i32}, huge, []byte{i32, 0x0b})))),
		"groups":       wasmOf(fn, section(secCode, vec(cat([]byte{6}, huge, []byte{0x0b})))),
		"functions":    wasmOf(types(ftype(nil, nil)), section(secFunction, huge)),
		"exports":      wasmOf(section(secExport, huge)),
		"imports":      wasmOf(section(secImport, huge)),
		"data":         wasmOf(section(secData, cat([]byte{1, 1}, huge))),
		"name":         wasmOf(section(secCustom, huge)),
		"table":        wasmOf(section(secTable, vec(cat([]byte{funcref, 0}, huge)))),
		"memory":       wasmOf(section(secMemory, vec(cat([]byte{0}, huge)))),
		"elements":     wasmOf(section(secElement, vec(cat([]byte{1, 0}, huge)))),
		"growing":      wasmOf(fn[:len(fn):len(fn)], section(secTable, vec([]byte{funcref, 0, 0})), section(secCode, vec(body(noLocals, 0xfc, 0x0f, 0)))),
	} {
		var err error
		got := testing.AllocsPerRun(1, func() { _, err = Inspect(wasm, DefaultLimits()) })
		if err == nil || got > 100 {
			t.Errorf("%s: %v, %v allocations", name, err, got)
		}
	}
}

func TestFacts(t *testing.T) {
	m, err := check(run([]byte{1, 3, i64},
		0x41, 0, 0xd2, 0, 0x26, 0, // table.set
		0xfc, 8, 0, 0, // memory.init
		0x12, 0, // return_call
		0xfd, 0x80, 0x01, // i16x8.abs
		0xfe, 0x03, 0x00, // atomic.fence
		0x1f, 0x40, 1, 0, 0, 0, 0x0b, // try_table
	), DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	if want := (Flags{Threads: true, SIMD: true, Bulk: true, TailCalls: true, Exceptions: true, TableMutation: true, DataOps: true, Passive: true}); m.Flags != want {
		t.Errorf("flags %+v, want %+v", m.Flags, want)
	}
	if m.Kind != Command || m.Functions != 1 || m.Globals != 1 || m.Tags != 1 || m.Data != 1 || m.Elements != 1 || m.HasStart {
		t.Errorf("%+v", m)
	}
	if *m.Memory != (Memory{Min: 1}) || m.Tables[0] != (Table{Min: 2, Max: 4, HasMax: true, Type: funcref}) {
		t.Errorf("%+v %+v", m.Memory, m.Tables)
	}

	reactor := wasmOf(custom("dylink.0"),
		types(ftype([]byte{i32, i32}, []byte{i32}), ftype(nil, []byte{i32}), ftype(nil, nil)),
		section(secImport, vec(imp("faasm", "read_call_input", 0, 0))),
		section(secFunction, vec([]byte{1}, []byte{2})),
		section(secMemory, vec([]byte{3, 1, 2})),
		section(secGlobal, vec([]byte{v128, 0, 0xfd, 0x0c, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0x0b}, []byte{i32, 0, 0x41, 1, 0x41, 2, 0x6a, 0x0b})),
		section(secExport, vec(export("handle", 0, 1), export("_initialize", 0, 2), export("memory", 2, 0))),
		section(secStart, u(2)),
		section(secCode, vec(body(noLocals, 0x41, 0), body(noLocals))),
		custom("name", cat([]byte{0, 2}, str("m"), []byte{1, 4}, vec(cat([]byte{0}, str("f"))), []byte{2, 6}, vec(cat([]byte{0}, vec([]byte{0, 1, 'x'}))), []byte{9, 1, 0xff})...),
		custom(".debug_info", 1, 2, 3),
	)
	m, err = check(reactor, DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	if m.Kind != Reactor || !m.HasStart || !m.Memory.Shared || m.Memory.Max != 2 || m.Digest != skein.DigestOf(reactor) || m.Size != len(reactor) {
		t.Errorf("%+v", m)
	}
	if want := (Flags{Threads: true, SIMD: true, ExtendedConst: true, Dylink: true, Names: true, Debug: true}); m.Flags != want {
		t.Errorf("flags %+v, want %+v", m.Flags, want)
	}
	if len(m.Imports) != 1 || m.Imports[0].String() != "faasm.read_call_input" || m.Imports[0].Type.String() != "(i32, i32) -> i32" {
		t.Errorf("%+v", m.Imports)
	}
	if e, ok := m.Export("memory"); !ok || e.Kind != ExternMemory || e.Kind.String() != "memory" {
		t.Errorf("%+v", e)
	}
	if got := ModuleKey(m.Digest); got != "modules/"+m.Digest.String() {
		t.Error(got)
	}
}

// The decoder must give what it read: the rewriting pass will build on it.
func TestDecoder(t *testing.T) {
	wasm := []byte{
		0x02, 0x7f, // block i32
		0x03, 0x01, // loop type 1
		0x0e, 2, 0, 1, 2, // br_table
		0x0b,
		0x41, 0x7f, // i32.const -1
		0x42, 0x80, 0x7f, // i64.const -128
		0x44, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, // f64.const 1
		0x28, 2, 0x90, 0x01, // i32.load
		0x11, 1, 0, // call_indirect
		0xfd, 0x57, 3, 8, 1, // v128.load64_lane
		0x0b,
		0x0b,
	}
	limits := DefaultLimits()
	d := decoder{r: &reader{b: wasm, end: len(wasm)}, limit: &limits, space: &space{types: 2, tables: 1, memory: true, data: -1}}
	var got []opcode
	at := 0
	for d.start(0); d.next(); {
		in := d.in
		if in.offset != at || in.end <= at {
			t.Errorf("%#x at %d to %d, want it at %d", in.op, in.offset, in.end, at)
		}
		at = in.end
		got = append(got, in.op)
		ok := true
		switch in.op {
		case opBlock:
			ok = in.block == blockType{index: -1, result: i32} && d.depth() == 1
		case opLoop:
			ok = in.block == blockType{index: 1} && d.depth() == 2
		case opBrTable:
			ok = slices.Equal(in.labels, []uint32{0, 1, 2})
		case opI32Const:
			ok = int32(in.value) == -1
		case opI64Const:
			ok = int64(in.value) == -128
		case opF64Const:
			ok = in.value == 0x3ff0000000000000
		case 0x28:
			ok = in.x == 2 && in.y == 144
		case 0x11:
			ok = in.x == 1 && in.y == 0
		}
		if !ok {
			t.Errorf("%+v", in)
		}
	}
	want := []opcode{opBlock, opLoop, opBrTable, opEnd, opI32Const, opI64Const, opF64Const, 0x28, 0x11, 0xfd57, opEnd, opEnd}
	if d.r.err != nil || !slices.Equal(got, want) || at != len(wasm) {
		t.Errorf("%v %x", d.r.err, got)
	}
}

// The numbers of instructions are those of the standard, so a wrong hole in the table shows.
func TestOpcodeTable(t *testing.T) {
	count := func(t [256]opInfo) (n int) {
		for _, info := range t {
			if info.shape != shapeUnknown && info.shape != shapeLegacy {
				n++
			}
		}
		return n
	}
	// 172 of version 1, 5 of sign extension, 6 of reference types, 2 tail calls, 3 exceptions, 5 typed references.
	if got := count(ops.plain); got != 193 {
		t.Errorf("%d plain instructions", got)
	}
	if got := count(ops.misc); got != 18 {
		t.Errorf("%d with prefix 0xfc", got)
	}
	if got := count(ops.vector); got != 236 {
		t.Errorf("%d with prefix 0xfd", got)
	}
	if got := count(ops.atomic); got != 67 {
		t.Errorf("%d with prefix 0xfe", got)
	}
}

// Typed function references are read, and not run: the engine confuses their types.
func TestTypedRefs(t *testing.T) {
	wasm := wasmOf(
		types(ftype([]byte{funcref}, []byte{i64}), ftype([]byte{i64}, []byte{i64}), ftype(nil, []byte{i64})),
		section(secFunction, vec([]byte{1}, []byte{2})), section(secExport, vec(export("leak", 0, 1))), section(secElement, vec([]byte{3, 0, 1, 0})),
		section(secCode, vec(body(noLocals, 0x20, 0), body([]byte{1, 1, 0x63, 0}, 0xd2, 0, 0x21, 0, 0xd2, 0, 0x20, 0, 0x14, 0))),
	)
	m, err := Inspect(wasm, DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	if e := fault.From(CheckFeatures(m)); e == nil || e.Reason != "TYPED_REFS" {
		t.Errorf("%v", e)
	}
	if err := CheckFeatures(&Module{}); err != nil {
		t.Error(err)
	}
}
