package blob

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"skein.dev/platform/fault"
)

// dir is a Bucket in a directory, which any number of processes of one machine may share:
//
//	objects/   one file per object, at the place that locate makes of its key
//	tmp/       what is being written; a crash may leave files here, which no key reaches
//	lock       flock(2): shared by who changes an object, exclusive for who compares first
type dir struct{ root string }

func openDir(root string) (Bucket, error) {
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, fault.Invalid.New("BAD_BUCKET", "bucket file:%s: %s", root, err)
	}
	d := &dir{abs}
	d.clean()
	return d, nil
}

// clean removes what crashes left behind. A put that takes a day is not protected.
func (d *dir) clean() {
	left, _ := os.ReadDir(d.tmp())
	for _, e := range left {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > 24*time.Hour {
			_ = os.Remove(filepath.Join(d.tmp(), e.Name()))
		}
	}
}

func (d *dir) objects() string { return filepath.Join(d.root, "objects") }
func (d *dir) tmp() string     { return filepath.Join(d.root, "tmp") }

// longest is how many bytes of a segment one file name holds: three times as many when all are escaped, and a mark.
const longest = 80

// Marks at the end of a file name. escape never makes them, so no two keys meet.
const (
	objectMark = "=" // the file of an object
	moreMark   = "~" // a directory for segments that begin with these bytes and are longer
)

// locate gives the file of an object, relative to objects/. Each segment is a directory and the last one a file; a
// segment of at least longest bytes goes through a further directory. So the names within one directory, decoded, are
// in the byte order of the keys below them.
func locate(key string) string {
	var b strings.Builder
	for {
		seg, rest, deeper := strings.Cut(key, "/")
		for len(seg) >= longest {
			b.WriteString(escape(seg[:longest]) + moreMark + "/")
			seg = seg[longest:]
		}
		b.WriteString(escape(seg))
		if !deeper {
			b.WriteString(objectMark)
			return b.String()
		}
		if seg == "" {
			b.WriteString("%") // behind a segment of exactly longest bytes; a directory must have a name
		}
		b.WriteByte('/')
		key = rest
	}
}

func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.' || c == '!'
}

func escape(s string) string {
	if s == "." || s == ".." { // the rest of a long segment can be that, and must not lead out of the directory
		return strings.Replace(s, ".", "%2e", 1)
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; plain(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02x", c)
		}
	}
	return b.String()
}

// unescape reads what escape wrote and nothing else.
func unescape(s string) (string, bool) {
	if s == "%" {
		return "", true
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' {
			n, err := strconv.ParseUint(s[i+1:min(i+3, len(s))], 16, 8)
			if err != nil {
				return "", false
			}
			c = byte(n)
			i += 2
		} else if !plain(c) {
			return "", false
		}
		b.WriteByte(c)
	}
	return b.String(), true
}

func (d *dir) file(key string) string {
	return filepath.Join(d.objects(), filepath.FromSlash(locate(key)))
}

// infoOf makes the ETag of what a replacement changes for sure: a new file, and the time that Put gave it.
func infoOf(key string, st fs.FileInfo) Info {
	var ino uint64
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		ino = sys.Ino
	}
	return Info{key, st.Size(), fmt.Sprintf("%x-%x-%x", ino, st.ModTime().UnixNano(), st.Size()), st.ModTime()}
}

func (d *dir) Stat(ctx context.Context, key string) (Info, error) {
	if err := cmp.Or(ctx.Err(), CheckKey(key)); err != nil {
		return Info{}, err
	}
	st, err := os.Stat(d.file(key))
	if err != nil {
		return Info{}, d.fault(key, err)
	}
	return infoOf(key, st), nil
}

func (d *dir) Get(ctx context.Context, key string, off, length int64) (io.ReadCloser, Info, error) {
	if err := cmp.Or(ctx.Err(), CheckKey(key), checkRange(off)); err != nil {
		return nil, Info{}, err
	}
	f, err := os.Open(d.file(key))
	if err != nil {
		return nil, Info{}, d.fault(key, err)
	}
	st, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, Info{}, d.fault(key, err)
	}
	left := max(st.Size()-off, 0)
	if length >= 0 {
		left = min(left, length)
	}
	return &section{f, io.NewSectionReader(f, off, left)}, infoOf(key, st), nil
}

type section struct {
	f *os.File
	*io.SectionReader
}

func (s *section) Close() error { return s.f.Close() }

func (d *dir) Put(ctx context.Context, key string, r io.Reader, size int64, opts PutOptions) (Info, error) {
	if err := cmp.Or(ctx.Err(), checkPut(key, size, opts)); err != nil {
		return Info{}, err
	}
	f, err := d.create()
	if err != nil {
		return Info{}, d.fault(key, err)
	}
	temp := f.Name()
	defer func() { _ = os.Remove(temp) }() // fails when it has become the object
	if err := d.fill(ctx, f, r, size); err != nil {
		return Info{}, err
	}
	st, err := os.Stat(temp)
	if err != nil {
		return Info{}, d.fault(key, err)
	}
	if err := d.publish(temp, key, opts); err != nil {
		return Info{}, err
	}
	return infoOf(key, st), nil
}

func (d *dir) create() (*os.File, error) {
	f, err := os.CreateTemp(d.tmp(), "put-")
	if errors.Is(err, fs.ErrNotExist) {
		if err := mkdir(d.tmp()); err != nil {
			return nil, err
		}
		return os.CreateTemp(d.tmp(), "put-")
	}
	return f, err
}

// fill writes the temporary file, durably, and closes it.
func (d *dir) fill(ctx context.Context, f *os.File, r io.Reader, size int64) error {
	src := &body{r: r, left: size}
	_, err := io.Copy(struct{ io.Writer }{f}, &untilDone{ctx, src})
	// The file system's clock ticks a hundred times a second, and a freed inode is soon used again: with our own clock
	// no two contents have the same ETag.
	now := time.Now()
	err = cmp.Or(err, os.Chtimes(f.Name(), now, now), f.Sync())
	if e := f.Close(); err == nil {
		err = e
	}
	switch {
	case err == nil:
		return nil
	case src.err != nil:
		return src.err
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return d.fault("", err)
}

// untilDone ends reading when the context does.
type untilDone struct {
	ctx context.Context //nolint:containedctx // it lives as long as one call
	r   io.Reader
}

func (u *untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}

// publish makes a file the object.
func (d *dir) publish(temp, key string, opts PutOptions) error {
	how := syscall.LOCK_SH
	if opts.IfMatch != "" {
		how = syscall.LOCK_EX
	}
	unlock, err := d.lock(how)
	if err != nil {
		return d.fault(key, err)
	}
	defer unlock()
	file := d.file(key)
	if opts.IfMatch != "" {
		st, err := os.Stat(file)
		if errors.Is(err, fs.ErrNotExist) || err == nil && infoOf(key, st).ETag != opts.IfMatch {
			return changed(key, opts)
		} else if err != nil {
			return d.fault(key, err)
		}
	}
	for {
		if opts.IfAbsent {
			err = os.Link(temp, file)
		} else {
			err = os.Rename(temp, file)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
		// The directory was never there, or a Delete has just removed it as empty.
		if err := mkdir(filepath.Dir(file)); err != nil {
			return d.fault(key, err)
		}
		if _, err := os.Stat(temp); err != nil {
			return d.fault("", err)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		return changed(key, opts)
	}
	if err == nil {
		err = syncDir(filepath.Dir(file))
	}
	return d.fault(key, err)
}

// lock keeps a comparison and the change that depends on it together, also across processes. Each holder opens the file
// anew, as locks belong to the opening.
func (d *dir) lock(how int) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(d.root, "lock"), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}

// mkdir makes a directory and those above it, durably.
func mkdir(path string) error {
	err := os.Mkdir(path, 0o777)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, fs.ErrNotExist):
		if err := mkdir(filepath.Dir(path)); err != nil {
			return err
		}
		if err := os.Mkdir(path, 0o777); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
			return err // gone again already: the caller comes back
		}
	case err != nil:
		return err
	}
	if err := syncDir(filepath.Dir(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return f.Sync()
}

func (d *dir) Delete(ctx context.Context, key string) error {
	if err := cmp.Or(ctx.Err(), CheckKey(key)); err != nil {
		return err
	}
	file := d.file(key)
	if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unlock, err := d.lock(syscall.LOCK_SH)
	if err != nil {
		return d.fault(key, err)
	}
	defer unlock()
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return d.fault(key, err)
	}
	parent := filepath.Dir(file)
	if err := syncDir(parent); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return d.fault(key, err)
	}
	for ; len(parent) > len(d.objects()); parent = filepath.Dir(parent) {
		if os.Remove(parent) != nil { // not empty
			break
		}
	}
	return nil
}

func (d *dir) Ping(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := mkdir(d.tmp()); err != nil {
		return d.fault("", err)
	}
	_, err := os.Stat(d.tmp())
	return d.fault("", err)
}

// fault turns an error of the file system into one of Bucket's.
func (d *dir) fault(key string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist) && key != "":
		return noObject(key)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return fault.Exhausted.New("STORE_FULL", "the object directory is full").WithHint("free space in %s", d.root)
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EROFS):
		return fault.Unavailable.New("STORE_DENIED", "the object directory: %s", err).WithHint("let this process write to %s", d.root)
	}
	return fault.Unavailable.New("STORE_DOWN", "the object directory: %s", err).WithHint("check %s", d.root)
}

// entry is what one file name of a directory stands for.
type entry struct {
	text  string // an object's key, or what all keys below begin with
	name  string
	isDir bool
}

func (d *dir) List(ctx context.Context, prefix, after string, limit int, delimiter bool) (Page, error) {
	if limit < 1 || limit > MaxPage {
		limit = MaxPage
	}
	w := &walk{ctx: ctx, prefix: prefix, after: after, limit: limit, delimiter: delimiter}
	if err := w.dir(d.objects(), ""); err != nil && !errors.Is(err, errFull) {
		return Page{}, cmp.Or(ctx.Err(), d.fault("", err))
	}
	return w.page, nil
}

// walk visits the part of the tree that a page needs, in the order of keys.
type walk struct {
	ctx           context.Context //nolint:containedctx // it lives as long as one call
	prefix, after string
	limit         int
	delimiter     bool
	page          Page
}

var errFull = errors.New("the page is full")

func (w *walk) dir(path, text string) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	names, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	entries := make([]entry, 0, len(names))
	for _, n := range names {
		if e, ok := entryOf(text, n); ok {
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.text, b.text) })
	for _, e := range entries {
		if err := w.visit(filepath.Join(path, e.name), e); err != nil {
			return err
		}
	}
	return nil
}

func entryOf(text string, n fs.DirEntry) (entry, bool) {
	name, mark := n.Name(), "/"
	if cut, ok := strings.CutSuffix(name, objectMark); ok && !n.IsDir() {
		name, mark = cut, ""
	} else if cut, ok := strings.CutSuffix(name, moreMark); ok && n.IsDir() {
		name, mark = cut, ""
	} else if !n.IsDir() {
		return entry{}, false
	}
	seg, ok := unescape(name)
	return entry{text + seg + mark, n.Name(), n.IsDir()}, ok
}

func (w *walk) visit(path string, e entry) error {
	if !e.isDir {
		if !strings.HasPrefix(e.text, w.prefix) || e.text <= w.after {
			return nil
		}
		st, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // deleted since we read the directory
		} else if err != nil {
			return err
		}
		if !w.room() {
			return errFull
		}
		w.page.Items = append(w.page.Items, infoOf(e.text, st))
		return nil
	}
	switch {
	case !strings.HasPrefix(e.text, w.prefix) && !strings.HasPrefix(w.prefix, e.text):
		return nil // nothing below has the prefix
	case e.text < w.after && !strings.HasPrefix(w.after, e.text):
		return nil // all below comes before
	case w.delimiter && len(e.text) > len(w.prefix) && strings.HasSuffix(e.text, "/"):
		return w.group(path, e.text)
	}
	return w.dir(path, e.text)
}

// group gives a directory as one prefix, unless it holds no object: Delete leaves empty ones when it is interrupted.
func (w *walk) group(path, text string) error {
	if text <= w.after || strings.HasPrefix(w.after, text) {
		return nil
	}
	below := &walk{ctx: w.ctx, limit: 1}
	if err := below.dir(path, text); err != nil && !errors.Is(err, errFull) {
		return err
	}
	if len(below.page.Items) == 0 {
		return nil
	}
	if !w.room() {
		return errFull
	}
	w.page.Prefixes = append(w.page.Prefixes, text)
	return nil
}

// room asks for one more place on the page; the page learns that there is more when there is none.
func (w *walk) room() bool {
	w.page.More = len(w.page.Items)+len(w.page.Prefixes) >= w.limit
	return !w.page.More
}
