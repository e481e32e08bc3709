// Package vfs is the file system that guests see, without their memory: a Table holds the descriptors of one call, an Open is
// what a descriptor refers to, a Layer is the tree that calls write to, and a Lower what shows through from below it. walk.go
// gives paths their meaning, POSIX's; ops.go and rename.go change the tree; content.go has the bytes. Errors are abi.Errno where
// POSIX has a number for them; else what the lower said.
package vfs

import (
	"context"
	"io"
	"sync"
	"sync/atomic"

	"skein.dev/abi"
)

// Root is the descriptor that the tree's root is opened for the guest as.
const Root = 3

// Setup is what a call's files are made of. The zero value is a tree with nothing but the built-in base, in memory.
type Setup struct {
	Lower  Lower  // shared files; nil is none
	Shared Shared // what paths that begin with Scheme name; nil is nothing
	Layer  *Layer // one that calls share and that is kept; nil for one of the call's own, made when a path is first used
	Store  *Store // of the call's own layer; nil is a small one
	Limits Limits
}

// Table is the descriptors of one call. It is safe for concurrent use: a call may have threads.
type Table struct {
	setup Setup
	read  atomic.Int64

	once  sync.Once
	layer *Layer

	mu    sync.Mutex // guards open, and the references of what is in it
	open  []*Open    // by number; nil is free
	first [8]*Open   // open, as long as that is enough
	std   [Root + 1]Open
}

// NewTable opens 0, 1 and 2 as streams, of which a nil one is empty or kept nowhere, and Root as the root of the tree. No stream
// may block. End must follow.
func NewTable(setup Setup, stdin io.Reader, stdout, stderr io.Writer) *Table {
	if stdout == nil {
		stdout = io.Discard
	}
	if stderr == nil {
		stderr = io.Discard
	}
	setup.Limits = setup.Limits.orDefault()
	t := &Table{setup: setup}
	t.std = [...]Open{
		{in: stdin, readable: true},
		{out: stdout, writable: true},
		{out: stderr, writable: true},
		{typ: Directory, preopened: "/"},
	}
	t.open = t.first[:len(t.std)]
	for fd := range t.std {
		t.std[fd].table, t.std[fd].refs = t, 1
		t.open[fd] = &t.std[fd]
	}
	return t
}

// tree is the call's layer. A call that uses no path has none.
func (t *Table) tree() *Layer {
	t.once.Do(func() {
		if t.layer = t.setup.Layer; t.layer != nil {
			t.layer.mu.Lock()
			t.layer.root.refs++
			t.layer.mu.Unlock()
		} else {
			store := t.setup.Store
			if store == nil {
				store = NewStore("", 64<<20, 0)
			}
			t.layer = NewLayer(Over(t.setup.Lower), store, t.setup.Limits)
		}
		t.std[Root].node = &t.layer.root
	})
	return t.layer
}

// BytesRead is how much of files, not of streams, was read through the table.
func (t *Table) BytesRead() int64 { return t.read.Load() }

// End closes all, and ends the call's own layer. No method may be running or follow.
func (t *Table) End() {
	for _, o := range t.open {
		if o != nil {
			o.close() // what was written is the layer's already
		}
	}
	if t.layer != nil && t.layer != t.setup.Layer {
		t.layer.Close()
	}
}

// Get is what fd refers to. EBADF if it is not open.
func (t *Table) Get(fd int32) (*Open, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.get(fd)
}

func (t *Table) get(fd int32) (*Open, error) {
	if int64(uint32(fd)) >= int64(len(t.open)) || t.open[fd] == nil {
		return nil, abi.EBADF
	}
	return t.open[fd], nil
}

// GetDir is Get for a directory. ENOTDIR if fd is something else.
func (t *Table) GetDir(fd int32) (*Open, error) {
	o, err := t.Get(fd)
	switch {
	case err != nil:
		return nil, err
	case o.typ != Directory:
		return nil, abi.ENOTDIR
	}
	t.tree()
	return o, nil
}

// Close closes fd. A file of the shared tree itself that was written is put there by the last of its descriptors; if that fails, what was
// written is lost.
func (t *Table) Close(ctx context.Context, fd int32) error {
	t.mu.Lock()
	o, err := t.get(fd)
	if err == nil {
		t.open[fd] = nil
	}
	t.mu.Unlock()
	if err != nil {
		return err
	}
	return t.drop(ctx, o)
}

// drop ends a descriptor's hold of o.
func (t *Table) drop(ctx context.Context, o *Open) error {
	t.mu.Lock()
	o.refs--
	last := o.refs == 0
	t.mu.Unlock()
	if !last {
		return nil
	}
	defer o.close()
	return o.publish(ctx)
}

// Renumber makes to the descriptor of what from refers to, closing what to was; from is closed. EBADF if from is not open
// or to is no number of a descriptor. That to need not be open is what Yosys counts on, which lends its standard output to ABC.
func (t *Table) Renumber(ctx context.Context, from, to int32) error {
	return t.assign(ctx, from, to, true)
}

// DupTo makes to a descriptor of what from refers to, closing what to was. EBADF as for Renumber.
func (t *Table) DupTo(ctx context.Context, from, to int32) error {
	return t.assign(ctx, from, to, false)
}

func (t *Table) assign(ctx context.Context, from, to int32, move bool) error {
	t.mu.Lock()
	o, err := t.get(from)
	if err == nil && int64(uint32(to)) >= int64(t.setup.Limits.Open) {
		err = abi.EBADF
	}
	if err != nil || from == to {
		t.mu.Unlock()
		return err
	}
	t.grow(int(to) + 1)
	was := t.open[to]
	t.open[to] = o
	if move {
		t.open[from] = nil
	} else {
		o.refs++
	}
	t.mu.Unlock()
	if was != nil {
		return t.drop(ctx, was)
	}
	return nil
}

// Dup is the lowest free descriptor that is at least least, made one of what fd refers to. EBADF if fd is not open, EINVAL if
// least is no number of a descriptor, EMFILE if none is free.
func (t *Table) Dup(fd, least int32) (int32, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o, err := t.get(fd)
	switch {
	case err != nil:
		return 0, err
	case int64(uint32(least)) >= int64(t.setup.Limits.Open):
		return 0, abi.EINVAL
	}
	free, err := t.free(least)
	if err != nil {
		return 0, err
	}
	o.refs++
	t.grow(int(free) + 1)
	t.open[free] = o
	return free, nil
}

func (t *Table) grow(n int) {
	for len(t.open) < n {
		t.open = append(t.open, nil)
	}
}

// free is the lowest descriptor from least on that is not open. EMFILE if all are.
func (t *Table) free(least int32) (int32, error) {
	fd := least
	for int(fd) < len(t.open) && t.open[fd] != nil {
		fd++
	}
	if int(fd) >= t.setup.Limits.Open {
		return 0, abi.EMFILE
	}
	return fd, nil
}

// How says how to open a file.
type How struct {
	Create, Exclusive, Truncate, Directory bool
	NoFollow                               bool // a symbolic link at the end: ELOOP
	Read, Write                            bool
	Flags                                  uint16 // kept with the open file
}

// OpenAt opens the file at name, relative to dir, and returns the lowest free descriptor. EISDIR for a directory with Write.
func (t *Table) OpenAt(ctx context.Context, dir *Open, name string, how How) (int32, error) {
	if how.Create && how.Directory {
		return 0, abi.EINVAL
	}
	t.mu.Lock()
	_, err := t.free(0)
	t.mu.Unlock()
	if err != nil {
		return 0, err
	}
	o, err := t.openFile(ctx, dir, name, how)
	if err != nil {
		return 0, err
	}
	t.mu.Lock()
	fd, err := t.free(0)
	if err == nil {
		t.grow(int(fd) + 1)
		t.open[fd] = o
	}
	t.mu.Unlock()
	if err != nil { // another thread was faster
		o.close() // nothing was written to it
	}
	return fd, err
}

// openFile is OpenAt without a descriptor.
func (t *Table) openFile(ctx context.Context, dir *Open, name string, how How) (*Open, error) {
	o := &Open{table: t, refs: 1, readable: how.Read, writable: how.Write, flags: how.Flags}
	var err error
	if rest, ok := outer(dir, name); ok {
		err = t.openOuter(ctx, o, rest, how)
	} else {
		err = o.open(ctx, t.tree(), dir.node, name, how)
	}
	if err != nil {
		return nil, err
	}
	return o, nil
}

// open makes o one of what is at name, from a directory of a layer on.
func (o *Open) open(ctx context.Context, l *Layer, dir *node, name string, how How) error {
	return l.do(ctx, dir, func(k *look) error {
		n, err := k.open(name, how)
		if err != nil {
			return err
		}
		n.refs++
		o.node, o.typ = n, n.typ
		if o.typ == Directory {
			o.writable = false
		}
		return nil
	})
}

// ReadFile is the content of the regular file at name. EFBIG if it has more than most bytes.
func (t *Table) ReadFile(ctx context.Context, dir *Open, name string, most int64) ([]byte, error) {
	o, err := t.openFile(ctx, dir, name, How{Read: true})
	if err != nil {
		return nil, err
	}
	defer o.close()
	size := o.Stat().Size
	switch {
	case o.typ == Directory:
		return nil, abi.EISDIR
	case size > most:
		return nil, abi.EFBIG
	}
	p := make([]byte, size)
	n, err := o.ReadAt(ctx, p, 0)
	return p[:n], err
}

// open is the node at name, made if it has to be.
func (k *look) open(name string, how How) (*node, error) {
	mode := toOpen
	if how.NoFollow || how.Create && how.Exclusive {
		mode = toOpenLink
	}
	if how.Create {
		mode += toCreate - toOpen
	}
	pl, err := k.walk(name, mode)
	switch {
	case err != nil:
		return nil, err
	case pl.absent() && how.Create:
		return k.create(pl, Regular)
	case pl.absent():
		return nil, abi.ENOENT
	case how.Create && how.Exclusive:
		return nil, abi.EEXIST
	case pl.typ() == Directory:
		if how.Create || how.Truncate || how.Write {
			return nil, abi.EISDIR
		}
		return k.node(pl), nil
	case how.Directory:
		return nil, abi.ENOTDIR
	case pl.typ() == Symlink:
		return nil, abi.ELOOP
	}
	n := k.node(pl)
	if n.typ != Regular || !how.Write && !how.Truncate {
		return n, nil
	}
	if err := k.l.own(n); err != nil {
		return nil, err
	}
	if how.Truncate {
		err = n.resize(k.l, 0)
	}
	return n, err
}
