package host

import (
	"skein.dev/abi"
	"skein.dev/services/executor/internal/vfs"
)

// fsRoom is what POSIX has and preview 1 lacks. A boot's descriptors are forgotten, so that one which made some has no snapshot.
var fsRoom = room{
	"faasm.dup":   func(c *Call, g guest) int64 { return i32(c.dup(g.i32(0), 0)) },
	"faasm.dup2":  func(c *Call, g guest) int64 { return i32(c.dup2(g.i32(0), g.i32(1))) },
	"faasm.fcntl": func(c *Call, g guest) int64 { return i32(c.fcntl(g)) },
	"env.dup":     func(c *Call, g guest) int64 { return posix(c.dup(g.i32(0), 0)) },
	"env.dup2":    func(c *Call, g guest) int64 { return posix(c.dup2(g.i32(0), g.i32(1))) },
}

func (c *Call) dup(fd, least int32) (int64, error) {
	_ = c.outside("dup")
	to, err := c.files().Dup(fd, least)
	return int64(to), err
}

func (c *Call) dup2(fd, to int32) (int64, error) {
	_ = c.outside("dup2")
	was, _ := c.files().Get(to)
	return int64(to), publishing(c, was, func() error { return c.files().DupTo(c, fd, to) })
}

// publishing runs what may be the end of an open file: one of the shared tree that was written is then put there, which takes a while.
func publishing(c *Call, o *vfs.Open, end func() error) error {
	if o == nil || !o.Publishes() {
		return end()
	}
	return wait(c, end)
}

func (c *Call) fcntl(g guest) (int64, error) {
	if g.i32(1) != abi.DupFD {
		return 0, abi.EINVAL
	}
	return c.dup(g.i32(0), g.i32(2))
}

// posix is the answer of rows whose callers expect -1.
func posix(v int64, err error) int64 {
	if err != nil {
		v = -1
	}
	return int64(uint32(int32(v)))
}
