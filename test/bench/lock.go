package main

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"
)

// lockHandOff is two functions that pass a lock to each other, on one executor and on two, against two of Redis' own clients
// that pass a token to each other by BLPOP: per hand-off.
func lockHandOff(ctx context.Context, w *world, name string) ([]row, error) {
	u, err := w.stateUsers(ctx, false)
	if err != nil {
		return nil, err
	}
	defer u.close()
	const local, global, bare = 5000, 100, 200 // by each of the two
	here := u.locks(local)
	there := timed(2*global, u.procs, func(ctx context.Context) (time.Duration, error) {
		took, _, err := u.guests(ctx, 2, func(i int) (int, string) { return i, fmt.Sprint("global handed ", i+1, " ", global) })
		return took, err
	})
	token := timed(2*bare, u.procs[:1], func(ctx context.Context) (time.Duration, error) { return u.passToken(ctx, bare) })
	noted, err := u.alternations(ctx)
	if err != nil {
		return nil, err
	}
	rounds, err := alternate(ctx, w.cfg.shorter(2), here, there, token)
	if err != nil {
		return nil, err
	}
	r1, r2 := pair(name+".local", 0.15, rounds, 0, 2), pair(name+".global", 1.3, rounds, 1, 2)
	r2.details = fmt.Sprintf("%s %% of the holders that were looked at had it from the other", digits(noted))
	return []row{r1, r2}, nil
}

// locks is a side of two guests on one executor that each take a lock so often; an operation is to have it from the other.
func (u *users) locks(n int) side {
	s := side{procs: u.procs, close: func() {}, own: &stopwatch{}}
	s.clients = []func(context.Context) error{func(ctx context.Context) error {
		took, handed, err := u.guests(ctx, 2, func(i int) (int, string) { return 0, fmt.Sprint("lock handed ", i+1, " ", n) })
		if err == nil && handed < 1 {
			err = fmt.Errorf("%w: none had the lock from the other", errWrong)
		}
		if err == nil {
			s.own.add(int(handed), took)
		}
		return err
	}}
	return s
}

// alternations is which part, in %, of the holders of a lock of the cluster had it from the other of two.
func (u *users) alternations(ctx context.Context) (percent float64, err error) {
	const each = 50
	key := "noted"
	if err := soon(ctx, func(ctx context.Context) error {
		_, _, err := u.guests(ctx, 2, func(i int) (int, string) { return i, fmt.Sprint("noted ", key, " ", i+1, " ", each) })
		return err
	}); err != nil {
		return 0, err
	}
	who, err := u.read(ctx, key)
	if err != nil || len(who) < 2*each {
		return 0, fmt.Errorf("%d holders of a lock, want %d: %w", len(who), 2*each, cmp.Or(err, errWrong))
	}
	n := 0
	for i := range len(who) - 1 {
		if who[i] != who[i+1] {
			n++
		}
	}
	return 100 * float64(n) / float64(len(who)-1), nil
}

// passToken has two pass a token to each other, each so many times.
func (u *users) passToken(ctx context.Context, n int) (time.Duration, error) {
	names := [2]string{bareKey("token.0"), bareKey("token.1")}
	if err := u.db.Del(ctx, names[:]...).Err(); err != nil {
		return 0, err
	}
	var errs [2]error
	var wg sync.WaitGroup
	began := time.Now()
	for i := range 2 {
		wg.Go(func() {
			for k := range n {
				if i == 1 || k > 0 { // the first has it
					if errs[i] = u.db.BLPop(ctx, 10*time.Second, names[i]).Err(); errs[i] != nil {
						return
					}
				}
				if errs[i] = u.db.RPush(ctx, names[1-i], "x").Err(); errs[i] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(began), cmp.Or(errs[:]...)
}
