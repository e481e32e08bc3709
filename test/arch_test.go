package test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"skein.dev/abi"
)

// everything, in mayImport, is any module of ours.
const everything = "*"

// readTable reads who may import whom from ARCHITECTURE.md: the rows whose first cell is a module, and whose third says
// "root", "proto, platform" and so on, "everything", or "—". A module may always import itself.
func readTable(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	mayImport := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) != 6 {
			continue
		}
		module := strings.Trim(cells[1], " `")
		if !within(module, "skein.dev") {
			continue
		}
		allowed := []string{}
		for word := range strings.SplitSeq(strings.TrimSpace(cells[3]), ", ") {
			switch word {
			case "—":
			case "root":
				allowed = append(allowed, "skein.dev")
			case "everything":
				allowed = append(allowed, everything)
			default:
				allowed = append(allowed, "skein.dev/"+word)
			}
		}
		mayImport[module] = allowed
	}
	if len(mayImport) == 0 {
		t.Fatal("ARCHITECTURE.md has no table of modules: | `module` | is | may import of ours | … |")
	}
	return mayImport
}

// onlyIn says which files may import a third party's module, as path patterns; tests may everywhere.
var onlyIn = map[string][]string{
	"github.com/tetratelabs/wazero":   {"platform/compile/*.go", "services/executor/internal/machine/*.go", "services/executor/internal/host/*.go"},
	"github.com/redis/go-redis":       {"services/*/redis.go", "services/state/internal/feed/redis.go"},
	"github.com/minio/minio-go":       {"platform/blob/minio.go"},
	"github.com/alicebob/miniredis":   {"cmd/skein/*.go"},
	"github.com/spf13/cobra":          {"cmd/skein/*.go"},
	"github.com/rogpeppe/go-internal": {},
}

// forbiddenDirs are names that say nothing of what is inside.
var forbiddenDirs = []string{"pkg", "util", "utils", "common", "helper", "helpers", "types", "mock", "mocks"}

func TestArchImports(t *testing.T) {
	tree, mayImport := readTree(t), readTable(t)
	for module, allowed := range mayImport {
		if !tree.isModule(module) {
			t.Errorf("ARCHITECTURE.md's table has %s, which is no module", module)
		}
		for _, other := range allowed {
			if other != everything && !tree.isModule(other) {
				t.Errorf("ARCHITECTURE.md's table lets %s import %s, which is no module", module, other)
			}
			if strings.HasPrefix(module, "skein.dev/services/") && (other == everything || strings.HasPrefix(other, "skein.dev/services/")) {
				t.Errorf("ARCHITECTURE.md's table lets %s import %s: a service never imports another", module, other)
			}
		}
	}
	for _, f := range tree.files {
		from := tree.moduleOf(f.path)
		allowed, known := mayImport[from]
		if !known {
			t.Errorf("%s: its module %s is not in ARCHITECTURE.md's table", f.path, from)
			continue
		}
		for _, imported := range f.imports {
			if to := tree.owner(imported); to != "" && to != from && !slices.Contains(allowed, to) && !slices.Contains(allowed, everything) {
				t.Errorf("%s imports %s: %s may import of ours %v", f.path, imported, from, allowed)
			}
			for third, where := range onlyIn {
				if within(imported, third) && !f.test && from != "skein.dev/test" && !slices.ContainsFunc(where, func(p string) bool { return match(p, f.path) }) {
					t.Errorf("%s imports %s: only %v and tests may", f.path, imported, where)
				}
			}
		}
	}
}

// What make would build is there.
func TestMakeBuild(t *testing.T) {
	cmd := exec.Command("make", "-n", "build")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := 0
	for word := range strings.FieldsSeq(string(out)) {
		if !strings.HasPrefix(word, "./") {
			continue
		}
		packages++
		if main, err := filepath.Glob(filepath.Join(root(t), word, "*.go")); err != nil || len(main) == 0 {
			t.Errorf("make build wants %s, where nothing is", word)
		}
	}
	if packages != 6 {
		t.Errorf("make build builds %d programs: %s", packages, out)
	}
}

func TestArchPackages(t *testing.T) {
	tree := readTree(t)
	for _, dir := range tree.dirs {
		if slices.Contains(forbiddenDirs, path.Base(dir)) {
			t.Errorf("%s: name a directory by what is in it", dir)
		}
	}
	docs, handmade := map[string][]string{}, map[string]bool{}
	for _, f := range tree.files {
		if f.generated {
			continue
		}
		key := path.Dir(f.path) + " package " + f.pkg
		if strings.HasSuffix(f.pkg, "_test") {
			key = path.Dir(f.path) + " package " + strings.TrimSuffix(f.pkg, "_test")
		}
		handmade[key] = true
		if f.doc {
			docs[key] = append(docs[key], f.path)
		}
		for _, line := range f.inits {
			t.Errorf("%s:%d: func init: what a package needs at its start is a value, or a caller's business", f.path, line)
		}
	}
	for key := range handmade {
		if len(docs[key]) != 1 {
			t.Errorf("%s: %d package comments %v, want one", key, len(docs[key]), docs[key])
		}
	}
}

func TestArchMains(t *testing.T) {
	mains, err := filepath.Glob(filepath.Join(root(t), "services/*/cmd/*/main.go"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, file := range mains {
		dir := filepath.Dir(file)
		name := filepath.Base(dir)
		names = append(names, name)
		if service := filepath.Base(filepath.Dir(filepath.Dir(dir))); service != name {
			t.Errorf("%s: the command of service %s is called %s", file, service, name)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if lines := strings.Count(string(text), "\n"); lines > 30 {
			t.Errorf("%s has %d lines, at most 30: what it does belongs to the service or to platform/service", file, lines)
		}
	}
	if want := []string{"executor", "fs", "planner", "state", "upload"}; !slices.Equal(names, want) {
		t.Errorf("services with a main are %v, want %v", names, want)
	}
}

// generatedFiles must carry the mark that tools and people look for.
var generatedFiles = []string{
	"proto/**/*.pb.go", "proto/**/*.pb.gw.go", "sdk/go/internal/raw/*.go", "sdk/c/include/skein.h", "sdk/c/include/skein/*.h",
	"sdk/c/include/faasm/host_interface.h", "docs/host-interface.md", "docs/configuration.md", "docs/errors.md",
}

func TestArchGeneratedFilesAreMarked(t *testing.T) {
	tree := readTree(t)
	mark := regexp.MustCompile(`(?m)^.{0,6}Code generated .*DO NOT EDIT`)
	for _, pattern := range generatedFiles {
		found := 0
		for _, file := range tree.all {
			if !match(pattern, file) || file == "sdk/c/include/skein/sugar.h" || file == "sdk/c/include/skein/objects.h" {
				continue
			}
			found++
			text, err := os.ReadFile(filepath.Join(tree.root, file))
			if err != nil {
				t.Fatal(err)
			}
			if !mark.Match(text[:min(len(text), 1<<10)]) {
				t.Errorf(`%s is generated and lacks the line "Code generated … DO NOT EDIT"`, file)
			}
		}
		if found == 0 {
			t.Errorf("%s: no such file", pattern)
		}
	}
}

func TestArchRooms(t *testing.T) {
	for _, room := range abi.Rooms() {
		built := slices.ContainsFunc(room.Funcs, func(f abi.Func) bool { return f.Support != abi.Planned })
		file := filepath.Join("services/executor/internal/host", room.Name+".go")
		if _, err := os.Stat(filepath.Join(root(t), file)); built && err != nil {
			t.Errorf("room %s has rows that work and no %s", room.Name, file)
		}
		if _, err := os.Stat(filepath.Join(root(t), "abi", room.Name+".go")); err != nil {
			t.Errorf("room %s has no file of its name in abi", room.Name)
		}
	}
}

// goMod is what `go mod edit -json` gives.
type goMod struct {
	Module  struct{ Path string }
	Require []struct{ Path, Version string }
	Replace []struct {
		Old, New struct{ Path, Version string }
	}
	Tool []struct{ Path string }
}

func TestArchModules(t *testing.T) {
	tree := readTree(t)
	var work struct{ Use []struct{ DiskPath string } }
	goJSON(t, &work, tree.root, "work", "edit", "-json", filepath.Join(tree.root, "go.work"))
	var used []string
	for _, u := range work.Use {
		used = append(used, path.Clean(u.DiskPath))
	}
	slices.Sort(used)
	var dirs []string
	for dir := range tree.modules {
		dirs = append(dirs, dir)
	}
	slices.Sort(dirs)
	if !slices.Equal(used, dirs) {
		t.Errorf("go.work uses %v, and there are modules in %v", used, dirs)
	}

	versions := map[string]map[string][]string{} // of third parties: path → version → modules
	for dir, module := range tree.modules {
		var m goMod
		goJSON(t, &m, filepath.Join(tree.root, dir), "mod", "edit", "-json")
		if want := path.Join("skein.dev", dir); module != want {
			t.Errorf("%s/go.mod: the module is %s, want %s", dir, module, want)
		}
		if n := len(m.Require); n > 0 && (module == "skein.dev" || module == "skein.dev/sdk/go") {
			t.Errorf("%s requires %d modules; it must need none", module, n)
		}
		if len(m.Tool) > 0 {
			t.Errorf("%s has tools: they belong below tools/, so that what they need never raises ours", module)
		}
		replaced := map[string]string{}
		for _, r := range m.Replace {
			if tree.owner(r.Old.Path) != r.Old.Path {
				t.Errorf("%s replaces %s: only modules of ours may be", module, r.Old.Path)
			}
			replaced[r.Old.Path] = path.Join(dir, r.New.Path)
		}
		for _, r := range m.Require {
			if tree.owner(r.Path) == "" {
				if versions[r.Path] == nil {
					versions[r.Path] = map[string][]string{}
				}
				versions[r.Path][r.Version] = append(versions[r.Path][r.Version], module)
				continue
			}
			home := strings.TrimPrefix(strings.TrimPrefix(r.Path, "skein.dev"), "/")
			if r.Version != "v0.0.0" || replaced[r.Path] != path.Clean("./"+home) {
				t.Errorf("%s requires %s %s, replaced by %q: want v0.0.0 and a replace by its directory", module, r.Path, r.Version, replaced[r.Path])
			}
			delete(replaced, r.Path)
		}
		for left := range replaced {
			t.Errorf("%s replaces %s and does not require it", module, left)
		}
	}
	for dep, by := range versions {
		if len(by) > 1 {
			t.Errorf("%s has more than one version: %v", dep, by)
		}
	}
}

// source is a Go file as far as the rules look at it.
type source struct {
	path      string // from the root, with slashes
	pkg       string
	imports   []string
	inits     []int // lines
	doc       bool
	generated bool
	test      bool
}

// sourceTree is the repository, committed or not, without tools and what is fetched or built.
type sourceTree struct {
	root    string
	modules map[string]string // directory → module path
	dirs    []string
	all     []string
	files   []source
}

func readTree(t *testing.T) *sourceTree {
	t.Helper()
	tree := &sourceTree{root: root(t), modules: map[string]string{}}
	err := filepath.WalkDir(tree.root, func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone since it was listed
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(tree.root, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if base := d.Name(); rel != "." && (strings.HasPrefix(base, ".") || base == "testdata" || base == "node_modules" || rel == "tools" || rel == "bin") {
				return filepath.SkipDir
			}
			tree.dirs = append(tree.dirs, rel)
			return nil
		}
		tree.all = append(tree.all, rel)
		switch {
		case d.Name() == "go.mod":
			var m goMod
			goJSON(t, &m, filepath.Dir(name), "mod", "edit", "-json")
			tree.modules[path.Dir(rel)] = m.Module.Path
		case strings.HasSuffix(rel, ".go"):
			f, err := readSource(tree.root, rel)
			if err != nil {
				return err
			}
			tree.files = append(tree.files, f)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func readSource(root, rel string) (source, error) {
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, filepath.Join(root, rel), nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return source{}, err
	}
	s := source{path: rel, pkg: f.Name.Name, doc: f.Doc != nil && f.Doc.Text() != "", generated: ast.IsGenerated(f), test: strings.HasSuffix(rel, "_test.go")}
	for _, i := range f.Imports {
		name, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return source{}, err
		}
		s.imports = append(s.imports, name)
	}
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
			s.inits = append(s.inits, set.Position(fn.Pos()).Line)
		}
	}
	return s, nil
}

// moduleOf is the module of the nearest go.mod around a file.
func (tree *sourceTree) moduleOf(file string) string {
	for dir := path.Dir(file); ; dir = path.Dir(dir) {
		if module := tree.modules[dir]; module != "" || dir == "." {
			return module
		}
	}
}

func (tree *sourceTree) isModule(name string) bool {
	for _, module := range tree.modules {
		if module == name {
			return true
		}
	}
	return false
}

// owner is the module of ours that a package or module path lies in, "" for others'.
func (tree *sourceTree) owner(imported string) string {
	best := ""
	for _, module := range tree.modules {
		if within(imported, module) && len(module) > len(best) {
			best = module
		}
	}
	return best
}

func within(name, prefix string) bool { return name == prefix || strings.HasPrefix(name, prefix+"/") }

// match is path.Match with "**" for any directories.
func match(pattern, name string) bool {
	if before, after, ok := strings.Cut(pattern, "**/"); ok {
		good, _ := path.Match(after, path.Base(name))
		return good && strings.HasPrefix(name, before)
	}
	good, _ := path.Match(pattern, name)
	return good
}

func goJSON(t *testing.T, into any, dir string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, into)
	}
	if err != nil {
		t.Fatalf("go %v in %s: %v", args, dir, err)
	}
}

// root is the repository's.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
