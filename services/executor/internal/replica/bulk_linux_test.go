package replica_test

import (
	"bytes"
	"testing"

	"skein.dev/services/executor/internal/replica"
	"skein.dev/services/executor/internal/replica/replicatest"
)

// Pushes and pulls go past gRPC, of all sizes and kinds.
func TestPastGRPC(t *testing.T) {
	client, service := replicatest.Service(t)
	want := int64(0)
	for _, size := range []int{1, 1000, 300_000, 5 << 20} {
		k, a, b := key(t, "k"), session(t, replica.New(client, 1<<30)), session(t, replica.New(client, 1<<30))
		val := bytes.Repeat([]byte{byte(size)}, size)
		must(t, a.Set(k, val))
		must(t, a.Push(t.Context(), k, 0, -1))
		must(t, b.Pull(t.Context(), k, 0, -1))
		got := make([]byte, size)
		if n, err := b.Read(t.Context(), k, 0, got); err != nil || int(n) != size || !bytes.Equal(got, val) {
			t.Fatal(n, err)
		}
		must(t, b.Write(t.Context(), k, int64(size)/2, []byte("x")))
		must(t, b.Push(t.Context(), k, 0, -1))
		if want += 3; service.Past() != want {
			t.Errorf("%d bytes: %d calls of %d", size, service.Past(), want)
		}
	}
}

// A value that is set here, or made here alone, while it is pulled for the first time stays what it is here.
func TestMadeWhilePulled(t *testing.T) {
	const size = 1 << 20
	for _, local := range []bool{false, true} {
		client, service := replicatest.Service(t)
		k, from, store := key(t, "k"), session(t, replica.New(client, 1<<30)), replica.New(client, 1<<30)
		must(t, from.Set(k, make([]byte, size)))
		must(t, from.Push(t.Context(), k, 0, -1))
		other, here := session(t, store), []byte("made here")
		service.DuringRead(func() {
			if local {
				view(t, other, k, replica.Use{Len: -1, Size: int64(len(here)), Local: true})
				must(t, other.Write(t.Context(), k, 0, here))
			} else {
				must(t, other.Set(k, here))
			}
		})
		s := session(t, store)
		must(t, s.Pull(t.Context(), k, 0, -1))
		got := make([]byte, size)
		n, err := s.Read(t.Context(), k, 0, got)
		if err != nil || int(n) != len(here) || string(got[:n]) != string(here) {
			t.Errorf("local %v: %d bytes, %v", local, n, err)
		}
	}
}
