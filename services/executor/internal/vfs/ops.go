package vfs

import (
	"context"
	"strings"

	"skein.dev/abi"
)

// attach gives the directory s, and those above it that only the lower has, nodes.
func (k *look) attach(s spot) *node {
	n := s.n
	if s.below != "" {
		for part := range strings.SplitSeq(s.below, "/") {
			n = k.l.adopt(n, part, LowerInfo{Dir: true}, nil)
		}
		k.used = append(k.used, n)
	}
	return n
}

// node gives what was found at pl a node. A file of the lower must have been opened by the walk.
func (k *look) node(pl place) *node {
	switch {
	case pl.found.n != nil:
		return pl.found.n
	case pl.name == "":
		return k.attach(pl.spot)
	}
	var file LowerFile
	if f := k.known(question{'o', pl.path, ""}); f != nil {
		file, f.file = f.file, nil
	}
	n := k.l.adopt(k.attach(pl.spot), pl.name, pl.info, file)
	k.used = append(k.used, n)
	return n
}

// dirOf gives the directory of pl a node that may be changed.
func (k *look) dirOf(pl place) (*node, error) {
	n := k.attach(pl.spot)
	return n, k.l.own(n)
}

// create makes something new at pl, where nothing is.
func (k *look) create(pl place, typ Type) (*node, error) {
	dir, err := k.dirOf(pl)
	if err != nil {
		return nil, err
	}
	n, err := k.l.create(typ)
	if err != nil {
		return nil, err
	}
	k.l.enter(dir, pl.name, n)
	return n, nil
}

// vacant walks to where something is to be made. EEXIST if there is something; only a directory's name may end with a slash.
func (k *look) vacant(name string, directory bool) (place, error) {
	pl, err := k.walk(name, parentOnly)
	switch {
	case err != nil:
		return place{}, err
	case pl.name == "":
		return place{}, abi.EEXIST
	}
	pl.found, err = k.child(pl.spot, pl.name, false)
	switch {
	case err != nil:
		return place{}, err
	case !pl.absent():
		return place{}, abi.EEXIST
	case pl.slash && !directory:
		return place{}, abi.ENOENT
	}
	return pl, nil
}

// present walks to what is to be there. ENOENT if it isn't.
func (k *look) present(name string, mode follow) (place, error) {
	pl, err := k.walk(name, mode)
	if err == nil && pl.absent() {
		err = abi.ENOENT
	}
	return pl, err
}

// following is the mode of a walk that may follow a link at its end.
func following(links bool) follow {
	if links {
		return followLinks
	}
	return noFollow
}

// StatAt looks at the file at name; with links, at what a symbolic link leads to. ENOENT if there is none.
func (t *Table) StatAt(ctx context.Context, dir *Open, name string, links bool) (st Stat, err error) {
	err = t.within(ctx, dir, name, func(k *look, name string) error {
		pl, err := k.present(name, following(links))
		if err == nil {
			st = pl.stat()
		}
		return err
	})
	return st, err
}

// ReadLinkAt is the content of the symbolic link at name. EINVAL if it is something else.
func (t *Table) ReadLinkAt(ctx context.Context, dir *Open, name string) (to string, err error) {
	err = t.within(ctx, dir, name, func(k *look, name string) error {
		pl, err := k.present(name, noFollow)
		switch {
		case err != nil:
			return err
		case pl.typ() != Symlink:
			return abi.EINVAL
		}
		to = pl.found.n.target
		return nil
	})
	return to, err
}

// MakeDirAt makes a directory. EEXIST if there is something at name, EDQUOT if the layer has as many files as it may.
func (t *Table) MakeDirAt(ctx context.Context, dir *Open, name string) error {
	if _, ok := outer(dir, name); ok {
		return t.makeOuterDir(ctx, dir, name)
	}
	return t.tree().do(ctx, dir.node, func(k *look) error {
		pl, err := k.vacant(name, true)
		if err == nil {
			_, err = k.create(pl, Directory)
		}
		return err
	})
}

// SymlinkAt makes a symbolic link with content to. ENOENT if to is empty, EEXIST if there is something at name.
func (t *Table) SymlinkAt(ctx context.Context, to string, dir *Open, name string) error {
	if err := checkPath(to); err != nil {
		return err
	}
	if _, ok := outer(dir, name); ok {
		return abi.ENOTSUP
	}
	return t.tree().do(ctx, dir.node, func(k *look) error {
		pl, err := k.vacant(name, false)
		if err != nil {
			return err
		}
		if !k.l.bytes.take(int64(len(to))) {
			return abi.EDQUOT
		}
		n, err := k.create(pl, Symlink)
		if err != nil {
			k.l.bytes.give(int64(len(to)))
			return err
		}
		n.target = to
		return nil
	})
}

// LinkAt makes name another name of what is at old; with links, of what a symbolic link there leads to. EEXIST if there is
// something at name, EPERM if old is a directory.
func (t *Table) LinkAt(ctx context.Context, oldDir *Open, old string, links bool, dir *Open, name string) error {
	if err := crosses(oldDir, old, dir, name); err != nil {
		return err
	}
	mode := toOpenLink
	if links {
		mode = toOpen
	}
	return t.tree().do(ctx, oldDir.node, func(k *look) error {
		k.base = oldDir.node
		from, err := k.present(old, mode)
		if err != nil {
			return err
		}
		k.base = dir.node
		to, err := k.vacant(name, false)
		switch {
		case err != nil:
			return err
		case from.typ() == Directory:
			return abi.EPERM
		}
		parent, err := k.dirOf(to)
		if err != nil {
			return err
		}
		n := k.node(from)
		if err := k.l.own(n); err != nil {
			return err
		}
		if n.links >= maxNames {
			return abi.EMLINK
		}
		if !k.l.files.take(1) {
			return abi.EDQUOT
		}
		k.l.enter(parent, to.name, n)
		n.touch(false)
		return nil
	})
}

// maxNames is how many a file may have, as on ext4.
const maxNames = 65000

// UnlinkAt removes a file's name. EISDIR for a directory.
func (t *Table) UnlinkAt(ctx context.Context, dir *Open, name string) error {
	if _, ok := outer(dir, name); ok {
		return t.unlinkOuter(ctx, dir, name)
	}
	return t.tree().do(ctx, dir.node, func(k *look) error {
		pl, err := k.walk(name, parentOnly)
		switch {
		case err != nil:
			return err
		case pl.name == "":
			return abi.EISDIR
		}
		if err := k.there(&pl, false); err != nil {
			return err
		}
		switch {
		case pl.typ() == Directory:
			return abi.EISDIR
		case pl.slash:
			return abi.ENOTDIR
		}
		return k.remove(pl)
	})
}

// RemoveDirAt removes an empty directory. EINVAL for ".", ENOTEMPTY for ".." and for one that is not empty.
func (t *Table) RemoveDirAt(ctx context.Context, dir *Open, name string) error {
	if _, ok := outer(dir, name); ok {
		return t.removeOuterDir(ctx, dir, name)
	}
	return t.tree().do(ctx, dir.node, func(k *look) error {
		pl, err := k.walk(name, parentOnly)
		switch {
		case err != nil:
			return err
		case pl.last == "..":
			return abi.ENOTEMPTY
		case pl.name == "":
			return abi.EINVAL
		}
		if err := k.there(&pl, false); err != nil {
			return err
		}
		if pl.typ() != Directory {
			return abi.ENOTDIR
		}
		if err := k.empty(pl.found); err != nil {
			return err
		}
		return k.remove(pl)
	})
}

// remove takes the name pl from what is there.
func (k *look) remove(pl place) error {
	dir, err := k.dirOf(pl)
	if err != nil {
		return err
	}
	if pl.found.n == nil { // the lower's
		dir.set(pl.name, entry{covers: true})
	}
	if err := k.l.hide(dir, pl.name); err != nil {
		if pl.found.n == nil {
			delete(dir.dir.entries, pl.name)
		}
		return err
	}
	if pl.found.n != nil {
		k.done = append(k.done, k.l.unlinked(pl.found.n)...)
	}
	return nil
}

// empty is ENOTEMPTY if the directory f has entries.
func (k *look) empty(f found) error {
	d := dirNode{merged: true, lower: f.path}
	if f.n != nil {
		d = f.n.dir
	}
	for _, e := range d.entries {
		if e.n != nil && (!e.n.clean || len(e.n.dir.entries) > 0) {
			return abi.ENOTEMPTY
		}
	}
	for after := ""; d.merged; {
		page, err := k.list(d.lower, after)
		if err != nil {
			return err
		}
		for _, e := range page {
			if own, ok := d.entries[e.Name]; !ok || own.n != nil {
				return abi.ENOTEMPTY
			}
			after = e.Name
		}
		if len(page) < listPage {
			break
		}
	}
	return nil
}

// SetTimesAt sets the times of the file at name; with links, of what a symbolic link leads to. ENOENT if there is none.
func (t *Table) SetTimesAt(ctx context.Context, dir *Open, name string, links bool, times Times) error {
	if _, ok := outer(dir, name); ok {
		return abi.ENOTSUP // the fs service says when a file was put
	}
	mode := toOpenLink
	if links {
		mode = toOpen
	}
	return t.tree().do(ctx, dir.node, func(k *look) error {
		pl, err := k.present(name, mode)
		if err != nil {
			return err
		}
		n := k.node(pl)
		if err := k.l.own(n); err != nil {
			return err
		}
		n.setTimes(times)
		return nil
	})
}

// Times are what a file's times are to be, in nanoseconds since 1970; nil stays.
type Times struct{ Access, Modified *int64 }

func (n *node) setTimes(t Times) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if t.Access != nil {
		n.access = *t.Access
	}
	if t.Modified != nil {
		n.modified = *t.Modified
	}
	n.changed = now()
}
