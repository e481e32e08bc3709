package planner

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"

	"skein.dev"
	"skein.dev/platform/fault"
)

// Of several planners with one journal one leads: the holder of a lease in Redis. The others stand by: they answer nothing, and
// take over when the lease runs out or is given back. A leader whose Redis is away goes on with what needs no journal; it steps
// down when it sees that another has led.

const (
	renewPause     = time.Second
	candidatePause = 300 * time.Millisecond
)

// candidate is what a planner needs to lead.
type candidate struct {
	db       *db
	token    string // this process, in the lease
	place    string // where it listens: host and address
	volatile bool   // a Redis that may lose calls will do
	ended    chan struct{}
}

// standing says why the planner answers nothing, if so.
func (p *Planner) standing() error {
	if why := p.idle.Load(); why != nil {
		return why
	}
	return nil
}

// leader gives the journal, nil if there is none.
func (p *Planner) leader() (*journal, error) {
	if err := p.standing(); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.journal, nil
}

// stand makes the planner idle for a reason; it says so once.
func (p *Planner) stand(err error) {
	why := fault.From(err)
	if was := p.idle.Swap(why); was == nil || was.Reason != why.Reason {
		p.log.Info("stands by", "reason", why.Reason, "why", why.Message)
	}
}

// newCandidate makes the planner one of those that may lead. Until it does it answers nothing.
func (p *Planner) newCandidate(d *db, listen string, volatile bool) {
	host, _ := os.Hostname()
	p.candidate = &candidate{db: d, token: skein.NewCallID().String(), place: host + " " + listen, volatile: volatile, ended: make(chan struct{})}
	p.idle.Store(fault.Unavailable.New("STANDBY", "this planner does not know yet whether it leads").WithRetry(time.Second))
}

// address is where the planner at a place is found, for people.
func address(place string) string {
	host, listen, _ := strings.Cut(place, " ")
	at, port, err := net.SplitHostPort(listen)
	if ip := net.ParseIP(at); err == nil && host != "" && (at == "" || ip != nil && ip.IsUnspecified()) {
		return net.JoinHostPort(host, port)
	}
	return listen
}

// lead waits for the lease and leads while it is ours, again and again, until ctx ends or the planner has drained.
func (p *Planner) lead(ctx context.Context) error {
	c := p.candidate
	defer close(c.ended)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-p.drained:
			cancel()
		case <-ctx.Done():
		}
	}()
	for ctx.Err() == nil {
		lease, err := c.try(ctx)
		if err == nil {
			err = p.term(ctx, lease)
		}
		if ctx.Err() == nil && err != nil {
			p.stand(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(candidatePause):
		}
	}
	return nil
}

// try takes the lease, or says who has it.
func (c *candidate) try(ctx context.Context) (lease string, err error) {
	if !c.volatile {
		if err := c.db.durable(ctx); err != nil {
			return "", err
		}
	}
	mine := c.token + " " + c.place
	lease, err = c.db.acquire(ctx, mine, "")
	if err != nil {
		return "", err
	}
	_, holder, _ := strings.Cut(lease, " ")
	token, place, _ := strings.Cut(holder, " ")
	if token != c.token && place == c.place { // we listen there, so that one is dead
		if lease, err = c.db.acquire(ctx, mine, lease); err != nil {
			return "", err
		}
		_, holder, _ = strings.Cut(lease, " ")
		token, place, _ = strings.Cut(holder, " ")
	}
	if token != c.token {
		return "", fault.Unavailable.New("STANDBY", "this planner stands by").WithHint("the leader is %s", address(place)).WithRetry(time.Second)
	}
	return lease, nil
}

// term leads under a lease until it is lost or ctx ends.
func (p *Planner) term(ctx context.Context, lease string) error {
	c := p.candidate
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	j := newJournal(c.db, lease)
	renewed := make(chan struct{})
	go func() { // also while the calls are read, which may take longer than the lease
		defer close(renewed)
		j.keep(ctx, cancel)
	}()
	err := p.takeOver(ctx, j)
	if err == nil {
		p.log.Info("leads", "lease", strings.Fields(lease)[0], "calls", p.live())
		written := make(chan struct{})
		go func() {
			defer close(written)
			j.run(ctx, func(done []*op) { p.settled(j, done) })
		}()
		<-ctx.Done()
		<-written
		if err = context.Cause(ctx); err == nil || ctx.Err() == err { //nolint:errorlint // it is the cause itself
			err = fault.Unavailable.New("DRAINING", "this planner is shutting down").WithRetry(time.Second)
		}
		p.stepDown(err)
	}
	cancel(nil)
	<-renewed
	bounded, stop := context.WithTimeout(context.WithoutCancel(ctx), c.db.timeout)
	defer stop()
	if e := c.db.release(bounded, lease); e != nil {
		p.log.Warn("the lease was not given back: it runs out", "error", e)
	}
	return err
}

// keep renews the lease until ctx ends, or ends it when another leads.
func (j *journal) keep(ctx context.Context, lost context.CancelCauseFunc) {
	t := time.NewTicker(renewPause)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-j.doubt:
		}
		ok, err := j.db.renew(ctx, j.lease)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			j.setDown(err)
		case !ok:
			lost(fault.Unavailable.New("STANDBY", "another planner leads").WithRetry(time.Second))
			return
		default:
			j.setDown(nil)
		}
	}
}

// recoverPage is how many calls are read at once.
const recoverPage = 100

// takeOver reads the journal into a new core and leads.
func (p *Planner) takeOver(ctx context.Context, j *journal) error {
	calls, broken, err := p.recover(ctx, j)
	if err != nil {
		return err
	}
	policy := BinPack
	name, err := j.db.get(ctx, "policy")
	if err != nil {
		return err
	}
	if name != "" {
		if policy, err = ParsePolicy(name); err != nil { // a later version's
			p.log.Error("the policy in the journal is not known: bin-pack is used", "policy", name)
			policy = BinPack
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.core, p.journal = NewCore(p.limits), j
	now := p.now()
	p.carryOut(p.core.SetPolicy(now, policy))
	p.carryOut(p.core.Recover(now, calls))
	for _, id := range broken {
		j.remove(&Record{Call: skein.Call{ID: id}})
	}
	p.idle.Store(nil)
	return nil
}

// recover reads the calls that have not ended with their inputs, and the newest that have, in the order of their acceptance.
func (p *Planner) recover(ctx context.Context, j *journal) (calls []Record, broken []skein.CallID, err error) {
	seen := map[skein.CallID]bool{}
	read := func(set string, newest bool, most int, parts ...string) error {
		for from := 0; from < most; from += recoverPage {
			ids, err := j.db.page(ctx, set, int64(from), int64(min(recoverPage, most-from)), newest)
			if err != nil || len(ids) == 0 {
				return err
			}
			got, err := j.db.read(ctx, ids, parts...)
			if err != nil {
				return err
			}
			for i, f := range got {
				switch {
				case f.err != nil: // it stays: a later version may read it
					p.log.Error("a call is left out", "call", ids[i], "error", f.err)
				case f.rec == nil && !newest:
					p.log.Error("the journal has lost a call", "call", ids[i])
					broken = append(broken, ids[i])
				case f.rec != nil && !seen[ids[i]] && f.rec.State.Terminal() == newest:
					seen[ids[i]] = true
					calls = append(calls, *f.rec)
				}
			}
		}
		return nil
	}
	if err := read("live", false, 1<<31, "i"); err != nil {
		return nil, nil, fmt.Errorf("reading the calls of the journal: %w", err)
	}
	if err := read("ended", true, recovered); err != nil {
		return nil, nil, fmt.Errorf("reading the ended calls of the journal: %w", err)
	}
	slices.SortStableFunc(calls, func(a, b Record) int { return a.Created.Compare(b.Created) })
	return calls, broken, nil
}

// live is how many calls have not ended.
func (p *Planner) live() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.core.deadlines)
}

// stepDown forgets all: executors and callers hear of it, and the journal is another's.
func (p *Planner) stepDown(err error) {
	p.stand(err)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.streams {
		s.drop("this planner does not lead any more", detached("this planner does not lead any more"))
	}
	for _, w := range p.waiters {
		w.err = err
		w.fail()
	}
	p.core, p.journal = NewCore(p.limits), nil
	p.waiters, p.streams, p.filled, p.unsaved = map[skein.CallID]*waiter{}, map[string]*stream{}, nil, nil
}

// guarded registers services whose methods answer only while the planner leads.
type guarded struct {
	to grpc.ServiceRegistrar
	p  *Planner
}

func (g guarded) RegisterService(desc *grpc.ServiceDesc, impl any) {
	d := *desc
	d.Methods, d.Streams = slices.Clone(desc.Methods), slices.Clone(desc.Streams)
	for i, m := range desc.Methods {
		d.Methods[i].Handler = func(srv any, ctx context.Context, dec func(any) error, icept grpc.UnaryServerInterceptor) (any, error) {
			if err := g.p.standing(); err != nil {
				return nil, err
			}
			return m.Handler(srv, ctx, dec, icept)
		}
	}
	for i, s := range desc.Streams {
		d.Streams[i].Handler = func(srv any, stream grpc.ServerStream) error {
			if err := g.p.standing(); err != nil {
				return err
			}
			return s.Handler(srv, stream)
		}
	}
	g.to.RegisterService(&d, impl)
}

// leading is a REST handler that answers only while the planner leads.
func (p *Planner) leading(h func(http.ResponseWriter, *http.Request) error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := p.standing(); err != nil {
			return err
		}
		return h(w, r)
	}
}
