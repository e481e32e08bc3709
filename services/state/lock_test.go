package state

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
	"skein.dev/platform/redistest"
)

func testLock(t *testing.T, s *Store, u skein.User) {
	ctx, k := t.Context(), key(t, string(u), "k")
	take := func(shared bool, patience time.Duration) *Lock {
		t.Helper()
		l, err := s.Lock(ctx, k, LockRequest{Shared: shared, Patience: patience, Holder: "call-1"})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	refused := func(shared bool, patience time.Duration) {
		t.Helper()
		_, err := s.Lock(ctx, k, LockRequest{Shared: shared, Patience: patience})
		reason(t, "held", err, fault.Timeout, "LOCK_TIMEOUT")
	}
	free := func(l *Lock) {
		t.Helper()
		if err := l.Release(ctx); err != nil {
			t.Fatal(err)
		}
	}
	first := take(false, 0)
	_, err := s.Lock(ctx, k, LockRequest{})
	if err == nil || !strings.Contains(err.Error(), "call-1") {
		t.Error("who holds it is not said:", err)
	}
	refused(true, 0)
	refused(false, 20*time.Millisecond)
	free(first)
	a, b := take(true, time.Minute), take(true, 0)
	if a.Token <= first.Token || b.Token <= a.Token {
		t.Error("tokens", first.Token, a.Token, b.Token)
	}
	refused(false, 0)
	free(a)
	refused(false, 0)
	free(b)
	for _, bad := range []LockRequest{{Lease: 1}, {Lease: maxLease + 1}, {Patience: -1}, {Holder: strings.Repeat("h", maxHolder+1)}} {
		_, err := s.Lock(ctx, k, bad)
		if !errors.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}

	// Exclusion among many, readers among them, and nobody is left.
	var wg sync.WaitGroup
	var mu sync.Mutex
	writers, readers := 0, 0
	for w := range 8 {
		wg.Go(func() {
			for range 10 {
				l, err := s.Lock(ctx, k, LockRequest{Shared: w%4 == 0, Patience: time.Minute})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if writers > 0 || w%4 != 0 && readers > 0 {
					t.Error("not alone")
				}
				if w%4 == 0 {
					readers++
				} else {
					writers++
				}
				mu.Unlock()
				_, _, _ = s.Get(ctx, k, 0, 0)
				mu.Lock()
				if w%4 == 0 {
					readers--
				} else {
					writers--
				}
				mu.Unlock()
				if err := l.Release(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()

	// Who goes away while waiting gets nothing.
	l := take(false, 0)
	gone, cancel := context.WithCancel(ctx)
	done := make(chan error)
	go func() { _, err := s.Lock(gone, k, LockRequest{Patience: time.Hour}); done <- err }()
	go func() { _, err := s.Lock(gone, k, LockRequest{Patience: time.Hour, Shared: true}); done <- err }()
	cancel()
	for range 2 {
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	free(l)
	free(take(false, time.Minute))

	// In the order in which they asked.
	l = take(false, 0)
	var order []int
	for i := range 5 {
		wg.Go(func() {
			l, err := s.Lock(ctx, k, LockRequest{Patience: time.Minute})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			order = append(order, i)
			mu.Unlock()
			_ = l.Release(ctx)
		})
		for end := time.Now().Add(20 * time.Second); s.locks.waiting(k) != i+1; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d are in line after %d", s.locks.waiting(k), i+1)
			}
		}
		time.Sleep(20 * time.Millisecond) // from counted to in line
	}
	free(l)
	wg.Wait()
	if !slices.IsSorted(order) {
		t.Error("order", order)
	}
	if s.locks.n != 0 || len(s.locks.all) != 0 {
		t.Errorf("%d locks and %d lines are left", s.locks.n, len(s.locks.all))
	}
}

func (l *lines) waiting(k skein.StateKey) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if q := l.all[metaKey(k)]; q != nil {
		return q.users
	}
	return 0
}

// A write with a token changes something only while the lock is held.
func testFence(t *testing.T, s *Store, u skein.User) {
	ctx, k := t.Context(), key(t, string(u), "k")
	l, err := s.Lock(ctx, k, LockRequest{Lease: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	fenced := s.Fenced(Fence{k.Key, l.Token})
	if _, err := fenced.Set(ctx, k, []byte("mine"), Any, "id"); err != nil {
		t.Fatal(err)
	}
	beats := make(chan struct{})
	kept := make(chan error, 1)
	go func() { kept <- l.Keep(ctx, beats) }()
	if err := <-kept; !errors.Is(err, fault.Conflict) { // no beat came
		t.Error(err)
	}
	next, err := s.Lock(ctx, k, LockRequest{Shared: true})
	if err != nil {
		t.Fatal(err)
	}
	big := make([]byte, 300_000)
	changes := map[string]func() error{
		"set":    func() error { _, err := fenced.Set(ctx, k, []byte("x"), Any, ""); return err },
		"id":     func() error { _, err := fenced.Set(ctx, k, []byte("x"), Any, "other"); return err },
		"write":  func() error { _, err := fenced.Write(ctx, k, bytes.NewReader(big), Any, ""); return err },
		"range":  func() error { _, err := fenced.SetRange(ctx, k, 0, []byte("x"), ""); return err },
		"large":  func() error { _, err := fenced.SetRange(ctx, k, 0, big, ""); return err },
		"append": func() error { _, _, err := fenced.Append(ctx, k, []byte("x"), ""); return err },
		"patch": func() error {
			_, _, err := fenced.Patch(ctx, k, patchOf(at{0, []byte("x")}, at{3, []byte("y")}), "")
			return err
		},
		"resize":  func() error { _, _, err := fenced.Resize(ctx, k, 1, ""); return err },
		"add":     func() error { _, _, err := fenced.Add(ctx, k, 0, 1, ""); return err },
		"element": func() error { _, err := fenced.AppendElement(ctx, k, []byte("x"), ""); return err },
		"clear":   func() error { return fenced.ClearElements(ctx, k, "") },
		"delete":  func() error { return fenced.Delete(ctx, k, "") },
		"create": func() error {
			_, err := s.Fenced(Fence{k.Key, l.Token + 1}).Set(ctx, k, []byte("x"), Any, "")
			return err
		},
	}
	for name, change := range changes {
		reason(t, name, change(), fault.Conflict, "FENCED")
	}
	if _, err := fenced.Set(ctx, k, []byte("mine"), Any, "id"); err != nil {
		t.Error("a repetition of what was done:", err)
	}
	holds(t, s, k, []byte("mine"))
	fenced = s.Fenced(Fence{k.Key, next.Token})
	for _, name := range []string{"set", "large", "patch", "resize", "add", "append", "element", "clear", "write", "range", "delete"} {
		if err := changes[name](); err != nil {
			t.Error("held,", name, err)
		}
	}
	if err := next.Release(ctx); err != nil {
		t.Fatal(err)
	}
	reason(t, "given back", changes["set"](), fault.Conflict, "FENCED")
	reason(t, "renewed", next.Renew(ctx), fault.Conflict, "LOCK_LOST")
	_, err = s.Fenced(Fence{"other", 5}).Set(ctx, k, []byte("x"), Any, "")
	if e := fault.From(err); e == nil || e.Reason != "FENCED" && (e.Reason != "FENCE_ELSEWHERE" || !s.db.cluster) {
		t.Error("another key's lock:", err)
	}
}

func testWatch(t *testing.T, s *Store, u skein.User) {
	ctx, cancel := context.WithCancel(t.Context())
	a, b := key(t, string(u), "a"), key(t, string(u), "b")
	type news struct {
		key     string
		version int64
	}
	told, sets, done := make(chan news), make(chan []skein.StateKey), make(chan error)
	go func() {
		done <- s.Watch(ctx, sets, func(k skein.StateKey, v int64) error {
			select {
			case told <- news{k.Key, v}:
			case <-ctx.Done():
			}
			return nil
		})
	}()
	hears := func(k string, version int64) {
		t.Helper()
		for {
			select {
			case n := <-told:
				if n.key == k && n.version == version {
					return
				}
				t.Errorf("told %+v while waiting for version %d of %s", n, version, k)
			case <-time.After(20 * time.Second):
				t.Fatalf("nothing said of %s at %d", k, version)
			}
		}
	}
	info, err := s.Set(ctx, a, []byte("x"), Any, "")
	if err != nil {
		t.Fatal(err)
	}
	sets <- []skein.StateKey{a}
	hears("a", info.Version)
	info, err = s.SetRange(ctx, a, 5, []byte("x"), "")
	if err != nil {
		t.Fatal(err)
	}
	hears("a", info.Version)
	sets <- []skein.StateKey{a, b}
	hears("b", 0)
	if info, _, err = s.Resize(ctx, b, 100, ""); err != nil {
		t.Fatal(err)
	}
	hears("b", info.Version)
	if err := s.Delete(ctx, a, ""); err != nil {
		t.Fatal(err)
	}
	hears("a", 0)
	sets <- []skein.StateKey{b}
	if _, err = s.Set(ctx, a, []byte("unheard"), Any, ""); err != nil {
		t.Fatal(err)
	}
	if info, err = s.Set(ctx, b, []byte("heard"), Any, ""); err != nil {
		t.Fatal(err)
	}
	hears("b", info.Version)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	err = s.Watch(t.Context(), many(make([]skein.StateKey, maxWatched+1)), nil)
	reason(t, "many", err, fault.TooLarge, "TOO_LARGE")
}

func many(set []skein.StateKey) chan []skein.StateKey {
	c := make(chan []skein.StateKey, 1)
	c <- set
	return c
}

// Some who take a lock one after the other in one process don't keep it from one who waits in another.
func TestLockReachesOtherProcess(t *testing.T) {
	r := redistest.Start(t)
	here, there := openStore(t, "redis://"+r.Addr, 10*time.Second), openStore(t, "redis://"+r.Addr, 10*time.Second)
	k := key(t, "ann", "k")
	ctx, enough := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var held, stood atomic.Int64
	last := int64(0)
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				l, err := here.Lock(t.Context(), k, LockRequest{Patience: time.Minute})
				if err != nil {
					t.Error(err)
					return
				}
				if l.Token <= last {
					t.Errorf("token %d after %d", l.Token, last)
				}
				last = l.Token // who holds it is alone
				if here.locks.waiting(k) > 0 {
					stood.Add(1)
				}
				held.Add(1)
				time.Sleep(time.Millisecond) // the next is in line
				if err := l.Release(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for held.Load() < 100 && !t.Failed() {
		time.Sleep(time.Millisecond)
	}
	for range 5 {
		l, err := there.Lock(t.Context(), k, LockRequest{Patience: 10 * time.Second})
		if err != nil {
			t.Error("the other process waits in vain:", err)
			break
		}
		time.Sleep(time.Millisecond)
		if err := l.Release(t.Context()); err != nil {
			t.Error(err)
		}
	}
	enough()
	wg.Wait()
	if stood.Load() == 0 {
		t.Error("nobody stood in line: this tests nothing")
	}
	if here.locks.n != 0 || len(here.locks.all) != 0 {
		t.Errorf("%d locks and %d lines are left", here.locks.n, len(here.locks.all))
	}
}
