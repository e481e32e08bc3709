package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/stats"

	"skein.dev"
	"skein.dev/platform/bulk"
	"skein.dev/platform/fault"
	bulkv1 "skein.dev/proto/skein/bulk/v1"
)

// maxMessage bounds a gRPC message. It is gRPC's own default, so that clients need no setting; payloads are held below it
// by skein.MaxPayload.
const maxMessage = 4 << 20

var _ [maxMessage - skein.MaxPayload - 32<<10]byte // room for the envelope

// maxHeaders bounds what comes beside messages, in bytes: an error above all, which is text for a person. gRPC's own default is
// 16 MiB.
const maxHeaders = 1 << 20

// The windows of flow control. Fixed ones spare the pings by which gRPC finds its own: one for each message of a quiet
// connection, as dear as the message. They bound what a slow reader makes the other side hold.
const (
	streamWindow = 1 << 20
	connWindow   = 4 << 20
)

// workers are goroutines that serve RPCs one after the other: their stacks have grown already. RPCs beyond them get their
// own.
const workers = 64

// standing names streams that live as long as their process: a span around one would never end. What travels on them
// carries its own trace context.
func standing(info *stats.RPCTagInfo) bool {
	return info.FullMethodName == "/skein.planner.v1.DispatchService/Attach" ||
		info.FullMethodName == "/skein.upload.v1.UploadService/WatchFunctions" ||
		info.FullMethodName == "/skein.fs.v1.FsService/WatchFiles" ||
		info.FullMethodName == bulkv1.BulkService_OpenBulk_FullMethodName ||
		info.FullMethodName == "/grpc.health.v1.Health/Check" || info.FullMethodName == "/grpc.health.v1.Health/Watch"
}

func traced(info *stats.RPCTagInfo) bool { return !standing(info) }

// serverOptions makes every gRPC server the same. leaving ends when the server is about to be drained.
func serverOptions(log *slog.Logger, leaving context.Context) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.StatsHandler(watchServer()),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(10_000),
		grpc.WaitForHandlers(true), // what they use is closed after the server
		grpc.InitialWindowSize(streamWindow),
		grpc.InitialConnWindowSize(connWindow),
		grpc.NumStreamWorkers(workers),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(aroundCalls(log)),
		grpc.ChainStreamInterceptor(aroundStreams(log, leaving)),
	}
}

// aroundCalls is what every call of one message and one answer passes, however they travel.
func aroundCalls(log *slog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
		defer finish(ctx, log, info.FullMethod, time.Now(), &err)
		return handler(ctx, req)
	}
}

// aroundStreams is what every stream passes.
func aroundStreams(log *slog.Logger, leaving context.Context) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
		defer finish(ss.Context(), log, info.FullMethod, time.Now(), &err)
		if info.FullMethod == healthpb.Health_Watch_FullMethodName { // it would outlive any grace
			ctx, cancel := context.WithCancel(ss.Context())
			defer cancel()
			defer context.AfterFunc(leaving, cancel)()
			ss = serverStream{ss, ctx}
		}
		return handler(srv, ss)
	}
}

// Spans and metrics of what is served and called.
func watchServer() stats.Handler { return otelgrpc.NewServerHandler(otelgrpc.WithFilter(traced)) }
func watchClient() stats.Handler { return otelgrpc.NewClientHandler(otelgrpc.WithFilter(traced)) }

// serverStream is a stream with a context of its own.
type serverStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // grpc wants it so
}

func (s serverStream) Context() context.Context { return s.ctx }

// finish is the end of every RPC: a panic becomes an error, an error becomes its status, and one line is logged. It must
// be deferred itself.
func finish(ctx context.Context, log *slog.Logger, method string, began time.Time, err *error) {
	if p := recover(); p != nil {
		log.ErrorContext(ctx, "panic", "method", method, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		*err = fault.Internal.New("PANIC", "internal error")
	}
	if *err == nil {
		log.LogAttrs(ctx, slog.LevelDebug, "rpc", slog.String("method", method), slog.Duration("took", time.Since(began)))
		return
	}
	*err = report(ctx, log, method, began, *err)
}

// report logs an error and gives what goes over the wire.
func report(ctx context.Context, log *slog.Logger, what string, began time.Time, err error) error {
	e := fault.From(err)
	level := slog.LevelDebug // an error of the caller's is not news
	switch e.Kind {
	case fault.Internal, fault.DataLoss:
		level = slog.LevelError
	case fault.Unavailable:
		level = slog.LevelWarn
	}
	log.LogAttrs(ctx, level, "rpc", slog.String("method", what), slog.Duration("took", time.Since(began)),
		slog.String("reason", e.Reason), slog.String("error", err.Error()))
	return e.GRPCStatus().Err()
}

// retryReads lets gRPC repeat what changes nothing when a service is away for a moment.
const retryReads = `{
  "loadBalancingConfig": [{"round_robin": {}}],
  "methodConfig": [{
    "name": [
      {"service": "skein.state.v1.StateService", "method": "GetValue"},
      {"service": "skein.state.v1.StateService", "method": "StatValue"},
      {"service": "skein.state.v1.StateService", "method": "ListValues"},
      {"service": "skein.state.v1.StateService", "method": "ReadChanges"},
      {"service": "skein.state.v1.StateService", "method": "ReadElements"},
      {"service": "skein.state.v1.StateService", "method": "GetUsage"},
      {"service": "skein.fs.v1.FsService", "method": "GetFile"},
      {"service": "skein.fs.v1.FsService", "method": "StatFile"},
      {"service": "skein.fs.v1.FsService", "method": "ListFiles"},
      {"service": "skein.fs.v1.FsService", "method": "LookUpFile"},
      {"service": "skein.fs.v1.FsService", "method": "FindMissingBlocks"},
      {"service": "skein.upload.v1.UploadService", "method": "GetFunction"},
      {"service": "skein.upload.v1.UploadService", "method": "ListFunctions"},
      {"service": "skein.upload.v1.UploadService", "method": "ListVersions"}
    ],
    "retryPolicy": {
      "maxAttempts": 4, "initialBackoff": "0.05s", "maxBackoff": "1s", "backoffMultiplier": 3,
      "retryableStatusCodes": ["UNAVAILABLE"]
    }
  }]
}`

// reconnect finds a service that is back within seconds, however long it was away; gRPC's own pauses grow to two minutes.
var reconnect = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
	MinConnectTimeout: 5 * time.Second,
}

// Connect opens a client connection to another service. It dials when first used. Errors come back as *fault.Error.
func Connect(addr string, extra ...grpc.DialOption) (*grpc.ClientConn, error) {
	opts := append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStatsHandler(watchClient()),
		grpc.WithDefaultServiceConfig(retryReads),
		grpc.WithConnectParams(reconnect),
		grpc.WithInitialWindowSize(streamWindow),
		grpc.WithInitialConnWindowSize(connWindow),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithMaxHeaderListSize(maxHeaders),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true}),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return fromWire(invoke(ctx, method, req, reply, cc, opts...))
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			cs, err := streamer(ctx, desc, cc, method, opts...)
			if err != nil {
				return nil, fromWire(err)
			}
			return clientStream{cs}, nil
		}),
	}, extra...)
	conn, err := grpc.NewClient(addr, opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to %q: %w", addr, err)
	}
	return conn, nil
}

// Dial is Connect with one shared connection per address, closed with the process.
func (s *Server) Dial(addr string) (*grpc.ClientConn, error) {
	s.dialsMu.Lock()
	defer s.dialsMu.Unlock()
	if c := s.dials[addr]; c != nil {
		return c, nil
	}
	c, err := Connect(addr)
	if err == nil {
		s.dials[addr] = c
	}
	return c, err
}

// Bulk is a connection of Connect that sends what has many bytes past gRPC (package bulk). Closing it leaves conn open.
func Bulk(conn *grpc.ClientConn) *bulk.Conn { return bulk.New(conn, watchClient()) }

// DialBulk is Dial for what has many bytes.
func (s *Server) DialBulk(addr string) (*bulk.Conn, error) {
	conn, err := s.Dial(addr)
	if err != nil {
		return nil, err
	}
	b := Bulk(conn)
	s.Close(b.Close)
	return b, nil
}

// clientStream gives the errors of a stream their kinds back.
type clientStream struct{ grpc.ClientStream }

func (c clientStream) RecvMsg(m any) error { return fromWire(c.ClientStream.RecvMsg(m)) }
func (c clientStream) SendMsg(m any) error { return fromWire(c.ClientStream.SendMsg(m)) }

func fromWire(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return fault.From(err)
}
