package machine

import (
	"context"
	"fmt"
)

// Guest is what a module runs under: the context of one call, which host functions get, and the machine's record of it.
type Guest interface {
	context.Context
	Meter() *Meter
}

// Meter is the machine's record of one run. Its zero value is ready.
type Meter struct {
	taint string
}

// Meter makes whatever embeds one a Guest.
func (m *Meter) Meter() *Meter { return m }

// Taint says that the run did what a snapshot can't repeat. The first reason is kept.
func (m *Meter) Taint(why string) {
	if m.taint == "" {
		m.taint = why
	}
}

// Tainted is the reason given to Taint, or empty.
func (m *Meter) Tainted() string { return m.taint }

// Waiting runs f, in which the guest waits for something outside of it.
func (m *Meter) Waiting(f func()) { f() }

// ExitCode is panicked by proc_exit: it ends the run and leaves the instance as it is.
type ExitCode uint32

func (c ExitCode) Error() string { return fmt.Sprintf("exit code %d", uint32(c)) }
