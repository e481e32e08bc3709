// Package planner decides where a call runs and who gets its result. Executors attach by a standing stream; Invoke gives a
// call an id, places it on a free slot or in the queue, and waits for its end. core.go keeps the books as a pure machine,
// queue.go is the fair queue, attach.go the streams, resolve.go knows what a function's name stands for.
package planner

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"skein.dev"
	"skein.dev/platform/fault"
)

// Planner places calls on executors and keeps their records.
//
// Lock order: mu, then a stream's. Commands of the core are carried out under it, and none of them blocks: a stream's outbox is
// bounded by its executor's slots and what its calls made, a waiter is a closed channel.
type Planner struct {
	log      *slog.Logger
	resolve  func(context.Context, skein.Function) (skein.Version, error)
	now      func() time.Time
	mu       sync.Mutex
	core     *Core
	waiters  map[skein.CallID]*waiter
	streams  map[string]*stream
	filled   []*stream // those with something new in their outboxes, whose senders sleep still
	draining bool
}

// waiter is woken when a call ends.
type waiter struct {
	done  chan struct{}
	ended *Record // set before done is closed
}

// New makes a planner; resolve gives a function's current version.
func New(limits Limits, log *slog.Logger, resolve func(context.Context, skein.Function) (skein.Version, error)) *Planner {
	return &Planner{
		log: log, resolve: resolve, now: time.Now, core: NewCore(limits),
		waiters: map[skein.CallID]*waiter{}, streams: map[string]*stream{},
	}
}

// Request is a call as a caller asks for it.
type Request struct {
	Function  skein.Function
	Input     []byte
	Args      []string
	Timeout   time.Duration // 0 for DefaultTimeout
	RequestID string
}

// Limits of a request.
const (
	DefaultTimeout = 60 * time.Second
	MaxTimeout     = 24 * time.Hour
	maxArgs        = 256
	maxArgBytes    = 64 << 10
	maxRequestID   = 128
)

func (q *Request) check() error {
	size := 0
	for _, a := range q.Args {
		size += len(a)
		if strings.IndexByte(a, 0) >= 0 {
			return fault.Invalid.New("BAD_ARGS", "an argument holds a NUL byte")
		}
		if !utf8.ValidString(a) { // the message to the executor could not be encoded, and its stream would end
			return fault.Invalid.New("BAD_ARGS", "an argument is not UTF-8").WithHint("pass bytes as input")
		}
	}
	switch {
	case len(q.Input) > skein.MaxPayload:
		return inputTooLarge(int64(len(q.Input)))
	case len(q.Args) > maxArgs || size > maxArgBytes:
		return fault.TooLarge.New("TOO_LARGE", "%d arguments of %d bytes in all: at most %d and %d are allowed", len(q.Args), size, maxArgs, maxArgBytes).
			WithHint("pass the data as input")
	case len(q.Input)+size > skein.MaxPayload: // both travel in one message, and an executor's stream ends by one too large
		return fault.TooLarge.New("TOO_LARGE", "the input and the arguments have %d bytes together, at most %d are allowed", len(q.Input)+size, skein.MaxPayload).
			WithHint("put large data into a file or a state value and pass its name")
	case len(q.RequestID) > maxRequestID:
		return fault.Invalid.New("BAD_REQUEST_ID", "the request id has %d bytes, at most %d are allowed", len(q.RequestID), maxRequestID)
	case q.Timeout < 0 || q.Timeout > MaxTimeout:
		return fault.Invalid.New("BAD_TIMEOUT", "a timeout of %s is not between 0 and %s", q.Timeout, MaxTimeout)
	}
	return nil
}

func inputTooLarge(size int64) error {
	return fault.TooLarge.New("TOO_LARGE", "the input has %d bytes or more, at most %d are allowed", size, skein.MaxPayload).
		WithHint("put large data into a file or a state value and pass its name")
}

// bodyHash tells whether two requests with one id ask for the same.
func (q *Request) bodyHash() (sum [32]byte) {
	if q.RequestID == "" {
		return sum
	}
	h := sha256.New()
	var n [8]byte
	for _, a := range append([]string{string(q.Input)}, q.Args...) {
		binary.LittleEndian.PutUint64(n[:], uint64(len(a)))
		h.Write(n[:])
		h.Write([]byte(a))
	}
	return [32]byte(h.Sum(nil))
}

// Invoke runs a call and waits for its end. If ctx ends first the call is cancelled, unless a request id lets another
// request join it.
func (p *Planner) Invoke(ctx context.Context, q Request) (rec *Record, err error) {
	ctx, span := otel.Tracer("skein.dev/services/planner").Start(ctx, "invoke "+q.Function.String(), trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attribute.String("faas.invoked_name", q.Function.String()), attribute.String("faas.invoked_provider", "skein")))
	defer func() { endSpan(span, rec, err) }()

	accepted, w, err := p.submit(ctx, q)
	if err != nil {
		return nil, err
	}
	select {
	case <-w.done:
		return w.ended, nil
	case <-ctx.Done():
		if q.RequestID == "" {
			p.apply(func(now time.Time) []Command { return p.core.Cancel(now, accepted.ID) })
		}
		return nil, fault.From(ctx.Err())
	}
}

// Submit accepts a call and returns at once.
func (p *Planner) Submit(ctx context.Context, q Request) (*Record, error) {
	accepted, _, err := p.submit(ctx, q)
	return accepted, err
}

func (p *Planner) submit(ctx context.Context, q Request) (*Record, *waiter, error) {
	if err := q.check(); err != nil {
		return nil, nil, err
	}
	version, err := p.resolve(ctx, q.Function)
	if err != nil {
		return nil, nil, err
	}
	if q.Timeout == 0 {
		q.Timeout = DefaultTimeout
	}
	now := p.now()
	call := skein.Call{
		ID: skein.NewCallID(), Function: q.Function, Version: version, Input: q.Input, Args: q.Args,
		Deadline: now.Add(q.Timeout), Trace: map[string]string{},
	}
	otel.GetTextMapPropagator().Inject(ctx, propagation.MapCarrier(call.Trace))
	traceID := ""
	if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
		traceID = sc.TraceID().String()
	}
	hash := q.bodyHash()

	p.mu.Lock()
	defer p.mu.Unlock()
	if p.draining {
		return nil, nil, fault.Unavailable.New("DRAINING", "this planner is shutting down").WithRetry(time.Second)
	}
	// The waiter is there before the call is: its end may come within the same event.
	w := &waiter{done: make(chan struct{})}
	p.waiters[call.ID] = w
	id, commands, err := p.core.Submit(now, call, Options{RequestID: q.RequestID, TraceID: traceID, BodyHash: hash})
	if err != nil {
		delete(p.waiters, call.ID)
		return nil, nil, err
	}
	if id != call.ID {
		delete(p.waiters, call.ID)
		w = p.waiter(id)
	}
	p.carryOut(commands)
	if r := p.core.calls[id]; r != nil {
		copied := r.Record
		return &copied, w, nil
	}
	return w.ended, w, nil // it has ended and is forgotten already: the history is that short
}

// waiter gives the waiter of a known call. The caller holds mu.
func (p *Planner) waiter(id skein.CallID) *waiter {
	if w := p.waiters[id]; w != nil {
		return w
	}
	w := &waiter{done: make(chan struct{})}
	if r := p.core.calls[id]; r != nil && r.State.Terminal() {
		copied := r.Record
		w.ended = &copied
		close(w.done)
	}
	return w
}

// apply lets an event happen.
func (p *Planner) apply(event func(now time.Time) []Command) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.carryOut(event(p.now()))
}

// carryOut does what the core wants done. The streams' senders wake when all is in their outboxes.
func (p *Planner) carryOut(commands []Command) {
	p.deliver(commands)
	p.wake()
}

func (p *Planner) wake() {
	for _, s := range p.filled {
		s.filled = false
		s.nudge()
	}
	p.filled = p.filled[:0]
}

func (p *Planner) deliver(commands []Command) {
	for i := range commands {
		switch c := &commands[i]; c.Kind {
		case Dispatch, CancelOn, Accepted, Refused, ChildEnded, Drained:
			if s := p.streams[c.Executor]; s != nil {
				s.put(c)
				if !s.filled {
					s.filled = true
					p.filled = append(p.filled, s)
				}
			}
		case Drop:
			if s := p.streams[c.Executor]; s != nil {
				s.drop(c.Reason, detached(c.Reason))
			}
		case Resolve:
			go p.lookUp(c.Call.ID, c.Function)
		case Ended:
			if w := p.waiters[c.Call.ID]; w != nil {
				delete(p.waiters, c.Call.ID)
				w.ended = c.Call
				close(w.done)
			}
		}
	}
}

// lookUp finds the version of a function that a call named. It ends by itself: the resolver's patience is short.
func (p *Planner) lookUp(root skein.CallID, f skein.Function) {
	version, err := p.resolve(context.Background(), f)
	p.apply(func(now time.Time) []Command { return p.core.Resolved(now, root, f, version, err) })
}

func noCall(id skein.CallID) error {
	return fault.NotFound.New("NO_CALL", "there is no call %s", id).WithHint("records are kept for a day at most, and not over a restart of the planner")
}

// Get gives a call's record as it is now.
func (p *Planner) Get(id skein.CallID) (*Record, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.core.calls[id]
	if r == nil {
		return nil, noCall(id)
	}
	copied := r.Record
	return &copied, nil
}

// Wait waits at most d for a call's end and gives its record either way.
func (p *Planner) Wait(ctx context.Context, id skein.CallID, d time.Duration) (*Record, error) {
	p.mu.Lock()
	if p.core.calls[id] == nil {
		p.mu.Unlock()
		return nil, noCall(id)
	}
	w := p.waiter(id)
	p.mu.Unlock()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-w.done:
		return w.ended, nil
	case <-timer.C:
		return p.Get(id)
	case <-ctx.Done():
		return nil, fault.From(ctx.Err())
	}
}

// Cancel asks for a call's end and gives its record.
func (p *Planner) Cancel(id skein.CallID) (*Record, error) {
	p.apply(func(now time.Time) []Command { return p.core.Cancel(now, id) })
	return p.Get(id)
}

// List gives the newest calls accepted before the one numbered `before` (0 for the newest of all), of one user or of all.
func (p *Planner) List(user skein.User, before uint64, most int) (calls []*Record, more bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for r := range p.core.listed.backward {
		if before != 0 && r.Seq >= before || user != "" && r.Function.User != user {
			continue
		}
		if len(calls) == most {
			return calls, true
		}
		copied := r.Record
		calls = append(calls, &copied)
	}
	return calls, false
}

// Executors lists what is attached.
func (p *Planner) Executors() []Executor {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Executor, 0, len(p.core.executors))
	for _, ex := range p.core.executors {
		e := ex.Executor
		e.Used, e.Modules = ex.used(), len(ex.loaded)
		out = append(out, e)
	}
	return out
}

// QueueLen is how many calls wait for a slot.
func (p *Planner) QueueLen() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.core.queue.len()
}

// Tick drives the core's clock until ctx ends.
func (p *Planner) Tick(ctx context.Context) error {
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			p.apply(p.core.Tick)
		}
	}
}

// Drain refuses new calls and waits until those accepted have ended or ctx does.
func (p *Planner) Drain(ctx context.Context) error {
	p.mu.Lock()
	p.draining = true
	p.mu.Unlock()
	defer p.dropAll("the planner is shutting down")
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		p.mu.Lock()
		left := len(p.core.deadlines) + len(p.core.lookups)
		p.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return fault.Timeout.New("DRAIN", "%d calls had not ended", left)
		}
	}
}

func endSpan(span trace.Span, rec *Record, err error) {
	switch {
	case err != nil:
		span.SetStatus(codes.Error, fault.From(err).Reason)
	case rec.State != skein.Succeeded:
		span.SetStatus(codes.Error, rec.Reason)
	}
	if rec != nil {
		span.SetAttributes(attribute.String("faas.invocation_id", rec.ID.String()))
		if !rec.Started.IsZero() {
			span.SetAttributes(attribute.Int64("skein.queue_us", rec.Started.Sub(rec.Created).Microseconds()))
		}
	}
	span.End()
}
