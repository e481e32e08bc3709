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
	own     *stopwatch
}

// stopwatch has what operations took by a clock of their own, which leaves out what only brings them about.
type stopwatch struct {
	mu      sync.Mutex
	ops     int
	sum     time.Duration
	latency []time.Duration
}

// add takes n operations that were done one after the other.
func (s *stopwatch) add(n int, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ops, s.sum, s.latency = s.ops+n, s.sum+took, append(s.latency, took/time.Duration(n))
}

// take gives what was added since the last time.
func (s *stopwatch) take() (b burst) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b = burst{ops: s.ops, wall: s.sum, latency: s.latency}
	s.ops, s.sum, s.latency = 0, 0, nil
	return b
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

// shorter is for operations that are over in a moment: as many bursts, each a part of the time.
func (c config) shorter(part time.Duration) config {
	c.burst /= part
	return c
}

// alternate lets the sides take turns and gives, for each round, a burst of each. Who begins alternates too, so that none
// always follows the same other.
func alternate(ctx context.Context, cfg config, sides ...side) ([][]burst, error) {
	for _, s := range sides {
		if _, err := s.run(ctx, min(warmUp, 2*cfg.burst)); err != nil {
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
	b.ops = len(b.latency) * max(s.each, 1)
	if s.own != nil {
		b = s.own.take()
	}
	slices.Sort(b.latency)
	b.cpu = after - before
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
