package state

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
)

// replica is what an executor keeps: bytes, the version that was pulled, and that of each chunk, which may be a later one of its own.
type replica struct {
	data   []byte
	pulled int64
	known  []int64
	frames int
}

func (r *replica) pull(ctx context.Context, s *Store, k skein.StateKey) error {
	var first Info
	last, err := s.Changes(ctx, k, r.pulled, r.known, 0, 0, func(i Info) error {
		first = i
		r.data = append(r.data[:min(i.Size, int64(len(r.data)))], make([]byte, max(0, i.Size-int64(len(r.data))))...)
		return nil
	}, func(at int64, b []byte) error {
		r.frames++
		if len(b) == 0 || len(b) > chunkSize {
			return fmt.Errorf("a frame of %d bytes", len(b))
		}
		copy(r.data[at:], b)
		return nil
	})
	if err == nil && (last.Version != first.Version || last.Size != first.Size) {
		err = fmt.Errorf("%+v at the end, %+v at the beginning", last, first)
	}
	r.pulled, r.known = first.Version, slices.Repeat([]int64{first.Version}, len(cut(0, first.Size)))
	return err
}

// push patches the value and the copy, which knows of the chunks what it knew, if previous says so.
func (r *replica) push(ctx context.Context, s *Store, k skein.StateKey, ranges ...at) error {
	info, previous, err := s.Patch(ctx, k, patchOf(ranges...), "")
	for _, one := range ranges {
		end := int(one.off) + len(one.data)
		r.data = append(r.data, make([]byte, max(0, end-len(r.data)))...)
		copy(r.data[one.off:], one.data)
		for i := int(one.off / chunkSize); i*chunkSize < end; i++ {
			if i < len(r.known) && r.known[i] >= previous {
				r.known[i] = info.Version
			}
		}
	}
	return err
}

// Random changes do to a value what they do to a slice, and a replica that pulls changes now and then follows.
func testChanges(t *testing.T, s *Store, u skein.User) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	ctx, k := t.Context(), key(t, string(u), "k")
	var model []byte
	var copies [3]replica
	grow := func(n int) { model = append(model, make([]byte, max(0, n-len(model)))...) }
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32() | 1)
		}
		return b
	}
	const most = 2 << 20
	for step := range 120 {
		var err error
		op := r.IntN(7)
		switch op {
		case 0:
			if r.IntN(4) > 0 {
				continue // seldom, since it makes all new
			}
			model = random(size(r, most))
			_, err = s.Set(ctx, k, model, Any, "")
		case 1:
			data, off := random(size(r, 300_000)), size(r, most)
			_, err = s.SetRange(ctx, k, int64(off), data, "")
			if len(data) > 0 {
				grow(off + len(data))
				copy(model[off:], data)
			}
		case 2:
			n := size(r, most)
			_, _, err = s.Resize(ctx, k, int64(n), "")
			grow(n)
			model = slices.Clone(model[:n])
		case 3, 4:
			var ranges []at
			place, ends := size(r, most), most+300_000
			few, step := r.IntN(9)+1, 500_000
			if r.IntN(2) > 0 { // many that lie close
				few, step = 300, 2*chunkSize/300
			}
			for left := maxPatchBytes / 2; left > 0 && len(ranges) < few && place < ends; {
				p := at{int64(place), random(min(left, size(r, step)) + 1)}
				left -= len(p.data)
				ranges = append(ranges, p)
				grow(place + len(p.data))
				copy(model[place:], p.data)
				place += len(p.data) + r.IntN(step)*r.IntN(2)
			}
			err = copies[r.IntN(3)].push(ctx, s, k, ranges...)
		case 5:
			off, delta := size(r, most), int64(r.Uint64())
			var sum int64
			sum, _, err = s.Add(ctx, k, int64(off), delta, "")
			grow(off + 8)
			want := int64(binary.LittleEndian.Uint64(model[off:])) + delta
			binary.LittleEndian.PutUint64(model[off:], uint64(want))
			if sum != want {
				t.Fatalf("step %d: the sum is %d, want %d", step, sum, want)
			}
		case 6:
			data := random(size(r, 100_000))
			_, _, err = s.Append(ctx, k, data, "")
			model = append(slices.Clone(model), data...)
		}
		if err != nil {
			t.Fatalf("step %d, op %d: %v", step, op, err)
		}
		c := &copies[r.IntN(3)]
		if err := c.pull(ctx, s, k); err != nil || !bytes.Equal(c.data, model) {
			t.Fatalf("step %d, op %d: the replica has %d bytes, want %d; %v", step, op, len(c.data), len(model), err)
		}
		if step%10 == 0 {
			holds(t, s, k, model)
		}
	}

	// Only what changed comes.
	if _, err := s.Set(ctx, k, make([]byte, 8*chunkSize), Any, ""); err != nil {
		t.Fatal(err)
	}
	c := replica{}
	if err := c.pull(ctx, s, k); err != nil || c.frames != 8 {
		t.Error(c.frames, err)
	}
	c.frames = 0
	if _, _, err := s.Patch(ctx, k, patchOf(at{chunkSize - 1, []byte("ab")}, at{5*chunkSize + 7, []byte("c")}), ""); err != nil {
		t.Fatal(err)
	}
	if err := c.pull(ctx, s, k); err != nil || c.frames != 3 || string(c.data[chunkSize-1:chunkSize+1]) != "ab" {
		t.Error(c.frames, err)
	}
	if err := c.pull(ctx, s, k); err != nil || c.frames != 3 {
		t.Error("nothing changed, but", c.frames-3, "chunks came", err)
	}
	c.pulled = math.MaxInt64 // of a Redis that is lost
	for i := range c.known {
		c.known[i] = math.MaxInt64
	}
	if err := c.pull(ctx, s, k); err != nil || c.frames != 11 {
		t.Error(c.frames, err)
	}
	// What was pushed from here is here, unless others changed the same chunks.
	other := replica{}
	if err := errors.Join(c.push(ctx, s, k, at{1, []byte("c")}, at{2*chunkSize + 1, []byte("c")}), other.pull(ctx, s, k), c.pull(ctx, s, k)); err != nil || c.frames != 11 {
		t.Error("its own bytes came back:", c.frames-11, err)
	}
	if err := errors.Join(other.push(ctx, s, k, at{chunkSize, []byte("o")}), c.push(ctx, s, k, at{3 * chunkSize, []byte("c")}), c.pull(ctx, s, k)); err != nil || c.frames != 12 {
		t.Error("wanted one chunk:", c.frames-11, err)
	}
	if err := errors.Join(c.push(ctx, s, k, at{4 * chunkSize, []byte("c")}), other.push(ctx, s, k, at{4*chunkSize + 1, []byte("o")}), c.pull(ctx, s, k), other.pull(ctx, s, k)); err != nil ||
		c.frames != 13 || other.frames != 8+2 || !bytes.Equal(c.data, other.data) {
		t.Error("wanted what the other changed:", c.frames-12, other.frames, err)
	}
}

func testAdd(t *testing.T, s *Store, u skein.User) {
	ctx, k := t.Context(), key(t, string(u), "k")
	var want int64
	for i, delta := range []int64{1, -1, -1, math.MaxInt64, math.MaxInt64, math.MinInt64, 1 << 32, -(1 << 32), 1<<53 + 1, 0xffffffff, -0xffffffff, 7} {
		want += delta
		got, info, err := s.Add(ctx, k, 3, delta, fmt.Sprint("id", i))
		if err != nil || got != want || info.Size != 11 {
			t.Errorf("+%d: %d, want %d; %+v %v", delta, got, want, info, err)
		}
		if again, _, err := s.Add(ctx, k, 3, delta, fmt.Sprint("id", i)); err != nil || again != want {
			t.Errorf("repeated: %d, want %d; %v", again, want, err)
		}
	}
	_, _, err := s.Add(ctx, k, 3, 8, "id11")
	reason(t, "another delta", err, fault.Exists, "REQUEST_ID_REUSED")
	for _, at := range []int64{s.max - 7, math.MaxInt64} {
		_, _, err = s.Add(ctx, k, at, 1, "")
		reason(t, "past the end", err, fault.TooLarge, "TOO_LARGE")
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 25 {
				if _, _, err := s.Add(ctx, k, chunkSize-3, 1<<30+1, ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if sum, _, err := s.Add(ctx, k, chunkSize-3, 0, ""); err != nil || sum != 200*(1<<30+1) {
		t.Error("across chunks:", sum, err)
	}
}

func elements(t *testing.T, s *Store, k skein.StateKey, index, count int64) (all []string) {
	t.Helper()
	err := s.Elements(t.Context(), k, index, count, func(page [][]byte) error {
		for _, e := range page {
			all = append(all, string(e))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func testElements(t *testing.T, s *Store, u skein.User) {
	ctx, k := t.Context(), key(t, string(u), "k")
	if all := elements(t, s, k, 0, 0); len(all) != 0 {
		t.Errorf("%q where nothing is", all)
	}
	var want []string
	for i := range 60 {
		e := strings.Repeat(string(rune('a'+i%26)), i*i*10%30_000)
		at, err := s.AppendElement(ctx, k, []byte(e), fmt.Sprint("e", i))
		if err != nil || at != int64(i) {
			t.Fatal(at, err)
		}
		if at, err = s.AppendElement(ctx, k, []byte(e), fmt.Sprint("e", i)); err != nil || at != int64(i) {
			t.Fatal("repeated:", at, err)
		}
		want = append(want, e)
	}
	info := holds(t, s, k, nil)
	for _, r := range [][2]int64{{0, 0}, {0, 60}, {5, 1}, {58, 9}, {60, 0}, {math.MaxInt64, math.MaxInt64}, {7, 40}} {
		part := want[min(r[0], 60):]
		if r[1] > 0 {
			part = part[:min(r[1], int64(len(part)))]
		}
		if got := elements(t, s, k, r[0], r[1]); !slices.Equal(got, part) {
			t.Errorf("[%d,+%d) has %d elements, want %d", r[0], r[1], len(got), len(part))
		}
	}
	if _, err := s.Set(ctx, k, []byte("beside"), info.Version, ""); err != nil {
		t.Error("an element changed the version:", err)
	}
	_, err := s.AppendElement(ctx, k, make([]byte, maxElement+1), "")
	reason(t, "large", err, fault.TooLarge, "TOO_LARGE")
	for range s.max/maxElement - 1 {
		if _, err := s.AppendElement(ctx, k, make([]byte, maxElement), ""); err != nil {
			t.Fatal(err)
		}
	}
	_, err = s.AppendElement(ctx, k, make([]byte, maxElement), "")
	reason(t, "many bytes", err, fault.TooLarge, "TOO_LARGE")
	err = s.Elements(ctx, k, 0, 0, func([][]byte) error { return s.ClearElements(ctx, k, "") })
	reason(t, "cleared while read", err, fault.Conflict, "VALUE_CHANGED")
	if all := elements(t, s, k, 0, 0); len(all) != 0 {
		t.Errorf("%d after a clear", len(all))
	}
	if at, err := s.AppendElement(ctx, k, []byte("x"), ""); err != nil || at != 0 {
		t.Error(at, err)
	}
	if err := s.Delete(ctx, k, ""); err != nil {
		t.Fatal(err)
	}
	if all := elements(t, s, k, 0, 0); len(all) != 0 {
		t.Errorf("%d after a deletion", len(all))
	}
	if err := s.ClearElements(ctx, k, ""); err != nil {
		t.Error(err)
	}
}

func testExpiry(t *testing.T, s *Store, u skein.User) {
	ctx, k := t.Context(), key(t, string(u), "k")
	_, err := s.Expire(ctx, k, time.Hour, "")
	reason(t, "no value", err, fault.NotFound, "NO_VALUE")
	for _, bad := range []time.Duration{-1, 1, maxExpiry + 1} {
		_, err = s.Expire(ctx, k, bad, "")
		reason(t, bad.String(), err, fault.Invalid, "BAD_EXPIRY")
	}
	lives := func(what string, want bool) {
		t.Helper()
		all, err := allKeys(t.Context(), s, metaKey(k)+"*")
		if err != nil || len(all) < 3 {
			t.Fatal(all, err)
		}
		gen, err := s.db.client.HGet(ctx, metaKey(k), "g").Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range all {
			old := strings.Contains(name, "}:") && !strings.HasSuffix(name, ":l") && !strings.Contains(name, ":c:"+gen+":")
			if old && !strings.HasSuffix(name, ":w:"+gen) {
				continue
			}
			if ttl, err := s.db.client.PTTL(ctx, name).Result(); err != nil || ttl > 0 == want {
				t.Errorf("%s: %s lives %s, %v", what, name, ttl, err)
			}
		}
	}
	set, err := s.Set(ctx, k, make([]byte, 3*chunkSize), Any, "")
	if err != nil || !set.Expires.IsZero() {
		t.Fatal(set, err)
	}
	lives("at first", true)
	info, err := s.Expire(ctx, k, time.Hour, "id")
	if left := time.Until(info.Expires); err != nil || left < 58*time.Minute || left > 62*time.Minute || info.Version != set.Version {
		t.Fatal(info, err)
	}
	if again, err := s.Expire(ctx, k, time.Hour, "id"); err != nil || again != info {
		t.Error(again, err)
	}
	for what, change := range map[string]func() (Info, error){
		"range": func() (Info, error) { return s.SetRange(ctx, k, 7*chunkSize, []byte("x"), "") },
		"patch": func() (Info, error) {
			info, _, err := s.Patch(ctx, k, patchOf(at{1, []byte("y")}, at{9 * chunkSize, []byte("x")}), "")
			return info, err
		},
		"resize": func() (Info, error) { i, _, err := s.Resize(ctx, k, chunkSize+5, ""); return i, err },
		"add":    func() (Info, error) { _, i, err := s.Add(ctx, k, 2*chunkSize-4, 1, ""); return i, err },
		"append": func() (Info, error) { _, i, err := s.Append(ctx, k, make([]byte, 300_000), ""); return i, err },
		"set":    func() (Info, error) { return s.Set(ctx, k, make([]byte, 2*chunkSize), Any, "") },
		"small":  func() (Info, error) { return s.Set(ctx, k, []byte("small"), Any, "") },
	} {
		i, err := change()
		if err != nil || !i.Expires.Equal(info.Expires) {
			t.Error(what, i, err)
		}
		if _, err := s.AppendElement(ctx, k, []byte("e"), ""); err != nil {
			t.Error(err)
		}
		lives(what, false)
	}
	if i, err := s.Expire(ctx, k, 0, ""); err != nil || !i.Expires.IsZero() {
		t.Error(i, err)
	}
	lives("for ever", true)
	if _, err := s.Expire(ctx, k, time.Hour, ""); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(ctx, k, ""); err != nil {
		t.Fatal(err)
	}
	if i, err := s.Set(ctx, k, []byte("again"), Absent, ""); err != nil || !i.Expires.IsZero() {
		t.Error("of the next life:", i, err)
	}
}

// Bytes that Redis does not have any more are an error and not zeros; those that were never written are zeros.
func testLostChunks(t *testing.T, s *Store, u skein.User) {
	ctx := t.Context()
	for name, make := range map[string]func(k skein.StateKey) error{
		"small": func(k skein.StateKey) error { _, err := s.Set(ctx, k, []byte("small"), Any, ""); return err },
		"large": func(k skein.StateKey) error {
			_, err := s.Set(ctx, k, bytes.Repeat([]byte("x"), 1<<20), Any, "")
			return err
		},
		"range": func(k skein.StateKey) error { _, err := s.SetRange(ctx, k, 100, []byte("x"), ""); return err },
		"append": func(k skein.StateKey) error {
			_, _, err := s.Append(ctx, k, bytes.Repeat([]byte("x"), 300_000), "")
			return err
		},
		"patch": func(k skein.StateKey) error {
			_, _, err := s.Patch(ctx, k, patchOf(at{0, []byte("y")}, at{9, []byte("x")}), "")
			return err
		},
	} {
		k := key(t, string(u), name)
		if err := make(k); err != nil {
			t.Fatal(name, err)
		}
		if _, _, err := s.Resize(ctx, k, 3<<20, ""); err != nil {
			t.Fatal(name, err)
		}
		if _, _, err := s.Get(ctx, k, 0, 0); err != nil {
			t.Error(name, "with a hole:", err)
		}
		if err := s.db.client.Del(ctx, chunks(t, s, k)...).Err(); err != nil {
			t.Fatal(err)
		}
		_, _, err := s.Get(ctx, k, 0, 9)
		reason(t, name+", short", err, fault.DataLoss, "CORRUPT")
		_, _, err = s.Get(ctx, k, 0, 0)
		reason(t, name+", long", err, fault.DataLoss, "CORRUPT")
		reason(t, name+", changes", (&replica{}).pull(ctx, s, k), fault.DataLoss, "CORRUPT")
		_, _, err = s.Add(ctx, k, 0, 1, "")
		reason(t, name+", add", err, fault.DataLoss, "CORRUPT")
		if got, _, err := s.Get(ctx, k, 2<<20, 9); err != nil || string(got) != strings.Repeat("\x00", 9) {
			t.Errorf("%s, the hole: %q %v", name, got, err)
		}
	}
}

func testQuota(t *testing.T, s *Store, u skein.User) {
	limited := newStore(s.db, s.max)
	limited.quota.bytes, limited.quota.values = 1000, 3
	other := newStore(s.db, s.max)
	ctx, a, b := t.Context(), key(t, string(u), "a"), key(t, string(u), "b")
	set := func(k skein.StateKey, n int) error {
		_, err := limited.Set(ctx, k, make([]byte, n), Any, "")
		return err
	}
	has := func(bytes, values int64) {
		t.Helper()
		limited.quota.of(u).at = time.Time{} // count now
		if got, err := limited.Usage(ctx, u); err != nil || got != (Usage{bytes, values, 1000, 3}) {
			t.Errorf("%+v %v, want %d in %d", got, err, bytes, values)
		}
	}
	if err := errors.Join(set(a, 600), set(b, 400), set(a, 600), set(a, 300), set(a, 600)); err != nil {
		t.Fatal(err)
	}
	has(1000, 2)
	for name, change := range map[string]func() error{
		"set":    func() error { return set(a, 601) },
		"create": func() error { return set(key(t, string(u), "c"), 1) },
		"append": func() error { _, _, err := limited.Append(ctx, a, []byte("x"), ""); return err },
		"range":  func() error { _, err := limited.SetRange(ctx, a, 600, []byte("x"), ""); return err },
		"patch": func() error {
			_, _, err := limited.Patch(ctx, a, patchOf(at{1, []byte("x")}, at{600, []byte("x")}), "")
			return err
		},
		"resize":  func() error { _, _, err := limited.Resize(ctx, a, 601, ""); return err },
		"add":     func() error { _, _, err := limited.Add(ctx, a, 593, 1, ""); return err },
		"element": func() error { _, err := limited.AppendElement(ctx, a, nil, ""); return err },
		"write": func() error {
			_, err := limited.Write(ctx, a, bytes.NewReader(make([]byte, 500_000)), Any, "")
			return err
		},
	} {
		reason(t, name, change(), fault.Exhausted, "QUOTA")
	}
	if _, err := limited.SetRange(ctx, a, 590, []byte("within"), ""); err != nil {
		t.Error(err)
	}
	if err := limited.Delete(ctx, b, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := limited.AppendElement(ctx, a, make([]byte, 84), ""); err != nil {
		t.Error(err)
	}
	has(700, 1)
	if err := set(b, 301); err == nil {
		t.Error("elements don't count")
	}
	if err := errors.Join(set(b, 1), set(key(t, string(u), "c"), 1)); err != nil {
		t.Error(err)
	}
	reason(t, "a value too many", set(key(t, string(u), "d"), 0), fault.Exhausted, "QUOTA")
	if err := other.Delete(ctx, a, ""); err != nil { // by another process
		t.Fatal(err)
	}
	limited.quota.of(u).at = time.Now().Add(-2 * freshCount)
	if err := set(key(t, string(u), "d"), 998); err != nil {
		t.Error("before it refuses it counts:", err)
	}
	has(1000, 3)
	// Many at once go no further than one.
	var wg sync.WaitGroup
	if err := limited.Delete(ctx, key(t, string(u), "d"), ""); err != nil {
		t.Fatal(err)
	}
	for range 8 {
		wg.Go(func() {
			for range 30 {
				_, _, err := limited.Append(ctx, b, make([]byte, 7), "")
				if err != nil && !errors.Is(err, fault.Exhausted) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	has(2+998/7*7, 2)
}
