package host

import (
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"

	"skein.dev/abi"
	"skein.dev/services/executor/internal/vfs"
	"skein.dev/services/executor/internal/vfs/vfstest"
)

// hostilePaths are 500 and more that others have come to grief over: ways up and out, other systems' separators and devices, encodings
// of both, slashes, dots, NULs, what is too long or too deep, and what looks like a number, an option or a command.
func hostilePaths() (all []string) {
	up := []string{"..", "../", "./..", "..//", ".././", "a/../..", "dir/../..", "dir/./../..", "l/..", "l/../..", "loop/..", "abs/..", "file/.."}
	to := []string{"", "etc/passwd", "/etc/passwd", "proc/self/environ", "proc/self/root/etc/shadow", "dev/mem", "x", "dir/file", ".", ".."}
	for _, u := range up {
		for n := 1; n <= 3; n++ {
			for _, t := range to {
				all = append(all, strings.Repeat(u+"/", n)+t)
			}
		}
	}
	for _, enc := range []string{
		"%2e%2e", "%2e%2e%2f", "..%2f", "%252e%252e", "..%c0%af", "..\xc0\xaf", "\xc0\xae\xc0\xae", "．．", "․․", "..\\", "..\\..", "\\..\\", "..;", "..\x00",
		"\x00..", "....", ".../", "....//", "..../", ". .", " ..", ".. ", "..\t", "..\n", "\u202e..", "\ufeff..", "..\u0000/", "\xff..", "\xed\xa0\x80",
	} {
		for _, t := range []string{"", "/etc/passwd", "/../..", "/x"} {
			all = append(all, enc+t, "dir/"+enc+t)
		}
	}
	all = append(all,
		"", "/", "//", "///", "/.", "/..", "/../", ".", "./", "./.", ".//.", "/etc/passwd", "//etc//passwd", "\\\\server\\share", "C:\\x", "C:/x", "c:x", "file:///etc/passwd",
		"faasm://", "faasm://x", "faasm://../x", "faasm:///etc/passwd", "http://x/", "~", "~root", "~/x", "$HOME", "${HOME}", "`id`", "$(id)", "|id", ";id", "&id", "-rf", "--", "*", "?", "[a]",
		"CON", "NUL", "aux.txt", "com1", "x:stream", "x::$DATA", "x.", "x ", " x", "\n", "\r\n", "\t", "\x1b[2J", "\x7f", "😀", "é", "e\u0301", "İ", "ß",
		strings.Repeat("a", 254), strings.Repeat("a", 255), strings.Repeat("a", 256), strings.Repeat("a", 4095), strings.Repeat("a", 4096), strings.Repeat("a", 4097),
		strings.Repeat("a/", 2047)+"a", strings.Repeat("../", 1365), strings.Repeat("./", 2047), strings.Repeat("/", 4096), strings.Repeat("dir/../", 500)+"dir/file",
		strings.Repeat("l/../", 45)+"x", strings.Repeat("loop/", 50), strings.Repeat("é", 128), strings.Repeat("\xff", 255), "dir/file/", "dir/file/.", "dir/file/..", "dir/file/x",
		"dev/null/x", "dev/null/..", "dev/../dev/null", "tmp/../../x", "out", "out/", "out/x", "out/..", "abs", "abs/", "abs/passwd", "abs/../etc", "loop", "loop/", "self", "self/x", "deep", "deep/x",
		"0", "-1", "18446744073709551616", "null", "undefined", "NaN", "true", "dir\\file", "dir/file\x00.txt", "dir\x00/file",
	)
	return all
}

// No path leads anywhere but into the call's tree, whichever row takes it, and every row answers with a number that it may.
func TestHostilePaths(t *testing.T) {
	paths := hostilePaths()
	if len(paths) < 500 {
		t.Fatalf("%d paths", len(paths))
	}
	tree := vfstest.New(map[string]string{"dir/file": "content", "dir/sub/x": "x", "file": "f"})
	tree.Fail = func(op, path string) error {
		if !fs.ValidPath(path) {
			t.Errorf("%s of %q below the layer", op, path)
		}
		return nil
	}
	inst := instance(t, caller(2), wazero.NewRuntimeConfigCompiler())
	mem := inst.Memory()
	const at, other, result = 1024, 16384, 65536
	mem.WriteString(other, "tmp/other")
	row := func(c *Call, name string, args ...uint64) abi.Errno {
		res, err := inst.ExportedFunction(name).Call(c, args...)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return abi.Errno(res[0])
	}
	allowed := map[abi.Errno]bool{
		0: true, abi.ENOENT: true, abi.ENOTDIR: true, abi.EISDIR: true, abi.EEXIST: true, abi.ENOTCAPABLE: true, abi.ELOOP: true, abi.EINVAL: true,
		abi.EILSEQ: true, abi.ENAMETOOLONG: true, abi.EBUSY: true, abi.ENOTEMPTY: true, abi.EPERM: true,
		abi.ENOTSUP: true, abi.EXDEV: true, // in and from the shared tree itself
	}
	links := map[string]string{"l": "dir/sub", "loop": "loop", "self": "./self/x", "abs": "/etc", "out": "../../etc", "deep": strings.Repeat("../", 200) + "etc"}
	for _, p := range slices.Clone(paths) {
		paths = append(paths, vfs.Scheme+p)
	}
	for i, p := range paths {
		written := vfstest.New(map[string]string{"dir/file": "content"})
		written.Fail = tree.Fail
		c := &Call{Context: t.Context(), Files: vfs.Setup{Lower: tree, Shared: written}}
		root, err := c.files().GetDir(vfs.Root)
		if err != nil {
			t.Fatal(err)
		}
		for name, to := range links {
			if err := c.files().SymlinkAt(c, to, root, name); err != nil {
				t.Fatal(err)
			}
		}
		mem.WriteString(at, p)
		n := uint64(len(p))
		got := map[string]abi.Errno{
			"stat":     row(c, "path_filestat_get", 3, 1, at, n, result),
			"lstat":    row(c, "path_filestat_get", 3, 0, at, n, result),
			"readlink": row(c, "path_readlink", 3, at, n, result, 100, result+200),
			"open":     row(c, "path_open", 3, 1, at, n, 0, rightRead, 0, 0, result),
			"utimes":   row(c, "path_filestat_set_times", 3, 1, at, n, 1, 1, 5),
			"create":   row(c, "path_open", 3, 1, at, n, openCreate, rightWrite, 0, 0, result),
			"link":     row(c, "path_link", 3, 1, at, n, 3, other, 9),
			"mkdir":    row(c, "path_create_directory", 3, at, n),
			"symlink":  row(c, "path_symlink", other, 9, 3, at, n),
			"target":   row(c, "path_symlink", at, n, 3, other, 5),
			"rename":   row(c, "path_rename", 3, at, n, 3, other, 9),
			"back":     row(c, "path_rename", 3, other, 9, 3, at, n),
			"unlink":   row(c, "path_unlink_file", 3, at, n),
			"rmdir":    row(c, "path_remove_directory", 3, at, n),
		}
		for name, e := range got {
			if !allowed[e] {
				t.Errorf("path %d, %.60q: %s answers %s", i, p, name, e)
			}
		}
		if strings.HasPrefix(p, "/") || p == ".." || strings.HasPrefix(p, "../") {
			for name, e := range got {
				if name != "target" && e != abi.ENOTCAPABLE && e != abi.ENAMETOOLONG && e != abi.EINVAL && e != abi.EILSEQ {
					t.Errorf("path %d, %.60q: %s answers %s", i, p, name, e)
				}
			}
		}
		if err := c.Publish(); err != nil {
			t.Errorf("path %d, %.60q: %v", i, p, err)
		}
		if got["stat"] == 0 && got["open"] != 0 && got["open"] != abi.EISDIR {
			t.Errorf("path %d, %.60q is there and can't be opened: %s", i, p, got["open"])
		}
		c.End()
	}
	if st, err := tree.Stat(t.Context(), "dir/file"); err != nil || st.Size != 7 {
		t.Errorf("what is shared has changed: %+v, %v", st, err)
	}
}
