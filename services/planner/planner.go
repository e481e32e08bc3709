// Package planner decides where a call runs and who gets its result. Executors attach by a standing stream; Invoke gives a
// call an id, places it on a free slot or in the queue, and waits for its end. core.go keeps the books as a pure machine,
// queue.go is the fair queue, attach.go the streams, resolve.go knows what a function's name stands for, journal.go keeps what must
// outlive the process, and standby.go sees to it that one of several planners leads.
package planner

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

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
	limits   Limits
	resolve  func(context.Context, skein.Function) (Target, error)
	now      func() time.Time
	mu       sync.Mutex
	core     *Core
	waiters  map[skein.CallID]*waiter
	streams  map[string]*stream
	filled   []*stream      // those with something new in their outboxes, whose senders sleep still
	unsaved  []skein.CallID // what the core wants in a journal that there is not
	draining bool
	watches  watches

	candidate *candidate                  // nil if this planner keeps its calls in memory only
	journal   *journal                    // while it leads
	idle      atomic.Pointer[fault.Error] // why it answers nothing
	drained   chan struct{}               // closed when nobody waits for its calls any more
}

// waiter is woken when a call ends.
type waiter struct {
	done     chan struct{}
	ended    *Record       // set before done is closed, or err is, or other
	err      error         // why its end will not be known here
	other    skein.CallID  // the call that had its request id before
	accepted chan struct{} // closed when the journal has it; nil if it need not
}

// accept tells those who wait for the acceptance. The caller holds mu.
func (w *waiter) accept() {
	if w.accepted != nil && !w.isAccepted() {
		close(w.accepted)
	}
}

// fail tells all who wait that there will be no end. First done: who waits for the acceptance looks at it then.
func (w *waiter) fail() {
	close(w.done)
	w.accept()
}

func (w *waiter) isAccepted() bool {
	if w.accepted == nil {
		return true
	}
	select {
	case <-w.accepted:
		return true
	default:
		return false
	}
}

// New makes a planner; resolve gives a function's current version.
func New(limits Limits, log *slog.Logger, resolve func(context.Context, skein.Function) (Target, error)) *Planner {
	return &Planner{
		log: log, limits: limits, resolve: resolve, now: time.Now, core: NewCore(limits),
		waiters: map[skein.CallID]*waiter{}, streams: map[string]*stream{}, drained: make(chan struct{}),
	}
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
		return w.ended, w.err
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
	o, err := p.offer(ctx, q)
	if err != nil {
		return nil, nil, err
	}
	return p.settle(ctx, o, time.Now().Add(p.patience()))
}

// offered is a call that the core has accepted. The journal may not have yet.
type offered struct {
	rec  *Record
	w    *waiter
	opts Options
}

func (p *Planner) offer(ctx context.Context, q Request) (offered, error) {
	if err := q.check(); err != nil {
		return offered{}, err
	}
	target, err := p.resolve(ctx, q.Function)
	if err != nil {
		return offered{}, err
	}
	now := p.now()
	call, opts, err := q.call(now, target)
	if err != nil {
		return offered{}, err
	}
	otel.GetTextMapPropagator().Inject(ctx, propagation.MapCarrier(call.Trace))
	if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
		opts.TraceID = sc.TraceID().String()
	}

	rec, w, err := p.enroll(now, call, opts)
	return offered{rec, w, opts}, err
}

// settle gives the call that an offer came to, once the journal has it, and gives up at a time.
func (p *Planner) settle(ctx context.Context, o offered, until time.Time) (*Record, *waiter, error) {
	switch {
	case !o.rec.whole(): // it ended long ago
		return p.join(ctx, o.rec.ID, o.opts)
	case o.w.accepted == nil:
		return o.rec, o.w, nil
	}
	return p.awaitAccept(ctx, o.rec, o.w, o.opts, until)
}

// enroll gives a call to the core.
func (p *Planner) enroll(now time.Time, call skein.Call, opts Options) (*Record, *waiter, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.draining {
		return nil, nil, fault.Unavailable.New("DRAINING", "this planner is shutting down").WithRetry(time.Second)
	}
	if err := p.standing(); err != nil {
		return nil, nil, err
	}
	if opts.Durable && p.journal != nil {
		if err := p.journal.usable(); err != nil && (opts.RequestID == "" || p.core.requests[requestKey{call.Function, opts.RequestID}].IsZero()) {
			return nil, nil, err
		}
	}
	// The waiter is there before the call is: its end may come within the same event.
	w := &waiter{done: make(chan struct{})}
	if opts.Durable && p.journal != nil {
		w.accepted = make(chan struct{})
	}
	p.waiters[call.ID] = w
	id, commands, err := p.core.Submit(now, call, opts)
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
		return r.visible(), w, nil
	}
	return w.ended, w, nil // it has ended and is forgotten already: the history is that short
}

// awaitAccept waits until a call is in the journal, or is not.
func (p *Planner) awaitAccept(ctx context.Context, rec *Record, w *waiter, opts Options, until time.Time) (*Record, *waiter, error) {
	var late <-chan time.Time
	if !w.isAccepted() {
		patience := time.NewTimer(time.Until(until))
		defer patience.Stop()
		late = patience.C
	}
	select {
	case <-w.accepted:
	case <-late:
		p.abandon(rec.ID)
		<-w.accepted
	case <-ctx.Done():
		return nil, nil, fault.From(ctx.Err())
	}
	select {
	case <-w.done:
	default:
		return rec, w, nil
	}
	switch {
	case w.err != nil:
		return nil, nil, w.err
	case w.other.IsZero():
		return w.ended, w, nil
	}
	return p.join(ctx, w.other, opts)
}

// join gives the call that the journal knows of a request id.
func (p *Planner) join(ctx context.Context, id skein.CallID, opts Options) (*Record, *waiter, error) {
	rec, err := p.Find(ctx, id)
	if err != nil {
		if errors.Is(err, fault.NotFound) { // it expired meanwhile, or is being taken back
			err = fault.Unavailable.New("REQUEST_ID_BUSY", "the call that had request id %q is being removed", opts.RequestID).WithRetry(time.Second)
		}
		return nil, nil, err
	}
	if rec.BodyHash != opts.BodyHash {
		return nil, nil, requestReused(opts.RequestID, rec.Function)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.waiter(id)
	if p.core.calls[id] == nil || rec.State.Terminal() {
		w = &waiter{done: make(chan struct{}), ended: rec}
		close(w.done)
	}
	return rec, w, nil
}

// waiter gives the waiter of a known call. The caller holds mu.
func (p *Planner) waiter(id skein.CallID) *waiter {
	if w := p.waiters[id]; w != nil {
		return w
	}
	w := &waiter{done: make(chan struct{})}
	switch r := p.core.calls[id]; {
	case r != nil && r.State.Terminal() && !r.Unsaved:
		w.ended = r.visible()
		close(w.done)
	case r != nil:
		p.waiters[id] = w
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
	p.handOut(commands)
	for len(p.unsaved) > 0 {
		id := p.unsaved[0]
		p.unsaved = p.unsaved[1:]
		p.handOut(p.core.Stored(p.now(), id))
	}
}

// handOut is deliver but for a journal's part.
func (p *Planner) handOut(commands []Command) {
	for i := range commands {
		if p.watches.count > 0 && commands[i].Call != nil {
			p.notify(commands[i].Call.ID)
		}
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
		case Store:
			if p.journal != nil {
				p.journal.put(c.Call)
			} else {
				p.unsaved = append(p.unsaved, c.Call.ID)
			}
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
	target, err := p.resolve(context.Background(), f)
	p.apply(func(now time.Time) []Command { return p.core.Resolved(now, root, f, target.Version, err) })
}

func noCall(id skein.CallID) error {
	return fault.NotFound.New("NO_CALL", "there is no call %s", id).
		WithHint("it may have expired; one without a request_id that was waited for is forgotten when the planner ends")
}

// Wait waits at most d for a call's end and gives its record either way.
func (p *Planner) Wait(ctx context.Context, id skein.CallID, d time.Duration) (*Record, error) {
	p.mu.Lock()
	if r := p.core.calls[id]; r == nil || !r.Unsaved && !r.whole() {
		p.mu.Unlock()
		return p.Find(ctx, id)
	}
	w := p.waiter(id)
	p.mu.Unlock()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-w.done:
		if w.ended == nil && w.err == nil { // another has its request id
			return nil, noCall(id)
		}
		return w.ended, w.err
	case <-timer.C:
		return p.Find(ctx, id)
	case <-ctx.Done():
		return nil, fault.From(ctx.Err())
	}
}

// Cancel asks for a call's end and gives its record, which shows the end once the journal has it.
func (p *Planner) Cancel(ctx context.Context, id skein.CallID) (*Record, error) {
	p.mu.Lock()
	p.carryOut(p.core.Cancel(p.now(), id))
	r := p.core.calls[id]
	wait := r != nil && r.Unsaved
	p.mu.Unlock()
	if wait {
		return p.Wait(ctx, id, p.patience())
	}
	return p.Find(ctx, id)
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
		calls = append(calls, r.visible())
	}
	return calls, false
}

// Executors lists what is attached.
func (p *Planner) Executors() []Executor {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Executor, 0, len(p.core.executors))
	for _, ex := range p.core.executors {
		out = append(out, ex.shown())
	}
	return out
}

// Cordon stops the placing of calls on an executor, or allows it again.
func (p *Planner) Cordon(id string, on bool) (Executor, error) {
	return p.label(id, func(now time.Time) ([]Command, error) {
		if ex := p.core.executors[id]; ex != nil && ex.Leaving && !on {
			return nil, fault.Precondition.New("EXECUTOR_LEAVING", "executor %.64q is shutting down", id).WithHint("start it again")
		}
		return p.core.Cordon(now, id, on)
	})
}

// Mark says of an executor that its machine will be taken away, or takes that back.
func (p *Planner) Mark(id string, on bool) (Executor, error) {
	return p.label(id, func(now time.Time) ([]Command, error) { return p.core.Mark(now, id, on) })
}

func (p *Planner) label(id string, change func(now time.Time) ([]Command, error)) (Executor, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	commands, err := change(p.now())
	if err != nil {
		return Executor{}, err
	}
	p.carryOut(commands)
	return p.core.executors[id].shown(), nil
}

// shown is an executor with what is counted of it.
func (ex *executor) shown() Executor {
	e := ex.Executor
	e.Used, e.Direct, e.Modules = ex.used(), ex.direct, len(ex.loaded)
	return e
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
			p.apply(func(now time.Time) []Command { return p.core.Tick(now) })
		}
	}
}

// Drain refuses new calls and waits until those that somebody waits for have ended, and all that ended is in the journal, or
// until ctx ends. Other calls of the journal go on with whoever leads next.
func (p *Planner) Drain(ctx context.Context) error {
	p.mu.Lock()
	p.draining = true
	p.mu.Unlock()
	defer p.retire(ctx)
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		left := p.left()
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

// left is how many calls a drain must wait for.
func (p *Planner) left() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.journal == nil {
		return len(p.core.deadlines) + len(p.core.lookups)
	}
	n := p.journal.pending()
	for _, r := range p.core.deadlines {
		root := r
		for root.parent != nil {
			root = root.parent
		}
		if !root.Durable || root.Sync {
			n++
		}
	}
	return n
}

// retire gives the lease back and ends the streams.
func (p *Planner) retire(ctx context.Context) {
	close(p.drained)
	if p.candidate != nil {
		select {
		case <-p.candidate.ended:
		case <-ctx.Done():
		}
	}
	p.dropAll("the planner is shutting down")
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
