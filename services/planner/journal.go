package planner

import (
	"context"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"skein.dev"
	"skein.dev/platform/fault"
)

// journal is where a leader's durable calls are written, for one term. What the core wants written waits in a queue, and one
// goroutine writes as much of it as has gathered by one round trip. The lock is below the planner's.
type journal struct {
	db    *db
	lease string
	mu    sync.Mutex
	ops   []*op
	taken int   // that are being written
	last  int64 // number of the newest change
	down  error // why nothing can be accepted
	wake  chan struct{}
	doubt chan struct{} // Redis says that another leads
}

// op is one change of the journal. Those of one call are made in their order.
type op struct {
	kind opKind
	rec  Record // as it was then
	meta []byte
	sent int
	// number orders the changes of a term: a command that was given up may be carried out late.
	number int64

	writing        // of db.write
	answer  string // set by it, with what follows
	err     error
	refused bool // err is what Redis says
	eval    bool // Redis must be told the script
}

type opKind uint8

const (
	acceptOp opKind = iota + 1
	updateOp
	finishOp
	removeOp
)

// Bounds of one batch: Redis serves nobody else while it runs a script, and what is large takes time on the way.
const (
	batchOps   = 256
	batchParts = 4 << 20 // bytes
)

func newJournal(d *db, lease string) *journal {
	return &journal{db: d, lease: lease, wake: make(chan struct{}, 1), doubt: make(chan struct{}, 1)}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// put has a record written as it is now.
func (j *journal) put(r *Record) {
	o := &op{kind: updateOp, rec: *r}
	switch {
	case r.State.Terminal():
		o.kind = finishOp
	case r.Attempt == 1:
		o.kind = acceptOp
	}
	j.add(o)
}

// remove takes a call back.
func (j *journal) remove(r *Record) {
	o := &op{kind: removeOp}
	o.rec.ID, o.rec.Function, o.rec.RequestID = r.ID, r.Function, r.RequestID
	j.add(o)
}

func (j *journal) add(o *op) {
	j.mu.Lock()
	j.last++
	o.number = j.last
	j.ops = append(j.ops, o)
	j.mu.Unlock()
	signal(j.wake)
}

// next is a number for a change that does not wait in the queue.
func (j *journal) next() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last++
	return j.last
}

// abandon drops the acceptance of a call if it was not sent. It is false if it was, and may have happened.
func (j *journal) abandon(id skein.CallID) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i, o := range j.ops {
		if o.rec.ID == id && o.kind == acceptOp && o.sent == 0 {
			j.ops = append(j.ops[:i:i], j.ops[i+1:]...)
			return true
		}
	}
	return false
}

// pending is how many changes are not made yet.
func (j *journal) pending() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.ops) + j.taken
}

func (j *journal) setDown(err error) {
	j.mu.Lock()
	j.down = err
	j.mu.Unlock()
}

// usable says why nothing can be accepted now.
func (j *journal) usable() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.down
}

// take gives the next batch: no two changes of one call, so that each of them can be tried again alone.
func (j *journal) take() []*op {
	j.mu.Lock()
	defer j.mu.Unlock()
	var batch, rest []*op
	size, seen := 0, map[skein.CallID]bool{}
	for i, o := range j.ops {
		if len(batch) == batchOps || size > batchParts {
			rest = append(rest, j.ops[i:]...)
			break
		}
		if seen[o.rec.ID] {
			rest = append(rest, o)
			continue
		}
		seen[o.rec.ID] = true
		o.sent++
		size += len(o.rec.Input) + len(o.rec.Output) + len(o.rec.Log)
		batch = append(batch, o)
	}
	j.ops, j.taken = rest, len(batch)
	return batch
}

// giveBack puts changes that were not made in front of the others.
func (j *journal) giveBack(again []*op) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ops, j.taken = append(again, j.ops...), 0
}

// Pauses after a failure.
const (
	leastPause = 20 * time.Millisecond
	mostPause  = time.Second
)

// run writes what is put into the journal until ctx ends, and tells the planner.
func (j *journal) run(ctx context.Context, settled func(done []*op)) {
	pause := leastPause
	for {
		select {
		case <-ctx.Done():
			return
		case <-j.wake:
		}
		for batch := j.take(); len(batch) > 0; batch = j.take() {
			done, again, failed := j.write(ctx, batch)
			j.giveBack(again)
			settled(done)
			if !failed {
				pause = leastPause
				continue
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			pause = min(2*pause, mostPause)
		}
	}
}

// write tries to make changes. What is done has an answer, or an error that nothing will change.
func (j *journal) write(ctx context.Context, batch []*op) (done, again []*op, failed bool) {
	for _, o := range batch {
		if o.meta == nil && o.kind != removeOp {
			if o.meta, o.err = proto.Marshal(toJournal(&o.rec)); o.err != nil { // what is in a record was text already
				panic("planner: a record can't be written: " + o.err.Error())
			}
		}
	}
	j.db.write(ctx, j.lease, batch)
	var down error
	for _, o := range batch {
		switch {
		case o.err == nil && o.answer == leaseLost:
			signal(j.doubt)
			again, failed = append(again, o), true
		case o.err == nil && o.answer == goneCall: // Redis has lost it; the memory has not
			o.kind = acceptOp
			again = append(again, o)
		case o.err == nil && (o.answer == written || o.answer == lateWrite || strings.HasPrefix(o.answer, otherCall)):
			done = append(done, o)
		case o.eval && o.err != nil && strings.HasPrefix(o.err.Error(), "NOSCRIPT"), o.err == nil:
			again = append(again, o)
		case o.kind == acceptOp && o.rec.Attempt == 1 && (o.refused || o.sent > 1): // the first failure may be that of an old connection
			done = append(done, o)
			down = o.err
			failed = true
		default:
			again, failed = append(again, o), failed || o.kind != acceptOp || o.rec.Attempt > 1
			down = o.err
		}
	}
	if down == nil || !errors.Is(down, fault.Exhausted) {
		j.setDown(down)
	}
	return done, again, failed
}

// settled takes what the journal has done.
func (p *Planner) settled(j *journal, done []*op) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.journal != j {
		return
	}
	now := p.now()
	defer p.wake()
	for _, o := range done {
		id := o.rec.ID
		switch {
		case o.kind == removeOp:
			continue
		case o.err != nil:
			p.reject(now, id, o.err, skein.CallID{})
			j.remove(&o.rec)
		case strings.HasPrefix(o.answer, otherCall):
			was := o.answer[len(otherCall):]
			other, err := skein.ParseCallID(was[:min(len(was), 32)])
			if err == nil && was[32:] != string(o.rec.BodyHash[:]) {
				err = requestReused(o.rec.RequestID, o.rec.Function)
			}
			p.reject(now, id, err, other)
		default:
			if w := p.waiters[id]; w != nil && o.kind == acceptOp {
				w.accept()
			}
			p.deliver(p.core.Stored(now, id))
		}
	}
}

// reject takes a call back that the journal did not accept: for an error, or since another has its request id.
func (p *Planner) reject(now time.Time, id skein.CallID, err error, other skein.CallID) {
	w := p.waiters[id]
	delete(p.waiters, id)
	p.core.Withdraw(now, id)
	p.deliver(p.core.Stored(now, id)) // of one that was cancelled meanwhile
	if w != nil {
		w.err, w.other = err, other
		w.fail()
	}
}

// patience is how long a caller waits for the journal before it is told that the call can't be accepted: as long as Redis may
// take to answer.
func (p *Planner) patience() time.Duration {
	if p.candidate == nil {
		return time.Second // nothing is waited for
	}
	return p.candidate.db.timeout
}

// abandon gives up waiting for the acceptance of a call. What may be in the journal of it is taken back as soon as that is possible.
func (p *Planner) abandon(id skein.CallID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.waiters[id]
	if w == nil || w.isAccepted() {
		return
	}
	if r := p.core.calls[id]; r != nil && !p.journal.abandon(id) {
		p.journal.remove(&r.Record)
	}
	p.reject(p.now(), id, journalDown("it did not answer within "+p.patience().String()), skein.CallID{})
	p.wake()
}

// Find gives a call's record as it may be shown, from memory or else from the journal, with the output and log of one that has ended.
func (p *Planner) Find(ctx context.Context, id skein.CallID) (*Record, error) {
	p.mu.Lock()
	var rec *Record
	if r := p.core.calls[id]; r != nil {
		rec = r.visible()
	}
	j := p.journal
	p.mu.Unlock()
	if rec != nil && rec.whole() {
		return rec, nil
	}
	if j == nil {
		return nil, noCall(id)
	}
	got, err := j.db.read(ctx, []skein.CallID{id}, "o", "l")
	switch {
	case err != nil:
		return nil, err
	case got[0].err != nil:
		return nil, got[0].err
	case got[0].rec == nil || !got[0].rec.State.Terminal(): // what has not ended is in memory, unless it was never acknowledged
		return nil, noCall(id)
	}
	if rec != nil {
		rec.Output, rec.Log = got[0].rec.Output, got[0].rec.Log
		return rec, nil
	}
	return got[0].rec, nil
}

// deadScan bounds how many dead letters are looked at for a page of one user's.
const deadScan = 5000

// deadLetters lists dead letters without their inputs, newest first, of one user or of all. A page begins after the cursor
// that the page before gave, and "" is the first and what follows the last. It may have less than most, and another follow.
func (p *Planner) deadLetters(ctx context.Context, user skein.User, after string, most int) (letters []*Record, next string, err error) {
	j, err := p.leader()
	if err != nil || j == nil {
		return nil, "", err
	}
	at, err := parseCursor(after)
	if err != nil {
		return nil, "", err
	}
	for scanned := 0; scanned < deadScan; {
		page, err := j.db.deadAfter(ctx, at, min(most+1, 200))
		if err != nil || len(page) == 0 {
			return letters, "", err
		}
		scanned += len(page)
		ids := make([]skein.CallID, 0, len(page))
		for _, s := range page {
			id, err := skein.ParseCallID(s.id)
			if err != nil {
				return nil, "", fault.DataLoss.New("BAD_JOURNAL", "the journal names a dead letter %.40q", s.id)
			}
			ids = append(ids, id)
		}
		got, err := j.db.read(ctx, ids)
		if err != nil {
			return nil, "", err
		}
		for i, f := range got {
			if f.rec != nil && f.rec.Dead && (user == "" || f.rec.Function.User == user) {
				if len(letters) == most {
					return letters, at.String(), nil
				}
				letters = append(letters, f.rec)
			}
			at = page[i]
		}
	}
	return letters, at.String(), nil
}

func (s score) String() string { return strconv.FormatInt(s.ms, 10) + "." + s.id }

func parseCursor(text string) (score, error) {
	if text == "" {
		return score{}, nil
	}
	ms, id, _ := strings.Cut(text, ".")
	n, err := strconv.ParseInt(ms, 10, 64)
	if _, bad := hex.DecodeString(id); err != nil || bad != nil || id == "" {
		return score{}, badToken()
	}
	return score{n, id}, nil
}

// deadLetter gives one with its input.
func (p *Planner) deadLetter(ctx context.Context, id skein.CallID) (*Record, error) {
	j, err := p.leader()
	if err != nil {
		return nil, err
	}
	if j == nil {
		return nil, noDeadLetter(id)
	}
	got, err := j.db.read(ctx, []skein.CallID{id}, "i")
	switch {
	case err != nil:
		return nil, err
	case got[0].err != nil:
		return nil, got[0].err
	case got[0].rec == nil || !got[0].rec.Dead:
		return nil, noDeadLetter(id)
	}
	return got[0].rec, nil
}

// removeDead deletes a dead letter and all that is known of the call.
func (p *Planner) removeDead(ctx context.Context, id skein.CallID) error {
	rec, err := p.deadLetter(ctx, id)
	if err != nil {
		return err
	}
	j, err := p.leader()
	if err != nil {
		return err
	}
	o := &op{kind: removeOp, rec: *rec, eval: true, number: j.next()}
	j.db.write(ctx, j.lease, []*op{o})
	if err := fenced(o.answer, o.err); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.core.remove(id)
	return nil
}

func noDeadLetter(id skein.CallID) error {
	return fault.NotFound.New("NO_DEAD_LETTER", "there is no dead letter %s", id).WithHint("they are kept for %d days", int(deadAge.Hours()/24))
}

// hook is a webhook that is to be called.
type hook struct {
	ID    skein.CallID // Find gives its record
	URL   string
	Tries int // that failed
}

// dueHooks gives webhooks that are to be called now. They stay due until putHook says otherwise. A planner that does not lead has none.
func (p *Planner) dueHooks(ctx context.Context, now time.Time, most int) ([]hook, error) {
	j, err := p.leader()
	if err != nil || j == nil {
		return nil, nil //nolint:nilerr // the leader sees to them
	}
	ids, err := j.db.due(ctx, "hooks", now, most)
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	got, err := j.db.read(ctx, ids)
	if err != nil {
		return nil, err
	}
	var out []hook
	for i, f := range got {
		if f.rec == nil { // it expired, and its place in the list with it
			if err := p.putHook(ctx, ids[i], 0, time.Time{}); err != nil {
				return nil, err
			}
			continue
		}
		out = append(out, hook{f.rec.ID, f.rec.Webhook, f.tries})
	}
	return out, nil
}

// putHook says how often a webhook failed, and when to try next; a zero time means that it is done.
func (p *Planner) putHook(ctx context.Context, id skein.CallID, tries int, next time.Time) error {
	j, err := p.leader()
	if err != nil || j == nil {
		return err
	}
	at := int64(0)
	if !next.IsZero() {
		at = next.UnixMilli()
	}
	return fenced(j.db.script(ctx, hookScript, []string{keys + "lease", keys + "hooks", callKey(id)}, j.lease, id.String(), tries, at))
}

// Policy is how calls are placed.
func (p *Planner) Policy() Policy {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.core.policy
}

// SetPolicy changes how calls are placed from now on, also after a restart.
func (p *Planner) SetPolicy(ctx context.Context, policy Policy) error {
	j, err := p.leader()
	if err != nil {
		return err
	}
	if j != nil {
		if err := fenced(j.db.script(ctx, setScript, []string{keys + "lease", keys + "policy"}, j.lease, policy.String())); err != nil {
			return err
		}
	}
	p.apply(func(now time.Time) []Command { return p.core.SetPolicy(now, policy) })
	return nil
}

// fenced makes an error of the answer of a script that only a leader may run.
func fenced(answer string, err error) error {
	if err == nil && answer == leaseLost {
		return fault.Unavailable.New("STANDBY", "this planner does not lead any more").WithRetry(time.Second)
	}
	return err
}

func requestReused(requestID string, f skein.Function) error {
	return fault.Exists.New("REQUEST_ID_REUSED", "request id %q was used for another call of %s", requestID, f).
		WithHint("choose a new request id for a new input")
}
