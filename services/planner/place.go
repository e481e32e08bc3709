package planner

import (
	"math/bits"

	"skein.dev"
)

// places is the index that placement asks, so that a decision costs the same whatever the number of executors: sets of
// executors by their seats, by how full they are and by the modules they hold.
type places struct {
	seats   []*executor // nil where nobody sits
	vacant  []int       // seats of those that left
	free    set         // seats of executors that have a free slot and take calls
	levels  []set       // of those, by how many slots are in use
	filled  set         // the levels that are not empty
	holders index       // of modules
	homes   index       // of state that a module's calls used last; each is a holder too
	policy  Policy
	owned   map[skein.User]*set // under Compact: seats whose executors run calls of this user only
	empty   set                 // and those that run none
	freed   []*executor         // and those that have a free slot, maybe since the queue was last looked at
}

func newPlaces() places {
	return places{holders: index{}, homes: index{}, owned: map[skein.User]*set{}}
}

func (p *places) seat(ex *executor) {
	if n := len(p.vacant); n > 0 {
		ex.seat, p.vacant = p.vacant[n-1], p.vacant[:n-1]
		p.seats[ex.seat] = ex
	} else {
		ex.seat = len(p.seats)
		p.seats = append(p.seats, ex)
	}
	ex.level = -1
	p.update(ex)
}

func (p *places) leave(ex *executor) {
	p.move(ex, -1)
	p.disown(ex)
	for d := range ex.loaded {
		p.holders.drop(ex.loaded, d, ex.seat)
	}
	for d := range ex.homes {
		p.homes.drop(ex.homes, d, ex.seat)
	}
	p.seats[ex.seat] = nil
	p.vacant = append(p.vacant, ex.seat)
}

// update must follow every change of what an executor runs, of what of it waits, and of whether it takes calls.
func (p *places) update(ex *executor) {
	level := -1
	if used := ex.used(); used < ex.Slots && !ex.Draining() && !(p.policy == Spot && ex.Marked) {
		level = used
	}
	p.move(ex, level)
	if p.policy == Compact {
		p.own(ex)
		if level >= 0 && !ex.freed {
			ex.freed = true
			p.freed = append(p.freed, ex)
		}
	}
}

func (p *places) move(ex *executor, level int) {
	if level == ex.level {
		return
	}
	if ex.level >= 0 {
		p.levels[ex.level].remove(ex.seat)
		if p.levels[ex.level].empty() {
			p.filled.remove(ex.level)
		}
	}
	ex.level = level
	if level < 0 {
		p.free.remove(ex.seat)
		return
	}
	for level >= len(p.levels) {
		p.levels = append(p.levels, set{})
	}
	p.levels[level].add(ex.seat)
	p.filled.add(level)
	p.free.add(ex.seat)
}

// index has the seats of executors by modules.
type index map[skein.Digest]*set

// put adds a seat; of is what its executor has.
func (x index) put(of map[skein.Digest]struct{}, d skein.Digest, seat int) {
	of[d] = struct{}{}
	s := x[d]
	if s == nil {
		s = &set{}
		x[d] = s
	}
	s.add(seat)
}

func (x index) drop(of map[skein.Digest]struct{}, d skein.Digest, seat int) {
	if _, ok := of[d]; !ok {
		return
	}
	delete(of, d)
	s := x[d]
	s.remove(seat)
	if s.empty() {
		delete(x, d)
	}
}

// choice is the set of executors among which a call of a module is placed, nil for all: those where its state is, or those that
// hold it, if a slot is free there. among, if not nil, bounds both.
func (p *places) choice(d skein.Digest, among *set) *set {
	if s := p.homes[d]; s != nil && p.free.meets(s, among) {
		return s
	}
	if s := p.holders[d]; s != nil && p.free.meets(s, among) {
		return s
	}
	return nil
}

// pick finds the executor for a call of a module: one that has the state that its calls used last, or else holds it, before one
// that does not, then the one where the call's parent runs, then the fullest, so that others stay empty; nil if no slot is free.
func (p *places) pick(d skein.Digest, near *executor) *executor {
	warm := p.choice(d, nil)
	if near != nil && near.level >= 0 && (warm == nil || warm.has(near.seat)) {
		return near
	}
	return p.fullest(warm, nil)
}

// fullest is the fullest executor that has a free slot and is in both sets, where nil has all.
func (p *places) fullest(warm, among *set) *executor {
	for level := p.filled.before(len(p.levels)); level >= 0; level = p.filled.before(level) {
		if seat := p.levels[level].firstOf(warm, among); seat >= 0 {
			return p.seats[seat]
		}
	}
	return nil
}

// set is a set of small numbers.
type set struct {
	words []uint64
	heads []uint64 // a bit for each word that is not zero
}

func (s *set) add(i int) {
	for i>>6 >= len(s.words) {
		s.words = append(s.words, 0)
	}
	for i>>12 >= len(s.heads) {
		s.heads = append(s.heads, 0)
	}
	s.words[i>>6] |= 1 << (i & 63)
	s.heads[i>>12] |= 1 << (i >> 6 & 63)
}

func (s *set) remove(i int) {
	if !s.has(i) {
		return
	}
	if s.words[i>>6] &^= 1 << (i & 63); s.words[i>>6] == 0 {
		s.heads[i>>12] &^= 1 << (i >> 6 & 63)
	}
}

func (s *set) has(i int) bool { return i>>6 < len(s.words) && s.words[i>>6]>>(i&63)&1 == 1 }

func (s *set) empty() bool { return s.first() < 0 }

// first is the least member, or -1.
func (s *set) first() int { return s.firstWith(s) }

// all gives the members in their order. The set must not change meanwhile.
func (s *set) all(yield func(int) bool) {
	for w, word := range s.words {
		for ; word != 0; word &= word - 1 {
			if !yield(w<<6 + bits.TrailingZeros64(word)) {
				return
			}
		}
	}
}

// firstOf is the least member that is in both sets, where nil has all; or -1.
func (s *set) firstOf(a, b *set) int {
	switch {
	case a == nil && b == nil:
		return s.first()
	case a == nil:
		return s.firstWith(b)
	case b == nil:
		return s.firstWith(a)
	}
	for i := range min(len(s.words), len(a.words), len(b.words)) {
		if m := s.words[i] & a.words[i] & b.words[i]; m != 0 {
			return i<<6 + bits.TrailingZeros64(m)
		}
	}
	return -1
}

// meets tells whether a member is in both sets, where a nil b has all.
func (s *set) meets(a, b *set) bool {
	if b == nil {
		return s.firstWith(a) >= 0
	}
	return s.firstOf(a, b) >= 0
}

// firstWith is the least member that o has too, or -1.
func (s *set) firstWith(o *set) int {
	for i := range min(len(s.heads), len(o.heads)) {
		for both := s.heads[i] & o.heads[i]; both != 0; both &= both - 1 {
			w := i<<6 + bits.TrailingZeros64(both)
			if m := s.words[w] & o.words[w]; m != 0 {
				return w<<6 + bits.TrailingZeros64(m)
			}
		}
	}
	return -1
}

// before is the greatest member below i, or -1.
func (s *set) before(i int) int {
	for i > 0 {
		i--
		w := i >> 6
		if w >= len(s.words) {
			i = len(s.words) << 6
			continue
		}
		if m := s.words[w] & (^uint64(0) >> (63 - i&63)); m != 0 {
			return w<<6 + 63 - bits.LeadingZeros64(m)
		}
		i = w << 6
	}
	return -1
}
