package upload

import (
	"context"
	"errors"
	"sync"

	"skein.dev"
	"skein.dev/platform/compile"
	"skein.dev/platform/fault"
	"skein.dev/platform/prepare"
)

// builds are the modules that are being compiled and stored: each once, however many send it at the same time.
type builds struct {
	mu  sync.Mutex
	all map[skein.Digest]*build
}

// build is one of them; waiting is guarded by builds.mu, and err doesn't change once done is closed.
type build struct {
	done    chan struct{}
	err     error
	waiting int // requests; with the last one the build ends too
	cancel  context.CancelFunc
}

// do calls work, unless it is at it for the same digest already, and waits for its end.
func (b *builds) do(ctx context.Context, d skein.Digest, work func(context.Context) error) error {
	b.mu.Lock()
	one := b.all[d]
	if one == nil {
		within, cancel := context.WithCancel(context.WithoutCancel(ctx))
		one = &build{done: make(chan struct{}), cancel: cancel}
		if b.all == nil {
			b.all = map[skein.Digest]*build{}
		}
		b.all[d] = one
		go func() {
			defer cancel()
			one.err = work(within)
			b.forget(d, one)
			close(one.done)
		}()
	}
	one.waiting++
	b.mu.Unlock()
	select {
	case <-one.done:
		return one.err
	case <-ctx.Done():
	}
	b.mu.Lock()
	one.waiting--
	last := one.waiting == 0
	b.mu.Unlock()
	if last {
		b.forget(d, one) // who comes now begins anew
		one.cancel()
		<-one.done // it ends soon, and holds the module until then
	}
	return ctx.Err()
}

func (b *builds) forget(d skein.Digest, one *build) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all[d] == one {
		delete(b.all, d)
	}
}

// keep stores a module and the native code of it. A module that doesn't compile leaves nothing.
func (r *Registry) keep(ctx context.Context, d skein.Digest, wasm []byte) error {
	return r.builds.do(ctx, d, func(ctx context.Context) error {
		a, err := r.compile(ctx, d, wasm)
		if err != nil {
			return err
		}
		if err := r.putModule(ctx, d, wasm); err != nil || a == nil {
			return err
		}
		return r.putArtifact(ctx, a)
	})
}

// compile makes the artifact of a module; nil if a good one is stored already.
func (r *Registry) compile(ctx context.Context, d skein.Digest, wasm []byte) (a *compile.Artifact, err error) {
	ctx, end := begin(ctx, "upload compile", nil)
	defer end(&err)
	_, err = compile.Get(ctx, r.bucket, r.key, d)
	if !errors.Is(err, fault.NotFound) && !errors.Is(err, fault.DataLoss) {
		return nil, err
	}
	p, err := prepare.Prepare(wasm, r.limits)
	if err != nil {
		return nil, err
	}
	return compile.Compile(ctx, p, r.effort)
}

func (r *Registry) putArtifact(ctx context.Context, a *compile.Artifact) (err error) {
	ctx, end := begin(ctx, "upload put artifact", nil)
	defer end(&err)
	return compile.Put(ctx, r.bucket, r.key, a)
}
