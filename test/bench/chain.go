package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"

	"google.golang.org/grpc"

	plannerv1 "skein.dev/proto/skein/planner/v1"
)

// caller is the function that calls others: test/cluster/testdata/calls.c.
const caller = "calls"

// callers uploads the function that calls others.
func (w *world) callers(ctx context.Context) (upload *process, err error) {
	if upload, err = w.upload(ctx); err != nil || w.callsDigest != [32]byte{} {
		return upload, err
	}
	if _, err := exec.LookPath("clang"); err != nil {
		return nil, fmt.Errorf("%w: no clang, which builds the function that calls others", errSkip)
	}
	wasm, err := compileC(ctx, w.root, "test/cluster/testdata/calls.c", filepath.Join(w.dir, "calls.wasm"))
	if err != nil {
		return nil, err
	}
	w.callsDigest = sha256.Sum256(wasm)
	return upload, register(ctx, upload, caller, wasm)
}

// cluster is a planner and executors of its own.
type cluster struct {
	planner   *process
	executors []*process
	upload    *process
}

// others are all but the planner.
func (c *cluster) others() []*process { return append([]*process{c.upload}, c.executors...) }

// cluster starts a planner and an executor for each of slots.
func (w *world) cluster(ctx context.Context, name string, slots []int, args ...string) (*cluster, error) {
	upload, err := w.callers(ctx)
	if err != nil {
		return nil, err
	}
	c := &cluster{upload: upload}
	if c.planner, err = w.service(ctx, name+"-planner", "planner", append(args, "--upload", upload.addr)...); err != nil {
		return nil, err
	}
	for i, n := range slots {
		x := fmt.Sprint(name, "-", i)
		p, err := w.service(ctx, x, "executor", "--planner", c.planner.addr, "--bucket", w.bucket(), "--name", x, "--slots", strconv.Itoa(n),
			"--state", upload.addr, "--fs", upload.addr)
		if err != nil {
			return nil, err
		}
		c.executors = append(c.executors, p)
	}
	return c, attached(ctx, c.planner, len(slots), -1)
}

// hold has an executor load a function's module by a call that it gets directly. Placement prefers who holds it, and a call
// starts its children where it runs only if their module is there.
func hold(ctx context.Context, p *process, op func(*grpc.ClientConn) func(context.Context) error) error {
	conn, err := dial(p.addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return soon(ctx, op(conn))
}

// apart is a cluster whose first executor holds the caller, and the others what it calls: they run nothing else.
func (w *world) apart(ctx context.Context, name string, slots []int) (*cluster, error) {
	c, err := w.cluster(ctx, name, slots)
	if err != nil {
		return nil, err
	}
	leaf := runOf(caller, w.callsDigest, []byte("leaf"), []byte("1"))
	for i, p := range c.executors {
		op := leaf
		if i > 0 {
			op = w.run
		}
		if err := hold(ctx, p, op); err != nil {
			return nil, err
		}
	}
	return c, attached(ctx, c.planner, len(slots), len(slots))
}

// together is a cluster whose executors all hold both.
func (w *world) together(ctx context.Context, name string, slots []int, args ...string) (*cluster, error) {
	c, err := w.cluster(ctx, name, slots, args...)
	if err != nil {
		return nil, err
	}
	for _, p := range c.executors {
		if err := cmp.Or(hold(ctx, p, runOf(caller, w.callsDigest, []byte("leaf"), []byte("1"))), hold(ctx, p, w.run)); err != nil {
			return nil, err
		}
	}
	return c, attached(ctx, c.planner, len(slots), 2*len(slots))
}

// ranApart checks where the newest calls of the echo ran: on each of the executors but the first.
func ranApart(ctx context.Context, c *cluster, calls int) error {
	conn, err := dial(c.planner.addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	resp, err := plannerv1.NewPlannerServiceClient(conn).ListCalls(ctx, &plannerv1.ListCallsRequest{PageSize: int32(calls)})
	if err != nil {
		return err
	}
	where := map[string]int{}
	for _, call := range resp.GetCalls() {
		if call.GetFunction() == user+"/"+function {
			where[call.GetExecutor()]++
		}
	}
	for i, p := range c.executors {
		if (where[p.name] > 0) != (i > 0) {
			return fmt.Errorf("the called ran on %v, which is not what is measured", where)
		}
	}
	return nil
}

// chainRemote is a guest that chains the echo on another executor and awaits it, a hundred times.
func chainRemote(ctx context.Context, w *world, clients int) (ours, bare side, err error) {
	c, err := w.apart(ctx, "chain", []int{4, 4})
	if err != nil {
		return side{}, side{}, err
	}
	return w.versusEcho(ctx, c, "loop 100 echo", "100", 100, clients)
}

// fanoutRemote is a guest that chains a thousand echoes, which run on four other executors, and awaits them all, against a
// thousand RPCs at the same time.
func fanoutRemote(ctx context.Context, w *world, _ int) (ours, bare side, err error) {
	c, err := w.apart(ctx, "fanout", []int{4, 250, 250, 250, 250})
	if err != nil {
		return side{}, side{}, err
	}
	return w.versusEcho(ctx, c, "fan 1000 echo", "1000", 1000, 0)
}

// versusEcho compares calls of the caller, each of which makes so many, with as many RPCs: one after the other by each of
// the clients, or all at once if there are none.
func (w *world) versusEcho(ctx context.Context, c *cluster, input, answer string, each, clients int) (ours, bare side, err error) {
	if ours, err = overGRPC(c.planner, max(clients, 1), invokeOf(caller, []byte(input), []byte(answer)), c.others()...); err != nil {
		return side{}, side{}, err
	}
	ours.each = each
	if err := cmp.Or(ours.clients[0](ctx), ranApart(ctx, c, each)); err != nil {
		return side{}, side{}, err
	}
	if clients > 0 {
		bare, err = w.bareGRPC(ctx, clients)
		return ours, bare, err
	}
	if bare, err = w.bareGRPC(ctx, 1); err == nil {
		bare.each, bare.clients[0] = each, all(each, bare.clients[0])
	}
	return ours, bare, err
}

// all does n at the same time.
func all(n int, op func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		errs := make([]error, n)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { errs[i] = op(ctx) })
		}
		wg.Wait()
		return cmp.Or(errs...)
	}
}

// shape is a tree of calls: what its roots are asked and answer, and how many calls each is with all below it.
type shape struct {
	name         string
	slots        []int
	roots        int // at the same time
	input, count string
	calls        int
	args         []string // of the planner
}

// flat compares trees of calls with as many calls from outside, which do what a leaf does, on the same executors.
func flat(s shape) func(context.Context, *world, int) (ours, bare side, err error) {
	return func(ctx context.Context, w *world, _ int) (ours, bare side, err error) {
		c, err := w.together(ctx, s.name, s.slots, s.args...)
		if err != nil {
			return side{}, side{}, err
		}
		if ours, err = overGRPC(c.planner, s.roots, invokeOf(caller, []byte(s.input), []byte(s.count)), c.others()...); err != nil {
			return side{}, side{}, err
		}
		ours.each = s.calls
		const clients = 64 // more than there are slots: none is ever idle for want of a call
		bare, err = overGRPC(c.planner, clients, invokeOf(caller, []byte("leaf 0"), []byte("1")), c.others()...)
		return ours, bare, err
	}
}

// treeRows are trees on few slots. The whole ones are what must be shown to end (test/tree_test.go); without -long the two
// that take long are smaller.
func treeRows(long bool) []bench {
	depth, children, below := 11, 100, 1<<12-1
	if long {
		depth, children, below = 14, 1000, 1<<15-1
	}
	shapes := []shape{
		{name: "tree.chain", slots: []int{1}, roots: 1, input: "deep 32", count: "33", calls: 33},
		{name: "tree.fan", slots: []int{4, 4}, roots: 100, input: fmt.Sprintf("fan %d echo", children), count: strconv.Itoa(children), calls: children + 1},
		{name: "tree.binary", slots: []int{2}, roots: 1, input: fmt.Sprint("tree ", depth), count: strconv.Itoa(below), calls: below, args: []string{"--tree-calls", "40000"}},
	}
	rows := make([]bench, len(shapes))
	for i, s := range shapes {
		rows[i] = bench{name: s.name, clients: s.roots, goal: goal{most: 1 / 0.8}, sides: flat(s)}
	}
	return rows
}
