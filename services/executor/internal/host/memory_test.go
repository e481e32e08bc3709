package host

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skein.dev"
	"skein.dev/services/executor/internal/machine"
	"skein.dev/services/executor/internal/vfs/vfstest"
)

// runMapping runs a guest of mappings once; it must succeed.
func runMapping(t *testing.T, mod *machine.Module, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	log := &Log{}
	c := &Call{
		Context: ctx, Args: append([]string{"memory"}, args...), Stdout: log, Stderr: log, Log: log,
		Files: vfstest.Setup(map[string]string{"dir/file": "content"}),
	}
	exit := mod.Run(c)
	c.End()
	if exit.State != skein.Succeeded {
		t.Fatalf("%q: %+v: a check failed at a line that is %d modulo 255\n%s", args, exit, exit.Code-1, log.Bytes())
	}
	return string(log.Bytes())
}

// However memories are kept, mappings do what a model of them does, and nothing that was in one is there in the next call.
func TestMappings(t *testing.T) {
	wasm := buildC(t, "testdata/memory.c")
	for name, portable := range map[string]bool{"native": false, "portable": true} {
		t.Run(name, func(t *testing.T) {
			m, err := machine.Open(t.Context(), machine.Config{GuestMemory: 64 << 20, WarmMemory: 256 << 20, Portable: portable}, Link)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = m.Close(context.Background()) }()
			mod := load(t, m, wasm)
			if err := mod.Boot(&Call{Context: t.Context(), Boot: true}); err != nil {
				t.Fatal(err)
			}
			runMapping(t, mod, "all")
			for range 3 {
				runMapping(t, mod, "plant")
				runMapping(t, mod, "look")
			}
		})
	}
}

// What a boot has mapped is in no snapshot: each call initialises an instance of its own.
func TestMappingAtBoot(t *testing.T) {
	m, err := machine.Open(t.Context(), machine.Config{GuestMemory: 16 << 20}, Link)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close(context.Background()) }()
	mod := load(t, m, buildC(t, "testdata/mapinit.c", "-mexec-model=reactor"))
	if err := mod.Boot(&Call{Context: t.Context(), Boot: true}); err != nil {
		t.Fatal(err)
	}
	if mod.Snapshot() != nil || !strings.Contains(mod.Replay(), "mmap") {
		t.Errorf("it has a snapshot %v, or not because of %q", mod.Snapshot() != nil, mod.Replay())
	}
	for range 2 {
		runMapping(t, mod)
	}
}

// A Go program is told no, and its heap is whole.
func TestGoMapsNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("it compiles a Go program")
	}
	out := filepath.Join(t.TempDir(), "gomap.wasm")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", out, "testdata/gomap/main.go")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOWORK=off")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, msg)
	}
	wasm, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	m, err := machine.Open(t.Context(), machine.Config{GuestMemory: 64 << 20}, Link)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close(context.Background()) }()
	if log := runMapping(t, load(t, m, wasm)); !strings.Contains(log, "allocator takes all memory") {
		t.Errorf("the log has %q", log)
	}
}
