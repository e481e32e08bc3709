package executor

import (
	"context"
	"sync"
	"time"
)

// behind is work that goes on when the call that caused it ends, for the next one, though not when the executor does.
type behind struct {
	ended context.Context //nolint:containedctx // it is the executor's
	end   context.CancelFunc
	work  sync.WaitGroup
}

func newBehind() *behind {
	b := &behind{}
	b.ended, b.end = context.WithCancel(context.Background())
	return b
}

// do begins some, which may take most, in ctx's trace.
func (b *behind) do(ctx context.Context, most time.Duration, work func(context.Context)) {
	b.work.Go(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), most)
		defer cancel()
		defer context.AfterFunc(b.ended, cancel)()
		work(ctx)
	})
}

// close ends all, and waits for it: nothing is put into the store by an executor that is gone. No call may be running.
func (b *behind) close() {
	b.end()
	b.work.Wait()
}
