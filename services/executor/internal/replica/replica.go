// Package replica keeps this executor's copies of state: what its guests read and write between a pull and a push. A Store
// holds them; writes mark the bytes they changed, a push sends exactly those, and a pull never overwrites them.
package replica

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"skein.dev"
	"skein.dev/abi"
	"skein.dev/platform/fault"
	statev1 "skein.dev/proto/skein/state/v1"
)

// MaxValue bounds a value in bytes.
const MaxValue = 64 << 20

// Traffic is what moved between here and the state service for one call, in bytes. What a call reads and writes in
// replicas costs nothing.
type Traffic struct{ Read, Written int64 }

// Store is the executor's replicas.
//
// Lock order: Store.mu, then Replica.mu; nothing is awaited under Store.mu.
type Store struct {
	client statev1.StateServiceClient
	budget int64 // bytes; clean replicas go when it is passed
	mu     sync.Mutex
	all    map[skein.StateKey]*Replica
	size   int64
	clock  atomic.Int64 // of uses, for choosing what goes
}

// Replica is one value's copy.
type Replica struct {
	mu     sync.RWMutex
	have   bool // data is the value, not the lack of one
	data   []byte
	dirty  ranges // what was written here and not pushed
	whole  bool   // the value was set, so a push replaces it
	gone   bool   // no longer in the store: look again
	used   atomic.Int64
	counts int64 // bytes of it in Store.size
}

// New makes a store whose values come from and go to client.
func New(client statev1.StateServiceClient, budget int64) *Store {
	return &Store{client: client, budget: budget, all: map[skein.StateKey]*Replica{}}
}

// Has reports whether there is a replica of a value.
func (s *Store) Has(k skein.StateKey) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[k] != nil
}

// lock gives the key's replica, locked for writing; one without data if there was none.
func (s *Store) lock(k skein.StateKey) *Replica {
	for {
		s.mu.Lock()
		r := s.all[k]
		if r == nil {
			r = &Replica{}
			s.all[k] = r
		}
		s.mu.Unlock()
		r.mu.Lock()
		if !r.gone {
			r.used.Store(s.clock.Add(1))
			return r
		}
		r.mu.Unlock()
	}
}

// unlock ends what lock began: it accounts for the size and makes room.
func (s *Store) unlock(k skein.StateKey, r *Replica) {
	grew := int64(cap(r.data)) - r.counts
	r.counts += grew
	empty := !r.have
	if empty {
		r.gone = true
	}
	s.mu.Lock()
	s.size += grew
	if empty && s.all[k] == r {
		delete(s.all, k)
		s.size -= r.counts
	}
	over := s.size > s.budget
	s.mu.Unlock()
	r.mu.Unlock()
	if over {
		s.evict()
	}
}

// evict drops clean replicas, those longest unused first, until the budget is kept. One in use right now stays.
func (s *Store) evict() {
	s.mu.Lock()
	defer s.mu.Unlock()
	type candidate struct {
		k skein.StateKey
		r *Replica
	}
	var all []candidate
	for k, r := range s.all {
		all = append(all, candidate{k, r})
	}
	slices.SortFunc(all, func(a, b candidate) int { return int(a.r.used.Load() - b.r.used.Load()) })
	for _, c := range all {
		if s.size <= s.budget {
			return
		}
		if !c.r.mu.TryLock() {
			continue
		}
		if !c.r.whole && len(c.r.dirty) == 0 {
			c.r.gone = true
			delete(s.all, c.k)
			s.size -= c.r.counts
		}
		c.r.mu.Unlock()
	}
}

// Read copies from off of the value into buf and gives the value's size; it pulls first if there is no replica, and counts
// that in t, as all do that take one.
func (s *Store) Read(ctx context.Context, t *Traffic, k skein.StateKey, off int64, buf []byte) (int64, error) {
	if off < 0 {
		return 0, abi.EINVAL
	}
	s.mu.Lock()
	r := s.all[k]
	s.mu.Unlock()
	if r != nil { // the way of all reads but the first
		r.mu.RLock()
		if r.have && !r.gone {
			defer r.mu.RUnlock()
			r.used.Store(s.clock.Add(1))
			return r.read(off, buf), nil
		}
		r.mu.RUnlock()
	}
	w := s.lock(k)
	defer s.unlock(k, w)
	if !w.have {
		if err := s.pull(ctx, t, k, w); err != nil {
			return 0, err
		}
	}
	return w.read(off, buf), nil
}

func (r *Replica) read(off int64, buf []byte) int64 {
	if off < int64(len(r.data)) {
		copy(buf, r.data[off:])
	}
	return int64(len(r.data))
}

// Size is the replica's, or the global value's if there is none.
func (s *Store) Size(ctx context.Context, k skein.StateKey) (int64, error) {
	s.mu.Lock()
	r := s.all[k]
	s.mu.Unlock()
	if r != nil {
		r.mu.RLock()
		defer r.mu.RUnlock()
		if r.have && !r.gone {
			return int64(len(r.data)), nil
		}
	}
	resp, err := s.client.StatValue(ctx, &statev1.StatValueRequest{User: string(k.User), Key: []byte(k.Key)})
	if err != nil {
		return 0, err
	}
	return resp.GetInfo().GetSize(), nil
}

// Set makes a copy of val the value here.
func (s *Store) Set(k skein.StateKey, val []byte) error {
	if len(val) > MaxValue {
		return abi.EFBIG
	}
	r := s.lock(k)
	defer s.unlock(k, r)
	r.data = append(r.data[:0], val...)
	r.have, r.whole, r.dirty = true, true, nil
	return nil
}

// SetAt writes a range here. The rest of the value is pulled first if it is not here; a value that is absent or ends
// before off grows, with zeros in the gap.
func (s *Store) SetAt(ctx context.Context, t *Traffic, k skein.StateKey, off int64, val []byte) error {
	if off < 0 {
		return abi.EINVAL
	}
	if off > MaxValue-int64(len(val)) {
		return abi.EFBIG
	}
	r := s.lock(k)
	defer s.unlock(k, r)
	if !r.have {
		if err := s.pull(ctx, t, k, r); err != nil && !errors.Is(err, fault.NotFound) {
			return err
		}
		r.have = true
	}
	end := off + int64(len(val))
	if end > int64(len(r.data)) {
		r.data = slices.Grow(r.data, int(end)-len(r.data))
		clear(r.data[len(r.data):end])
		r.data = r.data[:end]
	}
	copy(r.data[off:end], val)
	if !r.whole {
		r.dirty = r.dirty.add(off, end)
	}
	return nil
}

// Push sends what was changed here; once it returns, a pull anywhere sees it. ENOENT if there is no replica.
func (s *Store) Push(ctx context.Context, t *Traffic, k skein.StateKey) error {
	r := s.lock(k)
	defer s.unlock(k, r)
	if !r.have {
		return abi.ENOENT
	}
	if r.whole {
		if err := s.write(ctx, k, r.data); err != nil {
			return err
		}
		r.whole = false
		t.Written += int64(len(r.data))
		return nil
	}
	for len(r.dirty) > 0 {
		d := r.dirty[0]
		end := min(d.end, d.start+skein.MaxPayload)
		_, err := s.client.SetRange(ctx, &statev1.SetRangeRequest{User: string(k.User), Key: []byte(k.Key), Offset: d.start, Data: r.data[d.start:end]})
		if err != nil {
			return err
		}
		t.Written += end - d.start
		if end == d.end {
			r.dirty = r.dirty[1:]
		} else {
			r.dirty[0].start = end
		}
	}
	return nil
}

// frame is how much of a large value goes in one message.
const frame = 256 << 10

func (s *Store) write(ctx context.Context, k skein.StateKey, data []byte) error {
	if len(data) <= skein.MaxPayload {
		_, err := s.client.SetValue(ctx, &statev1.SetValueRequest{User: string(k.User), Key: []byte(k.Key), Data: data})
		return err
	}
	stream, err := s.client.WriteValue(ctx)
	if err != nil {
		return err
	}
	msg := &statev1.WriteValueRequest{User: string(k.User), Key: []byte(k.Key)}
	for part := range slices.Chunk(data, frame) {
		msg.Data = part
		if err := stream.Send(msg); err != nil {
			break // CloseAndRecv has the reason
		}
		msg = &statev1.WriteValueRequest{}
	}
	_, err = stream.CloseAndRecv()
	return err
}

// Pull refreshes the replica with what changed elsewhere; bytes written here and not pushed stay. ENOENT if there is no
// value.
func (s *Store) Pull(ctx context.Context, t *Traffic, k skein.StateKey) error {
	r := s.lock(k)
	defer s.unlock(k, r)
	if r.whole {
		return nil // every byte was written here
	}
	return s.pull(ctx, t, k, r)
}

func (s *Store) pull(ctx context.Context, t *Traffic, k skein.StateKey, r *Replica) error {
	fresh, err := s.fetch(ctx, k)
	if err != nil {
		return err
	}
	t.Read += int64(len(fresh))
	for _, d := range r.dirty {
		if grow := int(d.end) - len(fresh); grow > 0 {
			fresh = append(fresh, make([]byte, grow)...)
		}
		copy(fresh[d.start:d.end], r.data[d.start:d.end])
	}
	r.data, r.have = fresh, true
	return nil
}

func (s *Store) fetch(ctx context.Context, k skein.StateKey) ([]byte, error) {
	stream, err := s.client.ReadValue(ctx, &statev1.ReadValueRequest{User: string(k.User), Key: []byte(k.Key)})
	if err != nil {
		return nil, err
	}
	var data []byte
	for {
		m, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return data, nil
		case err != nil:
			return nil, err
		}
		if info := m.GetInfo(); info != nil {
			if info.GetSize() > MaxValue {
				return nil, abi.EFBIG
			}
			data = make([]byte, 0, info.GetSize())
		}
		data = append(data, m.GetData()...)
	}
}

// Append adds to the global value, past the replica, and gives the offset where it landed.
func (s *Store) Append(ctx context.Context, t *Traffic, k skein.StateKey, val []byte) (int64, error) {
	if len(val) > skein.MaxPayload {
		return 0, abi.EFBIG
	}
	resp, err := s.client.AppendValue(ctx, &statev1.AppendValueRequest{
		// The id makes a retry below us append once.
		User: string(k.User), Key: []byte(k.Key), Data: val, RequestId: skein.NewCallID().String(),
	})
	if err != nil {
		return 0, err
	}
	t.Written += int64(len(val))
	return resp.GetOffset(), nil
}

// Delete removes the value here and globally; ENOENT if it was in neither place.
func (s *Store) Delete(ctx context.Context, k skein.StateKey) error {
	r := s.lock(k)
	defer s.unlock(k, r)
	_, err := s.client.DeleteValue(ctx, &statev1.DeleteValueRequest{User: string(k.User), Key: []byte(k.Key)})
	if err != nil && (!errors.Is(err, fault.NotFound) || !r.have) {
		return err
	}
	r.data, r.dirty, r.have, r.whole = nil, nil, false, false
	return nil
}

// ranges are byte ranges in order, neither touching nor empty.
type ranges []span

type span struct{ start, end int64 }

// add gives the union with [start, end).
func (r ranges) add(start, end int64) ranges {
	if start >= end {
		return r
	}
	i, _ := slices.BinarySearchFunc(r, start, func(s span, at int64) int {
		if s.end < at {
			return -1
		}
		return 1
	})
	j := i
	for j < len(r) && r[j].start <= end {
		start, end = min(start, r[j].start), max(end, r[j].end)
		j++
	}
	return slices.Replace(r, i, j, span{start, end})
}

// Bytes is what all replicas take.
func (s *Store) Bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.size
}
