package machine_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"skein.dev"
	"skein.dev/services/executor/internal/host"
	"skein.dev/services/executor/internal/machine"
	"skein.dev/services/executor/internal/replica"
	"skein.dev/services/executor/internal/replica/replicatest"
)

// Whatever of a memory was mapped, inside the image or above it, and however the call ended: the next finds it as it was.
func TestMappedMemoryIsReset(t *testing.T) {
	m := open(t, tiers["native"])
	m.Compare()
	mod := boot(t, m, "space.c")
	value := bytes.Repeat([]byte{'v'}, 1<<20)
	store := replica.New(replicatest.Client(t), 1<<30)
	k, err := skein.NewStateKey("ann", "k")
	if err != nil {
		t.Fatal(err)
	}
	s := store.Open()
	defer s.End()
	if err := s.Set(k, value); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	call := func(how string, seed uint32) machine.Exit {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		f, _ := skein.NewFunction("ann", "space")
		c := &host.Call{Context: ctx, Function: f, State: store, Input: binary.LittleEndian.AppendUint32([]byte((how + "\x00\x00\x00\x00")[:4]), seed)}
		defer c.End()
		return mod.Run(c)
	}
	ways := []string{"", "i", "a", "ia", "ai", "ix", "ax", "iax", "e", "ae", "ie", "ex"}
	check := func(i int, how string, seed uint32) {
		exit := call(how, seed)
		if want := how != "" && how[len(how)-1] == 'x'; want != (exit.Reason == "GUEST_TRAP") || !want && exit.State != skein.Succeeded {
			t.Errorf("round %d, %q, seed %d: %+v", i, how, seed, exit)
		}
	}
	for i := range 150 {
		check(i, ways[random.IntN(len(ways))], random.Uint32())
	}
	var wg sync.WaitGroup // two that map the same at the same time
	for w := range 2 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(w), 3))
			for i := range 60 {
				check(i, ways[random.IntN(len(ways)-4)], random.Uint32())
			}
		})
	}
	wg.Wait()
	mod.Settle()
	if n := m.Differences(); n != 0 {
		t.Errorf("%d resets left something", n)
	}
	got := make([]byte, len(value))
	if _, err := s.Read(t.Context(), k, 0, got); err != nil || !bytes.Equal(got, value) {
		t.Errorf("the value: %v, as it was: %v", err, bytes.Equal(got, value))
	}
	if err := mod.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if n := m.Mappings(); n > 1 { // the image's own
		t.Errorf("%d mappings are still charged for", n)
	}
}

// checkSpace maps the file of 1 MiB in all ways that are wrong, and in some that are right.
func checkSpace(t *testing.T, s *machine.Space, fd int) {
	size := uint64(s.Bytes())
	for name, got := range map[string]error{
		"no bytes": s.Map(0, 0, fd, 0), "an odd address": s.Map(100, 4096, fd, 0), "an odd length": s.Map(0, 4095, fd, 0),
		"an odd offset": s.Map(0, 4096, fd, 1), "beyond the end": s.Map(size, 4096, fd, 0), "over the end": s.Map(size-4096, 8192, fd, 0),
		"a length that wraps": s.Map(4096, ^uint64(4095), fd, 0), "an address that wraps": s.Map(^uint64(4095), 4096, fd, 0),
		"zeroes in the image": s.Zero(0, 4096), "zeroes beyond the end": s.Zero(size, 4096),
	} {
		if !errors.Is(got, machine.ErrBadRange) {
			t.Errorf("%s: %v", name, got)
		}
	}
	if _, err := s.Grow(guestMemory); !errors.Is(err, machine.ErrNoSpace) {
		t.Errorf("growth beyond the limit: %v", err)
	}
	if _, err := s.Grow(^uint64(0)); !errors.Is(err, machine.ErrNoSpace) {
		t.Errorf("growth that wraps: %v", err)
	}
	at, err := s.Grow(4 << 20)
	if err != nil || at != size {
		t.Fatalf("growth: %d, %v", at, err)
	}
	if err := errors.Join(s.Map(at, 8192, fd, 0), s.Map(at, 8192, fd, 4096)); err != nil { // in its place
		t.Error(err)
	}
	if err := s.Map(at+4096, 8192, fd, 0); !errors.Is(err, machine.ErrBadRange) {
		t.Errorf("an overlap: %v", err)
	}
	if err := s.Map(at+8192, 4096, -1, 0); err == nil {
		t.Error("a file that isn't")
	}
	random := rand.New(rand.NewPCG(5, 6))
	for range 500 { // mappings that are cut in front, in the middle, behind
		part, n := at+1<<20+random.Uint64N(256)*4096, (random.Uint64N(40)+1)*4096
		switch random.IntN(2) {
		case 0:
			if err := s.MapPrivate(part, n, fd, 0); err != nil && !errors.Is(err, machine.ErrBadRange) {
				t.Fatal(err)
			}
		default:
			if err := s.Zero(part, n); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Zero(at+1<<20, 3<<20); err != nil {
		t.Fatal(err)
	}
	n := 1
	for ; n <= 1000 && err == nil; n++ {
		err = s.Map(at+uint64(n)*8192, 4096, fd, 0)
	}
	if !errors.Is(err, machine.ErrNoSpace) || n > 300 {
		t.Errorf("%d mappings: %v", n, err)
	}
	if err := s.Zero(at, 8192); err != nil {
		t.Error(err)
	}
	if err := s.Map(at, 4096, fd, 0); err != nil {
		t.Errorf("after a Zero: %v", err)
	}
}

func TestSpaceLimits(t *testing.T) {
	m := open(t, tiers["native"])
	mod := load(t, m, "guest.c")
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if err := file.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	fd := int(file.Fd())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ran := false
	call := &host.Call{Context: ctx, Args: []string{"guest", "loop"}}
	call.Chain = &host.Chain{Turn: func(c *host.Call) { // in the middle of the call
		if ran {
			return
		}
		ran = true
		defer cancel()
		checkSpace(t, c.Space(), fd)
	}}
	exit := mod.Run(call)
	if !ran || exit.State == skein.Succeeded {
		t.Fatalf("ran %v, %+v", ran, exit)
	}
	if err := call.Space().Map(0, 4096, fd, 0); !errors.Is(err, machine.ErrNoMaps) {
		t.Errorf("after the call: %v", err)
	}
	mod.Settle()
	if n := m.Mappings(); n != 0 {
		t.Errorf("%d mappings are still charged for", n)
	}
}

// A Go program gives the region to map from its own heap, for its allocator would take what the host grows.
func TestGoMapsState(t *testing.T) {
	if testing.Short() {
		t.Skip("it compiles a Go program")
	}
	m := open(t, tiers["native"])
	m.Compare()
	mod := boot(t, m, "state")
	for i := range 3 {
		store := replica.New(replicatest.Client(t), 1<<30)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		f, _ := skein.NewFunction("ann", "state")
		var out bytes.Buffer
		c := &host.Call{Context: ctx, Function: f, State: store, Stdout: &out, Stderr: &out}
		exit := mod.Run(c)
		c.End()
		cancel()
		if exit.State != skein.Succeeded {
			t.Fatalf("call %d: %+v\n%s", i, exit, out.String())
		}
	}
	mod.Settle()
	if n := m.Differences(); n != 0 {
		t.Errorf("%d resets left something", n)
	}
}

// Where nothing can be mapped, that is said, and rows that copy work.
func TestNoMaps(t *testing.T) {
	m := open(t, tiers["portable"])
	mod := boot(t, m, "space.c")
	store := replica.New(replicatest.Client(t), 1<<30)
	k, _ := skein.NewStateKey("ann", "k")
	s := store.Open()
	defer s.End()
	if err := s.Set(k, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	f, _ := skein.NewFunction("ann", "space")
	for _, how := range []string{"i", "a", "e"} {
		log := &host.Log{}
		c := &host.Call{Context: t.Context(), Function: f, State: store, Log: log, Input: []byte(how + "\x00\x00\x00\x00\x00\x00\x00")}
		exit := mod.Run(c)
		c.End()
		if (exit.State == skein.Succeeded) != (how == "e") || !bytes.Contains(log.Bytes(), []byte("state can't be mapped")) {
			t.Errorf("%s: %+v\n%s", how, exit, log.Bytes())
		}
	}
}
