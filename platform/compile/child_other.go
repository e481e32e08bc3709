//go:build !linux

package compile

import (
	"os"
	"syscall"
)

func executable() (string, error) { return os.Executable() }

func ofChild() *syscall.SysProcAttr { return nil }

func kill(p *os.Process) error { return p.Kill() }

// confine does nothing here: the parent bounds the child's time, and that is all.
func confine(Limits) error { return nil }
