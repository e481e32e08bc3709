// Package skein is the guest side of Skein for functions written in Go: a call's input and output, calls of other
// functions, and state shared between functions, by its bytes or as a Counter, a Log, an Array or a Matrix. Build for GOOS=wasip1
// GOARCH=wasm.
//
// The simplest function is a command: each call starts the program, and its exit code is the call's.
//
//	package main
//
//	import skein "skein.dev/sdk/go"
//
//	func main() {
//		if err := skein.Output(skein.Input()); err != nil {
//			panic(err)
//		}
//	}
//
//	GOOS=wasip1 GOARCH=wasm go build -o echo.wasm
//
// A Go program takes tens of milliseconds to start. A reactor starts once, is frozen, and each call begins there: the
// host calls _initialize (which runs init functions and package variables, but not main) and then, for a call, the
// export handle, whose result is the exit code. State kept in variables between calls is not promised: a call may
// begin from the frozen program again. os.Args and the environment are the call's in handle; in init functions there is
// neither, nor input, state or files, and a program that asks for them there is not frozen but starts for every instance.
//
//	package main
//
//	import skein "skein.dev/sdk/go"
//
//	//go:wasmexport handle
//	func handle() int32 {
//		return skein.Exit(skein.Output(skein.Input()))
//	}
//
//	func main() {} // required, never called
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o echo.wasm
//
// Off wasip1 the package compiles, so that editors, vet and tests of the rest of a program work; its functions return
// ErrNotGuest.
package skein

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"skein.dev/sdk/go/internal/raw"
)

// ErrNotGuest is the error of every function in a program that no Skein host runs.
var ErrNotGuest = errors.New("skein: not running as a guest: build with GOOS=wasip1 GOARCH=wasm")

// Errno is an error number of WASI preview 1, which is how the host says what went wrong. Compare with errors.Is(err,
// skein.ENOENT).
type Errno int32

// Error returns the name and the meaning, such as "ENOENT: no such file or directory".
func (e Errno) Error() string {
	if e < 0 || int(e) >= len(errnos) {
		return fmt.Sprintf("errno %d", int32(e))
	}
	return errnos[e].name + ": " + errnos[e].text
}

// Is makes errors.Is(err, fs.ErrNotExist) and its like true where the number means that.
func (e Errno) Is(target error) bool {
	switch target {
	case os.ErrNotExist:
		return e == ENOENT
	case os.ErrExist:
		return e == EEXIST
	case os.ErrPermission:
		return e == EACCES || e == EPERM || e == ENOTCAPABLE
	case os.ErrInvalid:
		return e == EINVAL
	case os.ErrDeadlineExceeded:
		return e == ETIMEDOUT
	case errors.ErrUnsupported:
		return e == ENOSYS || e == ENOTSUP
	}
	return false
}

// Exit is the last line of a reactor's handle: 0 for nil; otherwise it writes err to the call's log and returns 1.
func Exit(err error) int32 {
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// Input returns the call's input. It is nil off wasip1 and where the input is empty.
func Input() []byte {
	// The input can't be refused: the only error is a bad pointer, and ours is good.
	in, _ := readAll(raw.ReadCallInput)
	return in
}

// Output makes data the call's output, replacing what was written before. EMSGSIZE if it is too large.
func Output(data []byte) error {
	return call("write output", "", raw.WriteCallOutput(bytesArg(data)))
}

// AppendOutput adds data to the call's output. EMSGSIZE if the output would become too large; nothing is added then.
func AppendOutput(data []byte) error {
	return call("append output", "", raw.AppendCallOutput(bytesArg(data)))
}

// ReadState returns a copy of the value under key: this executor's replica, pulled if there is none. ENOENT if absent.
func ReadState(key string) ([]byte, error) {
	k, n := keyArg(key)
	value, r := readAll(func(buf unsafe.Pointer, size uint32) int32 { return raw.ReadState(k, n, 0, buf, size) })
	return value, call("read state", key, r)
}

// SetState makes value the value under key in this executor's replica. PushState shows it to others.
func SetState(key string, value []byte) error {
	k, n := keyArg(key)
	v, size := bytesArg(value)
	return call("set state", key, raw.SetState(k, n, v, size))
}

// SetStateAt writes data into this executor's replica from offset, growing the value if it ends earlier.
func SetStateAt(key string, data []byte, offset int64) error {
	k, n := keyArg(key)
	v, size := bytesArg(data)
	return call("set state", key, raw.SetStateOffset(k, n, v, size, offset))
}

// PushState sends what this executor has changed of the value to everybody.
func PushState(key string) error {
	return call("push state", key, raw.PushState(keyArg(key)))
}

// PullState fetches what changed elsewhere, keeping what was changed here and not yet pushed. ENOENT if absent.
func PullState(key string) error {
	return call("pull state", key, raw.PullState(keyArg(key)))
}

// AppendState appends data to the shared value in one atomic step, creating it if absent, and returns the offset where
// it landed. PullState brings it into this executor's replica.
func AppendState(key string, data []byte) (offset int64, err error) {
	k, n := keyArg(key)
	v, size := bytesArg(data)
	offset = raw.AppendState(k, n, v, size)
	return max(offset, 0), call("append state", key, offset)
}

// StateSize returns the value's size in bytes. ENOENT if absent.
func StateSize(key string) (int64, error) {
	size := raw.StateSize(keyArg(key))
	return max(size, 0), call("size of state", key, size)
}

// DeleteState removes the value. ENOENT if absent.
func DeleteState(key string) error {
	return call("delete state", key, raw.DeleteState(keyArg(key)))
}

// readAll reads through a function that copies at most size bytes and answers the full size. It asks the size first,
// and again if the value grew in between.
func readAll(read func(buf unsafe.Pointer, size uint32) int32) ([]byte, int32) {
	var buf []byte
	for {
		n := read(bytesArg(buf))
		if n < 0 {
			return nil, n
		}
		if int(n) <= len(buf) {
			return buf[:n], n
		}
		buf = make([]byte, n)
	}
}

func bytesArg(b []byte) (unsafe.Pointer, uint32) {
	return unsafe.Pointer(unsafe.SliceData(b)), uint32(len(b))
}

func keyArg(key string) (unsafe.Pointer, uint32) {
	return unsafe.Pointer(unsafe.StringData(key)), uint32(len(key))
}

// call turns the host's answer into an error.
func call[T int32 | int64](what, key string, answer T) error {
	var err error
	switch {
	case answer >= 0:
		return nil
	case answer == raw.NotGuest:
		return ErrNotGuest
	default:
		err = Errno(-answer)
	}
	if key == "" {
		return fmt.Errorf("skein: %s: %w", what, err)
	}
	return fmt.Errorf("skein: %s %q: %w", what, key, err)
}
