package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// moves are the sizes that are pulled and pushed, how many at a time, and the goals of pulls.
var moves = []struct {
	size, n int
	pull    float64
	long    bool
}{{64, 100, 1.5, false}, {4 * kib, 100, 1.5, false}, {mib, 8, 1.3, false}, {16 * mib, 2, 1.15, false}, {64 * mib, 2, 1.15, true}}

// get is a GET that must give so many bytes.
func (u *users) get(key string, size int) func(context.Context) error {
	return func(ctx context.Context) error {
		b, err := u.db.Get(ctx, bareKey(key)).Bytes()
		if err == nil && len(b) != size {
			err = fmt.Errorf("%w: %d bytes, want %d", errWrong, len(b), size)
		}
		return err
	}
}

// statePull is a guest that reads a value which its executor has not, against GET.
func statePull(ctx context.Context, w *world, name string) (rows []row, err error) {
	u, err := w.stateUsers(ctx, true)
	if err != nil {
		return nil, err
	}
	defer u.close()
	for _, m := range moves {
		if m.long && !w.cfg.long {
			continue
		}
		key := fmt.Sprint("pull.", m.size)
		if err := u.store(ctx, key, m.size); err != nil {
			return nil, err
		}
		rounds, err := alternate(ctx, w.cfg.shorter(2), u.does(m.n, "pull", key, m.size), u.bare(m.n, u.get(key, m.size)))
		if err != nil {
			return nil, err
		}
		rows = append(rows, pair(name+"."+sized(m.size), m.pull, rounds, 0, 1))
	}
	return rows, nil
}

// statePullChunk is a guest that reads 4 KiB of each chunk of 16 MiB which its executor has not, against GETRANGE of them;
// beside it, one that reads exactly that range of the global tier.
func statePullChunk(ctx context.Context, w *world, name string) ([]row, error) {
	u, err := w.stateUsers(ctx, true)
	if err != nil {
		return nil, err
	}
	defer u.close()
	const size, n = 16 * mib, 128
	if err := u.store(ctx, "chunk", size); err != nil {
		return nil, err
	}
	at := int64(0)
	bare := u.bare(n, func(ctx context.Context) error {
		at = (at + 256*kib) % size
		b, err := u.db.GetRange(ctx, bareKey("chunk"), at, at+4*kib-1).Bytes()
		if err == nil && len(b) != 4*kib {
			err = errWrong
		}
		return err
	})
	rounds, err := alternate(ctx, w.cfg.shorter(2), u.does(n, "chunks", "chunk", size), bare, u.does(n, "range", "chunk", size))
	if err != nil {
		return nil, err
	}
	r := pair(name, 1.4, rounds, 0, 1)
	r.details = "exactly these bytes past the replica " + times(rounds, 2, 1)
	return []row{r}, nil
}

// statePush is a guest that sets a value and pushes it, against SET.
func statePush(ctx context.Context, w *world, name string) (rows []row, err error) {
	u, err := w.stateUsers(ctx, false)
	if err != nil {
		return nil, err
	}
	defer u.close()
	for _, m := range moves {
		if m.long && !w.cfg.long {
			continue
		}
		key, data := fmt.Sprint("push.", m.size), make([]byte, m.size)
		bare := u.bare(m.n, func(ctx context.Context) error { return u.db.Set(ctx, bareKey(key), data, 0).Err() })
		if err := u.have(ctx, key, m.size); err != nil {
			return nil, err
		}
		rounds, err := alternate(ctx, w.cfg.shorter(2), u.does(m.n, "push", key, m.size), bare)
		if err != nil {
			return nil, err
		}
		rows = append(rows, pair(name+"."+sized(m.size), 0, rounds, 0, 1))
	}
	return rows, nil
}

// statePushDelta is a guest that changes a page in each chunk of a mapped value of 16 MiB and pushes it, against SETRANGEs of
// them in one pipeline, and against a SET of all; and one that changes each hundredth page of 64 MiB, against one that changes all.
func statePushDelta(ctx context.Context, w *world, name string) ([]row, error) {
	u, err := w.stateUsers(ctx, false)
	if err != nil {
		return nil, err
	}
	defer u.close()
	const size, large, pages = 16 * mib, 64 * mib, 64
	data := make([]byte, size)
	set := func(ctx context.Context) error { return u.db.Set(ctx, bareKey("delta"), data, 0).Err() }
	if err := set(ctx); err != nil {
		return nil, err
	}
	setRanges := func(ctx context.Context) error {
		pipe := u.db.Pipeline()
		for i := range pages {
			pipe.SetRange(ctx, bareKey("delta"), int64(i*(size/pages)), string(data[:4*kib]))
		}
		_, err := pipe.Exec(ctx)
		return err
	}
	if err := u.have(ctx, "delta", size); err != nil {
		return nil, err
	}
	rounds, err := alternate(ctx, w.cfg.shorter(2), u.does(10, "delta", "delta", size), u.bare(10, setRanges), u.bare(1, set))
	if err != nil {
		return nil, err
	}
	rows := []row{pair(name, 1.2, rounds, 0, 1), pair(name+".set", 0.1, rounds, 0, 2)}
	if err := u.have(ctx, "sparse", large); err != nil {
		return nil, err
	}
	rounds, err = alternate(ctx, w.cfg.shorter(4), u.does(4, "sparse", "sparse", large), u.does(1, "all", "sparse", large))
	if err != nil {
		return nil, err
	}
	return append(rows, pair("state.push.sparse", 0, rounds, 0, 1)), nil
}

// stateAppend is guests that append 64 bytes each to one value, again and again: one, and 32 at a time; against APPEND one by
// one. Beside it XADD.
func stateAppend(ctx context.Context, w *world, name string) (rows []row, err error) {
	u, err := w.stateUsers(ctx, false)
	if err != nil {
		return nil, err
	}
	defer u.close()
	var made atomic.Int64 // each time another value: they grow
	fresh := func() string { return fmt.Sprint("append.", made.Add(1)) }
	for _, c := range []struct{ guests, each int }{{1, 2000}, {32, 312}} {
		n := c.guests * c.each
		ours := timed(n, u.procs, func(ctx context.Context) (time.Duration, error) {
			key, last := fresh(), int64(0)
			took, _, err := u.guests(ctx, c.guests, func(int) (int, string) { return 0, fmt.Sprint("append ", key, " 64 ", c.each) })
			if err == nil {
				_, last, err = u.guest(ctx, 0, fmt.Sprint("append ", key, " 64 1"))
			}
			if err == nil && last != int64(n+1)*64 {
				err = fmt.Errorf("%w: %d appends of 64 bytes have made %d", errWrong, n+1, last)
			}
			return took, err
		})
		one := make([]byte, 64)
		rounds, err := alternate(ctx, w.cfg.shorter(2), ours, u.onto(n, fresh, func(ctx context.Context, key string) error {
			return u.db.Append(ctx, key, string(one)).Err()
		}), u.onto(n, fresh, func(ctx context.Context, key string) error {
			return u.db.XAdd(ctx, &redis.XAddArgs{Stream: key, Values: []any{"d", one}}).Err()
		}))
		if err != nil {
			return nil, err
		}
		r := pair(name, 0.15, rounds, 0, 1)
		r.bench.clients, r.details = c.guests, "by XADD "+times(rounds, 0, 2)
		rows = append(rows, r)
	}
	return rows, nil
}

// onto is a side of Redis' own client that does something n times to a key, each time another.
func (u *users) onto(n int, fresh func() string, op func(ctx context.Context, key string) error) side {
	return timed(n, []*process{u.redis}, func(ctx context.Context) (time.Duration, error) {
		key := bareKey(fresh())
		defer u.db.Unlink(ctx, key)
		began := time.Now()
		for range n {
			if err := op(ctx, key); err != nil {
				return 0, err
			}
		}
		return time.Since(began), nil
	})
}
