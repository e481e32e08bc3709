//go:build !linux

package machine

import "time"

func threadTime() (thread int, used time.Duration) { return 0, 0 }
