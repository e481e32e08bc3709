package host

import (
	"context"
	"fmt"
	"strconv"
	"testing"

	"skein.dev"
	"skein.dev/services/executor/internal/machine"
	"skein.dev/services/executor/internal/replica"
	"skein.dev/services/executor/internal/replica/replicatest"
)

// Guests read state: by copies, by loads from a mapping, and, for comparison, by loads from memory of their own.
func BenchmarkState(b *testing.B) {
	m, err := machine.Open(b.Context(), machine.Config{GuestMemory: 64 << 20}, Link)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = m.Close(context.Background()) }()
	mod := load(b, m, buildC(b, "testdata/bench.c", "-O3"))
	store := replica.New(replicatest.Client(b), 1<<30)
	f, _ := skein.NewFunction("ann", "bench")
	for _, what := range []string{"read", "mapped", "own"} {
		for _, size := range []int{64, 4 << 10, 1 << 20, 16 << 20} {
			b.Run(fmt.Sprintf("%s/%d", what, size), func(b *testing.B) {
				b.SetBytes(int64(size))
				c := &Call{Context: b.Context(), Function: f, Args: []string{"bench", what, strconv.Itoa(size), strconv.Itoa(b.N)}, State: store}
				defer c.End()
				if exit := mod.Run(c); exit.State != skein.Succeeded {
					b.Fatalf("%+v", exit)
				}
			})
		}
	}
}
