package vfs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"skein.dev/abi"
	"skein.dev/services/executor/internal/vfs"
	"skein.dev/services/executor/internal/vfs/vfstest"
)

var shared = map[string]string{"file": "content", "dir/a": "a", "dir/b": "bb", "dir/sub/c": "ccc", "dir/sub/ü/d": "dddd"}

func table(t *testing.T, setup vfs.Setup) *vfs.Table {
	t.Helper()
	tab := vfs.NewTable(setup, strings.NewReader("hello"), nil, nil)
	t.Cleanup(tab.End)
	return tab
}

func get(t *testing.T, tab *vfs.Table, fd int32) *vfs.Open {
	t.Helper()
	o, err := tab.Get(fd)
	if err != nil {
		t.Fatalf("descriptor %d: %v", fd, err)
	}
	return o
}

func root(t *testing.T, tab *vfs.Table) *vfs.Open {
	t.Helper()
	o, err := tab.GetDir(vfs.Root)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func open(t *testing.T, tab *vfs.Table, name string, how vfs.How) (int32, *vfs.Open) {
	t.Helper()
	how.Read = true
	fd, err := tab.OpenAt(t.Context(), root(t, tab), name, how)
	if err != nil {
		t.Fatalf("open %s: %v", name, err)
	}
	return fd, get(t, tab, fd)
}

func put(t *testing.T, tab *vfs.Table, name, content string) {
	t.Helper()
	fd, o := open(t, tab, name, vfs.How{Create: true, Truncate: true, Write: true})
	if n, err := o.Write(t.Context(), []byte(content)); err != nil || n != len(content) {
		t.Fatalf("write %s: %d, %v", name, n, err)
	}
	want(t, "close "+name, tab.Close(context.Background(), fd), nil)
}

func read(t *testing.T, tab *vfs.Table, name string) string {
	t.Helper()
	p, err := tab.ReadFile(t.Context(), root(t, tab), name, 1<<30)
	if err != nil {
		return "error " + err.Error()
	}
	return string(p)
}

func want(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) || (want == nil) != (err == nil) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func list(t *testing.T, o *vfs.Open, cookie uint64) (names []string) {
	t.Helper()
	if err := o.ReadDir(t.Context(), cookie, func(e vfs.Entry) bool { names = append(names, e.Name); return true }); err != nil {
		t.Fatal(err)
	}
	return names
}

// Paths mean what POSIX says, and never lead out of the directory they start in.
func TestPaths(t *testing.T) {
	tab := table(t, vfstest.Setup(shared))
	root := root(t, tab)
	_, sub := open(t, tab, "dir/sub", vfs.How{})
	long := strings.Repeat("x", vfs.MaxName)
	for _, c := range []struct {
		dir  *vfs.Open
		name string
		size int64 // -1: a directory
		err  error
	}{
		{root, "file", 7, nil},
		{root, "dir//a", 1, nil},
		{root, "dir/sub/../../file", 7, nil},
		{root, "./", -1, nil},
		{root, "dir/..", -1, nil},
		{root, "dir/sub/ü/d", 4, nil},
		{root, "etc/passwd", 32, nil},
		{root, "tmp", -1, nil},
		{sub, "ü/../c", 3, nil},

		{root, "", 0, abi.ENOENT},
		{root, "absent/../file", 0, abi.ENOENT},
		{root, `dir\a`, 0, abi.ENOENT},
		{root, "%2e%2e/file", 0, abi.ENOENT},
		{root, long, 0, abi.ENOENT},
		{root, "file/", 0, abi.ENOTDIR},
		{root, "file/x/y/z", 0, abi.ENOTDIR},
		{root, "file/../dir", 0, abi.ENOTDIR},
		{root, "..", 0, abi.ENOTCAPABLE},
		{root, "dir/../../file", 0, abi.ENOTCAPABLE},
		{root, "/file", 0, abi.ENOTCAPABLE},
		{root, "//file", 0, abi.ENOTCAPABLE},
		{sub, "../a", 0, abi.ENOTCAPABLE},
		{sub, "..", 0, abi.ENOTCAPABLE},
		{root, "file\x00", 0, abi.EINVAL},
		{root, "..%c0%af\xc0\xaf", 0, abi.EILSEQ},
		{root, long + "x", 0, abi.ENAMETOOLONG},
		{root, strings.Repeat("./", vfs.MaxPath/2) + "file", 0, abi.ENAMETOOLONG},
		{root, strings.Repeat("./", vfs.MaxPath/2-2) + "file", 7, nil},
	} {
		st, err := tab.StatAt(t.Context(), c.dir, c.name, true)
		want(t, fmt.Sprintf("stat %.40q", c.name), err, c.err)
		if dir := c.size < 0; c.err == nil && (dir != (st.Type == vfs.Directory) || !dir && st.Size != c.size || st.Ino == 0) {
			t.Errorf("stat %.40q: %+v", c.name, st)
		}
		fd, err := tab.OpenAt(t.Context(), c.dir, c.name, vfs.How{})
		want(t, fmt.Sprintf("open %.40q", c.name), err, c.err)
		if err == nil {
			want(t, "close", tab.Close(context.Background(), fd), nil)
		}
	}
}

// Symbolic links are followed inside the tree, wherever they point, and not for ever.
func TestSymlinks(t *testing.T) {
	tab := table(t, vfstest.Setup(shared))
	root := root(t, tab)
	for name, to := range map[string]string{
		"rel": "dir/sub", "abs": "/dir/sub", "dir/up": "../file", "out": "../../etc/passwd", "host": "/etc/passwd", "loop": "loop2",
		"loop2": "loop", "self": "self/x", "dangling": "tmp/new", "deep": "rel/../up",
	} {
		want(t, "symlink "+name, tab.SymlinkAt(t.Context(), to, root, name), nil)
	}
	for name, content := range map[string]string{
		"rel/c": "ccc", "abs/c": "ccc", "dir/up": "content", "deep": "content", "host": "faasm:x:1000:1000::/:/bin/false\n",
		"out": "error " + abi.ENOTCAPABLE.Error(), "loop": "error " + abi.ELOOP.Error(), "self": "error " + abi.ELOOP.Error(),
	} {
		if got := read(t, tab, name); got != content {
			t.Errorf("%s: %q, want %q", name, got, content)
		}
	}
	_, sub := open(t, tab, "dir", vfs.How{})
	want(t, "symlink", tab.SymlinkAt(t.Context(), "/file", sub, "abs"), nil)
	_, err := tab.OpenAt(t.Context(), sub, "abs", vfs.How{})
	want(t, "an absolute link below a directory", err, abi.ENOTCAPABLE)
	_, err = tab.OpenAt(t.Context(), root, "rel", vfs.How{NoFollow: true})
	want(t, "a link that is not to be followed", err, abi.ELOOP)
	put(t, tab, "dangling", "made")
	if got := read(t, tab, "tmp/new"); got != "made" {
		t.Errorf("through a dangling link: %q", got)
	}
}

func TestReadAndSeek(t *testing.T) {
	tab := table(t, vfstest.Setup(shared))
	_, f := open(t, tab, "file", vfs.How{})
	if st := f.Stat(); st.Type != vfs.Regular || st.Size != 7 || st.Modified != vfstest.When.UnixNano() {
		t.Errorf("%+v", st)
	}
	buf := make([]byte, 4)
	for _, part := range []string{"cont", "ent", ""} {
		if n, err := f.Read(t.Context(), buf); err != nil || string(buf[:n]) != part {
			t.Errorf("read %q, %v; want %q", buf[:n], err, part)
		}
	}
	if n, err := f.ReadAt(t.Context(), buf, math.MaxInt64); err != nil || n != 0 {
		t.Errorf("read %d bytes far beyond the end, %v", n, err)
	}
	if tab.BytesRead() != 7 {
		t.Errorf("%d bytes are counted as read", tab.BytesRead())
	}
	for _, c := range []struct {
		off    int64
		whence int
		at     int64
		err    error
	}{
		{3, io.SeekStart, 3, nil},
		{-4, io.SeekCurrent, 0, abi.EINVAL},
		{math.MinInt64, io.SeekEnd, 0, abi.EINVAL},
		{100, io.SeekEnd, 107, nil}, // past the end is allowed
		{math.MaxInt64, io.SeekCurrent, 0, abi.EOVERFLOW},
		{math.MaxInt64, io.SeekStart, math.MaxInt64, nil},
		{0, 3, 0, abi.EINVAL},
	} {
		at, err := f.Seek(c.off, c.whence)
		want(t, fmt.Sprintf("seek %d, %d", c.off, c.whence), err, c.err)
		if at != c.at {
			t.Errorf("seek %d, %d: at %d, want %d", c.off, c.whence, at, c.at)
		}
	}
	_, d := open(t, tab, "dir", vfs.How{})
	_, err := d.Read(t.Context(), buf)
	want(t, "read a directory", err, abi.EISDIR)
	_, err = d.Seek(0, 0)
	want(t, "seek in a directory", err, abi.EISDIR)
	_, w := open(t, tab, "new", vfs.How{Create: true, Write: true})
	for _, off := range []int64{vfs.MaxFile, math.MaxInt64} {
		_, err = w.WriteAt(t.Context(), buf, off)
		want(t, "write too far", err, abi.EFBIG)
		want(t, "a size too large", w.SetSize(off+1), map[bool]error{true: abi.EFBIG, false: abi.EINVAL}[off < math.MaxInt64])
		want(t, "allocate too far", w.Allocate(off, 1), abi.EFBIG)
	}
	if n, err := w.WriteAt(t.Context(), buf, vfs.MaxFile-1); n != 1 || err != nil {
		t.Errorf("the last byte a file may have: %d, %v", n, err)
	}
}

func TestDevices(t *testing.T) {
	tab := table(t, vfs.Setup{})
	buf := []byte{1, 2, 3, 4, 5, 6, 7, 8}
	_, null := open(t, tab, "dev/null", vfs.How{Write: true})
	if n, err := null.Write(t.Context(), buf); n != 8 || err != nil {
		t.Errorf("write to null: %d, %v", n, err)
	}
	if n, err := null.Read(t.Context(), buf); n != 0 || err != nil {
		t.Errorf("read null: %d, %v", n, err)
	}
	_, random := open(t, tab, "dev/urandom", vfs.How{})
	if n, err := random.Read(t.Context(), buf); n != 8 || err != nil || bytes.Equal(buf, []byte{1, 2, 3, 4, 5, 6, 7, 8}) {
		t.Errorf("read random: %d, %v: %v", n, err, buf)
	}
	_, zero := open(t, tab, "dev/zero", vfs.How{})
	if n, err := zero.Read(t.Context(), buf); n != 8 || err != nil || !bytes.Equal(buf, make([]byte, 8)) {
		t.Errorf("read zero: %d, %v: %v", n, err, buf)
	}
	if st := zero.Stat(); st.Type != vfs.CharacterDevice {
		t.Errorf("%+v", st)
	}
}

func TestStreams(t *testing.T) {
	var out bytes.Buffer
	tab := vfs.NewTable(vfs.Setup{}, strings.NewReader("hello"), &out, nil)
	defer tab.End()
	in, o := get(t, tab, 0), get(t, tab, 1)
	buf := make([]byte, 3)
	for _, part := range []string{"hel", "lo", ""} {
		if n, err := in.Read(t.Context(), buf); err != nil || string(buf[:n]) != part {
			t.Errorf("read %q, %v; want %q", buf[:n], err, part)
		}
	}
	if n, err := o.Write(t.Context(), []byte("out")); n != 3 || err != nil || out.String() != "out" {
		t.Errorf("wrote %d, %v: %q", n, err, &out)
	}
	_, err := get(t, tab, 2).Write(t.Context(), []byte("lost"))
	want(t, "write to a nil writer", err, nil)
	_, err = in.Write(t.Context(), nil)
	want(t, "write to stdin", err, abi.EBADF)
	_, err = o.Read(t.Context(), nil)
	want(t, "read stdout", err, abi.EBADF)
	for _, s := range []*vfs.Open{in, o} {
		_, err = s.ReadAt(t.Context(), buf, 0)
		want(t, "pread", err, abi.ESPIPE)
		_, err = s.WriteAt(t.Context(), buf, 0)
		want(t, "pwrite", err, abi.ESPIPE)
		_, err = s.Seek(0, 0)
		want(t, "seek", err, abi.ESPIPE)
		want(t, "sync", s.Sync(context.Background()), abi.EINVAL)
		want(t, "times", s.SetTimes(vfs.Times{}), abi.EPERM)
		want(t, "allocate", s.Allocate(0, 1), abi.ESPIPE)
		want(t, "resize", s.SetSize(1), abi.EINVAL)
		want(t, "readdir", s.ReadDir(t.Context(), 0, nil), abi.ENOTDIR)
	}
	if names := list(t, root(t, tab), 0); strings.Join(names, " ") != ". .. dev etc tmp" {
		t.Errorf("no shared files: %v", names)
	}
}

func TestDescriptors(t *testing.T) {
	tab := table(t, vfs.Setup{Lower: vfstest.New(shared), Limits: vfs.Limits{Open: 64}})
	for _, fd := range []int32{-1, math.MinInt32, math.MaxInt32, 4, 63, 64} {
		_, err := tab.Get(fd)
		want(t, fmt.Sprintf("get %d", fd), err, abi.EBADF)
		want(t, fmt.Sprintf("close %d", fd), tab.Close(context.Background(), fd), abi.EBADF)
		want(t, fmt.Sprintf("renumber %d", fd), tab.Renumber(context.Background(), fd, 0), abi.EBADF)
		_, err = tab.Dup(fd, 0)
		want(t, fmt.Sprintf("dup %d", fd), err, abi.EBADF)
	}
	for _, fd := range []int32{-1, 64, math.MaxInt32} {
		want(t, fmt.Sprintf("renumber to %d", fd), tab.Renumber(context.Background(), 0, fd), abi.EBADF)
		want(t, fmt.Sprintf("dup to %d", fd), tab.DupTo(context.Background(), 0, fd), abi.EBADF)
		_, err := tab.Dup(0, fd)
		want(t, fmt.Sprintf("dup from %d on", fd), err, abi.EINVAL)
	}
	_, err := tab.GetDir(0)
	want(t, "stdin as a directory", err, abi.ENOTDIR)
	_, f := open(t, tab, "file", vfs.How{})
	if fd, err := tab.Dup(4, 40); fd != 40 || err != nil || get(t, tab, 40) != f {
		t.Errorf("dup from 40 on: %d, %v", fd, err)
	}
	for fd := int32(5); fd < 64; fd++ {
		if fd == 40 {
			continue
		}
		if got, err := tab.Dup(4, 0); got != fd || err != nil {
			t.Fatalf("dup: %d, %v, want %d", got, err, fd)
		}
	}
	_, err = tab.OpenAt(t.Context(), root(t, tab), "absent", vfs.How{})
	want(t, "open one more", err, abi.EMFILE)
	_, err = tab.Dup(4, 50)
	want(t, "dup once more", err, abi.EMFILE)
	want(t, "close", tab.Close(context.Background(), 4), nil)
	want(t, "close again", tab.Close(context.Background(), 4), abi.EBADF)
	buf := make([]byte, 4)
	_, _ = get(t, tab, 5).Read(t.Context(), buf)
	if n, err := get(t, tab, 6).Read(t.Context(), buf); string(buf[:n]) != "ent" || err != nil {
		t.Errorf("another descriptor of the same offset reads %q, %v", buf[:n], err)
	}
	want(t, "renumber to what is closed", tab.Renumber(context.Background(), 7, 4), nil)
	want(t, "and back", tab.Renumber(context.Background(), 4, 7), nil)
	want(t, "renumber", tab.Renumber(context.Background(), 7, 9), nil)
	_, err = tab.Get(7)
	want(t, "get the old number", err, abi.EBADF)
	want(t, "dup to itself", tab.DupTo(context.Background(), 9, 9), nil)
	want(t, "renumber to itself", tab.Renumber(context.Background(), 9, 9), nil)
}
