package machine

import "github.com/tetratelabs/wazero/experimental"

// allocator gives an instance its linear memory: a range reserved once, of which growth only shows more. The base never
// moves, which shared state and threads will need, and the limit is enforced here, so that what the guest was refused is
// known.
type allocator struct {
	m       *Machine
	whole   []byte // the reservation
	size    int64
	peak    int64
	refused bool // a growth
}

// Allocate is called by the engine, once an instance: a module has one memory.
func (a *allocator) Allocate(_, most uint64) experimental.LinearMemory {
	a.whole = reserve(int(min(most, a.m.limit)))
	return a
}

func (a *allocator) Reallocate(size uint64) []byte {
	if size > uint64(len(a.whole)) {
		a.refused = true
		return nil
	}
	a.m.inUse.Add(int64(size) - a.size)
	a.size = int64(size)
	a.peak = max(a.peak, a.size)
	return a.whole[:size:size]
}

// Free is called by the engine when it closes the instance, on the goroutine that ran it.
func (a *allocator) Free() { a.free() }

// free is also called after the engine is done: it forgets Free when an instantiation fails.
func (a *allocator) free() {
	if a.whole != nil {
		a.m.inUse.Add(-a.size)
		release(a.whole)
		a.whole, a.size = nil, 0
	}
}
