package planner

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
	callv1 "skein.dev/proto/skein/call/v1"
)

// answer is a response that was read to its end.
type answer struct {
	*http.Response
	body []byte
}

func (r *rig) do(method, path string, body io.Reader, headers ...string) answer {
	r.Helper()
	req, err := http.NewRequestWithContext(r.ctx(), method, "http://"+r.addr+path, body)
	if err != nil {
		r.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.Fatal(err)
	}
	return answer{resp, b}
}

func (a answer) wantProblem(t *testing.T, status int, reason string) {
	t.Helper()
	var p fault.Problem
	err := json.Unmarshal(a.body, &p)
	if err != nil || a.StatusCode != status || p.Status != status || p.Reason != reason || p.Detail == "" || a.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%s %s: want %d %s, got %d %s %.300s", a.Request.Method, a.Request.URL.Path, status, reason, a.StatusCode, a.Header.Get("Content-Type"), a.body)
	}
}

// object reads a JSON answer.
func (a answer) object(t *testing.T) map[string]any {
	t.Helper()
	var o map[string]any
	if err := json.Unmarshal(a.body, &o); err != nil || a.StatusCode != 200 {
		t.Fatalf("%s %s: %d %v %.300s", a.Request.Method, a.Request.URL.Path, a.StatusCode, err, a.body)
	}
	return o
}

func TestRESTInvoke(t *testing.T) {
	r := start(t, func(l *Limits) { l.Overdue = 50 * time.Millisecond })
	e := r.mustAttach(executorOptions{name: "x", slots: 10})
	a := r.do("POST", "/v1/invoke/ann/echo?args=a&args=b%20c&timeout=30", strings.NewReader("in\x00\xff"))
	h := a.Header
	if a.StatusCode != 200 || string(a.body) != "in\x00\xff" || h.Get("Skein-Exit-Code") != "0" || h.Get("Skein-Call-State") != "SUCCEEDED" ||
		h.Get("Content-Type") != "application/octet-stream" || h.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%d %v %q", a.StatusCode, h, a.body)
	}
	if _, err := skein.ParseCallID(h.Get("Skein-Call-Id")); err != nil {
		t.Error(err)
	}
	if run := e.runs[0]; fmt.Sprint(run.GetArgs()) != "[a b c]" || run.GetTimeout().AsDuration() > 30*time.Second {
		t.Errorf("%v", run)
	}
	for _, body := range []io.Reader{nil, http.NoBody, strings.NewReader("")} {
		if a := r.do("POST", "/v1/invoke/ann/echo", body); a.StatusCode != 200 || len(a.body) != 0 {
			t.Errorf("no input: %d %q", a.StatusCode, a.body)
		}
	}
	if a := r.do("POST", "/v1/invoke/ann/exit3", strings.NewReader("why")); a.StatusCode != 502 || string(a.body) != "why" || a.Header.Get("Skein-Exit-Code") != "3" || a.Header.Get("Skein-Reason") != "GUEST_EXIT" {
		t.Errorf("%d %v %q", a.StatusCode, a.Header, a.body)
	}
	a = r.do("POST", "/v1/invoke/ann/trap", nil)
	a.wantProblem(t, 502, "GUEST_TRAP")
	var p fault.Problem
	if _ = json.Unmarshal(a.body, &p); p.Instance != "/v1/calls/"+a.Header.Get("Skein-Call-Id") || a.Header.Get("Skein-Exit-Code") != "" {
		t.Errorf("%+v %v", p, a.Header)
	}
	a = r.do("POST", "/v1/invoke/ann/deaf?timeout=20ms", nil)
	a.wantProblem(t, 504, "DEADLINE")
	if a.Header.Get("Skein-Call-State") != "TIMED_OUT" {
		t.Errorf("%v", a.Header)
	}
}

func TestRESTBadRequests(t *testing.T) {
	r := start(t)
	const unknown = "/v1/calls/00000000000000000000000000000000"
	for _, c := range []struct {
		method, path string
		status       int
		reason       string
	}{
		{"POST", "/v1/invoke/ann/nothing", 404, "NO_FUNCTION"},
		{"POST", "/v1/invoke/ANN/echo", 400, "BAD_NAME"},
		{"POST", "/v1/invoke/ann/echo%2f..", 400, "BAD_NAME"},
		{"POST", "/v1/invoke/ann/echo?timeout=soon", 400, "BAD_TIMEOUT"},
		{"POST", "/v1/invoke/ann/echo?timeout=0", 400, "BAD_TIMEOUT"},
		{"POST", "/v1/invoke/ann/echo?timeout=-1s", 400, "BAD_TIMEOUT"},
		{"POST", "/v1/invoke/ann/echo?timeout=NaN", 400, "BAD_TIMEOUT"},
		{"POST", "/v1/invoke/ann/echo?timeout=Inf", 400, "BAD_TIMEOUT"},
		{"POST", "/v1/invoke/ann/echo?timeout=24h1ns", 400, "BAD_TIMEOUT"},
		{"POST", "/v1/invoke/ann/echo?timeout=5s;args=x", 400, "BAD_QUERY"},
		{"POST", "/v1/invoke/ann/echo?args=%00", 400, "BAD_ARGS"},
		{"POST", "/v1/invoke/ann/echo?request_id=" + strings.Repeat("x", 129), 400, "BAD_REQUEST_ID"},
		{"GET", unknown, 404, "NO_CALL"},
		{"GET", unknown + "/graph", 404, "NO_CALL"},
		{"GET", unknown + "/logs", 404, "NO_CALL"},
		{"GET", unknown + ":wait", 404, "NO_CALL"},
		{"POST", unknown + ":cancel", 404, "NO_CALL"},
		{"GET", "/v1/calls/xyz", 400, "BAD_NAME"},
		{"GET", "/v1/calls/xyz/graph", 400, "BAD_NAME"},
		{"GET", "/v1/calls/xyz/logs", 400, "BAD_NAME"},
		{"GET", "/v1/calls?page_token=!", 400, "BAD_PAGE_TOKEN"},
		{"GET", "/v1/nothing", 404, "NO_ROUTE"},
		{"GET", "/", 404, "NO_ROUTE"},
	} {
		r.do(c.method, c.path, nil).wantProblem(t, c.status, c.reason)
	}
	r.do("GET", unknown+"/logs", nil, "Accept", "text/plain").wantProblem(t, 404, "NO_CALL")
	r.do("GET", "/v1/calls/xyz/logs", nil, "Accept", "text/plain").wantProblem(t, 400, "BAD_NAME")
}

func TestRESTPayload(t *testing.T) {
	r := start(t)
	r.mustAttach(executorOptions{name: "x", slots: 1})
	unsized := func(n int) io.Reader { return struct{ io.Reader }{bytes.NewReader(make([]byte, n))} } // so it goes in chunks
	for name, body := range map[string]func(int) io.Reader{
		"length": func(n int) io.Reader { return bytes.NewReader(make([]byte, n)) },
		"chunks": unsized,
	} {
		if a := r.do("POST", "/v1/invoke/ann/echo", body(skein.MaxPayload)); a.StatusCode != 200 || len(a.body) != skein.MaxPayload {
			t.Errorf("%s: %d with %d bytes", name, a.StatusCode, len(a.body))
		}
		r.do("POST", "/v1/invoke/ann/echo", body(skein.MaxPayload+1)).wantProblem(t, 413, "TOO_LARGE")
	}
}

func TestRESTCalls(t *testing.T) {
	r := start(t)
	r.mustAttach(executorOptions{name: "x", slots: 10})
	created := r.do("POST", "/v1/calls", strings.NewReader(`{"user":"ann","function":"echo","input":"aGk=","args":["a"]}`)).object(t)
	id, _ := created["callId"].(string)
	path := "/v1/calls/" + id
	waited := r.do("GET", path+":wait", nil).object(t)
	if call, _ := waited["call"].(map[string]any); waited["output"] != "aGk=" || call["state"] != "CALL_STATE_SUCCEEDED" || call["callId"] != id {
		t.Errorf("%v", waited)
	}
	if c := r.do("GET", path, nil).object(t); c["callId"] != id || c["function"] != "ann/echo" {
		t.Errorf("%v", c)
	}
	if g := r.do("GET", path+"/graph", nil).object(t); g["call"].(map[string]any)["callId"] != id {
		t.Errorf("%v", g)
	}
	if a := r.do("GET", path+"/logs", nil, "Accept", "text/plain"); string(a.body) != "log\xff of echo" || a.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("%v %q", a.Header, a.body)
	}
	if l := r.do("GET", path+"/logs", nil).object(t); l["log"] != base64.StdEncoding.EncodeToString([]byte("log\xff of echo")) {
		t.Errorf("%v", l)
	}
	if l := r.do("GET", "/v1/calls?user=ann&page_size=1", nil).object(t); len(l["calls"].([]any)) != 1 {
		t.Errorf("%v", l)
	}
	if x := r.do("GET", "/v1/executors", nil).object(t); len(x["executors"].([]any)) != 1 {
		t.Errorf("%v", x)
	}
	if p := r.do("GET", "/v1/policy", nil).object(t); p["policy"] != "bin-pack" {
		t.Errorf("%v", p)
	}
	hangs := r.do("POST", "/v1/calls", strings.NewReader(`{"user":"ann","function":"hang"}`)).object(t)
	for _, body := range []string{"{}", ""} {
		if c := r.do("POST", "/v1/calls/"+hangs["callId"].(string)+":cancel", strings.NewReader(body)).object(t); c["state"] != "CALL_STATE_CANCELLED" {
			t.Errorf("%v", c)
		}
	}
	big := fmt.Sprintf(`{"user":"ann","function":"echo","input":%q}`, base64.StdEncoding.EncodeToString(make([]byte, skein.MaxPayload+1)))
	r.do("POST", "/v1/calls", strings.NewReader(big)).wantProblem(t, 413, "TOO_LARGE")
	if a := r.do("POST", "/v1/calls", strings.NewReader(`{"user":`)); a.StatusCode != 400 || a.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	r.eventually("healthy", func() bool { return r.do("GET", "/healthz", nil).StatusCode == 200 })
}

func TestRESTQueueFull(t *testing.T) {
	r := start(t, func(l *Limits) { l.QueueCalls = 0 })
	a := r.do("POST", "/v1/invoke/ann/echo", nil)
	a.wantProblem(t, 429, "QUEUE_FULL")
	if a.Header.Get("Retry-After") != "1" {
		t.Errorf("%v", a.Header)
	}
}

// A caller that hangs up ends its call, whether it sent a body or none.
func TestRESTCallerGoesAway(t *testing.T) {
	r := start(t)
	e := r.mustAttach(executorOptions{name: "x", slots: 4})
	for i, body := range []io.Reader{nil, strings.NewReader("sized"), struct{ io.Reader }{strings.NewReader("chunked")}} {
		ctx, hangUp := context.WithCancel(r.ctx())
		req, err := http.NewRequestWithContext(ctx, "POST", "http://"+r.addr+"/v1/invoke/ann/hang", body)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			resp, err := (&http.Transport{}).RoundTrip(req)
			if err == nil {
				_ = resp.Body.Close()
				t.Errorf("answered with %d", resp.StatusCode)
			}
		}()
		r.eventually("it runs", func() bool { return e.ran() == i+1 })
		hangUp()
		<-done
		select {
		case <-e.cancelled:
		case <-time.After(patience):
			t.Fatalf("body %d: the executor is not told", i)
		}
		e.mu.Lock()
		id := skein.CallID(e.runs[i].GetCallId()).String()
		e.mu.Unlock()
		if c := r.wait(id); c.GetState() != callv1.CallState_CALL_STATE_CANCELLED {
			t.Errorf("%v", c)
		}
	}
}
