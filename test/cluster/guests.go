package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// guests are built once for a test run, each when it is first asked for.
var guests sync.Map // name → func() (string, error)

// errNoC is wrapped where the toolchain for guests in C is missing.
var errNoC = errors.New("no clang with a WASI sysroot (Debian: apt-get install clang lld wasi-libc libclang-rt-dev-wasm32; `make test` does)")

// Guest gives the path of a guest's module: "echo-go", "echo-c", "chain-named-c" and so on of examples/, "calls", "shared", "files", "keeper" and "sharing" of
// testdata, "plain-c" and "plain-go" there, "objects-c" and "objects-go" of the SDKs, or one that is assembled here (see wasm.go). Without clang, a test that
// wants a guest in C is skipped, or fails if
// SKEIN_REQUIRE_TOOLS is set.
func Guest(t testing.TB, name string) string {
	t.Helper()
	file, err := BuildGuest(name)
	if errors.Is(err, errNoC) {
		missing(t, "guest %s: %v", name, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// BuildGuest is Guest for a caller who has no test at hand.
func BuildGuest(name string) (string, error) {
	build, _ := guests.LoadOrStore(name, sync.OnceValues(func() (string, error) { return buildGuest(name) }))
	return build.(func() (string, error))()
}

func buildGuest(name string) (string, error) {
	if binDir == "" {
		return "", errors.New("TestMain must be: os.Exit(cluster.Main(m))")
	}
	out := filepath.Join(binDir, name+".wasm")
	if bytes, ok := assembled[name]; ok {
		return out, os.WriteFile(out, bytes(), 0o644)
	}
	if name == "calls" || name == "shared" || name == "files" || name == "keeper" {
		return out, buildC(out, []string{"test/cluster/testdata/" + name + ".c"}, "-mexec-model=reactor")
	}
	switch name { // plain programs, and guests of the SDKs' own tests
	case "plain-c":
		return out, buildC(out, []string{"test/cluster/testdata/plain.c"})
	case "sharing":
		return out, buildC(out, []string{"test/cluster/testdata/sharing.c"})
	case "plain-go":
		return out, run(filepath.Join(Root(), "test"), []string{"GOOS=wasip1", "GOARCH=wasm"}, "go", "build", "-o", out, "./cluster/testdata/plain")
	case "objects-c":
		return out, buildC(out, []string{"sdk/c/testdata/objects.c"}, "-mexec-model=reactor")
	case "objects-go":
		return out, run(filepath.Join(Root(), "sdk/go"), []string{"GOOS=wasip1", "GOARCH=wasm"}, "go", "build", "-buildmode=c-shared", "-o", out, "./testdata/objects")
	}
	cut := strings.LastIndexByte(name, '-')
	example, language := name[:max(cut, 0)], name[cut+1:]
	dir := filepath.Join(Root(), "examples", example, language)
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("no guest is called %q: %w", name, err)
	}
	switch language {
	case "go":
		args := []string{"build", "-o", out}
		if reactor(example) {
			args = append(args, "-buildmode=c-shared")
		}
		return out, run(dir, []string{"GOOS=wasip1", "GOARCH=wasm"}, "go", append(args, ".")...)
	case "c":
		sources, err := filepath.Glob(filepath.Join(dir, "*.c"))
		if err != nil {
			return "", err
		}
		if reactor(example) {
			return out, buildC(out, sources, "-mexec-model=reactor")
		}
		return out, buildC(out, sources)
	}
	return "", fmt.Errorf("guest %q: no such language", name)
}

func buildC(out string, sources []string, more ...string) error {
	if err := haveC(); err != nil {
		return err
	}
	args := strings.Fields(`--target=wasm32-wasi --sysroot=/usr -O3 -msimd128 -mbulk-memory -mnontrapping-fptoint -msign-ext
		-ftls-model=local-exec -Isdk/c/include -Wl,--stack-first -Wl,-z,stack-size=1048576 sdk/c/skein.c`)
	return run(Root(), nil, "clang", slices.Concat(args, more, sources, []string{"-o", out})...)
}

// reactor tells how an example is built; its README says the same.
func reactor(example string) bool { return example != "wordcount" }

// HaveC reports whether guests in C can be built.
func HaveC() bool { return haveC() == nil }

var haveC = sync.OnceValue(func() error {
	if _, err := exec.LookPath("clang"); err != nil {
		return errNoC
	}
	src := filepath.Join(binDir, "probe.c")
	if err := os.WriteFile(src, []byte("#include <stdio.h>\nint main(int n, char **v) { return printf(\"%Lf\", 1.5L * n); }\n"), 0o644); err != nil {
		return err
	}
	if err := run(binDir, nil, "clang", "--target=wasm32-wasi", "--sysroot=/usr", src, "-o", src+".wasm"); err != nil {
		return fmt.Errorf("%w: %w", errNoC, err)
	}
	return nil
})
