package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	callv1 "skein.dev/proto/skein/call/v1"
	plannerv1 "skein.dev/proto/skein/planner/v1"
)

// storage is what applications keep things in, once for all of them.
type storage struct {
	redis, state, fs, upload *process
}

func (s *storage) procs() []*process { return []*process{s.redis, s.state, s.fs, s.upload} }

// storage starts a Redis that keeps what it has, and the services over it.
func (w *world) storage(ctx context.Context) (s *storage, err error) {
	if _, err := exec.LookPath("clang"); err != nil {
		return nil, fmt.Errorf("%w: no clang, which builds the applications", errSkip)
	}
	s = &storage{}
	if s.upload, err = w.upload(ctx); err != nil {
		return nil, err
	}
	if s.redis, err = w.redis(ctx, "redis"); err != nil {
		return nil, err
	}
	if s.state, err = w.service(ctx, "state", "state", "--redis-url", "redis://"+s.redis.addr); err != nil {
		return nil, err
	}
	s.fs, err = w.service(ctx, "fs", "fs", "--bucket", w.bucket()) // as the others, only if it does not run yet
	return s, err
}

// moved is how many bytes Redis has been sent and has sent.
func moved(redis *process) (bytes int64, err error) {
	conn, err := net.DialTimeout("tcp", redis.addr, time.Second)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	if _, err := fmt.Fprint(conn, "INFO stats\r\nQUIT\r\n"); err != nil {
		return 0, err
	}
	found := 0
	for in := bufio.NewScanner(conn); in.Scan(); {
		name, value, _ := strings.Cut(in.Text(), ":")
		if name == "total_net_input_bytes" || name == "total_net_output_bytes" {
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return 0, err
			}
			bytes, found = bytes+n, found+1
		}
	}
	if found != 2 {
		return 0, fmt.Errorf("redis at %s does not tell what it moves", redis.addr)
	}
	return bytes, nil
}

// during gives how many bytes Redis moves while op runs.
func (s *storage) during(op func() error) (int64, error) {
	before, err := moved(s.redis)
	if err != nil {
		return 0, err
	}
	if err := op(); err != nil {
		return 0, err
	}
	after, err := moved(s.redis)
	return after - before, err
}

// cluster is a planner and executors over the storage. args are the executors'.
func (s *storage) cluster(ctx context.Context, w *world, name string, slots []int, args ...string) (*cluster, error) {
	c := &cluster{upload: s.upload}
	var err error
	if c.planner, err = w.planner(ctx, name+"-planner", "--upload", s.upload.addr); err != nil {
		return nil, err
	}
	for i, n := range slots {
		x := fmt.Sprint(name, "-", i)
		p, err := w.service(ctx, x, "executor", append(args, "--planner", c.planner.addr, "--bucket", w.bucket(), "--name", x, "--slots", strconv.Itoa(n),
			"--state", s.state.addr, "--fs", s.fs.addr)...)
		if err != nil {
			return nil, err
		}
		c.executors = append(c.executors, p)
	}
	return c, attached(ctx, c.planner, len(slots), -1)
}

// output is a call's, which must succeed.
func output(ctx context.Context, conn *grpc.ClientConn, function, input string, args ...string) (string, error) {
	resp, err := plannerv1.NewPlannerServiceClient(conn).Invoke(ctx, &plannerv1.InvokeRequest{User: user, Function: function, Input: []byte(input), Args: args})
	if err == nil && resp.GetCall().GetState() != callv1.CallState_CALL_STATE_SUCCEEDED {
		err = fmt.Errorf("the call ended as %s: %s: %s", resp.GetCall().GetState(), resp.GetCall().GetReason(), resp.GetCall().GetMessage())
	}
	return string(resp.GetOutput()), err
}

// native builds a baseline in C and starts it. The answer to a request is a line.
func (w *world) native(ctx context.Context, name string, args ...string) (*process, func(request string) (string, error), error) {
	out := filepath.Join(w.dir, "native-"+name)
	cmd := exec.CommandContext(ctx, "clang", "-O3", "-pthread", "test/bench/testdata/"+name+".c", "-o", out, "-lm")
	cmd.Dir = w.root
	if msg, err := cmd.CombinedOutput(); err != nil {
		return nil, nil, fmt.Errorf("clang: %w\n%s", err, msg)
	}
	p, err := w.start(ctx, "native-"+name, out, args...)
	if err != nil {
		return nil, nil, err
	}
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		return nil, nil, err
	}
	lines := bufio.NewReader(conn)
	var mu sync.Mutex
	return p, func(request string) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		if _, err := fmt.Fprintln(conn, request); err != nil {
			return "", err
		}
		line, err := lines.ReadString('\n')
		return strings.TrimSpace(line), err
	}, nil
}

// The problem that app.sgd learns: 8 MiB of examples, and 2 MiB of weights.
const (
	sgdExamples, sgdFeatures, sgdNonzeros, sgdSeed = 32_768, 262_144, 32, 1
	sgdEpochs, sgdInterval                         = 2, sgdExamples // each function exchanges weights once
)

// training is one way to learn: with its side, and what is right of the examples in the end.
type training struct {
	side  side
	train func(context.Context) (right int64, err error)
	right int64
	moved int64
}

// sgd is a training of two epochs by 1, 2, 4 and 8 functions on two executors, which share the weights in mapped memory, against
// the same program in native code, in which each function gets all weights from the same Redis and sets them around each
// interval. Beside them, the same guest that gets and sets all weights through the state service, and native code whose one
// thread has everything in its own memory.
func sgd(ctx context.Context, w *world, name string) ([]row, error) {
	st, err := w.storage(ctx)
	if err != nil {
		return nil, err
	}
	wasm, err := compileC(ctx, w.root, "examples/sgd/c/sgd.c", filepath.Join(w.dir, "sgd.wasm"))
	if err != nil {
		return nil, err
	}
	if err := register(ctx, st.upload, "sgd", wasm); err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(st.redis.addr)
	baseline, ask, err := w.native(ctx, "sgd", port)
	if err != nil {
		return nil, err
	}
	native := func(mode string, workers int) *training {
		return &training{side: side{procs: []*process{baseline, st.redis}, close: func() {}}, train: func(context.Context) (int64, error) {
			answer, err := ask(fmt.Sprint(mode, " ", workers, " ", sgdEpochs, " ", sgdInterval, " ", sgdExamples, " ", sgdFeatures, " ", sgdNonzeros, " ", sgdSeed))
			if err != nil {
				return 0, err
			}
			return strconv.ParseInt(answer, 10, 64)
		}}
	}
	var rows []row
	for _, workers := range []int{1, 2, 4, 8} {
		c, err := st.cluster(ctx, w, fmt.Sprint("sgd-", workers), []int{(workers + 1) / 2, (workers + 1) / 2})
		if err != nil {
			return nil, err
		}
		conn, err := dial(c.planner.addr)
		if err != nil {
			return nil, err
		}
		all := []*training{
			st.guest(c, conn, workers, false), native("redis", workers), st.guest(c, conn, workers, true), native("shared", 1),
		}
		r, err := st.learn(ctx, w, fmt.Sprint(name, ".", workers), all)
		_ = conn.Close()
		if err != nil {
			return nil, err
		}
		w.end(append(c.executors, c.planner)...)
		rows = append(rows, r)
	}
	return rows, nil
}

// guest is a training by functions.
func (s *storage) guest(c *cluster, conn *grpc.ClientConn, workers int, copies bool) *training {
	mode := 0
	if copies {
		mode = 1
	}
	input := fmt.Sprintf("workers=%d epochs=%d interval=%d examples=%d features=%d nonzeros=%d seed=%d copy=%d",
		workers, sgdEpochs, sgdInterval, sgdExamples, sgdFeatures, sgdNonzeros, sgdSeed, mode)
	return &training{side: side{procs: append(s.procs(), append(c.executors, c.planner)...), close: func() {}}, train: func(ctx context.Context) (right int64, err error) {
		var text string
		err = soon(ctx, func(ctx context.Context) (err error) { text, err = output(ctx, conn, "sgd", input); return err })
		if err == nil {
			_, err = fmt.Sscanf(text, "%d of", &right)
		}
		return right, err
	}}
}

// learn compares the trainings: the first is ours, the second the bare one. A training that has learnt nothing ends the run.
func (s *storage) learn(ctx context.Context, w *world, name string, all []*training) (row, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	first, err := s.during(func() error { _, err := all[0].train(ctx); return err })
	if err != nil {
		return row{}, err
	}
	var sides []side
	for _, t := range all {
		t.side.clients = []func(context.Context) error{func(ctx context.Context) (err error) {
			if t.right, err = t.train(ctx); err == nil && t.right < sgdExamples*6/10 {
				err = fmt.Errorf("%w: only %d of %d examples are right", errWrong, t.right, sgdExamples)
			}
			return err
		}}
		sides = append(sides, t.side)
		for range 2 { // the first time all is moved to where it is needed
			if t.moved, err = s.during(func() error { return t.side.clients[0](ctx) }); err != nil {
				return row{}, err
			}
		}
	}
	rounds, err := alternate(ctx, w.cfg, sides...)
	if err != nil {
		return row{}, err
	}
	r := newRow(bench{name: name}, rounds)
	by := func(k int) string {
		return digits(spreadOver(rounds, func(b []burst) float64 { return b[0].perOp() / b[k].perOp() }).median)
	}
	mib := func(n int64) string { return digits(float64(n)/(1<<20)) + " MiB" }
	right := func(k int) string { return digits(100*float64(all[k].right)/sgdExamples) + " %" }
	r.details = fmt.Sprintf("Redis moves %s a training (the first one %s), bare %s, the guest that copies %s; right %s, bare %s, copying %s, native in one thread %s; "+
		"time by the guest that copies %s, by native in one thread %s",
		mib(all[0].moved), mib(first), mib(all[1].moved), mib(all[2].moved), right(0), right(1), right(2), right(3), by(2), by(3))
	return r, nil
}

// end ends processes that are not needed any more: they beat, and hold memory. Profiles are of all.
func (w *world) end(procs ...*process) {
	if w.cfg.profile != "" {
		return
	}
	w.order = slices.DeleteFunc(w.order, func(p *process) bool { return slices.Contains(procs, p) })
	for _, p := range procs {
		p.kill()
		delete(w.procs, p.name)
	}
}
