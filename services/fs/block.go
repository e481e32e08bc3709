package fs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"skein.dev"
	"skein.dev/platform/blob"
	"skein.dev/platform/fault"
)

// fetched is a verified block.
type fetched struct {
	data     []byte
	modified time.Time // by the store's clock
	buf      *[]byte   // that holds it, if it is one to be used again
	err      error
}

func (b *fetched) free() {
	if b.buf != nil {
		buffers.Put(b.buf)
		b.buf = nil
	}
}

// block reads a block whole and checks it. NotFound NO_BLOCK, DataLoss DIGEST_MISMATCH.
func (f *Files) block(ctx context.Context, user skein.User, d skein.Digest) (b fetched) {
	r, info, err := f.bucket.Get(ctx, blockKey(user, d), 0, -1)
	if errors.Is(err, fault.NotFound) {
		err = fault.NotFound.New("NO_BLOCK", "there is no block %s of user %s", d, user)
	}
	if err != nil {
		return fetched{err: err}
	}
	defer func() { _ = r.Close() }()
	b.modified = info.Modified
	switch {
	case info.Size <= blockSize:
		b.buf = buffers.Get().(*[]byte) //nolint:forcetypeassert // nothing else is in there
		b.data = (*b.buf)[:info.Size]
	case info.Size <= maxBlock:
		b.data = make([]byte, info.Size)
	}
	if _, b.err = io.ReadFull(r, b.data); b.err == nil && (info.Size > maxBlock || skein.DigestOf(b.data) != d) {
		b.err = fault.DataLoss.New("DIGEST_MISMATCH", "block %s of user %s is not as it was put", d, user).
			WithHint("put the block, or a file that has it, again: that mends it")
	}
	if b.err != nil {
		b.free()
	}
	return b
}

// Block gives a block, verified, to emit, which must not keep it. NotFound NO_BLOCK, DataLoss DIGEST_MISMATCH.
func (f *Files) Block(ctx context.Context, user skein.User, d skein.Digest, emit func([]byte) error) (err error) {
	ctx, sp := span(ctx, "fs get block", user, d.String())
	var n int64
	defer func() { end(sp, n, &err) }()
	b := f.block(ctx, user, d)
	if b.err != nil {
		return b.err
	}
	defer b.free()
	n = int64(len(b.data))
	return emit(b.data)
}

// PutBlock stores a block for a Compose to come. Invalid BAD_DIGEST if data is not what d says, BAD_BLOCK if it is empty or
// larger than a block.
func (f *Files) PutBlock(ctx context.Context, user skein.User, d skein.Digest, data []byte) (err error) {
	ctx, sp := span(ctx, "fs put block", user, d.String())
	defer func() { end(sp, int64(len(data)), &err) }()
	switch {
	case len(data) == 0 || len(data) > blockSize:
		return fault.Invalid.New("BAD_BLOCK", "a block has 1 to %d bytes, not %d", blockSize, len(data))
	case skein.DigestOf(data) != d:
		return fault.Invalid.New("BAD_DIGEST", "the block's SHA-256 is %s, not %s", skein.DigestOf(data), d)
	}
	up := &upload{f: f, user: user, sent: map[skein.Digest]bool{}}
	defer up.unpin()
	up.pin(d)
	_, err = f.bucket.Put(ctx, blockKey(user, d), bytes.NewReader(data), int64(len(data)), blob.PutOptions{})
	return err
}

// Missing gives those of blocks that the store lacks, each once.
func (f *Files) Missing(ctx context.Context, user skein.User, blocks []skein.Digest) (missing []skein.Digest, err error) {
	ctx, sp := span(ctx, "fs find missing", user, "")
	defer func() { end(sp, int64(len(missing)), &err) }()
	lacks := make([]bool, len(blocks))
	asked := map[skein.Digest]bool{}
	group, asking := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i, d := range blocks {
		if asked[d] {
			continue
		}
		asked[d] = true
		group.Go(func() error {
			_, err := f.bucket.Stat(asking, blockKey(user, d))
			if errors.Is(err, fault.NotFound) {
				lacks[i], err = true, nil
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for i, d := range blocks {
		if lacks[i] {
			missing = append(missing, d)
		}
	}
	return missing, nil
}

// Compose makes blocks that are in the store the content of a file, all at once: each of 1 MiB but the last. Every one is
// read, so that the digest of the whole is ours and not the caller's word. Precondition BLOCK_MISSING if one is not there or damaged, Invalid
// BAD_BLOCK for one of another size or BAD_DIGEST if whole is given and is not what they make, TooLarge TOO_LARGE, Conflict
// FILE_CHANGED if cond does not hold.
//
// A sweep may be about to take blocks that were there before. Those of half a grace or more are written again, as Put does
// with all; younger ones no sweep touches before the half that a Compose may take is over.
func (f *Files) Compose(ctx context.Context, p skein.FilePath, blocks []skein.Digest, whole *skein.Digest, cond Condition) (file File, err error) {
	ctx, sp := span(ctx, "fs compose", p.User, p.Path)
	defer func() { end(sp, file.Size, &err) }()
	if int64(len(blocks)) > (f.max+blockSize-1)/blockSize {
		return File{}, f.tooLarge()
	}
	up := f.upload(p.User)
	up.digests = blocks
	return f.replace(ctx, p, cond, up, f.grace/2, "putting the file together", func(ctx context.Context) (File, error) {
		if err := up.compose(ctx); err != nil {
			return File{}, err
		}
		file := up.file(p)
		if whole != nil && file.Digest != *whole {
			return File{}, fault.Invalid.New("BAD_DIGEST", "the blocks make a file of SHA-256 %s, not %s", file.Digest, *whole)
		}
		return file, nil
	})
}

// compose reads the blocks in their order and makes old ones young.
func (u *upload) compose(ctx context.Context) error {
	if len(u.digests) == 0 {
		return nil
	}
	now, err := u.f.storeTime(ctx)
	if err != nil {
		return err
	}
	for _, d := range u.digests {
		if !u.sent[d] {
			u.pin(d)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	var coming []chan fetched
	defer func() {
		cancel()
		for _, ch := range coming {
			b := <-ch
			b.free()
		}
	}()
	for i, next := 0, 0; i < len(u.digests); i++ {
		for ; next < len(u.digests) && next < i+ahead; next++ {
			ch := make(chan fetched, 1)
			coming = append(coming, ch)
			go func(d skein.Digest) { ch <- u.renew(ctx, d, now.Add(-u.f.grace/2)) }(u.digests[next])
		}
		b := <-coming[0]
		coming = coming[1:]
		if b.err != nil {
			return b.err
		}
		err := u.take(i, b.data)
		b.free()
		if err != nil {
			return err
		}
	}
	return nil
}

func (u *upload) take(i int, data []byte) error {
	if len(data) != blockSize && i < len(u.digests)-1 || len(data) > blockSize {
		return fault.Invalid.New("BAD_BLOCK", "block %d has %d bytes: all but the last have %d", i, len(data), blockSize)
	}
	if u.size += int64(len(data)); u.size > u.f.max {
		return u.f.tooLarge()
	}
	u.whole.Write(data)
	return nil
}

// renew reads a block, and writes it again if it is older than young.
func (u *upload) renew(ctx context.Context, d skein.Digest, young time.Time) fetched {
	b := u.f.block(ctx, u.user, d)
	if errors.Is(b.err, fault.NotFound) || errors.Is(b.err, fault.DataLoss) {
		b.err = fault.Precondition.New("BLOCK_MISSING", "block %s is not in the store", d).WithHint("send it and try again")
	}
	if b.err == nil && !b.modified.After(young) {
		if _, b.err = u.f.bucket.Put(ctx, blockKey(u.user, d), bytes.NewReader(b.data), int64(len(b.data)), blob.PutOptions{}); b.err != nil {
			b.free()
		}
	}
	return b
}
