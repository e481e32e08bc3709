package vfs

import (
	"errors"
	"hash/fnv"
	"io/fs"
	"path"
	"strings"
	"unicode/utf8"

	"skein.dev/abi"
)

// What a path may have, in bytes: the numbers that programs know as PATH_MAX and NAME_MAX.
const (
	MaxPath = 4096
	MaxName = 255
)

// tree is the files with POSIX's idea of paths. It has no symbolic links.
type tree struct {
	files fs.FS
	dir   string // a path that was a directory a moment ago: the next one often begins with it
}

// target is where a path leads.
type target struct {
	path      string // an io/fs path; it may lead to nothing
	directory bool   // if it leads anywhere, it must be to a directory
	last      string // the last component as it was written
}

// resolve follows name from the directory dir. ENOENT if it is empty or passes through nothing, ENOTDIR if it passes through
// a file, ENOTCAPABLE if it leaves dir, ENAMETOOLONG, EINVAL for a NUL, EILSEQ for what is not UTF-8.
func (t *tree) resolve(dir, name string) (target, error) {
	switch {
	case name == "":
		return target{}, abi.ENOENT
	case len(name) > MaxPath:
		return target{}, abi.ENAMETOOLONG
	case strings.IndexByte(name, 0) >= 0:
		return target{}, abi.EINVAL
	case !utf8.ValidString(name):
		return target{}, abi.EILSEQ
	case name[0] == '/':
		return target{}, abi.ENOTCAPABLE
	}
	var below []string
	at := target{}
	for part := range strings.SplitSeq(name, "/") {
		at.directory = part == "" || part == "." || part == ".."
		if part != "" {
			at.last = part
		}
		switch {
		case part == "" || part == ".":
		case len(part) > MaxName:
			return target{}, abi.ENAMETOOLONG
		case part != "..":
			below = append(below, part)
		case len(below) == 0:
			return target{}, abi.ENOTCAPABLE
		default:
			if err := t.mustBeDir(path.Join(dir, path.Join(below...))); err != nil {
				return target{}, err
			}
			below = below[:len(below)-1]
		}
	}
	at.path = path.Join(dir, path.Join(below...))
	return at, nil
}

// stat looks at the file at at. ENOENT or ENOTDIR if there is none.
func (t *tree) stat(at target) (Stat, error) {
	info, err := fs.Stat(t.files, at.path)
	if err != nil {
		return Stat{}, t.refuse(at, err, How{})
	}
	st := statOf(at.path, info)
	if at.directory && st.Type != Directory {
		return Stat{}, abi.ENOTDIR
	}
	return st, nil
}

// refuse is the answer to a failed look at at with the intention how.
func (t *tree) refuse(at target, err error, how How) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, fs.ErrPermission):
		return abi.EACCES
	case errors.Is(err, fs.ErrInvalid):
		return abi.EINVAL
	default:
		return err
	}
	if err := t.mustBeDir(path.Dir(at.path)); err != nil {
		return err
	}
	switch {
	case !how.Create:
		return abi.ENOENT
	case at.directory:
		return abi.EISDIR
	}
	return abi.EROFS
}

// mustBeDir is nil if the directory dir exists; else ENOENT, or ENOTDIR if it or a directory above it is a file.
func (t *tree) mustBeDir(dir string) error {
	if dir == "." || dir == t.dir {
		return nil
	}
	info, err := fs.Stat(t.files, dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// Stores of files know paths, not directories: only from above can one tell that a file is in the way.
		if err := t.mustBeDir(path.Dir(dir)); err != nil {
			return err
		}
		return abi.ENOENT
	case err != nil:
		return err
	case !info.IsDir():
		return abi.ENOTDIR
	}
	t.dir = dir
	return nil
}

func statOf(name string, info fs.FileInfo) Stat {
	st := Stat{Ino: ino(name), Size: info.Size(), Type: typeOf(info.Mode()), name: name}
	if st.Type == Directory {
		st.Size = 0
	}
	if when := info.ModTime(); !when.IsZero() {
		st.Time = max(0, when.UnixNano())
	}
	return st
}

func typeOf(mode fs.FileMode) Type {
	switch {
	case mode.IsDir():
		return Directory
	case mode.IsRegular():
		return Regular
	case mode&fs.ModeSymlink != 0:
		return Symlink
	}
	return Unknown
}

// ino numbers a path. Guests compare such numbers to know a file again, and C libraries ask once more for one that is 0.
func ino(name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	return max(1, h.Sum64())
}

// StatAt looks at the file at name. ENOENT if there is none.
func (t *Table) StatAt(dir *Open, name string) (Stat, error) {
	at, err := t.tree.resolve(dir.stat.name, name)
	if err != nil {
		return Stat{}, err
	}
	return t.tree.stat(at)
}

// ReadLinkAt is the content of the symbolic link at name. EINVAL if it is something else, as everything is so far.
func (t *Table) ReadLinkAt(dir *Open, name string) (string, error) {
	if _, err := t.StatAt(dir, name); err != nil {
		return "", err
	}
	return "", abi.EINVAL
}

// MakeDirAt makes a directory. EEXIST if there is something at name; EROFS.
func (t *Table) MakeDirAt(dir *Open, name string) error { return t.create(dir, name, true) }

// SymlinkAt makes a symbolic link with content to. ENOENT if to is empty, EEXIST if there is something at name; EROFS.
func (t *Table) SymlinkAt(to string, dir *Open, name string) error {
	if err := content(to); err != nil {
		return err
	}
	return t.create(dir, name, false)
}

// content checks what a symbolic link may hold.
func content(to string) error {
	switch {
	case to == "":
		return abi.ENOENT
	case len(to) > MaxPath:
		return abi.ENAMETOOLONG
	case strings.IndexByte(to, 0) >= 0:
		return abi.EINVAL
	case !utf8.ValidString(to):
		return abi.EILSEQ
	}
	return nil
}

// LinkAt makes name another name of what is at old. EPERM if that is a directory, EEXIST if there is something at name; EROFS.
func (t *Table) LinkAt(oldDir *Open, old string, dir *Open, name string) error {
	st, err := t.StatAt(oldDir, old)
	switch {
	case err != nil:
		return err
	case st.Type == Directory:
		return abi.EPERM
	}
	return t.create(dir, name, false)
}

// create says why nothing can be made at name. Only a directory's name may end with a slash.
func (t *Table) create(dir *Open, name string, directory bool) error {
	at, err := t.tree.resolve(dir.stat.name, name)
	if err != nil {
		return err
	}
	switch _, err := t.tree.stat(target{path: at.path}); {
	case err == nil:
		return abi.EEXIST
	case !errors.Is(err, abi.ENOENT):
		return err
	case at.directory && !directory:
		return abi.ENOENT
	}
	return t.change(at)
}

// change says why what is at at can't change: the directory that it is in is not there, or may not be written.
func (t *Table) change(at target) error {
	if err := t.tree.mustBeDir(path.Dir(at.path)); err != nil {
		return err
	}
	return abi.EROFS
}

// UnlinkAt removes a file's name. EISDIR for a path that can only be a directory's; EROFS.
func (t *Table) UnlinkAt(dir *Open, name string) error {
	at, err := t.tree.resolve(dir.stat.name, name)
	switch {
	case err != nil:
		return err
	case at.last == "." || at.last == "..":
		return abi.EISDIR
	}
	return t.change(at)
}

// RemoveDirAt removes an empty directory. EINVAL for ".", ENOTEMPTY for ".."; EROFS.
func (t *Table) RemoveDirAt(dir *Open, name string) error {
	at, err := t.tree.resolve(dir.stat.name, name)
	switch {
	case err != nil:
		return err
	case at.last == ".":
		return abi.EINVAL
	case at.last == "..":
		return abi.ENOTEMPTY
	}
	return t.change(at)
}

// RenameAt moves what is at old to name. EBUSY if either ends with "." or ".."; EROFS.
func (t *Table) RenameAt(oldDir *Open, old string, dir *Open, name string) error {
	from, err := t.tree.resolve(oldDir.stat.name, old)
	if err != nil {
		return err
	}
	to, err := t.tree.resolve(dir.stat.name, name)
	if err != nil {
		return err
	}
	for _, at := range []target{from, to} {
		if at.last == "." || at.last == ".." {
			return abi.EBUSY
		}
		if err := t.change(at); !errors.Is(err, abi.EROFS) {
			return err
		}
	}
	return abi.EROFS
}

// SetTimesAt sets the times of the file at name. ENOENT if there is none; EROFS.
func (t *Table) SetTimesAt(dir *Open, name string) error {
	if _, err := t.StatAt(dir, name); err != nil {
		return err
	}
	return abi.EROFS
}
