package machine

import (
	"time"

	"golang.org/x/sys/unix"
)

// threadTime is the thread that we are on and the CPU time that it has used; a thread of 0 says that it is not known.
func threadTime() (thread int, used time.Duration) {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil {
		return 0, 0
	}
	return unix.Gettid(), time.Duration(t.Nano())
}
