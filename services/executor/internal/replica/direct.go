package replica

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"skein.dev"
	"skein.dev/abi"
	"skein.dev/platform/bulk"
	"skein.dev/platform/fault"
	statev1 "skein.dev/proto/skein/state/v1"
)

// What is done in the global tier, past the replica. Its id makes a request that is repeated below us count once.

// ReadGlobal copies from off of the global value into buf and gives how many bytes.
func (s *Session) ReadGlobal(ctx context.Context, k skein.StateKey, off int64, buf []byte) (n int64, err error) {
	defer s.span(&ctx, "state read", k, &err)()
	if off < 0 {
		return 0, abi.EINVAL
	}
	for n < int64(len(buf)) {
		want := min(int64(len(buf))-n, skein.MaxPayload)
		resp, err := s.store.client.GetValue(ctx, &statev1.GetValueRequest{
			User: string(k.User), Key: []byte(k.Key), Offset: off + n, Length: want,
		}, bulk.Prefer())
		if err != nil {
			return 0, err
		}
		got := int64(copy(buf[n:], resp.GetData()))
		s.moved.Read += got
		if n += got; got < want {
			return n, nil
		}
	}
	if len(buf) == 0 {
		_, err = s.stat(ctx, k)
	}
	return n, err
}

// Clear makes the global value empty, if there is one.
func (s *Session) Clear(ctx context.Context, k skein.StateKey) (err error) {
	defer s.span(&ctx, "state clear", k, &err)()
	if _, err := s.stat(ctx, k); err != nil {
		if errors.Is(err, fault.NotFound) {
			return nil
		}
		return err
	}
	_, err = s.store.client.ResizeValue(ctx, &statev1.ResizeValueRequest{
		User: string(k.User), Key: []byte(k.Key), RequestId: skein.NewCallID().String(), Fence: s.fence(k),
	})
	return err
}

// CompareAndSet replaces the global value if it is old, and says whether it was. An absent value is an empty one.
func (s *Session) CompareAndSet(ctx context.Context, k skein.StateKey, old, val []byte) (was bool, err error) {
	defer s.span(&ctx, "state compare and set", k, &err)()
	if len(old) > MaxValue || len(val) > skein.MaxPayload {
		return false, abi.EFBIG
	}
	for {
		version, same, err := s.compare(ctx, k, old)
		if err != nil || !same {
			return false, err
		}
		_, err = s.store.client.CompareAndSet(ctx, &statev1.CompareAndSetRequest{
			User: string(k.User), Key: []byte(k.Key), ExpectedVersion: version, Data: val, RequestId: skein.NewCallID().String(), Fence: s.fence(k),
		}, bulk.Prefer())
		if err == nil {
			s.moved.Written += int64(len(val))
			return true, nil
		}
		// Somebody else was faster, who may have left the bytes as they were. Each round is one of theirs that went through.
		if fault.From(err).Reason != "CAS_MISMATCH" || ctx.Err() != nil {
			return false, err
		}
	}
}

// compare says whether the global value is old, and which version that was; 0 for an absent one.
func (s *Session) compare(ctx context.Context, k skein.StateKey, old []byte) (version int64, same bool, err error) {
	info, err := s.stat(ctx, k)
	switch {
	case errors.Is(err, fault.NotFound):
		return 0, len(old) == 0, nil
	case err != nil || info.GetSize() != int64(len(old)):
		return 0, false, err
	}
	version = info.GetVersion()
	for off := 0; off < len(old); {
		part := old[off:min(len(old), off+skein.MaxPayload)]
		resp, err := s.store.client.GetValue(ctx, &statev1.GetValueRequest{
			User: string(k.User), Key: []byte(k.Key), Offset: int64(off), Length: int64(len(part)),
		}, bulk.Prefer())
		if errors.Is(err, fault.NotFound) {
			return 0, false, nil
		}
		if err != nil {
			return 0, false, err
		}
		s.moved.Read += int64(len(resp.GetData()))
		if !bytes.Equal(resp.GetData(), part) {
			return 0, false, nil
		}
		off += len(part)
	}
	return version, true, nil // if it was changed since, the exchange finds another version
}

// Add adds to the first 8 bytes of the global value, a little-endian number that wraps, and gives the sum.
func (s *Session) Add(ctx context.Context, k skein.StateKey, delta int64) (sum int64, err error) {
	defer s.span(&ctx, "state add", k, &err)()
	resp, err := s.store.client.AddInt64(ctx, &statev1.AddInt64Request{
		User: string(k.User), Key: []byte(k.Key), Delta: delta, RequestId: skein.NewCallID().String(), Fence: s.fence(k),
	})
	return resp.GetValue(), err
}

// Expire has the global value end after a time, 0 for never. EINVAL if that is negative or beyond 100 years.
func (s *Session) Expire(ctx context.Context, k skein.StateKey, after time.Duration) (err error) {
	defer s.span(&ctx, "state expire", k, &err)()
	if after < 0 || after > mostExpiry {
		return abi.EINVAL
	}
	req := &statev1.SetExpiryRequest{User: string(k.User), Key: []byte(k.Key), RequestId: skein.NewCallID().String(), Fence: s.fence(k)}
	if after > 0 {
		req.TimeToLive = durationpb.New(after)
	}
	_, err = s.store.client.SetExpiry(ctx, req)
	return err
}

const mostExpiry = 100 * 365 * 24 * time.Hour

// List calls f with each key of the user's that begins with prefix, in byte order.
func (s *Session) List(ctx context.Context, u skein.User, prefix string, f func(key []byte)) error {
	req := &statev1.ListValuesRequest{User: string(u), Prefix: []byte(prefix), PageSize: 1000}
	for {
		resp, err := s.store.client.ListValues(ctx, req)
		if err != nil {
			return err
		}
		for _, v := range resp.GetValues() {
			f(v.GetKey())
		}
		if req.PageToken = resp.GetNextPageToken(); req.GetPageToken() == "" {
			return nil
		}
	}
}

// AppendElement adds an element to the key's list, which is kept beside its value.
func (s *Session) AppendElement(ctx context.Context, k skein.StateKey, val []byte) (err error) {
	defer s.span(&ctx, "state append element", k, &err)()
	if len(val) > skein.MaxPayload {
		return abi.EFBIG
	}
	_, err = s.store.client.AppendElement(ctx, &statev1.AppendElementRequest{
		User: string(k.User), Key: []byte(k.Key), Data: val, RequestId: skein.NewCallID().String(), Fence: s.fence(k),
	}, bulk.Prefer())
	if err == nil {
		s.moved.Written += int64(len(val))
	}
	return err
}

// ReadElements copies the first n elements of the key's list into buf, one after the other. EINVAL if there are fewer, EFBIG
// if they don't fit.
func (s *Session) ReadElements(ctx context.Context, k skein.StateKey, buf []byte, n int64) (err error) {
	defer s.span(&ctx, "state read elements", k, &err)()
	if n == 0 {
		return nil
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	stream, err := s.store.client.ReadElements(ctx, &statev1.ReadElementsRequest{User: string(k.User), Key: []byte(k.Key), Count: n})
	if err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && n > 0:
			return abi.EINVAL
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		for _, e := range m.GetElements() {
			if len(e) > len(buf) {
				return abi.EFBIG
			}
			s.moved.Read += int64(len(e))
			copy(buf, e)
			buf, n = buf[len(e):], n-1
		}
	}
}

// ClearElements empties the key's list.
func (s *Session) ClearElements(ctx context.Context, k skein.StateKey) (err error) {
	defer s.span(&ctx, "state clear elements", k, &err)()
	_, err = s.store.client.ClearElements(ctx, &statev1.ClearElementsRequest{
		User: string(k.User), Key: []byte(k.Key), RequestId: skein.NewCallID().String(), Fence: s.fence(k),
	})
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	return err
}
