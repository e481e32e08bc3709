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
