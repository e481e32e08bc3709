package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"skein.dev/platform/subprocess"
)

// process is a child. It dies with us, however we end: the kernel kills it when the thread that started it is gone, and
// main keeps that thread.
type process struct {
	name string
	addr string
	cmd  *exec.Cmd
	said *said
	gone chan struct{} // closed once it has ended
}

const startTime = 30 * time.Second

// launch runs a program.
func launch(name, bin string, args ...string) (*process, error) {
	p := &process{name: name, cmd: exec.Command(bin, args...), said: &said{listening: make(chan string, 1)}, gone: make(chan struct{})}
	p.cmd.Env = environ()
	p.cmd.Stdout, p.cmd.Stderr = p.said, p.said
	p.cmd.SysProcAttr = subprocess.Bound(syscall.SysProcAttr{})
	p.cmd.WaitDelay = time.Second
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.gone)
	}()
	return p, nil
}

// start runs a program that says where it listens as platform/service does.
func start(ctx context.Context, name, bin string, args ...string) (*process, error) {
	p, err := launch(name, bin, args...)
	if err != nil {
		return nil, err
	}
	var why string
	select {
	case p.addr = <-p.said.listening:
		return p, nil
	case <-p.gone:
		why = "ended at once"
	case <-ctx.Done():
		why = ctx.Err().Error()
	case <-time.After(startTime):
		why = "does not say where it listens"
	}
	p.kill()
	return nil, fmt.Errorf("%s: %s\n%s", name, why, p.said)
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.gone
}

// cpuTime is the CPU time of this process and of others: all of their threads, those that have ended included.
func cpuTime(others []*process) (time.Duration, error) {
	var sum time.Duration
	for _, clock := range append(clocks(others), unix.CLOCK_PROCESS_CPUTIME_ID) {
		var t unix.Timespec
		if err := unix.ClockGettime(clock, &t); err != nil {
			return 0, fmt.Errorf("a process of the suite is gone: CPU clock: %w", err)
		}
		sum += time.Duration(t.Nano())
	}
	return sum, nil
}

// clocks are the ids of the processes' CPU clocks, as clock_getcpuclockid(3) makes them.
func clocks(procs []*process) []int32 {
	ids := make([]int32, 0, len(procs)+1)
	for _, p := range procs {
		const sched = 2 // by the scheduler's count, in nanoseconds
		ids = append(ids, ^int32(p.cmd.Process.Pid)<<3|sched)
	}
	return ids
}

// environ is ours without what would configure the suite from outside.
func environ() []string {
	return slices.DeleteFunc(os.Environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return strings.HasPrefix(name, "SKEIN_") || strings.HasPrefix(name, "OTEL_") || strings.HasSuffix(strings.ToLower(name), "_proxy")
	})
}

// said is the beginning of what a child writes, and finds the address in it.
type said struct {
	mu        sync.Mutex
	text      bytes.Buffer
	seen      int
	known     bool
	listening chan string
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(b[:min(len(b), max(0, 64<<10-s.text.Len()))])
	for !s.known {
		line, _, whole := bytes.Cut(s.text.Bytes()[s.seen:], []byte("\n"))
		if !whole {
			break
		}
		s.seen += len(line) + 1
		var entry struct{ Msg, Address string }
		if json.Unmarshal(line, &entry) == nil && entry.Msg == "listening" && entry.Address != "" {
			s.known = true
			s.listening <- entry.Address
		}
	}
	return len(b), nil
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}
