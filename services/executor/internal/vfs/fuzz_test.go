package vfs_test

import (
	"errors"
	"io/fs"
	"testing"

	"skein.dev/abi"
	"skein.dev/services/executor/internal/vfs"
	"skein.dev/services/executor/internal/vfs/vfstest"
)

// Whatever paths and link contents are, every operation that takes one answers with an errno, asks the lower for clean paths only,
// and none that starts in a directory changes what lies outside of it.
func FuzzPaths(f *testing.F) {
	for _, s := range [][2]string{
		{"file", "../file"},
		{"dir/../../..", "/.."},
		{"l", "/dir/sub/../../../file"},
		{"a\x00b", "\xff/.."},
		{"sub/../l/l/l", "l/l"},
		{"l/../../x", "sub"},
		{"faasm://x", "."},
		{"l/", "l"},
		{"", "//"},
		{"sub//c/.", "./sub/./"},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, p, q string) {
		tree := vfstest.New(map[string]string{"dir/sub/c": "c", "dir/file": "f", "file": "outside", "other/x": "x"})
		tree.Fail = func(op, path string) error {
			if !fs.ValidPath(path) {
				t.Errorf("%s of %q below the layer", op, path)
			}
			return nil
		}
		tab := vfs.NewTable(vfs.Setup{Lower: tree, Limits: vfs.Limits{Open: 200}}, nil, nil, nil)
		defer tab.End()
		_, dir := open(t, tab, "dir", vfs.How{})
		ctx := t.Context()
		_ = tab.SymlinkAt(ctx, q, dir, "l")
		for _, op := range []func(p, q string) error{
			func(p, _ string) error { _, err := tab.StatAt(ctx, dir, p, true); return err },
			func(p, _ string) error { _, err := tab.StatAt(ctx, dir, p, false); return err },
			func(p, _ string) error { _, err := tab.ReadLinkAt(ctx, dir, p); return err },
			func(p, _ string) error { _, err := tab.ReadFile(ctx, dir, p, 100); return err },
			func(p, _ string) error { return tab.SetTimesAt(ctx, dir, p, true, vfs.Times{}) },
			func(p, _ string) error { return tab.MakeDirAt(ctx, dir, p) },
			func(p, _ string) error {
				_, err := tab.OpenAt(ctx, dir, p, vfs.How{Create: true, Write: true})
				return err
			},
			func(p, q string) error { return tab.SymlinkAt(ctx, q, dir, p) },
			func(p, q string) error { return tab.LinkAt(ctx, dir, p, true, dir, q) },
			func(p, q string) error { return tab.RenameAt(ctx, dir, p, dir, q) },
			func(p, _ string) error { return tab.UnlinkAt(ctx, dir, p) },
			func(p, _ string) error { return tab.RemoveDirAt(ctx, dir, p) },
		} {
			for _, args := range [][2]string{{p, q}, {q, p}, {"l/" + p, q}} {
				if err := op(args[0], args[1]); err != nil {
					if _, ok := errors.AsType[abi.Errno](err); !ok {
						t.Errorf("%q, %q: %v", args[0], args[1], err)
					}
				}
			}
		}
		if read(t, tab, "file") != "outside" || read(t, tab, "other/x") != "x" || len(list(t, root(t, tab), 0)) != 8 {
			t.Errorf("%q and %q changed what is outside: %v", p, q, list(t, root(t, tab), 0))
		}
	})
}
