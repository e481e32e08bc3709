package host

import (
	"errors"
	"strings"

	"skein.dev"
	"skein.dev/abi"
	"skein.dev/platform/fault"
	"skein.dev/services/executor/internal/replica"
	"skein.dev/services/executor/internal/vfs"
)

// silent is a row of Faasm's that has no result, or can tell no error with it: one ends the call.
func silent(name string, f func(c *Call, s *replica.Session, g guest, k skein.StateKey) (int64, error)) row {
	return func(c *Call, g guest) int64 {
		k, err := c.cKey(g, 0)
		var v int64
		if err == nil {
			v, err = c.on(k, func(s *replica.Session, k skein.StateKey) (int64, error) { return f(c, s, g, k) })
		}
		if err != nil {
			abort(name, err)
		}
		return v
	}
}

// absent makes an error of a value that is not there none: Faasm's rows do nothing then.
func absent(err error) error {
	if err != nil && (errors.Is(err, fault.NotFound) || errno(err) == abi.ENOENT) {
		return nil
	}
	return err
}

// faasmState has Faasm's rows of the room state.
var faasmState = room{
	"env.__faasm_read_state": func(c *Call, g guest) int64 {
		k, err := c.cKey(g, 0)
		if err != nil {
			return i32(0, err)
		}
		if g.i32(2) == 0 {
			size, err := sized(c.on(k, func(s *replica.Session, k skein.StateKey) (int64, error) { return s.Size(c, k) }))
			return i32(size, absent(err))
		}
		buf, err := g.bytes(1, 2)
		if err != nil {
			return i32(0, err)
		}
		size, err := sized(c.on(k, func(s *replica.Session, k skein.StateKey) (int64, error) { return s.Read(c, k, 0, buf) }))
		return i32(min(size, int64(len(buf))), err)
	},
	"env.__faasm_read_state_ptr": func(c *Call, g guest) int64 {
		total := int64(g.u32(1))
		return c.faasmMap(g, replica.Use{Len: total, Size: total})
	},
	"env.__faasm_read_state_offset_ptr": func(c *Call, g guest) int64 {
		return c.faasmMap(g, replica.Use{Off: int64(g.u32(2)), Len: int64(g.u32(3)), Size: int64(g.u32(1))})
	},
	"env.__faasm_read_state_offset": silent("__faasm_read_state_offset", func(c *Call, s *replica.Session, g guest, k skein.StateKey) (int64, error) {
		buf, err := g.bytes(3, 4)
		if err != nil {
			return 0, err
		}
		off := int64(g.u32(2))
		if off+int64(len(buf)) > int64(g.u32(1)) {
			return 0, abi.EINVAL
		}
		clear(buf) // what the value has not is zero
		_, err = s.Read(c, k, off, buf)
		return 0, absent(err)
	}),
	"env.__faasm_write_state": silent("__faasm_write_state", func(_ *Call, s *replica.Session, g guest, k skein.StateKey) (int64, error) {
		val, err := g.bytes(1, 2)
		if err != nil {
			return 0, err
		}
		return 0, s.Set(k, val)
	}),
	"env.__faasm_write_state_offset": silent("__faasm_write_state_offset", func(c *Call, s *replica.Session, g guest, k skein.StateKey) (int64, error) {
		val, err := g.bytes(3, 4)
		if err != nil {
			return 0, err
		}
		total, off := int64(g.u32(1)), int64(g.u32(2))
		if off+int64(len(val)) > total {
			return 0, abi.EINVAL
		}
		if err := s.Least(c, k, total); err != nil {
			return 0, err
		}
		return 0, s.Write(c, k, off, val)
	}),
	"env.__faasm_write_state_from_file": func(c *Call, g guest) int64 {
		k, err := c.cKey(g, 0)
		if err != nil {
			return 0
		}
		name, err := g.str(1, skein.MaxPathLen)
		if err != nil {
			return 0
		}
		n, err := c.on(k, func(s *replica.Session, k skein.StateKey) (int64, error) {
			val, err := c.readFile(name)
			if err != nil {
				return 0, err
			}
			return int64(len(val)), s.Set(k, val)
		})
		if err != nil {
			c.Say("__faasm_write_state_from_file: " + err.Error())
			return 0
		}
		return n
	},
	// Faasm pushes and pulls what is not there without a word.
	"env.__faasm_push_state":         silent("__faasm_push_state", faasmPush),
	"env.__faasm_push_state_partial": silent("__faasm_push_state_partial", faasmPush),
	"env.__faasm_push_state_partial_mask": silent("__faasm_push_state_partial_mask", func(c *Call, s *replica.Session, g guest, k skein.StateKey) (int64, error) {
		mask, err := c.cKey(g, 1)
		if err != nil {
			return 0, err
		}
		return 0, s.PushMasked(c, k, mask)
	}),
	"env.__faasm_pull_state": silent("__faasm_pull_state", func(c *Call, s *replica.Session, _ guest, k skein.StateKey) (int64, error) {
		return 0, absent(s.Pull(c, k, 0, -1))
	}),
	"env.__faasm_append_state": silent("__faasm_append_state", func(c *Call, s *replica.Session, g guest, k skein.StateKey) (int64, error) {
		val, err := g.bytes(1, 2)
		if err != nil {
			return 0, err
		}
		return 0, s.AppendElement(c, k, val)
	}),
	"env.__faasm_read_appended_state": silent("__faasm_read_appended_state", func(c *Call, s *replica.Session, g guest, k skein.StateKey) (int64, error) {
		buf, err := g.bytes(1, 2)
		if err != nil {
			return 0, err
		}
		return 0, s.ReadElements(c, k, buf, int64(g.u32(3)))
	}),
	"env.__faasm_clear_appended_state": silent("__faasm_clear_appended_state", func(c *Call, s *replica.Session, _ guest, k skein.StateKey) (int64, error) {
		return 0, s.ClearElements(c, k)
	}),
	"env.__faasm_lock_state_read": silent("__faasm_lock_state_read", func(c *Call, s *replica.Session, _ guest, k skein.StateKey) (int64, error) {
		return 0, s.Lock(c, k, false)
	}),
	"env.__faasm_unlock_state_read": silent("__faasm_unlock_state_read", func(_ *Call, s *replica.Session, _ guest, k skein.StateKey) (int64, error) {
		return 0, s.Unlock(k, false)
	}),
	"env.__faasm_lock_state_write": silent("__faasm_lock_state_write", func(c *Call, s *replica.Session, _ guest, k skein.StateKey) (int64, error) {
		return 0, s.Lock(c, k, true)
	}),
	"env.__faasm_unlock_state_write": silent("__faasm_unlock_state_write", func(_ *Call, s *replica.Session, _ guest, k skein.StateKey) (int64, error) {
		return 0, s.Unlock(k, true)
	}),
	"env.__faasm_flag_state_dirty": silent("__faasm_flag_state_dirty", func(c *Call, s *replica.Session, _ guest, k skein.StateKey) (int64, error) {
		return 0, s.Mark(c, k, 0, -1)
	}),
	"env.__faasm_flag_state_offset_dirty": silent("__faasm_flag_state_offset_dirty", func(c *Call, s *replica.Session, g guest, k skein.StateKey) (int64, error) {
		off := int64(g.u32(2))
		return 0, s.Mark(c, k, off, off+int64(g.u32(3)))
	}),
}

func faasmPush(c *Call, s *replica.Session, _ guest, k skein.StateKey) (int64, error) {
	return 0, absent(s.Push(c, k, 0, -1))
}

// faasmMap maps the value whose key the first argument is; 0 if it can't.
func (c *Call) faasmMap(g guest, u replica.Use) int64 {
	k, err := c.cKey(g, 0)
	if err != nil {
		return c.address(0, err)
	}
	if u.Size == 0 {
		return c.address(0, abi.EINVAL)
	}
	return c.address(c.mapKey(g, k, u))
}

// cKey reads the key that Faasm's rows have as a string.
func (c *Call) cKey(g guest, i int) (skein.StateKey, error) {
	if err := c.outside("state"); err != nil {
		return skein.StateKey{}, err
	}
	s, err := g.str(i, skein.MaxKeyLen)
	if err != nil {
		return skein.StateKey{}, err
	}
	return c.stateKey(s)
}

// readFile is the content of a file of the guest's tree, at most as long as a value may be.
func (c *Call) readFile(name string) ([]byte, error) {
	root, err := c.files().GetDir(vfs.Root)
	if err != nil {
		return nil, err
	}
	return c.files().ReadFile(c, root, strings.TrimLeft(name, "/"), replica.MaxValue)
}
