package test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"skein.dev/platform/fault"
	"skein.dev/test/cluster"
)

// answer is what a REST request got.
type answer struct {
	status int
	header http.Header
	body   []byte
	took   time.Duration
}

// problem is the reason of an error, "" if the answer is none.
func (a answer) problem() fault.Problem {
	var p fault.Problem
	if strings.HasPrefix(a.header.Get("Content-Type"), "application/problem+json") {
		_ = json.Unmarshal(a.body, &p)
	}
	return p
}

func (a answer) String() string {
	return fmt.Sprintf("%d after %s: %.1000q", a.status, a.took.Round(time.Millisecond), a.body)
}

// tryRequest sends a REST request to the service that has the path. headers are names and values in turn.
func tryRequest(ctx context.Context, c *cluster.Cluster, method, path string, body []byte, headers ...string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.URL(path), bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	began := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	b, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	return answer{resp.StatusCode, resp.Header, b, time.Since(began)}, err
}

func request(t *testing.T, c *cluster.Cluster, method, path string, body []byte, headers ...string) answer {
	t.Helper()
	a, err := tryRequest(t.Context(), c, method, path, body, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// want is a request that must get this status.
func want(t *testing.T, status int, c *cluster.Cluster, method, path string, body []byte, headers ...string) answer {
	t.Helper()
	a := request(t, c, method, path, body, headers...)
	if a.status != status {
		t.Fatalf("%s %s: want status %d, got %s", method, path, status, a)
	}
	return a
}

// fails is a request that must fail with a problem document, soon.
func fails(t *testing.T, status int, reason string, c *cluster.Cluster, method, path string, body []byte) {
	t.Helper()
	a := want(t, status, c, method, path, body)
	p := a.problem()
	if p.Status != status || p.Detail == "" || reason != "" && p.Reason != reason || p.Reason == "" {
		t.Errorf("%s %s: want a problem with reason %s, got %s", method, path, reason, a)
	}
	if a.took > 10*time.Second {
		t.Errorf("%s %s failed only after %s", method, path, a.took)
	}
}

// upload puts guests under names of their own.
func upload(t *testing.T, c *cluster.Cluster, user string, guests ...string) {
	t.Helper()
	for _, g := range guests {
		uploadAs(t, c, user+"/"+g, g)
	}
}

// uploadAs gives a guest a name of its own.
func uploadAs(t *testing.T, c *cluster.Cluster, function, guest string) {
	t.Helper()
	module, err := os.ReadFile(cluster.Guest(t, guest))
	if err != nil {
		t.Fatal(err)
	}
	if a := request(t, c, http.MethodPut, "/v1/functions/"+function, module); a.status/100 != 2 {
		t.Fatalf("upload of %s: %s", function, a)
	}
}

// record is the JSON of a call.
type record struct{ CallID, State, Reason, Executor, TraceID string }

func calls(t *testing.T, c *cluster.Cluster, user string) []record {
	t.Helper()
	var list struct{ Calls []record }
	if err := json.Unmarshal(want(t, 200, c, http.MethodGet, "/v1/calls?user="+user, nil).body, &list); err != nil {
		t.Fatal(err)
	}
	return list.Calls
}

// executors gives the names of those that are attached.
func executors(t *testing.T, c *cluster.Cluster) []string {
	t.Helper()
	var list struct{ Executors []struct{ ExecutorID string } }
	if err := json.Unmarshal(want(t, 200, c, http.MethodGet, "/v1/executors", nil).body, &list); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list.Executors {
		names = append(names, e.ExecutorID)
	}
	return names
}

// eventually waits until ok gives "" and fails with what it gave last.
func eventually(t *testing.T, d time.Duration, ok func() string) {
	t.Helper()
	for began := time.Now(); ; {
		why := ok()
		if why == "" {
			return
		}
		if time.Since(began) > d {
			t.Fatalf("not in %s: %s", d, why)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func mustRead(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
