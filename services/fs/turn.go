package fs

import (
	"context"
	"sync"
)

// turns lets changes of one name go one after the other, as far as they come to this process: no store can look at an object and
// delete it in one step.
type turns struct {
	mu   sync.Mutex
	busy map[string]chan struct{} // closed when the name is free
}

// enter waits for a name's turn; leave must follow.
func (t *turns) enter(ctx context.Context, name string) error {
	for {
		t.mu.Lock()
		busy := t.busy[name]
		if busy == nil {
			t.busy[name] = make(chan struct{})
		}
		t.mu.Unlock()
		if busy == nil {
			return nil
		}
		select {
		case <-busy:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (t *turns) leave(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(t.busy[name])
	delete(t.busy, name)
}
