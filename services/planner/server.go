package planner

import (
	"cmp"
	"context"
	"encoding/base64"
	"slices"
	"strconv"
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
	p *Planner
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
	q, err := fromCallRequest(r)
	if err != nil {
		return nil, err
	}
	q.Async = true
	rec, err := s.p.Submit(ctx, q)
	if err != nil {
		return nil, err
	}
	return &plannerv1.CreateCallResponse{Call: toCall(rec)}, nil
}

func (s *server) GetCall(_ context.Context, r *plannerv1.GetCallRequest) (*plannerv1.GetCallResponse, error) {
	rec, err := s.get(r.GetCallId())
	if err != nil {
		return nil, err
	}
	return &plannerv1.GetCallResponse{Call: toCall(rec)}, nil
}

func (s *server) get(text string) (*Record, error) {
	id, err := skein.ParseCallID(text)
	if err != nil {
		return nil, err
	}
	return s.p.Get(id)
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
	d := defaultWait
	if r.GetTimeout() != nil {
		d = r.GetTimeout().AsDuration()
	}
	if d < 0 || d > maxWait {
		return nil, fault.Invalid.New("BAD_TIMEOUT", "a wait of %s is not between 0 and %s", d, maxWait)
	}
	rec, err := s.p.Wait(ctx, id, d)
	if err != nil {
		return nil, err
	}
	return &plannerv1.WaitCallResponse{Call: toCall(rec), Output: rec.Output}, nil
}

func (s *server) CancelCall(_ context.Context, r *plannerv1.CancelCallRequest) (*plannerv1.CancelCallResponse, error) {
	id, err := skein.ParseCallID(r.GetCallId())
	if err != nil {
		return nil, err
	}
	rec, err := s.p.Cancel(id)
	if err != nil {
		return nil, err
	}
	return &plannerv1.CancelCallResponse{Call: toCall(rec)}, nil
}

func (s *server) GetCallGraph(_ context.Context, r *plannerv1.GetCallGraphRequest) (*plannerv1.GetCallGraphResponse, error) {
	id, err := skein.ParseCallID(r.GetCallId())
	if err != nil {
		return nil, err
	}
	root, err := s.p.Graph(id)
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

func (s *server) GetCallWaits(_ context.Context, r *plannerv1.GetCallWaitsRequest) (*plannerv1.GetCallWaitsResponse, error) {
	id, err := skein.ParseCallID(r.GetCallId())
	if err != nil {
		return nil, err
	}
	w, err := s.p.Waits(id)
	if err != nil {
		return nil, err
	}
	resp := &plannerv1.GetCallWaitsResponse{
		Call: toCall(w.Call), QueuePosition: int32(w.Position), Since: toTime(w.Since), Until: toTime(w.Until),
	}
	for _, child := range w.Children {
		resp.Children = append(resp.Children, toCall(child))
	}
	return resp, nil
}

func (s *server) GetCallLogs(_ context.Context, r *plannerv1.GetCallLogsRequest) (*plannerv1.GetCallLogsResponse, error) {
	rec, err := s.get(r.GetCallId())
	if err != nil {
		return nil, err
	}
	return &plannerv1.GetCallLogsResponse{Log: rec.Log}, nil
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
		resp.Executors = append(resp.Executors, &plannerv1.Executor{
			ExecutorId: e.ID, Slots: int32(e.Slots), SlotsUsed: int32(e.Used), MemoryBytes: e.Memory, MemoryUsedBytes: e.MemoryUsed,
			AttachTime: toTime(e.Attached), LastHeartbeatTime: toTime(e.LastHeard), Draining: e.Draining(), Marked: e.Marked, Modules: int32(e.Modules), Address: e.Address,
		})
	}
	return resp, nil
}

func (s *server) GetPolicy(context.Context, *plannerv1.GetPolicyRequest) (*plannerv1.GetPolicyResponse, error) {
	return &plannerv1.GetPolicyResponse{Policy: "bin-pack", QueueLimit: int32(s.p.limits.QueueCalls), QueueUsed: int32(s.p.QueueLen())}, nil
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
