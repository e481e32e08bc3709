package shared

import (
	"context"
	"errors"
	"io"
	"sync"
	"weak"

	"skein.dev/abi"
	"skein.dev/platform/fault"
	"skein.dev/services/executor/internal/vfs"
)

// maxWindow is how many blocks of one file are read ahead at most.
const maxWindow = 8

// file is an open file: a vfs.LowerFile. It has one content from its opening on.
type file struct {
	view *View
	*record

	mu     sync.Mutex
	last   int                 // the block that was read last; -1 before any
	block  weak.Pointer[block] // it; the cache's budget is for what is held
	window int                 // blocks to read ahead; 0 for a reader that jumps
	asked  int                 // blocks before this have been asked for
	ahead  context.Context     //nolint:containedctx // of what is read ahead; nil before any
	stop   context.CancelFunc
	closed bool
}

func (r *record) info() vfs.LowerInfo {
	return vfs.LowerInfo{Size: r.size, Modified: r.modified, ID: r.id}
}

// Info is what is known of the file.
func (f *file) Info() vfs.LowerInfo { return f.info() }

// Close ends what is read ahead.
func (f *file) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	if f.stop != nil {
		f.stop()
	}
	return nil
}

// ReadAt reads from off; io.EOF at the end. ESTALE if the store has not kept what the file was since it was replaced.
func (f *file) ReadAt(ctx context.Context, p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, abi.EINVAL
	}
	for n < len(p) && off+int64(n) < f.size {
		at := off + int64(n)
		b, err := f.get(ctx, int(at/f.blockSize))
		if err != nil {
			return n, err
		}
		n += copy(p[n:], b.data[at%f.blockSize:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) get(ctx context.Context, i int) (*block, error) {
	f.mu.Lock()
	if f.last == i {
		if b := f.block.Value(); b != nil {
			f.mu.Unlock()
			return b, nil
		}
	}
	f.plan(ctx, i)
	f.mu.Unlock()
	b, err := f.view.cache.blocks.get(ctx, f.key(i), f.blockLen(i))
	if err != nil {
		return nil, f.explain(ctx, i, err)
	}
	f.mu.Lock()
	f.last, f.block = i, weak.Make(b)
	f.mu.Unlock()
	return b, nil
}

func (f *file) key(i int) blockKey { return blockKey{f.path.User, f.blocks[i]} }

func (f *file) blockLen(i int) int64 { return min(f.blockSize, f.size-int64(i)*f.blockSize) }

// plan reads ahead for who goes from block to block: the further, the more. The caller holds the lock.
func (f *file) plan(ctx context.Context, i int) {
	if i != f.last+1 {
		if i != f.last {
			f.window, f.asked = 0, 0
		}
		return
	}
	room := f.view.cache.blocks.budget() / (4 * f.blockSize) // of a small cache it would push out what is yet to be read
	f.window = int(min(int64(max(1, 2*f.window)), maxWindow, room))
	if f.closed {
		return
	}
	for next := max(i+1, f.asked); next <= i+f.window && next < len(f.blocks); next++ {
		if !f.fetchAhead(ctx, next) {
			return
		}
		f.asked = next + 1
	}
}

// fetchAhead begins to fetch a block that is not here; not if enough are on their way. The caller holds the lock.
func (f *file) fetchAhead(ctx context.Context, i int) bool {
	c := f.view.cache
	if c.blocks.has(f.key(i)) {
		return true
	}
	select {
	case c.ahead <- struct{}{}:
	default:
		return false
	}
	if f.ahead == nil {
		f.ahead, f.stop = context.WithCancel(context.WithoutCancel(ctx))
	}
	ahead, k, size := f.ahead, f.key(i), f.blockLen(i)
	go func() {
		defer func() { <-c.ahead }()
		_, _ = c.blocks.get(ahead, k, size) // who reads it hears of an error
	}()
	return true
}

// explain tells content that is gone because the file has long changed from content that should be there.
func (f *file) explain(ctx context.Context, i int, err error) error {
	if !errors.Is(err, fault.NotFound) {
		return guestError(err)
	}
	n := &f.view.cache.names
	n.forget(f.path)
	a, lookErr := n.look(ctx, f.path, false)
	switch {
	case lookErr == nil && a.file != nil && a.file.digest == f.digest:
		return fault.DataLoss.New("BLOCK_MISSING", "file %s: block %d of it is gone from the store", f.path, i)
	case lookErr != nil && !errors.Is(lookErr, fault.NotFound):
		return guestError(lookErr)
	}
	return abi.ESTALE
}
