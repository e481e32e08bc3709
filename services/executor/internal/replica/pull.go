package replica

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"

	"skein.dev"
	"skein.dev/abi"
	"skein.dev/platform/bulk"
	"skein.dev/platform/fault"
	statev1 "skein.dev/proto/skein/state/v1"
)

// Pull refreshes a range of the replica with what changed elsewhere; bytes written here and not pushed stay. n below 0 is
// all to the end. ENOENT if there is no value, EINVAL if the range passes its end.
func (s *Session) Pull(ctx context.Context, k skein.StateKey, off, n int64) error {
	return s.pull(ctx, k, off, n, false)
}

func (s *Session) pull(ctx context.Context, k skein.StateKey, off, n int64, toMap bool) error {
	if off < 0 {
		return abi.EINVAL
	}
	r, err := s.store.exchange(ctx, k)
	if err != nil {
		return err
	}
	defer s.store.done(r)
	r.wanted = toMap
	r.mu.RLock()
	still := r.ours()
	r.mu.RUnlock()
	if !still {
		if err := s.refresh(ctx, r, off, n); err != nil {
			return err
		}
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if off > r.size || n > r.size-off {
		return abi.EINVAL
	}
	return nil
}

// refresh brings a range up to date. The caller holds net.
func (s *Session) refresh(ctx context.Context, r *Replica, off, n int64) error {
	since, any := int64(0), false
	var known []int64 // of each chunk, if they differ
	r.mu.RLock()
	end := r.size
	if n >= 0 {
		end = min(end, off+n)
	}
	if r.known && off <= end {
		first, last := cover(off, end)
		differ := false
		for i := first; i < last; i++ {
			if r.have.has(i) {
				differ = differ || any && r.at[i] != since
				if !any || r.at[i] < since {
					since, any = r.at[i], true
				}
			}
		}
		if differ {
			known = r.versions(first, last)
		}
	}
	r.mu.RUnlock()
	err := s.fetch(ctx, r, since, known, off, n)
	if errors.Is(err, fault.NotFound) {
		s.vanished(r)
	}
	if err != nil {
		return err
	}
	return s.missing(ctx, r, off, n)
}

// versions tells what the chunks were of that are here; others are of none. The caller holds mu.
func (r *Replica) versions(first, last int) []int64 {
	known := slices.Clone(r.at[first:last])
	for i := range known {
		if !r.have.has(first + i) {
			known[i] = 0
		}
	}
	return known
}

// vanished takes note that the value was deleted elsewhere: it is gone from here too, unless somebody uses it or has changed
// it. Then a push will make it again, as it is here.
func (s *Session) vanished(r *Replica) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !r.known || r.grown && r.latest == 0: // it was not there yet
	case r.maps == 0 && r.clean():
		r.known = false
		s.store.remove(r)
	default:
		r.whole, r.grown, r.dirty = true, false, nil
		for i := range upto(r.size) {
			r.have.add(i)
		}
	}
}

// fill fetches those chunks of [off, end) that are not here.
func (s *Session) fill(ctx context.Context, k skein.StateKey, off, end int64, toMap bool) error {
	r, err := s.store.exchange(ctx, k)
	if err != nil {
		return err
	}
	defer s.store.done(r)
	r.wanted = toMap
	r.mu.RLock()
	known := r.known
	r.mu.RUnlock()
	n := min(end, MaxValue) - off
	if !known {
		if n <= 0 { // its size alone is asked for
			off, n = 0, 1 // a small value comes with it
		}
		return s.fetch(ctx, r, 0, nil, off, n)
	}
	return s.missing(ctx, r, off, n)
}

// missing fetches the chunks of a range that are not here. The caller holds net.
func (s *Session) missing(ctx context.Context, r *Replica, off, n int64) error {
	for {
		r.mu.RLock()
		end := r.size
		if n >= 0 {
			end = min(end, off+n)
		}
		first, last := cover(off, end)
		for first < last && r.have.has(first) {
			first++
		}
		from := first
		for first < last && !r.have.has(first) {
			first++
		}
		r.mu.RUnlock()
		if from >= first {
			return nil
		}
		if err := s.fetch(ctx, r, 0, nil, int64(from)*chunk, int64(first-from)*chunk); err != nil {
			return err
		}
	}
}

// fetch is tryFetch until the value is not replaced meanwhile. The caller holds net.
func (s *Session) fetch(ctx context.Context, r *Replica, since int64, known []int64, off, n int64) (err error) {
	for range attempts {
		if err = s.tryFetch(ctx, r, since, known, off, n); fault.From(err) == nil || fault.From(err).Reason != "VALUE_CHANGED" {
			break
		}
	}
	return err
}

// tryFetch takes what changed of a range since a version, or all for 0, in whole chunks; known has other versions for the first ones.
// n below 0 is all to the end.
func (s *Session) tryFetch(ctx context.Context, r *Replica, since int64, known []int64, off, n int64) (err error) {
	ctx, end := begin(ctx, "state pull", r.key)
	before := s.moved.Read
	defer func() { end(s.moved.Read-before, err) }()
	ctx, stop := context.WithCancel(ctx)
	defer stop() // a stream that isn't read to its end would stay
	req := &statev1.ReadChangesRequest{User: string(r.key.User), Key: []byte(r.key.Key), SinceVersion: since, ChunkVersions: known, Offset: off &^ (chunk - 1)}
	if n >= 0 {
		req.Length = int64(upto(min(off+n, MaxValue)))*chunk - req.GetOffset()
		if req.GetLength() <= 0 {
			req.Length = chunk
		}
	}
	stream, err := s.store.client.ReadChanges(ctx, req, bulk.Prefer())
	if err != nil {
		return err
	}
	f := fetching{s: s, r: r, since: since, known: known, off: req.GetOffset(), n: req.GetLength()}
	defer f.drop()
	scratch := scratches.Get().(*[chunk]byte) //nolint:forcetypeassert // nothing else is in there
	defer scratches.Put(scratch)
	m := &statev1.ReadChangesResponse{}
	for {
		m.Data = scratch[:]
		if f.fresh != nil {
			m.Data = f.fresh[f.next:]
		}
		err := stream.RecvMsg(m)
		if errors.Is(err, io.EOF) {
			return f.end()
		}
		if err == nil {
			s.moved.Read += int64(len(m.GetData()))
			err = f.take(m)
		}
		if err != nil {
			return err
		}
	}
}

// scratches are for bytes between the network and their place.
var scratches = sync.Pool{New: func() any { return new([chunk]byte) }}

// fetching is a stream of changes that comes in. A value that was not here at all is received where it will be, and is nobody's
// before all has come; what goes into one that others use meanwhile is received elsewhere and put in under mu.
type fetching struct {
	s       *Session
	r       *Replica
	since   int64
	known   []int64 // what the first chunks were of that are asked for, if not of since
	off, n  int64
	version int64
	size    int64
	had     chunks
	told    bool
	came    ranges
	fresh   []byte // all of a new value
	file    *file  // which they are in, if a guest is about to map it
	next    int64  // where in it bytes are expected
}

// drop lets go of what the replica did not get.
func (f *fetching) drop() {
	if f.file != nil {
		f.file.close()
		f.s.store.lessFile()
	}
}

func (f *fetching) take(m *statev1.ReadChangesResponse) error {
	r, at, data := f.r, m.GetOffset(), m.GetData()
	if info := m.GetInfo(); info != nil && !f.told {
		if err := f.tell(info); err != nil {
			return err
		}
	}
	if !f.told || at < 0 {
		return fault.Internal.New("BAD_STREAM", "the state service tells changes of a value without the value's size")
	}
	if len(data) == 0 {
		return nil
	}
	end := at + int64(len(data))
	f.came = f.came.add(at, end)
	if f.fresh == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		if !r.ours() { // else somebody has made it meanwhile
			r.apply(at, data)
		}
		for i, last := cover(at, end); i < last; i++ {
			if f.had.has(i) {
				r.others = othersLast
			}
		}
		return nil
	}
	if at < f.next || end > f.size {
		return fault.Internal.New("BAD_STREAM", "the state service tells bytes %d to %d of %d after those up to %d", at, end, f.size, f.next)
	}
	if here := f.fresh[f.next:]; &here[0] != &data[0] {
		copy(f.fresh[at:], data)
	} else if at > f.next { // something was left out
		copy(f.fresh[at:], data)
		clear(f.fresh[f.next:min(at, f.next+int64(len(data)))])
	}
	f.next = end
	return nil
}

// tell takes note of what the value is now.
func (f *fetching) tell(info *statev1.ValueInfo) error {
	r := f.r
	r.mu.Lock()
	defer r.mu.Unlock()
	f.told, f.version, f.size, f.had = true, info.GetVersion(), info.GetSize(), r.have
	switch {
	case f.size < 0 || f.size > MaxValue:
		return abi.EFBIG
	case r.ours():
		return nil
	case f.since != 0 || !r.absent():
		return f.adopt()
	case r.wanted:
		file, err := f.s.store.newFile(f.size)
		if err != nil {
			return err
		}
		f.file, f.fresh = file, file.view[:f.size]
	default:
		f.fresh = make([]byte, f.size)
	}
	f.next = min(f.off, f.size)
	return nil
}

func (f *fetching) adopt() error {
	if err := f.r.adopt(f.size); err != nil {
		return err
	}
	f.r.sized = f.version
	return nil
}

// settle gives the replica a value that has come, the way that is left if somebody has made one meanwhile. The caller holds mu.
func (f *fetching) settle() error {
	r, fresh := f.r, f.fresh
	switch f.fresh = nil; {
	case fresh == nil || r.ours():
		return nil
	case r.absent():
		if r.file = f.file; r.file == nil {
			r.heap = fresh
		}
		f.file = nil
		r.size, r.at, r.known, r.sized = f.size, make([]int64, upto(f.size)), true, f.version
		return nil
	}
	if err := f.adopt(); err != nil {
		return err
	}
	for _, s := range f.came {
		r.apply(s.start, fresh[s.start:s.end])
	}
	return nil
}

// sinceOf is the version of which a chunk was when what is newer was asked for.
func (f *fetching) sinceOf(i int) int64 {
	if nth := i - int(f.off/chunk); nth < len(f.known) {
		return f.known[nth]
	}
	return f.since
}

// end notes which chunks are here now. What was asked for as a whole and did not come is zero.
func (f *fetching) end() error {
	r := f.r
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := f.settle(); err != nil || !f.told || r.ours() {
		return err
	}
	end := r.size
	if f.n > 0 {
		end = min(end, f.off+f.n)
	}
	r.latest = max(r.latest, f.version)
	first, last := cover(f.off, end)
	for i := first; i < last; i++ {
		at, to := int64(i)*chunk, min(int64(i+1)*chunk, r.size)
		lacks := f.came.gaps(at, to)
		switch {
		case f.sinceOf(i) == 0:
			for _, z := range lacks {
				r.apply(z.start, make([]byte, z.end-z.start))
			}
		case !f.had.has(i) && len(lacks) > 0:
			continue
		}
		r.have.add(i)
		r.at[i] = f.version
	}
	return nil
}
