package test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"skein.dev/test/cluster"
)

// A call's spans, from REST to the last access of an object, are one trace in a real Jaeger.
func TestJaeger(t *testing.T) {
	jaeger := cluster.Jaeger(t)
	c := cluster.Processes(t, cluster.Options{Executors: 1, Env: []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + jaeger.OTLP, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "OTEL_METRICS_EXPORTER=none",
		"OTEL_BSP_SCHEDULE_DELAY=100",
	}})
	module := mustRead(t, cluster.Guest(t, "wordcount-go"))
	if a := request(t, c, http.MethodPut, "/v1/functions/ann/wordcount", module); a.status/100 != 2 {
		t.Fatal(a)
	}
	text := mustRead(t, filepath.Join(cluster.Root(), "LICENSE"))
	if a := request(t, c, http.MethodPut, "/v1/files/ann/LICENSE", text); a.status/100 != 2 {
		t.Fatal(a)
	}

	for _, cold := range []string{"true", "false"} {
		id := want(t, 200, c, http.MethodPost, "/v1/invoke/ann/wordcount?args=LICENSE", nil).header.Get("Skein-Call-Id")
		var rec record
		if err := json.Unmarshal(want(t, 200, c, http.MethodGet, "/v1/calls/"+id, nil).body, &rec); err != nil {
			t.Fatal(err)
		}
		if len(rec.TraceID) != 32 {
			t.Fatalf("call %s has trace id %q", id, rec.TraceID)
		}
		trace := query{jaeger, ""}.complete(t, rec.TraceID)
		checkCall(t, trace, id, cold)
	}

	// The trace that a client begins goes on.
	const theirs, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	a := want(t, 200, c, http.MethodPost, "/v1/invoke/ann/wordcount", []byte("b a b"), "Traceparent", "00-"+theirs+"-"+parent+"-01")
	var rec record
	if err := json.Unmarshal(want(t, 200, c, http.MethodGet, "/v1/calls/"+a.header.Get("Skein-Call-Id"), nil).body, &rec); err != nil {
		t.Fatal(err)
	}
	if rec.TraceID != theirs {
		t.Errorf("the call is in trace %s, its caller's is %s", rec.TraceID, theirs)
	}
	trace := query{jaeger, parent}.complete(t, theirs)
	if call := trace.named("call ann/wordcount"); len(call) != 1 || trace.root(call[0]).parent() != parent {
		t.Errorf("the call does not descend from its caller's span:\n%s", trace)
	}
}

func checkCall(t *testing.T, trace trace, id, cold string) {
	t.Helper()
	services := trace.services()
	for _, s := range []string{"planner", "executor", "state", "fs"} {
		if !slices.Contains(services, s) {
			t.Errorf("no span of %s in the trace; it has %v", s, services)
		}
	}
	all := trace.named("call ann/wordcount")
	if len(all) != 1 {
		t.Fatalf("%d spans are called \"call ann/wordcount\", want 1:\n%s", len(all), trace)
	}
	call := all[0]
	for tag, value := range map[string]string{"faas.name": "ann/wordcount", "faas.invocation_id": id, "faas.coldstart": cold, "faas.instance": "executor-1"} {
		if got := call.tag(tag); got != value {
			t.Errorf("%s is %q, want %q", tag, got, value)
		}
	}
	below := map[string]bool{}
	object := false
	for _, s := range trace.spans {
		if trace.under(s, call) {
			below[trace.service(s)] = true
			object = object || s.OperationName == "object get"
		}
	}
	if !below["state"] || !below["fs"] {
		t.Errorf("below the call are spans of %v, want state and fs:\n%s", below, trace)
	}
	if cold == "true" && !object {
		t.Errorf("no object was got below a cold call:\n%s", trace)
	}
	root := trace.root(call)
	if trace.service(root) != "planner" || !strings.Contains(root.OperationName, "/v1/invoke/") || root.parent() != "" {
		t.Errorf("the call's root is %q of %s with parent %q, want the REST request at the planner:\n%s", root.OperationName, trace.service(root), root.parent(), trace)
	}
}

// query asks a Jaeger for traces whose root may have a parent outside.
type query struct {
	*cluster.Tracing
	outside string
}

// complete asks for a trace until it has a call and each span's parent: spans come in batches.
func (q query) complete(t *testing.T, id string) trace {
	t.Helper()
	var tr trace
	eventually(t, 30*time.Second, func() string {
		var err error
		tr, err = fetchTrace(t, "http://"+q.Addr+"/api/traces/"+id)
		if err != nil {
			return err.Error()
		}
		if len(tr.named("call ann/wordcount")) == 0 {
			return "no span of a call yet:\n" + tr.String()
		}
		for _, s := range tr.spans {
			if p := s.parent(); p != "" && p != q.outside && tr.byID(p) == nil {
				return "a parent is missing:\n" + tr.String()
			}
		}
		return ""
	})
	return tr
}

// span and trace are Jaeger's, as its query API gives them.
type span struct {
	SpanID, OperationName, ProcessID string
	References                       []struct{ RefType, SpanID string }
	Tags                             []struct {
		Key   string
		Value any
	}
}

type trace struct {
	spans     []span
	processes map[string]string // id → service
}

func fetchTrace(t *testing.T, url string) (trace, error) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		return trace{}, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return trace{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return trace{}, err
	}
	if resp.StatusCode != http.StatusOK {
		return trace{}, fmt.Errorf("%s: status %d: %.200s", url, resp.StatusCode, body)
	}
	var answer struct {
		Data []struct {
			Spans     []span
			Processes map[string]struct{ ServiceName string }
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return trace{}, err
	}
	if len(answer.Data) != 1 {
		return trace{}, fmt.Errorf("%s: %d traces", url, len(answer.Data))
	}
	tr := trace{answer.Data[0].Spans, map[string]string{}}
	for id, p := range answer.Data[0].Processes {
		tr.processes[id] = p.ServiceName
	}
	return tr, nil
}

func (s span) parent() string {
	for _, r := range s.References {
		if r.RefType == "CHILD_OF" {
			return r.SpanID
		}
	}
	return ""
}

func (s span) tag(key string) string {
	for _, t := range s.Tags {
		if t.Key == key {
			return fmt.Sprint(t.Value)
		}
	}
	return ""
}

func (tr trace) service(s span) string { return tr.processes[s.ProcessID] }

func (tr trace) services() []string {
	var all []string
	for _, s := range tr.spans {
		all = append(all, tr.service(s))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (tr trace) named(name string) []span {
	var all []span
	for _, s := range tr.spans {
		if s.OperationName == name {
			all = append(all, s)
		}
	}
	return all
}

func (tr trace) byID(id string) *span {
	for i := range tr.spans {
		if tr.spans[i].SpanID == id {
			return &tr.spans[i]
		}
	}
	return nil
}

// root follows parents to the first span of the trace.
func (tr trace) root(s span) span {
	for range tr.spans {
		p := tr.byID(s.parent())
		if p == nil {
			break
		}
		s = *p
	}
	return s
}

// under reports whether above is an ancestor of s.
func (tr trace) under(s, above span) bool {
	for range tr.spans {
		p := tr.byID(s.parent())
		if p == nil {
			return false
		}
		if s = *p; s.SpanID == above.SpanID {
			return true
		}
	}
	return false
}

func (tr trace) String() string {
	var b strings.Builder
	for _, s := range tr.spans {
		fmt.Fprintf(&b, "  %-10s %s  below %-16s  %s\n", tr.service(s), s.SpanID, s.parent(), s.OperationName)
	}
	return b.String()
}
