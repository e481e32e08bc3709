package shared

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"skein.dev/abi"
)

// Sealed gives the content around off as a file in memory that nobody can change or cut short, so that it may be mapped: its
// first byte is the file's at start, and it has length bytes. It is the block's, not the caller's to close, and stays as long
// as it is referred to. ENOMEM if there is no room for it, ENXIO past the end, else what ReadAt gives.
func (f *file) Sealed(ctx context.Context, off int64) (content *os.File, start, length int64, err error) {
	if off < 0 || off >= f.size {
		return nil, 0, 0, abi.ENXIO
	}
	i := int(off / f.blockSize)
	b, err := f.get(ctx, i)
	if err == nil {
		content, err = b.seal()
	}
	return content, int64(i) * f.blockSize, f.blockLen(i), err
}

// seal makes the file when it is first asked for.
func (b *block) seal() (*os.File, error) {
	b.sealing.Lock()
	defer b.sealing.Unlock()
	if b.sealed != nil {
		return b.sealed, nil
	}
	fd, err := unix.MemfdCreate("skein-block", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, abi.ENOMEM
	}
	f := os.NewFile(uintptr(fd), "skein-block") // closes itself when it is collected
	if _, err = f.Write(b.data); err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE|unix.F_SEAL_SEAL)
	}
	if err != nil {
		_ = f.Close()
		return nil, abi.ENOMEM
	}
	b.sealed = f
	return f, nil
}
