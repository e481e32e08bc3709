package planner

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"skein.dev/platform/redistest"
)

var shared struct {
	sync.Once
	redis     *redistest.Server
	databases atomic.Int64
}

// sharedRedis gives the URL of an empty database for a test that does no harm to the server.
func sharedRedis(t *testing.T) string {
	t.Helper()
	shared.Do(func() {
		shared.redis = redistest.New(t, "--databases", "5000", "--appendonly", "no", "--dir", os.TempDir())
		shared.redis.Start(t)
	})
	return fmt.Sprintf("%s/%d", shared.redis.URL(), shared.databases.Add(1))
}
