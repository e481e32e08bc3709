package replica

import (
	"context"
	"errors"

	"skein.dev"
	"skein.dev/abi"
	"skein.dev/platform/bulk"
	"skein.dev/platform/fault"
	statev1 "skein.dev/proto/skein/state/v1"
)

// Push sends what was changed here in a range; once it returns, a pull anywhere sees it. n below 0 is all to the end. ENOENT
// if there is no replica, EINVAL if the range passes the value's end.
func (s *Session) Push(ctx context.Context, k skein.StateKey, off, n int64) error {
	return s.push(ctx, k, off, n, nil)
}

// PushMasked sends those bytes of the value whose counterpart in the value mask, of the same size, is not zero.
func (s *Session) PushMasked(ctx context.Context, k, mask skein.StateKey) error {
	size, err := s.Size(ctx, k)
	if err != nil {
		return err
	}
	bits := make([]byte, size)
	if n, err := s.Read(ctx, mask, 0, bits); err != nil || n != size {
		return errors.Join(err, abi.EINVAL)
	}
	return s.push(ctx, k, 0, -1, func(r *Replica, i int) ranges {
		at := int64(i) * chunk
		to := min(at+chunk, size, r.size)
		if at >= to {
			return nil
		}
		return differ(nil, bits[at:to], make([]byte, to-at), at)
	})
}

// push sends, of a range, what was changed, or what of says of a chunk; all of a value that was set, since the rest has no other value to keep.
func (s *Session) push(ctx context.Context, k skein.StateKey, off, n int64, of func(r *Replica, i int) ranges) (err error) {
	r, err := s.pushed(ctx, k, off, n)
	if err != nil {
		return err
	}
	defer s.store.done(r)
	defer s.store.freed()
	defer func() { s.refused(r, err) }()
	r.mu.RLock()
	whole, local := r.whole, r.local
	if !whole && !local {
		r.look()
	}
	r.mu.RUnlock()
	switch {
	case local:
		return nil
	case whole:
		return s.pushWhole(ctx, r)
	}
	end := int64(MaxValue)
	if n >= 0 {
		end = off + n
	}
	return s.pushRuns(ctx, r, off, end, of)
}

// pushed gives the replica that is to be pushed, with net held.
func (s *Session) pushed(ctx context.Context, k skein.StateKey, off, n int64) (*Replica, error) {
	if off < 0 {
		return nil, abi.EINVAL
	}
	r, err := s.store.exchange(ctx, k)
	if err != nil {
		return nil, err
	}
	r.mu.RLock()
	defer func() {
		r.mu.RUnlock()
		if err != nil {
			s.store.done(r)
		}
	}()
	switch {
	case !r.known:
		err = abi.ENOENT
	case off > r.size || n > r.size-off:
		err = abi.EINVAL
	}
	return r, err
}

// frame is how much of a large value goes in one message.
const frame = chunk

// pushWhole replaces the value by the replica. If that is set anew meanwhile, it begins again.
func (s *Session) pushWhole(ctx context.Context, r *Replica) (err error) {
	ctx, end := begin(ctx, "state push", r.key)
	before := s.moved.Written
	defer func() { end(s.moved.Written-before, err) }()
	for range attempts {
		r.mu.Lock()
		size, sets := r.size, r.sets
		r.whole = false
		r.mu.Unlock()
		var info *statev1.ValueInfo
		if size <= frame {
			info, err = s.setValue(ctx, r)
		} else {
			info, err = s.writeValue(ctx, r, size, sets)
		}
		r.mu.Lock()
		if err != nil {
			r.whole, r.dirty = true, nil
		} else {
			r.latest = max(r.latest, info.GetVersion())
			for i := range min(len(r.at), upto(size)) {
				r.at[i] = info.GetVersion()
			}
		}
		r.mu.Unlock()
		if !errors.Is(err, errSetAnew) {
			return err
		}
	}
	return abi.EAGAIN
}

var errSetAnew = errors.New("the value was set anew")

// copyOut copies a range of the value; it is the chunk's base from now on. The caller holds mu.
func (r *Replica) copyOut(to []byte, off int64) {
	copy(to, r.bytes()[off:])
	r.sent(off, to)
}

func (s *Session) setValue(ctx context.Context, r *Replica) (*statev1.ValueInfo, error) {
	r.mu.Lock()
	if r.size > frame {
		r.mu.Unlock()
		return nil, errSetAnew
	}
	scratch := scratches.Get().(*[chunk]byte) //nolint:forcetypeassert // nothing else is in there
	defer scratches.Put(scratch)
	data := scratch[:r.size]
	r.copyOut(data, 0)
	r.mu.Unlock()
	resp, err := s.store.client.SetValue(ctx, &statev1.SetValueRequest{
		User: string(r.key.User), Key: []byte(r.key.Key), Data: data, RequestId: skein.NewCallID().String(), Fence: s.fence(r.key),
	}, bulk.Prefer())
	if err == nil {
		s.moved.Written += int64(len(data))
	}
	return resp.GetInfo(), err
}

// writeValue sends a large value in frames. It is there at the end of the stream, or not at all.
func (s *Session) writeValue(ctx context.Context, r *Replica, size int64, sets int) (*statev1.ValueInfo, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	stream, err := s.store.client.WriteValue(ctx, bulk.Prefer())
	if err != nil {
		return nil, err
	}
	msg := &statev1.WriteValueRequest{
		User: string(r.key.User), Key: []byte(r.key.Key), RequestId: skein.NewCallID().String(), Fence: s.fence(r.key),
	}
	scratch := scratches.Get().(*[chunk]byte) //nolint:forcetypeassert // nothing else is in there
	defer scratches.Put(scratch)
	for off := int64(0); off < size; off += frame {
		msg.Data = scratch[:min(frame, size-off)]
		r.mu.Lock()
		anew := r.sets != sets
		if !anew {
			r.copyOut(msg.GetData(), off)
		}
		r.mu.Unlock()
		if anew {
			return nil, errSetAnew
		}
		if err := stream.Send(msg); err != nil {
			break // CloseAndRecv has the reason
		}
		msg = &statev1.WriteValueRequest{}
	}
	resp, err := stream.CloseAndRecv()
	if err == nil {
		s.moved.Written += size
	}
	return resp.GetInfo(), err
}

// pushSize makes the value as long as it is here, if it was made or grew here and what was pushed has not done that. info is
// what the pushes told of it.
func (s *Session) pushSize(ctx context.Context, r *Replica, info *statev1.ValueInfo) (err error) {
	r.mu.RLock()
	size, grown := r.size, r.grown
	r.mu.RUnlock()
	if !grown {
		return nil
	}
	created := false
	if info == nil {
		if info, err = s.stat(ctx, r.key); err != nil && !errors.Is(err, fault.NotFound) {
			return err
		}
	}
	if info == nil || info.GetSize() < size {
		resp, err := s.store.client.ResizeValue(ctx, &statev1.ResizeValueRequest{
			User: string(r.key.User), Key: []byte(r.key.Key), Size: size, RequestId: skein.NewCallID().String(), Fence: s.fence(r.key),
		})
		if err != nil {
			return err
		}
		info, created = resp.GetInfo(), resp.GetCreated()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if created {
		r.fresh(info.GetVersion())
	}
	r.latest = max(r.latest, info.GetVersion())
	r.grown = r.grown && r.size > size
	return nil
}
