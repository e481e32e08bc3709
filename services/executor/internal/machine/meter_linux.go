package machine

import (
	"time"

	"golang.org/x/sys/unix"
)

// threadTime is the thread that we are on and the CPU time that it has used; a thread of 0 says that it is not known.
func threadTime() (thread int, used time.Duration) {
	var t unix.Timespec
	before := unix.Gettid()
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil || unix.Gettid() != before {
		return 0, 0
	}
	return before, time.Duration(t.Nano())
}
