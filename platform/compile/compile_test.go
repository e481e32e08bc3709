package compile_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"skein.dev/platform/compile"
	"skein.dev/platform/fault"
	"skein.dev/platform/prepare"
)

// asParent makes this program one that compiles something slow.
const asParent = "SKEIN_TEST_PARENT"

func TestMain(m *testing.M) {
	compile.Child()
	if os.Getenv(asParent) != "" {
		f, err := os.Open("/etc/passwd")
		if err == nil {
			_, err = compile.Compile(context.Background(), prepared(slow()), compile.DefaultLimits())
		}
		fmt.Println(f.Name(), err)
		return
	}
	os.Exit(m.Run())
}

func uleb(n int) (b []byte) {
	for ; n > 0x7f; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

func section(id byte, parts ...[]byte) []byte {
	body := slices.Concat(parts...)
	return slices.Concat([]byte{id}, uleb(len(body)), body)
}

// wasm is a module with one function () -> (), exported as _start, of these locals (i64) and this code.
func wasm(locals int, code []byte) []byte {
	body := slices.Concat([]byte{0}, code, []byte{0x0b})
	if locals > 0 {
		body = slices.Concat([]byte{1}, uleb(locals), []byte{0x7e}, code, []byte{0x0b})
	}
	return slices.Concat([]byte("\x00asm\x01\x00\x00\x00"),
		section(1, []byte("\x01\x60\x00\x00")), section(3, []byte("\x01\x00")),
		section(7, []byte("\x01\x06_start\x00\x00")),
		section(10, []byte{1}, uleb(len(body)), body))
}

// prepared takes bytes past all of our own limits, so that the child has to deal with them.
func prepared(b []byte) *prepare.Prepared {
	return &prepare.Prepared{Module: prepare.Module{Size: len(b)}, Wasm: b, MaxPages: 65536}
}

func wants(t *testing.T, err error, kind *fault.Kind, reason string) {
	t.Helper()
	if e := fault.From(err); err == nil || e.Kind != kind || e.Reason != reason {
		t.Fatalf("want %s %s, got %+v", kind, reason, e)
	}
}

func repeat(s string, n int) []byte { return []byte(strings.Repeat(s, n)) }

// bombs are modules of wazero-memory.md and reliability.md that made the compiler, or its decoder, take minutes or gigabytes.
var bombs = map[string]func() []byte{
	"2^32 locals":     func() []byte { return wasm(1<<32-1, nil) },
	"ifs over locals": func() []byte { return wasm(50_000, slices.Concat(ifs(3000), reads(50_000))) },
	"live locals":     func() []byte { return wasm(49_000, slices.Concat(writes(49_000), sums(49_000))) },
	"nested blocks":   func() []byte { return wasm(0, slices.Concat(repeat("\x02\x40", 200_000), repeat("\x0b", 200_000))) },
	"nested loops":    func() []byte { return wasm(0, slices.Concat(repeat("\x03\x40", 20_000), repeat("\x0b", 20_000))) },
	"small ifs":       func() []byte { return wasm(3, repeat("\x41\x00\x04\x40\x0b", 360_000)) },
	"br_table": func() []byte {
		return wasm(0, slices.Concat([]byte("\x02\x40\x41\x00\x0e"), uleb(1_000_000), repeat("\x00", 1_000_001), []byte("\x0b")))
	},
	"a deep operand stack": func() []byte {
		return wasm(0, slices.Concat(repeat("\x41\x00", 300_000), repeat("\x1a", 300_000)))
	},
	"unreachable depth": func() []byte { return wasm(0, slices.Concat(repeat("\x00", 1_000_000))) },
	"2^28 functions": func() []byte {
		return slices.Concat([]byte("\x00asm\x01\x00\x00\x00"), section(1, []byte("\x01\x60\x00\x00")), section(3, uleb(1<<28)))
	},
	"2^32-1 types": func() []byte { return slices.Concat([]byte("\x00asm\x01\x00\x00\x00"), section(1, uleb(1<<32-1))) },
}

// ifs sets another local in each of n branches; reads and writes use each of n locals.
func ifs(n int) (code []byte) {
	for i := range n {
		code = append(append(code, 0x41, 0, 0x04, 0x40, 0x42, 1, 0x21), append(uleb(i), 0x0b)...)
	}
	return code
}

func reads(n int) (code []byte) {
	for i := range n {
		code = append(append(append(code, 0x20), uleb(i)...), 0x1a)
	}
	return code
}

// writes makes each of n locals of the first; sums needs them all afterwards.
func writes(n int) (code []byte) {
	for i := range n {
		code = append(append(code, 0x20, 0, 0x42), append(uleb(i%64), 0x7c, 0x21)...)
		code = append(code, uleb(i)...)
	}
	return code
}

func sums(n int) (code []byte) {
	for i := range n {
		code = append(append(append(code, 0x20), uleb(i)...), 0x20, 0, 0x7c, 0x21, 0)
	}
	return append(code, 0x20, 0, 0x50, 0x04, 0x40, 0x00, 0x0b)
}

// slow takes minutes, and little memory.
func slow() []byte { return bombs["br_table"]() }
