package host

import (
	"math"
	"time"

	"skein.dev/abi"
	"skein.dev/services/executor/internal/machine"
)

// Sizes and numbers of poll_oneoff's records.
const (
	subscriptionSize = 48
	eventSize        = 32
	maxSubscriptions = 4096

	eventClock   = 0
	eventFDRead  = 1
	eventFDWrite = 2

	writeRoom = 64 << 10 // what a stream says it has room for; it has always
)

// event is a subscription and what is known of its event.
type event struct {
	user  uint64
	kind  byte
	ready bool
	err   error
	bytes int64         // that can be read or written
	after time.Duration // when a clock's will be ready
}

// poll waits for the first of its subscriptions: files and streams are always ready, so that it waits only if all are
// clocks.
func poll(c *Call, g guest) error {
	n := g.u32(2)
	if n == 0 || n > maxSubscriptions {
		return abi.EINVAL
	}
	in, err := g.at(g.u32(0), n*subscriptionSize)
	if err != nil {
		return err
	}
	out, err := g.at(g.u32(1), n*eventSize)
	if err != nil {
		return err
	}
	if _, err = g.at(g.u32(3), 4); err != nil {
		return err
	}
	events := make([]event, n) // decoded before anything is written: in and out may overlap
	ready, first := false, time.Duration(math.MaxInt64)
	for i := range events {
		if events[i], err = c.subscribe(in[i*subscriptionSize:]); err != nil {
			return err
		}
		ready = ready || events[i].ready
		first = min(first, events[i].after)
	}
	if !ready {
		c.sleep(first)
	}
	count := uint32(0)
	for _, e := range events {
		if !e.ready && (ready || e.after > first) {
			continue
		}
		e.put(out[count*eventSize:])
		count++
	}
	return g.put32(3, count)
}

// subscribe reads a subscription. EINVAL for one of unknown kind.
func (c *Call) subscribe(b []byte) (event, error) {
	e := event{user: le.Uint64(b), kind: b[8]}
	switch e.kind {
	case eventClock:
		e.after, e.err = until(le.Uint32(b[16:]), le.Uint64(b[24:]), le.Uint16(b[40:]))
		e.ready = e.err != nil || e.after <= 0
	case eventFDRead, eventFDWrite:
		e.ready = true
		o, err := c.files().Get(int32(le.Uint32(b[16:])))
		switch {
		case err != nil:
			e.err = err
		case e.kind == eventFDRead && !o.Readable(), e.kind == eventFDWrite && !o.Writable():
			e.err = abi.EBADF
		case e.kind == eventFDRead:
			e.bytes = o.Left()
		default:
			e.bytes = writeRoom
		}
	default:
		return event{}, abi.EINVAL
	}
	return e, nil
}

// until is how long to wait for a clock to have moved by timeout, or to show it if flags say that it is absolute.
func until(clock uint32, timeout uint64, flags uint16) (time.Duration, error) {
	t, err := now(clock)
	switch {
	case err != nil:
		return 0, err
	case flags > 1:
		return 0, abi.EINVAL
	}
	d := int64(min(timeout, math.MaxInt64))
	if flags == 1 {
		d -= t
	}
	return time.Duration(d), nil
}

func (e event) put(b []byte) {
	clear(b[:eventSize])
	le.PutUint64(b, e.user)
	if e.err != nil {
		le.PutUint16(b[8:], uint16(errno(e.err)))
	}
	b[10] = e.kind
	le.PutUint64(b[16:], uint64(e.bytes))
}

// sleep waits for d. If the call ends first it ends the guest, which must not take it for a night's rest.
func (c *Call) sleep(d time.Duration) {
	c.Meter().Waiting(func() {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-c.Done():
		}
	})
	if err := c.Err(); err != nil {
		panic(machine.Abort{Err: err})
	}
}
