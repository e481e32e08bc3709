package replica

import (
	"bytes"
	"encoding/binary"
	"sync/atomic"
	"unsafe"
)

// changed gives the dirty bytes of a chunk: those that rows have written, and those that are not what they were. The caller
// holds mu, for reading at least; guests may write meanwhile.
func (r *Replica) changed(i int) ranges {
	at, end := int64(i)*chunk, min(int64(i+1)*chunk, r.size)
	marked := r.dirty.within(at, end)
	if r.file == nil || !r.based.has(i) || r.local {
		return marked
	}
	var runs ranges
	for p := at; p < end; p += page {
		to := min(p+page, end)
		if !bytes.Equal(r.file.view[p:to], r.file.base[p:to]) {
			runs = differ(runs, r.file.view[p:to], r.file.base[p:to], p)
		}
	}
	return runs.union(marked)
}

// differ adds the runs of bytes in which a page, which begins at an offset, is not what it was.
func differ(runs ranges, view, base []byte, at int64) ranges {
	add := func(i int) {
		from := at + int64(i)
		if n := len(runs) - 1; n >= 0 && runs[n].end == from {
			runs[n].end++
		} else {
			runs = append(runs, span{from, from + 1})
		}
	}
	i := 0
	for ; i+8 <= len(view); i += 8 {
		x := binary.LittleEndian.Uint64(view[i:]) ^ binary.LittleEndian.Uint64(base[i:])
		for b := 0; x != 0; b, x = b+1, x>>8 {
			if x&0xff != 0 {
				add(i + b)
			}
		}
	}
	for ; i < len(view); i++ {
		if view[i] != base[i] {
			add(i)
		}
	}
	return runs
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
	const low = 0x7f7f7f7f7f7f7f7f
	x := a ^ b
	zero := ^((x&low + low) | x | low) // 0x80 for each byte of x that is zero
	return zero >> 7 * 0xff
}
