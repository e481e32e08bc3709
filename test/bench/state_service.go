package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"

	statev1 "skein.dev/proto/skein/state/v1"
)

// stateService is gets and sets of 64 bytes over gRPC, against Redis' own client; with -long also 256 MiB at once, which no
// executor takes.
func stateService(ctx context.Context, w *world, name string) (rows []row, err error) {
	st, err := w.storage(ctx)
	if err != nil {
		return nil, err
	}
	// 0.6 of what Dapr takes, which on one machine took 17 times as long as go-redis.
	const most = 0.6 * 17
	for _, clients := range []int{1, 32} {
		db := redis.NewClient(&redis.Options{Addr: st.redis.addr, DisableIdentity: true, PoolSize: clients})
		sides := []side{}
		for _, op := range []func(*grpc.ClientConn) func(context.Context) error{setOverGRPC, getOverGRPC} {
			s, err := overGRPC(st.state, clients, op, st.redis)
			if err != nil {
				return nil, err
			}
			sides = append(sides, s)
		}
		for _, op := range []func(context.Context) error{
			func(ctx context.Context) error { return db.Set(ctx, "bench:small", payload, 0).Err() },
			func(ctx context.Context) error { return check(db.Get(ctx, "bench:small").Bytes()) },
		} {
			sides = append(sides, side{procs: []*process{st.redis}, close: func() {}, clients: slices.Repeat([]func(context.Context) error{op}, clients)})
		}
		rounds, err := alternate(ctx, w.cfg.shorter(2), sides...)
		for _, s := range sides {
			s.close()
		}
		_ = db.Close()
		if err != nil {
			return nil, err
		}
		for i, what := range []string{"set", "get"} {
			r := pair(fmt.Sprint(name, ".", what), most, rounds, i, i+2)
			r.bench.clients = clients
			rows = append(rows, r)
		}
	}
	if w.cfg.long {
		large, err := largeValue(ctx, w, name)
		return append(rows, large...), err
	}
	return rows, nil
}

func setOverGRPC(conn *grpc.ClientConn) func(context.Context) error {
	c := statev1.NewStateServiceClient(conn)
	return func(ctx context.Context) error {
		_, err := c.SetValue(ctx, &statev1.SetValueRequest{User: user, Key: []byte("small"), Data: payload})
		return err
	}
}

func getOverGRPC(conn *grpc.ClientConn) func(context.Context) error {
	c := statev1.NewStateServiceClient(conn)
	return func(ctx context.Context) error {
		resp, err := c.GetValue(ctx, &statev1.GetValueRequest{User: user, Key: []byte("small")})
		return check(resp.GetData(), err)
	}
}

// largeValue is 256 MiB that are written and read in frames.
func largeValue(ctx context.Context, w *world, name string) (rows []row, err error) {
	const size = 256 * mib
	r, err := w.redis(ctx, "large-redis")
	if err != nil {
		return nil, err
	}
	p, err := w.service(ctx, "large-state", "state", "--redis-url", "redis://"+r.addr, "--max-value-size", strconv.Itoa(size))
	if err != nil {
		return nil, err
	}
	conn, err := dial(p.addr)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	db := redis.NewClient(&redis.Options{Addr: r.addr, DisableIdentity: true, ReadTimeout: time.Minute, WriteTimeout: time.Minute})
	defer func() { _ = db.Close() }()
	large, data := largeOver{statev1.NewStateServiceClient(conn)}, make([]byte, size)
	for _, c := range []struct {
		what       string
		ours, bare func(context.Context) error
	}{
		{"set", func(ctx context.Context) error { return large.set(ctx, data) }, func(ctx context.Context) error {
			return db.Set(ctx, "bench:large", data, 0).Err()
		}},
		{"get", func(ctx context.Context) error { return large.get(ctx, size) }, func(ctx context.Context) error {
			return db.Get(ctx, "bench:large").Err()
		}},
	} {
		if err := soon(ctx, c.ours); err != nil {
			return nil, err
		}
		rounds, err := alternate(ctx, w.cfg.shorter(2),
			side{procs: []*process{r, p}, clients: []func(context.Context) error{c.ours}},
			side{procs: []*process{r}, clients: []func(context.Context) error{c.bare}})
		if err != nil {
			return nil, err
		}
		rows = append(rows, pair(fmt.Sprint(name, ".", c.what, ".256MiB"), 0, rounds, 0, 1))
	}
	w.end(p, r)
	return rows, nil
}

type largeOver struct{ statev1.StateServiceClient }

func (c largeOver) set(ctx context.Context, data []byte) error {
	const frame = 256 * kib
	stream, err := c.WriteValue(ctx)
	if err != nil {
		return err
	}
	for at := 0; at < len(data); at += frame {
		msg := &statev1.WriteValueRequest{Data: data[at : at+frame]}
		if at == 0 {
			msg.User, msg.Key = user, []byte("large")
		}
		if stream.Send(msg) != nil {
			break // CloseAndRecv has the reason
		}
	}
	_, err = stream.CloseAndRecv()
	return err
}

func (c largeOver) get(ctx context.Context, size int) error {
	stream, err := c.ReadValue(ctx, &statev1.ReadValueRequest{User: user, Key: []byte("large")})
	if err != nil {
		return err
	}
	for got := 0; ; {
		m, err := stream.Recv()
		switch got += len(m.GetData()); {
		case errors.Is(err, io.EOF) && got == size:
			return nil
		case errors.Is(err, io.EOF):
			return fmt.Errorf("%w: %d bytes", errWrong, got)
		case err != nil:
			return err
		}
	}
}

// growthKeys is gets of a thousand values where there are very many, against the same where there are no others.
func growthKeys(ctx context.Context, w *world, name string) ([]row, error) {
	const few = 1000
	many := 30_000
	if w.cfg.long {
		many = 1_000_000
	}
	var sides []side
	defer func() {
		for _, s := range sides {
			s.close()
		}
	}()
	sizes := [2]float64{}
	for i, n := range []int{many, few} {
		s, bytes, err := w.keys(ctx, n)
		if err != nil {
			return nil, err
		}
		sides, sizes[i] = append(sides, s), bytes
	}
	rounds, err := alternate(ctx, w.cfg, sides...)
	if err != nil {
		return nil, err
	}
	r := newRow(bench{name: name, clients: 1, goal: goal{most: 1.2}}, rounds)
	r.details = fmt.Sprintf("of %d → %d values; Redis keeps %s B for one beside its key and its 64 bytes (goal ≤ 160)", few, many, digits(sizes[0]))
	return []row{r}, nil
}

// keys is a state service and a Redis of its own with so many values, and how much memory one takes there but for its key and bytes.
func (w *world) keys(ctx context.Context, n int) (s side, bytes float64, err error) {
	if err := w.build(ctx); err != nil {
		return side{}, 0, err
	}
	r, err := w.redis(ctx, fmt.Sprint("keys-redis-", n))
	if err != nil {
		return side{}, 0, err
	}
	p, err := w.service(ctx, fmt.Sprint("keys-state-", n), "state", "--redis-url", "redis://"+r.addr)
	if err != nil {
		return side{}, 0, err
	}
	db := redis.NewClient(&redis.Options{Addr: r.addr, DisableIdentity: true})
	defer func() { _ = db.Close() }()
	before, err := usedMemory(ctx, db)
	if err != nil {
		return side{}, 0, err
	}
	key := func(i int) []byte { return fmt.Appendf(nil, "value-%010d", i) }
	s, err = overGRPC(p, 1, func(conn *grpc.ClientConn) func(context.Context) error {
		c := statev1.NewStateServiceClient(conn)
		set := func(ctx context.Context, i int) error {
			_, err := c.SetValue(ctx, &statev1.SetValueRequest{User: user, Key: key(i), Data: payload})
			return err
		}
		if err = soon(ctx, func(ctx context.Context) error { return set(ctx, 0) }); err == nil {
			err = parallel(ctx, n, set)
		}
		return func(ctx context.Context) error {
			resp, err := c.GetValue(ctx, &statev1.GetValueRequest{User: user, Key: key(rand.IntN(1000) * (n / 1000))})
			return check(resp.GetData(), err)
		}
	}, r)
	if err != nil {
		return side{}, 0, err
	}
	after, err := usedMemory(ctx, db)
	return s, (after-before)/float64(n) - float64(len(key(0))+len(payload)), err
}

func usedMemory(ctx context.Context, db *redis.Client) (float64, error) {
	text, err := db.Info(ctx, "memory").Result()
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(line, "used_memory:"); ok {
			return strconv.ParseFloat(strings.TrimSpace(v), 64)
		}
	}
	return 0, err
}
