package executor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"skein.dev"
	"skein.dev/platform/blob"
	"skein.dev/platform/compile"
	"skein.dev/platform/fault"
	"skein.dev/platform/prepare"
	"skein.dev/services/executor/internal/machine"
)

// modules holds the modules that can run: each digest is loaded once, however many calls ask for it at the same time, and
// stays until room is needed.
type modules struct {
	bucket  blob.Bucket
	key     []byte // of artifacts and snapshots
	machine *machine.Machine
	log     *slog.Logger
	behind  *behind
	budget  int64 // bytes of native code that are kept
	mu      sync.Mutex
	all     map[skein.Digest]*module
	size    int64
	uses    int64
}

// module is an entry, guarded by modules.mu; mod and err don't change once done is closed.
type module struct {
	done chan struct{}
	mod  *machine.Module
	err  error
	size int64
	refs int   // calls that hold it
	used int64 // when last acquired, in uses
}

// loadTimeout bounds fetch, compilation and boot; they go on when the call that caused them ends, for the next one.
const loadTimeout = 6 * time.Minute

// acquire gives a compiled module and whether the caller had to wait for it; release must follow.
func (s *modules) acquire(ctx context.Context, d skein.Digest) (mod *machine.Module, cold bool, err error) {
	s.mu.Lock()
	m := s.all[d]
	if m == nil {
		m = &module{done: make(chan struct{})}
		s.all[d] = m
		s.behind.do(ctx, loadTimeout, func(ctx context.Context) { s.load(ctx, d, m) })
	}
	m.refs++
	s.uses++
	m.used = s.uses
	s.mu.Unlock()
	select {
	case <-m.done:
	default:
		cold = true
		select {
		case <-m.done:
		case <-ctx.Done():
			s.release(d)
			return nil, true, fault.From(ctx.Err())
		}
	}
	if m.err != nil {
		s.release(d)
		return nil, cold, m.err
	}
	return m.mod, cold, nil
}

// ready says whether acquire would not have to load.
func (s *modules) ready(d skein.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.all[d]
	return m != nil && m.mod != nil
}

func (s *modules) release(d skein.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.all[d]; m != nil {
		m.refs--
	}
}

// load makes a module ready; a failure is told to those who wait and then forgotten, so that the next call tries again.
func (s *modules) load(ctx context.Context, d skein.Digest, m *module) {
	ctx, span := tracer().Start(ctx, "load module", trace.WithAttributes(attribute.String("skein.digest", d.String())))
	defer span.End()
	mod, size, err := s.make(ctx, d)
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	s.mu.Lock()
	m.mod, m.err = mod, err
	if err != nil {
		delete(s.all, d)
	} else {
		m.size = size
		s.size += m.size
		s.evict(ctx)
	}
	s.mu.Unlock()
	close(m.done)
}

// make takes what others have made of the module, and makes and stores what is missing or damaged.
func (s *modules) make(ctx context.Context, d skein.Digest) (*machine.Module, int64, error) {
	fetching, cancel := context.WithCancel(ctx)
	defer cancel()
	snapshot := s.fetchSnapshot(fetching, d) // beside the artifact: both are round trips
	a, err := s.artifact(ctx, d)
	var mod *machine.Module
	if err == nil {
		mod, err = s.code(ctx, a)
	}
	if errors.Is(err, fault.NotFound) || errors.Is(err, fault.DataLoss) || errors.Is(err, fault.Conflict) {
		if !errors.Is(err, fault.NotFound) {
			s.log.WarnContext(ctx, "a stored artifact can't be used", "digest", d.String(), "error", err)
		}
		if a, err = s.compile(ctx, d); err == nil {
			mod, err = s.code(ctx, a)
		}
	}
	if err != nil {
		cancel()
		<-snapshot // nothing goes on behind a load that has ended
		return nil, 0, err
	}
	if err := s.awaken(ctx, mod, d, snapshot); err != nil {
		return nil, 0, errors.Join(err, mod.Close(ctx))
	}
	return mod, int64(len(a.Code)), nil
}

func (s *modules) artifact(ctx context.Context, d skein.Digest) (*compile.Artifact, error) {
	ctx, span := tracer().Start(ctx, "artifact get", trace.WithSpanKind(trace.SpanKindClient))
	defer span.End()
	return compile.Get(ctx, s.bucket, s.key, d)
}

func (s *modules) code(ctx context.Context, a *compile.Artifact) (*machine.Module, error) {
	ctx, span := tracer().Start(ctx, "load code", trace.WithAttributes(attribute.Int("skein.bytes", len(a.Code))))
	defer span.End()
	return s.machine.LoadArtifact(ctx, a)
}

// compile makes the artifact from the module as it was uploaded, in a child, and stores it for others.
func (s *modules) compile(ctx context.Context, d skein.Digest) (*compile.Artifact, error) {
	p, err := s.fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	compiling, span := tracer().Start(ctx, "compile", trace.WithAttributes(attribute.Int("skein.bytes", len(p.Wasm))))
	a, err := compile.Compile(compiling, p, compile.DefaultLimits())
	span.End()
	if err != nil {
		return nil, err
	}
	if err := compile.Put(ctx, s.bucket, s.key, a); err != nil { // it only saves others the work
		s.log.WarnContext(ctx, "the artifact can't be stored", "digest", d.String(), "error", err)
	}
	return a, nil
}

// evict drops modules that no call holds, those longest unused first. The caller holds mu.
func (s *modules) evict(ctx context.Context) {
	for s.size > s.budget {
		var oldest skein.Digest
		var found *module
		for d, m := range s.all {
			if m.refs == 0 && m.mod != nil && (found == nil || m.used < found.used) {
				oldest, found = d, m
			}
		}
		if found == nil {
			return
		}
		delete(s.all, oldest)
		s.size -= found.size
		s.behind.do(ctx, loadTimeout, func(ctx context.Context) { // it waits for instances that are being reset
			if err := found.mod.Close(context.WithoutCancel(ctx)); err != nil {
				s.log.Warn("unload module", "digest", oldest.String(), "error", err)
			}
		})
	}
}

// fetch reads the module as it was uploaded and prepares it. Upload has looked at it; the store may since have been written
// by others, or the limits have changed.
func (s *modules) fetch(ctx context.Context, d skein.Digest) (*prepare.Prepared, error) {
	ctx, span := tracer().Start(ctx, "object get", trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attribute.String("skein.key", prepare.ModuleKey(d))))
	defer span.End()
	wasm, _, err := blob.Read(ctx, s.bucket, prepare.ModuleKey(d), skein.MaxModule)
	if err != nil {
		return nil, fmt.Errorf("module %.12s: %w", d, err)
	}
	if skein.DigestOf(wasm) != d {
		return nil, fault.DataLoss.New("DIGEST_MISMATCH", "module %.12s in the object store is not what was uploaded", d)
	}
	p, err := prepare.Prepare(wasm, prepare.DefaultLimits())
	if err == nil {
		err = errors.Join(prepare.CheckEntry(&p.Module), prepare.CheckFeatures(&p.Module), prepare.CheckImports(&p.Module))
	}
	if err != nil {
		return nil, fmt.Errorf("module %.12s: %w", d, err)
	}
	return p, nil
}

// digests are of what is loaded.
func (s *modules) digests() map[skein.Digest]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[skein.Digest]bool, len(s.all))
	for d, m := range s.all {
		if m.mod != nil {
			out[d] = true
		}
	}
	return out
}
