package compile_test

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"

	"skein.dev/platform/compile"
	"skein.dev/platform/fault"
	"skein.dev/platform/prepare"
)

// world is an engine with the directory of its cache.
type world struct {
	wazero.Runtime
	dir string
}

func newWorld(t testing.TB) world {
	t.Helper()
	ctx, dir := context.Background(), t.TempDir()
	cache, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	rt := wazero.NewRuntimeWithConfig(ctx, compile.Config().WithCompilationCache(cache))
	_, err = rt.NewHostModuleBuilder(prepare.YieldFrom).NewFunctionBuilder().
		WithFunc(func() uint32 { return prepare.MinFuel }).Export(prepare.YieldName).Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = rt.Close(ctx)
		_ = cache.Close(ctx)
	})
	return world{rt, dir}
}

// files are those below the cache's directory.
func (w world) files(t *testing.T) (files []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(w.dir, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func (w world) start(t *testing.T, mod wazero.CompiledModule) error {
	t.Helper()
	inst, err := w.InstantiateModule(t.Context(), mod, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = inst.Close(t.Context()) }()
	_, err = inst.ExportedFunction("_start").Call(t.Context())
	return err
}

func make1(t *testing.T, code []byte) *compile.Artifact {
	t.Helper()
	p, err := prepare.Prepare(wasm(0, code), prepare.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	a, err := compile.Compile(t.Context(), p, compile.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func trap(i int) []byte { return append(append([]byte{0x41}, uleb(i%64)...), 0x1a, 0x00) }

func TestLoad(t *testing.T) {
	a := make1(t, trap(1))
	if f, err := compile.Fingerprint(); err != nil || a.Fingerprint != f || a.Digest != a.Prepared.Module.Digest {
		t.Fatalf("%+v, want fingerprint %q, %v", a, f, err)
	}
	w := newWorld(t)
	mod, err := compile.Load(t.Context(), w, w.dir, a)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.start(t, mod); err == nil || !strings.Contains(err.Error(), "unreachable") {
		t.Error(err)
	}
	if left := w.files(t); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	// Once more, while it is loaded and after.
	for range 2 {
		again, err := compile.Load(t.Context(), w, w.dir, a)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.start(t, again); err == nil {
			t.Error("no trap")
		}
		_ = mod.Close(t.Context())
		mod = again
	}
	// The caller's context may have ended: nobody asks.
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := compile.Load(ended, newWorld(t), t.TempDir(), a); err == nil {
		t.Error("the runtime's directory was another")
	}
}

// No code that isn't that of this very engine is run, and nothing is compiled here in its stead.
func TestLoadRefuses(t *testing.T) {
	good := make1(t, trap(1))
	other := make1(t, trap(2))
	for name, c := range map[string]struct {
		change func(a *compile.Artifact)
		kind   *fault.Kind
		reason string
	}{
		"code":          {func(a *compile.Artifact) { a.Code = bytes.Clone(a.Code); a.Code[len(a.Code)-20] ^= 1 }, fault.DataLoss, "ARTIFACT_DAMAGED"},
		"truncated":     {func(a *compile.Artifact) { a.Code = a.Code[:len(a.Code)/2] }, fault.DataLoss, "ARTIFACT_DAMAGED"},
		"empty":         {func(a *compile.Artifact) { a.Code = nil }, fault.DataLoss, "ARTIFACT_DAMAGED"},
		"magic":         {func(a *compile.Artifact) { a.Code = append([]byte("X"), a.Code[1:]...) }, fault.DataLoss, "ARTIFACT_DAMAGED"},
		"older engine":  {func(a *compile.Artifact) { a.Code = bytes.Clone(a.Code); a.Code[7] ^= 1 }, fault.Conflict, "ARTIFACT_FOREIGN"},
		"other wasm":    {func(a *compile.Artifact) { p := *a.Prepared; p.Wasm = other.Prepared.Wasm; a.Prepared = &p }, fault.Conflict, "ARTIFACT_FOREIGN"},
		"other file":    {func(a *compile.Artifact) { a.File = other.File }, fault.Conflict, "ARTIFACT_FOREIGN"},
		"no file name":  {func(a *compile.Artifact) { a.File = "../x" }, fault.Conflict, "ARTIFACT_FOREIGN"},
		"other machine": {func(a *compile.Artifact) { a.Fingerprint += "x" }, fault.Conflict, "ARTIFACT_FOREIGN"},
	} {
		t.Run(name, func(t *testing.T) {
			a := *good
			c.change(&a)
			w := newWorld(t)
			_, err := compile.Load(t.Context(), w, w.dir, &a)
			wants(t, err, c.kind, c.reason)
			if left := w.files(t); len(left) != 0 {
				t.Errorf("left: %v", left)
			}
			if mod, err := compile.Load(t.Context(), w, w.dir, good); err != nil {
				t.Errorf("then the right one: %v", err)
			} else if err := w.start(t, mod); err == nil {
				t.Error("no trap")
			}
		})
	}
	// A bomb that was never compiled: if the engine began with it, it would take minutes.
	bomb := *good
	bomb.Prepared = prepared(bombs["nested blocks"]())
	start, w := time.Now(), newWorld(t)
	_, err := compile.Load(t.Context(), w, w.dir, &bomb)
	wants(t, err, fault.Conflict, "ARTIFACT_FOREIGN")
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
}

// Many at the same time, of the same module and of others, while others are closed.
func TestLoadParallel(t *testing.T) {
	var all []*compile.Artifact
	for i := range 5 {
		all = append(all, make1(t, trap(i)))
	}
	w := newWorld(t)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			for range 4 {
				mod, err := compile.Load(t.Context(), w, w.dir, all[i%len(all)])
				if err != nil {
					t.Error(err)
					return
				}
				if err := w.start(t, mod); err == nil || !strings.Contains(err.Error(), "unreachable") {
					t.Error(err)
				}
				_ = mod.Close(t.Context())
			}
		})
	}
	wg.Wait()
	if left := w.files(t); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// A trap says in which functions, by the names that the module has for them.
func TestNames(t *testing.T) {
	names := section(0, []byte("\x04name"), section(1, []byte("\x01\x00\x07culprit")))
	p, err := prepare.Prepare(append(wasm(0, trap(1)), names...), prepare.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	a, err := compile.Compile(t.Context(), p, compile.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	mod, err := compile.Load(t.Context(), w, w.dir, a)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.start(t, mod); err == nil || !strings.Contains(err.Error(), "culprit") {
		t.Error(err)
	}
}

func TestNoSpace(t *testing.T) {
	a, w := make1(t, trap(1)), newWorld(t)
	_, err := compile.Load(t.Context(), w, "/proc/none", a)
	wants(t, err, fault.Unavailable, "ENGINE_CACHE")
}
