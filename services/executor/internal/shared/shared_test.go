package shared

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"google.golang.org/grpc"

	"skein.dev/abi"
	"skein.dev/platform/blob/blobtest"
	"skein.dev/platform/fault"
	"skein.dev/platform/service"
	fsv1 "skein.dev/proto/skein/fs/v1"
	"skein.dev/services/executor/internal/vfs"
)

const mib = 1 << 20

var fsBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "skein-fs-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "fs")
	out, err := exec.Command("go", "build", "-o", path, "skein.dev/services/fs/cmd/fs").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := fsBinary(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// fsService is a process of the fs service.
type fsService struct {
	t       testing.TB
	address string
	args    []string
	cmd     *exec.Cmd
	log     bytes.Buffer
	rpc     fsv1.FsServiceClient
	web     *service.Web
	fetches atomic.Int64 // of blocks
	lookUps atomic.Int64
}

// counting counts questions.
type counting struct {
	fsv1.FsServiceClient
	s *fsService
}

func (c counting) LookUpFile(ctx context.Context, req *fsv1.LookUpFileRequest, opts ...grpc.CallOption) (*fsv1.LookUpFileResponse, error) {
	c.s.lookUps.Add(1)
	return c.FsServiceClient.LookUpFile(ctx, req, opts...)
}

func startFS(t testing.TB, bucket string, args ...string) *fsService {
	t.Helper()
	s := &fsService{t: t, address: freeAddress(t), args: append([]string{"--bucket", bucket, "--sweep-interval", "0"}, args...)}
	conn, err := service.Connect(s.address)
	if err != nil {
		t.Fatal(err)
	}
	s.rpc, s.web = fsv1.NewFsServiceClient(conn), service.NewWeb(s.address)
	t.Cleanup(func() {
		_ = conn.Close()
		s.web.Close()
		s.kill()
	})
	s.start()
	return s
}

// freeAddress is one where nobody listens, so that a service can come back there.
func freeAddress(t testing.TB) string {
	s := httptest.NewServer(nil)
	defer s.Close()
	return strings.TrimPrefix(s.URL, "http://")
}

func (s *fsService) start() {
	s.t.Helper()
	path, err := fsBinary()
	if err != nil {
		s.t.Fatal(err)
	}
	s.cmd = exec.Command(path, append([]string{"--listen", s.address, "--log", "warn"}, s.args...)...)
	s.cmd.Stderr = &s.log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		resp, err := http.Get("http://" + s.address + "/healthz")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(until) {
			s.kill()
			s.t.Fatalf("the fs service does not start: %v\n%s", err, &s.log)
		}
	}
}

func (s *fsService) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

func (s *fsService) put(path string, data []byte) {
	s.t.Helper()
	req, err := http.NewRequest(http.MethodPut, "http://"+s.address+"/v1/files/ann/"+path, bytes.NewReader(data))
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		s.t.Fatalf("put %s: %d %s", path, resp.StatusCode, text)
	}
}

func (s *fsService) remove(path string) {
	s.t.Helper()
	if _, err := s.rpc.DeleteFile(context.Background(), &fsv1.DeleteFileRequest{User: "ann", Path: path}); err != nil {
		s.t.Fatal(err)
	}
}

// cache is an executor's, watching.
func (s *fsService) cache(change func(*Config)) *Cache {
	s.t.Helper()
	cfg := Config{Memory: 64 * mib, Disk: 64 * mib, Lease: time.Second, Stale: time.Minute}
	if change != nil {
		change(&cfg)
	}
	c, err := New(counting{s.rpc, s}, func(ctx context.Context, path string, most int64) ([]byte, error) {
		s.fetches.Add(1)
		return s.web.Get(ctx, path, most)
	}, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() { _ = c.Watch(ctx) })
	s.t.Cleanup(func() {
		stop()
		watching.Wait()
		_ = c.Close()
	})
	return c
}

// standing waits for the watch of a cache.
func standing(t testing.TB, c *Cache) {
	t.Helper()
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		c.names.mu.Lock()
		ok := time.Now().Before(c.names.watch.until)
		c.names.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(until) {
			t.Fatal("no watch stands")
		}
	}
}

func openFile(t testing.TB, v *View, path string) vfs.LowerFile {
	t.Helper()
	f, err := v.Open(t.Context(), path)
	if err != nil {
		t.Fatalf("open %s: %v", path, err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func readAll(ctx context.Context, f vfs.LowerFile) ([]byte, error) {
	data := make([]byte, f.Info().Size)
	n, err := f.ReadAt(ctx, data, 0)
	return data[:n], err
}

func read(t testing.TB, v *View, path string) string {
	t.Helper()
	data, err := readAll(t.Context(), openFile(t, v, path))
	if err != nil {
		t.Fatalf("read %s: %v", path, err)
	}
	return string(data)
}

func want(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) || (want == nil) != (err == nil) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// content is of n bytes that differ between seeds and blocks.
func content(seed byte, n int) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = seed + byte(i>>20) + byte(i*7>>8)
	}
	return out
}

// What was put is read, in any order and size, with no network the second time; the tree is what the names say.
func TestReads(t *testing.T) {
	s := startFS(t, "file://"+t.TempDir())
	data := content(1, 5*mib+123)
	s.put("dir/large", data)
	s.put("dir/small", []byte("small"))
	s.put("dir/sub/x", nil)
	s.put("dir-b", []byte("b"))
	c := s.cache(nil)
	v := c.View("ann")
	f := openFile(t, v, "dir/large")
	for _, r := range [][2]int64{{3*mib - 10, 20}, {0, 1}, {5 * mib, 200}, {5*mib + 122, 1}, {5*mib + 123, 1}, {1 << 50, 1}, {7, 5 * mib}, {mib, mib}} {
		p := make([]byte, r[1])
		n, err := f.ReadAt(t.Context(), p, r[0])
		from := min(r[0], int64(len(data)))
		expect := data[from:min(from+r[1], int64(len(data)))]
		if !bytes.Equal(p[:n], expect) || (err != nil) != (n < len(p)) || err != nil && !errors.Is(err, io.EOF) {
			t.Errorf("[%d:+%d]: %d bytes, %v", r[0], r[1], n, err)
		}
	}
	if n := s.fetches.Load(); n != 6 {
		t.Errorf("6 blocks were fetched %d times", n)
	}
	if got := read(t, v, "dir/small"); got != "small" || s.fetches.Load() != 6 {
		t.Errorf("%q; %d fetches: the content should have come along", got, s.fetches.Load())
	}
	if got := read(t, v, "dir/sub/x"); got != "" {
		t.Errorf("%q", got)
	}
	for _, x := range []struct {
		view *View
		path string
		size int64 // -1: a directory
		err  error
	}{
		{v, ".", -1, nil},
		{v, "dir", -1, nil},
		{v, "dir/sub", -1, nil},
		{v, "dir/large", int64(len(data)), nil},
		{v, "none", 0, abi.ENOENT},
		{v, "di", 0, abi.ENOENT},
		{v, "dir/small/x", 0, abi.ENOENT},
		{v, "../dir-b", 0, abi.ENOENT},
		{v, "/dir-b", 0, abi.ENOENT},
		{v, "dir//small", 0, abi.ENOENT},
		{v, "a\x00", 0, abi.ENOENT},
		{v, "\xff", 0, abi.ENOENT},
		{v, strings.Repeat("x", 300), 0, abi.ENOENT},
		{c.View("bob"), "dir-b", 0, abi.ENOENT},
		{c.View("bob"), "dir", 0, abi.ENOENT},
	} {
		info, err := x.view.Stat(t.Context(), x.path)
		want(t, "stat "+x.path, err, x.err)
		if err == nil && (info.Dir != (x.size < 0) || !info.Dir && (info.Size != x.size || info.ID == 0 || time.Since(info.Modified).Abs() > time.Hour)) {
			t.Errorf("%s: %+v", x.path, info)
		}
		_, err = x.view.Open(t.Context(), x.path)
		if x.size < 0 {
			x.err = abi.EISDIR
		}
		want(t, "open "+x.path, err, x.err)
	}
	for dir, names := range map[string]string{".": "dir/ dir-b", "dir": "large small sub/", "dir/sub": "x"} {
		if got := listed(t, v, dir, 2); got != names {
			t.Errorf("%s: %s, want %s", dir, got, names)
		}
	}
	if got := listed(t, c.View("bob"), ".", 10); got != "" {
		t.Errorf("bob sees %s", got)
	}
	for _, dir := range []string{"none", "dir/small"} {
		_, err := v.List(t.Context(), dir, "", 10)
		want(t, "list "+dir, err, abi.ENOENT)
	}
}

func listed(t testing.TB, v *View, dir string, n int) string {
	t.Helper()
	var names []string
	for after := ""; ; {
		entries, err := v.List(t.Context(), dir, after, n)
		if err != nil {
			t.Fatalf("list %s: %v", dir, err)
		}
		for _, e := range entries {
			name := e.Name
			if after = name; e.Dir {
				name += "/"
			}
			names = append(names, name)
		}
		if len(entries) < n {
			return strings.Join(names, " ")
		}
	}
}

// A hundred readers on two executors, while a file is replaced through REST: each sees the old or the new whole, and after
// the answer, for the watch stands, only the new.
func TestReplacedWhileRead(t *testing.T) {
	t.Run("Sole", func(t *testing.T) { replacedWhileRead(t, startFS(t, "file://"+t.TempDir(), "--sole")) })
	t.Run("MinIO", func(t *testing.T) { replacedWhileRead(t, startFS(t, blobtest.MinIO(t))) })
}

// ofVersion is a content of three blocks that are alike throughout, with the version in the size too.
func ofVersion(v int64) []byte { return bytes.Repeat([]byte{byte(v)}, 2*mib+int(v)) }

// version reads a little of each block, and says of which version all of it is.
func version(ctx context.Context, f vfs.LowerFile) (int64, error) {
	v := f.Info().Size - 2*mib
	for _, off := range []int64{2 * mib, 100, mib - 10} {
		p := make([]byte, 20)
		n, err := f.ReadAt(ctx, p, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if !bytes.Equal(p[:n], bytes.Repeat([]byte{byte(v)}, n)) || int64(n) != min(20, 2*mib+v-off) {
			return 0, fmt.Errorf("a mix: %v in version %d", p[:n], v)
		}
	}
	return v, nil
}

func replacedWhileRead(t *testing.T, s *fsService) {
	s.put("x", ofVersion(1))
	caches := []*Cache{s.cache(nil), s.cache(nil)}
	for _, c := range caches {
		standing(t, c)
	}
	var answered, reads atomic.Int64
	answered.Store(1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			v := caches[i%2].View("ann")
			for ctx.Err() == nil {
				least := answered.Load()
				f, err := v.Open(ctx, "x")
				if err != nil {
					if ctx.Err() == nil {
						t.Errorf("open: %v", err)
					}
					return
				}
				got, err := version(ctx, f)
				_ = f.Close()
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				if got < least {
					t.Errorf("%d was read after %d had been answered", got, least)
					return
				}
				reads.Add(1)
			}
		})
	}
	for v := int64(2); v < 6; v++ {
		for before := reads.Load(); reads.Load() < before+1000 && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
		s.put("x", ofVersion(v))
		answered.Store(v)
	}
	cancel()
	wg.Wait()
}

// What guests put is there for all at once, and what is refused has its number.
func TestPut(t *testing.T) {
	s := startFS(t, "file://"+t.TempDir(), "--max-file", fmt.Sprint(3*mib))
	v := s.cache(nil).View("ann")
	put := func(path string, data io.Reader, absent bool) error { return v.Put(t.Context(), path, data, absent) }
	want(t, "put", put("a/b", bytes.NewReader(content(1, 2*mib+1)), true), nil)
	if got := read(t, v, "a/b"); got != string(content(1, 2*mib+1)) {
		t.Errorf("it has %d bytes", len(got))
	}
	want(t, "put what is there", put("a/b", strings.NewReader("x"), true), abi.EEXIST)
	want(t, "replace", put("a/b", strings.NewReader("new"), false), nil)
	want(t, "empty", put("empty", strings.NewReader(""), false), nil)
	want(t, "too large", put("a/b", bytes.NewReader(content(2, 4*mib)), false), abi.EFBIG)
	want(t, "what can't be read", put("a/b", io.MultiReader(strings.NewReader("half"), iotest.ErrReader(abi.EIO)), false), abi.EIO)
	want(t, "the root", put(".", strings.NewReader("x"), false), abi.EISDIR)
	want(t, "a bad path", put("a//b", strings.NewReader("x"), false), abi.EINVAL)
	if got := read(t, v, "a/b") + read(t, v, "empty"); got != "new" {
		t.Errorf("there is %q", got)
	}
	want(t, "remove", v.Remove(t.Context(), "a/b"), nil)
	want(t, "remove again", v.Remove(t.Context(), "a/b"), abi.ENOENT)
	_, err := v.Stat(t.Context(), "a/b")
	want(t, "stat", err, abi.ENOENT)
	s.kill()
	if err := put("a/b", strings.NewReader("x"), false); !errors.Is(err, fault.Unavailable) {
		t.Errorf("without a service: %v", err)
	}
}

// Who hears of no change, because it went through another fs service, is old for a lease and not longer.
func TestOtherService(t *testing.T) {
	bucket := "file://" + t.TempDir()
	ours, other := startFS(t, bucket), startFS(t, bucket)
	ours.put("x", []byte("old"))
	v := ours.cache(func(cfg *Config) { cfg.Lease = 300 * time.Millisecond }).View("ann")
	_, err := v.Stat(t.Context(), "new")
	want(t, "stat", err, abi.ENOENT)
	if got := read(t, v, "x") + listed(t, v, ".", 10); got != "oldx" {
		t.Fatal(got)
	}
	other.put("x", []byte("new"))
	other.put("new", nil)
	time.Sleep(300 * time.Millisecond)
	if got := read(t, v, "x") + listed(t, v, ".", 10); got != "newnew x" {
		t.Error(got)
	}
	if _, err := v.Stat(t.Context(), "new"); err != nil {
		t.Error(err)
	}
}

// What changes through the service that is watched is seen at once, be it a name, a listing or a directory.
func TestChangesAreSeen(t *testing.T) {
	s := startFS(t, "file://"+t.TempDir(), "--sole")
	c := s.cache(func(cfg *Config) { cfg.Lease = 10 * time.Second })
	standing(t, c)
	v := c.View("ann")
	see := func(what, path string, err error, listing string) {
		t.Helper()
		_, got := v.Stat(t.Context(), path)
		want(t, what+": stat "+path, got, err)
		if got := listed(t, v, ".", 10); got != listing {
			t.Errorf("%s: %q, want %q", what, got, listing)
		}
	}
	see("at first", "a/b/c", abi.ENOENT, "")
	see("at first", "a/b", abi.ENOENT, "")
	s.put("a/b/c", []byte("1"))
	see("put", "a/b/c", nil, "a/")
	see("put", "a/b", nil, "a/")
	f := openFile(t, v, "a/b/c")
	s.remove("a/b/c")
	see("removed", "a/b/c", abi.ENOENT, "")
	see("removed", "a/b", abi.ENOENT, "")
	if data, err := readAll(t.Context(), f); string(data) != "1" || err != nil {
		t.Errorf("open file: %q, %v", data, err)
	}
}
