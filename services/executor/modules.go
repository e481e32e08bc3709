package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"skein.dev"
	"skein.dev/platform/blob"
	"skein.dev/platform/fault"
	"skein.dev/platform/prepare"
	"skein.dev/services/executor/internal/machine"
)

// modules holds the compiled modules: each digest is fetched and compiled once, however many calls ask for it at the same
// time, and stays until room is needed.
type modules struct {
	bucket  blob.Bucket
	machine *machine.Machine
	budget  int64 // bytes of wasm whose code is kept
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

// loadTimeout bounds fetch and compilation; they go on when the call that caused them ends, for the next one.
const loadTimeout = 2 * time.Minute

func newModules(bucket blob.Bucket, m *machine.Machine, budget int64) *modules {
	return &modules{bucket: bucket, machine: m, budget: budget, all: map[skein.Digest]*module{}}
}

// acquire gives a compiled module and whether the caller had to wait for it; release must follow.
func (s *modules) acquire(ctx context.Context, d skein.Digest) (mod *machine.Module, cold bool, err error) {
	s.mu.Lock()
	m := s.all[d]
	if m == nil {
		m = &module{done: make(chan struct{})}
		s.all[d] = m
		go s.load(context.WithoutCancel(ctx), d, m)
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

func (s *modules) release(d skein.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.all[d]; m != nil {
		m.refs--
	}
}

// load fetches and compiles; a failure is told to those who wait and then forgotten, so that the next call tries again.
func (s *modules) load(ctx context.Context, d skein.Digest, m *module) {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	ctx, span := tracer().Start(ctx, "load module", trace.WithAttributes(attribute.String("skein.digest", d.String())))
	defer span.End()
	var mod *machine.Module
	wasm, info, err := s.fetch(ctx, d)
	if err == nil {
		_, compile := tracer().Start(ctx, "compile", trace.WithAttributes(attribute.Int("skein.bytes", len(wasm))))
		mod, err = s.machine.Compile(ctx, wasm, info)
		compile.End()
	}
	s.mu.Lock()
	m.mod, m.err = mod, err
	if err != nil {
		delete(s.all, d)
	} else {
		m.size = int64(len(wasm))
		s.size += m.size
		s.evict(ctx)
	}
	s.mu.Unlock()
	close(m.done)
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
		_ = found.mod.Close(ctx)
	}
}

func (s *modules) fetch(ctx context.Context, d skein.Digest) ([]byte, *prepare.Module, error) {
	ctx, span := tracer().Start(ctx, "object get", trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attribute.String("skein.key", prepare.ModuleKey(d))))
	defer span.End()
	r, info, err := s.bucket.Get(ctx, prepare.ModuleKey(d), 0, -1)
	if err != nil {
		return nil, nil, fmt.Errorf("module %.12s: %w", d, err)
	}
	defer func() { _ = r.Close() }()
	if info.Size > skein.MaxModule {
		return nil, nil, fault.TooLarge.New("TOO_LARGE", "module %.12s has %d bytes", d, info.Size)
	}
	wasm := make([]byte, info.Size)
	if _, err := io.ReadFull(r, wasm); err != nil {
		return nil, nil, fault.Unavailable.New("STORE_DOWN", "module %.12s: %v", d, err)
	}
	if skein.DigestOf(wasm) != d {
		return nil, nil, fault.DataLoss.New("DIGEST_MISMATCH", "module %.12s in the object store is not what was uploaded", d)
	}
	// Upload has looked at it; the store may since have been written by others, or the limits have changed.
	mod, err := prepare.Inspect(wasm, prepare.DefaultLimits())
	if err == nil {
		err = errors.Join(prepare.CheckEntry(mod), prepare.CheckImports(mod))
	}
	if err != nil {
		return nil, nil, fmt.Errorf("module %.12s: %w", d, err)
	}
	return wasm, mod, nil
}

// digests lists what is compiled.
func (s *modules) digests() []skein.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]skein.Digest, 0, len(s.all))
	for d, m := range s.all {
		if m.mod != nil {
			out = append(out, d)
		}
	}
	return out
}
