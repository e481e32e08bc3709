package machine_test

import (
	"context"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"skein.dev"
	"skein.dev/services/executor/internal/host"
	"skein.dev/services/executor/internal/machine"
)

// A guest ends with its deadline whatever it does, and the next call finds its instance in order.
func TestStops(t *testing.T) {
	m := open(t, tiers["native"])
	m.Compare()
	mod := boot(t, m, "tiny.c")
	for how, what := range map[string]string{"f": "a loop", "c": "a tree of calls", "b": "large fills", "w\x40": "sleep"} {
		for _, cancel := range []bool{false, true} {
			ctx, stop := context.WithCancelCause(t.Context())
			end := context.CancelFunc(func() {})
			if cancel {
				time.AfterFunc(200*time.Millisecond, func() { stop(machine.ErrCancelled) })
			} else {
				ctx, end = context.WithTimeout(ctx, 200*time.Millisecond)
			}
			began := time.Now()
			exit := mod.Run(&host.Call{Context: ctx, Input: []byte(how)})
			late := time.Since(began) - 200*time.Millisecond
			end()
			stop(nil)
			if want := map[bool]skein.CallState{false: skein.TimedOut, true: skein.Cancelled}[cancel]; exit.State != want {
				t.Errorf("%s: %+v", what, exit)
			}
			t.Logf("%s stopped %s late after %s of CPU", what, late.Round(10*time.Microsecond), exit.CPU.Round(time.Millisecond))
			if late > time.Second {
				t.Errorf("%s stopped %s late", what, late)
			}
			if how[0] != 'w' && exit.CPU < 20*time.Millisecond || how[0] == 'w' && exit.CPU > 20*time.Millisecond {
				t.Errorf("%s for 200ms is said to be %s of CPU", what, exit.CPU)
			}
		}
	}
	if exit, _, _ := run(t.Context(), mod, nil); exit.State != skein.Succeeded {
		t.Errorf("%+v", exit)
	}
	mod.Settle()
	if mod.Idle() != 1 || m.Differences() != 0 {
		t.Errorf("%d idle instances, %d resets left something", mod.Idle(), m.Differences())
	}
}

// Recursion without end costs little: neither the guest's time nor the host's memory.
func TestStackIsBounded(t *testing.T) {
	if !machine.StackSeen() {
		t.Fatal("this engine's stacks can't be measured")
	}
	m := open(t, tiers["native"])
	mod := boot(t, m, "tiny.c")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	exit, _, _ := run(t.Context(), mod, []byte("r"))
	took := time.Since(began)
	runtime.ReadMemStats(&after)
	allocated := (after.TotalAlloc - before.TotalAlloc) >> 20
	t.Logf("%s, %d MiB allocated, %+v", took, allocated, exit)
	if exit.Reason != "GUEST_TRAP" || !strings.Contains(exit.Message, "stack overflow") && !strings.Contains(exit.Message, "out of bounds") {
		t.Errorf("%+v", exit)
	}
	if took > 2*time.Second || allocated > 200 {
		t.Errorf("%s, %d MiB allocated", took, allocated)
	}
}

// Other goroutines and the collector go on while guests compute on every core.
func TestTheProcessGoesOn(t *testing.T) {
	mod := boot(t, open(t, tiers["native"]), "tiny.c")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() { mod.Run(&host.Call{Context: ctx, Input: []byte("f")}) })
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var worst time.Duration
	last := time.Now()
	for ctx.Err() == nil {
		runtime.GC()
		time.Sleep(time.Millisecond)
		worst = max(worst, time.Since(last))
		last = time.Now()
	}
	wg.Wait()
	runtime.ReadMemStats(&after)
	t.Logf("the longest turn of a collection and a sleep of 1 ms took %s; %d collections", worst, after.NumGC-before.NumGC)
	if worst > 1500*time.Millisecond || after.NumGC-before.NumGC < 5 {
		t.Errorf("%s, %d collections", worst, after.NumGC-before.NumGC)
	}
}

// A guest's CPU time is the time that it computes, neither waits nor other guests'.
func TestCPUTime(t *testing.T) {
	mod := boot(t, open(t, tiers["native"]), "tiny.c")
	alone, _, _ := run(t.Context(), mod, []byte("m"))
	var wg sync.WaitGroup
	for range 3 * runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			began := time.Now()
			exit, _, _ := run(t.Context(), mod, []byte("m"))
			t.Logf("%s of CPU in %s", exit.CPU, time.Since(began))
			if exit.State != skein.Succeeded || exit.CPU > 3*alone.CPU+300*time.Millisecond || exit.CPU < alone.CPU/3 {
				t.Errorf("%s of CPU, alone %s", exit.CPU, alone.CPU)
			}
		})
	}
	wg.Wait()
	if exit, _, _ := run(t.Context(), mod, []byte("w\x01")); exit.CPU > 100*time.Millisecond {
		t.Errorf("a second of sleep is said to be %s of CPU", exit.CPU)
	}
}

// Many calls of few modules with every end there is.
func TestHammer(t *testing.T) {
	for tier, cfg := range tiers {
		cfg.WarmMemory = 4 << 20
		m := open(t, cfg)
		m.Compare()
		mods := []*machine.Module{boot(t, m, "tiny.c"), boot(t, m, "guest.c"), boot(t, m, "data.c")}
		var wg sync.WaitGroup
		for i := range 64 {
			random := rand.New(rand.NewPCG(uint64(i), 1))
			wg.Go(func() {
				for range 20 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.IntN(20_000))*time.Microsecond)
					which := random.IntN(len(mods))
					input := []byte{"ntoxfcpgk"[random.IntN(9)], 1, 2, 3, byte(random.Uint32()), 4, 5, 6}
					args := [][]string{{"guest"}, {"guest", "unreachable"}, {"guest", "exit", "3"}, {"guest", "loop"}}[random.IntN(4)]
					exit := mods[which].Run(&host.Call{Context: ctx, Input: input, Args: args})
					switch exit.Reason {
					case "", "DEADLINE", "GUEST_TRAP", "GUEST_EXIT", "GUEST_MEMORY":
					default:
						t.Errorf("%s, module %d, %q: %+v", tier, which, input, exit)
					}
					cancel()
				}
			})
		}
		wg.Wait()
		for _, mod := range mods {
			mod.Settle()
			if exit, _, _ := run(t.Context(), mod, nil); exit.State != skein.Succeeded {
				t.Errorf("%s: %+v", tier, exit)
			}
			mod.Settle()
		}
		if m.Differences() != 0 || m.MemoryInUse() != 0 || m.Warm() > cfg.WarmMemory {
			t.Errorf("%s: %d resets left something, %d bytes in use, %d warm", tier, m.Differences(), m.MemoryInUse(), m.Warm())
		}
	}
}
