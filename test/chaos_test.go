package test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"skein.dev/test/cluster"
)

var chaos = flag.Duration("chaos", 20*time.Second, "how long TestChaos kills processes under load")

// ledger is what callers were promised.
type ledger struct {
	mu       sync.Mutex
	accepted map[string]string // call id to the function it is of
	refused  int
	failed   []string // answers that nobody should get
}

// load makes asynchronous calls until ctx ends. What was answered with 200 is promised; an answer that did not come promises
// nothing, and is asked for again with the same request id, which must give one call.
func (l *ledger) load(ctx context.Context, c *cluster.Cluster, worker int) {
	for n := 0; ctx.Err() == nil; n++ {
		function := []string{"hello", "sleep", "sleep"}[n%3]
		input := cluster.SleepInput(uint64(rand.N(100 * time.Millisecond)))
		body, _ := json.Marshal(map[string]any{
			"user": "eve", "function": function, "input": input, "requestId": fmt.Sprintf("%d-%d", worker, n), "maxAttempts": 10,
		})
		for ctx.Err() == nil {
			a, err := tryRequest(ctx, c, http.MethodPost, "/v1/calls", body, "Content-Type", "application/json")
			if err == nil && a.status == 200 {
				var rec record
				if json.Unmarshal(a.body, &rec) != nil || rec.CallID == "" {
					l.note(a.String())
					break
				}
				l.mu.Lock()
				if was, ok := l.accepted[rec.CallID]; ok {
					l.failed = append(l.failed, rec.CallID+" was given out twice: "+was)
				}
				l.accepted[rec.CallID] = function
				l.mu.Unlock()
				break
			}
			if err == nil && a.status != http.StatusServiceUnavailable && a.status != http.StatusTooManyRequests {
				l.note(a.String())
				break
			}
			l.mu.Lock()
			l.refused++
			l.mu.Unlock()
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
}

func (l *ledger) note(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = append(l.failed, what)
}

// Executors, the planner and Redis are killed at random under a load of asynchronous calls. Whatever was acknowledged ends well,
// with the right output, or is a dead letter that is listed; nothing runs on, and no slot stays taken.
func TestChaos(t *testing.T) {
	c := cluster.Processes(t, cluster.Options{Executors: 2, ExecutorArgs: []string{"--slots", "8"}})
	upload(t, c, "eve", "hello", "sleep")
	l := &ledger{accepted: map[string]string{}}
	ctx, stop := context.WithTimeout(t.Context(), *chaos)
	defer stop()
	var load sync.WaitGroup
	for w := range 4 {
		load.Go(func() { l.load(ctx, c, w) })
	}
	killed := havoc(ctx, c)
	load.Wait()
	t.Logf("%d calls acknowledged, %d refused or unanswered; killed: %v", len(l.accepted), l.refused, killed)
	for _, what := range l.failed {
		t.Errorf("unexpected: %s", what)
	}
	if len(l.accepted) == 0 {
		t.Fatal("no call was accepted")
	}
	c.Planner.AwaitStatus(200, time.Minute)
	dead := 0
	for id, function := range l.accepted {
		eventually(t, 2*time.Minute, func() string {
			a := request(t, c, http.MethodGet, "/v1/calls/"+id+":wait?timeout=30s", nil)
			var got struct {
				Call struct {
					State, Reason string
					DeadLetter    bool
					Attempt       int
				}
				Output []byte
			}
			if a.status != 200 || json.Unmarshal(a.body, &got) != nil {
				return a.String()
			}
			want := map[string]string{"hello": "hello", "sleep": "slept"}[function]
			switch {
			case got.Call.State == "CALL_STATE_SUCCEEDED" && string(got.Output) == want:
				return ""
			case got.Call.DeadLetter:
				dead++
				if a := request(t, c, http.MethodGet, "/v1/deadLetters/"+id, nil); a.status != 200 {
					t.Errorf("a dead letter that is not there: %s", a)
				}
				return ""
			}
			return a.String()
		})
	}
	if dead > 0 {
		t.Logf("%d of them are dead letters", dead)
	}
	eventually(t, time.Minute, func() string {
		var list struct {
			Executors []struct {
				ExecutorID string
				SlotsUsed  int
			}
		}
		a := request(t, c, http.MethodGet, "/v1/executors", nil)
		if a.status != 200 || json.Unmarshal(a.body, &list) != nil || len(list.Executors) != len(c.Executors) {
			return a.String()
		}
		for _, e := range list.Executors {
			if e.SlotsUsed != 0 {
				return a.String()
			}
		}
		return ""
	})
}

// havoc kills one process after another until ctx ends, in rounds of all in any order, and starts each again.
func havoc(ctx context.Context, c *cluster.Cluster) map[string]int {
	killed := map[string]int{}
	victims := append([]*cluster.Process{c.Planner, c.Redis}, c.Executors...)
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return killed
		case <-time.After(time.Second + rand.N(2*time.Second)):
		}
		if n%len(victims) == 0 {
			rand.Shuffle(len(victims), func(i, j int) { victims[i], victims[j] = victims[j], victims[i] })
		}
		p := victims[n%len(victims)]
		killed[p.Name]++
		p.Kill()
		time.Sleep(rand.N(time.Second)) // how long it is away
		p.Launch()
		if p == c.Redis { // the next one may be the planner, which must not find it loading only
			p.AwaitReady()
		}
	}
}
