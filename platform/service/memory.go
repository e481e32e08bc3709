package service

import (
	"bytes"
	"os"
	"runtime/debug"
	"strconv"
)

// gcPercent is what the collector lets the heap grow by. Our live heaps are small and calls short-lived garbage: at Go's
// own 100 a planner spent a sixth of its time collecting, at 400 a tenth.
const gcPercent = 400

// tuneMemory sets the collector, where GOGC and GOMEMLIMIT don't say otherwise: it runs seldom, but before the container's
// memory limit ends the process.
func tuneMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	text, err := os.ReadFile("/sys/fs/cgroup/memory.max")
	if err != nil {
		return
	}
	if limit, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64); err == nil { // else it is "max"
		debug.SetMemoryLimit(limit / 10 * 9)
	}
}
