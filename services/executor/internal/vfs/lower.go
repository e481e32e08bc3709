package vfs

import (
	"context"
	"time"
)

// Lower is a read-only tree below a layer: shared files, the built-in base. A path is clean, relative and of bytes as the guest
// wrote them ("." is the root), and never a guest's own: what is asked for is what the layer above does not have. Whatever a
// method waits for ends with ctx. Errors are abi.ENOENT for what is not there, also below a file, and abi.EIO and its like, or
// a fault, for what can't be known. It is safe for concurrent use, and called under no lock of a layer.
type Lower interface {
	// Stat looks at what is at path. It is asked often: an answer that is known costs no network.
	Stat(ctx context.Context, path string) (LowerInfo, error)
	// Open opens the file at path: one fixed content, however the name changes meanwhile. abi.EISDIR for a directory.
	Open(ctx context.Context, path string) (LowerFile, error)
	// List gives up to n of the names in dir that come after a name, in the order of their bytes ("" is before all); fewer than n
	// are the last. abi.ENOENT if there is no such directory.
	List(ctx context.Context, dir, after string, n int) ([]LowerEntry, error)
}

// LowerInfo is what a Lower knows of a path.
type LowerInfo struct {
	Dir      bool
	Device   Device    // of the built-in base only
	Size     int64     // bytes; 0 for a directory
	Modified time.Time // zero if nobody knows
	ID       uint64    // the same as long as the path's content is, or 0: then size and time stand for it
}

// LowerFile is an open file of a Lower. ReadAt is as an io.ReaderAt's, io.EOF at the end included; it is safe for concurrent use.
type LowerFile interface {
	Info() LowerInfo
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
	Close() error
}

// Sealer is a LowerFile whose content can lie in a file in memory.
type Sealer interface {
	// Seal calls use with such a file, which has the content from off to off+n at the same place, zeros up to the next 4 KiB, and
	// will not change or shrink there as long as anybody maps it. The descriptor is valid until use returns. abi.ENOTSUP if there
	// is no room for it, or if the system has no such files: then the content is to be read.
	Seal(ctx context.Context, off, n int64, use func(fd int) error) error
}

// LowerEntry is a name in a directory.
type LowerEntry struct {
	Device Device
	Name   string
	Dir    bool
}

// Device is a special file: what is read and written there never was a file's content.
type Device uint8

// The devices there are.
const (
	NoDevice     Device = iota
	NullDevice          // /dev/null
	ZeroDevice          // /dev/zero
	RandomDevice        // /dev/urandom, /dev/random
)
