package vfs

import (
	"errors"
	"os"
	"sync/atomic"
	"syscall"

	"skein.dev/abi"
)

// Store is where the layers of an executor keep what was written to them: small files on the heap, larger ones, and all when the
// memory is used up, in files of a directory that have no name and end with the process.
type Store struct {
	dir          string
	memory, disk budget
}

// NewStore bounds what all layers keep on the heap and in dir, in bytes. An empty dir is the system's for temporary files.
func NewStore(dir string, memory, disk int64) *Store {
	return &Store{dir: dir, memory: budget{most: memory}, disk: budget{most: disk}}
}

// Memory and Disk are what layers keep now, in bytes.
func (s *Store) Memory() int64 { return s.memory.used.Load() }
func (s *Store) Disk() int64   { return s.disk.used.Load() }

// temp makes a file without a name.
func (s *Store) temp() (*os.File, error) {
	f, err := os.CreateTemp(s.dir, "skein-layer-*")
	if err != nil {
		return nil, diskErr(err)
	}
	if err = os.Remove(f.Name()); err != nil {
		_ = f.Close() // it can't be used
		return nil, diskErr(err)
	}
	return f, nil
}

// diskErr is what a guest hears of the disk below a layer.
func diskErr(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return abi.ENOSPC
	}
	return abi.EIO
}

// budget is a number of things, of which some are used.
type budget struct {
	used atomic.Int64
	most int64
}

func (b *budget) take(n int64) bool {
	if b.used.Add(n) > b.most && n > 0 {
		b.used.Add(-n)
		return false
	}
	return true
}

func (b *budget) give(n int64) { b.used.Add(-n) }

// Limits bound what a guest can take. What is zero is as DefaultLimits has it.
type Limits struct {
	Bytes int64 // in a layer
	Files int64 // of a layer's own: files, directories, links, and names it hides
	Open  int   // descriptors of a call
}

// DefaultLimits are an executor's, unless it was told others.
func DefaultLimits() Limits { return Limits{Bytes: 256 << 20, Files: 1 << 16, Open: 1024} }

func (l Limits) orDefault() Limits {
	d := DefaultLimits()
	if l.Bytes <= 0 {
		l.Bytes = d.Bytes
	}
	if l.Files <= 0 {
		l.Files = d.Files
	}
	if l.Open <= 0 {
		l.Open = d.Open
	}
	return l
}
