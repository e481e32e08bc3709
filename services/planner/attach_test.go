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

func TestExecutorIsCutOff(t *testing.T) {
	r := start(t)
	e := r.mustAttach(executorOptions{name: "x", slots: 1})
	done := make(chan *plannerv1.InvokeResponse, 1)
	go func() {
		resp, err := r.calls.Invoke(r.ctx(), invokeRequest("ann/hang", nil))
		if err != nil {
			t.Error(err)
		}
		done <- resp
	}()
	r.eventually("it runs", func() bool { return e.ran() == 1 })
	began := time.Now()
	e.cut()
	c := (<-done).GetCall()
	if c.GetState() != callv1.CallState_CALL_STATE_FAILED || c.GetReason() != "EXECUTOR_LOST" || c.GetExecutor() != "x" || c.GetMessage() == "" {
		t.Errorf("%v", c)
	}
	if took := time.Since(began); took > DefaultLimits().Silence {
		t.Errorf("it took %s: the caller waited for the silence", took)
	}
	// The name is free again, and a call that waited goes to the new one.
	queued := r.create(&plannerv1.CreateCallRequest{User: "ann", Function: "echo"})
	r.mustAttach(executorOptions{name: "x", slots: 1})
	if c := r.wait(queued.GetCallId()); c.GetState() != callv1.CallState_CALL_STATE_SUCCEEDED {
		t.Errorf("%v", c)
	}
}

func TestSilentExecutor(t *testing.T) {
	r := start(t, func(l *Limits) { l.Silence, l.Grace = 300*time.Millisecond, 50*time.Millisecond })
	r.mustAttach(executorOptions{name: "lively", slots: 1})
	e, err := r.attach(executorOptions{name: "silent", slots: 1, silent: true})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for range 2 { // one on each
		ids = append(ids, r.create(&plannerv1.CreateCallRequest{User: "ann", Function: "hang"}).GetCallId())
	}
	wantFault(t, e.why(), fault.Unavailable, "DETACHED")
	r.eventually("one of the calls is lost", func() bool {
		lost := 0
		for _, id := range ids {
			c, err := r.calls.GetCall(r.ctx(), &plannerv1.GetCallRequest{CallId: id})
			if err != nil {
				t.Fatal(err)
			}
			if c.GetCall().GetAttempt() == 2 {
				lost++
			}
		}
		return lost == 1
	})
	if r.executor("lively") == nil || r.executor("silent") != nil {
		t.Error("the wrong one was dropped")
	}
}

// The planner ends what its executor does not, and the slot stays taken: the guest may run still.
func TestDeadlineWithoutTheExecutor(t *testing.T) {
	r := start(t, func(l *Limits) { l.Overdue = 50 * time.Millisecond })
	e := r.mustAttach(executorOptions{name: "x", slots: 1})
	resp, err := r.calls.Invoke(r.ctx(), &plannerv1.InvokeRequest{User: "ann", Function: "deaf", Timeout: durationpb.New(50 * time.Millisecond)})
	if err != nil || resp.GetCall().GetState() != callv1.CallState_CALL_STATE_TIMED_OUT || resp.GetCall().GetReason() != "DEADLINE" {
		t.Fatalf("%v %v", resp, err)
	}
	if c := <-e.cancelled; c.GetReason() != "DEADLINE" {
		t.Errorf("%v", c)
	}
	waits, err := r.calls.Invoke(r.ctx(), &plannerv1.InvokeRequest{User: "ann", Function: "echo", Timeout: durationpb.New(50 * time.Millisecond)})
	if c := waits.GetCall(); err != nil || c.GetState() != callv1.CallState_CALL_STATE_TIMED_OUT || c.GetStartTime() != nil {
		t.Errorf("%v", c)
	}
	// Its late word, said twice, frees the slot and changes nothing else.
	late := &callv1.Outcome{CallId: e.runs[0].GetCallId(), Attempt: 1, State: callv1.CallState_CALL_STATE_SUCCEEDED, Output: []byte("late")}
	e.end(late)
	e.end(late)
	if resp, err := r.calls.Invoke(r.ctx(), invokeRequest("ann/echo", []byte("next"))); err != nil || string(resp.GetOutput()) != "next" {
		t.Errorf("%v %v", resp, err)
	}
	if c := r.wait(resp.GetCall().GetCallId()); c.GetState() != callv1.CallState_CALL_STATE_TIMED_OUT || c.GetOutputBytes() != 0 {
		t.Errorf("%v", c)
	}
}

func TestHello(t *testing.T) {
	r := start(t)
	first := r.mustAttach(executorOptions{name: "x", slots: 1})
	for _, c := range []struct {
		first  *plannerv1.AttachRequest
		kind   *fault.Kind
		reason string
	}{
		{&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Hello{Hello: &plannerv1.Hello{ExecutorId: "x", Slots: 1}}}, fault.Exists, "EXECUTOR_NAME_TAKEN"},
		{&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Hello{Hello: &plannerv1.Hello{Slots: 1}}}, fault.Invalid, "BAD_HELLO"},
		{&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Hello{Hello: &plannerv1.Hello{ExecutorId: "y"}}}, fault.Invalid, "BAD_HELLO"},
		{&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Heartbeat{}}, fault.Invalid, "NO_HELLO"},
		{&plannerv1.AttachRequest{}, fault.Invalid, "NO_HELLO"},
	} {
		s, err := r.dispatch.Attach(r.ctx())
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Send(c.first)
		for err == nil { // a welcome may come before
			_, err = s.Recv()
		}
		wantFault(t, err, c.kind, c.reason)
	}
	if resp, err := r.calls.Invoke(r.ctx(), invokeRequest("ann/echo", nil)); err != nil || resp.GetCall().GetExecutor() != "x" {
		t.Errorf("the first of the name does not work any more: %v %v", resp, err)
	}
	first.end(&callv1.Outcome{CallId: []byte("short")})
	wantFault(t, first.why(), fault.Invalid, "BAD_CALL_ID")
}

func TestExecutorDrains(t *testing.T) {
	r := start(t)
	e := r.mustAttach(executorOptions{name: "x", slots: 2})
	runs := r.create(&plannerv1.CreateCallRequest{User: "ann", Function: "hang"})
	r.eventually("it runs", func() bool { return e.ran() == 1 })
	e.send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Drain{Drain: &plannerv1.Drain{}}})
	r.eventually("it drains", func() bool { return r.executor("x").GetDraining() })
	waits := r.create(&plannerv1.CreateCallRequest{User: "ann", Function: "echo"})
	e.end(&callv1.Outcome{CallId: e.runs[0].GetCallId(), Attempt: 1, State: callv1.CallState_CALL_STATE_SUCCEEDED})
	if c := r.wait(runs.GetCallId()); c.GetState() != callv1.CallState_CALL_STATE_SUCCEEDED {
		t.Errorf("%v", c)
	}
	_ = e.stream.CloseSend()
	if err := e.why(); !isEOF(err) {
		t.Errorf("an executor that leaves in order is told %v", err)
	}
	r.mustAttach(executorOptions{name: "y", slots: 1})
	if c := r.wait(waits.GetCallId()); c.GetExecutor() != "y" {
		t.Errorf("%v", c)
	}
}

// A planner told to stop lets what it accepted end, and refuses the rest.
func TestPlannerDrains(t *testing.T) {
	r := start(t)
	e := r.mustAttach(executorOptions{name: "x", slots: 1})
	waited := make(chan error, 2)
	for i, f := range []string{"ann/hang", "ann/echo"} {
		go func() {
			_, err := r.calls.Invoke(r.ctx(), invokeRequest(f, nil))
			waited <- err
		}()
		r.eventually("it was accepted", func() bool {
			resp, err := r.calls.ListCalls(r.ctx(), &plannerv1.ListCallsRequest{})
			return err == nil && len(resp.GetCalls()) == i+1
		})
	}
	stays := r.create(&plannerv1.CreateCallRequest{User: "ann", Function: "hang"}).GetCallId()
	r.eventually("it runs", func() bool { return e.ran() == 1 })
	r.stop()
	r.eventually("new calls are refused", func() bool {
		_, err := r.calls.CreateCall(r.ctx(), &plannerv1.CreateCallRequest{User: "ann", Function: "echo"})
		if err != nil {
			wantFault(t, err, fault.Unavailable, "DRAINING")
			if fault.From(err).RetryAfter <= 0 {
				t.Error("it doesn't say when to retry")
			}
		}
		return err != nil
	})
	if _, err := r.attach(executorOptions{name: "late", slots: 1}); err == nil {
		// Welcome came first; the refusal follows.
		if r.executor("late") != nil {
			t.Error("an executor attached to a planner that drains")
		}
	}
	e.end(&callv1.Outcome{CallId: e.runs[0].GetCallId(), Attempt: 1, State: callv1.CallState_CALL_STATE_SUCCEEDED, Output: []byte("done")})
	wantFault(t, e.why(), fault.Unavailable, "DETACHED") // after both have ended
	for range 2 {
		if err := <-waited; err != nil {
			t.Error(err)
		}
	}
	if n := e.ran(); n != 2 && n != 3 {
		t.Errorf("%d runs: one that nobody waits for, %s, is the next planner's", n, stays)
	}
	if err := <-r.stopped; err != nil {
		t.Errorf("the planner stopped with %v", err)
	}
	r.stopped <- nil // for the clean-up
}

// A burst costs few messages, whatever the number of calls.
func TestBatching(t *testing.T) {
	r := start(t)
	const calls = 1000
	ids := make([]string, calls)
	for i := range ids {
		user := []string{"ann", "bob"}[i%2]
		ids[i] = r.create(&plannerv1.CreateCallRequest{User: user, Function: "echo", Input: fmt.Append(nil, i)}).GetCallId()
	}
	e := r.mustAttach(executorOptions{name: "x", slots: calls})
	for i, id := range ids {
		resp, err := r.calls.WaitCall(r.ctx(), &plannerv1.WaitCallRequest{CallId: id})
		if err != nil || string(resp.GetOutput()) != fmt.Sprint(i) {
			t.Fatalf("%v %v", resp, err)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.runs) != calls || e.messages > 10 {
		t.Errorf("%d calls came in %d messages", len(e.runs), e.messages)
	}
}

// Whatever gathers in an outbox, no message is larger than gRPC's limit.
func TestBatchFitsMessage(t *testing.T) {
	for _, input := range []int{0, 1, 100, 1 << 20, skein.MaxPayload} {
		a := &callv1.Assignment{
			CallId: make([]byte, 16), User: strings.Repeat("u", 63), Function: strings.Repeat("f", 63), Version: 1 << 60, Digest: make([]byte, 32),
			Input: bytes.Repeat([]byte{1}, input), Timeout: durationpb.New(MaxTimeout), Attempt: 1, ParentId: make([]byte, 16),
			Trace: map[string]string{"traceparent": strings.Repeat("x", 55), "baggage": strings.Repeat("x", 8192), "tracestate": strings.Repeat("x", 512)},
		}
		if input < 100 { // where the overhead weighs most
			a = &callv1.Assignment{CallId: make([]byte, 16), Input: a.Input}
		}
		calls := make([]*callv1.Assignment, 5<<20/proto.Size(a)+2)
		for i := range calls {
			calls[i] = a
		}
		sent := 0
		for msg := range (&outbox{calls: calls}).messages {
			n, size := len(msg.GetAssignments().GetAssignments()), proto.Size(msg)
			sent += n
			if n < 1 || size > 4<<20 || input < 1<<20 && size < 2<<20 && sent < len(calls) {
				t.Errorf("inputs of %d bytes: %d calls make a message of %d", input, n, size)
			}
		}
		if sent != len(calls) {
			t.Errorf("%d of %d calls were sent", sent, len(calls))
		}
	}
}

// Input and arguments of the largest size travel with the largest trace context without harm to the stream.
func TestLargestAssignment(t *testing.T) {
	r := start(t)
	e := r.mustAttach(executorOptions{name: "x", slots: 4})
	waits := r.create(&plannerv1.CreateCallRequest{User: "ann", Function: "hang"})
	const argBytes = maxArgs * 180 // a request line may have 64 KiB with the headers
	args := make([]string, maxArgs)
	for i := range args {
		args[i] = strings.Repeat("x", argBytes/maxArgs)
	}
	res := r.do("POST", "/v1/invoke/ann/echo?args="+strings.Join(args, "&args="), bytes.NewReader(make([]byte, skein.MaxPayload-argBytes)), "baggage", "k="+strings.Repeat("v", 8000))
	if res.StatusCode != 200 || len(res.body) != skein.MaxPayload-argBytes {
		t.Errorf("%d %.300s", res.StatusCode, res.body)
	}
	res = r.do("POST", "/v1/invoke/ann/echo?args=x", bytes.NewReader(make([]byte, skein.MaxPayload)))
	res.wantProblem(t, 413, "TOO_LARGE")
	// One byte that is not UTF-8 must not cost everybody the stream.
	res = r.do("POST", "/v1/invoke/ann/echo?args=%ff", nil)
	res.wantProblem(t, 400, "BAD_ARGS")
	c, err := r.calls.GetCall(r.ctx(), &plannerv1.GetCallRequest{CallId: waits.GetCallId()})
	if err != nil || c.GetCall().GetState() != callv1.CallState_CALL_STATE_RUNNING || len(e.ended) != 0 {
		t.Errorf("%v %v", c, err)
	}
}
