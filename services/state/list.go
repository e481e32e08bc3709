package state

import (
	"context"
	"encoding/base64"

	"skein.dev"
	"skein.dev/platform/fault"
)

// List returns values of a user in the byte order of their keys, which begin with prefix, and a token for the next page,
// "" at the end. size 0 means 50, and more than 1,000 means 1,000. A page can be short before the end. A value that exists
// throughout is listed; one that comes or goes meanwhile may be.
func (s *Store) List(ctx context.Context, u skein.User, prefix string, size int, token string) (page []Info, next string, err error) {
	ctx, op := begin(ctx, "list", skein.StateKey{User: u, Key: prefix})
	defer op.end(&err)
	if size < 0 {
		return nil, "", fault.Invalid.New("BAD_PAGE", "page_size %d is negative", size)
	}
	if len(prefix) > skein.MaxKeyLen {
		return nil, "", fault.Invalid.New("BAD_PREFIX", "a prefix of %d bytes: keys have at most %d", len(prefix), skein.MaxKeyLen)
	}
	if size == 0 {
		size = defaultPage
	}
	size = min(size, maxPage)
	after, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(after) > skein.MaxKeyLen+maxRequestID {
		return nil, "", fault.Invalid.New("BAD_PAGE", "the page_token is none that this service gave").WithHint("begin with an empty one")
	}
	last := string(after)
	for range maxListRounds {
		wanted := size - len(page)
		entries, err := s.db.entries(ctx, u, prefix, last, wanted)
		if err != nil {
			return nil, "", err
		}
		infos, err := s.verify(ctx, entries)
		if err != nil {
			return nil, "", err
		}
		page = append(page, infos...)
		if len(entries) < wanted {
			return page, "", nil
		}
		last = entries[len(entries)-1].String()
		if len(page) == size {
			break
		}
	}
	return page, base64.RawURLEncoding.EncodeToString([]byte(last)), nil
}

// verify keeps the entries that have a value, and removes those that can't get one any more.
func (s *Store) verify(ctx context.Context, entries []entry) ([]Info, error) {
	if len(entries) == 0 {
		return nil, nil
	}
	keys := make([]skein.StateKey, len(entries))
	for i, e := range entries {
		keys[i] = e.key
	}
	heads, err := s.db.stat(ctx, keys)
	if err != nil {
		return nil, err
	}
	var infos []Info
	for i, e := range entries {
		switch {
		case heads[i].version != 0 && heads[i].incarnation == e.incarnation:
			infos = append(infos, heads[i].info(e.key))
		case e.old():
			_ = s.db.index(ctx, e.key, "", e.incarnation)
		}
	}
	return infos, nil
}

// sweepAfter values of a user were created here, as many entries of the index and half as many more are looked at, so that
// those of values that ended by themselves don't pile up where nobody lists.
const sweepAfter = 64

func (s *Store) sweep(ctx context.Context, u skein.User) {
	c := s.quota.of(u)
	c.mu.Lock()
	c.created++
	due, after := c.created >= sweepAfter, c.swept
	if due {
		c.created = 0
	}
	c.mu.Unlock()
	if !due {
		return
	}
	const n = sweepAfter * 3 / 2
	entries, err := s.db.entries(ctx, u, "", after, n)
	if err == nil {
		_, err = s.verify(ctx, entries)
	}
	if err != nil {
		return // the next one looks there again
	}
	after = ""
	if len(entries) == n {
		after = entries[n-1].String()
	}
	c.mu.Lock()
	c.swept = after
	c.mu.Unlock()
}
