package vfs

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"skein.dev/abi"
)

// Layer is a writable tree over a read-only one: a call's own, which ends with it, or one that a user's calls on an executor
// share. It has what was changed; the rest shows through from its lower. No path of the host is ever made of a guest's. It is
// safe for concurrent use.
type Layer struct {
	lower Lower
	store *Store
	bytes *budget
	files budget
	inos  atomic.Uint64

	// mu guards the tree: what has which name. Nothing is awaited under it, see look.
	mu   sync.Mutex
	root node
}

// NewLayer makes an empty layer over lower. Its content is kept in store.
func NewLayer(lower Lower, store *Store, limits Limits) *Layer {
	limits = limits.orDefault()
	l := &Layer{lower: lower, store: store, bytes: &budget{most: limits.Bytes}, files: budget{most: limits.Files}}
	l.root = node{ino: lowerIno("."), typ: Directory, links: 1, refs: 1, dir: dirNode{merged: true, lower: "."}}
	return l
}

// Bytes and Files are what the layer has of its own.
func (l *Layer) Bytes() int64 { return l.bytes.used.Load() }
func (l *Layer) Files() int64 { return l.files.used.Load() }

// Close lets go of all that the layer keeps. Nobody may use it any more.
func (l *Layer) Close() {
	l.mu.Lock()
	todo, bases := []*node{&l.root}, []LowerFile(nil)
	for len(todo) > 0 {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		bases = append(bases, l.gone(n)...)
		n.target = "" // a file has many names
		for _, e := range n.dir.entries {
			if e.n != nil {
				todo = append(todo, e.n)
			}
		}
		n.dir.entries = nil
	}
	l.files.used.Store(0)
	l.mu.Unlock()
	closeAll(bases)
}

func closeAll(files []LowerFile) {
	for _, f := range files {
		_ = f.Close() // it was only read
	}
}

// pay makes n count for the layer's files.
func (l *Layer) pay(n *node) error {
	if n.paid {
		return nil
	}
	if !l.files.take(1) {
		return abi.EDQUOT
	}
	n.paid = true
	return nil
}

// create makes a node that has no name yet.
func (l *Layer) create(typ Type) (*node, error) {
	t := now()
	n := &node{typ: typ, access: t, modified: t, changed: t}
	if err := l.pay(n); err != nil {
		return nil, err
	}
	n.ino = l.inos.Add(1)
	return n, nil
}

// enter gives n a name in dir, in the place of nothing or a whiteout.
func (l *Layer) enter(dir *node, name string, n *node) {
	e := dir.dir.entries[name]
	if e.covers {
		l.files.give(1) // the whiteout
	}
	l.put(dir, name, n, e.covers)
}

// put gives n a name in dir, whatever has it.
func (l *Layer) put(dir *node, name string, n *node, covers bool) {
	dir.set(name, entry{n, covers})
	n.links++
	if n.typ == Directory {
		n.links, n.parent, n.name = 1, dir, name
	}
	dir.touch(true)
}

// adopt gives the lower's file or directory a node, which goes when nobody has it open. dir may have one already.
func (l *Layer) adopt(dir *node, name string, info LowerInfo, file LowerFile) *node {
	if e := dir.dir.entries[name]; e.n != nil {
		return e.n
	}
	path := join(dir.dir.lower, name)
	t := lowerTime(info)
	n := &node{
		ino: lowerIno(path), typ: lowerType(info), device: info.Device, clean: true, links: 1,
		parent: dir, name: name, access: t, modified: t, changed: t,
	}
	if info.Dir {
		n.dir = dirNode{merged: true, lower: path}
	}
	if file != nil {
		n.content = content{size: info.Size, base: file, below: info.Size}
	}
	dir.set(name, entry{n, true})
	return n
}

// own makes a clean node, and so its name, the layer's.
func (l *Layer) own(n *node) error {
	if !n.clean {
		return nil
	}
	if err := l.pay(n); err != nil {
		return err
	}
	n.clean = false
	if n.typ != Directory {
		n.parent = nil
	}
	return nil
}

// hide takes a name away, and hides what the lower has under it: then it counts as a file.
func (l *Layer) hide(dir *node, name string) error {
	if !dir.dir.entries[name].covers {
		delete(dir.dir.entries, name)
	} else {
		if !l.files.take(1) {
			return abi.EDQUOT
		}
		dir.set(name, entry{covers: true})
	}
	dir.touch(true)
	return nil
}

// unlinked counts one name less. What has none goes when nobody has it open.
func (l *Layer) unlinked(n *node) []LowerFile {
	n.links--
	if n.links > 0 {
		l.files.give(1) // a name more than the node
	}
	n.touch(false)
	if n.typ == Directory || n.clean {
		n.parent = nil
	}
	for name, e := range n.dir.entries { // whiteouts, and what was attached of the lower
		if e.n == nil {
			l.files.give(1)
		}
		delete(n.dir.entries, name)
	}
	n.dir.merged = false
	if n.links > 0 || n.refs > 0 {
		return nil
	}
	return l.gone(n)
}

// gone frees what nobody can reach.
func (l *Layer) gone(n *node) []LowerFile {
	if n.paid {
		l.files.give(1)
		n.paid = false
	}
	l.bytes.give(int64(len(n.target)))
	n.mu.Lock()
	base := n.content.drop(l)
	n.mu.Unlock()
	if base == nil {
		return nil
	}
	return []LowerFile{base}
}

// release ends an open file description's hold of n.
func (l *Layer) release(n *node) {
	var bases []LowerFile
	l.mu.Lock()
	n.refs--
	switch {
	case n.refs > 0:
	case n.links == 0:
		bases = l.gone(n)
	case n.clean:
		bases = l.prune(n)
	}
	l.mu.Unlock()
	closeAll(bases)
}

// prune takes clean nodes that are of no use out of the tree, from n upwards.
func (l *Layer) prune(n *node) (bases []LowerFile) {
	for n != nil && n.clean && n.refs == 0 && len(n.dir.entries) == 0 {
		dir := n.parent
		if dir != nil && dir.dir.entries[n.name].n == n {
			delete(dir.dir.entries, n.name)
		}
		n.parent = nil
		n.mu.Lock()
		if base := n.content.drop(l); base != nil {
			bases = append(bases, base)
		}
		n.mu.Unlock()
		n = dir
	}
	return bases
}

// detach takes a clean file, which the lower has no longer so, out of the tree; who has it open keeps it.
func (l *Layer) detach(n *node) {
	if dir := n.parent; dir != nil && dir.dir.entries[n.name].n == n {
		delete(dir.dir.entries, n.name)
	}
	n.parent, n.clean, n.links = nil, false, 0
}

// look is one operation's view of a layer. It runs under the layer's mutex, where nothing is awaited: what it has to know of
// the lower and doesn't is noted and asked for afterwards, and the operation begins again. So it changes nothing before it
// knows all.
type look struct {
	l     *Layer
	base  *node // where paths start, and what they can't leave
	facts []fact
	index map[question]int
	used  []*node     // that were attached: those that nobody came to need go again
	done  []LowerFile // to close when the mutex is free
}

// fact is an answer of the lower.
type fact struct {
	question
	info LowerInfo
	file LowerFile
	list []LowerEntry
	err  error
}

// question is what the lower is asked. No two facts of an operation have the same.
type question struct {
	ask   byte // 's' stat, 'o' open, 'l' list
	path  string
	after string
}

var errUnknown = errors.New("vfs: the lower must be asked")

// do runs an operation that starts at base.
func (l *Layer) do(ctx context.Context, base *node, op func(k *look) error) error {
	k := look{l: l, base: base}
	defer k.close()
	for {
		l.mu.Lock()
		err := op(&k)
		for _, n := range k.used {
			k.done = append(k.done, l.prune(n)...)
		}
		k.used = nil
		l.mu.Unlock()
		if err != errUnknown { //nolint:errorlint // it is never wrapped
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		f := &k.facts[len(k.facts)-1]
		switch f.ask {
		case 's':
			f.info, f.err = l.lower.Stat(ctx, f.path)
		case 'o':
			if f.file, f.err = l.lower.Open(ctx, f.path); f.err == nil {
				f.info = f.file.Info()
			}
		default:
			f.list, f.err = l.lower.List(ctx, f.path, f.after, listPage)
		}
		if f.err != nil && !errors.Is(f.err, abi.ENOENT) && !errors.Is(f.err, abi.EISDIR) {
			return f.err
		}
	}
}

func (k *look) close() {
	for _, f := range k.facts {
		if f.file != nil {
			_ = f.file.Close() // nobody took it
		}
	}
	closeAll(k.done)
}

// known finds a fact. Few operations need many, but a path of a thousand names can: then they are indexed.
func (k *look) known(q question) *fact {
	if len(k.facts) < fewFacts {
		for i := range k.facts {
			if k.facts[i].question == q {
				return &k.facts[i]
			}
		}
		return nil
	}
	if k.index == nil {
		k.index = map[question]int{}
	}
	for i := len(k.index); i < len(k.facts); i++ {
		k.index[k.facts[i].question] = i
	}
	if i, ok := k.index[q]; ok {
		return &k.facts[i]
	}
	return nil
}

const fewFacts = 12

func (k *look) ask(what byte, path, after string) (*fact, error) {
	q := question{what, path, after}
	if f := k.known(q); f != nil {
		return f, nil
	}
	k.facts = append(k.facts, fact{question: q})
	return nil, errUnknown
}

// stat looks at a path of the lower. ENOENT if nothing is there.
func (k *look) stat(path string) (LowerInfo, error) {
	if f := k.known(question{'o', path, ""}); f != nil && f.err == nil { // an opened file is known too
		return f.info, nil
	}
	f, err := k.ask('s', path, "")
	if err != nil {
		return LowerInfo{}, err
	}
	return f.info, f.err
}

// listPage is how many names are asked for at once.
const listPage = 256

func (k *look) list(dir, after string) ([]LowerEntry, error) {
	f, err := k.ask('l', dir, after)
	if err != nil {
		return nil, err
	}
	if errors.Is(f.err, abi.ENOENT) {
		return nil, nil // it went meanwhile
	}
	return f.list, f.err
}
