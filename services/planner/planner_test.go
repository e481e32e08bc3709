package planner

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"skein.dev"
	"skein.dev/platform/fault"
	"skein.dev/platform/service"
	callv1 "skein.dev/proto/skein/call/v1"
	plannerv1 "skein.dev/proto/skein/planner/v1"
	uploadv1 "skein.dev/proto/skein/upload/v1"
)

// patience bounds every wait of these tests: none of them passes sooner because it is short.
const patience = 20 * time.Second

// uploads is a small upload service: a map, and a watch that waits for its watchers as the real one does.
type uploads struct {
	uploadv1.UnimplementedUploadServiceServer
	mu       sync.Mutex
	current  map[skein.Function]*uploadv1.Version
	config   *uploadv1.FunctionConfig           // of all functions
	watchers map[chan skein.Function]chan int64 // changes down, sequences up
	asked    int
	watching chan struct{} // a token for each watcher that came
	asking   chan struct{} // and for each look-up, before it is answered
	addr     string
	grpc     *grpc.Server
}

func newUploads() *uploads {
	return &uploads{
		current: map[skein.Function]*uploadv1.Version{}, watchers: map[chan skein.Function]chan int64{},
		watching: make(chan struct{}, 100), asking: make(chan struct{}, 100),
	}
}

func (u *uploads) start(t *testing.T, addr string) {
	lis, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	u.addr, u.grpc = lis.Addr().String(), grpc.NewServer()
	uploadv1.RegisterUploadServiceServer(u.grpc, u)
	go func() { _ = u.grpc.Serve(lis) }()
	t.Cleanup(u.grpc.Stop)
}

// put makes the next version of a function and waits until the watchers know.
func (u *uploads) put(name string, number int64) {
	f, _ := skein.ParseFunction(name)
	u.mu.Lock()
	u.current[f] = &uploadv1.Version{Number: number, Digest: skein.DigestOf([]byte{byte(number)}).String()}
	watchers := make(map[chan skein.Function]chan int64, len(u.watchers))
	for changes, seen := range u.watchers {
		watchers[changes] = seen
	}
	u.mu.Unlock()
	for changes, seen := range watchers {
		select {
		case changes <- f:
			<-seen
		case <-time.After(time.Second):
		}
	}
}

func (u *uploads) lookups() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.asked
}

func (u *uploads) GetFunction(_ context.Context, r *uploadv1.GetFunctionRequest) (*uploadv1.GetFunctionResponse, error) {
	select {
	case u.asking <- struct{}{}:
	default:
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.asked++
	f := skein.Function{User: skein.User(r.GetUser()), Name: r.GetFunction()}
	v := u.current[f]
	if v == nil {
		return nil, fault.NotFound.New("NO_FUNCTION", "there is no function %s", f)
	}
	return &uploadv1.GetFunctionResponse{Function: &uploadv1.Function{User: r.GetUser(), Name: r.GetFunction(), Current: v, Config: u.config}}, nil
}

func (u *uploads) WatchFunctions(s grpc.BidiStreamingServer[uploadv1.WatchFunctionsRequest, uploadv1.WatchFunctionsResponse]) error {
	changes, seen := make(chan skein.Function), make(chan int64)
	u.mu.Lock()
	u.watchers[changes] = seen
	u.mu.Unlock()
	u.watching <- struct{}{}
	defer func() {
		u.mu.Lock()
		delete(u.watchers, changes)
		u.mu.Unlock()
		close(seen)
	}()
	for n := int64(1); ; n++ {
		select {
		case <-s.Context().Done():
			return nil
		case f := <-changes:
			if err := s.Send(&uploadv1.WatchFunctionsResponse{User: string(f.User), Function: f.Name, Sequence: n}); err != nil {
				return err
			}
			m, err := s.Recv()
			if err != nil {
				return err
			}
			seen <- m.GetSeenSequence()
		}
	}
}

// rig is a planner as it runs in production, on a port of its own, with an upload service beside it.
type rig struct {
	*testing.T
	uploads  *uploads
	addr     string
	calls    plannerv1.PlannerServiceClient
	dispatch plannerv1.DispatchServiceClient
	conn     *grpc.ClientConn
	stop     context.CancelFunc // as SIGTERM does
	stopped  chan error
}

// functions of the fake executor; what each does is in fakeExecutor.run.
var functions = []string{"ann/echo", "ann/exit3", "ann/trap", "ann/hang", "ann/deaf", "ann/version", "bob/echo"}

func start(t *testing.T, change ...func(*Limits)) *rig {
	t.Helper()
	url := sharedRedis(t)
	settle(t)
	limits := DefaultLimits()
	for _, c := range change {
		c(&limits)
	}
	u := newUploads()
	for _, f := range functions {
		u.put(f, 1)
	}
	u.start(t, "127.0.0.1:0")
	cfg, base := Config{Upload: u.addr, RedisURL: url, RedisTimeout: time.Second, Volatile: true, Limits: limits}, service.DefaultConfig()
	return serve(t, u, base, cfg).leads()
}

func serve(t *testing.T, u *uploads, base service.Config, cfg Config) *rig {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	listening := make(chan string, 1)
	base.Listen, base.Quiet, base.Grace = "127.0.0.1:0", true, 10*time.Second
	base.OnListen = func(addr string) { listening <- addr }
	r := &rig{T: t, uploads: u, stop: stop, stopped: make(chan error, 1)}
	go func() { r.stopped <- service.Run(ctx, base, cfg.Start) }()
	select {
	case r.addr = <-listening:
	case err := <-r.stopped:
		t.Fatal(err)
	}
	r.conn = r.connect()
	r.calls, r.dispatch = plannerv1.NewPlannerServiceClient(r.conn), plannerv1.NewDispatchServiceClient(r.conn)
	t.Cleanup(func() {
		stop()
		_ = r.conn.Close() // ends what a test left open, so that the drain is short
		select {
		case err := <-r.stopped:
			if err != nil {
				t.Errorf("the planner stopped with %v", err)
			}
		case <-time.After(patience):
			t.Error("the planner does not stop")
		}
	})
	return r
}

// leads waits until the planner does.
func (r *rig) leads() *rig {
	r.Helper()
	r.eventually("the planner leads", func() bool {
		_, err := r.calls.GetPolicy(r.ctx(), &plannerv1.GetPolicyRequest{})
		return err == nil
	})
	return r
}

// connect gives a connection of its own, for what is cut.
func (r *rig) connect() *grpc.ClientConn {
	conn, err := service.Connect(r.addr)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = conn.Close() })
	return conn
}

// settle checks, at the very end of a test, that it left no goroutine behind.
func settle(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for until := time.Now().Add(patience); runtime.NumGoroutine() > before+2; <-time.After(10 * time.Millisecond) {
			if time.Now().After(until) {
				stacks := make([]byte, 1<<20)
				t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
			}
		}
	})
}

// eventually waits for what has no event of its own to wait for.
func (r *rig) eventually(what string, ok func() bool) {
	r.Helper()
	for until := time.Now().Add(patience); !ok(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(until) {
			r.Fatalf("not in %s: %s", patience, what)
		}
	}
}

func (r *rig) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	r.Cleanup(cancel)
	return ctx
}

func (r *rig) create(q *plannerv1.CreateCallRequest) *callv1.Call {
	r.Helper()
	resp, err := r.calls.CreateCall(r.ctx(), q)
	if err != nil {
		r.Fatal(err)
	}
	return resp.GetCall()
}

func (r *rig) wait(id string) *callv1.Call {
	r.Helper()
	resp, err := r.calls.WaitCall(r.ctx(), &plannerv1.WaitCallRequest{CallId: id})
	if err != nil {
		r.Fatal(err)
	}
	return resp.GetCall()
}

// fakeExecutor speaks the executor's side of Attach and "runs" a handful of functions.
type fakeExecutor struct {
	t         *testing.T
	stream    grpc.BidiStreamingClient[plannerv1.AttachRequest, plannerv1.AttachResponse]
	cut       context.CancelFunc
	ended     chan error // why the stream ended
	cancelled chan *plannerv1.Cancel
	answers   chan *plannerv1.SpawnResult
	children  chan *callv1.Outcome

	mu       sync.Mutex // also of Send
	runs     []*callv1.Assignment
	messages int
	held     map[string]*callv1.Assignment
}

type executorOptions struct {
	name   string
	slots  int32
	silent bool // after hello
}

// attach starts an executor on a connection of its own.
func (r *rig) attach(o executorOptions) (*fakeExecutor, error) {
	r.Helper()
	ctx, cut := context.WithCancel(context.Background())
	r.Cleanup(cut)
	stream, err := plannerv1.NewDispatchServiceClient(r.connect()).Attach(ctx)
	if err != nil {
		return nil, err
	}
	if err := stream.Send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Hello{Hello: &plannerv1.Hello{ExecutorId: o.name, Slots: o.slots}}}); err != nil {
		return nil, err
	}
	first, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	every := first.GetWelcome().GetHeartbeatInterval().AsDuration()
	if every <= 0 {
		r.Fatalf("the first word was %v", first)
	}
	e := &fakeExecutor{
		t: r.T, stream: stream, cut: cut, ended: make(chan error, 1), cancelled: make(chan *plannerv1.Cancel, 1000),
		answers: make(chan *plannerv1.SpawnResult, 2000), children: make(chan *callv1.Outcome, 2000),
		held: map[string]*callv1.Assignment{},
	}
	go e.receive()
	if !o.silent {
		go e.beat(ctx, every)
	}
	return e, nil
}

// mustAttach returns once the planner lists the executor, or has refused it.
func (r *rig) mustAttach(o executorOptions) *fakeExecutor {
	r.Helper()
	e, err := r.attach(o)
	if err != nil {
		r.Fatal(err)
	}
	r.eventually(o.name+" is attached", func() bool { return r.executor(o.name) != nil })
	return e
}

func (r *rig) executor(name string) *plannerv1.Executor {
	resp, err := r.calls.ListExecutors(r.ctx(), &plannerv1.ListExecutorsRequest{})
	if err != nil {
		r.Fatal(err)
	}
	for _, e := range resp.GetExecutors() {
		if e.GetExecutorId() == name {
			return e
		}
	}
	return nil
}

func (e *fakeExecutor) send(m *plannerv1.AttachRequest) {
	e.mu.Lock()
	defer e.mu.Unlock()
	_ = e.stream.Send(m) // receive sees why
}

func (e *fakeExecutor) beat(ctx context.Context, every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		e.send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Heartbeat{Heartbeat: &plannerv1.Heartbeat{MemoryUsedBytes: 7}}})
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (e *fakeExecutor) receive() {
	for {
		m, err := e.stream.Recv()
		if err != nil {
			e.ended <- err
			return
		}
		switch c := m.GetCommand().(type) {
		case *plannerv1.AttachResponse_Assignments:
			e.mu.Lock()
			e.messages++
			e.mu.Unlock()
			for _, a := range c.Assignments.GetAssignments() {
				e.run(a)
			}
		case *plannerv1.AttachResponse_Spawned:
			for _, r := range c.Spawned.GetResults() {
				e.answers <- r
			}
		case *plannerv1.AttachResponse_ChildOutcomes:
			for _, o := range c.ChildOutcomes.GetOutcomes() {
				e.children <- o
			}
		case *plannerv1.AttachResponse_Cancel:
			e.cancelled <- c.Cancel
			e.mu.Lock()
			a := e.held[string(c.Cancel.GetCallId())]
			e.mu.Unlock()
			if a != nil && a.GetFunction() != "deaf" {
				e.end(&callv1.Outcome{CallId: a.GetCallId(), Attempt: a.GetAttempt(), State: callv1.CallState_CALL_STATE_CANCELLED, Reason: "CANCELLED"})
			}
		}
	}
}

func (e *fakeExecutor) end(o *callv1.Outcome) {
	e.send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Outcomes{Outcomes: &plannerv1.Outcomes{Outcomes: []*callv1.Outcome{o}}}})
}

// run ends a call at once, or holds it until it is cancelled (hang) or for good (deaf).
func (e *fakeExecutor) run(a *callv1.Assignment) {
	e.mu.Lock()
	e.runs = append(e.runs, a)
	e.mu.Unlock()
	o := &callv1.Outcome{CallId: a.GetCallId(), Attempt: a.GetAttempt(), State: callv1.CallState_CALL_STATE_SUCCEEDED, Output: a.GetInput(), Log: []byte("log\xff of " + a.GetFunction())}
	switch a.GetFunction() {
	case "version":
		o.Output = []byte{byte('0' + a.GetVersion())}
	case "exit3":
		o.State, o.ExitCode, o.Reason, o.Message = callv1.CallState_CALL_STATE_FAILED, 3, "GUEST_EXIT", "the guest exited with 3"
	case "trap":
		o.State, o.Reason, o.Message, o.Output = callv1.CallState_CALL_STATE_FAILED, "GUEST_TRAP", "unreachable", nil
	case "hang", "deaf":
		e.mu.Lock()
		e.held[string(a.GetCallId())] = a
		e.mu.Unlock()
		return
	}
	e.end(o)
}

func (e *fakeExecutor) ran() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.runs)
}

// why waits for the stream's end.
func (e *fakeExecutor) why() error {
	e.t.Helper()
	select {
	case err := <-e.ended:
		return err
	case <-time.After(patience):
		e.t.Fatal("the stream stands")
		return nil
	}
}

// wantFault checks an error's kind and reason, as they come over the wire.
func wantFault(t *testing.T, err error, kind *fault.Kind, reason string) {
	t.Helper()
	if err == nil || !errors.Is(err, kind) || fault.From(err).Reason != reason {
		t.Errorf("want %s %s, got %v (%+v)", kind, reason, err, fault.From(err))
	}
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) }
