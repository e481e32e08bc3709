package host

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"skein.dev"
	"skein.dev/services/executor/internal/machine"
	"skein.dev/services/executor/internal/replica"
	"skein.dev/services/executor/internal/replica/replicatest"
	"skein.dev/services/executor/internal/vfs/vfstest"
)

// Guests that call rows of state with anything, in memory that others change meanwhile, harm none but themselves.
func TestHostileStateCalls(t *testing.T) {
	m, err := machine.Open(t.Context(), machine.Config{GuestMemory: 16 << 20, WarmMemory: 16 << 20}, Link)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close(context.Background()) }()
	mod := load(t, m, buildC(t, "testdata/hostile.c", "-O2"))
	store := replica.New(replicatest.Client(t), 8<<20)
	f, _ := skein.NewFunction("ann", "hostile")
	call := func(args ...string) machine.Exit {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		c := &Call{Context: ctx, Function: f, Args: append([]string{"hostile"}, args...), Files: vfstest.Setup(map[string]string{"a": ""}), State: store, Log: &Log{}}
		defer c.End()
		return mod.Run(c)
	}
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			for i := range 25 {
				args := []string{strconv.Itoa(w*1000 + i)}
				if w == 0 {
					args = append(args, "scribble")
				}
				exit := call(args...)
				if exit.State != skein.Succeeded && exit.Reason != "HOST_CALL_FAILED" && exit.Reason != "NO_VALUE" && exit.Reason != "BAD_NAME" && exit.Reason != "GUEST_TRAP" {
					t.Errorf("%v: %+v", args, exit)
				}
			}
		})
	}
	wg.Wait()
	if exit := call("1", "scribble"); exit.State != skein.Succeeded {
		t.Errorf("afterwards: %+v", exit)
	}
}
