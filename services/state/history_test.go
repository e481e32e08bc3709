package state

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/anishathalye/porcupine"
	"github.com/rs/zerolog"
	"google.golang.org/protobuf/types/known/durationpb"

	"skein.dev/platform/fault"
	"skein.dev/platform/service"
	"skein.dev/platform/subprocess"
	statev1 "skein.dev/proto/skein/state/v1"

	"skein.dev/platform/redistest"
)

// TestMain lets a test start processes of its own: this program, told by STATE_TEST_ROLE what to be.
func TestMain(m *testing.M) {
	switch os.Getenv("STATE_TEST_ROLE") {
	case "state":
		cfg := DefaultConfig()
		cfg.RedisURL = os.Getenv("STATE_TEST_REDIS")
		base := service.DefaultConfig()
		base.Name, base.Listen, base.Quiet = "state", os.Getenv("STATE_TEST_LISTEN"), true
		if err := service.Run(context.Background(), base, cfg.Start); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case "holder":
		holder(os.Getenv("STATE_TEST_LISTEN"))
	default:
		flag.Parse()
		os.Exit(m.Run())
	}
}

// process is this program in a role, which can be killed and started again.
type process struct {
	t   *testing.T
	env []string
	cmd *exec.Cmd
	out io.ReadCloser
	in  io.WriteCloser
}

func startProcess(t *testing.T, env ...string) *process {
	p := &process{t: t, env: env}
	p.start()
	t.Cleanup(p.kill)
	return p
}

func (p *process) start() {
	p.t.Helper()
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), p.env...)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = subprocess.Bound(syscall.SysProcAttr{})
	p.out, _ = p.cmd.StdoutPipe()
	p.in, _ = p.cmd.StdinPipe()
	if err := p.cmd.Start(); err != nil {
		p.t.Error(err)
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func freeAddr(t *testing.T) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lis.Close() }()
	return lis.Addr().String()
}

// suite is two state processes, each with a way of its own to one Redis.
type suite struct {
	redis   *redistest.Server
	proxies [2]*toxiproxy.Proxy
	states  [2]*process
	clients [2]statev1.StateServiceClient
}

func startSuite(t *testing.T) *suite {
	s := &suite{redis: redistest.Start(t, "--appendfsync", *fsync)}
	nobody := zerolog.Nop()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), nobody)
	for i := range s.states {
		s.proxies[i] = toxiproxy.NewProxy(server, fmt.Sprint("redis", i), freeAddr(t), s.redis.Addr)
		if err := s.proxies[i].Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.proxies[i].Stop)
		addr := freeAddr(t)
		s.states[i] = startProcess(t, "STATE_TEST_ROLE=state", "STATE_TEST_LISTEN="+addr, "STATE_TEST_REDIS=redis://"+s.proxies[i].Listen)
		conn, err := service.Connect(addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		s.clients[i] = statev1.NewStateServiceClient(conn)
	}
	return s
}

// input and output of an operation on a value.
type input struct {
	op       string
	key      string
	expected int64
	data     string
}

type output struct {
	reason  string // why not
	version int64
	data    string // of a get
	offset  int64  // of an append; the sum of an add
}

// value is what porcupine thinks a value is.
type value struct {
	exists  bool
	version int64
	data    string
	sum     int64
}

var model = porcupine.Model{
	Init: func() any { return value{} },
	Partition: func(history []porcupine.Operation) (all [][]porcupine.Operation) {
		keys := map[string][]porcupine.Operation{}
		for _, o := range history {
			keys[o.Input.(input).key] = append(keys[o.Input.(input).key], o)
		}
		for _, part := range keys {
			all = append(all, part)
		}
		return all
	},
	Step:              func(state, in, out any) (bool, any) { return step(state.(value), in.(input), out.(output)) },
	DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v -> %+v", in, out) },
}

// step says whether a value in a state may answer so, and what it is then.
func step(v value, in input, out output) (bool, value) {
	changed := func(data string) (bool, value) {
		return out.reason == "" && out.version > v.version, value{true, out.version, data, v.sum}
	}
	switch in.op {
	case "get":
		if !v.exists {
			return out.reason == "NO_VALUE", v
		}
		return out.reason == "" && out.version == v.version && out.data == v.data, v
	case "set":
		return changed(in.data)
	case "cas":
		if now := v.version; in.expected != now && v.exists || in.expected != 0 && !v.exists {
			return out.reason == "CAS_MISMATCH", v
		}
		return changed(in.data)
	case "append":
		ok, next := changed(v.data + in.data)
		return ok && out.offset == int64(len(v.data)), next
	case "delete":
		if !v.exists {
			return out.reason == "NO_VALUE", v
		}
		return out.reason == "", value{version: v.version}
	case "add":
		v.sum += in.expected
		return out.reason == "" && out.version > v.version && out.offset == v.sum, value{true, out.version, "", v.sum}
	}
	return false, v
}

// do carries an operation out until it is known how it ended: it is repeated with its request id, here or there.
func (s *suite) do(ctx context.Context, in input, id string) (out output, err error) {
	for n := rand.N(2); ; n++ {
		tryCtx, cancel := context.WithTimeout(ctx, 5*time.Second)
		out, err = try(tryCtx, s.clients[n%2], in, id)
		cancel()
		e := fault.From(err)
		if e == nil {
			return out, nil
		}
		switch e.Kind {
		case fault.Unavailable, fault.Timeout, fault.Cancelled:
			if ctx.Err() != nil {
				return out, err
			}
			time.Sleep(20 * time.Millisecond)
			continue
		}
		if e.Reason == "NO_VALUE" || e.Reason == "CAS_MISMATCH" {
			return output{reason: e.Reason}, nil
		}
		return out, err
	}
}

func try(ctx context.Context, c statev1.StateServiceClient, in input, id string) (out output, err error) {
	const user = "ann"
	key := []byte(in.key)
	var info *statev1.ValueInfo
	switch in.op {
	case "get":
		var r *statev1.GetValueResponse
		r, err = c.GetValue(ctx, &statev1.GetValueRequest{User: user, Key: key})
		info, out.data = r.GetInfo(), string(r.GetData())
	case "set":
		var r *statev1.SetValueResponse
		r, err = c.SetValue(ctx, &statev1.SetValueRequest{User: user, Key: key, Data: []byte(in.data), RequestId: id})
		info = r.GetInfo()
	case "cas":
		var r *statev1.CompareAndSetResponse
		r, err = c.CompareAndSet(ctx, &statev1.CompareAndSetRequest{User: user, Key: key, Data: []byte(in.data), ExpectedVersion: in.expected, RequestId: id})
		info = r.GetInfo()
	case "append":
		var r *statev1.AppendValueResponse
		r, err = c.AppendValue(ctx, &statev1.AppendValueRequest{User: user, Key: key, Data: []byte(in.data), RequestId: id})
		info, out.offset = r.GetInfo(), r.GetOffset()
	case "add":
		var r *statev1.AddInt64Response
		r, err = c.AddInt64(ctx, &statev1.AddInt64Request{User: user, Key: key, Delta: in.expected, RequestId: id})
		info, out.offset = r.GetInfo(), r.GetValue()
	case "delete":
		_, err = c.DeleteValue(ctx, &statev1.DeleteValueRequest{User: user, Key: key, RequestId: id})
	}
	out.version = info.GetVersion()
	return out, err
}

// faults happen one after another until the context ends; afterwards all is well.
func (s *suite) faults(ctx context.Context, t *testing.T) {
	pause := func(d time.Duration) {
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
	}
	toxic := func(i int, json string) {
		if _, err := s.proxies[i].Toxics.AddToxicJson(strings.NewReader(json)); err != nil {
			t.Error(err)
		}
		pause(500 * time.Millisecond)
		s.proxies[i].Toxics.ResetToxics(context.WithoutCancel(ctx))
	}
	all := map[string]func(){
		"redis killed": func() { s.redis.Kill(); s.redis.Start(t) },
		"redis stopped": func() {
			s.redis.Pause(t)
			pause(1200 * time.Millisecond)
			s.redis.Resume(t)
		},
		"redis paused": func() { s.redis.Says("CLIENT PAUSE 400 ALL") },
		"state killed": func() { p := s.states[rand.N(2)]; p.kill(); p.start() },
		"cut off": func() {
			toxic(rand.N(2), `{"name":"cut","type":"timeout","stream":"downstream","attributes":{"timeout":0}}`)
		},
		"reset": func() {
			toxic(rand.N(2), `{"name":"reset","type":"reset_peer","stream":"downstream","attributes":{"timeout":20}}`)
		},
		"slow": func() { toxic(rand.N(2), `{"name":"slow","type":"latency","attributes":{"latency":150,"jitter":100}}`) },
	}
	for ctx.Err() == nil {
		for name, fault := range all { // in a random order
			if ctx.Err() == nil {
				t.Log(name)
				fault()
				pause(300 * time.Millisecond)
			}
		}
	}
}

// With everysec Redis defers writes while its disk is slow, so that a kill may lose what was acknowledged; see docs/guarantees.md.
var fsync = flag.String("appendfsync", "always", "how Redis writes in TestHistories")

var historyTime = flag.Duration("history", 8*time.Second, "how long TestHistories lets faults happen")

// What clients see of values while Redis and state are killed, stopped, cut off and slow has an order in which it could have
// happened one after another.
func TestHistories(t *testing.T) {
	s := startSuite(t)
	ctx, cancel := context.WithTimeout(t.Context(), *historyTime)
	defer cancel()
	var mu sync.Mutex
	var history []porcupine.Operation
	began := time.Now()
	var wg sync.WaitGroup
	for w := range 5 {
		wg.Go(func() {
			known := map[string]int64{}
			for n := 0; ctx.Err() == nil; n++ {
				in := input{op: []string{"get", "get", "set", "cas", "cas", "append", "append", "delete"}[rand.N(8)], key: fmt.Sprint("k", rand.N(3)), data: fmt.Sprintf("%d.%d,", w, n)}
				if rand.N(5) == 0 {
					in = input{op: "add", key: "sum", expected: int64(rand.Uint64())}
				}
				if in.op == "cas" {
					in.expected = known[in.key]
				}
				call := time.Since(began)
				out, err := s.do(t.Context(), in, fmt.Sprintf("%d/%d", w, n))
				if err != nil {
					t.Errorf("%+v: %v", in, err)
					return
				}
				known[in.key] = out.version
				mu.Lock()
				history = append(history, porcupine.Operation{ClientId: w, Input: in, Call: int64(call), Output: out, Return: int64(time.Since(began))})
				mu.Unlock()
				time.Sleep(rand.N(20 * time.Millisecond))
			}
		})
	}
	s.faults(ctx, t)
	wg.Wait()
	result, info := porcupine.CheckOperationsVerbose(model, history, time.Minute)
	t.Logf("%d operations: %s", len(history), result)
	if result != porcupine.Ok {
		name := t.ArtifactDir() + "/history.html"
		t.Errorf("not linearizable, or too hard to tell; see %s (%v)", name, porcupine.VisualizePath(model, info, name))
	}
	if len(history) < 50 {
		t.Errorf("only %d operations", len(history))
	}
}

// A model that accepts everything would prove nothing.
func TestModel(t *testing.T) {
	op := func(in input, out output, call, ret int64) porcupine.Operation {
		return porcupine.Operation{Input: in, Output: out, Call: call, Return: ret}
	}
	for name, bad := range map[string][]porcupine.Operation{
		"stale read":   {op(input{op: "set", data: "a"}, output{version: 1}, 0, 1), op(input{op: "get"}, output{reason: "NO_VALUE"}, 2, 3)},
		"append twice": {op(input{op: "append", data: "a"}, output{version: 1}, 0, 1), op(input{op: "get"}, output{version: 1, data: "aa"}, 2, 3)},
		"lost append":  {op(input{op: "append", data: "a"}, output{version: 1}, 0, 1), op(input{op: "append", data: "b"}, output{version: 2}, 2, 3)},
		"both cas":     {op(input{op: "cas", data: "a"}, output{version: 1}, 0, 9), op(input{op: "cas", data: "b"}, output{version: 2}, 0, 9)},
		"version back": {op(input{op: "set", data: "a"}, output{version: 2}, 0, 1), op(input{op: "set", data: "a"}, output{version: 1}, 2, 3)},
		"added twice":  {op(input{op: "add", expected: 5}, output{version: 1, offset: 10}, 0, 1)},
	} {
		if porcupine.CheckOperations(model, bad) {
			t.Error("accepted:", name)
		}
	}
}

// Those who have the lock, and say so with each write, are alone: a counter that each reads and writes misses nothing.
func TestLockHistories(t *testing.T) {
	s := startSuite(t)
	ctx, cancel := context.WithTimeout(t.Context(), *historyTime)
	defer cancel()
	var mu sync.Mutex
	written, tokens := int64(0), map[int64]bool{}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				token, ok := s.increment(ctx, t, fmt.Sprintf("%d/%d", w, n))
				mu.Lock()
				if ok {
					written++
				}
				if token != 0 && tokens[token] {
					t.Error("given out twice:", token)
				}
				tokens[token] = true
				mu.Unlock()
			}
		})
	}
	s.faults(ctx, t)
	wg.Wait()
	out, err := s.do(t.Context(), input{op: "add", key: "k"}, "last")
	t.Logf("%d of %d holders wrote", written, len(tokens))
	if err != nil || out.offset != written || written == 0 {
		t.Errorf("the counter is %d after %d writes; %v", out.offset, written, err)
	}
}

// increment takes the lock, reads the counter, and writes it plus one. ok is that it did.
func (s *suite) increment(ctx context.Context, t *testing.T, id string) (token int64, ok bool) {
	c := s.clients[rand.N(2)]
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, token, err := hold(ctx, c, &statev1.HoldLockRequest{Patience: durationpb.New(5 * time.Second), Lease: durationpb.New(time.Second)})
	if err != nil {
		time.Sleep(20 * time.Millisecond)
		return 0, false
	}
	got, err := s.do(ctx, input{op: "get", key: "k"}, "")
	if err != nil {
		return token, false
	}
	var sum [8]byte
	copy(sum[:], got.data)
	for i := range sum { // plus one
		if sum[i]++; sum[i] != 0 {
			break
		}
	}
	time.Sleep(rand.N(10 * time.Millisecond))
	for n := 0; ; n++ { // until it is known whether it was written
		_, err = s.clients[n%2].SetValue(t.Context(), &statev1.SetValueRequest{
			User: "ann", Key: []byte("k"), Data: sum[:], RequestId: id, Fence: &statev1.Fence{Key: []byte("k"), Token: token},
		})
		e := fault.From(err)
		if e == nil || e.Reason == "FENCED" {
			break
		}
		if e.Kind != fault.Unavailable {
			t.Error(err)
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	_ = stream.CloseSend()
	_, _ = stream.Recv() // it is free
	return token, err == nil
}

// holder takes a lock, keeps it by beats, says its token, and, when told to, writes 100 times with it and says how many were refused.
func holder(addr string) {
	conn, err := service.Connect(addr)
	if err != nil {
		panic(err)
	}
	c, ctx := statev1.NewStateServiceClient(conn), context.Background()
	stream, token, err := hold(ctx, c, &statev1.HoldLockRequest{Lease: durationpb.New(time.Second)})
	if err != nil {
		panic(err)
	}
	go func() {
		for stream.Send(&statev1.HoldLockRequest{}) == nil {
			time.Sleep(300 * time.Millisecond)
		}
	}()
	fmt.Println("holds", token)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		refused := 0
		for range 100 {
			_, err := c.SetValue(ctx, &statev1.SetValueRequest{User: "ann", Key: []byte("k"), Data: []byte("stale"), Fence: &statev1.Fence{Key: []byte("k"), Token: token}})
			if e := fault.From(err); e != nil && e.Reason == "FENCED" {
				refused++
			}
		}
		_, err := stream.Recv()
		fmt.Println("refused", refused, fault.From(err).Reason)
	}
}

// A holder that was frozen beyond its lease can write nothing when it wakes.
func TestFrozenHolder(t *testing.T) {
	addr := serve(t, "redis://"+redistest.Start(t).Addr)
	conn, err := service.Connect(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	c, ctx := statev1.NewStateServiceClient(conn), t.Context()
	p := startProcess(t, "STATE_TEST_ROLE=holder", "STATE_TEST_LISTEN="+addr)
	out := bufio.NewScanner(p.out)
	if !out.Scan() || !strings.HasPrefix(out.Text(), "holds ") {
		t.Fatal(out.Text(), out.Err())
	}
	_, _, err = hold(ctx, c, &statev1.HoldLockRequest{Patience: durationpb.New(1500 * time.Millisecond)})
	reason(t, "held by beats", err, fault.Timeout, "LOCK_TIMEOUT")
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	_, token, err := hold(ctx, c, &statev1.HoldLockRequest{Patience: durationpb.New(time.Minute), Lease: durationpb.New(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.SetValue(ctx, &statev1.SetValueRequest{User: "ann", Key: []byte("k"), Data: []byte("fresh"), Fence: &statev1.Fence{Key: []byte("k"), Token: token}})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(p.in, "write\n")
	if !out.Scan() || out.Text() != "refused 100 LOCK_LOST" {
		t.Error(out.Text(), out.Err())
	}
	got, err := c.GetValue(ctx, &statev1.GetValueRequest{User: "ann", Key: []byte("k")})
	if err != nil || string(got.GetData()) != "fresh" {
		t.Errorf("%q %v", got.GetData(), err)
	}
}
