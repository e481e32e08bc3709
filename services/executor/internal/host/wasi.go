package host

import (
	"crypto/rand"
	"encoding/binary"
	"runtime"
	"time"

	"skein.dev/abi"
	"skein.dev/services/executor/internal/machine"
	"skein.dev/services/executor/internal/vfs"
)

var le = binary.LittleEndian

// preview1 makes a room of functions that answer with an errno.
func preview1(rows map[string]func(*Call, guest) error) room {
	r := room{}
	for name, fn := range rows {
		r[abi.WASI+"."+name] = func(c *Call, g guest) int64 {
			if err := fn(c, g); err != nil {
				return int64(errno(err))
			}
			return 0
		}
	}
	return r
}

var wasiProcess = preview1(map[string]func(*Call, guest) error{
	"args_get":          func(c *Call, g guest) error { return putStrings(g, c.Args) },
	"args_sizes_get":    func(c *Call, g guest) error { return putSizes(g, c.Args) },
	"environ_get":       func(c *Call, g guest) error { return putStrings(g, c.env()) },
	"environ_sizes_get": func(c *Call, g guest) error { return putSizes(g, c.env()) },

	"clock_res_get": func(_ *Call, g guest) error {
		if _, err := now(g.u32(0)); err != nil {
			return err
		}
		return g.put64(1, 1)
	},
	"clock_time_get": func(_ *Call, g guest) error {
		t, err := now(g.u32(0))
		if err != nil {
			return err
		}
		return g.put64(2, uint64(t))
	},
	"random_get": func(c *Call, g guest) error {
		buf, err := g.bytes(0, 1)
		for err == nil && len(buf) > 0 {
			c.goOn()
			n := min(len(buf), 1<<20)
			_, err = rand.Read(buf[:n])
			buf = buf[n:]
		}
		return err
	},
	"sched_yield": func(*Call, guest) error {
		runtime.Gosched()
		return nil
	},
	"poll_oneoff": poll,
	"proc_raise":  raise,
	"proc_exit": func(_ *Call, g guest) error {
		panic(machine.ExitCode(g.u32(0)))
	},
})

// Signals of preview 1 that by default do nothing to a process; 30 is the last there is.
var harmless = map[uint32]bool{0: true, 16: true, 17: true, 22: true, 27: true} // none, CHLD, CONT, URG, WINCH

const lastSignal = 30

// raise does what a signal does to a process that does not handle it: nobody can here. A shell would show the same exit code.
func raise(_ *Call, g guest) error {
	switch signal := g.u32(0); {
	case signal > lastSignal:
		return abi.EINVAL
	case harmless[signal]:
		return nil
	default:
		panic(machine.ExitCode(128 + signal))
	}
}

// goOn ends a call that is over: for rows that can be long at work without waiting.
func (c *Call) goOn() {
	if err := c.Err(); err != nil {
		panic(machine.Abort{Err: err})
	}
}

// putSizes stores how many strings there are and how many bytes they need.
func putSizes(g guest, list []string) error {
	size := 0
	for _, s := range list {
		size += len(s) + 1
	}
	if err := g.put32(0, uint32(len(list))); err != nil {
		return err
	}
	return g.put32(1, uint32(size))
}

// putStrings stores the strings where the second argument points, and their addresses where the first does.
func putStrings(g guest, list []string) error {
	size := 0
	for _, s := range list {
		size += len(s) + 1
	}
	addrs, err := g.at(g.u32(0), uint32(4*len(list)))
	if err != nil {
		return err
	}
	text, err := g.at(g.u32(1), uint32(size))
	if err != nil {
		return err
	}
	at := g.u32(1)
	for i, s := range list {
		le.PutUint32(addrs[4*i:], at)
		n := copy(text, s)
		text[n] = 0
		text = text[n+1:]
		at += uint32(n + 1)
	}
	return nil
}

// The clocks of preview 1.
const (
	clockRealtime  = 0
	clockMonotonic = 1
	clockProcess   = 2
	clockThread    = 3
)

// started gives the monotonic clock its base.
var started = time.Now()

// now is the time of a clock in nanoseconds. The monotonic one goes on where the wall clock was when this process began: a
// guest that was restored from another executor's snapshot has seen its clock, which began earlier.
func now(clock uint32) (int64, error) {
	switch clock {
	case clockRealtime:
		return time.Now().UnixNano(), nil
	case clockMonotonic:
		return started.UnixNano() + int64(time.Since(started)), nil
	case clockProcess, clockThread:
		return 0, abi.ENOTSUP
	}
	return 0, abi.EINVAL
}

// files is the call's table of descriptors.
func (c *Call) files() *vfs.Table {
	if c.table == nil {
		setup := c.Files
		if c.Boot {
			setup = vfs.Setup{} // nobody's files; what it writes goes with it
		}
		c.table = vfs.NewTable(setup, c.Stdin, c.Stdout, c.Stderr)
	}
	return c.table
}

// put32 stores v where argument i points.
func (g guest) put32(i int, v uint32) error {
	b, err := g.at(g.u32(i), 4)
	if err == nil {
		le.PutUint32(b, v)
	}
	return err
}

// put64 stores v where argument i points.
func (g guest) put64(i int, v uint64) error {
	b, err := g.at(g.u32(i), 8)
	if err == nil {
		le.PutUint64(b, v)
	}
	return err
}
