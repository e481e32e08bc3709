package abi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The referee is clang: it compiles a use of every row, and the import section that comes out must have the names and
// types of our table. So the table can't be wrong about the ABI by being wrong in the same way as its own parser.
func TestClangAgrees(t *testing.T) {
	needTools(t)
	var c strings.Builder
	// Native and Faasm rows go through the headers that programs use, the others through declarations made here.
	c.WriteString("#include <skein.h>\n#include <faasm/host_interface.h>\n#include <sys/types.h>\n")
	for _, def := range Typedefs(Rows()...) {
		fmt.Fprintln(&c, def.C)
	}
	var uses []string
	for i, row := range Rows() {
		ident := "__skein_" + row.Name
		switch {
		case strings.HasPrefix(row.Name, "__faasm_"):
			ident = row.Name
		case row.Module != Native:
			ident = fmt.Sprintf("referee_%d", i)
			fmt.Fprintf(&c, "__attribute__((import_module(%q), import_name(%q))) %s;\n", row.Module, row.Name, row.Prototype(ident))
		}
		uses = append(uses, "(void *)"+ident)
	}
	fmt.Fprintf(&c, "__attribute__((export_name(\"uses\"))) void *volatile *uses(void) {\n"+
		"\tstatic void *volatile all[] = {%s};\n\treturn all;\n}\n", strings.Join(uses, ", "))

	got := importsOf(t, c.String(), "-nostartfiles", "-nodefaultlibs", "-Wl,--no-entry", "-Wl,--allow-undefined")
	for _, row := range Rows() {
		name := row.Module + "." + row.Name
		signature, ok := got[name]
		if !ok {
			t.Errorf("clang has no import of %s", name)
		} else if signature != row.Signature.String() {
			t.Errorf("%s: our type is %s, clang's %s", name, row.Signature, signature)
		}
		delete(got, name)
	}
	for name, signature := range got {
		t.Errorf("clang imports %s %s, which is no row", name, signature)
	}
}

// wasi-libc states the types of WASI itself, without our prototypes.
func TestWASILibcAgrees(t *testing.T) {
	needTools(t)
	var uses []string
	for _, row := range Rows() {
		if row.Module == WASI && row.Name != "proc_raise" { // wasi-libc has dropped it
			uses = append(uses, "(void *)__wasi_"+row.Name)
		}
	}
	c := fmt.Sprintf("#include <wasi/api.h>\nvoid *volatile all[] = {%s};\nint main(void) { return all[0] == 0; }\n", strings.Join(uses, ", "))
	got := importsOf(t, c)
	if len(got) < len(uses) {
		t.Errorf("%d imports, want at least %d", len(got), len(uses))
	}
	for name, signature := range got {
		module, name, _ := strings.Cut(name, ".")
		if row, ok := Lookup(module, name); !ok {
			t.Errorf("wasi-libc imports %s.%s, which is no row", module, name)
		} else if row.Signature.String() != signature {
			t.Errorf("%s.%s: our type is %s, wasi-libc's %s", module, name, row.Signature, signature)
		}
	}
}

// The SDKs link with the flags that their documentation gives, and import only rows that work.
func TestSDKsLink(t *testing.T) {
	needTools(t)
	dir := t.TempDir()
	guests := map[string]*exec.Cmd{}
	readme, err := os.ReadFile("../sdk/c/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := bytes.Cut(readme, []byte("CFLAGS='"))
	documented, _, found := bytes.Cut(after, []byte("'"))
	if !found {
		t.Fatal("sdk/c/README.md has no CFLAGS='...'")
	}
	flags := append(strings.Fields(strings.ReplaceAll(string(documented), "\\\n", " ")), "-Wall", "-Wextra", "-Werror", "../sdk/c/skein.c")
	guests["command.c"] = exec.CommandContext(t.Context(), "clang", append(flags, "../sdk/c/testdata/command.c")...)
	guests["reactor.c"] = exec.CommandContext(t.Context(), "clang", append(flags, "-mexec-model=reactor", "../sdk/c/testdata/reactor.c")...)
	guests["objects.c"] = exec.CommandContext(t.Context(), "clang", append(flags, "-mexec-model=reactor", "../sdk/c/testdata/objects.c")...)
	for _, cmd := range guests {
		for i, arg := range cmd.Args {
			cmd.Args[i] = strings.Replace(arg, "-Isdk/c/include", "-I../sdk/c/include", 1)
		}
	}
	if !testing.Short() { // Go's standard library is built for wasm the first time
		guests["command.go"] = exec.CommandContext(t.Context(), "go", "build", "./testdata/command")
		guests["reactor.go"] = exec.CommandContext(t.Context(), "go", "build", "-buildmode=c-shared", "./testdata/reactor")
		guests["objects.go"] = exec.CommandContext(t.Context(), "go", "build", "-buildmode=c-shared", "./testdata/objects")
	}
	for name, cmd := range guests {
		file := filepath.Join(dir, name+".wasm")
		at := len(cmd.Args)
		if strings.HasSuffix(name, ".go") {
			cmd.Dir, cmd.Env = "../sdk/go", append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOWORK=off")
			at-- // flags come before packages
		}
		cmd.Args = slices.Insert(cmd.Args, at, "-o", file)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %s: %v\n%s", name, cmd, err, out)
			continue
		}
		native := 0
		for imported, signature := range readImports(t, file) {
			module, function, _ := strings.Cut(imported, ".")
			row, ok := Lookup(module, function)
			if !ok || row.Support == Planned || row.Signature.String() != signature {
				t.Errorf("%s imports %s %s; the row is %q, %s", name, imported, signature, row.Decl, row.Support)
			}
			if module == Native {
				native++
			}
		}
		if native == 0 {
			t.Errorf("%s imports nothing from %s", name, Native)
		}
	}
}

// needTools skips the test where clang can't build for wasm, or fails it where SKEIN_REQUIRE_TOOLS=1.
func needTools(t *testing.T) {
	t.Helper()
	_, noClang := exec.LookPath("clang")
	_, noLinker := exec.LookPath("wasm-ld")
	_, noLibc := os.Stat("/usr/include/wasm32-wasi/wasi/api.h")
	if err := errors.Join(noClang, noLinker, noLibc); err != nil {
		if os.Getenv("SKEIN_REQUIRE_TOOLS") == "1" {
			t.Fatalf("SKEIN_REQUIRE_TOOLS=1, and %v", err)
		}
		t.Skipf("the referee is not here (apt-get install clang lld wasi-libc libclang-rt-dev-wasm32): %v", err)
	}
}

// importsOf compiles and links a C program and returns the types of its imports by "module.name".
func importsOf(t *testing.T, source string, flags ...string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "referee.c")
	if err := os.WriteFile(file, []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	// No -O: clang would run a wasm-opt that it finds in PATH.
	args := append([]string{"--target=wasm32-wasi", "-Werror", "-I../sdk/c/include", file, "-o", filepath.Join(dir, "referee.wasm")}, flags...)
	if out, err := exec.CommandContext(t.Context(), "clang", args...).CombinedOutput(); err != nil {
		t.Fatalf("clang: %v\n%s", err, out)
	}
	return readImports(t, filepath.Join(dir, "referee.wasm"))
}

func readImports(t *testing.T, file string) map[string]string {
	t.Helper()
	wasm, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	imports, err := parseImports(wasm)
	if err != nil {
		t.Fatal(err)
	}
	return imports
}

// parseImports reads the function imports of a module, whose other imports it refuses.
func parseImports(wasm []byte) (imports map[string]string, err error) {
	if !bytes.HasPrefix(wasm, []byte("\x00asm\x01\x00\x00\x00")) {
		return nil, errors.New("not a wasm module")
	}
	var types []Signature
	imports = map[string]string{}
	for r := (&reader{b: wasm[8:]}); len(r.b) > 0 && r.err == nil; {
		id := r.uint()
		section := &reader{b: r.bytes()}
		if id != 1 && id != 2 {
			continue
		}
		for range section.uint() {
			if id == 1 {
				if form := section.uint(); form != 0x60 {
					return nil, fmt.Errorf("type form %#x", form)
				}
				types = append(types, Signature{Params: section.bytes(), Results: section.bytes()})
				continue
			}
			name := string(section.bytes()) + "." + string(section.bytes())
			kind, index := section.uint(), section.uint()
			if kind != 0 || index >= uint64(len(types)) || section.err != nil {
				return nil, fmt.Errorf("import %s of kind %d, type %d", name, kind, index)
			}
			imports[name] = types[index].String()
		}
		r.err = errors.Join(r.err, section.err)
		if r.err != nil {
			return nil, r.err
		}
	}
	return imports, nil
}

// reader takes LEB128 numbers and length-prefixed bytes off b; after an error it gives zeros.
type reader struct {
	b   []byte
	err error
}

func (r *reader) uint() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.b, r.err = nil, errors.New("truncated module")
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) bytes() []byte {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.b, r.err = nil, errors.New("truncated module")
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}
