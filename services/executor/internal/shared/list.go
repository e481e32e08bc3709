package shared

import (
	"context"
	"slices"
	"strings"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
	fsv1 "skein.dev/proto/skein/fs/v1"
	"skein.dev/services/executor/internal/vfs"
)

const (
	// maxEntries bounds a directory.
	maxEntries = 1 << 20
	pageSize   = 1000
	// goOn is how old a listing may be for whoever read its beginning: a directory is read as it was, as long as nothing
	// is known to have changed.
	goOn = time.Minute
	// listTime bounds the reading of all of a directory.
	listTime = time.Minute
)

func byName(e vfs.LowerEntry, name string) int { return strings.Compare(e.Name, name) }

// list gives a directory's names; p.Path is empty for the root. more says that the caller goes on with one that it began.
func (n *names) list(ctx context.Context, p skein.FilePath, more bool) ([]vfs.LowerEntry, error) {
	now := time.Now()
	n.mu.Lock()
	if k, ok := n.listings.known.get(p); ok && (n.fresh(k.freshness, now) || more && now.Sub(k.asked) < goOn) {
		n.mu.Unlock()
		return k.is, nil
	}
	return obtain(ctx, n, &n.listings, p, func(ctx context.Context) ([]vfs.LowerEntry, int64, error) {
		ctx, cancel := context.WithTimeout(ctx, listTime)
		defer cancel()
		entries, err := n.readAll(ctx, p)
		cost := int64(256 + 40*len(entries))
		for _, e := range entries {
			cost += int64(len(e.Name))
		}
		return entries, cost, err
	})
}

// readAll reads a directory's names. The store has another order ("a-b" before what lies under "a"), so it is read to its end, by
// pages, before its first name is given.
func (n *names) readAll(ctx context.Context, p skein.FilePath) (entries []vfs.LowerEntry, err error) {
	prefix := ""
	if p.Path != "" {
		prefix = p.Path + "/"
	}
	for token := ""; ; {
		page, err := n.page(ctx, p.User, prefix, token)
		if err != nil {
			return nil, err
		}
		for _, f := range page.GetFiles() {
			entries = append(entries, vfs.LowerEntry{Name: strings.TrimPrefix(f.GetPath(), prefix)})
		}
		for _, d := range page.GetDirectories() {
			entries = append(entries, vfs.LowerEntry{Name: strings.TrimSuffix(strings.TrimPrefix(d, prefix), "/"), Dir: true})
		}
		if len(entries) > maxEntries {
			return nil, fault.TooLarge.New("DIRECTORY_SIZE", "directory %s has more than %d entries", p, maxEntries)
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	slices.SortFunc(entries, func(a, b vfs.LowerEntry) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 || a.Dir == b.Dir {
			return c
		} else if a.Dir {
			return 1
		}
		return -1
	})
	// Of a file and a directory of one name the file is the one that is seen, as look has it.
	return slices.CompactFunc(entries, func(a, b vfs.LowerEntry) bool { return a.Name == b.Name }), nil
}

func (n *names) page(ctx context.Context, user skein.User, prefix, token string) (*fsv1.ListFilesResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return n.client.ListFiles(ctx, &fsv1.ListFilesRequest{
		User: string(user), Prefix: prefix, PageSize: pageSize, PageToken: token, Shallow: true, NamesOnly: true,
	})
}

// absent reports whether a listing says that nothing is at p, which spares the question. The caller holds the lock.
func (n *names) absent(p skein.FilePath, now time.Time) bool {
	i := strings.LastIndexByte(p.Path, '/')
	k, ok := n.listings.known.get(skein.FilePath{User: p.User, Path: p.Path[:max(i, 0)]})
	if !ok || !n.fresh(k.freshness, now) {
		return false
	}
	_, there := slices.BinarySearchFunc(k.is, p.Path[i+1:], byName)
	return !there
}

// after gives up to count entries behind a name.
func after(entries []vfs.LowerEntry, name string, count int) []vfs.LowerEntry {
	if name != "" {
		i, there := slices.BinarySearchFunc(entries, name, byName)
		if there {
			i++
		}
		entries = entries[i:]
	}
	return entries[:min(max(count, 0), len(entries)):min(max(count, 0), len(entries))]
}
