package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/types/known/durationpb"

	callv1 "skein.dev/proto/skein/call/v1"
	executorv1 "skein.dev/proto/skein/executor/v1"
	statev1 "skein.dev/proto/skein/state/v1"
)

// users is executors whose guests use state, and what that is compared with: the Redis under it. Guests run testdata/state.c,
// which does one thing many times and takes the time itself; what an executor does for a call and its memory is left out.
type users struct {
	*storage
	executors []executorv1.ExecutorServiceClient
	procs     []*process // the executors, and what they need for state
	digest    [32]byte
	db        *redis.Client
	closes    []func()
}

const (
	kib = 1 << 10
	mib = 1 << 20
)

// stateUsers are two executors that keep what they have had, or one that keeps a single value: a second makes the first cold.
func (w *world) stateUsers(ctx context.Context, cold bool) (u *users, err error) {
	u = &users{}
	if u.storage, err = w.storage(ctx); err != nil {
		return nil, err
	}
	wasm, err := compileC(ctx, w.root, "test/bench/testdata/state.c", filepath.Join(w.dir, "state.wasm"))
	if err != nil {
		return nil, err
	}
	u.digest = sha256.Sum256(wasm)
	if err := register(ctx, u.upload, "state", wasm); err != nil {
		return nil, err
	}
	name, slots, replicas := "users", []int{80, 80}, "1024"
	if cold {
		name, slots, replicas = "cold-user", []int{8}, "0"
	}
	c, err := u.cluster(ctx, w, name, slots, "--replicas", replicas, "--guest-memory", "256")
	if err != nil {
		return nil, err
	}
	u.db = redis.NewClient(&redis.Options{Addr: u.redis.addr, DisableIdentity: true, ReadTimeout: time.Minute, WriteTimeout: time.Minute})
	u.closes = append(u.closes, func() { _ = u.db.Close() })
	for _, p := range c.executors {
		conn, err := dial(p.addr)
		if err != nil {
			u.close()
			return nil, err
		}
		u.closes = append(u.closes, func() { _ = conn.Close() })
		u.executors = append(u.executors, executorv1.NewExecutorServiceClient(conn))
	}
	u.procs = append([]*process{u.redis, u.state}, c.executors...)
	return u, nil
}

func (u *users) close() {
	for _, f := range u.closes {
		f()
	}
}

// guest is a call on an executor: how long it took what it did, and the number that it gives.
func (u *users) guest(ctx context.Context, executor int, input string) (took time.Duration, number int64, err error) {
	var id [16]byte
	_, _ = rand.Read(id[:])
	resp, err := u.executors[executor].Run(ctx, &executorv1.RunRequest{Assignment: &callv1.Assignment{
		CallId: id[:], User: user, Function: "state", Version: 1, Digest: u.digest[:], Input: []byte(input),
		Timeout: durationpb.New(time.Minute), Attempt: 1,
	}})
	if o := resp.GetOutcome(); err == nil && o.GetState() != callv1.CallState_CALL_STATE_SUCCEEDED {
		err = fmt.Errorf("the guest of %.60q ended as %s: %s: %s", input, o.GetState(), o.GetReason(), o.GetMessage())
	}
	if err == nil {
		out := string(resp.GetOutcome().GetOutput())
		if _, err = fmt.Sscan(out, &took, &number); err != nil {
			err = fmt.Errorf("the guest of %.60q: %q: %w", input, out, err)
		}
	}
	return took, number, err
}

// does is a side of one guest that does something n times.
func (u *users) does(n int, what, key string, size int, more ...any) side {
	input := strings.TrimSpace(fmt.Sprintln(append([]any{what, key, size, n}, more...)...))
	if what == "input" {
		input += strings.Repeat(" ", max(0, size-len(input)))
	}
	return timed(n, u.procs, func(ctx context.Context) (time.Duration, error) {
		took, _, err := u.guest(ctx, 0, input)
		return took, err
	})
}

// guests runs calls at the same time, and gives the longest of the times and the sum of the numbers.
func (u *users) guests(ctx context.Context, n int, call func(i int) (executor int, input string)) (took time.Duration, sum int64, err error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			executor, input := call(i)
			t, number, e := u.guest(ctx, executor, input)
			mu.Lock()
			defer mu.Unlock()
			took, sum, err = max(took, t), sum+number, cmp.Or(err, e)
		})
	}
	wg.Wait()
	return took, sum, err
}

// have makes a value of so many bytes on the first executor.
func (u *users) have(ctx context.Context, key string, size int) error {
	return soon(ctx, func(ctx context.Context) error {
		_, _, err := u.guest(ctx, 0, fmt.Sprint("set ", key, " ", size, " 1"))
		return err
	})
}

// store makes a value of so many bytes in the global tier, a second one, and a string of Redis' own.
func (u *users) store(ctx context.Context, key string, size int) error {
	data := make([]byte, size)
	for _, k := range []string{key, key + ".other"} {
		if err := soon(ctx, func(ctx context.Context) error { return put(ctx, u.state, "/v1/state/"+user+"/"+k, data) }); err != nil {
			return err
		}
	}
	return u.db.Set(ctx, bareKey(key), data, 0).Err()
}

// read gives the bytes of a value in the global tier.
func (u *users) read(ctx context.Context, key string) ([]byte, error) {
	conn, err := dial(u.state.addr)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	resp, err := statev1.NewStateServiceClient(conn).GetValue(ctx, &statev1.GetValueRequest{User: user, Key: []byte(key)})
	return resp.GetData(), err
}

func bareKey(key string) string { return "bench:" + key }

// bare is a side of Redis' own client that does something n times.
func (u *users) bare(n int, op func(ctx context.Context) error) side {
	return timed(n, []*process{u.redis}, func(ctx context.Context) (time.Duration, error) {
		began := time.Now()
		for range n {
			if err := op(ctx); err != nil {
				return 0, err
			}
		}
		return time.Since(began), nil
	})
}

// timed is a side whose one client does n operations at a time and tells how long they took.
func timed(n int, procs []*process, op func(context.Context) (time.Duration, error)) side {
	s := side{procs: procs, close: func() {}, own: &stopwatch{}}
	s.clients = []func(context.Context) error{func(ctx context.Context) error {
		took, err := op(ctx)
		if err == nil {
			s.own.add(n, max(took, 1))
		}
		return err
	}}
	return s
}

// inGo is a side of this program's.
func inGo(n int, op func()) side {
	return timed(n, nil, func(context.Context) (time.Duration, error) {
		began := time.Now()
		for range n {
			op()
		}
		return time.Since(began), nil
	})
}

// pair makes a row of two of the sides.
func pair(name string, most float64, rounds [][]burst, ours, bare int) row {
	two := make([][]burst, len(rounds))
	for i, r := range rounds {
		two[i] = []burst{r[ours], r[bare]}
	}
	return newRow(bench{name: name, goal: goal{most: most}}, two)
}

// times is how much longer one side takes than another.
func times(rounds [][]burst, one, other int) string {
	return digits(spreadOver(rounds, func(b []burst) float64 { return b[one].perOp() / b[other].perOp() }).median)
}

// sized is a size as names of rows have it.
func sized(n int) string {
	switch {
	case n >= mib:
		return fmt.Sprint(n/mib, "MiB")
	case n >= kib:
		return fmt.Sprint(n/kib, "KiB")
	}
	return fmt.Sprint(n, "B")
}
