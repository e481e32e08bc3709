package shared

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
)

// blockKey names a block. Users share none: what one has is not another's to know.
type blockKey struct {
	user   skein.User
	digest skein.Digest
}

// block is verified content. It never changes, so it is read without a lock, and kept by whoever still reads it when it
// has left the cache.
type block struct {
	data []byte

	sealing sync.Mutex
	sealed  *os.File // the same, once it was asked for; see sealed_linux.go
}

// fetchTime bounds what fetches one block, retries included; whoever waits has a deadline too.
const fetchTime = 30 * time.Second

// blocks is what is here of blocks: in memory, and behind it on disk.
type blocks struct {
	fetch func(context.Context, blockKey) ([]byte, error) // from the fs service
	disk  *disk                                           // nil: memory only

	mu      sync.Mutex
	memory  *lru[blockKey, *block]
	flights map[blockKey]*flight

	fromMemory, fromDisk, fromNet, netBytes atomic.Int64
}

// flight is one way of a block here, for all who wait for it. When nobody does any more it is given up.
type flight struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiters int // under blocks.mu
	block   *block
	err     error
}

// get gives a block of size bytes. Errors are those of the fs service, and DataLoss DIGEST_MISMATCH.
func (b *blocks) get(ctx context.Context, k blockKey, size int64) (*block, error) {
	b.mu.Lock()
	if have, ok := b.memory.get(k); ok {
		b.mu.Unlock()
		b.fromMemory.Add(1)
		return have, nil
	}
	f := b.flights[k]
	if f == nil {
		// The first one's trace goes along; its end does not end what others wait for.
		fetching, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTime)
		f = &flight{done: make(chan struct{}), cancel: cancel}
		b.flights[k] = f
		go b.fly(fetching, f, k, size)
	}
	f.waiters++
	b.mu.Unlock()
	select {
	case <-f.done:
		return f.block, f.err
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if f.waiters--; f.waiters == 0 {
		f.cancel()
		if b.flights[k] == f {
			delete(b.flights, k) // who comes now begins anew
		}
	}
	return nil, fault.From(ctx.Err())
}

// has reports whether a block is in memory or on its way.
func (b *blocks) has(k blockKey) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.memory.all[k] != nil || b.flights[k] != nil
}

// keep takes a block that came another way, if it is what its name says.
func (b *blocks) keep(k blockKey, data []byte) {
	if skein.DigestOf(data) != k.digest {
		return
	}
	b.mu.Lock()
	b.memory.put(k, &block{data: data}, cost(data))
	b.mu.Unlock()
	if b.disk != nil {
		b.disk.write(k, data)
	}
}

// cost is what a block takes of the memory, what keeps account of it included.
func cost(data []byte) int64 { return int64(cap(data)) + 512 }

func (b *blocks) fly(ctx context.Context, f *flight, k blockKey, size int64) {
	defer f.cancel()
	data, err := b.load(ctx, k, size)
	b.mu.Lock()
	if err == nil {
		f.block = &block{data: data}
		b.memory.put(k, f.block, cost(data))
	}
	f.err = err
	if b.flights[k] == f {
		delete(b.flights, k)
	}
	b.mu.Unlock()
	close(f.done)
}

func (b *blocks) load(ctx context.Context, k blockKey, size int64) ([]byte, error) {
	if b.disk != nil {
		if data := b.disk.read(k, size); data != nil {
			b.fromDisk.Add(1)
			return data, nil
		}
	}
	data, err := b.fetchAgain(ctx, k)
	if err != nil {
		return nil, err
	}
	if int64(len(data)) != size || skein.DigestOf(data) != k.digest {
		return nil, fault.DataLoss.New("DIGEST_MISMATCH", "block %s of user %s came as something else", k.digest, k.user)
	}
	b.fromNet.Add(1)
	b.netBytes.Add(size)
	if b.disk != nil {
		b.disk.write(k, data)
	}
	return data, nil
}

// fetchAgain fetches, and again a little later if the service was away for a moment.
func (b *blocks) fetchAgain(ctx context.Context, k blockKey) ([]byte, error) {
	for try, pause := 1, 50*time.Millisecond; ; try, pause = try+1, 3*pause {
		data, err := b.fetch(ctx, k)
		if err == nil || try == 4 || !errors.Is(err, fault.Unavailable) {
			return data, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(pause):
		}
	}
}
