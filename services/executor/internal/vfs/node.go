package vfs

import (
	"context"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"time"

	"skein.dev/abi"
)

// Type is a file's, numbered as in preview 1.
type Type uint8

// The types there are here. Streams are Unknown, as pipes are in preview 1.
const (
	Unknown         Type = 0
	CharacterDevice Type = 2
	Directory       Type = 3
	Regular         Type = 4
	Symlink         Type = 7
)

// Stat is what is known of a file. Times are in nanoseconds since 1970.
type Stat struct {
	Type                      Type
	Ino                       uint64 // the same as long as the file is there, and no other's; never 0
	Links                     uint64 // names; 1 for a directory, as where they are not counted
	Size                      int64  // bytes
	Access, Modified, Changed int64
}

// node is a file, directory, link or device that a layer has of its own, or that somebody has open.
type node struct {
	ino    uint64
	typ    Type
	device Device
	target string // of a symbolic link

	// Guarded by the layer's mutex.
	parent *node  // of a directory; of a clean file too. nil for the root and for what has no name
	name   string // in parent
	clean  bool   // it is as the lower has it, and there only for who has it open or for what is below it
	paid   bool   // it counts for the layer's files
	links  int    // names; 0 for a directory that was removed
	refs   int    // open file descriptions
	dir    dirNode

	mu                        sync.RWMutex
	access, modified, changed int64
	content                   content
}

// dirNode is what a directory has.
type dirNode struct {
	merged  bool   // the lower's directory shows below it
	lower   string // which
	entries map[string]entry
	sorted  []string // names of entries in order, some of which may be gone
	fresh   []string // names that are not in sorted yet
	listed  bool     // sorted and fresh are kept
}

// entry is a name in a directory: a node, or a whiteout, which hides the lower's.
type entry struct {
	n      *node // nil: a whiteout
	covers bool  // the lower has, or had, such a name
}

func now() int64 { return time.Now().UnixNano() }

// inoSeed makes inode numbers of the lower unforeseeable, so that nobody can make two alike.
var inoSeed = maphash.MakeSeed()

// lowerIno numbers a path of the lower. The top bit tells it from the layers' own.
func lowerIno(path string) uint64 { return maphash.String(inoSeed, path) | 1<<63 }

func lowerTime(info LowerInfo) int64 {
	if info.Modified.IsZero() {
		return 0
	}
	return max(0, info.Modified.UnixNano())
}

func lowerType(info LowerInfo) Type {
	switch {
	case info.Dir:
		return Directory
	case info.Device != NoDevice:
		return CharacterDevice
	}
	return Regular
}

func lowerStat(path string, info LowerInfo) Stat {
	t := lowerTime(info)
	return Stat{Type: lowerType(info), Ino: lowerIno(path), Links: 1, Size: info.Size, Access: t, Modified: t, Changed: t}
}

// sameContent reports whether two looks at a path saw the same.
func sameContent(a, b LowerInfo) bool {
	if a.Dir || b.Dir {
		return a.Dir == b.Dir
	}
	if a.ID != 0 || b.ID != 0 {
		return a.ID == b.ID
	}
	return a.Size == b.Size && a.Modified.Equal(b.Modified) && a.Device == b.Device
}

// stat needs the layer's mutex for the links.
func (n *node) stat() Stat {
	links := uint64(n.links)
	n.mu.RLock()
	defer n.mu.RUnlock()
	st := Stat{Type: n.typ, Ino: n.ino, Links: links, Access: n.access, Modified: n.modified, Changed: n.changed}
	switch n.typ {
	case Regular:
		st.Size = n.content.size
	case Symlink:
		st.Size = int64(len(n.target))
	}
	return st
}

// touch marks a change of what it has, or with only false of its attributes.
func (n *node) touch(contents bool) {
	t := now()
	n.mu.Lock()
	n.changed = t
	if contents {
		n.modified = t
	}
	n.mu.Unlock()
}

func (n *node) set(name string, e entry) {
	d := &n.dir
	if d.entries == nil {
		d.entries = map[string]entry{}
	}
	if _, had := d.entries[name]; !had && d.listed {
		d.fresh = append(d.fresh, name)
	}
	d.entries[name] = e
}

// names are those of all entries in order; some may be gone, and each comes once.
func (d *dirNode) names() []string {
	switch {
	case !d.listed, len(d.sorted) > 2*len(d.entries)+64:
		d.sorted = d.sorted[:0:0]
		for name := range d.entries {
			d.sorted = append(d.sorted, name)
		}
		slices.Sort(d.sorted)
	case len(d.fresh) > 0:
		d.sorted = append(d.sorted, d.fresh...)
		slices.Sort(d.sorted)
		d.sorted = slices.Compact(d.sorted)
	}
	d.fresh, d.listed = nil, true
	return d.sorted
}

// read fills p from off, as far as the file goes.
func (n *node) read(ctx context.Context, p []byte, off int64) (int, error) {
	n.mu.RLock()
	got, later, err := n.content.read(p, off)
	base := n.content.base
	n.mu.RUnlock()
	for _, part := range later {
		if lerr := readLower(ctx, base, part.p, part.off); lerr != nil {
			return int(part.off - off), lerr
		}
	}
	return got, err
}

// write writes p at off, or at the end, and says where. A write that could be done in part is not an error.
func (n *node) write(ctx context.Context, l *Layer, p []byte, off int64, atEnd bool) (done int, at int64, err error) {
	var have blocks
	for {
		n.mu.Lock()
		if at = off; atEnd {
			at = n.content.size
		}
		if len(p) > 0 && at >= MaxFile {
			n.mu.Unlock()
			return 0, at, abi.EFBIG
		}
		part := p[:min(int64(len(p)), MaxFile-at)]
		i := n.content.lacks(have, len(part), at)
		if i < 0 {
			done, err = n.content.write(l, have, part, at)
			if done > 0 {
				t := now()
				n.modified, n.changed, err = t, t, nil
			}
			n.mu.Unlock()
			return done, at, err
		}
		base, b := n.content.base, make([]byte, min(blockSize, n.content.below-i*blockSize))
		n.mu.Unlock()
		if err := readLower(ctx, base, b, i*blockSize); err != nil {
			return 0, at, err
		}
		if have == nil {
			have = blocks{}
		}
		have[i] = b
	}
}

// resize sets the file's size.
func (n *node) resize(l *Layer, size int64) error {
	switch {
	case size < 0:
		return abi.EINVAL
	case size > MaxFile:
		return abi.EFBIG
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.content.resize(l, size); err != nil {
		return err
	}
	t := now()
	n.modified, n.changed = t, t
	return nil
}

// join is a path below another; "." and "" are the root.
func join(dir, name string) string {
	if dir == "." || dir == "" {
		return name
	}
	return dir + "/" + name
}

// parentOf is the path of the directory that path is in: "" for one at the top.
func parentOf(path string) string {
	return path[:max(0, strings.LastIndexByte(path, '/'))]
}
