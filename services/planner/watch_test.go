package planner

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"skein.dev"
	"skein.dev/platform/fault"
	callv1 "skein.dev/proto/skein/call/v1"
	plannerv1 "skein.dev/proto/skein/planner/v1"
)

// hanging starts a call that ends only when the test says so.
func hanging(r *rig, e *fakeExecutor) (id skein.CallID, attempt int32) {
	r.Helper()
	before := e.ran()
	go func() { _, _ = r.calls.Invoke(r.ctx(), invokeRequest("ann/deaf", nil)) }()
	r.eventually("it runs", func() bool { return e.ran() == before+1 })
	e.mu.Lock()
	defer e.mu.Unlock()
	a := e.runs[before]
	return skein.CallID(a.GetCallId()), a.GetAttempt()
}

func (e *fakeExecutor) log(id skein.CallID, attempt int32, offset int64, text string) {
	e.send(&plannerv1.AttachRequest{Event: &plannerv1.AttachRequest_Logs{Logs: &plannerv1.Logs{Logs: []*plannerv1.CallLog{
		{CallId: id[:], Attempt: attempt, Chunk: &plannerv1.LogChunk{Offset: offset, Data: []byte(text)}},
	}}}})
}

func (e *fakeExecutor) succeed(id skein.CallID, attempt int32, log string) {
	e.end(&callv1.Outcome{CallId: id[:], Attempt: attempt, State: callv1.CallState_CALL_STATE_SUCCEEDED, Log: []byte(log)})
}

// told is what a watch says, in short.
func told(m *plannerv1.WatchCallResponse) string {
	if log := m.GetLog(); log != nil {
		return fmt.Sprintf("%d:%d:%s", m.GetAttempt(), log.GetOffset(), log.GetData())
	}
	return strings.TrimPrefix(m.GetCall().GetState().String(), "CALL_STATE_")
}

func wantTold(t *testing.T, in interface {
	Recv() (*plannerv1.WatchCallResponse, error)
}, want ...string,
) {
	t.Helper()
	for _, w := range want {
		m, err := in.Recv()
		if err != nil || told(m) != w {
			t.Fatalf("got %q, %v, want %q", told(m), err, w)
		}
	}
}

// A watch tells what is new when it is, ends after the call has, and goes on where another was.
func TestWatchCall(t *testing.T) {
	r := start(t)
	e := r.mustAttach(executorOptions{name: "x", slots: 2})
	id, attempt := hanging(r, e)
	watch := func(q *plannerv1.WatchCallRequest) plannerv1.PlannerService_WatchCallClient {
		q.CallId = id.String()
		in, err := r.calls.WatchCall(r.ctx(), q)
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	first := watch(&plannerv1.WatchCallRequest{Logs: true})
	wantTold(t, first, "RUNNING")
	e.log(id, attempt, 0, "one")
	wantTold(t, first, "1:0:one")
	e.log(id, attempt, 2, "e two") // overlaps
	wantTold(t, first, "1:3: two")
	behind := watch(&plannerv1.WatchCallRequest{Logs: true, LogOffset: 4, LogAttempt: 1})
	wantTold(t, behind, "RUNNING", "1:4:two")
	other := watch(&plannerv1.WatchCallRequest{Logs: true, LogOffset: 4, LogAttempt: 7}) // an attempt that is not this one
	wantTold(t, other, "RUNNING", "1:0:one two")
	states := watch(&plannerv1.WatchCallRequest{})
	wantTold(t, states, "RUNNING")

	if resp, err := r.calls.GetCallLogs(r.ctx(), &plannerv1.GetCallLogsRequest{CallId: id.String()}); err != nil || string(resp.GetLog()) != "one two" {
		t.Errorf("the log so far: %v, %v", resp, err)
	}
	e.succeed(id, attempt, "one two three")
	for _, in := range []plannerv1.PlannerService_WatchCallClient{first, behind, other} {
		wantTold(t, in, "1:7: three", "SUCCEEDED")
		if _, err := in.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("behind the end: %v", err)
		}
	}
	wantTold(t, states, "SUCCEEDED")
	wantTold(t, watch(&plannerv1.WatchCallRequest{Logs: true}), "1:0:one two three", "SUCCEEDED") // of one that has ended

	for _, bad := range []*plannerv1.WatchCallRequest{{LogOffset: -1}, {LogAttempt: -1}} {
		_, err := watch(bad).Recv()
		wantFault(t, err, fault.Invalid, "BAD_OFFSET")
	}
	for name, reason := range map[string]string{"nonsense": "BAD_NAME", skein.NewCallID().String(): "NO_CALL"} {
		in, err := r.calls.WatchCall(r.ctx(), &plannerv1.WatchCallRequest{CallId: name})
		if err == nil {
			_, err = in.Recv()
		}
		if fault.From(err).Reason != reason {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// eventStream is a response that is read as it comes.
type eventStream struct {
	*http.Response
	lines *bufio.Scanner
}

func (r *rig) events(path string, headers ...string) eventStream {
	r.Helper()
	req, err := http.NewRequestWithContext(r.ctx(), http.MethodGet, "http://"+r.addr+path, nil)
	if err != nil {
		r.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = resp.Body.Close() })
	return eventStream{resp, bufio.NewScanner(resp.Body)}
}

// next reads an event as "name id data".
func (s eventStream) next(t *testing.T) (name, id string, data map[string]any) {
	t.Helper()
	for s.lines.Scan() {
		field, value, _ := strings.Cut(s.lines.Text(), ": ")
		switch field {
		case "event":
			name = value
		case "id":
			id = value
		case "data":
			if err := json.Unmarshal([]byte(value), &data); err != nil {
				t.Fatal(err)
			}
		case "":
			if name != "" {
				return name, id, data
			}
		}
	}
	t.Fatalf("no event: %v", s.lines.Err())
	return "", "", nil
}

func TestServerSentEvents(t *testing.T) {
	r := start(t)
	e := r.mustAttach(executorOptions{name: "x", slots: 1})
	id, attempt := hanging(r, e)
	path := "/v1/calls/" + id.String() + "/events"
	s := r.events(path + "?logs=true")
	want := func(s eventStream, name, id, member, value string) {
		t.Helper()
		if n, i, d := s.next(t); n != name || i != id || d[member] != value {
			t.Fatalf("got %s %s %v, want %s %s with %s %s", n, i, d, name, id, member, value)
		}
	}
	if s.StatusCode != http.StatusOK || s.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%d %v", s.StatusCode, s.Header)
	}
	want(s, "call", "1-0", "state", "CALL_STATE_RUNNING")
	e.log(id, attempt, 0, "hello")
	want(s, "log", "1-5", "data", "aGVsbG8=")
	again := r.events(path+"?logs=true", "Last-Event-ID", "1-3")
	want(again, "call", "1-3", "state", "CALL_STATE_RUNNING")
	want(again, "log", "1-5", "data", "bG8=")
	e.succeed(id, attempt, "hello")
	for _, s := range []eventStream{s, again} {
		want(s, "call", "end", "state", "CALL_STATE_SUCCEEDED")
		if s.lines.Scan() {
			t.Errorf("behind the end: %q", s.lines.Text())
		}
	}
	// A browser comes back after any end: it is told to stay away.
	if got := r.do("GET", path, nil, "Accept", "text/event-stream", "Last-Event-ID", "end"); got.StatusCode != http.StatusNoContent {
		t.Errorf("%d", got.StatusCode)
	}
	// Others get a JSON document a line.
	got := r.do("GET", path+"?logs=true", nil)
	lines := strings.Split(strings.TrimSpace(string(got.body)), "\n")
	if got.StatusCode != http.StatusOK || len(lines) != 2 || !strings.Contains(lines[0], `"aGVsbG8="`) || !strings.Contains(lines[1], "SUCCEEDED") {
		t.Errorf("%d %q", got.StatusCode, lines)
	}

	sse := []string{"Accept", "text/event-stream"}
	r.do("GET", "/v1/calls/nonsense/events", nil, sse...).wantProblem(t, 400, "BAD_NAME")
	r.do("GET", "/v1/calls/"+skein.NewCallID().String()+"/events", nil, sse...).wantProblem(t, 404, "NO_CALL")
	r.do("GET", path+"?log_offset=-1", nil).wantProblem(t, 400, "BAD_OFFSET")
	r.do("GET", path+"?logs=perhaps", nil, sse...).wantProblem(t, 400, "BAD_QUERY")
	r.do("GET", path+"?log_offset=-1", nil, sse...).wantProblem(t, 400, "BAD_OFFSET")
	r.do("GET", path+"?log_attempt=99999999999", nil, sse...).wantProblem(t, 400, "BAD_OFFSET")
	for _, bad := range []string{"x", "1-", "-1", "1--5", "1-5x", "99999999999-1"} {
		r.do("GET", path, nil, append(sse, "Last-Event-ID", bad)...).wantProblem(t, 400, "BAD_EVENT_ID")
	}
}

// Watchers are bounded, and one that goes leaves nothing behind.
func TestWatchersAreBounded(t *testing.T) {
	p := lone(DefaultLimits())
	id := skein.NewCallID()
	var all []func()
	for range maxCallWatchers {
		_, leave, err := p.watch(id)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, leave)
	}
	if _, _, err := p.watch(id); fault.From(err).Reason != "TOO_MANY_WATCHERS" {
		t.Errorf("%v", err)
	}
	if _, leave, err := p.watch(skein.NewCallID()); err != nil {
		t.Errorf("another call: %v", err)
	} else {
		leave()
	}
	for _, leave := range all {
		leave()
	}
	if p.watches.count != 0 || len(p.watches.calls) != 0 {
		t.Errorf("%d are left of %d calls", p.watches.count, len(p.watches.calls))
	}
}

// Who misses states in between is told of the last one, and never gets one attempt's log for another's.
func TestFollower(t *testing.T) {
	var got []string
	f := follower{logs: true, heard: time.Now(), send: func(e Event) error {
		got = append(got, told(toEvent(e)))
		return nil
	}}
	r := &Record{State: skein.Running}
	r.Attempt, r.Log = 1, []byte("first")
	tell := func() bool {
		ended, err := f.tell(r)
		if err != nil {
			t.Fatal(err)
		}
		return ended
	}
	tell()
	tell() // nothing is new
	r.Attempt, r.Log = 3, []byte("2nd")
	tell()
	r.State, r.Attempt, r.Log = skein.Failed, 4, []byte(strings.Repeat("x", watchLog+1))
	if !tell() {
		t.Error("it does not know the end")
	}
	want := "RUNNING 1:0:first RUNNING 3:0:2nd 4:0:" + strings.Repeat("x", watchLog) + fmt.Sprintf(" 4:%d:x FAILED", watchLog)
	if s := strings.Join(got, " "); s != want {
		t.Errorf("got %.200s", s)
	}
	f = follower{send: func(e Event) error { got = append(got, "beat"); return nil }, heard: time.Now().Add(-watchBeat)}
	r.State = skein.Queued
	f.shown = shown{r.State, r.Attempt, r.Executor, r.RetryAt}
	got = nil
	if tell(); len(got) != 1 {
		t.Errorf("%d signs of life", len(got))
	}
}

// A watcher that goes away is forgotten.
func TestWatchEndsWithItsCaller(t *testing.T) {
	p := lone(DefaultLimits())
	rec, err := p.Submit(t.Context(), Request{Function: skein.Function{User: "ann", Name: "f"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = p.Watch(ctx, rec.ID, false, LogPosition{}, func(Event) error { cancel(); return nil })
	if !errors.Is(err, fault.Cancelled) || p.watches.count != 0 {
		t.Errorf("%v, %d left", err, p.watches.count)
	}
}

// Who does not read is cut off: a watcher that waits for ever would be one of those that are bounded.
func TestSlowWatcher(t *testing.T) {
	p, rec := ended(t, nil)
	p.core.calls[rec.ID].Log = make([]byte, skein.MaxLog)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	plannerv1.RegisterPlannerServiceServer(g, &server{p: p, patience: 20 * time.Millisecond})
	go func() { _ = g.Serve(lis) }()
	defer g.Stop()
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithInitialWindowSize(64<<10))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	in, err := plannerv1.NewPlannerServiceClient(conn).WatchCall(t.Context(), &plannerv1.WatchCallRequest{CallId: rec.ID.String(), Logs: true})
	if err != nil {
		t.Fatal(err)
	}
	watching := func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.watches.count
	}
	if _, err := in.Recv(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); watching() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is still watched")
		}
	}
	for err == nil {
		_, err = in.Recv()
	}
	if !strings.Contains(err.Error(), "was not read in") {
		t.Errorf("%v", err)
	}
}
