// Package service is the one way a process of Skein starts, serves gRPC and REST on one port, drains and stops. A main
// calls Main with a config and a start function; tests call Run.
package service

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"skein.dev/platform/bulk"
	"skein.dev/platform/telemetry"
	bulkv1 "skein.dev/proto/skein/bulk/v1"
)

// Flagger registers its settings, each with default and help, on a flag set.
type Flagger interface{ Flags(*flag.FlagSet) }

// Start builds a service on a Server and returns; what runs on is given to Server.Go.
type Start func(context.Context, *Server) error

// Server is one process while it starts: services add what they have to it.
type Server struct {
	cfg     Config
	log     *slog.Logger
	grpc    *grpc.Server
	bulk    *bulk.Server
	health  *health.Server
	gateway *runtime.ServeMux
	mux     *http.ServeMux
	self    *grpc.ClientConn // to our own gRPC server, for the gateway

	loops   []func(context.Context) error
	ready   []func(context.Context) error
	drains  []func(context.Context) error
	closes  []func() error
	dials   map[string]*grpc.ClientConn
	dialsMu sync.Mutex
	addr    net.Addr

	leaving context.Context // ends when RPCs are about to be drained
	leave   context.CancelFunc
	rest    sync.RWMutex // held for reading by each REST request

	readyMu  sync.Mutex
	serving  bool
	draining bool  // for good: nothing makes it serving again
	notReady error // why it is not serving
}

// Main runs the service until SIGTERM or SIGINT and exits with 0, or with 1 after an error. A second signal exits at once.
func Main(name string, cfg Flagger, start Start) {
	base := DefaultConfig().Named(name)
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	base.Flags(fs)
	cfg.Flags(fs)
	if err := ParseFlags(fs, os.Args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			os.Exit(0)
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	tuneMemory()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-ctx.Done()
		stop() // the next signal has its default effect again: it ends the process
	}()
	if err := Run(ctx, base, start); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// Run starts a service and serves until ctx is cancelled or something fails; then it drains and closes in reverse order.
func Run(ctx context.Context, cfg Config, start Start) (err error) {
	log, err := cfg.logger()
	if err != nil {
		return err
	}
	tel, err := telemetry.Setup(ctx, cfg.Name, cfg.Spans...)
	if err != nil {
		return err
	}
	defer func() {
		// ctx is done by now; give the last spans a moment of their own.
		flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		if e := tel.Shutdown(flush); e != nil && err == nil {
			log.Warn("telemetry: the last spans or metrics were not sent", "error", e)
		}
	}()

	lis, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w (choose another address with --listen)", err)
	}
	defer func() { _ = lis.Close() }()

	s := newServer(cfg, log, lis.Addr())
	s.mux.Handle("GET /metrics", tel.Metrics)
	defer s.close()
	if err := s.dialSelf(); err != nil {
		return err
	}
	if err := start(ctx, s); err != nil {
		return err
	}
	reflection.Register(s.grpc)
	return s.serve(ctx, lis)
}

func newServer(cfg Config, log *slog.Logger, addr net.Addr) *Server {
	s := &Server{
		cfg: cfg, log: log, addr: addr,
		health:  health.NewServer(),
		gateway: newGateway(),
		mux:     http.NewServeMux(),
		dials:   map[string]*grpc.ClientConn{},
	}
	s.leaving, s.leave = context.WithCancel(context.Background())
	s.grpc = grpc.NewServer(serverOptions(log, s.leaving)...)
	s.bulk = bulk.NewServer(bulk.Around{Unary: aroundCalls(log), Stream: aroundStreams(log, s.leaving)}, watchServer())
	bulkv1.RegisterBulkServiceServer(s.grpc, s.bulk)
	s.notReady = errors.New("starting")
	healthpb.RegisterHealthServer(s.grpc, s.health)
	s.health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	s.mux.HandleFunc("GET /healthz", s.healthz)
	s.mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	s.mux.HandleFunc("/", s.JSON)
	return s
}

// RegisterService makes Server a grpc.ServiceRegistrar.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	s.grpc.RegisterService(desc, impl)
	s.bulk.Register(desc, impl)
	s.health.SetServingStatus(desc.ServiceName, healthpb.HealthCheckResponse_NOT_SERVING)
}

// Gateway adds generated REST routes.
func (s *Server) Gateway(register func(context.Context, *runtime.ServeMux, *grpc.ClientConn) error) error {
	return register(context.Background(), s.gateway, s.self)
}

// Go runs a loop while the process serves. A loop that returns an error stops the service; nil only ends the loop.
func (s *Server) Go(loop func(context.Context) error) { s.loops = append(s.loops, loop) }

// Ready adds a check that must pass before, and while, the service counts as able to work.
func (s *Server) Ready(check func(context.Context) error) { s.ready = append(s.ready, check) }

// Drain adds a step that lets work in progress end; its context ends with the grace period.
func (s *Server) Drain(step func(context.Context) error) { s.drains = append(s.drains, step) }

// Close adds a step for the very end; steps run in reverse order.
func (s *Server) Close(step func() error) { s.closes = append(s.closes, step) }

// Addr is where the process listens, with the real port if the configuration asked for any.
func (s *Server) Addr() string { return s.addr.String() }

// Log is the process's logger.
func (s *Server) Log() *slog.Logger { return s.log }

func (s *Server) close() {
	s.leave()
	for i := len(s.closes) - 1; i >= 0; i-- {
		if err := s.closes[i](); err != nil {
			s.log.Warn("close", "error", err)
		}
	}
	for _, c := range s.dials {
		_ = c.Close()
	}
}

func (s *Server) serve(ctx context.Context, lis net.Listener) error {
	split := newSplitter(lis)
	web := &http.Server{
		Handler:           s.root(),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	// Loops and connections outlive ctx until the drain is over.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, failed := errgroup.WithContext(running)
	group.Go(func() error { return s.serveRPC(split.rpc) })
	group.Go(func() error {
		if err := web.Serve(split.web); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error { return s.bulk.Serve(split.bulk) })
	group.Go(split.serve)
	group.Go(func() error { return s.watchHealth(failed) })
	for _, loop := range s.loops {
		group.Go(func() error { return loop(failed) })
	}
	s.log.Info("listening", "address", s.Addr())
	if s.cfg.OnListen != nil {
		s.cfg.OnListen(s.Addr())
	}

	select {
	case <-ctx.Done():
	case <-failed.Done():
	}
	s.drain(running, web)
	stop()
	split.close()
	s.cut(web)
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// drain tells everybody that we go, lets work end, and bounds all of it by the grace period.
func (s *Server) drain(ctx context.Context, web *http.Server) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Grace)
	defer cancel()
	s.turn(errDraining)
	s.log.Info("draining", "grace", s.cfg.Grace)
	for _, step := range s.drains {
		if err := step(ctx); err != nil {
			s.log.Warn("drain", "error", err)
		}
	}
	_ = web.Shutdown(ctx) // before gRPC: the gateway's requests end there
	s.leave()
	done := make(chan struct{})
	go func() { s.bulk.Drain(ctx); s.grpc.GracefulStop(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// cutTime bounds how long handlers have for noticing that their request was cut.
const cutTime = 3 * time.Second

// cut ends the requests that the drain did not see the end of, and waits for their handlers: what they use is closed next.
func (s *Server) cut(web *http.Server) {
	_ = web.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.bulk.Stop()
		s.grpc.Stop()
		s.rest.Lock()
		defer s.rest.Unlock()
	}()
	select {
	case <-done:
	case <-time.After(cutTime):
		s.log.Warn("requests that were cut have not ended", "waited", cutTime)
	}
}

// serveRPC is Serve for a server that may have been stopped before it began.
func (s *Server) serveRPC(lis net.Listener) error {
	if err := s.grpc.Serve(lis); !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

var errDraining = errors.New("draining")

// turn makes the service ready, or not ready for a reason, and tells everybody who asks.
func (s *Server) turn(notReady error) {
	s.readyMu.Lock()
	defer s.readyMu.Unlock()
	if s.draining {
		return
	}
	was := s.serving
	s.serving, s.notReady, s.draining = notReady == nil, notReady, notReady == errDraining //nolint:errorlint // ours alone
	switch {
	case s.serving && !was:
		s.log.Info("ready")
		s.health.Resume()
	case was && !s.serving && !s.draining:
		s.log.Warn("not ready", "error", notReady)
		fallthrough
	case s.draining:
		s.health.Shutdown()
	}
}

// watchHealth asks the readiness checks, often until they pass and seldom afterwards.
func (s *Server) watchHealth(ctx context.Context) error {
	for {
		err := s.check(ctx)
		if ctx.Err() != nil {
			return nil
		}
		s.turn(err)
		pause := 250 * time.Millisecond
		if err == nil {
			pause = 2 * time.Second
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

func (s *Server) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for _, c := range s.ready {
		if err := c(ctx); err != nil {
			return err
		}
	}
	return nil
}
