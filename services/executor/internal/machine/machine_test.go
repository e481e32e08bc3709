package machine_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"skein.dev"
	"skein.dev/platform/fault"
	"skein.dev/platform/prepare"
	"skein.dev/services/executor/internal/machine"
)

func open(t *testing.T) *machine.Machine {
	m, err := machine.Open(t.Context(), 16<<20, func(ctx context.Context, rt wazero.Runtime) error {
		_, err := wasi_snapshot_preview1.Instantiate(ctx, rt)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close(context.Background()) })
	return m
}

func guest(t *testing.T, m *machine.Machine) *machine.Module {
	t.Helper()
	if _, err := exec.LookPath("clang"); err != nil {
		if os.Getenv("SKEIN_REQUIRE_TOOLS") == "1" {
			t.Fatal("clang is missing")
		}
		t.Skip("clang is missing: apt-get install clang lld wasi-libc libclang-rt-dev-wasm32")
	}
	out := filepath.Join(t.TempDir(), "guest.wasm")
	cmd := exec.CommandContext(t.Context(), "clang", "--target=wasm32-wasi", "--sysroot=/usr", "-O1", "testdata/guest.c", "-o", out, "-Wl,--stack-first")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, msg)
	}
	wasm, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	info, err := prepare.Inspect(wasm, prepare.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	mod, err := m.Compile(t.Context(), wasm, info)
	if err != nil {
		t.Fatal(err)
	}
	return mod
}

func run(ctx context.Context, mod *machine.Module, args ...string) (machine.Exit, string) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var out bytes.Buffer
	exit := mod.Run(ctx, machine.Params{
		Args: append([]string{"guest"}, args...), Stdin: strings.NewReader(""), Stdout: &out, Stderr: &out, FS: fstest.MapFS{},
	})
	return exit, out.String()
}

func TestEnds(t *testing.T) {
	m := open(t)
	mod := guest(t, m)
	for _, c := range []struct {
		args    []string
		state   skein.CallState
		code    int32
		reason  string
		message string
	}{
		{nil, skein.Succeeded, 0, "", ""},
		{[]string{"exit", "0"}, skein.Succeeded, 0, "", ""},
		{[]string{"exit", "3"}, skein.Failed, 3, "GUEST_EXIT", "code 3"},
		{[]string{"exit", "-1"}, skein.Failed, 255, "GUEST_EXIT", "code 255"}, // the engine's own number for a cancelled run
		{[]string{"exit", "256"}, skein.Failed, 255, "GUEST_EXIT", "code 255"},
		{[]string{"unreachable"}, skein.Failed, 0, "GUEST_TRAP", "unreachable"},
		{[]string{"bounds"}, skein.Failed, 0, "GUEST_TRAP", "out of bounds memory access"},
		{[]string{"divide"}, skein.Failed, 0, "GUEST_TRAP", "integer divide by zero"},
		{[]string{"stack"}, skein.Failed, 0, "GUEST_TRAP", ""}, // the C stack or the engine's, whichever ends first
		{[]string{"memory"}, skein.Failed, 9, "GUEST_MEMORY", "16 MiB"},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			exit, out := run(t.Context(), mod, c.args...)
			if exit.State != c.state || exit.Code != c.code || exit.Reason != c.reason || !strings.Contains(exit.Message, c.message) {
				t.Errorf("%+v\n%s", exit, out)
			}
			if c.reason == "GUEST_TRAP" && !strings.Contains(exit.Backtrace, "main(") && !strings.Contains(exit.Backtrace, "deep(") {
				t.Errorf("backtrace %q", exit.Backtrace)
			}
			if exit.MemoryPeak < 64<<10 || exit.MemoryPeak > 16<<20 {
				t.Errorf("memory peak %d", exit.MemoryPeak)
			}
		})
	}
	if n := m.MemoryInUse(); n != 0 {
		t.Errorf("%d bytes are still in use", n)
	}
}

func TestDeadlineAndCancel(t *testing.T) {
	mod := guest(t, open(t))
	for _, how := range []string{"loop", "sleep"} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if exit, _ := run(ctx, mod, how); exit.State != skein.TimedOut || exit.Reason != "DEADLINE" {
			t.Errorf("%s past its deadline: %+v", how, exit)
		}
		cancel()
		cctx, stop := context.WithCancelCause(t.Context())
		time.AfterFunc(50*time.Millisecond, func() { stop(machine.ErrCancelled) })
		if exit, _ := run(cctx, mod, how); exit.State != skein.Cancelled || exit.Reason != "CANCELLED" {
			t.Errorf("%s cancelled: %+v", how, exit)
		}
		cctx, stop = context.WithCancelCause(t.Context())
		stop(errors.New("stream broke"))
		if exit, _ := run(cctx, mod, how); exit.State != skein.Failed || exit.Reason != "EXECUTOR_LOST" {
			t.Errorf("%s without its stream: %+v", how, exit)
		}
	}
}

// Instances of one module live side by side and don't see each other.
func TestConcurrentRuns(t *testing.T) {
	mod := guest(t, open(t))
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 20 {
				if exit, out := run(t.Context(), mod); exit.State != skein.Succeeded || out != "fine\n" {
					t.Errorf("%+v %q", exit, out)
				}
			}
		})
	}
	wg.Wait()
}

func TestCompileRefuses(t *testing.T) {
	m := open(t)
	// (module (func (result i32))): a body without the result it declares
	bad := []byte("\x00asm\x01\x00\x00\x00\x01\x05\x01\x60\x00\x01\x7f\x03\x02\x01\x00\x0a\x04\x01\x02\x00\x0b")
	if err := compile(t, m, bad); !errors.Is(err, fault.Invalid) {
		t.Errorf("a mistyped body: %v", err)
	}
	// (module (memory 1024)): 64 MiB where 16 are allowed
	large := []byte("\x00asm\x01\x00\x00\x00\x05\x04\x01\x00\x80\x08")
	if err := compile(t, m, large); !errors.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "64 MiB") {
		t.Errorf("too much memory: %v", err)
	}
	if _, err := machine.Open(t.Context(), 1, nil); !errors.Is(err, fault.Invalid) {
		t.Errorf("a limit of one byte: %v", err)
	}
}

func compile(t *testing.T, m *machine.Machine, wasm []byte) error {
	info, err := prepare.Inspect(wasm, prepare.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.Compile(t.Context(), wasm, info)
	return err
}
