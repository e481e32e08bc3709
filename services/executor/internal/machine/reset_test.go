package machine_test

import (
	"bytes"
	"context"
	"encoding/binary"
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

var guests = []string{"tiny.c", "data.c", "gore"}

// Whatever a call does to its instance, the next finds it as the snapshot has it.
func TestSecretsDoNotStay(t *testing.T) {
	for tier, cfg := range tiers {
		m := open(t, cfg)
		mod := boot(t, m, "tiny.c")
		random := rand.NewChaCha8([32]byte{1})
		secret, inverted := make([]byte, 24), make([]byte, 24)
		rounds := 10_000
		if testing.Short() || cfg.Portable {
			rounds = 500
		}
		for i := range rounds {
			_, _ = random.Read(secret)
			for j, b := range secret {
				inverted[j] = ^b
			}
			if exit, _, _ := run(t.Context(), mod, append([]byte{'p'}, secret...)); exit.State != skein.Succeeded {
				t.Fatalf("%s, round %d: %+v", tier, i, exit)
			}
			if exit, _, _ := run(t.Context(), mod, append([]byte{'l'}, inverted...)); exit.State != skein.Succeeded {
				t.Fatalf("%s, round %d: the secret was found: %+v", tier, i, exit)
			}
		}
		mod.Settle()
		if n := mod.Idle(); n != 1 {
			t.Errorf("%s: %d instances were made where one was enough", tier, n)
		}
	}
}

// The guest of TestSecretsDoNotStay does find what is there: without a reset between.
func TestSecretsAreFound(t *testing.T) {
	mod := boot(t, open(t, tiers["native"]), "tiny.c")
	if exit, _, _ := run(t.Context(), mod, append([]byte{'l'}, ^byte('b'), ^byte('o'), ^byte('o'))); exit.State != skein.Succeeded {
		t.Errorf("%+v", exit) // its strings hold no "boo"
	}
	if exit, _, _ := run(t.Context(), mod, []byte{'l', ^byte('l')}); exit.Code != 42 {
		t.Errorf("%+v", exit) // its input does hold an 'l'
	}
}

func TestResetsAreExact(t *testing.T) {
	for tier, cfg := range tiers {
		m := open(t, cfg)
		m.Compare()
		mod := boot(t, m, "tiny.c")
		random := rand.New(rand.NewPCG(1, 2))
		for i := range 300 {
			how := []byte("ggggggtorx")[random.IntN(10)]
			exit, _, _ := run(t.Context(), mod, binary.LittleEndian.AppendUint32([]byte{how, 0, 0, 0}, random.Uint32()))
			if want := map[byte]string{'g': "", 'x': "GUEST_EXIT"}[how]; exit.Reason != want && !(exit.Reason == "GUEST_TRAP" && strings.ContainsRune("tor", rune(how))) {
				t.Fatalf("%s, round %d, %c: %+v", tier, i, how, exit)
			}
			if exit, _, _ := run(t.Context(), mod, nil); exit.State != skein.Succeeded {
				t.Fatalf("%s, round %d, after %c: %+v", tier, i, how, exit)
			}
		}
		mod.Settle()
		if mod.Idle() != 1 || m.Differences() != 0 {
			t.Errorf("%s: %d idle instances, %d resets left something", tier, mod.Idle(), m.Differences())
		}
		if n := m.Mappings(); cfg.Portable && n != 0 {
			t.Errorf("%d mappings", n)
		}
	}
}

// Each of the guests finds its own initialised state before every call, and the state of no other call.
func TestGuests(t *testing.T) {
	for tier, cfg := range tiers {
		m := open(t, cfg)
		m.Compare()
		for _, name := range guests {
			mod := boot(t, m, name)
			for i := range 20 {
				if exit, _, out := run(t.Context(), mod, nil); exit.State != skein.Succeeded {
					t.Fatalf("%s, %s, call %d: %+v\n%s", tier, name, i, exit, out)
				}
			}
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					if exit, _, out := run(t.Context(), mod, nil); exit.State != skein.Succeeded {
						t.Errorf("%s, %s: %+v\n%s", tier, name, exit, out)
					}
				})
			}
			wg.Wait()
			mod.Settle()
			if err := mod.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if m.Differences() != 0 || m.Warm() != 0 {
			t.Errorf("%s: %d resets left something, idle instances keep %d bytes", tier, m.Differences(), m.Warm())
		}
	}
}

func TestRestoredGuests(t *testing.T) {
	mod := boot(t, open(t, tiers["native"]), "tiny.c")
	for range 3 {
		_, c, _ := run(t.Context(), mod, []byte("n"))
		if want := []byte{1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0}; !bytes.Equal(c.Output, want) {
			t.Errorf("booted, restored, calls: %v", c.Output)
		}
	}
	seen := map[string]bool{}
	var wall, steady uint64
	for range 100 {
		_, c, _ := run(t.Context(), mod, []byte("k"))
		if len(c.Output) != 48 || seen[string(c.Output[:16])] {
			t.Fatalf("random bytes of an earlier call: %x", c.Output)
		}
		seen[string(c.Output[:16])] = true
		at := func(i int) uint64 {
			return binary.LittleEndian.Uint64(c.Output[i:])*1e9 + uint64(binary.LittleEndian.Uint32(c.Output[i+8:]))
		}
		if at(16) <= wall || at(32) <= steady {
			t.Fatalf("clocks went from %d and %d to %d and %d", wall, steady, at(16), at(32))
		}
		wall, steady = at(16), at(32)
	}
	if d := time.Since(time.Unix(0, int64(wall))); d < 0 || d > time.Minute {
		t.Errorf("the guest's clock is %s late", d)
	}
}

// What a boot can't give ends the snapshot, not the module.
func TestReplay(t *testing.T) {
	m := open(t, tiers["native"])
	mod := load(t, m, "tiny.c")
	for range 2 { // nobody has booted it
		_, c, _ := run(t.Context(), mod, []byte("n"))
		if want := []byte{1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}; !bytes.Equal(c.Output, want) {
			t.Errorf("booted, restored, calls: %v", c.Output)
		}
	}
	tainted := bootCall(t)
	tainted.Meter().Taint("it read its input")
	if err := mod.Boot(tainted); err != nil || mod.Replay() != "it read its input" || mod.Snapshot() != nil {
		t.Fatalf("%v %q", err, mod.Replay())
	}
	if exit, _, _ := run(t.Context(), mod, nil); exit.State != skein.Succeeded {
		t.Errorf("%+v", exit)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	mod = load(t, m, "gore")
	if err := mod.Boot(&host.Call{Context: ended, Boot: true}); err == nil || mod.Replay() != "" {
		t.Errorf("a boot that was cancelled: %v, %q", err, mod.Replay())
	}
	if err := mod.Boot(bootCall(t)); err != nil || mod.Snapshot() == nil {
		t.Errorf("and the next: %v, %q", err, mod.Replay())
	}
}

// A module that can change its tables has instances for one call each.
func TestDeep(t *testing.T) {
	m := open(t, tiers["native"])
	// (table 2 funcref) (global (mut i32) 0) (func (export "handle") (result i32)
	//   (table.grow (ref.null func) (i32.const 1)) drop
	//   (global.set 0 (i32.add (global.get 0) (i32.const 1))) (i32.sub (global.get 0) (i32.const 1)))
	mod, err := loadBytes(t, m, "\x01\x05\x01\x60\x00\x01\x7f"+"\x03\x02\x01\x00"+"\x04\x05\x01\x70\x01\x02\x09"+"\x06\x06\x01\x7f\x01\x41\x00\x0b"+
		"\x07\x0a\x01\x06handle\x00\x00"+"\x0a\x18\x01\x16\x00\xd0\x70\x41\x01\xfc\x0f\x00\x1a\x23\x00\x41\x01\x6a\x24\x00\x23\x00\x41\x01\x6b\x0b")
	if err != nil {
		t.Fatal(err)
	}
	if err := mod.Boot(bootCall(t)); err != nil || mod.Replay() == "" {
		t.Errorf("%v %q", err, mod.Replay())
	}
	for range 3 {
		if exit, _, _ := run(t.Context(), mod, nil); exit.State != skein.Succeeded {
			t.Errorf("%+v", exit)
		}
	}
	mod.Settle()
	if mod.Idle() != 0 {
		t.Errorf("%d instances were kept", mod.Idle())
	}
}

// Beyond the budget of mappings instances are closed, then images copied: no call fails.
func TestMappingsAreBounded(t *testing.T) {
	cfg := tiers["native"]
	cfg.Mappings = 12
	m := open(t, cfg)
	m.Compare()
	mods := []*machine.Module{boot(t, m, "data.c"), boot(t, m, "gore")}
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			for j := range 5 {
				if exit, _, out := run(t.Context(), mods[(i+j)%2], nil); exit.State != skein.Succeeded {
					t.Errorf("%+v\n%s", exit, out)
				}
				if n := m.Mappings(); n > int64(cfg.Mappings) {
					t.Errorf("%d mappings of %d", n, cfg.Mappings)
				}
			}
		})
	}
	wg.Wait()
	if m.Differences() != 0 {
		t.Errorf("%d resets left something", m.Differences())
	}
}

func TestWarmMemoryIsBounded(t *testing.T) {
	cfg := tiers["native"]
	cfg.WarmMemory = 1 << 20
	m := open(t, cfg)
	tiny, large := boot(t, m, "tiny.c"), boot(t, m, "gore")
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 10 {
				_, _, _ = run(t.Context(), tiny, []byte("p"))
				_, _, _ = run(t.Context(), large, nil)
			}
		})
	}
	wg.Wait()
	tiny.Settle()
	large.Settle()
	if n := m.Warm(); n > cfg.WarmMemory || n <= 0 {
		t.Errorf("idle instances keep %d bytes of %d", n, cfg.WarmMemory)
	}
}

// Idle instances cost less after a while, work when they are called, and go in the end.
func TestAge(t *testing.T) {
	m := open(t, tiers["native"])
	m.Compare()
	for _, name := range guests {
		mod := boot(t, m, name)
		before := m.Warm()
		for _, step := range []struct {
			by   time.Duration
			idle int
		}{{0, 1}, {11 * time.Second, 1}, {0, 1}, {11 * time.Second, 1}, {6 * time.Minute, 0}, {0, 1}} {
			if step.by == 0 {
				if exit, _, out := run(t.Context(), mod, nil); exit.State != skein.Succeeded {
					t.Errorf("%s: %+v\n%s", name, exit, out)
				}
				mod.Settle()
			}
			warm := m.Warm()
			m.Age(step.by)
			if mod.Idle() != step.idle {
				t.Errorf("%s, %s later: %d idle instances", name, step.by, mod.Idle())
			}
			if step.by > 0 && m.Warm() >= warm {
				t.Errorf("%s, %s later: %d bytes, before %d", name, step.by, m.Warm(), warm)
			}
		}
		if err := mod.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if n := m.Warm(); n != before {
			t.Errorf("%s: %d bytes are kept", name, n)
		}
	}
}

func TestCloseWaits(t *testing.T) {
	m := open(t, tiers["native"])
	mod := boot(t, m, "guest.c")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	done := make(chan machine.Exit)
	go func() { done <- mod.Run(&host.Call{Context: ctx, Args: []string{"guest", "loop"}}) }()
	time.Sleep(50 * time.Millisecond)
	short, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if err := mod.Close(short); err == nil {
		t.Error("closed under a running call")
	}
	if exit, _, _ := run(t.Context(), mod, nil); exit.Reason != "MODULE_CLOSED" {
		t.Errorf("a call after: %+v", exit)
	}
	if err := mod.Close(t.Context()); err != nil {
		t.Error(err)
	}
	select {
	case exit := <-done:
		if exit.State != skein.TimedOut {
			t.Errorf("%+v", exit)
		}
	case <-time.After(time.Minute):
		t.Error("the call does not end")
	}
}

// A snapshot is good elsewhere, and nothing else is one.
func TestSnapshotTravels(t *testing.T) {
	for _, name := range guests {
		first := open(t, tiers["native"])
		b, err := boot(t, first, name).Snapshot().Encode()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d bytes", name, len(b))
		for tier, cfg := range tiers {
			s, err := machine.DecodeSnapshot(b)
			if err != nil {
				t.Fatal(err)
			}
			m := open(t, cfg)
			m.Compare()
			mod := load(t, m, name)
			if err := mod.Adopt(s); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if exit, _, out := run(t.Context(), mod, nil); exit.State != skein.Succeeded {
					t.Errorf("%s, %s: %+v\n%s", tier, name, exit, out)
				}
			}
			again, err := mod.Snapshot().Encode()
			if err != nil || !bytes.Equal(again, b) {
				t.Errorf("%s, %s: encoded again it is another (%v)", tier, name, err)
			}
			mod.Settle()
			if m.Differences() != 0 {
				t.Errorf("%s, %s: %d resets left something", tier, name, m.Differences())
			}
		}
	}
}

func TestDamagedSnapshots(t *testing.T) {
	m := open(t, tiers["native"])
	mod := boot(t, m, "tiny.c")
	b, err := mod.Snapshot().Encode()
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(b) {
		if _, err := machine.DecodeSnapshot(b[:n]); err == nil {
			t.Errorf("%d of %d bytes are taken for all", n, len(b))
		}
	}
	for i := range 60 { // its header, and where the rest begins
		bad := bytes.Clone(b)
		bad[i] ^= 0x40
		s, err := machine.DecodeSnapshot(bad)
		if err != nil {
			continue
		}
		if err := load(t, m, "data.c").Adopt(s); err == nil {
			t.Errorf("with byte %d changed it is taken", i)
		}
	}
	other, err := machine.DecodeSnapshot(b)
	if err != nil {
		t.Fatal(err)
	}
	data := load(t, m, "data.c")
	if err := data.Adopt(other); err == nil {
		t.Error("a module takes another's snapshot")
	}
}

// What an instance lets go of while it is idle it has again when it is called.
func TestTablesComeBack(t *testing.T) {
	m := open(t, tiers["native"])
	mod := boot(t, m, "gore")
	for range 3 {
		for range 2 {
			if exit, _, out := run(t.Context(), mod, nil); exit.State != skein.Succeeded {
				t.Fatalf("%+v %s", exit, out)
			}
			mod.Settle()
		}
		warm := m.Warm()
		m.Age(11 * time.Second)
		if left := m.Warm(); mod.Idle() != 1 || warm < 128<<10 || left > 64<<10 {
			t.Errorf("%d instances keep %d bytes of %d", mod.Idle(), left, warm)
		}
		runtime.GC()
	}
}
