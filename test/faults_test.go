package test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"skein.dev/test/cluster"
)

// Each test here breaks one part of a suite of real processes, and looks that what depends on it fails soon and with a
// reason, that the rest works on, and that all of it works again once the part is back, without anybody's help.

// background sends a request and gives its answer when it comes.
func background(t *testing.T, c *cluster.Cluster, method, path string, body []byte) func() answer {
	t.Helper()
	type result struct {
		a   answer
		err error
	}
	done := make(chan result, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	go func() {
		a, err := tryRequest(ctx, c, method, path, body)
		done <- result{a, err}
	}()
	return func() answer {
		t.Helper()
		r := <-done
		if r.err != nil {
			t.Fatal(r.err)
		}
		return r.a
	}
}

// sleeping starts a call of user's function "sleep" and gives its record once it runs.
func sleeping(t *testing.T, c *cluster.Cluster, user string, d time.Duration) (rec record, end func() answer) {
	t.Helper()
	end = background(t, c, http.MethodPost, "/v1/invoke/"+user+"/sleep", cluster.SleepInput(uint64(d)))
	eventually(t, 30*time.Second, func() string {
		all := calls(t, c, user)
		if i := slices.IndexFunc(all, func(r record) bool { return r.State == "CALL_STATE_RUNNING" }); i >= 0 {
			rec = all[i]
			return ""
		}
		return "no call runs"
	})
	return rec, end
}

func executorOf(t *testing.T, c *cluster.Cluster, name string) *cluster.Process {
	t.Helper()
	i := slices.IndexFunc(c.Executors, func(p *cluster.Process) bool { return p.Name == name })
	if i < 0 {
		t.Fatalf("there is no executor %q", name)
	}
	return c.Executors[i]
}

func attached(t *testing.T, c *cluster.Cluster, n int) {
	t.Helper()
	eventually(t, 20*time.Second, func() string {
		names := executors(t, c)
		if len(names) == n {
			return ""
		}
		return "attached are " + join(names)
	})
}

func join(names []string) string {
	b := []byte("[")
	for _, n := range names {
		b = append(append(b, n...), ' ')
	}
	return string(append(b, ']'))
}

// A planner that is killed and comes back knows its calls, and who follows one's log misses nothing of it.
func TestFaultPlannerKilledWhileFollowed(t *testing.T) {
	c := cluster.Processes(t, cluster.Options{})
	upload(t, c, "flo", "talk", "hello")
	var call struct {
		CallID string `json:"callId"`
	}
	input := base64.StdEncoding.EncodeToString(cluster.SleepInput(uint64(4 * time.Second)))
	a := want(t, 200, c, http.MethodPost, "/v1/calls", []byte(`{"user": "flo", "function": "talk", "input": "`+input+`"}`))
	if err := json.Unmarshal(a.body, &call); err != nil {
		t.Fatal(err)
	}
	follow := exec.CommandContext(t.Context(), cluster.Bin(t, "skein"), "logs", "-f", call.CallID)
	follow.Env = append(os.Environ(), c.Env()...)
	pipe, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	follow.Stderr = &said
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(pipe)
	if !lines.Scan() || lines.Text() != "one" {
		t.Fatalf("the log begins %q: %s", lines.Text(), said.String())
	}
	c.Planner.Kill()
	c.Planner.Start()
	if !lines.Scan() || lines.Text() != "two" || lines.Scan() {
		t.Errorf("it goes on %q: %s", lines.Text(), said.String())
	}
	if err := follow.Wait(); err != nil {
		t.Errorf("%v: %s", err, said.String())
	}
	got := want(t, 200, c, http.MethodGet, "/v1/calls/"+call.CallID+"/logs", nil)
	if !bytes.Contains(got.body, []byte(base64.StdEncoding.EncodeToString([]byte("one\ntwo\n")))) {
		t.Errorf("%s", got)
	}
	want(t, 200, c, http.MethodPost, "/v1/invoke/flo/hello", nil)
}

func TestFaultExecutorKilled(t *testing.T) {
	c := cluster.Processes(t, cluster.Options{Executors: 2})
	upload(t, c, "eve", "sleep", "hello")

	rec, end := sleeping(t, c, "eve", time.Minute)
	victim := executorOf(t, c, rec.Executor)
	killed := time.Now()
	victim.Kill()
	a := end()
	if p := a.problem(); a.status != http.StatusServiceUnavailable || p.Reason != "EXECUTOR_LOST" || p.Hint == "" {
		t.Errorf("the call of a killed executor: %s", a)
	}
	if took := time.Since(killed); took > 3*time.Second {
		t.Errorf("its end was noticed only after %s", took)
	}
	if got := calls(t, c, "eve")[0]; got.CallID != rec.CallID || got.State != "CALL_STATE_FAILED" || got.Reason != "EXECUTOR_LOST" {
		t.Errorf("its record is %+v", got)
	}
	for range 3 {
		want(t, 200, c, http.MethodPost, "/v1/invoke/eve/hello", nil)
	}
	attached(t, c, 1)

	// Without any executor calls wait, and run when one comes.
	for _, p := range c.Executors {
		if p.Running() {
			p.Kill()
		}
	}
	attached(t, c, 0)
	end = background(t, c, http.MethodPost, "/v1/invoke/eve/hello", nil)
	victim.Start()
	if a := end(); a.status != 200 || string(a.body) != "hello" {
		t.Errorf("the call that waited for an executor: %s", a)
	}
}

// An executor that hangs is as good as dead: its silence ends its calls.
func TestFaultExecutorHangs(t *testing.T) {
	c := cluster.Processes(t, cluster.Options{Executors: 1})
	upload(t, c, "eve", "sleep", "hello")
	_, end := sleeping(t, c, "eve", time.Minute)
	began := time.Now()
	c.Executors[0].Pause()
	a := end()
	c.Executors[0].Resume()
	if p := a.problem(); a.status != http.StatusServiceUnavailable || p.Reason != "EXECUTOR_LOST" {
		t.Errorf("the call of an executor that hangs: %s", a)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("it was given up only after %s", took)
	}
	attached(t, c, 1) // it comes back by itself
	want(t, 200, c, http.MethodPost, "/v1/invoke/eve/hello", nil)
}

func TestFaultExecutorDrains(t *testing.T) {
	c := cluster.Processes(t, cluster.Options{Executors: 1})
	upload(t, c, "eve", "sleep", "hello")
	rec, end := sleeping(t, c, "eve", 2*time.Second)
	p := executorOf(t, c, rec.Executor)
	p.Terminate()
	if a := end(); a.status != 200 || string(a.body) != "slept" {
		t.Errorf("the call that ran when its executor was told to end: %s", a)
	}
	p.AwaitEnd()
	end = background(t, c, http.MethodPost, "/v1/invoke/eve/hello", nil)
	p.Start()
	if a := end(); a.status != 200 {
		t.Errorf("a call after the restart: %s", a)
	}
}

func TestFaultPlannerRestarts(t *testing.T) {
	c := cluster.Processes(t, cluster.Options{Executors: 2})
	upload(t, c, "eve", "sleep", "hello")
	want(t, 200, c, http.MethodPost, "/v1/invoke/eve/hello", nil)

	c.Planner.Kill()
	if a, err := tryRequest(t.Context(), c, http.MethodPost, "/v1/invoke/eve/hello", nil); err == nil {
		t.Errorf("a dead planner answers %s", a)
	}
	c.Planner.Start()
	attached(t, c, 2)
	want(t, 200, c, http.MethodPost, "/v1/invoke/eve/hello", nil)

	// In good order: what was accepted ends first.
	_, end := sleeping(t, c, "eve", 2*time.Second)
	c.Planner.Terminate()
	if a := end(); a.status != 200 || string(a.body) != "slept" {
		t.Errorf("the call that ran when the planner was told to end: %s", a)
	}
	c.Planner.AwaitEnd()
	c.Planner.Start()
	attached(t, c, 2)
	want(t, 200, c, http.MethodPost, "/v1/invoke/eve/hello", nil)
}

// Of two planners one leads; when it dies, or leaves in good order, the other goes on with its calls, and those that run are not
// begun again.
func TestFaultPlannerStandby(t *testing.T) {
	c := cluster.Processes(t, cluster.Options{Executors: 1, Standby: true})
	upload(t, c, "eve", "sleep", "hello")
	standsBy := func() {
		t.Helper()
		leader := c.Planner
		c.Planner = c.Standby
		eventually(t, 10*time.Second, func() string { // at first it does not know who leads
			a := request(t, c, http.MethodPost, "/v1/invoke/eve/hello", nil)
			if p := a.problem(); a.status != 503 || p.Reason != "STANDBY" || p.Hint != "the leader is "+leader.Addr {
				return "a planner that stands by: " + a.String()
			}
			return ""
		})
		c.Planner = leader
	}
	standsBy()
	for _, end := range []func(p *cluster.Process){(*cluster.Process).Kill, (*cluster.Process).Stop} {
		var call, got record
		body, _ := json.Marshal(map[string]any{"user": "eve", "function": "sleep", "input": cluster.SleepInput(uint64(8 * time.Second))})
		if a := want(t, 200, c, http.MethodPost, "/v1/calls", body, "Content-Type", "application/json"); json.Unmarshal(a.body, &call) != nil {
			t.Fatal(a)
		}
		eventually(t, 10*time.Second, func() string {
			a := want(t, 200, c, http.MethodGet, "/v1/calls/"+call.CallID, nil)
			if json.Unmarshal(a.body, &got) != nil || got.State != "CALL_STATE_RUNNING" {
				return a.String()
			}
			return ""
		})
		end(c.Planner)
		c.Planner, c.Standby = c.Standby, c.Planner
		c.Planner.AwaitStatus(200, 20*time.Second)
		attached(t, c, 1)
		want(t, 200, c, http.MethodPost, "/v1/invoke/eve/hello", nil)
		var done struct {
			Call struct {
				State   string
				Attempt int
			}
			Output []byte
		}
		a := want(t, 200, c, http.MethodGet, "/v1/calls/"+call.CallID+":wait?timeout=30s", nil)
		if json.Unmarshal(a.body, &done) != nil || done.Call.State != "CALL_STATE_SUCCEEDED" || string(done.Output) != "slept" || done.Call.Attempt != 1 {
			t.Errorf("the call that ran when its planner ended: %s", a)
		}
		c.Standby.Launch()
		eventually(t, 10*time.Second, func() string {
			if status, err := c.Standby.Health(t.Context()); err != nil || status != http.StatusServiceUnavailable {
				return "the former leader is ready too"
			}
			return ""
		})
		standsBy()
	}
}

func TestFaultServicesRestart(t *testing.T) {
	c := cluster.Processes(t, cluster.Options{Executors: 1})
	upload(t, c, "eve", "hello", "push", "wordcount-go")
	text := []byte("b a b")
	for _, p := range []*cluster.Process{c.State, c.Fs, c.Upload, c.Planner} {
		p.Kill()
		p.Start()
		if a := request(t, c, http.MethodPut, "/v1/files/eve/text", text); a.status/100 != 2 {
			t.Errorf("after a restart of %s: put of a file: %s", p.Name, a)
		}
		// The others' connections to it are dead, and soon made anew.
		eventually(t, 5*time.Second, func() string {
			if a := request(t, c, http.MethodPost, "/v1/invoke/eve/wordcount-go?args=text", nil); a.status != 200 || string(a.body) != "2 b\n1 a\n" {
				return "after a restart of " + p.Name + ": wordcount: " + a.String()
			}
			return ""
		})
		want(t, 200, c, http.MethodPost, "/v1/invoke/eve/push", nil)
		if a := want(t, 200, c, http.MethodGet, "/v1/state/eve/wordcount", nil); string(a.body) != "2 b\n1 a\n" {
			t.Errorf("after a restart of %s: its state: %s", p.Name, a)
		}
		upload(t, c, "eve", "goodbye", "hello")
	}
}

func TestFaultRedisDownAtStart(t *testing.T) {
	c := cluster.Processes(t, cluster.Options{Executors: 1, RedisDown: true})
	if status, err := c.State.Health(t.Context()); err != nil || status != http.StatusServiceUnavailable {
		t.Errorf("state without Redis: health %d, %v", status, err)
	}
	fails(t, 503, "", c, http.MethodGet, "/v1/state/eve/k", nil)
	fails(t, 503, "", c, http.MethodPut, "/v1/state/eve/k", []byte("v"))
	upload(t, c, "eve", "hello")
	// Nobody knows which planner leads, and what was accepted before.
	if status, err := c.Planner.Health(t.Context()); err != nil || status != http.StatusServiceUnavailable {
		t.Errorf("planner without Redis: health %d, %v", status, err)
	}
	eventually(t, 5*time.Second, func() string {
		if a := request(t, c, http.MethodPost, "/v1/invoke/eve/hello", nil); a.status != 503 || a.problem().Reason != "JOURNAL_DOWN" {
			return a.String()
		}
		return ""
	})

	c.Redis.Start()
	c.State.AwaitStatus(200, 20*time.Second)
	c.Planner.AwaitStatus(200, 20*time.Second)
	attached(t, c, 1)
	want(t, 200, c, http.MethodPost, "/v1/invoke/eve/hello", nil)
	want(t, 200, c, http.MethodPut, "/v1/state/eve/k", []byte("v"))
	want(t, 200, c, http.MethodGet, "/v1/state/eve/k", nil)
}

func TestFaultRedisDown(t *testing.T) {
	c := cluster.Processes(t, cluster.Options{Executors: 1})
	upload(t, c, "eve", "hello", "push")
	want(t, 200, c, http.MethodPost, "/v1/invoke/eve/push", nil)
	works := func() {
		t.Helper()
		c.State.AwaitStatus(200, 20*time.Second)
		want(t, 200, c, http.MethodPut, "/v1/state/eve/k", []byte("v"))
		want(t, 200, c, http.MethodPost, "/v1/invoke/eve/push", nil)
	}
	fault := func(what string) {
		t.Helper()
		fails(t, 503, "", c, http.MethodGet, "/v1/state/eve/k", nil)
		fails(t, 503, "", c, http.MethodPut, "/v1/state/eve/k", []byte("w"))
		// A guest that pushes is told EIO, which this one makes its exit code.
		if a := want(t, 502, c, http.MethodPost, "/v1/invoke/eve/push", nil); a.header.Get("Skein-Exit-Code") != "29" {
			t.Errorf("redis %s: a push by a guest: exit code %q, %s", what, a.header.Get("Skein-Exit-Code"), a)
		}
		want(t, 200, c, http.MethodPost, "/v1/invoke/eve/hello", nil)
		c.State.AwaitStatus(503, 20*time.Second)
	}
	works()
	c.Redis.Kill()
	fault("killed")
	c.Redis.Start()
	works()
	c.Redis.Pause()
	fault("paused")
	c.Redis.Resume()
	works()
}

func TestFaultMinIODown(t *testing.T) {
	c := cluster.Processes(t, cluster.Options{Executors: 1})
	upload(t, c, "eve", "hello", "sleep")
	content := bytes.Repeat([]byte("content"), 1000)
	if a := request(t, c, http.MethodPut, "/v1/files/eve/a", content); a.status/100 != 2 {
		t.Fatal(a)
	}
	want(t, 200, c, http.MethodPost, "/v1/invoke/eve/hello", nil)
	hello := mustRead(t, cluster.Guest(t, "hello"))

	// A call that runs is none of the store's business.
	_, end := sleeping(t, c, "eve", 5*time.Second)
	c.Objects.Kill()
	fails(t, 503, "", c, http.MethodPut, "/v1/files/eve/b", content)
	fails(t, 503, "", c, http.MethodGet, "/v1/files/eve/a", nil)
	fails(t, 503, "", c, http.MethodPut, "/v1/functions/eve/new", hello)
	if a := end(); a.status != 200 || string(a.body) != "slept" {
		t.Errorf("the call that ran when MinIO went down: %s", a)
	}
	// What a function's name stands for can't be looked up now. That is our fault, not the caller's, and told soon.
	if a := request(t, c, http.MethodPost, "/v1/invoke/eve/hello", nil); a.status != 200 {
		fails(t, 503, "", c, http.MethodPost, "/v1/invoke/eve/hello", nil)
	}

	c.Objects.Restart()
	c.Fs.AwaitStatus(200, 30*time.Second)
	c.Upload.AwaitStatus(200, 30*time.Second)
	if a := want(t, 200, c, http.MethodGet, "/v1/files/eve/a", nil); !bytes.Equal(a.body, content) {
		t.Error("the file is not what it was")
	}
	if a := request(t, c, http.MethodGet, "/v1/files/eve/b", nil); a.status != 404 {
		t.Errorf("a file whose put failed: %s", a)
	}
	if a := request(t, c, http.MethodGet, "/v1/functions/eve/new", nil); a.status != 404 {
		t.Errorf("a function whose upload failed: %s", a)
	}
	upload(t, c, "eve", "goodbye")
	for _, f := range []string{"hello", "goodbye"} {
		if a := want(t, 200, c, http.MethodPost, "/v1/invoke/eve/"+f, nil); string(a.body) != f {
			t.Errorf("%s: %s", f, a)
		}
	}
}
