package machine

import (
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// dirtyScan calls each for runs of pages that mem has for itself alone: those of a private mapping that were written to,
// and those of no file that were touched. It may name others too and may stop beyond most pages; the count tells.
type dirtyScan func(mem []byte, most int, each func(first, n int)) (int, error)

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

// scanByKernel asks for exactly the pages wanted, which Linux answers since 6.7.
func scanByKernel(mem []byte, most int, each func(first, n int)) (int, error) {
	b := scanBuffers.Get().(*scanBuffer)
	defer scanBuffers.Put(b)
	base := uint64(uintptr(unsafe.Pointer(&mem[0])))
	b.arg = scanArg{
		start: base, end: base + uint64(len(mem)),
		vec: uint64(uintptr(unsafe.Pointer(&b.regions[0]))), vecLen: uint64(len(b.regions)),
		inverted: pageFile | pageZero, mask: pageFile | pageZero, anyOf: pagePresent | pageSwapped,
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
			first, pages := int(r.start-base)/hostPage, int(r.end-r.start)/hostPage
			if total += pages; total > most {
				return total, nil
			}
			each(first, pages)
		}
		b.arg.start = b.arg.walkEnd
	}
	return total, nil
}

// scanByRead reads what the kernel knows of each page, a word a page.
func scanByRead(mem []byte, most int, each func(first, n int)) (int, error) {
	const present, swapped, file = 1 << 63, 1 << 62, 1 << 61
	words := make([]byte, 4096)
	base := uintptr(unsafe.Pointer(&mem[0])) / hostPage
	total := 0
	for at, pages := 0, len(mem)/hostPage; at < pages; {
		part := words[:min(len(words), (pages-at)*8)]
		n, err := unix.Pread(pagemap(), part, int64(base+uintptr(at))*8)
		if err == nil && n < 8 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return total, err
		}
		for i := range n / 8 {
			if w := binary.NativeEndian.Uint64(part[i*8:]); w&(present|swapped) != 0 && w&file == 0 {
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

// probeScan is the best scan that works here, nil if none does: each is tried on a mapping whose pages are known.
func probeScan() dirtyScan {
	if pagemap() < 0 {
		return nil
	}
	for _, scan := range []dirtyScan{scanByKernel, scanByRead} {
		if scanWorks(scan) {
			return scan
		}
	}
	return nil
}

// scanWorks maps a file of four pages and as many of no file, writes to one of each and reads another.
func scanWorks(scan dirtyScan) bool {
	img := &image{size: 4 * hostPage, slots: []uint32{1, 2, 3, 4}, count: 4, data: make([]byte, 4*hostPage)}
	file, data, _, err := writeImage(img)
	if err != nil {
		return false
	}
	defer func() { _, _ = unix.Munmap(data), unix.Close(file.fd) }()
	mem, err := reserveChunk(8 * hostPage)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Munmap(mem) }()
	_, err = unix.MmapPtr(file.fd, 0, unsafe.Pointer(&mem[0]), 4*hostPage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED)
	if err != nil {
		return false
	}
	mem[1*hostPage], mem[6*hostPage] = mem[0]+1, mem[5*hostPage]+1
	seen := [8]bool{}
	_, err = scan(mem, len(seen), func(first, n int) {
		for i := first; i < first+n; i++ {
			seen[i] = true
		}
	})
	return err == nil && seen[1] && seen[6] && !seen[0] && !seen[2] && !seen[7]
}
