package test

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	plannerv1 "skein.dev/proto/skein/planner/v1"
	"skein.dev/test/cluster"
)

var full = flag.Bool("full", false, "trees of calls at their full sizes: a hundred thousand calls")

// ask calls the function of testdata/calls.c, which must answer so many.
func ask(t *testing.T, c *cluster.Cluster, input string, want int) answer {
	t.Helper()
	a, err := tryRequest(t.Context(), c, http.MethodPost, "/v1/invoke/ann/calls?timeout=10m", []byte(input))
	if err != nil || a.status != http.StatusOK || string(a.body) != strconv.Itoa(want) {
		t.Errorf("%s: want %d, got %s, %v", input, want, a, err)
	}
	return a
}

// idle waits until no slot is in use, and looks at the sums of the newest call from outside.
func idle(t *testing.T, c *cluster.Cluster, calls int) {
	t.Helper()
	eventually(t, 20*time.Second, func() string {
		var list struct{ Executors []struct{ SlotsUsed int } }
		if err := json.Unmarshal(want(t, 200, c, http.MethodGet, "/v1/executors", nil).body, &list); err != nil {
			t.Fatal(err)
		}
		for _, x := range list.Executors {
			if x.SlotsUsed != 0 {
				return fmt.Sprintf("%+v", list.Executors)
			}
		}
		return ""
	})
	var newest struct{ Calls []struct{ RootID string } }
	if err := json.Unmarshal(want(t, 200, c, http.MethodGet, "/v1/calls?user=ann&page_size=1", nil).body, &newest); err != nil {
		t.Fatal(err)
	}
	var root struct {
		Totals struct{ Calls, Alive, Failed string }
	}
	graph := want(t, 200, c, http.MethodGet, "/v1/calls/"+newest.Calls[0].RootID+"/graph", nil).body
	if err := json.Unmarshal(graph, &root); err != nil {
		t.Fatal(err)
	}
	if sums := root.Totals; sums.Calls != strconv.Itoa(calls) || sums.Alive != "0" || sums.Failed != "0" {
		t.Errorf("the sums of the last tree are %+v, not those of %d calls that went well", sums, calls)
	}
}

// A chain of 33 calls, each of which waits for the next, on one slot.
func TestTreeChainOnOneSlot(t *testing.T) {
	c := cluster.Processes(t, cluster.Options{ExecutorArgs: []string{"--slots", "1"}})
	upload(t, c, "ann", "calls")
	ask(t, c, "deep 32", 33)
	idle(t, c, 33)
}

// A hundred parents at the same time, each of a thousand children, on eight slots of two executors.
func TestTreeFanOnEightSlots(t *testing.T) {
	const parents = 100
	children := 50
	if *full {
		children = 1000
	}
	c := cluster.Processes(t, cluster.Options{Executors: 2, ExecutorArgs: []string{"--slots", "4"}})
	upload(t, c, "ann", "calls", "echo-c")
	var wait sync.WaitGroup
	for range parents {
		wait.Go(func() { ask(t, c, fmt.Sprintf("fan %d echo-c", children), children) })
	}
	wait.Wait()
	idle(t, c, 1+children)
}

// A binary tree of depth 14 on two slots: 32,767 calls in one tree, more than a planner allows unless told.
func TestTreeBinaryOnTwoSlots(t *testing.T) {
	depth := 9
	if *full {
		depth = 14
	}
	calls := 1<<(depth+1) - 1
	c := cluster.Processes(t, cluster.Options{ExecutorArgs: []string{"--slots", "2"}, PlannerArgs: []string{"--tree-calls", strconv.Itoa(calls)}})
	upload(t, c, "ann", "calls")
	ask(t, c, fmt.Sprint("tree ", depth), calls)
	idle(t, c, calls)
	if a := request(t, c, http.MethodPost, "/v1/invoke/ann/calls", fmt.Append(nil, "tree ", depth+1)); a.status != http.StatusBadGateway { // the guest was refused a child, and says so
		t.Errorf("a tree larger than the planner was told to allow: %s", a)
	}
}

// A call that makes a thousand, over four executors of 250 slots: they travel together, not one to a message.
func TestFanOutTravelsInBatches(t *testing.T) {
	front := &front{}
	c := cluster.Processes(t, cluster.Options{
		Executors: 4, ExecutorArgs: []string{"--slots", "250"}, Front: func(planner string) string { return front.start(t, planner) },
	})
	upload(t, c, "ann", "calls", "echo-c")
	for range 3 {
		ask(t, c, "fan 1000 echo-c", 1000)
	}
	idle(t, c, 1001)
	const calls = 3 * 1001
	t.Logf("%d calls: assignments %s, spawns %s, outcomes %s, outcomes for parents %s", calls, &front.assignments, &front.spawns, &front.outcomes, &front.childOutcomes)
	for what, n := range map[string]*traffic{"assignments": &front.assignments, "spawns": &front.spawns, "outcomes": &front.outcomes} {
		if messages, items := n.messages.Load(), n.items.Load(); items == 0 || messages > items/8 {
			t.Errorf("%d messages for %d %s", messages, items, what)
		}
	}
	if front.executors.Load() != 4 {
		t.Errorf("the calls went to %d executors", front.executors.Load())
	}
}

// front stands between executors and their planner, passes on what they say and counts it.
type front struct {
	plannerv1.UnimplementedDispatchServiceServer
	planner                                      plannerv1.DispatchServiceClient
	assignments, spawns, outcomes, childOutcomes traffic
	executors                                    atomic.Int64 // that were given calls
}

// traffic is how many messages of a kind there were, and how many things were in them.
type traffic struct{ messages, items atomic.Int64 }

func (n *traffic) add(items int) {
	if items > 0 {
		n.messages.Add(1)
		n.items.Add(int64(items))
	}
}

func (n *traffic) String() string {
	return fmt.Sprintf("%d in %d messages", n.items.Load(), n.messages.Load())
}

func (f *front) start(t *testing.T, planner string) string {
	t.Helper()
	conn, err := grpc.NewClient(planner, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	f.planner = plannerv1.NewDispatchServiceClient(conn)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	plannerv1.RegisterDispatchServiceServer(s, f)
	go func() { _ = s.Serve(lis) }()
	t.Cleanup(func() { s.Stop(); _ = conn.Close() })
	return lis.Addr().String()
}

func (f *front) Attach(executor grpc.BidiStreamingServer[plannerv1.AttachRequest, plannerv1.AttachResponse]) error {
	planner, err := f.planner.Attach(executor.Context())
	if err != nil {
		return err
	}
	go func() {
		for {
			m, err := executor.Recv()
			if err != nil {
				_ = planner.CloseSend()
				return
			}
			f.spawns.add(len(m.GetSpawns().GetSpawns()))
			f.outcomes.add(len(m.GetOutcomes().GetOutcomes()))
			if planner.Send(m) != nil {
				return // Recv says why
			}
		}
	}()
	given := false
	for {
		m, err := planner.Recv()
		if err != nil {
			return err
		}
		n := len(m.GetAssignments().GetAssignments())
		if n > 0 && !given {
			given = true
			f.executors.Add(1)
		}
		f.assignments.add(n)
		f.childOutcomes.add(len(m.GetChildOutcomes().GetOutcomes()))
		if err := executor.Send(m); err != nil {
			return err
		}
	}
}
