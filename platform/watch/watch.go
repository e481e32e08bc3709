// Package watch tells those who keep a service's answers what has changed, and lets a change wait until they have heard.
package watch

import (
	"context"
	"sync"
	"time"

	"skein.dev/platform/fault"
)

// Feed is a service's watchers: those who keep answers of it and want to hear of changes through this process. A change
// is answered only when each of them has seen it, or when what it keeps has run out. The zero value is one without watchers.
type Feed[T any] struct {
	mu  sync.Mutex
	all map[*Watcher[T]]struct{}
}

// maxPending bounds what a watcher may be behind; one further behind is cut off and begins anew.
const maxPending = 10_000

// Watcher is one that wants to hear.
type Watcher[T any] struct {
	feed  *Feed[T]
	lease time.Duration

	mu      sync.Mutex
	pending []Change[T] // not yet seen, in order
	sent    int         // how many of them are sent
	seq     int64
	beat    int64 // asked for and not yet answered; 0 for none
	wake    chan struct{}
	gone    chan struct{} // closed when it is cut off
	once    sync.Once
}

// Change is a change for one watcher. Seq grows by one with each.
type Change[T any] struct {
	Of   T
	Seq  int64
	seen chan struct{}
}

// Enter adds a watcher. lease is how long a change waits for it: what it keeps must not live longer, because one that is
// cut off learns nothing.
func (f *Feed[T]) Enter(lease time.Duration) *Watcher[T] {
	w := &Watcher[T]{feed: f, lease: lease, wake: make(chan struct{}, 1), gone: make(chan struct{})}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all == nil {
		f.all = map[*Watcher[T]]struct{}{}
	}
	f.all[w] = struct{}{}
	return w
}

// Leave ends a watcher.
func (w *Watcher[T]) Leave() {
	w.feed.mu.Lock()
	delete(w.feed.all, w)
	w.feed.mu.Unlock()
	w.cut()
}

// Tell gives a change to everybody and waits until they have seen it. It outlives ctx: the change has happened.
func (f *Feed[T]) Tell(ctx context.Context, of T) {
	type wait struct {
		w    *Watcher[T]
		seen <-chan struct{}
	}
	f.mu.Lock()
	waits := make([]wait, 0, len(f.all))
	for w := range f.all {
		waits = append(waits, wait{w, w.add(of)})
	}
	f.mu.Unlock()
	began := time.Now()
	for _, x := range waits {
		left, cancel := context.WithDeadline(context.WithoutCancel(ctx), began.Add(x.w.lease))
		select {
		case <-x.seen:
		case <-x.w.gone:
		case <-left.Done():
		}
		cancel()
	}
}

func (w *Watcher[T]) add(of T) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seq++
	c := Change[T]{of, w.seq, make(chan struct{})}
	w.pending = append(w.pending, c)
	if len(w.pending) > maxPending {
		w.cut()
	}
	w.nudge()
	return c.seen
}

func (w *Watcher[T]) nudge() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// next gives what is to be sent: changes, and then the answer to a beat, if it is not 0.
func (w *Watcher[T]) next() ([]Change[T], int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.pending[w.sent:len(w.pending):len(w.pending)]
	w.sent = len(w.pending)
	beat := w.beat
	w.beat = 0
	return out, beat
}

// said notes what the watcher said: that it has seen all changes up to seen, and a beat that it wants to have back.
func (w *Watcher[T]) said(seen, beat int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.sent > 0 && w.pending[0].Seq <= seen {
		close(w.pending[0].seen)
		w.pending = w.pending[1:]
		w.sent--
	}
	if seen > w.seq {
		return fault.Invalid.New("BAD_SEQUENCE", "change %d has not been sent", seen)
	}
	if beat != 0 {
		w.beat = beat
		w.nudge()
	}
	return nil
}

func (w *Watcher[T]) cut() { w.once.Do(func() { close(w.gone) }) }

// Serve carries a watcher's stream until stop is closed or hear has an error, which is returned. hear gives what the
// watcher says: the sequence up to which it has seen everything, and a beat, which it has back behind all changes that
// came before; 0 is none. tell sends changes and beats. Exhausted WATCH_BEHIND if too much was not acknowledged.
func (w *Watcher[T]) Serve(stop <-chan struct{}, hear func() (seen, beat int64, err error), tell func(c []Change[T], beat int64) error) error {
	ended := make(chan error, 1)
	go func() {
		for {
			seen, beat, err := hear()
			if err == nil {
				err = w.said(seen, beat)
			}
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	for {
		select {
		case <-w.wake:
		case err := <-ended:
			return err
		case <-stop:
			return nil // a stream that stands would hold up the end of the process
		case <-w.gone:
			return fault.Exhausted.New("WATCH_BEHIND", "more than %d changes were not acknowledged", maxPending)
		}
		if changes, beat := w.next(); len(changes) > 0 || beat != 0 {
			if err := tell(changes, beat); err != nil {
				return err
			}
		}
	}
}

// Stand keeps a watcher's side of a stream standing until ctx ends: follow returns when it breaks, and is called again at most
// two seconds later, sooner after one that stood long.
func Stand(ctx context.Context, follow func(context.Context)) error {
	const shortest = 50 * time.Millisecond
	for pause := shortest; ctx.Err() == nil; pause = min(2*pause, 2*time.Second) {
		began := time.Now()
		follow(ctx)
		if time.Since(began) > 10*time.Second {
			pause = shortest
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}
