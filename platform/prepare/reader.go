package prepare

import (
	"unicode/utf8"

	"skein.dev/platform/fault"
)

// reader reads the module from pos up to end. Offsets are those of the whole module, in errors too. After the first
// error everything reads as zero and nothing moves, so that callers check err where a loop might go on without need.
type reader struct {
	b   []byte
	pos int
	end int // len(b) or less: the end of the section or body
	err *fault.Error
}

func (r *reader) fail(err *fault.Error) {
	if r.err == nil {
		r.err = err
		r.end = r.pos // every further read fails at once
	}
}

func (r *reader) left() int { return r.end - r.pos }

func (r *reader) byte() byte {
	if r.pos >= r.end {
		r.fail(bad(r.pos, "truncated: it ends in the middle of something"))
		return 0
	}
	c := r.b[r.pos]
	r.pos++
	return c
}

func (r *reader) peek() byte {
	if r.pos >= r.end {
		return 0
	}
	return r.b[r.pos]
}

// take gives the next n bytes, which are part of the module.
func (r *reader) take(n int) []byte {
	if n < 0 || n > r.left() {
		r.fail(bad(r.pos, "truncated: %d bytes are announced where %d remain", n, r.left()))
		return nil
	}
	b := r.b[r.pos : r.pos+n]
	r.pos += n
	return b
}

func (r *reader) u32() uint32 {
	if r.pos < r.end && r.b[r.pos] < 0x80 { // by far the most frequent
		r.pos++
		return uint32(r.b[r.pos-1])
	}
	return uint32(r.unsigned(32))
}

// unsigned reads LEB128 of at most bits bits.
func (r *reader) unsigned(bits uint) uint64 {
	at := r.pos
	var v uint64
	for shift := uint(0); ; shift += 7 {
		c := r.byte()
		if rest := bits - shift; rest < 7 && c>>rest != 0 { // more bits than fit, or another byte to come
			r.fail(bad(at, "an integer is longer than %d bits", bits))
			return 0
		}
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return v
		}
	}
}

// signed reads signed LEB128 of at most bits bits.
func (r *reader) signed(bits uint) int64 {
	at := r.pos
	var v int64
	for shift := uint(0); ; shift += 7 {
		c := r.byte()
		if rest := bits - shift; rest < 7 {
			// The last byte possible: what lies above the sign bit must repeat it.
			sign := int8(c<<1) >> rest // bits from the sign on, extended
			if c >= 0x80 || sign != 0 && sign != -1 {
				r.fail(bad(at, "an integer is longer than %d bits", bits))
				return 0
			}
		}
		v |= int64(c&0x7f) << shift
		if c < 0x80 {
			if shift+7 < 64 && c&0x40 != 0 {
				v |= -1 << (shift + 7)
			}
			return v
		}
	}
}

// count reads the length of a vector whose entries take at least size bytes each: a count that the remaining bytes can't
// hold is refused before anybody allocates for it.
func (r *reader) count(size int, l limit) int {
	at := r.pos
	n := r.u32()
	if uint64(n) > uint64(l.most) {
		r.fail(l.exceeds(uint64(n), at))
		return 0
	}
	if uint64(n)*uint64(size) > uint64(r.left()) {
		r.fail(bad(at, "truncated: %d %s are announced in the last %d bytes", n, l.what, r.left()))
		return 0
	}
	return int(n)
}

// name reads a string of at most most bytes.
func (r *reader) name(most int) string {
	at := r.pos
	n := r.u32()
	if uint64(n) > uint64(most) {
		r.fail(limit{"bytes of a name", most, "shorten the name; symbols of C++ templates are the usual cause"}.exceeds(uint64(n), at))
		return ""
	}
	b := r.take(int(n))
	if !utf8.Valid(b) {
		r.fail(bad(at, "a name is not UTF-8"))
		return ""
	}
	return string(b)
}

// index reads a position in an index space of n things.
func (r *reader) index(n int, what string) uint32 {
	at := r.pos
	i := r.u32()
	if r.err == nil && uint64(i) >= uint64(n) {
		r.fail(bad(at, "%s %d of %d", what, i, n))
		return 0
	}
	return i
}

// zero reads a byte that is reserved for memories beyond the first.
func (r *reader) zero() {
	if at := r.pos; r.byte() != 0 {
		r.fail(bad(at, "more than one memory is not supported"))
	}
}
