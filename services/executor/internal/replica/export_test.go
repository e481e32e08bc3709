package replica

import "skein.dev"

// InLine is how many appends of a value wait for the one that is under way.
func (s *Store) InLine(k skein.StateKey) int {
	s.adds.mu.Lock()
	defer s.adds.mu.Unlock()
	return len(s.adds.line[k])
}
