package replica

import (
	"bytes"

	"skein.dev"
)

// InLine is how many appends of a value wait for the one that is under way.
func (s *Store) InLine(k skein.StateKey) int {
	s.adds.mu.Lock()
	defer s.adds.mu.Unlock()
	return len(s.adds.line[k])
}

// Missed are pages of a mapped value that are not what they were and that nobody knows of.
func (s *Store) Missed(k skein.StateKey) (missed []int) {
	r := s.peek(k)
	if r == nil {
		return nil
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.file == nil || r.whole || r.local {
		return nil
	}
	r.look()
	for p := range int(r.size+page-1) / page {
		at, i := int64(p)*page, p/(chunk/page)
		end := min(at+page, r.size)
		known := r.file.suspects[i].Load()>>(p%(chunk/page))&1 == 1 || len(r.dirty.within(at, end)) > 0
		if !known && r.based.has(i) && !bytes.Equal(r.file.view[at:end], r.file.base[at:end]) {
			missed = append(missed, p)
		}
	}
	return missed
}
