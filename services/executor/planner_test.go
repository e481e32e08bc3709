package executor

import (
	"cmp"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"skein.dev"
	"skein.dev/platform/service"
	callv1 "skein.dev/proto/skein/call/v1"
	plannerv1 "skein.dev/proto/skein/planner/v1"
	"skein.dev/services/executor/internal/replica"
	"skein.dev/services/executor/internal/replica/replicatest"
)

// desk is a planner small enough to be in these tests: it queues and places calls, deeper ones first, and tells parents.
type desk struct {
	plannerv1.UnimplementedDispatchServiceServer
	address string
	server  *grpc.Server
	apart   bool // children go to another executor than their parents if there is one

	mu        sync.Mutex
	functions map[string]skein.Digest
	stations  []*station
	homes     []skein.Digest // that executors said have their state there
	queue     [skein.MaxDepth + 2][]*task
	tasks     map[skein.CallID]*task
	spawned   int // that came to be placed
	started   int // that ran where they were made
	waited    int // messages of waits

	orphans map[skein.CallID]*task // kept calls whose stream broke
	strange bool                   // nothing is adopted
	logs    map[skein.CallID][]byte
	refuse  error // whoever attaches
	refused int
	parked  int64    // of executors; 0 for plenty
	others  []string // addresses of planners that executors try before
}

type station struct {
	stream  grpc.BidiStreamingServer[plannerv1.AttachRequest, plannerv1.AttachResponse]
	cut     context.CancelFunc
	leaves  bool
	slots   int
	busy    int // running and not waiting
	running map[skein.CallID]*task
}

type task struct {
	a        *callv1.Assignment
	parent   *task
	children []*task
	at       *station
	waits    bool
	outcome  *callv1.Outcome
	done     chan struct{}
}

func newDesk(t testing.TB) *desk {
	t.Helper()
	d := &desk{functions: map[string]skein.Digest{}, tasks: map[skein.CallID]*task{}, orphans: map[skein.CallID]*task{}, logs: map[skein.CallID][]byte{}}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.address = lis.Addr().String()
	d.server = grpc.NewServer()
	plannerv1.RegisterDispatchServiceServer(d.server, d)
	go func() { _ = d.server.Serve(lis) }()
	t.Cleanup(d.server.Stop)
	return d
}

func (d *desk) Attach(stream grpc.BidiStreamingServer[plannerv1.AttachRequest, plannerv1.AttachResponse]) error {
	hello, err := stream.Recv()
	if err != nil {
		return err
	}
	d.mu.Lock()
	refuse := d.refuse
	d.refused++
	d.mu.Unlock()
	if refuse != nil {
		return refuse
	}
	ctx, cut := context.WithCancel(stream.Context())
	defer cut()
	s := &station{stream: stream, cut: cut, slots: int(hello.GetHello().GetSlots()), running: map[skein.CallID]*task{}}
	if err := stream.Send(&plannerv1.AttachResponse{Command: &plannerv1.AttachResponse_Welcome{Welcome: &plannerv1.Welcome{HeartbeatInterval: durationpb.New(time.Second)}}}); err != nil {
		return err
	}
	d.mu.Lock()
	d.stations = append(d.stations, s)
	d.adopt(s, hello.GetHello().GetRunning())
	d.place()
	d.mu.Unlock()
	broken := make(chan error, 1)
	go func() { broken <- d.hear(s) }()
	select {
	case err = <-broken:
	case <-ctx.Done():
		err = ctx.Err()
	}
	d.mu.Lock()
	d.detach(s)
	d.mu.Unlock()
	return err
}

// adopt takes the calls that an executor kept; the rest of what it names is cancelled.
func (d *desk) adopt(s *station, running []*plannerv1.Running) {
	for _, r := range running {
		id := skein.CallID(r.GetCallId())
		t := d.orphans[id]
		if t == nil || d.strange || t.a.GetAttempt() != r.GetAttempt() {
			_ = s.stream.Send(&plannerv1.AttachResponse{Command: &plannerv1.AttachResponse_Cancel{Cancel: &plannerv1.Cancel{CallId: r.GetCallId(), Attempt: r.GetAttempt()}}})
			continue
		}
		delete(d.orphans, id)
		t.at, s.running[id] = s, t
		s.busy++
	}
	for id, t := range d.orphans { // what never arrived, or was not kept
		delete(d.orphans, id)
		t.a.Attempt++
		delete(d.logs, id)
		d.queue[0] = append(d.queue[0], t)
	}
}

// detach gives up what an executor had, but for kept calls that made no others.
func (d *desk) detach(s *station) {
	if i := slices.Index(d.stations, s); i >= 0 {
		d.stations = slices.Delete(d.stations, i, i+1)
	}
	for id, t := range s.running {
		t.at = nil
		if t.a.GetKeep() && len(t.children) == 0 {
			d.orphans[id] = t
		} else {
			d.end(t, &callv1.Outcome{CallId: t.a.GetCallId(), State: callv1.CallState_CALL_STATE_FAILED, Reason: "EXECUTOR_LOST"})
		}
	}
	clear(s.running)
}

// cut breaks all streams, as if the planner or what is between had died.
func (d *desk) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.stations {
		s.cut()
	}
}

// hear takes what an executor says until its stream ends.
func (d *desk) hear(s *station) error {
	for {
		m, err := s.stream.Recv()
		if err != nil {
			return err
		}
		d.mu.Lock()
		if !slices.Contains(d.stations, s) {
			d.mu.Unlock()
			return nil
		}
		switch e := m.GetEvent().(type) {
		case *plannerv1.AttachRequest_Heartbeat:
			for _, b := range e.Heartbeat.GetStateHere() {
				d.homes = append(d.homes, skein.Digest(b))
			}
		case *plannerv1.AttachRequest_Spawns:
			d.spawn(s, e.Spawns.GetSpawns())
		case *plannerv1.AttachRequest_Waits:
			d.wait(s, e.Waits.GetWaits())
		case *plannerv1.AttachRequest_CancelChildren:
			for _, id := range e.CancelChildren.GetCallIds() {
				d.cancel(d.tasks[skein.CallID(id)])
			}
		case *plannerv1.AttachRequest_Outcomes:
			for _, o := range e.Outcomes.GetOutcomes() {
				if t := s.running[skein.CallID(o.GetCallId())]; t != nil && t.a.GetAttempt() == o.GetAttempt() {
					d.end(t, o)
				}
			}
		case *plannerv1.AttachRequest_Logs:
			for _, c := range e.Logs.GetLogs() {
				id := skein.CallID(c.GetCallId())
				had, data := int64(len(d.logs[id]))-c.GetChunk().GetOffset(), c.GetChunk().GetData()
				if had < 0 {
					panic("a part of a log is missing")
				}
				d.logs[id] = append(d.logs[id], data[min(had, int64(len(data))):]...)
			}
		case *plannerv1.AttachRequest_Drain:
			s.leaves = true
			_ = s.stream.Send(&plannerv1.AttachResponse{Command: &plannerv1.AttachResponse_Drained{Drained: &plannerv1.Drained{}}})
		}
		d.place()
		d.mu.Unlock()
	}
}

func (d *desk) spawn(s *station, spawns []*plannerv1.Spawn) {
	var results []*plannerv1.SpawnResult
	for _, sp := range spawns {
		parent := s.running[skein.CallID(sp.GetParentId())]
		if parent == nil {
			panic("a spawn whose parent does not run there")
		}
		name := sp.GetFunction()
		digest, ok := d.functions[name]
		if !ok {
			results = append(results, &plannerv1.SpawnResult{CallId: sp.GetCallId(), Reason: "NO_FUNCTION", Message: "there is no " + name})
			continue
		}
		results = append(results, &plannerv1.SpawnResult{CallId: sp.GetCallId(), Version: 1, Digest: digest[:]})
		k := &task{parent: parent, done: make(chan struct{}), a: &callv1.Assignment{
			CallId: sp.GetCallId(), User: parent.a.GetUser(), Function: name, Version: 1, Digest: digest[:], Input: sp.GetInput(), Timeout: sp.GetTimeout(),
			Attempt: 1, Trace: sp.GetTrace(), ParentId: sp.GetParentId(), RootId: parent.a.GetRootId(), Depth: parent.a.GetDepth() + 1, Entry: sp.Entry,
		}}
		parent.children = append(parent.children, k)
		d.tasks[skein.CallID(sp.GetCallId())] = k
		if sp.GetStarted() {
			d.started++
			k.at = s
			s.running[skein.CallID(sp.GetCallId())] = k
			s.busy++
			continue
		}
		d.spawned++
		d.queue[k.a.GetDepth()] = append(d.queue[k.a.GetDepth()], k)
	}
	_ = s.stream.Send(&plannerv1.AttachResponse{Command: &plannerv1.AttachResponse_Spawned{Spawned: &plannerv1.Spawned{Results: results}}})
}

func (d *desk) wait(s *station, waits []*plannerv1.Wait) {
	for _, w := range waits {
		d.waited++
		t, waits := s.running[skein.CallID(w.GetCallId())], len(w.GetChildIds()) > 0
		if t == nil || !t.waits && !waits {
			panic("a wait of a call that is not there, or the end of none")
		}
		if t.waits == waits {
			continue // for others
		}
		if t.waits = waits; waits {
			s.busy--
		} else {
			s.busy++
		}
	}
}

// cancel reaches descendants too.
func (d *desk) cancel(t *task) {
	if t == nil || t.outcome != nil {
		return
	}
	if t.at != nil {
		_ = t.at.stream.Send(&plannerv1.AttachResponse{Command: &plannerv1.AttachResponse_Cancel{Cancel: &plannerv1.Cancel{CallId: t.a.GetCallId(), Reason: "CANCELLED"}}})
	} else {
		d.end(t, &callv1.Outcome{CallId: t.a.GetCallId(), State: callv1.CallState_CALL_STATE_CANCELLED, Reason: "CANCELLED"})
	}
	for _, k := range t.children {
		d.cancel(k)
	}
}

func (d *desk) end(t *task, o *callv1.Outcome) {
	if t == nil || t.outcome != nil {
		return
	}
	t.outcome = o
	close(t.done)
	if t.at != nil {
		delete(t.at.running, skein.CallID(o.GetCallId()))
		if !t.waits {
			t.at.busy--
		}
	}
	if p := t.parent; p != nil && p.outcome == nil && p.at != t.at {
		_ = p.at.stream.Send(&plannerv1.AttachResponse{Command: &plannerv1.AttachResponse_ChildOutcomes{ChildOutcomes: &plannerv1.ChildOutcomes{Outcomes: []*callv1.Outcome{o}}}})
	}
	if o.GetState() == callv1.CallState_CALL_STATE_CANCELLED || o.GetState() == callv1.CallState_CALL_STATE_TIMED_OUT {
		for _, k := range t.children {
			d.cancel(k)
		}
	}
	delete(d.tasks, skein.CallID(o.GetCallId()))
	if t.parent != nil && o.GetState() == callv1.CallState_CALL_STATE_SUCCEEDED {
		t.children = nil
	}
}

// place sends what is queued to whoever has slots.
func (d *desk) place() {
	batch := map[*station][]*callv1.Assignment{}
	for depth := len(d.queue) - 1; depth >= 0; depth-- {
		for len(d.queue[depth]) > 0 {
			t := d.queue[depth][0]
			var to *station
			for _, s := range d.stations {
				better := to == nil || t.parent != nil && (s == t.parent.at) != d.apart
				if t.outcome == nil && s.busy < s.slots && !s.leaves && better {
					to = s
				}
			}
			if to == nil && t.outcome == nil {
				break
			}
			d.queue[depth] = d.queue[depth][1:]
			if t.outcome != nil {
				continue
			}
			t.at, t.waits = to, false
			to.busy++
			to.running[skein.CallID(t.a.GetCallId())] = t
			batch[to] = append(batch[to], t.a)
		}
	}
	for s, all := range batch {
		_ = s.stream.Send(&plannerv1.AttachResponse{Command: &plannerv1.AttachResponse_Assignments{Assignments: &plannerv1.Assignments{Assignments: all}}})
	}
}

// start accepts a call from outside.
func (d *desk) start(name, input string, timeout time.Duration) *task {
	return d.accept(name, input, timeout, false)
}

func (d *desk) accept(name, input string, timeout time.Duration, keep bool) *task {
	d.mu.Lock()
	defer d.mu.Unlock()
	id, digest := skein.NewCallID(), d.functions[name]
	t := &task{done: make(chan struct{}), a: &callv1.Assignment{
		CallId: id[:], User: "ann", Function: name, Version: 1, Digest: digest[:], Input: []byte(input), Timeout: durationpb.New(timeout), Attempt: 1, RootId: id[:], Keep: keep,
	}}
	d.tasks[id] = t
	d.queue[0] = append(d.queue[0], t)
	d.place()
	return t
}

func (d *desk) stop(t *task) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cancel(t)
}

// call is start and the end of it.
func (d *desk) call(t testing.TB, name, input string) *callv1.Outcome {
	t.Helper()
	task := d.start(name, input, time.Minute)
	select {
	case <-task.done:
		return task.outcome
	case <-time.After(2 * time.Minute):
		t.Fatal(name, input, "has not ended")
		return nil
	}
}

// attach starts an executor with slots that has the desk for a planner.
func (d *desk) attach(t testing.TB, p *place, slots int) *Executor {
	t.Helper()
	s := p.executor("")
	e := &Executor{name: defaultName(), log: s.log, machine: s.machine, modules: s, state: replica.New(replicatest.Client(t), 1<<20), slots: newSlots(slots), parked: cmp.Or(d.parked, 1<<30)}
	var err error
	if e.meters, err = newMeters(e); err != nil {
		t.Fatal(err)
	}
	var planners []planner
	for _, address := range append(d.others, d.address) {
		conn, err := service.Connect(address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		planners = append(planners, planner{address, plannerv1.NewDispatchServiceClient(conn)})
	}
	drain, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		_ = e.attach(context.Background(), planners, "", drain)
	}()
	t.Cleanup(func() {
		close(drain)
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Error("the executor does not drain")
		}
		if n := e.slots.used(); n != 0 {
			t.Errorf("%d slots are taken at the end", n)
		}
	})
	for end := time.Now().Add(10 * time.Second); !e.attached.Load(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the executor does not attach")
		}
	}
	return e
}

// add makes a C program a function.
func (d *desk) add(t testing.TB, p *place, name, source string, flags ...string) {
	t.Helper()
	if _, err := exec.LookPath("clang"); err != nil {
		t.Skip("clang is missing: apt-get install clang lld wasi-libc libclang-rt-dev-wasm32")
	}
	out := filepath.Join(t.TempDir(), "guest.wasm")
	args := append([]string{"--target=wasm32-wasi", "--sysroot=/usr", "-O2", "-mbulk-memory", "-ftls-model=local-exec", "-I../../sdk/c/include", "-Wl,--stack-first", "../../sdk/c/skein.c", source, "-o", out}, flags...)
	if msg, err := exec.Command("clang", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, msg)
	}
	wasm, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	digest := p.put(wasm)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.functions[name] = digest
}
