package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/redis/go-redis/v9"

	"skein.dev"
	"skein.dev/platform/fault"
)

// A reader of a large value gets the version it began with, or an error: never a mixture.
func testReplacedWhileRead(t *testing.T, s *Store, u skein.User) {
	ctx, k := t.Context(), key(t, string(u), "k")
	const n = 2*batch*chunkSize + 12345
	value := func(c byte) []byte { return bytes.Repeat([]byte{c}, n) }
	read := func(meanwhile func()) ([]byte, error) {
		if _, err := s.Write(ctx, k, bytes.NewReader(value('a')), Any, ""); err != nil {
			t.Fatal(err)
		}
		var got []byte
		err := s.Read(ctx, k, 0, 0, func(Info) error { return nil }, func(b []byte) error {
			if got == nil {
				meanwhile()
			}
			got = append(got, b...)
			return nil
		})
		return got, err
	}
	replace := func(c byte) {
		if _, err := s.Write(ctx, k, bytes.NewReader(value(c)), Any, ""); err != nil {
			t.Error(err)
		}
	}
	for name, meanwhile := range map[string]func(){
		"large": func() { replace('b') },
		"small": func() {
			if _, err := s.Set(ctx, k, []byte("small"), Any, ""); err != nil {
				t.Error(err)
			}
			if _, err := s.Set(ctx, k, []byte("smaller"), Any, ""); err != nil {
				t.Error(err)
			}
		},
		"delete": func() {
			if err := s.Delete(ctx, k, ""); err != nil {
				t.Error(err)
			}
		},
	} {
		if got, err := read(meanwhile); err != nil || !bytes.Equal(got, value('a')) {
			t.Errorf("replaced once, %s: %d bytes, %v", name, len(got), err)
		}
	}
	_, err := read(func() { replace('b'); replace('c') })
	reason(t, "replaced twice", err, fault.Conflict, "VALUE_CHANGED")
	for _, at := range []int64{0, n - 1} {
		_, err = read(func() {
			if _, err := s.SetRange(ctx, k, at, []byte("x"), ""); err != nil {
				t.Error(err)
			}
		})
		reason(t, "a range written", err, fault.Conflict, "VALUE_CHANGED")
	}
	_, err = read(func() {
		if _, err := s.SetRange(ctx, k, 5, []byte("x"), ""); err != nil {
			t.Error(err)
		}
		replace('b')
	})
	reason(t, "a range written, then replaced", err, fault.Conflict, "VALUE_CHANGED")

	// The same without an order.
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for c := byte('a'); ; c = 'a' + (c-'a'+1)%26 {
			select {
			case <-stop:
				return
			default:
				replace(c)
			}
		}
	}()
	whole := 0
	for range 30 {
		got, _, err := s.Get(ctx, k, 0, 0)
		if err != nil && !errors.Is(err, fault.Conflict) {
			t.Error(err)
		}
		if err == nil {
			whole++
			if len(got) != n || len(bytes.Trim(got, string(got[:1]))) != 0 {
				t.Error("a mixture of versions")
			}
		}
	}
	close(stop)
	<-done
	if whole == 0 {
		t.Error("no read succeeded beside a writer")
	}
}

func testFailedUploads(t *testing.T, s *Store, u skein.User) {
	ctx, k := t.Context(), key(t, string(u), "k")
	if _, err := s.Set(ctx, k, []byte("old"), Any, ""); err != nil {
		t.Fatal(err)
	}
	cut := errors.New("cut")
	for _, n := range []int64{0, 10, inline, batch * chunkSize, 3 << 20} {
		for _, end := range []error{cut, io.ErrUnexpectedEOF} {
			_, err := s.Write(ctx, k, io.MultiReader(io.LimitReader(zeros{}, n), iotest.ErrReader(end)), Any, "")
			if !errors.Is(err, end) {
				t.Errorf("after %d bytes: %v", n, err)
			}
		}
	}
	gone, cancel := context.WithCancel(ctx)
	reads := 0
	_, err := s.Write(gone, k, readerFunc(func(p []byte) (int, error) {
		if reads++; reads == 3 {
			cancel()
		}
		return len(p), nil
	}), Any, "")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("after the caller went away: %v", err)
	}
	// Chunks that Redis lost must not become zeros.
	gen := "s" + randomHex()
	if err := s.db.stage(ctx, k, gen, 0, make([]byte, 3*chunkSize)); err != nil {
		t.Fatal(err)
	}
	s.db.unstage(ctx, k, gen, chunkSize, 2*chunkSize)
	_, err = s.flip(ctx, k, Any, "", "", "", gen, int64(3*chunkSize))
	reason(t, "lost chunk", err, fault.Timeout, "UPLOAD_LOST")
	holds(t, s, k, []byte("old"))
	if left := chunks(t, s, k); len(left) != 1 {
		t.Errorf("left behind: %q", left)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// allKeys names Redis' keys, wherever they are.
func allKeys(ctx context.Context, s *Store, pattern string) (all []string, err error) {
	cluster, ok := s.db.client.(*redis.ClusterClient)
	if !ok {
		return s.db.client.Keys(ctx, pattern).Result()
	}
	var mu sync.Mutex
	err = cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error {
		part, err := c.Keys(ctx, pattern).Result()
		mu.Lock()
		defer mu.Unlock()
		all = append(all, part...)
		return err
	})
	return all, err
}

// chunks names the chunks of a value in Redis.
func chunks(t *testing.T, s *Store, k skein.StateKey) []string {
	t.Helper()
	all, err := allKeys(t.Context(), s, strings.ReplaceAll(metaKey(k), "*", `\*`)+":c:*")
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func testList(t *testing.T, s *Store, u skein.User) {
	ctx := t.Context()
	var want []string
	for i := range 30 {
		want = append(want, fmt.Sprintf("p/%02d", i))
	}
	want = append(want, "p", "p\x01", "p\xff", "p\xff\xff\x01", "q", "\xff", "\xff\xfe")
	for _, name := range want {
		if _, err := s.Set(ctx, key(t, string(u), name), []byte(name), Absent, ""); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(want)
	for _, prefix := range []string{"", "p", "p/", "p/1", "p/29", "p\xff", "\xff", "\xff\xff", "z", "p/0*", "p\x01"} {
		var matching []string
		for _, name := range want {
			if strings.HasPrefix(name, prefix) {
				matching = append(matching, name)
			}
		}
		for _, page := range []int{1, 4, 1000} {
			if got := names(t, s, u, prefix, page); !slices.Equal(got, matching) {
				t.Errorf("%q by %d: %q, want %q", prefix, page, got, matching)
			}
		}
	}
	if err := s.Delete(ctx, key(t, string(u), "p/10"), ""); err != nil {
		t.Fatal(err)
	}
	if got := names(t, s, u, "p/1", 3); len(got) != 9 || slices.Contains(got, "p/10") {
		t.Errorf("after a delete: %q", got)
	}
	infos, next, err := s.List(ctx, u, "p/2", 0, "")
	if err != nil || next != "" || len(infos) != 10 || infos[3].Size != 4 || infos[3].Version == 0 || infos[3].Updated.IsZero() {
		t.Errorf("%+v %q %v", infos, next, err)
	}
	if infos, _, err := s.List(ctx, u, "", 1e6, ""); err != nil || len(infos) != len(want)-1 {
		t.Errorf("%d values, %v", len(infos), err)
	}
	if infos, next, err := s.List(ctx, "nobody", "", 0, ""); err != nil || len(infos) != 0 || next != "" {
		t.Errorf("%v %q %v", infos, next, err)
	}
}

// The index is in another slot than the values, so it may hold too much, but never too little.
func testIndex(t *testing.T, s *Store, u skein.User) {
	ctx := t.Context()
	raw := func() []entry {
		t.Helper()
		all, err := s.db.entries(ctx, u, "", "", 1000)
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	// What a crash leaves: a fresh entry, which may be of a creation under way, and an old one.
	k := key(t, string(u), "crashed")
	for _, incarnation := range []string{"7fffffff-0", "1-0", "none"} {
		if err := s.db.index(ctx, k, incarnation, ""); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if got := names(t, s, u, "", 1); len(got) != 0 {
			t.Errorf("listed %q", got)
		}
	}
	if left := raw(); len(left) != 1 || left[0].incarnation != "7fffffff-0" {
		t.Errorf("left %+v", left)
	}
	if err := s.db.index(ctx, k, "", "7fffffff-0"); err != nil {
		t.Fatal(err)
	}
	// A refused creation leaves nothing.
	_, err := s.Set(ctx, k, nil, 5, "")
	reason(t, "refused", err, fault.Conflict, "CAS_MISMATCH")
	if left := raw(); len(left) != 0 {
		t.Errorf("left %+v", left)
	}
	// Creation and deletion at once.
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			for i := range 25 {
				k := key(t, string(u), fmt.Sprint("k", i%3))
				var err error
				if w%2 == 0 {
					_, _, err = s.Append(ctx, k, []byte("x"), "")
				} else {
					err = s.Delete(ctx, k, "")
				}
				if err != nil && !errors.Is(err, fault.NotFound) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var want []string
	for i := range 3 {
		k := key(t, string(u), fmt.Sprint("k", i))
		if _, err := s.Stat(ctx, k); err == nil {
			want = append(want, k.Key)
		}
	}
	if got := names(t, s, u, "", 10); !slices.Equal(got, want) {
		t.Errorf("listed %q, want %q", got, want)
	}
	if left := raw(); len(left) != len(want) {
		t.Errorf("entries %+v for values %q", left, want)
	}
}

// Entries of values that ended by themselves go while others are created.
func testSweep(t *testing.T, s *Store, u skein.User) {
	ctx := t.Context()
	for i := range 2 * sweepAfter {
		if err := s.db.index(ctx, key(t, string(u), fmt.Sprint("ended", i)), "1-0", ""); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 4 * sweepAfter {
		if _, err := s.Set(ctx, key(t, string(u), fmt.Sprint("k", i)), nil, Absent, ""); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := s.db.entries(ctx, u, "ended", "", 1000)
	if err != nil || len(entries) != 0 {
		t.Errorf("%d entries are left, %v", len(entries), err)
	}
	if got := names(t, s, u, "", 1000); len(got) != 4*sweepAfter {
		t.Errorf("%d values are listed", len(got))
	}
}

// After its deletion nothing of a value stays that doesn't vanish by itself.
func testNothingLeft(t *testing.T, s *Store, u skein.User) {
	ctx, k := t.Context(), key(t, string(u), "k")
	for range 3 {
		for _, n := range []int{10, 3 * chunkSize, 100, 0, chunkSize + 1} {
			if _, err := s.Set(ctx, k, make([]byte, n), Any, fmt.Sprint("id", n)); err != nil {
				t.Fatal(err)
			}
			if _, _, err := s.Append(ctx, k, make([]byte, inline+chunkSize), ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Delete(ctx, k, ""); err != nil {
		t.Fatal(err)
	}
	all, err := allKeys(t.Context(), s, metaKey(k)+"*")
	if err != nil || len(all) < 2 {
		t.Fatal(all, err)
	}
	for _, name := range all {
		if ttl, err := s.db.client.PTTL(ctx, name).Result(); err != nil || ttl <= 0 || ttl > answerTTL {
			t.Errorf("%s lives %s, %v", name, ttl, err)
		}
	}
	entries, err := s.db.entries(ctx, u, "", "", 10)
	if err != nil || len(entries) != 0 {
		t.Errorf("entries %v, %v", entries, err)
	}
	if _, err := s.Set(ctx, k, []byte("x"), Absent, ""); err != nil {
		t.Fatal(err)
	}
	if ttl, err := s.db.client.PTTL(ctx, metaKey(k)).Result(); err != nil || ttl > 0 {
		t.Errorf("the new value lives %s, %v", ttl, err)
	}
}
