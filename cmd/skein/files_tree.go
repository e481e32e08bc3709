package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"skein.dev"
	"skein.dev/platform/fault"
	fsv1 "skein.dev/proto/skein/fs/v1"
)

// place is one side of a copy: a local path, or a shared one, written USER:PATH.
type place struct {
	user skein.User // empty: local
	path string     // shared: clean, or empty for all of the user's
	in   *os.Root   // of a local one that is copied to: what path is below
}

// parsePlace reads USER:PATH as scp does: what has a colon before its first slash is not local.
func parsePlace(s string) (place, error) {
	name, rest, ok := strings.Cut(s, ":")
	if !ok || strings.ContainsAny(name, `/\`) {
		return place{path: s}, nil
	}
	user, err := skein.ParseUser(name)
	if err != nil {
		return place{}, usagef("%s: %w; a local path with a colon is written ./%s", s, err, s)
	}
	if rest = strings.Trim(rest, "/"); rest != "" {
		if rest, err = skein.CleanPath(rest); err != nil {
			return place{}, err
		}
	}
	return place{user: user, path: rest}, nil
}

// below is a path under the place.
func (p place) below(rel string) place {
	if p.user == "" {
		return place{path: filepath.Join(p.path, filepath.FromSlash(rel)), in: p.in}
	}
	return place{user: p.user, path: path.Join(p.path, rel)}
}

func (p place) String() string {
	if p.in != nil {
		return filepath.Join(p.in.Name(), p.path)
	}
	if p.user == "" {
		return p.path
	}
	return string(p.user) + ":" + p.path
}

// copier copies files between places.
type copier struct {
	a    *app
	fs   fsv1.FsServiceClient
	bar  *progress
	same bool // skip what has the content already
	dry  bool

	mu   sync.Mutex
	done []string // what was copied or deleted, with a mark in front
}

func (a *app) copyFilesCmd() *cobra.Command {
	var recursive bool
	cmd := &cobra.Command{
		Use: "copy SOURCE TARGET", Aliases: []string{"cp"}, Short: "Copy files; USER:PATH is a shared one", Args: cobra.ExactArgs(2),
		Long: `Copy a file, or with -r what lies below a directory. A side written USER:PATH is shared, the other local; both may be shared,
of one user: then no content is sent. A target that ends in / or is a directory takes the source's name.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, from, to, err := a.copier(args)
			if err != nil {
				return err
			}
			if recursive && (from.user != "" || isDir(from.path)) {
				return c.tree(cmd.Context(), from, to, false)
			}
			if strings.HasSuffix(args[1], "/") || to.path == "" || to.user == "" && isDir(to.path) {
				to = to.below(path.Base(filepath.ToSlash(from.path)))
			}
			return c.one(cmd.Context(), from, to)
		},
	}
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "all below SOURCE, to the same paths below TARGET")
	return cmd
}

func (a *app) syncFilesCmd() *cobra.Command {
	var remove, dry bool
	cmd := &cobra.Command{
		Use: "sync SOURCE TARGET", Short: "Make a directory like another; USER:PATH is a shared one", Args: cobra.ExactArgs(2),
		Long: "Copy what lies below SOURCE to below TARGET, as far as its content differs there. Of large files only blocks that changed are sent.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, from, to, err := a.copier(args)
			if err != nil {
				return err
			}
			c.same, c.dry = true, dry
			return c.tree(cmd.Context(), from, to, remove)
		},
	}
	cmd.Flags().BoolVar(&remove, "delete", false, "delete below TARGET what is not below SOURCE")
	cmd.Flags().BoolVarP(&dry, "dry-run", "n", false, "only say what would be done")
	return cmd
}

func (a *app) copier(args []string) (c *copier, from, to place, err error) {
	if from, err = parsePlace(args[0]); err == nil {
		to, err = parsePlace(args[1])
	}
	switch {
	case err != nil:
		return nil, from, to, err
	case from.user == "" && to.user == "":
		return nil, from, to, usagef("neither %s nor %s is shared: write USER:PATH for one that is", args[0], args[1])
	case from.user != "" && to.user != "" && from.user != to.user:
		return nil, from, to, usagef("%s and %s are of two users: copy to a local directory, and from there", args[0], args[1])
	}
	client, err := a.fsClient()
	return &copier{a: a, fs: client}, from, to, err
}

func isDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// listed is the files below a place, by their paths there.
type listed map[string]found

type found struct {
	size   int64
	digest string // of a shared one
}

func (c *copier) list(ctx context.Context, p place) (listed, error) {
	if p.user == "" {
		return listLocal(p.path)
	}
	prefix, all := "", listed{}
	if p.path != "" {
		prefix = p.path + "/"
	}
	err := pages(0, func(size int32, token string) (int, page, error) {
		resp, err := c.fs.ListFiles(ctx, &fsv1.ListFilesRequest{User: string(p.user), Prefix: prefix, PageSize: size, PageToken: token})
		for _, f := range resp.GetFiles() {
			if err == nil {
				err = all.add(p, prefix, f)
			}
		}
		return len(resp.GetFiles()), resp, err
	})
	return all, err
}

// add takes in what a server says lies below a place, if that can be.
func (l listed) add(p place, prefix string, f *fsv1.File) error {
	rel, below := strings.CutPrefix(f.GetPath(), prefix)
	clean, err := skein.NewFilePath(string(p.user), f.GetPath())
	if err != nil || clean.Path != f.GetPath() || !below {
		return badAnswer("lists the file %s below %s: that is no path there", clipped(strconv.Quote(f.GetPath()), 200), p)
	}
	if _, err := skein.ParseDigest(f.GetDigest()); err != nil || f.GetSize() < 0 {
		return badAnswer("lists %s with %d bytes and the digest %.80q: no file has those", clean, f.GetSize(), f.GetDigest())
	}
	l[rel] = found{f.GetSize(), f.GetDigest()}
	return nil
}

// tree copies all below from to below to.
func (c *copier) tree(ctx context.Context, from, to place, remove bool) error {
	source, err := c.list(ctx, from)
	if err != nil {
		return err
	}
	if len(source) == 0 && from.user != "" {
		return fault.NotFound.New("NO_FILE", "no file lies below %s", from)
	}
	var target listed
	if c.same || remove {
		if target, err = c.list(ctx, to); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if to.user == "" {
		if err := source.fitLocal(from); err != nil {
			return err
		}
		if to, err = c.into(to); err != nil {
			return err
		}
		defer to.close()
	}
	return c.all(ctx, from, to, source, target, remove)
}

// all copies source, and with remove deletes what target has besides.
func (c *copier) all(ctx context.Context, from, to place, source, target listed, remove bool) error {
	total := int64(0)
	for _, f := range source {
		total += f.size
	}
	c.bar = c.a.progress("copy", total)
	defer c.bar.done()
	group, copying := errgroup.WithContext(ctx)
	group.SetLimit(2 * atOnce)
	for _, rel := range slices.Sorted(maps.Keys(source)) {
		group.Go(func() error {
			return c.copyIfNew(copying, from.below(rel), to.below(rel), source[rel], target[rel], rel)
		})
	}
	if remove {
		for _, rel := range slices.Sorted(maps.Keys(target)) {
			if _, ok := source[rel]; !ok {
				group.Go(func() error { return c.remove(copying, to.below(rel), rel) })
			}
		}
	}
	err := group.Wait()
	c.bar.done()
	slices.Sort(c.done)
	return errors.Join(err, c.a.table(func(w *tabwriter.Writer) {
		for _, line := range c.done {
			row(w, line)
		}
	}))
}

func (c *copier) copyIfNew(ctx context.Context, from, to place, source, target found, rel string) error {
	if c.same && source.size == target.size {
		same, err := c.alike(ctx, from, to, source, target)
		if err != nil {
			return err
		}
		if same {
			c.bar.add(int(source.size))
			return nil
		}
	}
	if !c.dry {
		if err := c.content(ctx, from, to); err != nil {
			return fmt.Errorf("%s: %w", rel, err)
		}
	}
	c.did("+ " + rel)
	return nil
}

func (c *copier) did(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done = append(c.done, what)
}

// alike reports whether two files of one size have one content.
func (c *copier) alike(ctx context.Context, from, to place, source, target found) (bool, error) {
	if target == (found{}) && !exists(to) {
		return false, nil
	}
	for _, side := range []struct {
		at place
		f  *found
	}{{from, &source}, {to, &target}} {
		if side.at.user == "" {
			f, err := side.at.open()
			if err != nil {
				return false, err
			}
			_, side.f.digest, err = fileDigests(ctx, f, side.f.size)
			_ = f.Close()
			if err != nil {
				return false, err
			}
		}
	}
	return source.digest == target.digest, nil
}

// exists tells an empty local file from none.
func exists(p place) bool {
	if p.user != "" {
		return false // it would have a digest
	}
	_, err := p.stat()
	return err == nil
}

// one copies a single file.
func (c *copier) one(ctx context.Context, from, to place) error {
	if from.user == "" && isDir(from.path) {
		return usagef("%s is a directory: -r copies what is in it", from)
	}
	c.bar = c.a.progress("copy", -1)
	defer c.bar.done()
	return c.content(ctx, from, to)
}

func (c *copier) content(ctx context.Context, from, to place) error {
	switch {
	case from.user != "" && to.user != "":
		return c.within(ctx, from, to)
	case from.user != "":
		return c.fetch(ctx, from, to)
	}
	f, err := os.Open(from.path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	p, err := skein.NewFilePath(string(to.user), to.path)
	if err != nil {
		return err
	}
	c.bar.expect(info.Size())
	_, err = putContent(ctx, c.fs, p, f, info.Size(), condition{}, c.bar)
	return err
}

func (c *copier) fetch(ctx context.Context, from, to place) error {
	p, err := skein.NewFilePath(string(from.user), from.path)
	if err != nil {
		return err
	}
	if to.in == nil {
		name := filepath.Base(to.path)
		if to, err = c.into(place{path: filepath.Dir(to.path)}); err != nil {
			return err
		}
		defer to.close()
		to = to.below(name)
	}
	if err := to.in.MkdirAll(filepath.Dir(to.path), 0o755); err != nil {
		return inTheWay(to.in, to.path, err)
	}
	return inTheWay(to.in, to.path, getWhole(ctx, c.fs, p, to, c.bar))
}

// within makes a file of the blocks of another.
func (c *copier) within(ctx context.Context, from, to place) error {
	look, err := c.fs.LookUpFile(ctx, &fsv1.LookUpFileRequest{User: string(from.user), Path: from.path})
	if err != nil {
		return err
	}
	if look.GetFile() == nil {
		return usagef("%s is a directory: -r copies what is in it", from)
	}
	_, err = c.fs.ComposeFile(ctx, &fsv1.ComposeFileRequest{User: string(to.user), Path: to.path, Blocks: look.GetBlocks(), Digest: look.GetFile().GetDigest()})
	c.bar.add(int(look.GetFile().GetSize()))
	return err
}

func (c *copier) remove(ctx context.Context, p place, rel string) error {
	var err error
	switch {
	case c.dry:
	case p.user == "":
		err = p.unlink()
	default:
		_, err = c.fs.DeleteFile(ctx, &fsv1.DeleteFileRequest{User: string(p.user), Path: p.path})
	}
	if err == nil {
		c.did("- " + rel)
	}
	return err
}

// removeTree deletes all files below a path.
func (a *app) removeTree(ctx context.Context, client fsv1.FsServiceClient, p skein.FilePath) error {
	c := &copier{a: a, fs: client}
	top := place{user: p.User, path: p.Path}
	all, err := c.list(ctx, top)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return fault.NotFound.New("NO_FILE", "no file lies below %s", p)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(2 * atOnce)
	for rel := range all {
		group.Go(func() error { return c.remove(ctx, top.below(rel), rel) })
	}
	return group.Wait()
}
