package prepare

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

const goCommand = `package main

import "fmt"

func main() { fmt.Println("hello") }
`

const goReactor = `package main

//go:wasmimport faasm read_call_input
func readCallInput(buf *byte, size uint32) int32

//go:wasmexport handle
func handle() int32 { return readCallInput(nil, 0) }

func main() {}
`

const cReactor = `
__attribute__((import_module("faasm"), import_name("read_call_input"))) int read_call_input(void *, unsigned long);
__attribute__((import_module("faasm"), import_name("append_state"))) long long append_state(const char *, unsigned long, const void *, unsigned long);
static int add(int a) { return a + 1; }
static int (*volatile pick)(int) = add;
static __attribute__((noinline)) int forward(int a) {
#ifdef __wasm_tail_call__
	__attribute__((musttail))
#endif
	return pick(a);
}
static char buffer[7000];
__attribute__((export_name("handle"))) int handle(void) {
	append_state("k", 1, buffer, 1);
	int n = read_call_input(buffer, 9);
#ifdef __wasm_bulk_memory__
	__builtin_memset(buffer, n, sizeof buffer);
#else
	for (int i = 0; i < sizeof buffer; i++) buffer[i] += (char)n;
#endif
	switch (buffer[0]) { case 0: return 4; case 1: return 9; case 2: return 1; case 3: return 7; case 4: return 6; }
	return forward(buffer[1]);
}
`

// build compiles source to wasm; it skips the test if the compiler is missing.
func build(t testing.TB, file, source string, argv ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(argv[0]); err != nil {
		if os.Getenv("SKEIN_REQUIRE_TOOLS") != "" {
			t.Fatal(err)
		}
		t.Skipf("no %s to build guests with: %v", argv[0], err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, file), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out.wasm")
	cmd := exec.CommandContext(t.Context(), argv[0], append(argv[1:], "-o", out, file)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOWORK=off", "GO111MODULE=off", "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	wasm, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

func buildC(t testing.TB, flags ...string) []byte {
	return build(t, "guest.c", cReactor, append([]string{"clang", "--target=wasm32", "-nostdlib", "-fno-builtin", "-Wl,--no-entry"}, flags...)...)
}

func TestRealGuests(t *testing.T) {
	for _, c := range []struct {
		name    string
		kind    Kind
		flags   Flags
		imports int // at least
		wasm    func(t *testing.T) []byte
	}{
		{"Go command", Command, Flags{Bulk: true, Names: true, Go: true}, 5, func(t *testing.T) []byte { return build(t, "main.go", goCommand, "go", "build") }},
		{"Go reactor", Reactor, Flags{Bulk: true, Names: true, Go: true}, 6, func(t *testing.T) []byte {
			return build(t, "main.go", goReactor, "go", "build", "-buildmode=c-shared", "-ldflags=-w")
		}},
		{"C", Reactor, Flags{Names: true}, 2, func(t *testing.T) []byte { return buildC(t, "-O0") }},
		{"C optimised", Reactor, Flags{Names: true, Bulk: true}, 2, func(t *testing.T) []byte { return buildC(t, "-O2", "-mbulk-memory") }},
		{"C with vectors and tail calls", Reactor, Flags{Names: true, SIMD: true, TailCalls: true}, 2, func(t *testing.T) []byte {
			return buildC(t, "-O3", "-msimd128", "-mtail-call")
		}},
		{"C with debug information", Reactor, Flags{Names: true, Debug: true}, 2, func(t *testing.T) []byte { return buildC(t, "-g", "-O1") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			wasm := c.wasm(t)
			began := time.Now()
			m, err := check(wasm, DefaultLimits())
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d bytes, %d functions, %d data segments, %d elements, memory %+v, %d imports in %v: %+v",
				m.Size, m.Functions, m.Data, m.Elements, *m.Memory, len(m.Imports), time.Since(began), m.Flags)
			if m.Kind != c.kind || m.Flags != c.flags || len(m.Imports) < c.imports || m.Memory.Imported || m.HasStart {
				t.Errorf("kind %s, flags %+v, imports %v", m.Kind, m.Flags, m.Imports)
			}
		})
	}
}

// seeds are small modules that reach most of the decoder.
func seeds() [][]byte {
	return [][]byte{
		run([]byte{2, 3, i64, 1, v128},
			0x02, 0x7f, 0x41, 1, 0x0b, 0x04, 0x40, 0x03, 0x40, 0x0c, 0, 0x0b, 0x05, 0x0b, 0x41, 0, 0x0e, 1, 0, 0,
			0xfc, 8, 0, 0, 0xfc, 0x0a, 0, 0, 0xfc, 0x0c, 0, 0, 0xfc, 0x0f, 0, 0xfd, 0x57, 3, 8, 1, 0xfd, 0x80, 0x01,
			0xfe, 0x03, 0, 0x1f, 0x40, 2, 0, 0, 0, 2, 0, 0x0b, 0x1c, 1, 0x6f, 0xd0, 0x70, 0x44, 0, 0, 0, 0, 0, 0, 0, 0),
		wasmOf(types(cat([]byte{0x4e}, vec([]byte{0x60, 1, 0x63, 0, 0}, ftype(nil, nil)))), section(secImport, vec(imp("a", "b", 4, 0, 1))),
			section(secTable, vec([]byte{0x40, 0, 0x63, 0, 1, 1, 2, 0xd0, 0, 0x0b})),
			section(secElement, vec([]byte{6, 0, 0x41, 0, 0x0b, funcref, 1, 0xd0, funcref, 0x0b}, []byte{3, 0, 0})),
			custom("name", cat([]byte{1, 4}, vec(cat([]byte{0}, str("f"))), []byte{2, 6}, vec(cat([]byte{0}, vec([]byte{0, 1, 'x'}))))...)),
		[]byte("\x00asm\x0d\x00\x01\x00"),
		[]byte("\x1f\x8b"),
	}
}

// survive is what must hold of any input: an answer, and if it is yes, the same yes again.
func survive(t *testing.T, wasm []byte) {
	m, err := check(wasm, DefaultLimits())
	if err == nil && (m.Size != len(wasm) || m.Kind == Library) {
		t.Errorf("%x: %+v", wasm, m)
	}
}

func FuzzInspect(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s)
	}
	f.Add(buildC(f, "-O1"))
	f.Fuzz(survive)
}

// Truncations and changed bytes of real modules: never a panic, never long. The fuzz target goes on from here.
func TestMutations(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	all := append(seeds(), buildC(t, "-O1"))
	for _, s := range all {
		if _, err := Inspect(s, DefaultLimits()); err != nil && len(s) > 8 {
			t.Fatalf("a seed is refused: %v", err)
		}
		for n := range s {
			survive(t, s[:n:n])
		}
		for range 20_000 {
			b := append([]byte(nil), s...)
			for range 1 + random.IntN(3) {
				b[random.IntN(len(b))] = byte(random.Uint32() >> random.IntN(8))
			}
			survive(t, b)
		}
	}
	large := build(t, "main.go", goCommand, "go", "build")
	for range 5 {
		b := append([]byte(nil), large...)
		b[random.IntN(len(b))] ^= 1 << random.IntN(8)
		survive(t, b)
		survive(t, b[:random.IntN(len(b))])
	}
}

func BenchmarkInspect(b *testing.B) {
	wasm := build(b, "main.go", goCommand, "go", "build")
	b.SetBytes(int64(len(wasm)))
	for b.Loop() {
		if _, err := Inspect(wasm, DefaultLimits()); err != nil {
			b.Fatal(err)
		}
	}
}
