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
