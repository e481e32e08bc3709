package state

import (
	"context"
	"fmt"

	"skein.dev"
)

// Many small ranges are written together with what lies between them: each alone would be a command for Redis to run and to log.
// What lies between is read first, and the script that writes makes sure that it is still so.
const (
	mergeFew     = 8   // ranges of a chunk that are not worth the reading
	mergeSpan    = 256 // bytes, for each range, that they may be spread over
	mergeRetries = 3   // then they are written one by one, which nobody can come before
)

// merge is what is made of the ranges of one chunk.
type merge struct {
	chunk, from, to int64 // bytes of it
	patches         []Patch
}

// worth says whether merging pays.
func (m *merge) worth() bool {
	return len(m.patches) >= mergeFew && m.to-m.from <= mergeSpan*int64(len(m.patches))
}

// byChunk cuts ranges at the chunks' borders, and gathers those of each, in their order.
func byChunk(patches []Patch) (all []*merge) {
	known := map[int64]*merge{}
	for _, p := range patches {
		for len(p.Data) > 0 {
			c := p.Offset / chunkSize
			at := p.Offset - c*chunkSize
			n := min(chunkSize-at, int64(len(p.Data)))
			m := known[c]
			if m == nil {
				m = &merge{chunk: c, from: at, to: at + n}
				known[c], all = m, append(all, m)
			}
			m.from, m.to = min(m.from, at), max(m.to, at+n)
			m.patches = append(m.patches, Patch{p.Offset, p.Data[:n]})
			p.Offset, p.Data = p.Offset+n, p.Data[n:]
		}
	}
	return all
}

// merged writes ranges as few larger ones. The answer is nil if that is not worth it, or others change the same chunks.
func (s *Store) merged(ctx context.Context, k skein.StateKey, patches []Patch, id, print string, stop int64) (answer []string, err error) {
	all := byChunk(patches)
	var look []any
	for _, m := range all {
		if m.worth() {
			look = append(look, m.chunk, m.from, m.to-1)
		}
	}
	if len(look) == 0 {
		return nil, nil
	}
	for range mergeRetries {
		args, err := s.mergeArgs(ctx, k, all, look)
		if args == nil || err != nil {
			return nil, err
		}
		answer, err := s.mutate(ctx, mergedScript, k, id, print, becomes(stop), args...)
		if err != nil || answer[0] != "CHANGED" {
			return answer, err
		}
	}
	return nil, nil
}

// mergeArgs reads what lies between the ranges; nil without a value.
func (s *Store) mergeArgs(ctx context.Context, k skein.StateKey, all []*merge, look []any) ([]any, error) {
	raw, err := s.db.run(ctx, lookScript, true, []string{metaKey(k)}, look...)
	if err != nil {
		return nil, err
	}
	found, _ := raw.([]any)
	switch {
	case len(found) == 0:
		return nil, nil
	case len(found) != 2+len(look)/3*2:
		return nil, fmt.Errorf("redis: script answered %d parts", len(found))
	}
	args := []any{s.max, found[0], found[1], len(look) / 3}
	var ranges []any
	found = found[2:]
	for _, m := range all {
		if !m.worth() {
			for _, p := range m.patches {
				ranges = append(ranges, p.Offset, p.Data)
			}
			continue
		}
		args = append(args, m.chunk, found[0])
		text, _ := found[1].(string)
		piece := make([]byte, m.to-m.from) // zeros where the chunk is short
		copy(piece, text)
		for _, p := range m.patches {
			copy(piece[p.Offset-m.chunk*chunkSize-m.from:], p.Data)
		}
		ranges, found = append(ranges, m.chunk*chunkSize+m.from, piece), found[2:]
	}
	return append(args, ranges...), nil
}
