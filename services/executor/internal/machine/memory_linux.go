package machine

import "golang.org/x/sys/unix"

// reserve maps n bytes that cost nothing until they are touched. On failure it gives nothing, which the engine takes as
// memory that can't grow.
func reserve(n int) []byte {
	if n == 0 {
		return nil
	}
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil
	}
	return b
}

func release(b []byte) { _ = unix.Munmap(b) }
