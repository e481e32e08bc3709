package bulk

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"skein.dev/platform/fault"
)

// What a frame is.
const (
	kindCall    = 1
	kindMessage = 2
	kindLast    = 3
	kindStatus  = 4
	kindLeave   = 5
)

const (
	headerSize = 8
	maxHead    = 512 << 10
	maxData    = 4 << 20
	// gatherMost is how many bytes of messages without data wait for one with some, so that they go in one write.
	gatherMost = 32 << 10
	// keepMost bounds what a connection keeps for the next message.
	keepMost = 64 << 10
	// stall is how long the other side may be silent in a call, or take nothing.
	stall = 30 * time.Second
)

// wire is a connection that carries frames. It belongs to one goroutine for reading and one for writing; only Close may come
// from any.
type wire struct {
	net.Conn
	in  *bufio.Reader
	by  time.Time // the call's deadline
	out []byte    // frames that wait
	vec [2][]byte
	buf []byte // the last message read
}

func newWire(c net.Conn) *wire { return &wire{Conn: c, in: bufio.NewReaderSize(c, 4<<10)} }

// limit is when what begins now must be done.
func (w *wire) limit() time.Time {
	at := time.Now().Add(stall)
	if !w.by.IsZero() && w.by.Before(at) {
		return w.by
	}
	return at
}

// header is the head of a frame.
type header struct {
	kind       byte
	head, data int
}

// next reads a frame's header. Its message and data must be read next.
func (w *wire) next() (h header, err error) {
	_ = w.SetReadDeadline(w.limit())
	raw, err := w.in.Peek(headerSize)
	if err != nil {
		if len(raw) > 0 && err == io.EOF { //nolint:errorlint // bufio gives what the connection gave
			err = io.ErrUnexpectedEOF
		}
		return header{}, err
	}
	h = header{raw[0], int(binary.LittleEndian.Uint32(raw) >> 8), int(binary.LittleEndian.Uint32(raw[4:]))}
	if h.kind < kindCall || h.kind > kindLeave || h.head > maxHead || h.data > maxData || h.kind != kindMessage && h.data > 0 {
		return header{}, fault.Invalid.New("BAD_FRAME", "a frame of kind %d with a message of %d bytes and %d bytes of data", h.kind, h.head, h.data)
	}
	_, _ = w.in.Discard(headerSize)
	return h, nil
}

// message reads a frame's message. It is good until the next.
func (w *wire) message(n int) ([]byte, error) {
	if n <= w.in.Size() {
		raw, err := w.in.Peek(n)
		if err == nil {
			_, _ = w.in.Discard(n)
		}
		return raw, err
	}
	if cap(w.buf) < n {
		w.buf = make([]byte, n)
	}
	raw := w.buf[:n]
	if cap(w.buf) > keepMost {
		w.buf = nil
	}
	_, err := io.ReadFull(w.in, raw)
	return raw, err
}

// skip passes over the rest of a frame.
func (w *wire) skip(h header) error {
	_, err := w.in.Discard(h.head + h.data)
	return err
}

// receive reads a frame into m. What m has as data is room for it.
func (w *wire) receive(h header, m proto.Message) error {
	room := dataOf(m).get()
	raw, err := w.message(h.head)
	if err != nil {
		return err
	}
	if err := proto.Unmarshal(raw, m); err != nil {
		return fault.Invalid.New("BAD_FRAME", "a message that is none: %s", err)
	}
	if h.data == 0 {
		return nil
	}
	field := dataOf(m)
	if field.of == nil {
		return fault.Invalid.New("BAD_FRAME", "%d bytes of data behind a message that has no place for them", h.data)
	}
	if len(room) < h.data {
		room = make([]byte, h.data)
	}
	room = room[:h.data:h.data]
	if _, err := io.ReadFull(w.in, room); err != nil {
		return err
	}
	field.set(room)
	return nil
}

// add puts a frame without data behind those that wait.
func (w *wire) add(kind byte, m proto.Message, data int) (err error) {
	at := len(w.out)
	w.out = append(w.out, kind, 0, 0, 0, 0, 0, 0, 0)
	if m != nil {
		if w.out, err = (proto.MarshalOptions{}).MarshalAppend(w.out, m); err != nil {
			w.out = w.out[:at]
			return fault.Internal.New("BAD_MESSAGE", "%s", err)
		}
	}
	n := len(w.out) - at - headerSize
	if n > maxHead || data > maxData {
		w.out = w.out[:at]
		return fault.TooLarge.New("TOO_LARGE", "a message of %d bytes with %d bytes of data", n, data)
	}
	binary.LittleEndian.PutUint32(w.out[at:], uint32(n)<<8|uint32(kind)) //nolint:gosec // bounded above
	binary.LittleEndian.PutUint32(w.out[at+4:], uint32(data))            //nolint:gosec // bounded above
	return nil
}

// send sends a message, at once if it has data: whose bytes are the caller's again when it returns.
func (w *wire) send(m proto.Message) error {
	field := dataOf(m)
	data := field.get()
	if len(data) > 0 {
		field.set(nil)
		defer field.set(data)
	}
	if err := w.add(kindMessage, m, len(data)); err != nil {
		return err
	}
	if len(data) == 0 && len(w.out) < gatherMost {
		return nil
	}
	return w.flush(data)
}

// flush writes the frames that wait, and the data of the last.
func (w *wire) flush(data []byte) error {
	if len(w.out) == 0 {
		return nil
	}
	_ = w.SetWriteDeadline(w.limit())
	var err error
	if len(data) == 0 {
		_, err = w.Write(w.out)
	} else {
		w.vec = [2][]byte{w.out, data}
		both := net.Buffers(w.vec[:])
		_, err = both.WriteTo(w.Conn)
		w.vec = [2][]byte{}
	}
	w.out = w.out[:0]
	if cap(w.out) > keepMost {
		w.out = nil
	}
	return err
}

// data is a message's field of that name.
type data struct {
	of    protoreflect.Message
	field protoreflect.FieldDescriptor
}

// fields has the field of each kind of message, nil for none.
var fields sync.Map

func fieldOf(d protoreflect.MessageDescriptor) protoreflect.FieldDescriptor {
	f := d.Fields().ByName("data")
	if f == nil || f.Kind() != protoreflect.BytesKind || f.Cardinality() == protoreflect.Repeated {
		return nil
	}
	return f
}

func dataOf(m proto.Message) data {
	r := m.ProtoReflect()
	known, ok := fields.Load(r.Type())
	if !ok {
		known, _ = fields.LoadOrStore(r.Type(), fieldOf(r.Descriptor()))
	}
	f, _ := known.(protoreflect.FieldDescriptor)
	if f == nil {
		return data{}
	}
	return data{r, f}
}

func (d data) get() []byte {
	if d.of == nil {
		return nil
	}
	return d.of.Get(d.field).Bytes()
}

func (d data) set(b []byte) {
	if len(b) == 0 {
		d.of.Clear(d.field)
		return
	}
	d.of.Set(d.field, protoreflect.ValueOfBytes(b))
}
