package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// echoGuest is the function that is called: examples/echo/c, or, where there is no clang, the same in a few instructions.
func echoGuest(ctx context.Context, root, dir string) (wasm []byte, what string, err error) {
	clang, err := exec.LookPath("clang")
	if err != nil {
		return assembledEcho(), "echo, assembled (no clang here)", nil
	}
	if wasm, err = compileC(ctx, root, "examples/echo/c/echo.c", filepath.Join(dir, "echo.wasm")); err != nil {
		fmt.Fprintf(os.Stderr, "no echo from C, taking the assembled one: %v\n", err)
		return assembledEcho(), "echo, assembled (clang failed here)", nil
	}
	version, err := exec.CommandContext(ctx, clang, "--version").Output()
	if err != nil {
		return nil, "", err
	}
	line, _, _ := strings.Cut(string(version), "\n")
	return wasm, fmt.Sprintf("examples/echo/c, %d bytes, %s", len(wasm), strings.TrimSpace(line)), nil
}

// compileC builds a reactor with the default flags of sdk/c.
func compileC(ctx context.Context, root, source, out string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "clang", "--target=wasm32-wasi", "--sysroot=/usr", "-O3", "-msimd128", "-mbulk-memory", "-mnontrapping-fptoint",
		"-msign-ext", "-ftls-model=local-exec", "-Isdk/c/include", "-Wl,--stack-first", "-mexec-model=reactor", "sdk/c/skein.c", "sdk/c/posix.c", source, "-o", out)
	cmd.Dir = root
	if msg, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("clang: %w\n%s", err, msg)
	}
	return os.ReadFile(out)
}

// assembledEcho is
//
//	(module
//	  (import "faasm" "read_call_input" (func $read (param i32 i32) (result i32)))
//	  (import "faasm" "write_call_output" (func $write (param i32 i32) (result i32)))
//	  (memory (export "memory") 1)
//	  (func (export "handle") (result i32)
//	    (call $write (i32.const 0) (call $read (i32.const 0) (i32.const 65536)))))
func assembledEcho() []byte {
	name := func(s string) []byte { return append([]byte{byte(len(s))}, s...) }
	section := func(id byte, parts ...[]byte) []byte {
		body := slices.Concat(parts...)
		return append([]byte{id, byte(len(body))}, body...)
	}
	read := slices.Concat(name("faasm"), name("read_call_input"), []byte{0, 0})
	write := slices.Concat(name("faasm"), name("write_call_output"), []byte{0, 0})
	code := []byte{0, 0x41, 0, 0x41, 0, 0x41, 0x80, 0x80, 4, 0x10, 0, 0x10, 1, 0x0b}
	return slices.Concat(
		[]byte("\x00asm\x01\x00\x00\x00"),
		section(1, []byte{2, 0x60, 2, 0x7f, 0x7f, 1, 0x7f, 0x60, 0, 1, 0x7f}),
		section(2, []byte{2}, read, write),
		section(3, []byte{1, 1}),
		section(5, []byte{1, 0, 1}),
		section(7, []byte{2}, name("memory"), []byte{2, 0}, name("handle"), []byte{0, 2}),
		section(10, []byte{1, byte(len(code))}, code),
	)
}
