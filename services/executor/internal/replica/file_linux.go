package replica

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"skein.dev/abi"
	"skein.dev/services/executor/internal/pagemap"
)

// file is a value's bytes where guests can map them. It never shrinks: a mapping whose file did would end the process.
type file struct {
	fd     int
	length int64  // a multiple of the page that guests' memories grow by
	view   []byte // of the file, with address space for the largest value: what lies behind length must not be touched
	base   []byte // as long, of memory that is taken when it is touched
	ending runtime.Cleanup

	suspects *suspects
}

const guestPage = 64 << 10

func newFile(size int64) (_ *file, err error) {
	if os.Getpagesize() != page {
		return nil, abi.ENOTSUP
	}
	fd, err := unix.MemfdCreate("skein-state", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, outOf("a file", err)
	}
	f := &file{fd: fd, suspects: &suspects{}}
	defer func() {
		if err != nil {
			f.free()
		}
	}()
	if _, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK); err != nil {
		return nil, outOf("a sealed file", err)
	}
	if err = f.grow(max(size, 1)); err != nil {
		return nil, err
	}
	if f.view, err = unix.Mmap(fd, 0, MaxValue, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE); err != nil {
		return nil, outOf("a mapping", err)
	}
	_ = unix.Madvise(f.view, unix.MADV_NOHUGEPAGE) // see pagemap.Touched
	f.base, err = unix.Mmap(-1, 0, MaxValue, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, outOf("a mapping", err)
	}
	own := *f
	f.ending = runtime.AddCleanup(f, func(own file) { own.free() }, own)
	return f, nil
}

func outOf(what string, err error) error {
	return fmt.Errorf("%w: the executor is out of memory for state: %s: %w", abi.ENOMEM, what, err)
}

// grow makes the file long enough for size.
func (f *file) grow(size int64) error {
	length := (size + guestPage - 1) &^ (guestPage - 1)
	if length <= f.length {
		return nil
	}
	if err := unix.Ftruncate(f.fd, length); err != nil {
		return outOf("a longer file", err)
	}
	f.length = length
	return nil
}

// forget gives the memory of a base back.
func (f *file) forget(i int) {
	_ = unix.Madvise(f.base[i*chunk:][:chunk], unix.MADV_DONTNEED)
}

func (f *file) close() {
	f.ending.Stop()
	f.free()
}

func (f *file) free() {
	var errs []error
	for _, b := range [][]byte{f.view, f.base} {
		if b != nil {
			errs = append(errs, unix.Munmap(b))
		}
	}
	if err := errors.Join(append(errs, unix.Close(f.fd))...); err != nil {
		panic(err) // a wrong descriptor or address: somebody else's would be next
	}
}

// touched is nil where the kernel doesn't tell.
var touched = sync.OnceValue(func() pagemap.Scan { return pagemap.Best(pagemap.Touched) })

// touch takes note of the pages of a mapping that were used. The caller holds mu, for reading at least.
func (r *Replica) touch(m *Mapping) {
	first, n, scan := int(m.Off/page), int(m.Len/page), touched()
	if m.First != nil && scan != nil && !pagemap.Swaps() {
		_, err := scan(unsafe.Slice(m.First, m.Len), n, func(at, n int) { r.file.suspects.add(first+at, n) })
		if err == nil {
			return
		}
	}
	r.file.suspects.add(first, n)
}
