package replica_test

import (
	"bytes"
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

func key(t *testing.T, name string) skein.StateKey {
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

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
