package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/types/known/durationpb"

	callv1 "skein.dev/proto/skein/call/v1"
	plannerv1 "skein.dev/proto/skein/planner/v1"
)

// submitted is how many calls are accepted before the first result is asked for.
const submitted = 1000

// async is calls that are written to the journal before they are answered, run, written down and asked for afterwards: against
// as many values that are set in the same Redis in one pipeline, and got.
func async(ctx context.Context, w *world, _ int) (ours, bare side, err error) {
	planner, executor, err := w.suite(ctx)
	if err != nil {
		return side{}, side{}, err
	}
	conn, err := dial(planner.addr)
	if err != nil {
		return side{}, side{}, err
	}
	calls, store := plannerv1.NewPlannerServiceClient(conn), w.procs["redis"]
	ours = side{
		procs: []*process{executor, planner, w.procs["upload"], store}, close: func() { _ = conn.Close() }, each: submitted,
		clients: []func(context.Context) error{func(ctx context.Context) error { return submitAndWait(ctx, calls) }},
	}
	db := redis.NewClient(&redis.Options{Addr: store.addr})
	bare = side{
		procs: []*process{store}, close: func() { _ = db.Close() }, each: submitted,
		clients: []func(context.Context) error{func(ctx context.Context) error { return setAndGet(ctx, db) }},
	}
	return ours, bare, nil
}

func submitAndWait(ctx context.Context, planner plannerv1.PlannerServiceClient) error {
	var ids [submitted]string
	err := parallel(ctx, submitted, func(ctx context.Context, i int) error {
		resp, err := planner.CreateCall(ctx, &plannerv1.CreateCallRequest{User: user, Function: function, Input: payload})
		ids[i] = resp.GetCall().GetCallId()
		return err
	})
	if err != nil {
		return err
	}
	return parallel(ctx, submitted, func(ctx context.Context, i int) error {
		resp, err := planner.WaitCall(ctx, &plannerv1.WaitCallRequest{CallId: ids[i], Timeout: durationpb.New(time.Minute)})
		if err == nil && resp.GetCall().GetState() != callv1.CallState_CALL_STATE_SUCCEEDED {
			err = fmt.Errorf("call %s is %s: %s", ids[i], resp.GetCall().GetState(), resp.GetCall().GetReason())
		}
		return check(resp.GetOutput(), err)
	})
}

func setAndGet(ctx context.Context, db *redis.Client) error {
	pipe := db.Pipeline()
	var got [submitted]*redis.StringCmd
	for i := range got {
		pipe.Set(ctx, "bench:"+strconv.Itoa(i), payload, 0)
	}
	for i := range got {
		got[i] = pipe.Get(ctx, "bench:"+strconv.Itoa(i))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return err
	}
	for _, g := range got {
		if b, err := g.Bytes(); check(b, err) != nil {
			return check(b, err)
		}
	}
	return nil
}
