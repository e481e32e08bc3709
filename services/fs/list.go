package fs

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"

	"golang.org/x/sync/errgroup"

	"skein.dev"
	"skein.dev/platform/blob"
	"skein.dev/platform/fault"
)

// Listing is a page of files, in the order of paths.
type Listing struct {
	Files []File
	Dirs  []string // only of a shallow listing; each ends in '/'
	Next  string   // token of the next page; empty after the last
}

// List gives the files of a user whose paths begin with prefix, at most limit (1 to blob.MaxPage) files and directories at
// a time. A shallow listing stops at the next '/' behind prefix. token is Next of the page before, or empty. With namesOnly
// files have a path and nothing else: no record is read.
func (f *Files) List(ctx context.Context, user skein.User, prefix, token string, limit int, shallow, namesOnly bool) (l Listing, err error) {
	ctx, sp := span(ctx, "fs list", user, prefix)
	defer func() { end(sp, 0, &err) }()
	if err := checkPrefix(prefix); err != nil {
		return Listing{}, err
	}
	start := namePrefix + string(user) + "/" + escape.Replace(prefix)
	after, err := afterToken(start, token)
	if err != nil {
		return Listing{}, err
	}
	if len(start) > blob.MaxKey {
		return Listing{}, nil // no path is that long
	}
	page, err := f.bucket.List(ctx, start, after, limit, shallow)
	if err != nil {
		return Listing{}, err
	}
	if l.Files, err = f.listed(ctx, user, page.Items, namesOnly); err != nil {
		return Listing{}, err
	}
	for _, dir := range page.Prefixes {
		l.Dirs = append(l.Dirs, pathOf(user, dir))
	}
	if page.More {
		l.Next = base64.RawURLEncoding.EncodeToString([]byte(page.Last()[len(start):]))
	}
	return l, nil
}

// listed reads the records of a page, except those of files that were deleted since.
func (f *Files) listed(ctx context.Context, user skein.User, items []blob.Info, namesOnly bool) (files []File, err error) {
	if namesOnly {
		for _, item := range items {
			files = append(files, File{Path: skein.FilePath{User: user, Path: pathOf(user, item.Key)}})
		}
		return files, nil
	}
	found := make([]*File, len(items))
	group, reading := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i, item := range items {
		group.Go(func() error {
			file, err := f.stat(reading, skein.FilePath{User: user, Path: pathOf(user, item.Key)})
			if err == nil {
				found[i] = &file
			} else if errors.Is(err, fault.NotFound) {
				err = nil
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for _, file := range found {
		if file != nil {
			files = append(files, *file)
		}
	}
	return files, nil
}

// afterToken gives the key that a page comes after. A token holds only what follows the prefix, so it leads to no other.
func afterToken(start, token string) (string, error) {
	if token == "" {
		return "", nil
	}
	rest, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(start)+len(rest) > blob.MaxKey {
		return "", fault.Invalid.New("BAD_TOKEN", "page_token %.80q is none of ours", token).WithHint("pass next_page_token as it came")
	}
	return start + string(rest), nil
}

// checkPrefix holds a prefix to the rules of the paths that could begin with it.
func checkPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	if _, err := skein.CleanPath(prefix); err != nil {
		return err
	}
	segments := strings.Split(prefix, "/")
	for _, seg := range segments[:len(segments)-1] { // the last one may be the beginning of any
		if seg == "" || seg == "." || seg == ".." {
			return fault.Invalid.New("BAD_NAME", "prefix %.80q is not clean, as paths are", prefix).
				WithHint(`leave out a leading "/", "//" and the segments "." and ".."`)
		}
	}
	return nil
}
