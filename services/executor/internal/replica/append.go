package replica

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"

	"skein.dev"
	"skein.dev/abi"
	"skein.dev/platform/bulk"
	"skein.dev/platform/fault"
	statev1 "skein.dev/proto/skein/state/v1"
)

// mostGathered bounds in bytes what goes as one append: a script of the state service takes so much at once.
const mostGathered = 64 << 10

// appends gathers what the calls here append to a value while an append of it is under way. That goes as one afterwards: a
// round trip is for all that have come in the time of the last.
type appends struct {
	mu   sync.Mutex
	line map[skein.StateKey][]*appended // of those values of which one is under way
}

// appended is what a call that waits in line appends.
type appended struct {
	ctx    context.Context
	data   []byte
	load   *load         // that it went with; under appends.mu
	done   chan struct{} // closed when there are
	offset int64
	err    error
}

// load is what goes as one. It is given up when nobody waits for it any more.
type load struct {
	waiting int // under appends.mu
	stop    context.CancelFunc
}

// Append adds to the global value and gives the offset where it landed. What goes with a lock's token goes alone.
func (s *Session) Append(ctx context.Context, k skein.StateKey, val []byte) (offset int64, err error) {
	defer s.span(&ctx, "state append", k, &err)()
	if len(val) > skein.MaxPayload {
		return 0, abi.EFBIG
	}
	if fence := s.fence(k); fence != nil || len(val) > mostGathered {
		offset, err = s.store.append(ctx, k, val, fence)
	} else {
		offset, err = s.store.gather(ctx, k, val)
	}
	if err == nil {
		s.moved.Written += int64(len(val))
	}
	return offset, err
}

func (s *Store) append(ctx context.Context, k skein.StateKey, val []byte, fence *statev1.Fence) (int64, error) {
	resp, err := s.client.AppendValue(ctx, &statev1.AppendValueRequest{
		User: string(k.User), Key: []byte(k.Key), Data: val, RequestId: skein.NewCallID().String(), Fence: fence,
	}, bulk.Prefer())
	return resp.GetOffset(), err
}

// gather appends at once if none is under way, and else with those that wait too.
func (s *Store) gather(ctx context.Context, k skein.StateKey, val []byte) (int64, error) {
	q := &s.adds
	q.mu.Lock()
	line, under := q.line[k]
	if !under {
		q.line[k] = nil
		q.mu.Unlock()
		defer s.carryOn(k)
		return s.append(ctx, k, val, nil)
	}
	// The guest's memory is its own again once the call's time is over, whatever becomes of the append.
	a := &appended{ctx: ctx, data: bytes.Clone(val), done: make(chan struct{})}
	q.line[k] = append(line, a)
	q.mu.Unlock()
	select {
	case <-a.done:
		return a.offset, a.err
	case <-ctx.Done():
		q.leave(k, a)
		return 0, ctx.Err()
	}
}

// leave takes one out of the line, or gives up what it went with if nobody else waits for that.
func (q *appends) leave(k skein.StateKey, a *appended) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if a.load == nil {
		q.line[k] = slices.DeleteFunc(q.line[k], func(b *appended) bool { return a == b })
		return
	}
	if a.load.waiting--; a.load.waiting == 0 {
		a.load.stop()
	}
}

// carryOn has those in line go, if there are any: in a goroutine that belongs to none of their calls.
func (s *Store) carryOn(k skein.StateKey) {
	s.adds.mu.Lock()
	some := len(s.adds.line[k]) > 0
	if !some {
		delete(s.adds.line, k)
	}
	s.adds.mu.Unlock()
	if some {
		go s.carry(k)
	}
}

func (s *Store) carry(k skein.StateKey) {
	for {
		ctx, together := s.adds.next(k)
		if len(together) == 0 {
			return
		}
		s.appendAll(ctx, k, together)
		together[0].load.stop()
		runtime.Gosched() // those that were served often have more at once
	}
}

// next takes those off the line that go as one. When there are none, no append is under way any more.
func (q *appends) next(k skein.StateKey) (context.Context, []*appended) {
	q.mu.Lock()
	defer q.mu.Unlock()
	line := q.line[k]
	if len(line) == 0 {
		delete(q.line, k)
		return nil, nil
	}
	n, size := 0, 0
	for n < len(line) && (n == 0 || size+len(line[n].data) <= mostGathered) {
		size += len(line[n].data)
		n++
	}
	together := line[:n:n]
	q.line[k] = line[n:]
	ctx, stop := context.WithCancel(context.WithoutCancel(together[0].ctx)) // in the first one's trace
	l := &load{waiting: n, stop: stop}
	for _, a := range together {
		a.load = l
	}
	return ctx, together
}

// appendAll appends what several calls have, in one step. If that is refused, it may be for what one of them has: then each
// goes by itself.
func (s *Store) appendAll(ctx context.Context, k skein.StateKey, together []*appended) {
	var all []byte
	for _, a := range together {
		all = append(all, a.data...)
	}
	offset, err := s.append(ctx, k, all, nil)
	if len(together) > 1 && (errors.Is(err, fault.TooLarge) || errors.Is(err, fault.Exhausted)) {
		for _, a := range together {
			a.offset, a.err = s.append(ctx, k, a.data, nil)
			close(a.done)
		}
		return
	}
	for _, a := range together {
		a.offset, a.err = offset, err
		offset += int64(len(a.data))
		close(a.done)
	}
}
