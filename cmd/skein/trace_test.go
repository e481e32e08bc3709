package main

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const traceHex = "4bf92f3577b34da6a3ce929d0e0e4736"

// object is one JSON object as a query API gives it: in OTLP's own form or in protojson's.
func object(protojson bool, service string, spans ...string) string {
	list := strings.Join(spans, ",")
	if protojson {
		list = base64IDs(list)
	}
	return fmt.Sprintf(`{"result":{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":%q}}]},
		"scopeSpans":[{"scope":{},"spans":[%s]}]}]}}`, service, list)
}

func otlpSpan(id, parent, name string, startMS, endMS int, rest string) string {
	return fmt.Sprintf(`{"traceId":%q,"spanId":"%016s","parentSpanId":"%016s","name":%q,"startTimeUnixNano":"%d000000","endTimeUnixNano":%d000000%s}`,
		traceHex, id, parent, name, startMS, endMS, rest)
}

// base64IDs rewrites span ids as protojson writes bytes.
func base64IDs(s string) string {
	for _, key := range []string{`"spanId":"`, `"parentSpanId":"`} {
		parts := strings.Split(s, key)
		for i := 1; i < len(parts); i++ {
			raw, _ := hex.DecodeString(parts[i][:16])
			parts[i] = base64.StdEncoding.EncodeToString(raw) + parts[i][16:]
		}
		s = strings.Join(parts, key)
	}
	return s
}

func serveTraces(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestTraceTree(t *testing.T) {
	body := object(false, "planner",
		otlpSpan("a1", "0", "Invoke", 1000, 1100, ""),
		otlpSpan("c3", "b2", "host state.push", 1060, 1080, `,"status":{"code":2,"message":"no \u001b[31m"},"attributes":[{"key":"n","value":{"intValue":"7"}}]`),
	) + "\n" + object(true, "executor",
		otlpSpan("b2", "a1", "call ann/f", 1010, 1090, `,"kind":"SPAN_KIND_SERVER","events":[{"timeUnixNano":"1020000000","name":"restored","attributes":[{"key":"cold","value":{"boolValue":true}}]}]`),
		otlpSpan("d4", "b2", "host io.read", 1020, 1021, ""),
		otlpSpan("e5", "f6", "elsewhere", 1030, 1031, ""))
	url := serveTraces(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v3/traces/"+traceHex {
			t.Errorf("path %s", r.URL.Path)
		}
		_, _ = io.WriteString(w, body)
	})
	r := skeinRun(t, "", "trace", "--trace-id", traceHex, "--traces", url, "-v", "-o", "text")
	want(t, r, 0, `trace 4bf92f3577b34da6a3ce929d0e0e4736  5 spans  100.0 ms

SPAN                               SERVICE       START       TOOK
Invoke                             planner        0 µs   100.0 ms  ▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇
└─ call ann/f                      executor    10.0 ms    80.0 ms    ▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇
       @20.0 ms restored cold=true
   ├─ host io.read                 executor    20.0 ms     1.0 ms      ▇
   └─ ✗ host state.push            planner     60.0 ms    20.0 ms                ▇▇▇▇▇
          "status: no \x1b[31m"
          n=7
elsewhere (its parent is missing)  executor    30.0 ms     1.0 ms         ▇
`)
	if r := skeinRun(t, "", "trace", "--trace-id", traceHex, "--traces", url); r.code != 0 || !strings.HasPrefix(r.stdout, "[\n  {\n    \"result\"") {
		t.Errorf("as JSON: %+v", r)
	}
}

func TestTraceThatGoesInACircle(t *testing.T) {
	url := serveTraces(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, object(false, "s", otlpSpan("a1", "b2", "a", 1, 2, ""), otlpSpan("b2", "a1", "b", 1, 2, ""),
			otlpSpan("c3", "c3", "self", 1, 1, "")))
	})
	r := skeinRun(t, "", "trace", "--trace-id", traceHex, "--traces", url, "-o", "text")
	for _, name := range []string{"a ", "b ", "self "} {
		if !strings.Contains(r.stdout, name) {
			t.Errorf("no span %q in:\n%s", name, r.stdout)
		}
	}
}

func TestTraceErrors(t *testing.T) {
	jaeger := serveTraces(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"error":{"httpCode":404,"message":"No traces found"}}`)
	})
	want(t, skeinRun(t, "", "trace", "--trace-id", traceHex, "--traces", jaeger), exitFailure, "", "no trace "+traceHex, "[NO_TRACE]", "--traces")
	broken := serveTraces(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"result":`) })
	want(t, skeinRun(t, "", "trace", "--trace-id", traceHex, "--traces", broken), exitFailure, "", "error: trace "+traceHex)
	want(t, skeinRun(t, "", "trace", "--trace-id", traceHex, "--traces", "http://"+freePort(t)), exitFailure, "", "UNREACHABLE", "connection refused")
}
