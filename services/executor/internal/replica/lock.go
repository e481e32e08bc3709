package replica

import (
	"context"
	"slices"
	"sync"

	"skein.dev"
	"skein.dev/abi"
)

// lock is a value's lock among the calls of this executor: many readers or one writer, in the order in which they came.
// Nobody passes a writer that waits, but for a call that reads already.
type lock struct {
	mu      sync.Mutex
	readers int
	writer  bool
	line    []*waiter
	users   int // who holds it or waits; guarded by Store.mu
}

type waiter struct {
	write bool
	ready chan struct{} // closed when it holds the lock
}

// held is a lock that a call holds.
type held struct {
	key   skein.StateKey
	lock  *lock
	write bool
	times int // for a reader
}

const (
	// mostHeld bounds the locks of each kind that a call holds.
	mostHeld = 1 << 10
	// mostWaiters bounds those that wait for one lock.
	mostWaiters = 1 << 16
)

// try takes the lock if nobody is in the way; the caller holds mu.
func (l *lock) try(write bool) bool {
	if l.writer || len(l.line) > 0 || write && l.readers > 0 {
		return false
	}
	l.take(write)
	return true
}

func (l *lock) take(write bool) {
	if write {
		l.writer = true
	} else {
		l.readers++
	}
}

// pass gives the lock to those whose turn it is; the caller holds mu.
func (l *lock) pass() {
	for len(l.line) > 0 {
		w := l.line[0]
		if l.writer || w.write && l.readers > 0 {
			return
		}
		l.take(w.write)
		l.line[0] = nil
		l.line = l.line[1:]
		close(w.ready)
	}
}

// Lock takes a value's lock among the calls of this executor, and waits for it. EDEADLK if the call would wait for itself.
func (s *Session) Lock(ctx context.Context, k skein.StateKey, write bool) error {
	if i := s.holding(k); i >= 0 {
		h := &s.held[i]
		if write || h.write {
			return abi.EDEADLK
		}
		h.times++
		return nil
	}
	if len(s.held) == mostHeld {
		return abi.ENOLCK
	}
	l := s.store.useLock(k)
	l.mu.Lock()
	got := l.try(write)
	var w *waiter
	if !got {
		if len(l.line) == mostWaiters {
			l.mu.Unlock()
			s.store.leaveLock(k, l)
			return abi.ENOLCK
		}
		w = &waiter{write: write, ready: make(chan struct{})}
		l.line = append(l.line, w)
	}
	l.mu.Unlock()
	if !got {
		got = s.await(ctx, l, w)
	}
	if !got {
		s.store.leaveLock(k, l)
		return ctx.Err()
	}
	s.held = append(s.held, held{key: k, lock: l, write: write, times: 1})
	return ctx.Err() // End releases it
}

// await waits in line; false if the context ended first.
func (s *Session) await(ctx context.Context, l *lock, w *waiter) bool {
	_ = s.park(func() error {
		select {
		case <-w.ready:
		case <-ctx.Done():
		}
		return nil
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.line, w)
	if i < 0 {
		return true
	}
	l.line = slices.Delete(l.line, i, i+1)
	l.pass() // it may have been in the way of readers
	return false
}

func (s *Session) park(wait func() error) error {
	if s.Park == nil {
		return wait()
	}
	return s.Park(wait)
}

// Unlock releases what Lock took; EPERM if the call doesn't hold it.
func (s *Session) Unlock(k skein.StateKey, write bool) error {
	i := s.holding(k)
	if i < 0 || s.held[i].write != write {
		return abi.EPERM
	}
	if h := &s.held[i]; h.times > 1 {
		h.times--
		return nil
	}
	s.release(i)
	return nil
}

func (s *Session) holding(k skein.StateKey) int {
	return slices.IndexFunc(s.held, func(h held) bool { return h.key == k })
}

func (s *Session) release(i int) {
	h := s.held[i]
	s.held = slices.Delete(s.held, i, i+1)
	h.lock.mu.Lock()
	if h.write {
		h.lock.writer = false
	} else {
		h.lock.readers--
	}
	h.lock.pass()
	h.lock.mu.Unlock()
	s.store.leaveLock(h.key, h.lock)
}

// useLock gives a value's lock; there is one as long as somebody uses it. leaveLock must follow.
func (s *Store) useLock(k skein.StateKey) *lock {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.locks[k]
	if l == nil {
		l = &lock{}
		s.locks[k] = l
	}
	l.users++
	return l
}

func (s *Store) leaveLock(k skein.StateKey, l *lock) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(s.locks, k)
	}
}
