package machine_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"skein.dev/platform/compile"
	"skein.dev/platform/prepare"
	"skein.dev/services/executor/internal/host"
	"skein.dev/services/executor/internal/machine"
)

func TestMain(m *testing.M) {
	compile.Child()
	os.Exit(m.Run())
}

const guestMemory = 64 << 20

// tiers are the ways to keep memories that this system has.
var tiers = map[string]machine.Config{
	"native":   {GuestMemory: guestMemory, WarmMemory: 1 << 30},
	"portable": {GuestMemory: guestMemory, WarmMemory: 1 << 30, Portable: true},
}

func open(t testing.TB, cfg machine.Config) *machine.Machine {
	t.Helper()
	m, err := machine.Open(context.Background(), cfg, host.Link)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return m
}

// built are the guests that this process has built and compiled, by name.
var built sync.Map

type guest struct {
	wasm     []byte
	prepared *prepare.Prepared
	artifact *compile.Artifact
	err      error
}

// build makes a guest of testdata: a C file or a directory with a Go program.
func build(t testing.TB, name string) guest {
	t.Helper()
	tool := "clang"
	if filepath.Ext(name) == "" {
		tool = "go"
	}
	if _, err := exec.LookPath(tool); err != nil {
		if os.Getenv("SKEIN_REQUIRE_TOOLS") == "1" {
			t.Fatal(tool + " is missing")
		}
		t.Skip(tool + " is missing: apt-get install clang lld wasi-libc libclang-rt-dev-wasm32")
	}
	once, _ := built.LoadOrStore(name, sync.OnceValue(func() guest { return makeGuest(tool, name) }))
	g := once.(func() guest)()
	if g.err != nil {
		t.Fatal(g.err)
	}
	return g
}

func makeGuest(tool, name string) (g guest) {
	dir, err := os.MkdirTemp("", "guest")
	if err != nil {
		return guest{err: err}
	}
	defer func() { _ = os.RemoveAll(dir) }()
	out := filepath.Join(dir, "guest.wasm")
	var cmd *exec.Cmd
	if tool == "go" {
		cmd = exec.Command("go", "build", "-buildmode=c-shared", "-o", out, "./testdata/"+name)
		if name == "state" { // the SDK's
			cmd.Dir = filepath.Join("..", "..", "..", "..", "sdk", "go")
		}
		cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOWORK=off")
	} else {
		args := []string{"--target=wasm32-wasi", "--sysroot=/usr", "-O1", "-fno-builtin-malloc", "-mbulk-memory", "-I../../../../sdk/c/include", "testdata/" + name, "-o", out, "-Wl,--stack-first"}
		if name == "space.c" {
			args = append(args, "-mexec-model=reactor", "-Wl,--export=malloc")
		} else if name == "pointer.c" {
			args = append(args, "-Wl,--export=__wasm_call_ctors")
		} else if name != "guest.c" {
			args = append(args, "-mexec-model=reactor")
		}
		cmd = exec.Command("clang", args...)
	}
	if msg, err := cmd.CombinedOutput(); err != nil {
		return guest{err: &exec.Error{Name: string(msg), Err: err}}
	}
	if g.wasm, g.err = os.ReadFile(out); g.err != nil {
		return g
	}
	if g.prepared, g.err = prepare.Prepare(g.wasm, prepare.DefaultLimits()); g.err != nil {
		return g
	}
	g.artifact, g.err = compile.Compile(context.Background(), g.prepared, compile.DefaultLimits())
	return g
}

// load gives a machine a guest that has not been booted.
func load(t testing.TB, m *machine.Machine, name string) *machine.Module {
	t.Helper()
	mod, err := m.LoadArtifact(context.Background(), build(t, name).artifact)
	if err != nil {
		t.Fatal(err)
	}
	return mod
}

// boot is load with a snapshot.
func boot(t testing.TB, m *machine.Machine, name string) *machine.Module {
	t.Helper()
	mod := load(t, m, name)
	if err := mod.Boot(bootCall(t)); err != nil {
		t.Fatal(err)
	}
	if mod.Snapshot() == nil {
		t.Fatalf("%s has no snapshot: %s", name, mod.Replay())
	}
	return mod
}

func bootCall(t testing.TB) *host.Call {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return &host.Call{Context: ctx, Boot: true, Args: []string{"function"}}
}

// run is a call within a minute.
func run(ctx context.Context, mod *machine.Module, input []byte, args ...string) (machine.Exit, *host.Call, string) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var out bytes.Buffer
	c := &host.Call{Context: ctx, Args: append([]string{"guest"}, args...), Input: input, Stdout: &out, Stderr: &out}
	exit := mod.Run(c)
	return exit, c, out.String()
}
