package shared

import (
	"context"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
)

// memo is the fs service's answers of one kind, by path, and the questions under way. names.mu guards it.
type memo[T any] struct {
	known   *lru[skein.FilePath, *known[T]]
	flights map[skein.FilePath]*question[T]
}

// known is an answer that is kept. It never changes.
type known[T any] struct {
	is T
	freshness
}

// question is one under way, for all who want to know.
type question[T any] struct {
	done   chan struct{}
	old    bool // a change came meanwhile: whoever waits gets the answer, and nobody after
	answer T
	err    error
}

func newMemo[T any]() memo[T] {
	return memo[T]{known: newLRU[skein.FilePath, *known[T]](maxNames), flights: map[skein.FilePath]*question[T]{}}
}

// forget drops what is known of a path, and what is about to be.
func (m *memo[T]) forget(p skein.FilePath) {
	m.known.drop(p)
	if q := m.flights[p]; q != nil {
		q.old = true
		delete(m.flights, p)
	}
}

// ask begins a question or joins one. get puts it, and tells what the answer costs to keep. The caller holds n.mu.
func ask[T any](ctx context.Context, n *names, m *memo[T], p skein.FilePath, get func(context.Context) (T, int64, error)) *question[T] {
	if q := m.flights[p]; q != nil {
		return q
	}
	q := &question[T]{done: make(chan struct{})}
	m.flights[p] = q
	asked := freshness{time.Now(), n.watch.id}
	go func() {
		answer, cost, err := get(context.WithoutCancel(ctx))
		n.mu.Lock()
		defer n.mu.Unlock()
		if m.flights[p] == q {
			delete(m.flights, p)
		}
		n.learn(err)
		if q.answer, q.err = answer, err; err == nil && !q.old {
			m.known.put(p, &known[T]{answer, asked}, cost)
		}
		close(q.done)
	}()
	return q
}

// obtain gives the answer to a question. What was known stands in for it, as long as it is useful, if nobody can be asked. The
// caller holds n.mu, which is free afterwards.
func obtain[T any](ctx context.Context, n *names, m *memo[T], p skein.FilePath, get func(context.Context) (T, int64, error)) (answer T, err error) {
	now := time.Now()
	if k, ok := m.known.get(p); ok && n.failing && n.useful(k.freshness, now) { // nobody waits again for who may not answer
		if n.probe(now) {
			ask(ctx, n, m, p, get)
		}
		n.mu.Unlock()
		return k.is, nil
	}
	q := ask(ctx, n, m, p, get)
	n.mu.Unlock()
	select {
	case <-q.done:
	case <-ctx.Done():
		return answer, fault.From(ctx.Err())
	}
	if away(q.err) {
		n.mu.Lock()
		defer n.mu.Unlock()
		if k, ok := m.known.get(p); ok && n.useful(k.freshness, time.Now()) {
			return k.is, nil
		}
	}
	return q.answer, q.err
}
