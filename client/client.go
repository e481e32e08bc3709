// Package client calls functions of Skein. A function that is called again and again gets a route: the address of an executor
// that has it, good for a second, to which calls go without the planner (route.go). A call that can't go there goes by the
// planner, which queues it, so a caller need not care. Errors are gRPC statuses with an ErrorInfo that has a reason and a
// hint; a guest's failure is no error: see Result.
package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/types/known/durationpb"

	"skein.dev"
	callv1 "skein.dev/proto/skein/call/v1"
	plannerv1 "skein.dev/proto/skein/planner/v1"
)

// Client makes calls. It is safe for concurrent use.
type Client struct {
	options []grpc.DialOption
	conn    *grpc.ClientConn
	planner plannerv1.PlannerServiceClient
	ctx     context.Context //nolint:containedctx // of what goes on behind the calls: the leases
	cancel  context.CancelFunc
	leasing sync.WaitGroup

	mu     sync.RWMutex
	closed bool
	routes map[skein.Function]*route
	peers  map[string]*peer // by address
	swept  time.Time
}

// Options of a call; the zero value asks for nothing.
type Options struct {
	Args      []string      // after argv[0]
	Timeout   time.Duration // 0 for the function's
	RequestID string        // makes a repeated call join the first one
	Planned   bool          // by the planner whatever the route, so that there is a record of it
}

// Result is how a call ended. Routed says that it did not go by the planner: there is no record of it, and Log has what its
// guest wrote, for which else the planner's GetCallLogs is to be asked.
type Result struct {
	ID      skein.CallID
	Version int64
	Routed  bool
	skein.Result
}

// reconnect finds a service that is back within seconds.
var reconnect = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
	MinConnectTimeout: 5 * time.Second,
}

// Dial makes a client of the planner at an address. It connects when first used. The options hold for connections to
// executors too: TLS, which there is none of without, or a stats handler that traces.
func Dial(planner string, options ...grpc.DialOption) (*Client, error) {
	c := &Client{
		options: append([]grpc.DialOption{
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithConnectParams(reconnect),
			grpc.WithInitialWindowSize(1 << 20), // fixed ones spare the pings by which gRPC finds its own, one for each lone call
			grpc.WithInitialConnWindowSize(4 << 20),
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true}),
		}, options...),
		routes: map[skein.Function]*route{}, peers: map[string]*peer{},
	}
	conn, err := grpc.NewClient(planner, c.options...)
	if err != nil {
		return nil, fmt.Errorf("planner %q: %w", planner, err)
	}
	c.conn, c.planner = conn, plannerv1.NewPlannerServiceClient(conn)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

// Close ends the connections, and the calls that still run.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.leasing.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	errs := []error{c.conn.Close()}
	for _, p := range c.peers {
		errs = append(errs, p.conn.Close())
	}
	return errors.Join(errs...)
}

// Planner is all else that the planner can be asked.
func (c *Client) Planner() plannerv1.PlannerServiceClient { return c.planner }

// Invoke runs a function, named "user/name", and waits for its end. When ctx ends, so does the call. It is tried once: a call whose
// executor is lost fails with the reason EXECUTOR_LOST, and may have run.
func (c *Client) Invoke(ctx context.Context, function string, input []byte, o Options) (*Result, error) {
	f, err := skein.ParseFunction(function)
	if err != nil {
		return nil, err
	}
	if !o.Planned && o.RequestID == "" {
		if res, err, did := c.direct(ctx, f, input, &o); did {
			return res, err
		}
	}
	resp, err := c.planner.Invoke(ctx, &plannerv1.InvokeRequest{
		User: string(f.User), Function: f.Name, Input: input, Args: o.Args, Timeout: given(o.Timeout), RequestId: o.RequestID,
	})
	if err != nil {
		return nil, err
	}
	return fromCall(resp.GetCall(), resp.GetOutput())
}

// Submit has a call accepted that nobody need wait for: it is in the planner's journal when Submit returns, and is tried again
// if its executor is lost. Fields of more that o has too are o's.
func (c *Client) Submit(ctx context.Context, function string, input []byte, o Options, more *plannerv1.CreateCallRequest) (skein.CallID, error) {
	f, err := skein.ParseFunction(function)
	if err != nil {
		return skein.CallID{}, err
	}
	resp, err := c.planner.CreateCall(ctx, &plannerv1.CreateCallRequest{
		User: string(f.User), Function: f.Name, Input: input, Args: o.Args, Timeout: given(o.Timeout), RequestId: o.RequestID,
		MaxAttempts: more.GetMaxAttempts(), RetryFailures: more.GetRetryFailures(), MaxAge: more.GetMaxAge(), ResultAge: more.GetResultAge(),
		WebhookUrl: more.GetWebhookUrl(),
	})
	if err != nil {
		return skein.CallID{}, err
	}
	return skein.ParseCallID(resp.GetCall().GetCallId())
}

// Wait waits at most d for the end of a call; ended tells whether it came.
func (c *Client) Wait(ctx context.Context, id skein.CallID, d time.Duration) (res *Result, ended bool, err error) {
	resp, err := c.planner.WaitCall(ctx, &plannerv1.WaitCallRequest{CallId: id.String(), Timeout: durationpb.New(d)})
	if err != nil {
		return nil, false, err
	}
	res, err = fromCall(resp.GetCall(), resp.GetOutput())
	return res, err == nil && res.State.Terminal(), err
}

// Watch tells each of every change of a call, and of its log if that is wanted, until the call has ended or each gives an error.
func (c *Client) Watch(ctx context.Context, id skein.CallID, logs bool, each func(*plannerv1.WatchCallResponse) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.planner.WatchCall(ctx, &plannerv1.WatchCallRequest{CallId: id.String(), Logs: logs})
	if err != nil {
		return err
	}
	for {
		event, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = each(event)
		}
		if err != nil {
			return err
		}
	}
}

func given(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

var fromState = map[callv1.CallState]skein.CallState{
	callv1.CallState_CALL_STATE_QUEUED:    skein.Queued,
	callv1.CallState_CALL_STATE_RUNNING:   skein.Running,
	callv1.CallState_CALL_STATE_SUCCEEDED: skein.Succeeded,
	callv1.CallState_CALL_STATE_FAILED:    skein.Failed,
	callv1.CallState_CALL_STATE_CANCELLED: skein.Cancelled,
	callv1.CallState_CALL_STATE_TIMED_OUT: skein.TimedOut,
}

func fromCall(c *callv1.Call, output []byte) (*Result, error) {
	id, err := skein.ParseCallID(c.GetCallId())
	if err != nil {
		return nil, err
	}
	res := &Result{ID: id, Version: c.GetVersion(), Result: skein.Result{
		State: fromState[c.GetState()], Output: output, ExitCode: c.GetExitCode(), Reason: c.GetReason(), Message: c.GetMessage(),
		Cold: c.GetColdStart(), Executor: c.GetExecutor(), Memory: c.GetMemoryPeakBytes(), CPU: c.GetCpuTime().AsDuration(),
		Traffic: skein.Traffic{
			StateRead: c.GetStateReadBytes(), StateWritten: c.GetStateWrittenBytes(), FileRead: c.GetFileReadBytes(), FileWritten: c.GetFileWrittenBytes(),
		},
	}}
	if t := c.GetStartTime(); t != nil {
		res.Started = t.AsTime()
	}
	if t := c.GetEndTime(); t != nil {
		res.Ended = t.AsTime()
	}
	return res, nil
}
