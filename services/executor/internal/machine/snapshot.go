package machine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"runtime"

	"github.com/klauspost/compress/zstd"

	"skein.dev"
	"skein.dev/platform/fault"
	"skein.dev/platform/prepare"
)

// Snapshot is an initialised instance: its memory and its globals. It holds no address of this process, and never changes.
type Snapshot struct {
	digest  skein.Digest
	globals []uint64
	image   *image
}

// snapshotMagic begins an encoded snapshot: the last byte is the format's version.
var snapshotMagic = [8]byte{'s', 'k', 'e', 'i', 'n', 's', 'n', 1}

// snapshotHeader follows it. The rest is compressed: the globals, the numbers of the pages that hold something in their
// order, and these pages; all numbers are little-endian.
type snapshotHeader struct {
	Prepare uint32
	Digest  skein.Digest
	Size    uint64 // of the memory
	Globals uint32
	Pages   uint32
}

// Encode writes the snapshot for another executor. Nothing guards it against change: whoever stores it does that.
func (s *Snapshot) Encode() ([]byte, error) {
	img := s.image
	defer runtime.KeepAlive(img)
	var out bytes.Buffer
	out.Write(snapshotMagic[:])
	h := snapshotHeader{prepare.Version, s.digest, img.size, uint32(len(s.globals)), uint32(img.count)}
	if err := binary.Write(&out, binary.LittleEndian, h); err != nil {
		return nil, err
	}
	z, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	var lists []byte
	for _, g := range s.globals {
		lists = binary.LittleEndian.AppendUint64(lists, g)
	}
	for i, n := range img.slots {
		if n != 0 {
			lists = binary.LittleEndian.AppendUint32(lists, uint32(i))
		}
	}
	if _, err := z.Write(lists); err != nil {
		return nil, err
	}
	for i, n := range img.slots {
		if n == 0 {
			continue
		}
		if _, err := z.Write(img.page(i)); err != nil {
			return nil, err
		}
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// DecodeSnapshot reads what Encode wrote. SNAPSHOT_DAMAGED (fault.DataLoss) if it is none, or if another version of
// prepare made its module; Adopt checks which module it is of. Its memory is in proportion to what b holds.
func DecodeSnapshot(b []byte) (*Snapshot, error) {
	r := bytes.NewReader(b)
	var magic [8]byte
	var h snapshotHeader
	if _, err := io.ReadFull(r, magic[:]); err != nil || magic != snapshotMagic {
		return nil, badSnapshot("it does not begin as one")
	}
	if err := binary.Read(r, binary.LittleEndian, &h); err != nil {
		return nil, badSnapshot("it ends in its header")
	}
	switch {
	case h.Prepare != prepare.Version:
		return nil, badSnapshot("it is of version %d of prepare, this is %d", h.Prepare, prepare.Version)
	case h.Size%pageSize != 0 || h.Size > 1<<32-pageSize || uint64(h.Pages) > h.Size/hostPage || h.Globals > 1<<20:
		return nil, badSnapshot("it tells of %d bytes, %d pages and %d globals", h.Size, h.Pages, h.Globals)
	}
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(64<<20))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	lists, want := 8*int64(h.Globals)+4*int64(h.Pages), int64(h.Pages)*hostPage
	rest, err := io.ReadAll(io.LimitReader(z, lists+want+1))
	if err != nil || int64(len(rest)) != lists+want {
		return nil, badSnapshot("its contents are not what its header says (%v)", err)
	}
	s := &Snapshot{digest: h.Digest, image: &image{size: h.Size, slots: make([]uint32, h.Size/hostPage), count: int(h.Pages), data: rest[lists:]}}
	for range h.Globals {
		s.globals = append(s.globals, binary.LittleEndian.Uint64(rest))
		rest = rest[8:]
	}
	last := -1
	for n := range h.Pages {
		page := int(binary.LittleEndian.Uint32(rest[4*n:]))
		if page <= last || page >= len(s.image.slots) {
			return nil, badSnapshot("its pages are out of order")
		}
		s.image.slots[page], last = n+1, page
	}
	return s, nil
}

func badSnapshot(format string, args ...any) error {
	return fault.DataLoss.New("SNAPSHOT_DAMAGED", "snapshot: %s", fmt.Sprintf(format, args...))
}
