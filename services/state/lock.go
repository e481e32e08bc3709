package state

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
	"skein.dev/services/state/internal/feed"
)

const (
	defaultLease = 10 * time.Second
	minLease     = time.Second
	maxLease     = time.Minute
	maxPatience  = 24 * time.Hour
	maxHolder    = 128
	maxLocks     = 20_000      // that this process may hold and wait for
	lockPoll     = time.Second // a writer that waits looks at least so often, and keeps new readers out for twice that
)

// LockRequest is how a lock is wanted.
type LockRequest struct {
	Shared   bool          // many readers may hold it together
	Patience time.Duration // how long to wait; 0 only looks
	Lease    time.Duration // how long it is held without Renew; 0 means 10 s
	Holder   string        // who wants it, for people
	Token    int64         // of one that is held, to go on with it
}

// Lock is one that is held.
type Lock struct {
	Token int64 // above all that there were for this key
	Lease time.Duration

	store *Store
	key   skein.StateKey
}

// Lock takes the lock of a key, which need not have a value. It waits behind those who asked this process before; among
// processes there is no order, but a writer that waits keeps new readers out. After patience it fails with fault.Timeout,
// reason LOCK_TIMEOUT. If the process dies, the lock is free when its lease is over, unless another goes on with it by its token.
func (s *Store) Lock(ctx context.Context, k skein.StateKey, r LockRequest) (lock *Lock, err error) {
	ctx, op := begin(ctx, "lock", k)
	defer op.end(&err)
	if r.Lease == 0 {
		r.Lease = defaultLease
	}
	switch {
	case r.Lease < minLease || r.Lease > maxLease:
		return nil, fault.Invalid.New("BAD_LEASE", "a lease of %s: want %s to %s", r.Lease, minLease, maxLease)
	case r.Patience < 0:
		return nil, fault.Invalid.New("BAD_PATIENCE", "the patience is negative: %s", r.Patience)
	case len(r.Holder) > maxHolder:
		return nil, fault.Invalid.New("BAD_HOLDER", "a holder's name of %d bytes: at most %d are allowed", len(r.Holder), maxHolder)
	}
	if err := s.locks.enter(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.locks.exit()
		}
	}()
	if r.Token != 0 {
		lock := &Lock{r.Token, r.Lease, s, k}
		return lock, lock.Renew(ctx)
	}
	a := attempt{s, k, r, randomHex()}
	if r.Patience == 0 {
		lock, who, _, err := a.try(ctx)
		if err == nil && lock == nil {
			err = lockTimeout(k, who)
		}
		return lock, err
	}
	patient, cancel := context.WithTimeout(ctx, min(r.Patience, maxPatience))
	defer cancel()
	lock, who, err := a.wait(patient)
	if err == nil && lock == nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		err = lockTimeout(k, who)
	}
	return lock, err
}

func lockTimeout(k skein.StateKey, who string) error {
	if who == "" {
		who = "another"
	}
	return fault.Timeout.New("LOCK_TIMEOUT", "the lock of %s is held by %.*s", k, maxHolder, who)
}

type attempt struct {
	s  *Store
	k  skein.StateKey
	r  LockRequest
	id string
}

// try asks once. Without a lock, it says who has it, and when that lease ends.
func (a *attempt) try(ctx context.Context) (lock *Lock, who string, wait time.Duration, err error) {
	shared, intent := 0, int64(0)
	if a.r.Shared {
		shared = 1
	}
	if a.r.Patience > 0 {
		intent = 2 * lockPoll.Milliseconds()
	}
	// To its end, whatever the caller does: an answer that nobody hears may be a lock that nobody gives back.
	raw, err := a.s.db.run(context.WithoutCancel(ctx), lockScript, true, lockKeys(a.k), a.id, shared, a.r.Lease.Milliseconds(), a.r.Holder, intent)
	if err != nil {
		return nil, "", 0, err
	}
	text, _ := raw.(string)
	word, rest, _ := strings.Cut(text, " ")
	number, who, _ := strings.Cut(rest, " ")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return nil, "", 0, badAnswer([]string{text})
	}
	if word == "HELD" {
		return nil, who, time.Duration(n) * time.Millisecond, nil
	}
	lock = &Lock{n, a.r.Lease, a.s, a.k}
	if ctx.Err() != nil { // too late
		_ = lock.giveBack(ctx)
		return nil, "", 0, nil
	}
	return lock, "", 0, nil
}

// wait stands in line and asks until it has the lock. Without one and without error, the context has ended.
func (a *attempt) wait(ctx context.Context) (lock *Lock, who string, err error) {
	l := a.s.locks.join(a.s.db, a.k)
	defer a.s.locks.leave(l)
	if !l.head(ctx) {
		return nil, "", nil
	}
	defer l.next()
	if time.Since(l.failedAt) < lockPoll { // Redis is away: not one after another has to find out
		return nil, "", l.failed
	}
	for {
		var left time.Duration
		lock, who, left, err = a.try(ctx)
		if errors.Is(err, fault.Unavailable) {
			l.failed, l.failedAt = err, time.Now()
		}
		if lock != nil || err != nil || ctx.Err() != nil {
			return lock, who, err
		}
		if !l.listening {
			l.listening = true
			l.listener.Add(lockKeys(a.k)[0])
		}
		timer := time.NewTimer(max(time.Millisecond, min(left, lockPoll)))
		select {
		case <-ctx.Done():
		case <-l.kick:
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil, who, nil
		}
	}
}

// Renew keeps it for another lease. Once it is lost, which fault.Conflict with reason LOCK_LOST says, it stays so.
func (l *Lock) Renew(ctx context.Context) error { return l.renew(ctx, l.Lease) }

// Release gives it back, whatever the context says; call it once. It tells like Renew if the lock was lost before.
func (l *Lock) Release(ctx context.Context) error {
	l.store.locks.exit()
	return l.giveBack(ctx)
}

func (l *Lock) giveBack(ctx context.Context) error {
	err := l.renew(context.WithoutCancel(ctx), 0)
	l.store.locks.kick(l.key)
	return err
}

func (l *Lock) renew(ctx context.Context, lease time.Duration) error {
	raw, err := l.store.db.run(ctx, renewScript, true, lockKeys(l.key), l.Token, lease.Milliseconds())
	if err == nil && raw != "OK" {
		err = errLockLost(l.key)
	}
	return err
}

func errLockLost(k skein.StateKey) error {
	return fault.Conflict.New("LOCK_LOST", "the lock of %s was lost: its lease ended without a beat", k).
		WithHint("what was written since with its token was refused; take it again and read the value again")
}

// Keep holds the lock as long as beats come, each within a lease of the one before, and gives it back when the context ends or
// beats ends. It tells if the lock was lost meanwhile. If the process is to end, or the beats stayed away, the lock is left to its
// lease: its holder may go on with it elsewhere.
func (l *Lock) Keep(ctx context.Context, beats <-chan struct{}) (err error) {
	leave := false
	defer func() {
		if leave {
			l.store.locks.exit()
			return
		}
		// What was lost before a release is told by it, unless the reason to end is another.
		if released := l.Release(ctx); err == nil {
			err = released
		}
	}()
	renewed := time.Now()
	for {
		timer := time.NewTimer(time.Until(renewed.Add(l.Lease + time.Millisecond))) // Redis counts in those
		select {
		case <-ctx.Done():
			timer.Stop()
			if leave = left(ctx); leave {
				_ = l.Renew(context.WithoutCancel(ctx)) // so that there is time for that
			}
			return context.Cause(ctx)
		case <-timer.C:
			leave = true
			l.store.locks.kick(l.key)
			return errLockLost(l.key)
		case _, more := <-beats:
			timer.Stop()
			if !more {
				return nil
			}
		}
		now := time.Now()
		if now.Sub(renewed) < l.Lease/10 {
			continue // beats without need
		}
		err := l.Renew(ctx)
		if err == nil {
			renewed = time.Now() // not before Redis has: who is told that the lock is lost can't write any more
		} else if !errors.Is(err, fault.Unavailable) { // while Redis is away it is held till the lease ends
			return err
		}
	}
}

// lines are the waiters of this process, by key.
type lines struct {
	mu  sync.Mutex
	all map[string]*line
	n   int // locks held and waited for
}

// line is those who wait for one lock. Who has its turn asks Redis.
type line struct {
	name  string
	turn  chan struct{} // holds one token if it is nobody's turn; a channel's receivers are served in their order
	kick  chan struct{}
	users int // under lines.mu

	listener *feed.Listener

	// Of who has the turn.
	listening bool
	failed    error
	failedAt  time.Time
}

func (l *lines) enter() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n >= maxLocks {
		return fault.Exhausted.New("LOCKS_BUSY", "%d locks are held and waited for here: no more are possible", maxLocks).WithRetry(time.Second)
	}
	l.n++
	return nil
}

func (l *lines) exit() {
	l.mu.Lock()
	l.n--
	l.mu.Unlock()
}

func (l *lines) join(db *db, k skein.StateKey) *line {
	l.mu.Lock()
	defer l.mu.Unlock()
	name := metaKey(k)
	q := l.all[name]
	if q == nil {
		q = &line{name: name, turn: make(chan struct{}, 1), kick: make(chan struct{}, 1)}
		q.turn <- struct{}{}
		q.listener = db.feed.Listen(func(string, string, bool) { q.poke() })
		l.all[name] = q
	}
	q.users++
	return q
}

func (l *lines) leave(q *line) {
	l.mu.Lock()
	q.users--
	last := q.users == 0
	if last {
		delete(l.all, q.name)
	}
	l.mu.Unlock()
	if last {
		q.listener.Close()
	}
}

// kick wakes who waits here, before Redis' message comes.
func (l *lines) kick(k skein.StateKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if q := l.all[metaKey(k)]; q != nil {
		q.poke()
	}
}

func (q *line) poke() {
	select {
	case q.kick <- struct{}{}:
	default:
	}
}

// head waits for the turn.
func (q *line) head(ctx context.Context) bool {
	select {
	case <-q.turn:
		return true
	case <-ctx.Done():
		return false
	}
}

func (q *line) next() { q.turn <- struct{}{} }
