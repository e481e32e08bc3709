package compile_test

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"skein.dev/platform/compile"
	"skein.dev/platform/fault"
)

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

// Each bomb is refused as one, or compiled: in time, and without the memory of this process or the child going up.
func TestBombs(t *testing.T) {
	limits := compile.Limits{Memory: 256 << 20, CPU: 2 * time.Second, Wall: 20 * time.Second}
	for name, bomb := range bombs {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			a, err := compile.Compile(t.Context(), prepared(bomb()), limits)
			took := time.Since(start)
			var usage syscall.Rusage
			if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &usage); err != nil {
				t.Fatal(err)
			}
			if err == nil {
				t.Logf("compiled: %.1fs, %d bytes of code, largest child %d MiB", took.Seconds(), len(a.Code), usage.Maxrss>>10)
			} else {
				e := fault.From(err)
				t.Logf("%.1fs, %s: %s, largest child %d MiB", took.Seconds(), e.Reason, e.Message, usage.Maxrss>>10)
				if e.Kind != fault.Invalid || e.Reason != "BAD_MODULE" && e.Reason != "MODULE_TOO_COSTLY" || e.Hint == "" || strings.Contains(e.Message, "goroutine") {
					t.Errorf("%+v", e)
				}
			}
			if took > limits.Wall+10*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}
