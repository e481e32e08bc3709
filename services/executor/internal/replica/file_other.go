//go:build !linux

package replica

import "skein.dev/abi"

// file is what guests map; they can't on this system.
type file struct {
	fd         int
	length     int64
	view, base []byte
	suspects   *suspects
}

func newFile(int64) (*file, error) { return nil, abi.ENOTSUP }

func (f *file) grow(int64) error { return abi.ENOTSUP }

func (f *file) forget(int) {}

func (f *file) close() {}

func (r *Replica) touch(*Mapping) {}
