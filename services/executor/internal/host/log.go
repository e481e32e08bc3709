package host

import (
	"fmt"
	"sync"

	"skein.dev"
)

// Log keeps what a guest writes to stdout and stderr, up to skein.MaxLog bytes; it says so if there was more.
type Log struct {
	mu   sync.Mutex
	b    []byte
	lost int64
}

// Write never fails: a full log must not fail the guest.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	keep := min(len(p), skein.MaxLog-len(l.b))
	l.b = append(l.b, p[:keep]...)
	l.lost += int64(len(p) - keep)
	return len(p), nil
}

// Bytes is the log so far.
func (l *Log) Bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost > 0 {
		return fmt.Appendf(l.b[:len(l.b):len(l.b)], "\nskein: %d bytes more were cut\n", l.lost)
	}
	return l.b
}

// From is what follows the first off bytes of the log so far; the caller may keep it.
func (l *Log) From(off int64) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if off >= int64(len(l.b)) {
		return nil
	}
	return l.b[off:len(l.b):len(l.b)]
}
