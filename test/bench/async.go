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
	calls, store := plannerv1.NewPlannerServiceClient(conn), w.procs["journal"]
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
	calls := make([]*plannerv1.CreateCallRequest, submitted)
	for i := range calls {
		calls[i] = &plannerv1.CreateCallRequest{User: user, Function: function, Input: payload}
	}
	accepted, err := planner.BatchCreateCalls(ctx, &plannerv1.BatchCreateCallsRequest{Calls: calls})
	if err != nil {
		return err
	}
	var ids []string
	for _, a := range accepted.GetResults() {
		if a.GetReason() != "" {
			return fmt.Errorf("%w: %s: %s", errWrong, a.GetReason(), a.GetMessage())
		}
		ids = append(ids, a.GetCallId())
	}
	ended, err := planner.BatchWaitCalls(ctx, &plannerv1.BatchWaitCallsRequest{CallIds: ids, Timeout: durationpb.New(time.Minute)})
	if err != nil {
		return err
	}
	if n := len(ended.GetResults()); n != submitted {
		return fmt.Errorf("%w: %d of %d calls have ended", errWrong, n, submitted)
	}
	for _, r := range ended.GetResults() {
		if c := r.GetCall(); c.GetState() != callv1.CallState_CALL_STATE_SUCCEEDED {
			return fmt.Errorf("call %s ended as %s: %s", r.GetCallId(), c.GetState(), c.GetReason())
		}
		if err := check(r.GetOutput(), nil); err != nil {
			return err
		}
	}
	return nil
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
