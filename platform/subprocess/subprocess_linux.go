// Package subprocess is for those who start processes that nobody would end after them: the compiler, tests and benchmarks.
package subprocess

import "syscall"

// Bound adds to how a process is started that it ends with us, however we end, where the system knows that. To Linux "us" is the
// thread that started it: one that could end before us is kept by runtime.LockOSThread.
func Bound(attr syscall.SysProcAttr) *syscall.SysProcAttr {
	attr.Pdeathsig = syscall.SIGKILL
	return &attr
}
