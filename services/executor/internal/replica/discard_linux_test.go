package replica_test

import (
	"errors"
	"testing"

	"skein.dev/abi"
	"skein.dev/platform/fault"
	"skein.dev/services/executor/internal/replica"
	"skein.dev/services/executor/internal/replica/replicatest"
)

// What a holder wrote that has lost its lock reaches nobody, neither with its own pushes nor with those of the lock's next holder here.
func TestRefusedBytesAreDropped(t *testing.T) {
	for _, mapped := range []bool{false, true} {
		for _, whole := range []bool{false, true} {
			ctx, k := t.Context(), key(t, "k")
			client, faults := replicatest.Service(t)
			store, elsewhere := replica.New(client, 1<<30), session(t, replica.New(client, 1<<30))
			must(t, elsewhere.Set(k, []byte("0123456789")))
			must(t, elsewhere.Push(ctx, k, 0, -1))
			stale, next := store.Open(), session(t, store)
			must(t, stale.Pull(ctx, k, 0, -1))
			var m *replica.Mapping
			if mapped {
				var err error
				m, err = next.Map(ctx, k, replica.Use{Len: -1}, func(*replica.Mapping) error { return nil })
				must(t, err)
			}
			must(t, stale.LockGlobal(ctx, k, true, "stale"))
			faults.Lose()
			must(t, elsewhere.LockGlobal(ctx, k, true, "elsewhere"))
			must(t, elsewhere.Write(ctx, k, 0, []byte("fresh")))
			must(t, elsewhere.Push(ctx, k, 0, -1))
			must(t, elsewhere.UnlockGlobal(k, true))
			if whole {
				must(t, stale.Set(k, []byte("stale, and longer")))
			} else {
				must(t, stale.Write(ctx, k, 3, []byte("stale")))
			}
			if err := stale.Push(ctx, k, 0, -1); fault.From(err).Reason != "FENCED" {
				t.Errorf("a stale push: %v", err)
			}
			must(t, next.Pull(ctx, k, 0, -1))
			must(t, next.Write(ctx, k, 9, []byte("!")))
			must(t, next.LockGlobal(ctx, k, true, "next"))
			must(t, next.Push(ctx, k, 0, -1))
			if got := string(global(t, elsewhere, k)); got != "fresh5678!" {
				t.Errorf("mapped %v, set %v: the value is %q", mapped, whole, got)
			}
			if mapped {
				got := make([]byte, 10)
				if _, err := next.Read(ctx, k, 0, got); err != nil || string(got) != "fresh5678!" {
					t.Errorf("who maps it sees %q, %v", got, err)
				}
				_ = m
			}
			stale.End()
		}
	}
}

func TestDiscard(t *testing.T) {
	ctx, k, client := t.Context(), key(t, "k"), replicatest.Client(t)
	s := session(t, replica.New(client, 1<<30))
	must(t, s.Discard(ctx, k)) // nothing
	must(t, s.Set(k, []byte("never pushed")))
	must(t, s.Discard(ctx, k))
	if _, err := s.Size(ctx, k); !errors.Is(err, fault.NotFound) {
		t.Errorf("a value that was never pushed: %v", err)
	}
	_, err := s.Map(ctx, k, replica.Use{Len: -1, Size: 100, Local: true}, func(*replica.Mapping) error { return nil })
	must(t, err)
	if err := s.Discard(ctx, k); !errors.Is(err, abi.EINVAL) {
		t.Errorf("a local value: %v", err)
	}
}
