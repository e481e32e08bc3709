package replica

import (
	"context"
	"encoding/binary"
	"sync/atomic"
	"time"
	"unsafe"

	"skein.dev"
	"skein.dev/abi"
	"skein.dev/platform/fault"
)

// Discard drops what was changed here and not pushed, whoever changed it. EINVAL for a value that is here alone.
func (s *Session) Discard(ctx context.Context, k skein.StateKey) error {
	r, err := s.store.exchange(ctx, k)
	if err != nil {
		return err
	}
	defer s.store.done(r)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.local {
		return abi.EINVAL
	}
	s.discard(r)
	return nil
}

// refused drops what a push would have sent if the push was refused because the lock that went with it is lost: with a lock that is
// held the next push would send it. The caller holds net.
func (s *Session) refused(r *Replica, err error) {
	if err == nil || fault.From(err).Reason != "FENCED" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s.discard(r)
}

// abandon drops what a holder that lost its lock has left behind; a call's end waits for that no longer than for its locks.
func (s *Session) abandon(h *hold) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if !h.shared {
		_ = s.Discard(ctx, h.key)
	}
}

// discard makes a replica what the global tier has. One that is mapped is again what it was when it last was like that, and lacks
// what there is no such base of. The caller holds net and mu.
func (s *Session) discard(r *Replica) {
	if r.maps == 0 {
		s.store.remove(r)
		return
	}
	for i := range upto(r.size) {
		switch at := int64(i) * chunk; {
		case r.based.has(i):
			restore(r.file.view, r.file.base, at, min(at+chunk, r.size))
			if r.whole {
				r.have.drop(i)
			}
		case r.whole || len(r.dirty.within(at, at+chunk)) > 0:
			r.have.drop(i)
		}
	}
	r.whole, r.dirty = false, nil
	r.grown = r.grown && r.latest == 0 // nobody else has it: it stays as long as it is
}

// restore makes a range of a view its base, by words, for guests may write meanwhile.
func restore(view, base []byte, off, end int64) {
	for w := off; w < end; w += 8 {
		if was := binary.NativeEndian.Uint64(base[w:]); was != binary.NativeEndian.Uint64(view[w:]) {
			atomic.StoreUint64((*uint64)(unsafe.Pointer(&view[w])), was)
		}
	}
}
