package host

import (
	"io"

	"skein.dev"
	"skein.dev/abi"
)

var ioRoom = room{
	"faasm.read_call_input": func(c *Call, g guest) int64 {
		if c.outside("read_call_input") != nil {
			return 0
		}
		buf, err := g.bytes(0, 1)
		if err != nil {
			return i32(0, err)
		}
		copy(buf, c.Input)
		return i32(int64(len(c.Input)), nil)
	},
	"faasm.write_call_output": func(c *Call, g guest) int64 {
		out, err := g.bytes(0, 1)
		if err == nil {
			err = c.setOutput(nil, out)
		}
		return i32(0, err)
	},
	"faasm.append_call_output": func(c *Call, g guest) int64 {
		out, err := g.bytes(0, 1)
		if err == nil {
			err = c.setOutput(c.Output, out)
		}
		return i32(0, err)
	},
	"faasm.last_error": func(c *Call, _ guest) int64 { return int64(c.lastError) },

	"env.__faasm_read_input": func(c *Call, g guest) int64 {
		if c.outside("__faasm_read_input") != nil {
			return 0
		}
		if g.i32(1) == 0 {
			return i32(int64(len(c.Input)), nil)
		}
		buf, err := g.bytes(0, 1)
		if err != nil {
			return i32(0, err)
		}
		return i32(int64(copy(buf, c.Input)), nil)
	},
	"env.__faasm_write_output": func(c *Call, g guest) int64 {
		out, err := g.bytes(0, 1)
		if err == nil {
			err = c.setOutput(nil, out)
		}
		if err != nil {
			abort("__faasm_write_output", err)
		}
		return 0
	},
}

// setOutput makes had and more the output; nothing changes if that is too large.
func (c *Call) setOutput(had, more []byte) error {
	if err := c.outside("output"); err != nil {
		return err
	}
	if len(had)+len(more) > skein.MaxPayload {
		return abi.EMSGSIZE
	}
	c.Output = append(had, more...) // more is the guest's memory: it is copied here
	return nil
}

// OutputStream is a writer that adds to the output, as append_call_output does: for a guest's standard output. What is too much is
// refused with EFBIG, and Overflowed tells.
func (c *Call) OutputStream() io.Writer { return outputStream{c} }

// Overflowed tells whether the guest was refused a write to its output stream, whether it noticed or not.
func (c *Call) Overflowed() bool { return c.overflowed }

type outputStream struct{ c *Call }

func (s outputStream) Write(p []byte) (int, error) {
	if s.c.overflowed || len(s.c.Output)+len(p) > skein.MaxPayload {
		s.c.overflowed = true
		return 0, abi.EFBIG
	}
	s.c.Output = append(s.c.Output, p...)
	return len(p), nil
}
