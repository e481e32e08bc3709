package machine_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
	"skein.dev/platform/prepare"
	"skein.dev/services/executor/internal/host"
	"skein.dev/services/executor/internal/machine"
)

func TestEnds(t *testing.T) {
	for tier, cfg := range tiers {
		cfg.GuestMemory = 16 << 20
		m := open(t, cfg)
		m.Compare()
		mod := boot(t, m, "guest.c")
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
			{[]string{"exit", "3"}, skein.Failed, 3, "GUEST_EXIT", "code 3"},
			{[]string{"exit", "3"}, skein.Failed, 3, "GUEST_EXIT", "code 3"},
			{[]string{"exit", "-1"}, skein.Failed, 255, "GUEST_EXIT", "code 255"},
			{[]string{"exit", "256"}, skein.Failed, 255, "GUEST_EXIT", "code 255"},
			{[]string{"unreachable"}, skein.Failed, 0, "GUEST_TRAP", "unreachable"},
			{[]string{"bounds"}, skein.Failed, 0, "GUEST_TRAP", "out of bounds memory access"},
			{[]string{"divide"}, skein.Failed, 0, "GUEST_TRAP", "integer divide by zero"},
			{[]string{"stack"}, skein.Failed, 0, "GUEST_TRAP", ""}, // the C stack or the engine's, whichever ends first
			{[]string{"memory"}, skein.Failed, 9, "GUEST_MEMORY", "16 MiB"},
			{nil, skein.Succeeded, 0, "", ""},
		} {
			t.Run(tier+" "+strings.Join(c.args, " "), func(t *testing.T) {
				exit, _, out := run(t.Context(), mod, nil, c.args...)
				if exit.State != c.state || exit.Code != c.code || exit.Reason != c.reason || !strings.Contains(exit.Message, c.message) {
					t.Errorf("%+v\n%s", exit, out)
				}
				if c.args == nil && out != "fine\n" {
					t.Errorf("it said %q", out)
				}
				if c.reason == "GUEST_TRAP" && !strings.Contains(exit.Backtrace, "main(") && !strings.Contains(exit.Backtrace, "deep(") {
					t.Errorf("backtrace %q", exit.Backtrace)
				}
				if exit.MemoryPeak < 64<<10 || exit.MemoryPeak > 16<<20 || exit.CPU <= 0 {
					t.Errorf("memory peak %d, CPU %s", exit.MemoryPeak, exit.CPU)
				}
			})
		}
		mod.Settle()
		if n := m.MemoryInUse(); n != 0 || mod.Idle() != 1 || m.Differences() != 0 {
			t.Errorf("%s: %d bytes are in use, %d instances idle, %d resets left something", tier, n, mod.Idle(), m.Differences())
		}
	}
}

func TestDeadlineAndCancel(t *testing.T) {
	m := open(t, tiers["native"])
	mod := boot(t, m, "guest.c")
	runIn := func(ctx context.Context, how string) machine.Exit {
		return mod.Run(&host.Call{Context: ctx, Args: []string{"guest", how}})
	}
	for _, how := range []string{"loop", "sleep"} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if exit := runIn(ctx, how); exit.State != skein.TimedOut || exit.Reason != "DEADLINE" {
			t.Errorf("%s past its deadline: %+v", how, exit)
		}
		cancel()
		cctx, stop := context.WithCancelCause(t.Context())
		time.AfterFunc(50*time.Millisecond, func() { stop(machine.ErrCancelled) })
		if exit := runIn(cctx, how); exit.State != skein.Cancelled || exit.Reason != "CANCELLED" {
			t.Errorf("%s cancelled: %+v", how, exit)
		}
		cctx, stop = context.WithCancelCause(t.Context())
		stop(errors.New("stream broke"))
		if exit := runIn(cctx, how); exit.State != skein.Failed || exit.Reason != "EXECUTOR_LOST" {
			t.Errorf("%s without its stream: %+v", how, exit)
		}
	}
	mod.Settle()
	if n := mod.Idle(); n != 1 {
		t.Errorf("of the one instance %d are left", n)
	}
}

// Instances of one module live side by side and don't see each other.
func TestConcurrentRuns(t *testing.T) {
	mod := boot(t, open(t, tiers["native"]), "guest.c")
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 20 {
				if exit, _, out := run(t.Context(), mod, nil); exit.State != skein.Succeeded || out != "fine\n" {
					t.Errorf("%+v %q", exit, out)
				}
			}
		})
	}
	wg.Wait()
}

func TestLoadRefuses(t *testing.T) {
	m := open(t, machine.Config{GuestMemory: 16 << 20})
	// (module (memory 1024)): 64 MiB where 16 are allowed
	large := "\x05\x04\x01\x00\x80\x08"
	if _, err := loadBytes(t, m, large); !errors.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "64 MiB") {
		t.Errorf("too much memory: %v", err)
	}
	// (module (memory 1 1 shared))
	if _, err := loadBytes(t, m, "\x05\x04\x01\x03\x01\x01"); !errors.Is(err, fault.Unsupported) {
		t.Errorf("shared memory: %v", err)
	}
	if _, err := machine.Open(t.Context(), machine.Config{GuestMemory: 1}, nil); !errors.Is(err, fault.Invalid) {
		t.Errorf("a limit of one byte: %v", err)
	}
}

// loadBytes loads a module of some sections.
func loadBytes(t testing.TB, m *machine.Machine, sections string) (*machine.Module, error) {
	t.Helper()
	p, err := prepare.Prepare([]byte("\x00asm\x01\x00\x00\x00"+sections), prepare.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	code, err := m.Runtime().CompileModule(t.Context(), p.Wasm)
	if err != nil {
		t.Fatal(err)
	}
	return m.Load(t.Context(), code, p)
}
