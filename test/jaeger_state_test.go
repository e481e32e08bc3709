package test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"skein.dev/test/cluster"
)

// What a call does with state is in its trace, on two executors: what moved, of which value, without telling its key, and what
// the state service did for it.
func TestJaegerState(t *testing.T) {
	jaeger := cluster.Jaeger(t)
	c := cluster.Processes(t, cluster.Options{Executors: 2, ExecutorArgs: []string{"--slots", "1"}, Env: []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + jaeger.OTLP, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "OTEL_METRICS_EXPORTER=none",
		"OTEL_BSP_SCHEDULE_DELAY=100",
	}})
	upload(t, c, "ann", "keeper")
	// A span and its bytes, in the executor and in state below it.
	incremented := map[string]string{"state pull": "", "state push": "1", "state lock": "0"}
	appended := map[string]string{"state append": "5"}
	seen := map[string]bool{}
	for n := 0; len(seen) < 2 && n < 50; n++ { // both executors at once, sooner or later
		var wg sync.WaitGroup
		var calls [2]answer
		for i := range calls {
			wg.Go(func() {
				key := fmt.Sprintf("j/secret%d.%d", n, i) // each its own, so that a digit is what is written
				calls[i], _ = tryRequest(t.Context(), c, http.MethodPost, "/v1/invoke/ann/keeper", []byte("increment "+key))
			})
		}
		wg.Wait()
		for i, a := range calls {
			seen[awaitState(t, c, jaeger, a, fmt.Sprintf("j/secret%d.%d", n, i), incremented)] = true
		}
	}
	if len(seen) != 2 {
		t.Errorf("the calls ran on %v, want two executors", seen)
	}
	a := want(t, 200, c, http.MethodPost, "/v1/invoke/ann/keeper", []byte("append j/secretlog 12345"))
	awaitState(t, c, jaeger, a, "j/secretlog", appended)
}

// awaitState waits for a call's trace with these spans of state, and gives the executor where the call ran.
func awaitState(t *testing.T, c *cluster.Cluster, jaeger *cluster.Tracing, a answer, key string, names map[string]string) (executor string) {
	t.Helper()
	if a.status != 200 {
		t.Fatal(a)
	}
	var rec record
	if err := json.Unmarshal(want(t, 200, c, http.MethodGet, "/v1/calls/"+a.header.Get("Skein-Call-Id"), nil).body, &rec); err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte(key))
	awaitTrace(t, jaeger, rec.TraceID, func(tr trace) string {
		call := tr.named("call ann/keeper")
		if len(call) != 1 {
			return fmt.Sprintf("%d spans of the call", len(call))
		}
		executor = call[0].tag("faas.instance")
		for _, s := range tr.spans { // gRPC's own tell the text of an error, which may name it
			if text := fmt.Sprint(s); strings.HasPrefix(s.OperationName, "state ") && strings.Contains(text, "secret") {
				return "it tells the key: " + text
			}
		}
		for name, bytes := range names {
			if why := checkState(tr, call[0], name, hex.EncodeToString(digest[:8]), bytes); why != "" {
				return why
			}
		}
		return ""
	})
	return executor
}

func checkState(tr trace, call span, name, digest, bytes string) string {
	for _, s := range tr.named(name) {
		if tr.service(s) != "executor" || !tr.under(s, call) {
			continue
		}
		got := fmt.Sprint(s.tag("skein.user"), " ", s.tag("skein.state.key_digest"))
		if got != "ann "+digest {
			return fmt.Sprintf("%s is of %s, want ann %s", name, got, digest)
		}
		if b := s.tag("skein.state.bytes"); b == "" || bytes != "" && b != bytes {
			return fmt.Sprintf("%s moved %q bytes, want %q", name, b, bytes)
		}
		for _, below := range tr.spans {
			if tr.service(below) == "state" && strings.HasPrefix(below.OperationName, "state ") && tr.under(below, s) {
				if d := below.tag("skein.state.key_digest"); d != digest || below.tag("skein.state.bytes") == "" {
					return fmt.Sprintf("below %s: %+v", name, below)
				}
				return ""
			}
		}
		return "nothing of the state service is below " + name
	}
	return "the call has no span " + name
}
