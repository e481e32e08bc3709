package vfs

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"math"
	"sync"

	"skein.dev/abi"
)

// Append is the flag, of preview 1, of an open file whose writes all go to its end.
const Append = 1

// Open is an open file description, which descriptors refer to: a stream, a file or a directory.
type Open struct {
	table     *Table
	typ       Type
	readable  bool
	writable  bool
	preopened string // the name under which the guest got it
	refs      int    // descriptors; guarded by the table's mutex

	in  io.Reader // of a stream
	out io.Writer

	node  *node  // of what is no stream
	layer *Layer // of its own, for a file of the shared tree itself; nil is the call's

	// Of such a one: its path there, if it was written since it was put, and if nothing may be there when it is.
	shared string
	dirty  bool
	fresh  bool
	spoilt error // why something is missing of what was written: then it is not put

	mu      sync.Mutex // is held while the offset is in use, over a read too
	flags   uint16
	pos     int64
	closed  bool
	listing listing // of a directory
}

func (o *Open) close() {
	o.mu.Lock()
	was := o.closed
	o.closed = true
	o.mu.Unlock()
	switch {
	case o.node == nil || was:
	case o.layer != nil:
		o.layer.Close()
	default:
		o.table.layer.release(o.node)
	}
}

// tree is the layer that the file is of.
func (o *Open) tree() *Layer {
	if o.layer != nil {
		return o.layer
	}
	return o.table.tree()
}

// Type is the file's.
func (o *Open) Type() Type { return o.typ }

// Stat is what is known of the file.
func (o *Open) Stat() Stat {
	if o.Stream() {
		return Stat{Links: 1}
	}
	l := o.tree()
	l.mu.Lock()
	defer l.mu.Unlock()
	return o.node.stat()
}

// Stream reports whether o is one: it has no offset, and reading and writing don't wait.
func (o *Open) Stream() bool { return o.typ == Unknown }

// Readable reports whether o was opened for reading.
func (o *Open) Readable() bool { return o.readable }

// Writable reports whether o was opened for writing.
func (o *Open) Writable() bool { return o.writable }

// Preopened is the name under which the guest got the directory, or empty.
func (o *Open) Preopened() string { return o.preopened }

// Flags are the ones that SetFlags or OpenAt set.
func (o *Open) Flags() uint16 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.flags
}

// SetFlags keeps flags. Of these Append changes what is done; nothing that is open blocks.
func (o *Open) SetFlags(flags uint16) {
	o.mu.Lock()
	o.flags = flags
	o.mu.Unlock()
}

// Left is how many bytes can be read at once.
func (o *Open) Left() int64 {
	switch {
	case o.Stream():
		if l, ok := o.in.(interface{ Len() int }); ok {
			return int64(l.Len())
		}
		return 0
	case o.typ != Regular:
		return 0
	}
	size := o.Stat().Size
	o.mu.Lock()
	defer o.mu.Unlock()
	return max(0, size-o.pos)
}

// Read reads from the offset, which it moves: fewer bytes than p has mean the end. EBADF if o was not opened for reading,
// EISDIR for a directory.
func (o *Open) Read(ctx context.Context, p []byte) (int, error) {
	switch {
	case o.typ == Directory:
		return 0, abi.EISDIR
	case !o.readable:
		return 0, abi.EBADF
	case o.Stream() && o.in == nil:
		return 0, nil
	case o.Stream():
		n, err := io.ReadFull(o.in, p)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = nil
		}
		return n, err
	case o.typ == CharacterDevice:
		return o.device(p)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	n, err := o.readAt(ctx, p, o.pos)
	o.pos += int64(n)
	return n, err
}

// ReadAt reads from off and leaves the offset alone. EINVAL if off is negative, ESPIPE for a stream.
func (o *Open) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	switch {
	case o.Stream():
		return 0, abi.ESPIPE
	case off < 0:
		return 0, abi.EINVAL
	case o.typ == Directory:
		return 0, abi.EISDIR
	case !o.readable:
		return 0, abi.EBADF
	case o.typ == CharacterDevice:
		return o.device(p)
	}
	return o.readAt(ctx, p, off)
}

func (o *Open) readAt(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := o.node.read(ctx, p, off)
	o.table.read.Add(int64(n))
	return n, err
}

// device is what is read of one.
func (o *Open) device(p []byte) (int, error) {
	switch o.node.device {
	case ZeroDevice:
		clear(p)
	case RandomDevice:
		_, _ = rand.Read(p) // it never fails
	default:
		return 0, nil
	}
	return len(p), nil
}

// Write writes p at the offset, which it moves, or at the end. Fewer bytes than p has mean that there is no room for more.
// EBADF if o was not opened for writing, EDQUOT if its layer has no room, ENOSPC if the executor hasn't, EFBIG.
func (o *Open) Write(ctx context.Context, p []byte) (int, error) {
	switch {
	case !o.writable:
		return 0, abi.EBADF
	case o.Stream():
		return o.out.Write(p)
	case o.typ != Regular:
		return len(p), nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return 0, abi.EBADF
	}
	n, at, err := o.node.write(ctx, o.tree(), p, o.pos, o.flags&Append != 0)
	if n > 0 {
		o.pos = at + int64(n)
	}
	o.wrote(len(p), n, err)
	return n, err
}

// WriteAt writes p at off and leaves the offset alone. As on Linux it writes to the end if Append is set. EINVAL if off is
// negative, ESPIPE for a stream; else as Write.
func (o *Open) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	switch {
	case o.Stream():
		return 0, abi.ESPIPE
	case off < 0:
		return 0, abi.EINVAL
	case !o.writable:
		return 0, abi.EBADF
	case o.typ != Regular:
		return len(p), nil
	}
	o.mu.Lock() // so that nothing is written to what was closed
	defer o.mu.Unlock()
	if o.closed {
		return 0, abi.EBADF
	}
	n, _, err := o.node.write(ctx, o.tree(), p, off, o.flags&Append != 0)
	o.wrote(len(p), n, err)
	return n, err
}

// Seek moves the offset to off from the start, itself or the end, as io.Seeker's whence has it, and returns it. ESPIPE for a
// stream, EISDIR for a directory, EINVAL for another whence or an offset below 0, EOVERFLOW for one beyond 2^63.
func (o *Open) Seek(off int64, whence int) (int64, error) {
	switch {
	case o.Stream():
		return 0, abi.ESPIPE
	case o.typ == Directory:
		return 0, abi.EISDIR
	}
	size := o.Stat().Size
	o.mu.Lock()
	defer o.mu.Unlock()
	var from int64
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		from = o.pos
	case io.SeekEnd:
		from = size
	default:
		return 0, abi.EINVAL
	}
	switch {
	case off > 0 && from > math.MaxInt64-off:
		return 0, abi.EOVERFLOW
	case from+off < 0:
		return 0, abi.EINVAL
	}
	o.pos = from + off
	return o.pos, nil
}

// Sync waits until what was written is stored: it is, as far as it ever will be, but for a file of the shared tree itself, which is
// put there. EINVAL for what can't be.
func (o *Open) Sync(ctx context.Context) error {
	if o.typ != Regular && o.typ != Directory {
		return abi.EINVAL
	}
	return o.publish(ctx)
}

// Allocate makes the file reach to off+size, with a hole if it has to grow. EDQUOT or ENOSPC if there would be no room now;
// ESPIPE for a stream, EINVAL for a bad range, EFBIG, EBADF if o was not opened for writing.
func (o *Open) Allocate(off, size int64) error {
	switch {
	case off < 0 || size <= 0:
		return abi.EINVAL
	case o.Stream():
		return abi.ESPIPE
	case o.typ == Directory || !o.writable:
		return abi.EBADF
	case o.typ != Regular:
		return abi.ENODEV
	case off > MaxFile-size:
		return abi.EFBIG
	}
	return o.change(func(n *node, l *Layer) error {
		had := n.stat().Size
		more := max(0, off+size-had)
		switch {
		case more == 0:
			n.touch(true)
			return nil
		case l.bytes.used.Load()+more > l.bytes.most:
			return abi.EDQUOT
		case l.store.memory.used.Load()+more > l.store.memory.most && l.store.disk.used.Load()+more > l.store.disk.most:
			return abi.ENOSPC
		}
		o.dirty = true
		return n.resize(l, off+size)
	})
}

// SetSize cuts the file or lets it grow with a hole. EINVAL, as POSIX has it, for what is no file that is open for writing;
// EFBIG.
func (o *Open) SetSize(size int64) error {
	if o.typ != Regular || !o.writable || size < 0 {
		return abi.EINVAL
	}
	return o.change(func(n *node, l *Layer) error {
		o.dirty = true
		return n.resize(l, size)
	})
}

// SetTimes sets the file's times. EPERM for a stream.
func (o *Open) SetTimes(t Times) error {
	if o.Stream() {
		return abi.EPERM
	}
	if o.layer != nil {
		return abi.ENOTSUP // the fs service says when a file was put
	}
	return o.change(func(n *node, l *Layer) error {
		if n.links > 0 {
			if err := l.own(n); err != nil {
				return err
			}
		}
		n.setTimes(t)
		return nil
	})
}

// change runs f on the node under the layer's mutex, so that it is there as long.
func (o *Open) change(f func(n *node, l *Layer) error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return abi.EBADF
	}
	l := o.tree()
	l.mu.Lock()
	defer l.mu.Unlock()
	return f(o.node, l)
}
