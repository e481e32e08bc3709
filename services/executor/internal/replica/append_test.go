package replica_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"skein.dev"
	"skein.dev/platform/fault"
	statev1 "skein.dev/proto/skein/state/v1"
	"skein.dev/services/executor/internal/replica"
	"skein.dev/services/executor/internal/replica/replicatest"
)

// gated lets appends through one by one, and refuses those of more bytes than most.
type gated struct {
	statev1.StateServiceClient
	open  chan struct{} // an append takes one
	most  int
	calls atomic.Int32
	given chan struct{} // gets one for each that was given up at the gate
}

func (g *gated) AppendValue(ctx context.Context, r *statev1.AppendValueRequest, opts ...grpc.CallOption) (*statev1.AppendValueResponse, error) {
	g.calls.Add(1)
	select {
	case <-g.open:
	case <-ctx.Done():
		g.given <- struct{}{}
		return nil, ctx.Err()
	}
	if len(r.GetData()) > g.most {
		return nil, fault.TooLarge.New("TOO_LARGE", "%d bytes", len(r.GetData()))
	}
	return g.StateServiceClient.AppendValue(ctx, r, opts...)
}

// until waits for something that happens, unless the test fails.
func until(t *testing.T, happened func() bool) {
	t.Helper()
	for range 30_000 {
		if happened() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("it does not happen")
}

// behind has appends stand in line behind one that is at the gate. It gives the function that waits for all of them.
func behind(ctx context.Context, t *testing.T, store *replica.Store, k skein.StateKey, vals ...string) (offsets []int64, errs []error, wait func()) {
	var wg sync.WaitGroup
	offsets, errs = make([]int64, len(vals)), make([]error, len(vals))
	before := store.InLine(k)
	for i, v := range vals {
		s := session(t, store)
		wg.Go(func() { offsets[i], errs[i] = s.Append(ctx, k, []byte(v)) })
		until(t, func() bool { return store.InLine(k) > before+i })
	}
	return offsets, errs, wg.Wait
}

// first has an append wait at the gate.
func first(t *testing.T, store *replica.Store, g *gated, k skein.StateKey) (wait func()) {
	var wg sync.WaitGroup
	s := session(t, store)
	wg.Go(func() {
		if at, err := s.Append(t.Context(), k, []byte("first")); at != 0 || err != nil {
			t.Errorf("the first append: %d, %v", at, err)
		}
	})
	until(t, func() bool { return g.calls.Load() > 0 })
	return wg.Wait
}

// What comes while an append is under way goes as one, in the order in which it came; who has left meanwhile is not in it.
func TestAppendsGather(t *testing.T) {
	g := &gated{StateServiceClient: replicatest.Client(t), open: make(chan struct{}, 10), most: 100}
	store, k := replica.New(g, 1<<20), key(t, "log")
	done := first(t, store, g, k)
	_, _, all := behind(t.Context(), t, store, k, "a", "bb")
	leaving, leave := context.WithCancel(t.Context())
	_, errs, left := behind(leaving, t, store, k, "gone")
	leave()
	left()
	if !errors.Is(errs[0], context.Canceled) || store.InLine(k) != 2 {
		t.Errorf("who left has %v, and %d are in line", errs[0], store.InLine(k))
	}
	offsets, errs, last := behind(t.Context(), t, store, k, "ccc")
	g.open <- struct{}{}
	g.open <- struct{}{}
	done()
	all()
	last()
	if g.calls.Load() != 2 || offsets[0] != int64(len("first")+len("abb")) || errs[0] != nil {
		t.Errorf("%d appends; the last one at %d, %v", g.calls.Load(), offsets[0], errs[0])
	}
	if v := string(global(t, session(t, store), k)); v != "firstabbccc" {
		t.Errorf("the value is %q", v)
	}
}

// One that is too large is refused alone, and what nobody waits for any more is given up.
func TestGatheredAppendsFailAlone(t *testing.T) {
	g := &gated{StateServiceClient: replicatest.Client(t), open: make(chan struct{}, 10), most: 5, given: make(chan struct{}, 1)}
	store, k := replica.New(g, 1<<20), key(t, "log")
	done := first(t, store, g, k)
	offsets, errs, all := behind(t.Context(), t, store, k, "aaa", "too large", "bbb")
	for range 5 { // the first, all together, and each of them
		g.open <- struct{}{}
	}
	done()
	all()
	if errs[0] != nil || !errors.Is(errs[1], fault.TooLarge) || errs[2] != nil || offsets[2] != 8 {
		t.Errorf("%v at %v", errs, offsets)
	}
	if v := string(global(t, session(t, store), k)); v != "firstaaabbb" {
		t.Errorf("the value is %q", v)
	}
	k, g.most = key(t, "other"), 100
	g.calls.Store(0)
	done = first(t, store, g, k)
	ctx, leave := context.WithCancel(t.Context())
	_, errs, all = behind(ctx, t, store, k, "a", "b")
	g.open <- struct{}{}
	done()
	until(t, func() bool { return g.calls.Load() == 2 })
	leave()
	all()
	<-g.given
	if !errors.Is(errs[0], context.Canceled) || !errors.Is(errs[1], context.Canceled) {
		t.Errorf("who left has %v", errs)
	}
	must(t, func() error {
		g.open <- struct{}{}
		_, err := session(t, store).Append(t.Context(), k, []byte("c"))
		return err
	}())
}

// Every append of many calls lands once, where it is told.
func TestAppendsLandWhereTheyAreTold(t *testing.T) {
	store, k := replica.New(replicatest.Client(t), 1<<20), key(t, "log")
	const calls, each = 16, 50
	var wg sync.WaitGroup
	at := [calls][each]int64{}
	for c := range calls {
		s := session(t, store)
		wg.Go(func() {
			for i := range each {
				var err error
				if at[c][i], err = s.Append(t.Context(), k, fmt.Appendf(nil, "%04d.%04d ", c, i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	v := global(t, session(t, store), k)
	if len(v) != calls*each*10 {
		t.Fatalf("%d bytes", len(v))
	}
	for c := range calls {
		for i, off := range at[c] {
			if got, want := string(v[off:off+10]), fmt.Sprintf("%04d.%04d ", c, i); got != want {
				t.Fatalf("%q at %d, want %q", got, off, want)
			}
		}
	}
}
