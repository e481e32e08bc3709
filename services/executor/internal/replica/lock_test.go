package replica_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"skein.dev"
	"skein.dev/abi"
	"skein.dev/platform/fault"
	"skein.dev/services/executor/internal/replica"
	"skein.dev/services/executor/internal/replica/replicatest"
)

// waits starts a call that takes a lock, and returns when it stands in line.
func waits(t *testing.T, ctx context.Context, store *replica.Store, k skein.StateKey, write bool) (*replica.Session, <-chan error) {
	t.Helper()
	s, got, parked := store.Open(), make(chan error, 1), make(chan struct{})
	s.Park = func(wait func() error) error {
		close(parked)
		return wait()
	}
	go func() { got <- s.Lock(ctx, k, write) }()
	<-parked
	return s, got
}

func TestLocksAreFair(t *testing.T) {
	ctx, store, k := t.Context(), replica.New(replicatest.Client(t), 1<<20), key(t, "k")
	first := store.Open()
	must(t, first.Lock(ctx, k, false))
	must(t, first.Lock(ctx, k, false)) // one that reads already doesn't wait for the writer
	writer, wrote := waits(t, ctx, store, k, true)
	must(t, first.Lock(ctx, k, false))
	a, readA := waits(t, ctx, store, k, false) // others do
	b, readB := waits(t, ctx, store, k, false)
	last, wroteLast := waits(t, ctx, store, k, true)
	for range 3 {
		select {
		case <-wrote:
			t.Fatal("a writer beside a reader")
		default:
		}
		must(t, first.Unlock(k, false))
	}
	must(t, <-wrote)
	writer.End() // which releases it
	must(t, <-readA)
	must(t, <-readB)
	must(t, a.Unlock(k, false))
	b.End()
	must(t, <-wroteLast)
	last.End()
	must(t, first.Lock(ctx, k, true))
	first.End()
}

// One that gives up leaves the line to those behind it, and holds nothing.
func TestLockGivesUp(t *testing.T) {
	ctx, store, k := t.Context(), replica.New(replicatest.Client(t), 1<<20), key(t, "k")
	reader := store.Open()
	must(t, reader.Lock(ctx, k, false))
	over, cancel := context.WithCancel(ctx)
	writer, wrote := waits(t, over, store, k, true)
	next, read := waits(t, ctx, store, k, false)
	cancel()
	if err := <-wrote; !errors.Is(err, context.Canceled) {
		t.Errorf("the writer: %v", err)
	}
	must(t, <-read)
	if err := writer.Unlock(k, true); !errors.Is(err, abi.EPERM) {
		t.Errorf("its unlock: %v", err)
	}
	writer.End()
	next.End()
	reader.End()
	must(t, writer.Lock(ctx, k, true))
	writer.End()
}

// Never two writers, nor a writer and a reader, whatever comes and gives up when.
func TestLockExcludes(t *testing.T) {
	store, k := replica.New(replicatest.Client(t), 1<<20), key(t, "k")
	var readers, writers atomic.Int32
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 1))
			for range 300 {
				s, write := store.Open(), rng.IntN(3) == 0
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rng.IntN(300))*time.Microsecond)
				if s.Lock(ctx, k, write) == nil {
					n := &readers
					if write {
						n = &writers
					}
					n.Add(1)
					if w := writers.Load(); w > 1 || w == 1 && readers.Load() > 0 {
						t.Errorf("%d writers, %d readers", w, readers.Load())
					}
					n.Add(-1)
				}
				cancel()
				s.End()
			}
		})
	}
	wg.Wait()
	s := store.Open()
	must(t, s.Lock(t.Context(), k, true))
	s.End()
}

// A lock of the cluster keeps others out, and ends with its call. One that is lost makes the holder's writes fail, and says so.
func TestGlobalLock(t *testing.T) {
	ctx, k := t.Context(), key(t, "k")
	client, faults := replicatest.Service(t)
	a, b := replica.New(client, 1<<20).Open(), replica.New(client, 1<<20).Open()
	must(t, a.LockGlobal(ctx, k, true, "a"))
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := b.LockGlobal(short, k, false, "b"); err == nil {
		t.Error("a reader beside a writer")
	}
	must(t, a.Set(k, []byte("of the holder")))
	must(t, a.Push(ctx, k, 0, -1))
	a.End()
	must(t, b.LockGlobal(ctx, k, true, "b"))
	faults.Lose()
	must(t, a.LockGlobal(ctx, k, true, "a"))
	for name, write := range map[string]func() error{
		"push of all": func() error { return errors.Join(b.Set(k, []byte("late")), b.Push(ctx, k, 0, -1)) },
		"append":      func() error { _, err := b.Append(ctx, k, []byte("late")); return err },
		"clear":       func() error { return b.Clear(ctx, k) },
		"add":         func() error { _, err := b.Add(ctx, k, 1); return err },
		"CAS":         func() error { _, err := b.CompareAndSet(ctx, k, []byte("of the holder"), []byte("late")); return err },
		"push of some": func() error {
			return errors.Join(a.Push(ctx, k, 0, -1), b.Pull(ctx, k, 0, -1), b.Write(ctx, k, 0, []byte("late")), b.Push(ctx, k, 0, -1))
		},
	} {
		if err := write(); fault.From(err).Reason != "FENCED" {
			t.Errorf("%s by one who lost the lock: %v", name, err)
		}
	}
	if err := b.UnlockGlobal(k, true); !errors.Is(err, abi.ESTALE) {
		t.Errorf("unlock of a lost lock: %v", err)
	}
	must(t, a.UnlockGlobal(k, true))
	if got := string(global(t, a, k)); got != "of the holder" {
		t.Errorf("%q", got)
	}
	must(t, b.LockGlobal(ctx, k, false, "b"))
	must(t, a.LockGlobal(ctx, k, false, "a"))
	a.End()
	b.End()
}

// A lock of the cluster goes on elsewhere when the process ends where it was held. One that is lost meanwhile is lost.
func TestGlobalLockMoves(t *testing.T) {
	ctx, k := t.Context(), key(t, "k")
	client, faults := replicatest.Service(t)
	a, b := replica.New(client, 1<<20).Open(), replica.New(client, 1<<20).Open()
	for range 20 {
		must(t, a.LockGlobal(ctx, k, true, "a"))
		faults.Break()
		must(t, a.Set(k, []byte("a")))
		must(t, a.Push(ctx, k, 0, -1))
		faults.Break()
		must(t, a.UnlockGlobal(k, true))
	}
	a.End()
	must(t, b.LockGlobal(ctx, k, true, "b"))
	faults.Lose()
	faults.Break()
	if err := b.UnlockGlobal(k, true); !errors.Is(err, abi.ESTALE) {
		t.Errorf("unlock of a lost lock: %v", err)
	}
}
