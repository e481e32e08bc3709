package main

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"
)

// side is one of the two that are compared: clients that each do one operation after the other, and the processes whose
// work that is. This process, which holds the clients, counts on both sides.
type side struct {
	clients []func(context.Context) error
	procs   []*process
	close   func()
	each    int // operations that a client's one does in truth, 0 for 1
}

// burst is what a side did in a short time.
type burst struct {
	ops       int
	wall, cpu time.Duration
	latency   []time.Duration // sorted
}

// perOp is the time between two ends of operations, whoever's they are.
func (b burst) perOp() float64 { return float64(b.wall) / float64(b.ops) }

func (b burst) cpuPerOp() float64 { return float64(b.cpu) / float64(b.ops) }

func (b burst) quantile(q float64) time.Duration {
	return b.latency[min(len(b.latency)-1, int(q*float64(len(b.latency))))]
}

// warmUp is not measured.
const warmUp = 500 * time.Millisecond

// alternate lets the sides take turns and gives, for each round, a burst of each. Who begins alternates too, so that none
// always follows the same other.
func alternate(ctx context.Context, cfg config, sides ...side) ([][]burst, error) {
	for _, s := range sides {
		if _, err := s.run(ctx, warmUp); err != nil {
			return nil, err
		}
	}
	rounds := make([][]burst, cfg.bursts)
	for i := range rounds {
		rounds[i] = make([]burst, len(sides))
		for k := range sides {
			if i%2 == 1 {
				k = len(sides) - 1 - k
			}
			b, err := sides[k].run(ctx, cfg.burst)
			if err != nil {
				return nil, err
			}
			rounds[i][k] = b
		}
	}
	return rounds, nil
}

// run lets all clients work for d and then waits for what they have begun.
func (s side) run(ctx context.Context, d time.Duration) (burst, error) {
	before, err := cpuTime(s.procs)
	if err != nil {
		return burst{}, err
	}
	latencies, errs := make([][]time.Duration, len(s.clients)), make([]error, len(s.clients))
	var wg sync.WaitGroup
	began := time.Now()
	for i, client := range s.clients {
		wg.Go(func() {
			mine := make([]time.Duration, 0, 1<<12)
			for now := began; now.Sub(began) < d; {
				if errs[i] = client(ctx); errs[i] != nil {
					return
				}
				then := now
				now = time.Now()
				mine = append(mine, now.Sub(then))
			}
			latencies[i] = mine
		})
	}
	wg.Wait()
	b := burst{wall: time.Since(began), latency: slices.Concat(latencies...)}
	after, err := cpuTime(s.procs)
	if err := cmp.Or(append(errs, err)...); err != nil {
		return burst{}, err
	}
	slices.Sort(b.latency)
	b.ops, b.cpu = len(b.latency)*max(s.each, 1), after-before
	return b, nil
}

// spread is a median with its quartiles.
type spread struct{ q1, median, q3 float64 }

func spreadOf(values []float64) spread {
	v := slices.Sorted(slices.Values(values))
	at := func(q float64) float64 { // between the two nearest
		x := q * float64(len(v)-1)
		i := int(x)
		return v[i] + (x-float64(i))*(v[min(i+1, len(v)-1)]-v[i])
	}
	return spread{at(.25), at(.5), at(.75)}
}
