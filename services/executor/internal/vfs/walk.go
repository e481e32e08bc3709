package vfs

import (
	"errors"
	"strings"
	"unicode/utf8"

	"skein.dev/abi"
)

// What a path may have, in bytes and in symbolic links that are followed: the numbers that programs know as PATH_MAX, NAME_MAX
// and SYMLOOP_MAX.
const (
	MaxPath  = 4096
	MaxName  = 255
	maxLinks = 40
)

// spot is a directory: one with a node, or one below it that only the lower has. Whether that is there, and a directory, is not
// known before verify.
type spot struct {
	n     *node
	below string
}

// lower is the path of a name in the spot in the lower, if the lower shows there.
func (s spot) lower(name string) (string, bool) {
	if !s.n.dir.merged {
		return "", false
	}
	p := s.n.dir.lower
	if s.below != "" {
		p = join(p, s.below)
	}
	if name != "" {
		p = join(p, name)
	}
	return p, true
}

// place is where a path leads: to a name in a directory, or to the directory itself.
type place struct {
	spot
	name  string // "" if the path ends with "." or ".."
	last  string // the last component as it is written
	slash bool   // what is there must be a directory
	found
}

// found is what is at a place: a node, something of the lower, or nothing.
type found struct {
	n    *node
	info LowerInfo
	path string // in the lower, if n is nil and something is there
}

func (f found) absent() bool { return f.n == nil && f.path == "" }

func (f found) typ() Type {
	if f.n != nil {
		return f.n.typ
	}
	return lowerType(f.info)
}

func (f found) stat() Stat {
	if f.n != nil {
		return f.n.stat()
	}
	return lowerStat(f.path, f.info)
}

// verify is nil if s is a directory, ENOENT if nothing is there, ENOTDIR if it or what it lies in is something else.
func (k *look) verify(s spot) error {
	if s.below == "" {
		return nil
	}
	p, _ := s.lower("")
	switch info, err := k.stat(p); {
	case errors.Is(err, abi.ENOENT):
		return k.inTheWay(s)
	case err != nil:
		return err
	case !info.Dir:
		return abi.ENOTDIR
	}
	return nil
}

// inTheWay is ENOTDIR if a file is above s, where nothing is; else ENOENT. Only from above can one tell, and a path may have
// thousands of names: what is there has all above it, so that halving finds the last that is.
func (k *look) inTheWay(s spot) error {
	var ends []int // of the paths above s
	for i := range len(s.below) {
		if s.below[i] == '/' {
			ends = append(ends, i)
		}
	}
	low, high := 0, len(ends) // those before low are there, those from high on are not
	for low < high {
		mid := (low + high) / 2
		p, _ := spot{s.n, s.below[:ends[mid]]}.lower("")
		switch info, err := k.stat(p); {
		case errors.Is(err, abi.ENOENT):
			high = mid
		case err != nil:
			return err
		case !info.Dir:
			return abi.ENOTDIR
		default:
			low = mid + 1
		}
	}
	return abi.ENOENT
}

// checkName refuses a name that nothing in s can have.
func (k *look) checkName(s spot, name string) error {
	switch {
	case s.n.links == 0:
		return abi.ENOENT // it was removed while it was open
	case len(name) <= MaxName:
		return nil
	}
	if err := k.verify(s); err != nil {
		return err
	}
	return abi.ENAMETOOLONG
}

// child looks at a name in s. If nothing is there, s has been verified.
func (k *look) child(s spot, name string, opening bool) (found, error) {
	if err := k.checkName(s, name); err != nil {
		return found{}, err
	}
	var had *node
	if s.below == "" {
		e, ok := s.n.dir.entries[name]
		switch {
		case ok && e.n == nil:
			return found{}, nil
		case ok && (!e.n.clean || e.n.typ == Directory):
			return found{n: e.n}, nil
		case ok:
			had = e.n
		}
	}
	p, below := s.lower(name)
	if !below {
		return found{}, nil
	}
	info, err := k.stat2(p, opening)
	switch {
	case errors.Is(err, abi.ENOENT):
		if had != nil {
			k.l.detach(had)
		}
		return found{}, k.verify(s)
	case err != nil:
		return found{}, err
	case had != nil && had.sameAs(info):
		return found{n: had}, nil
	case had != nil:
		k.l.detach(had)
	}
	return found{info: info, path: p}, nil
}

// there looks at the name that a path led to the directory of. ENOENT if nothing has it.
func (k *look) there(pl *place, opening bool) (err error) {
	if pl.found, err = k.child(pl.spot, pl.name, opening); err == nil && pl.absent() {
		err = abi.ENOENT
	}
	return err
}

// stat2 is stat, but what is likely to be opened is opened at once: the lower is asked once then, not twice.
func (k *look) stat2(p string, opening bool) (LowerInfo, error) {
	if !opening {
		return k.stat(p)
	}
	f, err := k.ask('o', p, "")
	switch {
	case err != nil:
		return LowerInfo{}, err
	case errors.Is(f.err, abi.EISDIR):
		return k.stat(p)
	}
	return f.info, f.err
}

// sameAs reports whether a clean node is what the lower has now.
func (n *node) sameAs(info LowerInfo) bool {
	if n.content.base == nil { // a device
		return n.device == info.Device && !info.Dir
	}
	return sameContent(n.content.base.Info(), info)
}

// checkPath refuses what is no path. ENOENT for nothing, ENAMETOOLONG, EINVAL for a NUL, EILSEQ for what is not UTF-8.
func checkPath(name string) error {
	switch {
	case name == "":
		return abi.ENOENT
	case len(name) > MaxPath:
		return abi.ENAMETOOLONG
	case strings.IndexByte(name, 0) >= 0:
		return abi.EINVAL
	case !utf8.ValidString(name):
		return abi.EILSEQ
	}
	return nil
}

// how a walk treats the last component.
type follow uint8

const (
	parentOnly   follow = iota // it is not looked at
	noFollow                   // it may be a symbolic link, unless a slash follows it
	followLinks                // a symbolic link is followed
	toOpen                     // as followLinks, and a file is opened
	toOpenLink                 // as noFollow, and a file is opened
	toCreate                   // as toOpen, but for names that a slash follows: EISDIR
	toCreateLink               // as toOpenLink, so too
)

// walk follows path from the directory k.base, which it can't leave: ENOTCAPABLE. An absolute symbolic link starts at the root, if
// that is what base is. ENOENT if it passes through nothing, ENOTDIR through what is no directory, ELOOP through too many links.
func (k *look) walk(path string, mode follow) (place, error) {
	if err := checkPath(path); err != nil {
		return place{}, err
	}
	if path[0] == '/' {
		return place{}, abi.ENOTCAPABLE
	}
	at, rest := spot{n: k.base}, path
	for links := 0; ; {
		part, after, slash := strings.Cut(rest, "/")
		after = strings.TrimLeft(after, "/")
		switch {
		case part == "" || part == ".":
		case part == "..":
			up, err := k.up(at)
			if err != nil {
				return place{}, err
			}
			at = up
		default:
			pl, to, err := k.step(at, part, after == "", slash, mode)
			switch {
			case err != nil:
				return place{}, err
			case to == "" && after == "":
				return pl, nil
			case to == "":
				at, rest = pl.spot, after
				continue
			}
			if links++; links > maxLinks {
				return place{}, abi.ELOOP
			}
			if to[0] == '/' {
				if k.base != &k.l.root {
					return place{}, abi.ENOTCAPABLE
				}
				at, to = spot{n: k.base}, strings.TrimLeft(to, "/")
			}
			if rest = to; slash {
				rest += "/" + after
			}
			continue
		}
		if after == "" {
			return k.self(at, part)
		}
		rest = after
	}
}

// self is the directory at as what a path leads to.
func (k *look) self(at spot, last string) (place, error) {
	pl := place{spot: at, last: last, slash: true}
	if at.below == "" {
		pl.found.n = at.n
		return pl, nil
	}
	if err := k.verify(at); err != nil {
		return place{}, err
	}
	pl.path, _ = at.lower("")
	info, err := k.stat(pl.path)
	pl.info = info
	return pl, err
}

// up is the directory above at.
func (k *look) up(at spot) (spot, error) {
	if at == (spot{n: k.base}) {
		return spot{}, abi.ENOTCAPABLE
	}
	if err := k.verify(at); err != nil {
		return spot{}, err
	}
	switch {
	case at.below != "":
		return spot{at.n, parentOf(at.below)}, nil
	case at.n.parent == nil:
		return spot{}, abi.ENOTCAPABLE
	}
	return spot{n: at.n.parent}, nil
}

// step goes on to a name: the last one becomes a place, another the next spot. to is the content of a link to follow.
func (k *look) step(at spot, name string, last, slash bool, mode follow) (pl place, to string, err error) {
	if !last {
		return k.through(at, name)
	}
	pl = place{spot: at, name: name, last: name, slash: slash}
	if mode == parentOnly {
		return pl, "", nil
	}
	if mode >= toCreate && slash {
		if err := k.verify(at); err != nil {
			return place{}, "", err
		}
		return place{}, "", abi.EISDIR
	}
	if pl.found, err = k.child(at, name, mode >= toOpen); err != nil {
		return place{}, "", err
	}
	if pl.found.n != nil && pl.typ() == Symlink && (mode == followLinks || mode == toOpen || mode == toCreate || slash) {
		return place{}, pl.found.n.target, nil
	}
	if slash && !pl.absent() && pl.typ() != Directory {
		return place{}, "", abi.ENOTDIR
	}
	return pl, "", nil
}

// through is step for a component that others follow. What only the lower has there is looked at later: if the end of the path
// is there, all between is.
func (k *look) through(at spot, name string) (pl place, to string, err error) {
	if err := k.checkName(at, name); err != nil {
		return place{}, "", err
	}
	if at.below == "" {
		switch e, ok := at.n.dir.entries[name]; {
		case ok && e.n == nil:
			return place{}, "", abi.ENOENT
		case ok && e.n.typ == Directory:
			return place{spot: spot{n: e.n}}, "", nil
		case ok && e.n.typ == Symlink:
			return place{}, e.n.target, nil
		case ok && !e.n.clean:
			return place{}, "", abi.ENOTDIR
		}
	}
	if !at.n.dir.merged {
		return place{}, "", abi.ENOENT
	}
	return place{spot: spot{at.n, strings.TrimPrefix(at.below+"/"+name, "/")}}, "", nil
}
