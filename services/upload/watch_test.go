package upload

import (
	"testing"
	"time"

	uploadv1 "skein.dev/proto/skein/upload/v1"
)

// The answer to a change comes after every watcher has said that it saw it; one that says nothing only delays it.
func TestWatch(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Bucket = "file:" + t.TempDir()
	s := start(t, cfg)
	watch, err := s.rpc.WatchFunctions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Header(); err != nil {
		t.Fatal(err)
	}
	answered := make(chan int64, 1)
	change := func(text string) {
		go func() {
			resp, err := s.send("ann/f", module(text), "", 1<<10)
			if err != nil {
				t.Error(err)
			}
			answered <- resp.GetFunction().GetCurrent().GetNumber()
		}()
	}
	next := func() *uploadv1.WatchFunctionsResponse {
		t.Helper()
		for {
			c, err := watch.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if c.GetFunction() == "f" {
				return c
			}
			if err := watch.Send(&uploadv1.WatchFunctionsRequest{SeenSequence: c.GetSequence()}); err != nil {
				t.Fatal(err)
			}
		}
	}

	change("one")
	c := next()
	if c.GetUser() != "ann" {
		t.Errorf("change of %s/%s", c.GetUser(), c.GetFunction())
	}
	select {
	case n := <-answered:
		t.Fatalf("version %d was answered before the watcher had seen it", n)
	case <-time.After(100 * time.Millisecond):
	}
	if err := watch.Send(&uploadv1.WatchFunctionsRequest{SeenSequence: c.GetSequence()}); err != nil {
		t.Fatal(err)
	}
	if n := <-answered; n != 1 {
		t.Errorf("version %d", n)
	}

	change("two")
	next() // and never say so
	if n := <-answered; n != 2 {
		t.Errorf("version %d", n)
	}

	// What was not sent can't have been seen.
	if err := watch.Send(&uploadv1.WatchFunctionsRequest{SeenSequence: 1000}); err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err == nil {
		t.Error("a sequence from the future was taken")
	}
}
