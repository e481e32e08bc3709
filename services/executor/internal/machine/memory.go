package machine

import (
	"sync"

	"github.com/tetratelabs/wazero/experimental"
)

// linear is an instance's memory as the engine sees it: a slab, of which growth only shows more. Its base never moves,
// which shared state and threads will need, and the limit is enforced here, so that what a guest was refused is known.
type linear struct {
	m       *Machine
	slab    []byte // all that it may ever have
	limit   uint64 // of these, in bytes
	size    uint64
	high    uint64 // the largest size since the image was put into it
	set     bool   // the next Reallocate gives as much as to says, whatever it is asked for
	to      uint64
	held    held
	active  bool // it serves a call
	refused bool // a growth
	spans   []span
}

func (l *linear) begin() {
	l.active = true
	l.m.inUse.Add(int64(l.size))
}

func (l *linear) end() {
	l.active = false
	l.m.inUse.Add(-int64(l.size))
}

// Allocate is called by the engine, once an instance: a module has one memory.
func (l *linear) Allocate(_, _ uint64) experimental.LinearMemory { return l }

// Reallocate is called by the engine at instantiation and at every growth, and through resize by ourselves.
func (l *linear) Reallocate(size uint64) []byte {
	if l.set {
		size, l.set = l.to, false
	}
	if size > l.limit {
		l.refused = true
		return nil
	}
	if l.active {
		l.m.inUse.Add(int64(size) - int64(l.size))
	}
	l.size = size
	l.high = max(l.high, size)
	return l.slab[:size:size]
}

// Free is called by the engine when it closes the instance, and not if an instantiation fails: the slab goes back by
// instance.close alone.
func (l *linear) Free() {}

// tier is how this system keeps memories: where they lie, how an image gets into them, and how they become it again.
type tier interface {
	// reserve gives a zeroed slab of a guest's limit. It costs nothing until it is touched.
	reserve() ([]byte, error)
	// release takes back a slab of which the first high bytes may have been touched.
	release(slab []byte, high uint64, h held)
	// seal makes an image ready to be restored from; it does not change any more.
	seal(img *image) error
	// restore puts an image into a zeroed slab. It maps the image if it pays and if mappings may be had.
	restore(slab []byte, img *image) (held, error)
	// reset makes the first high bytes of a slab, into which img was restored, what they were then. It tells how many bytes
	// stay resident for this slab alone.
	reset(slab []byte, high uint64, img *image, h held) (resident int64, err error)
	// show puts a file's bytes in the place of a part of a slab, as a copy of this slab's own if private; unshow puts there
	// what img, which was restored, has, or zeroes if it is nil.
	show(part []byte, fd int, off int64, private bool) error
	unshow(slab []byte, sp span, img *image, h held) error
	// zero clears a part of a slab in which no image or file is.
	zero(part []byte) error
	// trim gives all of a slab that can be made again back to the system. The slab is img or, if blank, zeroes.
	trim(slab []byte, high uint64, h held) (blank bool)
	close()
}

// held is what a slab keeps besides itself.
type held struct {
	mappings int // of the kernel, that it was charged for
}

// portable is the tier for every system: slabs are Go's, and bringing one back copies the whole image.
type portable struct {
	size int // of a slab
	mu   sync.Mutex
	free [][]byte
}

// slabsKept bounds what the portable tier holds for reuse.
const slabsKept = 16

func (p *portable) reserve() ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		slab := p.free[n-1]
		p.free = p.free[:n-1]
		return slab, nil
	}
	return make([]byte, p.size), nil
}

func (p *portable) release(slab []byte, high uint64, _ held) {
	clear(slab[:high])
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) < slabsKept {
		p.free = append(p.free, slab)
	}
}

func (p *portable) show([]byte, int, int64, bool) error { return ErrNoMaps }

func (p *portable) unshow([]byte, span, *image, held) error { return ErrNoMaps }

func (p *portable) zero(part []byte) error {
	clear(part)
	return nil
}

func (p *portable) seal(*image) error { return nil }

func (p *portable) restore(slab []byte, img *image) (held, error) {
	img.copyTo(slab)
	return held{}, nil
}

func (p *portable) reset(slab []byte, high uint64, img *image, _ held) (int64, error) {
	at := uint64(0)
	for i, n := range img.slots {
		end := uint64(i+1) * hostPage
		if n == 0 {
			continue
		}
		clear(slab[at : end-hostPage])
		copy(slab[end-hostPage:end], img.page(i))
		at = end
	}
	clear(slab[at:max(at, high)])
	return int64(high), nil
}

func (p *portable) trim([]byte, uint64, held) bool { return false }

func (p *portable) close() {}
