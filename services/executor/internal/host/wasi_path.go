package host

import (
	"skein.dev/abi"
	"skein.dev/services/executor/internal/vfs"
)

var wasiPath = preview1(map[string]func(*Call, guest) error{
	"path_create_directory": func(c *Call, g guest) error {
		dir, name, err := c.dirAndPath(g, 0, 1)
		if err != nil {
			return err
		}
		return wait(c, func() error { return c.files().MakeDirAt(dir, name) })
	},
	"path_filestat_get": func(c *Call, g guest) error {
		dir, name, err := c.dirAndPath(g, 0, 2)
		if err == nil {
			err = checkLookup(g.u32(1))
		}
		if err != nil {
			return err
		}
		st, err := waiting(c, func() (vfs.Stat, error) { return c.files().StatAt(dir, name) })
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
		if err == nil {
			err = checkTimes(g.u32(6))
		}
		if err != nil {
			return err
		}
		return wait(c, func() error { return c.files().SetTimesAt(dir, name) })
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
		return wait(c, func() error { return c.files().LinkAt(from, old, to, name) })
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
		to, err := waiting(c, func() (string, error) { return c.files().ReadLinkAt(dir, name) })
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
		return wait(c, func() error { return c.files().RemoveDirAt(dir, name) })
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
		return wait(c, func() error { return c.files().RenameAt(from, old, to, name) })
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
		return wait(c, func() error { return c.files().SymlinkAt(to, dir, name) })
	},
	"path_unlink_file": func(c *Call, g guest) error {
		dir, name, err := c.dirAndPath(g, 0, 1)
		if err != nil {
			return err
		}
		return wait(c, func() error { return c.files().UnlinkAt(dir, name) })
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

// checkLookup knows one flag, whether a symbolic link is followed; there are none.
func checkLookup(flags uint32) error {
	if flags > 1 {
		return abi.EINVAL
	}
	return nil
}

// checkTimes refuses flags that are unknown, or that say of one time both "this" and "now".
func checkTimes(flags uint32) error {
	if flags > 15 || flags&3 == 3 || flags&12 == 12 {
		return abi.EINVAL
	}
	return nil
}

const (
	openCreate = 1 << iota
	openDirectory
	openExclusive
	openTruncate
)

// pathOpen takes one right for an intention, to write; C libraries ask for it only then.
func pathOpen(c *Call, g guest) error {
	dir, name, err := c.dirAndPath(g, 0, 2)
	if err == nil {
		err = checkLookup(g.u32(1))
	}
	oflags, fdflags := g.u32(4), g.u32(7)
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
		Write: uint64(g.i64(5))&rightWrite != 0, Flags: uint16(fdflags),
	}
	fd, err := waiting(c, func() (int32, error) { return c.files().OpenAt(dir, name, how) })
	if err != nil {
		return err
	}
	return g.put32(8, uint32(fd))
}
