package host

import (
	"math"

	"skein.dev/abi"
	"skein.dev/services/executor/internal/vfs"
)

var wasiFD = preview1(map[string]func(*Call, guest) error{
	"fd_advise": func(c *Call, g guest) error {
		o, err := c.files().Get(g.i32(0))
		switch {
		case err != nil:
			return err
		case g.u32(3) > adviseNoReuse, g.i64(1) < 0, g.i64(2) < 0:
			return abi.EINVAL
		case o.Stream():
			return abi.ESPIPE
		}
		return nil
	},
	"fd_allocate": func(c *Call, g guest) error {
		o, err := c.files().Get(g.i32(0))
		if err != nil {
			return err
		}
		return o.Allocate(g.i64(1), g.i64(2))
	},
	"fd_close": func(c *Call, g guest) error {
		_ = c.outside("fd_close") // the next call finds open again what the snapshot thinks is closed
		o, err := c.files().Get(g.i32(0))
		if err != nil {
			return err
		}
		return publishing(c, o, func() error { return c.files().Close(c, g.i32(0)) })
	},
	"fd_datasync":   func(c *Call, g guest) error { return syncFile(c, g) },
	"fd_fdstat_get": fdstatGet,
	"fd_fdstat_set_flags": func(c *Call, g guest) error {
		o, err := c.files().Get(g.i32(0))
		switch {
		case err != nil:
			return err
		case g.u32(1) > fdflagsAll:
			return abi.EINVAL
		}
		// Go sets one at its start. That the next call forgets it does not spoil a snapshot, as it means nothing.
		o.SetFlags(uint16(g.u32(1)))
		return nil
	},
	"fd_fdstat_set_rights": func(c *Call, g guest) error {
		if _, err := c.files().Get(g.i32(0)); err != nil {
			return err
		}
		return abi.ENOTSUP
	},
	"fd_filestat_get": func(c *Call, g guest) error {
		o, err := c.files().Get(g.i32(0))
		if err != nil {
			return err
		}
		return putFilestat(g, 1, o.Stat())
	},
	"fd_filestat_set_size": func(c *Call, g guest) error {
		o, err := c.files().Get(g.i32(0))
		if err != nil {
			return err
		}
		return o.SetSize(g.i64(1))
	},
	"fd_filestat_set_times": func(c *Call, g guest) error {
		o, err := c.files().Get(g.i32(0))
		if err != nil {
			return err
		}
		times, err := timesOf(g, 1, 3)
		if err != nil {
			return err
		}
		return o.SetTimes(times)
	},
	"fd_pread": func(c *Call, g guest) error {
		return transfer(c, g, 4, func(o *vfs.Open, p []byte, done int64) (int, error) {
			return o.ReadAt(c, p, offset(g.i64(3), done))
		})
	},
	"fd_prestat_get": func(c *Call, g guest) error {
		name, err := c.preopened(g.i32(0))
		if err != nil {
			return err
		}
		b, err := g.at(g.u32(1), 8)
		if err == nil {
			clear(b) // tag 0: a directory
			le.PutUint32(b[4:], uint32(len(name)))
		}
		return err
	},
	"fd_prestat_dir_name": func(c *Call, g guest) error {
		name, err := c.preopened(g.i32(0))
		switch {
		case err != nil:
			return err
		case int64(g.u32(2)) < int64(len(name)):
			return abi.ENAMETOOLONG
		}
		b, err := g.at(g.u32(1), uint32(len(name)))
		copy(b, name)
		return err
	},
	"fd_pwrite": func(c *Call, g guest) error {
		return transfer(c, g, 4, func(o *vfs.Open, p []byte, done int64) (int, error) {
			return o.WriteAt(c, p, offset(g.i64(3), done))
		})
	},
	"fd_read": func(c *Call, g guest) error {
		return transfer(c, g, 3, func(o *vfs.Open, p []byte, _ int64) (int, error) {
			_ = c.outside("fd_read") // stdin: there is no other file
			return o.Read(c, p)
		})
	},
	"fd_readdir": readdir,
	"fd_renumber": func(c *Call, g guest) error {
		_ = c.outside("fd_renumber")
		was, _ := c.files().Get(g.i32(1))
		return publishing(c, was, func() error { return c.files().Renumber(c, g.i32(0), g.i32(1)) })
	},
	"fd_seek": func(c *Call, g guest) error {
		o, err := c.files().Get(g.i32(0))
		if err != nil {
			return err
		}
		return seek(g, o, g.i64(1), int(g.i32(2)), 3)
	},
	"fd_sync": func(c *Call, g guest) error { return syncFile(c, g) },
	"fd_tell": func(c *Call, g guest) error {
		o, err := c.files().Get(g.i32(0))
		if err != nil {
			return err
		}
		return seek(g, o, 0, 1, 1)
	},
	"fd_write": func(c *Call, g guest) error {
		return transfer(c, g, 3, func(o *vfs.Open, p []byte, _ int64) (int, error) { return o.Write(c, p) })
	},
})

// Sockets: nothing that is open is one.
var wasiSock = preview1(map[string]func(*Call, guest) error{
	"sock_accept":   noSocket,
	"sock_recv":     noSocket,
	"sock_send":     noSocket,
	"sock_shutdown": noSocket,
})

func noSocket(c *Call, g guest) error {
	if _, err := c.files().Get(g.i32(0)); err != nil {
		return err
	}
	return abi.ENOTSOCK
}

// Numbers of preview 1.
const (
	adviseNoReuse = 5
	fdflagsAll    = 1<<5 - 1 // append, dsync, nonblock, rsync, sync

	rightRead        = 1 << 1
	rightSeek        = 1 << 2
	rightSetFlags    = 1 << 3
	rightTell        = 1 << 5
	rightWrite       = 1 << 6
	rightAdvise      = 1 << 7
	rightFilestatGet = 1 << 21
	rightPoll        = 1 << 27
	rightsAll        = 1<<29 - 1
	rightsDirectory  = 0x797fe00 // path_* but for sizes, fd_readdir, fd_filestat_set_times: what libraries look for
)

// offset is where the next buffer of a transfer lies. One beyond what a file can have stays there.
func offset(off, done int64) int64 {
	if off > math.MaxInt64-done {
		return math.MaxInt64
	}
	return off + done
}

func syncFile(c *Call, g guest) error {
	o, err := c.files().Get(g.i32(0))
	if err != nil {
		return err
	}
	return publishing(c, o, func() error { return o.Sync(c) })
}

func seek(g guest, o *vfs.Open, off int64, whence, result int) error {
	if _, err := g.at(g.u32(result), 8); err != nil {
		return err
	}
	at, err := o.Seek(off, whence)
	if err != nil {
		return err
	}
	return g.put64(result, uint64(at))
}

func (c *Call) preopened(fd int32) (string, error) {
	o, err := c.files().Get(fd)
	if err == nil && o.Preopened() == "" {
		err = abi.EBADF
	}
	if err != nil {
		return "", err
	}
	return o.Preopened(), nil
}

// fdstatGet stores type, flags, rights and the rights of what is opened below. We keep no rights; those told are what
// wasi-libc makes an access mode of, and knows a terminal by.
func fdstatGet(c *Call, g guest) error {
	o, err := c.files().Get(g.i32(0))
	if err != nil {
		return err
	}
	b, err := g.at(g.u32(1), 24)
	if err != nil {
		return err
	}
	rights, inherit := uint64(rightSetFlags|rightFilestatGet|rightPoll), uint64(0)
	if o.Type() == vfs.Directory {
		rights, inherit = rightSetFlags|rightFilestatGet|rightsDirectory, rightsAll
	} else {
		if o.Readable() {
			rights |= rightRead
		}
		if o.Writable() {
			rights |= rightWrite
		}
		if !o.Stream() {
			rights |= rightSeek | rightTell | rightAdvise
		}
	}
	clear(b)
	b[0] = byte(o.Type())
	le.PutUint16(b[2:], o.Flags())
	le.PutUint64(b[8:], rights)
	le.PutUint64(b[16:], inherit)
	return nil
}

// putFilestat stores st where argument i points.
func putFilestat(g guest, i int, st vfs.Stat) error {
	b, err := g.at(g.u32(i), 64)
	if err != nil {
		return err
	}
	clear(b)
	le.PutUint64(b, 1) // device
	le.PutUint64(b[8:], st.Ino)
	b[16] = byte(st.Type)
	le.PutUint64(b[24:], st.Links)
	le.PutUint64(b[32:], uint64(st.Size))
	le.PutUint64(b[40:], uint64(st.Access))
	le.PutUint64(b[48:], uint64(st.Modified))
	le.PutUint64(b[56:], uint64(st.Changed))
	return nil
}

// maxIovecs is POSIX' IOV_MAX as C libraries have it.
const maxIovecs = 1024

// iovecs are the buffers of the pairs (address, length) at argument 1, of which argument 2 is the number. EINVAL if there
// are more than maxIovecs, or if they have more bytes than the guest's memory or a signed size has.
func (c *Call) iovecs(g guest) ([][]byte, error) {
	n := g.u32(2)
	if n > maxIovecs {
		return nil, abi.EINVAL
	}
	pairs, err := g.at(g.u32(1), n*8)
	if err != nil {
		return nil, err
	}
	bufs, sum := c.buffers[:0], int64(0)
	for ; len(pairs) > 0; pairs = pairs[8:] {
		b, err := g.at(le.Uint32(pairs), le.Uint32(pairs[4:]))
		if err != nil {
			return nil, err
		}
		bufs, sum = append(bufs, b), sum+int64(len(b))
	}
	c.buffers = bufs
	if sum > math.MaxInt32 || sum > 0 && sum > int64(g.mem.Size()) {
		return nil, abi.EINVAL
	}
	return bufs, nil
}

// transfer moves bytes between the iovecs and what argument 0 is open as, until move does less than it was asked for, and
// stores at argument result how many. An error after the first bytes waits for the next time.
func transfer(c *Call, g guest, result int, move func(o *vfs.Open, p []byte, done int64) (int, error)) error {
	o, err := c.files().Get(g.i32(0))
	if err != nil {
		return err
	}
	if _, err = g.at(g.u32(result), 4); err != nil {
		return err
	}
	bufs, err := c.iovecs(g)
	if err != nil {
		return err
	}
	if len(bufs) == 0 {
		bufs = append(bufs, nil) // so that move may refuse
	}
	done := 0
	for _, p := range bufs {
		var n int
		if o.Stream() {
			n, err = move(o, p, int64(done))
		} else {
			n, err = waiting(c, func() (int, error) { return move(o, p, int64(done)) })
		}
		done += n
		if err != nil || n < len(p) {
			break
		}
	}
	if err != nil && done == 0 {
		return err
	}
	return g.put32(result, uint32(done))
}

const direntSize = 24

// readdir fills the buffer with entries, the last of which may be cut: a guest asks again from there.
func readdir(c *Call, g guest) error {
	_ = c.outside("fd_readdir")
	o, err := c.files().Get(g.i32(0))
	if err != nil {
		return err
	}
	if _, err = g.at(g.u32(4), 4); err != nil {
		return err
	}
	buf, err := g.bytes(1, 2)
	switch {
	case err != nil:
		return err
	case len(buf) < direntSize:
		return abi.EINVAL // it could not even learn how large a buffer it needs
	}
	used := 0
	err = wait(c, func() error {
		return o.ReadDir(c, uint64(g.i64(3)), func(e vfs.Entry) bool {
			var head [direntSize]byte
			le.PutUint64(head[:], e.Next)
			le.PutUint64(head[8:], e.Ino)
			le.PutUint32(head[16:], uint32(len(e.Name)))
			head[20] = byte(e.Type)
			used += copy(buf[used:], head[:])
			n := copy(buf[used:], e.Name)
			used += n
			return used < len(buf) && n == len(e.Name)
		})
	})
	if err != nil {
		return err
	}
	return g.put32(4, uint32(used))
}
