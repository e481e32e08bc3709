package fs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"skein.dev"
	"skein.dev/platform/blob"
	"skein.dev/platform/fault"
	"skein.dev/services/fs"
)

func blocks(t *testing.T, b blob.Bucket) (n int) {
	t.Helper()
	for _, err := range blob.All(t.Context(), b, "fs/blocks/") {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

func TestSweep(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		bucket := openBucket(t, url)
		files := open(t, url)
		sweep := func(grace time.Duration, deleted, left int) {
			t.Helper()
			n, err := files.Sweep(t.Context(), grace)
			if got := blocks(t, bucket); err != nil || n != deleted || got != left {
				t.Fatalf("swept %d, want %d; left %d, want %d; %v", n, deleted, got, left, err)
			}
		}
		a, b, c := bytes.Repeat([]byte("a"), block), bytes.Repeat([]byte("b"), block), bytes.Repeat([]byte("c"), block)
		sweep(0, 0, 0)
		put(t, files, "kept", append(a, b...))
		put(t, files, "replaced", append(b, c...))
		put(t, files, "replaced", a)
		put(t, files, "deleted", []byte("d"))
		if err := files.Delete(t.Context(), path(t, "deleted"), nil); err != nil {
			t.Fatal(err)
		}
		sweep(time.Hour, 0, 4)
		time.Sleep(1100 * time.Millisecond) // S3 tells times in seconds
		sweep(0, 2, 2)
		sweep(0, 0, 2)
		if got, _, err := get(t.Context(), files, path(t, "kept"), 0, -1); err != nil || !bytes.Equal(got, append(a, b...)) {
			t.Error(err)
		}
	})
}

// A user whose record can't be read keeps all blocks; others are swept.
func TestSweepWithDamage(t *testing.T) {
	dir := t.TempDir()
	bucket := openBucket(t, "file://"+dir)
	files := open(t, "file://"+dir)
	put(t, files, "x", []byte("x"))
	flip(t, nameFiles(t, dir)[0], 70)
	for _, content := range []string{"1", "2"} {
		if _, err := files.Put(t.Context(), skein.FilePath{User: "bob", Path: "x"}, strings.NewReader(content), fs.Condition{}); err != nil {
			t.Fatal(err)
		}
	}
	n, err := files.Sweep(t.Context(), 0)
	if n != 1 || !errors.Is(err, fault.DataLoss) || blocks(t, bucket) != 2 {
		t.Errorf("swept %d, left %d: %v", n, blocks(t, bucket), err)
	}
}

// Sweeping without a grace, all the time, takes no block that a file has or is about to have.
func TestSweepRace(t *testing.T) {
	files := open(t, "file://"+t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	var sweeps, writers sync.WaitGroup
	sweeps.Go(func() {
		for ctx.Err() == nil {
			if _, err := files.Sweep(t.Context(), 0); err != nil {
				t.Errorf("sweep: %v", err)
				return
			}
		}
	})
	for w := range 4 {
		writers.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 0))
			for ctx.Err() == nil {
				// Few contents, so that one's block is garbage just when another puts it again.
				name, content := fmt.Sprintf("f%d", w), fmt.Sprintf("content %d", rng.IntN(3))
				p := skein.FilePath{User: "ann", Path: name}
				if _, err := files.Put(t.Context(), p, strings.NewReader(content), fs.Condition{}); err != nil {
					t.Errorf("put: %v", err)
					return
				}
				if got, _, err := get(t.Context(), files, p, 0, -1); err != nil || string(got) != content {
					t.Errorf("get: %q, %v", got, err)
					return
				}
				if rng.IntN(2) == 0 {
					if err := files.Delete(t.Context(), p, nil); err != nil {
						t.Errorf("delete: %v", err)
						return
					}
				}
			}
		})
	}
	writers.Wait()
	sweeps.Wait()
}

// A reader so slow that the sweep overtook it learns that the file changed, not that data was lost.
func TestReadOfSwept(t *testing.T) {
	files := open(t, "file://"+t.TempDir())
	old := put(t, files, "x", []byte("old"))
	put(t, files, "x", []byte("new"))
	time.Sleep(10 * time.Millisecond)
	if n, err := files.Sweep(t.Context(), 0); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	err := files.Read(t.Context(), old, 0, -1, func([]byte) error { return nil })
	want(t, err, fault.Conflict, "FILE_CHANGED")
}
