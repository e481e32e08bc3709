package bulk

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/stats"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"skein.dev/platform/fault"
	bulkv1 "skein.dev/proto/skein/bulk/v1"
)

const (
	ticketSize  = 32
	ticketLife  = 10 * time.Second
	mostTickets = 1 << 10
	mostConns   = 4 << 10
	// idleTime is how long a connection may be without a call; a client lets go of it earlier.
	idleTime = 2 * time.Minute
)

type ticket [ticketSize]byte

// Server serves methods of gRPC services on connections that a listener gives it.
type Server struct {
	bulkv1.UnimplementedBulkServiceServer
	around Around
	watch  stats.Handler

	methods map[string]method

	mu      sync.Mutex
	tickets map[ticket]time.Time // until when
	conns   map[*wire]bool       // true in a call
	leaving bool
	quiet   chan struct{} // closed when leaving and no connection is left
	stop    context.CancelFunc
	run     context.Context //nolint:containedctx // of all calls
	served  sync.WaitGroup
}

// method runs a call.
type method func(*serverStream) error

// Around is what calls pass.
type Around struct {
	Unary  grpc.UnaryServerInterceptor
	Stream grpc.StreamServerInterceptor
}

// NewServer makes a server whose calls pass around, and are seen by watch.
func NewServer(around Around, watch stats.Handler) *Server {
	s := &Server{
		around: around, watch: watch, methods: map[string]method{}, tickets: map[ticket]time.Time{}, conns: map[*wire]bool{}, quiet: make(chan struct{}),
	}
	s.run, s.stop = context.WithCancel(context.Background())
	return s
}

// Register adds those methods of a service that have bytes in one direction. It must not be called once the server serves.
func (s *Server) Register(desc *grpc.ServiceDesc, impl any) {
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(desc.ServiceName))
	service, ok := found.(protoreflect.ServiceDescriptor)
	if err != nil || !ok {
		return
	}
	bytes := func(name string) bool {
		m := service.Methods().ByName(protoreflect.Name(name))
		return m != nil && (fieldOf(m.Input()) != nil || fieldOf(m.Output()) != nil)
	}
	for i := range desc.Streams {
		d := &desc.Streams[i]
		if d.ClientStreams != d.ServerStreams && bytes(d.StreamName) {
			s.methods["/"+desc.ServiceName+"/"+d.StreamName] = s.stream(d, "/"+desc.ServiceName+"/"+d.StreamName, impl)
		}
	}
	for i := range desc.Methods {
		if d := &desc.Methods[i]; bytes(d.MethodName) {
			s.methods["/"+desc.ServiceName+"/"+d.MethodName] = s.unary(d, impl)
		}
	}
}

func (s *Server) stream(d *grpc.StreamDesc, name string, impl any) method {
	info := &grpc.StreamServerInfo{FullMethod: name, IsClientStream: d.ClientStreams, IsServerStream: d.ServerStreams}
	return func(in *serverStream) error { return s.around.Stream(impl, in, info, d.Handler) }
}

func (s *Server) unary(d *grpc.MethodDesc, impl any) method {
	return func(in *serverStream) error {
		answer, err := d.Handler(impl, in.ctx, in.RecvMsg, s.around.Unary)
		if err != nil {
			return err
		}
		return in.SendMsg(answer)
	}
}

// OpenBulk gives out a ticket.
func (s *Server) OpenBulk(context.Context, *bulkv1.OpenBulkRequest) (*bulkv1.OpenBulkResponse, error) {
	var t ticket
	_, _ = rand.Read(t[:])
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tickets) >= mostTickets {
		maps.DeleteFunc(s.tickets, func(_ ticket, until time.Time) bool { return until.Before(now) })
	}
	if s.leaving || len(s.tickets) >= mostTickets || len(s.conns) >= mostConns {
		return nil, fault.Exhausted.New("TOO_MANY_CONNECTIONS", "no further connection is taken").WithRetry(time.Second)
	}
	s.tickets[t] = now.Add(ticketLife)
	return &bulkv1.OpenBulkResponse{Ticket: t[:], Methods: slices.Sorted(maps.Keys(s.methods))}, nil
}

// use says whether a ticket is good, which it is once.
func (s *Server) use(t ticket) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	until, ok := s.tickets[t]
	delete(s.tickets, t)
	return ok && time.Now().Before(until)
}

// Serve serves the connections of a listener, whose preface was read, until that is closed.
func (s *Server) Serve(lis net.Listener) error {
	for {
		conn, err := lis.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		w := newWire(conn)
		if !s.enter(w) {
			_ = conn.Close()
			continue
		}
		go func() {
			defer s.exit(w)
			s.serve(w)
		}()
	}
}

func (s *Server) enter(w *wire) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leaving || len(s.conns) >= mostConns {
		return false
	}
	s.conns[w] = false
	s.served.Add(1)
	return true
}

func (s *Server) exit(w *wire) {
	_ = w.Close()
	s.mu.Lock()
	delete(s.conns, w)
	s.settle()
	s.mu.Unlock()
	s.served.Done()
}

// turn notes that a connection is in a call, or not any more. False if it is to end.
func (s *Server) turn(w *wire, busy bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[w] = busy
	return !s.leaving
}

// settle tells who waits for the last connection. The caller holds mu.
func (s *Server) settle() {
	if !s.leaving || len(s.conns) > 0 {
		return
	}
	select {
	case <-s.quiet:
	default:
		close(s.quiet)
	}
}

// Drain takes no further calls, waits for those that run and tells clients that it leaves.
func (s *Server) Drain(ctx context.Context) {
	s.mu.Lock()
	s.leaving = true
	for w, busy := range s.conns {
		if !busy {
			_ = w.SetReadDeadline(time.Now()) // so that it says farewell
		}
	}
	s.settle()
	s.mu.Unlock()
	select {
	case <-s.quiet:
	case <-ctx.Done():
	}
}

// Stop ends all calls and waits for their handlers.
func (s *Server) Stop() {
	s.stop()
	s.mu.Lock()
	s.leaving = true
	for w := range s.conns {
		_ = w.Close()
	}
	s.mu.Unlock()
	s.served.Wait()
}

// serve serves one connection.
func (s *Server) serve(w *wire) {
	var t ticket
	_ = w.SetReadDeadline(time.Now().Add(ticketLife))
	if _, err := io.ReadFull(w.in, t[:]); err != nil || !s.use(t) {
		return
	}
	w.out = append(w.out, welcome...)
	if w.flush(nil) != nil {
		return
	}
	for {
		_ = w.SetReadDeadline(time.Now().Add(idleTime))
		if !s.turn(w, false) {
			s.farewell(w)
			return
		}
		_, err := w.in.Peek(1)
		if !s.turn(w, err == nil) {
			s.farewell(w)
			return
		}
		if err != nil || !s.call(w) {
			return
		}
	}
}

// lingerTime and lingerBytes bound what is read of a call that was not taken: closed at once, the connection would be reset, and its client
// not hear why.
const (
	lingerTime  = 100 * time.Millisecond
	lingerBytes = 64 << 20
)

// farewell tells a client that its call, if it has begun one, was not taken.
func (s *Server) farewell(w *wire) {
	if w.add(kindLeave, nil, 0) != nil || w.flush(nil) != nil {
		return
	}
	if cw, ok := w.Conn.(interface{ CloseWrite() error }); !ok || cw.CloseWrite() != nil {
		return
	}
	_ = w.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, w.in, lingerBytes)
}

// call serves one call, and says whether another may follow.
func (s *Server) call(w *wire) bool {
	w.by = time.Time{}
	h, err := w.next()
	if err != nil || h.kind != kindCall {
		return false
	}
	head := &bulkv1.BulkCall{}
	if err := w.receive(h, head); err != nil {
		return false
	}
	ctx, cancel := context.WithCancel(s.run)
	defer cancel()
	if head.GetTimeout() != nil {
		ctx, cancel = context.WithTimeout(ctx, head.GetTimeout().AsDuration())
		defer cancel()
		w.by, _ = ctx.Deadline()
		w.by = w.by.Add(grace)
	}
	ctx = metadata.NewIncomingContext(ctx, metadata.New(head.GetMetadata()))
	ctx = peer.NewContext(ctx, &peer.Peer{Addr: w.RemoteAddr(), LocalAddr: w.LocalAddr()})
	in := &serverStream{w: w, ctx: ctx}
	m, ok := s.methods[head.GetMethod()]
	if !ok {
		err = fault.Unsupported.New("NO_METHOD", "%.200q is not served this way", head.GetMethod())
	} else {
		var end func(error)
		in.ctx, end = follow(ctx, s.watch, head.GetMethod(), false)
		err = m(in)
		end(err)
	}
	return in.finish(err)
}

// grace is how much longer than a call's deadline its connection may take, so that what it has to say arrives.
const grace = 500 * time.Millisecond

// serverStream is a call as its handler sees it.
type serverStream struct {
	w      *wire
	ctx    context.Context //nolint:containedctx // grpc wants it so
	last   bool            // the client has said all
	broken error           // of the connection
}

func (s *serverStream) SetHeader(metadata.MD) error  { return nil }
func (s *serverStream) SendHeader(metadata.MD) error { return nil }
func (s *serverStream) SetTrailer(metadata.MD)       {}
func (s *serverStream) Context() context.Context     { return s.ctx }

// SendMsg sends a message; one without data goes with the next that has some, or with the end.
func (s *serverStream) SendMsg(m any) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	return s.note(s.w.send(m.(proto.Message))) //nolint:forcetypeassert // what protoc made sends nothing else
}

// RecvMsg receives a message; what its field data has is room for what comes, so that a caller may say where to.
func (s *serverStream) RecvMsg(m any) error {
	switch {
	case s.last:
		return io.EOF
	case s.broken != nil:
		return s.broken
	case s.ctx.Err() != nil:
		return s.ctx.Err()
	}
	h, err := s.w.next()
	switch {
	case err != nil:
	case h.kind == kindMessage:
		err = s.w.receive(h, m.(proto.Message)) //nolint:forcetypeassert // as above
	case h.kind == kindLast && h.head == 0:
		s.last = true
		return io.EOF
	default:
		err = fault.Invalid.New("BAD_FRAME", "a frame of kind %d in a call", h.kind)
	}
	return s.note(err)
}

// note keeps an error of the connection: it has no further use.
func (s *serverStream) note(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*fault.Error](err); ok && e.Kind == fault.TooLarge { // nothing was sent
		return err
	}
	s.broken = err
	if s.ctx.Err() == nil {
		if e, ok := errors.AsType[*fault.Error](err); ok {
			return e
		}
		if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
			return fault.Timeout.New("STALLED", "the client was silent for %s", stall)
		}
		return fault.Cancelled.New("CANCELLED", "the client went away: %s", err)
	}
	return s.ctx.Err()
}

// finish tells how the call ended and passes over what the client still says.
func (s *serverStream) finish(err error) bool {
	if s.broken != nil {
		return false
	}
	if s.w.add(kindStatus, statusOf(err), 0) != nil || s.w.flush(nil) != nil {
		return false
	}
	for !s.last {
		h, err := s.w.next()
		switch {
		case err != nil:
			return false
		case h.kind == kindLast:
			s.last = true
			fallthrough
		case h.kind == kindMessage:
			if s.w.skip(h) != nil {
				return false
			}
		default:
			return false
		}
	}
	return true
}
