package vfs

import (
	"cmp"
	"context"
	"errors"
	"io"
	"path"
	"strings"

	"skein.dev/abi"
)

// Scheme begins the paths of the shared tree itself: past the call's own layer and its mounts, for reading and for writing. Faasm's
// guests share files by them.
const Scheme = "faasm://"

// Shared is a Lower whose files can be replaced. It has no directories but those that files lie in.
type Shared interface {
	Lower
	// Put makes what content has, up to its end, the file at path, all at once: nobody sees a part. With absent there must be none yet, else it
	// is abi.EEXIST. abi.EFBIG and its like, or a fault, say why it was not done.
	Put(ctx context.Context, path string, content io.Reader, absent bool) error
	// Remove removes the file at path. abi.ENOENT if there is none.
	Remove(ctx context.Context, path string) error
}

// outer says whether a path is one of the shared tree itself, and which.
func outer(dir *Open, name string) (rest string, ok bool) {
	if rest, ok = strings.CutPrefix(name, Scheme); ok {
		if rest = strings.TrimLeft(rest, "/"); rest == "" {
			rest = "."
		}
		return rest, true
	}
	if dir.layer == nil {
		return "", false
	}
	if name == "" || name[0] == '/' {
		return name, true // which is refused as everywhere
	}
	return dir.shared + "/" + name, true
}

// crosses is why what is at old can't get another name: EXDEV from one tree to the other, ENOTSUP in the shared one, where a name is all that a
// file has.
func crosses(oldDir *Open, old string, dir *Open, name string) error {
	_, from := outer(oldDir, old)
	_, to := outer(dir, name)
	switch {
	case from && to:
		return abi.ENOTSUP
	case from || to:
		return abi.EXDEV
	}
	return nil
}

// outerFiles bounds what a layer over the shared tree has: a file that is written, and the directories that are made for it.
const outerFiles = 256

// outerLayer is a layer over the shared tree for one operation, or for one open file: what is written lies there until it is put. Its bytes count
// as the call's. ENOTSUP if there is no such tree.
func (t *Table) outerLayer() (*Layer, error) {
	if t.setup.Shared == nil {
		return nil, abi.ENOTSUP
	}
	own := t.tree()
	l := NewLayer(t.setup.Shared, own.store, Limits{Files: outerFiles})
	l.bytes = own.bytes
	return l, nil
}

// within runs an operation that changes nothing, in the tree that a path is of.
func (t *Table) within(ctx context.Context, dir *Open, name string, op func(k *look, name string) error) error {
	rest, ok := outer(dir, name)
	if !ok {
		return t.tree().do(ctx, dir.node, func(k *look) error { return op(k, name) })
	}
	l, err := t.outerLayer()
	if err != nil {
		return err
	}
	defer l.Close()
	return l.do(ctx, &l.root, func(k *look) error { return op(k, rest) })
}

// openOuter opens a file of the shared tree itself as o. Who makes one makes the directories that it lies in, too.
func (t *Table) openOuter(ctx context.Context, o *Open, rest string, how How) error {
	l, err := t.outerLayer()
	if err != nil {
		return err
	}
	o.layer, o.shared = l, path.Clean(rest)
	if how.Create {
		o.fresh, err = l.makeWay(ctx, rest)
	}
	if err == nil {
		err = o.open(ctx, l, &l.root, rest, how)
	}
	if err != nil {
		l.Close()
		return err
	}
	o.dirty = o.fresh || how.Truncate && o.typ == Regular
	o.fresh = o.fresh && how.Exclusive
	return nil
}

// makeWay makes the directories that lead to a path, if nothing is there; missing tells that.
func (l *Layer) makeWay(ctx context.Context, name string) (missing bool, err error) {
	err = l.do(ctx, &l.root, func(k *look) error {
		_, err := k.present(name, toOpen)
		return err
	})
	if !errors.Is(err, abi.ENOENT) {
		return false, err
	}
	for i := range name {
		if name[i] != '/' {
			continue
		}
		err := l.do(ctx, &l.root, func(k *look) error {
			pl, err := k.vacant(name[:i], true)
			if err == nil {
				_, err = k.create(pl, Directory)
			}
			return err
		})
		if err != nil && !errors.Is(err, abi.EEXIST) {
			return true, err
		}
	}
	return true, nil
}

// publish puts what was written to a file of the shared tree itself.
func (o *Open) publish(ctx context.Context) error {
	if o.layer == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case !o.dirty || o.closed:
		return nil
	case o.spoilt != nil:
		return o.spoilt
	}
	if err := o.table.setup.Shared.Put(ctx, o.shared, &nodeReader{ctx: ctx, n: o.node}, o.fresh); err != nil {
		return err
	}
	o.dirty, o.fresh = false, false
	return nil
}

// wrote takes note of a write of n bytes, done of them. The caller holds mu.
func (o *Open) wrote(n, done int, err error) {
	o.dirty = true
	if done < n && o.spoilt == nil {
		o.spoilt = cmp.Or(err, error(abi.EDQUOT))
	}
}

// Publishes reports whether closing o, or Sync, has to wait for the fs service.
func (o *Open) Publishes() bool {
	if o.layer == nil {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.dirty
}

// Publish puts what was written to files of the shared tree itself that are still open.
func (t *Table) Publish(ctx context.Context) error {
	t.mu.Lock()
	all := append([]*Open(nil), t.open...)
	t.mu.Unlock()
	var errs []error
	for _, o := range all {
		if o != nil {
			errs = append(errs, o.publish(ctx))
		}
	}
	return errors.Join(errs...)
}

// nodeReader reads all of a file.
type nodeReader struct {
	ctx context.Context //nolint:containedctx // an io.Reader's has no place else
	n   *node
	pos int64
}

func (r *nodeReader) Read(p []byte) (int, error) {
	n, err := r.n.read(r.ctx, p, r.pos)
	r.pos += int64(n)
	if n == 0 && err == nil && len(p) > 0 {
		err = io.EOF
	}
	return n, err
}

// makeOuterDir is MakeDirAt in the shared tree: a directory is there once a file lies in it, and any may.
func (t *Table) makeOuterDir(ctx context.Context, dir *Open, name string) error {
	_, err := t.StatAt(ctx, dir, name, false)
	switch {
	case err == nil:
		return abi.EEXIST
	case errors.Is(err, abi.ENOENT):
		return nil
	}
	return err
}

// removeOuterDir is RemoveDirAt in the shared tree: no directory there is empty.
func (t *Table) removeOuterDir(ctx context.Context, dir *Open, name string) error {
	st, err := t.StatAt(ctx, dir, name, false)
	switch {
	case err != nil:
		return err
	case st.Type != Directory:
		return abi.ENOTDIR
	}
	return abi.ENOTEMPTY
}

func (t *Table) unlinkOuter(ctx context.Context, dir *Open, name string) error {
	st, err := t.StatAt(ctx, dir, name, false)
	switch {
	case err != nil:
		return err
	case st.Type == Directory:
		return abi.EISDIR
	}
	rest, _ := outer(dir, name)
	return t.setup.Shared.Remove(ctx, path.Clean(rest))
}

// Within is what of a shared tree lies below the directories that mounts show, at its own place there. EACCES for all else.
func Within(s Shared, mounts []Mount) Shared { return &within{s, mounts} }

type within struct {
	Shared
	mounts []Mount
}

// check says whether a path is shown, and whether it is a directory that one lies in.
func (w *within) check(name string) (above bool, err error) {
	for _, m := range w.mounts {
		if _, ok := under(m.From, name); ok {
			return false, nil
		}
		_, ok := under(name, m.From)
		above = above || ok
	}
	return above, abi.EACCES
}

func (w *within) Stat(ctx context.Context, name string) (LowerInfo, error) {
	above, err := w.check(name)
	switch {
	case above:
		return LowerInfo{Dir: true}, nil
	case err != nil:
		return LowerInfo{}, err
	}
	return w.Shared.Stat(ctx, name)
}

func (w *within) Open(ctx context.Context, name string) (LowerFile, error) {
	above, err := w.check(name)
	switch {
	case above:
		return nil, abi.EISDIR
	case err != nil:
		return nil, err
	}
	return w.Shared.Open(ctx, name)
}

func (w *within) List(ctx context.Context, dir, after string, n int) ([]LowerEntry, error) {
	if _, err := w.check(dir); err != nil {
		return nil, err
	}
	return w.Shared.List(ctx, dir, after, n)
}

func (w *within) Put(ctx context.Context, name string, content io.Reader, absent bool) error {
	if _, err := w.check(name); err != nil {
		return err
	}
	return w.Shared.Put(ctx, name, content, absent)
}

func (w *within) Remove(ctx context.Context, name string) error {
	if _, err := w.check(name); err != nil {
		return err
	}
	return w.Shared.Remove(ctx, name)
}
