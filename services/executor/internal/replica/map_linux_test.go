package replica_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"skein.dev"
	"skein.dev/abi"
	"skein.dev/platform/fault"
	"skein.dev/services/executor/internal/pagemap"
	"skein.dev/services/executor/internal/replica"
	"skein.dev/services/executor/internal/replica/replicatest"
)

// view maps a value as a guest would, and gives the bytes from u.Off on.
func view(t testing.TB, s *replica.Session, k skein.StateKey, u replica.Use) []byte {
	t.Helper()
	var b []byte
	u.Own = true // each has a mapping of its own
	m, err := s.Map(t.Context(), k, u, func(m *replica.Mapping) (err error) {
		if b, err = unix.Mmap(m.Fd, m.Off, int(m.Len), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
			m.First = &b[0]
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(b) })
	return b[u.Off-m.Off:]
}

// Two executors have each the odd or the even bytes of a value, and change them through mappings and rows. Pushes and pulls,
// of all and of ranges, lose no byte, and bring all to everybody in the end.
func TestMappedWritersLoseNothing(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			ctx, client, k := t.Context(), replicatest.Client(t), key(t, "v")
			const size = 3*256<<10 + 12_345
			rng := rand.New(rand.NewPCG(seed, 2))
			stores := []*replica.Store{replica.New(client, 1<<20), replica.New(client, 1<<20)}
			var sessions [2]*replica.Session
			var views [2][]byte
			for i, s := range stores {
				sessions[i] = session(t, s)
				if i == 0 || seed%2 == 0 { // the other has it from copies alone
					views[i] = view(t, sessions[i], k, replica.Use{Len: -1, Size: size})
				} else {
					must(t, sessions[i].Least(ctx, k, size))
				}
			}
			want := make([]byte, size)
			for range 600 {
				who := rng.IntN(2)
				s := sessions[who]
				off := int64(rng.IntN(size))
				n := min(size-off, int64(rng.IntN(300_000)))
				var err error
				switch op := rng.IntN(12); op {
				case 0, 1, 2, 3, 4:
					err = exchange(t, s, k, op, off, n)
				default:
					most := int64(500)
					dense := views[who] != nil && rng.IntN(8) == 0 // more ranges than are told apart
					if dense {
						most = 20_000
					}
					for i := off; i < min(off+n, off+most); i++ {
						if int(i)%2 != who {
							continue
						}
						want[i] = byte(rng.Uint32())
						if dense || views[who] != nil && rng.IntN(4) > 0 {
							views[who][i] = want[i]
						} else {
							err = errors.Join(err, s.Write(ctx, k, i, want[i:i+1]))
						}
					}
				}
				if err != nil && !errors.Is(err, fault.NotFound) {
					t.Fatal(err)
				}
				if pages := stores[who].Missed(k); len(pages) > 0 {
					t.Fatalf("nobody knows that pages %v were changed", pages)
				}
			}
			for _, s := range sessions {
				must(t, s.Push(ctx, k, 0, -1))
			}
			for i, s := range sessions {
				must(t, s.Pull(ctx, k, 0, -1))
				got := make([]byte, size)
				if n, err := s.Read(ctx, k, 0, got); err != nil || n != size || !bytes.Equal(got, want) {
					t.Errorf("store %d: %d bytes, %v, equal %v", i, n, err, bytes.Equal(got, want))
				}
				if views[i] != nil && !bytes.Equal(views[i][:size], want) {
					t.Errorf("store %d: the mapping differs", i)
				}
			}
			if got := global(t, sessions[0], k); !bytes.Equal(got, want) {
				t.Error("the global value differs")
			}
		})
	}
}

// What guests wrote through mappings is known when these are gone: at a call's end, with others of the same value or after them, and where
// one of the same call took another's place.
func TestMappingsThatEnd(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			replica.ScanBy(t, []pagemap.Scan{pagemap.Best(pagemap.Touched), nil}[seed%2])
			const size = 2*256<<10 + 4096*7 + 100
			k, rng := key(t, "v"), rand.New(rand.NewPCG(seed, 3))
			store := replica.New(replicatest.Client(t), 1<<30)
			want := make([]byte, size)
			type call struct {
				s *replica.Session
				v []byte
			}
			var calls []call
			for range 200 {
				switch op := rng.IntN(6); {
				case op == 0 && len(calls) < 4:
					s := store.Open()
					calls = append(calls, call{s, view(t, s, k, replica.Use{Len: -1, Size: size})})
				case op == 1 && len(calls) > 0:
					i := rng.IntN(len(calls))
					c, early := calls[i], rng.IntN(2) == 0
					if early { // an instance may be gone before its call
						c.s.Settle(0, 1<<32, true)
						must(t, unix.Munmap(c.v[:cap(c.v)]))
					}
					c.s.End()
					if !early {
						must(t, unix.Munmap(c.v[:cap(c.v)]))
					}
					calls = slices.Delete(calls, i, i+1)
				case op == 2 && len(calls) > 0: // the rest is written elsewhere, and what was is known
					c := &calls[rng.IntN(len(calls))]
					c.v = view(t, c.s, k, replica.Use{Len: -1, Size: size})
				case op == 3 && rng.IntN(4) == 0:
					s := session(t, store)
					if err := s.Push(t.Context(), k, 0, -1); err == nil && !bytes.Equal(global(t, s, k), want) {
						t.Fatal("a push has not brought all")
					}
				case len(calls) > 0:
					at := rng.IntN(size)
					want[at]++
					calls[rng.IntN(len(calls))].v[at]++
				}
				if rng.IntN(8) > 0 { // who looks, knows from then on
					continue
				}
				if pages := store.Missed(k); len(pages) > 0 {
					t.Fatalf("nobody knows that pages %v were changed", pages)
				}
			}
			for _, c := range calls {
				c.s.End()
			}
			s := session(t, store)
			must(t, s.Push(t.Context(), k, 0, -1))
			if !bytes.Equal(global(t, s, k), want) {
				t.Error("bytes are lost")
			}
		})
	}
}

// exchange is one of the ways to exchange bytes with the global tier.
func exchange(t *testing.T, s *replica.Session, k skein.StateKey, op int, off, n int64) (err error) {
	switch op {
	case 0:
		return s.Push(t.Context(), k, 0, -1)
	case 1:
		return s.Pull(t.Context(), k, 0, -1)
	case 2:
		return s.Push(t.Context(), k, off, n)
	case 3:
		return s.Pull(t.Context(), k, off, n)
	}
	_, err = s.Read(t.Context(), k, off, make([]byte, n))
	return err
}

// Chunks that were changed all over are sent as they are, if nobody else has changed them; else what was changed of them.
func TestDensePush(t *testing.T) {
	const words, size = 3 * 256 << 10 / 8, 3 * 256 << 10
	ctx, k := t.Context(), key(t, "v")
	client, faults := replicatest.Service(t)
	a, b := session(t, replica.New(client, 1<<30)), session(t, replica.New(client, 1<<30))
	want := make([]byte, size)
	must(t, a.Set(k, want))
	must(t, a.Push(ctx, k, 0, -1))
	v := view(t, a, k, replica.Use{Len: -1})
	round := func(fill byte) (calls int64) {
		t.Helper()
		for i := range words {
			v[8*i+3], want[8*i+3] = fill, fill
		}
		before := faults.Past()
		must(t, a.Push(ctx, k, 0, -1))
		if got := global(t, b, k); !bytes.Equal(got, want) {
			t.Errorf("round %d: bytes are lost", fill)
		}
		return faults.Past() - before
	}
	if n := round(1); n != 3 || faults.Unliked() != 0 {
		t.Errorf("%d messages for three chunks, %d refused", n, faults.Unliked())
	}
	must(t, b.Pull(ctx, k, 0, -1))
	must(t, b.Write(ctx, k, 300_000, []byte("b")))
	want[300_000] = 'b'
	must(t, b.Push(ctx, k, 0, -1))
	if n := round(2); n <= 4 || faults.Unliked() != 1 {
		t.Errorf("%d messages where another has changed a chunk, %d refused", n, faults.Unliked())
	}
	must(t, a.Pull(ctx, k, 0, -1))
	fill := byte(3)
	for n := int64(0); n != 3; fill++ { // it is not tried for a while
		if n = round(fill); n != 3 && n != 6 || faults.Unliked() != 1 || fill > 12 {
			t.Fatalf("round %d: %d messages, %d refused", fill, n, faults.Unliked())
		}
	}
	if fill != 3+9 {
		t.Errorf("all was sent after %d rounds", fill-3)
	}
	// Bytes that were not meant stay behind.
	for i := range words {
		v[8*i+5] = 99
	}
	at := int64(256<<10 + 100)
	copy(want[at:256<<10+60_000], v[at:])
	must(t, a.Push(ctx, k, at, 60_000-100))
	if got := global(t, b, k); !bytes.Equal(got, want) {
		t.Error("a push of a range has sent more")
	}
}

// What a guest writes while a push is on its way stays dirty, and goes with the next one.
func TestWriteDuringPush(t *testing.T) {
	ctx, k := t.Context(), key(t, "v")
	client, faults := replicatest.Service(t)
	s := session(t, replica.New(client, 1<<30))
	v := view(t, s, k, replica.Use{Len: -1, Size: 100})
	v[0], v[1] = 'a', 'b'
	faults.During(func() error {
		v[1], v[2] = 'B', 'C'
		return s.Write(ctx, k, 3, []byte("D"))
	})
	must(t, s.Push(ctx, k, 0, -1))
	if got := string(global(t, s, k)[:4]); got != "ab\x00\x00" {
		t.Errorf("the push sent %q", got)
	}
	must(t, s.Push(ctx, k, 0, -1))
	if got := string(global(t, s, k)[:4]); got != "aBCD" {
		t.Errorf("the next sent %q", got)
	}
}

// After a push that failed all of it is still to be sent, and nothing else.
func TestFailedPush(t *testing.T) {
	ctx, k := t.Context(), key(t, "v")
	client, faults := replicatest.Service(t)
	a, b := session(t, replica.New(client, 1<<30)), session(t, replica.New(client, 1<<30))
	v := view(t, a, k, replica.Use{Len: -1, Size: 1000})
	must(t, a.Push(ctx, k, 0, -1))
	v[1] = 'x'
	must(t, a.Write(ctx, k, 3, []byte("y")))
	must(t, a.Write(ctx, k, 5, []byte{0})) // marked, though it is the same
	faults.During(func() error { return fault.Unavailable.New("DOWN", "down").GRPCStatus().Err() })
	if err := a.Push(ctx, k, 0, -1); !errors.Is(err, fault.Unavailable) {
		t.Fatal(err)
	}
	must(t, b.Write(ctx, k, 0, []byte("zzzzzzz")))
	must(t, b.Push(ctx, k, 0, -1))
	must(t, a.Push(ctx, k, 0, -1))
	if got := string(global(t, a, k)[:7]); got != "zxzyz\x00z" {
		t.Errorf("%q", got)
	}
}

// Only what was changed moves, and only chunks that somebody else changed come again.
func TestTraffic(t *testing.T) {
	ctx, client, k := t.Context(), replicatest.Client(t), key(t, "v")
	const size = 8 << 20
	a, b := session(t, replica.New(client, 1<<30)), session(t, replica.New(client, 1<<30))
	must(t, a.Set(k, make([]byte, size)))
	must(t, a.Push(ctx, k, 0, -1))
	moved := func(s *replica.Session, f func()) replica.Traffic {
		before := s.Moved()
		f()
		return replica.Traffic{Read: s.Moved().Read - before.Read, Written: s.Moved().Written - before.Written}
	}
	if got := moved(b, func() { _, _ = b.Read(ctx, k, 3<<20, make([]byte, 10)) }); got != (replica.Traffic{Read: 256 << 10}) {
		t.Errorf("a read of a chunk moved %+v", got)
	}
	v := view(t, b, k, replica.Use{Off: 4 << 20, Len: 1 << 20})
	if got := b.Moved().Read; got != 5*256<<10 {
		t.Errorf("with a mapping of four: %d", got)
	}
	v[0], v[1<<19], v[1<<20-1] = 1, 2, 3
	if got := moved(b, func() { must(t, b.Push(ctx, k, 0, -1)) }); got.Written != 3 {
		t.Errorf("a push of 3 bytes moved %+v", got)
	}
	if got := moved(b, func() { must(t, b.Push(ctx, k, 0, -1)) }); got.Written != 0 {
		t.Errorf("a push of nothing moved %+v", got)
	}
	if got := moved(b, func() { must(t, b.Pull(ctx, k, 3<<20, 2<<20)) }); got.Read != 3*256<<10 { // what was not here yet
		t.Errorf("a pull after its own push moved %+v", got)
	}
	if got := moved(a, func() { must(t, a.Pull(ctx, k, 0, -1)) }); got.Read != 3*256<<10 {
		t.Errorf("a pull of three changed chunks moved %+v", got)
	}
	// Both change one chunk, and each one of its own: what the other changed comes, and what went in one message with that.
	must(t, a.Write(ctx, k, 4<<20+1, []byte("a")))
	must(t, a.Write(ctx, k, 4<<20+1<<18, []byte("a")))
	must(t, a.Push(ctx, k, 0, -1))
	v[2], v[1<<19] = 'b', 'b'
	must(t, b.Push(ctx, k, 0, -1))
	if got := moved(b, func() { must(t, b.Pull(ctx, k, 3<<20, 2<<20)) }); got.Read != 3*256<<10 || v[1] != 'a' || v[2] != 'b' {
		t.Errorf("a pull of three chunks moved %+v: %q", got, v[:3])
	}
	if got := moved(a, func() { must(t, a.Pull(ctx, k, 0, -1)) }); got.Read != 2*256<<10 {
		t.Errorf("a pull of two chunks moved %+v", got)
	}
	for _, s := range []*replica.Session{a, b} {
		if got := moved(s, func() { must(t, s.Pull(ctx, k, 4<<20, 1<<20)) }); got.Read != 0 {
			t.Errorf("a pull of nothing moved %+v", got)
		}
	}
}

// A pull over chunks of which some are known as they are elsewhere, and some not at all.
func TestPullOfKnownAndUnknown(t *testing.T) {
	ctx, client, k := t.Context(), replicatest.Client(t), key(t, "v")
	const chunk = 256 << 10
	a, b := session(t, replica.New(client, 1<<30)), session(t, replica.New(client, 1<<30))
	v := view(t, b, k, replica.Use{Size: 3 * chunk, Len: -1})
	must(t, a.Set(k, make([]byte, 3*chunk)))
	must(t, a.Push(ctx, k, 0, -1))
	must(t, b.Pull(ctx, k, chunk, chunk))
	v[chunk] = 1
	must(t, b.Push(ctx, k, chunk, chunk))
	must(t, b.Pull(ctx, k, chunk, 2*chunk))
	if v[chunk] != 1 {
		t.Error("what was pushed is lost here")
	}
}

// A value that was deleted elsewhere, and is made anew by a push, is not what it was here.
func TestPushOfWhatWasDeleted(t *testing.T) {
	ctx, client, k := t.Context(), replicatest.Client(t), key(t, "v")
	a, b := session(t, replica.New(client, 1<<30)), session(t, replica.New(client, 1<<30))
	must(t, a.Set(k, []byte("old bytes")))
	must(t, a.Push(ctx, k, 0, -1))
	v := view(t, b, k, replica.Use{Len: -1})
	must(t, a.Delete(ctx, k))
	v[0] = 'O'
	must(t, b.Push(ctx, k, 0, -1))
	must(t, b.Pull(ctx, k, 0, -1))
	if got := string(global(t, b, k)); got != string(v[:len(got)]) {
		t.Errorf("there is %q, and here %q", got, v[:9])
	}
}

// More than one message takes arrives whole, and does not come back.
func TestManyRuns(t *testing.T) {
	ctx, client, k := t.Context(), replicatest.Client(t), key(t, "v")
	a, b := session(t, replica.New(client, 1<<30)), session(t, replica.New(client, 1<<30))
	const size = 3 << 20
	v := view(t, a, k, replica.Use{Len: -1, Size: size})
	must(t, a.Push(ctx, k, 0, -1))
	must(t, b.Pull(ctx, k, 0, -1))
	for i := range v[:size] {
		switch {
		case i < 1<<20 && i%3 == 0, i >= 1<<20 && i < 2<<20 && i%400 == 0, i > 2<<20+5: // dense, sparse, all
			v[i] = byte(i%255 + 1)
		}
	}
	must(t, a.Push(ctx, k, 0, -1))
	before := a.Moved().Read
	must(t, a.Pull(ctx, k, 0, -1))
	if n := a.Moved().Read - before; n != 0 {
		t.Errorf("%d bytes came back", n)
	}
	must(t, b.Pull(ctx, k, 0, -1))
	got := make([]byte, size)
	if _, err := b.Read(ctx, k, 0, got); err != nil || !bytes.Equal(got, v[:size]) {
		t.Error("the other has other bytes", err)
	}
}

func TestSizes(t *testing.T) {
	ctx, client, k := t.Context(), replicatest.Client(t), key(t, "v")
	a, b := session(t, replica.New(client, 1<<30)), session(t, replica.New(client, 1<<30))
	v := view(t, a, k, replica.Use{Len: -1, Size: 300_000})
	must(t, a.Push(ctx, k, 0, -1)) // nothing is dirty, but there is a value now
	if got := global(t, b, k); len(got) != 300_000 {
		t.Fatalf("%d bytes", len(got))
	}
	// It shrinks elsewhere: what is dirty here behind the end makes it longer again, what is not is gone.
	must(t, b.Set(k, []byte("short")))
	must(t, b.Push(ctx, k, 0, -1))
	v[299_000], v[10] = 'x', 'y'
	must(t, a.Pull(ctx, k, 0, -1))
	if n, err := a.Size(ctx, k); n != 299_001 || err != nil || string(v[:5]) != "short" {
		t.Errorf("after it shrank: %d bytes, %v, %q", n, err, v[:5])
	}
	must(t, a.Push(ctx, k, 0, -1))
	got := global(t, b, k)
	if len(got) != 299_001 || got[299_000] != 'x' || got[10] != 'y' {
		t.Errorf("after a push: %d bytes", len(got))
	}
	// It grows elsewhere.
	must(t, b.Pull(ctx, k, 0, -1))
	must(t, b.Write(ctx, k, 700_000, []byte("end")))
	must(t, b.Push(ctx, k, 0, -1))
	must(t, a.Pull(ctx, k, 0, -1))
	w := view(t, a, k, replica.Use{Off: 700_000, Len: 3})
	if string(w[:3]) != "end" || v[10] != 'y' {
		t.Errorf("after it grew: %q", w[:3])
	}
	// Guests may write behind the end, which is in no value.
	must(t, a.Set(k, []byte("set")))
	if string(v[:3]) != "set" {
		t.Errorf("a set shows as %q", v[:3])
	}
	v[5], w[0] = 'u', 'u'
	must(t, a.Write(ctx, k, 7, []byte("7")))
	must(t, a.Push(ctx, k, 0, -1))
	if got := string(global(t, b, k)); got != "set\x00\x00\x00\x007" {
		t.Errorf("%q", got)
	}
	// Now it is as long again as what was mapped: writes through the old mapping count.
	must(t, a.Least(ctx, k, 700_003))
	w[1] = 'w'
	must(t, a.Push(ctx, k, 0, -1))
	if got := global(t, b, k); len(got) != 700_003 || got[700_000] != 0 || got[700_001] != 'w' {
		t.Errorf("%d bytes", len(got))
	}
}

// Deleted elsewhere, a value is gone at the next pull; what was not pushed is not lost by that.
func TestVanished(t *testing.T) {
	ctx, client, k := t.Context(), replicatest.Client(t), key(t, "v")
	store := replica.New(client, 1<<30)
	a, b := session(t, store), session(t, replica.New(client, 1<<30))
	must(t, a.Set(k, []byte("value")))
	must(t, a.Push(ctx, k, 0, -1))
	must(t, b.Delete(ctx, k))
	if err := a.Pull(ctx, k, 0, -1); !errors.Is(err, fault.NotFound) || store.Has(k) || store.Bytes() != 0 {
		t.Errorf("a clean one: %v, has %v, %d bytes", err, store.Has(k), store.Bytes())
	}
	v := view(t, a, k, replica.Use{Len: -1, Size: 10})
	must(t, a.Push(ctx, k, 0, -1))
	must(t, b.Delete(ctx, k))
	v[3] = 'x'
	if err := a.Pull(ctx, k, 0, -1); !errors.Is(err, fault.NotFound) {
		t.Errorf("a dirty one: %v", err)
	}
	must(t, a.Push(ctx, k, 0, -1))
	if got := string(global(t, a, k)); got != "\x00\x00\x00x\x00\x00\x00\x00\x00\x00" {
		t.Errorf("%q", got)
	}
}

// The budget lets nothing go that is mapped, locked or not pushed, and everything else.
func TestBudgetOfMappings(t *testing.T) {
	ctx, store := t.Context(), replica.New(replicatest.Client(t), 1<<20)
	s := store.Open()
	v := view(t, s, key(t, "mapped"), replica.Use{Len: -1, Size: 900_000})
	v[0] = 1
	must(t, s.Push(ctx, key(t, "mapped"), 0, -1))
	for i := range 20 {
		k := key(t, fmt.Sprint(i))
		must(t, s.Set(k, make([]byte, 100_000)))
		must(t, s.Push(ctx, k, 0, -1))
	}
	v[1] = 2
	buf := make([]byte, 2)
	if _, err := s.Read(ctx, key(t, "mapped"), 0, buf); err != nil || !bytes.Equal(buf, []byte{1, 2}) {
		t.Errorf("what is mapped: %v, %v", buf, err)
	}
	s.End()
	other := session(t, store)
	must(t, other.Set(key(t, "more"), make([]byte, 100_000)))
	if !store.Has(key(t, "mapped")) {
		t.Error("what a mapping changed went with the call")
	}
	must(t, other.Push(ctx, key(t, "mapped"), 0, -1))
	must(t, other.Push(ctx, key(t, "more"), 0, -1))
	must(t, other.Set(key(t, "last"), make([]byte, 900_000)))
	if store.Has(key(t, "mapped")) || store.Bytes() > 2<<20 {
		t.Errorf("it stays when it is clean and nobody maps it: %d bytes", store.Bytes())
	}
	if _, err := other.Read(ctx, key(t, "mapped"), 0, buf); err != nil || !bytes.Equal(buf, []byte{1, 2}) {
		t.Errorf("fetched again: %v, %v", buf, err)
	}
}

// What was mapped and is still to be pushed needs no file: a user who leaves many such values takes none from others.
func TestFilesAreBounded(t *testing.T) {
	ctx, client := t.Context(), replicatest.Client(t)
	store := replica.New(client, 1<<30)
	name := func(i int) skein.StateKey { return key(t, fmt.Sprint("key ", i)) }
	const many = 2500
	for i := range many {
		s := store.Open()
		v := view(t, s, name(i), replica.Use{Len: -1, Size: 10})
		v[1], v[3] = 1, byte(i)
		s.End()
		_ = unix.Munmap(v[:cap(v)])
	}
	s := session(t, store)
	for _, i := range []int{0, 1, 1000, many - 1} {
		must(t, s.Push(ctx, name(i), 0, -1))
		if got := global(t, s, name(i)); !bytes.Equal(got, []byte{0, 1, 0, byte(i), 0, 0, 0, 0, 0, 0}) {
			t.Errorf("value %d: %v", i, got)
		}
	}
	v := view(t, s, name(1), replica.Use{Len: -1})
	v[5] = 5
	must(t, s.Push(ctx, name(1), 0, -1))
	if got := global(t, s, name(1)); got[5] != 5 {
		t.Errorf("mapped again: %v", got)
	}
}

// What can't go is bounded too, and a user who has filled his part is in nobody else's way.
func TestHardLimit(t *testing.T) {
	store := replica.New(replicatest.Client(t), 1<<20)
	s := session(t, store)
	val := make([]byte, replica.MaxValue)
	fill := func(user string) (n int) {
		t.Helper()
		for ; n < 20; n++ {
			k, err := skein.NewStateKey(user, fmt.Sprint(n))
			must(t, err)
			if err = s.Set(k, val[:16<<20]); errors.Is(err, abi.ENOMEM) {
				return n
			}
			must(t, err)
		}
		t.Errorf("%s: values without end", user)
		return n
	}
	if n := fill("ann"); n != 12 { // 3/4 of 257 MiB
		t.Errorf("ann has %d values of 16 MiB", n)
	}
	if n := fill("ben"); n != 4 {
		t.Errorf("ben has %d values of 16 MiB", n)
	}
	k, err := skein.NewStateKey("ann", "0")
	must(t, err)
	must(t, s.Push(t.Context(), k, 0, -1))
	more, err := skein.NewStateKey("ann", "more")
	must(t, err)
	must(t, s.Set(more, val[:16<<20])) // for what was pushed can go
	if store.Has(k) || !store.Has(more) {
		t.Error("what was pushed stays")
	}
}

var (
	manyRounds = flag.Int("rounds", 8, "how often each of the many writers writes")
	manyBytes  = flag.Int("part", 16<<10, "bytes that each of them has")
)

// Many writers of one value, each with a range of its own, on two executors: no byte is lost. With -rounds 1000 -part 1048576
// it is 64 MiB and takes minutes.
func TestManyWriters(t *testing.T) {
	const writers = 64
	rounds, part := *manyRounds, *manyBytes
	stride := 97 + part/128
	ctx, client, k := t.Context(), replicatest.Client(t), key(t, "v")
	stores := []*replica.Store{replica.New(client, 1<<30), replica.New(client, 1<<30)}
	var wg sync.WaitGroup
	for w := range writers {
		s := session(t, stores[w%2])
		v := view(t, s, k, replica.Use{Off: int64(w * part), Len: int64(part), Size: int64(writers * part)})
		wg.Go(func() {
			for round := range rounds {
				for i := w; i < part; i += stride {
					v[i] = byte(round + i + 1)
				}
				if err := s.Push(ctx, k, int64(w*part), int64(part)); err != nil {
					t.Error(err)
				}
				if round%8 == w%8 { // what another writes
					if err := s.Pull(ctx, k, int64((w+round)%writers*part), int64(part)); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	got := global(t, session(t, stores[0]), k)
	for w := range writers {
		for i := w; i < part; i += stride {
			if got[w*part+i] != byte(rounds+i) {
				t.Fatalf("byte %d of writer %d: %d", i, w, got[w*part+i])
			}
		}
	}
}

func remap(region []byte, fd int) error {
	_, err := unix.MmapPtr(fd, 0, unsafe.Pointer(&region[0]), uintptr(len(region)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_FIXED)
	return err
}

// What a value grew by elsewhere, in its last chunk here and behind, comes also after a push that made all chunks here newer.
func TestPushOfWhatGrewElsewhere(t *testing.T) {
	ctx, client, k := t.Context(), replicatest.Client(t), key(t, "v")
	for _, from := range []int64{600_000, 1 << 20} {
		a, b := session(t, replica.New(client, 1<<30)), session(t, replica.New(client, 1<<30))
		must(t, a.Set(k, bytes.Repeat([]byte("a"), 600_000)))
		must(t, a.Push(ctx, k, 0, -1))
		v := view(t, a, k, replica.Use{Len: -1})
		must(t, b.Write(ctx, k, from, bytes.Repeat([]byte("b"), 600_000)))
		must(t, b.Push(ctx, k, 0, -1))
		for i := 0; i < 600_000; i += 100_000 {
			v[i] = 'A'
		}
		must(t, a.Push(ctx, k, 0, -1))
		must(t, a.Pull(ctx, k, 0, -1))
		want, got := global(t, b, k), make([]byte, from+600_000)
		if n, err := a.Read(ctx, k, 0, got); err != nil || !bytes.Equal(got[:n], want) {
			t.Error(n, len(want), err)
		}
	}
}
