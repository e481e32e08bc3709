// Package turn lets changes of the same thing go one after the other, as far as they come to this process.
package turn

import (
	"context"
	"sync"
)

// Turns are those of any number of names. The zero value is ready.
type Turns struct {
	mu  sync.Mutex
	all map[string]*turn // of names that somebody has or waits for
}

type turn struct {
	taken chan struct{} // holds one token while somebody has it; those who wait get it in their order
	users int           // under Turns.mu
}

// Enter waits for a name's turn; leave ends it.
func (t *Turns) Enter(ctx context.Context, name string) (leave func(), err error) {
	t.mu.Lock()
	one := t.all[name]
	if one == nil {
		one = &turn{taken: make(chan struct{}, 1)}
		if t.all == nil {
			t.all = map[string]*turn{}
		}
		t.all[name] = one
	}
	one.users++
	t.mu.Unlock()
	select {
	case one.taken <- struct{}{}:
		return func() { <-one.taken; t.drop(name, one) }, nil
	case <-ctx.Done():
		t.drop(name, one)
		return nil, ctx.Err()
	}
}

func (t *Turns) drop(name string, one *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if one.users--; one.users == 0 {
		delete(t.all, name)
	}
}
