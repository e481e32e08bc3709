// Package replica keeps this executor's copies of state: what its guests read, write and map between a pull and a push. A
// Store holds them for all calls; a call has a Session. A push sends exactly the bytes that were changed here, and a pull
// never overwrites them.
package replica

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"skein.dev"
	"skein.dev/abi"
	statev1 "skein.dev/proto/skein/state/v1"
)

// Store is the executor's replicas.
//
// Lock order: Replica.net, Replica.mu, Store.mu, lock.mu; nothing is awaited under the last three. That of appends is held alone.
type Store struct {
	client statev1.StateServiceClient
	budget int64 // bytes; clean replicas go when it is passed
	most   int64 // bytes; beyond it nothing grows
	share  int64 // of it that one user's replicas may take before they don't grow
	lease  time.Duration
	mu     sync.Mutex
	all    map[skein.StateKey]*Replica
	locks  map[skein.StateKey]*lock
	size   int64
	sizes  map[skein.User]int64
	files  int
	clock  atomic.Int64 // of uses, for choosing what goes
	adds   appends
	stuck  map[skein.User]bool // who is beyond his share with nothing that can go
	again  struct {            // what size and files must pass before shrink looks again
		size  int64
		files int
	}
}

const (
	// mostFiles bounds the replicas that guests can map: each takes a descriptor and two of the kernel's mappings.
	mostFiles = 1 << 10
	// leastSlack is what replicas that can't go may take beyond the budget at least, in bytes.
	leastSlack = 4 * MaxValue
)

// New makes a store whose values come from and go to client. The budget is for what can be fetched again; what can't go,
// because it was not pushed or is mapped, may take as much again, and at least 256 MiB. A quarter of that no user alone can take.
func New(client statev1.StateServiceClient, budget int64) *Store {
	most := budget + max(budget, leastSlack)
	return &Store{
		client: client, budget: budget, most: most, share: most / 4 * 3, sizes: map[skein.User]int64{}, stuck: map[skein.User]bool{}, lease: Lease, all: map[skein.StateKey]*Replica{}, locks: map[skein.StateKey]*lock{},
		adds: appends{line: map[skein.StateKey][]*appended{}},
	}
}

// SetLease says how long a lock of the cluster stays held without a beat, 1 s to 1 min. It is for before the first lock.
func (s *Store) SetLease(d time.Duration) { s.lease = d }

// Has reports whether there is a replica of a value.
func (s *Store) Has(k skein.StateKey) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[k] != nil
}

// Bytes is what all replicas take.
func (s *Store) Bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.size
}

// peek is the key's replica, nil if there is none.
func (s *Store) peek(k skein.StateKey) *Replica {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[k]
}

func (s *Store) replica(k skein.StateKey) *Replica {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.all[k]
	if r == nil {
		r = &Replica{key: k, net: make(chan struct{}, 1)}
		s.all[k] = r
	}
	return r
}

// lock gives the key's replica with mu held; one that isn't known if there was none. unlock must follow.
func (s *Store) lock(k skein.StateKey) *Replica {
	for {
		r := s.replica(k)
		r.mu.Lock()
		if !r.gone {
			r.used.Store(s.clock.Add(1))
			return r
		}
		r.mu.Unlock()
	}
}

// unlock ends what lock began: it accounts for the size and makes room.
func (s *Store) unlock(r *Replica) {
	grew := s.settle(r)
	r.mu.Unlock()
	if grew {
		s.shrink(r)
	}
}

// settle accounts for what a replica takes, and says if that has grown. One that is of no value goes, unless somebody
// fetches it. The caller holds its mu.
func (s *Store) settle(r *Replica) bool {
	if r.gone {
		return false
	}
	if !r.known && len(r.net) == 0 && r.maps == 0 {
		s.remove(r)
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	grew := r.cost() - r.counts
	s.count(r, grew)
	return grew > 0
}

// remove takes a replica out of the store, and its memory. The caller holds its mu.
func (s *Store) remove(r *Replica) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.file != nil {
		s.files--
	}
	if s.all[r.key] == r {
		delete(s.all, r.key)
	}
	s.count(r, -r.counts)
	r.gone = true
	r.drop()
}

// count notes that a replica takes n bytes more. The caller holds mu.
func (s *Store) count(r *Replica, n int64) {
	s.size += n
	r.counts += n
	if s.sizes[r.key.User] += n; s.sizes[r.key.User] == 0 {
		delete(s.sizes, r.key.User)
	}
}

// exchange gives the key's replica with net held, for who is to talk with the global tier. done must follow.
func (s *Store) exchange(ctx context.Context, k skein.StateKey) (*Replica, error) {
	for {
		r := s.replica(k)
		select {
		case r.net <- struct{}{}:
		default:
			select {
			case r.net <- struct{}{}:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		r.mu.RLock()
		gone := r.gone
		r.mu.RUnlock()
		if !gone {
			r.used.Store(s.clock.Add(1))
			return r, nil
		}
		<-r.net
	}
}

func (s *Store) done(r *Replica) {
	r.mu.Lock()
	<-r.net
	s.unlock(r)
}

// room says whether a replica may take n bytes more. If that is too much for its user, what of him can be fetched again goes. The caller
// holds its mu.
func (s *Store) room(r *Replica, n int64) error {
	if n <= 0 {
		return nil
	}
	his, all, look := s.fits(r.key.User, n)
	if !his && look {
		others := s.those(func(k skein.StateKey) bool { return k.User == r.key.User && k != r.key })
		s.slimAll(others, func() bool { his, _, _ := s.fits(r.key.User, n); return his })
		if his, all, _ = s.fits(r.key.User, n); !his {
			s.mu.Lock()
			s.stuck[r.key.User] = true // a look at all that can't go is not for every call
			s.mu.Unlock()
		}
	}
	if !his || !all {
		return abi.ENOMEM
	}
	return nil
}

// fits says whether n bytes more are within a user's share, and within what all may take; and whether something of his may go.
func (s *Store) fits(u skein.User, n int64) (his, all, look bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sizes[u]+n <= s.share, s.size+n <= s.most, !s.stuck[u]
}

// shrink drops clean replicas, and what others need for mappings, those longest unused first, until the budgets are kept. One in use right now stays, and so
// does keep, which is about to be used.
func (s *Store) shrink(keep *Replica) {
	s.mu.Lock()
	kept := s.size <= max(s.budget, s.again.size) && s.files <= max(mostFiles, s.again.files)
	s.mu.Unlock()
	if kept {
		return
	}
	if !s.slimAll(s.those(func(k skein.StateKey) bool { return keep == nil || k != keep.key }), s.enough) {
		s.enough()
	}
}

// those are the replicas of some keys whose locks nobody uses, those longest unused first.
func (s *Store) those(which func(skein.StateKey) bool) []*Replica {
	s.mu.Lock()
	all := make([]*Replica, 0, len(s.all))
	for k, r := range s.all {
		if s.locks[k] == nil && which(k) {
			all = append(all, r)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b *Replica) int { return int(a.used.Load() - b.used.Load()) })
	return all
}

// slimAll drops of them what can go until it is enough, and says whether it was.
func (s *Store) slimAll(all []*Replica, enough func() bool) bool {
	for _, r := range all {
		if enough() {
			return true
		}
		select {
		case r.net <- struct{}{}:
		default:
			continue
		}
		if r.mu.TryLock() {
			if !r.gone && r.maps == 0 {
				s.slim(r)
			}
			r.mu.Unlock()
		}
		<-r.net
	}
	return false
}

// slim drops a replica that nobody maps, or what it needs only for that. The caller holds its mu.
func (s *Store) slim(r *Replica) {
	if r.clean() {
		s.remove(r)
		return
	}
	if r.file != nil && r.toHeap() {
		s.lessFile()
		s.settle(r)
	}
}

// freed has shrink look again: something can go that could not.
func (s *Store) freed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.again.size, s.again.files = 0, 0
	clear(s.stuck)
}

// enough says whether so much has gone that it takes a while until more must. If not, it is not tried again before as much has
// come: a look at all that can't go is not for every call.
func (s *Store) enough() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.again.size, s.again.files = 0, 0
	done := true
	if s.size > s.budget-s.budget/16 {
		done = false
		s.again.size = s.size + s.budget/16
	}
	if s.files > mostFiles-mostFiles/16 {
		done = false
		s.again.files = s.files + mostFiles/16
	}
	return done
}
