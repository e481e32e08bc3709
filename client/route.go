package client

import (
	"context"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"skein.dev"
	callv1 "skein.dev/proto/skein/call/v1"
	executorv1 "skein.dev/proto/skein/executor/v1"
	plannerv1 "skein.dev/proto/skein/planner/v1"
)

// route is where calls of a function go, or why they go by the planner. No call waits for one: while it is asked for, calls
// go by the planner. It is asked for when a function is called for the second time within idle, and again while it is in
// use and half of its lease is over, so the planner hears of a function in use twice a second.
type route struct {
	used   atomic.Int64 // when, in nanoseconds
	asking bool         // under Client.mu, as all below
	to     *target      // nil: by the planner
	pause  time.Time    // it is not asked for before
}

// target is a lease. Its times are under Client.mu.
type target struct {
	peer           *peer
	executor       string
	version        int64
	digest         skein.Digest
	config         []byte // as the assignment has it
	usual, most    time.Duration
	renew, expires time.Time
	running        atomic.Int32
	limit          atomic.Int32 // of running, where the executor had no slot for more; 0 for none
}

// peer is an executor.
type peer struct {
	conn    *grpc.ClientConn
	client  executorv1.ExecutorServiceClient
	running atomic.Int32 // calls
}

const (
	idle       = time.Second           // a function that is called less often has no route
	maxRoutes  = 10_000                // beyond, functions go by the planner
	sweepEvery = 10 * time.Second      // what was not used for so long is forgotten
	askTime    = 5 * time.Second       // for the planner to answer
	dropPause  = 50 * time.Millisecond // for it to hear what we saw
)

// direct runs a call by its function's route. Without did the call has not begun anywhere.
func (c *Client) direct(ctx context.Context, f skein.Function, input []byte, o *Options) (res *Result, err error, did bool) { //nolint:revive // did says whether the others mean something
	now := time.Now()
	to := c.target(f, now)
	if to == nil {
		return nil, nil, false
	}
	defer to.peer.running.Add(-1)
	n := to.running.Add(1)
	defer to.running.Add(-1)
	timeout := o.Timeout
	if timeout == 0 {
		timeout = to.usual
	}
	if limit := to.limit.Load(); limit > 0 && n > limit || timeout < 0 || timeout > to.most {
		return nil, nil, false
	}
	id := skein.NewCallID()
	var sent grpcpeer.Peer // where to, if it was
	resp, err := to.peer.client.Run(ctx, &executorv1.RunRequest{Assignment: &callv1.Assignment{
		CallId: id[:], User: string(f.User), Function: f.Name, Version: to.version, Digest: to.digest[:], ConfigDigest: to.config, Input: input, Args: o.Args,
		Timeout: durationpb.New(timeout), Attempt: 1,
	}}, grpc.Peer(&sent))
	if err == nil {
		return fromOutcome(id, to.version, resp.GetOutcome()), nil, true
	}
	reason := reasonOf(err)
	switch {
	case ctx.Err() != nil:
		return nil, err, true
	case reason == "NO_SLOT": // it has less than so many for us
		to.limit.Store(max(1, n-1))
		return nil, nil, false
	case reason == "DRAINING" || sent.Addr == nil: // it leaves, or is gone
		c.drop(f, to)
		return nil, nil, false
	case reason == "" && status.Code(err) == codes.Unavailable: // the connection broke under it
		c.drop(f, to)
		return &Result{ID: id, Version: to.version, Routed: true, Result: skein.Result{
			State: skein.Failed, Reason: "EXECUTOR_LOST", Message: "the connection to executor " + to.executor + " broke", Executor: to.executor,
		}}, nil, true
	}
	return nil, err, true
}

// target gives a function's lease, if it has one that can be used now, and sees to it that there will be one. Its peer counts
// a call more.
func (c *Client) target(f skein.Function, now time.Time) *target {
	c.mu.RLock()
	r := c.routes[f]
	if r == nil {
		c.mu.RUnlock()
		c.enter(f, now)
		return nil
	}
	last := time.Unix(0, r.used.Swap(now.UnixNano()))
	to, ask := r.to, false
	if to != nil {
		ask = !r.asking && now.After(to.renew)
		if !now.Before(to.expires) {
			to = nil
		}
	} else {
		ask = !r.asking && now.Sub(last) < idle && !now.Before(r.pause)
	}
	if to != nil && to.peer.conn.GetState() != connectivity.Ready { // no call waits for a connection either
		to.peer.conn.Connect()
		to = nil
	}
	if to != nil {
		to.peer.running.Add(1)
	}
	c.mu.RUnlock()
	if ask {
		c.ask(f, r)
	}
	return to
}

// enter remembers a function that was called.
func (c *Client) enter(f skein.Function, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sweep(now)
	if c.routes[f] == nil && len(c.routes) < maxRoutes && !c.closed {
		r := &route{}
		r.used.Store(now.UnixNano())
		c.routes[f] = r
	}
}

// ask gets a lease, behind the callers' backs.
func (c *Client) ask(f skein.Function, r *route) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.asking || c.closed {
		return
	}
	r.asking = true
	c.leasing.Go(func() {
		asked := time.Now()
		ctx, cancel := context.WithTimeout(c.ctx, askTime)
		defer cancel()
		resp, err := c.planner.LeaseRoute(ctx, &plannerv1.LeaseRouteRequest{User: string(f.User), Function: f.Name})
		c.answered(r, asked, resp.GetRoute(), err)
	})
}

// answered takes what the planner said. A lease that is not renewed ends in its time.
func (c *Client) answered(r *route, asked time.Time, route *plannerv1.Route, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.asking = false
	var to *target
	if err == nil {
		to, err = c.lease(asked, route)
	}
	switch status.Code(err) {
	case codes.NotFound, codes.FailedPrecondition: // whatever else is wrong passes, and what there is may be used to its end
		r.to = nil
	}
	if err != nil {
		r.pause = time.Now().Add(pauseAfter(err))
		if r.to != nil {
			r.to.renew = r.pause
		}
		return
	}
	r.to = to
	c.sweep(time.Now())
}

// lease makes a target of a route. The caller holds mu.
func (c *Client) lease(asked time.Time, route *plannerv1.Route) (*target, error) {
	digest, err := skein.ParseDigest(route.GetDigest())
	if err != nil {
		return nil, err
	}
	var config []byte
	if route.GetConfigDigest() != "" {
		d, err := skein.ParseDigest(route.GetConfigDigest())
		if err != nil {
			return nil, err
		}
		config = d[:]
	}
	p := c.peers[route.GetAddress()]
	if p == nil {
		if c.closed {
			return nil, context.Canceled
		}
		conn, err := grpc.NewClient(route.GetAddress(), c.options...)
		if err != nil {
			return nil, err
		}
		p = &peer{conn: conn, client: executorv1.NewExecutorServiceClient(conn)}
		c.peers[route.GetAddress()] = p
		conn.Connect()
	}
	lease := route.GetLease().AsDuration()
	return &target{
		peer: p, executor: route.GetExecutorId(), version: route.GetVersion(), digest: digest, config: config, usual: route.GetTimeout().AsDuration(), most: route.GetMaxTimeout().AsDuration(),
		renew: asked.Add(lease / 2), expires: asked.Add(lease),
	}, nil
}

// drop gives a lease up.
func (c *Client) drop(f skein.Function, to *target) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.routes[f]; r != nil && r.to == to {
		r.to, r.pause = nil, time.Now().Add(dropPause)
	}
}

// sweep forgets what was not used for long, and closes connections that are nobody's. The caller holds mu.
func (c *Client) sweep(now time.Time) {
	if now.Sub(c.swept) < sweepEvery {
		return
	}
	c.swept = now
	wanted := map[*peer]bool{}
	for f, r := range c.routes {
		switch {
		case !r.asking && now.Sub(time.Unix(0, r.used.Load())) > sweepEvery:
			delete(c.routes, f)
		case r.to != nil:
			wanted[r.to.peer] = true
		}
	}
	for address, p := range c.peers {
		if !wanted[p] && p.running.Load() == 0 {
			_ = p.conn.Close()
			delete(c.peers, address)
		}
	}
}

// pauseAfter is how long to go by the planner before a route is asked for again.
func pauseAfter(err error) time.Duration {
	for _, d := range status.Convert(err).Details() {
		if retry, ok := d.(*errdetails.RetryInfo); ok && retry.GetRetryDelay().AsDuration() > 0 {
			return retry.GetRetryDelay().AsDuration()
		}
	}
	return time.Second
}

// reasonOf is the reason that a service gave for an error; "" for one that is not a service's.
func reasonOf(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

func fromOutcome(id skein.CallID, version int64, o *callv1.Outcome) *Result {
	now := time.Now()
	return &Result{ID: id, Version: version, Routed: true, Result: skein.Result{
		State: fromState[o.GetState()], Output: o.GetOutput(), ExitCode: o.GetExitCode(), Reason: o.GetReason(), Message: o.GetMessage(), Log: o.GetLog(),
		Cold: o.GetColdStart(), Executor: o.GetExecutor(), Started: now.Add(-o.GetRunTime().AsDuration()), Ended: now,
		Memory: o.GetMemoryPeakBytes(), CPU: o.GetCpuTime().AsDuration(),
		Traffic: skein.Traffic{
			StateRead: o.GetStateReadBytes(), StateWritten: o.GetStateWrittenBytes(), FileRead: o.GetFileReadBytes(), FileWritten: o.GetFileWrittenBytes(),
		},
	}}
}
