package planner

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"skein.dev"
	"skein.dev/platform/fault"
	callv1 "skein.dev/proto/skein/call/v1"
	plannerv1 "skein.dev/proto/skein/planner/v1"
)

func invokeRequest(name string, input []byte) *plannerv1.InvokeRequest {
	user, function, _ := strings.Cut(name, "/")
	return &plannerv1.InvokeRequest{User: user, Function: function, Input: input}
}

func TestInvoke(t *testing.T) {
	r := start(t)
	e := r.mustAttach(executorOptions{name: "x", slots: 2})
	resp, err := r.calls.Invoke(r.ctx(), &plannerv1.InvokeRequest{User: "ann", Function: "echo", Input: []byte("hi\x00\xff"), Args: []string{"a", "ü"}})
	if err != nil {
		t.Fatal(err)
	}
	c := resp.GetCall()
	if string(resp.GetOutput()) != "hi\x00\xff" || c.GetState() != callv1.CallState_CALL_STATE_SUCCEEDED || c.GetExecutor() != "x" || c.GetFunction() != "ann/echo" ||
		c.GetVersion() != 1 || c.GetInputBytes() != 4 || c.GetOutputBytes() != 4 || c.GetEndTime() == nil || c.GetRunTime() == nil || c.GetExpireTime() == nil {
		t.Errorf("%v", resp)
	}
	if a := e.runs[0]; a.GetUser() != "ann" || len(a.GetArgs()) != 2 || a.GetAttempt() != 1 || a.GetTimeout().AsDuration() <= 0 || a.GetTimeout().AsDuration() > DefaultTimeout {
		t.Errorf("assignment %v", a)
	}
	// A guest's failure is no error of Invoke.
	resp, err = r.calls.Invoke(r.ctx(), invokeRequest("ann/exit3", []byte("out")))
	if err != nil || resp.GetCall().GetState() != callv1.CallState_CALL_STATE_FAILED || resp.GetCall().GetExitCode() != 3 || string(resp.GetOutput()) != "out" {
		t.Errorf("%v %v", resp, err)
	}
	logs, err := r.calls.GetCallLogs(r.ctx(), &plannerv1.GetCallLogsRequest{CallId: c.GetCallId()})
	if err != nil || string(logs.GetLog()) != "log\xff of echo" {
		t.Errorf("%v %v", logs, err)
	}
	if ex := r.executor("x"); ex.GetSlots() != 2 || ex.GetSlotsUsed() != 0 {
		t.Errorf("executor %v", ex)
	}
	policy, err := r.calls.GetPolicy(r.ctx(), &plannerv1.GetPolicyRequest{})
	if err != nil || policy.GetQueueUsed() != 0 || policy.GetQueueLimit() == 0 {
		t.Errorf("%v %v", policy, err)
	}
}

func TestAsync(t *testing.T) {
	r := start(t)
	queued := r.create(&plannerv1.CreateCallRequest{User: "ann", Function: "echo", Input: []byte("x")})
	if queued.GetState() != callv1.CallState_CALL_STATE_QUEUED || queued.GetStartTime() != nil {
		t.Fatalf("%v", queued)
	}
	// A wait that ends before the call does gives the record as it is.
	got, err := r.calls.WaitCall(r.ctx(), &plannerv1.WaitCallRequest{CallId: queued.GetCallId(), Timeout: durationpb.New(time.Millisecond)})
	if err != nil || got.GetCall().GetState() != callv1.CallState_CALL_STATE_QUEUED {
		t.Fatalf("%v %v", got, err)
	}
	e := r.mustAttach(executorOptions{name: "x", slots: 100})
	got, err = r.calls.WaitCall(r.ctx(), &plannerv1.WaitCallRequest{CallId: queued.GetCallId()})
	if err != nil || string(got.GetOutput()) != "x" || got.GetCall().GetState() != callv1.CallState_CALL_STATE_SUCCEEDED {
		t.Fatalf("%v %v", got, err)
	}
	if c, err := r.calls.GetCall(r.ctx(), &plannerv1.GetCallRequest{CallId: queued.GetCallId()}); err != nil || c.GetCall().GetState() != got.GetCall().GetState() {
		t.Errorf("%v %v", c, err)
	}

	hangs := r.create(&plannerv1.CreateCallRequest{User: "ann", Function: "hang"})
	for range 2 { // twice is the same as once
		c, err := r.calls.CancelCall(r.ctx(), &plannerv1.CancelCallRequest{CallId: hangs.GetCallId()})
		if err != nil || c.GetCall().GetState() != callv1.CallState_CALL_STATE_CANCELLED {
			t.Fatalf("%v %v", c, err)
		}
	}
	if c := <-e.cancelled; fmt.Sprintf("%x", c.GetCallId()) != hangs.GetCallId() || c.GetReason() != "CANCELLED" {
		t.Errorf("cancel %v", c)
	}
	r.eventually("the slot is free", func() bool { return r.executor("x").GetSlotsUsed() == 0 })
	graph, err := r.calls.GetCallGraph(r.ctx(), &plannerv1.GetCallGraphRequest{CallId: hangs.GetCallId()})
	if err != nil || graph.GetRoot().GetCall().GetCallId() != hangs.GetCallId() || len(graph.GetRoot().GetChildren()) != 0 {
		t.Errorf("%v %v", graph, err)
	}
}

func TestListPages(t *testing.T) {
	r := start(t)
	r.mustAttach(executorOptions{name: "x", slots: 1})
	var all []string
	for i := range 25 {
		user := []string{"ann", "bob"}[i%2]
		all = append([]string{r.create(&plannerv1.CreateCallRequest{User: user, Function: "echo"}).GetCallId()}, all...)
	}
	for user, want := range map[string]int{"": 25, "ann": 13, "bob": 12, "cid": 0} {
		var got []string
		for token := ""; ; {
			resp, err := r.calls.ListCalls(r.ctx(), &plannerv1.ListCallsRequest{User: user, PageSize: 4, PageToken: token})
			if err != nil || len(resp.GetCalls()) > 4 {
				t.Fatalf("%d calls, %v", len(resp.GetCalls()), err)
			}
			for _, c := range resp.GetCalls() {
				got = append(got, c.GetCallId())
			}
			if token = resp.GetNextPageToken(); token == "" {
				break
			}
		}
		if len(got) != want || user == "" && strings.Join(got, " ") != strings.Join(all, " ") {
			t.Errorf("%q: %d calls, want %d, newest first", user, len(got), want)
		}
	}
	for _, bad := range []*plannerv1.ListCallsRequest{{PageSize: -1}, {PageToken: "!"}, {PageToken: "x"}, {User: "A"}} {
		if _, err := r.calls.ListCalls(r.ctx(), bad); fault.From(err).Kind != fault.Invalid {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// lone is a planner without a network, for what can't be asked for over it.
func lone(limits Limits) *Planner {
	return New(limits, slog.New(slog.DiscardHandler), func(_ context.Context, f skein.Function) (Target, error) {
		return Target{Version: skein.Version{Function: f, Number: 1}}, nil
	})
}

// A graph of more calls than a message can hold is cut, and what is given out fits one.
func TestGraph(t *testing.T) {
	l := DefaultLimits()
	p := lone(l)
	if _, err := p.core.Attach(t0, Executor{ID: "x", Slots: 1}, nil); err != nil {
		t.Fatal(err)
	}
	spawn := func(parent, id skein.CallID, started bool) {
		t.Helper()
		p.apply(func(now time.Time) []Command {
			return p.core.Spawn(now, "x", []Spawn{{ID: id, Parent: parent, Function: strings.Repeat("f", skein.MaxNameLen), Input: []byte("in"), Started: started}})
		})
	}
	long := skein.Function{User: skein.User(strings.Repeat("u", skein.MaxNameLen)), Name: strings.Repeat("f", skein.MaxNameLen)}
	root, err := p.Submit(t.Context(), Request{Function: long})
	if err != nil {
		t.Fatal(err)
	}
	child := skein.NewCallID()
	spawn(root.ID, child, true)
	for range 3 {
		spawn(child, skein.NewCallID(), false)
	}
	n, err := p.Graph(t.Context(), root.ID)
	if err != nil || len(n.Children) != 1 || n.Children[0].Call.ID != child || n.Children[0].Call.Parent != root.ID || len(n.Children[0].Children) != 3 {
		t.Fatalf("%+v %v", n, err)
	}
	if n.Totals.Calls != 5 || n.Totals.Alive != 5 || n.Totals.Input != 8 || n.Children[0].Totals.Calls != 4 {
		t.Errorf("%+v", n.Totals)
	}
	calls := int64(5)
	for range 9 {
		mid := skein.NewCallID()
		spawn(root.ID, mid, true)
		for range skein.MaxChildren {
			spawn(mid, skein.NewCallID(), true)
		}
		calls += 1 + skein.MaxChildren
	}
	_, _ = p.Cancel(t.Context(), root.ID)
	resp, err := (&server{p: p}).GetCallGraph(t.Context(), &plannerv1.GetCallGraphRequest{CallId: root.ID.String()})
	drawn, totals := 0, resp.GetRoot().GetTotals()
	var count func(n *plannerv1.CallNode)
	count = func(n *plannerv1.CallNode) {
		drawn++
		for _, c := range n.GetChildren() {
			count(c)
		}
	}
	count(resp.GetRoot())
	if size := proto.Size(resp); err != nil || size > 4<<20 || size < 1<<20 || totals.GetCalls() != calls || totals.GetFailed() != calls || totals.GetAlive() != 0 {
		t.Errorf("%d bytes with %d calls of %d, %v, %v", size, drawn, calls, totals, err)
	}
	t.Logf("%d calls in %d bytes", drawn, proto.Size(resp))
	if _, err := p.Graph(t.Context(), skein.CallID{}); fault.From(err).Reason != "NO_CALL" {
		t.Errorf("unknown: %v", err)
	}
}

// 100 requests with one id are one execution and have one answer.
func TestRequestIDJoins(t *testing.T) {
	r := start(t)
	e := r.mustAttach(executorOptions{name: "x", slots: 200})
	var wg sync.WaitGroup
	ids, outputs := make([]string, 100), make([]string, 100)
	for i := range 100 {
		wg.Go(func() {
			resp, err := r.calls.Invoke(r.ctx(), &plannerv1.InvokeRequest{User: "ann", Function: "echo", Input: []byte("same"), RequestId: "r1"})
			if err != nil {
				t.Error(err)
			}
			ids[i], outputs[i] = resp.GetCall().GetCallId(), string(resp.GetOutput())
		})
	}
	wg.Wait()
	for i := range ids {
		if ids[i] != ids[0] || outputs[i] != "same" {
			t.Errorf("answer %d is %s %q, the first is %s", i, ids[i], outputs[i], ids[0])
		}
	}
	if e.ran() != 1 {
		t.Errorf("%d executions", e.ran())
	}
	_, err := r.calls.Invoke(r.ctx(), &plannerv1.InvokeRequest{User: "ann", Function: "echo", Input: []byte("other"), RequestId: "r1"})
	wantFault(t, err, fault.Exists, "REQUEST_ID_REUSED")
	_, err = r.calls.Invoke(r.ctx(), &plannerv1.InvokeRequest{User: "ann", Function: "echo", Args: []string{"same"}, RequestId: "r1"})
	wantFault(t, err, fault.Exists, "REQUEST_ID_REUSED") // an argument is not an input
}

func TestBadRequests(t *testing.T) {
	r := start(t)
	r.mustAttach(executorOptions{name: "x", slots: 1})
	for _, c := range []struct {
		q      *plannerv1.InvokeRequest
		kind   *fault.Kind
		reason string
	}{
		{invokeRequest("ann/nothing", nil), fault.NotFound, "NO_FUNCTION"},
		{invokeRequest("ANN/echo", nil), fault.Invalid, "BAD_NAME"},
		{invokeRequest("ann/", nil), fault.Invalid, "BAD_NAME"},
		{invokeRequest("ann/echo", make([]byte, skein.MaxPayload+1)), fault.TooLarge, "TOO_LARGE"},
		{&plannerv1.InvokeRequest{User: "ann", Function: "echo", Input: make([]byte, skein.MaxPayload), Args: []string{"x"}}, fault.TooLarge, "TOO_LARGE"},
		{&plannerv1.InvokeRequest{User: "ann", Function: "echo", Args: make([]string, maxArgs+1)}, fault.TooLarge, "TOO_LARGE"},
		{&plannerv1.InvokeRequest{User: "ann", Function: "echo", Args: []string{strings.Repeat("x", maxArgBytes+1)}}, fault.TooLarge, "TOO_LARGE"},
		{&plannerv1.InvokeRequest{User: "ann", Function: "echo", Args: []string{"a\x00"}}, fault.Invalid, "BAD_ARGS"},
		{&plannerv1.InvokeRequest{User: "ann", Function: "echo", RequestId: strings.Repeat("x", maxRequestID+1)}, fault.Invalid, "BAD_REQUEST_ID"},
		{&plannerv1.InvokeRequest{User: "ann", Function: "echo", Timeout: durationpb.New(-1)}, fault.Invalid, "BAD_TIMEOUT"},
		{&plannerv1.InvokeRequest{User: "ann", Function: "echo", Timeout: durationpb.New(MaxTimeout + 1)}, fault.Invalid, "BAD_TIMEOUT"},
		{&plannerv1.InvokeRequest{User: "ann", Function: "echo", Timeout: &durationpb.Duration{Seconds: 1, Nanos: -1}}, fault.Invalid, "BAD_TIMEOUT"},
	} {
		_, err := r.calls.Invoke(r.ctx(), c.q)
		wantFault(t, err, c.kind, c.reason)
	}
	const unknown = "00000000000000000000000000000000"
	for id, want := range map[string]*fault.Kind{unknown: fault.NotFound, "xyz": fault.Invalid, "": fault.Invalid} {
		_, get := r.calls.GetCall(r.ctx(), &plannerv1.GetCallRequest{CallId: id})
		_, wait := r.calls.WaitCall(r.ctx(), &plannerv1.WaitCallRequest{CallId: id})
		_, cancel := r.calls.CancelCall(r.ctx(), &plannerv1.CancelCallRequest{CallId: id})
		_, graph := r.calls.GetCallGraph(r.ctx(), &plannerv1.GetCallGraphRequest{CallId: id})
		_, logs := r.calls.GetCallLogs(r.ctx(), &plannerv1.GetCallLogsRequest{CallId: id})
		for i, err := range []error{get, wait, cancel, graph, logs} {
			if fault.From(err) == nil || fault.From(err).Kind != want {
				t.Errorf("method %d of %q: %v", i, id, err)
			}
		}
	}
	// The largest input there may be comes through, and back.
	big := bytes.Repeat([]byte{0xa5}, skein.MaxPayload)
	if resp, err := r.calls.Invoke(r.ctx(), invokeRequest("ann/echo", big)); err != nil || !bytes.Equal(resp.GetOutput(), big) {
		t.Errorf("%d bytes, %v", len(resp.GetOutput()), err)
	}
}

// A caller that goes away takes its call with it, unless others may join it.
func TestCallerGoesAway(t *testing.T) {
	r := start(t)
	e := r.mustAttach(executorOptions{name: "x", slots: 4})
	for _, requestID := range []string{"", "joined"} {
		ctx, goAway := context.WithCancel(r.ctx())
		done := make(chan error, 1)
		before := e.ran()
		go func() {
			_, err := r.calls.Invoke(ctx, &plannerv1.InvokeRequest{User: "ann", Function: "hang", RequestId: requestID})
			done <- err
		}()
		r.eventually("the call runs", func() bool { return e.ran() > before })
		goAway()
		wantFault(t, <-done, fault.Cancelled, "CANCELED")
		id := fmt.Sprintf("%x", e.runs[before].GetCallId())
		if requestID == "" {
			if c := <-e.cancelled; fmt.Sprintf("%x", c.GetCallId()) != id {
				t.Errorf("cancelled %x", c.GetCallId())
			}
			if c := r.wait(id); c.GetState() != callv1.CallState_CALL_STATE_CANCELLED {
				t.Errorf("%v", c)
			}
			continue
		}
		if c := r.create(&plannerv1.CreateCallRequest{User: "ann", Function: "hang", RequestId: requestID}); c.GetCallId() != id || c.GetState() != callv1.CallState_CALL_STATE_RUNNING {
			t.Errorf("%v", c)
		}
		_, _ = r.calls.CancelCall(r.ctx(), &plannerv1.CancelCallRequest{CallId: id})
	}
}

// With no history at all an asynchronous call is still answered.
func TestNoHistory(t *testing.T) {
	l := DefaultLimits()
	l.HistoryCalls = 0
	p := lone(l)
	if _, err := p.core.Attach(t0, Executor{ID: "x", Slots: 1}, nil); err != nil {
		t.Fatal(err)
	}
	p.streams["x"] = newStream()
	rec, err := p.Submit(t.Context(), Request{Function: skein.Function{User: "ann", Name: "f"}, Timeout: time.Hour})
	if err != nil || rec.State != skein.Running {
		t.Fatalf("%+v %v", rec, err)
	}
	over, err := p.Submit(t.Context(), Request{Function: skein.Function{User: "bob", Name: "f"}, Timeout: 1})
	if err != nil || over == nil {
		t.Fatalf("%+v %v", over, err)
	}
	w := p.waiter(rec.ID)
	p.apply(func(now time.Time) []Command {
		return p.core.Outcome(now, "x", rec.ID, 1, skein.Result{State: skein.Succeeded})
	})
	<-w.done
	if w.ended.State != skein.Succeeded {
		t.Errorf("%+v", w.ended)
	}
	if _, err := p.Find(t.Context(), rec.ID); fault.From(err).Reason != "NO_CALL" {
		t.Errorf("it is remembered: %v", err)
	}
}
