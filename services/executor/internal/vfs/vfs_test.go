package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"skein.dev/abi"
	fsv1 "skein.dev/proto/skein/fs/v1"
)

var when = time.Unix(1_700_000_000, 42)

func table(t *testing.T) (*Table, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	return NewTable(fstest.MapFS{
		"file":        {Data: []byte("content"), ModTime: when},
		"dir/a":       {Data: []byte("a")},
		"dir/b":       {Data: []byte("bb")},
		"dir/sub/c":   {Data: []byte("ccc")},
		"dir/sub/ü/d": {Data: []byte("dddd")},
	}, strings.NewReader("hello"), &out, nil), &out
}

func get(t *testing.T, tab *Table, fd int32) *Open {
	t.Helper()
	o, err := tab.Get(fd)
	if err != nil {
		t.Fatalf("descriptor %d: %v", fd, err)
	}
	return o
}

func open(t *testing.T, tab *Table, name string) (int32, *Open) {
	t.Helper()
	fd, err := tab.OpenAt(get(t, tab, Root), name, How{})
	if err != nil {
		t.Fatalf("open %s: %v", name, err)
	}
	return fd, get(t, tab, fd)
}

func want(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) || (want == nil) != (err == nil) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// Paths mean what POSIX says, and never lead out of the directory they start in.
func TestPaths(t *testing.T) {
	tab, _ := table(t)
	root := get(t, tab, Root)
	_, sub := open(t, tab, "dir/sub")
	long := strings.Repeat("x", MaxName)
	for _, c := range []struct {
		dir  *Open
		name string
		size int64 // -1: a directory
		err  error
	}{
		{root, "file", 7, nil},
		{root, "./file", 7, nil},
		{root, "dir//a", 1, nil},
		{root, "dir/../file", 7, nil},
		{root, "dir/sub/../../file", 7, nil},
		{root, ".", -1, nil},
		{root, "./", -1, nil},
		{root, "dir", -1, nil},
		{root, "dir/", -1, nil},
		{root, "dir/.", -1, nil},
		{root, "dir/..", -1, nil},
		{root, "dir/sub/ü/d", 4, nil},
		{sub, "c", 3, nil},
		{sub, ".", -1, nil},
		{sub, "ü/../c", 3, nil},

		{root, "", 0, abi.ENOENT},
		{root, "absent", 0, abi.ENOENT},
		{root, "absent/x/y", 0, abi.ENOENT},
		{root, "dir/absent", 0, abi.ENOENT},
		{root, "absent/../file", 0, abi.ENOENT},
		{root, `dir\a`, 0, abi.ENOENT},
		{root, "%2e%2e/file", 0, abi.ENOENT},
		{root, "faasm://file", 0, abi.ENOENT},
		{root, long, 0, abi.ENOENT},
		{root, "file/", 0, abi.ENOTDIR},
		{root, "file/.", 0, abi.ENOTDIR},
		{root, "file/x", 0, abi.ENOTDIR},
		{root, "file/x/y/z", 0, abi.ENOTDIR},
		{root, "file/../dir", 0, abi.ENOTDIR},
		{root, "..", 0, abi.ENOTCAPABLE},
		{root, "../file", 0, abi.ENOTCAPABLE},
		{root, "dir/../../file", 0, abi.ENOTCAPABLE},
		{root, "dir/./../../x", 0, abi.ENOTCAPABLE},
		{root, "/", 0, abi.ENOTCAPABLE},
		{root, "/file", 0, abi.ENOTCAPABLE},
		{root, "//file", 0, abi.ENOTCAPABLE},
		{sub, "../a", 0, abi.ENOTCAPABLE},
		{sub, "..", 0, abi.ENOTCAPABLE},
		{root, "file\x00", 0, abi.EINVAL},
		{root, "\x00", 0, abi.EINVAL},
		{root, "..%c0%af\xc0\xaf", 0, abi.EILSEQ},
		{root, "\xff", 0, abi.EILSEQ},
		{root, long + "x", 0, abi.ENAMETOOLONG},
		{root, strings.Repeat("./", MaxPath/2) + "file", 0, abi.ENAMETOOLONG},
		{root, strings.Repeat("./", MaxPath/2-2) + "file", 7, nil},
	} {
		st, err := tab.StatAt(c.dir, c.name)
		want(t, fmt.Sprintf("stat %.40q", c.name), err, c.err)
		if dir := c.size < 0; c.err == nil && (dir != (st.Type == Directory) || !dir && st.Size != c.size || st.Ino == 0) {
			t.Errorf("stat %.40q: %+v", c.name, st)
		}
		fd, err := tab.OpenAt(c.dir, c.name, How{})
		want(t, fmt.Sprintf("open %.40q", c.name), err, c.err)
		if err == nil {
			want(t, "close", tab.Close(fd), nil)
		}
		_, err = tab.ReadLinkAt(c.dir, c.name)
		if c.err == nil {
			c.err = abi.EINVAL
		}
		want(t, fmt.Sprintf("readlink %.40q", c.name), err, c.err)
	}
}

// No path, however it is made, is opened outside of the directory it starts in.
func FuzzPathStays(f *testing.F) {
	for _, s := range []string{"file", "../file", "dir/../../..", "/..", "dir/sub/../../../file", "a\x00b", "\xff/.."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		spy := &spyFS{MapFS: fstest.MapFS{"dir/sub/c": {}, "file": {}}}
		tab := NewTable(spy, nil, nil, nil)
		fd, err := tab.OpenAt(&tab.std[Root], "dir", How{})
		if err != nil {
			t.Fatal(err)
		}
		spy.opened = nil
		_, _ = tab.OpenAt(tab.open[fd], name, How{})
		_, _ = tab.StatAt(tab.open[fd], name)
		for _, path := range spy.opened {
			if path != "dir" && !strings.HasPrefix(path, "dir/") && path != "." || !fs.ValidPath(path) {
				t.Errorf("%q opened %q", name, path)
			}
		}
	})
}

type spyFS struct {
	fstest.MapFS
	opened []string
}

func (s *spyFS) Open(name string) (fs.File, error) {
	s.opened = append(s.opened, name)
	return s.MapFS.Open(name)
}

func (s *spyFS) Stat(name string) (fs.FileInfo, error) {
	s.opened = append(s.opened, name)
	return s.MapFS.Stat(name)
}

func TestOpenHow(t *testing.T) {
	tab, _ := table(t)
	root := get(t, tab, Root)
	for _, c := range []struct {
		name string
		how  How
		err  error
	}{
		{"file", How{Create: true}, nil}, // it is there, and nobody writes
		{"file", How{Exclusive: true}, nil},
		{"dir", How{Directory: true}, nil},
		{"dir", How{Directory: true, Write: true}, nil}, // a directory's rights
		{"file", How{Create: true, Exclusive: true}, abi.EEXIST},
		{"dir", How{Create: true, Exclusive: true}, abi.EEXIST},
		{"file", How{Write: true}, abi.EROFS},
		{"file", How{Truncate: true}, abi.EROFS},
		{"file", How{Create: true, Write: true}, abi.EROFS},
		{"new", How{Create: true}, abi.EROFS},
		{"dir/new", How{Create: true, Exclusive: true, Write: true}, abi.EROFS},
		{"new/", How{Create: true}, abi.EISDIR},
		{"absent/new", How{Create: true}, abi.ENOENT},
		{"file/new", How{Create: true}, abi.ENOTDIR},
		{"file", How{Directory: true}, abi.ENOTDIR},
		{"file", How{Directory: true, Write: true}, abi.ENOTDIR},
		{"absent", How{Directory: true}, abi.ENOENT},
		{"dir", How{Write: true}, abi.EISDIR},
		{"dir", How{Create: true}, abi.EISDIR},
		{"dir", How{Truncate: true}, abi.EISDIR},
		{"dir", How{Create: true, Directory: true}, abi.EINVAL},
	} {
		fd, err := tab.OpenAt(root, c.name, c.how)
		want(t, fmt.Sprintf("open %s %+v", c.name, c.how), err, c.err)
		if err == nil {
			want(t, "close", tab.Close(fd), nil)
		}
	}
	if _, err := tab.Get(Root + 1); !errors.Is(err, abi.EBADF) {
		t.Errorf("a refused open left its descriptor open: %v", err)
	}
}

func TestReadOnly(t *testing.T) {
	tab, _ := table(t)
	root := get(t, tab, Root)
	for _, c := range []struct {
		name                                        string
		mkdir, link, unlink, rmdir, rename, symlink error
	}{
		{"new", abi.EROFS, abi.EROFS, abi.EROFS, abi.EROFS, abi.EROFS, abi.EROFS},
		{"file", abi.EEXIST, abi.EEXIST, abi.EROFS, abi.EROFS, abi.EROFS, abi.EEXIST},
		{"dir", abi.EEXIST, abi.EEXIST, abi.EROFS, abi.EROFS, abi.EROFS, abi.EEXIST},
		{"new/", abi.EROFS, abi.ENOENT, abi.EROFS, abi.EROFS, abi.EROFS, abi.ENOENT},
		{"absent/new", abi.ENOENT, abi.ENOENT, abi.ENOENT, abi.ENOENT, abi.ENOENT, abi.ENOENT},
		{"file/new", abi.ENOTDIR, abi.ENOTDIR, abi.ENOTDIR, abi.ENOTDIR, abi.ENOTDIR, abi.ENOTDIR},
		{".", abi.EEXIST, abi.EEXIST, abi.EISDIR, abi.EINVAL, abi.EBUSY, abi.EEXIST},
		{"dir/..", abi.EEXIST, abi.EEXIST, abi.EISDIR, abi.ENOTEMPTY, abi.EBUSY, abi.EEXIST},
		{"../x", abi.ENOTCAPABLE, abi.ENOTCAPABLE, abi.ENOTCAPABLE, abi.ENOTCAPABLE, abi.ENOTCAPABLE, abi.ENOTCAPABLE},
	} {
		want(t, "mkdir "+c.name, tab.MakeDirAt(root, c.name), c.mkdir)
		want(t, "link "+c.name, tab.LinkAt(root, "file", root, c.name), c.link)
		want(t, "unlink "+c.name, tab.UnlinkAt(root, c.name), c.unlink)
		want(t, "rmdir "+c.name, tab.RemoveDirAt(root, c.name), c.rmdir)
		want(t, "rename to "+c.name, tab.RenameAt(root, "file", root, c.name), c.rename)
		want(t, "rename of "+c.name, tab.RenameAt(root, c.name, root, "new"), c.rename)
		want(t, "symlink "+c.name, tab.SymlinkAt("file", root, c.name), c.symlink)
	}
	want(t, "link of a directory", tab.LinkAt(root, "dir", root, "new"), abi.EPERM)
	want(t, "link of nothing", tab.LinkAt(root, "absent", root, "new"), abi.ENOENT)
	want(t, "symlink to nothing", tab.SymlinkAt("", root, "new"), abi.ENOENT)
	want(t, "symlink to a NUL", tab.SymlinkAt("a\x00", root, "new"), abi.EINVAL)
	want(t, "times", tab.SetTimesAt(root, "file"), abi.EROFS)
	want(t, "times of nothing", tab.SetTimesAt(root, "absent"), abi.ENOENT)

	_, f := open(t, tab, "file")
	_, err := f.Write([]byte("x"))
	want(t, "write", err, abi.EBADF)
	_, err = f.WriteAt([]byte("x"), 0)
	want(t, "pwrite", err, abi.EBADF)
	want(t, "truncate", f.SetSize(0), abi.EINVAL)
	want(t, "allocate", f.Allocate(0, 1), abi.EBADF)
	want(t, "allocate nothing", f.Allocate(0, 0), abi.EINVAL)
	want(t, "allocate too much", f.Allocate(1, math.MaxInt64), abi.EINVAL)
	want(t, "times of the open file", f.SetTimes(), abi.EROFS)
	want(t, "sync", f.Sync(), nil)
}

func TestReadAndSeek(t *testing.T) {
	tab, _ := table(t)
	_, f := open(t, tab, "file")
	if st := f.Stat(); st.Type != Regular || st.Size != 7 || st.Time != when.UnixNano() {
		t.Errorf("%+v", st)
	}
	buf := make([]byte, 4)
	for _, part := range []string{"cont", "ent", ""} {
		if left := f.Left(); left < int64(len(part)) {
			t.Errorf("%d bytes are left before %q", left, part)
		}
		if n, err := f.Read(buf); err != nil || string(buf[:n]) != part {
			t.Errorf("read %q, %v; want %q", buf[:n], err, part)
		}
	}
	if n, err := f.ReadAt(buf, 5); err != nil || string(buf[:n]) != "nt" {
		t.Errorf("read %q at 5, %v", buf[:n], err)
	}
	if n, err := f.ReadAt(buf, math.MaxInt64); err != nil || n != 0 {
		t.Errorf("read %d bytes far beyond the end, %v", n, err)
	}
	for _, c := range []struct {
		off    int64
		whence int
		at     int64
		err    error
	}{
		{3, io.SeekStart, 3, nil},
		{2, io.SeekCurrent, 5, nil},
		{-5, io.SeekCurrent, 0, nil},
		{-1, io.SeekCurrent, 0, abi.EINVAL},
		{-7, io.SeekEnd, 0, nil},
		{-8, io.SeekEnd, 0, abi.EINVAL},
		{math.MinInt64, io.SeekEnd, 0, abi.EINVAL},
		{100, io.SeekEnd, 107, nil}, // past the end is allowed
		{math.MaxInt64, io.SeekCurrent, 0, abi.EOVERFLOW},
		{math.MaxInt64, io.SeekStart, math.MaxInt64, nil},
		{0, 3, 0, abi.EINVAL},
		{0, -1, 0, abi.EINVAL},
	} {
		at, err := f.Seek(c.off, c.whence)
		want(t, fmt.Sprintf("seek %d, %d", c.off, c.whence), err, c.err)
		if at != c.at {
			t.Errorf("seek %d, %d: at %d, want %d", c.off, c.whence, at, c.at)
		}
	}
	if n, err := f.Read(buf); n != 0 || err != nil {
		t.Errorf("read %d bytes past the end, %v", n, err)
	}
	_, d := open(t, tab, "dir")
	_, err := d.Read(buf)
	want(t, "read a directory", err, abi.EISDIR)
	_, err = d.ReadAt(buf, 0)
	want(t, "pread a directory", err, abi.EISDIR)
	_, err = d.Seek(0, 0)
	want(t, "seek in a directory", err, abi.EISDIR)
}

func TestStreams(t *testing.T) {
	tab, out := table(t)
	in, o := get(t, tab, 0), get(t, tab, 1)
	buf := make([]byte, 3)
	for _, part := range []string{"hel", "lo", ""} {
		if n, err := in.Read(buf); err != nil || string(buf[:n]) != part {
			t.Errorf("read %q, %v; want %q", buf[:n], err, part)
		}
	}
	if n, err := o.Write([]byte("out")); n != 3 || err != nil || out.String() != "out" {
		t.Errorf("wrote %d, %v: %q", n, err, out)
	}
	_, err := get(t, tab, 2).Write([]byte("lost"))
	want(t, "write to a nil writer", err, nil)
	_, err = in.Write(nil)
	want(t, "write to stdin", err, abi.EBADF)
	_, err = o.Read(nil)
	want(t, "read stdout", err, abi.EBADF)
	for _, s := range []*Open{in, o} {
		_, err = s.ReadAt(buf, 0)
		want(t, "pread", err, abi.ESPIPE)
		_, err = s.WriteAt(buf, 0)
		want(t, "pwrite", err, abi.ESPIPE)
		_, err = s.Seek(0, 0)
		want(t, "seek", err, abi.ESPIPE)
		want(t, "sync", s.Sync(), abi.EINVAL)
		want(t, "times", s.SetTimes(), abi.EPERM)
		want(t, "allocate", s.Allocate(0, 1), abi.ESPIPE)
		want(t, "readdir", s.ReadDir(0, nil), abi.ENOTDIR)
	}
	empty := NewTable(nil, nil, nil, nil)
	if n, err := get(t, empty, 0).Read(buf); n != 0 || err != nil {
		t.Errorf("read %d bytes of no stdin, %v", n, err)
	}
	_, err = empty.OpenAt(get(t, empty, Root), "x", How{})
	want(t, "open in no tree", err, abi.ENOENT)
	if names := list(t, get(t, empty, Root), 0); strings.Join(names, " ") != ". .." {
		t.Errorf("no tree has %v", names)
	}
}

func TestDescriptors(t *testing.T) {
	tab, _ := table(t)
	for _, fd := range []int32{-1, math.MinInt32, math.MaxInt32, 4, 63, 64} {
		_, err := tab.Get(fd)
		want(t, fmt.Sprintf("get %d", fd), err, abi.EBADF)
		want(t, fmt.Sprintf("close %d", fd), tab.Close(fd), abi.EBADF)
		want(t, fmt.Sprintf("renumber %d", fd), tab.Renumber(fd, 0), abi.EBADF)
	}
	for _, fd := range []int32{-1, 64, math.MaxInt32} {
		want(t, fmt.Sprintf("renumber to %d", fd), tab.Renumber(0, fd), abi.EBADF)
	}
	_, err := tab.GetDir(0)
	want(t, "stdin as a directory", err, abi.ENOTDIR)
	for fd := int32(4); fd < MaxOpen; fd++ {
		if got, _ := open(t, tab, "file"); got != fd {
			t.Fatalf("opened %d, want %d", got, fd)
		}
	}
	_, err = tab.OpenAt(get(t, tab, Root), "file", How{})
	want(t, "open one more", err, abi.EMFILE)
	want(t, "close", tab.Close(7), nil)
	want(t, "close again", tab.Close(7), abi.EBADF)
	if fd, _ := open(t, tab, "dir"); fd != 7 {
		t.Errorf("opened %d, want the lowest free, 7", fd)
	}
	d := get(t, tab, 7)
	want(t, "renumber", tab.Renumber(7, 9), nil)
	if get(t, tab, 9) != d {
		t.Error("9 is not what 7 was")
	}
	_, err = tab.Get(7)
	want(t, "get the old number", err, abi.EBADF)
	want(t, "renumber to a free number", tab.Renumber(9, 7), nil)
	want(t, "renumber to itself", tab.Renumber(7, 7), nil)
	if get(t, tab, 7) != d {
		t.Error("7 is not what it was")
	}
}

func list(t *testing.T, o *Open, cookie uint64) (names []string) {
	t.Helper()
	if err := o.ReadDir(cookie, func(e Entry) bool { names = append(names, e.Name); return true }); err != nil {
		t.Fatal(err)
	}
	return names
}

// Every cookie that an entry had leads to the entry after it, in any order, and no other does.
func TestReadDir(t *testing.T) {
	tab, _ := table(t)
	_, d := open(t, tab, "dir")
	all := list(t, d, 0)
	if strings.Join(all, " ") != ". .. a b sub" {
		t.Fatalf("%v", all)
	}
	for _, cookie := range []uint64{3, 1, 5, 2, 0, 4} {
		if got := list(t, d, cookie); strings.Join(got, " ") != strings.Join(all[cookie:], " ") {
			t.Errorf("from %d: %v", cookie, got)
		}
	}
	for _, cookie := range []uint64{6, 1 << 31, 1 << 63, math.MaxUint64} {
		want(t, fmt.Sprintf("cookie %d", cookie), d.ReadDir(cookie, nil), abi.EINVAL)
	}
	_, fresh := open(t, tab, "dir")
	want(t, "a cookie before there are any", fresh.ReadDir(1, nil), abi.EINVAL)
	_, f := open(t, tab, "file")
	want(t, "a file's", f.ReadDir(0, nil), abi.ENOTDIR)

	root := get(t, tab, Root)
	_ = root.ReadDir(0, func(e Entry) bool {
		st, err := tab.StatAt(root, strings.Replace(e.Name, "..", ".", 1))
		if err != nil || st.Ino != e.Ino || st.Type != e.Type {
			t.Errorf("entry %+v is %+v, %v", e, st, err)
		}
		return true
	})
}

// A directory of more entries than the window holds is read to its end, and again from where the window has moved away.
func TestLargeDirectory(t *testing.T) {
	const n = 5 * maxEntries
	files := fstest.MapFS{}
	for i := range n {
		files[fmt.Sprintf("d/%06d", i)] = &fstest.MapFile{}
	}
	tab := NewTable(files, nil, nil, nil)
	_, d := open(t, tab, "d")
	cookie, seen := uint64(0), 0
	for {
		page := 0
		err := d.ReadDir(cookie, func(e Entry) bool {
			if page == 1000 {
				return false
			}
			if seen >= 2 && e.Name != fmt.Sprintf("%06d", seen-2) {
				t.Fatalf("entry %d is %s", seen, e.Name)
			}
			page, seen, cookie = page+1, seen+1, e.Next
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		if have := len(d.listing.entries); have > maxEntries+2*pageEntries {
			t.Fatalf("%d entries are kept", have)
		}
		if page == 0 {
			break
		}
	}
	if seen != n+2 {
		t.Fatalf("%d entries, want %d", seen, n+2)
	}
	_ = d.ReadDir(12, func(e Entry) bool {
		if e.Name != "000010" {
			t.Errorf("cookie 12 leads to %s", e.Name)
		}
		return false
	})
}

// What a guest has read is counted, not what was fetched for it.
func TestBytesRead(t *testing.T) {
	shared := New(t.Context(), nil, "ann")
	f := &file{fs: shared, meta: &fsv1.File{Size: 10}, have: make([]byte, 10)}
	for _, at := range []int64{0, 8, 20} {
		if _, err := f.ReadAt(make([]byte, 4), at); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	}
	if shared.BytesRead() != 6 {
		t.Errorf("%d bytes", shared.BytesRead())
	}
}
