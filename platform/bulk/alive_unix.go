//go:build unix

package bulk

import (
	"net"
	"syscall"
)

// alive says whether the other side has neither closed a connection nor said something while nobody asked.
func alive(c net.Conn) bool {
	s, ok := c.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return false
	}
	quiet := false
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		quiet = err == syscall.EAGAIN //nolint:errorlint // an errno
	})
	return err == nil && quiet
}
