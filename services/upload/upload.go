// Package upload accepts modules and keeps them as versions of functions.
//
// A module arrives whole in memory (intake.go), is read by package prepare and compiled by package compile, and is refused
// with a reason before anything is stored. Then four kinds of objects are written, in this order:
//
//	modules/DIGEST                          the bytes; immutable; executors read them straight from the bucket
//	artifacts/ENGINE/DIGEST                 what was made of them: executors of the same engine need not compile
//	functions/USER/NAME/versions/NUMBER     the version's record; put only where there is none, so numbers never collide
//	functions/USER/NAME/current             the head: the function's current version and what requests were answered
//
// and with a configuration (settings.go), before the head too:
//
//	functions/USER/NAME/config/DIGEST       what executors need of it: see package runconfig
//
// The head is replaced last, and only if it is still the one that was read: that is the moment when a version becomes
// visible. A failure before it leaves objects that nothing names; the next upload of the same bytes takes them up. Of
// uploads at the same time the greatest number ends as current; a rollback names its version itself.
//
// Deleting a function marks its head as deleted, which ends it at once, then removes its records and configurations. Numbers go on behind
// the deleted ones if the function comes back, so "version 3 of ann/echo" means one module for ever. Modules stay: other
// functions may have the same bytes, and calls that run may be about to load them.
//
// Enter by Config.Start; Registry does the work, server.go and rest.go speak for it.
package upload

import (
	"context"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"skein.dev"
	"skein.dev/platform/blob"
	"skein.dev/platform/compile"
	"skein.dev/platform/fault"
	"skein.dev/platform/prepare"
	"skein.dev/platform/runconfig"
	"skein.dev/platform/watch"
)

// patience bounds how long a change waits for its watchers. What they keep lives no longer.
const patience = time.Second

// Registry keeps functions in a bucket. Any number of them, in any number of processes, may share one.
type Registry struct {
	bucket   blob.Bucket
	limits   prepare.Limits
	effort   compile.Limits
	key      []byte // of artifacts
	secrets  *runconfig.Key
	builds   builds
	watchers watch.Feed[skein.Function]
}

// Function is a function and its current version.
type Function struct {
	Name     skein.Function
	Current  Version
	Updated  time.Time
	Settings Settings
	Revision int64 // of the settings; grows with every change, from 1
}

// Version is an upload with what is known of its module.
type Version struct {
	skein.Version
	Size    int64 // bytes
	Created time.Time
	Kind    prepare.Kind
	Imports []string // "module.name", sorted, each once
}

// Upload stores wasm as f's newest version and makes it current; created is false if the bytes are those of the current
// version already. fn is the function with that version, even if an upload at the same time got a greater number and is
// current by now. A request that was answered before, by its id, gets the same answer again. Errors: those of packages
// prepare and compile; Exists REQUEST_ID_REUSED; the bucket's.
func (r *Registry) Upload(ctx context.Context, f skein.Function, wasm []byte, requestID string) (fn Function, created bool, err error) {
	ctx, end := begin(ctx, "upload", &f)
	defer end(&err)
	if err := checkRequestID(requestID); err != nil {
		return Function{}, false, err
	}
	m, err := r.check(ctx, wasm)
	if err != nil {
		return Function{}, false, err
	}
	if err := r.keep(ctx, m.Digest, wasm); err != nil {
		return Function{}, false, err
	}
	var imports []string
	for _, imp := range m.Imports {
		imports = append(imports, imp.String())
	}
	slices.Sort(imports)
	return r.publish(ctx, f, record{
		Digest: m.Digest.String(), Size: int64(len(wasm)), Created: now(), Kind: m.Kind.String(),
		Imports: slices.Compact(imports), RequestID: requestID,
	})
}

// check tells whether a module can be a function here.
func (r *Registry) check(ctx context.Context, wasm []byte) (m *prepare.Module, err error) {
	_, end := begin(ctx, "upload check", nil)
	defer end(&err)
	if m, err = prepare.Inspect(wasm, r.limits); err != nil {
		return nil, err
	}
	if err = prepare.CheckEntry(m); err != nil {
		return nil, err
	}
	if err = prepare.CheckFeatures(m); err != nil {
		return nil, err
	}
	return m, prepare.CheckImports(m)
}

// publish gives v a number and makes it current.
func (r *Registry) publish(ctx context.Context, f skein.Function, v record) (Function, bool, error) {
	req := request{ID: v.RequestID, Op: "upload", Digest: v.Digest}
	for try := range tries {
		h, etag, err := r.head(ctx, f)
		if err != nil {
			return Function{}, false, err
		}
		if done, ok, err := h.answered(req); err != nil {
			return Function{}, false, err
		} else if ok {
			fn, err := r.again(ctx, f, h, done)
			return fn, done.Created, err
		}
		if h.gone(v.Number) {
			v.Number = 0 // the function was deleted while we were at it: this is a new one's
		}
		req.Number, req.Created = v.Number, true
		switch {
		case v.Number != 0: // stored by an earlier try
		case h.exists() && h.Current.Digest == v.Digest:
			req.Number, req.Created = h.Current.Number, false
		default:
			if v, err = r.reserve(ctx, f, h.Latest+1, v); err != nil {
				return Function{}, false, err
			}
			req.Number = v.Number
		}
		next := h.promote(v).with(req)
		ok := req.ID == "" && v.Number <= h.Latest // nothing to write
		if !ok {
			ok, err = r.swap(ctx, f, etag, next)
		}
		if err != nil {
			return Function{}, false, err
		}
		if ok {
			fn, err := r.again(ctx, f, next, req)
			return fn, req.Created, err
		}
		if err := pause(ctx, try); err != nil {
			return Function{}, false, err
		}
	}
	return Function{}, false, busy(f)
}

// again is the answer to a request that was answered: the function with the version that it named.
func (r *Registry) again(ctx context.Context, f skein.Function, h head, done request) (Function, error) {
	if h.exists() && h.Current.Number == done.Number {
		return function(f, h)
	}
	v, found, err := r.record(ctx, f, done.Number)
	if err != nil {
		return Function{}, err
	}
	if !found {
		return Function{}, noFunction(f)
	}
	return function(f, h.roll(v, v.Created))
}

// Get finds a function. Error: NotFound NO_FUNCTION.
func (r *Registry) Get(ctx context.Context, f skein.Function) (Function, error) {
	h, _, err := r.head(ctx, f)
	if err != nil {
		return Function{}, err
	}
	if !h.exists() {
		return Function{}, noFunction(f)
	}
	return function(f, h)
}

// RollBack makes version n current, or the one before the current if n is 0. Error: NotFound NO_FUNCTION, NO_VERSION.
func (r *Registry) RollBack(ctx context.Context, f skein.Function, n int64, requestID string) (_ Function, err error) {
	ctx, end := begin(ctx, "upload rollback", &f)
	defer end(&err)
	if err := checkRequestID(requestID); err != nil {
		return Function{}, err
	}
	for try := range tries {
		h, etag, err := r.head(ctx, f)
		if err != nil {
			return Function{}, err
		}
		req := request{ID: requestID, Op: "rollback"}
		if done, ok, err := h.answered(req); err != nil {
			return Function{}, err
		} else if ok && n != 0 && n != done.Number {
			return Function{}, reused(requestID)
		} else if ok {
			return r.again(ctx, f, h, done)
		}
		if !h.exists() {
			return Function{}, noFunction(f)
		}
		v, err := r.target(ctx, f, h, n)
		if err != nil {
			return Function{}, err
		}
		req.Number = v.Number
		next := h.with(req)
		if v.Number != h.Current.Number {
			next = next.roll(v, now())
		} else if requestID == "" {
			return function(f, h)
		}
		if ok, err := r.swap(ctx, f, etag, next); err != nil {
			return Function{}, err
		} else if ok {
			return function(f, next)
		}
		if err := pause(ctx, try); err != nil {
			return Function{}, err
		}
	}
	return Function{}, busy(f)
}

// target reads the version that a rollback goes to.
func (r *Registry) target(ctx context.Context, f skein.Function, h head, n int64) (record, error) {
	wanted := n
	if n == 0 {
		n = h.Current.Number - 1
	}
	if h.owns(n) {
		v, found, err := r.record(ctx, f, n)
		if err != nil || found {
			return v, err
		}
	}
	if wanted == 0 {
		return record{}, fault.NotFound.New("NO_VERSION", "function %s has no version before %d", f, h.Current.Number)
	}
	return record{}, fault.NotFound.New("NO_VERSION", "function %s has no version %d", f, n).
		WithHint("its versions are %d to %d", h.First, h.Latest)
}

// Delete removes a function with its versions. Error: NotFound NO_FUNCTION.
func (r *Registry) Delete(ctx context.Context, f skein.Function, requestID string) (err error) {
	ctx, end := begin(ctx, "upload delete", &f)
	defer end(&err)
	if err := checkRequestID(requestID); err != nil {
		return err
	}
	req := request{ID: requestID, Op: "delete"}
	for try := range tries {
		configs, err := r.configs(ctx, f) // listed before: what is put after the head is buried is another function's
		if err != nil {
			return err
		}
		h, etag, err := r.head(ctx, f)
		if err != nil {
			return err
		}
		_, repeated, err := h.answered(req)
		if err != nil {
			return err
		}
		if repeated && h.exists() {
			return nil // and it came back since
		}
		if !h.exists() {
			// The deletion may have been cut short, by a failure that its caller saw.
			swept, err := r.sweep(ctx, f, h.Latest, configs)
			if err == nil && swept == 0 && !repeated {
				err = noFunction(f)
			}
			return err
		}
		newest, err := r.newest(ctx, f, h.Latest)
		if err != nil {
			return err
		}
		next := h.bury(newest, now()).with(req)
		if ok, err := r.swap(ctx, f, etag, next); err != nil {
			return err
		} else if ok {
			_, err := r.sweep(ctx, f, next.Latest, configs)
			return err
		}
		if err := pause(ctx, try); err != nil {
			return err
		}
	}
	return busy(f)
}

func function(f skein.Function, h head) (Function, error) {
	v, err := h.Current.version(f)
	if err == nil && h.Config != "" {
		if v.Config, err = skein.ParseDigest(h.Config); err != nil {
			err = corrupt(headKey(f), err)
		}
	}
	return Function{f, v, h.Updated, h.Settings, h.Revision + 1}, err
}

func noFunction(f skein.Function) error {
	return fault.NotFound.New("NO_FUNCTION", "there is no function %s", f).WithHint("upload one: PUT /v1/functions/%s", f)
}

func busy(f skein.Function) error {
	return fault.Conflict.New("FUNCTION_BUSY", "function %s is being changed by too many at the same time", f).WithRetry(time.Second)
}

func checkRequestID(id string) error {
	const most = 128
	if len(id) > most || !utf8.ValidString(id) {
		return fault.Invalid.New("BAD_REQUEST_ID", "request id of %d bytes: at most %d bytes of UTF-8 are allowed", len(id), most)
	}
	return nil
}

// tries bounds how often a change starts anew because somebody else changed the function meanwhile. One of all who try
// succeeds each time.
const tries = 200

// pause waits a little, and longer the more often that was for nothing.
func pause(ctx context.Context, try int) error {
	most := time.Millisecond << min(try, 6)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(rand.N(most)):
		return nil
	}
}

// now is the time as records keep it.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

// begin starts a span; its end records the error.
func begin(ctx context.Context, name string, f *skein.Function) (context.Context, func(*error)) {
	ctx, span := otel.Tracer("skein.dev/services/upload").Start(ctx, name)
	if f != nil {
		span.SetAttributes(attribute.String("skein.function", f.String()))
	}
	return ctx, func(err *error) {
		if *err != nil {
			e := fault.From(*err)
			span.SetAttributes(attribute.String("skein.reason", e.Reason))
			if e.Kind.HTTP >= http.StatusInternalServerError { // what the caller did wrong is no failure of ours
				span.SetStatus(codes.Error, e.Message)
			}
		}
		span.End()
	}
}
