package replica

import (
	"sync"
	"sync/atomic"

	"skein.dev"
	"skein.dev/abi"
)

const (
	// MaxValue bounds a value in bytes.
	MaxValue = 64 << 20
	// chunk is the unit, in bytes, in which values are pulled, and in which it is known what they were.
	chunk     = 256 << 10
	mostChunk = MaxValue / chunk
	page      = 4 << 10
)

// Replica is one value's copy. Its bytes are on the heap until a guest maps them; from then on they are in a file in memory
// that host and guests map, so that guests change them without the host's knowledge. What a chunk was when it was last like
// the global tier's is kept (file.base) from before the first such mapping on: the bytes that differ from it are dirty.
type Replica struct {
	key skein.StateKey
	// net is held by whoever exchanges bytes with the global tier. It comes before mu, and is waited for within a context.
	net chan struct{}
	// wanted says, to who holds net, that a guest is about to map what is fetched.
	wanted bool

	mu    sync.RWMutex
	gone  bool  // no longer in the store: look again
	known bool  // there is a value, of this size
	local bool  // which never leaves this executor
	whole bool  // it was set, so that a push replaces it
	grown bool  // it is longer than the global tier was told
	sets  int   // how often it was set, so that a push sees it
	size  int64 // of the value in bytes
	// latest is the newest version of the value that was seen; at has each chunk's, 0 for one that was not pulled. At version
	// sized the global tier had no more than size.
	latest, sized int64
	at            []int64
	have          chunks // that hold the value's bytes; others hold zeroes, and what was written to them
	dirty         ranges // that were written by rows, also where the bytes stayed what they were
	heap          []byte // nil once there is a file
	file          *file
	based         chunks     // whose base is kept
	mapped        chunks     // that guests may write to
	maps          int        // of calls
	others        int        // pushes from now on in which it is likely that others have changed the value too
	places        []*Mapping // of those, which guests may use
	counts        int64      // bytes of it in Store.size

	used atomic.Int64 // when, on the store's clock
}

// chunks is a set of a value's chunks.
type chunks [mostChunk / 64]uint64

func (c *chunks) has(i int) bool { return c[i/64]&(1<<(i%64)) != 0 }
func (c *chunks) add(i int)      { c[i/64] |= 1 << (i % 64) }
func (c *chunks) drop(i int)     { c[i/64] &^= 1 << (i % 64) }

// upto is the number of chunks that n bytes take.
func upto(n int64) int { return int((n + chunk - 1) / chunk) }

// cover gives the chunks that have bytes of [off, end).
func cover(off, end int64) (first, last int) { return int(off / chunk), upto(end) }

// bytes are the value's. The caller holds mu, as for all below.
func (r *Replica) bytes() []byte {
	if r.file != nil {
		return r.file.view[:r.size]
	}
	return r.heap[:r.size]
}

// extend makes room for a size; what lies between the old and the new one is zero.
func (r *Replica) extend(size int64) error {
	old := r.size
	if r.file != nil {
		if err := r.file.grow(size); err != nil {
			return err
		}
		// Guests may have written behind the end.
		clear(r.file.view[old:size])
		if i := int(old / chunk); old%chunk != 0 && r.based.has(i) {
			clear(r.file.base[old:min(size, int64(i+1)*chunk)])
		}
	} else {
		if int64(cap(r.heap)) < size {
			larger := make([]byte, size, max(size, min(2*old, old+chunk)))
			copy(larger, r.heap[:old])
			r.heap = larger
		} else {
			r.heap = r.heap[:size]
			clear(r.heap[old:])
		}
	}
	for i := upto(old); i < upto(size); i++ {
		if r.mapped.has(i) { // from when the value was longer
			r.file.forget(i)
			r.based.add(i)
		}
	}
	r.at = append(r.at, make([]int64, upto(size)-upto(old))...)
	r.size = size
	return nil
}

// cut ends the value at a size.
func (r *Replica) cut(size int64) {
	for i := upto(size); i < upto(r.size); i++ {
		r.have.drop(i)
		if r.based.has(i) {
			r.based.drop(i)
			r.file.forget(i)
		}
	}
	r.at = r.at[:upto(size)]
	r.dirty = r.dirty.within(0, size)
	r.size = size
}

// grow is extend for a value that is longer from now on than elsewhere: the new chunks are here.
func (r *Replica) grow(size int64) error {
	first := upto(r.size)
	if err := r.extend(size); err != nil {
		return err
	}
	for i := first; i < upto(size); i++ {
		r.have.add(i)
		r.at[i] = r.sized
	}
	r.grown = true
	return nil
}

// adopt takes the size that the value has elsewhere; what is dirty here stays.
func (r *Replica) adopt(size int64) error {
	if size > MaxValue {
		return abi.EFBIG
	}
	if size < r.size && !r.grown {
		end := size
		r.look()
		for i := upto(r.size) - 1; i >= int(size/chunk); i-- {
			if runs := r.changed(i, 0); len(runs) > 0 {
				end = max(end, runs[len(runs)-1].end)
				break
			}
		}
		r.cut(end)
		r.apply(size, make([]byte, end-size))
	}
	if size > r.size {
		if i := int(r.size / chunk); r.size%chunk != 0 {
			r.have.drop(i) // its end is not here
		}
		if err := r.extend(size); err != nil {
			return err
		}
		r.grown = false
	}
	r.known = true
	return nil
}

// holds says whether all chunks of a range are here.
func (r *Replica) holds(off, end int64) bool {
	if !r.known {
		return false
	}
	first, last := cover(off, min(end, r.size))
	for i := first; i < last; i++ {
		if !r.have.has(i) {
			return false
		}
	}
	return true
}

// set makes val the value.
func (r *Replica) set(val []byte) error {
	size := int64(len(val))
	if size < r.size {
		copy(r.bytes(), val) // before the chunks behind are let go: val may lie in them
		r.cut(size)
	} else {
		if err := r.extend(size); err != nil {
			return err
		}
		copy(r.bytes(), val)
	}
	for i := range upto(size) {
		r.have.add(i)
	}
	r.known, r.whole, r.grown, r.dirty = true, true, false, nil
	r.sets++
	return nil
}

// write puts val at an offset.
func (r *Replica) write(off int64, val []byte) error {
	end := off + int64(len(val))
	if end > r.size {
		if err := r.grow(end); err != nil {
			return err
		}
	}
	copy(r.bytes()[off:], val)
	r.mark(off, end)
	return nil
}

// mark makes a range dirty.
func (r *Replica) mark(off, end int64) {
	if !r.whole && !r.local {
		r.dirty = r.dirty.add(off, end)
	}
}

// clean says that a push would send nothing, so that the replica may go.
func (r *Replica) clean() bool {
	if r.whole || r.grown || len(r.dirty) > 0 || r.local && r.known {
		return false
	}
	for i := range upto(r.size) {
		if len(r.changed(i, 0)) > 0 {
			return false
		}
	}
	return true
}

// ours says that all of the value was made here: nothing is to be fetched.
func (r *Replica) ours() bool { return r.whole || r.local }

// absent says that there is no value here, and no byte of one.
func (r *Replica) absent() bool { return !r.known && r.size == 0 && r.file == nil && r.maps == 0 }

// drop lets go of everything.
func (r *Replica) drop() {
	if r.file != nil {
		r.file.close()
	}
	r.heap, r.file, r.places, r.dirty, r.at, r.size = nil, nil, nil, nil, nil, 0
	r.have, r.based, r.mapped = chunks{}, chunks{}, chunks{}
	r.known, r.whole, r.grown, r.local = false, false, false, false
}

// toHeap moves the bytes out of a file when nobody maps the value any more: what differs from its base is marked from now on. False if that
// is too much to note.
func (r *Replica) toHeap() bool {
	dirty := r.dirty
	if !r.whole && !r.local {
		dirty = nil
		for i := range upto(r.size) {
			dirty = append(dirty, r.changed(i, 0)...)
			if len(dirty) > mostBatchRuns {
				return false
			}
		}
	}
	heap := make([]byte, r.size)
	copy(heap, r.bytes())
	r.file.close()
	r.heap, r.file, r.dirty = heap, nil, dirty
	r.based, r.mapped = chunks{}, chunks{}
	return true
}

// lacksBase is how many bytes base would take.
func (r *Replica) lacksBase(off, end int64) (n int64) {
	first, last := cover(off, end)
	for i := first; i < last; i++ {
		if !r.based.has(i) {
			n += chunk
		}
	}
	return n
}

// base keeps what the chunks of a range are from now on. Dirty ranges stay so.
func (r *Replica) base(off, end int64) {
	first, last := cover(off, end)
	for i := first; i < last; i++ {
		if !r.based.has(i) {
			at, to := int64(i)*chunk, min(int64(i+1)*chunk, r.file.length)
			copy(r.file.base[at:to], r.file.view[at:to])
			r.based.add(i)
		}
		r.mapped.add(i)
	}
}

// entryCost is what a replica takes besides its bytes and its key.
const entryCost = 512

// cost is what it takes of memory in bytes.
func (r *Replica) cost() int64 {
	n := entryCost + int64(len(r.key.Key)) + int64(len(r.dirty))*16
	if r.file == nil {
		return n + int64(cap(r.heap))
	}
	n += r.file.length
	for i := range upto(r.size) {
		if r.based.has(i) {
			n += chunk
		}
	}
	return n
}
