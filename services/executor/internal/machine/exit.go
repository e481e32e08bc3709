package machine

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
)

// Exit is how a run ended.
type Exit struct {
	State      skein.CallState
	Code       int32 // 0–255
	Reason     string
	Message    string
	Backtrace  string        // of the guest, after a trap
	MemoryPeak int64         // bytes of linear memory
	CPU        time.Duration // that the guest computed, waits in host functions not counted
}

// ExitCode is panicked by proc_exit: the guest ends with it.
type ExitCode uint32

func (e ExitCode) Error() string { return fmt.Sprintf("exit code %d", uint32(e)) }

// Abort is panicked by a host function that can't go on: the call fails with it.
type Abort struct{ Err error }

func (a Abort) Error() string { return a.Err.Error() }
func (a Abort) Unwrap() error { return a.Err }

// stopped is panicked at a yield when the call is over.
type stopped struct{}

func (stopped) Error() string { return "stopped" }

// overflow is panicked at a yield when the guest's stack is too large.
type overflow struct{}

func (overflow) Error() string { return "stack overflow" }

// engineOverflow is the engine's own word for it.
const engineOverflow = "stack overflow"

// classify turns what the engine says into how the call ended.
func classify(ctx context.Context, code uint32, err error) Exit {
	if exit, ok := errors.AsType[ExitCode](err); ok {
		code = uint32(exit)
		if code == 0 || ctx.Err() == nil {
			err = nil
		}
	}
	if err != nil && ctx.Err() != nil {
		return Interrupted(ctx)
	}
	if _, ok := errors.AsType[stopped](err); ok {
		return overdue() // and the context's own timer is about to say so
	}
	switch {
	case err == nil && code == 0:
		return Exit{State: skein.Succeeded}
	case err == nil:
		// The exit code is a byte, as everywhere; one that would read as success is not one.
		c := int32(code & 0xff)
		if c == 0 {
			c = 255
		}
		return Exit{State: skein.Failed, Code: c, Reason: "GUEST_EXIT", Message: fmt.Sprintf("the guest exited with code %d", c)}
	}
	if abort, ok := errors.AsType[Abort](err); ok {
		err = fault.From(abort.Err)
	} else if bug, ok := errors.AsType[runtime.Error](err); ok {
		err = fault.Internal.New("ENGINE", "the host failed: %v", bug)
	}
	if e, ok := errors.AsType[*fault.Error](err); ok {
		return Exit{State: skein.Failed, Reason: e.Reason, Message: e.Message}
	}
	name, trace, _ := strings.Cut(err.Error(), "\n")
	name = strings.TrimSuffix(strings.TrimPrefix(name, trapPrefix), " (recovered by wazero)")
	return Exit{State: skein.Failed, Reason: "GUEST_TRAP", Message: "the guest trapped: " + name, Backtrace: trace}
}

// trapPrefix begins every trap of the engine's.
const trapPrefix = "wasm error: "

// expected reports whether the engine is known to be in order after it returned err.
func expected(err error) bool {
	if err == nil || err.Error() == engineOverflow || strings.HasPrefix(err.Error(), trapPrefix) {
		return true
	}
	if _, ok := errors.AsType[runtime.Error](err); ok {
		return false
	}
	for _, ours := range []bool{is[ExitCode](err), is[Abort](err), is[stopped](err), is[overflow](err)} {
		if ours {
			return true
		}
	}
	return false
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// ErrCancelled is the cause of a context that ended on request.
var ErrCancelled = errors.New("the call was cancelled")

// Interrupted is the end of a call whose context is done.
func Interrupted(ctx context.Context) Exit {
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, ErrCancelled):
		return Exit{State: skein.Cancelled, Reason: "CANCELLED", Message: "the call was cancelled"}
	case errors.Is(cause, context.DeadlineExceeded):
		return overdue()
	}
	return Exit{State: skein.Failed, Reason: "EXECUTOR_LOST", Message: "the executor stopped: " + cause.Error()}
}

func overdue() Exit {
	return Exit{State: skein.TimedOut, Reason: "DEADLINE", Message: "the call's deadline passed"}
}
