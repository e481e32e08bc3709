package vfs

import (
	"context"
	"strings"

	"skein.dev/abi"
)

// RenameAt moves what is at old to name, where it replaces a file, or if it is a directory an empty one. EBUSY if either ends
// with "." or "..", EINVAL for a directory that would be moved into itself.
func (t *Table) RenameAt(ctx context.Context, oldDir *Open, old string, dir *Open, name string) error {
	if err := crosses(oldDir, old, dir, name); err != nil {
		return err
	}
	return t.tree().do(ctx, oldDir.node, func(k *look) error {
		k.base = oldDir.node
		from, err := k.walk(old, parentOnly)
		if err == nil {
			err = k.verify(from.spot)
		}
		if err != nil {
			return err
		}
		k.base = dir.node
		to, err := k.walk(name, parentOnly)
		if err == nil {
			err = k.verify(to.spot)
		}
		switch {
		case err != nil:
			return err
		case from.name == "" || to.name == "":
			return abi.EBUSY
		}
		if err := k.there(&from, true); err != nil {
			return err
		}
		if to.found, err = k.child(to.spot, to.name, false); err != nil {
			return err
		}
		same, err := k.mayRename(from, to)
		if err != nil || same {
			return err
		}
		return k.rename(from, to)
	})
}

// mayRename says whether both are the same file already, or why from can't become to.
func (k *look) mayRename(from, to place) (same bool, err error) {
	directory := from.typ() == Directory
	switch {
	case !directory && (from.slash || to.slash):
		return false, abi.ENOTDIR
	case contains(from, to.spot):
		return false, abi.EINVAL
	case contains(to, from.spot):
		return false, abi.ENOTEMPTY
	case to.absent():
		return false, nil
	case from.found.n != nil && from.found.n == to.found.n, from.path != "" && from.path == to.path:
		return true, nil
	case directory && to.typ() != Directory:
		return false, abi.ENOTDIR
	case !directory && to.typ() == Directory:
		return false, abi.EISDIR
	case directory:
		return false, k.empty(to.found)
	}
	return false, nil
}

// contains reports whether the directory at pl is s or above it.
func contains(pl place, s spot) bool {
	if pl.found.n == nil {
		// Only the lower has it, so that what is below it has no node either.
		prefix := strings.TrimPrefix(pl.below+"/"+pl.name, "/")
		return pl.path != "" && s.n == pl.spot.n && (s.below == prefix || strings.HasPrefix(s.below, prefix+"/"))
	}
	for n := s.n; n != nil; n = n.parent {
		if n == pl.found.n {
			return true
		}
	}
	return false
}

// rename moves from to to. Nothing is changed before all is taken that it needs.
func (k *look) rename(from, to place) error {
	l := k.l
	fromDir, err := k.dirOf(from)
	if err != nil {
		return err
	}
	toDir, err := k.dirOf(to)
	if err != nil {
		return err
	}
	n := k.node(from)
	if err := l.own(n); err != nil {
		return err
	}
	if err := l.hide(fromDir, from.name); err != nil {
		return err
	}
	was := toDir.dir.entries[to.name]
	if was.covers && was.n == nil {
		l.files.give(1) // a whiteout
	}
	toDir.set(to.name, entry{n, was.covers || to.path != ""})
	if was.n != nil {
		k.done = append(k.done, l.unlinked(was.n)...)
	}
	if n.typ == Directory {
		n.parent, n.name = toDir, to.name
	}
	toDir.touch(true)
	n.touch(false)
	return nil
}
