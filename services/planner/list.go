package planner

// records is a list of records that are linked by fields of their own, so that to be in one costs no memory. A record can be in one
// list of each slot.
type records struct {
	slot        int
	first, last *record
	len         int
}

// The slots.
const (
	acceptance = iota // all calls
	turn              // calls that wait, by line, and those that have ended
	slots
)

type links struct{ prev, next *record }

func (l *records) push(r *record) {
	at := &r.links[l.slot]
	at.prev, at.next = l.last, nil
	if l.last != nil {
		l.last.links[l.slot].next = r
	} else {
		l.first = r
	}
	l.last = r
	l.len++
}

func (l *records) remove(r *record) {
	at := &r.links[l.slot]
	if at.prev != nil {
		at.prev.links[l.slot].next = at.next
	} else {
		l.first = at.next
	}
	if at.next != nil {
		at.next.links[l.slot].prev = at.prev
	} else {
		l.last = at.prev
	}
	*at = links{}
	l.len--
}

// all gives the records from the first on. The list must not change meanwhile.
func (l *records) all(yield func(*record) bool) {
	for r := l.first; r != nil && yield(r); r = r.links[l.slot].next {
	}
}

// backward gives them from the last on.
func (l *records) backward(yield func(*record) bool) {
	for r := l.last; r != nil && yield(r); r = r.links[l.slot].prev {
	}
}

// deadlineHeap orders calls by when Tick is to do something about them. It is container/heap's algorithm without its calls by
// interface: each call goes in and out of it once.
type deadlineHeap []*record

func (h *deadlineHeap) push(r *record) {
	*h = append(*h, r)
	h.up(r, len(*h)-1)
}

// fix must follow a change of when r is due.
func (h deadlineHeap) fix(r *record) {
	if !h.down(r, r.heapAt) {
		h.up(r, r.heapAt)
	}
}

func (h *deadlineHeap) remove(r *record) {
	last := len(*h) - 1
	moved := (*h)[last]
	(*h)[last] = nil
	if *h = (*h)[:last]; moved != r {
		(*h)[r.heapAt], moved.heapAt = moved, r.heapAt
		h.fix(moved)
	}
	r.heapAt = -1
}

// up puts r at i, or above.
func (h deadlineHeap) up(r *record, i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !r.due.Before(h[parent].due) {
			break
		}
		h[i], h[parent].heapAt = h[parent], i
		i = parent
	}
	h[i], r.heapAt = r, i
}

// down puts r at i, or below; it tells whether it is below.
func (h deadlineHeap) down(r *record, i int) bool {
	at := i
	for {
		child := 2*at + 1
		if child >= len(h) {
			break
		}
		if child+1 < len(h) && h[child+1].due.Before(h[child].due) {
			child++
		}
		if !h[child].due.Before(r.due) {
			break
		}
		h[at], h[child].heapAt = h[child], at
		at = child
	}
	h[at], r.heapAt = r, at
	return at > i
}
