// Package compiletest lets tests compile modules.
package compiletest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"skein.dev/platform/compile"
)

// Main is the TestMain of a package whose tests compile: os.Exit(compiletest.Main(m)). Under the race detector it builds a
// compiler without, which takes a tenth of the time: of program, a main package that calls compile.Child, or of the tests
// of package compile if that is empty. It must be what the engine calls itself the same in as in the package's own test
// binary: with its version in tests of a main package, without in others.
func Main(m *testing.M, program string) int {
	compile.Child()
	if raceEnabled {
		dir, err := os.MkdirTemp("", "skein-compiler-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }()
		compiler := filepath.Join(dir, "compiler")
		args := []string{"test", "-c", "-o", compiler, "skein.dev/platform/compile"}
		if program != "" {
			args = []string{"build", "-o", compiler, program}
		}
		if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "compiling with the race detector, since there is no other: %v\n%s", err, out)
		} else {
			_ = os.Setenv("SKEIN_RACE_COMPILER", compiler)
		}
	}
	return m.Run()
}
