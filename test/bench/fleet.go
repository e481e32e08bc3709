package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	plannerv1 "skein.dev/proto/skein/planner/v1"
)

// fleet is a planner of its own with simulated executors, that has run a call.
func (w *world) fleet(ctx context.Context, name string, executors, slots int, args ...string) (planner *process, all []*process, err error) {
	upload, err := w.upload(ctx)
	if err != nil {
		return nil, nil, err
	}
	if planner, err = w.service(ctx, "planner-of-"+name, "planner", append(args, "--upload", upload.addr)...); err != nil {
		return nil, nil, err
	}
	idle, err := w.role(ctx, name, "idle-executors", planner.addr, strconv.Itoa(executors), strconv.Itoa(slots))
	if err != nil {
		return nil, nil, err
	}
	return planner, []*process{idle, upload}, w.works(ctx, planner)
}

// streamed is planned with an executor whose work is nothing.
func streamed(ctx context.Context, w *world, clients int) (ours, bare side, err error) {
	planner, others, err := w.fleet(ctx, "idle-executor", 1, 1024)
	if err != nil {
		return side{}, side{}, err
	}
	if ours, err = overGRPC(planner, clients, invoke, others...); err == nil {
		bare, err = w.bareGRPC(ctx, clients)
	}
	return ours, bare, err
}

// decides gives the side of calls through a planner with so many simulated executors.
func (w *world) decides(ctx context.Context, clients, executors int) (side, error) {
	// All live in one process, whose heartbeats would be most of its work at the usual interval.
	planner, others, err := w.fleet(ctx, "fleet-of-"+strconv.Itoa(executors), executors, 16, "--executor-silence", "60s")
	if err != nil {
		return side{}, err
	}
	return overGRPC(planner, clients, invoke, others...)
}

// decisions is many simulated executors against a server that echoes.
func decisions(executors int) func(context.Context, *world, int) (ours, bare side, err error) {
	return func(ctx context.Context, w *world, clients int) (ours, bare side, err error) {
		if ours, err = w.decides(ctx, clients, executors); err == nil {
			bare, err = w.bareGRPC(ctx, clients)
		}
		return ours, bare, err
	}
}

// decisionsGrow is a planner with the most executors against one with the fewest.
func decisionsGrow(ctx context.Context, w *world, clients int) (ours, bare side, err error) {
	if ours, err = w.decides(ctx, clients, 10_000); err == nil {
		bare, err = w.decides(ctx, clients, 100)
	}
	return ours, bare, err
}

// attached waits until a planner has so many executors, and those so many modules together; -1 are any number.
func attached(ctx context.Context, planner *process, executors, modules int) error {
	conn, err := dial(planner.addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return soon(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		resp, err := plannerv1.NewPlannerServiceClient(conn).ListExecutors(ctx, &plannerv1.ListExecutorsRequest{PageSize: 1000})
		if err != nil {
			return err
		}
		held := 0
		for _, x := range resp.GetExecutors() {
			held += int(x.GetModules())
		}
		if n := len(resp.GetExecutors()); n != executors || modules >= 0 && held != modules {
			return fmt.Errorf("%d executors that hold %d modules are attached, not %d that hold %d", n, held, executors, modules)
		}
		return nil
	})
}
