package test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"skein.dev/test/cluster"
)

// A file is replaced through REST while a hundred calls at a time on two executors read it: each sees the old or the new and
// never a mix, and after the lease only the new.
func TestFileReplacedWhileRead(t *testing.T) {
	c := cluster.Processes(t, cluster.Options{Executors: 2, ExecutorArgs: []string{"--slots", "50", "--file-lease", "1s"}})
	upload(t, c, "ann", "files")
	content := func(v int64) []byte { return bytes.Repeat([]byte{byte(v)}, 1<<20+int(v)) }
	want(t, 200, c, http.MethodPut, "/v1/files/ann/x", content(1))
	var replaced, calls atomic.Int64 // replaced a lease ago
	replaced.Store(1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			for ctx.Err() == nil {
				least := replaced.Load()
				a, err := tryRequest(ctx, c, http.MethodPost, "/v1/invoke/ann/files?timeout=1m", []byte("check /x"))
				if ctx.Err() != nil {
					return
				}
				var size, v int64
				if _, scan := fmt.Sscanf(string(a.body), "%d %d", &size, &v); err != nil || a.status != 200 || scan != nil {
					t.Errorf("%v: %s", err, a)
					return
				}
				if v > 255 || size != 1<<20+v || v < least {
					t.Errorf("%d bytes of %d, when %d had been put a lease ago", size, v, least)
					return
				}
				calls.Add(1)
			}
		})
	}
	for v := int64(2); v < 6; v++ {
		for before := calls.Load(); calls.Load() < before+100 && !t.Failed(); {
			time.Sleep(5 * time.Millisecond)
		}
		want(t, 200, c, http.MethodPut, "/v1/files/ann/x", content(v))
		time.Sleep(time.Second)
		replaced.Store(v)
	}
	for before := calls.Load(); calls.Load() < before+100 && !t.Failed(); {
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	wg.Wait()
}
