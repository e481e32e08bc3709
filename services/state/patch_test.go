package state

import (
	"bytes"
	"fmt"
	"math"
	"sync"
	"testing"

	"skein.dev"
	"skein.dev/platform/fault"
	"skein.dev/proto/runs"
)

// at is bytes for a place of a value.
type at struct {
	off  int64
	data []byte
}

// patchOf packs ranges, which ascend.
func patchOf(all ...at) (p Patch) {
	end := int64(0)
	for _, one := range all {
		p.Runs = runs.Append(p.Runs, one.off-end, int64(len(one.data)))
		p.Data = append(p.Data, one.data...)
		end = one.off + int64(len(one.data))
	}
	return p
}

// One message of ranges is seen as a whole.
func testPatches(t *testing.T, s *Store, u skein.User) {
	ctx, k := t.Context(), key(t, string(u), "k")
	places := []int64{5, 3000, 60_000}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 25 {
				var all []at
				for _, place := range places {
					all = append(all, at{place, []byte{byte(w), byte(i)}})
				}
				if _, _, err := s.Patch(ctx, k, patchOf(all...), ""); err != nil {
					t.Error(err)
				}
				data, _, err := s.Get(ctx, k, 0, 0)
				if err != nil || !bytes.Equal(data[5:7], data[3000:3002]) || !bytes.Equal(data[5:7], data[60_000:]) {
					t.Error("half a change", err)
				}
			}
		})
	}
	wg.Wait()
	// The most that there may be, and where strings don't change in place: this would take seconds if each were a copy of the chunk.
	// They stay at some distance from one another, so that there are as many pieces between them.
	for step, n := range map[int64]int{64: maxNear, 600: 512} { // those that lie far are a command each
		many, large := make([]at, n), key(t, string(u), fmt.Sprint("large", step))
		for i := range many {
			many[i] = at{int64(i) * step, []byte{byte(i), byte(i >> 8)}}
		}
		if _, _, err := s.Patch(ctx, large, patchOf(many...), ""); err != nil {
			t.Fatal(err)
		}
		for i := 0; i < n; i += 61 {
			data, _, err := s.Get(ctx, large, many[i].off, 2)
			if err != nil || !bytes.Equal(data, many[i].data) {
				t.Fatal("range", i, "is", data, err)
			}
		}
	}
	// Ranges of several that lie between each other's, and are merged: no byte is lost, not even of the last round.
	const writers, rounds, each = 4, 12, 600
	mixed := key(t, string(u), "mixed")
	for w := range writers {
		wg.Go(func() {
			for i := range rounds {
				mine := make([]at, each)
				for n := range mine {
					mine[n] = at{int64(chunkSize - each*writers/2 + n*writers + w), []byte{byte(w*rounds + i + 1)}}
				}
				if _, _, err := s.Patch(ctx, mixed, patchOf(mine...), ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	data, _, err := s.Get(ctx, mixed, chunkSize-each*writers/2, 0)
	if err != nil || len(data) != each*writers {
		t.Fatal(len(data), err)
	}
	for i, b := range data {
		if want := byte(i%writers*rounds + rounds); b != want {
			t.Fatalf("byte %d is %d, want %d", i, b, want)
		}
	}
	two := patchOf(at{0, []byte("once")}, at{10, []byte("more")})
	first, before, err := s.Patch(ctx, k, two, "id")
	if err != nil {
		t.Fatal(err)
	}
	if _, previous, err := s.Patch(ctx, k, patchOf(at{0, []byte("x")}), ""); err != nil || previous != first.Version {
		t.Fatal(previous, err)
	}
	if again, previous, err := s.Patch(ctx, k, two, "id"); err != nil || again != first || previous != before || before >= first.Version {
		t.Errorf("%+v %d %v, want %+v %d", again, previous, err, first, before)
	}
	_, _, err = s.Patch(ctx, k, patchOf(at{0, []byte("once")}, at{11, []byte("more")}), "id")
	reason(t, "other ranges", err, fault.Exists, "REQUEST_ID_REUSED")
	long := patchOf(at{0, []byte("lost")})
	for name, p := range map[string]Patch{
		"no ranges": {}, "half a range": {Runs: []byte{1}}, "fewer bytes": {Runs: long.Runs, Data: long.Data[:3]},
		"more bytes": {Runs: long.Runs, Data: append(long.Data, 'x')}, "an empty range": {Runs: runs.Append(long.Runs, 3, 0), Data: long.Data},
		"past 2^63": {Runs: runs.Append(long.Runs, math.MaxInt64, 1), Data: append(long.Data, 'x')},
	} {
		_, _, err = s.Patch(ctx, k, p, "")
		reason(t, name, err, fault.Invalid, "BAD_RUNS")
	}
	far := func(n int, step int64) (p Patch) {
		for range n {
			p = Patch{Runs: runs.Append(p.Runs, step-1, 1), Data: append(p.Data, 'x')}
		}
		return p
	}
	for name, p := range map[string]Patch{
		"many ranges": far(maxNear+1, 2), "many that lie far": far(maxPatches+1, nearSpan/maxPatches+1),
		"many bytes": patchOf(at{0, make([]byte, maxPatchBytes)}, at{maxPatchBytes + 1, []byte("x")}), "too far": patchOf(at{0, []byte("lost")}, at{s.max, []byte("x")}),
	} {
		_, _, err = s.Patch(ctx, k, p, "")
		reason(t, name, err, fault.TooLarge, "TOO_LARGE")
	}
	if data, _, err := s.Get(ctx, k, 0, 4); err != nil || string(data) != "xnce" {
		t.Errorf("%q %v", data, err)
	}
	_, _, err = s.Resize(ctx, k, s.max+1, "")
	reason(t, "large", err, fault.TooLarge, "TOO_LARGE")
	_, _, err = s.Resize(ctx, k, -1, "")
	reason(t, "negative", err, fault.Invalid, "BAD_RANGE")
}

// Who has all of some chunks as of a version replaces them if nobody has changed them since.
func testPatchesSince(t *testing.T, s *Store, u skein.User) {
	ctx := t.Context()
	for _, size := range []int{1000, inline + 1, chunkSize, 3*chunkSize + 1000} { // through Lua or staged, one chunk or several
		k := key(t, string(u), fmt.Sprint("since", size))
		patch := func(off int64, n int, fill byte, since int64, id string) (Info, error) {
			p := patchOf(at{off, bytes.Repeat([]byte{fill}, n)})
			p.Since = since
			info, _, err := s.Patch(ctx, k, p, id)
			return info, err
		}
		_, err := patch(0, size, 'a', 1, "")
		reason(t, "no value", err, fault.Conflict, "CHUNK_CHANGED")
		first, err := patch(0, size, 'a', 0, "")
		if err != nil {
			t.Fatal(err)
		}
		_, err = patch(0, size, 'x', first.Version-1, "")
		reason(t, "an older one", err, fault.Conflict, "CHUNK_CHANGED")
		second, err := patch(0, size, 'b', first.Version, "twice")
		if err != nil {
			t.Fatal(err)
		}
		if again, err := patch(0, size, 'b', first.Version, "twice"); err != nil || again != second {
			t.Errorf("repeated: %+v %v", again, err)
		}
		_, err = patch(0, size, 'x', first.Version, "refused")
		reason(t, "changed since", err, fault.Conflict, "CHUNK_CHANGED")
		_, err = patch(0, size, 'x', first.Version, "refused")
		reason(t, "repeated", err, fault.Conflict, "CHUNK_CHANGED")
		if size > 2*chunkSize { // others may have changed other chunks
			if _, err := patch(chunkSize, chunkSize, 'c', 0, ""); err != nil {
				t.Fatal(err)
			}
			if _, err := patch(0, chunkSize, 'b', second.Version, ""); err != nil {
				t.Error(err)
			}
			_, err = patch(chunkSize-1, 10, 'x', second.Version, "")
			reason(t, "two chunks", err, fault.Conflict, "CHUNK_CHANGED")
		}
		data, _, err := s.Get(ctx, k, 0, 0)
		if err != nil || len(data) != size || bytes.Contains(data, []byte("x")) || data[0] != 'b' {
			t.Errorf("%d bytes, %q…, %v", len(data), data[:1], err)
		}
		if err := s.Delete(ctx, k, ""); err != nil {
			t.Fatal(err)
		}
		_, err = patch(0, size, 'x', math.MaxInt64, "")
		reason(t, "deleted", err, fault.Conflict, "CHUNK_CHANGED")
	}
	k := key(t, string(u), "bad")
	for name, p := range map[string]Patch{"negative": patchOf(at{0, []byte("x")}), "two ranges": patchOf(at{0, []byte("x")}, at{5, []byte("x")})} {
		p.Since = int64(len(name)) - 9 // -1 or 1
		_, _, err := s.Patch(ctx, k, p, "")
		reason(t, name, err, fault.Invalid, "BAD_VERSION")
	}
}
