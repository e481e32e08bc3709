//go:build !unix

package shared

import "os"

// lockFile only opens the file: here nothing keeps two executors from one directory.
func lockFile(path string) (*os.File, error) { return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) }
