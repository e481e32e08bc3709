package replica

import (
	"cmp"
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

	"skein.dev"
	"skein.dev/platform/bulk"
	"skein.dev/platform/fault"
	"skein.dev/proto/runs"
	statev1 "skein.dev/proto/skein/state/v1"
)

// What PatchValue takes in one message, and how many are on their way at a time. A batch of them is kept until all have arrived.
const (
	mostPatched   = 1 << 20
	mostRuns      = 4 << 10
	mostNear      = 16 << 10 // if they lie within nearSpan
	nearSpan      = 1 << 20
	mostBatch     = 4 << 20
	mostBatchRuns = 256 << 10
	inFlight      = 4
	// mostSparse is how many runs of a chunk are worth telling apart. With more, all of it is sent, if nobody else has changed it: an eighth of
	// its words, and as many bytes as it has once their places are added.
	mostSparse = 4 << 10
	// othersLast is for how many pushes others are reckoned with who have changed a value: what they refuse is sent in vain.
	othersLast = 8
)

// message is one PatchValue: runs of the value and what they hold.
type message struct {
	runs, data []byte
	count      int
	start, end int64 // of the first run, and of the last
	since      int64 // of all of a chunk, which replaces what is of this version or an older one
	refused    bool  // because of that
	info       *statev1.ValueInfo
	previous   int64
}

// takes says whether n runs more, of so many bytes and up to an end, go into the message.
func (m *message) takes(n int, bytes, end int64) bool {
	count := m.count + n
	return int64(len(m.data))+bytes <= mostPatched && (count <= mostRuns || count <= mostNear && end-m.start <= nearSpan)
}

// batch is messages on their way.
type batch struct {
	messages []*message
	open     bool   // the last message takes more
	marked   ranges // of the runs, what rows had marked
	bytes    int64
	runs     int
}

// add puts runs of one chunk of the replica into the batch: into one message, or, if they are too many for that, into messages that have
// nothing else, since of each message it is told who else has changed its chunks. The caller holds mu.
func (b *batch) add(r *Replica, all ranges) {
	bytes := int64(0)
	for _, s := range all {
		bytes += s.end - s.start
	}
	if last := len(b.messages) - 1; !b.open || !b.messages[last].takes(len(all), bytes, all[len(all)-1].end) {
		b.start(all[0].start)
	}
	b.bytes += bytes
	b.runs += len(all)
	if m := b.messages[len(b.messages)-1]; m.takes(len(all), bytes, all[len(all)-1].end) {
		m.runs, m.data = slices.Grow(m.runs, 3*len(all)), slices.Grow(m.data, int(bytes))
	}
	split := false
	for _, s := range all {
		m := b.messages[len(b.messages)-1]
		if m.count > 0 && !m.takes(1, s.end-s.start, s.end) {
			m = b.start(s.start)
			split = true
		}
		m.runs = runs.Append(m.runs, s.start-m.end, s.end-s.start)
		m.data = append(m.data, r.bytes()[s.start:s.end]...)
		m.count, m.end = m.count+1, s.end
	}
	b.open = !split
}

func (b *batch) start(at int64) *message {
	m := &message{start: at}
	b.messages, b.open = append(b.messages, m), true
	return m
}

// pushRuns sends those bytes of [off, end) that were changed, or those that of gives for each chunk, with mu held.
func (s *Session) pushRuns(ctx context.Context, r *Replica, off, end int64, of func(*Replica, int) ranges) (err error) {
	ctx, done := begin(ctx, "state push", r.key)
	before := s.moved.Written
	defer func() { done(s.moved.Written-before, err) }()
	var info *statev1.ValueInfo
	var again []int // chunks that others had changed
	first, last := cover(off, end)
	for i := first; i < last || len(again) > 0; {
		var b batch
		for (i < last || len(again) > 0) && b.bytes < mostBatch && b.runs < mostBatchRuns {
			at := i
			if n := len(again) - 1; n >= 0 {
				at, again = again[n], again[:n]
			} else {
				i++
			}
			r.mu.Lock()
			if at >= upto(r.size) {
				i = last
			} else if !r.whole {
				r.collect(&b, at, off, end, of)
			}
			r.mu.Unlock()
		}
		if b.runs == 0 {
			continue
		}
		now, refused, err := s.sendBatch(ctx, r, &b)
		if err != nil {
			return err
		}
		if now != nil {
			info = now
		}
		again = append(again, refused...)
	}
	r.mu.Lock()
	r.others = max(r.others-1, 0)
	r.mu.Unlock()
	return s.pushSize(ctx, r, info)
}

// collect takes what a chunk has to be sent of [off, end) into a batch. The caller holds mu.
func (r *Replica) collect(b *batch, i int, off, end int64, of func(*Replica, int) ranges) {
	at, to := int64(i)*chunk, min(int64(i+1)*chunk, r.size)
	inside := off <= at && to <= end
	var all ranges
	switch {
	case of != nil:
		all = of(r, i)
	case inside && r.have.has(i) && r.at[i] > 0 && r.others == 0:
		if all = r.changed(i, mostSparse); len(all) > mostSparse {
			b.whole(r, at, to, r.at[i])
			r.unmark(b, ranges{{at, to}})
			return
		}
	default:
		all = r.changed(i, 0)
	}
	if !inside {
		all = all.within(off, end)
	}
	if len(all) > 0 {
		b.add(r, all)
		r.unmark(b, all)
	}
}

// whole puts all of a chunk into the batch, as a message of its own. The caller holds mu.
func (b *batch) whole(r *Replica, at, to, since int64) {
	m := b.start(at)
	m.runs, m.data = runs.Append(nil, at, to-at), slices.Clone(r.bytes()[at:to])
	m.count, m.end, m.since = 1, to, since
	b.open = false
	b.bytes += to - at
	b.runs++
}

// unmark notes that ranges are in a batch: what is written from now on is dirty again.
func (r *Replica) unmark(b *batch, all ranges) {
	if len(r.dirty) > 0 {
		b.marked = b.marked.union(r.dirty.both(all))
		r.dirty = r.dirty.minus(all)
	}
}

// sendBatch sends messages, and notes what it sent as what the global tier has. It gives what the last change has told, and the chunks that
// others had changed, of which nothing was sent.
func (s *Session) sendBatch(ctx context.Context, r *Replica, b *batch) (info *statev1.ValueInfo, refused []int, err error) {
	err = s.patch(ctx, r.key, b.messages)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		if !r.whole {
			r.dirty = r.dirty.union(b.marked.within(0, r.size))
		}
		return nil, nil, err
	}
	slices.SortFunc(b.messages, func(x, y *message) int { return cmp.Compare(x.info.GetVersion(), y.info.GetVersion()) })
	for _, m := range b.messages {
		if m.refused {
			i := int(m.start / chunk)
			refused = append(refused, i)
			r.others = othersLast
			if !r.whole {
				r.dirty = r.dirty.union(b.marked.within(m.start, min(m.end, r.size)))
			}
			continue
		}
		s.moved.Written += int64(len(m.data))
		r.arrived(m)
		info = m.info
	}
	return info, refused, nil
}

// patch sends messages, each a change of its own. They are of ranges of which none lies in another's, so that their order does not matter.
func (s *Session) patch(ctx context.Context, k skein.StateKey, all []*message) error {
	fence := s.fence(k)
	send := func(ctx context.Context, m *message) error {
		resp, err := s.store.client.PatchValue(ctx, &statev1.PatchValueRequest{
			User: string(k.User), Key: []byte(k.Key), RequestId: skein.NewCallID().String(), Fence: fence, Runs: m.runs, Data: m.data,
			IfUnchangedSince: m.since,
		}, bulk.Prefer())
		if e := fault.From(err); m.since > 0 && e != nil && e.Reason == "CHUNK_CHANGED" {
			m.refused, err = true, nil
		}
		m.info, m.previous = resp.GetInfo(), resp.GetPreviousVersion()
		return err
	}
	if len(all) == 1 {
		return send(ctx, all[0])
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(inFlight)
	for _, m := range all {
		g.Go(func() error { return send(ctx, m) })
	}
	return g.Wait()
}

// arrived takes note of what the global tier has. If nobody else has changed a message's chunks since they were pulled, they are
// here as they are there. The caller holds mu.
func (r *Replica) arrived(m *message) {
	version := m.info.GetVersion()
	r.latest = max(r.latest, version)
	data, known := m.data, -1
	for off, n := range runs.All(m.runs) {
		r.sent(off, data[:n])
		data = data[n:]
		for i := max(int(off/chunk), known+1); i < min(upto(off+n), len(r.at)) && !r.whole; i++ {
			if r.have.has(i) && r.at[i] >= m.previous && m.previous > 0 {
				r.at[i] = version
			} else {
				r.others = othersLast
			}
			known = i
		}
	}
	if m.previous == 0 && !r.whole {
		r.fresh(version)
	}
}

// fresh takes note that the value was made anew: chunks of which there was never anything elsewhere are known as of that version.
func (r *Replica) fresh(version int64) {
	for i := range r.at {
		if r.have.has(i) && r.at[i] == 0 {
			r.at[i] = version
		}
	}
}

// sent makes bytes the base of what has one.
func (r *Replica) sent(off int64, data []byte) {
	if r.file == nil {
		return
	}
	data = data[:max(0, min(int64(len(data)), r.size-off))]
	for len(data) > 0 {
		n := min(int64(len(data)), (off/chunk+1)*chunk-off)
		if r.based.has(int(off / chunk)) {
			copy(r.file.base[off:off+n], data[:n])
		}
		off, data = off+n, data[n:]
	}
}
