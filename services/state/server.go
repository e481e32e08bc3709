package state

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"skein.dev"
	"skein.dev/platform/fault"
	statev1 "skein.dev/proto/skein/state/v1"
)

// server is Store in terms of the contract.
type server struct {
	statev1.UnimplementedStateServiceServer
	store   *Store
	leaving <-chan struct{} // closed when the process is to end
}

func infoProto(i Info) *statev1.ValueInfo {
	p := &statev1.ValueInfo{
		User: string(i.Key.User), Key: []byte(i.Key.Key), Size: i.Size, Version: i.Version, UpdateTime: timestamppb.New(i.Updated),
	}
	if !i.Expires.IsZero() {
		p.ExpireTime = timestamppb.New(i.Expires)
	}
	return p
}

// keyed is every request that names a value.
type keyed interface {
	GetUser() string
	GetKey() []byte
}

func keyOf(r keyed) (skein.StateKey, error) {
	return skein.NewStateKey(r.GetUser(), string(r.GetKey()))
}

// fenced is the store for a change.
func (s *server) fenced(r interface{ GetFence() *statev1.Fence }) *Store {
	return s.store.Fenced(Fence{string(r.GetFence().GetKey()), r.GetFence().GetToken()})
}

// first receives a stream's first message, which names what the stream is about.
func first[M keyed](recv func() (M, error), what string) (m M, k skein.StateKey, err error) {
	m, err = recv()
	if errors.Is(err, io.EOF) {
		err = fault.Invalid.New("NO_KEY", "the stream ended before it named a %s", what)
	}
	if err != nil {
		return m, k, err
	}
	k, err = keyOf(m)
	return m, k, err
}

func (s *server) GetValue(ctx context.Context, r *statev1.GetValueRequest) (*statev1.GetValueResponse, error) {
	k, err := keyOf(r)
	if err != nil {
		return nil, err
	}
	data, info, err := s.store.Get(ctx, k, r.GetOffset(), r.GetLength())
	if err != nil {
		return nil, err
	}
	return &statev1.GetValueResponse{Data: data, Info: infoProto(info)}, nil
}

func (s *server) ReadValue(r *statev1.ReadValueRequest, out grpc.ServerStreamingServer[statev1.ReadValueResponse]) error {
	k, err := keyOf(r)
	if err != nil {
		return err
	}
	var head *statev1.ValueInfo // until the first frame has taken it
	err = s.store.Read(out.Context(), k, r.GetOffset(), r.GetLength(), func(i Info) error {
		head = infoProto(i)
		return nil
	}, func(b []byte) error {
		frame := &statev1.ReadValueResponse{Info: head, Data: b}
		head = nil
		return out.Send(frame)
	})
	if err == nil && head != nil { // no bytes
		err = out.Send(&statev1.ReadValueResponse{Info: head})
	}
	return err
}

func (s *server) StatValue(ctx context.Context, r *statev1.StatValueRequest) (*statev1.StatValueResponse, error) {
	k, err := keyOf(r)
	if err != nil {
		return nil, err
	}
	info, err := s.store.Stat(ctx, k)
	if err != nil {
		return nil, err
	}
	return &statev1.StatValueResponse{Info: infoProto(info)}, nil
}

func (s *server) SetValue(ctx context.Context, r *statev1.SetValueRequest) (*statev1.SetValueResponse, error) {
	k, err := keyOf(r)
	if err != nil {
		return nil, err
	}
	info, err := s.fenced(r).Set(ctx, k, r.GetData(), Any, r.GetRequestId())
	if err != nil {
		return nil, err
	}
	return &statev1.SetValueResponse{Info: infoProto(info)}, nil
}

func (s *server) WriteValue(in grpc.ClientStreamingServer[statev1.WriteValueRequest, statev1.WriteValueResponse]) error {
	head, k, err := first(in.Recv, "value")
	if err != nil {
		return err
	}
	info, err := s.fenced(head).Write(in.Context(), k, &frames{in: in, rest: head.GetData()}, Any, head.GetRequestId())
	if err != nil {
		return err
	}
	return in.SendAndClose(&statev1.WriteValueResponse{Info: infoProto(info)})
}

// frames reads the bytes of a stream of messages.
type frames struct {
	in   grpc.ClientStreamingServer[statev1.WriteValueRequest, statev1.WriteValueResponse]
	rest []byte
	m    statev1.WriteValueRequest
}

func (f *frames) Read(p []byte) (int, error) {
	for len(f.rest) == 0 {
		f.m.Data = p // which is where they come past gRPC
		if err := f.in.RecvMsg(&f.m); err != nil {
			return 0, err // io.EOF only if the client closed its side
		}
		f.rest = f.m.GetData()
		if len(f.rest) > 0 && len(f.rest) <= len(p) && &f.rest[0] == &p[0] {
			n := len(f.rest)
			f.rest = nil
			return n, nil
		}
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

func (s *server) SetRange(ctx context.Context, r *statev1.SetRangeRequest) (*statev1.SetRangeResponse, error) {
	k, err := keyOf(r)
	if err != nil {
		return nil, err
	}
	info, err := s.fenced(r).SetRange(ctx, k, r.GetOffset(), r.GetData(), r.GetRequestId())
	if err != nil {
		return nil, err
	}
	return &statev1.SetRangeResponse{Info: infoProto(info)}, nil
}

func (s *server) AppendValue(ctx context.Context, r *statev1.AppendValueRequest) (*statev1.AppendValueResponse, error) {
	k, err := keyOf(r)
	if err != nil {
		return nil, err
	}
	offset, info, err := s.fenced(r).Append(ctx, k, r.GetData(), r.GetRequestId())
	if err != nil {
		return nil, err
	}
	return &statev1.AppendValueResponse{Offset: offset, Info: infoProto(info)}, nil
}

func (s *server) CompareAndSet(ctx context.Context, r *statev1.CompareAndSetRequest) (*statev1.CompareAndSetResponse, error) {
	k, err := keyOf(r)
	if err != nil {
		return nil, err
	}
	if r.GetExpectedVersion() < 0 {
		return nil, fault.Invalid.New("BAD_VERSION", "expected_version %d is negative", r.GetExpectedVersion())
	}
	info, err := s.fenced(r).Set(ctx, k, r.GetData(), r.GetExpectedVersion(), r.GetRequestId())
	if err != nil {
		return nil, err
	}
	return &statev1.CompareAndSetResponse{Info: infoProto(info)}, nil
}

func (s *server) DeleteValue(ctx context.Context, r *statev1.DeleteValueRequest) (*statev1.DeleteValueResponse, error) {
	k, err := keyOf(r)
	if err != nil {
		return nil, err
	}
	if err := s.fenced(r).Delete(ctx, k, r.GetRequestId()); err != nil {
		return nil, err
	}
	return &statev1.DeleteValueResponse{}, nil
}

func (s *server) ReadChanges(r *statev1.ReadChangesRequest, out grpc.ServerStreamingServer[statev1.ReadChangesResponse]) error {
	k, err := keyOf(r)
	if err != nil {
		return err
	}
	var head *statev1.ValueInfo // until the first frame has taken it
	last, err := s.store.Changes(out.Context(), k, r.GetSinceVersion(), r.GetChunkVersions(), r.GetOffset(), r.GetLength(), func(i Info) error {
		head = infoProto(i)
		return nil
	}, func(offset int64, b []byte) error {
		frame := &statev1.ReadChangesResponse{Info: head, Offset: offset, Data: b}
		head = nil
		return out.Send(frame)
	})
	if err != nil {
		return err
	}
	return out.Send(&statev1.ReadChangesResponse{Info: infoProto(last)})
}

func (s *server) PatchValue(ctx context.Context, r *statev1.PatchValueRequest) (*statev1.PatchValueResponse, error) {
	k, err := keyOf(r)
	if err != nil {
		return nil, err
	}
	info, previous, err := s.fenced(r).Patch(ctx, k, Patch{r.GetRuns(), r.GetData(), r.GetIfUnchangedSince()}, r.GetRequestId())
	if err != nil {
		return nil, err
	}
	return &statev1.PatchValueResponse{Info: infoProto(info), PreviousVersion: previous}, nil
}

func (s *server) ResizeValue(ctx context.Context, r *statev1.ResizeValueRequest) (*statev1.ResizeValueResponse, error) {
	k, err := keyOf(r)
	if err != nil {
		return nil, err
	}
	info, created, err := s.fenced(r).Resize(ctx, k, r.GetSize(), r.GetRequestId())
	if err != nil {
		return nil, err
	}
	return &statev1.ResizeValueResponse{Info: infoProto(info), Created: created}, nil
}

func (s *server) AddInt64(ctx context.Context, r *statev1.AddInt64Request) (*statev1.AddInt64Response, error) {
	k, err := keyOf(r)
	if err != nil {
		return nil, err
	}
	sum, info, err := s.fenced(r).Add(ctx, k, r.GetOffset(), r.GetDelta(), r.GetRequestId())
	if err != nil {
		return nil, err
	}
	return &statev1.AddInt64Response{Value: sum, Info: infoProto(info)}, nil
}

func (s *server) SetExpiry(ctx context.Context, r *statev1.SetExpiryRequest) (*statev1.SetExpiryResponse, error) {
	k, err := keyOf(r)
	if err != nil {
		return nil, err
	}
	if r.GetTimeToLive() != nil && r.GetTimeToLive().AsDuration() == 0 {
		return nil, fault.Invalid.New("BAD_EXPIRY", "a time to live of 0").WithHint("leave it out for never, or delete the value")
	}
	info, err := s.fenced(r).Expire(ctx, k, r.GetTimeToLive().AsDuration(), r.GetRequestId())
	if err != nil {
		return nil, err
	}
	return &statev1.SetExpiryResponse{Info: infoProto(info)}, nil
}

func (s *server) AppendElement(ctx context.Context, r *statev1.AppendElementRequest) (*statev1.AppendElementResponse, error) {
	k, err := keyOf(r)
	if err != nil {
		return nil, err
	}
	index, err := s.fenced(r).AppendElement(ctx, k, r.GetData(), r.GetRequestId())
	if err != nil {
		return nil, err
	}
	return &statev1.AppendElementResponse{Index: index}, nil
}

func (s *server) ReadElements(r *statev1.ReadElementsRequest, out grpc.ServerStreamingServer[statev1.ReadElementsResponse]) error {
	k, err := keyOf(r)
	if err != nil {
		return err
	}
	return s.store.Elements(out.Context(), k, r.GetIndex(), r.GetCount(), func(page [][]byte) error {
		return out.Send(&statev1.ReadElementsResponse{Elements: page})
	})
}

func (s *server) ClearElements(ctx context.Context, r *statev1.ClearElementsRequest) (*statev1.ClearElementsResponse, error) {
	k, err := keyOf(r)
	if err != nil {
		return nil, err
	}
	if err := s.fenced(r).ClearElements(ctx, k, r.GetRequestId()); err != nil {
		return nil, err
	}
	return &statev1.ClearElementsResponse{}, nil
}

func (s *server) HoldLock(in grpc.BidiStreamingServer[statev1.HoldLockRequest, statev1.HoldLockResponse]) error {
	r, k, err := first(in.Recv, "lock")
	if err != nil {
		return err
	}
	ctx, end := untilLeaving(in.Context(), s.leaving)
	defer end(nil)
	lock, err := s.store.Lock(ctx, k, LockRequest{
		Shared: r.GetShared(), Patience: r.GetPatience().AsDuration(), Lease: r.GetLease().AsDuration(), Holder: r.GetHolder(), Token: r.GetToken(),
	})
	if err != nil {
		if left(ctx) {
			err = context.Cause(ctx)
		}
		return err
	}
	// After this the stream's end ends Keep, which gives the lock back.
	_ = in.Send(&statev1.HoldLockResponse{Token: lock.Token, Lease: durationpb.New(lock.Lease)})
	beats := make(chan struct{})
	go func() {
		defer close(beats)
		for {
			if _, err := in.Recv(); err != nil {
				return
			}
			select {
			case beats <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return lock.Keep(ctx, beats)
}

func (s *server) WatchValues(in grpc.BidiStreamingServer[statev1.WatchValuesRequest, statev1.WatchValuesResponse]) error {
	ctx, end := untilLeaving(in.Context(), s.leaving)
	defer end(nil)
	sets := make(chan []skein.StateKey)
	go func() {
		for {
			set, err := watchedSet(in)
			if err != nil {
				end(err)
				return
			}
			select {
			case sets <- set:
			case <-ctx.Done():
				return
			}
		}
	}()
	err := s.store.Watch(ctx, sets, func(k skein.StateKey, version int64) error {
		return in.Send(&statev1.WatchValuesResponse{User: string(k.User), Key: []byte(k.Key), Version: version})
	})
	if cause := context.Cause(ctx); cause != nil && in.Context().Err() == nil {
		err = cause
	}
	if errors.Is(err, io.EOF) { // the client has said all
		return nil
	}
	return err
}

// untilLeaving gives a context that ends, too, when the process is to: who watches, or holds a lock, goes elsewhere then, and
// holds up nobody.
func untilLeaving(ctx context.Context, leaving <-chan struct{}) (context.Context, context.CancelCauseFunc) {
	ctx, end := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-leaving:
			end(fault.Unavailable.New("DRAINING", "this process is about to end").WithHint("ask another").WithRetry(time.Second))
		case <-ctx.Done():
		}
	}()
	return ctx, end
}

// left says that a context of untilLeaving ended because the process is to.
func left(ctx context.Context) bool {
	return ctx.Err() != nil && fault.From(context.Cause(ctx)).Reason == "DRAINING"
}

func watchedSet(in grpc.BidiStreamingServer[statev1.WatchValuesRequest, statev1.WatchValuesResponse]) ([]skein.StateKey, error) {
	r, err := in.Recv()
	if err != nil {
		return nil, err
	}
	set := make([]skein.StateKey, len(r.GetKeys()))
	for i, key := range r.GetKeys() {
		if set[i], err = skein.NewStateKey(r.GetUser(), string(key)); err != nil {
			return nil, err
		}
	}
	return set, nil
}

func (s *server) GetUsage(ctx context.Context, r *statev1.GetUsageRequest) (*statev1.GetUsageResponse, error) {
	u, err := skein.ParseUser(r.GetUser())
	if err != nil {
		return nil, err
	}
	usage, err := s.store.Usage(ctx, u)
	if err != nil {
		return nil, err
	}
	return &statev1.GetUsageResponse{
		Bytes: usage.Bytes, Values: usage.Values, BytesLimit: usage.BytesLimit, ValuesLimit: usage.ValuesLimit,
	}, nil
}

func (s *server) ListValues(ctx context.Context, r *statev1.ListValuesRequest) (*statev1.ListValuesResponse, error) {
	u, err := skein.ParseUser(r.GetUser())
	if err != nil {
		return nil, err
	}
	page, next, err := s.store.List(ctx, u, string(r.GetPrefix()), int(r.GetPageSize()), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	resp := &statev1.ListValuesResponse{NextPageToken: next}
	for _, i := range page {
		resp.Values = append(resp.Values, infoProto(i))
	}
	return resp, nil
}
