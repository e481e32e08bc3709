package compile_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"skein.dev/platform/compile"
	"skein.dev/platform/fault"
)

// Each bomb is refused as one, or compiled: in time, and in bounded memory.
func TestBombs(t *testing.T) {
	limits := compile.Limits{Memory: 256 << 20, CPU: 2 * time.Second, Load: time.Second, Wall: 20 * time.Second}
	for name, bomb := range bombs {
		t.Run(name, func(t *testing.T) {
			b, peak, start := prepared(bomb()), watch(t), time.Now()
			a, err := compile.Compile(t.Context(), b, limits)
			took, most := time.Since(start), peak()
			if err == nil {
				t.Logf("%d bytes: compiled in %.1fs and %d MiB", len(b.Wasm), took.Seconds(), most>>20)
				if len(a.Code) == 0 {
					t.Error("there is no code")
				}
			} else {
				e := fault.From(err)
				t.Logf("%d bytes: %s after %.1fs and %d MiB: %s", len(b.Wasm), e.Reason, took.Seconds(), most>>20, e.Message)
				if e.Kind != fault.Invalid || e.Reason != "BAD_MODULE" && e.Reason != "MODULE_TOO_COSTLY" || e.Hint == "" || strings.Contains(e.Message, "goroutine") {
					t.Errorf("%+v", e)
				}
			}
			if took > limits.Wall+10*time.Second {
				t.Errorf("it took %s", took)
			}
			// The race detector has some memory for each byte of ours.
			if most > 2*limits.Memory {
				t.Errorf("the child had %d MiB", most>>20)
			}
		})
	}
}

// watch gives the largest resident set of a child until peak is called, in bytes, as far as it was seen.
func watch(t *testing.T) (peak func() int64) {
	stop, most := make(chan struct{}), make(chan int64)
	go func() {
		top := int64(0)
		for {
			select {
			case <-stop:
				most <- top
				return
			case <-time.After(2 * time.Millisecond):
			}
			for _, pid := range childrenOf(t, os.Getpid()) {
				if !compiles(pid) {
					continue
				}
				status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
				if _, after, ok := strings.Cut(string(status), "VmHWM:"); ok {
					kib, _ := strconv.ParseInt(strings.Fields(after)[0], 10, 64)
					top = max(top, kib<<10)
				}
			}
		}
	}()
	return func() int64 {
		close(stop)
		return <-most
	}
}

// What is left below a process, by its id.
func childrenOf(t *testing.T, pid int) (pids []int) {
	t.Helper()
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		b, _ := os.ReadFile(list) // its thread may have ended since
		for _, f := range strings.Fields(string(b)) {
			pid, err := strconv.Atoi(f)
			if err != nil {
				t.Error(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

// compiles tells a child that is one from a fork that has yet to become it, and has its parent's memory until then.
func compiles(pid int) bool {
	name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.HasPrefix(string(name), "skein: compile\x00")
}

// eventually waits for something, at most half a minute.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 600 {
		if ok() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}

func TestTypeError(t *testing.T) {
	for name, code := range map[string][]byte{"operand": {0x42, 1, 0x45, 0x1a}, "underflow": {0x1a}, "result": {0x41, 1}} {
		_, err := compile.Compile(t.Context(), prepared(wasm(0, code)), compile.DefaultLimits())
		wants(t, err, fault.Invalid, "BAD_MODULE")
		if m := fault.From(err).Message; !strings.Contains(m, "function") || strings.Contains(m, "breaks") || strings.Contains(m, "confined") {
			t.Errorf("%s: %s", name, m)
		}
	}
}

// Code that nobody reaches costs only the validator, but wherever it is loaded.
func TestLoadLimit(t *testing.T) {
	dead := slices.Concat([]byte{0}, repeat("\x00", 1), repeat("\x10\x01", 10_000), []byte{0x0b})
	b := slices.Concat([]byte("\x00asm\x01\x00\x00\x00"),
		section(1, []byte{2, 0x60, 0, 0, 0x60}, uleb(1000), repeat("\x7e", 1000), []byte{0}), section(3, []byte("\x02\x00\x01")),
		section(7, []byte("\x01\x06_start\x00\x00")),
		section(10, []byte{2}, uleb(len(dead)), dead, []byte{2, 0, 0x0b}))
	limits := compile.DefaultLimits()
	limits.Load = limits.CPU
	if _, err := compile.Compile(t.Context(), prepared(b), limits); err != nil {
		t.Error(err)
	}
	limits.Load = 5 * time.Millisecond
	_, err := compile.Compile(t.Context(), prepared(b), limits)
	wants(t, err, fault.Invalid, "MODULE_TOO_COSTLY")
	if m := fault.From(err).Message; !strings.Contains(m, "to load") {
		t.Error(m)
	}
}

func TestWallLimit(t *testing.T) {
	start := time.Now()
	_, err := compile.Compile(t.Context(), prepared(slow()), compile.Limits{Memory: 1 << 30, CPU: time.Minute, Load: time.Second, Wall: time.Second})
	wants(t, err, fault.Invalid, "MODULE_TOO_COSTLY")
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
	if left := childrenOf(t, os.Getpid()); len(left) > 0 {
		t.Errorf("children are left: %v", left)
	}
}

// A caller that goes away takes the child with it, and one that waits for its turn goes too.
func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 4)
	for range cap(errs) {
		go func() {
			_, err := compile.Compile(ctx, prepared(slow()), compile.DefaultLimits())
			errs <- err
		}()
	}
	eventually(t, "a child", func() bool { return len(childrenOf(t, os.Getpid())) > 0 })
	for range 20 {
		if n := len(childrenOf(t, os.Getpid())); n > 1 {
			t.Fatalf("%d children at the same time", n)
		}
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	for range cap(errs) {
		wants(t, <-errs, fault.Cancelled, "CANCELLED")
	}
	if left := childrenOf(t, os.Getpid()); len(left) > 0 {
		t.Errorf("children are left: %v", left)
	}
	make1(t, trap(1)) // and the next has its turn
}

func TestBusy(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = compile.Compile(ctx, prepared(slow()), compile.DefaultLimits())
	}()
	eventually(t, "a child", func() bool { return len(childrenOf(t, os.Getpid())) > 0 })
	_, err := compile.Compile(t.Context(), prepared(wasm(0, nil)), compile.Limits{Memory: 1 << 30, CPU: time.Second, Load: time.Second, Wall: 100 * time.Millisecond})
	wants(t, err, fault.Exhausted, "COMPILER_BUSY")
	cancel()
	<-done
}

// A child that something else kills, as a system without memory does, is no fault of the module.
func TestKilled(t *testing.T) {
	done := make(chan error, 1)
	go func() {
		_, err := compile.Compile(t.Context(), prepared(slow()), compile.DefaultLimits())
		done <- err
	}()
	eventually(t, "the child's limits", func() bool {
		for _, pid := range childrenOf(t, os.Getpid()) {
			if adj, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid)); err == nil && strings.TrimSpace(string(adj)) == "1000" {
				return syscall.Kill(pid, syscall.SIGKILL) == nil
			}
		}
		return false
	})
	wants(t, <-done, fault.Unavailable, "COMPILER_LOST")
}

// The child knows nothing of its parent's environment, has no file of it, and ends with it.
func TestParentKilled(t *testing.T) {
	parent := exec.CommandContext(t.Context(), "/proc/self/exe")
	parent.Env = append(os.Environ(), asParent+"=1", "AWS_SECRET_ACCESS_KEY=hush", "TMPDIR="+t.TempDir())
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var child int
	eventually(t, "a child", func() bool {
		for _, pid := range childrenOf(t, parent.Process.Pid) {
			if compiles(pid) {
				child = pid
			}
		}
		return child != 0
	})
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", child))
	if err != nil || strings.Contains(string(environ), "hush") || strings.Contains(string(environ), asParent) || !strings.Contains(string(environ), "GOMAXPROCS=1") {
		t.Errorf("the child's environment: %q %v", environ, err)
	}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", child))
	if err != nil || len(fds) == 0 {
		t.Fatal(fds, err)
	}
	for _, fd := range fds {
		if to, _ := os.Readlink(fd); strings.HasPrefix(to, "/etc/") {
			t.Errorf("the child has its parent's %s open", to)
		}
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	eventually(t, "the child's end", func() bool { return errors.Is(syscall.Kill(child, 0), syscall.ESRCH) || zombie(child) })
}

// zombie tells a process that has ended and that nobody has asked about, where no init does.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat), ") Z ")
}
