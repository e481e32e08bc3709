package vfs

import (
	"context"
	"slices"
	"sort"

	"skein.dev/abi"
)

// Entry is a directory's. Next is the cookie of the entry after it.
type Entry struct {
	Next uint64
	Ino  uint64
	Type Type
	Name string
}

// listing is how far a directory has been read. Entries come in the order of their names, and a cookie is an entry's position:
// "." is 0 and ".." is 1. A page is read from the name that the one before ended with, so that what is made and removed
// meanwhile moves nothing else: what is there all the time comes exactly once.
type listing struct {
	pages  []mark
	page   []Entry // one of them
	at     int     // which; -1 is none
	issued uint64  // the largest cookie the guest can know
}

// mark is where a page begins.
type mark struct {
	pos   uint64 // of its first entry
	after string // the name before it
	last  string // the name of its last entry, as it was
	n     int    // entries, as it was
}

// ReadDir calls visit with the entries from cookie on, until it returns false or there are no more. Cookie 0 reads the
// directory anew. ENOTDIR if o is not one, EINVAL for a cookie that no entry had.
func (o *Open) ReadDir(ctx context.Context, cookie uint64, visit func(Entry) bool) error {
	if o.typ != Directory {
		return abi.ENOTDIR
	}
	o.tree()
	o.mu.Lock()
	defer o.mu.Unlock()
	l := &o.listing
	if cookie > l.issued {
		return abi.EINVAL
	}
	if cookie == 0 || len(l.pages) == 0 {
		*l = listing{issued: l.issued, at: -1}
	}
	for at := cookie; ; at++ {
		e, err := o.entry(ctx, at)
		if err != nil || e.Next == 0 {
			return err
		}
		l.issued = max(l.issued, e.Next) // visit may have taken it and want no more
		if !visit(e) {
			return nil
		}
	}
}

// entry is the one at a position; Next is 0 if there is none.
func (o *Open) entry(ctx context.Context, at uint64) (Entry, error) {
	l := &o.listing
	if at < 2 {
		return o.dot(at), nil
	}
	for {
		i := sort.Search(len(l.pages), func(i int) bool { return l.pages[i].pos > at }) - 1
		if i >= 0 && at < l.pages[i].pos+uint64(l.pages[i].n) {
			if err := o.load(ctx, i); err != nil {
				return Entry{}, err
			}
			if j := int(at - l.pages[i].pos); j < len(l.page) {
				return l.page[j], nil
			}
			at = l.pages[i].pos + uint64(l.pages[i].n) // what was there is gone
			continue
		}
		more, err := o.nextPage(ctx)
		if err != nil || !more {
			return Entry{}, err
		}
	}
}

// dot is "." or "..", which every directory has.
func (o *Open) dot(at uint64) Entry {
	l := o.tree()
	l.mu.Lock()
	defer l.mu.Unlock()
	if o.node.links == 0 {
		return Entry{} // it was removed
	}
	if at == 0 {
		return Entry{1, o.node.ino, Directory, "."}
	}
	up := o.node
	if up.parent != nil {
		up = up.parent
	}
	return Entry{2, up.ino, Directory, ".."}
}

// load makes page i the one at hand. Of a page that is read again only what still lies before the next one counts.
func (o *Open) load(ctx context.Context, i int) error {
	l := &o.listing
	if l.at == i {
		return nil
	}
	page, err := o.readPage(ctx, l.pages[i].after)
	if err != nil {
		return err
	}
	page = slices.DeleteFunc(page, func(e Entry) bool { return e.Name > l.pages[i].last })
	l.at, l.page = i, page[:min(len(page), l.pages[i].n)]
	l.number(i)
	return nil
}

func (l *listing) number(i int) {
	for j := range l.page {
		l.page[j].Next = l.pages[i].pos + uint64(j) + 1
	}
}

// nextPage reads the page after the last one.
func (o *Open) nextPage(ctx context.Context) (bool, error) {
	l := &o.listing
	m := mark{pos: 2}
	if k := len(l.pages); k > 0 {
		last := l.pages[k-1]
		m = mark{pos: last.pos + uint64(last.n), after: last.last}
	}
	page, err := o.readPage(ctx, m.after)
	if err != nil || len(page) == 0 {
		return false, err
	}
	m.n, m.last = len(page), page[len(page)-1].Name
	l.pages, l.page, l.at = append(l.pages, m), page, len(l.pages)
	l.number(l.at)
	return true, nil
}

// readPage reads up to listPage entries that come after a name: the layer's own and the lower's, merged.
func (o *Open) readPage(ctx context.Context, after string) (page []Entry, err error) {
	err = o.tree().do(ctx, o.node, func(k *look) error {
		page = page[:0]
		d := &o.node.dir
		own := d.names()
		i, found := slices.BinarySearch(own, after)
		if found {
			i++
		}
		var below []LowerEntry
		more, from := d.merged, after
		for len(page) < listPage {
			if len(below) == 0 && more {
				if below, err = k.list(d.lower, from); err != nil {
					return err
				}
				if more = len(below) == listPage; more {
					from = below[len(below)-1].Name
				}
			}
			switch {
			case i < len(own) && (len(below) == 0 || own[i] < below[0].Name):
				if e := d.entries[own[i]]; e.n != nil && (!e.n.clean || len(e.n.dir.entries) > 0) {
					page = append(page, Entry{Ino: e.n.ino, Type: e.n.typ, Name: own[i]})
				}
				i++
			case len(below) > 0:
				b := below[0]
				below = below[1:]
				e, hidden := Entry{Ino: lowerIno(join(d.lower, b.Name)), Type: lowerType(LowerInfo{Dir: b.Dir, Device: b.Device}), Name: b.Name}, false
				if i < len(own) && own[i] == b.Name {
					if x, ok := d.entries[b.Name]; ok && x.n == nil {
						hidden = true
					} else if ok {
						e.Ino, e.Type = x.n.ino, x.n.typ
					}
					i++
				}
				if !hidden {
					page = append(page, e)
				}
			default:
				return nil
			}
		}
		return nil
	})
	return page, err
}
