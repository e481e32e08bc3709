package vfs

import (
	"context"
	"errors"
	"slices"
	"strings"

	"skein.dev/abi"
)

// Over is what lies below a layer: the built-in base under shared, which may be nil.
func Over(shared Lower) Lower {
	if shared == nil {
		return base
	}
	return union{shared, base}
}

// base is what programs expect of any system. It names the one user that a guest is.
var base = builtin{
	"etc/passwd": {text: "faasm:x:1000:1000::/:/bin/false\n"},
	"etc/group":  {text: "faasm:x:1000:\n"},
	"etc/hosts":  {text: "127.0.0.1\tlocalhost\n::1\tlocalhost\n"},
	"dev/null":   {device: NullDevice}, "dev/zero": {device: ZeroDevice},
	"dev/random": {device: RandomDevice}, "dev/urandom": {device: RandomDevice},
	".": {dir: []string{"dev", "etc", "tmp"}}, "dev": {dir: []string{"null", "random", "urandom", "zero"}},
	"etc": {dir: []string{"group", "hosts", "passwd"}}, "tmp": {dir: []string{}},
}

type builtin map[string]fixed

type fixed struct {
	text   string
	device Device
	dir    []string // names in order; nil for what is no directory
}

func (f fixed) Info() LowerInfo {
	return LowerInfo{Dir: f.dir != nil, Device: f.device, Size: int64(len(f.text)), ID: 1}
}

func (f fixed) Close() error { return nil }

func (f fixed) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return strings.NewReader(f.text).ReadAt(p, off)
}

func (b builtin) Stat(_ context.Context, path string) (LowerInfo, error) {
	f, ok := b[path]
	if !ok {
		return LowerInfo{}, abi.ENOENT
	}
	return f.Info(), nil
}

func (b builtin) Open(_ context.Context, path string) (LowerFile, error) {
	switch f, ok := b[path]; {
	case !ok:
		return nil, abi.ENOENT
	case f.dir != nil:
		return nil, abi.EISDIR
	default:
		return f, nil
	}
}

func (b builtin) List(_ context.Context, dir, after string, n int) (out []LowerEntry, err error) {
	f, ok := b[dir]
	if !ok || f.dir == nil {
		return nil, abi.ENOENT
	}
	for _, name := range f.dir {
		if name > after && len(out) < n {
			below := b[join(dir, name)]
			out = append(out, LowerEntry{Name: name, Dir: below.dir != nil, Device: below.device})
		}
	}
	return out, nil
}

// union is trees one over the other: of what has the same path the upper's is seen, and directories are merged.
type union []Lower

func (u union) Stat(ctx context.Context, path string) (LowerInfo, error) {
	return first(ctx, u, path, func(l Lower) (LowerInfo, error) { return l.Stat(ctx, path) })
}

func (u union) Open(ctx context.Context, path string) (LowerFile, error) {
	return first(ctx, u, path, func(l Lower) (LowerFile, error) { return l.Open(ctx, path) })
}

// first is the answer of the uppermost that has path, unless one above it has a file in the way.
func first[T any](ctx context.Context, u union, path string, f func(Lower) (T, error)) (v T, err error) {
	for i, l := range u {
		if v, err = f(l); errors.Is(err, abi.ENOENT) {
			continue
		}
		for dir := parentOf(path); err == nil && i > 0 && dir != ""; dir = parentOf(dir) {
			if info, err := u[:i].Stat(ctx, dir); err == nil && !info.Dir {
				return *new(T), abi.ENOENT
			}
		}
		return v, err
	}
	return v, abi.ENOENT
}

func (u union) List(ctx context.Context, dir, after string, n int) (all []LowerEntry, err error) {
	found := false
	for _, l := range u {
		switch info, err := l.Stat(ctx, dir); {
		case errors.Is(err, abi.ENOENT):
			continue
		case err != nil:
			return nil, err
		case !info.Dir && !found:
			return nil, abi.ENOENT // a file hides the directories below it
		case !info.Dir:
			continue
		}
		page, err := l.List(ctx, dir, after, n)
		if err != nil && !errors.Is(err, abi.ENOENT) {
			return nil, err
		}
		found = found || err == nil
		all = append(all, page...)
	}
	if !found {
		return nil, abi.ENOENT
	}
	slices.SortStableFunc(all, func(a, b LowerEntry) int { return strings.Compare(a.Name, b.Name) })
	all = slices.CompactFunc(all, func(a, b LowerEntry) bool { return a.Name == b.Name })
	return all[:min(n, len(all))], nil
}
