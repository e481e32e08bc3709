//go:build race

package compile

import "os"

// otherProgram is run as the child in place of this one, for tests: under the race detector the compiler takes ten times as
// long, and it has one thread.
func otherProgram() string { return os.Getenv("SKEIN_RACE_COMPILER") }
