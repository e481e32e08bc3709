package executor

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The examples of chaining put out what their READMEs say.
func TestChainExamples(t *testing.T) {
	d, p := newDesk(t), newPlace(t)
	d.attach(t, p, 4)
	d.attach(t, p, 2)
	d.add(t, p, "echo", "../../examples/echo/c/echo.c", reactor)
	for _, e := range []struct{ dir, name, input string }{
		{"chain-fanout/c", "fanout", ""},
		{"chain-named/c", "named", ""},
		{"chain-named/go", "named", ""},
		{"fib/c", "fib", ""},
		{"fib/go", "fib", ""},
		{"pi-batch/c", "pi", "16"},
	} {
		t.Run(e.dir, func(t *testing.T) {
			dir := filepath.Join("../../examples", e.dir)
			if strings.HasSuffix(e.dir, "go") {
				if testing.Short() {
					t.Skip("it compiles a Go program")
				}
				out := filepath.Join(t.TempDir(), "guest.wasm")
				cmd := exec.Command("go", "build", "-buildmode=c-shared", "-o", out, ".")
				cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
				if msg, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%v\n%s", err, msg)
				}
				wasm, err := os.ReadFile(out)
				if err != nil {
					t.Fatal(err)
				}
				d.functions[e.name] = p.put(wasm)
			} else {
				sources, _ := filepath.Glob(filepath.Join(dir, "*.c"))
				d.add(t, p, e.name, sources[0], reactor)
			}
			readme, err := os.ReadFile(filepath.Join(dir, "README.md"))
			if err != nil {
				t.Fatal(err)
			}
			want := regexp.MustCompile("(?s)\nprints\n\n```\n(.*?)```").FindSubmatch(readme)
			if want == nil {
				t.Fatal("the README does not say what it prints")
			}
			d.want(t, e.name, e.input, string(want[1]))
		})
	}
}
