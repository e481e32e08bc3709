package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// binDir has what a test run builds; Main makes and removes it.
var binDir string

// Main is the TestMain of a package that uses this one: os.Exit(cluster.Main(m)).
func Main(m *testing.M) int {
	dir, err := os.MkdirTemp("", "skein-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binDir = dir
	return m.Run()
}

// Root is the repository's.
func Root() string {
	_, file, _, ok := runtime.Caller(0)
	if root := filepath.Dir(filepath.Dir(filepath.Dir(file))); ok && filepath.IsAbs(root) {
		return root
	}
	dir, err := os.Getwd() // built with -trimpath: look for the root from the package's directory up
	for ; err == nil && dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir
		}
	}
	panic("cluster: no go.work above the working directory")
}

// RequireTools reports whether a missing server or tool is a failure rather than a reason to skip.
func RequireTools() bool {
	v := os.Getenv("SKEIN_REQUIRE_TOOLS")
	return v != "" && v != "0"
}

// missing ends a test for lack of a tool.
func missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if RequireTools() {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

const buildTime = 15 * time.Minute // with a cold cache, under the race detector, on a busy machine

// Services are the five, by the names of their binaries.
var Services = []string{"planner", "executor", "state", "upload", "fs"}

var buildAll = sync.OnceValue(func() error {
	if binDir == "" {
		return fmt.Errorf("TestMain must be: os.Exit(cluster.Main(m))")
	}
	args := []string{"build", "-o", binDir + "/"}
	if raceEnabled {
		args = append(args, "-race")
		if err := run(Root(), nil, "go", "build", "-o", compiler(), "./services/upload/cmd/upload"); err != nil {
			return err
		}
	}
	args = append(args, "./cmd/skein")
	for _, s := range Services {
		args = append(args, "./services/"+s+"/cmd/"+s)
	}
	return run(Root(), nil, "go", args...)
})

// compiler is a program without the race detector that compiles modules for those that have it.
func compiler() string { return filepath.Join(binDir, "compiler") }

// Bin gives the path of a binary: skein or one of the five services. All are built at the first request of a test run,
// with the race detector if the test has it.
func Bin(t testing.TB, name string) string {
	t.Helper()
	if err := buildAll(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(binDir, name)
}

// BinDir is the directory of the binaries, for a PATH.
func BinDir(t testing.TB) string { return filepath.Dir(Bin(t, "skein")) }

// run executes a build step in the workspace.
func run(dir string, env []string, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), buildTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "GOWORK="+filepath.Join(Root(), "go.work")), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
