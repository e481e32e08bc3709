package skein

import (
	"errors"
	"fmt"
	"math"
	"time"
	"unsafe"

	"skein.dev/sdk/go/internal/raw"
)

// Child is a call that this one has made. It means something only in this call; the zero value is no child.
type Child struct {
	handle int32
	name   string
}

// Chain starts a call of the same user's function name and returns at once. ENOENT if there is no such function, EAGAIN
// if this call has too many children or too many calls above it, or if calls that wait keep too much memory, EMSGSIZE if the input is too large. Children that still
// run when this call ends go on by themselves.
//
// C programs can also chain a function of their own by its pointer. Go has no such thing: what it could point at needs the
// runtime, which a call by pointer does not start. Let a function chain its own name, and look at the input.
func Chain(name string, input []byte) (Child, error) {
	n, size := keyArg(name)
	in, inSize := bytesArg(input)
	handle := raw.ChainName(n, size, in, inSize)
	return Child{max(handle, 0), name}, call("chain", name, handle)
}

// Await waits for the child to end and returns its exit code, 0 to 255. ECANCELED if it was cancelled, ETIMEDOUT if it
// passed its deadline, EIO if it failed without an exit code; the error says why.
func (c Child) Await() (exit int, err error) {
	answer := raw.AwaitCall(c.handle)
	return max(int(answer), 0), c.because(call("await", c.name, answer))
}

// Output waits for the child to end and returns its output. Errors are those of Await; an exit code is none.
func (c Child) Output() ([]byte, error) {
	out, answer := readAll(func(buf unsafe.Pointer, size uint32) int32 { return raw.AwaitCallOutput(c.handle, buf, size) })
	return out, c.because(call("await output", c.name, answer))
}

// because adds to an error what the host knows of it.
func (c Child) because(err error) error {
	if !errors.Is(err, EIO) {
		return err
	}
	return fmt.Errorf("%w: %w", err, c.Err())
}

// Err is why the child failed, nil if it succeeded. EAGAIN if it has not ended.
func (c Child) Err() error {
	why, answer := readAll(func(buf unsafe.Pointer, size uint32) int32 { return raw.CallError(c.handle, buf, size) })
	if err := call("error of", c.name, answer); err != nil || len(why) == 0 {
		return err
	}
	return errors.New(string(why))
}

// Cancel asks the child to stop and does not wait for it. One that has ended stays as it is.
func (c Child) Cancel() error { return call("cancel", c.name, raw.CancelCall(c.handle)) }

// AwaitAny waits until one of the children has ended and returns its index; the lowest if several have. EINVAL without
// any.
func AwaitAny(children ...Child) (int, error) { return awaitAny(-1, children) }

// AwaitAnyFor is AwaitAny, but gives up after timeout, in whole milliseconds: EAGAIN. One of 0 or less only looks.
func AwaitAnyFor(timeout time.Duration, children ...Child) (int, error) {
	return awaitAny(int32(min(max(timeout.Milliseconds(), 0), math.MaxInt32)), children)
}

func awaitAny(milliseconds int32, children []Child) (int, error) {
	handles := make([]int32, len(children))
	for i, c := range children {
		handles[i] = c.handle
	}
	i := raw.AwaitAny(unsafe.Pointer(unsafe.SliceData(handles)), uint32(len(handles)), milliseconds)
	return max(int(i), 0), call("await any", "", i)
}
