// Package runs packs byte ranges of a value as skein.state.v1.PatchValueRequest has them. Append makes them; Check comes before All.
package runs

import (
	"encoding/binary"
	"errors"
	"iter"
	"math"
)

// Summary is what Check finds.
type Summary struct {
	Count      int
	Start, End int64 // of the first range and of the last
	Bytes      int64 // of all
}

var (
	errCut   = errors.New("the ranges end within a number")
	errLong  = errors.New("a range ends past 2^63")
	errEmpty = errors.New("a range without bytes")
)

// Append adds a range: it begins gap bytes behind the end of the one before, or behind 0, and has n bytes, at least one.
func Append(packed []byte, gap, n int64) []byte {
	packed = binary.AppendUvarint(packed, uint64(gap)) //nolint:gosec // neither is negative
	return binary.AppendUvarint(packed, uint64(n))     //nolint:gosec // see above
}

// Check says what packed holds, or what is wrong with it.
func Check(packed []byte) (s Summary, err error) {
	for len(packed) > 0 {
		gap, n, rest := next(packed)
		switch {
		case rest == nil:
			return Summary{}, errCut
		case n == 0:
			return Summary{}, errEmpty
		case gap > math.MaxInt64-uint64(s.End) || n > math.MaxInt64-uint64(s.End)-gap: //nolint:gosec // End is not negative
			return Summary{}, errLong
		}
		start := s.End + int64(gap) //nolint:gosec // no more than MaxInt64, as is n
		if s.Count == 0 {
			s.Start = start
		}
		s.Count, s.End, s.Bytes, packed = s.Count+1, start+int64(n), s.Bytes+int64(n), rest //nolint:gosec // see above
	}
	return s, nil
}

// next reads a range; rest is nil if there is no whole one.
func next(packed []byte) (gap, n uint64, rest []byte) {
	if len(packed) >= 2 && (packed[0]|packed[1]) < 0x80 { // as most are
		return uint64(packed[0]), uint64(packed[1]), packed[2:]
	}
	return nextLong(packed)
}

func nextLong(packed []byte) (gap, n uint64, rest []byte) {
	gap, i := binary.Uvarint(packed)
	if i <= 0 {
		return 0, 0, nil
	}
	n, j := binary.Uvarint(packed[i:])
	if j <= 0 {
		return 0, 0, nil
	}
	return gap, n, packed[i+j:]
}

// All gives offset and length of each range of what has passed Check.
func All(packed []byte) iter.Seq2[int64, int64] {
	return func(yield func(int64, int64) bool) {
		at := int64(0)
		for len(packed) > 0 {
			gap, n, rest := next(packed)
			if at += int64(gap); rest == nil || !yield(at, int64(n)) { //nolint:gosec // Check has seen to that
				return
			}
			at, packed = at+int64(n), rest //nolint:gosec // see above
		}
	}
}
