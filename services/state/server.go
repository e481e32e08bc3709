package state

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"skein.dev"
	"skein.dev/platform/fault"
	statev1 "skein.dev/proto/skein/state/v1"
)

// server is Store in terms of the contract.
type server struct {
	statev1.UnimplementedStateServiceServer
	store *Store
}

func infoProto(i Info) *statev1.ValueInfo {
	return &statev1.ValueInfo{
		User: string(i.Key.User), Key: []byte(i.Key.Key), Size: i.Size, Version: i.Version, UpdateTime: timestamppb.New(i.Updated),
	}
}

// keyed is every request that names a value.
type keyed interface {
	GetUser() string
	GetKey() []byte
}

func keyOf(r keyed) (skein.StateKey, error) {
	return skein.NewStateKey(r.GetUser(), string(r.GetKey()))
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
	info, err := s.store.Set(ctx, k, r.GetData(), Any, r.GetRequestId())
	if err != nil {
		return nil, err
	}
	return &statev1.SetValueResponse{Info: infoProto(info)}, nil
}

func (s *server) WriteValue(in grpc.ClientStreamingServer[statev1.WriteValueRequest, statev1.WriteValueResponse]) error {
	head, err := in.Recv()
	if errors.Is(err, io.EOF) {
		return fault.Invalid.New("NO_KEY", "the stream ended before it named a value")
	}
	if err != nil {
		return err
	}
	k, err := keyOf(head)
	if err != nil {
		return err
	}
	info, err := s.store.Write(in.Context(), k, &frames{in, head.GetData()}, Any, head.GetRequestId())
	if err != nil {
		return err
	}
	return in.SendAndClose(&statev1.WriteValueResponse{Info: infoProto(info)})
}

// frames reads the bytes of a stream of messages.
type frames struct {
	in   grpc.ClientStreamingServer[statev1.WriteValueRequest, statev1.WriteValueResponse]
	rest []byte
}

func (f *frames) Read(p []byte) (int, error) {
	for len(f.rest) == 0 {
		m, err := f.in.Recv()
		if err != nil {
			return 0, err // io.EOF only if the client closed its side
		}
		f.rest = m.GetData()
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
	info, err := s.store.SetRange(ctx, k, r.GetOffset(), r.GetData(), r.GetRequestId())
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
	offset, info, err := s.store.Append(ctx, k, r.GetData(), r.GetRequestId())
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
	info, err := s.store.Set(ctx, k, r.GetData(), r.GetExpectedVersion(), r.GetRequestId())
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
	if err := s.store.Delete(ctx, k, r.GetRequestId()); err != nil {
		return nil, err
	}
	return &statev1.DeleteValueResponse{}, nil
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
