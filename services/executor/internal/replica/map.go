package replica

import (
	"context"
	"errors"
	"math"
	"slices"

	"skein.dev"
	"skein.dev/abi"
	"skein.dev/platform/fault"
)

// Use says how a value is to be mapped.
type Use struct {
	Off, Len int64 // of the range; a Len below 0 is all to the end
	Size     int64 // the value is made or grows to be as long; 0 takes it as it is
	ReadOnly bool  // the guest promises not to write
	Local    bool  // a value that is made here never leaves
	Pull     bool  // what changed elsewhere is fetched first
	Own      bool  // the guest has a place of its own for it:
	At       uint64
}

// mostPlaces bounds the mappings that a call has made, also of places that show something else by now.
const mostPlaces = 4 << 10

// Mapping is a range of a value that a guest is to map.
type Mapping struct {
	Fd   int   // of the file, for as long as the session
	Off  int64 // of the first page, in the file and the value
	Len  int64 // a multiple of 4 KiB
	At   uint64
	Host bool // At is memory that the host grew for it
	// First is where it begins in this process, once it is mapped. Without it all of it counts as changed by the guest.
	First *byte

	replica *Replica
}

// covers says whether a mapping shows all of a range of a value.
func (m *Mapping) covers(r *Replica, off, end int64) bool {
	return m.Host && m.replica == r && m.Off <= off && end <= m.Off+m.Len
}

// Map makes a range of a value ready to be mapped, and keeps it so until the session ends. place then maps it, with the
// replica held; if the same session has mapped the range at a place of the host's choice already, that is given again.
func (s *Session) Map(ctx context.Context, k skein.StateKey, u Use, place func(*Mapping) error) (*Mapping, error) {
	if err := limits(0, u.Size); err != nil {
		return nil, err
	}
	if u.Off < 0 {
		return nil, abi.EINVAL
	}
	if u.Pull {
		if err := s.pull(ctx, k, u.Off, u.Len, true); err != nil && !errors.Is(err, fault.NotFound) { // it may be here alone
			return nil, err
		}
	}
	if u.Own {
		s.Settle(u.At, MaxValue+page, false) // it may take the place of another
	}
	end := int64(math.MaxInt64)
	if u.Len >= 0 && u.Off <= MaxValue && u.Len <= MaxValue {
		end = u.Off + u.Len
	}
	for range attempts {
		r := s.store.lock(k)
		m, err := s.tryMap(r, u, end, place)
		s.store.unlock(r)
		if !errors.Is(err, errNotHere) {
			return m, err
		}
		switch err := s.fill(ctx, k, u.Off, end, true); {
		case err == nil:
		case u.Size > 0 && errors.Is(err, fault.NotFound):
			if err := s.find(ctx, k, true); err != nil {
				return nil, err
			}
		default:
			return nil, err
		}
	}
	return nil, abi.EAGAIN
}

var errNotHere = errors.New("not here")

// tryMap maps what is here. The caller holds mu.
func (s *Session) tryMap(r *Replica, u Use, end int64, place func(*Mapping) error) (*Mapping, error) {
	if !r.known && u.Local && u.Size > 0 {
		r.known, r.local = true, true
	}
	switch {
	case !r.known:
		return nil, errNotHere
	case u.Local && !r.local:
		return nil, abi.EINVAL
	}
	if u.Size > r.size {
		if err := s.store.room(r, u.Size-r.size); err != nil {
			return nil, err
		}
		if err := r.grow(u.Size); err != nil {
			return nil, err
		}
	}
	if u.Len < 0 {
		end = max(r.size, u.Off)
		if u.Size > 0 {
			end = u.Size
		}
	}
	switch {
	case end > r.size || u.Off > end || u.Off == end && u.Off > 0:
		return nil, abi.EINVAL
	case !r.holds(u.Off, end):
		return nil, errNotHere
	}
	if err := s.mappable(r); err != nil {
		return nil, err
	}
	m := &Mapping{Fd: r.file.fd, Off: u.Off &^ (page - 1), At: u.At, Host: !u.Own, replica: r}
	m.Len = (max(end, u.Off+1) - m.Off + page - 1) &^ (page - 1)
	if !u.ReadOnly && !r.local {
		if err := s.store.room(r, r.lacksBase(m.Off, m.Off+m.Len)); err != nil {
			return nil, err
		}
		r.base(m.Off, min(m.Off+m.Len, r.file.length))
	}
	for _, old := range s.maps {
		if !u.Own && old.covers(r, u.Off, end) {
			return old, nil
		}
	}
	if len(s.maps) == mostPlaces {
		return nil, abi.ENOMEM
	}
	if err := place(m); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(s.maps, func(old *Mapping) bool { return *old == *m }) {
		return m, nil
	}
	r.maps++
	r.places = append(r.places, m)
	s.maps = append(s.maps, m)
	return m, nil
}

// Settle takes note of what the guest may have changed through its mappings in a range of its memory. It must be told before any of them
// goes; with end they all do, and the guest runs no more.
func (s *Session) Settle(at, n uint64, end bool) {
	for _, m := range s.maps {
		if m.At >= at+n || at >= m.At+uint64(m.Len) {
			continue
		}
		r := m.replica
		r.mu.Lock()
		if i := slices.Index(r.places, m); i >= 0 {
			r.touch(m)
			if end {
				r.places = slices.Delete(r.places, i, i+1)
			}
		}
		r.mu.Unlock()
	}
}

// look takes note of what guests may have changed through the mappings that there are. The caller holds mu, for reading at least.
func (r *Replica) look() {
	for _, m := range r.places {
		r.touch(m)
	}
}

// mappable moves a replica's bytes into a file. The caller holds mu.
func (s *Session) mappable(r *Replica) error {
	if r.file != nil {
		return nil
	}
	f, err := s.store.newFile(r.size)
	if err != nil {
		return err
	}
	copy(f.view[:r.size], r.heap)
	r.file, r.heap = f, nil
	return nil
}

// newFile makes a file for a replica; lessFile must be told when it is closed.
func (s *Store) newFile(size int64) (*file, error) {
	s.mu.Lock()
	full := s.files >= 2*mostFiles // all of them in use, or the budget would have them gone
	if !full {
		s.files++
	}
	s.mu.Unlock()
	if full {
		return nil, abi.ENOMEM
	}
	f, err := newFile(size)
	if err != nil {
		s.lessFile()
	}
	return f, err
}

func (s *Store) lessFile() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files--
}
