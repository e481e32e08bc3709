package shared

import (
	"io"
	"os"

	"golang.org/x/sys/unix"

	"skein.dev/abi"
)

// memFile is a file in memory. It never shrinks: a mapping whose file did would end the process.
type memFile struct{ fd int }

func newMemFile(size int64) (*memFile, error) {
	const page = 4 << 10
	if os.Getpagesize() != page {
		return nil, abi.ENOTSUP
	}
	fd, err := unix.MemfdCreate("skein-file", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, err
	}
	if err = unix.Ftruncate(fd, (size+page-1)/page*page); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW)
	}
	if err != nil {
		_ = unix.Close(fd) // nobody has it
		return nil, err
	}
	return &memFile{fd}, nil
}

func (f *memFile) write(p []byte, at int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(f.fd, p, at)
		switch {
		case err == unix.EINTR: //nolint:errorlint // as the kernel has it
			continue
		case err != nil:
			return err
		case n == 0:
			return io.ErrShortWrite
		}
		p, at = p[n:], at+int64(n)
	}
	return nil
}

// finish says that all is in it: nobody can write to it any more. That nobody does is true without it too.
func (f *memFile) finish() {
	_, _ = unix.FcntlInt(uintptr(f.fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SEAL)
}

func (f *memFile) close() { _ = unix.Close(f.fd) }
