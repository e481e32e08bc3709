package replica_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"skein.dev/services/executor/internal/replica"
	"skein.dev/services/executor/internal/replica/replicatest"
)

// A read of what is here, beside a copy of as many bytes.
func BenchmarkRead(b *testing.B) {
	for _, size := range []int{64, 4 << 10, 1 << 20, 64 << 20} {
		s, k := session(b, replica.New(replicatest.Client(b), 1<<30)), key(b, "k")
		val, buf := make([]byte, size), make([]byte, size)
		must(b, s.Set(k, val))
		b.Run(fmt.Sprintf("%d/read", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := s.Read(b.Context(), k, 0, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("%d/copy", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				copy(buf, val)
			}
		})
	}
}

// What it takes to have 16 MiB mapped, the kernel's part included: the first call keeps what the value was, others don't.
func BenchmarkMap(b *testing.B) {
	store, k := replica.New(replicatest.Client(b), 1<<30), key(b, "k")
	const size = 16 << 20
	must(b, session(b, store).Set(k, make([]byte, size)))
	region, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s := store.Open()
		_, err := s.Map(b.Context(), k, replica.Use{Len: -1}, func(m *replica.Mapping) error { return remap(region, m.Fd) })
		if err != nil {
			b.Fatal(err)
		}
		s.End()
	}
}

// What it takes to have 16 MiB mapped that are not here.
func BenchmarkMapFirst(b *testing.B) {
	client, k := replicatest.Client(b), key(b, "k")
	from := session(b, replica.New(client, 1<<30))
	must(b, from.Set(k, make([]byte, 16<<20)))
	must(b, from.Push(b.Context(), k, 0, -1))
	for b.Loop() {
		s := replica.New(client, 1<<30).Open()
		_, err := s.Map(b.Context(), k, replica.Use{Len: -1, ReadOnly: true}, func(*replica.Mapping) error { return nil })
		if err != nil {
			b.Fatal(err)
		}
		s.End()
	}
}

// A push of what was changed through a mapping: of 1 % of the pages of 64 MiB, of one byte, of all.
func BenchmarkPush(b *testing.B) {
	const size = 64 << 20
	for name, step := range map[string]int{"one byte": size, "8 bytes in 1 % of the pages": 100 * 4096, "all": 1} {
		b.Run(name, func(b *testing.B) {
			s, k := session(b, replica.New(replicatest.Client(b), 1<<30)), key(b, "k")
			v := view(b, s, k, replica.Use{Len: -1, Size: size})
			must(b, s.Push(b.Context(), k, 0, -1))
			for round := byte(1); b.Loop(); round++ {
				for i := 0; i < size; i += step {
					for j := i; j < i+8 && j < size; j++ {
						v[j] = round
					}
				}
				must(b, s.Push(b.Context(), k, 0, -1))
			}
			b.ReportMetric(float64(s.Moved().Written)/float64(b.N), "sent-B/op")
		})
	}
}

func BenchmarkLock(b *testing.B) {
	s, k := session(b, replica.New(replicatest.Client(b), 1<<20)), key(b, "k")
	for b.Loop() {
		must(b, s.Lock(b.Context(), k, true))
		must(b, s.Unlock(k, true))
	}
}

// Two calls hand a lock to each other.
func BenchmarkLockHandOff(b *testing.B) {
	store, k := replica.New(replicatest.Client(b), 1<<20), key(b, "k")
	done := make(chan struct{})
	go func() {
		defer close(done)
		s := store.Open()
		defer s.End()
		for range b.N {
			must(b, s.Lock(b.Context(), k, true))
			must(b, s.Unlock(k, true))
		}
	}()
	s := session(b, store)
	for range b.N {
		must(b, s.Lock(b.Context(), k, true))
		must(b, s.Unlock(k, true))
	}
	<-done
}

// A value that is not here: of the sizes that a message, a chunk and many have.
func BenchmarkPull(b *testing.B) {
	client := replicatest.Client(b)
	for _, size := range []int{64, 4 << 10, 1 << 20, 16 << 20} {
		k, from := key(b, fmt.Sprint(size)), session(b, replica.New(client, 1<<30))
		must(b, from.Set(k, make([]byte, size)))
		must(b, from.Push(b.Context(), k, 0, -1))
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				must(b, replica.New(client, 1<<30).Open().Pull(b.Context(), k, 0, -1))
			}
		})
	}
}
