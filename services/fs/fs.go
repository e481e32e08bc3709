// Package fs owns the files that all functions of a user read. Start one with Config.Start; Files does the work.
//
// Content is cut into blocks of 1 MiB, each an object named by its SHA-256 (fs/blocks/USER/DIGEST; per user, so that
// nothing crosses users, not even the fact that somebody else has the same bytes). What makes them a file is one small
// object, its record (fs/names/USER/PATH!), which lists them. So a put is atomic however long it takes: the blocks go
// first, unseen, then the record, and who reads has one record from the beginning to the end. No byte leaves before the
// digest of its block has been checked, so what a store damaged or lost is an error and never content.
//
// A put sends every block, also those that the store has: that mends a damaged one, and it makes an old one young again.
// For blocks that no record has any more are deleted by Sweep, once they are older than a grace that no upload may
// exceed.
//
// The store holds everything, the process nothing. Any number of fs services may serve the same bucket.
package fs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"skein.dev"
	"skein.dev/platform/blob"
	"skein.dev/platform/fault"
	"skein.dev/platform/service"
	"skein.dev/platform/turn"
	"skein.dev/platform/watch"
)

const (
	// MaxFile is the most that Config.MaxFile may be, in bytes.
	MaxFile = 32 << 30

	blockSize = 1 << 20
	maxBlock  = 16 << 20 // of a record, should blockSize ever grow
	ahead     = 4        // blocks of one file that are under way at a time
)

// Files is the shared files of all users.
type Files struct {
	bucket blob.Bucket
	max    int64         // bytes of a file
	grace  time.Duration // that a put may take

	// mu is held by Sweep while it deletes a block.
	mu       sync.Mutex
	pins     map[string]int  // how many puts need a block that their record doesn't have yet
	touched  map[string]bool // while a sweep runs: what has been pinned at any time since its beginning
	sweeping sync.Mutex      // one sweep at a time; taken before mu

	changes  turn.Turns // of each name: no store can look at an object and delete it in one step
	watchers watch.Feed[skein.FilePath]
}

// New keeps files in a bucket. max bounds a file in bytes, grace a put; a sweep must have the same grace or a longer one.
func New(bucket blob.Bucket, maxFile int64, grace time.Duration) *Files {
	return &Files{bucket: bucket, max: maxFile, grace: grace, pins: map[string]int{}}
}

// File describes one content of a file.
type File struct {
	Path     skein.FilePath
	Size     int64
	Digest   skein.Digest // of the whole content
	Modified time.Time

	blockSize int64
	blocks    []skein.Digest
	etag      string // of its record
}

// Condition is what must hold for a Put. The zero value asks for nothing.
type Condition struct {
	Absent bool          // no such file
	Match  *skein.Digest // the file has this content
}

// tracer is asked for anew each time: a process may start more than one service, each with its own provider.
func tracer() trace.Tracer { return otel.Tracer("skein.dev/services/fs") }

// span starts the span of an operation; end takes its error.
func span(ctx context.Context, name string, user skein.User, path string) (context.Context, trace.Span) {
	return tracer().Start(ctx, name, trace.WithAttributes(attribute.String("skein.user", string(user)), attribute.String("skein.path", path)))
}

func end(sp trace.Span, n int64, err *error) {
	sp.SetAttributes(attribute.Int64("skein.bytes", n))
	if *err != nil {
		sp.RecordError(*err)
		sp.SetStatus(codes.Error, fault.From(*err).Reason)
	}
	sp.End()
}

func noFile(p skein.FilePath) error { return fault.NotFound.New("NO_FILE", "there is no file %s", p) }

func changed(p skein.FilePath) error {
	return fault.Conflict.New("FILE_CHANGED", "file %s is not the one that was expected", p)
}

// Stat describes a file. NotFound NO_FILE if there is none.
func (f *Files) Stat(ctx context.Context, p skein.FilePath) (file File, err error) {
	ctx, sp := span(ctx, "fs stat", p.User, p.Path)
	defer func() { end(sp, file.Size, &err) }()
	return f.stat(ctx, p)
}

func (f *Files) stat(ctx context.Context, p skein.FilePath) (File, error) {
	key, err := nameKey(p)
	if err != nil {
		return File{}, err
	}
	data, info, err := blob.Read(ctx, f.bucket, key, maxRecord)
	if errors.Is(err, fault.NotFound) {
		return File{}, noFile(p)
	} else if err != nil {
		return File{}, err
	}
	file, err := parseRecord(p, data)
	file.etag = info.ETag
	return file, err
}

// LookUp is Stat for who may be asking for a directory, which is what files lie under: dir then, and no file. NotFound
// NO_FILE if p is neither.
func (f *Files) LookUp(ctx context.Context, p skein.FilePath) (file File, dir bool, err error) {
	ctx, sp := span(ctx, "fs look up", p.User, p.Path)
	defer func() { end(sp, file.Size, &err) }()
	file, err = f.stat(ctx, p)
	if !errors.Is(err, fault.NotFound) {
		return file, false, err
	}
	page, err := f.bucket.List(ctx, namePrefix+string(p.User)+"/"+escape.Replace(p.Path)+"/", "", 1, false)
	if err == nil && len(page.Items) == 0 {
		err = noFile(p)
	}
	return File{}, err == nil, err
}

// Delete removes a file. NotFound NO_FILE if there is none; a damaged one can be deleted. If match is given, Conflict
// FILE_CHANGED if the file has another content: no put through this process comes between that look and the deletion.
func (f *Files) Delete(ctx context.Context, p skein.FilePath, match *skein.Digest) (err error) {
	ctx, sp := span(ctx, "fs delete", p.User, p.Path)
	defer func() { end(sp, 0, &err) }()
	key, err := nameKey(p)
	if err != nil {
		return err
	}
	tried, err := f.remove(ctx, p, key, match)
	if tried {
		f.watchers.Tell(ctx, p) // after an error too: the store may have done it
	}
	return err
}

// remove is Delete in a name's turn. It tells whether the store was asked to.
func (f *Files) remove(ctx context.Context, p skein.FilePath, key string, match *skein.Digest) (tried bool, err error) {
	leave, err := f.changes.Enter(ctx, key)
	if err != nil {
		return false, err
	}
	defer leave()
	if match != nil {
		if _, err := f.condition(ctx, p, Condition{Match: match}); err != nil {
			return false, err
		}
	}
	if _, err := f.bucket.Stat(ctx, key); errors.Is(err, fault.NotFound) {
		return false, noFile(p)
	} else if err != nil {
		return false, err
	}
	return true, f.bucket.Delete(ctx, key)
}

// Put makes what r holds the content of a file, all at once when it has been read to its end. TooLarge TOO_LARGE above
// the limit, Conflict FILE_CHANGED if cond does not hold, Timeout UPLOAD_TOO_SLOW; the file is unchanged then. An error of
// r comes back as it is.
func (f *Files) Put(ctx context.Context, p skein.FilePath, r io.Reader, cond Condition) (file File, err error) {
	ctx, sp := span(ctx, "fs put", p.User, p.Path)
	defer func() { end(sp, file.Size, &err) }()
	up := f.upload(p.User)
	return f.replace(ctx, p, cond, up, f.grace, "the upload", func(ctx context.Context) (File, error) {
		err := up.blocks(ctx, r)
		return up.file(p), err
	})
}

func (f *Files) upload(user skein.User) *upload {
	return &upload{f: f, user: user, whole: sha256.New(), sent: map[skein.Digest]bool{}}
}

// replace makes what an upload gathers the file, if cond holds and that takes no longer than most. gather gives what the file will be.
func (f *Files) replace(ctx context.Context, p skein.FilePath, cond Condition, up *upload, most time.Duration, what string, gather func(context.Context) (File, error)) (File, error) {
	key, err := nameKey(p)
	if err != nil {
		return File{}, err
	}
	opts, err := f.condition(ctx, p, cond)
	if err != nil {
		return File{}, err
	}
	slow := fault.Timeout.New("UPLOAD_TOO_SLOW", "%s took longer than %s", what, most).WithHint("raise --sweep-grace")
	ctx, cancel := context.WithTimeoutCause(ctx, most, slow)
	defer cancel()
	defer up.unpin()
	file, err := gather(ctx)
	if err == nil {
		err = f.publish(ctx, key, &file, opts)
	}
	if err != nil && errors.Is(context.Cause(ctx), slow) {
		err = slow
	}
	if err != nil {
		return File{}, err
	}
	return file, nil
}

// condition finds what the record must be for cond to hold. It asks before the content is sent; publish makes it sure.
func (f *Files) condition(ctx context.Context, p skein.FilePath, cond Condition) (blob.PutOptions, error) {
	if !cond.Absent && cond.Match == nil {
		return blob.PutOptions{}, nil
	}
	file, err := f.stat(ctx, p)
	absent := errors.Is(err, fault.NotFound)
	switch {
	case err != nil && !absent:
		return blob.PutOptions{}, err
	case cond.Absent && absent:
		return blob.PutOptions{IfAbsent: true}, nil
	case cond.Absent || absent || file.Digest != *cond.Match:
		return blob.PutOptions{}, changed(p)
	}
	return blob.PutOptions{IfMatch: file.etag}, nil
}

func (f *Files) publish(ctx context.Context, key string, file *File, opts blob.PutOptions) error {
	data, err := file.record()
	if err != nil {
		return err
	}
	leave, err := f.changes.Enter(ctx, key)
	if err != nil {
		return err
	}
	info, err := f.bucket.Put(ctx, key, bytes.NewReader(data), int64(len(data)), opts)
	leave()
	f.watchers.Tell(ctx, file.Path) // after an error too: the store may have done it
	if errors.Is(err, fault.Conflict) {
		return changed(file.Path)
	}
	file.etag = info.ETag
	return err
}

// upload is the blocks of one put.
type upload struct {
	f       *Files
	user    skein.User
	size    int64
	whole   hash.Hash
	digests []skein.Digest
	sent    map[skein.Digest]bool // each is pinned
}

// file is what the blocks make.
func (u *upload) file(p skein.FilePath) File {
	return File{
		Path: p, Size: u.size, Digest: skein.Digest(u.whole.Sum(nil)), Modified: time.Now().UTC(),
		blockSize: blockSize, blocks: u.digests,
	}
}

func (f *Files) tooLarge() error {
	return fault.TooLarge.New("TOO_LARGE", "the file has more than %d bytes", f.max).WithHint("raise --max-file")
}

// buffers hold a block each.
var buffers = sync.Pool{New: func() any { b := make([]byte, blockSize); return &b }}

// blocks reads r to its end and stores it. It returns when nothing is under way any more.
func (u *upload) blocks(ctx context.Context, r io.Reader) error {
	group, sending := errgroup.WithContext(ctx)
	group.SetLimit(ahead) // Go waits, so that a slow store slows the reading
	var readErr error
	for readErr == nil && sending.Err() == nil {
		buf := buffers.Get().(*[]byte) //nolint:forcetypeassert // nothing else is in there
		var n int
		n, readErr = service.Fill(r, *buf)
		if n == 0 || readErr != nil && !errors.Is(readErr, io.EOF) {
			buffers.Put(buf)
			break
		}
		block := (*buf)[:n]
		if u.size += int64(n); u.size > u.f.max {
			buffers.Put(buf)
			readErr = u.f.tooLarge()
			break
		}
		u.whole.Write(block)
		d := skein.DigestOf(block)
		u.digests = append(u.digests, d)
		if u.sent[d] { // by this very put
			buffers.Put(buf)
			continue
		}
		u.pin(d)
		group.Go(func() error {
			defer buffers.Put(buf)
			_, err := u.f.bucket.Put(sending, blockKey(u.user, d), bytes.NewReader(block), int64(len(block)), blob.PutOptions{})
			return err
		})
	}
	err := group.Wait()
	if readErr != nil && !errors.Is(readErr, io.EOF) {
		return readErr
	}
	return err
}

// pin keeps Sweep from a block until unpin; if Sweep is just deleting it, pin waits, and the put that follows is later.
func (u *upload) pin(d skein.Digest) {
	u.sent[d] = true
	u.f.mu.Lock()
	defer u.f.mu.Unlock()
	key := blockKey(u.user, d)
	u.f.pins[key]++
	if u.f.touched != nil {
		u.f.touched[key] = true
	}
}

func (u *upload) unpin() {
	u.f.mu.Lock()
	defer u.f.mu.Unlock()
	for d := range u.sent {
		key := blockKey(u.user, d)
		if u.f.pins[key]--; u.f.pins[key] <= 0 {
			delete(u.f.pins, key)
		}
	}
}
