package bulk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/stats"

	"skein.dev/platform/fault"
	bulkv1 "skein.dev/proto/skein/bulk/v1"
)

const (
	mostIdle  = 64               // connections that are kept
	mostOpen  = 256              // at a time; what is beyond goes by gRPC
	idleKept  = 90 * time.Second // less than the server's idleTime
	dialTime  = 2 * time.Second
	awayTime  = time.Second // after a failure, until it is tried again
	neverTime = time.Minute // where there is no such way
)

// Conn is a connection of gRPC, and beside it those that carry bulk.
type Conn struct {
	*grpc.ClientConn
	watch stats.Handler

	mu      sync.Mutex
	idle    []kept // the last was used last
	open    int
	away    time.Time // until when all goes by gRPC
	methods []string
	closed  bool
}

type kept struct {
	w     *wire
	until time.Time
}

// New makes a Conn over a connection of gRPC. Its calls are seen by watch.
func New(conn *grpc.ClientConn, watch stats.Handler) *Conn {
	return &Conn{ClientConn: conn, watch: watch}
}

// Close closes the connections beside gRPC's.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, k := range c.idle {
		_ = k.w.Close()
	}
	c.idle = nil
	return nil
}

// NewStream begins a call, past gRPC if that is preferred.
func (c *Conn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if w := c.take(ctx, method, opts); w != nil {
		return c.call(ctx, w, desc, method, opts), nil
	}
	return c.ClientConn.NewStream(ctx, desc, method, opts...)
}

var unary = &grpc.StreamDesc{}

// Invoke makes a call of one message and one answer, past gRPC if that is preferred.
func (c *Conn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	w := c.take(ctx, method, opts)
	if w == nil {
		return c.ClientConn.Invoke(ctx, method, args, reply, opts...)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := c.call(ctx, w, unary, method, opts)
	_ = s.SendMsg(args)
	_ = s.CloseSend()
	return s.RecvMsg(reply)
}

// take gives a connection that may carry a call, nil if there is none.
func (c *Conn) take(ctx context.Context, method string, opts []grpc.CallOption) *wire {
	if !slices.Contains(opts, Prefer()) {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.methods != nil && !slices.Contains(c.methods, method) {
		return nil
	}
	for now := time.Now(); len(c.idle) > 0; {
		k := c.idle[len(c.idle)-1]
		c.idle = c.idle[:len(c.idle)-1]
		if now.Before(k.until) && alive(k.w.Conn) {
			return k.w
		}
		_ = k.w.Close()
		c.open--
	}
	if c.closed || c.open >= mostOpen || time.Now().Before(c.away) {
		return nil
	}
	c.open++
	c.mu.Unlock()
	w, methods, err := c.dial(ctx)
	c.mu.Lock()
	switch {
	case err == nil:
		c.methods = methods
		if slices.Contains(methods, method) {
			return w
		}
		_ = w.Close()
	case ctx.Err() != nil: // says nothing about the service
	case errors.Is(err, fault.Unsupported):
		c.away = time.Now().Add(neverTime)
	default:
		c.away = time.Now().Add(awayTime)
	}
	c.open--
	return nil
}

// dial opens a connection to the process that gives us a ticket.
func (c *Conn) dial(ctx context.Context) (_ *wire, methods []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	var at peer.Peer
	t, err := bulkv1.NewBulkServiceClient(c.ClientConn).OpenBulk(ctx, &bulkv1.OpenBulkRequest{}, grpc.Peer(&at))
	if err != nil {
		return nil, nil, err
	}
	if at.Addr == nil || at.Addr.Network() != "tcp" || len(t.GetTicket()) != ticketSize {
		return nil, nil, fault.Unsupported.New("NO_BULK", "no TCP connection leads there")
	}
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 4}}
	conn, err := d.DialContext(ctx, "tcp", at.Addr.String())
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			_ = conn.Close()
		}
	}()
	w := newWire(conn)
	w.by, _ = ctx.Deadline()
	w.out = append(append(w.out, Preface...), t.GetTicket()...)
	if err := w.flush(nil); err != nil {
		return nil, nil, err
	}
	var answer [len(welcome)]byte
	_ = w.SetReadDeadline(w.by)
	if _, err := io.ReadFull(w.in, answer[:]); err != nil {
		return nil, nil, err
	}
	if string(answer[:]) != welcome {
		return nil, nil, fmt.Errorf("bulk: %s answered %q", at.Addr, answer)
	}
	return w, t.GetMethods(), nil
}

// give takes a connection back.
func (c *Conn) give(w *wire, good bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if good && !c.closed && len(c.idle) < mostIdle {
		c.idle = append(c.idle, kept{w, time.Now().Add(idleKept)})
		return
	}
	_ = w.Close()
	c.open--
}
