package shared

import "container/list"

// lru keeps values up to a cost, those that were used last. It is not safe for concurrent use.
type lru[K comparable, V any] struct {
	budget, used int64
	order        *list.List // of *held, the one used last in front
	all          map[K]*list.Element
	dropped      func(K, V) // may be nil; not called by drop
}

type held[K comparable, V any] struct {
	key   K
	value V
	cost  int64
}

func newLRU[K comparable, V any](budget int64) *lru[K, V] {
	return &lru[K, V]{budget: budget, order: list.New(), all: map[K]*list.Element{}}
}

func (l *lru[K, V]) get(k K) (v V, ok bool) {
	e := l.all[k]
	if e == nil {
		return v, false
	}
	l.order.MoveToFront(e)
	return e.Value.(*held[K, V]).value, true
}

// put keeps v, unless it alone costs more than the budget.
func (l *lru[K, V]) put(k K, v V, cost int64) {
	l.drop(k)
	if cost > l.budget {
		if l.dropped != nil {
			l.dropped(k, v)
		}
		return
	}
	l.all[k] = l.order.PushFront(&held[K, V]{k, v, cost})
	l.used += cost
	for l.used > l.budget {
		last := l.order.Back().Value.(*held[K, V])
		l.drop(last.key)
		if l.dropped != nil {
			l.dropped(last.key, last.value)
		}
	}
}

func (l *lru[K, V]) drop(k K) {
	if e := l.all[k]; e != nil {
		l.used -= e.Value.(*held[K, V]).cost
		l.order.Remove(e)
		delete(l.all, k)
	}
}
