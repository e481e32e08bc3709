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
// compiler without, which takes a tenth of the time.
func Main(m *testing.M) int {
	compile.Child()
	if raceEnabled {
		dir, err := os.MkdirTemp("", "skein-compiler-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }()
		// A test binary like us: the engine calls itself otherwise in programs that know its version.
		compiler := filepath.Join(dir, "compiler")
		if out, err := exec.Command("go", "test", "-c", "-o", compiler, "skein.dev/platform/compile").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "compiling with the race detector, since there is no other: %v\n%s", err, out)
		} else {
			_ = os.Setenv("SKEIN_RACE_COMPILER", compiler)
		}
	}
	return m.Run()
}
