package main

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc"

	"skein.dev/platform/fault"
	"skein.dev/platform/service"
	fsv1 "skein.dev/proto/skein/fs/v1"
	plannerv1 "skein.dev/proto/skein/planner/v1"
	statev1 "skein.dev/proto/skein/state/v1"
	uploadv1 "skein.dev/proto/skein/upload/v1"
)

func (a *app) plannerClient() (plannerv1.PlannerServiceClient, error) {
	conn, err := a.dial("planner", a.planner)
	if err != nil {
		return nil, err
	}
	return plannerv1.NewPlannerServiceClient(conn), nil
}

func (a *app) uploadClient() (uploadv1.UploadServiceClient, error) {
	conn, err := a.dial("upload", a.upload)
	if err != nil {
		return nil, err
	}
	return uploadv1.NewUploadServiceClient(conn), nil
}

func (a *app) stateClient() (statev1.StateServiceClient, error) {
	conn, err := a.dial("state", a.state)
	if err != nil {
		return nil, err
	}
	return statev1.NewStateServiceClient(conn), nil
}

func (a *app) fsClient() (fsv1.FsServiceClient, error) {
	conn, err := a.dial("fs", a.fs)
	if err != nil {
		return nil, err
	}
	return fsv1.NewFsServiceClient(conn), nil
}

// dial connects to a service, at addr or else at the server that has them all. The connection ends with the run.
func (a *app) dial(name, addr string) (*grpc.ClientConn, error) {
	flag := name
	if addr == "" {
		flag, addr = "server", a.server
	}
	if strings.HasPrefix(addr, "https://") {
		return nil, fault.Unsupported.New("NO_TLS", "%s: skein speaks gRPC without TLS", addr).
			WithHint("name it as HOST:PORT, behind a proxy that ends TLS if the network is not yours")
	}
	addr = strings.TrimSuffix(strings.TrimPrefix(addr, "http://"), "/")
	where := endpoint{name, flag, addr}
	conn, err := service.Connect(addr,
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return where.explain(invoke(ctx, method, req, reply, cc, opts...))
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			cs, err := open(ctx, desc, cc, method, opts...)
			return explained{cs, where}, where.explain(err)
		}))
	if err != nil {
		return nil, err
	}
	a.conns = append(a.conns, conn)
	return conn, nil
}

// endpoint is a service's address and the flag that changes it.
type endpoint struct{ service, flag, addr string }

// explain turns gRPC's words for a connection that can't be had into ours, with the address and what to do.
func (p endpoint) explain(err error) error {
	e := fault.From(err)
	if e != nil && strings.HasPrefix(e.Message, "unexpected HTTP status code received from server") {
		return fault.Unavailable.New("NO_GRPC", "what answers at %s for the %s service speaks no gRPC: %s", p.addr, p.service, clipped(e.Message, 200)).
			WithHint("name another with --%s; a proxy on the way must pass HTTP/2 on", p.flag)
	}
	if e == nil || !errors.Is(e, fault.Unavailable) || e.Reason != "UNAVAILABLE" { // the service itself gives other reasons
		return err
	}
	detail := e.Message
	if i := strings.LastIndex(detail, ": "); i >= 0 {
		detail = strings.Trim(detail[i+2:], `"`)
	}
	if strings.Contains(e.Message, "error reading from server") {
		return fault.Unavailable.New("DISCONNECTED", "the connection to the %s service at %s was lost: %s", p.service, p.addr, detail)
	}
	return fault.Unavailable.New("UNREACHABLE", "the %s service at %s can't be reached: %s", p.service, p.addr, detail).
		WithHint("start one with: skein dev; or name another with --%s", p.flag)
}

// explained is a stream whose errors are explained.
type explained struct {
	grpc.ClientStream
	where endpoint
}

func (s explained) RecvMsg(m any) error { return s.where.explain(s.ClientStream.RecvMsg(m)) }
func (s explained) SendMsg(m any) error { return s.where.explain(s.ClientStream.SendMsg(m)) }
