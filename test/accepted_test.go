package test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"skein.dev/test/cluster"
)

// A call that was accepted goes on over the death of its planner, in the attempt that it was in, and in another over that of its
// executor.
func TestAcceptedCallOutlives(t *testing.T) {
	c := cluster.Processes(t, cluster.Options{Executors: 1})
	upload(t, c, "eve", "sleep")
	accepted := func() string {
		body := fmt.Sprintf(`{"user":"eve","function":"sleep","input":%q}`, base64.StdEncoding.EncodeToString(cluster.SleepInput(uint64(4*time.Second))))
		var rec record
		if err := json.Unmarshal(want(t, 200, c, http.MethodPost, "/v1/calls", []byte(body)).body, &rec); err != nil {
			t.Fatal(err)
		}
		eventually(t, 20*time.Second, func() string {
			if got := calls(t, c, "eve")[0]; got.State != "CALL_STATE_RUNNING" {
				return "it is " + got.State
			}
			return ""
		})
		return rec.CallID
	}
	ends := func(id string, attempt int) {
		t.Helper()
		eventually(t, 40*time.Second, func() string {
			a, err := tryRequest(t.Context(), c, http.MethodGet, "/v1/calls/"+id, nil)
			if err != nil {
				return err.Error()
			}
			var rec struct {
				State   string
				Attempt int
			}
			if err := json.Unmarshal(a.body, &rec); err != nil || rec.State != "CALL_STATE_SUCCEEDED" {
				return a.String()
			}
			if rec.Attempt != attempt {
				t.Errorf("it took %d attempts, not %d", rec.Attempt, attempt)
			}
			return ""
		})
	}
	id := accepted()
	c.Planner.Kill()
	c.Planner.Start()
	ends(id, 1)

	id = accepted()
	c.Executors[0].Kill()
	c.Executors[0].Start()
	ends(id, 2)
}

// No call that was accepted is lost, however often the planner dies meanwhile, and an executor besides.
func TestNoAcceptedCallIsLost(t *testing.T) {
	c := cluster.Processes(t, cluster.Options{Executors: 2})
	upload(t, c, "eve", "sleep")
	var mu sync.Mutex
	var ids []string
	ctx, stop := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	for i := range 4 {
		wait.Go(func() {
			for n := i; ctx.Err() == nil && n < 300; n++ {
				body := fmt.Sprintf(`{"user":"eve","function":"sleep","maxAttempts":10,"input":%q}`, base64.StdEncoding.EncodeToString(cluster.SleepInput(uint64(n%5)*uint64(50*time.Millisecond))))
				a, err := tryRequest(t.Context(), c, http.MethodPost, "/v1/calls", []byte(body))
				var rec record
				if err != nil || a.status != 200 || json.Unmarshal(a.body, &rec) != nil {
					time.Sleep(20 * time.Millisecond) // it will be back
					continue
				}
				mu.Lock()
				ids = append(ids, rec.CallID)
				mu.Unlock()
			}
		})
	}
	for i := range 8 {
		eventually(t, 60*time.Second, func() string {
			mu.Lock()
			defer mu.Unlock()
			if len(ids) < 50*(i+1) {
				return fmt.Sprintf("%d calls are accepted", len(ids))
			}
			return ""
		})
		p := c.Planner
		if i == 3 { // once: a call that two executors are lost with is taken for the reason
			p = c.Executors[0]
		}
		p.Kill()
		p.Start()
	}
	stop()
	wait.Wait()
	attempts := map[int]int{}
	for _, id := range ids {
		eventually(t, 60*time.Second, func() string {
			a, err := tryRequest(t.Context(), c, http.MethodGet, "/v1/calls/"+id, nil)
			if err != nil {
				return err.Error()
			}
			var rec struct {
				State   string
				Attempt int
			}
			if err := json.Unmarshal(a.body, &rec); err != nil || rec.State != "CALL_STATE_SUCCEEDED" {
				return a.String()
			}
			attempts[rec.Attempt]++
			return ""
		})
	}
	t.Logf("%d calls; by the attempt that ended them: %v", len(ids), attempts)
}
