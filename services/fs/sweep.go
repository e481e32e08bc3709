package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"skein.dev"
	"skein.dev/platform/blob"
	"skein.dev/platform/fault"
)

// Sweep deletes the blocks that no file has and that are older than grace, and says how many. A user whose files could
// not all be read keeps every block; the error says so.
//
// A block in use is never deleted. A put writes all its blocks within the grace before its record (Compose those that are not young): one that is old when
// the sweep begins, and not in a record that the sweep reads, could only be needed by a put that writes it again. Such a
// put of this process has pinned the block since; one of another has made it young, which is looked at once more right
// before the deletion. (What remains is another process's write between that look and the deletion, a request later.)
func (f *Files) Sweep(ctx context.Context, grace time.Duration) (deleted int, err error) {
	ctx, sp := tracer().Start(ctx, "fs sweep")
	defer func() { end(sp, 0, &err) }()
	f.sweeping.Lock()
	defer f.sweeping.Unlock()
	f.touch(true)
	defer f.touch(false)
	now, err := f.storeTime(ctx)
	if err != nil {
		return 0, err
	}
	var failed []error
	for after := ""; ; {
		page, err := f.bucket.List(ctx, blockPrefix, after, blob.MaxPage, true)
		if err != nil {
			return deleted, err
		}
		for _, dir := range page.Prefixes {
			user, err := skein.ParseUser(strings.TrimSuffix(strings.TrimPrefix(dir, blockPrefix), "/"))
			if err != nil {
				continue // none of ours
			}
			n, err := f.sweepUser(ctx, user, now.Add(-grace))
			if deleted += n; err != nil {
				failed = append(failed, fmt.Errorf("user %s: %w", user, err))
			}
		}
		if !page.More {
			return deleted, errors.Join(failed...)
		}
		after = page.Last()
	}
}

// storeTime is the store's clock, which the times of its objects are by; ours may be hours away from it.
func (f *Files) storeTime(ctx context.Context) (time.Time, error) {
	if _, err := f.bucket.Put(ctx, clockKey, bytes.NewReader(nil), 0, blob.PutOptions{}); err != nil {
		return time.Time{}, err
	}
	now, err := f.bucket.Stat(ctx, clockKey)
	return now.Modified, err
}

// touch begins or ends keeping account of the blocks that puts of this process need.
func (f *Files) touch(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.touched = nil
	if on {
		f.touched = map[string]bool{}
		for key := range f.pins {
			f.touched[key] = true
		}
	}
}

func (f *Files) sweepUser(ctx context.Context, user skein.User, cutoff time.Time) (deleted int, err error) {
	old := map[skein.Digest]bool{}
	dir := blockPrefix + string(user) + "/"
	for info, err := range blob.All(ctx, f.bucket, dir) {
		if err != nil {
			return 0, err
		}
		if d, err := skein.ParseDigest(strings.TrimPrefix(info.Key, dir)); err == nil && info.Modified.Before(cutoff) {
			old[d] = true
		}
	}
	if len(old) == 0 {
		return 0, nil
	}
	if err := f.spare(ctx, user, old); err != nil {
		return 0, err
	}
	for d := range old {
		done, err := f.sweepBlock(ctx, blockKey(user, d), cutoff)
		if err != nil {
			return deleted, err
		}
		if done {
			deleted++
		}
	}
	return deleted, nil
}

// spare takes out of old what the user's files have.
func (f *Files) spare(ctx context.Context, user skein.User, old map[skein.Digest]bool) error {
	group, reading := errgroup.WithContext(ctx)
	group.SetLimit(8)
	var mu sync.Mutex
	var listErr error
	for info, err := range blob.All(reading, f.bucket, namePrefix+string(user)+"/") {
		if err != nil {
			listErr = err
			break
		}
		group.Go(func() error {
			file, err := f.stat(reading, skein.FilePath{User: user, Path: pathOf(user, info.Key)})
			if errors.Is(err, fault.NotFound) { // deleted since
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			for _, d := range file.blocks {
				delete(old, d)
			}
			return err
		})
	}
	return errors.Join(group.Wait(), listErr)
}

func (f *Files) sweepBlock(ctx context.Context, key string, cutoff time.Time) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.touched[key] {
		return false, nil
	}
	info, err := f.bucket.Stat(ctx, key)
	if errors.Is(err, fault.NotFound) || err == nil && !info.Modified.Before(cutoff) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	return true, f.bucket.Delete(ctx, key)
}
