package replica

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"sync/atomic"
	"unsafe"
)

// changed gives the dirty bytes of a chunk: those that rows have written, and, of pages that guests may have changed, those that are not
// what they were; look tells of such pages first. It stops looking beyond most ranges, if that is not 0. The caller holds mu, for reading
// at least; guests may write meanwhile.
func (r *Replica) changed(i, most int) ranges {
	at, end := int64(i)*chunk, min(int64(i+1)*chunk, r.size)
	marked := r.dirty.within(at, end)
	if r.file == nil || !r.based.has(i) || r.local {
		return marked
	}
	var runs ranges
	pages := &r.file.suspects[i]
	for left := pages.Load(); left != 0 && (most == 0 || len(runs) <= most); left &= left - 1 {
		nth := bits.TrailingZeros64(left)
		p := at + int64(nth)*page
		to := min(p+page, end)
		switch {
		case p >= end:
		case !bytes.Equal(r.file.view[p:to], r.file.base[p:to]):
			runs = differ(runs, r.file.view[p:to], r.file.base[p:to], p)
		default: // while it is mapped, look finds it again
			pages.And(^(1 << nth))
		}
	}
	return runs.union(marked)
}

// suspects are the pages, one bit each, by chunks, of which guests may have changed something since they were like their base.
type suspects [mostChunk]atomic.Uint64

// add takes n pages in.
func (s *suspects) add(first, n int) {
	const each = chunk / page
	for n > 0 {
		at := first % each
		k := min(n, each-at)
		s[first/each].Or((1<<k - 1) << at) // a shift by 64 gives 0, and all bits are left
		first, n = first+k, n-k
	}
}

// differ adds the runs of bytes in which a page, which begins at an offset, is not what it was.
func differ(runs ranges, view, base []byte, at int64) ranges {
	i := 0
	for ; i+8 <= len(view); i += 8 {
		x := binary.LittleEndian.Uint64(view[i:]) ^ binary.LittleEndian.Uint64(base[i:])
		if x == 0 {
			continue
		}
		other := (x&low7 + low7 | x) &^ low7 // 0x80 for each byte that differs
		for other != 0 {
			from := bits.TrailingZeros64(other) / 8
			n := min(bits.TrailingZeros64((^other&^low7)>>(8*from))/8, 8-from)
			runs = runs.extend(at+int64(i+from), int64(n))
			other = other >> (8 * (from + n)) << (8 * (from + n))
		}
	}
	for ; i < len(view); i++ {
		if view[i] != base[i] {
			runs = runs.extend(at+int64(i), 1)
		}
	}
	return runs
}

const low7 = 0x7f7f7f7f7f7f7f7f

// extend adds n bytes that lie behind all of the ranges, or touch the last.
func (r ranges) extend(from, n int64) ranges {
	if last := len(r) - 1; last >= 0 && r[last].end == from {
		r[last].end += n
		return r
	}
	return append(r, span{from, from + n})
}

// apply takes bytes that came from elsewhere for an offset; what is dirty here stays. The caller holds mu.
func (r *Replica) apply(off int64, data []byte) {
	data = data[:max(0, min(int64(len(data)), r.size-off))]
	for len(data) > 0 {
		i := int(off / chunk)
		n := min(int64(len(data)), int64(i+1)*chunk-off)
		clean := r.dirty.gaps(off, off+n)
		for _, s := range clean {
			part := data[s.start-off : s.end-off]
			if r.file != nil && r.based.has(i) {
				merge(r.file.view, r.file.base, s.start, part)
			} else {
				copy(r.bytes()[s.start:], part)
			}
		}
		if r.file != nil && r.based.has(i) && len(r.dirty) > 0 {
			copy(r.file.base[off:off+n], data)
		}
		off, data = off+n, data[n:]
	}
}

// merge puts data at an offset of a view that guests write to, and of its base. A byte that a guest has changed, or changes
// meanwhile, stays: words are exchanged only for what they were.
func merge(view, base []byte, off int64, data []byte) {
	for len(data) > 0 {
		n := min(int64(len(data)), page-off%page)
		if part := data[:n]; !bytes.Equal(base[off:off+n], part) {
			mergePage(view, base, off, part)
		}
		off, data = off+n, data[n:]
	}
}

func mergePage(view, base []byte, off int64, data []byte) {
	end := off + int64(len(data))
	for w := off &^ 7; w < end; w += 8 {
		old := base[w : w+8 : w+8]
		was := *(*uint64)(unsafe.Pointer(&old[0]))
		copy(old[max(off-w, 0):], data[max(w-off, 0):])
		fresh := *(*uint64)(unsafe.Pointer(&old[0]))
		if fresh == was {
			continue
		}
		at := (*uint64)(unsafe.Pointer(&view[w]))
		for {
			now := atomic.LoadUint64(at)
			same := equalBytes(now, was)
			next := now&^same | fresh&same
			if next == now || atomic.CompareAndSwapUint64(at, now, next) {
				break
			}
		}
	}
}

// equalBytes has 0xff for each byte that is the same in both.
func equalBytes(a, b uint64) uint64 {
	x := a ^ b
	zero := ^((x&low7 + low7) | x | low7) // 0x80 for each byte of x that is zero
	return zero >> 7 * 0xff
}
