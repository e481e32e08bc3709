package test

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"skein.dev/test/cluster"
)

// Executors that come and go while calls are made fail none: what was on its way to one that leaves is served there.
func TestDrainUnderLoad(t *testing.T) {
	c := cluster.Processes(t, cluster.Options{Executors: 2})
	upload(t, c, "eve", "hello", "fib-c")
	want(t, 200, c, http.MethodPost, "/v1/invoke/eve/fib-c", []byte("2"))
	var over atomic.Bool
	var calls atomic.Int64
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			function, input, output := "hello", "", "hello"
			if i%2 == 0 {
				function, input, output = "fib-c", "6", "8"
			}
			for !over.Load() {
				a, err := tryRequest(t.Context(), c, http.MethodPost, "/v1/invoke/eve/"+function, []byte(input))
				if err != nil || a.status != 200 || strings.TrimSpace(string(a.body)) != output {
					t.Errorf("%s: %v, %s", function, err, a)
					return
				}
				calls.Add(1)
			}
		})
	}
	for i := range 6 {
		p := c.Executors[i%2]
		before := calls.Load()
		p.Terminate()
		p.AwaitEnd()
		p.Start()
		attached(t, c, 2)
		eventually(t, 20*time.Second, func() string {
			if t.Failed() || calls.Load() > before+100 {
				return ""
			}
			return "there is no load"
		})
	}
	over.Store(true)
	wait.Wait()
	t.Logf("%d calls", calls.Load())
}
