package planner

import (
	"cmp"
	"context"
	"encoding/base64"
	"slices"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"skein.dev"
	"skein.dev/platform/fault"
	plannerv1 "skein.dev/proto/skein/planner/v1"
)

// server speaks proto for the planner; attach.go does for executors.
type server struct {
	plannerv1.UnimplementedPlannerServiceServer
	plannerv1.UnimplementedDispatchServiceServer
	p        *Planner
	patience time.Duration // with who reads events
}

func (s *server) Attach(in grpc.BidiStreamingServer[plannerv1.AttachRequest, plannerv1.AttachResponse]) error {
	return s.p.attach(in)
}

// callRequest is what InvokeRequest and CreateCallRequest share.
type callRequest interface {
	GetUser() string
	GetFunction() string
	GetInput() []byte
	GetArgs() []string
	GetTimeout() *durationpb.Duration
	GetRequestId() string
}

func fromCallRequest(r callRequest) (Request, error) {
	f, err := skein.NewFunction(r.GetUser(), r.GetFunction())
	if err != nil {
		return Request{}, err
	}
	if t := r.GetTimeout(); t != nil && t.CheckValid() != nil {
		return Request{}, fault.Invalid.New("BAD_TIMEOUT", "the timeout is no valid duration")
	}
	return Request{Function: f, Input: r.GetInput(), Args: r.GetArgs(), Timeout: r.GetTimeout().AsDuration(), RequestID: r.GetRequestId()}, nil
}

func (s *server) Invoke(ctx context.Context, r *plannerv1.InvokeRequest) (*plannerv1.InvokeResponse, error) {
	q, err := fromCallRequest(r)
	if err != nil {
		return nil, err
	}
	rec, err := s.p.Invoke(ctx, q)
	if err != nil {
		return nil, err
	}
	return &plannerv1.InvokeResponse{Call: toCall(rec), Output: rec.Output}, nil
}

func (s *server) CreateCall(ctx context.Context, r *plannerv1.CreateCallRequest) (*plannerv1.CreateCallResponse, error) {
	q, err := fromCreateCall(r)
	if err != nil {
		return nil, err
	}
	rec, err := s.p.Submit(ctx, q)
	if err != nil {
		return nil, err
	}
	return &plannerv1.CreateCallResponse{Call: toCall(rec)}, nil
}

func fromCreateCall(r *plannerv1.CreateCallRequest) (Request, error) {
	q, err := fromCallRequest(r)
	if err != nil {
		return Request{}, err
	}
	q.Async, q.MaxAttempts, q.RetryFailures, q.Webhook = true, r.GetMaxAttempts(), r.GetRetryFailures(), r.GetWebhookUrl()
	for _, d := range []struct {
		from   *durationpb.Duration
		to     *time.Duration
		reason string
	}{{r.GetMaxAge(), &q.MaxAge, "BAD_MAX_AGE"}, {r.GetResultAge(), &q.ResultAge, "BAD_RESULT_AGE"}} {
		if d.from != nil && d.from.CheckValid() != nil {
			return Request{}, fault.Invalid.New(d.reason, "this is no valid duration")
		}
		*d.to = d.from.AsDuration()
	}
	return q, nil
}

func (s *server) GetCall(ctx context.Context, r *plannerv1.GetCallRequest) (*plannerv1.GetCallResponse, error) {
	rec, err := s.find(ctx, r.GetCallId())
	if err != nil {
		return nil, err
	}
	return &plannerv1.GetCallResponse{Call: toCall(rec)}, nil
}

func (s *server) find(ctx context.Context, text string) (*Record, error) {
	id, err := skein.ParseCallID(text)
	if err != nil {
		return nil, err
	}
	return s.p.Find(ctx, id)
}

func (s *server) ListCalls(_ context.Context, r *plannerv1.ListCallsRequest) (*plannerv1.ListCallsResponse, error) {
	if r.GetUser() != "" {
		if _, err := skein.ParseUser(r.GetUser()); err != nil {
			return nil, err
		}
	}
	size, err := pageSize(r.GetPageSize())
	if err != nil {
		return nil, err
	}
	token, err := openToken(r.GetPageToken())
	if err != nil {
		return nil, err
	}
	before := uint64(0)
	if token != "" {
		if before, err = strconv.ParseUint(token, 10, 64); err != nil || before == 0 {
			return nil, badToken()
		}
	}
	calls, more := s.p.List(skein.User(r.GetUser()), before, size)
	resp := &plannerv1.ListCallsResponse{}
	for _, rec := range calls {
		resp.Calls = append(resp.Calls, toCall(rec))
	}
	if more {
		resp.NextPageToken = sealToken(strconv.FormatUint(calls[len(calls)-1].Seq, 10))
	}
	return resp, nil
}

const (
	defaultWait = 30 * time.Second
	maxWait     = time.Hour
)

func (s *server) WaitCall(ctx context.Context, r *plannerv1.WaitCallRequest) (*plannerv1.WaitCallResponse, error) {
	id, err := skein.ParseCallID(r.GetCallId())
	if err != nil {
		return nil, err
	}
	d, err := waitTime(r.GetTimeout())
	if err != nil {
		return nil, err
	}
	rec, err := s.p.Wait(ctx, id, d)
	if err != nil {
		return nil, err
	}
	return &plannerv1.WaitCallResponse{Call: toCall(rec), Output: rec.Output}, nil
}

func waitTime(wire *durationpb.Duration) (time.Duration, error) {
	if wire == nil {
		return defaultWait, nil
	}
	d := wire.AsDuration()
	if d < 0 || d > maxWait {
		return 0, fault.Invalid.New("BAD_TIMEOUT", "a wait of %s is not between 0 and %s", d, maxWait)
	}
	return d, nil
}

func (s *server) CancelCall(ctx context.Context, r *plannerv1.CancelCallRequest) (*plannerv1.CancelCallResponse, error) {
	id, err := skein.ParseCallID(r.GetCallId())
	if err != nil {
		return nil, err
	}
	rec, err := s.p.Cancel(ctx, id)
	if err != nil {
		return nil, err
	}
	return &plannerv1.CancelCallResponse{Call: toCall(rec)}, nil
}

func (s *server) GetCallGraph(ctx context.Context, r *plannerv1.GetCallGraphRequest) (*plannerv1.GetCallGraphResponse, error) {
	id, err := skein.ParseCallID(r.GetCallId())
	if err != nil {
		return nil, err
	}
	root, err := s.p.Graph(ctx, id)
	if err != nil {
		return nil, err
	}
	return &plannerv1.GetCallGraphResponse{Root: toNode(root)}, nil
}

func toNode(n Node) *plannerv1.CallNode {
	t := n.Totals
	out := &plannerv1.CallNode{Call: toCall(n.Call), Totals: &plannerv1.CallTotals{
		Calls: t.Calls, Alive: t.Alive, Failed: t.Failed, ColdStarts: t.Cold, QueueTime: durationpb.New(t.Queued), RunTime: durationpb.New(t.Ran),
		CpuTime: durationpb.New(t.CPU), MemoryPeakBytes: t.Memory, InputBytes: t.Input, OutputBytes: t.Output,
		StateReadBytes: t.StateRead, StateWrittenBytes: t.StateWritten, FileReadBytes: t.FileRead, FileWrittenBytes: t.FileWritten,
	}}
	for _, child := range n.Children {
		out.Children = append(out.Children, toNode(child))
	}
	return out
}

func (s *server) GetCallWaits(ctx context.Context, r *plannerv1.GetCallWaitsRequest) (*plannerv1.GetCallWaitsResponse, error) {
	id, err := skein.ParseCallID(r.GetCallId())
	if err != nil {
		return nil, err
	}
	w, err := s.p.Waits(ctx, id)
	if err != nil {
		return nil, err
	}
	resp := &plannerv1.GetCallWaitsResponse{
		Call: toCall(w.Call), QueuePosition: int32(w.Position), Since: toTime(w.Since), Until: toTime(w.Until),
		WaitsFor: plannerv1.WaitsFor(w.For), Attempts: toAttempts(w.Call.Attempts),
	}
	for _, child := range w.Children {
		resp.Children = append(resp.Children, toCall(child))
	}
	return resp, nil
}

func (s *server) GetCallLogs(ctx context.Context, r *plannerv1.GetCallLogsRequest) (*plannerv1.GetCallLogsResponse, error) {
	rec, err := s.find(ctx, r.GetCallId())
	if err != nil {
		return nil, err
	}
	return &plannerv1.GetCallLogsResponse{Log: rec.Log}, nil
}

func (s *server) LeaseRoute(ctx context.Context, r *plannerv1.LeaseRouteRequest) (*plannerv1.LeaseRouteResponse, error) {
	f, err := skein.NewFunction(r.GetUser(), r.GetFunction())
	if err != nil {
		return nil, err
	}
	route, err := s.p.Lease(ctx, f)
	if err != nil {
		return nil, err
	}
	usual, most := route.Target.Settings.timeouts()
	return &plannerv1.LeaseRouteResponse{Route: &plannerv1.Route{
		ExecutorId: route.Executor, Address: route.Address, Version: route.Target.Version.Number, Digest: route.Target.Version.Digest.String(),
		Timeout: durationpb.New(usual), MaxTimeout: durationpb.New(most), Lease: durationpb.New(routeLease),
		ConfigDigest: digestText(route.Target.Version.Config),
	}}, nil
}

func (s *server) ListExecutors(_ context.Context, r *plannerv1.ListExecutorsRequest) (*plannerv1.ListExecutorsResponse, error) {
	size, err := pageSize(r.GetPageSize())
	if err != nil {
		return nil, err
	}
	after, err := openToken(r.GetPageToken())
	if err != nil {
		return nil, err
	}
	all := slices.SortedFunc(slices.Values(s.p.Executors()), func(a, b Executor) int { return cmp.Compare(a.ID, b.ID) })
	resp := &plannerv1.ListExecutorsResponse{}
	for _, e := range all {
		if e.ID <= after && after != "" {
			continue
		}
		if len(resp.Executors) == size {
			resp.NextPageToken = sealToken(resp.Executors[size-1].GetExecutorId())
			break
		}
		resp.Executors = append(resp.Executors, toExecutor(e))
	}
	return resp, nil
}

func (s *server) GetPolicy(context.Context, *plannerv1.GetPolicyRequest) (*plannerv1.GetPolicyResponse, error) {
	return &plannerv1.GetPolicyResponse{Policy: s.p.Policy().String(), QueueLimit: int32(s.p.limits.QueueCalls), QueueUsed: int32(s.p.QueueLen())}, nil
}

func (s *server) SetPolicy(ctx context.Context, r *plannerv1.SetPolicyRequest) (*plannerv1.SetPolicyResponse, error) {
	policy, err := ParsePolicy(r.GetPolicy())
	if err != nil {
		return nil, err
	}
	if err := s.p.SetPolicy(ctx, policy); err != nil {
		return nil, err
	}
	return &plannerv1.SetPolicyResponse{Policy: policy.String()}, nil
}

func (s *server) DrainExecutor(_ context.Context, r *plannerv1.DrainExecutorRequest) (*plannerv1.DrainExecutorResponse, error) {
	e, err := s.p.Cordon(r.GetExecutorId(), !r.GetUndo())
	if err != nil {
		return nil, err
	}
	return &plannerv1.DrainExecutorResponse{Executor: toExecutor(e)}, nil
}

func (s *server) MarkExecutor(_ context.Context, r *plannerv1.MarkExecutorRequest) (*plannerv1.MarkExecutorResponse, error) {
	e, err := s.p.Mark(r.GetExecutorId(), !r.GetUndo())
	if err != nil {
		return nil, err
	}
	return &plannerv1.MarkExecutorResponse{Executor: toExecutor(e)}, nil
}

func (s *server) WatchCall(r *plannerv1.WatchCallRequest, out grpc.ServerStreamingServer[plannerv1.WatchCallResponse]) error {
	id, err := skein.ParseCallID(r.GetCallId())
	if err != nil {
		return err
	}
	// Send waits for a reader as long as that likes. Only the end of this method ends it, so it is called from elsewhere.
	slow, done := make(chan struct{}), make(chan error, 1)
	giveUp := sync.OnceFunc(func() { close(slow) })
	go func() {
		done <- s.p.Watch(out.Context(), id, r.GetLogs(), LogPosition{r.GetLogAttempt(), r.GetLogOffset()}, func(e Event) error {
			m := toEvent(e)
			if m == nil {
				return nil
			}
			defer time.AfterFunc(s.patience, giveUp).Stop()
			return out.Send(m)
		})
	}()
	select {
	case err := <-done:
		return err
	case <-slow:
		return fault.Exhausted.New("SLOW_READER", "an event was not read in %s", s.patience).WithHint("watch again from the byte of the log that came last")
	}
}

func (s *server) ListDeadLetters(ctx context.Context, r *plannerv1.ListDeadLettersRequest) (*plannerv1.ListDeadLettersResponse, error) {
	if r.GetUser() != "" {
		if _, err := skein.ParseUser(r.GetUser()); err != nil {
			return nil, err
		}
	}
	size, err := pageSize(r.GetPageSize())
	if err != nil {
		return nil, err
	}
	after, err := openToken(r.GetPageToken())
	if err != nil {
		return nil, err
	}
	letters, next, err := s.p.deadLetters(ctx, skein.User(r.GetUser()), after, size)
	if err != nil {
		return nil, err
	}
	resp := &plannerv1.ListDeadLettersResponse{NextPageToken: sealToken(next)}
	for _, rec := range letters {
		resp.DeadLetters = append(resp.DeadLetters, toDeadLetter(rec))
	}
	return resp, nil
}

func (s *server) GetDeadLetter(ctx context.Context, r *plannerv1.GetDeadLetterRequest) (*plannerv1.GetDeadLetterResponse, error) {
	id, err := skein.ParseCallID(r.GetCallId())
	if err != nil {
		return nil, err
	}
	rec, err := s.p.deadLetter(ctx, id)
	if err != nil {
		return nil, err
	}
	return &plannerv1.GetDeadLetterResponse{DeadLetter: toDeadLetter(rec)}, nil
}

func (s *server) RedriveDeadLetter(ctx context.Context, r *plannerv1.RedriveDeadLetterRequest) (*plannerv1.RedriveDeadLetterResponse, error) {
	id, err := skein.ParseCallID(r.GetCallId())
	if err != nil {
		return nil, err
	}
	rec, err := s.p.Redrive(ctx, id)
	if err != nil {
		return nil, err
	}
	return &plannerv1.RedriveDeadLetterResponse{Call: toCall(rec)}, nil
}

func (s *server) DeleteDeadLetter(ctx context.Context, r *plannerv1.DeleteDeadLetterRequest) (*plannerv1.DeleteDeadLetterResponse, error) {
	id, err := skein.ParseCallID(r.GetCallId())
	if err != nil {
		return nil, err
	}
	if err := s.p.removeDead(ctx, id); err != nil {
		return nil, err
	}
	return &plannerv1.DeleteDeadLetterResponse{}, nil
}

func pageSize(n int32) (int, error) {
	switch {
	case n < 0:
		return 0, fault.Invalid.New("BAD_PAGE_SIZE", "a page size of %d is negative", n)
	case n == 0:
		return 50, nil
	}
	return int(min(n, 1000)), nil
}

// Page tokens are opaque to callers: what they hold may change.
func sealToken(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func openToken(s string) (string, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return "", badToken()
	}
	return string(b), nil
}

func badToken() error {
	return fault.Invalid.New("BAD_PAGE_TOKEN", "the page token is not one of ours").WithHint("pass next_page_token as it came, or none")
}
