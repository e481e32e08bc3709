package machine

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"skein.dev/services/executor/internal/pagemap"
)

// mapped is the tier of Linux. Slabs are cut from large reservations; an image is a sealed file in memory that slabs map
// privately, so that the kernel copies a page when the guest first writes to it; and the kernel says which those were.
type mapped struct {
	m     *Machine
	size  int          // of a slab
	dirty pagemap.Scan // nil if there is none: then resets give all back
	most  int          // pages that are copied in a reset

	mu     sync.Mutex
	free   [][]byte
	uncut  []byte
	chunks [][]byte
}

const (
	slabsAChunk = 64
	// smallImage is the number of pages up to which copying an image is cheaper than a mapping and the fault of each page.
	smallImage = 16
	// extentGap is the run of zero pages that is worth another mapping.
	extentGap  = (1 << 20) / hostPage
	mostExtent = 4 // a mapping each, and one for what lies behind it
	// dirtyCap is the number of pages beyond which it is cheaper to give them back than to copy them.
	dirtyCap = 1024
)

// newTier is the best that this system has.
func newTier(m *Machine, size int) tier {
	plain := &portable{size: size}
	if m.portable || os.Getpagesize() != hostPage {
		return plain
	}
	t := &mapped{m: m, size: size, most: dirtyCap}
	if slab, err := t.reserve(); err != nil { // address space may be limited, or overcommitting forbidden
		return plain
	} else {
		t.release(slab, 0, held{})
	}
	t.dirty = pagemap.Best(pagemap.Private)
	return t
}

func (t *mapped) reserve() ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.free); n > 0 {
		slab := t.free[n-1]
		t.free = t.free[:n-1]
		return slab, nil
	}
	if len(t.uncut) == 0 {
		chunk, err := reserveChunk(t.size * slabsAChunk)
		if err != nil {
			chunk, err = reserveChunk(t.size)
		}
		if err != nil {
			return nil, fmt.Errorf("reserve memory: %w", err)
		}
		t.chunks, t.uncut = append(t.chunks, chunk), chunk
	}
	slab := t.uncut[:t.size:t.size]
	t.uncut = t.uncut[t.size:]
	return slab, nil
}

func reserveChunk(n int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err == nil {
		noHuge(b)
	}
	return b, err
}

// noHuge keeps an instance that touches a few bytes from getting 2 MiB. Kernels without huge pages don't know it.
func noHuge(b []byte) { _ = unix.Madvise(b, unix.MADV_NOHUGEPAGE) }

func (t *mapped) release(slab []byte, high uint64, h held) {
	if high > 0 {
		err := error(nil)
		if h.mappings == 0 {
			err = unix.Madvise(slab[:high], unix.MADV_DONTNEED)
		} else {
			err = unmap(slab[:high])
		}
		if err != nil {
			return // what it holds is not known: nobody may have it again
		}
	}
	t.m.giveMappings(h.mappings)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.free = append(t.free, slab)
}

// unmap puts zeroes in the place of whatever a range maps.
func unmap(b []byte) error {
	_, err := unix.MmapPtr(-1, 0, unsafe.Pointer(&b[0]), uintptr(len(b)), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE|unix.MAP_FIXED)
	noHuge(b) // as its neighbours, so that they become one mapping again
	return err
}

func (t *mapped) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.chunks {
		_ = unix.Munmap(c)
	}
	t.chunks, t.uncut, t.free = nil, nil, nil
}

// seal moves an image's data into a file, its runs one after another. What can't be moved stays and is copied.
func (t *mapped) seal(img *image) error {
	if img.count <= smallImage || !t.m.takeMappings(1) {
		return nil
	}
	file, data, slots, err := writeImage(img)
	if err != nil {
		t.m.giveMappings(1)
		return err
	}
	img.file, img.data, img.slots = file, data, slots
	runtime.AddCleanup(img, func(data []byte) {
		_ = unix.Munmap(data)
		_ = unix.Close(file.fd)
		t.m.giveMappings(1)
	}, data)
	return nil
}

func writeImage(img *image) (_ *imageFile, data []byte, slots []uint32, err error) {
	fd, err := unix.MemfdCreate("skein-image", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("image file: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("image file: %w", err), unix.Close(fd))
		}
	}()
	file := &imageFile{fd: fd, extents: extentsOf(img)}
	slots = make([]uint32, len(img.slots))
	end := 0
	for i := range file.extents {
		e := &file.extents[i]
		e.file = end
		end += e.n
	}
	if err := unix.Ftruncate(fd, int64(end)*hostPage); err != nil {
		return nil, nil, nil, err
	}
	for _, e := range file.extents {
		for i := range e.n {
			page := img.page(e.page + i)
			if page == nil {
				continue // a hole: it costs nothing as long as nobody reads it
			}
			slots[e.page+i] = uint32(e.file + i + 1)
			if n, err := unix.Pwrite(fd, page, int64(e.file+i)*hostPage); err != nil || n != hostPage {
				return nil, nil, nil, errors.Join(err, errors.New("short write"))
			}
		}
	}
	// A file that shrank would end the process of whoever has mapped it.
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		return nil, nil, nil, err
	}
	data, err = unix.Mmap(fd, 0, end*hostPage, unix.PROT_READ, unix.MAP_PRIVATE)
	return file, data, slots, err
}

// extentsOf finds the runs of an image that are worth a mapping each: few.
func extentsOf(img *image) []extent {
	for gap := extentGap; ; gap *= 2 {
		var all []extent
		for i, n := range img.slots {
			if n == 0 {
				continue
			}
			if last := len(all) - 1; last >= 0 && i-(all[last].page+all[last].n) < gap {
				all[last].n = i + 1 - all[last].page
			} else {
				all = append(all, extent{page: i, n: 1})
			}
		}
		if len(all) <= mostExtent {
			return all
		}
	}
}

func (t *mapped) restore(slab []byte, img *image) (held, error) {
	if img.file == nil {
		img.copyTo(slab)
		return held{}, nil
	}
	h := held{mappings: 2 * len(img.file.extents)}
	if !t.m.takeMappings(h.mappings) {
		img.copyTo(slab)
		return held{}, nil
	}
	for _, e := range img.file.extents {
		if err := mapExtent(slab, img, e); err != nil {
			return h, err
		}
	}
	return h, nil
}

func mapExtent(slab []byte, img *image, e extent) error {
	at := slab[e.page*hostPage:][:e.n*hostPage]
	_, err := unix.MmapPtr(img.file.fd, int64(e.file)*hostPage, unsafe.Pointer(&at[0]), uintptr(len(at)),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED|unix.MAP_NORESERVE)
	if err != nil {
		return fmt.Errorf("map an image: %w", err)
	}
	return nil
}

func (t *mapped) reset(slab []byte, high uint64, img *image, h held) (int64, error) {
	defer runtime.KeepAlive(img) // its data is not Go's to keep
	if high > img.size {
		if err := unix.Madvise(slab[img.size:high], unix.MADV_DONTNEED); err != nil {
			return 0, err
		}
	}
	if img.size == 0 {
		return 0, nil
	}
	mem := slab[:img.size]
	if t.dirty != nil {
		n, err := t.dirty(mem, t.most, func(first, n int) {
			for i := first; i < first+n; i++ {
				img.put(mem, i)
			}
		})
		if err == nil && n <= t.most {
			return int64(n) * hostPage, nil
		}
	}
	if err := unix.Madvise(mem, unix.MADV_DONTNEED); err != nil {
		return 0, err
	}
	if h.mappings > 0 {
		return 0, nil
	}
	img.copyTo(mem)
	return int64(img.count) * hostPage, nil
}

func (t *mapped) show(part []byte, fd int, off int64, private bool) error {
	how := unix.MAP_SHARED | unix.MAP_FIXED
	if private {
		how = unix.MAP_PRIVATE | unix.MAP_FIXED | unix.MAP_NORESERVE
	}
	_, err := unix.MmapPtr(fd, off, unsafe.Pointer(&part[0]), uintptr(len(part)), unix.PROT_READ|unix.PROT_WRITE, how)
	if err != nil {
		return fmt.Errorf("map a file: %w", err)
	}
	if !private { // the kernel would forget which pages of it were used when it makes large ones of them
		_ = unix.Madvise(part, unix.MADV_NOHUGEPAGE)
	}
	return nil
}

func (t *mapped) zero(part []byte) error { return unix.Madvise(part, unix.MADV_DONTNEED) }

func (t *mapped) unshow(slab []byte, sp span, img *image, h held) error {
	if err := unmap(slab[sp.at : sp.at+sp.n]); err != nil || img == nil {
		return err
	}
	if h.mappings == 0 {
		for page := sp.at / hostPage; page < (sp.at+sp.n)/hostPage && page*hostPage < img.size; page++ {
			if img.page(int(page)) != nil {
				img.put(slab, int(page))
			}
		}
		return nil
	}
	// An extent is mapped anew as a whole, so that it stays one mapping of the kernel's.
	for _, e := range img.file.extents {
		at, n := uint64(e.page)*hostPage, uint64(e.n)*hostPage
		if at < sp.at+sp.n && sp.at < at+n {
			if err := mapExtent(slab, img, e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *mapped) trim(slab []byte, high uint64, h held) bool {
	if high > 0 && unix.Madvise(slab[:high], unix.MADV_DONTNEED) != nil {
		return false
	}
	return h.mappings == 0
}

// defaultMappings is what of the kernel's limit we may use. At the limit Go's own runtime dies.
func defaultMappings() int {
	const headroom = 20_000
	text, err := os.ReadFile("/proc/sys/vm/max_map_count")
	if err != nil {
		return headroom
	}
	most, err := strconv.Atoi(string(bytes.TrimSpace(text)))
	if err != nil {
		return headroom
	}
	return max(most-headroom, most/2)
}
