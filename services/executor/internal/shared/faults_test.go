package shared

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"skein.dev"
	"skein.dev/abi"
	"skein.dev/platform/fault"
	"skein.dev/platform/service"
	fsv1 "skein.dev/proto/skein/fs/v1"
)

// find gives the files below dir whose name has part in it.
func find(t testing.TB, dir, part string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && strings.Contains(filepath.Base(path), part) {
			paths = append(paths, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// A block that the store damaged, cut short or lost while the file is open is an error and never content; what is here
// already is read on; and when the file is put again all is well.
func TestDamagedStore(t *testing.T) {
	dir := t.TempDir()
	s := startFS(t, "file://"+dir)
	v := s.cache(nil).View("ann")
	for i, damage := range []struct {
		do  func(path string) error
		err error
	}{
		{func(p string) error { return os.WriteFile(p, make([]byte, mib), 0o600) }, fault.DataLoss},
		{func(p string) error { return os.Truncate(p, 100) }, fault.DataLoss},
		{os.Remove, fault.DataLoss},
	} {
		data := content(byte(50*i), 3*mib)
		s.put("x", data)
		f := openFile(t, v, "x")
		first := make([]byte, 10)
		if _, err := f.ReadAt(t.Context(), first, 2*mib); err != nil {
			t.Fatal(err)
		}
		for _, b := range []int{0, 2} {
			for _, path := range find(t, dir, skein.DigestOf(data[b*mib:(b+1)*mib]).String()) {
				if err := damage.do(path); err != nil {
					t.Fatal(err)
				}
			}
		}
		got, err := readAll(t.Context(), f)
		want(t, fmt.Sprintf("damage %d: read", i), err, damage.err)
		if len(got) != 0 {
			t.Errorf("damage %d: %d bytes", i, len(got))
		}
		if n, err := f.ReadAt(t.Context(), first, 2*mib+100); n != 10 || err != nil || !bytes.Equal(first, data[2*mib+100:][:10]) {
			t.Errorf("damage %d: what is here: %v", i, err)
		}
		s.put("x", data)
		if got, err := readAll(t.Context(), f); err != nil || !bytes.Equal(got, data) {
			t.Errorf("damage %d, mended: %d bytes, %v", i, len(got), err)
		}
	}
}

// A file that was replaced so long ago that its blocks were swept is stale for who has it open, as far as it is not here.
func TestStaleFile(t *testing.T) {
	dir := t.TempDir()
	s := startFS(t, "file://"+dir)
	v := s.cache(nil).View("ann")
	data := content(1, 2*mib)
	s.put("x", data)
	f := openFile(t, v, "x")
	p := make([]byte, 10)
	if _, err := f.ReadAt(t.Context(), p, mib); err != nil {
		t.Fatal(err)
	}
	s.put("x", []byte("new"))
	for _, path := range find(t, filepath.Join(dir, "objects", "fs", "blocks"), skein.DigestOf(data[:mib]).String()) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	_, err := f.ReadAt(t.Context(), p, 0)
	want(t, "read", err, abi.ESTALE)
	if _, err := f.ReadAt(t.Context(), p, mib+50); err != nil {
		t.Error(err)
	}
}

// While the fs service is down what is known is read on, and what is not known is an error, soon. When it is back, so are
// changes.
func TestServiceDown(t *testing.T) {
	s := startFS(t, "file://"+t.TempDir())
	c := s.cache(func(cfg *Config) { cfg.Lease, cfg.Stale = 200*time.Millisecond, time.Hour })
	v := c.View("ann")
	standing(t, c)
	s.put("dir/x", []byte("x"))
	s.put("y", content(1, 2*mib))
	if got := read(t, v, "dir/x") + listed(t, v, "dir", 10); got != "xx" {
		t.Fatal(got)
	}
	y := openFile(t, v, "y")
	one := make([]byte, 1)
	if _, err := y.ReadAt(t.Context(), one, mib); err != nil {
		t.Fatal(err)
	}
	s.kill()
	time.Sleep(300 * time.Millisecond) // leases have run out
	if got := read(t, v, "dir/x") + listed(t, v, "dir", 10); got != "xx" {
		t.Error(got)
	}
	began := time.Now()
	_, err := v.Stat(t.Context(), "none")
	want(t, "a name that nobody knows", err, fault.Unavailable)
	_, err = v.List(t.Context(), ".", "", 10)
	want(t, "a directory that nobody knows", err, fault.Unavailable)
	_, err = y.ReadAt(t.Context(), one, 0)
	want(t, "a block that is not here", err, fault.Unavailable)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the errors took %s", took)
	}
	s.start()
	standing(t, c)
	s.put("dir/x", []byte("new"))
	if got := read(t, v, "dir/x"); got != "new" {
		t.Error(got)
	}
	if _, err := y.ReadAt(t.Context(), one, 0); err != nil {
		t.Error(err)
	}
}

// A service that hangs is waited for once, and what is known is read on.
func TestServiceHangs(t *testing.T) {
	s := startFS(t, "file://"+t.TempDir())
	c := s.cache(func(cfg *Config) { cfg.Lease = 50 * time.Millisecond })
	v := c.View("ann")
	s.put("x", []byte("x"))
	s.put("y", []byte("y"))
	read(t, v, "x")
	read(t, v, "y")
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	if got := read(t, v, "x"); got != "x" {
		t.Error(got)
	}
	asked := s.lookUps.Load()
	for range 100 {
		if got := read(t, v, "y") + read(t, v, "x"); got != "yx" {
			t.Error(got)
		}
	}
	if n := s.lookUps.Load() - asked; n > 2 {
		t.Errorf("%d look-ups", n)
	}
	if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	s.put("x", []byte("new"))
	for until := time.Now().Add(20 * time.Second); read(t, v, "x") != "new"; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("the service is back and its changes are not")
		}
	}
}

// Beyond the time for which it may stand in, what was known is an error too.
func TestTooStale(t *testing.T) {
	s := startFS(t, "file://"+t.TempDir())
	v := s.cache(func(cfg *Config) { cfg.Lease, cfg.Stale = 50*time.Millisecond, 100*time.Millisecond }).View("ann")
	s.put("x", []byte("x"))
	read(t, v, "x")
	s.kill()
	time.Sleep(200 * time.Millisecond)
	_, err := v.Open(t.Context(), "x")
	want(t, "open", err, fault.Unavailable)
}

// A service that takes connections and says nothing costs a call its deadline at most.
func TestSilentService(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lis.Close() }()
	conn, err := service.Connect(lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	web := service.NewWeb(lis.Addr().String())
	defer web.Close()
	c, err := New(fsv1.NewFsServiceClient(conn), web.Get, Config{Memory: mib, Lease: time.Second, Stale: time.Second}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = c.View("ann").Stat(ctx, "x")
	want(t, "stat", err, fault.Unavailable)
	_, err = c.blocks.get(ctx, blockKey{"ann", skein.DigestOf(nil)}, 1)
	want(t, "block", err, fault.Timeout)
	c.blocks.mu.Lock()
	defer c.blocks.mu.Unlock()
	if len(c.blocks.flights) != 0 {
		t.Error("what nobody waits for goes on")
	}
}

// Content on disk is there after a restart, without the service; what was damaged there meanwhile is fetched again; and
// the budget holds from the beginning.
func TestRestart(t *testing.T) {
	s := startFS(t, "file://"+t.TempDir())
	dir := t.TempDir()
	data := content(1, 4*mib)
	s.put("x", data)
	begin := func(budget int64) (*Cache, *View) {
		c := s.cache(func(cfg *Config) { cfg.Dir, cfg.Disk, cfg.Lease = dir, budget, 10*time.Second })
		return c, c.View("ann")
	}
	c, v := begin(64 * mib)
	read(t, v, "x")
	c.blocks.disk.writers.Wait()
	if n := len(find(t, filepath.Join(dir, "ann"), "")); n != 4 {
		t.Fatalf("%d blocks on disk", n)
	}
	if _, err := New(s.rpc, s.web.Get, Config{Dir: dir, Disk: mib}, nil); fault.From(err) == nil || fault.From(err).Reason != "CACHE_IN_USE" {
		t.Errorf("a second executor: %v", err)
	}
	_ = c.Close()
	for i, path := range find(t, filepath.Join(dir, "ann"), "") {
		switch i {
		case 0:
			_ = os.WriteFile(path, make([]byte, mib), 0o600)
		case 1:
			_ = os.Truncate(path, 10)
		}
	}
	_ = os.WriteFile(filepath.Join(dir, "ann", "123"+tempMark), []byte("half"), 0o600)
	c, v = begin(64 * mib)
	before := s.fetches.Load()
	if got := read(t, v, "x"); got != string(data) {
		t.Error("another content")
	}
	if n := s.fetches.Load() - before; n != 2 || c.Counts().Disk != 2 {
		t.Errorf("%d blocks fetched, %+v", n, c.Counts())
	}
	c.blocks.disk.writers.Wait()
	if n := len(find(t, dir, tempMark)); n != 0 {
		t.Errorf("%d halves", n)
	}
	_ = c.Close()
	c, v = begin(2 * mib)
	if n := len(find(t, filepath.Join(dir, "ann"), "")); n != 2 {
		t.Errorf("%d blocks on disk with a budget of 2", n)
	}
	if got := read(t, v, "x"); got != string(data) {
		t.Error("another content")
	}
	c.blocks.disk.writers.Wait()
	if n := len(find(t, filepath.Join(dir, "ann"), "")); n > 2 {
		t.Errorf("%d blocks on disk with a budget of 2", n)
	}
}

// A disk that can't be written to costs nothing but fetches.
func TestBrokenDisk(t *testing.T) {
	s := startFS(t, "file://"+t.TempDir())
	dir := t.TempDir()
	c := s.cache(func(cfg *Config) { cfg.Dir = dir })
	if err := os.WriteFile(filepath.Join(dir, "ann"), nil, 0o600); err != nil { // where a directory should be
		t.Fatal(err)
	}
	s.put("x", content(1, 2*mib))
	if got := read(t, c.View("ann"), "x"); got != string(content(1, 2*mib)) {
		t.Error("another content")
	}
}

// Many readers of more than there is room for get what they should, and the budget holds.
func TestTinyBudget(t *testing.T) {
	s := startFS(t, "file://"+t.TempDir())
	dir := t.TempDir()
	c := s.cache(func(cfg *Config) { cfg.Memory, cfg.Dir, cfg.Disk = 3*mib/2, dir, 2*mib })
	var files [3][]byte
	for i := range files {
		files[i] = content(byte(90*i), 2*mib+i)
		s.put(fmt.Sprint(i), files[i])
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 1))
			v := c.View("ann")
			for range 60 {
				i := rng.IntN(len(files))
				f, err := v.Open(t.Context(), fmt.Sprint(i))
				if err != nil {
					t.Error(err)
					return
				}
				off := rng.IntN(len(files[i]) - 5000)
				p := make([]byte, 5000)
				if _, err := f.ReadAt(t.Context(), p, int64(off)); err != nil || !bytes.Equal(p, files[i][off:off+5000]) {
					t.Errorf("file %d at %d: %v", i, off, err)
				}
				_ = f.Close()
			}
		})
	}
	wg.Wait()
	if used := c.blocks.memory.used; used > 3*mib/2 {
		t.Errorf("%d bytes in memory", used)
	}
}

// However many wait for a block, it is fetched once; whoever leaves does not take it from the others; and when all have
// left it is given up.
func TestOneFetch(t *testing.T) {
	data := []byte("content")
	k := blockKey{"ann", skein.DigestOf(data)}
	begun, release := make(chan context.Context, 10), make(chan struct{})
	b := &blocks{memory: newLRU[blockKey, *block](mib), flights: map[blockKey]*flight{}}
	b.fetch = func(ctx context.Context, _ blockKey) ([]byte, error) {
		begun <- ctx
		select {
		case <-release:
			return data, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	leaving, leave := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			ctx, err := t.Context(), error(nil)
			if i%2 == 0 {
				ctx, err = leaving, fault.Cancelled
			}
			_, got := b.get(ctx, k, int64(len(data)))
			want(t, "get", got, err)
		})
	}
	waiters := func(n int) {
		for until := time.Now().Add(20 * time.Second); time.Now().Before(until); time.Sleep(time.Millisecond) {
			b.mu.Lock()
			f := b.flights[k]
			ok := f != nil && f.waiters == n
			b.mu.Unlock()
			if ok {
				return
			}
		}
		t.Fatalf("there are never %d who wait", n)
	}
	waiters(20)
	leave()
	waiters(10)
	close(release)
	wg.Wait()
	if len(begun) != 1 {
		t.Errorf("%d fetches", len(begun))
	}
	<-begun
	b.memory.drop(k)
	release = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { _, _ = b.get(ctx, k, int64(len(data))) }()
	fetching := <-begun
	cancel()
	select {
	case <-fetching.Done():
	case <-time.After(20 * time.Second):
		t.Error("a fetch that nobody waits for goes on")
	}
}

// Who reads from the beginning finds the next blocks here; closing gives up what is on its way.
func TestReadAhead(t *testing.T) {
	s := startFS(t, "file://"+t.TempDir())
	s.put("x", content(1, 12*mib))
	c := s.cache(nil)
	f := openFile(t, c.View("ann"), "x")
	p := make([]byte, mib)
	for i := range int64(3) {
		if _, err := f.ReadAt(t.Context(), p, i*mib); err != nil {
			t.Fatal(err)
		}
	}
	f.(*file).mu.Lock()
	window, asked, ahead := f.(*file).window, f.(*file).asked, f.(*file).ahead
	f.(*file).mu.Unlock()
	if window != 4 || asked != 7 {
		t.Errorf("window %d, asked up to %d", window, asked)
	}
	_ = f.Close()
	if ahead == nil || !errors.Is(ahead.Err(), context.Canceled) {
		t.Error("what is read ahead outlives the file")
	}
	_, _ = f.ReadAt(t.Context(), p, 3*mib) // whatever it says, it begins nothing
	for i := range maxAhead {
		select {
		case c.ahead <- struct{}{}:
		case <-time.After(20 * time.Second):
			t.Fatalf("%d are still read ahead", maxAhead-i)
		}
	}
	jumping := openFile(t, c.View("ann"), "x")
	for _, i := range []int64{9, 3, 7, 1} {
		if _, err := jumping.ReadAt(t.Context(), p[:1], i*mib); err != nil {
			t.Fatal(err)
		}
	}
	if w := jumping.(*file).window; w != 0 {
		t.Errorf("a reader that jumps has a window of %d", w)
	}
}

// A large directory comes by pages and is read once; a listing spares questions for what is not in it.
func TestLargeDirectory(t *testing.T) {
	dir := t.TempDir()
	s := startFS(t, "file://"+dir)
	s.put("d/0000", nil)
	record := find(t, filepath.Join(dir, "objects", "fs", "names"), "0000")
	if len(record) != 1 {
		t.Fatal(record)
	}
	data, err := os.ReadFile(record[0])
	if err != nil {
		t.Fatal(err)
	}
	const n = 2500
	for i := 1; i < n; i++ { // as a put would, and quicker
		if err := os.WriteFile(strings.Replace(record[0], "0000", fmt.Sprintf("%04d", i), 1), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := s.cache(func(cfg *Config) { cfg.Lease = 10 * time.Second })
	v := c.View("ann")
	got := strings.Fields(listed(t, v, "d", 700))
	if len(got) != n || got[0] != "0000" || got[n-1] != fmt.Sprintf("%04d", n-1) {
		t.Fatalf("%d names", len(got))
	}
	asked := s.lookUps.Load()
	_, err = v.Stat(t.Context(), "d/none")
	want(t, "what is not listed", err, abi.ENOENT)
	if s.lookUps.Load() != asked {
		t.Error("the service was asked")
	}
}
