package compile

import (
	"bytes"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"skein.dev/platform/subprocess"
)

// executable is this program, even if its file was replaced or removed since.
func executable() (string, error) { return "/proc/self/exe", nil }

// ofChild gives the child a process group of its own, and its end with ours.
func ofChild() *syscall.SysProcAttr {
	return subprocess.Bound(syscall.SysProcAttr{Setpgid: true})
}

func kill(p *os.Process) error { return syscall.Kill(-p.Pid, syscall.SIGKILL) }

// Constants of <sys/resource.h> that package syscall doesn't have everywhere.
const (
	rlimitCPU   = 0
	rlimitFsize = 1
	rlimitData  = 2
	rlimitCore  = 4
)

// confine bounds this process. Memory is what it may map for writing, and not its address space, of which Go's runtime
// reserves much more than it uses and the race detector more than there is.
func confine(limits Limits) error {
	now, err := mapped()
	if err != nil {
		return err
	}
	// The kernel sends a signal first, so that we can say what it was. It counts in ticks, which need not be what it tells the
	// parent of the time in the end.
	over := make(chan os.Signal, 1)
	signal.Notify(over, syscall.SIGXCPU)
	go func() {
		<-over
		os.Exit(exitTime)
	}()
	data, cpu := now+uint64(limits.Memory), uint64((limits.CPU+time.Second-1)/time.Second)
	for _, l := range []struct {
		resource int
		limit    syscall.Rlimit
	}{
		{rlimitCore, syscall.Rlimit{}},
		{rlimitFsize, syscall.Rlimit{Cur: maxCode, Max: maxCode}},
		{rlimitCPU, syscall.Rlimit{Cur: cpu, Max: cpu + 1}},
		{rlimitData, syscall.Rlimit{Cur: data, Max: data}},
	} {
		if err := syscall.Setrlimit(l.resource, &l.limit); err != nil {
			return fmt.Errorf("limit %d of %d: %w", l.resource, l.limit.Max, err)
		}
	}
	// Should the system run out of memory in spite of all, it takes this process first.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	return nil
}

// mapped is what RLIMIT_DATA counts, in bytes.
func mapped() (uint64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, after, _ := bytes.Cut(status, []byte("VmData:"))
	var kib uint64
	if _, err := fmt.Sscanf(string(after), "%d kB", &kib); err != nil {
		return 0, fmt.Errorf("VmData in /proc/self/status: %w", err)
	}
	return kib << 10, nil
}
