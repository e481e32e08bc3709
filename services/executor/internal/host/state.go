package host

import (
	"errors"
	"math"
	"time"

	"skein.dev"
	"skein.dev/abi"
	"skein.dev/platform/fault"
	"skein.dev/services/executor/internal/machine"
	"skein.dev/services/executor/internal/replica"
)

// session is what the call does with state.
func (c *Call) session() *replica.Session {
	if c.state == nil {
		c.state = c.State.Open()
		if c.Park != nil {
			c.state.Park = func(wait func() error) error { return c.Park(c, c.Space().Bytes(), wait) }
		}
	}
	return c.state
}

// stated is a row of the room: k is the key that its first two arguments are. Time in f is time that the guest waits.
func (c *Call) stated(g guest, f func(s *replica.Session, k skein.StateKey) (int64, error)) (int64, error) {
	k, err := c.key(g)
	if err != nil {
		return 0, err
	}
	return c.on(k, f)
}

func (c *Call) on(k skein.StateKey, f func(s *replica.Session, k skein.StateKey) (int64, error)) (int64, error) {
	v, err := waiting(c, func() (int64, error) { return f(c.session(), k) })
	if err != nil {
		c.goOn()
		switch fault.From(err).Reason {
		case "FENCED": // the lock that goes with the write is not held any more
			err = abi.ESTALE
		case "QUOTA":
			err = abi.EDQUOT
		}
	}
	return v, err
}

// valued is stated for rows that take a range of memory besides.
func (c *Call) valued(g guest, ptr, size int, f func(s *replica.Session, k skein.StateKey, val []byte) (int64, error)) (int64, error) {
	k, err := c.key(g)
	if err != nil {
		return 0, err
	}
	val, err := g.bytes(ptr, size)
	if err != nil {
		return 0, err
	}
	return c.on(k, func(s *replica.Session, k skein.StateKey) (int64, error) { return f(s, k, val) })
}

// locking is the native rows of locks, by what they do.
func locking(f func(c *Call, s *replica.Session, k skein.StateKey) error) row {
	return func(c *Call, g guest) int64 {
		return i32(c.stated(g, func(s *replica.Session, k skein.StateKey) (int64, error) { return 0, f(c, s, k) }))
	}
}

var stateRoom = room{
	"faasm.get_state": func(c *Call, g guest) int64 {
		size := int64(g.u32(2))
		u := replica.Use{Len: size, Size: size}
		if size == 0 {
			u.Len = -1
		}
		return c.address(c.mapState(g, u, g.u32(3)))
	},
	"faasm.get_state_offset": func(c *Call, g guest) int64 {
		return c.address(c.mapState(g, replica.Use{Off: g.i64(2), Len: int64(g.u32(3)), Size: g.i64(4)}, g.u32(5)))
	},
	"faasm.map_state": func(c *Call, g guest) int64 {
		off, n, at := g.i64(2), int64(g.u32(3)), g.u32(4)
		if n == 0 || off%guestPage != 0 || at%guestPage != 0 {
			return i32(0, abi.EINVAL)
		}
		_, err := c.mapState(g, replica.Use{Off: off, Len: n, Own: true, At: uint64(at)}, g.u32(5))
		return i32(0, err)
	},
	"faasm.read_state": func(c *Call, g guest) int64 {
		k, err := c.key(g)
		if err != nil {
			return i32(0, err)
		}
		buf, err := g.bytes(3, 4)
		if err != nil {
			return i32(0, err)
		}
		if size, here := c.session().ReadHere(k, g.i64(2), buf); here { // without looking at the clock
			return i32(sized(size, nil))
		}
		return i32(sized(c.on(k, func(s *replica.Session, k skein.StateKey) (int64, error) { return s.Read(c, k, g.i64(2), buf) })))
	},
	"faasm.set_state": func(c *Call, g guest) int64 {
		return i32(c.valued(g, 2, 3, func(s *replica.Session, k skein.StateKey, val []byte) (int64, error) { return 0, s.Set(k, val) }))
	},
	"faasm.set_state_offset": func(c *Call, g guest) int64 {
		return i32(c.valued(g, 2, 3, func(s *replica.Session, k skein.StateKey, val []byte) (int64, error) {
			return 0, s.Write(c, k, g.i64(4), val)
		}))
	},
	"faasm.push_state": func(c *Call, g guest) int64 {
		return i32(c.stated(g, func(s *replica.Session, k skein.StateKey) (int64, error) { return 0, s.Push(c, k, 0, -1) }))
	},
	"faasm.pull_state": func(c *Call, g guest) int64 {
		return i32(c.stated(g, func(s *replica.Session, k skein.StateKey) (int64, error) { return 0, s.Pull(c, k, 0, -1) }))
	},
	"faasm.push_state_offset": func(c *Call, g guest) int64 {
		return i32(c.stated(g, func(s *replica.Session, k skein.StateKey) (int64, error) {
			return 0, s.Push(c, k, g.i64(2), int64(g.u32(3)))
		}))
	},
	"faasm.pull_state_offset": func(c *Call, g guest) int64 {
		return i32(c.stated(g, func(s *replica.Session, k skein.StateKey) (int64, error) {
			return 0, s.Pull(c, k, g.i64(2), int64(g.u32(3)))
		}))
	},
	"faasm.append_state": func(c *Call, g guest) int64 {
		return negative(c.valued(g, 2, 3, func(s *replica.Session, k skein.StateKey, val []byte) (int64, error) { return s.Append(c, k, val) }))
	},
	"faasm.read_appended_state": func(c *Call, g guest) int64 {
		return negative(c.valued(g, 3, 4, func(s *replica.Session, k skein.StateKey, buf []byte) (int64, error) {
			return s.ReadGlobal(c, k, g.i64(2), buf)
		}))
	},
	"faasm.clear_appended_state": func(c *Call, g guest) int64 {
		return i32(c.stated(g, func(s *replica.Session, k skein.StateKey) (int64, error) { return 0, s.Clear(c, k) }))
	},
	"faasm.state_size": func(c *Call, g guest) int64 {
		return negative(c.stated(g, func(s *replica.Session, k skein.StateKey) (int64, error) { return s.Size(c, k) }))
	},
	"faasm.delete_state": func(c *Call, g guest) int64 {
		return i32(c.stated(g, func(s *replica.Session, k skein.StateKey) (int64, error) { return 0, s.Delete(c, k) }))
	},
	"faasm.discard_state": func(c *Call, g guest) int64 {
		return i32(c.stated(g, func(s *replica.Session, k skein.StateKey) (int64, error) { return 0, s.Discard(c, k) }))
	},
	"faasm.expire_state": func(c *Call, g guest) int64 {
		ms := g.i64(2)
		if ms > math.MaxInt64/int64(time.Millisecond) {
			return i32(0, abi.EINVAL)
		}
		return i32(c.stated(g, func(s *replica.Session, k skein.StateKey) (int64, error) {
			return 0, s.Expire(c, k, time.Duration(max(ms, -1))*time.Millisecond)
		}))
	},
	"faasm.compare_and_set_state": func(c *Call, g guest) int64 {
		old, err := g.bytes(2, 3)
		if err != nil {
			return i32(0, err)
		}
		return i32(c.valued(g, 4, 5, func(s *replica.Session, k skein.StateKey, val []byte) (int64, error) {
			was, err := s.CompareAndSet(c, k, old, val)
			if was {
				return 1, err
			}
			return 0, err
		}))
	},
	"faasm.add_state_i64": func(c *Call, g guest) int64 {
		if _, err := g.at(g.u32(3), 8); err != nil { // before anything is added
			return i32(0, err)
		}
		sum, err := c.stated(g, func(s *replica.Session, k skein.StateKey) (int64, error) { return s.Add(c, k, g.i64(2)) })
		if err == nil {
			err = g.put64(3, uint64(sum))
		}
		return i32(0, err)
	},
	"faasm.list_state": func(c *Call, g guest) int64 { return i32(sized(c.listState(g))) },

	"faasm.lock_state_read":    locking(func(c *Call, s *replica.Session, k skein.StateKey) error { return s.Lock(c, k, false) }),
	"faasm.lock_state_write":   locking(func(c *Call, s *replica.Session, k skein.StateKey) error { return s.Lock(c, k, true) }),
	"faasm.unlock_state_read":  locking(func(_ *Call, s *replica.Session, k skein.StateKey) error { return s.Unlock(k, false) }),
	"faasm.unlock_state_write": locking(func(_ *Call, s *replica.Session, k skein.StateKey) error { return s.Unlock(k, true) }),
	"faasm.lock_state_global_read": locking(func(c *Call, s *replica.Session, k skein.StateKey) error {
		return s.LockGlobal(c, k, false, c.ID.String())
	}),
	"faasm.lock_state_global_write": locking(func(c *Call, s *replica.Session, k skein.StateKey) error {
		return s.LockGlobal(c, k, true, c.ID.String())
	}),
	"faasm.unlock_state_global_read": locking(func(_ *Call, s *replica.Session, k skein.StateKey) error {
		return s.UnlockGlobal(k, false)
	}),
	"faasm.unlock_state_global_write": locking(func(_ *Call, s *replica.Session, k skein.StateKey) error {
		return s.UnlockGlobal(k, true)
	}),
}

const guestPage = 64 << 10

// address is a native row's answer that is an address.
func (c *Call) address(at int64, err error) int64 {
	if err != nil {
		c.lastError = errno(err)
		return 0
	}
	return at
}

// mapState maps a range of the value whose key the first two arguments are, and gives the address of its first byte.
func (c *Call) mapState(g guest, u replica.Use, flags uint32) (int64, error) {
	if flags&^(abi.StateReadOnlyHint|abi.StatePull|abi.StateLocal) != 0 {
		return 0, abi.EINVAL
	}
	u.ReadOnly, u.Pull, u.Local = flags&abi.StateReadOnlyHint != 0, flags&abi.StatePull != 0, flags&abi.StateLocal != 0
	k, err := c.key(g)
	if err != nil {
		return 0, err
	}
	return c.mapKey(g, k, u)
}

func (c *Call) mapKey(g guest, k skein.StateKey, u replica.Use) (int64, error) {
	if !u.Own {
		c.ownHeap(g)
	}
	return c.on(k, func(s *replica.Session, k skein.StateKey) (int64, error) {
		m, err := s.Map(c, k, u, c.place)
		switch {
		case err == nil:
			return int64(m.At) + u.Off - m.Off, nil
		case errors.Is(err, machine.ErrNoMaps), errors.Is(err, abi.ENOTSUP):
			c.Say("state can't be mapped on this executor's system, or into a module without memory; rows that copy work")
			return 0, abi.ENOTSUP
		case errors.Is(err, machine.ErrOwnHeap):
			c.Say("state: the guest's allocator takes all memory for its own: map_state maps over memory that it gave (ENOTSUP)")
			return 0, abi.ENOTSUP
		case errors.Is(err, machine.ErrNoSpace):
			return 0, abi.ENOMEM
		case errors.Is(err, machine.ErrBadRange):
			return 0, abi.EINVAL
		}
		return 0, err
	})
}

// place maps a part of a value into the guest's memory.
func (c *Call) place(m *replica.Mapping) (err error) {
	if m.Host {
		if m.At, err = c.Space().Grow(uint64(m.Len)); err != nil {
			return err
		}
	}
	if err := c.Space().Map(m.At, uint64(m.Len), m.Fd, m.Off); err != nil {
		return err
	}
	m.First, c.Space().Leaving = c.Space().Place(m.At), c.state.Settle
	return nil
}

func (c *Call) listState(g guest) (int64, error) {
	if err := c.outside("state"); err != nil {
		return 0, err
	}
	prefix, err := g.bytes(0, 1)
	if err != nil {
		return 0, err
	}
	if len(prefix) > skein.MaxKeyLen {
		return 0, abi.EINVAL
	}
	buf, err := g.bytes(2, 3)
	if err != nil {
		return 0, err
	}
	user := skein.StateKey{User: c.Function.User, Key: string(prefix)}
	return c.on(user, func(s *replica.Session, k skein.StateKey) (size int64, err error) {
		err = s.List(c, k.User, k.Key, func(key []byte) {
			size += int64(len(key)) + 1
			n := copy(buf, key)
			if buf = buf[n:]; n == len(key) && len(buf) > 0 {
				buf[0], buf = 0, buf[1:]
			}
		})
		return size, err
	})
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

// sized makes a size fit an i32 result.
func sized(n int64, err error) (int64, error) {
	if err == nil && n > math.MaxInt32 {
		return 0, abi.EOVERFLOW
	}
	return n, err
}
