package replica

import "slices"

// ranges are byte ranges in order, neither touching nor empty.
type ranges []span

type span struct{ start, end int64 }

// after is the index of the first range that ends at or behind an offset.
func (r ranges) after(at int64) int {
	i, _ := slices.BinarySearchFunc(r, at, func(s span, at int64) int {
		if s.end < at {
			return -1
		}
		return 1
	})
	return i
}

// add gives the union with [start, end).
func (r ranges) add(start, end int64) ranges {
	if start >= end {
		return r
	}
	i := r.after(start)
	j := i
	for j < len(r) && r[j].start <= end {
		start, end = min(start, r[j].start), max(end, r[j].end)
		j++
	}
	return slices.Replace(r, i, j, span{start, end})
}

// union gives what is in either.
func (r ranges) union(o ranges) ranges {
	if len(r) == 0 {
		return o
	}
	if len(o) == 0 {
		return r
	}
	out := make(ranges, 0, len(r)+len(o))
	for len(r) > 0 || len(o) > 0 {
		var s span
		if len(o) == 0 || len(r) > 0 && r[0].start < o[0].start {
			s, r = r[0], r[1:]
		} else {
			s, o = o[0], o[1:]
		}
		if n := len(out) - 1; n >= 0 && s.start <= out[n].end {
			out[n].end = max(out[n].end, s.end)
		} else {
			out = append(out, s)
		}
	}
	return out
}

// within gives the parts that lie in [start, end).
func (r ranges) within(start, end int64) ranges {
	var out ranges
	for i := r.after(start); i < len(r) && r[i].start < end; i++ {
		if s := (span{max(r[i].start, start), min(r[i].end, end)}); s.start < s.end {
			out = append(out, s)
		}
	}
	return out
}

// both gives what is in r and in o.
func (r ranges) both(o ranges) ranges {
	var out ranges
	for len(r) > 0 && len(o) > 0 {
		if s := (span{max(r[0].start, o[0].start), min(r[0].end, o[0].end)}); s.start < s.end {
			out = append(out, s)
		}
		if r[0].end < o[0].end {
			r = r[1:]
		} else {
			o = o[1:]
		}
	}
	return out
}

// minus gives what is in r and not in o.
func (r ranges) minus(o ranges) ranges {
	var out ranges
	for _, s := range r {
		for len(o) > 0 && o[0].end <= s.start {
			o = o[1:]
		}
		for i := 0; i < len(o) && o[i].start < s.end; i++ {
			if s.start < o[i].start {
				out = append(out, span{s.start, o[i].start})
			}
			s.start = o[i].end
		}
		if s.start < s.end {
			out = append(out, s)
		}
	}
	return out
}

// gaps gives the parts of [start, end) that are in none.
func (r ranges) gaps(start, end int64) ranges {
	out := ranges{}
	for _, s := range r.within(start, end) {
		if start < s.start {
			out = append(out, span{start, s.start})
		}
		start = s.end
	}
	if start < end {
		out = append(out, span{start, end})
	}
	return out
}
