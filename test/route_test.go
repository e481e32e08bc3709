package test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/status"

	"skein.dev"
	calling "skein.dev/client"
	"skein.dev/platform/fault"
	plannerv1 "skein.dev/proto/skein/planner/v1"
	"skein.dev/test/cluster"
)

func dialClient(t *testing.T, c *cluster.Cluster) *calling.Client {
	t.Helper()
	cl, err := calling.Dial(c.Planner.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cl.Close() })
	return cl
}

// routed calls a function until a call of it went past the planner.
func routed(t *testing.T, cl *calling.Client, function, input string) (res *calling.Result) {
	t.Helper()
	eventually(t, 20*time.Second, func() string {
		var err error
		if res, err = cl.Invoke(t.Context(), function, []byte(input), calling.Options{}); err != nil {
			t.Fatal(err)
		}
		if !res.Routed {
			return "it goes by the planner"
		}
		return ""
	})
	return res
}

func TestRouted(t *testing.T) {
	c := cluster.Processes(t, cluster.Options{})
	cl := dialClient(t, c)
	upload(t, c, "ann", "hello", "calls")
	res := routed(t, cl, "ann/hello", "")
	if res.State != skein.Succeeded || string(res.Output) != "hello" || res.Version != 1 || res.Executor != "executor-1" || res.ID.IsZero() ||
		string(res.Log) != "to stdout\nto stderr\n" {
		t.Errorf("%+v", res)
	}
	// There is no record of it, and one of a call that is to have one.
	want(t, 404, c, http.MethodGet, "/v1/calls/"+res.ID.String(), nil)
	for _, o := range []calling.Options{{Planned: true}, {RequestID: "r1"}} {
		res, err := cl.Invoke(t.Context(), "ann/hello", nil, o)
		if err != nil || res.Routed || string(res.Output) != "hello" {
			t.Fatalf("%+v %v", res, err)
		}
		want(t, 200, c, http.MethodGet, "/v1/calls/"+res.ID.String(), nil)
	}
	// Another version is seen within the lease.
	uploadAs(t, c, "ann/hello", "goodbye")
	eventually(t, 20*time.Second, func() string {
		if res := routed(t, cl, "ann/hello", ""); res.Version != 2 {
			return fmt.Sprintf("version %d", res.Version)
		}
		return ""
	})
	// What calls others needs the planner.
	for range 100 {
		if res, err := cl.Invoke(t.Context(), "ann/calls", []byte("deep 1"), calling.Options{}); err != nil || res.Routed || string(res.Output) != "2" {
			t.Fatalf("%+v %v", res, err)
		}
	}
	_, err := cl.Planner().LeaseRoute(t.Context(), &plannerv1.LeaseRouteRequest{User: "ann", Function: "calls"})
	wantFault(t, err, fault.Precondition, "NOT_ROUTABLE")
	// Who calls wrongly hears the same on both ways.
	_, err = cl.Invoke(t.Context(), "ann/none", nil, calling.Options{})
	wantFault(t, err, fault.NotFound, "NO_FUNCTION")
	for range 50 {
		_, err = cl.Invoke(t.Context(), "ann/hello", nil, calling.Options{Args: []string{"\x00"}})
		wantFault(t, err, fault.Invalid, "BAD_ARGS")
		_, err = cl.Invoke(t.Context(), "ann/hello", nil, calling.Options{Timeout: 25 * time.Hour})
		wantFault(t, err, fault.Invalid, "BAD_TIMEOUT")
	}
}

func wantFault(t *testing.T, err error, kind *fault.Kind, reason string) {
	t.Helper()
	if e := fault.From(err); e == nil || e.Kind != kind || e.Reason != reason {
		t.Errorf("%v, want %s", err, reason)
	}
}

// Calls that wait for nothing but time take all slots: the planner hears of it, and nobody is refused.
func TestRoutedLoad(t *testing.T) {
	c := cluster.Processes(t, cluster.Options{ExecutorArgs: []string{"--slots", "2"}})
	cl := dialClient(t, c)
	upload(t, c, "ann", "hello")
	uploadAs(t, c, "ann/spin", "spin")
	routed(t, cl, "ann/hello", "")
	used := func() (n, direct int32) {
		resp, err := cl.Planner().ListExecutors(t.Context(), &plannerv1.ListExecutorsRequest{})
		if err != nil || len(resp.GetExecutors()) != 1 {
			t.Fatal(resp, err)
		}
		return resp.GetExecutors()[0].GetSlotsUsed(), resp.GetExecutors()[0].GetDirectSlots()
	}
	spin, stop := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	for range 2 {
		wait.Go(func() {
			for spin.Err() == nil {
				_, err := cl.Invoke(spin, "ann/spin", nil, calling.Options{Timeout: 100 * time.Millisecond})
				if err != nil && spin.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	eventually(t, 20*time.Second, func() string {
		if n, direct := used(); n < 2 || direct != 2 {
			return fmt.Sprintf("%d slots are used, %d by direct calls", n, direct)
		}
		return ""
	})
	for range 5 { // it finds no slot there, and gets one by the queue
		if res, err := cl.Invoke(t.Context(), "ann/hello", nil, calling.Options{}); err != nil || string(res.Output) != "hello" {
			t.Errorf("%+v %v", res, err)
		}
	}
	stop()
	wait.Wait()
	eventually(t, 20*time.Second, func() string {
		if n, direct := used(); n != 0 || direct != 0 {
			return fmt.Sprintf("%d slots are used, %d by direct calls", n, direct)
		}
		return ""
	})
}

// Executors that leave fail no call, and those that are killed only what ran there.
func TestRoutedWithoutExecutor(t *testing.T) {
	c := cluster.Processes(t, cluster.Options{Executors: 2})
	cl := dialClient(t, c)
	upload(t, c, "eve", "hello")
	routed(t, cl, "eve/hello", "")
	var over, mayLose atomic.Bool
	var direct, lost atomic.Int64
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for !over.Load() {
				res, err := cl.Invoke(t.Context(), "eve/hello", nil, calling.Options{})
				switch {
				case err != nil:
					t.Error(status.Convert(err).Message(), err)
					return
				case res.Reason == "EXECUTOR_LOST" && mayLose.Load():
					lost.Add(1)
				case strings.TrimSpace(string(res.Output)) != "hello":
					t.Errorf("%+v", res)
					return
				case res.Routed:
					direct.Add(1)
				}
			}
		})
	}
	for i := range 6 {
		p, before := c.Executors[i%2], direct.Load()
		if i < 4 {
			p.Terminate()
			p.AwaitEnd()
		} else {
			mayLose.Store(true)
			p.Kill()
		}
		p.Start()
		attached(t, c, 2)
		eventually(t, 20*time.Second, func() string {
			if t.Failed() || direct.Load() > before+100 {
				return ""
			}
			return "no call goes past the planner"
		})
	}
	over.Store(true)
	wait.Wait()
	t.Logf("%d calls, %d lost", direct.Load(), lost.Load())
}
