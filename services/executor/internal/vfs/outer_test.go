package vfs_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"skein.dev/abi"
	"skein.dev/services/executor/internal/vfs"
	"skein.dev/services/executor/internal/vfs/vfstest"
)

// What Faasm's shared_file does: make, read again, replace, remove; and that the call's own layer is elsewhere.
func TestSharedTree(t *testing.T) {
	setup := vfstest.Setup(map[string]string{"a/b": "old", "top": "t"})
	tab, other := table(t, setup), table(t, setup)
	put(t, tab, "a/b", "mine alone")
	for name, content := range map[string]string{"faasm://a/b": "old", "faasm:///a/b": "old", "faasm://a/../a/./b": "old", "a/b": "mine alone"} {
		if got := read(t, tab, name); got != content {
			t.Errorf("%s has %q, want %q", name, got, content)
		}
	}
	put(t, tab, "faasm://new/dir/x", "shared")
	put(t, tab, "faasm://a/b", "new")
	for name, content := range map[string]string{"new/dir/x": "shared", "faasm://new/dir/x": "shared", "a/b": "new", "faasm://a/b": "new"} {
		if got := read(t, other, name); got != content {
			t.Errorf("another sees %q in %s, want %q", got, name, content)
		}
	}
	if got := read(t, tab, "a/b"); got != "mine alone" {
		t.Errorf("its own has %q", got)
	}
	ctx, dir := t.Context(), root(t, tab)
	want(t, "unlink", tab.UnlinkAt(ctx, dir, "faasm://new/dir/x"), nil)
	want(t, "unlink again", tab.UnlinkAt(ctx, dir, "faasm://new/dir/x"), abi.ENOENT)
	want(t, "unlink a directory", tab.UnlinkAt(ctx, dir, "faasm://a"), abi.EISDIR)
	if got := read(t, other, "new/dir/x"); got != "error "+abi.ENOENT.Error() {
		t.Errorf("what was removed has %q", got)
	}
	_, o := open(t, tab, "faasm://", vfs.How{Directory: true})
	if got := list(t, o, 0); !slices.Equal(got, []string{".", "..", "a", "top"}) {
		t.Errorf("the shared tree has %q", got)
	}
}

// Nobody sees a part of what is written, and what fails is told.
func TestSharedTreeIsReplacedAtOnce(t *testing.T) {
	tree := vfstest.New(map[string]string{"f": "old"})
	setup := vfs.Setup{Lower: tree, Shared: tree}
	tab, other := table(t, setup), table(t, setup)
	ctx, dir := t.Context(), root(t, tab)
	sees := func(content string) {
		t.Helper()
		if got := read(t, other, "f"); got != content {
			t.Errorf("another sees %q, want %q", got, content)
		}
	}
	write := func(o *vfs.Open, text string) {
		t.Helper()
		if n, err := o.Write(ctx, []byte(text)); n != len(text) || err != nil {
			t.Fatal(n, err)
		}
	}

	fd, o := open(t, tab, "faasm://f", vfs.How{Write: true, Flags: vfs.Append})
	write(o, " and")
	sees("old")
	again, err := tab.Dup(fd, 0)
	want(t, "dup", err, nil)
	want(t, "close one", tab.Close(ctx, fd), nil)
	sees("old")
	want(t, "sync", o.Sync(ctx), nil)
	sees("old and")
	write(o, " new")
	want(t, "close the last", tab.Close(ctx, again), nil)
	sees("old and new")

	// Read only, and closed unwritten: nothing is put.
	tree.Fail = func(op, path string) error {
		if op == "put" {
			return abi.EIO
		}
		return nil
	}
	fd, _ = open(t, tab, "faasm://f", vfs.How{Write: true})
	want(t, "close what was not written", tab.Close(ctx, fd), nil)
	fd, o = open(t, tab, "faasm://f", vfs.How{Truncate: true, Write: true})
	write(o, "lost")
	want(t, "close", tab.Close(ctx, fd), abi.EIO)
	want(t, "close again", tab.Close(ctx, fd), abi.EBADF)
	sees("old and new")
	if got := read(t, tab, "faasm://f"); got != "old and new" {
		t.Errorf("it sees %q itself", got)
	}
	tree.Fail = nil

	// Exclusive, also if another comes in between.
	_, err = tab.OpenAt(ctx, dir, "faasm://f", vfs.How{Create: true, Exclusive: true, Write: true})
	want(t, "exclusive", err, abi.EEXIST)
	fd, _ = open(t, tab, "faasm://g", vfs.How{Create: true, Exclusive: true, Write: true})
	tree.Set("g", "faster")
	want(t, "close what another made meanwhile", tab.Close(ctx, fd), abi.EEXIST)
	if got := read(t, other, "g"); got != "faster" {
		t.Errorf("it has %q", got)
	}

	// What is open at the end of a good call.
	_, o = open(t, tab, "faasm://left/open", vfs.How{Create: true, Write: true})
	write(o, "x")
	want(t, "publish", tab.Publish(ctx), nil)
	if got := read(t, other, "left/open"); got != "x" {
		t.Errorf("what was left open has %q", got)
	}
	fd, _ = open(t, tab, "faasm://empty", vfs.How{Create: true, Write: true})
	want(t, "close", tab.Close(ctx, fd), nil)
	if got := read(t, other, "empty"); got != "" {
		t.Errorf("an empty file has %q", got)
	}
}

// What a tree of files without directories, links and times says to who wants those.
func TestSharedTreeRefuses(t *testing.T) {
	tab := table(t, vfstest.Setup(map[string]string{"d/f": "x"}))
	ctx, dir := t.Context(), root(t, tab)
	_, in := open(t, tab, "faasm://d", vfs.How{Directory: true})
	_, err := tab.OpenAt(ctx, in, "f", vfs.How{Read: true})
	want(t, "open in a directory of it", err, nil)
	want(t, "make a directory", tab.MakeDirAt(ctx, dir, "faasm://new"), nil)
	want(t, "make one that is there", tab.MakeDirAt(ctx, dir, "faasm://d"), abi.EEXIST)
	want(t, "remove a directory", tab.RemoveDirAt(ctx, dir, "faasm://d"), abi.ENOTEMPTY)
	want(t, "remove a file as one", tab.RemoveDirAt(ctx, in, "f"), abi.ENOTDIR)
	want(t, "rename in", tab.RenameAt(ctx, dir, "x", dir, "faasm://x"), abi.EXDEV)
	want(t, "rename out", tab.RenameAt(ctx, in, "f", dir, "x"), abi.EXDEV)
	want(t, "rename within", tab.RenameAt(ctx, in, "f", in, "g"), abi.ENOTSUP)
	want(t, "link", tab.LinkAt(ctx, in, "f", false, in, "g"), abi.ENOTSUP)
	want(t, "symlink", tab.SymlinkAt(ctx, "f", in, "g"), abi.ENOTSUP)
	want(t, "times", tab.SetTimesAt(ctx, in, "f", false, vfs.Times{}), abi.ENOTSUP)
	_, err = tab.ReadLinkAt(ctx, in, "f")
	want(t, "readlink", err, abi.EINVAL)
	_, err = tab.OpenAt(ctx, dir, "faasm://d/f/g", vfs.How{Create: true, Write: true})
	want(t, "below a file", err, abi.ENOTDIR)
	_, err = tab.OpenAt(ctx, dir, "faasm://"+strings.Repeat("d/", 300)+"f", vfs.How{Create: true, Write: true})
	want(t, "too deep", err, abi.EDQUOT)
	_, err = tab.OpenAt(ctx, dir, "faasm://d", vfs.How{Write: true})
	want(t, "write a directory", err, abi.EISDIR)
	want(t, "unlink above the root", tab.UnlinkAt(ctx, dir, "faasm://../../d/f"), abi.ENOTCAPABLE)
	_, err = table(t, vfs.Setup{}).OpenAt(ctx, dir, "faasm://x", vfs.How{Read: true})
	want(t, "no shared tree", err, abi.ENOTSUP)
}

// A function that sees a part of the files sees no other by the scheme.
func TestSharedTreeWithin(t *testing.T) {
	tree := vfstest.New(map[string]string{"a/shown/f": "x", "a/other": "secret", "top": "secret"})
	mounts := []vfs.Mount{{From: "a/shown", At: "m"}}
	tab := table(t, vfs.Setup{Lower: vfs.Mounted(tree, mounts), Shared: vfs.Within(tree, mounts)})
	ctx, dir := t.Context(), root(t, tab)
	if got := read(t, tab, "faasm://a/shown/f"); got != "x" {
		t.Errorf("what is shown has %q", got)
	}
	for _, name := range []string{"faasm://top", "faasm://a/other", "faasm://a/shown/../other", "faasm://b/new", "faasm://a/shownnot"} {
		if got := read(t, tab, name); got != "error "+abi.EACCES.Error() {
			t.Errorf("%s has %q", name, got)
		}
		_, err := tab.OpenAt(ctx, dir, name, vfs.How{Create: true, Write: true})
		want(t, "write "+name, err, abi.EACCES)
		want(t, "unlink "+name, tab.UnlinkAt(ctx, dir, name), abi.EACCES)
	}
	_, o := open(t, tab, "faasm://a", vfs.How{Directory: true})
	want(t, "list what lies above", o.ReadDir(ctx, 0, func(vfs.Entry) bool { return true }), abi.EACCES)
	put(t, tab, "faasm://a/shown/new", "y")
	if got := read(t, tab, "m/new"); got != "y" {
		t.Errorf("at its mount it has %q", got)
	}
}

// The bytes of all shared files that a call writes count as the call's.
func TestSharedTreeQuota(t *testing.T) {
	tree := vfstest.New(nil)
	setup := vfs.Setup{Lower: tree, Shared: tree, Limits: vfs.Limits{Bytes: 1 << 20, Files: 100, Open: 50}}
	tab := table(t, setup)
	page := make([]byte, 300<<10)
	wrote := 0
	for i := range 10 {
		_, o := open(t, tab, fmt.Sprint("faasm://", i), vfs.How{Create: true, Write: true})
		n, err := o.Write(t.Context(), page)
		if wrote += n; n < len(page) {
			break
		}
		want(t, "write", err, nil)
	}
	if wrote > 1<<20 {
		t.Errorf("%d bytes are open", wrote)
	}
	for fd := int32(vfs.Root + 1); fd < 14; fd++ {
		_ = tab.Close(t.Context(), fd)
	}
	put(t, tab, "own", string(page)) // there is room again
}
