package executor

import (
	"slices"
	"sync"

	"skein.dev"
)

// homes remembers which values the calls of each module used last, so that the planner can place the next call where they
// are. It forgets a module when that is dropped.
type homes struct {
	mu   sync.Mutex
	keys map[skein.Digest][]skein.StateKey
}

// note takes what a call used, the last first; most calls use nothing.
func (h *homes) note(d skein.Digest, keys []skein.StateKey) {
	if len(keys) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.keys == nil {
		h.keys = map[skein.Digest][]skein.StateKey{}
	}
	h.keys[d] = keys
}

// here gives those of the loaded modules of whose values one is here.
func (h *homes) here(loaded map[skein.Digest]bool, has func(skein.StateKey) bool) map[skein.Digest]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[skein.Digest]bool{}
	for d, keys := range h.keys {
		switch {
		case !loaded[d]:
			delete(h.keys, d)
		case slices.ContainsFunc(keys, has):
			out[d] = true
		}
	}
	return out
}
