package state

import (
	"context"
	"strconv"
	"sync"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
)

// Usage is what a user has stored and may store. A limit of 0 is none.
type Usage struct {
	Bytes, Values           int64
	BytesLimit, ValuesLimit int64
}

const (
	recountAfter = 10 * time.Second // or 20 times what counting took
	freshCount   = time.Second
	maxCounted   = 10_000 // users whose count is kept
)

// quota knows what users have stored: counted now and then, which no crash, expiry or other process puts wrong for long, and
// in between by what this process changes. Several processes may so together go past a limit by what they write in recountAfter.
type quota struct {
	bytes, values int64 // limits

	mu    sync.Mutex
	users map[skein.User]*counted
}

type counted struct {
	mu            sync.Mutex
	at            time.Time
	took          time.Duration
	bytes, values int64

	created int    // values, since the last sweep
	swept   string // the entry at which it ended
}

// effect is what a change does to what is stored.
type effect struct{ bytes, values int64 }

func (q *quota) of(u skein.User) *counted {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.users[u]
	if c == nil {
		for other := range q.users { // any will do: it is counted again
			if len(q.users) < maxCounted {
				break
			}
			delete(q.users, other)
		}
		c = &counted{}
		q.users[u] = c
	}
	return c
}

// fresh counts unless that was done within age. c is locked.
func (s *Store) fresh(ctx context.Context, u skein.User, c *counted, age time.Duration) error {
	if !c.at.IsZero() && time.Since(c.at) < age {
		return nil
	}
	began := time.Now()
	var bytes, values int64
	for after := ""; ; {
		entries, err := s.db.entries(ctx, u, "", after, maxPage)
		if err != nil {
			return err
		}
		keys := make([]skein.StateKey, len(entries))
		for i, e := range entries {
			keys[i] = e.key
		}
		heads, err := s.db.stat(ctx, keys)
		if err != nil {
			return err
		}
		for i, h := range heads {
			if h.version != 0 && h.incarnation == entries[i].incarnation {
				bytes += h.size + h.elements
				values++
			}
		}
		if len(entries) < maxPage {
			break
		}
		after = entries[len(entries)-1].String()
	}
	c.at, c.took, c.bytes, c.values = began, time.Since(began), bytes, values
	return nil
}

// admit reserves what a change may add, by the size that it makes of one. It fails with fault.Exhausted, reason QUOTA.
func (s *Store) admit(ctx context.Context, k skein.StateKey, size func(old int64) int64) (e effect, err error) {
	q := s.quota
	if q.bytes == 0 && q.values == 0 || size == nil {
		return effect{}, nil
	}
	c := q.of(k.User)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.fresh(ctx, k.User, c, max(recountAfter, 20*c.took)); err != nil {
		return effect{}, err
	}
	fits := func() bool {
		return (q.bytes == 0 || e.bytes <= 0 || c.bytes+e.bytes <= q.bytes) && (q.values == 0 || e.values == 0 || c.values+e.values <= q.values)
	}
	e = effect{size(0), 1} // no change adds more
	if !fits() {
		heads, err := s.db.stat(ctx, []skein.StateKey{k})
		if err != nil {
			return effect{}, err
		}
		if e = (effect{size(heads[0].size) - heads[0].size, 1}); heads[0].version != 0 {
			e.values = 0
		}
		if !fits() {
			if err := s.fresh(ctx, k.User, c, freshCount); err != nil {
				return effect{}, err
			}
		}
	}
	if !fits() {
		return effect{}, fault.Exhausted.New("QUOTA", "%s has %d bytes in %d values: the change would go past the limit of %s", k.User, c.bytes, c.values, q).
			WithHint("delete values, or raise --user-bytes or --user-values")
	}
	c.bytes += e.bytes
	c.values += e.values
	return e, nil
}

// String is the limits, for messages.
func (q *quota) String() string {
	switch bytes, values := strconv.FormatInt(q.bytes, 10)+" bytes", strconv.FormatInt(q.values, 10)+" values"; {
	case q.bytes == 0:
		return values
	case q.values == 0:
		return bytes
	default:
		return bytes + " and " + values
	}
}

// settle puts what was done in the place of what was reserved.
func (q *quota) settle(u skein.User, reserved, done effect) {
	if reserved == done || q.bytes == 0 && q.values == 0 {
		return
	}
	c := q.of(u)
	c.mu.Lock()
	c.bytes += done.bytes - reserved.bytes
	c.values += done.values - reserved.values
	c.mu.Unlock()
}

// mutate runs a script within the user's quota. size says how large the value would be that was old bytes large; nil for a change that adds nothing.
func (s *Store) mutate(ctx context.Context, script script, k skein.StateKey, id, print string, size func(old int64) int64, args ...any) ([]string, error) {
	reserved, err := s.admit(ctx, k, size)
	if err != nil {
		return nil, err
	}
	answer, err := s.db.mutate(ctx, script, k, change{id, print, s.fence}, args...)
	var done effect
	switch {
	case err != nil || answer[0] != "OK":
	case len(answer) == 4: // an element added
		done = effect{reserved.bytes, 0}
		if answer[2] == "1" {
			done.values = 1
		}
	default:
		done = effectOf(answer)
	}
	s.quota.settle(k.User, reserved, done)
	if done.values > 0 {
		s.sweep(ctx, k.User)
	}
	return answer, err
}

// effectOf reads what commit adds to an answer, or how many bytes a deletion freed. An element added tells nothing.
func effectOf(answer []string) effect {
	number := func(i int) int64 { n, _ := strconv.ParseInt(answer[i], 10, 64); return n }
	switch {
	case len(answer) == 3: // elements cleared
		return effect{-number(1), 0}
	case len(answer) == 5: // a value deleted
		return effect{-number(1), -1}
	case len(answer) < 8:
		return effect{}
	case number(5) < 0:
		return effect{number(2), 1}
	}
	return effect{number(2) - number(5), 0}
}

// Usage tells what a user has stored, as it was within the last second or since.
func (s *Store) Usage(ctx context.Context, u skein.User) (usage Usage, err error) {
	ctx, op := begin(ctx, "usage", skein.StateKey{User: u})
	defer op.end(&err)
	c := s.quota.of(u)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.fresh(ctx, u, c, freshCount); err != nil {
		return Usage{}, err
	}
	return Usage{c.bytes, c.values, s.quota.bytes, s.quota.values}, nil
}
