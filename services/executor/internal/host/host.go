// Package host is the host side of the interface in skein.dev/abi: one file per room, each a map from rows to functions
// that decode the guest's memory and call what gives them meaning. Link makes the engine's host modules of it and refuses
// to start when rows and functions don't match.
package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"skein.dev"
	"skein.dev/abi"
	"skein.dev/platform/fault"
	"skein.dev/services/executor/internal/machine"
	"skein.dev/services/executor/internal/replica"
	"skein.dev/services/executor/internal/vfs"
)

// Aliases, so that the fields which Call embeds don't hide the methods Meter and Space.
type (
	meter = machine.Meter
	space = machine.Space
)

// Call is a running call as the rows see it. It is the context that the guest runs under, so that a host function gets to
// it without a look-up, and all that the host keeps for a guest is in it: nothing of a call stays with the instance. Its
// fields are set before the run and not changed during it, but for Output.
type Call struct {
	context.Context // ends with the call's deadline or cancellation
	meter
	space
	ID       skein.CallID
	Attempt  int32
	Function skein.Function
	// Boot is set while the machine makes a snapshot: nobody called. There is no input, no file and no state; a row that asks
	// for one fails with EPERM, or finds nothing, and taints the snapshot.
	Boot bool

	Args           []string             // argv; the first is the function's name
	Env            func(*Call) []string // "NAME=value" each; asked for when the guest does, which few do; nil is none
	Input          []byte
	Stdin          io.Reader // must not block; nil is empty
	Stdout, Stderr io.Writer // nil keeps nothing
	Files          vfs.Setup // what the guest's tree is made of
	Log            *Log      // gets what the host says to the function's author; nil keeps nothing
	State          *replica.Store
	Chain          *Chain // nil for a call that can't make others
	// Park waits for what the call can't go on without, and lets others have its slot meanwhile; memory is what it keeps, in
	// bytes. Nil just waits.
	Park func(c *Call, memory int64, wait func() error) error

	Output []byte

	overflowed bool             // what it wrote to its output stream was too much
	state      *replica.Session // nil until it is used
	keys       []skein.StateKey // of values it used, the last first
	lastError  abi.Errno
	noted      map[string]bool // what the log has been told already
	table      *vfs.Table      // of descriptors; made when the first is used
	buffers    [][]byte        // of the last vector, for the next
	checked    *uint32         // the entry of the function table that was chained last
	number     bool            // it may take one
	heap       bool            // the guest's allocator has its memory
	pages      pages           // of memory that mmap has
}

// Moved is what the state service was asked for, and given, for this call.
func (c *Call) Moved() replica.Traffic {
	if c.state == nil {
		return replica.Traffic{}
	}
	return c.state.Moved()
}

// End releases what the call holds; it must follow the run, however that ended, and before anybody is told how.
func (c *Call) End() {
	if c.state != nil {
		c.state.End()
	}
	if c.table != nil {
		c.table.End()
	}
}

// Publish puts what the call wrote to files of the shared tree itself that it left open.
func (c *Call) Publish() error {
	if c.table == nil {
		return nil
	}
	return c.table.Publish(c)
}

// FilesRead is how many bytes of files the call has read.
func (c *Call) FilesRead() int64 {
	if c.table == nil {
		return 0
	}
	return c.table.BytesRead()
}

// usedKeys bounds what is remembered of a call's use of state.
const usedKeys = 4

// Keys are those of the values that the call used, the last first; of many only a few.
func (c *Call) Keys() []skein.StateKey { return c.keys }

func (c *Call) uses(k skein.StateKey) {
	if len(c.keys) > 0 && c.keys[0] == k {
		return
	}
	i := slices.Index(c.keys, k)
	switch {
	case i < 0 && len(c.keys) < usedKeys:
		c.keys = append(c.keys, k)
		i = len(c.keys) - 1
	case i < 0:
		i = usedKeys - 1
	}
	copy(c.keys[1:], c.keys[:i])
	c.keys[0] = k
}

// stateKey is the key of a value of the function's user.
func (c *Call) stateKey(name string) (skein.StateKey, error) {
	k, err := skein.NewStateKey(string(c.Function.User), name)
	if err == nil {
		c.uses(k)
	}
	return k, err
}

// Say tells the function's author something, once for each call.
func (c *Call) Say(what string) {
	if c.noted[what] || c.Log == nil || len(c.noted) == skein.MaxChildren {
		return
	}
	if c.noted == nil {
		c.noted = map[string]bool{}
	}
	c.noted[what] = true
	fmt.Fprintf(c.Log, "skein: %s\n", what)
}

func (c *Call) env() []string {
	if c.Env == nil {
		return nil
	}
	return c.Env(c)
}

// outside is asked by rows that show a guest the world outside its instance: EPERM, and the end of the snapshot, for a boot.
func (c *Call) outside(what string) error {
	if !c.Boot {
		return nil
	}
	c.Meter().Taint(what)
	return abi.EPERM
}

// waiting runs f as time that the guest waits, not computes.
func waiting[T any](c *Call, f func() (T, error)) (v T, err error) {
	c.Meter().Waiting(func() { v, err = f() })
	return v, err
}

// wait is waiting for what has no result.
func wait(c *Call, f func() error) (err error) {
	c.Meter().Waiting(func() { err = f() })
	return err
}

// row is a host function: it decodes its arguments from g and returns the result's bits.
type row func(c *Call, g guest) int64

// room is the functions of one file, by "module.name".
type room map[string]row

// rooms in the order of the abi. Those that are missing are not begun.
var rooms = []room{ioRoom, chainRoom, stateRoom, faasmState, memoryRoom, fsRoom, wasiProcess, wasiFD, wasiPath, wasiSock}

// Link makes the host modules on a runtime.
func Link(ctx context.Context, rt wazero.Runtime) error {
	funcs, err := match(abi.Rows(), rooms)
	if err != nil {
		return err
	}
	builders := map[string]wazero.HostModuleBuilder{}
	for _, r := range abi.Rows() {
		b := builders[r.Module]
		if b == nil {
			b = rt.NewHostModuleBuilder(r.Module)
			builders[r.Module] = b
		}
		names := make([]string, len(r.Params))
		for i, p := range r.Params {
			names[i] = p.Name
		}
		b.NewFunctionBuilder().
			WithGoModuleFunction(enter(r, funcs[key(r)]), r.Signature.Params, r.Signature.Results).
			WithParameterNames(names...).Export(r.Name)
	}
	for name, b := range builders {
		if _, err := b.Instantiate(ctx); err != nil {
			return fmt.Errorf("host module %s: %w", name, err)
		}
	}
	return nil
}

func key(r abi.Row) string { return r.Module + "." + r.Name }

// match pairs rows with functions. A row that claims to work needs one; a row that doesn't must not have one.
func match(rows []abi.Row, rooms []room) (room, error) {
	all := room{}
	for _, r := range rooms {
		for name, fn := range r {
			if all[name] != nil {
				return nil, fmt.Errorf("host: %s has two functions", name)
			}
			all[name] = fn
		}
	}
	var bad []string
	seen := map[string]bool{}
	for _, r := range rows {
		seen[key(r)] = true
		switch fn := all[key(r)]; {
		case fn == nil && r.Support != abi.Planned:
			bad = append(bad, key(r)+" is "+r.Support.String()+" in the abi and has no function")
		case fn != nil && r.Support == abi.Planned:
			bad = append(bad, key(r)+" has a function and is planned in the abi")
		}
	}
	for name := range all {
		if !seen[name] {
			bad = append(bad, name+" has a function and no row in the abi")
		}
	}
	if len(bad) > 0 {
		slices.Sort(bad)
		return nil, errors.New("host: " + strings.Join(bad, "; "))
	}
	return all, nil
}

// enter is the way from the engine into a row.
func enter(r abi.Row, fn row) api.GoModuleFunc {
	if fn == nil {
		fn = unbuilt(r)
	}
	returns := len(r.Signature.Results) > 0
	return func(ctx context.Context, mod api.Module, stack []uint64) {
		v := fn(ctx.(*Call), guest{mod, mod.Memory(), stack})
		if returns {
			stack[0] = uint64(v)
		}
	}
}

// unbuilt answers for a row that does not work yet: an errno in the form that the row's callers look at, and a line in the
// call's log, so that nobody takes it for a success.
func unbuilt(r abi.Row) row {
	enosys := int64(abi.ENOSYS)
	answer := func(*Call) int64 { return 0 }
	switch {
	case strings.Contains(r.Result, "*"):
		answer = func(c *Call) int64 { c.lastError = abi.ENOSYS; return 0 }
	case r.Result == "double":
		answer = func(*Call) int64 { return int64(math.Float64bits(math.NaN())) }
	case strings.HasPrefix(r.Name, "pthread_"), r.Module == abi.WASI:
		answer = func(*Call) int64 { return enosys } // these return the number itself
	case len(r.Signature.Results) > 0 && r.Signature.Results[0] == abi.I32:
		answer = func(*Call) int64 { return int64(uint32(-int32(enosys))) }
	case len(r.Signature.Results) > 0:
		answer = func(*Call) int64 { return -enosys }
	}
	return func(c *Call, _ guest) int64 {
		c.Say(key(r) + " is not built yet (ENOSYS): " + r.Note)
		return answer(c)
	}
}

// guest is the caller of a row: its arguments and its memory.
type guest struct {
	mod   api.Module
	mem   api.Memory // nil if the module has none
	stack []uint64
}

func (g guest) u32(i int) uint32 { return uint32(g.stack[i]) }
func (g guest) i32(i int) int32  { return int32(g.stack[i]) }
func (g guest) i64(i int) int64  { return int64(g.stack[i]) }

// bytes is the guest's own memory at arguments ptr and size, not a copy: it is valid until the row returns. EFAULT if it
// is not all inside.
func (g guest) bytes(ptr, size int) ([]byte, error) {
	return g.at(g.u32(ptr), g.u32(size))
}

func (g guest) at(ptr, size uint32) ([]byte, error) {
	if size == 0 {
		return nil, nil // C programs have any pointer for nothing
	}
	if g.mem == nil {
		return nil, abi.EFAULT
	}
	b, ok := g.mem.Read(ptr, size)
	if !ok {
		return nil, abi.EFAULT
	}
	return b, nil
}

// str is the NUL-terminated string at argument ptr, of at most most bytes without the NUL; EINVAL if it is longer.
func (g guest) str(ptr, most int) (string, error) {
	if g.mem == nil {
		return "", abi.EFAULT
	}
	at := g.u32(ptr)
	if at >= g.mem.Size() {
		return "", abi.EFAULT
	}
	n := min(uint32(most)+1, g.mem.Size()-at)
	b, ok := g.mem.Read(at, n)
	if !ok {
		return "", abi.EFAULT
	}
	end := slices.Index(b, 0)
	switch {
	case end >= 0:
		return string(b[:end]), nil
	case n <= uint32(most):
		return "", abi.EFAULT // memory ends before the string does
	}
	return "", abi.EINVAL
}

// errno is the number that a guest gets for err.
func errno(err error) abi.Errno {
	if e, ok := errors.AsType[abi.Errno](err); ok {
		return e
	}
	return abi.Errno(fault.From(err).Kind.Errno)
}

// negative is a native row's answer: v, or -errno.
func negative(v int64, err error) int64 {
	if err != nil {
		return -int64(errno(err))
	}
	return v
}

// i32 is negative for a row whose result is an i32: the engine wants its upper half clear.
func i32(v int64, err error) int64 { return int64(uint32(int32(negative(v, err)))) }

// abort ends the call from a row that has no way to tell an error.
func abort(row string, err error) {
	if e, ok := errors.AsType[abi.Errno](err); ok {
		err = fault.Invalid.New("HOST_CALL_FAILED", "%s: %s", row, e)
	}
	panic(machine.Abort{Err: err})
}
