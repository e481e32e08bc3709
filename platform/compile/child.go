package compile

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"skein.dev/platform/fault"
)

// childName is what the child is started as: argv[0], which nobody types.
const childName = "skein: compile"

// Exit codes of the child. Any other is Go's, for a crash.
const (
	exitRefused = 10 + iota // the engine refuses the module; stdout says why
	exitTime
	exitMemory
	exitLoad
	exitSize   // the code is larger than maxCode
	exitFailed // it isn't the module's fault; stderr says why
)

// confined is the first that the child says, once its limits hold.
const confined = "confined\n"

// maxCode bounds the native code of a module, in bytes.
const maxCode = 1 << 30

// asked is set once Child was called. A program that doesn't would do in the child whatever it does, and have children.
var asked atomic.Bool

// Child makes this process the compiler, if Compile of another process of the same program started it, and then doesn't
// return. It is the first thing in main, and in TestMain of packages whose tests compile.
func Child() {
	asked.Store(true)
	if len(os.Args) != 3 || os.Args[0] != childName {
		return
	}
	os.Exit(child(os.Args[1], os.Args[2]))
}

func child(dir, limit string) (code int) {
	failed := func(err error) int {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return exitFailed
	}
	var limits Limits
	if err := json.Unmarshal([]byte(limit), &limits); err != nil {
		return failed(err)
	}
	wasm, err := io.ReadAll(os.Stdin)
	if err != nil {
		return failed(err)
	}
	if err := confine(limits); err != nil {
		return failed(err)
	}
	// The garbage collector works harder before the limit is hit; until then it may be lazy.
	debug.SetMemoryLimit(limits.Memory / 4 * 3)
	_, _ = io.WriteString(os.Stdout, confined)
	defer func() {
		if p := recover(); p != nil {
			code = report(fmt.Errorf("it breaks the compiler: %w", asError(p)))
		}
	}()
	if err := compileInto(context.Background(), dir, wasm); err != nil {
		return report(err)
	}
	// An engine that loads the code still decodes and validates the module, and can't be stopped in it. So that is tried here.
	before, err := processor()
	if err != nil {
		return failed(err)
	}
	if err := compileInto(context.Background(), dir, wasm); err != nil {
		return report(err)
	}
	if after, err := processor(); err != nil {
		return failed(err)
	} else if after-before > limits.Load {
		return exitLoad
	}
	return 0
}

// processor is the time of one that this process has had.
func processor() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

func asError(p any) error {
	if err, ok := p.(error); ok {
		return err
	}
	return fmt.Errorf("%v", p)
}

// report tells the parent why there is no code.
func report(err error) int {
	switch {
	case errors.Is(err, syscall.ENOMEM):
		return exitMemory
	case errors.Is(err, syscall.EFBIG):
		return exitSize
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return exitFailed
	}
	_, _ = fmt.Fprint(os.Stdout, err)
	return exitRefused
}

// inChild compiles wasm in a child process and gives the name and content of the file that the engine keeps its code in.
func inChild(ctx context.Context, wasm []byte, limits Limits) (name string, code []byte, err error) {
	broken := func(err error) error {
		return fault.Internal.New("COMPILER", "the compiler can't be run: %v", err)
	}
	if !asked.Load() {
		return "", nil, broken(errors.New("main, or TestMain, does not call compile.Child"))
	}
	self, err := executable()
	if err != nil {
		return "", nil, broken(err)
	}
	if other := otherProgram(); other != "" {
		self = other
	}
	dir, err := os.MkdirTemp("", "skein-compile-")
	if err != nil {
		return "", nil, broken(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()

	limited, cancel := context.WithTimeout(ctx, limits.Wall)
	defer cancel()
	cmd, err := command(limited, self, dir, limits)
	if err != nil {
		return "", nil, broken(err)
	}
	cmd.Stdin = bytes.NewReader(wasm)
	var out, log head
	cmd.Stdout, cmd.Stderr = &out, &log
	// The child gets its signal when the thread that started it ends, not the process: so this thread stays.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return "", nil, broken(err)
	}
	err = cmd.Wait()
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return "", nil, fault.From(ctx.Err())
	case limited.Err() != nil:
		return "", nil, tooCostly("more than %s to compile", limits.Wall)
	default:
		if err := verdict(cmd.ProcessState, out.String(), limits); err != nil {
			return "", nil, err
		}
		return "", nil, broken(fmt.Errorf("%w: %s", err, log.String()))
	}
	file, err := codeFile(dir)
	if err != nil {
		return "", nil, broken(err)
	}
	code, err = os.ReadFile(file)
	if err != nil {
		return "", nil, broken(err)
	}
	return filepath.Base(file), code, nil
}

func command(ctx context.Context, self, dir string, limits Limits) (*exec.Cmd, error) {
	limit, err := json.Marshal(limits)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Args = []string{childName, dir, string(limit)}
	cmd.Env = []string{"TMPDIR=" + dir, "GOMAXPROCS=1"} // and nothing of ours: there may be secrets
	cmd.Dir = dir
	cmd.SysProcAttr = ofChild()
	cmd.Cancel = func() error { return kill(cmd.Process) }
	cmd.WaitDelay = 5 * time.Second
	return cmd, nil
}

// verdict tells what the end of the child says of the module; nil if nothing.
func verdict(end *os.ProcessState, out string, limits Limits) error {
	if end == nil {
		return nil
	}
	why, limited := strings.CutPrefix(out, confined)
	if !limited {
		return nil
	}
	if status, ok := end.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return fault.Unavailable.New("COMPILER_LOST", "the compiler was killed, perhaps because the machine is out of memory").
			WithHint("try again; a machine that compiles needs %d MiB for it", limits.Memory>>20).WithRetry(10 * time.Second)
	}
	switch end.ExitCode() {
	case exitRefused:
		return refused(why)
	case exitTime:
		return tooCostly("more than %s of a processor to compile", limits.CPU)
	case exitLoad:
		return tooCostly("more than %s of a processor to load once it is compiled", limits.Load)
	case exitSize:
		return tooCostly("%d MiB of native code or more", maxCode>>20)
	case exitFailed:
		return nil
	}
	// A panic of the compiler is caught, so it is Go's runtime that could not go on: for lack of memory, which it says or
	// shows by a SIGSEGV of its garbage collector, or of stack.
	return tooCostly("more than %d MiB of memory to compile", limits.Memory>>20)
}

func refused(why string) *fault.Error {
	return fault.Invalid.New("BAD_MODULE", "the module does not compile: %s", why).
		WithHint("its structure is right and its code is not; build it again with a toolchain for wasm32-wasip1")
}

func tooCostly(format string, args ...any) *fault.Error {
	return fault.Invalid.New("MODULE_TOO_COSTLY", "the module takes %s", fmt.Sprintf(format, args...)).
		WithHint("split its largest functions in the source; code that a generator made large is the usual cause")
}

// head keeps the beginning of what is written to it, as text that may go into an error.
type head struct{ b []byte }

func (h *head) Write(p []byte) (int, error) {
	const most = 2 << 10
	h.b = append(h.b, p[:min(len(p), most-len(h.b))]...)
	return len(p), nil
}

func (h *head) String() string { return strings.ToValidUTF8(string(h.b), "?") }
