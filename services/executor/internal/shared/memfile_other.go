//go:build !linux

package shared

import "skein.dev/abi"

type memFile struct{ fd int }

func newMemFile(int64) (*memFile, error) { return nil, abi.ENOTSUP }

func (f *memFile) write([]byte, int64) error { return abi.ENOTSUP }

func (f *memFile) finish() {}

func (f *memFile) close() {}
