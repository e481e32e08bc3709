package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc"
)

// A call of scale sleeps 5 ms, so that the executors are not bounded by this machine's processors and what is seen is
// whether the planner lets them work. Each has two slots, and there are twice as many clients as slots.
const (
	scaleSlots   = 2
	scaleClients = 2 * scaleSlots // for each executor
	scaleSleep   = 5 * time.Millisecond
)

// scale is the throughput of two and of four executors, by that of one, against the same of bare servers that sleep: both
// have the same clients.
func scale(ctx context.Context, w *world, name string) ([]row, error) {
	numbers := []int{1, 2, 4}
	var sides []side // ours and the bare one for each number
	defer func() {
		for _, s := range sides {
			s.close()
		}
	}()
	for _, n := range numbers {
		ours, err := w.sleepers(ctx, n)
		if err != nil {
			return nil, err
		}
		sides = append(sides, ours)
		bare, err := w.bareSleepers(ctx, n)
		if err != nil {
			return nil, err
		}
		sides = append(sides, bare)
	}
	rounds, err := alternate(ctx, w.cfg, sides...)
	if err != nil {
		return nil, err
	}
	var rows []row
	for k, n := range numbers[1:] {
		ours, bare := 2*k+2, 2*k+3
		// growth is how much longer a call takes an executor, or how much more CPU, than if there were only one.
		growth := func(b []burst, side int) float64 { return b[side].perOp() * float64(n) / b[side%2].perOp() }
		rows = append(rows, row{
			bench: bench{name: fmt.Sprint(name, ".", n), clients: n * scaleClients, goal: goal{most: 1 / 0.95}},
			time:  spreadOver(rounds, func(b []burst) float64 { return growth(b, ours) / growth(b, bare) }),
			cpu: spreadOver(rounds, func(b []burst) float64 {
				return b[ours].cpuPerOp() / b[0].cpuPerOp() / (b[bare].cpuPerOp() / b[1].cpuPerOp())
			}),
			ours: figuresOf(rounds, ours), bare: figuresOf(rounds, bare),
			details: fmt.Sprintf("efficiency %s, bare %s", digits(1/spreadOver(rounds, func(b []burst) float64 { return growth(b, ours) }).median),
				digits(1/spreadOver(rounds, func(b []burst) float64 { return growth(b, bare) }).median)),
		})
	}
	return rows, nil
}

// sleepers are calls on n executors.
func (w *world) sleepers(ctx context.Context, n int) (side, error) {
	c, err := w.together(ctx, fmt.Sprint("scale-", n), slices.Repeat([]int{scaleSlots}, n))
	if err != nil {
		return side{}, err
	}
	input := fmt.Sprint("sleep ", scaleSleep.Milliseconds())
	return overGRPC(c.planner, n*scaleClients, invokeOf(caller, []byte(input), []byte("1")), c.others()...)
}

// bareSleepers are RPCs to n servers, among which the clients are divided.
func (w *world) bareSleepers(ctx context.Context, n int) (side, error) {
	var all side
	var closes []func()
	all.close = func() {
		for _, f := range closes {
			f()
		}
	}
	for i := range n {
		p, err := w.role(ctx, fmt.Sprint("grpc-sleep-", i), "grpc-sleep", strconv.Itoa(scaleSlots))
		if err != nil {
			return side{}, err
		}
		s, err := overGRPC(p, scaleClients, echo)
		if err != nil {
			return side{}, err
		}
		all.clients, all.procs, closes = append(all.clients, s.clients...), append(all.procs, p), append(closes, s.close)
	}
	return all, cmp.Or(all.clients[0](ctx))
}

// serveSleep is an echo that sleeps first, as many at a time as there are slots.
func serveSleep(slots string) error {
	n, err := strconv.Atoi(slots)
	if err != nil {
		return err
	}
	free := make(chan struct{}, n)
	return serve(func(lis net.Listener) error {
		s := grpc.NewServer()
		sleepy := echoAfter(func() {
			free <- struct{}{}
			defer func() { <-free }()
			time.Sleep(scaleSleep)
		})
		s.RegisterService(&sleepy, nil)
		return s.Serve(lis)
	})
}
