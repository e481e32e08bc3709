package planner

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"skein.dev"
	"skein.dev/platform/fault"
	plannerv1 "skein.dev/proto/skein/planner/v1"
)

// maxBatch is how many calls one request may be about.
const maxBatch = 1000

func checkBatch(n int) error {
	if n == 0 || n > maxBatch {
		return fault.Invalid.New("BAD_BATCH", "a batch of %d calls: it must have 1 to %d", n, maxBatch)
	}
	return nil
}

// SubmitAll accepts calls and returns when those that were accepted are in the journal. Each has a record or an error.
func (p *Planner) SubmitAll(ctx context.Context, all []Request) ([]*Record, []error) {
	offers, recs, errs := make([]offered, len(all)), make([]*Record, len(all)), make([]error, len(all))
	for i, q := range all {
		offers[i], errs[i] = p.offer(ctx, q)
	}
	until := time.Now().Add(p.patience()) // for all together
	for i, o := range offers {
		if errs[i] == nil {
			recs[i], _, errs[i] = p.settle(ctx, o, until)
		}
	}
	return recs, errs
}

func (s *server) BatchCreateCalls(ctx context.Context, r *plannerv1.BatchCreateCallsRequest) (*plannerv1.BatchCreateCallsResponse, error) {
	if err := checkBatch(len(r.GetCalls())); err != nil {
		return nil, err
	}
	results := make([]*plannerv1.BatchCreateCallsResult, len(r.GetCalls()))
	var good []Request
	var at []int // where they are in the batch
	for i, c := range r.GetCalls() {
		q, err := fromCreateCall(c)
		if err != nil {
			results[i] = refusal(err)
			continue
		}
		good, at = append(good, q), append(at, i)
	}
	recs, errs := s.p.SubmitAll(ctx, good)
	for i, rec := range recs {
		if errs[i] != nil {
			results[at[i]] = refusal(errs[i])
		} else {
			results[at[i]] = &plannerv1.BatchCreateCallsResult{CallId: rec.ID.String()}
		}
	}
	return &plannerv1.BatchCreateCallsResponse{Results: results}, nil
}

// refusal tells of an error what goes over the wire of one.
func refusal(err error) *plannerv1.BatchCreateCallsResult {
	e := fault.From(err)
	return &plannerv1.BatchCreateCallsResult{Reason: e.Reason, Message: e.Message, Hint: e.Hint}
}

func (s *server) BatchWaitCalls(ctx context.Context, r *plannerv1.BatchWaitCallsRequest) (*plannerv1.BatchWaitCallsResponse, error) {
	if err := checkBatch(len(r.GetCallIds())); err != nil {
		return nil, err
	}
	d, err := waitTime(r.GetTimeout())
	if err != nil {
		return nil, err
	}
	until := time.Now().Add(d)
	resp, size := &plannerv1.BatchWaitCallsResponse{}, 0
	for _, text := range r.GetCallIds() {
		result, err := s.waitOne(ctx, text, until)
		if err != nil {
			return nil, err
		}
		if result == nil {
			continue
		}
		if size += proto.Size(result) + 8; size > batchBytes && len(resp.Results) > 0 {
			break
		}
		resp.Results = append(resp.Results, result)
	}
	return resp, nil
}

// waitOne waits for one call of a batch; nil if it has not ended. An error is of the whole batch.
func (s *server) waitOne(ctx context.Context, text string, until time.Time) (*plannerv1.BatchWaitCallsResult, error) {
	id, err := skein.ParseCallID(text)
	if err != nil {
		return nil, err
	}
	rec, err := s.p.Wait(ctx, id, max(0, time.Until(until)))
	switch {
	case errors.Is(err, fault.NotFound):
		e := fault.From(err)
		return &plannerv1.BatchWaitCallsResult{CallId: text, Reason: e.Reason, Message: e.Message}, nil
	case err != nil || !rec.State.Terminal():
		return nil, err
	}
	return &plannerv1.BatchWaitCallsResult{CallId: text, Call: toCall(rec), Output: rec.Output}, nil
}
