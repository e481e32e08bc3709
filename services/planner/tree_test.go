package planner

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"skein.dev"
	"skein.dev/platform/fault"
	callv1 "skein.dev/proto/skein/call/v1"
	plannerv1 "skein.dev/proto/skein/planner/v1"
)

// spawn makes a call of ann/<function>, by a call that runs on x; executors are told of it as "<name>".
func (s *story) spawn(x, parent, name, function string, started bool) {
	s.Helper()
	id := skein.NewCallID()
	s.ids[name] = id
	s.did(s.c.Spawn(s.now, x, []Spawn{{ID: id, Parent: s.ids[parent], Function: function, Input: []byte("in"), Started: started}}))
}

func (s *story) wait(x, name string, children ...string) {
	w := Wait{ID: s.ids[name]}
	for _, c := range children {
		w.Children = append(w.Children, s.ids[c])
	}
	s.did(s.c.Waits(s.now, x, []Wait{w}))
}

func (s *story) resolved(root, function string, number int64, err error) {
	f := skein.Function{User: "ann", Name: function}
	s.did(s.c.Resolved(s.now, s.ids[root], f, skein.Version{Function: f, Number: number}, err))
}

func TestTrees(t *testing.T) {
	for _, c := range []struct {
		name string
		tell func(s *story)
	}{
		{"a parent that waits gives its slot to its child", func(s *story) {
			s.attach("x", 1)
			s.submit("a", "ann")
			s.spawn("x", "a", "b", "f", false)
			s.want("dispatch a to x", "x: accepted b version 0")
			s.wait("x", "a", "b")
			s.want("dispatch b to x")
			s.outcome("x", "b", 1)
			s.want("ended b SUCCEEDED") // x knows that already
			s.wait("x", "a")
			s.submit("c", "ann")
			s.want()
			s.outcome("x", "a", 1)
			s.want("ended a SUCCEEDED", "dispatch c to x")
		}},
		{"a version that the executor knows is not told, one that it can't know is", func(s *story) {
			s.attach("x", 4)
			s.submit("a", "ann")
			s.want("dispatch a to x")
			known := func(name, function string, started bool) {
				s.ids[name] = skein.NewCallID()
				s.did(s.c.Spawn(s.now, "x", []Spawn{{ID: s.ids[name], Parent: s.ids["a"], Function: function, Started: started, Known: true}}))
			}
			known("b", "f", true)
			s.want()
			known("c", "f", false)
			s.want("dispatch c to x")
			known("d", "g", false)
			s.want("resolve ann/g for a")
			s.resolved("a", "g", 7, nil)
			s.want("x: accepted d version 7", "dispatch d to x")
			known("e", "h", true) // it runs what nobody knows
			s.want("cancel e on x: CANCELLED", "x: refused e NO_VERSION")
			s.outcome("x", "b", 1)
			s.want("ended b SUCCEEDED")
		}},
		{"the deeper go first, users take turns among equals", func(s *story) {
			s.attach("x", 1)
			s.submit("a", "ann")
			s.submit("b", "bob")
			s.submit("c", "ann")
			s.spawn("x", "a", "a1", "f", false)
			s.spawn("x", "a", "a2", "f", false)
			s.wait("x", "a", "a1")
			s.spawn("x", "a1", "a11", "f", false)
			s.got = nil
			for _, n := range []string{"a1", "a11", "a2", "b"} {
				s.outcome("x", n, 1)
			}
			s.want("ended a1 SUCCEEDED", "dispatch a11 to x", "ended a11 SUCCEEDED", "dispatch a2 to x", "ended a2 SUCCEEDED", "dispatch b to x",
				"ended b SUCCEEDED", "dispatch c to x")
		}},
		{"a version is looked up once, and a tree keeps it", func(s *story) {
			s.attach("x", 9)
			s.submit("a", "ann")
			s.spawn("x", "a", "b", "g", false)
			s.spawn("x", "a", "c", "g", false)
			s.want("dispatch a to x", "resolve ann/g for a")
			s.resolved("a", "g", 3, nil)
			s.want("x: accepted b version 3", "dispatch b to x", "x: accepted c version 3", "dispatch c to x")
			s.spawn("x", "b", "d", "g", true)
			s.want("x: accepted d version 3")
			s.resolved("a", "g", 4, nil) // nobody asked
			s.spawn("x", "b", "e", "g", true)
			s.want("x: accepted e version 3")
			s.spawn("x", "b", "h", "h", true) // x can't have a version that it was not told
			s.want("cancel h on x: CANCELLED", "x: refused h NO_VERSION")
			s.spawn("x", "b", "i", "i", false)
			s.resolved("a", "i", 0, fault.NotFound.New("NO_FUNCTION", "none"))
			s.want("resolve ann/i for a", "x: refused i NO_FUNCTION")
		}},
		{"the end of a child elsewhere is told where its parent runs", func(s *story) {
			s.attach("x", 1)
			s.submit("a", "ann")
			s.attach("y", 1)
			s.spawn("x", "a", "b", "f", false)
			s.want("dispatch a to x", "x: accepted b version 0", "dispatch b to y")
			s.spawn("y", "b", "c", "f", false)
			s.want("y: accepted c version 0")
			s.cancel("c") // in the queue
			s.want("ended c CANCELLED CANCELLED", "y: child c CANCELLED")
			s.detach("y")
			s.want("ended b FAILED EXECUTOR_LOST", "x: child b FAILED")
		}},
		{"children outlive a parent that ended well, and not the cancelling of what is above", func(s *story) {
			s.attach("x", 9)
			s.submit("a", "ann")
			s.spawn("x", "a", "b", "f", true)
			s.spawn("x", "b", "c", "f", true)
			s.got = nil
			s.outcome("x", "b", 1)
			s.want("ended b SUCCEEDED")
			s.spawn("x", "c", "d", "f", true)
			s.want("x: accepted d version 0")
			s.cancel("a")
			s.want("cancel a on x: CANCELLED", "ended a CANCELLED CANCELLED", "cancel c on x: CANCELLED", "ended c CANCELLED CANCELLED",
				"cancel d on x: CANCELLED", "ended d CANCELLED CANCELLED")
			s.spawn("x", "d", "e", "f", true) // it was on its way
			s.want("cancel e on x: CANCELLED", "x: refused e CANCELLED")
		}},
		{"what a call that has ended left behind can be cancelled still", func(s *story) {
			s.attach("x", 9)
			s.submit("a", "ann")
			s.spawn("x", "a", "b", "f", true)
			s.outcome("x", "a", 1)
			s.got = nil
			s.cancel("a")
			s.want("cancel b on x: CANCELLED", "ended b CANCELLED CANCELLED")
			if r := s.c.calls[s.ids["a"]]; r.State != skein.Succeeded {
				s.Errorf("a is %s", r.State)
			}
		}},
		{"a call is cancelled while its child's version is looked up", func(s *story) {
			s.attach("x", 9)
			s.submit("a", "ann")
			s.spawn("x", "a", "b", "f", true)
			s.spawn("x", "b", "c", "g", false)
			s.outcome("x", "b", 1)
			s.got = nil
			s.cancel("a")
			s.resolved("a", "g", 1, nil)
			s.want("cancel a on x: CANCELLED", "ended a CANCELLED CANCELLED", "x: refused c CANCELLED")
		}},
		{"children of a lost executor's calls are cancelled elsewhere", func(s *story) {
			s.attach("x", 1)
			s.submit("a", "ann")
			s.attach("y", 1)
			s.spawn("x", "a", "b", "f", false)
			s.got = nil
			s.detach("x")
			s.want("ended a FAILED EXECUTOR_LOST", "cancel b on y: CANCELLED", "ended b CANCELLED CANCELLED")
		}},
		{"only its parent's executor cancels a child", func(s *story) {
			s.attach("x", 2)
			s.attach("y", 2)
			s.submit("a", "ann")
			s.spawn("x", "a", "b", "f", true)
			s.got = nil
			s.did(s.c.CancelChildren(s.now, "y", []skein.CallID{s.ids["b"]}))
			s.did(s.c.CancelChildren(s.now, "x", []skein.CallID{s.ids["a"]}))
			s.want()
			s.did(s.c.CancelChildren(s.now, "x", []skein.CallID{s.ids["b"], s.ids["b"]}))
			s.want("cancel b on x: CANCELLED", "ended b CANCELLED CANCELLED")
		}},
		{"near its parent among those that hold the module", func(s *story) {
			s.attach("x", 3)
			s.submit("a", "ann")
			s.attach("y", 3)
			s.attach("z", 3)
			s.c.Heartbeat(s.now, "y", 0, []skein.Digest{{}}, nil)
			s.c.Heartbeat(s.now, "z", 0, []skein.Digest{{}}, nil)
			s.submit("b", "ann")
			s.submit("c", "ann")
			s.got = nil
			s.spawn("x", "a", "d", "f", false)
			s.want("x: accepted d version 0", "dispatch d to y")
			s.c.Heartbeat(s.now, "x", 0, []skein.Digest{{}}, nil)
			s.spawn("x", "a", "e", "f", false)
			s.want("x: accepted e version 0", "dispatch e to x")
		}},
	} {
		t.Run(c.name, func(t *testing.T) { c.tell(newStory(t, testLimits())) })
	}
}

func TestTreeLimits(t *testing.T) {
	l := testLimits()
	l.TreeCalls, l.HistoryCalls = 1100, 5000
	s := newStory(t, l)
	s.attach("x", 1)
	s.submit("a", "ann")
	s.submit("0", "bob")
	s.outcome("x", "a", 1)
	for i := range skein.MaxDepth {
		s.spawn("x", fmt.Sprint(i), fmt.Sprint(i+1), "f", true)
	}
	s.got = nil
	s.spawn("x", fmt.Sprint(skein.MaxDepth), "deeper", "f", true)
	s.want("cancel deeper on x: CANCELLED", "x: refused deeper TOO_DEEP")
	for range skein.MaxChildren - 1 {
		s.spawn("x", "0", "child", "f", true)
	}
	s.got = nil
	s.spawn("x", "0", "child", "f", false)
	s.want("x: refused child TOO_MANY_CHILDREN")
	for range 1100 - skein.MaxDepth - skein.MaxChildren {
		s.spawn("x", "1", "child", "f", true)
	}
	s.got = nil
	s.spawn("x", "1", "child", "f", false)
	s.want("x: refused child TREE_TOO_LARGE")
	// Another tree has room; its inputs that wait have a bound, of which the first may be larger.
	s.attach("y", 1)
	s.submit("b", "ann")
	s.got = nil
	for i, size := range []int{500, 1} {
		id := skein.NewCallID()
		s.ids[fmt.Sprint("b", i)] = id
		s.did(s.c.Spawn(s.now, "y", []Spawn{{ID: id, Parent: s.ids["b"], Function: "f", Input: make([]byte, size)}}))
	}
	s.want("y: accepted b0 version 0", "y: refused b1 TREE_TOO_LARGE")
}

func TestQueuePosition(t *testing.T) {
	s := newStory(t, Limits{QueueCalls: 100, QueueBytes: 1 << 20, TreeCalls: 100, TreeBytes: 1 << 20, HistoryCalls: 100, HistoryBytes: 1 << 20, HistoryAge: time.Hour, Silence: time.Hour})
	s.attach("x", 1)
	s.submit("root", "ann")
	for i := range 3 {
		s.spawn("x", "root", fmt.Sprint("k", i), "f", false)
	}
	for _, n := range []string{"a0", "a1", "a2", "a3", "b0", "c0", "c1", "b1", "a4"} {
		s.submit(n, map[byte]string{'a': "ann", 'b': "bob", 'c': "cid"}[n[0]])
	}
	// What each is told must be what then happens.
	told := map[int]skein.CallID{}
	for _, id := range s.ids {
		if r := s.c.calls[id]; r.State == skein.Queued {
			told[s.c.queue.position(r)] = id
		}
	}
	if len(told) != 12 {
		t.Fatalf("%d calls have positions of their own", len(told))
	}
	runs := s.ids["root"]
	for n := 1; n <= 12; n++ {
		for _, c := range s.c.Outcome(s.now, "x", runs, 1, skein.Result{State: skein.Succeeded}) {
			if c.Kind == Dispatch {
				runs = c.Call.ID
			}
		}
		if runs != told[n] {
			t.Fatalf("number %d is %s, not %s", n, runs, told[n])
		}
	}
}

// spawn says that a call on this executor made others; it gives their ids.
func (e *fakeExecutor) spawn(parent *callv1.Assignment, list ...*plannerv1.Spawn) [][]byte {
	var ids [][]byte
	for _, s := range list {
		id := skein.NewCallID()
		s.CallId, s.ParentId = id[:], parent.GetCallId()
		ids = append(ids, id[:])
	}
	e.send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Spawns{Spawns: &plannerv1.Spawns{Spawns: list}}})
	return ids
}

func (e *fakeExecutor) wait(parent *callv1.Assignment, children ...[]byte) {
	e.send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Waits{Waits: &plannerv1.Waits{Waits: []*plannerv1.Wait{{CallId: parent.GetCallId(), ChildIds: children}}}}})
}

// root starts a call that is held on e.
func (r *rig) root(e *fakeExecutor) (*callv1.Assignment, string) {
	r.Helper()
	before := e.ran()
	id := r.create(&plannerv1.CreateCallRequest{User: "ann", Function: "hang"}).GetCallId()
	r.eventually("it runs", func() bool { return e.ran() == before+1 })
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.runs[before], id
}

func receive[T any](r *rig, from chan T) T {
	r.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		r.Fatalf("no %T came", *new(T))
		panic("unreachable")
	}
}

func TestChildElsewhere(t *testing.T) {
	r := start(t)
	x := r.mustAttach(executorOptions{name: "x", slots: 1})
	root, rootID := r.root(x)
	y := r.mustAttach(executorOptions{name: "y", slots: 2})
	r.uploads.put("ann/version", 1)
	entry := uint32(7)
	trace := map[string]string{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
	ids := x.spawn(root, &plannerv1.Spawn{Function: "version", Input: []byte("in"), Args: []string{"a"}, Trace: trace, Timeout: durationpb.New(time.Hour)},
		&plannerv1.Spawn{Function: "nothing"}, &plannerv1.Spawn{Function: "BAD"}, &plannerv1.Spawn{Entry: &entry})
	answers := map[string]*plannerv1.SpawnResult{}
	for range ids {
		a := receive(r, x.answers)
		answers[string(a.GetCallId())] = a
	}
	for i, want := range []string{"", "NO_FUNCTION", "BAD_NAME", ""} {
		a := answers[string(ids[i])]
		if a.GetReason() != want || (a.GetVersion() == 1 && len(a.GetDigest()) == 32) != (want == "") || (a.GetMessage() == "") != (want == "") {
			t.Errorf("answer %d is %v, want %q", i, a, want)
		}
	}
	o := receive(r, x.children)
	if !bytes.Equal(o.GetCallId(), ids[0]) || o.GetState() != callv1.CallState_CALL_STATE_SUCCEEDED || string(o.GetOutput()) != "1" || o.GetExecutor() != "y" || o.GetLog() != nil {
		t.Errorf("%v", o)
	}
	r.eventually("the other child runs", func() bool { return y.ran() == 2 })
	for _, a := range y.runs {
		if !bytes.Equal(a.GetParentId(), root.GetCallId()) || !bytes.Equal(a.GetRootId(), root.GetCallId()) || a.GetDepth() != 1 || a.GetUser() != "ann" ||
			a.GetTimeout().AsDuration() > DefaultTimeout {
			t.Errorf("%v", a)
		}
		if byEntry := bytes.Equal(a.GetCallId(), ids[3]); byEntry != (a.Entry != nil) || byEntry && (a.GetEntry() != 7 || a.GetFunction() != "hang") || !byEntry && a.GetTrace()["traceparent"] == "" {
			t.Errorf("%v", a)
		}
	}
	// A tree keeps the versions it began with.
	r.uploads.put("ann/version", 2)
	x.spawn(root, &plannerv1.Spawn{Function: "version"})
	if o := receive(r, x.children); string(o.GetOutput()) != "1" {
		t.Errorf("%v", o)
	}
	graph, err := r.calls.GetCallGraph(r.ctx(), &plannerv1.GetCallGraphRequest{CallId: rootID})
	if totals := graph.GetRoot().GetTotals(); err != nil || totals.GetCalls() != 4 || totals.GetAlive() != 2 || totals.GetOutputBytes() != 2 || totals.GetInputBytes() != 2 || len(graph.GetRoot().GetChildren()) != 3 {
		t.Errorf("%v %v", graph, err)
	}
	// The end of the whole reaches the child on the other executor.
	if _, err := r.calls.CancelCall(r.ctx(), &plannerv1.CancelCallRequest{CallId: rootID}); err != nil {
		t.Fatal(err)
	}
	if c := receive(r, y.cancelled); !bytes.Equal(c.GetCallId(), ids[3]) {
		t.Errorf("%v", c)
	}
	x.spawn(root, &plannerv1.Spawn{CallId: []byte("short")})
	x.send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Waits{Waits: &plannerv1.Waits{Waits: []*plannerv1.Wait{{CallId: []byte("short")}}}}})
	wantFault(t, x.why(), fault.Invalid, "BAD_CALL_ID")
}

func TestWaits(t *testing.T) {
	r := start(t)
	x := r.mustAttach(executorOptions{name: "x", slots: 1})
	root, rootID := r.root(x)
	why := func(id string) *plannerv1.GetCallWaitsResponse {
		resp, err := r.calls.GetCallWaits(r.ctx(), &plannerv1.GetCallWaitsRequest{CallId: id})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	if w := why(rootID); w.GetQueuePosition() != 0 || len(w.GetChildren()) != 0 || w.GetSince() == nil || w.GetUntil() == nil {
		t.Errorf("it runs: %v", w)
	}
	ids := x.spawn(root, &plannerv1.Spawn{Function: "hang"}, &plannerv1.Spawn{Function: "hang"})
	receive(r, x.answers)
	receive(r, x.answers)
	if w := why(fmt.Sprintf("%x", ids[1])); w.GetQueuePosition() != 2 || w.GetCall().GetParentId() != rootID || w.GetCall().GetRootId() != rootID || w.GetCall().GetDepth() != 1 {
		t.Errorf("the second child: %v", w)
	}
	x.wait(root, ids...)
	r.eventually("a child runs in its parent's slot", func() bool { return x.ran() == 2 })
	if w := why(rootID); len(w.GetChildren()) != 2 || w.GetChildren()[0].GetState() != callv1.CallState_CALL_STATE_RUNNING || w.GetChildren()[1].GetState() != callv1.CallState_CALL_STATE_QUEUED {
		t.Errorf("it waits: %v", w)
	}
	if ex := r.executor("x"); ex.GetSlotsUsed() != 1 {
		t.Errorf("%v", ex)
	}
	res := r.do("GET", "/v1/calls/"+rootID+"/waits", nil)
	if res.StatusCode != 200 || !strings.Contains(string(res.body), fmt.Sprintf("%x", ids[0])) {
		t.Errorf("%d %s", res.StatusCode, res.body)
	}
	x.send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_CancelChildren{CancelChildren: &plannerv1.CancelChildren{CallIds: ids}}})
	if c := receive(r, x.cancelled); !bytes.Equal(c.GetCallId(), ids[0]) {
		t.Errorf("%v", c)
	}
	if o := receive(r, x.children); !bytes.Equal(o.GetCallId(), ids[1]) || o.GetState() != callv1.CallState_CALL_STATE_CANCELLED {
		t.Errorf("%v", o) // the first ran on x, which knows
	}
	x.wait(root)
	r.eventually("it waits no more", func() bool { return len(why(rootID).GetChildren()) == 0 })
	x.end(&callv1.Outcome{CallId: root.GetCallId(), Attempt: 1, State: callv1.CallState_CALL_STATE_SUCCEEDED})
	r.wait(rootID)
	if w := why(rootID); w.GetSince() != nil || w.GetCall().GetState() != callv1.CallState_CALL_STATE_SUCCEEDED {
		t.Errorf("it has ended: %v", w)
	}
	_, err := r.calls.GetCallWaits(r.ctx(), &plannerv1.GetCallWaitsRequest{CallId: strings.Repeat("0", 32)})
	wantFault(t, err, fault.NotFound, "NO_CALL")
}

// A thousand children go out as one message to each executor.
func TestFanOutIsBatched(t *testing.T) {
	r := start(t)
	x := r.mustAttach(executorOptions{name: "x", slots: 1})
	root, _ := r.root(x)
	var others []*fakeExecutor
	for i := range 4 {
		others = append(others, r.mustAttach(executorOptions{name: fmt.Sprint("y", i), slots: 250}))
	}
	spawns := make([]*plannerv1.Spawn, skein.MaxChildren)
	for i := range spawns {
		spawns[i] = &plannerv1.Spawn{Function: "hang", Input: fmt.Append(nil, i)}
	}
	x.spawn(root, spawns...)
	for range spawns {
		if a := receive(r, x.answers); a.GetReason() != "" {
			t.Fatal(a)
		}
	}
	for _, y := range others {
		r.eventually("all run", func() bool { return y.ran() == 250 })
		y.mu.Lock()
		if y.messages != 1 {
			t.Errorf("250 calls came in %d messages", y.messages)
		}
		y.mu.Unlock()
	}
}

// Ends of children fit their messages, whatever they are.
func TestChildOutcomesFitMessages(t *testing.T) {
	var o outbox
	for range 3 {
		o.ended = append(o.ended, &callv1.Outcome{CallId: make([]byte, 16), Output: make([]byte, skein.MaxPayload)}, &callv1.Outcome{CallId: make([]byte, 16)})
		o.spawned = append(o.spawned, &plannerv1.SpawnResult{CallId: make([]byte, 16)})
	}
	sizes, ends := 0, 0
	for m := range o.messages {
		if size := proto.Size(m); size > 4<<20 {
			t.Errorf("a message of %d bytes", size)
		}
		sizes, ends = sizes+1, ends+len(m.GetChildOutcomes().GetOutcomes())
	}
	if ends != 6 || sizes > 7 {
		t.Errorf("%d ends in %d messages", ends, sizes)
	}
}
