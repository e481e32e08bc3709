package cluster

import (
	"encoding/binary"
	"slices"
)

// assembled are guests of a few instructions, and files that are no guests.
var assembled = map[string]func() []byte{
	"empty":     func() []byte { return nil },
	"text":      func() []byte { return []byte("This is no module.\n") },
	"truncated": func() []byte { m := hello.bytes(); return m[:len(m)-7] },
	"header":    func() []byte { return hello.bytes()[:8] },
	"component": func() []byte { return []byte("\x00asm\x0d\x00\x01\x00") },
	"no-entry":  module{entry: "helper"}.bytes,
	"missing-import": module{entry: start, imports: []funcType{
		{"faasm", "read_call_inptu", []byte{i32, i32}, []byte{i32}},
	}}.bytes,
	"foreign-import":  module{entry: start, imports: []funcType{{"wbg", "__wbindgen_throw", []byte{i32, i32}, nil}}}.bytes,
	"mistyped-import": module{entry: start, imports: []funcType{{"faasm", "read_call_input", []byte{i64}, []byte{i32}}}}.bytes,
	"mistyped-handle": module{entry: handle, result: []byte{i64}, code: []byte{0x42, 0}}.bytes,

	"hello":   hello.bytes,
	"goodbye": greeter("goodbye").bytes,
	"trap":    module{entry: start, code: []byte{unreachable}}.bytes,
	"spin":    module{entry: start, code: []byte{loop, void, br, 0, end}}.bytes,
	"exit3":   exit3.bytes,
	"hog":     hog.bytes,
	"sleep":   sleeper.bytes,
	"push":    pusher.bytes,
	"talk":    talker.bytes,
}

// hello outputs "hello" and writes a line to stdout and one to stderr.
var hello = greeter("hello")

func greeter(word string) module {
	out, log := word, "to stdout\n"
	return module{
		entry: start, imports: []funcType{writeOutput, fdWrite},
		data: join(iovec(32, len(log)), iovec(48, len("to stderr\n")), pad(16), pad16(log), pad16("to stderr\n"), []byte(out)),
		code: join(
			num(1), num(0), num(1), num(16), call(1), []byte{drop},
			num(2), num(8), num(1), num(16), call(1), []byte{drop},
			num(64), num(len(out)), call(0), []byte{drop},
		),
	}
}

// exit3 outputs "partial" and exits with 3.
var exit3 = module{
	entry: start, imports: []funcType{writeOutput, {"wasi_snapshot_preview1", "proc_exit", []byte{i32}, nil}},
	data: []byte("partial"),
	code: join(num(0), num(len("partial")), call(0), []byte{drop}, num(3), call(1)),
}

// hog takes memory until there is no more, and then traps.
var hog = module{
	entry: start,
	code:  join([]byte{loop, void}, num(16), []byte{memoryGrow, 0}, num(-1), []byte{i32Eq, ifOp, void, unreachable, end, br, 0, end}),
}

// sleeper sleeps for as many nanoseconds as the first 8 bytes of its input say, the lowest first; without an input for a
// second. Then it outputs "slept". See SleepInput.
var sleeper = module{
	entry: start, imports: []funcType{
		writeOutput, readInput, {"wasi_snapshot_preview1", "poll_oneoff", []byte{i32, i32, i32, i32}, []byte{i32}},
	},
	// A subscription of 48 bytes: clock 1, the monotonic one; the timeout is at 24. The event goes to 64.
	data: join(pad(16), word32(1), pad(4), SleepInput(1e9), pad(96), []byte("slept")),
	code: join(
		num(24), num(8), call(1), []byte{drop},
		num(0), num(64), num(1), num(112), call(2), []byte{drop},
		num(128), num(len("slept")), call(0), []byte{drop},
	),
}

// talker writes "one" to stdout, sleeps as sleeper does, and writes "two".
var talker = module{
	entry: start, imports: []funcType{fdWrite, readInput, {"wasi_snapshot_preview1", "poll_oneoff", []byte{i32, i32, i32, i32}, []byte{i32}}},
	data: join(pad(16), word32(1), pad(4), SleepInput(1e9), pad(96), iovec(160, 4), iovec(164, 4), pad(16), []byte("one\ntwo\n")),
	code: join(
		num(1), num(128), num(1), num(120), call(0), []byte{drop},
		num(24), num(8), call(1), []byte{drop},
		num(0), num(64), num(1), num(112), call(2), []byte{drop},
		num(1), num(136), num(1), num(120), call(0), []byte{drop},
	),
}

// SleepInput is the input that makes the guest "sleep" sleep for ns nanoseconds.
func SleepInput(ns uint64) []byte { return binary.LittleEndian.AppendUint64(nil, ns) }

// pusher sets the state value "pushed" to "value", pushes it, and exits with the errno of that.
var pusher = module{
	entry: handle, result: []byte{i32}, imports: []funcType{
		{"faasm", "set_state", []byte{i32, i32, i32, i32}, []byte{i32}},
		{"faasm", "push_state", []byte{i32, i32}, []byte{i32}},
	},
	data: []byte("pushedvalue"),
	code: join(num(0), num(0), num(6), num(6), num(5), call(0), []byte{drop}, num(0), num(6), call(1), []byte{i32Sub}),
}

// The binary format, as far as the guests above need it.
const (
	i32, i64 = 0x7f, 0x7e
	void     = 0x40

	unreachable = 0x00
	loop        = 0x03
	ifOp        = 0x04
	end         = 0x0b
	br          = 0x0c
	drop        = 0x1a
	memoryGrow  = 0x40
	i32Eq       = 0x46
	i32Sub      = 0x6b

	start, handle = "_start", "handle"
)

type funcType struct {
	module, name    string
	params, results []byte
}

var (
	writeOutput = funcType{"faasm", "write_call_output", []byte{i32, i32}, []byte{i32}}
	readInput   = funcType{"faasm", "read_call_input", []byte{i32, i32}, []byte{i32}}
	fdWrite     = funcType{"wasi_snapshot_preview1", "fd_write", []byte{i32, i32, i32, i32}, []byte{i32}}
)

// module has one function, its entry, without parameters, and a page of memory that begins with data.
type module struct {
	entry   string
	result  []byte
	imports []funcType
	data    []byte
	code    []byte
}

func (m module) bytes() []byte {
	var types, imports [][]byte
	for i, f := range m.imports {
		types = append(types, join([]byte{0x60}, sized(f.params), sized(f.results)))
		imports = append(imports, join(sized([]byte(f.module)), sized([]byte(f.name)), []byte{0}, uleb(i)))
	}
	types = append(types, join([]byte{0x60, 0}, sized(m.result)))
	index := uleb(len(m.imports))
	exports := [][]byte{
		join(sized([]byte(m.entry)), []byte{0}, index),
		join(sized([]byte("memory")), []byte{2, 0}),
	}
	return join(
		[]byte("\x00asm\x01\x00\x00\x00"),
		section(1, types...),
		section(2, imports...),
		section(3, index),
		section(5, []byte{0, 1}),
		section(7, exports...),
		section(10, sized(join([]byte{0}, m.code, []byte{end}))),
		section(11, join([]byte{0}, num(0), []byte{end}, sized(m.data))),
	)
}

func section(id byte, items ...[]byte) []byte {
	return join([]byte{id}, sized(join(uleb(len(items)), join(items...))))
}

func join(parts ...[]byte) []byte { return slices.Concat(parts...) }
func sized(b []byte) []byte       { return join(uleb(len(b)), b) }
func uleb(n int) []byte           { return binary.AppendUvarint(nil, uint64(n)) }
func call(i int) []byte           { return join([]byte{0x10}, uleb(i)) }
func pad(n int) []byte            { return make([]byte, n) }
func pad16(s string) []byte       { return append([]byte(s), pad(16-len(s))...) }
func word32(n int) []byte         { return binary.LittleEndian.AppendUint32(nil, uint32(n)) }
func iovec(at, length int) []byte { return join(word32(at), word32(length)) }

// num is i32.const.
func num(n int) []byte {
	b := []byte{0x41}
	for {
		low := byte(n & 0x7f)
		n >>= 7
		if n == 0 && low&0x40 == 0 || n == -1 && low&0x40 != 0 {
			return append(b, low)
		}
		b = append(b, low|0x80)
	}
}
