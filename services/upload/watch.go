package upload

import (
	"context"
	"sync"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
)

// watchers are those who keep answers of Get and want to hear of changes through this process. A change is answered only
// when each of them has seen it, or has had patience to do so.
type watchers struct {
	mu  sync.Mutex
	all map[*watcher]struct{}
}

// patience bounds how long a change waits for its watchers. What a watcher keeps must not live longer than this, because
// one that is cut off learns nothing.
const patience = time.Second

// maxPending bounds what a watcher may be behind; one further behind is cut off and begins anew.
const maxPending = 10_000

type watcher struct {
	mu      sync.Mutex
	pending []change // not yet seen, in order
	sent    int      // how many of them are sent
	seq     int64
	wake    chan struct{}
	gone    chan struct{} // closed when it is cut off
	once    sync.Once
}

type change struct {
	f    skein.Function
	seq  int64
	seen chan struct{}
}

func (ws *watchers) enter() *watcher {
	w := &watcher{wake: make(chan struct{}, 1), gone: make(chan struct{})}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.all == nil {
		ws.all = map[*watcher]struct{}{}
	}
	ws.all[w] = struct{}{}
	return w
}

func (ws *watchers) leave(w *watcher) {
	ws.mu.Lock()
	delete(ws.all, w)
	ws.mu.Unlock()
	w.cut()
}

// tell gives a change to everybody and waits until they have seen it. It outlives ctx: the change has happened.
func (ws *watchers) tell(ctx context.Context, f skein.Function) {
	ws.mu.Lock()
	var waits []<-chan struct{}
	var from []*watcher
	for w := range ws.all {
		waits = append(waits, w.add(f))
		from = append(from, w)
	}
	ws.mu.Unlock()
	if len(waits) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	for i, seen := range waits {
		select {
		case <-seen:
		case <-from[i].gone:
		case <-ctx.Done():
			return
		}
	}
}

func (w *watcher) add(f skein.Function) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seq++
	c := change{f, w.seq, make(chan struct{})}
	w.pending = append(w.pending, c)
	if len(w.pending) > maxPending {
		w.cut()
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
	return c.seen
}

// next gives what is to be sent.
func (w *watcher) next() []change {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.pending[w.sent:len(w.pending):len(w.pending)]
	w.sent = len(w.pending)
	return out
}

// saw notes that all changes up to seq have been seen.
func (w *watcher) saw(seq int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.sent > 0 && w.pending[0].seq <= seq {
		close(w.pending[0].seen)
		w.pending = w.pending[1:]
		w.sent--
	}
	if seq > w.seq {
		return fault.Invalid.New("BAD_SEQUENCE", "change %d has not been sent", seq)
	}
	return nil
}

func (w *watcher) cut() { w.once.Do(func() { close(w.gone) }) }
