package machine

import (
	"bytes"
	"runtime"

	"skein.dev/platform/prepare"
)

// hostPage is the unit of images: the system's page, in bytes, on all that we map on.
const hostPage = 4 << 10

// image is the contents of a memory: of its pages those that hold more than zeroes. It never changes once sealed.
type image struct {
	size  uint64   // of the memory, a multiple of a wasm page
	slots []uint32 // for each page of the memory: 0 if it holds zeroes, else one more than its place in data
	count int      // of pages that hold something
	data  []byte   // places, each of a page
	file  *imageFile
}

// imageFile is an image that the kernel has: data is a view of it.
type imageFile struct {
	fd      int
	extents []extent
}

// extent is a run of an image's pages that lie in its file as they do in memory.
type extent struct {
	page, file, n int // in pages
}

var zeroPage [hostPage]byte

// capture makes an image of a memory's contents.
func capture(mem []byte) *image {
	img := &image{size: uint64(len(mem)), slots: make([]uint32, len(mem)/hostPage)}
	for i := range img.slots {
		if page := mem[i*hostPage:][:hostPage]; !bytes.Equal(page, zeroPage[:]) {
			img.count++
			img.slots[i] = uint32(img.count)
		}
	}
	img.data = make([]byte, 0, img.count*hostPage)
	for i, n := range img.slots {
		if n != 0 {
			img.data = append(img.data, mem[i*hostPage:][:hostPage]...)
		}
	}
	return img
}

// firstImage is what a module's data segments make of a memory of size bytes.
func firstImage(size uint64, segments []prepare.Segment) *image {
	img := &image{size: size, slots: make([]uint32, size/hostPage)}
	for _, s := range segments {
		for at, data := int(s.Offset), s.Data; len(data) > 0; {
			page, from := at/hostPage, at%hostPage
			n := min(len(data), hostPage-from)
			if img.slots[page] == 0 {
				img.count++
				img.slots[page] = uint32(img.count)
				img.data = append(img.data, zeroPage[:]...)
			}
			copy(img.page(page)[from:], data[:n])
			at, data = at+n, data[n:]
		}
	}
	return img
}

// page is a page of the memory, nil for one of zeroes.
func (img *image) page(i int) []byte {
	if i >= len(img.slots) || img.slots[i] == 0 {
		return nil
	}
	return img.data[(int(img.slots[i])-1)*hostPage:][:hostPage:hostPage]
}

// copyTo writes the image over zeroes.
func (img *image) copyTo(mem []byte) {
	defer runtime.KeepAlive(img) // its data may not be Go's to keep
	for i, n := range img.slots {
		if n != 0 {
			copy(mem[i*hostPage:], img.page(i))
		}
	}
}

// put makes page i of mem the image's.
func (img *image) put(mem []byte, i int) {
	dst := mem[i*hostPage:][:hostPage]
	if src := img.page(i); src != nil {
		copy(dst, src)
	} else {
		clear(dst)
	}
}

// differs is the first page at which mem, all of a memory, is not the image; -1 if there is none.
func (img *image) differs(mem []byte) int {
	if uint64(len(mem)) != img.size {
		return len(mem) / hostPage
	}
	for i := range img.slots {
		want := img.page(i)
		if want == nil {
			want = zeroPage[:]
		}
		if !bytes.Equal(mem[i*hostPage:][:hostPage], want) {
			return i
		}
	}
	return -1
}
