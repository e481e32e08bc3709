package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// stateLocal is a guest that reads what its executor has: by copies, and out of a mapping. The bare side of small reads is the
// least host call that copies as many bytes, that of large ones a copy in Go.
func stateLocal(ctx context.Context, w *world, name string) (rows []row, err error) {
	u, err := w.stateUsers(ctx, false)
	if err != nil {
		return nil, err
	}
	defer u.close()
	for _, c := range []struct {
		size, n int
		most    float64
	}{{64, 100_000, 2.5}, {4 * kib, 50_000, 2}, {mib, 400, 1.2}, {64 * mib, 4, 1.2}} {
		key := fmt.Sprint("local.", c.size)
		if err := u.have(ctx, key, c.size); err != nil {
			return nil, err
		}
		from, to := bytes.Repeat([]byte{1}, c.size), make([]byte, c.size) // what was never written is one page in truth
		sides := []side{u.does(c.n, "copied", key, c.size), u.does(c.n, "mapped", key, c.size), inGo(c.n, func() { copy(to, from) })}
		floor := 2
		if c.size <= 4*kib {
			floor, sides = 3, append(sides, u.does(c.n, "input", key, c.size))
		}
		rounds, err := alternate(ctx, w.cfg.shorter(4), sides...)
		if err != nil {
			return nil, err
		}
		r := pair(name+"."+sized(c.size), c.most, rounds, 0, floor)
		r.details = fmt.Sprintf("by a copy in Go %s; out of a mapping %s", times(rounds, 0, 2), times(rounds, 1, 2))
		rows = append(rows, r)
	}
	return rows, nil
}

// stateMapped is two guests at once that read all of a mapped value of 16 MiB, or change a half each, against two goroutines
// that do so with a slice. Beside it, the guests with memory of their own: what wasm costs, and not the mapping.
func stateMapped(ctx context.Context, w *world, name string) (rows []row, err error) {
	u, err := w.stateUsers(ctx, false)
	if err != nil {
		return nil, err
	}
	defer u.close()
	const size, n = 16 * mib, 16
	if err := u.have(ctx, "loop", size); err != nil {
		return nil, err
	}
	words := slices.Repeat([]uint64{1}, size/8)
	for _, what := range []string{"sum", "add"} {
		both := func(what string) side {
			return timed(n, u.procs, func(ctx context.Context) (time.Duration, error) {
				took, _, err := u.guests(ctx, 2, func(i int) (int, string) { return 0, fmt.Sprint(what, " loop ", size, " ", n, " ", i) })
				return took, err
			})
		}
		bare := inGo(n, func() { twice(what, words) })
		rounds, err := alternate(ctx, w.cfg.shorter(4), both(what), bare, both("own-"+what))
		if err != nil {
			return nil, err
		}
		r := pair(name+"."+what, 0, rounds, 0, 1)
		r.details = fmt.Sprintf("by the guests with memory of their own %s, which take %s of Go's time", times(rounds, 0, 2), times(rounds, 2, 1))
		rows = append(rows, r)
	}
	return rows, nil
}

// kept is what was read, so that it is not left out.
var kept [2]uint64

// twice is what two guests do.
func twice(what string, words []uint64) {
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			if what == "add" {
				half := words[i*len(words)/2 : (i+1)*len(words)/2]
				for j := range half {
					half[j]++
				}
				return
			}
			var sum uint64
			for _, v := range words {
				sum += v
			}
			kept[i] = sum
		})
	}
	wg.Wait()
}

// stateMap maps 16 MiB into a guest and looks into it, against a GET of as much.
func stateMap(ctx context.Context, w *world, name string) ([]row, error) {
	u, err := w.stateUsers(ctx, false)
	if err != nil {
		return nil, err
	}
	defer u.close()
	const size = 16 * mib
	if err := u.have(ctx, "map", size); err != nil {
		return nil, err
	}
	if err := u.db.Set(ctx, bareKey("map"), make([]byte, size), 0).Err(); err != nil {
		return nil, err
	}
	rounds, err := alternate(ctx, w.cfg.shorter(2), u.does(1000, "map", "map", size), u.bare(1, u.get("map", size)))
	if err != nil {
		return nil, err
	}
	return []row{pair(name, 0.002, rounds, 0, 1)}, nil
}
