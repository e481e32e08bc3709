package fs

import (
	"context"
	"errors"

	"skein.dev/platform/fault"
)

// Read gives length bytes of a file from off on, or to the end if length is negative, to emit: in order, a block's part at
// a time, each verified. emit must not keep what it is given; its error ends the reading and comes back. Past the end
// there is nothing. DataLoss DIGEST_MISMATCH or BLOCK_MISSING if the store does not have what was put; Conflict
// FILE_CHANGED if the file was replaced or deleted so long ago that its blocks are gone.
func (f *Files) Read(ctx context.Context, file File, off, length int64, emit func([]byte) error) (err error) {
	from, to := clampRange(file.Size, off, length)
	ctx, sp := span(ctx, "fs get", file.Path.User, file.Path.Path)
	defer func() { end(sp, to-from, &err) }()
	if from == to {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	var coming []chan fetched // in the order of blocks
	defer func() {
		cancel()
		for _, ch := range coming {
			b := <-ch
			b.free()
		}
	}()
	first, last := int(from/file.blockSize), int((to-1)/file.blockSize)
	for i, next := first, first; i <= last; i++ {
		for ; next <= last && next < i+ahead; next++ {
			ch := make(chan fetched, 1)
			coming = append(coming, ch)
			go func(i int) { ch <- f.fetch(ctx, file, i) }(next)
		}
		got := <-coming[0]
		coming = coming[1:]
		if got.err != nil {
			return got.err
		}
		start := int64(i) * file.blockSize
		err := emit(got.data[max(from-start, 0):min(to-start, int64(len(got.data)))])
		got.free()
		if err != nil {
			return err
		}
	}
	return nil
}

// clampRange is the bytes from, to-1 that a range has of so many.
func clampRange(size, off, length int64) (from, to int64) {
	from, to = min(max(off, 0), size), size
	if length >= 0 && length < size-from {
		to = from + length
	}
	return from, to
}

// fetch reads block i of a file.
func (f *Files) fetch(ctx context.Context, file File, i int) fetched {
	b := f.block(ctx, file.Path.User, file.blocks[i])
	switch {
	case errors.Is(b.err, fault.NotFound):
		b.err = f.lost(ctx, file, i)
	case errors.Is(b.err, fault.DataLoss), b.err == nil && int64(len(b.data)) != min(file.blockSize, file.Size-int64(i)*file.blockSize):
		b.free()
		b.err = fault.DataLoss.New("DIGEST_MISMATCH", "file %s: block %d of it is not as it was put", file.Path, i).
			WithHint("put the file again: that mends the block")
	}
	return b
}

// lost tells a block that a sweep took because the file has long changed from one that should be there.
func (f *Files) lost(ctx context.Context, file File, i int) error {
	now, err := f.stat(ctx, file.Path)
	switch {
	case errors.Is(err, fault.NotFound), err == nil && now.Digest != file.Digest:
		return fault.Conflict.New("FILE_CHANGED", "file %s was replaced or deleted while it was read", file.Path)
	case err != nil:
		return err
	}
	return fault.DataLoss.New("BLOCK_MISSING", "file %s: block %d of it is gone from the store", file.Path, i).
		WithHint("put the file again")
}
