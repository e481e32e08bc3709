package replica_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"skein.dev"
	"skein.dev/abi"
	"skein.dev/platform/fault"
	"skein.dev/services/executor/internal/replica"
	"skein.dev/services/executor/internal/replica/replicatest"
)

func key(t testing.TB, name string) skein.StateKey {
	k, err := skein.NewStateKey("ann", name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func session(t testing.TB, s *replica.Store) *replica.Session {
	x := s.Open()
	t.Cleanup(x.End)
	return x
}

func global(t testing.TB, s *replica.Session, k skein.StateKey) []byte {
	t.Helper()
	buf := make([]byte, replica.MaxValue)
	n, err := s.ReadGlobal(context.Background(), k, 0, buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

// Two executors write disjoint parts of one value; pushes and pulls in any order lose no byte.
func TestDisjointWritersLoseNothing(t *testing.T) {
	ctx, client, k := t.Context(), replicatest.Client(t), key(t, "v")
	const size = 10_000
	stores := []*replica.Session{session(t, replica.New(client, 1<<30)), session(t, replica.New(client, 1<<30))}
	must(t, stores[0].Set(k, make([]byte, size)))
	must(t, stores[0].Push(ctx, k, 0, -1))
	must(t, stores[1].Pull(ctx, k, 0, -1))
	want := make([]byte, size)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		who := rng.IntN(2)
		s := stores[who]
		switch rng.IntN(4) {
		case 0:
			must(t, s.Push(ctx, k, 0, -1))
		case 1:
			must(t, s.Pull(ctx, k, 0, -1))
		default:
			n := 1 + rng.IntN(100)
			at := who*size/2 + rng.IntN(size/2-n) // each has a half of its own
			for i := range n {
				want[at+i] = byte(rng.Uint32())
			}
			must(t, s.Write(ctx, k, int64(at), want[at:at+n]))
		}
	}
	for _, s := range stores {
		must(t, s.Push(ctx, k, 0, -1))
	}
	for i, s := range stores {
		must(t, s.Pull(ctx, k, 0, -1))
		got := make([]byte, size)
		if n, err := s.Read(ctx, k, 0, got); err != nil || n != size || !bytes.Equal(got, want) {
			t.Errorf("store %d: %d bytes, %v, equal %v", i, n, err, bytes.Equal(got, want))
		}
	}
}

func TestLargeValueIsStreamed(t *testing.T) {
	ctx, client, k := t.Context(), replicatest.Client(t), key(t, "large")
	val := bytes.Repeat([]byte("0123456789abcdef"), 9<<20/16)
	a, b := session(t, replica.New(client, 1<<30)), session(t, replica.New(client, 1<<30))
	must(t, a.Set(k, val))
	must(t, a.Push(ctx, k, 0, -1))
	got := make([]byte, len(val))
	if n, err := b.Read(ctx, k, 0, got); err != nil || n != int64(len(val)) || !bytes.Equal(got, val) {
		t.Fatalf("%d, %v", n, err)
	}
}

func TestLimits(t *testing.T) {
	ctx, s, k := t.Context(), session(t, replica.New(replicatest.Client(t), 1<<20)), key(t, "k")
	if err := s.Set(k, make([]byte, replica.MaxValue+1)); !errors.Is(err, abi.EFBIG) {
		t.Errorf("Set over the limit: %v", err)
	}
	if err := s.Write(ctx, k, -1, nil); !errors.Is(err, abi.EINVAL) {
		t.Errorf("Write(-1): %v", err)
	}
	if _, err := s.Read(ctx, k, 0, nil); !errors.Is(err, fault.NotFound) {
		t.Errorf("Read of nothing: %v", err)
	}
}

// Beyond the budget clean values go and come back by a pull; what was not pushed stays.
func TestEviction(t *testing.T) {
	ctx, store := t.Context(), replica.New(replicatest.Client(t), 1<<20)
	s := session(t, store)
	must(t, s.Set(key(t, "dirty"), []byte("precious")))
	for i := range 64 {
		k := key(t, string(rune('A'+i)))
		must(t, s.Set(k, make([]byte, 100_000)))
		must(t, s.Push(ctx, k, 0, -1))
	}
	if size := store.Bytes(); size > 1<<20+200_000 {
		t.Errorf("%d bytes are held", size)
	}
	buf := make([]byte, 8)
	if n, err := s.Read(ctx, key(t, "dirty"), 0, buf); err != nil || n != 8 || string(buf) != "precious" {
		t.Errorf("what was not pushed: %q, %d, %v", buf, n, err)
	}
	if n, err := s.Read(ctx, key(t, "A"), 0, nil); err != nil || n != 100_000 {
		t.Errorf("what was evicted: %d, %v", n, err)
	}
}

// What was written before the rest of its chunk was here stays when that comes, with a read, a pull or a mapping; what is
// written past the end of what others see is theirs to see after a push.
func TestWriteBeforePull(t *testing.T) {
	ctx, client, k := t.Context(), replicatest.Client(t), key(t, "v")
	a, b := session(t, replica.New(client, 1<<30)), session(t, replica.New(client, 1<<30))
	must(t, a.Set(k, bytes.Repeat([]byte("a"), 600_000)))
	must(t, a.Push(ctx, k, 0, -1))
	must(t, b.Write(ctx, k, 300_000, []byte("bbb")))
	if got := b.Moved().Read; got != 0 {
		t.Errorf("a write fetched %d bytes", got)
	}
	must(t, a.Write(ctx, k, 299_999, []byte("AAAAA")))
	must(t, a.Push(ctx, k, 0, -1))
	buf := make([]byte, 7)
	if _, err := b.Read(ctx, k, 299_998, buf); err != nil || string(buf) != "aAbbbAa" {
		t.Errorf("%q, %v", buf, err)
	}
	must(t, b.Write(ctx, k, 600_002, []byte("end")))
	must(t, b.Pull(ctx, k, 0, -1))
	must(t, b.Push(ctx, k, 0, -1))
	must(t, a.Pull(ctx, k, 0, -1))
	for _, s := range []*replica.Session{a, b} {
		if _, err := s.Read(ctx, k, 299_998, buf); err != nil || string(buf) != "aAbbbAa" {
			t.Errorf("after push and pull: %q, %v", buf, err)
		}
		if n, err := s.Read(ctx, k, 599_998, buf); err != nil || n != 600_005 || string(buf) != "aa\x00\x00end" {
			t.Errorf("its end: %q, %d, %v", buf, n, err)
		}
	}
}

// Disjoint values made at the same time by two executors, of which none has seen the other's, are one value afterwards.
func TestMadeTwice(t *testing.T) {
	ctx, client, k := t.Context(), replicatest.Client(t), key(t, "v")
	a, b := session(t, replica.New(client, 1<<30)), session(t, replica.New(client, 1<<30))
	for i, s := range []*replica.Session{a, b} {
		must(t, s.Least(ctx, k, 1000))
		must(t, s.Write(ctx, k, int64(i*500), []byte("mine")))
	}
	for _, s := range []*replica.Session{a, b} {
		must(t, s.Push(ctx, k, 0, -1))
	}
	buf := make([]byte, 1000)
	if n, err := a.ReadGlobal(ctx, k, 0, buf); err != nil || n != 1000 || string(buf[:4]) != "mine" || string(buf[500:504]) != "mine" {
		t.Errorf("%d, %v, %q, %q", n, err, buf[:4], buf[500:504])
	}
}

func TestConcurrentUse(t *testing.T) {
	ctx, s := t.Context(), replica.New(replicatest.Client(t), 10_000)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			rng, s := rand.New(rand.NewPCG(uint64(i), 0)), s.Open()
			for range 300 {
				k := key(t, string(rune('a'+rng.IntN(4))))
				var err error
				switch rng.IntN(5) {
				case 0:
					err = s.Set(k, make([]byte, rng.IntN(5000)))
				case 1:
					err = s.Push(ctx, k, 0, -1)
				case 2:
					err = s.Pull(ctx, k, 0, -1)
				case 3:
					_, err = s.Read(ctx, k, 0, make([]byte, 100))
				case 4:
					err = s.Delete(ctx, k)
				}
				if err != nil && !errors.Is(err, fault.NotFound) && !errors.Is(err, abi.ENOENT) && !errors.Is(err, abi.EAGAIN) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
