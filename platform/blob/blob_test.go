package blob_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"skein.dev/platform/blob"
	"skein.dev/platform/blob/blobtest"
	"skein.dev/platform/fault"
)

func open(t *testing.T, url string) blob.Bucket {
	t.Helper()
	b, err := blob.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDir(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) blob.Bucket { return open(t, "file://"+t.TempDir()) })
}

func TestMinIO(t *testing.T) { server(t, "minio", "") }

// The second lane, of make test-s3.
func TestVersityGW(t *testing.T) { server(t, "versitygw", "versitygw") }

// server runs the suite over a kind of server if the lane is its own.
func server(t *testing.T, kind, lane string) {
	if got := os.Getenv("SKEIN_TEST_S3"); got != lane && os.Getenv(strings.ToUpper(kind)+"_BIN") == "" {
		t.Skipf("SKEIN_TEST_S3=%q; this needs %q", got, lane)
	}
	s := blobtest.Start(t, kind)
	b := open(t, s.URL())
	blobtest.Run(t, func(*testing.T) blob.Bucket { return b })
	t.Run("Killed", func(t *testing.T) { killed(t, s, b) })
	t.Run("Paused", func(t *testing.T) { paused(t, s, b) })
	t.Run("Denied", func(t *testing.T) {
		t.Setenv("AWS_SECRET_ACCESS_KEY", "not the password")
		if err := fault.From(open(t, s.URL()).Ping(t.Context())); err.Reason != "STORE_DENIED" || err.Kind != fault.Unavailable {
			t.Errorf("%+v", err)
		}
	})
}

// down checks that every method says STORE_DOWN within limit.
func down(t *testing.T, b blob.Bucket, limit time.Duration) {
	t.Helper()
	big := bytes.NewReader(make([]byte, 20<<20))
	var wg sync.WaitGroup
	for name, call := range map[string]func() error{
		"get": func() error { _, _, err := b.Get(t.Context(), "x", 0, -1); return err },
		"put": func() error {
			_, err := b.Put(t.Context(), "x", strings.NewReader("x"), 1, blob.PutOptions{})
			return err
		},
		"big": func() error { _, err := b.Put(t.Context(), "x", big, -1, blob.PutOptions{}); return err },
		"cond": func() error {
			_, err := b.Put(t.Context(), "x", strings.NewReader("x"), 1, blob.PutOptions{IfAbsent: true})
			return err
		},
		"stat":   func() error { _, err := b.Stat(t.Context(), "x"); return err },
		"delete": func() error { return b.Delete(t.Context(), "x") },
		"list":   func() error { _, err := b.List(t.Context(), "", "", 1, true); return err },
		"ping":   func() error { return b.Ping(t.Context()) },
	} {
		wg.Go(func() {
			began := time.Now()
			err := fault.From(call())
			if took := time.Since(began); err == nil || err.Kind != fault.Unavailable || err.Reason != "STORE_DOWN" || err.Hint == "" || took > limit {
				t.Errorf("%s: %+v after %v", name, err, took)
			}
		})
	}
	wg.Wait()
}

func killed(t *testing.T, s *blobtest.Server, b blob.Bucket) {
	if _, err := b.Put(t.Context(), "kept", strings.NewReader("kept"), 4, blob.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	// A reader that has its first bytes when the store dies must not take what it got for the whole.
	data := make([]byte, 20<<20)
	if _, err := b.Put(t.Context(), "half", bytes.NewReader(data), int64(len(data)), blob.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	r, _, err := b.Get(t.Context(), "half", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if _, err := io.ReadFull(r, data[:1000]); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	if n, err := io.Copy(io.Discard, r); err == nil || fault.From(err).Reason != "STORE_DOWN" {
		t.Errorf("the store died during a read of 20 MiB: %d bytes, %v", n, err)
	}
	down(t, open(t, s.URL()), 6*time.Second) // one that never saw its store
	down(t, b, 6*time.Second)
	s.Restart()
	if data, _, err := blob.Read(t.Context(), b, "kept", 10); err != nil || string(data) != "kept" {
		t.Errorf("after the restart: %q, %v", data, err)
	}
}

// A store that accepts connections and then says nothing is down as well.
func paused(t *testing.T, s *blobtest.Server, b blob.Bucket) {
	s.Pause()
	defer s.Resume()
	down(t, b, 30*time.Second) // ten seconds, and what a busy machine adds
}

func TestOpenNeedsNoServer(t *testing.T) {
	b := open(t, "s3://skein?endpoint=http://127.0.0.1:1")
	if err := fault.From(b.Ping(t.Context())); err.Reason != "STORE_DOWN" {
		t.Errorf("%+v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, url := range []string{
		"", "x", "file:", "file://host/x", "gs://x", "s3://", "s3:///x", "s3://b/path", "s3://b?endpoint=host:1", "s3://b?what=x", "s3://b?endpoint=ftp://x", "%zz",
	} {
		if _, err := blob.Open(t.Context(), url); fault.From(err) == nil || fault.From(err).Reason != "BAD_BUCKET" {
			t.Errorf("%q: %v", url, err)
		}
	}
}

// What only a directory promises: any key beside any other, and segments of any length.
func TestDirKeys(t *testing.T) {
	root := t.TempDir()
	t.Chdir(root)
	b := open(t, "file:data/x")
	long := strings.Repeat("l", 80)
	keys := []string{
		"a", "a/b", "a/b/c", "a=", "a=/b", "a~", "a~/b", "%", "%/x", long, long + "/x", long + "-", long + "..", long + "../x", long + "./x", long + long,
		long + long + "/" + long, strings.Repeat("é", 512), strings.Repeat("x", blob.MaxKey),
	}
	for _, k := range keys {
		if _, err := b.Put(t.Context(), k, strings.NewReader(k), int64(len(k)), blob.PutOptions{}); err != nil {
			t.Fatalf("%.90q: %v", k, err)
		}
	}
	for _, k := range keys {
		if data, _, err := blob.Read(t.Context(), b, k, blob.MaxKey); err != nil || string(data) != k {
			t.Errorf("%.90q: %.90q, %v", k, data, err)
		}
	}
	var got []string
	for info, err := range blob.All(t.Context(), b, "") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, info.Key)
	}
	if slices.Sort(keys); !slices.Equal(got, keys) {
		t.Errorf("list gives\n%q, want\n%q", got, keys)
	}
	for _, k := range keys {
		if err := b.Delete(t.Context(), k); err != nil {
			t.Error(err)
		}
	}
	left, err := os.ReadDir("data/x/objects")
	if err != nil || len(left) > 0 {
		t.Errorf("deletion leaves %v, %v", left, err)
	}
	if out, err := os.ReadDir("."); err != nil || len(out) != 1 {
		t.Errorf("outside of the directory: %v, %v", out, err)
	}
}

// What a crash leaves behind is no object, and goes with time.
func TestDirLeftovers(t *testing.T) {
	root := t.TempDir()
	b := open(t, "file://"+root)
	if _, err := b.Put(t.Context(), "d/x", strings.NewReader("x"), 1, blob.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, stray := range []string{"tmp/put-1", "tmp/put-2", "objects/stray", "objects/d/.nfs0001", "objects/d/%zz=", "objects/emptied/"} {
		path := filepath.Join(root, stray)
		if strings.HasSuffix(stray, "/") {
			if err := os.Mkdir(path, 0o777); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-48 * time.Hour)
	if err := os.Chtimes(filepath.Join(root, "tmp/put-1"), old, old); err != nil {
		t.Fatal(err)
	}
	b = open(t, "file://"+root)
	page, err := b.List(t.Context(), "", "", 0, true)
	if err != nil || len(page.Items) != 0 || !slices.Equal(page.Prefixes, []string{"d/"}) {
		t.Errorf("%+v, %v", page, err)
	}
	page, err = b.List(t.Context(), "", "", 0, false)
	if err != nil || len(page.Items) != 1 || page.Items[0].Key != "d/x" {
		t.Errorf("%+v, %v", page, err)
	}
	if left, _ := os.ReadDir(filepath.Join(root, "tmp")); len(left) != 1 || left[0].Name() != "put-2" {
		t.Errorf("left in tmp: %v", left)
	}
}
