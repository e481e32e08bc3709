package upload

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"skein.dev"
	"skein.dev/platform/blob"
	"skein.dev/platform/fault"
	"skein.dev/platform/prepare"
	"skein.dev/platform/runconfig"
)

// maxRecord bounds a head and a version's record in bytes.
const maxRecord = 1 << 20

func dirKey(f skein.Function) string  { return "functions/" + f.String() + "/" }
func headKey(f skein.Function) string { return dirKey(f) + "current" }

func versionsKey(f skein.Function) string { return dirKey(f) + "versions/" }

// versionKey pads the number, so that keys are in the order of numbers.
func versionKey(f skein.Function, n int64) string { return fmt.Sprintf("%s%019d", versionsKey(f), n) }

func versionNumber(key string) (int64, bool) {
	n, err := strconv.ParseInt(key[strings.LastIndexByte(key, '/')+1:], 10, 64)
	return n, err == nil && n > 0
}

func corrupt(key string, err error) error {
	return fault.DataLoss.New("STORE_CORRUPT", "object %q is damaged: %s", key, err)
}

// load reads a JSON object; false if there is none.
func (r *Registry) load(ctx context.Context, key string, to any) (etag string, found bool, err error) {
	data, info, err := blob.Read(ctx, r.bucket, key, maxRecord)
	if errors.Is(err, fault.NotFound) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	if err := json.Unmarshal(data, to); err != nil {
		return "", false, corrupt(key, err)
	}
	return info.ETag, true, nil
}

func (r *Registry) save(ctx context.Context, key string, v any, opts blob.PutOptions) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = r.bucket.Put(ctx, key, bytes.NewReader(data), int64(len(data)), opts)
	return err
}

// head reads what a function is; the zero head if there never was one.
func (r *Registry) head(ctx context.Context, f skein.Function) (h head, etag string, err error) {
	etag, found, err := r.load(ctx, headKey(f), &h)
	if found && h.Current == nil && !h.Deleted {
		err = corrupt(headKey(f), errors.New("it has no current version"))
	}
	return h, etag, err
}

// swap replaces a head that was read with etag; false if somebody else did before.
func (r *Registry) swap(ctx context.Context, f skein.Function, etag string, h head) (bool, error) {
	err := r.save(ctx, headKey(f), h, blob.PutOptions{IfAbsent: etag == "", IfMatch: etag})
	if errors.Is(err, fault.Conflict) {
		return false, nil
	}
	r.watchers.Tell(ctx, f) // after an error too: the store may have done it
	return err == nil, err
}

func (r *Registry) record(ctx context.Context, f skein.Function, n int64) (v record, found bool, err error) {
	_, found, err = r.load(ctx, versionKey(f, n), &v)
	return v, found, err
}

// reserve stores v under the least number from on that is free, and returns it with that. If it finds the record of an
// upload of the same bytes that has not ended, it returns that instead: whoever comes first brings it to its end. So a
// crash between a record and its head costs nothing but a repetition.
func (r *Registry) reserve(ctx context.Context, f skein.Function, from int64, v record) (record, error) {
	for n := from; ; {
		v.Number = n
		err := r.save(ctx, versionKey(f, n), v, blob.PutOptions{IfAbsent: true})
		if err == nil {
			return v, nil
		}
		if !errors.Is(err, fault.Conflict) {
			return v, err
		}
		there, found, err := r.record(ctx, f, n)
		switch {
		case err != nil:
			return v, err
		case !found: // a deletion took it away just now: the number may be free
			if err := ctx.Err(); err != nil {
				return v, err
			}
			continue
		case there.Digest == v.Digest:
			return there, nil
		case there.RequestID != "" && there.RequestID == v.RequestID:
			return v, reused(v.RequestID)
		}
		n++
	}
}

// newest gives the greatest number of a record, at least from.
func (r *Registry) newest(ctx context.Context, f skein.Function, from int64) (int64, error) {
	after := versionKey(f, from)
	for {
		page, err := r.bucket.List(ctx, versionsKey(f), after, blob.MaxPage, false)
		if err != nil {
			return 0, err
		}
		for _, item := range page.Items {
			if n, ok := versionNumber(item.Key); ok {
				from = max(from, n)
			}
		}
		if !page.More {
			return from, nil
		}
		after = page.Last()
	}
}

// configs are the keys of a function's configurations, those that nothing names any more included.
func (r *Registry) configs(ctx context.Context, f skein.Function) (keys []string, err error) {
	for item, err := range blob.All(ctx, r.bucket, runconfig.Prefix(f)) {
		if err != nil {
			return nil, err
		}
		keys = append(keys, item.Key)
	}
	return keys, nil
}

// sweep removes the records up to a number, and configurations, and returns how many there were.
func (r *Registry) sweep(ctx context.Context, f skein.Function, to int64, configs []string) (int, error) {
	group, within := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	swept := len(configs)
	for _, key := range configs {
		group.Go(func() error { return r.bucket.Delete(within, key) })
	}
	for item, err := range blob.All(within, r.bucket, versionsKey(f)) {
		if err != nil {
			if e := group.Wait(); e != nil {
				err = e // the listing was only cancelled for it
			}
			return swept, err
		}
		if n, ok := versionNumber(item.Key); ok && n > to {
			break
		}
		swept++
		group.Go(func() error { return r.bucket.Delete(within, item.Key) })
	}
	return swept, group.Wait()
}

// parallel bounds the requests that one call has in flight.
const parallel = 16

// putModule stores a module under its digest, unless it is there whole. What is there is read and compared: sending a
// module again is how a damaged one is repaired.
func (r *Registry) putModule(ctx context.Context, d skein.Digest, wasm []byte) (err error) {
	ctx, end := begin(ctx, "upload put", nil)
	defer end(&err)
	key := prepare.ModuleKey(d)
	whole, err := r.whole(ctx, key, d, int64(len(wasm)))
	if err != nil || whole {
		return err
	}
	_, err = r.bucket.Put(ctx, key, bytes.NewReader(wasm), int64(len(wasm)), blob.PutOptions{})
	return err
}

func (r *Registry) whole(ctx context.Context, key string, d skein.Digest, size int64) (bool, error) {
	body, info, err := r.bucket.Get(ctx, key, 0, -1)
	if errors.Is(err, fault.NotFound) || errors.Is(err, fault.DataLoss) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = body.Close() }()
	if info.Size != size {
		return false, nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, body); err != nil {
		if errors.Is(err, fault.DataLoss) {
			return false, nil
		}
		return false, err
	}
	return skein.Digest(h.Sum(nil)) == d, nil
}
