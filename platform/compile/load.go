package compile

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"

	"skein.dev/platform/fault"
)

// loading makes loads take turns: the engine has had races between compilations that share a cache (wazero#2453, #2459).
var loading sync.Mutex

// Load gives the code of a to the engine of rt, which was configured by Config().WithCompilationCache of a cache of
// cacheDir. It never compiles. cacheDir is this process's own, and nobody else can write to it: what lies there is run.
// Errors: DataLoss ARTIFACT_DAMAGED if the engine refuses the code, Conflict ARTIFACT_FOREIGN if it is for another engine.
func Load(ctx context.Context, rt wazero.Runtime, cacheDir string, a *Artifact) (wazero.CompiledModule, error) {
	e, err := thisEngine()
	if err != nil {
		return nil, fault.Internal.New("ENGINE", "the engine does not work: %v", err)
	}
	if a.Fingerprint != e.fingerprint || !fileForm.MatchString(a.File) {
		return nil, foreign(a)
	}
	unwritten := func(err error) error {
		return fault.Unavailable.New("ENGINE_CACHE", "the compiled module %.12s can't be written: %v", a.Digest, err).
			WithHint("check space and rights in %s", cacheDir)
	}
	temp, err := stage(filepath.Join(cacheDir, e.dir), a.Code)
	if err != nil {
		return nil, unwritten(err)
	}
	// An engine that doesn't find the code under the name that it makes up itself would compile, here and without limits.
	// Compilers that work side by side look at the context first; a lookup doesn't.
	ended, cancel := context.WithCancelCause(experimental.WithCompilationWorkers(context.WithoutCancel(ctx), 2))
	cancel(errMissed)
	loading.Lock()
	defer loading.Unlock()
	file := filepath.Join(cacheDir, e.dir, a.File)
	if err := os.Rename(temp, file); err != nil {
		return nil, unwritten(errors.Join(err, os.Remove(temp)))
	}
	defer func() { _ = os.Remove(file) }()
	mod, err := rt.CompileModule(ended, a.Prepared.Wasm)
	switch {
	case errors.Is(err, errMissed):
		return nil, foreign(a)
	case err != nil:
		return nil, fault.DataLoss.New("ARTIFACT_DAMAGED", "the compiled module %.12s is refused: %v", a.Digest, err)
	}
	return mod, nil
}

var errMissed = errors.New("the engine has not looked for this file")

func foreign(a *Artifact) error {
	return fault.Conflict.New("ARTIFACT_FOREIGN", "the compiled module %.12s is for %.200q", a.Digest, a.Fingerprint)
}

// stage writes a new file in dir, which gets its name when it is whole.
func stage(dir string, code []byte) (name string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(dir, "*.new")
	if err != nil {
		return "", err
	}
	_, err = f.Write(code)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}
