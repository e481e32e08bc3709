//go:build !linux

package subprocess

import "syscall"

// Bound changes nothing here: what we don't end goes on after us.
func Bound(attr syscall.SysProcAttr) *syscall.SysProcAttr { return &attr }
