package cluster

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
)

// Hostile is the corpus of modules made to do harm: by their form, by what they cost to decode, to compile or to make live,
// or by what they do when they run. By name; the same each time.
func Hostile() map[string][]byte {
	all := map[string][]byte{}
	for _, add := range []func(map[string][]byte){
		brokenForms, vastCounts, costlyCode, costlyParts, wildSegments, wildNames, wildImports, guestsThatRun, startFunctions,
	} {
		add(all)
	}
	return all
}

// Mutants are n modules, each a real one with a few bytes changed, cut, doubled or moved.
func Mutants(wasm []byte, n int, seed uint64) [][]byte {
	r := rand.New(rand.NewPCG(seed, 1))
	out := make([][]byte, n)
	for i := range out {
		b := bytes.Clone(wasm)
		for range 1 + r.IntN(4) {
			at := 8 + r.IntN(len(b)-8)
			size := min(1+r.IntN(16), len(b)-at)
			switch r.IntN(5) {
			case 0:
				b[at] = byte(r.Uint32())
			case 1:
				b[at] ^= 1 << r.IntN(8)
			case 2:
				b = append(b[:at:at], b[at+size:]...)
			case 3:
				b = join(b[:at], b[at:at+size], b[at:])
			case 4:
				b[at] = []byte{0x00, 0x7f, 0x80, 0xff}[r.IntN(4)]
			}
			if len(b) < 16 {
				break
			}
		}
		out[i] = b
	}
	return out
}

const head = "\x00asm\x01\x00\x00\x00"

// most is 2^32-1.
var most = []byte{0xff, 0xff, 0xff, 0xff, 0x0f}

func brokenForms(all map[string][]byte) {
	m := hello.bytes()
	for n := 0; n < len(m); n += 2 {
		all[fmt.Sprintf("cut to %d bytes", n)] = m[:n]
	}
	all["version 2"] = []byte("\x00asm\x02\x00\x00\x00")
	all["component"] = []byte("\x00asm\x0d\x00\x01\x00")
	all["zeros"] = make([]byte, 1<<20)
	all["itself twice"] = join(m, m)
	all["sections twice"] = join(m, m[8:])
	all["garbage behind"] = join(m, []byte("garbage"))
	all["endless LEB"] = join([]byte(head), []byte{1}, bytes.Repeat([]byte{0x80}, 1<<16))
}

func vastCounts(all map[string][]byte) {
	for id := byte(0); id <= 14; id++ {
		all[fmt.Sprintf("section %d of 4 GiB", id)] = join([]byte(head), []byte{id}, most)
		all[fmt.Sprintf("section %d with 2^32-1 entries", id)] = join([]byte(head), []byte{id}, sized(most))
		all[fmt.Sprintf("section %d with 10^6 entries", id)] = join([]byte(head), []byte{id}, sized(join(uleb(1e6), pad(64))))
	}
}

// body is a reactor whose handle has this code behind these locals.
func body(locals, code []byte) []byte {
	return join(
		[]byte(head), section(1, []byte{0x60, 0, 1, i32}), section(3, uleb(0)), section(5, []byte{0, 1}),
		section(7, join(sized([]byte(handle)), []byte{0, 0})),
		section(10, sized(join(locals, code, []byte{end}))),
	)
}

func costlyCode(all map[string][]byte) {
	none := []byte{0}
	all["2^32-1 locals"] = body(join([]byte{1}, most, []byte{i32}), num(0))
	all["2^32-1 groups of locals"] = body(most, num(0))
	for _, n := range []int{1000, 50_000, 1 << 30} {
		all[fmt.Sprintf("%d locals", n)] = body(join([]byte{1}, uleb(n), []byte{i64}), num(0))
	}
	for _, n := range []int{1000, 5000, 20_000, 200_000} {
		for name, op := range map[string][]byte{"block": {0x02, void}, "loop": {loop, void}, "if": join(num(1), []byte{ifOp, void})} {
			all[fmt.Sprintf("%d %ss inside one another", n, name)] = body(none, join(bytes.Repeat(op, n), bytes.Repeat([]byte{end}, n), num(0)))
		}
	}
	for _, n := range []int{1000, 16_000, 100_000, 1_000_000} {
		all[fmt.Sprintf("br_table with %d targets", n)] = body(none, join([]byte{0x02, void}, num(0), []byte{0x0e}, uleb(n), pad(n+1), []byte{end}, num(0)))
	}
	for _, n := range []int{1000, 3000, 100_000} {
		ifs := bytes.Repeat(join(num(1), []byte{ifOp, void, end}), n)
		all[fmt.Sprintf("%d ifs", n)] = body(none, join(ifs, num(0)))
		all[fmt.Sprintf("%d ifs over 5000 locals", n)] = body(join([]byte{1}, uleb(5000), []byte{i64}), join(ifs, num(0)))
		all[fmt.Sprintf("%d ifs over 50000 locals", n)] = body(join([]byte{1}, uleb(50_000), []byte{i64}), join(ifs, num(0)))
	}
	all["2 million instructions"] = body(none, join(bytes.Repeat([]byte{0x01}, 2<<20), num(0)))
	all["300000 operands"] = body(none, join(bytes.Repeat(num(1), 300_000), bytes.Repeat([]byte{0x6a}, 299_999)))
	all["an operand too few"] = body(none, []byte{0x6a})
	all["an operand of another type"] = body(none, []byte{0x42, 0})
	for op := 0; op < 256; op += 5 {
		all[fmt.Sprintf("instruction %#x", op)] = body(none, []byte{byte(op)})
	}
}

func costlyParts(all map[string][]byte) {
	functions := func(n int) []byte {
		return join([]byte(head), section(1, []byte{0x60, 0, 0}), []byte{3}, sized(join(uleb(n), pad(n))),
			section(7, join(sized([]byte(start)), []byte{0, 0})), []byte{10}, sized(join(uleb(n), bytes.Repeat([]byte{2, 0, end}, n))))
	}
	for _, n := range []int{10_000, 60_000, 1_000_000} {
		all[fmt.Sprintf("%d functions", n)] = functions(n)
	}
	entry := func(sections ...[]byte) []byte {
		return join([]byte(head), section(1, []byte{0x60, 0, 0}), section(3, uleb(0)), join(sections...))
	}
	rest := join(section(7, join(sized([]byte(start)), []byte{0, 0})), section(10, []byte{2, 0, end}))
	for name, memory := range map[string][]byte{
		"65536 pages": join([]byte{0}, uleb(65536)), "65537 pages": join([]byte{0}, uleb(65537)), "2^32-1 pages": join([]byte{0}, most),
		"2049 pages": join([]byte{0}, uleb(2049)), "a maximum below its minimum": {1, 2, 1}, "shared without a maximum": {2, 1}, "shared": {3, 1, 2}, "64-bit": {4, 1},
	} {
		all["memory of "+name] = entry(section(5, memory), rest)
	}
	all["two memories"] = entry(section(5, []byte{0, 1}, []byte{0, 1}), rest)
	for name, table := range map[string][]byte{
		"2^32-1 elements": join([]byte{0x70, 0}, most), "10^8 elements": join([]byte{0x70, 0}, uleb(1e8)), "10^6 elements": join([]byte{0x70, 0}, uleb(1e6)),
		"externref": {0x6f, 0, 1}, "an unknown type": {0x11, 0, 1},
	} {
		all["table of "+name] = entry(section(4, table), rest)
	}
	all["1000 tables"] = entry(section(4, repeat([]byte{0x70, 0, 1}, 1000)...), rest)
	all["10^6 globals"] = entry([]byte{6}, sized(join(uleb(1e6), bytes.Repeat([]byte{i32, 1, 0x41, 0, end}, 1e6))), rest)
	all["10^6 types"] = join([]byte(head), []byte{1}, sized(join(uleb(1e6), bytes.Repeat([]byte{0x60, 0, 0}, 1e6))))
	all["a type with 10^5 parameters"] = join([]byte(head), section(1, join([]byte{0x60}, sized(bytes.Repeat([]byte{i32}, 1e5)), []byte{0})))
}

func repeat(b []byte, n int) [][]byte {
	all := make([][]byte, n)
	for i := range all {
		all[i] = b
	}
	return all
}

func wildSegments(all map[string][]byte) {
	with := func(data ...[]byte) []byte {
		m := hello.bytes()
		return join(m[:bytes.LastIndex(m, []byte{11})], nil, section(11, data...))
	}
	segment := func(at int, b []byte) []byte { return join([]byte{0}, num(at), []byte{end}, sized(b)) }
	all["data behind the memory"] = with(segment(65536, []byte("x")))
	all["data across the memory's end"] = with(segment(65530, []byte("0123456789")))
	all["data at -1"] = with(segment(-1, []byte("x")))
	all["empty data behind the memory"] = with(segment(70000, nil))
	all["600000 data segments"] = with(repeat(segment(0, []byte("x")), 600_000)...)
	all["data of the rest of 4 GiB"] = with(join([]byte{0}, num(0), []byte{end}, most))
	all["data at a global that is none"] = with(join([]byte{0, 0x23, 9, end}, sized([]byte("x"))))
	all["data for memory 1"] = with(join([]byte{2, 1}, num(0), []byte{end}, sized([]byte("x"))))
	all["data of form 9"] = with(join([]byte{9}, sized([]byte("x"))))
	for name, element := range map[string][]byte{
		"behind the table": join([]byte{0}, num(9), []byte{end, 1, 0}), "of function 9": join([]byte{0}, num(0), []byte{end, 1, 9}),
		"of table 3": join([]byte{2, 3}, num(0), []byte{end, 0, 1, 0}), "of form 9": {9}, "that is endless": join([]byte{0}, num(0), []byte{end}, most),
	} {
		all["element "+name] = join([]byte(head), section(1, []byte{0x60, 0, 0}), section(3, uleb(0)), section(4, []byte{0x70, 0, 1}),
			section(7, join(sized([]byte(start)), []byte{0, 0})), section(9, element), section(10, []byte{2, 0, end}))
	}
}

func wildNames(all map[string][]byte) {
	exports := func(items ...[]byte) []byte {
		return join([]byte(head), section(1, []byte{0x60, 0, 0}), section(3, uleb(0)), section(7, items...), section(10, []byte{2, 0, end}))
	}
	named := func(name string) []byte { return join(sized([]byte(name)), []byte{0, 0}) }
	all["export of 1 MiB"] = exports(named(start), named(strings.Repeat("x", 1<<20)))
	all["export twice"] = exports(named(start), named(start))
	all["export of no UTF-8"] = exports(named(start), named("\xff\xfe"))
	all["export of function 7"] = exports(join(sized([]byte(start)), []byte{0, 7}))
	all["export of kind 9"] = exports(join(sized([]byte(start)), []byte{9, 0}))
	all["export of ours"] = exports(named(start), named("skein:fuel"))
	var many [][]byte
	for i := range 200_000 {
		many = append(many, named(fmt.Sprint(i)))
	}
	all["200000 exports"] = exports(append(many, named(start))...)
	for name, content := range map[string][]byte{
		"that is cut": {1, 0xff, 1}, "with 2^32-1 names": join([]byte{1}, sized(most)), "of function 2^32-1": join([]byte{1}, sized(join([]byte{1}, most, []byte{1, 'x'}))),
		"of locals without end": join([]byte{2}, sized(join([]byte{1, 0}, most))),
	} {
		all["name section "+name] = join(hello.bytes(), []byte{0}, sized(join(sized([]byte("name")), content)))
	}
	all["5000 custom sections"] = join(hello.bytes(), bytes.Repeat(join([]byte{0}, sized(sized([]byte("x")))), 5000))
}

func wildImports(all map[string][]byte) {
	imports := func(items ...[]byte) []byte {
		return join([]byte(head), section(1, []byte{0x60, 0, 0}), section(2, items...), section(3, uleb(0)),
			section(7, join(sized([]byte(start)), []byte{0}, uleb(len(items)))), section(10, []byte{2, 0, end}))
	}
	from := func(module, name string, kind ...byte) []byte {
		return join(sized([]byte(module)), sized([]byte(name)), kind)
	}
	all["import of nothing known"] = imports(from("env", "no_such_function", 0, 0))
	all["import of the engine's"] = imports(from("skein:fuel", "yield", 0, 0))
	all["import mistyped"] = imports(from("faasm", "read_call_input", 0, 0))
	all["import of a memory"] = imports(from("env", "memory", 2, 0, 1))
	all["import of a global"] = imports(from("env", "g", 3, i32, 0))
	all["import of a table"] = imports(from("env", "t", 1, 0x70, 0, 1))
	all["import of a tag"] = imports(from("env", "tag", 4, 0, 0))
	all["import of kind 9"] = imports(from("env", "x", 9))
	all["20000 imports"] = imports(repeat(from("wasi_snapshot_preview1", "sched_yield", 0, 0), 20_000)...)
	all["import with a name of 1 MiB"] = imports(from(strings.Repeat("m", 1<<20), "x", 0, 0))
}

// guestsThatRun are well formed; what they do is not.
func guestsThatRun(all map[string][]byte) {
	wasi := func(name string, params ...byte) funcType {
		return funcType{"wasi_snapshot_preview1", name, params, []byte{i32}}
	}
	forever := func(code ...[]byte) []byte { return join([]byte{loop, void}, join(code...), []byte{br, 0, end}) }
	run := func(code []byte, imports ...funcType) []byte {
		return module{entry: start, imports: imports, code: code}.bytes()
	}
	all["runs for ever"] = run(forever())
	all["runs for ever in a br_table"] = run(join([]byte{loop, void}, num(0), []byte{0x0e, 1, 0, 0, end}))
	all["calls itself"] = run(call(0))
	// An (i64) -> i64 in the place of a (funcref) -> i64: what it is given is an address of the host's.
	all["leaks an address by a typed reference"] = join(
		[]byte(head), section(1, []byte{0x60, 1, 0x70, 1, i64}, []byte{0x60, 1, i64, 1, i64}, []byte{0x60, 0, 1, i32}), section(3, uleb(1), uleb(2)),
		section(7, join(sized([]byte(handle)), []byte{0, 1})), section(9, []byte{3, 0, 1, 0}),
		section(10, sized([]byte{0, 0x20, 0, end}), sized(join([]byte{1, 1, 0x63, 0, 0xd2, 0, 0x21, 0, 0xd2, 0, 0x20, 0, 0x14, 0, 0xa7, end}))),
	)
	all["calls itself in a try_table"] = run([]byte{0x1f, void, 0, 0x10, 0, end})
	all["calls itself in a try_table that catches all"] = run([]byte{0x1f, void, 1, 2, 0, 0x10, 0, end})
	all["calls itself twice"] = run(join(call(0), call(0)))
	all["calls itself in a loop"] = run(forever(call(0)))
	all["calls itself by tail call"] = run([]byte{0x12, 0})
	all["fills memory for ever"] = run(join(num(1000), []byte{memoryGrow, 0, drop}, forever(num(0), num(1), num(64<<20), []byte{0xfc, 0x0b, 0})))
	all["copies memory for ever"] = run(join(num(1000), []byte{memoryGrow, 0, drop}, forever(num(0), num(32<<20), num(30<<20), []byte{0xfc, 0x0a, 0, 0})))
	all["fills past the memory"] = run(join(num(65000), num(1), num(-1), []byte{0xfc, 0x0b, 0}))
	all["grows for ever"] = run(forever(num(1), []byte{memoryGrow, 0, drop}))
	all["grows by 2^32-1 pages"] = run(forever(num(-1), []byte{memoryGrow, 0, drop}))
	all["takes memory until there is none"] = hog.bytes()
	all["traps"] = run([]byte{unreachable})
	all["divides by zero"] = run(join(num(1), num(0), []byte{0x6d, drop}))
	all["overflows a conversion"] = run([]byte{0x43, 0, 0, 0xc0, 0x7f, 0xa8, drop})
	all["reads past its memory"] = run(join(num(-1), []byte{0x28, 2, 0, drop}))
	all["reads far past its memory"] = run(join(num(-1), []byte{0x28, 2, 0xff, 0xff, 0xff, 0xff, 0x0f, drop}))
	all["writes output from nowhere"] = run(join(num(-16), num(64), call(0), []byte{drop}), writeOutput)
	all["writes an output of 4 GiB"] = run(join(num(0), num(-1), call(0), []byte{drop}), writeOutput)
	all["writes outputs for ever"] = run(forever(num(0), num(60_000), call(0), []byte{drop}), writeOutput)
	all["reads its input to nowhere"] = run(join(num(-1), num(-1), call(0), []byte{drop}), readInput)
	log := module{entry: start, imports: []funcType{fdWrite}, data: iovec(0, 60_000), code: forever(num(1), num(0), num(1), num(60_000), call(0), []byte{drop})}
	all["logs for ever"] = log.bytes()
	all["logs 2^32-1 buffers"] = run(join(num(1), num(0), num(-1), num(0), call(0), []byte{drop}), fdWrite)
	all["sleeps for ever"] = module{
		entry: start, imports: []funcType{wasi("poll_oneoff", i32, i32, i32, i32)},
		data: join(pad(16), word32(1), pad(4), bytes.Repeat([]byte{0x7f}, 8), pad(24)),
		code: join(num(0), num(64), num(1), num(200), call(0), []byte{drop}),
	}.bytes()
	all["polls 2^32-1 things"] = run(join(num(0), num(0), num(-1), num(0), call(0), []byte{drop}), wasi("poll_oneoff", i32, i32, i32, i32))
	all["wants 4 GiB of randomness"] = run(join(num(0), num(-1), call(0), []byte{drop}), wasi("random_get", i32, i32))
	all["wants randomness for ever"] = run(forever(num(0), num(65536), call(0), []byte{drop}), wasi("random_get", i32, i32))
	all["yields for ever"] = run(forever(call(0), []byte{drop}), wasi("sched_yield"))
	all["closes all descriptors for ever"] = run(forever(num(3), call(0), []byte{drop}), wasi("fd_close", i32))
	all["exits with 255"] = module{entry: start, imports: exit3.imports, code: join(num(255), call(1))}.bytes()
	all["exits with 2^32-256"] = module{entry: start, imports: exit3.imports, code: join(num(-256), call(1))}.bytes()
	all["pushes keys of nowhere"] = module{entry: handle, result: []byte{i32}, imports: pusher.imports, code: join(num(-5), num(10), num(0), num(1), call(0))}.bytes()
	all["sets a value of 4 GiB"] = module{entry: handle, result: []byte{i32}, imports: pusher.imports, code: join(num(0), num(1), num(0), num(-1), call(0))}.bytes()
}

// startFunctions run before anybody calls.
func startFunctions(all map[string][]byte) {
	for name, code := range map[string][]byte{
		"loops": {loop, void, br, 0, end}, "traps": {unreachable}, "calls itself": {0x10, 0}, "calls itself by tail call": {0x12, 0},
	} {
		all["a start function that "+name] = join([]byte(head), section(1, []byte{0x60, 0, 0}), section(3, uleb(0), uleb(0)),
			section(7, join(sized([]byte(start)), []byte{0, 1})), []byte{8, 1, 0},
			section(10, sized(join([]byte{0}, code, []byte{end})), []byte{2, 0, end}))
		all["an _initialize that "+name] = join([]byte(head), section(1, []byte{0x60, 0, 0}, []byte{0x60, 0, 1, i32}), section(3, uleb(0), uleb(1)),
			section(7, join(sized([]byte("_initialize")), []byte{0, 0}), join(sized([]byte(handle)), []byte{0, 1})),
			section(10, sized(join([]byte{0}, code, []byte{end})), sized(join([]byte{0}, num(0), []byte{end}))))
	}
}
