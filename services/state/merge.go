package state

import (
	"context"
	"fmt"
	"iter"

	"skein.dev"
	"skein.dev/proto/runs"
)

// Many small ranges are written together with what lies between them: each alone would be a command for Redis to run and to log.
// What lies between is read first, and the script that writes makes sure that it is still so.
const (
	mergeFew     = 8   // ranges of a chunk that are not worth the reading
	mergeSpan    = 512 // bytes, for each range, that they may be spread over
	mergeRetries = 8   // then they are written one by one, which nobody can come before
)

// merge is what is made of the ranges of one chunk.
type merge struct {
	chunk, from, to int64 // bytes of it
	n               int   // of the ranges
}

// worth says whether merging pays.
func (m *merge) worth() bool { return m.n >= mergeFew && m.to-m.from <= mergeSpan*int64(m.n) }

// pieces gives a patch's ranges, cut at the chunks' borders.
func (p Patch) pieces() iter.Seq2[int64, []byte] {
	return func(yield func(int64, []byte) bool) {
		data := p.Data
		for at, left := range runs.All(p.Runs) {
			for left > 0 {
				n := min(chunkSize-at%chunkSize, left)
				if !yield(at, data[:n]) {
					return
				}
				at, left, data = at+n, left-n, data[n:]
			}
		}
	}
}

// byChunk tells what there is in each chunk.
func (p Patch) byChunk() (all []merge) {
	for at, piece := range p.pieces() {
		c := at / chunkSize
		if len(all) == 0 || all[len(all)-1].chunk != c {
			all = append(all, merge{chunk: c, from: at % chunkSize})
		}
		m := &all[len(all)-1]
		m.to, m.n = at%chunkSize+int64(len(piece)), m.n+1
	}
	return all
}

// merged writes ranges as few larger ones. The answer is nil if that is not worth it, or others change the same chunks.
func (s *Store) merged(ctx context.Context, k skein.StateKey, p Patch, sum runs.Summary, id, print string) (answer []string, err error) {
	all := p.byChunk()
	var look []any
	for _, m := range all {
		if m.worth() {
			look = append(look, m.chunk, m.from, m.to-1)
		}
	}
	if len(look) == 0 {
		return nil, nil
	}
	leave, err := s.chunkTurn(ctx, k, all[0].chunk)
	if err != nil {
		return nil, err
	}
	defer leave()
	for range mergeRetries {
		args, err := s.mergeArgs(ctx, k, p, all, look)
		if err != nil {
			return nil, err
		}
		answer, err := s.mutate(ctx, mergedScript, k, id, print, becomes(sum.End), args...)
		if err != nil || answer[0] != "CHANGED" {
			return answer, err
		}
	}
	return nil, nil
}

// chunkTurn waits for the changes of a chunk that would have this one begin again, or be refused. leave must follow.
func (s *Store) chunkTurn(ctx context.Context, k skein.StateKey, chunk int64) (leave func(), err error) {
	return s.merging.Enter(ctx, fmt.Sprint(k, "\x00", chunk))
}

// mergeArgs reads what lies between the ranges.
func (s *Store) mergeArgs(ctx context.Context, k skein.StateKey, p Patch, all []merge, look []any) ([]any, error) {
	raw, err := s.db.run(ctx, lookScript, true, []string{metaKey(k)}, look...)
	if err != nil {
		return nil, err
	}
	found, _ := raw.([]any)
	if len(found) != 2+len(look)/3*2 {
		return nil, fmt.Errorf("redis: script answered %d parts", len(found))
	}
	args := []any{s.max, found[0], found[1], len(look) / 3}
	var ranges []any
	found = found[2:]
	i, whole := -1, []byte(nil)
	for at, piece := range p.pieces() {
		if i < 0 || all[i].chunk != at/chunkSize {
			i++
			if whole = nil; all[i].worth() {
				text, _ := found[1].(string)
				whole = append([]byte(nil), text...)
				whole = append(whole, make([]byte, all[i].to-all[i].from-int64(len(text)))...) // zeros where the chunk is short
				args, ranges, found = append(args, all[i].chunk, found[0]), append(ranges, all[i].chunk*chunkSize+all[i].from, whole), found[2:]
			}
		}
		if whole != nil {
			copy(whole[at%chunkSize-all[i].from:], piece)
		} else {
			ranges = append(ranges, at, piece)
		}
	}
	return append(args, ranges...), nil
}
