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
		awaitTrace(t, jaeger, rec.TraceID, func(tr trace) string { return checkCall(tr, id, cold) })
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
	awaitTrace(t, jaeger, theirs, func(tr trace) string {
		if call := tr.named("call ann/wordcount"); len(call) != 1 || tr.root(call[0]).parent() != parent {
			return "the call does not descend from its caller's span"
		}
		return ""
	})
}

// All that a call called, over two executors, is one tree in Jaeger: each call's span hangs below that of the call that made it.
func TestJaegerChain(t *testing.T) {
	jaeger := cluster.Jaeger(t)
	c := cluster.Processes(t, cluster.Options{Executors: 2, ExecutorArgs: []string{"--slots", "1"}, Env: []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + jaeger.OTLP, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "OTEL_METRICS_EXPORTER=none",
		"OTEL_BSP_SCHEDULE_DELAY=100",
	}})
	module := mustRead(t, cluster.Guest(t, "pi-batch-c"))
	if a := request(t, c, http.MethodPut, "/v1/functions/ann/pi", module); a.status/100 != 2 {
		t.Fatal(a)
	}
	const batches = "24" // long enough that one executor does not do them all before the other is asked
	id := want(t, 200, c, http.MethodPost, "/v1/invoke/ann/pi", []byte(batches)).header.Get("Skein-Call-Id")
	var graph node
	if err := json.Unmarshal(want(t, 200, c, http.MethodGet, "/v1/calls/"+id+"/graph", nil).body, &graph); err != nil {
		t.Fatal(err)
	}
	parents := map[string]string{}
	graph.walk(func(n node) { parents[n.Call.CallID] = n.Call.ParentID })
	if len(parents) != 25 {
		t.Fatalf("the graph has %d calls, want 25", len(parents))
	}
	awaitTrace(t, jaeger, graph.Call.TraceID, func(tr trace) string { return checkTree(tr, parents) })
}

// node is a call graph as REST gives it.
type node struct {
	Call struct {
		CallID   string `json:"callId"`
		ParentID string `json:"parentId"`
		TraceID  string `json:"traceId"`
	}
	Children []node
}

func (n node) walk(visit func(node)) {
	visit(n)
	for _, child := range n.Children {
		child.walk(visit)
	}
}

// checkTree gives what a trace lacks of the calls whose parents are given.
func checkTree(tr trace, parents map[string]string) string {
	calls, executors := map[string]span{}, map[string]bool{}
	for _, s := range tr.spans {
		if id := s.tag("faas.invocation_id"); strings.HasPrefix(s.OperationName, "call ") {
			calls[id] = s
			executors[s.tag("faas.instance")] = true
		}
	}
	for id, parent := range parents {
		s, ok := calls[id]
		switch {
		case !ok:
			return "call " + id + " has no span"
		case parent != "" && !tr.under(s, calls[parent]):
			return "the span of call " + id + " is not below that of its parent " + parent
		}
	}
	if len(executors) != 2 {
		return fmt.Sprintf("the calls ran on %v, want two executors", executors)
	}
	return ""
}

// awaitTrace asks for a trace until it is as check wants it: spans come in batches, each process's in its own time.
func awaitTrace(t *testing.T, jaeger *cluster.Tracing, id string, check func(trace) string) {
	t.Helper()
	eventually(t, 20*time.Second, func() string {
		tr, err := fetchTrace(t, "http://"+jaeger.Addr+"/api/traces/"+id)
		if err != nil {
			return err.Error()
		}
		if why := check(tr); why != "" {
			return why + "\n" + tr.String()
		}
		return ""
	})
}

// checkCall gives what the trace of a call of wordcount lacks.
func checkCall(tr trace, id, cold string) string {
	services, needed := tr.services(), []string{"planner", "executor", "state"}
	if cold == "true" { // later the executor has the file
		needed = append(needed, "fs")
	}
	for _, s := range needed {
		if !slices.Contains(services, s) {
			return fmt.Sprintf("no span is of %s, but of %v", s, services)
		}
	}
	all := tr.named("call ann/wordcount")
	if len(all) != 1 {
		return fmt.Sprintf(`%d spans are called "call ann/wordcount", want 1`, len(all))
	}
	call := all[0]
	for tag, value := range map[string]string{"faas.name": "ann/wordcount", "faas.invocation_id": id, "faas.coldstart": cold, "faas.instance": "executor-1"} {
		if got := call.tag(tag); got != value {
			return fmt.Sprintf("%s is %q, want %q", tag, got, value)
		}
	}
	below, object := map[string]bool{}, false
	for _, s := range tr.spans {
		if p := s.parent(); p != "" && tr.byID(p) == nil {
			return fmt.Sprintf("the parent of %q is missing", s.OperationName)
		}
		if tr.under(s, call) {
			below[tr.service(s)] = true
			object = object || s.OperationName == "artifact get"
		}
	}
	root := tr.root(call)
	switch {
	case !below["state"] || cold == "true" && !below["fs"]:
		return fmt.Sprintf("below the call are spans of %v, want state and fs", below)
	case cold == "true" && !object:
		return "no object was got below a cold call"
	case tr.service(root) != "planner" || !strings.Contains(root.OperationName, "/v1/invoke/"):
		return fmt.Sprintf("the call's root is %q of %s, want the REST request at the planner", root.OperationName, tr.service(root))
	}
	return ""
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
