package state

import (
	"context"
	"strconv"
	"sync"

	"skein.dev"
	"skein.dev/platform/fault"
)

const (
	maxWatched   = 10_000
	watchedBatch = 256
)

// Watch tells of changes of the values that were last named on sets, until the context ends or tell fails. A key that is new
// is told as soon as it is watched, so that nothing is missed between a read and that; later ones when their version differs from
// what was told last. Version 0 is no value. The end of a value by its expiry is not told.
func (s *Store) Watch(ctx context.Context, sets <-chan []skein.StateKey, tell func(skein.StateKey, int64) error) error {
	w := &watcher{told: map[string]int64{}, keys: map[string]skein.StateKey{}, news: map[string]int64{}, wake: make(chan struct{}, 1)}
	listener := s.db.feed.Listen(w.hear)
	defer listener.Close()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case set := <-sets:
			if len(set) > maxWatched {
				return fault.TooLarge.New("TOO_LARGE", "%d keys are too many to watch: at most %d are allowed", len(set), maxWatched)
			}
			added, removed := w.replace(set)
			listener.Remove(removed...)
			listener.Add(added...)
		case <-w.wake:
			if err := s.tellNews(ctx, w, tell); err != nil {
				return err
			}
		}
	}
}

const unknown = -1 // version that must be asked for

type watcher struct {
	keys map[string]skein.StateKey // by channel
	told map[string]int64
	wake chan struct{}

	mu   sync.Mutex
	news map[string]int64 // versions by channel; bounded by keys
}

func (w *watcher) hear(channel, message string, fresh bool) {
	version, err := strconv.ParseInt(message, 10, 64)
	if fresh || err != nil {
		version = unknown
	}
	w.mu.Lock()
	w.news[channel] = version
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func watched(k skein.StateKey) string { return metaKey(k) + ":v" }

// replace makes set what is watched, and returns the channels that came and went.
func (w *watcher) replace(set []skein.StateKey) (added, removed []string) {
	keys := make(map[string]skein.StateKey, len(set))
	for _, k := range set {
		name := watched(k)
		if _, has := w.keys[name]; !has {
			added = append(added, name)
		}
		keys[name] = k
	}
	for name := range w.keys {
		if _, has := keys[name]; !has {
			removed = append(removed, name)
			delete(w.told, name)
		}
	}
	w.keys = keys
	return added, removed
}

func (s *Store) tellNews(ctx context.Context, w *watcher, tell func(skein.StateKey, int64) error) error {
	w.mu.Lock()
	news := w.news
	w.news = map[string]int64{}
	w.mu.Unlock()
	var asked []string
	for name, version := range news {
		if _, has := w.keys[name]; has && version == unknown {
			asked = append(asked, name)
		}
	}
	for len(asked) > 0 {
		n := min(watchedBatch, len(asked))
		keys := make([]skein.StateKey, n)
		for i, name := range asked[:n] {
			keys[i] = w.keys[name]
		}
		heads, err := s.db.stat(ctx, keys)
		if err != nil {
			return err
		}
		for i, h := range heads {
			news[asked[i]] = h.version
		}
		asked = asked[n:]
	}
	for name, version := range news {
		k, has := w.keys[name]
		last, ever := w.told[name]
		if !has || ever && last == version {
			continue
		}
		w.told[name] = version
		if err := tell(k, version); err != nil {
			return err
		}
	}
	return nil
}
