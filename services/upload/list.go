package upload

import (
	"context"
	"encoding/base64"
	"iter"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"skein.dev"
	"skein.dev/platform/blob"
	"skein.dev/platform/fault"
)

// Versions lists a function's versions, newest first, size at a time (50 if 0, at most 1,000). The next page is asked for
// with the token that came with this one; "" is the end. Errors: NotFound NO_FUNCTION, Invalid BAD_PAGE.
func (r *Registry) Versions(ctx context.Context, f skein.Function, size int, token string) ([]Version, string, error) {
	size, err := pageSize(size)
	if err != nil {
		return nil, "", err
	}
	h, _, err := r.head(ctx, f)
	if err != nil {
		return nil, "", err
	}
	if !h.exists() {
		return nil, "", noFunction(f)
	}
	from := h.Latest
	if token != "" {
		if from, err = strconv.ParseInt(token, 10, 64); err != nil || from < 0 {
			return nil, "", badToken(token)
		}
		from = min(from, h.Latest)
	}
	to := max(h.First, from-int64(size)+1)
	page := make([]*Version, max(0, from-to+1))
	group, within := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i := range page {
		group.Go(func() error {
			rec, found, err := r.record(within, f, from-int64(i))
			if err != nil || !found { // it is being deleted
				return err
			}
			v, err := rec.version(f)
			page[i] = &v
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, "", err
	}
	var list []Version
	for _, v := range page {
		if v != nil {
			list = append(list, *v)
		}
	}
	if to > h.First {
		return list, strconv.FormatInt(to-1, 10), nil
	}
	return list, "", nil
}

// List gives functions of one user, or of all if user is "", in the order of user and name (as parts of keys: "a-b" comes
// before "a"), in pages as Versions does. A page may hold less than size without being the last.
func (r *Registry) List(ctx context.Context, user skein.User, size int, token string) ([]Function, string, error) {
	size, err := pageSize(size)
	if err != nil {
		return nil, "", err
	}
	var after *skein.Function
	if token != "" {
		raw, err := base64.RawURLEncoding.DecodeString(token)
		f, bad := skein.ParseFunction(string(raw))
		if err != nil || bad != nil || user != "" && f.User != user {
			return nil, "", badToken(token)
		}
		after = &f
	}
	var names []skein.Function
	next := ""
	for f, err := range r.names(ctx, user, after) {
		if err != nil {
			return nil, "", err
		}
		if len(names) == size {
			next = base64.RawURLEncoding.EncodeToString([]byte(names[size-1].String()))
			break
		}
		names = append(names, f)
	}
	list, err := r.functions(ctx, names)
	return list, next, err
}

// functions reads what functions are, and leaves out those that are deleted.
func (r *Registry) functions(ctx context.Context, names []skein.Function) ([]Function, error) {
	heads := make([]head, len(names))
	group, within := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, f := range names {
		group.Go(func() (err error) {
			heads[i], _, err = r.head(within, f)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var list []Function
	for i, h := range heads {
		if !h.exists() {
			continue
		}
		fn, err := function(names[i], h)
		if err != nil {
			return nil, err
		}
		list = append(list, fn)
	}
	return list, nil
}

// names walks the functions that there are or were, of one user or all, behind after.
func (r *Registry) names(ctx context.Context, user skein.User, after *skein.Function) iter.Seq2[skein.Function, error] {
	const root = "functions/"
	return func(yield func(skein.Function, error) bool) {
		start := "" // of the walk over users
		if after != nil {
			start = root + string(after.User) + "/"
			if !r.namesOf(ctx, start, dirKey(*after), yield) {
				return
			}
		}
		if user != "" {
			if after == nil {
				r.namesOf(ctx, root+string(user)+"/", "", yield)
			}
			return
		}
		for prefix, err := range r.below(ctx, root, start) {
			if err != nil {
				yield(skein.Function{}, err)
				return
			}
			if !r.namesOf(ctx, prefix, "", yield) {
				return
			}
		}
	}
}

// namesOf is names below one user's prefix; false if the walk is over.
func (r *Registry) namesOf(ctx context.Context, prefix, after string, yield func(skein.Function, error) bool) bool {
	for key, err := range r.below(ctx, prefix, after) {
		if err != nil {
			yield(skein.Function{}, err)
			return false
		}
		f, err := skein.ParseFunction(strings.TrimSuffix(strings.TrimPrefix(key, "functions/"), "/"))
		if err == nil && !yield(f, nil) { // what isn't a name isn't ours
			return false
		}
	}
	return true
}

// below walks the prefixes directly below one, behind after. It ends after an error.
func (r *Registry) below(ctx context.Context, prefix, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for {
			page, err := r.bucket.List(ctx, prefix, after, blob.MaxPage, true)
			if err != nil {
				yield("", err)
				return
			}
			for _, p := range page.Prefixes {
				if !yield(p, nil) {
					return
				}
			}
			if !page.More {
				return
			}
			after = page.Last()
		}
	}
}

func badToken(token string) error {
	return fault.Invalid.New("BAD_PAGE", "page token %.80q is none that was given out", token).WithHint("begin without one")
}

// pageSize is how many entries a page has that asks for n.
func pageSize(n int) (int, error) {
	const usual, most = 50, 1000
	if n < 0 {
		return 0, fault.Invalid.New("BAD_PAGE", "a page can't have %d entries", n)
	}
	if n == 0 {
		n = usual
	}
	return min(n, most), nil
}
