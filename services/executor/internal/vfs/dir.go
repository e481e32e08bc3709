package vfs

import (
	"errors"
	"io"
	"io/fs"
	"path"

	"skein.dev/abi"
)

// Entry is a directory's. Next is the cookie of the entry after it.
type Entry struct {
	Next uint64
	Ino  uint64
	Type Type
	Name string
}

// listing is how far a directory has been read. A cookie is an entry's position in it; "." is 0 and ".." is 1.
type listing struct {
	entries []Entry // a window, so that a large directory doesn't fill the host's memory
	first   uint64  // position of entries[0]
	issued  uint64  // the largest cookie the guest can know
	done    bool
}

const (
	pageEntries = 256     // read at once
	maxEntries  = 1 << 14 // in the window
)

// ReadDir calls visit with the entries from cookie on, until it returns false or there are no more. Cookie 0 reads the
// directory anew. ENOTDIR if o is not one, EINVAL for a cookie that no entry had.
func (o *Open) ReadDir(cookie uint64, visit func(Entry) bool) error {
	l := &o.listing
	switch {
	case o.stat.Type != Directory:
		return abi.ENOTDIR
	case cookie > l.issued:
		return abi.EINVAL
	}
	if cookie == 0 || cookie < l.first || len(l.entries) == 0 {
		if err := o.rewind(); err != nil {
			return err
		}
	}
	for at := cookie; ; at++ {
		for at >= l.first+uint64(len(l.entries)) {
			if l.done {
				return nil
			}
			if err := o.readPage(); err != nil {
				return err
			}
		}
		e := l.entries[at-l.first]
		if !visit(e) {
			return nil
		}
		l.issued = max(l.issued, e.Next)
	}
}

// rewind begins with the entries that every directory has, and opens the directory once more if it was read before.
func (o *Open) rewind() error {
	if o.file == nil || len(o.listing.entries) > 0 {
		f, err := o.tree.files.Open(o.stat.name)
		if err != nil {
			return o.tree.refuse(target{path: o.stat.name}, err, How{})
		}
		_ = o.close() // it was only read
		o.file = f
	}
	o.listing = listing{issued: o.listing.issued, entries: []Entry{
		{1, o.stat.Ino, Directory, "."},
		{2, ino(path.Dir(o.stat.name)), Directory, ".."},
	}}
	return nil
}

func (o *Open) readPage() error {
	d, ok := o.file.(fs.ReadDirFile)
	if !ok {
		return abi.ENOTDIR
	}
	l := &o.listing
	page, err := d.ReadDir(pageEntries)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	l.done = err != nil || len(page) == 0
	if len(l.entries) > maxEntries {
		drop := len(l.entries) / 2
		l.entries = append([]Entry(nil), l.entries[drop:]...)
		l.first += uint64(drop)
	}
	for _, e := range page {
		next := l.first + uint64(len(l.entries)) + 1
		l.entries = append(l.entries, Entry{next, ino(path.Join(o.stat.name, e.Name())), typeOf(e.Type()), e.Name()})
	}
	return nil
}
