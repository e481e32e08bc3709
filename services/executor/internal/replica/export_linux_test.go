package replica

import (
	"testing"

	"skein.dev/services/executor/internal/pagemap"
)

// ScanBy makes replicas learn from the kernel which pages were used, or not.
func ScanBy(t *testing.T, scan pagemap.Scan) {
	before := touched
	touched = func() pagemap.Scan { return scan }
	t.Cleanup(func() { touched = before })
}
