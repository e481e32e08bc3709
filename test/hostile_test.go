package test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"skein.dev/test/cluster"
)

// Modules made to do harm come in by REST, and those that are accepted are called. Each is answered in bounded time with a
// reason that blames it and not us, nobody else's call fails or waits long, and all processes are there afterwards.
func TestHostileModules(t *testing.T) {
	c := cluster.Processes(t, cluster.Options{Executors: 1})
	corpus := cluster.Hostile()
	if len(corpus) < 200 {
		t.Errorf("the corpus has %d modules", len(corpus))
	}
	for i, m := range cluster.Mutants(mustRead(t, cluster.Guest(t, "echo-c")), mutants, 7) {
		corpus[fmt.Sprintf("mutant %d", i)] = m
	}
	upload(t, c, "good", "hello")
	stop := bystander(t, c)

	var names []string
	for name := range corpus {
		names = append(names, name)
	}
	slices.Sort(names)
	todo := make(chan string)
	var wait sync.WaitGroup
	var mu sync.Mutex
	outcomes := map[string]int{}
	for w := range 4 {
		wait.Go(func() {
			for name := range todo {
				got, err := provoke(t.Context(), c, fmt.Sprintf("bad-%d", w), corpus[name])
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				mu.Lock()
				outcomes[got]++
				mu.Unlock()
			}
		})
	}
	for _, name := range names {
		todo <- name
	}
	close(todo)
	wait.Wait()
	slowest := stop()
	t.Logf("%d modules: %v; the slowest call of another user's function took %s", len(corpus), outcomes, slowest.Round(time.Millisecond))
	if slowest > 10*time.Second {
		t.Errorf("a call of another user's function took %s", slowest)
	}
	for _, p := range append(slices.Clone(c.Executors), c.Planner, c.Upload, c.State, c.Fs) {
		p.AwaitStatus(http.StatusOK, 30*time.Second)
	}
	if got := executors(t, c); len(got) != 1 {
		t.Errorf("executors %v", got)
	}
}

const mutants = 200

// bystander calls another user's function all the time; stop gives the longest that a call took.
func bystander(t *testing.T, c *cluster.Cluster) (stop func() time.Duration) {
	ctx, cancel := context.WithCancel(t.Context())
	longest := make(chan time.Duration, 1)
	go func() {
		var most time.Duration
		for ctx.Err() == nil {
			a, err := tryRequest(ctx, c, http.MethodPost, "/v1/invoke/good/hello", nil)
			if ctx.Err() != nil {
				break
			}
			if err != nil || a.status != http.StatusOK || string(a.body) != "hello" {
				t.Errorf("a call of another user's function: %v, %v", a, err)
				break
			}
			most = max(most, a.took)
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
		}
		longest <- most
	}()
	return func() time.Duration { cancel(); return <-longest }
}

// provoke uploads a module and calls it if that is accepted. It gives the reason of the end.
func provoke(ctx context.Context, c *cluster.Cluster, user string, module []byte) (string, error) {
	const bound = 60 * time.Second // a compilation's limit of CPU time is 30 s
	path := "/v1/functions/" + user + "/f"
	a, err := tryRequest(ctx, c, http.MethodPut, path, module)
	if err != nil {
		return "", fmt.Errorf("upload: %w", err)
	}
	if a.took > 3*bound { // others are before it
		return "", fmt.Errorf("upload: %s", a)
	}
	if a.status/100 == 4 {
		p := a.problem()
		if p.Reason == "" || p.Detail == "" {
			return "", fmt.Errorf("upload: %s", a)
		}
		return p.Reason, nil
	}
	if a.status/100 != 2 {
		return "", fmt.Errorf("upload: %s", a)
	}
	const deadline = time.Second
	a, err = tryRequest(ctx, c, http.MethodPost, "/v1/invoke/"+user+"/f?timeout="+deadline.String(), []byte("input"))
	if err != nil {
		return "", fmt.Errorf("invoke: %w", err)
	}
	reason := a.header.Get("Skein-Reason")
	if p := a.problem(); p.Reason != "" {
		reason = p.Reason
	}
	switch {
	case a.took > deadline+10*time.Second:
		return "", fmt.Errorf("invoke: deadline %s, but %s", deadline, a)
	case a.status == http.StatusOK:
		return "ran", nil
	case a.status == http.StatusBadGateway && (strings.HasPrefix(reason, "GUEST_") || strings.HasSuffix(reason, "_MEMORY")),
		a.status == http.StatusGatewayTimeout && reason == "DEADLINE",
		a.status == http.StatusBadRequest && reason != "":
		return reason, nil
	}
	return "", fmt.Errorf("invoke: %s", a)
}
