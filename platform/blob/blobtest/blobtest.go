// Package blobtest is the conformance suite of blob.Bucket, and the real S3 servers to run it, and the tests of services,
// against. Enter by Run, or by MinIO for a server alone.
package blobtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"skein.dev/platform/blob"
	"skein.dev/platform/fault"
)

// Run checks what blob.Bucket promises. open gives a bucket, new or used before; a test keeps to its own prefix.
func Run(t *testing.T, open func(t *testing.T) blob.Bucket) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, bucket)
	}{
		{"Missing", missing},
		{"Empty", empty},
		{"Big", big},
		{"Ranges", ranges},
		{"Replace", replace},
		{"ReplaceUnderReaders", replaceUnderReaders},
		{"IfAbsentRace", ifAbsentRace},
		{"IfMatch", ifMatch},
		{"IfMatchRace", ifMatchRace},
		{"Conditions", conditions},
		{"BadBodies", badBodies},
		{"Keys", keys},
		{"BadKeys", badKeys},
		{"List", list},
		{"ListRandom", listRandom},
		{"Cancelled", cancelled},
		{"Helpers", helpers},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.run(t, bucket{open(t), fmt.Sprintf("%s-%d/", strings.ToLower(c.name), time.Now().UnixNano())})
		})
	}
}

// bucket keeps a test's objects below a prefix and makes errors of set-up steps fatal.
type bucket struct {
	blob.Bucket
	prefix string
}

func (b bucket) put(t *testing.T, key string, data []byte) blob.Info {
	t.Helper()
	info, err := b.Put(t.Context(), b.prefix+key, bytes.NewReader(data), int64(len(data)), blob.PutOptions{})
	if err != nil {
		t.Fatalf("put %q: %v", key, err)
	}
	return info
}

func (b bucket) get(t *testing.T, key string, off, length int64) ([]byte, blob.Info) {
	t.Helper()
	r, info, err := b.Get(t.Context(), b.prefix+key, off, length)
	if err != nil {
		t.Fatalf("get %q: %v", key, err)
	}
	defer func() { _ = r.Close() }()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("read %q: %v", key, err)
	}
	return data, info
}

func want(t *testing.T, err error, kind *fault.Kind, reason string) {
	t.Helper()
	if e := fault.From(err); err == nil || e.Kind != kind || e.Reason != reason {
		t.Fatalf("error is %v, want %v with reason %s", err, kind, reason)
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)}).Read(b)
	return b
}

func missing(t *testing.T, b bucket) {
	_, _, err := b.Get(t.Context(), b.prefix+"none", 0, -1)
	want(t, err, fault.NotFound, "NO_OBJECT")
	_, _, err = b.Get(t.Context(), b.prefix+"none", 5, 0)
	want(t, err, fault.NotFound, "NO_OBJECT")
	_, err = b.Stat(t.Context(), b.prefix+"none")
	want(t, err, fault.NotFound, "NO_OBJECT")
	if err := b.Delete(t.Context(), b.prefix+"none"); err != nil {
		t.Errorf("delete of nothing: %v", err)
	}
	page, err := b.List(t.Context(), b.prefix, "", 10, false)
	if err != nil || page.More || len(page.Items) > 0 || len(page.Prefixes) > 0 || page.Last() != "" {
		t.Errorf("list of nothing: %+v, %v", page, err)
	}
	if err := b.Ping(t.Context()); err != nil {
		t.Errorf("ping: %v", err)
	}
}

func empty(t *testing.T, b bucket) {
	b.put(t, "e", nil)
	for _, off := range []int64{0, 1, 100} {
		for _, length := range []int64{-1, 0, 1} {
			if data, info := b.get(t, "e", off, length); len(data) != 0 || info.Size != 0 {
				t.Errorf("from %d, %d bytes: %q, %+v", off, length, data, info)
			}
		}
	}
	info, err := b.Put(t.Context(), b.prefix+"unknown", strings.NewReader(""), -1, blob.PutOptions{})
	if err != nil || info.Size != 0 {
		t.Errorf("empty object of unknown size: %+v, %v", info, err)
	}
}

func big(t *testing.T, b bucket) {
	data := random(20<<20 + 17)
	for _, size := range []int64{int64(len(data)), -1} {
		// Without the methods of bytes.Reader: what comes from a network can't be rewound.
		info, err := b.Put(t.Context(), b.prefix+"big", struct{ io.Reader }{bytes.NewReader(data)}, size, blob.PutOptions{})
		if err != nil || info.Size != int64(len(data)) {
			t.Fatalf("put with size %d: %+v, %v", size, info, err)
		}
		got, info := b.get(t, "big", 0, -1)
		if sha256.Sum256(got) != sha256.Sum256(data) || info.Size != int64(len(data)) {
			t.Errorf("put with size %d: read %d other bytes, %+v", size, len(got), info)
		}
	}
	if got, _ := b.get(t, "big", 9<<20, 3<<20); !bytes.Equal(got, data[9<<20:12<<20]) {
		t.Error("a range over parts is wrong")
	}
	// Only as many bytes as announced are taken.
	if _, err := b.Put(t.Context(), b.prefix+"cut", bytes.NewReader(data), 10<<20, blob.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, _ := b.get(t, "cut", 0, -1); !bytes.Equal(got, data[:10<<20]) {
		t.Errorf("of 10 MiB announced, %d bytes were stored", len(got))
	}
}

func ranges(t *testing.T, b bucket) {
	data := []byte("0123456789")
	b.put(t, "r", data)
	for off := int64(0); off < 13; off++ {
		for length := int64(-1); length < 13; length++ {
			from := min(off, 10)
			to := int64(10)
			if length >= 0 {
				to = min(off+length, 10)
			}
			got, info := b.get(t, "r", off, length)
			if string(got) != string(data[from:max(from, to)]) || info.Size != 10 || info.Key != b.prefix+"r" || info.ETag == "" {
				t.Errorf("from %d, %d bytes: %q, %+v", off, length, got, info)
			}
		}
	}
	if got, _ := b.get(t, "r", 3, 1<<62); string(got) != "3456789" {
		t.Errorf("a huge length: %q", got)
	}
	_, _, err := b.Get(t.Context(), b.prefix+"r", -1, 1)
	want(t, err, fault.Invalid, "BAD_RANGE")
}

func replace(t *testing.T, b bucket) {
	began := time.Now()
	one := b.put(t, "x", []byte("one"))
	two := b.put(t, "x", []byte("three"))
	data, got := b.get(t, "x", 0, -1)
	stat, err := b.Stat(t.Context(), b.prefix+"x")
	if err != nil {
		t.Fatal(err)
	}
	page, err := b.List(t.Context(), b.prefix, "", 0, false)
	if err != nil || len(page.Items) != 1 {
		t.Fatalf("%+v, %v", page, err)
	}
	if string(data) != "three" || one.ETag == two.ETag {
		t.Errorf("read %q, ETags %q and %q", data, one.ETag, two.ETag)
	}
	for name, info := range map[string]blob.Info{"put": two, "get": got, "stat": stat, "list": page.Items[0]} {
		if info.Key != b.prefix+"x" || info.Size != 5 || info.ETag != two.ETag || info.Modified.Sub(began).Abs() > time.Minute {
			t.Errorf("%s says %+v, put said %+v", name, info, two)
		}
	}
	for range 2 {
		if err := b.Delete(t.Context(), b.prefix+"x"); err != nil {
			t.Fatal(err)
		}
	}
	_, err = b.Stat(t.Context(), b.prefix+"x")
	want(t, err, fault.NotFound, "NO_OBJECT")
}

// A reader sees one content, whole, while others replace it.
func replaceUnderReaders(t *testing.T, b bucket) {
	content := func(v byte) []byte { return bytes.Repeat([]byte{v}, 200<<10+int(v)) }
	b.put(t, "x", content(0))
	var wg sync.WaitGroup
	var done atomic.Bool
	for range 4 {
		wg.Go(func() {
			for !done.Load() {
				r, info, err := b.Get(t.Context(), b.prefix+"x", 0, -1)
				if err != nil {
					t.Errorf("get: %v", err)
					return
				}
				data, err := io.ReadAll(r)
				_ = r.Close()
				if err != nil || len(data) == 0 || !bytes.Equal(data, content(data[0])) || info.Size != int64(len(data)) {
					t.Errorf("read %d bytes of mixed content, size %d, error %v", len(data), info.Size, err)
					return
				}
			}
		})
	}
	for v := byte(1); v < 60; v++ {
		b.put(t, "x", content(v))
	}
	done.Store(true)
	wg.Wait()
}

func ifAbsentRace(t *testing.T, b bucket) {
	for round := range 5 {
		key := fmt.Sprintf("%sraced-%d", b.prefix, round)
		var wins atomic.Int32
		var winner atomic.Value
		start := make(chan struct{})
		var wg sync.WaitGroup
		for i := range 32 {
			wg.Go(func() {
				me := fmt.Sprintf("writer %d", i)
				<-start
				_, err := b.Put(t.Context(), key, strings.NewReader(me), int64(len(me)), blob.PutOptions{IfAbsent: true})
				if err == nil {
					wins.Add(1)
					winner.Store(me)
				} else if !errors.Is(err, fault.Conflict) {
					t.Errorf("a loser's error: %v", err)
				}
			})
		}
		close(start)
		wg.Wait()
		if wins.Load() != 1 {
			t.Fatalf("%d of 32 won", wins.Load())
		}
		if data, _, err := blob.Read(t.Context(), b, key, 100); err != nil || string(data) != winner.Load() {
			t.Fatalf("%q won, the object is %q, %v", winner.Load(), data, err)
		}
	}
}

func ifMatch(t *testing.T, b bucket) {
	put := func(key, data, etag string) (blob.Info, error) {
		return b.Put(t.Context(), b.prefix+key, strings.NewReader(data), int64(len(data)), blob.PutOptions{IfMatch: etag})
	}
	one := b.put(t, "x", []byte("one"))
	two, err := put("x", "two", one.ETag)
	if err != nil {
		t.Fatal(err)
	}
	_, err = put("x", "stale", one.ETag)
	want(t, err, fault.Conflict, "OBJECT_CHANGED")
	_, err = put("none", "x", two.ETag)
	want(t, err, fault.Conflict, "OBJECT_CHANGED")
	if data, info := b.get(t, "x", 0, -1); string(data) != "two" || info.ETag != two.ETag {
		t.Errorf("%q, %+v", data, info)
	}
}

// A counter that is only ever replaced on condition loses no step.
func ifMatchRace(t *testing.T, b bucket) {
	b.put(t, "n", []byte("0"))
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			for steps := 0; steps < 5; {
				data, info, err := blob.Read(t.Context(), b, b.prefix+"n", 100)
				if err != nil {
					t.Error(err)
					return
				}
				var n int
				_, _ = fmt.Sscan(string(data), &n)
				next := fmt.Sprint(n + 1)
				_, err = b.Put(t.Context(), b.prefix+"n", strings.NewReader(next), int64(len(next)), blob.PutOptions{IfMatch: info.ETag})
				if err == nil {
					steps++
				} else if !errors.Is(err, fault.Conflict) {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if data, _ := b.get(t, "n", 0, -1); string(data) != "30" {
		t.Errorf("30 steps lead to %s", data)
	}
}

// What a store could not promise is refused.
func conditions(t *testing.T, b bucket) {
	for _, c := range []struct {
		size int64
		opts blob.PutOptions
	}{
		{blob.MaxConditional + 1, blob.PutOptions{IfAbsent: true}},
		{blob.MaxConditional + 1, blob.PutOptions{IfMatch: "x"}},
		{-1, blob.PutOptions{IfAbsent: true}},
		{1, blob.PutOptions{IfAbsent: true, IfMatch: "x"}},
	} {
		_, err := b.Put(t.Context(), b.prefix+"x", bytes.NewReader(make([]byte, blob.MaxConditional+1)), c.size, c.opts)
		want(t, err, fault.Invalid, "BAD_CONDITION")
	}
	full := random(blob.MaxConditional)
	for _, wins := range []bool{true, false} {
		_, err := b.Put(t.Context(), b.prefix+"full", bytes.NewReader(full), int64(len(full)), blob.PutOptions{IfAbsent: true})
		if wins && err != nil || !wins && !errors.Is(err, fault.Conflict) {
			t.Errorf("the largest conditional object: %v", err)
		}
	}
}

// A body that breaks leaves the old object and says whose fault it was.
func badBodies(t *testing.T, b bucket) {
	b.put(t, "x", []byte("old"))
	broken := errors.New("the reader broke")
	for _, n := range []int{10, 12 << 20} {
		for _, size := range []int64{int64(n) + 1, -1} {
			_, err := b.Put(t.Context(), b.prefix+"x",
				io.MultiReader(bytes.NewReader(make([]byte, n)), iotest.ErrReader(broken)), size, blob.PutOptions{})
			if !errors.Is(err, broken) {
				t.Errorf("reader broken after %d of %d bytes: %v", n, size, err)
			}
		}
		_, err := b.Put(t.Context(), b.prefix+"x", bytes.NewReader(make([]byte, n)), int64(n)+1, blob.PutOptions{})
		want(t, err, fault.Invalid, "BAD_SIZE")
	}
	if data, _ := b.get(t, "x", 0, -1); string(data) != "old" {
		t.Errorf("the object has %d bytes", len(data))
	}
}

func keys(t *testing.T, b bucket) {
	all := []string{
		"a b", " lead", "plus+plus", "100%", "%2e%2e", "%41", "q?x=1&y#frag", "semi;colon:at@", "bang!", "!", "a!b!/c!", "star*{}[]",
		"quote'\"`", "<xml>&amp;", "back\\slash", "tilde~", "dot.", ".dot", "...", "=", "a=", "b=/b", "~/x", "Üñí/κλειδί/鍵/🔑", "e\u0301 and \u00e9",
		"UPPER/case", "upper/case", strings.Repeat("s", 255), strings.Repeat("d/", 200) + "end",
	}
	long := b.prefix
	for len(long) < blob.MaxKey {
		long += strings.Repeat("k", min(200, blob.MaxKey-len(long))) + "/"
	}
	all = append(all, strings.TrimPrefix(strings.TrimSuffix(long[:blob.MaxKey], "/"), b.prefix))
	for _, k := range all {
		b.put(t, k, []byte(k))
	}
	for _, k := range all {
		if data, info := b.get(t, k, 0, -1); string(data) != k || info.Key != b.prefix+k {
			t.Errorf("key %q holds %q, %+v", k, data, info)
		}
	}
	got := walk(t, b, b.prefix, 7, false)
	slices.Sort(all)
	for i := range all {
		all[i] = b.prefix + all[i]
	}
	if !slices.Equal(got, all) {
		t.Errorf("list gives\n%q, want\n%q", got, all)
	}
	for _, k := range all {
		if err := b.Delete(t.Context(), k); err != nil {
			t.Errorf("delete %q: %v", k, err)
		}
	}
	if got := walk(t, b, b.prefix, 1000, false); len(got) > 0 {
		t.Errorf("left after deletion: %q", got)
	}
}

func badKeys(t *testing.T, b bucket) {
	for _, k := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "a/./b", "a/../b", "../x", "a\x00b", "a\nb", "a\x7f", "a\xff", "a\\..\\b", "a/ . /b", "a/\u00a0../b", "x[minio_cache:v2,id:1]", strings.Repeat("k", blob.MaxKey+1),
	} {
		_, err := b.Put(t.Context(), k, strings.NewReader("x"), 1, blob.PutOptions{})
		want(t, err, fault.Invalid, "BAD_KEY")
		_, _, err = b.Get(t.Context(), k, 0, -1)
		want(t, err, fault.Invalid, "BAD_KEY")
		_, err = b.Stat(t.Context(), k)
		want(t, err, fault.Invalid, "BAD_KEY")
		want(t, b.Delete(t.Context(), k), fault.Invalid, "BAD_KEY")
	}
}

// walk lists everything page by page; prefixes are mixed in by order.
func walk(t *testing.T, b bucket, prefix string, limit int, delimiter bool) []string {
	t.Helper()
	var all []string
	after := ""
	for {
		page, err := b.List(t.Context(), prefix, after, limit, delimiter)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, i := range page.Items {
			names = append(names, i.Key)
		}
		if names = append(names, page.Prefixes...); len(names) > limit {
			t.Fatalf("a page of at most %d has %d", limit, len(names))
		}
		slices.Sort(names)
		all = append(all, names...)
		if !page.More {
			if !slices.IsSorted(all) {
				t.Errorf("out of order: %q", all)
			}
			return all
		}
		if len(names) == 0 {
			t.Fatal("an empty page says that there is more")
		}
		after = page.Last()
	}
}

func list(t *testing.T, b bucket) {
	for _, k := range []string{"a!", "a/1!", "a/2!", "a/b/3!", "a-b!", "ab!", "b/x!", "c!", "d", "de", "df/x"} {
		b.put(t, k, []byte(k))
	}
	for _, c := range []struct {
		prefix    string
		delimiter bool
		want      string
	}{
		{"", false, "a! a-b! a/1! a/2! a/b/3! ab! b/x! c! d de df/x"},
		{"", true, "a! a-b! a/ ab! b/ c! d de df/"},
		{"a", false, "a! a-b! a/1! a/2! a/b/3! ab!"},
		{"a", true, "a! a-b! a/ ab!"},
		{"a/", true, "a/1! a/2! a/b/"},
		{"a/b", true, "a/b/"},
		{"a/b/", true, "a/b/3!"},
		{"b/x!", true, "b/x!"},
		{"d", false, "d de df/x"},
		{"d", true, "d de df/"},
		{"zzz", true, ""},
	} {
		for limit := 1; limit < 10; limit++ {
			got := walk(t, b, b.prefix+c.prefix, limit, c.delimiter)
			for i := range got {
				got[i] = strings.TrimPrefix(got[i], b.prefix)
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("prefix %q, delimiter %v, %d at a time: %q, want %q", c.prefix, c.delimiter, limit, got, c.want)
			}
		}
	}
}

// listRandom compares with a sorted slice.
func listRandom(t *testing.T, b bucket) {
	rng := rand.New(rand.NewPCG(1, 2))
	var model []string
	for range 120 {
		k := ""
		for depth := rng.IntN(4); depth >= 0; depth-- {
			k += []string{"a", "a-", "b", "ab", "a b", strings.Repeat("l", 79+rng.IntN(3)), "é"}[rng.IntN(7)] + "/"
		}
		k = b.prefix + strings.TrimSuffix(k, "/") + "!" // so that no key is a directory of another
		if !slices.Contains(model, k) {
			model = append(model, k)
			b.put(t, strings.TrimPrefix(k, b.prefix), nil)
		}
	}
	slices.Sort(model)
	for range 60 {
		from := model[rng.IntN(len(model))]
		prefix := from[:len(b.prefix)+rng.IntN(len(from)-len(b.prefix))]
		prefix = strings.ToValidUTF8(prefix, "")
		delimiter := rng.IntN(2) == 0
		var expect []string
		for _, k := range model {
			if rest, ok := strings.CutPrefix(k, prefix); ok {
				if dir, _, deep := strings.Cut(rest, "/"); deep && delimiter {
					k = prefix + dir + "/"
				}
				if !slices.Contains(expect, k) {
					expect = append(expect, k)
				}
			}
		}
		limit := 1 + rng.IntN(40)
		if got := walk(t, b, prefix, limit, delimiter); !slices.Equal(got, expect) {
			t.Fatalf("prefix %q, delimiter %v, %d at a time:\n%q, want\n%q", prefix, delimiter, limit, got, expect)
		}
	}
}

func cancelled(t *testing.T, b bucket) {
	b.put(t, "x", []byte("x"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, getErr := b.Get(ctx, b.prefix+"x", 0, -1)
	_, putErr := b.Put(ctx, b.prefix+"y", strings.NewReader("y"), 1, blob.PutOptions{})
	_, listErr := b.List(ctx, b.prefix, "", 10, false)
	for _, err := range []error{getErr, putErr, listErr, b.Delete(ctx, b.prefix+"x"), b.Ping(ctx)} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v, want context.Canceled", err)
		}
	}
}

func helpers(t *testing.T, b bucket) {
	for i := range 5 {
		b.put(t, fmt.Sprint(i), make([]byte, i))
	}
	n := 0
	for info, err := range blob.All(t.Context(), b, b.prefix) {
		if err != nil || info.Size != int64(n) {
			t.Fatalf("%d: %+v, %v", n, info, err)
		}
		n++
	}
	if n != 5 {
		t.Errorf("walked over %d of 5", n)
	}
	if data, _, err := blob.Read(t.Context(), b, b.prefix+"4", 4); err != nil || len(data) != 4 {
		t.Errorf("%q, %v", data, err)
	}
	_, _, err := blob.Read(t.Context(), b, b.prefix+"4", 3)
	want(t, err, fault.TooLarge, "OBJECT_TOO_LARGE")
}
