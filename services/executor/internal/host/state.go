package host

import (
	"math"

	"skein.dev"
	"skein.dev/abi"
)

var stateRoom = room{
	"faasm.read_state": func(c *Call, g guest) int64 {
		k, err := c.key(g)
		if err != nil {
			return i32(0, err)
		}
		buf, err := g.bytes(3, 4)
		if err != nil {
			return i32(0, err)
		}
		return i32(sized(waiting(c, func() (int64, error) { return c.State.Read(c, &c.moved, k, g.i64(2), buf) })))
	},
	"faasm.set_state": func(c *Call, g guest) int64 {
		k, err := c.key(g)
		if err != nil {
			return i32(0, err)
		}
		val, err := g.bytes(2, 3)
		if err == nil {
			err = wait(c, func() error { return c.State.Set(k, val) })
		}
		return i32(0, err)
	},
	"faasm.set_state_offset": func(c *Call, g guest) int64 {
		k, err := c.key(g)
		if err != nil {
			return i32(0, err)
		}
		val, err := g.bytes(2, 3)
		if err == nil {
			err = wait(c, func() error { return c.State.SetAt(c, &c.moved, k, g.i64(4), val) })
		}
		return i32(0, err)
	},
	"faasm.push_state": func(c *Call, g guest) int64 {
		k, err := c.key(g)
		if err == nil {
			err = wait(c, func() error { return c.State.Push(c, &c.moved, k) })
		}
		return i32(0, err)
	},
	"faasm.pull_state": func(c *Call, g guest) int64 {
		k, err := c.key(g)
		if err == nil {
			err = wait(c, func() error { return c.State.Pull(c, &c.moved, k) })
		}
		return i32(0, err)
	},
	"faasm.append_state": func(c *Call, g guest) int64 {
		k, err := c.key(g)
		if err != nil {
			return negative(0, err)
		}
		val, err := g.bytes(2, 3)
		if err != nil {
			return negative(0, err)
		}
		return negative(waiting(c, func() (int64, error) { return c.State.Append(c, &c.moved, k, val) }))
	},
	"faasm.state_size": func(c *Call, g guest) int64 {
		k, err := c.key(g)
		if err != nil {
			return negative(0, err)
		}
		return negative(waiting(c, func() (int64, error) { return c.State.Size(c, k) }))
	},
	"faasm.delete_state": func(c *Call, g guest) int64 {
		k, err := c.key(g)
		if err == nil {
			err = wait(c, func() error { return c.State.Delete(c, k) })
		}
		return i32(0, err)
	},

	"env.__faasm_read_state": func(c *Call, g guest) int64 {
		k, err := c.cKey(g)
		if err != nil {
			return i32(0, err)
		}
		if g.i32(2) == 0 {
			size, err := sized(waiting(c, func() (int64, error) { return c.State.Size(c, k) }))
			if errno(err) == abi.ENOENT {
				return 0
			}
			return i32(size, err)
		}
		buf, err := g.bytes(1, 2)
		if err != nil {
			return i32(0, err)
		}
		size, err := sized(waiting(c, func() (int64, error) { return c.State.Read(c, &c.moved, k, 0, buf) }))
		return i32(min(size, int64(len(buf))), err)
	},
	"env.__faasm_write_state": func(c *Call, g guest) int64 {
		k, err := c.cKey(g)
		if err == nil {
			var val []byte
			if val, err = g.bytes(1, 2); err == nil {
				err = wait(c, func() error { return c.State.Set(k, val) })
			}
		}
		if err != nil {
			abort("__faasm_write_state", err)
		}
		return 0
	},
	"env.__faasm_push_state": func(c *Call, g guest) int64 {
		k, err := c.cKey(g)
		if err == nil {
			err = wait(c, func() error { return c.State.Push(c, &c.moved, k) })
		}
		if err != nil && errno(err) != abi.ENOENT { // Faasm pushes what is not there without a word
			abort("__faasm_push_state", err)
		}
		return 0
	},
	"env.__faasm_pull_state": func(c *Call, g guest) int64 {
		k, err := c.cKey(g)
		if err == nil {
			err = wait(c, func() error { return c.State.Pull(c, &c.moved, k) })
		}
		if err != nil && errno(err) != abi.ENOENT {
			abort("__faasm_pull_state", err)
		}
		return 0
	},
}

// key reads the key that a native row has as its first two arguments.
func (c *Call) key(g guest) (skein.StateKey, error) {
	if err := c.outside("state"); err != nil {
		return skein.StateKey{}, err
	}
	if g.u32(1) > skein.MaxKeyLen {
		return skein.StateKey{}, abi.EINVAL
	}
	b, err := g.bytes(0, 1)
	if err != nil {
		return skein.StateKey{}, err
	}
	return c.stateKey(string(b))
}

// cKey reads the key that Faasm's rows have as a string.
func (c *Call) cKey(g guest) (skein.StateKey, error) {
	if err := c.outside("state"); err != nil {
		return skein.StateKey{}, err
	}
	s, err := g.str(0, skein.MaxKeyLen)
	if err != nil {
		return skein.StateKey{}, err
	}
	return c.stateKey(s)
}

// sized makes a size fit an i32 result.
func sized(n int64, err error) (int64, error) {
	if err == nil && n > math.MaxInt32 {
		return 0, abi.EOVERFLOW
	}
	return n, err
}
