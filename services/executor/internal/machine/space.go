package machine

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
)

// Space is what a call may do with its instance's memory besides reading and writing it: map files that others map too. The
// zero value, and that of a call which has ended, can do nothing. It belongs to the goroutine of the run; embed it to be a
// Guest.
type Space struct {
	inst *instance
}

// Space makes whatever embeds one a Guest.
func (s *Space) Space() *Space { return s }

// What mapping can fail with, besides the kernel's own errors.
var (
	ErrNoMaps   = errors.New("this system, or a module without memory, can map no files")
	ErrBadRange = errors.New("a mapping begins and ends at multiples of 4 KiB inside the memory, and no two overlap in part")
	ErrNoSpace  = errors.New("the memory can't grow so far, or there are too many mappings")
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

// Grow adds pages to the memory for n bytes, which it can't lose again before the end of the call, and gives where they begin.
func (s *Space) Grow(n uint64) (at uint64, err error) {
	if s.inst == nil || !s.inst.mod.memory {
		return 0, ErrNoMaps
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
func (s *Space) Map(at, n uint64, fd int, off int64) error {
	if s.inst == nil || !s.inst.mod.memory {
		return ErrNoMaps
	}
	mem := &s.inst.mem
	if at%hostPage != 0 || n%hostPage != 0 || n == 0 || off%hostPage != 0 || at > mem.size || n > mem.size-at {
		return ErrBadRange
	}
	again := false
	for _, old := range mem.spans {
		if again = old == (span{at, n}); again {
			break
		}
		if at < old.at+old.n && old.at < at+n {
			return ErrBadRange
		}
	}
	if !again && (len(mem.spans) == mostMaps || !mem.m.takeMappings(2)) { // one more, and what it cuts off
		return ErrNoSpace
	}
	if err := mem.m.tier.share(mem.slab[at:at+n], fd, off); err != nil {
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

// Unmap gives the range of an earlier Map to the memory again, filled with zeroes.
func (s *Space) Unmap(at, n uint64) error {
	if s.inst == nil {
		return ErrNoMaps
	}
	mem := &s.inst.mem
	i := slices.Index(mem.spans, span{at, n})
	if i < 0 {
		return ErrBadRange
	}
	err := mem.unmap(i, s.inst.image)
	if err == nil {
		clear(mem.slab[at : at+n]) // as writes of the call's own, which a reset undoes
	}
	return err
}

// unmap takes out one mapping; where an image was, it is again. After an error nobody may have the memory.
func (l *linear) unmap(i int, img *image) error {
	defer runtime.KeepAlive(img)
	if err := l.m.tier.unshare(l.slab, l.spans[i], img, l.held); err != nil {
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
