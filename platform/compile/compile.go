// Package compile makes native code of prepared modules, in a child process: a compiler that is fed by strangers needs
// memory and time that can be bounded, and an end that takes nobody with it. Enter by Compile, which gives an Artifact; Put
// and Get keep artifacts in a bucket, Load gives their code to an engine. A program that compiles calls Child first of all.
package compile

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"skein.dev/platform/fault"
	"skein.dev/platform/prepare"
)

// features are all that the engine has; prepare knows their opcodes.
const features = api.CoreFeaturesV2 | experimental.CoreFeaturesThreads | experimental.CoreFeaturesTailCall |
	experimental.CoreFeaturesExtendedConst | experimental.CoreFeaturesExceptionHandling | experimental.CoreFeaturesTypedFunctionReferences

// Config is how every engine of Skein is configured: code that was compiled under another one may not fit. What it doesn't
// have, prepared modules do without: their own interruption points stand for the engine's, and their memory's limit is
// kept by whoever allocates it.
func Config() wazero.RuntimeConfig {
	return wazero.NewRuntimeConfigCompiler().
		WithCoreFeatures(features).
		WithMemoryLimitPages(65536).
		WithDebugInfoEnabled(false) // that is DWARF; traps have function names without
}

// Limits bounds one compilation.
type Limits struct {
	Memory int64         // bytes of it that the child may have beyond what it starts with
	CPU    time.Duration // rounded up to seconds
	Load   time.Duration // of a processor, to load the code into an engine: what each executor pays
	Wall   time.Duration // from the start of the child; a compilation also waits at most as long for its turn
}

// DefaultLimits leave room for the largest program that was measured: Ruby, 16 MB of wasm, takes 560 MiB and 18 s.
func DefaultLimits() Limits {
	return Limits{Memory: 1 << 30, CPU: time.Minute, Load: 5 * time.Second, Wall: 5 * time.Minute}
}

// engine is what an engine of this process names its code by.
type engine struct {
	dir         string // of the code files inside a cache directory: it has the engine's version and the platform
	fingerprint string
}

// thisEngine compiles the smallest module with code in it: the name of the file is a hash of the module, which is
// constant, and of all of the processor that the compiler makes use of.
var thisEngine = sync.OnceValues(func() (e engine, err error) {
	temp, err := os.MkdirTemp("", "skein-engine-")
	if err != nil {
		return e, err
	}
	defer func() { _ = os.RemoveAll(temp) }()
	const smallest = "\x00asm\x01\x00\x00\x00" + "\x01\x04\x01\x60\x00\x00" + "\x03\x02\x01\x00" + "\x0a\x04\x01\x02\x00\x0b"
	if err := compileInto(context.Background(), temp, []byte(smallest)); err != nil {
		return e, err
	}
	file, err := codeFile(temp)
	if err != nil {
		return e, err
	}
	e.dir = filepath.Base(filepath.Dir(file))
	e.fingerprint = fmt.Sprintf("p%d-%s-%.16s", prepare.Version, e.dir, filepath.Base(file))
	if !fingerprintForm.MatchString(e.fingerprint) {
		return e, fmt.Errorf("the engine calls itself %q", e.fingerprint)
	}
	return e, nil
})

// fingerprintForm keeps a fingerprint one segment of a key.
var fingerprintForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._+-]{0,199}$`)

// Fingerprint names what native code depends on beside the module, as it is in this process: how modules are prepared, the
// engine's version, the platform and the processor's features. It is one segment of a key.
func Fingerprint() (string, error) {
	e, err := thisEngine()
	if err != nil {
		return "", fault.Internal.New("ENGINE", "the engine does not work: %v", err)
	}
	return e.fingerprint, nil
}

// compileInto compiles wasm in this process and leaves its code in a file below dir.
func compileInto(ctx context.Context, dir string, wasm []byte) error {
	cache, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return err
	}
	defer func() { _ = cache.Close(ctx) }()
	rt := wazero.NewRuntimeWithConfig(ctx, Config().WithCompilationCache(cache))
	defer func() { _ = rt.Close(ctx) }()
	_, err = rt.CompileModule(ctx, wasm)
	return err
}

// codeFile finds the one file that compileInto left.
func codeFile(dir string) (string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "wazero-*", "*"))
	if err != nil {
		return "", err
	}
	if len(files) != 1 || strings.Contains(filepath.Base(files[0]), ".") {
		return "", fmt.Errorf("the engine left %d files", len(files))
	}
	return files[0], nil
}

// turn has one permit: a compilation takes a core, and this process needs the others.
var turn = make(chan struct{}, 1)

// Compile makes native code of p for the platform that it runs on. Compilations of one process take turns. Errors:
//
//	Invalid     BAD_MODULE           the engine refuses it, or breaks over it
//	Invalid     MODULE_TOO_COSTLY    it hit a limit
//	Exhausted   COMPILER_BUSY        others took too long to get a turn
//	Unavailable COMPILER_LOST        something else ended the child: the system may be out of memory
//	Internal    COMPILER             the child can't be run
//
// and Cancelled or Timeout when ctx ends, which ends the child.
func Compile(ctx context.Context, p *prepare.Prepared, limits Limits) (*Artifact, error) {
	e, err := thisEngine()
	if err != nil {
		return nil, fault.Internal.New("ENGINE", "the engine does not work: %v", err)
	}
	busy := time.NewTimer(limits.Wall)
	defer busy.Stop()
	select {
	case turn <- struct{}{}:
		defer func() { <-turn }()
	case <-busy.C:
		return nil, fault.Exhausted.New("COMPILER_BUSY", "other modules were being compiled for %s", limits.Wall).
			WithHint("try again when fewer are uploaded").WithRetry(10 * time.Second)
	case <-ctx.Done():
		return nil, fault.From(ctx.Err())
	}
	name, code, err := inChild(ctx, p.Wasm, limits)
	if err != nil {
		return nil, err
	}
	return &Artifact{Digest: p.Module.Digest, Fingerprint: e.fingerprint, Prepared: p, File: name, Code: code}, nil
}
