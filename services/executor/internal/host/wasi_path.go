package host

import (
	"math"
	"time"

	"skein.dev/abi"
	"skein.dev/services/executor/internal/vfs"
)

var wasiPath = preview1(map[string]func(*Call, guest) error{
	"path_create_directory": func(c *Call, g guest) error {
		dir, name, err := c.dirAndPath(g, 0, 1)
		if err != nil {
			return err
		}
		return wait(c, func() error { return c.files().MakeDirAt(c, dir, name) })
	},
	"path_filestat_get": func(c *Call, g guest) error {
		dir, name, err := c.dirAndPath(g, 0, 2)
		if err == nil {
			err = checkLookup(g.u32(1))
		}
		if err != nil {
			return err
		}
		st, err := waiting(c, func() (vfs.Stat, error) { return c.files().StatAt(c, dir, name, g.u32(1) == 1) })
		if err != nil {
			return err
		}
		return putFilestat(g, 4, st)
	},
	"path_filestat_set_times": func(c *Call, g guest) error {
		dir, name, err := c.dirAndPath(g, 0, 2)
		if err == nil {
			err = checkLookup(g.u32(1))
		}
		if err != nil {
			return err
		}
		times, err := timesOf(g, 4, 6)
		if err != nil {
			return err
		}
		return wait(c, func() error { return c.files().SetTimesAt(c, dir, name, g.u32(1) == 1, times) })
	},
	"path_link": func(c *Call, g guest) error {
		from, old, err := c.dirAndPath(g, 0, 2)
		if err == nil {
			err = checkLookup(g.u32(1))
		}
		if err != nil {
			return err
		}
		to, name, err := c.dirAndPath(g, 4, 5)
		if err != nil {
			return err
		}
		return wait(c, func() error { return c.files().LinkAt(c, from, old, g.u32(1) == 1, to, name) })
	},
	"path_open": pathOpen,
	"path_readlink": func(c *Call, g guest) error {
		dir, name, err := c.dirAndPath(g, 0, 1)
		if err != nil {
			return err
		}
		buf, err := g.bytes(3, 4)
		if err != nil {
			return err
		}
		to, err := waiting(c, func() (string, error) { return c.files().ReadLinkAt(c, dir, name) })
		if err != nil {
			return err
		}
		return g.put32(5, uint32(copy(buf, to)))
	},
	"path_remove_directory": func(c *Call, g guest) error {
		dir, name, err := c.dirAndPath(g, 0, 1)
		if err != nil {
			return err
		}
		return wait(c, func() error { return c.files().RemoveDirAt(c, dir, name) })
	},
	"path_rename": func(c *Call, g guest) error {
		from, old, err := c.dirAndPath(g, 0, 1)
		if err != nil {
			return err
		}
		to, name, err := c.dirAndPath(g, 3, 4)
		if err != nil {
			return err
		}
		return wait(c, func() error { return c.files().RenameAt(c, from, old, to, name) })
	},
	"path_symlink": func(c *Call, g guest) error {
		dir, name, err := c.dirAndPath(g, 2, 3)
		if err != nil {
			return err
		}
		to, err := g.path(0)
		if err != nil {
			return err
		}
		return wait(c, func() error { return c.files().SymlinkAt(c, to, dir, name) })
	},
	"path_unlink_file": func(c *Call, g guest) error {
		dir, name, err := c.dirAndPath(g, 0, 1)
		if err != nil {
			return err
		}
		return wait(c, func() error { return c.files().UnlinkAt(c, dir, name) })
	},
})

// dirAndPath is the open directory of argument fd and the path at argument ptr and the next. For a boot the tree is empty,
// and what a guest makes of that is not what calls shall find.
func (c *Call) dirAndPath(g guest, fd, ptr int) (*vfs.Open, string, error) {
	_ = c.outside("files")
	dir, err := c.files().GetDir(g.i32(fd))
	if err != nil {
		return nil, "", err
	}
	name, err := g.path(ptr)
	return dir, name, err
}

// path is the path at arguments ptr and ptr+1. It is copied once its length is known to be a path's.
func (g guest) path(ptr int) (string, error) {
	b, err := g.bytes(ptr, ptr+1)
	switch {
	case err != nil:
		return "", err
	case len(b) > vfs.MaxPath:
		return "", abi.ENAMETOOLONG
	}
	return string(b), nil
}

// checkLookup knows one flag: whether a symbolic link at the end is followed.
func checkLookup(flags uint32) error {
	if flags > 1 {
		return abi.EINVAL
	}
	return nil
}

// timesOf are the times at arguments at and at+1 as the flags of argument flags choose them. EINVAL for flags that are unknown, or
// that say of one time both "this" and "now".
func timesOf(g guest, at, flags int) (t vfs.Times, err error) {
	f := g.u32(flags)
	if f > 15 || f&3 == 3 || f&12 == 12 {
		return t, abi.EINVAL
	}
	now := time.Now().UnixNano()
	pick := func(i int, f uint32) *int64 {
		switch f & 3 {
		case 1:
			v := int64(min(uint64(g.i64(i)), math.MaxInt64))
			return &v
		case 2:
			return &now
		}
		return nil
	}
	return vfs.Times{Access: pick(at, f), Modified: pick(at+1, f>>2)}, nil
}

// Flags of path_open.
const (
	openCreate = 1 << iota
	openDirectory
	openExclusive
	openTruncate
)

// pathOpen takes two rights for intentions, to read and to write; C libraries ask for them only then. Who asks for neither reads.
func pathOpen(c *Call, g guest) error {
	dir, name, err := c.dirAndPath(g, 0, 2)
	if err == nil {
		err = checkLookup(g.u32(1))
	}
	oflags, rights, fdflags := g.u32(4), uint64(g.i64(5)), g.u32(7)
	switch {
	case err != nil:
		return err
	case oflags > 15 || fdflags > fdflagsAll:
		return abi.EINVAL
	}
	if _, err = g.at(g.u32(8), 4); err != nil {
		return err
	}
	how := vfs.How{
		Create: oflags&openCreate != 0, Directory: oflags&openDirectory != 0,
		Exclusive: oflags&openExclusive != 0, Truncate: oflags&openTruncate != 0,
		NoFollow: g.u32(1) == 0, Write: rights&rightWrite != 0, Read: rights&rightRead != 0 || rights&rightWrite == 0,
		Flags: uint16(fdflags),
	}
	fd, err := waiting(c, func() (int32, error) { return c.files().OpenAt(c, dir, name, how) })
	if err != nil {
		return err
	}
	return g.put32(8, uint32(fd))
}
