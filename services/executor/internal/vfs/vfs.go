// Package vfs is the file system that guests see, without their memory: a Table holds the descriptors of one call, an Open
// is what a descriptor refers to, and tree.go gives paths their meaning in an io/fs.FS. The tree is the user's shared files
// (shared.go), read-only for now. Errors are abi.Errno where POSIX has a number for them; else what the files' store said.
package vfs

import (
	"embed"
	"io"
	"io/fs"

	"skein.dev/abi"
)

// MaxOpen is how many descriptors a call may have open; they are numbered below it.
const MaxOpen = 64

// Root is the descriptor that the tree's root is opened for the guest as.
const Root = 3

// Table is the descriptors of one call. It is not safe for concurrent use: a call has one thread.
type Table struct {
	tree tree
	open [MaxOpen]*Open
	std  [Root + 1]Open
}

// NewTable opens 0, 1 and 2 as streams, of which a nil one is empty or kept nowhere, and Root as the root of files. Files
// must have regular files that are io.ReaderAts; nil is a tree of nothing. No stream may block.
func NewTable(files fs.FS, stdin io.Reader, stdout, stderr io.Writer) *Table {
	if files == nil {
		files = embed.FS{}
	}
	if stdout == nil {
		stdout = io.Discard
	}
	if stderr == nil {
		stderr = io.Discard
	}
	t := &Table{tree: tree{files: files}}
	t.std = [...]Open{
		{tree: &t.tree, in: stdin, readable: true},
		{tree: &t.tree, out: stdout},
		{tree: &t.tree, out: stderr},
		{tree: &t.tree, stat: Stat{Type: Directory, Ino: ino("."), name: "."}, preopened: "/"},
	}
	for fd := range t.std {
		t.open[fd] = &t.std[fd]
	}
	return t
}

// Get is what fd refers to. EBADF if it is not open.
func (t *Table) Get(fd int32) (*Open, error) {
	if uint32(fd) >= MaxOpen || t.open[fd] == nil {
		return nil, abi.EBADF
	}
	return t.open[fd], nil
}

// GetDir is Get for a directory. ENOTDIR if fd is something else.
func (t *Table) GetDir(fd int32) (*Open, error) {
	o, err := t.Get(fd)
	if err == nil && o.stat.Type != Directory {
		return nil, abi.ENOTDIR
	}
	return o, err
}

// Close closes fd.
func (t *Table) Close(fd int32) error {
	o, err := t.Get(fd)
	if err != nil {
		return err
	}
	t.open[fd] = nil
	return o.close()
}

// Renumber makes to the descriptor of what from refers to, closing what to was; from is closed. EBADF if from is not open
// or to is no number of a descriptor.
func (t *Table) Renumber(from, to int32) error {
	o, err := t.Get(from)
	switch {
	case err != nil:
		return err
	case uint32(to) >= MaxOpen:
		return abi.EBADF
	case from == to:
		return nil
	}
	if t.open[to] != nil {
		err = t.open[to].close()
	}
	t.open[from], t.open[to] = nil, o
	return err
}

// free is the lowest descriptor that is not open. EMFILE if all are.
func (t *Table) free() (int32, error) {
	for fd, o := range t.open {
		if o == nil {
			return int32(fd), nil
		}
	}
	return 0, abi.EMFILE
}

// How says how to open a file.
type How struct {
	Create, Exclusive, Truncate, Directory bool
	Write                                  bool   // with the right to write
	Flags                                  uint16 // kept with the open file
}

// OpenAt opens the file at name, relative to dir, and returns the lowest free descriptor. On a read-only tree, what would
// change it is EROFS, once all that POSIX has to say before is said.
func (t *Table) OpenAt(dir *Open, name string, how How) (int32, error) {
	if how.Create && how.Directory {
		return 0, abi.EINVAL
	}
	fd, err := t.free()
	if err != nil {
		return 0, err
	}
	at, err := t.tree.resolve(dir.stat.name, name)
	if err != nil {
		return 0, err
	}
	f, err := t.tree.files.Open(at.path)
	if err != nil {
		return 0, t.tree.refuse(at, err, how)
	}
	o := &Open{tree: &t.tree, file: f, flags: how.Flags, readable: true}
	if err = o.begin(at, how); err != nil {
		_ = f.Close() // nothing was written to it
		return 0, err
	}
	t.open[fd] = o
	return fd, nil
}
