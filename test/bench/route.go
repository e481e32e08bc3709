package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"skein.dev"
	"skein.dev/client"
)

// routed is calls by the client library, which leases a route: the planner is asked twice a second and not for each call.
func routed(ctx context.Context, w *world, clients int) (ours, bare side, err error) {
	planner, executor, err := w.suite(ctx)
	if err != nil {
		return side{}, side{}, err
	}
	c, err := client.Dial(planner.addr)
	if err != nil {
		return side{}, side{}, err
	}
	ours = side{procs: []*process{executor, planner, w.procs["upload"]}, close: func() { _ = c.Close() }}
	var all, planned atomic.Int64
	call := func(ctx context.Context) error {
		by, err := invokeBy(ctx, c)
		if n := all.Add(1); by && planned.Add(1) > 100+n/50 { // a route ends while the other side has its turn
			err = cmp.Or(err, errPlanned)
		}
		return err
	}
	for range clients {
		ours.clients = append(ours.clients, call)
	}
	bare, err = w.bareGRPC(ctx, clients)
	return ours, bare, err
}

var errPlanned = errors.New("more than one call in fifty went by the planner")

// invokeBy makes a call and says whether it went by the planner.
func invokeBy(ctx context.Context, c *client.Client) (planned bool, err error) {
	res, err := c.Invoke(ctx, user+"/"+function, payload, client.Options{})
	switch {
	case err != nil:
		return false, err
	case res.State != skein.Succeeded:
		return false, fmt.Errorf("the call ended as %s: %s: %s", res.State, res.Reason, res.Message)
	case !bytes.Equal(res.Output, payload):
		return false, fmt.Errorf("%w: %.100q", errWrong, res.Output)
	}
	return !res.Routed, nil
}
