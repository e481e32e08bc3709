// Package replicatest is a state service in memory, for tests of what uses one: Client gives a real gRPC connection to a
// fresh one.
package replicatest

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"skein.dev/platform/fault"
	"skein.dev/platform/service"
	statev1 "skein.dev/proto/skein/state/v1"
)

// Client connects to a new, empty service that ends with the test.
func Client(t testing.TB) statev1.StateServiceClient {
	lis := bufconn.Listen(1 << 20)
	srv := grpc.NewServer()
	statev1.RegisterStateServiceServer(srv, &server{values: map[string][]byte{}})
	go func() { _ = srv.Serve(lis) }()
	t.Cleanup(srv.Stop)
	conn, err := service.Connect("passthrough:///state", grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return lis.DialContext(ctx)
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return statev1.NewStateServiceClient(conn)
}

type server struct {
	statev1.UnimplementedStateServiceServer
	mu     sync.Mutex
	values map[string][]byte
}

type named interface {
	GetUser() string
	GetKey() []byte
}

func name(r named) string { return r.GetUser() + "/" + string(r.GetKey()) }

func (s *server) get(r named) ([]byte, error) {
	v, ok := s.values[name(r)]
	if !ok {
		return nil, fault.NotFound.New("NO_VALUE", "there is no value").GRPCStatus().Err()
	}
	return v, nil
}

func (s *server) StatValue(_ context.Context, r *statev1.StatValueRequest) (*statev1.StatValueResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.get(r)
	return &statev1.StatValueResponse{Info: &statev1.ValueInfo{Size: int64(len(v))}}, err
}

func (s *server) ReadValue(r *statev1.ReadValueRequest, out grpc.ServerStreamingServer[statev1.ReadValueResponse]) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.get(r)
	if err != nil {
		return err
	}
	if err := out.Send(&statev1.ReadValueResponse{Info: &statev1.ValueInfo{Size: int64(len(v))}}); err != nil {
		return err
	}
	for part := range slices.Chunk(v, 256<<10) {
		if err := out.Send(&statev1.ReadValueResponse{Data: part}); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) SetValue(_ context.Context, r *statev1.SetValueRequest) (*statev1.SetValueResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[name(r)] = r.GetData()
	return &statev1.SetValueResponse{}, nil
}

func (s *server) WriteValue(in grpc.ClientStreamingServer[statev1.WriteValueRequest, statev1.WriteValueResponse]) error {
	first, err := in.Recv()
	if err != nil {
		return err
	}
	v := first.GetData()
	for {
		m, err := in.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		v = append(v, m.GetData()...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[name(first)] = v
	return in.SendAndClose(&statev1.WriteValueResponse{})
}

func (s *server) SetRange(_ context.Context, r *statev1.SetRangeRequest) (*statev1.SetRangeResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.values[name(r)]
	if grow := int(r.GetOffset()) + len(r.GetData()) - len(v); grow > 0 {
		v = append(v, make([]byte, grow)...)
	}
	copy(v[r.GetOffset():], r.GetData())
	s.values[name(r)] = v
	return &statev1.SetRangeResponse{}, nil
}

func (s *server) AppendValue(_ context.Context, r *statev1.AppendValueRequest) (*statev1.AppendValueResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.values[name(r)]
	s.values[name(r)] = append(v, r.GetData()...)
	return &statev1.AppendValueResponse{Offset: int64(len(v))}, nil
}

func (s *server) DeleteValue(_ context.Context, r *statev1.DeleteValueRequest) (*statev1.DeleteValueResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.get(r); err != nil {
		return nil, err
	}
	delete(s.values, name(r))
	return &statev1.DeleteValueResponse{}, nil
}
