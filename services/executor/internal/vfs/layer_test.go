package vfs_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"skein.dev/abi"
	"skein.dev/services/executor/internal/vfs"
	"skein.dev/services/executor/internal/vfs/vfstest"
)

// huge is a lower with one file of 1 GiB, whose bytes are their offset's.
type huge struct{ read *int64 }

func (h huge) Info() vfs.LowerInfo { return vfs.LowerInfo{Size: 1 << 30, ID: 1} }
func (h huge) Close() error        { return nil }

func (h huge) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	*h.read += int64(len(p))
	for i := range p {
		p[i] = byte((off + int64(i)) >> 3)
	}
	return len(p), nil
}

func (h huge) Stat(_ context.Context, path string) (vfs.LowerInfo, error) {
	if path == "huge" {
		return h.Info(), nil
	}
	return vfs.LowerInfo{}, abi.ENOENT
}

func (h huge) Open(ctx context.Context, path string) (vfs.LowerFile, error) {
	_, err := h.Stat(ctx, path)
	return h, err
}

func (h huge) List(context.Context, string, string, int) ([]vfs.LowerEntry, error) {
	return []vfs.LowerEntry{{Name: "huge"}}, nil
}

// A byte written to a large shared file copies a block of it; its length takes nothing.
func TestCopyUp(t *testing.T) {
	var bytesRead int64
	layer := vfs.NewLayer(huge{&bytesRead}, vfs.NewStore("", 1<<20, 0), vfs.Limits{})
	defer layer.Close()
	tab := table(t, vfs.Setup{Layer: layer})
	_, o := open(t, tab, "huge", vfs.How{Write: true})
	const at = 500<<20 + 77
	for range 3 {
		if n, err := o.WriteAt(t.Context(), []byte{'!'}, at); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	if layer.Bytes() > 64<<10 || bytesRead > 64<<10 {
		t.Errorf("a byte takes %d bytes; %d were read", layer.Bytes(), bytesRead)
	}
	p := make([]byte, 200_000)
	if n, err := o.ReadAt(t.Context(), p, at-100_000); n != len(p) || err != nil {
		t.Fatal(n, err)
	}
	for i, b := range p {
		if w := byte((at - 100_000 + int64(i)) >> 3); b != w && i != 100_000 || i == 100_000 && b != '!' {
			t.Fatalf("byte %d is %d, want %d", i, b, w)
		}
	}
	want(t, "grow", o.SetSize(1<<39), nil)
	want(t, "shrink", o.SetSize(at-10), nil)
	want(t, "grow", o.SetSize(at+10), nil)
	if n, err := o.ReadAt(t.Context(), p[:20], at-10); n != 20 || err != nil || strings.Trim(string(p[:20]), "\x00") != "" {
		t.Errorf("what was cut off shows again: %v, %v", p[:20], err)
	}
	if layer.Bytes() != 0 && layer.Bytes() > 64<<10 {
		t.Errorf("%d bytes", layer.Bytes())
	}
}

// A layer that only was read has nothing, however deep the files were, and sees what the lower has now.
func TestReadersLeaveNothing(t *testing.T) {
	tree := vfstest.New(shared)
	layer := vfs.NewLayer(tree, vfs.NewStore("", 1<<20, 0), vfs.Limits{})
	defer layer.Close()
	a, b := table(t, vfs.Setup{Layer: layer}), table(t, vfs.Setup{Layer: layer})
	fd, old := open(t, a, "dir/sub/c", vfs.How{})
	dir, _ := open(t, a, "dir/sub/ü", vfs.How{})
	tree.Set("dir/sub/c", "new")
	if got := read(t, b, "dir/sub/c"); got != "new" {
		t.Errorf("another call reads %q", got)
	}
	p := make([]byte, 10)
	if n, err := old.Read(t.Context(), p); string(p[:n]) != "ccc" || err != nil {
		t.Errorf("who had the old file open reads %q, %v", p[:n], err)
	}
	want(t, "remove", tree.Remove(t.Context(), "dir/sub/c"), nil)
	if got := read(t, b, "dir/sub/c"); got != "error "+abi.ENOENT.Error() {
		t.Errorf("after its removal: %q", got)
	}
	want(t, "close", a.Close(context.Background(), fd), nil)
	want(t, "close", a.Close(context.Background(), dir), nil)
	if layer.Nodes() != 0 || layer.Files() != 0 || layer.Bytes() != 0 {
		t.Errorf("%d nodes, %d files, %d bytes are left", layer.Nodes(), layer.Files(), layer.Bytes())
	}
}

// Calls that share a layer see what the others wrote, also after they ended; what was removed under an open file stays its own.
func TestKeptLayer(t *testing.T) {
	store := vfs.NewStore("", 1<<20, 1<<20)
	layer := vfs.NewLayer(vfs.Over(vfstest.New(shared)), store, vfs.Limits{})
	first := vfs.NewTable(vfs.Setup{Layer: layer}, nil, nil, nil)
	put(t, first, "tmp/kept", "kept")
	put(t, first, "dir/a", "changed")
	want(t, "unlink", first.UnlinkAt(t.Context(), root(t, first), "dir/b"), nil)
	first.End()

	second := table(t, vfs.Setup{Layer: layer})
	if read(t, second, "tmp/kept") != "kept" || read(t, second, "dir/a") != "changed" {
		t.Error("the second call doesn't see what the first wrote")
	}
	_, d := open(t, second, "dir", vfs.How{})
	if got := strings.Join(list(t, d, 0), " "); got != ". .. a sub" {
		t.Errorf("dir has %s", got)
	}
	other := table(t, vfs.Setup{Layer: vfs.NewLayer(vfs.Over(vfstest.New(shared)), store, vfs.Limits{})})
	if read(t, other, "dir/b") != "bb" || read(t, other, "dir/a") != "a" {
		t.Error("a call with another layer sees it too")
	}

	fd, o := open(t, second, "tmp/kept", vfs.How{Write: true})
	want(t, "unlink", second.UnlinkAt(t.Context(), root(t, second), "tmp/kept"), nil)
	if st := o.Stat(); st.Links != 0 || st.Size != 4 {
		t.Errorf("an open file without a name: %+v", st)
	}
	if _, err := o.WriteAt(t.Context(), make([]byte, 3<<18), 0); err != nil {
		t.Error(err)
	}
	had := layer.Bytes()
	want(t, "close", second.Close(context.Background(), fd), nil)
	if layer.Bytes() >= had-3<<18+1 {
		t.Errorf("%d bytes after it was closed, %d before", layer.Bytes(), had)
	}
	// Names that come and go leave nothing.
	files, nodes := layer.Files(), layer.Nodes()
	for i := range 100 {
		name := fmt.Sprint("tmp/", i)
		put(t, second, name, "x")
		want(t, "unlink", second.UnlinkAt(t.Context(), root(t, second), name), nil)
	}
	if layer.Files() != files || layer.Nodes() != nodes {
		t.Errorf("%d files and %d nodes, before %d and %d", layer.Files(), layer.Nodes(), files, nodes)
	}
	layer.Close()
	if store.Memory()+store.Disk() != 0 {
		t.Errorf("a closed layer takes %d and %d bytes", store.Memory(), store.Disk())
	}
}

func TestQuotas(t *testing.T) {
	store := vfs.NewStore("", 256<<10, 1<<20)
	tab := table(t, vfs.Setup{Lower: vfstest.New(shared), Store: store, Limits: vfs.Limits{Bytes: 4 << 20, Files: 10}})
	fd, o := open(t, tab, "big", vfs.How{Create: true, Write: true})
	n, err := o.Write(t.Context(), make([]byte, 2<<20)) // more than the executor has
	if want := 1 << 20; n < want-128<<10 || n > want+256<<10 || err != nil {
		t.Errorf("wrote %d bytes, %v", n, err)
	}
	_, err = o.Write(t.Context(), make([]byte, 100))
	want(t, "write on a full disk", err, abi.ENOSPC)
	want(t, "allocate on a full disk", o.Allocate(0, 2<<20), abi.ENOSPC)
	if st := o.Stat(); st.Size != int64(n) {
		t.Errorf("size %d after %d bytes", st.Size, n)
	}
	want(t, "truncate", o.SetSize(0), nil)
	if store.Disk()+store.Memory() != 0 {
		t.Errorf("an empty file takes %d and %d bytes", store.Memory(), store.Disk())
	}
	want(t, "close", tab.Close(context.Background(), fd), nil)
	for i := range 20 {
		err := tab.MakeDirAt(t.Context(), root(t, tab), fmt.Sprint("d", i))
		if i < 9 != (err == nil) || err != nil && !errors.Is(err, abi.EDQUOT) {
			t.Errorf("directory %d: %v", i, err)
		}
	}
	want(t, "hide a shared file", tab.UnlinkAt(t.Context(), root(t, tab), "file"), abi.EDQUOT)
	if read(t, tab, "file") != "content" {
		t.Error("it is gone all the same")
	}
	want(t, "rmdir", tab.RemoveDirAt(t.Context(), root(t, tab), "d1"), nil)
	want(t, "hide a shared file", tab.UnlinkAt(t.Context(), root(t, tab), "file"), nil)

	small := table(t, vfs.Setup{Limits: vfs.Limits{Bytes: 100_000}})
	_, o = open(t, small, "x", vfs.How{Create: true, Write: true})
	if n, err = o.Write(t.Context(), make([]byte, 200_000)); n != 64<<10 || err != nil {
		t.Errorf("wrote %d of 100,000 bytes, %v", n, err)
	}
	_, err = o.Write(t.Context(), make([]byte, 100_000))
	want(t, "write beyond the quota", err, abi.EDQUOT)
	want(t, "allocate beyond the quota", o.Allocate(0, 200_000), abi.EDQUOT)

	nowhere := table(t, vfs.Setup{Store: vfs.NewStore("/nonexistent", 0, 1<<20)})
	_, o = open(t, nowhere, "x", vfs.How{Create: true, Write: true})
	_, err = o.Write(t.Context(), []byte("x"))
	want(t, "write without a directory", err, abi.EIO)
}

// What the lower can't tell is the guest's error, and leaves nothing half-done.
func TestLowerFails(t *testing.T) {
	tree := vfstest.New(shared)
	var mu sync.Mutex
	broken := ""
	tree.Fail = func(op, path string) error {
		mu.Lock()
		defer mu.Unlock()
		if op == broken && path != "." {
			return abi.EIO
		}
		return nil
	}
	tab := table(t, vfs.Setup{Lower: tree})
	root := root(t, tab)
	for op, calls := range map[string][]func() error{
		"open": {
			func() error { _, err := tab.OpenAt(t.Context(), root, "file", vfs.How{}); return err },
			func() error { return tab.RenameAt(t.Context(), root, "file", root, "moved") },
			func() error { return tab.LinkAt(t.Context(), root, "file", false, root, "moved") },
		},
		"stat": {
			func() error { _, err := tab.StatAt(t.Context(), root, "file", true); return err },
			func() error { return tab.MakeDirAt(t.Context(), root, "new") },
			func() error { return tab.UnlinkAt(t.Context(), root, "file") },
			func() error { return tab.RenameAt(t.Context(), root, "file", root, "dir/moved") },
		},
		"list": {func() error { return tab.RemoveDirAt(t.Context(), root, "dir/sub") }},
	} {
		for i, call := range calls {
			mu.Lock()
			broken = op
			mu.Unlock()
			want(t, fmt.Sprint(op, " ", i), call(), abi.EIO)
			mu.Lock()
			broken = ""
			mu.Unlock()
			if names := strings.Join(list(t, root, 0), " "); names != ". .. dev dir etc file tmp" {
				t.Errorf("after %s %d: %s", op, i, names)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := tab.StatAt(ctx, root, "file", true)
	want(t, "a call that is over", err, context.Canceled)
}

// A path of thousands of names asks the lower a few times, though each time the walk begins anew.
func TestDeepPaths(t *testing.T) {
	tree := vfstest.New(map[string]string{"a/a/file": "", strings.Repeat("b/", 1000) + "file": ""})
	asked := 0
	tree.Fail = func(string, string) error { asked++; return nil }
	layer := vfs.NewLayer(tree, vfs.NewStore("", 1<<20, 0), vfs.Limits{})
	defer layer.Close()
	tab := table(t, vfs.Setup{Layer: layer})
	for name, err := range map[string]error{
		strings.Repeat("a/", 2000) + "a":                        abi.ENOENT,
		"a/a/file/" + strings.Repeat("a/", 2000):                abi.ENOTDIR,
		strings.Repeat("b/", 1000) + "file":                     nil,
		strings.Repeat("b/", 1000) + strings.Repeat("../", 600): nil,
		strings.Repeat("a/../", 800) + "a":                      nil,
	} {
		asked = 0
		_, got := tab.StatAt(t.Context(), root(t, tab), name, true)
		want(t, fmt.Sprintf("stat %.20s…", name), got, err)
		if most := 20; asked > most && !strings.Contains(name, "b/../") {
			t.Errorf("%.20s…: the lower was asked %d times", name, asked)
		}
	}
}

// Every cookie leads to what came after it, in any order, and what is there all the time comes exactly once, whatever else
// is made and removed meanwhile.
func TestReadDir(t *testing.T) {
	const n = 1500
	files := map[string]string{}
	for i := range n {
		files[fmt.Sprintf("d/%05d", i*2)] = ""
	}
	tab := table(t, vfstest.Setup(files))
	root := root(t, tab)
	for i := range n {
		put(t, tab, fmt.Sprintf("d/%05d-own", i*2), "")
	}
	_, d := open(t, tab, "d", vfs.How{})
	all := list(t, d, 0)
	if len(all) != 2*n+2 {
		t.Fatalf("%d entries", len(all))
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		cookie := uint64(rng.IntN(len(all) + 1))
		got := ""
		_ = d.ReadDir(t.Context(), cookie, func(e vfs.Entry) bool { got = e.Name; return false })
		if int(cookie) < len(all) && got != all[cookie] || int(cookie) == len(all) && got != "" {
			t.Fatalf("cookie %d leads to %q", cookie, got)
		}
	}
	for _, cookie := range []uint64{2*n + 3, 1 << 31, 1 << 63, 1<<64 - 1} {
		want(t, fmt.Sprintf("cookie %d", cookie), d.ReadDir(t.Context(), cookie, nil), abi.EINVAL)
	}
	_, fresh := open(t, tab, "d", vfs.How{})
	want(t, "a cookie before there are any", fresh.ReadDir(t.Context(), 1, nil), abi.EINVAL)

	// Every third is removed before or after it is read, and others are made.
	seen, cookie := map[string]int{}, uint64(0)
	for i := 0; ; i++ {
		page := 0
		if err := fresh.ReadDir(t.Context(), cookie, func(e vfs.Entry) bool {
			page, cookie = page+1, e.Next
			seen[e.Name]++
			return page < 70
		}); err != nil {
			t.Fatal(err)
		}
		if page == 0 {
			break
		}
		for j := i; j < n; j += 60 {
			_ = tab.UnlinkAt(t.Context(), root, fmt.Sprintf("d/%05d", j*6%(2*n)))
			put(t, tab, fmt.Sprintf("d/%05d-later", rng.IntN(2*n)), "")
		}
		if i > 1000 {
			t.Fatal("it doesn't end")
		}
	}
	for i := range n {
		if name := fmt.Sprintf("%05d-own", i*2); seen[name] != 1 {
			t.Errorf("%s came %d times", name, seen[name])
		}
		if name := fmt.Sprintf("%05d", i*2); seen[name] > 1 || i%3 != 0 && seen[name] != 1 {
			t.Errorf("%s came %d times", name, seen[name])
		}
	}
	if marks, entries := fresh.Pages(); entries > 256 || marks > 4*n/128 {
		t.Errorf("%d marks and %d entries are kept", marks, entries)
	}
}

// Threads of a call and calls that share a layer do what they like; the race detector and the accounts at the end tell.
func TestConcurrent(t *testing.T) {
	store := vfs.NewStore("", 1<<20, 64<<20)
	layer := vfs.NewLayer(vfs.Over(vfstest.New(shared)), store, vfs.Limits{Files: 200, Bytes: 32 << 20})
	var wg sync.WaitGroup
	for c := range 3 {
		tab := vfs.NewTable(vfs.Setup{Layer: layer, Limits: vfs.Limits{Open: 30}}, nil, nil, nil)
		var threads sync.WaitGroup
		for th := range 2 {
			threads.Go(func() { hammer(t, tab, rand.New(rand.NewPCG(uint64(c), uint64(th)))) })
		}
		wg.Go(func() { threads.Wait(); tab.End() })
	}
	wg.Wait()
	layer.Close()
	if store.Memory() != 0 || store.Disk() != 0 || layer.Bytes() != 0 {
		t.Errorf("%d bytes of memory, %d of disk, %d of the layer are taken", store.Memory(), store.Disk(), layer.Bytes())
	}
}

func hammer(t *testing.T, tab *vfs.Table, rng *rand.Rand) {
	ctx := t.Context()
	names := []string{"file", "dir/a", "dir/sub/c", "dir/sub", "dir", "new", "tmp/x", "dir/new", "tmp/d", "tmp/d/e"}
	buf := make([]byte, 100_000)
	for range 3000 {
		base, err := tab.GetDir(vfs.Root)
		if err != nil {
			t.Error(err)
			return
		}
		a, b := names[rng.IntN(len(names))], names[rng.IntN(len(names))]
		switch rng.IntN(10) {
		case 0, 1, 2:
			_, _ = tab.OpenAt(ctx, base, a, vfs.How{Create: rng.IntN(2) == 0, Write: rng.IntN(2) == 0, Read: true})
		case 3:
			_ = tab.UnlinkAt(ctx, base, a)
		case 4:
			_ = tab.RenameAt(ctx, base, a, base, b)
		case 5:
			_ = tab.MakeDirAt(ctx, base, a)
		case 6:
			_ = tab.LinkAt(ctx, base, a, true, base, b)
		case 7:
			_ = tab.RemoveDirAt(ctx, base, a)
		case 8:
			_ = tab.Close(context.Background(), 4+rng.Int32N(26))
		default:
			o, err := tab.Get(4 + rng.Int32N(26))
			if err != nil {
				continue
			}
			switch rng.IntN(5) {
			case 0:
				_, _ = o.Write(ctx, buf[:rng.IntN(len(buf))])
			case 1:
				_, _ = o.ReadAt(ctx, make([]byte, 1000), rng.Int64N(200_000))
			case 2:
				_ = o.SetSize(rng.Int64N(100_000))
			case 3:
				_ = o.ReadDir(ctx, 0, func(vfs.Entry) bool { return true })
			default:
				_, _ = o.Seek(rng.Int64N(1000), io.SeekStart)
			}
		}
	}
}
