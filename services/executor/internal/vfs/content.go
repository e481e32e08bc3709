package vfs

import (
	"context"
	"errors"
	"io"
	"os"

	"skein.dev/abi"
)

const (
	// MaxFile is how many bytes a file may have, holes included.
	MaxFile = 1 << 40
	// blockSize is how much of a shared file is copied when a byte of it is written.
	blockSize = 64 << 10
	// heapFile is how much of a file's own bytes stay on the heap.
	heapFile = 1 << 20
)

// content is a regular file's bytes: blocks of its own, over what the lower has, over zeros. The node's mutex guards it.
type content struct {
	size  int64
	base  LowerFile // nil if there is nothing below
	below int64     // how many bytes of base still show

	own  map[int64][]byte // by number. On the heap, with zeros after the end; nil for one that is in file
	file *os.File         // nil as long as all is on the heap
	heap int64            // bytes that own takes on the heap
	disk int64            // bytes of blocks that are in file
}

// piece is a part of a buffer and where it lies in the file.
type piece struct {
	p   []byte
	off int64
}

// read fills p from off as far as the file goes. What shows of the lower is returned for later: a lower may be far away, and is
// asked under no lock.
func (c *content) read(p []byte, off int64) (n int, later []piece, err error) {
	if off >= c.size || len(p) == 0 {
		return 0, nil, nil
	}
	p = p[:min(int64(len(p)), c.size-off)]
	if len(c.own) == 0 && off+int64(len(p)) <= c.below {
		return len(p), []piece{{p, off}}, nil
	}
	for done := 0; done < len(p); {
		at := off + int64(done)
		i, in := at/blockSize, at%blockSize
		part := p[done:min(len(p), done+int(blockSize-in))]
		b, mine := c.own[i]
		switch {
		case mine && c.file != nil:
			run := c.run(p[done:], at)
			part = p[done : done+run]
			if err := readFull(c.file, part, at); err != nil {
				return done, later, err
			}
		case mine:
			m := 0
			if in < int64(len(b)) {
				m = copy(part, b[in:])
			}
			clear(part[m:])
		case at < c.below:
			m := min(int64(len(part)), c.below-at)
			if k := len(later) - 1; k >= 0 && later[k].off+int64(len(later[k].p)) == at {
				later[k].p = p[done-len(later[k].p) : done+int(m)]
			} else {
				later = append(later, piece{part[:m], at})
			}
			clear(part[m:])
		default:
			clear(part)
		}
		done += len(part)
	}
	return len(p), later, nil
}

// run is how many of p's bytes, from at on, lie in blocks of its own that follow each other.
func (c *content) run(p []byte, at int64) int {
	n := 0
	for n < len(p) {
		i := (at + int64(n)) / blockSize
		if _, mine := c.own[i]; !mine {
			break
		}
		n = int(min(int64(len(p)), (i+1)*blockSize-at))
	}
	return n
}

// readFull reads a local file; what it doesn't have is a hole.
func readFull(f *os.File, p []byte, off int64) error {
	n, err := f.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return diskErr(err)
	}
	clear(p[n:])
	return nil
}

// readLower fills p from off of f, which has so many bytes.
func readLower(ctx context.Context, f LowerFile, p []byte, off int64) error {
	n, err := f.ReadAt(ctx, p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return abi.EIO // it has become shorter, which it must not
	}
	return err
}

// blocks are those of the lower's that a write began to read for.
type blocks map[int64][]byte

// lacks is the number of a block that can't be written before the lower was read, as a part of it stays: at most the first and
// the last of a write. -1 if there is none.
func (c *content) lacks(have blocks, n int, off int64) int64 {
	if n == 0 || c.below == 0 {
		return -1
	}
	end := off + int64(n)
	for _, i := range [2]int64{off / blockSize, (end - 1) / blockSize} {
		start := i * blockSize
		shown := min(c.below, start+blockSize) // end of what the lower shows there
		if _, mine := c.own[i]; mine || shown <= start || start >= off && shown <= end {
			continue
		}
		if _, ok := have[i]; !ok {
			return i
		}
	}
	return -1
}

// take makes room for more bytes on the heap, or for more in the file. Both count for the layer.
func (c *content) take(l *Layer, heap, disk int64) error {
	if !l.bytes.take(heap + disk) {
		return abi.EDQUOT
	}
	if !l.store.memory.take(heap) {
		l.bytes.give(heap + disk)
		return abi.ENOMEM
	}
	if !l.store.disk.take(disk) {
		l.store.memory.give(heap)
		l.bytes.give(heap + disk)
		return abi.ENOSPC
	}
	c.heap += heap
	c.disk += disk
	return nil
}

func (c *content) give(l *Layer, heap, disk int64) {
	l.bytes.give(heap + disk)
	l.store.memory.give(heap)
	l.store.disk.give(disk)
	c.heap -= heap
	c.disk -= disk
}

// write puts p at off, with what was read of the lower, and says how much of it could be.
func (c *content) write(l *Layer, have blocks, p []byte, off int64) (int, error) {
	if c.own == nil && len(p) > 0 {
		c.own = map[int64][]byte{}
	}
	done := 0
	for done < len(p) {
		at := off + int64(done)
		if c.file == nil && c.heap+int64(len(p)-done) <= heapFile+blockSize {
			part := p[done:min(len(p), done+int(blockSize-at%blockSize))]
			err := c.writeHeap(l, have, part, at)
			if err == nil {
				done += len(part)
				continue
			}
			if !errors.Is(err, errToDisk) {
				return done, err
			}
		}
		if c.file == nil {
			if err := c.spill(l); err != nil {
				return done, err
			}
		}
		n, err := c.writeFile(l, have, p[done:], at)
		done += n
		if done > 0 {
			c.size = max(c.size, off+int64(done))
		}
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

var errToDisk = errors.New("vfs: too large for the heap")

// writeHeap writes a part of one block.
func (c *content) writeHeap(l *Layer, have blocks, p []byte, at int64) error {
	i, in := at/blockSize, int(at%blockSize)
	b, mine := c.own[i]
	var under []byte
	if !mine {
		under = c.under(have, i)
	}
	size := max(len(b), len(under), in+len(p))
	if size > cap(b) {
		room := min(blockSize, max(size, 2*cap(b)))
		more := int64(room - cap(b))
		if c.heap+more > heapFile {
			return errToDisk
		}
		if err := c.take(l, more, 0); errors.Is(err, abi.ENOMEM) {
			return errToDisk
		} else if err != nil {
			return err
		}
		grown := make([]byte, size, room)
		copy(grown, b)
		copy(grown, under)
		b = grown
	} else if size > len(b) {
		old := len(b)
		b = b[:size]
		clear(b[old:])
	}
	copy(b[in:], p)
	c.own[i] = b
	c.size = max(c.size, at+int64(len(p)))
	return nil
}

// under is what the lower shows in a block, as far as it was read.
func (c *content) under(have blocks, i int64) []byte {
	b := have[i]
	return b[:max(0, min(int64(len(b)), c.below-i*blockSize))]
}

// spill moves the blocks from the heap into a file.
func (c *content) spill(l *Layer) error {
	n := int64(len(c.own)) * blockSize
	if err := c.take(l, 0, n); err != nil {
		return err
	}
	f, err := l.store.temp()
	if err != nil {
		c.give(l, 0, n)
		return err
	}
	for i, b := range c.own {
		if _, err := f.WriteAt(b, i*blockSize); err != nil {
			_ = f.Close() // all is on the heap still
			c.give(l, 0, n)
			return diskErr(err)
		}
	}
	for i := range c.own {
		c.own[i] = nil
	}
	c.give(l, c.heap, 0)
	c.file = f
	return nil
}

// writeFile writes p into the file, as far as its blocks follow each other and can be had.
func (c *content) writeFile(l *Layer, have blocks, p []byte, at int64) (int, error) {
	n, fresh := 0, []int64(nil)
	var err error
	for n < len(p) {
		i := (at + int64(n)) / blockSize
		if _, mine := c.own[i]; !mine {
			if err = c.take(l, 0, blockSize); err != nil {
				break
			}
			if u := c.under(have, i); len(u) > 0 {
				if _, werr := c.file.WriteAt(u, i*blockSize); werr != nil {
					c.give(l, 0, blockSize)
					err = diskErr(werr)
					break
				}
			}
			fresh = append(fresh, i)
			c.own[i] = nil
		}
		n = int(min(int64(len(p)), (i+1)*blockSize-at))
	}
	if n == 0 {
		return 0, err
	}
	done, werr := c.file.WriteAt(p[:n], at)
	if werr == nil {
		return done, err
	}
	for _, i := range fresh { // beyond what the disk took nothing may shadow the lower
		if i*blockSize >= at+int64(done) {
			delete(c.own, i)
			c.give(l, 0, blockSize)
		}
	}
	return done, diskErr(werr)
}

// resize cuts the file or lets it grow with a hole.
func (c *content) resize(l *Layer, size int64) error {
	if size < c.size {
		for i, b := range c.own {
			start := i * blockSize
			switch {
			case start >= size && c.file != nil:
				delete(c.own, i)
				c.give(l, 0, blockSize)
			case start >= size:
				delete(c.own, i)
				c.give(l, int64(cap(b)), 0)
			case c.file == nil && int64(len(b)) > size-start:
				c.own[i] = b[:size-start]
			}
		}
		if c.file != nil {
			if err := c.file.Truncate(size); err != nil {
				return diskErr(err)
			}
		}
		c.below = min(c.below, size)
	}
	c.size = size
	return nil
}

// drop lets go of all bytes. It returns what must be closed, under no lock.
func (c *content) drop(l *Layer) (base LowerFile) {
	c.give(l, c.heap, c.disk)
	if c.file != nil {
		_ = c.file.Close() // nobody reads it again
	}
	base = c.base
	*c = content{}
	return base
}
