package vfs

import (
	"errors"
	"io"
	"io/fs"
	"math"

	"skein.dev/abi"
)

// Type is a file's, numbered as in preview 1.
type Type uint8

// The types there are here. Streams are Unknown, as pipes are in preview 1.
const (
	Unknown   Type = 0
	Directory Type = 3
	Regular   Type = 4
	Symlink   Type = 7
)

// Stat is what is known of a file.
type Stat struct {
	Type Type
	Ino  uint64 // the same for the same path, never 0
	Size int64  // bytes
	Time int64  // of the last change, in nanoseconds since 1970
	name string // path in the tree
}

// Open is an open file, which descriptors refer to: a stream, a regular file or a directory.
type Open struct {
	tree      *tree
	stat      Stat
	flags     uint16
	readable  bool
	preopened string // the name under which the guest got it

	in  io.Reader // of a stream
	out io.Writer

	file fs.File // of a regular file or a directory; nil for a directory that has not been read
	pos  int64

	listing listing // of a directory
}

// begin makes o the open file at at, or says why it can't be opened so.
func (o *Open) begin(at target, how How) error {
	info, err := o.file.Stat()
	if err != nil {
		return err
	}
	o.stat = statOf(at.path, info)
	switch {
	case how.Create && how.Exclusive:
		return abi.EEXIST
	case o.stat.Type == Directory:
		if how.Create || how.Truncate || how.Write && !how.Directory {
			return abi.EISDIR
		}
		return nil
	case how.Directory || at.directory:
		return abi.ENOTDIR
	case how.Write || how.Truncate:
		return abi.EROFS
	}
	if _, ok := o.file.(io.ReaderAt); !ok {
		return abi.ENOTSUP
	}
	return nil
}

func (o *Open) close() error {
	if o.file == nil {
		return nil
	}
	return o.file.Close()
}

// Stat is what was known of the file when it was opened.
func (o *Open) Stat() Stat { return o.stat }

// Stream reports whether o is one: it has no offset, and reading and writing don't wait.
func (o *Open) Stream() bool { return o.in != nil || o.stat.Type == Unknown }

// Readable reports whether o was opened for reading.
func (o *Open) Readable() bool { return o.readable }

// Writable reports whether o was opened for writing.
func (o *Open) Writable() bool { return o.out != nil }

// Preopened is the name under which the guest got the directory, or empty.
func (o *Open) Preopened() string { return o.preopened }

// Flags are the ones that SetFlags or OpenAt set.
func (o *Open) Flags() uint16 { return o.flags }

// SetFlags keeps flags. None changes anything so far: nothing that is open blocks or can be appended to.
func (o *Open) SetFlags(flags uint16) { o.flags = flags }

// Left is how many bytes can be read at once.
func (o *Open) Left() int64 {
	if o.Stream() {
		if l, ok := o.in.(interface{ Len() int }); ok {
			return int64(l.Len())
		}
		return 0
	}
	return max(0, o.stat.Size-o.pos)
}

// Read reads from the offset, which it moves: fewer bytes than p has mean the end. EBADF if o was not opened for reading,
// EISDIR for a directory.
func (o *Open) Read(p []byte) (int, error) {
	switch {
	case !o.readable:
		return 0, abi.EBADF
	case o.stat.Type == Directory:
		return 0, abi.EISDIR
	case !o.Stream():
		n, err := o.readAt(p, o.pos)
		o.pos += int64(n)
		return n, err
	case o.in == nil:
		return 0, nil
	}
	n, err := io.ReadFull(o.in, p)
	return n, notEOF(err)
}

// ReadAt reads from off and leaves the offset alone. EINVAL if off is negative, ESPIPE for a stream.
func (o *Open) ReadAt(p []byte, off int64) (int, error) {
	switch {
	case o.Stream():
		return 0, abi.ESPIPE
	case o.stat.Type == Directory:
		return 0, abi.EISDIR
	case off < 0:
		return 0, abi.EINVAL
	}
	return o.readAt(p, off)
}

func (o *Open) readAt(p []byte, off int64) (int, error) {
	if off >= o.stat.Size {
		return 0, nil
	}
	n, err := o.file.(io.ReaderAt).ReadAt(p, off)
	return n, notEOF(err)
}

func notEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// Write writes p. EBADF if o was not opened for writing, which no file can be so far.
func (o *Open) Write(p []byte) (int, error) {
	if o.out == nil {
		return 0, abi.EBADF
	}
	return o.out.Write(p)
}

// WriteAt writes p at off. ESPIPE for a stream, EBADF for the rest.
func (o *Open) WriteAt([]byte, int64) (int, error) {
	if o.Stream() {
		return 0, abi.ESPIPE
	}
	return 0, abi.EBADF
}

// Seek moves the offset to off from the start, itself or the end, as io.Seeker's whence has it, and returns it. ESPIPE for a
// stream, EISDIR for a directory, EINVAL for another whence or an offset below 0, EOVERFLOW for one beyond 2^63.
func (o *Open) Seek(off int64, whence int) (int64, error) {
	switch {
	case o.Stream():
		return 0, abi.ESPIPE
	case o.stat.Type == Directory:
		return 0, abi.EISDIR
	}
	var from int64
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		from = o.pos
	case io.SeekEnd:
		from = o.stat.Size
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

// Sync waits until what was written is stored: nothing, on a read-only tree. EINVAL for a stream.
func (o *Open) Sync() error {
	if o.Stream() {
		return abi.EINVAL
	}
	return nil
}

// Allocate makes room for size bytes from off. ESPIPE for a stream, EINVAL for a bad range, EBADF for the rest.
func (o *Open) Allocate(off, size int64) error {
	switch {
	case o.Stream():
		return abi.ESPIPE
	case off < 0 || size <= 0 || off > math.MaxInt64-size:
		return abi.EINVAL
	}
	return abi.EBADF
}

// SetSize cuts or grows the file. EINVAL, as POSIX has it for what is not open for writing, so far.
func (o *Open) SetSize(int64) error { return abi.EINVAL }

// SetTimes sets the file's times. EROFS; EPERM for a stream.
func (o *Open) SetTimes() error {
	if o.Stream() {
		return abi.EPERM
	}
	return abi.EROFS
}
