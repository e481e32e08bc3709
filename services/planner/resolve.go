package planner

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"skein.dev"
	"skein.dev/platform/fault"
	"skein.dev/platform/watch"
	uploadv1 "skein.dev/proto/skein/upload/v1"
)

// resolver knows what functions' names stand for. Answers are kept for lease, which bounds how old one can be when the
// watch is down or another replica of upload took the change; while the watch stands, a change through its replica is seen
// before the uploader's answer is sent.
type resolver struct {
	upload   uploadv1.UploadServiceClient
	lease    time.Duration
	patience time.Duration // with one look-up
	flight   singleflight.Group
	mu       sync.Mutex
	known    map[skein.Function]known
	epoch    uint64 // grows with every change seen: an answer asked for before a change is not kept
}

type known struct {
	target Target
	asked  time.Time
}

func newResolver(upload uploadv1.UploadServiceClient) *resolver {
	return &resolver{upload: upload, lease: time.Second, patience: 5 * time.Second, known: map[skein.Function]known{}}
}

// resolve gives the current version of a function and how its calls are treated.
func (r *resolver) resolve(ctx context.Context, f skein.Function) (Target, error) {
	r.mu.Lock()
	k, ok := r.known[f]
	r.mu.Unlock()
	if ok {
		age := time.Since(k.asked)
		if age < r.lease/2 {
			return k.target, nil
		}
		if age < r.lease { // renew behind the caller's back, so that a function in use never waits for a look-up
			go func() { _, _ = r.ask(context.WithoutCancel(ctx), f) }()
			return k.target, nil
		}
	}
	return r.ask(ctx, f)
}

// ask looks the function up, once for all who ask at the same time.
func (r *resolver) ask(ctx context.Context, f skein.Function) (Target, error) {
	ch := r.flight.DoChan(f.String(), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.patience)
		defer cancel()
		r.mu.Lock()
		epoch := r.epoch
		r.mu.Unlock()
		asked := time.Now()
		resp, err := r.upload.GetFunction(ctx, &uploadv1.GetFunctionRequest{User: string(f.User), Function: f.Name})
		switch {
		case errors.Is(err, fault.Unavailable) || errors.Is(err, fault.Timeout): // its text has addresses, and no deadline of the caller's passed
			return Target{}, fault.Unavailable.New("UPLOAD_DOWN", "the upload service, which knows the functions, does not answer").WithRetry(time.Second)
		case err != nil:
			return Target{}, err
		}
		to, err := toTarget(f, resp.GetFunction())
		if err != nil {
			return Target{}, fault.Internal.New("BAD_ANSWER", "upload gave %v", err)
		}
		r.mu.Lock()
		if r.epoch == epoch {
			r.known[f] = known{to, asked}
		}
		r.mu.Unlock()
		return to, nil
	})
	select {
	case res := <-ch:
		if res.Err != nil {
			return Target{}, res.Err
		}
		return res.Val.(Target), nil
	case <-ctx.Done():
		return Target{}, fault.From(ctx.Err())
	}
}

// forget drops what is known of a function, or of all.
func (r *resolver) forget(f *skein.Function) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.epoch++
	if f == nil {
		clear(r.known)
		return
	}
	delete(r.known, *f)
	r.flight.Forget(f.String())
}

// watch keeps the stream of changes from upload standing until ctx ends.
func (r *resolver) watch(ctx context.Context) error {
	return watch.Stand(ctx, func(ctx context.Context) {
		r.follow(ctx)
		r.forget(nil) // what changed while nobody listened is unknown
	})
}

// follow hears of changes until the stream breaks.
func (r *resolver) follow(ctx context.Context) {
	stream, err := r.upload.WatchFunctions(ctx)
	if err != nil {
		return
	}
	for {
		change, err := stream.Recv()
		if err != nil {
			return
		}
		if f, err := skein.NewFunction(change.GetUser(), change.GetFunction()); err == nil {
			r.forget(&f)
		}
		// The uploader's answer waits for this.
		if err := stream.Send(&uploadv1.WatchFunctionsRequest{SeenSequence: change.GetSequence()}); err != nil {
			return
		}
	}
}
