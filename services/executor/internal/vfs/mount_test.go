package vfs_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"skein.dev/abi"
	"skein.dev/services/executor/internal/vfs"
	"skein.dev/services/executor/internal/vfs/vfstest"
)

// A mount shows its directory and no more, where it is said to be; the built-in base is still there.
func TestMounted(t *testing.T) {
	tree := vfstest.New(map[string]string{"a/x": "ax", "a/b/y": "aby", "a/b/z/w": "abzw", "c": "c", "d/e": "de"})
	read := func(l vfs.Lower, path string) string {
		f, err := l.Open(t.Context(), path)
		if err != nil {
			return err.Error()
		}
		b := make([]byte, f.Info().Size)
		_, _ = f.ReadAt(t.Context(), b, 0)
		return string(b)
	}
	list := func(l vfs.Lower, dir string, n int) string {
		var names []string
		for after := ""; ; {
			page, err := l.List(t.Context(), dir, after, n)
			if err != nil {
				return err.Error()
			}
			for _, e := range page {
				if name := e.Name; e.Dir {
					names = append(names, name+"/")
				} else {
					names = append(names, name)
				}
				after = e.Name
			}
			if len(page) < n {
				return strings.Join(names, " ")
			}
		}
	}
	enoent, eisdir := abi.Errno(abi.ENOENT).Error(), abi.Errno(abi.EISDIR).Error()
	for _, c := range []struct {
		mounts []vfs.Mount
		want   map[string]string // of files by path, and of directories with a slash at the end
	}{
		{[]vfs.Mount{{".", "."}}, map[string]string{"a/x": "ax", "c": "c", "./": "a/ c d/", "a/": "b/ x", "a": eisdir, "n": enoent, "n/": enoent}},
		{[]vfs.Mount{{"a", "data"}}, map[string]string{"data/x": "ax", "data/b/y": "aby", "./": "data/", "data/": "b/ x", "a/x": enoent, "c": enoent, "data": eisdir, "database": enoent}},
		{[]vfs.Mount{{"a/b", "in/er"}, {"d", "."}}, map[string]string{"e": "de", "in/er/y": "aby", "./": "e in/", "in/": "er/", "in/er/": "y z/", "in": eisdir, "in/e": enoent}},
		{[]vfs.Mount{{".", "."}, {"d", "a/b"}, {"a", "c"}}, map[string]string{
			"a/x": "ax", "a/b/e": "de", "a/b/y": enoent, "a/": "b/ x", "a/b/": "e", "c/x": "ax", "./": "a/ c/ d/", "c": eisdir,
		}},
		{[]vfs.Mount{{"none", "data"}, {"c", "file"}}, map[string]string{"data/": "", "data/x": enoent, "file/": "", "./": "data/ file/"}},
	} {
		l := vfs.Mounted(tree, c.mounts)
		for path, want := range c.want {
			dir, isDir := strings.CutSuffix(path, "/")
			if !isDir {
				if got := read(l, path); got != want {
					t.Errorf("%v: %s is %q, want %q", c.mounts, path, got, want)
				}
				continue
			}
			for n := 1; n < 5; n++ {
				if got := list(l, dir, n); got != want {
					t.Errorf("%v: %s has %q by %d, want %q", c.mounts, path, got, n, want)
				}
			}
			info, err := l.Stat(t.Context(), dir)
			if want != enoent && (err != nil || !info.Dir) || want == enoent && !errors.Is(err, abi.ENOENT) {
				t.Errorf("%v: %s is %+v, %v", c.mounts, path, info, err)
			}
		}
	}

	tab := table(t, vfs.Setup{Lower: vfs.Mounted(tree, []vfs.Mount{{"a/b", "data"}})})
	root, err := tab.GetDir(vfs.Root)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	if err := root.ReadDir(t.Context(), 0, func(e vfs.Entry) bool { names = append(names, e.Name); return true }); err != nil ||
		!slices.Equal(names, []string{".", "..", "data", "dev", "etc", "tmp"}) {
		t.Error(fmt.Sprint(names), err)
	}
}
