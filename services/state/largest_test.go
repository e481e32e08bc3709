package state

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"skein.dev"
	"skein.dev/platform/redistest"
)

// BenchmarkLargest tells the longest that a single command holds up Redis in the largest operations there are, by Redis' own clock
// (SLOWLOG): the least over the rounds, since a machine has other things to do.
func BenchmarkLargest(b *testing.B) {
	r := redistest.Start(b, "--slowlog-log-slower-than", "0", "--slowlog-max-len", "100000")
	d, err := open(r.URL(), time.Minute)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = d.close() })
	raw := redis.NewClient(&redis.Options{Addr: r.Addr, DisableIdentity: true})
	b.Cleanup(func() { _ = raw.Close() })
	const huge = 256 << 20
	s, ctx, k := newStore(d, huge), context.Background(), skein.StateKey{User: "ann", Key: "k"}
	write := func(n int64) {
		b.Helper()
		if _, err := s.Write(ctx, k, io.LimitReader(zeros{}, n), Any, ""); err != nil {
			b.Fatal(err)
		}
	}
	sparse := func(n int, step int64) (p Patch) {
		all := make([]at, n)
		for i := range all {
			all[i] = at{int64(i) * step, []byte{byte(rand.Uint32())}}
		}
		return patchOf(all...)
	}
	near, far := sparse(maxNear, nearSpan/maxNear), sparse(maxPatches, huge/maxPatches)
	for i := range 10_000 {
		if _, err := s.Set(ctx, skein.StateKey{User: "list", Key: fmt.Sprintf("%05d", i)}, []byte("x"), Any, ""); err != nil {
			b.Fatal(err)
		}
	}
	inlined := bytes.Repeat([]byte("x"), inline)
	for _, op := range []struct {
		name string
		do   func() error
	}{
		{"write-256MiB", func() error { _, err := s.Write(ctx, k, io.LimitReader(zeros{}, huge), Any, ""); return err }},
		{"read-256MiB", func() error {
			return s.Read(ctx, k, 0, 0, func(Info) error { return nil }, func([]byte) error { return nil })
		}},
		{"replace-256MiB", func() error { _, err := s.Set(ctx, k, []byte("x"), Any, ""); return err }},
		{"delete-256MiB", func() error { return s.Delete(ctx, k, "") }},
		{"expire-256MiB", func() error { _, err := s.Expire(ctx, k, time.Hour, ""); return err }},
		{"cut-256MiB", func() error { _, _, err := s.Resize(ctx, k, 1, ""); return err }},
		{"set-inline", func() error { _, err := s.Set(ctx, k, inlined, Any, ""); return err }},
		{"append-4MiB", func() error {
			_, _, err := s.Append(ctx, skein.StateKey{User: "ann", Key: "log"}, make([]byte, 4<<20-64<<10), "")
			return err
		}},
		{"patch-16384-near", func() error { _, _, err := s.Patch(ctx, k, near, ""); return err }},
		{"patch-4096-far", func() error { _, _, err := s.Patch(ctx, k, far, ""); return err }},
		{"list-10000", func() error {
			for token := ""; ; {
				_, next, err := s.List(ctx, "list", "", 1000, token)
				if token = next; err != nil || token == "" {
					return err
				}
			}
		}},
	} {
		b.Run(op.name, func(b *testing.B) {
			least, command := time.Hour, ""
			for range b.N {
				write(huge)
				if err := raw.Do(ctx, "slowlog", "reset").Err(); err != nil {
					b.Fatal(err)
				}
				if err := op.do(); err != nil {
					b.Fatal(err)
				}
				log, err := raw.SlowLogGet(ctx, 100_000).Result()
				if err != nil {
					b.Fatal(err)
				}
				longest := redis.SlowLog{}
				for _, l := range log {
					if name := strings.ToLower(l.Args[0]); l.Duration > longest.Duration && name != "slowlog" && name != "info" {
						longest = l
					}
				}
				if longest.Duration < least {
					least, command = longest.Duration, longest.Args[0]
				}
			}
			b.ReportMetric(float64(least.Microseconds()), "µs-longest")
			b.Logf("it is %s", command)
		})
	}
}
