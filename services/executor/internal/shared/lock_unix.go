//go:build unix

package shared

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// lockFile opens a file that no other process has open so; the lock ends with the process.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, errors.New("another executor uses it")
	}
	return f, nil
}
