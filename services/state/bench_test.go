package state

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"skein.dev/platform/bulk"
	"skein.dev/platform/service"
	statev1 "skein.dev/proto/skein/state/v1"

	"skein.dev/platform/redistest"
)

// benchmarks run against one Redis: what a client of the service gets, and beside it what Redis' own client gets.
func benchSuite(b *testing.B) (c, past statev1.StateServiceClient, raw *redis.Client) {
	r := redistest.Start(b, "--appendfsync", "everysec")
	conn, err := service.Connect(serve(b, "redis://"+r.Addr))
	if err != nil {
		b.Fatal(err)
	}
	beside := service.Bulk(conn)
	b.Cleanup(func() { _ = beside.Close() })
	raw = redis.NewClient(&redis.Options{Addr: r.Addr, DisableIdentity: true})
	b.Cleanup(func() {
		stats, _ := raw.Info(context.Background(), "commandstats").Result()
		for line := range strings.Lines(stats) { // what of it is Redis' own time
			if strings.Contains(line, "evalsha") {
				b.Log(strings.TrimSpace(line))
			}
		}
		_, _ = raw.Close(), conn.Close()
	})
	return statev1.NewStateServiceClient(conn), statev1.NewStateServiceClient(beside), raw
}

func BenchmarkAppend(b *testing.B) {
	c, _, raw := benchSuite(b)
	data := bytes.Repeat([]byte("x"), 64)
	for name, one := range map[string]func(ctx context.Context) error{
		"skein": func(ctx context.Context) error {
			_, err := c.AppendElement(ctx, &statev1.AppendElementRequest{User: "ann", Key: []byte("list"), Data: data})
			return err
		},
		"skein-value": func(ctx context.Context) error {
			_, err := c.AppendValue(ctx, &statev1.AppendValueRequest{User: "ann", Key: []byte("k"), Data: data})
			return err
		},
		"raw-append": func(ctx context.Context) error { return raw.Append(ctx, "raw", string(data)).Err() },
		"raw-xadd": func(ctx context.Context) error {
			return raw.XAdd(ctx, &redis.XAddArgs{Stream: "s", Values: []any{"d", data}}).Err()
		},
	} {
		for _, clients := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/clients=%d", name, clients), func(b *testing.B) {
				_, _ = c.DeleteValue(b.Context(), &statev1.DeleteValueRequest{User: "ann", Key: []byte("k")})
				_, _ = c.DeleteValue(b.Context(), &statev1.DeleteValueRequest{User: "ann", Key: []byte("list")})
				b.SetParallelism((clients + 1) / 2)
				if clients == 1 {
					for b.Loop() {
						if err := one(b.Context()); err != nil {
							b.Fatal(err)
						}
					}
					return
				}
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if err := one(b.Context()); err != nil {
							b.Error(err)
						}
					}
				})
			})
		}
	}
}

func BenchmarkCAS(b *testing.B) {
	c, _, raw := benchSuite(b)
	b.Run("skein", func(b *testing.B) {
		set, err := c.SetValue(b.Context(), &statev1.SetValueRequest{User: "ann", Key: []byte("cas")})
		if err != nil {
			b.Fatal(err)
		}
		version := set.GetInfo().GetVersion()
		for b.Loop() {
			r, err := c.CompareAndSet(b.Context(), &statev1.CompareAndSetRequest{User: "ann", Key: []byte("cas"), ExpectedVersion: version, Data: []byte("0123456789")})
			if err != nil {
				b.Fatal(err)
			}
			version = r.GetInfo().GetVersion()
		}
	})
	b.Run("raw-watch", func(b *testing.B) {
		for b.Loop() {
			err := raw.Watch(b.Context(), func(tx *redis.Tx) error {
				if err := tx.Get(b.Context(), "cas").Err(); err != nil && !errors.Is(err, redis.Nil) {
					return err
				}
				_, err := tx.TxPipelined(b.Context(), func(p redis.Pipeliner) error { p.Set(b.Context(), "cas", "0123456789", 0); return nil })
				return err
			}, "cas")
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("add", func(b *testing.B) {
		for b.Loop() {
			if _, err := c.AddInt64(b.Context(), &statev1.AddInt64Request{User: "ann", Key: []byte("sum"), Delta: 1}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("raw-incrby", func(b *testing.B) {
		for b.Loop() {
			if err := raw.IncrBy(b.Context(), "sum", 1).Err(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// A hand-off is from a holder's giving back to the next one's having it, two taking turns.
func BenchmarkLockHandOff(b *testing.B) {
	c, _, raw := benchSuite(b)
	b.Run("skein", func(b *testing.B) {
		take := func() (statev1.StateService_HoldLockClient, error) {
			s, _, err := hold(b.Context(), c, &statev1.HoldLockRequest{Patience: durationpb.New(time.Minute)})
			return s, err
		}
		held, err := take()
		if err != nil {
			b.Fatal(err)
		}
		type taken struct {
			s   statev1.StateService_HoldLockClient
			err error
		}
		for b.Loop() {
			next := make(chan taken, 1)
			go func() { s, err := take(); next <- taken{s, err} }()
			_ = held.CloseSend()
			if _, err := held.Recv(); !errors.Is(err, io.EOF) {
				b.Fatal(err)
			}
			n := <-next
			if n.err != nil {
				b.Fatal(n.err)
			}
			held = n.s
		}
	})
	b.Run("raw-blpop", func(b *testing.B) {
		for b.Loop() {
			next := make(chan error, 1)
			go func() { next <- raw.BLPop(b.Context(), time.Minute, "lock").Err() }()
			if err := raw.RPush(b.Context(), "lock", "x").Err(); err != nil {
				b.Fatal(err)
			}
			if err := <-next; err != nil {
				b.Fatal(err)
			}
		}
	})
}

var benchSizes = []int{64, 4 << 10, 64 << 10, 1 << 20, 16 << 20, 64 << 20, 256 << 20}

func BenchmarkPush(b *testing.B) {
	c, past, raw := benchSuite(b)
	for _, n := range benchSizes {
		data := bytes.Repeat([]byte("x"), n)
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			beside(b, []string{"grpc", "bulk", "grpc-patch", "bulk-patch", "raw"},
				func() error { return push(b.Context(), c, data) },
				func() error { return write(b.Context(), past, data, bulk.Prefer()) },
				func() error { return overwrite(b.Context(), c, data) },
				func() error { return overwrite(b.Context(), past, data, bulk.Prefer()) },
				func() error { return raw.Set(b.Context(), "raw", data, 0).Err() })
		})
	}
}

func push(ctx context.Context, c statev1.StateServiceClient, data []byte) error {
	if len(data) > 1<<20 {
		return write(ctx, c, data)
	}
	_, err := c.SetValue(ctx, &statev1.SetValueRequest{User: "ann", Key: []byte("pushed"), Data: data, RequestId: rand.Text()})
	return err
}

func overwrite(ctx context.Context, c statev1.StateServiceClient, data []byte, opts ...grpc.CallOption) error {
	for off := 0; off < len(data); off += maxPatchBytes {
		p := patchOf(at{int64(off), data[off:min(len(data), off+maxPatchBytes)]})
		req := &statev1.PatchValueRequest{User: "ann", Key: []byte("patched"), RequestId: rand.Text(), Runs: p.Runs, Data: p.Data}
		if _, err := c.PatchValue(ctx, req, opts...); err != nil {
			return err
		}
	}
	return nil
}

func write(ctx context.Context, c statev1.StateServiceClient, data []byte, opts ...grpc.CallOption) error {
	stream, err := c.WriteValue(ctx, opts...)
	for at := 0; at < len(data) && err == nil; at += chunkSize {
		err = stream.Send(&statev1.WriteValueRequest{User: "ann", Key: []byte("pushed"), RequestId: rand.Text(), Data: data[at:min(len(data), at+chunkSize)]})
	}
	if err == nil {
		_, err = stream.CloseAndRecv()
	}
	return err
}

// beside runs ways in turn and reports the median of each in µs, and what of it is to the last's: so a machine that is busy with
// something else slows all down.
func beside(b *testing.B, names []string, ways ...func() error) {
	took := make([][]time.Duration, len(ways))
	for b.Loop() {
		for i, way := range ways {
			began := time.Now()
			if err := way(); err != nil {
				b.Fatal(names[i], err)
			}
			took[i] = append(took[i], time.Since(began))
		}
	}
	median := func(i int) float64 { slices.Sort(took[i]); return float64(took[i][len(took[i])/2].Nanoseconds()) / 1e3 }
	last := median(len(ways) - 1)
	for i, name := range names {
		b.ReportMetric(median(i), name+"-µs")
		b.ReportMetric(median(i)/last, name+"-x")
	}
	b.ReportMetric(0, "ns/op")
}

func pull(ctx context.Context, c statev1.StateServiceClient, room []byte, n int, opts ...grpc.CallOption) error {
	stream, err := c.ReadChanges(ctx, &statev1.ReadChangesRequest{User: "ann", Key: []byte("pushed")}, opts...)
	got := 0
	for err == nil {
		m := &statev1.ReadChangesResponse{Data: room[got:]}
		if err = stream.RecvMsg(m); err == nil {
			got += len(m.GetData())
		}
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	if got != n {
		return fmt.Errorf("%d bytes came", got)
	}
	return nil
}

func BenchmarkPull(b *testing.B) {
	c, past, raw := benchSuite(b)
	for _, n := range benchSizes {
		data := bytes.Repeat([]byte("x"), n)
		if err := push(b.Context(), c, data); err != nil {
			b.Fatal(err)
		}
		if err := raw.Set(b.Context(), "raw", data, 0).Err(); err != nil {
			b.Fatal(err)
		}
		room := make([]byte, n+1)
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			beside(b, []string{"grpc", "bulk", "raw"},
				func() error { return pull(b.Context(), c, room, n) },
				func() error { return pull(b.Context(), past, room, n, bulk.Prefer()) },
				func() error { return raw.Get(b.Context(), "raw").Err() })
		})
	}
}
