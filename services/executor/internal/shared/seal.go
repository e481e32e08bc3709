package shared

import (
	"context"
	"sync"

	"skein.dev"
	"skein.dev/abi"
)

// seals are contents of files that guests map: each in a file in memory that has no name and can't shrink, of the file's length,
// with those blocks in it that somebody has mapped. Who maps it holds the memory; the descriptor may go.
type seals struct {
	blocks *blocks
	most   int64 // bytes of blocks; the memory for them is taken from that of blocks

	mu   sync.Mutex
	all  map[sealKey]*seal
	used int64
	turn uint64 // of the last use
}

// mostSeals bounds the descriptors.
const mostSeals = 256

type sealKey struct {
	user   skein.User
	digest string
}

type seal struct {
	key sealKey

	mu     sync.Mutex // guards file and blocks; comes before seals.mu
	file   *memFile
	blocks map[int]bool // that are in it

	// Guarded by seals.mu.
	users int
	used  int64
	turn  uint64
}

// take gives the seal of a file, which may be without its memFile yet; give must follow. Nil if there are too many.
func (s *seals) take(k sealKey) *seal {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.all[k]
	if c == nil {
		if len(s.all) >= mostSeals && !s.drop() {
			return nil
		}
		c = &seal{key: k, blocks: map[int]bool{}}
		s.all[k] = c
	}
	s.turn++
	c.users, c.turn = c.users+1, s.turn
	return c
}

func (s *seals) give(c *seal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.users--
}

// room takes n bytes for a block of c, which the caller has taken.
func (s *seals) room(c *seal, n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.used+n > s.most {
		if !s.drop() {
			return false
		}
	}
	s.used, c.used = s.used+n, c.used+n
	s.blocks.lend(n)
	return true
}

// drop lets go of the seal that was used longest ago, of those that nobody uses now. The caller holds the lock.
func (s *seals) drop() bool {
	var old *seal
	for _, c := range s.all {
		if c.users == 0 && (old == nil || c.turn < old.turn) {
			old = c
		}
	}
	if old == nil {
		return false
	}
	delete(s.all, old.key)
	s.used -= old.used
	s.blocks.lend(-old.used)
	if old.file != nil { // nobody has it: users is 0
		old.file.close()
	}
	return true
}

func (s *seals) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.drop() {
	}
}

// lend takes n bytes of the memory for another use, or gives them back.
func (b *blocks) lend(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.memory.budget -= n
	b.memory.shrink()
}

func (b *blocks) budget() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.memory.budget
}

// Seal is vfs.Sealer's.
func (f *file) Seal(ctx context.Context, off, n int64, use func(fd int) error) error {
	if off < 0 || n <= 0 || n > f.size || off > f.size-n {
		return abi.EINVAL
	}
	s := &f.view.cache.seals
	c := s.take(sealKey{f.path.User, f.digest})
	if c == nil {
		return abi.ENOTSUP
	}
	defer s.give(c)
	for i := int(off / f.blockSize); i <= int((off+n-1)/f.blockSize); i++ {
		if err := f.sealBlock(ctx, s, c, i); err != nil {
			return err
		}
	}
	return use(c.file.fd) // no longer than it is taken
}

// sealBlock puts a block into a seal that lacks it.
func (f *file) sealBlock(ctx context.Context, s *seals, c *seal, i int) error {
	c.mu.Lock()
	has := c.blocks[i]
	c.mu.Unlock()
	if has {
		return nil
	}
	b, err := f.get(ctx, i)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.blocks[i] {
		return nil
	}
	if c.file == nil {
		if c.file, err = newMemFile(f.size); err != nil {
			return abi.ENOTSUP
		}
	}
	if !s.room(c, int64(len(b.data))) || c.file.write(b.data, int64(i)*f.blockSize) != nil {
		return abi.ENOTSUP
	}
	c.blocks[i] = true
	if len(c.blocks) == len(f.blocks) {
		c.file.finish()
	}
	return nil
}
