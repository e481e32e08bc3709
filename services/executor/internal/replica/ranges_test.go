package replica

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// Ranges do what sets of bytes do.
func TestRanges(t *testing.T) {
	const n = 64
	rng := rand.New(rand.NewPCG(3, 4))
	some := func() (r ranges, set [n]bool) {
		for range rng.IntN(8) {
			start := rng.IntN(n)
			end := start + rng.IntN(n-start)
			r = r.add(int64(start), int64(end))
			for i := start; i < end; i++ {
				set[i] = true
			}
		}
		return r, set
	}
	for range 20_000 {
		a, inA := some()
		b, inB := some()
		start := rng.IntN(n)
		end := start + rng.IntN(n-start)
		inside := func(i int) bool { return i >= start && i < end }
		for name, c := range map[string]struct {
			got  ranges
			want func(i int) bool
		}{
			"add":    {a, func(i int) bool { return inA[i] }},
			"union":  {a.union(b), func(i int) bool { return inA[i] || inB[i] }},
			"both":   {a.both(b), func(i int) bool { return inA[i] && inB[i] }},
			"minus":  {a.minus(b), func(i int) bool { return inA[i] && !inB[i] }},
			"within": {a.within(int64(start), int64(end)), func(i int) bool { return inA[i] && inside(i) }},
			"gaps":   {a.gaps(int64(start), int64(end)), func(i int) bool { return !inA[i] && inside(i) }},
		} {
			last := int64(-1)
			var set [n]bool
			for _, s := range c.got {
				if s.start <= last || s.start >= s.end {
					t.Fatalf("%s: %v is not in order", name, c.got)
				}
				last = s.end
				for i := s.start; i < s.end; i++ {
					set[i] = true
				}
			}
			for i := range n {
				if set[i] != c.want(i) {
					t.Fatalf("%s of %v, %v, %d, %d: %v", name, a, b, start, end, c.got)
				}
			}
		}
	}
}

func TestMerge(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 2000 {
		size := 8 * (1 + rng.IntN(2000))
		view, base, want := make([]byte, size), make([]byte, size), make([]byte, size)
		for i := range base {
			base[i] = byte(rng.IntN(3))
			view[i] = base[i]
			if rng.IntN(3) == 0 {
				view[i] = byte(rng.IntN(3))
			}
		}
		off := rng.IntN(size)
		data := make([]byte, rng.IntN(size-off))
		copy(want, view)
		for i := range data {
			data[i] = byte(rng.IntN(3))
			if view[off+i] == base[off+i] {
				want[off+i] = data[i]
			}
		}
		merge(view, base, int64(off), data)
		if string(view) != string(want) || string(base[off:off+len(data)]) != string(data) {
			t.Fatalf("at %d, %d bytes", off, len(data))
		}
	}
}

// The runs that differ finds by words are those that a look at each byte finds.
func TestDiffer(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		base := make([]byte, rng.IntN(70))
		view := slices.Clone(base)
		var want ranges
		for i := range view {
			if rng.IntN(3) > 0 {
				view[i] = byte(rng.IntN(256))
			}
			if view[i] != base[i] {
				want = want.add(100+int64(i), 101+int64(i))
			}
		}
		if got := differ(nil, view, base, 100); !slices.Equal(got, want) {
			t.Fatalf("%v are %v, want %v", view, got, want)
		}
	}
}
