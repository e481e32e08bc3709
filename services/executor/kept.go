package executor

import (
	"fmt"
	"path"
	"strings"
	"sync"

	"skein.dev"
	"skein.dev/platform/runconfig"
	"skein.dev/services/executor/internal/vfs"
)

// kept holds the layers of files that calls of functions with KeepLocal have written: one for each user and view of the shared
// files, which is what lies below it. A layer that no call uses goes when there are too many, or when they take too much of what
// all layers may.
type kept struct {
	store  *vfs.Store
	limits vfs.Limits
	budget int64 // bytes in the store beyond which idle layers go
	mu     sync.Mutex
	all    map[keptKey]*keptLayer
	uses   int64
}

type keptKey struct {
	user skein.User
	view string
}

type keptLayer struct {
	layer *vfs.Layer
	refs  int   // calls
	used  int64 // when last, in uses
}

const maxKeptLayers = 1024

// acquire gives the layer of a user's view, over lower; release must follow.
func (k *kept) acquire(key keptKey, lower vfs.Lower) *vfs.Layer {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.all[key]
	if l == nil {
		l = &keptLayer{layer: vfs.NewLayer(vfs.Over(lower), k.store, k.limits)}
		if k.all == nil {
			k.all = map[keptKey]*keptLayer{}
		}
		k.all[key] = l
	}
	l.refs++
	k.uses++
	l.used = k.uses
	k.evict()
	return l.layer
}

func (k *kept) release(key keptKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.all[key].refs--
}

// evict drops idle layers, those longest unused first. The caller holds mu.
func (k *kept) evict() {
	for len(k.all) > maxKeptLayers || k.store.Memory()+k.store.Disk() > k.budget {
		var oldest keptKey
		var found *keptLayer
		for key, l := range k.all {
			if l.refs == 0 && (found == nil || l.used < found.used) {
				oldest, found = key, l
			}
		}
		if found == nil {
			return
		}
		delete(k.all, oldest)
		found.layer.Close()
	}
}

// files is what a call's tree is made of. done must follow the call's end.
func (e *Executor) files(user skein.User, c *runconfig.Config) (setup vfs.Setup, done func()) {
	view := e.shared.View(user)
	setup = vfs.Setup{Lower: view, Shared: view, Store: e.local, Limits: e.limits}
	if len(c.Mounts) > 0 {
		mounts := make([]vfs.Mount, len(c.Mounts))
		for i, m := range c.Mounts {
			mounts[i] = vfs.Mount{From: path.Clean(m.Prefix), At: path.Clean(strings.TrimPrefix(m.At, "/"))}
		}
		setup.Lower, setup.Shared = vfs.Mounted(view, mounts), vfs.Within(view, mounts)
	}
	if !c.KeepLocal {
		return setup, func() {}
	}
	key := keptKey{user, fmt.Sprintf("%q", c.Mounts)}
	setup.Layer = e.kept.acquire(key, setup.Lower)
	return setup, func() { e.kept.release(key) }
}
