package replica

import (
	"context"
	"errors"
	"math"

	"skein.dev"
	"skein.dev/abi"
	"skein.dev/platform/fault"
	statev1 "skein.dev/proto/skein/state/v1"
)

// Traffic is what moved between here and the state service for one call, in bytes. What a call reads and writes in
// replicas costs nothing.
type Traffic struct{ Read, Written int64 }

// Session is one call's use of the store: what it moved, which locks it holds and what it maps. It belongs to the goroutine
// of the call. End must follow its last use.
type Session struct {
	// Park waits for what the call can't go on without, so that others may have its slot meanwhile. Nil just waits.
	Park func(wait func() error) error

	store *Store
	moved Traffic
	maps  []*Mapping
	held  []held
	holds []*hold
}

// Open makes a session.
func (s *Store) Open() *Session { return &Session{store: s} }

// Moved is what the call moved until now.
func (s *Session) Moved() Traffic { return s.moved }

// End releases what the call holds.
func (s *Session) End() {
	for _, h := range s.holds {
		if h.lost.Load() {
			s.abandon(h) // before others here get at the value
		}
	}
	for len(s.held) > 0 {
		s.release(len(s.held) - 1)
	}
	endHolds(s.holds...)
	s.holds = nil
	s.Settle(0, math.MaxUint64, true)
	for _, m := range s.maps {
		r := m.replica
		r.mu.Lock()
		if r.maps--; r.maps == 0 {
			r.mapped = chunks{}
		}
		s.store.settle(r)
		r.mu.Unlock()
	}
	if len(s.maps) > 0 {
		s.store.freed()
		s.store.shrink(nil)
	}
	s.maps = nil
}

// limits checks a range of n bytes.
func limits(off, n int64) error {
	switch {
	case off < 0 || n < 0:
		return abi.EINVAL
	case off > MaxValue-n:
		return abi.EFBIG
	}
	return nil
}

// Read copies from off of the value into buf and gives the value's size; chunks that are not here are pulled first.
func (s *Session) Read(ctx context.Context, k skein.StateKey, off int64, buf []byte) (size int64, err error) {
	if off < 0 {
		return 0, abi.EINVAL
	}
	for range attempts {
		if size, here := s.ReadHere(k, off, buf); here {
			return size, nil
		}
		if err := s.fill(ctx, k, off, min(off, MaxValue)+int64(len(buf)), false); err != nil {
			return 0, err
		}
	}
	return 0, abi.EAGAIN
}

// ReadHere is Read if it has to wait for nothing: the way of all reads but the first.
func (s *Session) ReadHere(k skein.StateKey, off int64, buf []byte) (size int64, here bool) {
	r := s.store.peek(k)
	if r == nil || off < 0 {
		return 0, false
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.gone || !r.holds(off, min(off, MaxValue)+int64(len(buf))) {
		return 0, false
	}
	if off < r.size {
		copy(buf, r.bytes()[off:])
	}
	r.used.Store(s.store.clock.Add(1))
	return r.size, true
}

// attempts bounds how often something is fetched that is gone before it is used: the budget is too small for what runs.
const attempts = 16

// Size is the replica's, or the global value's if there is none.
func (s *Session) Size(ctx context.Context, k skein.StateKey) (int64, error) {
	if r := s.store.peek(k); r != nil {
		r.mu.RLock()
		defer r.mu.RUnlock()
		if r.known {
			return r.size, nil
		}
	}
	info, err := s.stat(ctx, k)
	return info.GetSize(), err
}

func (s *Session) stat(ctx context.Context, k skein.StateKey) (*statev1.ValueInfo, error) {
	resp, err := s.store.client.StatValue(ctx, &statev1.StatValueRequest{User: string(k.User), Key: []byte(k.Key)})
	return resp.GetInfo(), err
}

// Set makes a copy of val the value here.
func (s *Session) Set(k skein.StateKey, val []byte) error {
	if err := limits(0, int64(len(val))); err != nil {
		return err
	}
	r := s.store.lock(k)
	defer s.store.unlock(r)
	if err := s.store.room(r, int64(len(val))-r.size); err != nil {
		return err
	}
	return r.set(val)
}

// Write writes a range here. What the value has else is not needed for that, but its size is. A value that is absent or ends
// before off grows, with zeros in the gap.
func (s *Session) Write(ctx context.Context, k skein.StateKey, off int64, val []byte) error {
	if err := limits(off, int64(len(val))); err != nil {
		return err
	}
	return s.change(ctx, k, func(r *Replica) error {
		if err := s.store.room(r, off+int64(len(val))-r.size); err != nil {
			return err
		}
		return r.write(off, val)
	})
}

// Least makes the value at least as long as size.
func (s *Session) Least(ctx context.Context, k skein.StateKey, size int64) error {
	if err := limits(0, size); err != nil {
		return err
	}
	return s.change(ctx, k, func(r *Replica) error {
		if size <= r.size {
			return nil
		}
		if err := s.store.room(r, size-r.size); err != nil {
			return err
		}
		return r.grow(size)
	})
}

// Mark makes a range of the value dirty, also where it is not changed; end is cut to its size, or is that if negative.
func (s *Session) Mark(ctx context.Context, k skein.StateKey, off, end int64) error {
	if off < 0 {
		return abi.EINVAL
	}
	return s.change(ctx, k, func(r *Replica) error {
		if end < 0 || end > r.size {
			end = r.size
		}
		r.mark(off, end)
		return nil
	})
}

// change runs f on the replica with mu held; one that is not known is looked up, or made.
func (s *Session) change(ctx context.Context, k skein.StateKey, f func(*Replica) error) error {
	for range attempts {
		r := s.store.lock(k)
		if r.known {
			err := f(r)
			s.store.unlock(r)
			return err
		}
		s.store.unlock(r)
		if err := s.find(ctx, k, true); err != nil {
			return err
		}
	}
	return abi.EAGAIN
}

// find makes the replica known, without bytes. A value that is nowhere is made, empty, if create says so.
func (s *Session) find(ctx context.Context, k skein.StateKey, create bool) error {
	r, err := s.store.exchange(ctx, k)
	if err != nil {
		return err
	}
	defer s.store.done(r)
	r.mu.RLock()
	known := r.known
	r.mu.RUnlock()
	if known {
		return nil
	}
	info, err := s.stat(ctx, k)
	if err != nil && (!create || !errors.Is(err, fault.NotFound)) {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.known: // somebody has set it
		return nil
	case err != nil:
		r.known, r.grown = true, true
		return nil
	}
	r.latest, r.sized = info.GetVersion(), info.GetVersion()
	return r.adopt(info.GetSize())
}

// Delete removes the value here and globally; ENOENT if it was in neither place. Guests that map it keep what they see.
func (s *Session) Delete(ctx context.Context, k skein.StateKey) (err error) {
	defer s.span(&ctx, "state delete", k, &err)()
	r, err := s.store.exchange(ctx, k)
	if err != nil {
		return err
	}
	defer s.store.done(r)
	r.mu.RLock()
	known, local := r.known, r.local
	r.mu.RUnlock()
	if !local {
		_, err := s.store.client.DeleteValue(ctx, &statev1.DeleteValueRequest{
			User: string(k.User), Key: []byte(k.Key), RequestId: skein.NewCallID().String(), Fence: s.fence(k),
		})
		if err != nil && (!errors.Is(err, fault.NotFound) || !known) {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s.store.remove(r)
	return nil
}
