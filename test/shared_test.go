package test

import (
	"net/http"
	"testing"

	"skein.dev/test/cluster"
)

// Forty calls write a part each of one value, and forty count under a lock, on two executors: no byte and no count is lost.
func TestSharedState(t *testing.T) {
	c := cluster.Processes(t, cluster.Options{Executors: 2, ExecutorArgs: []string{"--slots", "2"}})
	upload(t, c, "ann", "shared")
	for _, counts := range []string{"120 40", "240 80"} {
		a := want(t, 200, c, http.MethodPost, "/v1/invoke/ann/shared?timeout=1m", []byte("all 40"))
		if string(a.body) != counts {
			t.Errorf("%s, want %s", a.body, counts)
		}
	}
}
