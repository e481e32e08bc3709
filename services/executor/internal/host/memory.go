package host

import (
	"errors"

	"skein.dev/abi"
	"skein.dev/services/executor/internal/machine"
	"skein.dev/services/executor/internal/vfs"
)

// memoryRoom is mmap and what goes with it. Memory only grows, so what is unmapped is kept for the next mapping; a reset undoes
// all. A boot's mappings are forgotten, so that one which made some has no snapshot.
var memoryRoom = room{
	"faasm.mmap":   func(c *Call, g guest) int64 { return c.address(c.mmap(g)) },
	"faasm.munmap": func(c *Call, g guest) int64 { return i32(0, c.munmap(uint64(g.u32(0)), uint64(g.u32(1)))) },
	"env.mmap": func(c *Call, g guest) int64 {
		at, err := c.mmap(g)
		return c.posixAddress(at, err)
	},
	"env.munmap": func(c *Call, g guest) int64 { return posix(0, c.munmap(uint64(g.u32(0)), uint64(g.u32(1)))) },
	"env.__sbrk": func(c *Call, g guest) int64 { return c.posixAddress(c.sbrk(g.i32(0))) },
}

// posixAddress is the answer of rows with an address whose callers expect -1.
func (c *Call) posixAddress(at int64, err error) int64 {
	if err != nil {
		c.lastError = errno(err)
	}
	return posix(at, err)
}

// Numbers of wasi-libc's <sys/mman.h>.
const (
	protRead, protWrite, protExec = 1, 2, 4

	mapShared, mapPrivate, mapType = 1, 2, 15
	mapAnonymous                   = 0x20
	// mapHints are those without which a mapping is the same: NORESERVE, DENYWRITE, EXECUTABLE, LOCKED, POPULATE, NONBLOCK, STACK.
	mapHints = 0x4000 | 0x800 | 0x1000 | 0x2000 | 0x8000 | 0x10000 | 0x20000
)

// mmap maps what its arguments (addr, len, prot, flags, fd, off) say.
func (c *Call) mmap(g guest) (int64, error) {
	n, prot, flags, off := (uint64(g.u32(1))+guestPage-1)/guestPage*guestPage, g.u32(2), g.u32(3), g.i64(5)
	_ = c.outside("mmap")
	switch {
	case n == 0, off < 0, off%guestPage != 0, prot&^(protRead|protWrite|protExec) != 0:
		return 0, abi.EINVAL
	case flags&mapType != mapShared && flags&mapType != mapPrivate:
		return 0, abi.EINVAL
	case prot == 0, prot&protExec != 0: // nothing can be kept from the guest, and its code is not in memory
		return 0, abi.ENOTSUP
	case flags&^(mapType|mapAnonymous|mapHints) != 0:
		return 0, abi.ENOTSUP
	}
	var file *vfs.Open
	if flags&mapAnonymous == 0 {
		o, err := c.files().Get(g.i32(4))
		if err == nil {
			err = o.Mappable()
		}
		switch {
		case err != nil:
			return 0, err
		case flags&mapType == mapShared:
			return 0, abi.ENOTSUP // its writes would have to reach the file
		}
		file = o
	}
	at, err := c.reserve(g, n)
	if err != nil || file == nil {
		return int64(at), err
	}
	if err := wait(c, func() error { return c.fill(g, at, n, file, off) }); err != nil {
		c.goOn()
		_ = c.munmap(at, n)
		return 0, err
	}
	return int64(at), nil
}

// reserve gives n bytes of zeroes, whole pages: the first that are free, or more memory.
func (c *Call) reserve(g guest, n uint64) (uint64, error) {
	c.ownHeap(g)
	end := uint64(c.Space().Bytes())
	at := c.pages.find(n, end)
	if at+n > end { // free pages at the end are only the beginning
		grown, err := c.Space().Grow(at + n - end)
		switch {
		case errors.Is(err, machine.ErrOwnHeap):
			c.Say("mmap: the guest's allocator takes all memory for its own: nothing can be mapped (ENOTSUP)")
			return 0, abi.ENOTSUP
		case err != nil:
			return 0, abi.ENOMEM
		case grown != end:
			return 0, abi.ENOMEM // it can't be
		}
	}
	if at < end { // what was unmapped may have been written to since
		if err := c.Space().Zero(at, min(n, end-at)); err != nil {
			return 0, abi.ENOMEM
		}
	}
	c.pages.set(at, n, inUse)
	return at, nil
}

// worthMapping is the size from which on it pays: what is smaller is copied sooner.
const worthMapping = 64 << 10

// fill puts a file's bytes from off on into n bytes of zeroes at an address: mapped if that is possible, else copied.
func (c *Call) fill(g guest, at, n uint64, o *vfs.Open, off int64) error {
	if o.Type() == vfs.CharacterDevice {
		return nil // /dev/zero
	}
	if size := min(int64(n), o.Stat().Size-off); size >= worthMapping && c.Space().Maps() {
		err := o.Map(c, off, size, func(fd int, n int64) error { return c.Space().MapPrivate(at, uint64(n), fd, off) })
		if err == nil {
			return nil
		}
	}
	const step = 1 << 20 // a call that ends is not to copy on
	for done := uint64(0); done < n; {
		c.goOn()
		p, err := g.at(uint32(at+done), uint32(min(n-done, step)))
		if err != nil {
			return err
		}
		m, err := o.ReadAt(c, p, off+int64(done))
		if err != nil {
			return err
		}
		if m < len(p) {
			return nil
		}
		done += uint64(m)
	}
	return nil
}

// munmap gives back what of a range is mapped. EINVAL if nothing is.
func (c *Call) munmap(at, n uint64) error {
	n = (n + guestPage - 1) / guestPage * guestPage
	if n == 0 || at%guestPage != 0 || at+n > 1<<32 || !c.pages.any(at, n) {
		return abi.EINVAL
	}
	for _, part := range c.pages.used(at, n) {
		switch err := c.Space().Zero(part.at, part.n); {
		case errors.Is(err, machine.ErrBadRange): // state that the guest has mapped over a part of it
			return abi.EINVAL
		case err != nil:
			return abi.ENOMEM
		}
		c.pages.set(part.at, part.n, free)
	}
	return nil
}

// sbrk moves the end of memory, of which an allocator takes what it is told.
func (c *Call) sbrk(by int32) (int64, error) {
	switch {
	case by == 0:
		return c.Space().Bytes(), nil
	case by < 0 || by%guestPage != 0:
		return 0, abi.EINVAL
	}
	at, err := c.Space().Grow(uint64(by))
	if err != nil {
		return 0, abi.ENOMEM
	}
	return int64(at), nil
}

// ownHeap lets the guest's allocator begin before memory grows: at its first use it may take all that is there for its own.
func (c *Call) ownHeap(g guest) {
	if c.heap {
		return
	}
	if malloc := g.mod.ExportedFunction("malloc"); malloc != nil {
		c.heap = true
		_, _ = allocate(c, malloc, 1)
	}
}

// pages says of each page of memory what it is to mmap.
type pages []pageUse

type pageUse uint8

const (
	other pageUse = iota // the guest's own
	free
	inUse
)

// extent is a part of memory, of whole pages.
type extent struct{ at, n uint64 }

// find is where n bytes are free: the first place that is large enough, or at the end of memory, which then has to grow by what
// lacks there.
func (p pages) find(n, end uint64) uint64 {
	run := 0
	for i, use := range p {
		if use != free {
			run = 0
			continue
		}
		if run++; uint64(run)*guestPage == n {
			return uint64(i+1)*guestPage - n
		}
	}
	if uint64(len(p))*guestPage < end {
		return end // the guest itself has grown memory since
	}
	return uint64(len(p)-run) * guestPage
}

func (p *pages) set(at, n uint64, use pageUse) {
	for uint64(len(*p)) < (at+n)/guestPage {
		*p = append(*p, other)
	}
	for i := at / guestPage; i < (at+n)/guestPage; i++ {
		(*p)[i] = use
	}
}

func (p pages) any(at, n uint64) bool { return len(p.used(at, n)) > 0 }

// used are the parts of a range that are mapped.
func (p pages) used(at, n uint64) (parts []extent) {
	for i := at / guestPage; i < min((at+n)/guestPage, uint64(len(p))); i++ {
		if p[i] != inUse {
			continue
		}
		if k := len(parts) - 1; k >= 0 && parts[k].at+parts[k].n == i*guestPage {
			parts[k].n += guestPage
		} else {
			parts = append(parts, extent{i * guestPage, guestPage})
		}
	}
	return parts
}
