package state

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
)

func key(t *testing.T, user, k string) skein.StateKey {
	t.Helper()
	sk, err := skein.NewStateKey(user, k)
	if err != nil {
		t.Fatal(err)
	}
	return sk
}

// runSuite is what every Redis must do for Store.
func runSuite(t *testing.T, s *Store) {
	n := 0
	for name, test := range map[string]func(*testing.T, *Store, skein.User){
		"life": testLife, "keys": testKeys, "bad input": testBadInput, "model": testModel, "concurrent changes": testConcurrent,
		"request ids": testRequestIDs, "replaced while read": testReplacedWhileRead, "failed uploads": testFailedUploads,
		"list": testList, "changes": testChanges, "add": testAdd, "elements": testElements, "expiry": testExpiry,
		"lock": testLock, "fence": testFence, "watch": testWatch, "lost chunks": testLostChunks, "patches": testPatches, "patches since": testPatchesSince, "quota": testQuota, "sweep": testSweep, "index": testIndex, "nothing left": testNothingLeft,
	} {
		n++
		user := skein.User(fmt.Sprintf("user-%d", n))
		t.Run(name, func(t *testing.T) { test(t, s, user) })
	}
}

// reason fails the test unless err is of the kind and has the reason.
func reason(t *testing.T, what string, err error, kind *fault.Kind, reason string) {
	t.Helper()
	if e := fault.From(err); e == nil || e.Kind != kind || e.Reason != reason {
		t.Errorf("%s: %v %+v; want %s %s", what, err, e, kind, reason)
	}
}

// holds fails the test unless the value is want, by every way of reading it.
func holds(t *testing.T, s *Store, k skein.StateKey, want []byte) Info {
	t.Helper()
	info, err := s.Stat(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	got, again, err := s.Get(t.Context(), k, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) || info.Size != int64(len(want)) || again != info {
		t.Fatalf("%s: %d bytes with %+v and %+v, want %d; same: %t", k, len(got), info, again, len(want), bytes.Equal(got, want))
	}
	return info
}

func testLife(t *testing.T, s *Store, u skein.User) {
	ctx, k := t.Context(), key(t, string(u), "k")
	_, _, err := s.Get(ctx, k, 0, 0)
	reason(t, "get", err, fault.NotFound, "NO_VALUE")
	_, err = s.Stat(ctx, k)
	reason(t, "stat", err, fault.NotFound, "NO_VALUE")
	reason(t, "delete", s.Delete(ctx, k, ""), fault.NotFound, "NO_VALUE")
	_, err = s.Set(ctx, k, []byte("x"), 7, "")
	reason(t, "set with a version", err, fault.Conflict, "CAS_MISMATCH")

	before := time.Now().Add(-time.Minute)
	var last Info
	grown := func(what string, i Info, err error) {
		t.Helper()
		if err != nil || i.Version <= last.Version || i.Key != k || i.Updated.Before(before) {
			t.Fatalf("%s: %+v after version %d, %v", what, i, last.Version, err)
		}
		last = i
	}
	i, err := s.Set(ctx, k, nil, Absent, "")
	grown("create empty", i, err)
	if got := holds(t, s, k, nil); got != i {
		t.Errorf("%+v, want %+v", got, i)
	}
	_, err = s.Set(ctx, k, []byte("x"), Absent, "")
	reason(t, "create again", err, fault.Conflict, "CAS_MISMATCH")
	if want := strconv.FormatInt(last.Version, 10); !strings.Contains(err.Error(), want) {
		t.Errorf("%v doesn't name %s", err, want)
	}
	i, err = s.Set(ctx, k, []byte("hello"), last.Version, "")
	grown("cas", i, err)
	_, err = s.Set(ctx, k, make([]byte, 1<<20), last.Version-1, "")
	reason(t, "cas of a large value", err, fault.Conflict, "CAS_MISMATCH")
	i, err = s.SetRange(ctx, k, 3, []byte("PPY"), "")
	grown("range", i, err)
	holds(t, s, k, []byte("helPPY"))
	i, err = s.SetRange(ctx, k, chunkSize+2, []byte("far"), "")
	grown("range past the end", i, err)
	holds(t, s, k, append(append([]byte("helPPY"), make([]byte, chunkSize-4)...), "far"...))
	i, err = s.SetRange(ctx, k, 1<<20, nil, "")
	grown("no bytes", i, err)
	if i.Size != chunkSize+5 {
		t.Errorf("no bytes at an offset changed the size to %d", i.Size)
	}
	for _, r := range []struct {
		offset, length int64
		want           string
	}{
		{3, 2, "PP"},
		{chunkSize, 0, "\x00\x00far"},
		{chunkSize - 1, 4, "\x00\x00\x00f"},
		{chunkSize + 3, 100, "ar"},
		{chunkSize + 5, 1, ""},
		{math.MaxInt64, math.MaxInt64, ""},
	} {
		got, _, err := s.Get(ctx, k, r.offset, r.length)
		if err != nil || string(got) != r.want {
			t.Errorf("[%d,+%d) = %q, %v, want %q", r.offset, r.length, got, err, r.want)
		}
	}
	i, err = s.Set(ctx, k, []byte("short"), Any, "")
	grown("replace", i, err)
	holds(t, s, k, []byte("short"))
	if err := s.Delete(ctx, k, ""); err != nil {
		t.Fatal(err)
	}
	_, err = s.Stat(ctx, k)
	reason(t, "stat after delete", err, fault.NotFound, "NO_VALUE")
	at, i, err := s.Append(ctx, k, []byte("new"), "")
	grown("after delete", i, err)
	if at != 0 {
		t.Errorf("the first append landed at %d", at)
	}
	holds(t, s, k, []byte("new"))
}

var hostileKeys = []string{
	"a", "a:b", "a:b:c", "a/b", "a//b", "/", ".", "..", "../x", "{", "}", "{}", "{a}b", "*", "a*", "[ab]", "?", "\n", "\r\n", " ", "%", "%2F",
	"\xff", "\xff\xff", "a\xff", "\x01", "a\x01", "é", "日本", ":append", "k:append", "c:0", "+", "-", "(a", "[a", strings.Repeat("k", skein.MaxKeyLen),
}

func testKeys(t *testing.T, s *Store, u skein.User) {
	for i, name := range hostileKeys {
		if _, err := s.Set(t.Context(), key(t, string(u), name), []byte(strconv.Itoa(i)), Absent, ""); err != nil {
			t.Fatalf("%q: %v", name, err)
		}
	}
	// Joined carelessly, these would be others' keys.
	for _, c := range [][2]string{{string(u) + "-a", "b:c"}, {string(u), "a-b:c"}} {
		if _, err := s.Set(t.Context(), key(t, c[0], c[1]), []byte(c[0]+c[1]), Absent, ""); err != nil {
			t.Fatal(err)
		}
	}
	for i, name := range hostileKeys {
		holds(t, s, key(t, string(u), name), []byte(strconv.Itoa(i)))
	}
	want := append(slices.Clone(hostileKeys), "a-b:c")
	slices.Sort(want)
	if got := names(t, s, u, "", 7); !slices.Equal(got, want) {
		t.Errorf("listed %q, want %q", got, want)
	}
}

// names lists keys page by page.
func names(t *testing.T, s *Store, u skein.User, prefix string, page int) (all []string) {
	t.Helper()
	token := ""
	for {
		infos, next, err := s.List(t.Context(), u, prefix, page, token)
		if err != nil || len(infos) > page {
			t.Fatalf("%d values, %v", len(infos), err)
		}
		for _, i := range infos {
			all = append(all, i.Key.Key)
		}
		if token = next; token == "" {
			return all
		}
	}
}

func testBadInput(t *testing.T, s *Store, u skein.User) {
	ctx, k := t.Context(), key(t, string(u), "k")
	if _, err := s.Set(ctx, k, []byte("untouched"), Any, ""); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("i", maxRequestID+1)
	get := func(offset, length int64) error { _, _, err := s.Get(ctx, k, offset, length); return err }
	put := func(offset int64, n int) error { _, err := s.SetRange(ctx, k, offset, make([]byte, n), ""); return err }
	list := func(prefix string, size int, token string) error {
		_, _, err := s.List(ctx, u, prefix, size, token)
		return err
	}
	set := func(n int, id string) error { _, err := s.Set(ctx, k, make([]byte, n), Any, id); return err }
	write := func(n int64, id string) error {
		_, err := s.Write(ctx, k, io.LimitReader(zeros{}, n), Any, id)
		return err
	}
	add := func(n int, id string) error { _, _, err := s.Append(ctx, k, make([]byte, n), id); return err }
	for _, c := range []struct {
		what   string
		err    error
		kind   *fault.Kind
		reason string
	}{
		{"negative offset", get(-1, 0), fault.Invalid, "BAD_RANGE"},
		{"negative length", get(0, -1), fault.Invalid, "BAD_RANGE"},
		{"least offset", get(math.MinInt64, 0), fault.Invalid, "BAD_RANGE"},
		{"negative write offset", put(-1, 1), fault.Invalid, "BAD_RANGE"},
		{"overflow", put(math.MaxInt64, 1), fault.TooLarge, "TOO_LARGE"},
		{"at the limit", put(s.max, 1), fault.TooLarge, "TOO_LARGE"},
		{"past the limit, no bytes", put(s.max+1, 0), fault.TooLarge, "TOO_LARGE"},
		{"range past a message", put(0, skein.MaxPayload+1), fault.TooLarge, "TOO_LARGE"},
		{"set past a message", set(skein.MaxPayload+1, ""), fault.TooLarge, "TOO_LARGE"},
		{"append past a message", add(skein.MaxPayload+1, ""), fault.TooLarge, "TOO_LARGE"},
		{"write past the limit", write(s.max+1, ""), fault.TooLarge, "TOO_LARGE"},
		{"endless write", write(math.MaxInt64, ""), fault.TooLarge, "TOO_LARGE"},
		{"id of a set", set(1, long), fault.Invalid, "BAD_REQUEST_ID"},
		{"id of a write", write(1, long), fault.Invalid, "BAD_REQUEST_ID"},
		{"id of an append", add(1, long), fault.Invalid, "BAD_REQUEST_ID"},
		{"id of a delete", s.Delete(ctx, k, long), fault.Invalid, "BAD_REQUEST_ID"},
		{"page size", list("", -1, ""), fault.Invalid, "BAD_PAGE"},
		{"page token", list("", 1, "\x00"), fault.Invalid, "BAD_PAGE"},
		{"long page token", list("", 1, strings.Repeat("A", 4000)), fault.Invalid, "BAD_PAGE"},
		{"prefix", list(strings.Repeat("p", skein.MaxKeyLen+1), 1, ""), fault.Invalid, "BAD_PREFIX"},
	} {
		reason(t, c.what, c.err, c.kind, c.reason)
	}
	holds(t, s, k, []byte("untouched"))
	// At the limit.
	if err := cmp.Or(write(s.max, ""), put(s.max-1, 1), set(skein.MaxPayload, ""), add(skein.MaxPayload, "")); err != nil {
		t.Error("at the limit:", err)
	}
	reason(t, "append past the limit", add(int(s.max-2*skein.MaxPayload)+1, ""), fault.TooLarge, "TOO_LARGE")
	reason(t, "get of more than a message", get(0, 0), fault.TooLarge, "TOO_LARGE")
	reason(t, "get of one byte more", get(5, skein.MaxPayload+1), fault.TooLarge, "TOO_LARGE")
	if err := get(5, skein.MaxPayload); err != nil {
		t.Error("a whole message:", err)
	}
}

// zeros is endless.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// size is about one at which something changes.
func size(r *rand.Rand, most int) int {
	edges := []int{0, 1, 100, inline, chunkSize, 2 * chunkSize, batch * chunkSize, 5 * chunkSize}
	return min(most, max(0, edges[r.IntN(len(edges))]+r.IntN(5)-2))
}

// Random changes do to a value what they do to a slice.
func testModel(t *testing.T, s *Store, u skein.User) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	ctx, k := t.Context(), key(t, string(u), "k")
	var model []byte // nil: no value
	var version int64
	random := func(n int) []byte {
		b := make([]byte, n+8)
		for i := 0; i < n; i += 8 {
			binary.LittleEndian.PutUint64(b[i:], r.Uint64())
		}
		return b[:n]
	}
	const most = 3 << 20
	for step := range 150 {
		var info Info
		var err error
		data := random(size(r, skein.MaxPayload))
		op := r.IntN(6)
		switch op {
		case 0:
			info, err = s.Set(ctx, k, data, Any, "")
			model = append([]byte{}, data...)
		case 1:
			info, err = s.Write(ctx, k, iotest.HalfReader(bytes.NewReader(data)), Any, "")
			model = append([]byte{}, data...)
		case 2, 3:
			at := size(r, most)
			if r.IntN(2) == 0 {
				at = r.IntN(len(model) + 1)
			}
			info, err = s.SetRange(ctx, k, int64(at), data, "")
			if end := at + len(data); len(data) > 0 && end > len(model) {
				model = append(model, make([]byte, end-len(model))...)
			}
			if model == nil {
				model = []byte{}
			}
			copy(model[min(at, len(model)):], data)
		case 4:
			data = data[:min(len(data), int(s.max)-len(model))]
			var at int64
			at, info, err = s.Append(ctx, k, data, "")
			if at != int64(len(model)) {
				t.Fatalf("step %d: appended at %d, want %d", step, at, len(model))
			}
			model = append(append([]byte{}, model...), data...)
		case 5:
			if model == nil {
				continue
			}
			err = s.Delete(ctx, k, "")
			model = nil
		}
		if err != nil || model != nil && (info.Size != int64(len(model)) || info.Version <= version) {
			t.Fatalf("step %d, op %d: %+v, %v; want %d bytes, version > %d", step, op, info, err, len(model), version)
		}
		if model == nil {
			continue
		}
		version = info.Version
		var got bytes.Buffer
		offset, length := 0, 0
		if r.IntN(3) > 0 {
			offset, length = size(r, most), size(r, most)
		}
		err = s.Read(ctx, k, int64(offset), int64(length), func(i Info) error {
			if i != info {
				return fmt.Errorf("read %+v, want %+v", i, info)
			}
			return nil
		}, func(b []byte) error {
			if len(b) == 0 || len(b) > MaxFrame {
				return fmt.Errorf("a frame of %d bytes", len(b))
			}
			got.Write(b)
			return nil
		})
		want := model[min(offset, len(model)):]
		if length > 0 {
			want = want[:min(length, len(want))]
		}
		if err != nil || !bytes.Equal(got.Bytes(), want) {
			t.Fatalf("step %d, op %d: [%d,+%d) of %d has %d bytes, want %d; %v", step, op, offset, length, len(model), got.Len(), len(want), err)
		}
	}
}

func testConcurrent(t *testing.T, s *Store, u skein.User) {
	const workers, rounds = 8, 20
	ctx, counter := t.Context(), key(t, string(u), "counter")
	small, large, ranges := key(t, string(u), "small"), key(t, string(u), "large"), key(t, string(u), "ranges")
	if _, err := s.Set(ctx, counter, []byte("0"), Absent, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Set(ctx, ranges, make([]byte, 2*chunkSize), Absent, ""); err != nil {
		t.Fatal(err)
	}
	const part = inline + 1000 // is staged
	var wg sync.WaitGroup
	var places sync.Map
	for w := range workers {
		wg.Go(func() {
			for round := range rounds {
				for { // add one
					data, info, err := s.Get(ctx, counter, 0, 0)
					if err != nil {
						t.Error(err)
						return
					}
					n, _ := strconv.Atoi(string(data))
					if _, err = s.Set(ctx, counter, []byte(strconv.Itoa(n+1)), info.Version, ""); err == nil {
						break
					}
					if !errors.Is(err, fault.Conflict) {
						t.Error(err)
						return
					}
				}
				line := fmt.Sprintf("%02d:%04d\n", w, round)
				at, _, err := s.Append(ctx, small, []byte(line), "")
				if _, taken := places.LoadOrStore(at, line); taken || err != nil {
					t.Errorf("%d is taken, %v", at, err)
				}
				if round < 3 {
					if _, _, err := s.Append(ctx, large, bytes.Repeat([]byte{byte('a' + w)}, part), ""); err != nil {
						t.Error(err)
					}
				}
				at = int64(w * 2 * chunkSize / workers)
				if _, err := s.SetRange(ctx, ranges, at, bytes.Repeat([]byte{byte(w + 1)}, 2*chunkSize/workers), ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	holds(t, s, counter, []byte(strconv.Itoa(workers*rounds)))
	data, _, err := s.Get(ctx, small, 0, 0)
	if err != nil || len(data) != workers*rounds*8 {
		t.Fatal(len(data), err)
	}
	places.Range(func(at, line any) bool {
		if i := at.(int64); string(data[i:i+8]) != line.(string) {
			t.Errorf("%q at %d, want %q", data[i:i+8], i, line)
		}
		return true
	})
	data, _, err = s.Get(ctx, large, 0, 0)
	if err != nil || len(data) != workers*3*part {
		t.Fatal(len(data), err)
	}
	for i := 0; i < len(data); i += part {
		if len(bytes.Trim(data[i:i+part], string(data[i:i+1]))) != 0 {
			t.Errorf("the append at %d is mixed with another", i)
		}
	}
	var want []byte
	for w := range workers {
		want = append(want, bytes.Repeat([]byte{byte(w + 1)}, 2*chunkSize/workers)...)
	}
	holds(t, s, ranges, want)
}

func testRequestIDs(t *testing.T, s *Store, u skein.User) {
	ctx, k := t.Context(), key(t, string(u), "k")
	var wg sync.WaitGroup
	var bad atomic.Int32
	for range 30 {
		wg.Go(func() {
			if at, i, err := s.Append(ctx, k, []byte("once"), "a"); at != 0 || i.Size != 4 || err != nil {
				bad.Add(1)
			}
		})
	}
	wg.Wait()
	if bad.Load() != 0 {
		t.Errorf("%d of 30 answers differ", bad.Load())
	}
	info := holds(t, s, k, []byte("once"))
	_, _, err := s.Append(ctx, k, []byte("other"), "a")
	reason(t, "other bytes", err, fault.Exists, "REQUEST_ID_REUSED")
	_, err = s.Set(ctx, k, []byte("once"), Any, "a")
	reason(t, "another operation", err, fault.Exists, "REQUEST_ID_REUSED")
	reason(t, "delete", s.Delete(ctx, k, "a"), fault.Exists, "REQUEST_ID_REUSED")

	first, err := s.Set(ctx, k, []byte("cas"), info.Version, "b")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err = s.Append(ctx, k, []byte("!"), ""); err != nil {
		t.Fatal(err)
	}
	if again, err := s.Set(ctx, k, []byte("cas"), info.Version, "b"); err != nil || again != first {
		t.Errorf("%+v, %v, want %+v", again, err, first)
	}
	_, err = s.Set(ctx, k, []byte("cas"), info.Version, "c")
	reason(t, "mismatch", err, fault.Conflict, "CAS_MISMATCH")
	_, err = s.Set(ctx, k, []byte("cas"), info.Version, "c")
	reason(t, "mismatch again", err, fault.Conflict, "CAS_MISMATCH")
	holds(t, s, k, []byte("cas!"))

	big := bytes.Repeat([]byte("0123456789abcdef"), 100_000)
	first, err = s.Write(ctx, k, bytes.NewReader(big), Any, "d")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if again, err := s.Set(ctx, k, big, Any, "d"); err != nil || again != first {
			t.Errorf("%+v, %v, want %+v", again, err, first)
		}
		if left := chunks(t, s, k); len(left) > 7+1+2 { // of the value, of the one byte before it, and of the append
			t.Errorf("an upload that was no more than a repetition left %q", left)
		}
		if at, _, err := s.Append(ctx, k, big[:100_000], "e"); err != nil || at != int64(len(big)) {
			t.Errorf("a large append, again: %d, %v", at, err)
		}
		if _, err := s.SetRange(ctx, k, 3, []byte("x"), "f"); err != nil {
			t.Error(err)
		}
	}
	if err := cmp.Or(s.Delete(ctx, k, "g"), s.Delete(ctx, k, "g")); err != nil {
		t.Error(err)
	}
	reason(t, "delete with another id", s.Delete(ctx, k, "h"), fault.NotFound, "NO_VALUE")
}
