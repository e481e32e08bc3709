// Package pagemap asks the kernel which pages of a mapping were used.
package pagemap

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Page is the size in bytes of the pages that are told.
const Page = 4 << 10

// Which pages are asked for.
type Which int

const (
	// Private are those that memory has for itself alone: those of a private mapping that were written to, and those of no file that
	// were touched.
	Private Which = iota
	// Touched are those that were read or written through this mapping since it was made. They may be fewer once Swaps.
	Touched
)

// Scan calls each for runs of pages of mem. It may name others too and may stop beyond most pages; the count tells.
type Scan func(mem []byte, most int, each func(first, n int)) (int, error)

// scanArg is struct pm_scan_arg of linux/fs.h.
type scanArg struct {
	size, flags, start, end, walkEnd, vec, vecLen, maxPages uint64
	inverted, mask, anyOf, returned                         uint64
}

// scanRegion is struct page_region.
type scanRegion struct{ start, end, categories uint64 }

const (
	pagemapScan = 0xC0606610 // _IOWR('f', 16, struct pm_scan_arg)
	pageFile    = 1 << 2
	pagePresent = 1 << 3
	pageSwapped = 1 << 4
	pageZero    = 1 << 5
)

// scanBuffer is what a scan writes to. With more regions than this kernels have been seen to tell some twice.
type scanBuffer struct {
	arg     scanArg
	regions [512]scanRegion
}

var scanBuffers = sync.Pool{New: func() any { return new(scanBuffer) }}

// pagemap is open for as long as the process runs: the file means the memory of who opened it.
var pagemap = sync.OnceValue(func() int {
	fd, err := unix.Open("/proc/self/pagemap", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
})

// ByKernel asks for exactly the pages wanted, which Linux answers since 6.7.
func ByKernel(which Which) Scan {
	not := uint64(0)
	if which == Private {
		not = pageFile | pageZero
	}
	return func(mem []byte, most int, each func(first, n int)) (int, error) {
		b := scanBuffers.Get().(*scanBuffer) //nolint:forcetypeassert // nothing else is in there
		defer scanBuffers.Put(b)
		base := uint64(uintptr(unsafe.Pointer(&mem[0])))
		b.arg = scanArg{
			start: base, end: base + uint64(len(mem)),
			vec: uint64(uintptr(unsafe.Pointer(&b.regions[0]))), vecLen: uint64(len(b.regions)),
			inverted: not, mask: not, anyOf: pagePresent | pageSwapped,
		}
		b.arg.size = uint64(unsafe.Sizeof(b.arg))
		total := 0
		for b.arg.start < b.arg.end {
			n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(pagemap()), pagemapScan, uintptr(unsafe.Pointer(&b.arg)))
			if errno != 0 {
				return total, errno
			}
			if b.arg.walkEnd <= b.arg.start {
				return total, errors.New("a scan of pages makes no progress")
			}
			for _, r := range b.regions[:n] {
				first, pages := int(r.start-base)/Page, int(r.end-r.start)/Page
				if total += pages; total > most {
					return total, nil
				}
				each(first, pages)
			}
			b.arg.start = b.arg.walkEnd
		}
		return total, nil
	}
}

// ByRead reads what the kernel knows of each page, a word a page.
func ByRead(which Which) Scan {
	const present, swapped, file = 1 << 63, 1 << 62, 1 << 61
	not := uint64(0)
	if which == Private {
		not = file
	}
	return func(mem []byte, most int, each func(first, n int)) (int, error) {
		words := make([]byte, 4096)
		base := uintptr(unsafe.Pointer(&mem[0])) / Page
		total := 0
		for at, pages := 0, len(mem)/Page; at < pages; {
			part := words[:min(len(words), (pages-at)*8)]
			n, err := unix.Pread(pagemap(), part, int64(base+uintptr(at))*8)
			if err == nil && n < 8 {
				err = io.ErrUnexpectedEOF
			}
			if err != nil {
				return total, err
			}
			for i := range n / 8 {
				if w := binary.NativeEndian.Uint64(part[i*8:]); w&(present|swapped) != 0 && w&not == 0 {
					if total++; total > most {
						return total, nil
					}
					each(at+i, 1)
				}
			}
			at += n / 8
		}
		return total, nil
	}
}

// Best is the best scan that works here, nil if none does: each is tried on mappings whose pages are known.
func Best(which Which) Scan {
	for _, scan := range []func(Which) Scan{ByKernel, ByRead} {
		if Works(scan(which), which) {
			return scan(which)
		}
	}
	return nil
}

// Works tries a scan on a file of four pages and as many pages of no file, of which it writes to some and reads others.
func Works(scan Scan, which Which) bool {
	if pagemap() < 0 || os.Getpagesize() != Page {
		return false
	}
	fd, err := unix.MemfdCreate("skein-pages", unix.MFD_CLOEXEC)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	how := unix.MAP_SHARED
	if which == Private {
		how = unix.MAP_PRIVATE
	}
	if unix.Ftruncate(fd, 4*Page) != nil {
		return false
	}
	mem, err := unix.Mmap(-1, 0, 8*Page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Munmap(mem) }()
	_, err = unix.MmapPtr(fd, 0, unsafe.Pointer(&mem[0]), 4*Page, unix.PROT_READ|unix.PROT_WRITE, how|unix.MAP_FIXED)
	if err != nil {
		return false
	}
	mem[1*Page], mem[6*Page] = mem[0]+1, mem[5*Page]+1
	var seen [8]bool
	_, err = scan(mem, len(seen), func(first, n int) {
		for i := first; i < first+n; i++ {
			seen[i] = true
		}
	})
	return err == nil && seen[0] == (which == Touched) && seen[1] && !seen[2] && !seen[3] && seen[6] && !seen[7]
}

var swapped atomic.Bool

// Swaps says whether the system has, or had when it was asked before, somewhere to put pages of shared memory: then a mapping may lose
// them, and with them what Touched knows.
func Swaps() bool {
	if swapped.Load() {
		return true
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil || info.Totalswap > 0 {
		swapped.Store(true)
		return true
	}
	return false
}
