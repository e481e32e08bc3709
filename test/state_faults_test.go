package test

import (
	"bytes"
	"flag"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"skein.dev/test/cluster"
)

// Full size is 64 writers, 1,000 rounds, 64 MiB.
var writerRounds = flag.Int("rounds", 12, "how many rounds the writers of TestStateFaults make; from 1,000 on in 64 MiB instead of 4")

// What guests have in state when their executor, or they themselves, end in bad ways.
func TestStateFaults(t *testing.T) {
	c := cluster.Processes(t, cluster.Options{
		Executors: 2, ExecutorArgs: []string{"--slots", "40", "--lock-lease", "1s"}, PlannerArgs: []string{"--executor-silence", "1m"},
	})
	upload(t, c, "ann", "keeper")
	t.Run("writers", func(t *testing.T) { writersLoseNothing(t, c) })
	t.Run("locks", func(t *testing.T) { locksEndWithCalls(t, c) })
	t.Run("frozen", func(t *testing.T) { frozenExecutor(t, c) })
	t.Run("killed", func(t *testing.T) { killedExecutor(t, c) })
}

// 64 writers on two executors, whose parts of a value share chunks and pages.
func writersLoseNothing(t *testing.T, c *cluster.Cluster) {
	const writers, stripes = 64, 1024
	rounds, stripe := *writerRounds, 4099 // bytes
	if rounds >= 1000 {                   // 4 GiB in all
		stripe = 65521
		client.Timeout = 15 * time.Minute
	}
	began := time.Now()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			input := fmt.Sprintf("write %d %d %d %d %d", w, writers, rounds, stripe, stripes)
			a, err := tryRequest(t.Context(), c, http.MethodPost, "/v1/invoke/ann/keeper?timeout=14m", []byte(input))
			if err != nil || a.status != 200 {
				t.Errorf("writer %d: %s %s %v", w, a, a.header.Get("Skein-Exit-Code"), err)
			}
		})
	}
	wg.Wait()
	t.Logf("%d writers, %d rounds, %d bytes: %s", writers, rounds, stripe*stripes, time.Since(began).Round(time.Millisecond))
	value, lost := want(t, 200, c, http.MethodGet, "/v1/state/ann/w/value", nil).body, 0
	for s := range stripes {
		who, nth := s%writers, s/writers
		last := -1 // round in which it was written
		for r := nth; r < rounds; r += stripes / writers {
			last = r
		}
		fill := byte(0)
		if last >= 0 {
			fill = byte(1 + (who*7+last)%255)
		}
		at := min(s*stripe, len(value))
		if got := value[at:min(at+stripe, len(value))]; last >= 0 && !bytes.Equal(got, bytes.Repeat([]byte{fill}, stripe)) {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d stripes are not what was written last", lost, stripes)
	}
}

// awaitText waits until a value begins with a text, and gives all of it.
func awaitText(t *testing.T, c *cluster.Cluster, key, text string) string {
	t.Helper()
	var all string
	eventually(t, 30*time.Second, func() string {
		a := request(t, c, http.MethodGet, "/v1/state/ann/"+key, nil)
		if all = string(a.body); a.status != 200 || !strings.HasPrefix(all, text) {
			return fmt.Sprintf("%s is %s, want %q", key, a, text)
		}
		return ""
	})
	return all
}

// running gives the one call that runs.
func running(t *testing.T, c *cluster.Cluster) (rec record) {
	t.Helper()
	eventually(t, 10*time.Second, func() string {
		all := slices.DeleteFunc(calls(t, c, "ann"), func(r record) bool { return r.State != "CALL_STATE_RUNNING" })
		if len(all) != 1 {
			return fmt.Sprintf("%d calls run", len(all))
		}
		rec = all[0]
		return ""
	})
	return rec
}

// awaitLock waits until a guest has had a lock of the cluster. One that is sent to an executor that is stopped runs there later.
func awaitLock(t *testing.T, c *cluster.Cluster, key string) {
	t.Helper()
	eventually(t, 20*time.Second, func() string {
		a := request(t, c, http.MethodPost, "/v1/invoke/ann/keeper?timeout=3s", []byte("lock "+key))
		if a.status != 200 {
			return a.String()
		}
		return ""
	})
}

// Locks of both kinds are free once the call is over that had them, however it ended.
func locksEndWithCalls(t *testing.T, c *cluster.Cluster) {
	for _, how := range []string{"return", "exit", "trap", "timeout", "cancel", "cancel asleep"} {
		input, timeout := "hold h/"+strings.ReplaceAll(how, " ", "-")+" "+how, "1m"
		switch how {
		case "timeout":
			timeout = "300ms"
		case "cancel asleep":
			input = "hold h/cancel-asleep sleep"
		}
		key := strings.Fields(input)[1]
		want(t, 200, c, http.MethodPut, "/v1/state/ann/h/said", nil)
		end := background(t, c, http.MethodPost, "/v1/invoke/ann/keeper?timeout="+timeout, []byte(input))
		if strings.HasPrefix(how, "cancel") {
			awaitText(t, c, "h/said", "here")
			want(t, 200, c, http.MethodPost, "/v1/calls/"+running(t, c).CallID+":cancel", []byte("{}"))
		}
		if a := end(); (a.status == 200) != (how == "return") {
			t.Errorf("%s: %s", how, a)
		}
		awaitText(t, c, "h/said", "here")
		// On either executor: the next call that wants them gets them, without waiting for a lease's end.
		for range 2 {
			if a := request(t, c, http.MethodPost, "/v1/invoke/ann/keeper?timeout=900ms", []byte("increment "+key)); a.status != 200 {
				t.Errorf("after %s: %s", how, a)
			}
		}
	}
}

// An executor that is stopped for longer than its locks' lease can't write with them when it goes on, in no way.
func frozenExecutor(t *testing.T, c *cluster.Cluster) {
	end := background(t, c, http.MethodPost, "/v1/invoke/ann/keeper?timeout=50s", []byte("stale f/key f/said f/go"))
	awaitText(t, c, "f/said", "here")
	frozen := executorOf(t, c, running(t, c).Executor)
	frozen.Pause()
	awaitLock(t, c, "f/key")
	want(t, 200, c, http.MethodPut, "/v1/state/ann/f/key", []byte("fresh"))
	want(t, 200, c, http.MethodPut, "/v1/state/ann/f/go", []byte("go"))
	frozen.Resume()
	if a := end(); string(a.body) != "refused 100, unlock 1" {
		t.Errorf("of a hundred stale writes: %s", a)
	}
	if got := awaitText(t, c, "f/key", ""); got != "fresh" {
		t.Errorf("the value is %q", got)
	}
}

// An executor is killed whose guest holds a lock, has pushed, and has written what it did not push.
func killedExecutor(t *testing.T, c *cluster.Cluster) {
	end := background(t, c, http.MethodPost, "/v1/invoke/ann/keeper?timeout=50s", []byte("stay k/key k/said"))
	awaitText(t, c, "k/said", "here")
	victim := executorOf(t, c, running(t, c).Executor)
	victim.Kill()
	if a := end(); a.problem().Reason != "EXECUTOR_LOST" {
		t.Errorf("the call: %s", a)
	}
	awaitLock(t, c, "k/key")
	if got := awaitText(t, c, "k/key", ""); got != "pushed  " {
		t.Errorf("the value is %q", got)
	}
	victim.Start()
	attached(t, c, 2)
	awaitLock(t, c, "k/key")
}
