package test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skein.dev/test/cluster"
)

// What `make run` does after its build: the example is compiled from source, uploaded, called on the repository's LICENSE,
// its trace drawn, and the suite keeps serving.
func TestRunExample(t *testing.T) {
	c := cluster.Dev(t, "--example", filepath.Join(cluster.Root(), "examples", "wordcount", "go"))
	eventually(t, 5*time.Minute, func() string {
		log := c.Planner.Log()
		for _, want := range []string{"100 the\n69 or\n67 of\n", "call ann/wordcount", "artifact get", "Over REST:", "Ctrl-C"} {
			if !strings.Contains(log, want) {
				return fmt.Sprintf("skein dev has not said %q:\n%s", want, log)
			}
		}
		return ""
	})
	if a := want(t, 200, c, "POST", "/v1/invoke/ann/wordcount", []byte("b a b")); string(a.body) != "2 b\n1 a\n" {
		t.Error(a)
	}
	if a := want(t, 200, c, "GET", "/v1/state/ann/wordcount", nil); string(a.body) != "2 b\n1 a\n" {
		t.Error(a)
	}
}
