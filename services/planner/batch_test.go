package planner

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"skein.dev"
	"skein.dev/platform/fault"
	"skein.dev/platform/redistest"
	callv1 "skein.dev/proto/skein/call/v1"
	plannerv1 "skein.dev/proto/skein/planner/v1"
)

// A batch is what as many requests would be: each call is accepted or refused by itself.
func TestBatch(t *testing.T) {
	r := start(t)
	r.mustAttach(executorOptions{name: "x", slots: 20})
	var calls []*plannerv1.CreateCallRequest
	for i := range 500 {
		calls = append(calls, &plannerv1.CreateCallRequest{User: "ann", Function: "echo", Input: fmt.Append(nil, i)})
	}
	calls[7] = &plannerv1.CreateCallRequest{User: "ann", Function: "none"}
	calls[8] = &plannerv1.CreateCallRequest{User: "ann", Function: "echo", MaxAttempts: 99}
	calls[9] = &plannerv1.CreateCallRequest{User: "ann", Function: "exit3"}
	calls[10].RequestId, calls[11].RequestId, calls[12].RequestId, calls[11].Input = "one", "one", "one", calls[10].GetInput()
	resp, err := r.calls.BatchCreateCalls(r.ctx(), &plannerv1.BatchCreateCallsRequest{Calls: calls})
	if err != nil || len(resp.GetResults()) != len(calls) {
		t.Fatal(resp, err)
	}
	all := resp.GetResults()
	var ids []string
	for i, a := range all {
		want := map[int]string{7: "NO_FUNCTION", 8: "BAD_MAX_ATTEMPTS", 12: "REQUEST_ID_REUSED"}[i]
		if a.GetReason() != want || (a.GetCallId() == "") != (want != "") || (a.GetMessage() == "") != (want == "") {
			t.Errorf("%d: %v, want %q", i, a, want)
		}
		if want == "" {
			ids = append(ids, a.GetCallId())
		}
	}
	if all[10].GetCallId() != all[11].GetCallId() {
		t.Error("two calls have one request id")
	}
	ended, err := r.calls.BatchWaitCalls(r.ctx(), &plannerv1.BatchWaitCallsRequest{CallIds: append(ids, skein.NewCallID().String()), Timeout: durationpb.New(patience)})
	if err != nil || len(ended.GetResults()) != len(ids)+1 {
		t.Fatalf("%d of %d have ended: %v", len(ended.GetResults()), len(ids)+1, err)
	}
	for i, res := range ended.GetResults()[:len(ids)] {
		state := callv1.CallState_CALL_STATE_SUCCEEDED
		if res.GetCallId() == all[9].GetCallId() {
			state = callv1.CallState_CALL_STATE_FAILED
		}
		if res.GetCallId() != ids[i] || res.GetCall().GetCallId() != ids[i] || res.GetCall().GetState() != state || res.GetReason() != "" {
			t.Errorf("%d: %v", i, res)
		}
	}
	if string(ended.GetResults()[400].GetOutput()) == "" || ended.GetResults()[len(ids)].GetReason() != "NO_CALL" {
		t.Errorf("%v, %v", ended.GetResults()[400], ended.GetResults()[len(ids)])
	}
}

func TestBatchLimits(t *testing.T) {
	r := start(t)
	r.mustAttach(executorOptions{name: "x", slots: 4})
	for _, n := range []int{0, maxBatch + 1} {
		_, err := r.calls.BatchCreateCalls(r.ctx(), &plannerv1.BatchCreateCallsRequest{Calls: make([]*plannerv1.CreateCallRequest, n)})
		wantFault(t, err, fault.Invalid, "BAD_BATCH")
		_, err = r.calls.BatchWaitCalls(r.ctx(), &plannerv1.BatchWaitCallsRequest{CallIds: make([]string, n)})
		wantFault(t, err, fault.Invalid, "BAD_BATCH")
	}
	_, err := r.calls.BatchWaitCalls(r.ctx(), &plannerv1.BatchWaitCallsRequest{CallIds: []string{"x"}})
	wantFault(t, err, fault.Invalid, "BAD_NAME")
	_, err = r.calls.BatchWaitCalls(r.ctx(), &plannerv1.BatchWaitCallsRequest{CallIds: []string{"x"}, Timeout: durationpb.New(2 * time.Hour)})
	wantFault(t, err, fault.Invalid, "BAD_TIMEOUT")

	// Outputs that do not fit one message come in several, and what has not ended in none.
	large := bytes.Repeat([]byte("x"), 3<<20)
	ids := []string{
		r.create(&plannerv1.CreateCallRequest{User: "ann", Function: "hang"}).GetCallId(),
		r.create(&plannerv1.CreateCallRequest{User: "ann", Function: "echo", Input: large}).GetCallId(),
		r.create(&plannerv1.CreateCallRequest{User: "ann", Function: "echo", Input: large}).GetCallId(),
	}
	for _, id := range ids[1:] {
		r.wait(id)
	}
	wait := func(ids ...string) []*plannerv1.BatchWaitCallsResult {
		t.Helper()
		resp, err := r.calls.BatchWaitCalls(r.ctx(), &plannerv1.BatchWaitCallsRequest{CallIds: ids, Timeout: durationpb.New(50 * time.Millisecond)})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetResults()
	}
	if got := wait(ids...); len(got) != 1 || got[0].GetCallId() != ids[1] || len(got[0].GetOutput()) != len(large) {
		t.Errorf("%d results", len(got))
	}
	if got := wait(ids[0], ids[2]); len(got) != 1 || got[0].GetCallId() != ids[2] {
		t.Errorf("%d results", len(got))
	}
	a := r.do("POST", "/v1/calls:batchCreate", strings.NewReader(`{"calls":[{"user":"ann","function":"echo"},{"user":"!"}]}`))
	if got := fmt.Sprint(a.object(t)["results"]); !strings.Contains(got, "callId:") || !strings.Contains(got, "reason:BAD_NAME") {
		t.Error(got)
	}
}

// A Redis that is silent refuses a whole batch as soon as one call.
func TestBatchWithoutJournal(t *testing.T) {
	server := redistest.Start(t)
	s := sit(t, server.URL()).leads()
	server.Pause(t)
	all := make([]Request, 50)
	for i := range all {
		all[i] = Request{Function: skein.Function{User: "ann", Name: "f"}, Async: true}
	}
	began := time.Now()
	_, errs := s.SubmitAll(t.Context(), all)
	took := time.Since(began)
	server.Resume(t)
	for _, err := range errs {
		if e := fault.From(err); e == nil || e.Reason != "JOURNAL_DOWN" {
			t.Error(err)
		}
	}
	if took > patience/2 {
		t.Errorf("it took %s", took)
	}
}
