package machine

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
)

// Space is what a call may do with its instance's memory besides reading and writing it: grow it, and map files into it. The
// zero value, and that of a call which has ended, can do nothing. It belongs to the goroutine of the run; embed it to be a
// Guest.
type Space struct {
	// Leaving is told before something that is mapped in a range goes: by Zero, or, if end is true, after the run. It is the last that can
	// ask the kernel about it.
	Leaving func(at, n uint64, end bool)

	inst *instance
}

// Space makes whatever embeds one a Guest.
func (s *Space) Space() *Space { return s }

// What mapping can fail with, besides the kernel's own errors.
var (
	ErrNoMaps   = errors.New("this system, or a module without memory, can map no files")
	ErrBadRange = errors.New("a mapping begins and ends at multiples of 4 KiB inside the memory, and no two overlap in part")
	ErrNoSpace  = errors.New("the memory can't grow so far, or there are too many mappings")
	ErrOwnHeap  = errors.New("the guest's allocator takes all memory for its own")
)

// mostMaps is how many mappings a call may have at the same time: the kernel has a limit for all of them together.
const mostMaps = 256

// span is a part of a memory that maps something else than what the image says.
type span struct{ at, n uint64 }

// Bytes is the size of the memory.
func (s *Space) Bytes() int64 {
	if s.inst == nil {
		return 0
	}
	return int64(s.inst.mem.size)
}

// Maps says whether files can be mapped here at all.
func (s *Space) Maps() bool {
	if s.inst == nil || !s.inst.mod.memory {
		return false
	}
	_, copies := s.inst.mod.m.tier.(*portable)
	return !copies
}

// Grow adds pages to the memory for n bytes, which it can't lose again before the end of the call, and gives where they begin.
// ErrOwnHeap for a guest that would take them for its own.
func (s *Space) Grow(n uint64) (at uint64, err error) {
	if s.inst == nil || !s.inst.mod.memory {
		return 0, ErrNoMaps
	}
	if s.inst.mod.ownHeap {
		return 0, ErrOwnHeap
	}
	mem := &s.inst.mem
	at = mem.size
	pages := (n + pageSize - 1) / pageSize
	if n > mem.limit || at+pages*pageSize > mem.limit {
		mem.refused = true
		return 0, ErrNoSpace
	}
	if _, ok := s.inst.engine.Memory().Grow(uint32(pages)); !ok {
		return 0, ErrNoSpace
	}
	return at, nil
}

// Map shows n bytes of a file from off on in place of the memory's own at an address, to be written and read by all that map
// them. The file must be as long, and may never shrink: the process would not survive that. What was there is lost. A
// mapping of the same range takes the place of an earlier one.
func (s *Space) Map(at, n uint64, fd int, off int64) error { return s.show(at, n, fd, off, false) }

// Place is where an address within the memory is in this process.
func (s *Space) Place(at uint64) *byte { return &s.inst.mem.slab[at] }

// MapPrivate is Map of a copy: what the guest writes there nobody else sees. The file must not change either.
func (s *Space) MapPrivate(at, n uint64, fd int, off int64) error {
	return s.show(at, n, fd, off, true)
}

func (s *Space) show(at, n uint64, fd int, off int64, private bool) error {
	if s.inst == nil || !s.inst.mod.memory {
		return ErrNoMaps
	}
	mem := &s.inst.mem
	if !mem.has(at, n) || off%hostPage != 0 {
		return ErrBadRange
	}
	again := false
	for _, old := range mem.spans {
		if again = old == (span{at, n}); again {
			break
		}
		if old.meets(at, n) {
			return ErrBadRange
		}
	}
	if !again && (len(mem.spans) >= mostMaps || !mem.m.takeMappings(2)) { // one more, and what it cuts off
		return ErrNoSpace
	}
	if err := mem.m.tier.show(mem.slab[at:at+n], fd, off, private); err != nil {
		if !again {
			mem.m.giveMappings(2)
		}
		return err
	}
	if !again {
		mem.spans = append(mem.spans, span{at, n})
	}
	return nil
}

// has says whether a range is one of whole pages of the memory.
func (l *linear) has(at, n uint64) bool {
	return at%hostPage == 0 && n%hostPage == 0 && n > 0 && at <= l.size && n <= l.size-at
}

func (sp span) meets(at, n uint64) bool { return at < sp.at+sp.n && sp.at < at+n }

// Zero fills a range with zeroes and gives its memory back to the system. What is mapped there is so no longer, also if only a
// part of a mapping is in the range. The range lies above what the instance began with, as all that Grow gave does.
func (s *Space) Zero(at, n uint64) error {
	if s.inst == nil {
		return ErrNoMaps
	}
	mem := &s.inst.mem
	if !mem.has(at, n) || at < s.inst.image.size {
		return ErrBadRange
	}
	s.leave(at, n, false)
	if err := mem.cut(at, n, s.inst.image.size); err != nil {
		return err
	}
	return mem.m.tier.zero(mem.slab[at : at+n])
}

func (s *Space) leave(at, n uint64, end bool) {
	if s.Leaving != nil && slices.ContainsFunc(s.inst.mem.spans, func(sp span) bool { return sp.meets(at, n) }) {
		s.Leaving(at, n, end)
	}
}

// cut takes a range above low, where no image is, out of the mappings.
func (l *linear) cut(at, n, low uint64) error {
	more := 0
	for _, sp := range l.spans {
		switch {
		case !sp.meets(at, n):
		case sp.at < low:
			return ErrBadRange // what of it lies in the image could not be kept
		case sp.at < at && at+n < sp.at+sp.n: // it becomes two
			more++
		}
	}
	if more > 0 && (len(l.spans) >= mostMaps || !l.m.takeMappings(2*more)) {
		return ErrNoSpace
	}
	var rest []span
	for i := 0; i < len(l.spans); i++ {
		sp := l.spans[i]
		if !sp.meets(at, n) {
			continue
		}
		from, to := max(at, sp.at), min(at+n, sp.at+sp.n)
		if err := l.m.tier.unshow(l.slab, span{from, to - from}, nil, l.held); err != nil {
			l.m.giveMappings(2 * more)
			l.spans = append(l.spans, rest...)
			return fmt.Errorf("unmap: %w", err)
		}
		left, right := span{sp.at, from - sp.at}, span{to, sp.at + sp.n - to}
		switch {
		case left.n > 0 && right.n > 0:
			l.spans[i], more = left, more-1
			rest = append(rest, right)
		case left.n > 0:
			l.spans[i] = left
		case right.n > 0:
			l.spans[i] = right
		default:
			l.m.giveMappings(2)
			l.spans = slices.Delete(l.spans, i, i+1)
			i--
		}
	}
	l.spans = append(l.spans, rest...)
	return nil
}

// unmap takes out one mapping; where an image was, it is again. After an error nobody may have the memory.
func (l *linear) unmap(i int, img *image) error {
	defer runtime.KeepAlive(img)
	if err := l.m.tier.unshow(l.slab, l.spans[i], img, l.held); err != nil {
		return fmt.Errorf("unmap: %w", err)
	}
	l.m.giveMappings(2)
	l.spans = slices.Delete(l.spans, i, i+1)
	return nil
}

// unmapAll takes out all that a call has mapped.
func (l *linear) unmapAll(img *image) error {
	for len(l.spans) > 0 {
		if err := l.unmap(len(l.spans)-1, img); err != nil {
			return err
		}
	}
	return nil
}
