package vfs

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"

	"skein.dev/abi"
)

// Mount shows a directory of a Lower at another path. Both are clean and relative, "." for the root.
type Mount struct{ From, At string }

// Mounted is what mounts show of a lower, and nothing else of it. Where one is, and above it, there is a directory, whatever the
// lower has there; of two that lie in one another the inner one is seen at its place.
func Mounted(lower Lower, mounts []Mount) Lower {
	depth := func(m Mount) int {
		if m.At == "." {
			return -1
		}
		return strings.Count(m.At, "/")
	}
	mounts = slices.Clone(mounts)
	slices.SortStableFunc(mounts, func(a, b Mount) int { return depth(b) - depth(a) })
	return &mounted{lower, mounts}
}

type mounted struct {
	lower  Lower
	mounts []Mount // the inner before the outer
}

// under is what follows dir in a path below it; "." for dir itself.
func under(dir, name string) (rest string, ok bool) {
	switch {
	case dir == ".":
		return name, true
	case name == dir:
		return ".", true
	}
	rest, ok = strings.CutPrefix(name, dir+"/")
	return rest, ok
}

// dir tells whether a path is a mount's, or above one.
func (m *mounted) dir(name string) bool {
	return slices.ContainsFunc(m.mounts, func(x Mount) bool { _, ok := under(name, x.At); return ok })
}

// in is the lower's path of what a mount shows. ENOENT if none does.
func (m *mounted) in(name string) (string, error) {
	for _, x := range m.mounts {
		if rest, ok := under(x.At, name); ok {
			return path.Join(x.From, rest), nil
		}
	}
	return "", abi.ENOENT
}

// Stat is Lower's.
func (m *mounted) Stat(ctx context.Context, name string) (LowerInfo, error) {
	if m.dir(name) {
		return LowerInfo{Dir: true}, nil
	}
	in, err := m.in(name)
	if err != nil {
		return LowerInfo{}, err
	}
	return m.lower.Stat(ctx, in)
}

// Open is Lower's.
func (m *mounted) Open(ctx context.Context, name string) (LowerFile, error) {
	if m.dir(name) {
		return nil, abi.EISDIR
	}
	in, err := m.in(name)
	if err != nil {
		return nil, err
	}
	return m.lower.Open(ctx, in)
}

// List is Lower's.
func (m *mounted) List(ctx context.Context, dir, after string, n int) ([]LowerEntry, error) {
	ours := m.dir(dir)
	in, err := m.in(dir)
	var all []LowerEntry
	if err == nil {
		all, err = m.lower.List(ctx, in, after, n)
	}
	if !ours || err != nil && !errors.Is(err, abi.ENOENT) {
		return all, err
	}
	for _, x := range m.mounts {
		rest, ok := under(dir, x.At)
		if name, _, _ := strings.Cut(rest, "/"); ok && rest != "." && name > after {
			all = slices.DeleteFunc(all, func(e LowerEntry) bool { return e.Name == name })
			all = append(all, LowerEntry{Name: name, Dir: true})
		}
	}
	slices.SortFunc(all, func(a, b LowerEntry) int { return strings.Compare(a.Name, b.Name) })
	return all[:min(n, len(all))], nil
}
