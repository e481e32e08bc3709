package fs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"skein.dev"
	"skein.dev/platform/blob"
	"skein.dev/platform/blob/blobtest"
	"skein.dev/platform/fault"
	"skein.dev/services/fs"
)

const block = 1 << 20

// each runs a test over a directory and over MinIO.
func each(t *testing.T, run func(t *testing.T, bucket string)) {
	t.Helper()
	t.Run("Dir", func(t *testing.T) { run(t, "file://"+t.TempDir()) })
	t.Run("MinIO", func(t *testing.T) { run(t, blobtest.MinIO(t)) })
}

func open(t *testing.T, bucket string) *fs.Files {
	t.Helper()
	return fs.New(openBucket(t, bucket), 64<<20, time.Hour)
}

func openBucket(t *testing.T, url string) blob.Bucket {
	t.Helper()
	b, err := blob.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func path(t *testing.T, p string) skein.FilePath {
	t.Helper()
	fp, err := skein.NewFilePath("ann", p)
	if err != nil {
		t.Fatal(err)
	}
	return fp
}

func put(t *testing.T, files *fs.Files, p string, data []byte) fs.File {
	t.Helper()
	// OneByteReader would be slow; HalfReader shows that reads need not fill.
	f, err := files.Put(t.Context(), path(t, p), iotest.HalfReader(bytes.NewReader(data)), fs.Condition{})
	if err != nil {
		t.Fatalf("put %s: %v", p, err)
	}
	if f.Size != int64(len(data)) || f.Digest != skein.DigestOf(data) {
		t.Fatalf("put %s of %d bytes gives %+v", p, len(data), f)
	}
	return f
}

func get(ctx context.Context, files *fs.Files, p skein.FilePath, off, length int64) ([]byte, fs.File, error) {
	f, err := files.Stat(ctx, p)
	if err != nil {
		return nil, f, err
	}
	data := []byte{}
	err = files.Read(ctx, f, off, length, func(b []byte) error { data = append(data, b...); return nil })
	return data, f, err
}

func want(t *testing.T, err error, kind *fault.Kind, reason string) {
	t.Helper()
	if e := fault.From(err); err == nil || e.Kind != kind || e.Reason != reason {
		t.Fatalf("error is %v, want %v with reason %s", err, kind, reason)
	}
}

// random gives bytes that differ between seeds, in blocks of which some are alike.
func random(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := 0; i < n; i += block {
		if rng.IntN(3) > 0 {
			_, _ = rand.NewChaCha8([32]byte{byte(rng.IntN(4))}).Read(b[i:min(i+block, n)])
		}
	}
	if n > 0 {
		b[rng.IntN(n)]++
	}
	return b
}

// Whatever is done to files, they are as a map of paths to contents has it.
func TestModel(t *testing.T) {
	each(t, func(t *testing.T, bucket string) {
		files := open(t, bucket)
		rng := rand.New(rand.NewPCG(3, 4))
		sizes := []int{0, 1, 100, block - 1, block, block + 1, 2*block + 77}
		var names []string
		for _, dir := range []string{"", "a/", "a!/", "a b/", "a/[x]/", "a/deep/er/", "é/"} {
			for _, name := range []string{"a", "a!", "a b", " ", "!", "a!!", "[", "[!", "z.txt", "xl.meta", "a\\b", "+%2f", "鍵"} {
				names = append(names, dir+name)
			}
		}
		model := map[string][]byte{}
		for step := range 250 {
			name := names[rng.IntN(len(names))]
			content, exists := model[name]
			switch op := rng.IntN(10); {
			case op < 4:
				data := random(rng, sizes[rng.IntN(len(sizes))])
				put(t, files, name, data)
				model[name] = data
			case op == 4:
				err := files.Delete(t.Context(), path(t, name), nil)
				if exists != (err == nil) || err != nil && fault.From(err).Reason != "NO_FILE" {
					t.Fatalf("step %d: delete %q: %v, it exists: %v", step, name, err, exists)
				}
				delete(model, name)
			case op < 8:
				off, length := rng.Int64N(int64(len(content)+10)), int64(-1)
				if rng.IntN(2) == 0 {
					length = rng.Int64N(3 * block)
				}
				data, _, err := get(t.Context(), files, path(t, name), off, length)
				from := min(off, int64(len(content)))
				to := int64(len(content))
				if length >= 0 {
					to = min(from+length, to)
				}
				if exists && (err != nil || !bytes.Equal(data, content[from:to])) {
					t.Fatalf("step %d: get %q [%d:%d] of %d: %d bytes, %v", step, name, from, to, len(content), len(data), err)
				} else if !exists {
					want(t, err, fault.NotFound, "NO_FILE")
				}
			default:
				compareList(t, files, model, []string{"", "a", "a/", "a!", "a ", "a/[", "é/", "zz"}[rng.IntN(8)], 1+rng.IntN(20), rng.IntN(2) == 0)
			}
		}
		compareList(t, files, model, "", 1000, false)
	})
}

func compareList(t *testing.T, files *fs.Files, model map[string][]byte, prefix string, limit int, shallow bool) {
	t.Helper()
	var expect, got []string
	for _, name := range slices.Sorted(maps.Keys(model)) {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		if dir, _, deep := strings.Cut(rest, "/"); deep && shallow {
			name = prefix + dir + "/"
		}
		if !slices.Contains(expect, name) {
			expect = append(expect, name)
		}
	}
	for token := ""; ; {
		l, err := files.List(t.Context(), "ann", prefix, token, limit, shallow, false)
		if err != nil {
			t.Fatal(err)
		}
		var page []string
		for _, f := range l.Files {
			if content, ok := model[f.Path.Path]; !ok || f.Digest != skein.DigestOf(content) || f.Size != int64(len(content)) || f.Path.User != "ann" {
				t.Fatalf("listed: %+v", f)
			}
			page = append(page, f.Path.Path)
		}
		if page = append(page, l.Dirs...); len(page) > limit {
			t.Fatalf("%d on a page of %d", len(page), limit)
		}
		slices.Sort(page)
		got = append(got, page...)
		if token = l.Next; token == "" {
			break
		}
	}
	if !slices.Equal(got, expect) {
		t.Fatalf("prefix %q, shallow %v, %d at a time:\n%q, want\n%q", prefix, shallow, limit, got, expect)
	}
}

// A user's listing, files and blocks are of no use to another.
func TestUsersAreApart(t *testing.T) {
	dir := t.TempDir()
	files := open(t, "file://"+dir)
	put(t, files, "x", []byte("secret"))
	for _, user := range []string{"an", "annn", "bob"} {
		p, err := skein.NewFilePath(user, "x")
		if err != nil {
			t.Fatal(err)
		}
		_, err = files.Stat(t.Context(), p)
		want(t, err, fault.NotFound, "NO_FILE")
		want(t, files.Delete(t.Context(), p, nil), fault.NotFound, "NO_FILE")
		if l, err := files.List(t.Context(), skein.User(user), "", "", 10, false, false); err != nil || len(l.Files) > 0 {
			t.Errorf("%s sees %+v, %v", user, l, err)
		}
	}
	bob, _ := skein.NewFilePath("bob", "x")
	if _, err := files.Put(t.Context(), bob, strings.NewReader("secret"), fs.Condition{}); err != nil {
		t.Fatal(err)
	}
	if blocks := blockFiles(t, dir); len(blocks) != 2 {
		t.Errorf("two users' same block is kept in %q", blocks)
	}
}

func TestListRefuses(t *testing.T) {
	files := open(t, "file://"+t.TempDir())
	for _, prefix := range []string{"../", "..", "a/../", "/", "/a", "a//", "./", "a\x00", "a\xff", strings.Repeat("x/", 400)} {
		if _, err := files.List(t.Context(), "ann", prefix, "", 10, false, false); fault.From(err) == nil || fault.From(err).Kind != fault.Invalid {
			t.Errorf("prefix %q: %v", prefix, err)
		}
	}
	for _, token := range []string{"%", "Li4v!", strings.Repeat("a", 2000)} {
		_, err := files.List(t.Context(), "ann", "", token, 10, false, false)
		want(t, err, fault.Invalid, "BAD_TOKEN")
	}
}

// A name that no store could hold is refused, whichever store it is.
func TestLongNames(t *testing.T) {
	files := open(t, "file://"+t.TempDir())
	for _, p := range []string{strings.Repeat("!", 200), strings.Repeat("!!!!!!!/", 90)} {
		_, err := files.Put(t.Context(), path(t, p), strings.NewReader(""), fs.Condition{})
		want(t, err, fault.Invalid, "BAD_NAME")
	}
	each(t, func(t *testing.T, bucket string) {
		files := open(t, bucket)
		for _, p := range []string{strings.Repeat("x", 240), strings.Repeat("x/", 383) + "yy", strings.Repeat(strings.Repeat("é", 120)+"/", 3) + "yy"} {
			put(t, files, p, []byte(p))
			if data, _, err := get(t.Context(), files, path(t, p), 0, -1); err != nil || string(data) != p {
				t.Errorf("%.50s: %v", p, err)
			}
		}
	})
}

func TestConditions(t *testing.T) {
	each(t, func(t *testing.T, bucket string) {
		files := open(t, bucket)
		try := func(content string, cond fs.Condition) error {
			_, err := files.Put(t.Context(), path(t, "x"), strings.NewReader(content), cond)
			return err
		}
		one, other := skein.DigestOf([]byte("one")), skein.DigestOf([]byte("other"))
		want(t, try("one", fs.Condition{Match: &other}), fault.Conflict, "FILE_CHANGED")
		if err := try("one", fs.Condition{Absent: true}); err != nil {
			t.Fatal(err)
		}
		want(t, try("two", fs.Condition{Absent: true}), fault.Conflict, "FILE_CHANGED")
		want(t, try("two", fs.Condition{Match: &other}), fault.Conflict, "FILE_CHANGED")
		if err := try("two", fs.Condition{Match: &one}); err != nil {
			t.Fatal(err)
		}
		// Of many who would create a file, or replace one content of it, one does.
		for name, cond := range map[string]fs.Condition{"created": {Absent: true}, "x": {Match: new(skein.DigestOf([]byte("two")))}} {
			var wins atomic.Int32
			var wg sync.WaitGroup
			for i := range 12 {
				wg.Go(func() {
					_, err := files.Put(t.Context(), path(t, name), strings.NewReader(fmt.Sprint("writer ", i)), cond)
					if err == nil {
						wins.Add(1)
					} else if !errors.Is(err, fault.Conflict) {
						t.Error(err)
					}
				})
			}
			if wg.Wait(); wins.Load() != 1 {
				t.Errorf("%s: %d won", name, wins.Load())
			}
		}
	})
}

// Who deletes a file that has a content deletes no other, however close that comes.
func TestConditionalDelete(t *testing.T) {
	files := fs.New(openBucket(t, "file://"+t.TempDir()), 1<<20, time.Minute)
	old, p := skein.DigestOf([]byte("old")), path(t, "x")
	deleted := 0
	for range 300 {
		put(t, files, "x", []byte("old"))
		var wg sync.WaitGroup
		wg.Go(func() {
			err := files.Delete(t.Context(), p, &old)
			if err == nil {
				deleted++
			} else if !errors.Is(err, fault.Conflict) {
				t.Error(err)
			}
		})
		wg.Go(func() { put(t, files, "x", []byte("new")) })
		wg.Wait()
		if data, _, err := get(t.Context(), files, p, 0, -1); err != nil || string(data) != "new" {
			t.Fatalf("what was put meanwhile: %q, %v", data, err)
		}
	}
	t.Log(deleted, "of 300 were deleted")
}

// What ends early or is too large leaves the file as it was.
func TestFailedPuts(t *testing.T) {
	files := fs.New(openBucket(t, "file://"+t.TempDir()), 2*block, 300*time.Millisecond)
	put(t, files, "x", []byte("old"))
	try := func(r io.Reader) error {
		_, err := files.Put(t.Context(), path(t, "x"), r, fs.Condition{})
		return err
	}
	want(t, try(bytes.NewReader(make([]byte, 2*block+1))), fault.TooLarge, "TOO_LARGE")
	want(t, try(bytes.NewReader(make([]byte, 200*block))), fault.TooLarge, "TOO_LARGE")
	broken := errors.New("broken")
	for _, end := range []error{broken, io.ErrUnexpectedEOF} { // the latter is how net/http and io.ReadFull speak
		for _, n := range []int{0, 10, block, block + 10} {
			if err := try(io.MultiReader(bytes.NewReader(make([]byte, n)), iotest.ErrReader(end))); !errors.Is(err, end) {
				t.Errorf("broken after %d bytes: %v", n, err)
			}
		}
	}
	slow := io.MultiReader(strings.NewReader("slow"), readerFunc(func([]byte) (int, error) { time.Sleep(400 * time.Millisecond); return 0, io.EOF }))
	want(t, try(slow), fault.Timeout, "UPLOAD_TOO_SLOW")
	if data, _, err := get(t.Context(), files, path(t, "x"), 0, -1); err != nil || string(data) != "old" {
		t.Errorf("%q, %v", data, err)
	}
	put(t, files, "x", make([]byte, 2*block))
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// A reader gets one content, whole, while others replace it.
func TestReplaceWhileRead(t *testing.T) {
	each(t, func(t *testing.T, bucket string) {
		files := open(t, bucket)
		content := func(v int) []byte { return bytes.Repeat([]byte{byte(v)}, 3*block+v) }
		put(t, files, "x", content(0))
		var done atomic.Bool
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				for !done.Load() {
					data, f, err := get(t.Context(), files, path(t, "x"), 0, -1)
					if err != nil || skein.DigestOf(data) != f.Digest || len(data) < 3*block || !bytes.Equal(data, content(len(data)-3*block)) {
						t.Errorf("read %d bytes: %v", len(data), err)
						return
					}
				}
			})
		}
		for v := 1; v < 8; v++ {
			put(t, files, "x", content(v))
		}
		done.Store(true)
		wg.Wait()
	})
}

// blockFiles and nameFiles give the files in which a directory bucket keeps blocks and records.
func blockFiles(t *testing.T, dir string) []string {
	return tree(t, filepath.Join(dir, "objects/fs/blocks"))
}

func nameFiles(t *testing.T, dir string) []string {
	return tree(t, filepath.Join(dir, "objects/fs/names"))
}

func tree(t *testing.T, dir string) (all []string) {
	t.Helper()
	_ = filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			all = append(all, p)
		}
		return nil
	})
	return all
}

func flip(t *testing.T, file string, at int64) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// One flipped bit anywhere in the store: every read that touches it fails, every other read is right.
func TestCorruption(t *testing.T) {
	dir := t.TempDir()
	files := open(t, "file://"+dir)
	data := make([]byte, 4*block+1000)
	_, _ = rand.NewChaCha8([32]byte{9}).Read(data)
	put(t, files, "x", data)
	rng := rand.New(rand.NewPCG(5, 6))
	p := path(t, "x")
	for range 300 {
		at := rng.Int64N(int64(len(data)))
		i := at / block
		d := skein.DigestOf(data[i*block : min((i+1)*block, int64(len(data)))])
		file := filepath.Join(dir, "objects/fs/blocks/ann", d.String()+"=")
		flip(t, file, at%block)
		off, length := rng.Int64N(int64(len(data))), 1+rng.Int64N(2*block)
		end := min(off+length, int64(len(data)))
		got, _, err := get(t.Context(), files, p, off, length)
		if off/block <= i && (end-1)/block >= i {
			want(t, err, fault.DataLoss, "DIGEST_MISMATCH")
			if !bytes.HasPrefix(data[off:], got) {
				t.Fatal("wrong bytes came before the error")
			}
		} else if err != nil || !bytes.Equal(got, data[off:end]) {
			t.Fatalf("bit in block %d, read [%d:%d]: %v", i, off, end, err)
		}
		if _, _, err := get(t.Context(), files, p, at, 1); !errors.Is(err, fault.DataLoss) {
			t.Fatalf("the flipped byte itself: %v", err)
		}
		flip(t, file, at%block)
	}
	// Of a record, no byte may change either.
	record := nameFiles(t, dir)[0]
	st, err := os.Stat(record)
	if err != nil {
		t.Fatal(err)
	}
	for at := range st.Size() {
		flip(t, record, at)
		_, _, err := get(t.Context(), files, p, 0, 1)
		want(t, err, fault.DataLoss, "DIGEST_MISMATCH")
		flip(t, record, at)
	}
	// A put mends what is damaged, cut or gone.
	blocks := blockFiles(t, dir)
	flip(t, blocks[0], 5)
	if err := os.Truncate(blocks[1], 10); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(blocks[2]); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for i := range int64(5) {
		if _, _, err := get(t.Context(), files, p, i*block, 1); err != nil {
			if !errors.Is(err, fault.DataLoss) {
				t.Errorf("block %d: %v", i, err)
			}
			seen[fault.From(err).Reason] = true
		}
	}
	if !seen["DIGEST_MISMATCH"] || !seen["BLOCK_MISSING"] {
		t.Errorf("reasons given: %v", seen)
	}
	flip(t, record, 3)
	put(t, files, "x", data)
	if got, _, err := get(t.Context(), files, p, 0, -1); err != nil || !bytes.Equal(got, data) {
		t.Errorf("after the repair: %v", err)
	}
	flip(t, record, 3)
	if err := files.Delete(t.Context(), p, nil); err != nil {
		t.Errorf("delete a damaged file: %v", err)
	}
}
