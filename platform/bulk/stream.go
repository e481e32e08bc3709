package bulk

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"skein.dev/platform/fault"
	bulkv1 "skein.dev/proto/skein/bulk/v1"
)

// errNotTaken is the end of a call that has not begun there. It happens again if it is made again.
var errNotTaken = fault.Unavailable.New("DRAINING", "the process that was called is about to end").WithHint("try again: another may be there")

// clientStream is a call. Like gRPC's it must be read to its end, or its context cancelled.
type clientStream struct {
	c       *Conn
	w       *wire
	ctx     context.Context //nolint:containedctx // grpc wants it so
	desc    *grpc.StreamDesc
	release func() bool // the connection from the context
	ended   func(error) // of the span
	close   sync.Once
	said    bool  // that was all
	heard   bool  // of the other side's messages
	over    error // how it ended; io.EOF for well

	// again makes a call of one request by gRPC, if no message came: one that was not taken, or one that only reads, since its request has
	// no data. gRPC tries longer. instead is that call.
	again   func() (grpc.ClientStream, error)
	request proto.Message
	reads   bool
	instead grpc.ClientStream
}

func (c *Conn) call(ctx context.Context, w *wire, desc *grpc.StreamDesc, method string, opts []grpc.CallOption) *clientStream {
	s := &clientStream{c: c, w: w, desc: desc}
	s.again = func() (grpc.ClientStream, error) { return c.ClientConn.NewStream(ctx, desc, method, opts...) }
	s.ctx, s.ended = follow(ctx, c.watch, method, true)
	head := &bulkv1.BulkCall{Method: method}
	if md, ok := metadata.FromOutgoingContext(s.ctx); ok {
		head.Metadata = map[string]string{}
		for k, v := range md {
			head.Metadata[k] = v[0]
		}
	}
	w.by = time.Time{}
	if at, ok := ctx.Deadline(); ok {
		w.by = at
		head.Timeout = durationpb.New(time.Until(at))
	}
	s.release = context.AfterFunc(ctx, func() { s.let(fault.From(ctx.Err()), false) })
	if err := w.add(kindCall, head, 0); err != nil {
		s.end(err, false)
	}
	return s
}

func (s *clientStream) Header() (metadata.MD, error) { return nil, nil }
func (s *clientStream) Trailer() metadata.MD         { return nil }
func (s *clientStream) Context() context.Context     { return s.ctx }

// end ends the call for its caller.
func (s *clientStream) end(err error, good bool) error {
	s.over = err
	s.let(err, s.release() && good)
	return err
}

// let gives the connection back, if it is good for another call. It runs beside the caller if the context ends: a caller that has given
// the call up may never look at it again.
func (s *clientStream) let(err error, good bool) {
	s.close.Do(func() {
		s.c.give(s.w, good)
		if errors.Is(err, io.EOF) {
			err = nil
		}
		s.ended(err)
	})
}

// broken ends a call whose connection failed.
func (s *clientStream) broken(err error) error {
	var ne net.Error
	switch {
	case s.ctx.Err() != nil:
		err = fault.From(s.ctx.Err())
	case !s.w.by.IsZero() && !time.Now().Before(s.w.by):
		err = fault.From(context.DeadlineExceeded)
	case errors.As(err, &ne) && ne.Timeout():
		err = fault.Unavailable.New("STALLED", "%s was silent for %s", s.w.RemoteAddr(), stall)
	default:
		if e, ok := errors.AsType[*fault.Error](err); !ok || e.Kind != fault.TooLarge {
			err = fault.Unavailable.New("UNAVAILABLE", "the connection to %s broke: %s", s.w.RemoteAddr(), err)
		}
	}
	return s.end(err, false)
}

// SendMsg sends a message; its bytes are the caller's again when it returns. io.EOF says that the call has ended, and RecvMsg how.
func (s *clientStream) SendMsg(m any) error {
	msg := m.(proto.Message) //nolint:forcetypeassert // what protoc made sends nothing else
	if s.instead != nil {
		return s.instead.SendMsg(m)
	}
	if s.over != nil {
		return io.EOF
	}
	if !s.desc.ClientStreams {
		s.request, s.reads = msg, dataOf(msg).of == nil
	}
	if err := s.w.send(msg); err != nil {
		_ = s.broken(err)
		return io.EOF
	}
	return nil
}

// CloseSend says that there are no more messages.
func (s *clientStream) CloseSend() error {
	if s.instead != nil {
		return s.instead.CloseSend()
	}
	if s.over != nil {
		return nil // RecvMsg tells
	}
	s.said = true
	err := s.w.add(kindLast, nil, 0)
	if err == nil {
		err = s.w.flush(nil)
	}
	if err != nil {
		_ = s.broken(err)
	}
	return nil
}

// RecvMsg receives a message; what its field data has is room for what comes. The call must have been told CloseSend.
func (s *clientStream) RecvMsg(m any) error {
	if s.instead != nil {
		return s.instead.RecvMsg(m)
	}
	err := s.recv(m.(proto.Message)) //nolint:forcetypeassert // as above
	if s.request == nil || s.heard || !errors.Is(err, fault.Unavailable) || !s.reads && !errors.Is(err, errNotTaken) {
		return err
	}
	if s.instead, err = s.again(); err != nil {
		return err
	}
	if err := s.instead.SendMsg(s.request); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := s.instead.CloseSend(); err != nil {
		return err
	}
	return s.instead.RecvMsg(m)
}

func (s *clientStream) recv(m proto.Message) error {
	if s.over != nil {
		return s.over
	}
	h, err := s.w.next()
	if err != nil {
		return s.broken(err)
	}
	switch h.kind {
	case kindMessage:
		s.heard = true
		if err := s.w.receive(h, m); err != nil {
			return s.broken(err)
		}
		if !s.desc.ServerStreams { // gRPC's callers ask once
			return s.last()
		}
		return nil
	case kindStatus:
		return s.status(h)
	case kindLeave:
		return s.end(errNotTaken, false)
	}
	return s.broken(fault.Invalid.New("BAD_FRAME", "a frame of kind %d in an answer", h.kind))
}

// last reads the end behind the only answer.
func (s *clientStream) last() error {
	h, err := s.w.next()
	if err == nil && h.kind != kindStatus {
		err = fault.Invalid.New("BAD_FRAME", "a frame of kind %d behind the answer", h.kind)
	}
	if err != nil {
		return s.broken(err)
	}
	if err := s.status(h); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

func (s *clientStream) status(h header) error {
	st := &spb.Status{}
	if err := s.w.receive(h, st); err != nil {
		return s.broken(err)
	}
	if st.GetCode() == 0 {
		_ = s.end(io.EOF, s.said)
		return io.EOF
	}
	return s.end(fault.From(status.ErrorProto(st)), s.said)
}
