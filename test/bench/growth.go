package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
)

// study is a benchmark of more than two sides: what it costs to have more of something.
type study struct {
	name    string
	measure func(ctx context.Context, w *world, name string) ([]row, error)
}

var studies = []study{
	{"growth.functions", growthFunctions},
	{"growth.calls", growthCalls},
	{"growth.keys", growthKeys},
	{"scale.executors", scale},
	{"app.sgd", sgd},
	{"app.wordcount", wordcount},
	{"state.get.local", stateLocal},
	{"state.mapped", stateMapped},
	{"state.map", stateMap},
	{"state.get.remote", statePull},
	{"state.pull.chunk", statePullChunk},
	{"state.push", statePush},
	{"state.push.delta", statePushDelta},
	{"state.append", stateAppend},
	{"state.service", stateService},
	{"lock.handoff", lockHandOff},
}

// parallel does op n times, by several at once.
func parallel(ctx context.Context, n int, op func(ctx context.Context, i int) error) error {
	const workers = 32
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, workers)
	for k := range errs {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && errs[k] == nil; i = int(next.Add(1)) - 1 {
				errs[k] = op(ctx, i)
			}
		})
	}
	wg.Wait()
	return cmp.Or(errs...)
}

// called is how many of the functions are called in turn.
const called = 10

// growthFunctions is calls of ten functions where there are 10,000, each of which was called once, against the same where
// there are no others.
func growthFunctions(ctx context.Context, w *world, name string) ([]row, error) {
	const many = 10_000
	ours, err := w.registry(ctx, "many", many)
	if err != nil {
		return nil, err
	}
	defer ours.close()
	bare, err := w.registry(ctx, "few", called)
	if err != nil {
		return nil, err
	}
	defer bare.close()
	bursts, err := alternate(ctx, w.cfg, ours, bare)
	if err != nil {
		return nil, err
	}
	r := newRow(bench{name: name, clients: 1, goal: goal{most: 1.15}}, bursts)
	planner, executor := len(ours.procs)-1, 0 // as overGRPC orders them
	r.details = fmt.Sprintf("planner-RSS-MiB %s → %s, executor-RSS-MiB %s → %s, of %d → %d functions",
		digits(rss(bare.procs[planner])), digits(rss(ours.procs[planner])), digits(rss(bare.procs[executor])), digits(rss(ours.procs[executor])), called, many)
	return []row{r}, nil
}

// registry is a suite of its own that knows so many functions, which are all the echo, and has called each of them.
func (w *world) registry(ctx context.Context, name string, functions int) (side, error) {
	if _, err := w.upload(ctx); err != nil {
		return side{}, err
	}
	bucket := "file:" + filepath.Join(w.dir, "objects-"+name)
	upload, err := w.service(ctx, "upload-"+name, "upload", "--bucket", bucket)
	if err != nil {
		return side{}, err
	}
	named := func(i int) string { return fmt.Sprint("f", i) }
	if err := soon(ctx, func(ctx context.Context) error { return register(ctx, upload, named(0), w.wasm) }); err != nil {
		return side{}, err
	}
	if err := parallel(ctx, functions, func(ctx context.Context, i int) error { return register(ctx, upload, named(i), w.wasm) }); err != nil {
		return side{}, err
	}
	planner, err := w.planner(ctx, "planner-"+name, "--upload", upload.addr)
	if err != nil {
		return side{}, err
	}
	executor, err := w.service(ctx, "executor-"+name, "executor", "--planner", planner.addr, "--bucket", bucket, "--name", name, "--slots", slots,
		"--state", upload.addr, "--fs", upload.addr)
	if err != nil {
		return side{}, err
	}
	if err := attached(ctx, planner, 1, -1); err != nil {
		return side{}, err
	}
	turn := 0
	s, err := overGRPC(planner, 1, func(conn *grpc.ClientConn) func(context.Context) error {
		calls := make([]func(context.Context) error, functions)
		for i := range calls {
			calls[i] = invokeOf(named(i), payload, payload)(conn)
		}
		if err = parallel(ctx, functions, func(ctx context.Context, i int) error { return calls[i](ctx) }); err != nil {
			err = fmt.Errorf("the functions' first calls: %w", err)
		}
		return func(ctx context.Context) error {
			turn++
			return calls[turn%called](ctx)
		}
	}, executor, upload)
	return s, err
}

// growthCalls is calls where very many have ended, against the same where a thousand have.
func growthCalls(ctx context.Context, w *world, name string) ([]row, error) {
	many := 200_000
	if w.cfg.long {
		many = 1_000_000
	}
	const few = 1000
	ours, sizes, err := w.finished(ctx, "many-calls", few, many/4, many/2, many)
	if err != nil {
		return nil, err
	}
	defer ours.close()
	bare, _, err := w.finished(ctx, "few-calls", few)
	if err != nil {
		return nil, err
	}
	defer bare.close()
	bursts, err := alternate(ctx, w.cfg, ours, bare)
	if err != nil {
		return nil, err
	}
	r := newRow(bench{name: name, clients: 1, goal: goal{most: 1.10}}, bursts)
	r.details = fmt.Sprintf("planner-RSS-MiB %s after %d, %d, %d and %d calls; from the third to the last %s B a call",
		strings.Join([]string{digits(sizes[0]), digits(sizes[1]), digits(sizes[2]), digits(sizes[3])}, ", "), few, many/4, many/2, many,
		digits((sizes[3]-sizes[2])*(1<<20)/float64(many/2)))
	return []row{r}, nil
}

// finished is a planner through which so many calls went, and what it held resident, in MiB, after each of the numbers.
func (w *world) finished(ctx context.Context, name string, numbers ...int) (s side, sizes []float64, err error) {
	planner, others, err := w.fleet(ctx, name, 1, 1024)
	if err != nil {
		return side{}, nil, err
	}
	if s, err = overGRPC(planner, 1, invoke, others...); err != nil {
		return side{}, nil, err
	}
	done := 0
	for _, n := range numbers {
		if err := parallel(ctx, n-done, func(ctx context.Context, _ int) error { return s.clients[0](ctx) }); err != nil {
			s.close()
			return side{}, nil, err
		}
		done = n
		sizes = append(sizes, rss(planner))
	}
	return s, sizes, nil
}

// rss is what a process holds resident, in MiB; 0 if it is gone.
func rss(p *process) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kib / 1024
		}
	}
	return 0
}
