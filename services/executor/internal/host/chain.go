package host

import (
	"bytes"
	"time"

	"github.com/tetratelabs/wazero/api"

	"skein.dev"
	"skein.dev/abi"
	"skein.dev/services/executor/internal/machine"
)

// Chain is what stands behind the room chain: how a call makes others. Handles are numbers from 1 and the call's own;
// ECHILD for any other.
type Chain struct {
	// Start makes a child of c and gives its handle. entry, if it isn't nil, is of c's own module, and name is not looked at.
	Start func(c *Call, name string, entry *uint32, input []byte) (handle int32, err error)
	// Wait waits until one of the children has ended and gives its index in handles. EAGAIN after timeout, unless that is
	// negative; the context's error if c ends first. memory is what c keeps meanwhile, in bytes.
	Wait func(c *Call, handles []int32, timeout time.Duration, memory int64) (index int, err error)
	// Result is how the child ended; EAGAIN while it has not. ENOBUFS, beside the rest, says that its output was let go.
	Result func(c *Call, handle int32) (*skein.Result, error)
	// Cancel asks for the child's end.
	Cancel func(c *Call, handle int32) error
	// Turn is called every few milliseconds while c computes, and may make it wait for others.
	Turn func(c *Call)
}

// Turn is machine.Guest's.
func (c *Call) Turn() {
	if c.Chain == nil {
		c.Meter().Turn()
		return
	}
	c.Chain.Turn(c)
}

var chainRoom = room{
	"faasm.chain_name": func(c *Call, g guest) int64 {
		name, err := g.bytes(0, 1)
		if err != nil {
			return i32(0, err)
		}
		return i32(c.chainName(string(name[:min(len(name), skein.MaxNameLen+1)]), g, 2))
	},
	"faasm.chain_ptr":  func(c *Call, g guest) int64 { return i32(c.chainPointer(g, false)) },
	"faasm.await_call": func(c *Call, g guest) int64 { return i32(exitCode(c.await(g, g.i32(0)))) },
	"faasm.await_call_output": func(c *Call, g guest) int64 {
		buf, err := g.bytes(1, 2)
		if err != nil {
			return i32(0, err)
		}
		res, err := c.await(g, g.i32(0))
		if _, e := exitCode(res, err); e != nil {
			err = e
		}
		if err != nil {
			return i32(0, err)
		}
		copy(buf, res.Output)
		return i32(int64(len(res.Output)), nil)
	},
	"faasm.await_any":   func(c *Call, g guest) int64 { return i32(awaitAny(c, g)) },
	"faasm.cancel_call": func(c *Call, g guest) int64 { return i32(0, c.cancelChild(g.i32(0))) },
	"faasm.call_error": func(c *Call, g guest) int64 {
		buf, err := g.bytes(1, 2)
		if err == nil {
			err = c.canChain("call_error")
		}
		if err != nil {
			return i32(0, err)
		}
		res, err := c.Chain.Result(c, g.i32(0))
		switch {
		case res == nil:
			return i32(0, err)
		case res.State == skein.Succeeded:
			return 0
		}
		why := res.Reason + ": " + res.Message
		copy(buf, why)
		return i32(int64(len(why)), nil)
	},

	"env.__faasm_chain_name": func(c *Call, g guest) int64 {
		name, err := g.str(0, skein.MaxNameLen)
		if err != nil {
			return 0
		}
		handle, _ := c.chainName(name, g, 1)
		return handle
	},
	"env.__faasm_chain_ptr": func(c *Call, g guest) int64 {
		handle, _ := c.chainPointer(g, true)
		return handle
	},
	"env.__faasm_await_call": func(c *Call, g guest) int64 {
		code, err := exitCode(c.await(g, g.i32(0)))
		if err != nil {
			return 1
		}
		return code
	},
	"env.__faasm_await_call_output": faasmAwaitOutput,
}

// canChain is asked by each row of the room.
func (c *Call) canChain(row string) error {
	if err := c.outside(row); err != nil {
		return err
	}
	if c.Chain == nil {
		return abi.ENOTSUP
	}
	return nil
}

func (c *Call) chainName(name string, g guest, in int) (int64, error) {
	if err := c.canChain("chain_name"); err != nil {
		return 0, err
	}
	if _, err := skein.NewFunction(string(c.Function.User), name); err != nil {
		return 0, abi.ENOENT
	}
	return c.start(name, nil, g, in)
}

// chainPointer is for a function of the table; number says that it may take one.
func (c *Call) chainPointer(g guest, number bool) (int64, error) {
	if err := c.canChain("chain_ptr"); err != nil {
		return 0, err
	}
	entry := g.u32(0)
	if c.checked == nil || *c.checked != entry || c.number && !number { // most chain the same one many times
		if err := machine.CheckPointer(g.mod, entry, number); err != nil {
			return 0, err
		}
		c.checked, c.number = &entry, number
	}
	return c.start("", c.checked, g, 1)
}

// start makes a child whose input is at arguments in and the next.
func (c *Call) start(name string, entry *uint32, g guest, in int) (int64, error) {
	input, err := g.bytes(in, in+1)
	switch {
	case err != nil:
		return 0, err
	case len(input) > skein.MaxPayload:
		return 0, abi.EMSGSIZE
	}
	input = bytes.Clone(input)
	handle, err := waiting(c, func() (int32, error) { return c.Chain.Start(c, name, entry, input) })
	if err != nil {
		c.goOn()
	}
	return int64(handle), err
}

// await waits for a child. A call that ends while it waits ends here.
func (c *Call) await(g guest, handle int32) (*skein.Result, error) {
	if err := c.canChain("await_call"); err != nil {
		return nil, err
	}
	if _, err := c.waitAny(g, []int32{handle}, -1); err != nil {
		return nil, err
	}
	return c.Chain.Result(c, handle)
}

func (c *Call) waitAny(g guest, handles []int32, timeout time.Duration) (int, error) {
	var memory int64
	if g.mem != nil {
		memory = int64(g.mem.Size())
	}
	i, err := waiting(c, func() (int, error) { return c.Chain.Wait(c, handles, timeout, memory) })
	if err != nil {
		c.goOn()
	}
	return i, err
}

// exitCode is the answer of one who waits for a child.
func exitCode(res *skein.Result, err error) (int64, error) {
	switch {
	case res == nil:
		return 0, err
	case res.State == skein.Cancelled:
		return 0, abi.ECANCELED
	case res.State == skein.TimedOut:
		return 0, abi.ETIMEDOUT
	case res.State != skein.Succeeded && res.ExitCode == 0:
		return 0, abi.EIO
	}
	return int64(res.ExitCode), nil
}

func awaitAny(c *Call, g guest) (int64, error) {
	if err := c.canChain("await_any"); err != nil {
		return 0, err
	}
	n := g.u32(1)
	if n == 0 || n > skein.MaxChildren {
		return 0, abi.EINVAL
	}
	ids, err := g.at(g.u32(0), 4*n)
	if err != nil {
		return 0, err
	}
	handles := make([]int32, n)
	for i := range handles {
		handles[i] = int32(le.Uint32(ids[4*i:]))
	}
	i, err := c.waitAny(g, handles, time.Duration(g.i32(2))*time.Millisecond)
	return int64(i), err
}

func (c *Call) cancelChild(handle int32) error {
	if err := c.canChain("cancel_call"); err != nil {
		return err
	}
	return c.Chain.Cancel(c, handle)
}

// faasmAwaitOutput gives the output in memory of the guest's own.
func faasmAwaitOutput(c *Call, g guest) int64 {
	res, err := c.await(g, g.i32(0))
	code, e := exitCode(res, err)
	malloc := g.mod.ExportedFunction("malloc")
	if err != nil || e != nil || malloc == nil {
		return 1
	}
	if _, err := g.at(g.u32(1), 4); err != nil {
		return 1
	}
	if _, err := g.at(g.u32(2), 4); err != nil {
		return 1
	}
	size := uint32(len(res.Output))
	at, ok := allocate(c, malloc, max(size, 1)) // a pointer that can be freed, for nothing too
	if !ok {
		return 1
	}
	g.mem = g.mod.Memory()
	buf, err := g.at(at, size)
	if err != nil {
		return 1
	}
	copy(buf, res.Output)
	if g.put32(1, at) != nil || g.put32(2, size) != nil {
		return 1
	}
	return code
}

// allocate calls a guest's malloc; false if it isn't one or has no more.
func allocate(c *Call, malloc api.Function, size uint32) (uint32, bool) {
	def := malloc.Definition()
	takes, gives := def.ParamTypes(), def.ResultTypes()
	if len(takes) != 1 || takes[0] != api.ValueTypeI32 || len(gives) != 1 || gives[0] != api.ValueTypeI32 {
		return 0, false
	}
	stack := []uint64{uint64(size)}
	machine.Reenter(c, malloc, stack)
	return uint32(stack[0]), stack[0] != 0
}
