package prepare

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// The tests write their modules by hand, byte by byte: a module here is a list of sections, each a kind and what is in it.

func cat(parts ...[]byte) []byte { return slices.Concat(parts...) }

func u(v uint64) []byte { return binary.AppendUvarint(nil, v) }

func str(s string) []byte { return append(u(uint64(len(s))), s...) }

// vec is a vector: its length, then its entries.
func vec(entries ...[]byte) []byte { return append(u(uint64(len(entries))), cat(entries...)...) }

// times repeats b.
func times(n int, b ...byte) []byte { return slices.Repeat(b, n) }

func section(id byte, content []byte) []byte {
	return cat([]byte{id}, u(uint64(len(content))), content)
}

func custom(name string, content ...byte) []byte { return section(secCustom, cat(str(name), content)) }

func wasmOf(sections ...[]byte) []byte {
	return cat([]byte("\x00asm\x01\x00\x00\x00"), cat(sections...))
}

// Value types.
const i32, i64, f64, v128, funcref = 0x7f, 0x7e, 0x7c, 0x7b, 0x70

func ftype(params, results []byte) []byte {
	return cat([]byte{0x60}, u(uint64(len(params))), params, u(uint64(len(results))), results)
}

func types(list ...[]byte) []byte { return section(secType, vec(list...)) }

func imp(module, name string, kind byte, desc ...byte) []byte {
	return cat(str(module), str(name), []byte{kind}, desc)
}

func export(name string, kind byte, index uint64) []byte {
	return cat(str(name), []byte{kind}, u(index))
}

// body is a function's code without its final end; locals are groups of (count, type).
func body(locals []byte, code ...byte) []byte {
	b := cat(locals, code, []byte{0x0b})
	return append(u(uint64(len(b))), b...)
}

var noLocals = []byte{0}

// run is a whole command: _start with this code, one memory of a page, a table of two functions that can grow to four,
// one mutable global, one passive data segment, one passive element segment.
func run(locals []byte, code ...byte) []byte {
	return wasmOf(
		types(ftype(nil, nil), ftype([]byte{i32}, []byte{i32})),
		section(secFunction, vec([]byte{0})),
		section(secTable, vec([]byte{funcref, 1, 2, 4})),
		section(secMemory, vec([]byte{0, 1})),
		section(secTag, vec([]byte{0, 0})),
		section(secGlobal, vec([]byte{i32, 1, 0x41, 0, 0x0b})),
		section(secExport, vec(export("_start", 0, 0))),
		section(secElement, vec([]byte{1, 0, 1, 0})),
		section(secDataCount, u(1)),
		section(secCode, vec(body(locals, code...))),
		section(secData, vec([]byte{1, 2, 'h', 'i'})),
	)
}

// code is run without locals.
func code(code ...byte) []byte { return run(noLocals, code...) }

// importer is a command with one import.
func importer(entry []byte) []byte {
	start := uint64(0)
	if bytes.HasSuffix(entry, []byte{0, 0}) { // a function, of type 0
		start = 1
	}
	return wasmOf(
		types(ftype(nil, nil)),
		section(secImport, vec(entry)),
		section(secFunction, vec([]byte{0})),
		section(secExport, vec(export("_start", 0, start))),
		section(secCode, vec(body(noLocals))),
	)
}
