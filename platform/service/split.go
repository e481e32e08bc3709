package service

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"skein.dev/platform/bulk"
)

// splitter hands each connection to gRPC, to bulk or to the web server by its first bytes: HTTP/2 with prior knowledge opens with
// a fixed preface, and only gRPC clients do that here. All keep their own, native transport: gRPC through
// net/http's costs about twice the CPU per call.
type splitter struct {
	lis      net.Listener
	rpc, web *half
	bulk     *half
	patience time.Duration

	mu     sync.Mutex
	fresh  map[net.Conn]struct{} // neither server knows of them yet
	closed bool
}

func newSplitter(lis net.Listener) *splitter {
	return &splitter{
		lis: lis, rpc: newHalf(lis.Addr()), web: newHalf(lis.Addr()), bulk: newHalf(lis.Addr()), patience: sniffTime, fresh: map[net.Conn]struct{}{},
	}
}

const preface = "PRI * HTTP/2.0"

var _ [len(preface)]byte = [len(bulk.Preface)]byte{} // as many are read

// sniffTime bounds how long a connection may be silent at its start.
const sniffTime = 10 * time.Second

func (s *splitter) serve() error {
	for {
		conn, err := s.lis.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			var temporary net.Error
			if errors.As(err, &temporary) { // out of descriptors, most likely: give others time to close some
				time.Sleep(50 * time.Millisecond)
				continue
			}
			return err
		}
		s.mu.Lock()
		if s.closed {
			_ = conn.Close()
		} else {
			s.fresh[conn] = struct{}{}
			go s.sniff(conn)
		}
		s.mu.Unlock()
	}
}

func (s *splitter) sniff(conn net.Conn) {
	defer func() {
		s.mu.Lock()
		delete(s.fresh, conn)
		s.mu.Unlock()
	}()
	var head [len(preface)]byte
	_ = conn.SetReadDeadline(time.Now().Add(s.patience))
	n := 0
	for n < len(head) && (strings.HasPrefix(preface, string(head[:n])) || strings.HasPrefix(bulk.Preface, string(head[:n]))) {
		m, err := conn.Read(head[n:])
		if n += m; err != nil {
			_ = conn.Close()
			return
		}
	}
	_ = conn.SetReadDeadline(time.Time{})
	known := &sniffed{Conn: conn, head: head[:n]}
	switch string(head[:n]) {
	case preface:
		s.rpc.give(known)
	case bulk.Preface:
		s.bulk.give(conn)
	default:
		s.web.give(&lingering{sniffed: known})
	}
}

func (s *splitter) close() {
	_ = s.lis.Close()
	_ = s.rpc.Close()
	_ = s.web.Close()
	_ = s.bulk.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for conn := range s.fresh {
		_ = conn.Close()
	}
}

// sniffed is a connection whose first bytes were read already.
type sniffed struct {
	net.Conn
	head []byte
}

func (c *sniffed) Read(p []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(p, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// ReadFrom keeps the kernel's fast path for file bodies.
func (c *sniffed) ReadFrom(r io.Reader) (int64, error) {
	if rf, ok := c.Conn.(io.ReaderFrom); ok {
		return rf.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{c.Conn}, r)
}

// lingering is a connection whose end a client may see late: one that still sends a body which was refused. Closed at once, it
// would be reset, and the answer lost with what it had not read yet. net/http knows of this, but not where the client said
// that it closes the connection too.
type lingering struct {
	*sniffed
	once sync.Once
}

const (
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 64 << 20
)

func (c *lingering) Close() error {
	c.once.Do(func() {
		cw, ok := c.Conn.(interface{ CloseWrite() error })
		if !ok || cw.CloseWrite() != nil {
			_ = c.Conn.Close()
			return
		}
		go func() {
			_ = c.SetReadDeadline(time.Now().Add(lingerTime))
			_, _ = io.CopyN(io.Discard, c.Conn, lingerBytes)
			_ = c.Conn.Close()
		}()
	})
	return nil
}

// half is a listener that is fed.
type half struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newHalf(addr net.Addr) *half {
	return &half{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

func (h *half) give(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.done:
		_ = c.Close()
	}
}

func (h *half) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *half) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

func (h *half) Addr() net.Addr { return h.addr }
