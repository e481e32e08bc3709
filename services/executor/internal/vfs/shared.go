package vfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"time"

	"skein.dev"
	"skein.dev/abi"
	"skein.dev/platform/fault"
	fsv1 "skein.dev/proto/skein/fs/v1"
)

// FS is a user's shared files, from the fs service, during one call: an io/fs.FS whose files are io.ReaderAts.
type FS struct {
	ctx    context.Context // the call's: io/fs has no place for it
	client fsv1.FsServiceClient
	user   skein.User
	read   int64
}

// New gives a call its tree.
func New(ctx context.Context, client fsv1.FsServiceClient, user skein.User) *FS {
	return &FS{ctx: ctx, client: client, user: user}
}

// BytesRead is how much of files the guest has read.
func (f *FS) BytesRead() int64 { return f.read }

// Open opens a file or a directory. A directory exists if a file lies under it; the root always does.
func (f *FS) Open(name string) (fs.File, error) {
	fail := func(err error) (fs.File, error) { return nil, &fs.PathError{Op: "open", Path: name, Err: err} }
	if !fs.ValidPath(name) {
		return fail(fs.ErrInvalid)
	}
	if name == "." {
		return &dir{fs: f, name: "."}, nil
	}
	clean, err := skein.CleanPath(name)
	if err != nil { // such a name can't have been stored
		return fail(fs.ErrNotExist)
	}
	stat, err := f.client.StatFile(f.ctx, &fsv1.StatFileRequest{User: string(f.user), Path: clean})
	if err == nil {
		return &file{fs: f, meta: stat.GetFile()}, nil
	}
	if !errors.Is(err, fault.NotFound) {
		return fail(err)
	}
	list, err := f.client.ListFiles(f.ctx, &fsv1.ListFilesRequest{User: string(f.user), Prefix: clean + "/", PageSize: 1})
	switch {
	case err != nil:
		return fail(err)
	case len(list.GetFiles()) == 0:
		return fail(fs.ErrNotExist)
	}
	return &dir{fs: f, name: clean}, nil
}

// info is a file's or a directory's fs.FileInfo and fs.DirEntry.
type info struct {
	name string
	size int64
	when time.Time
	dir  bool
}

func (i info) Name() string               { return i.name }
func (i info) Size() int64                { return i.size }
func (i info) ModTime() time.Time         { return i.when }
func (i info) IsDir() bool                { return i.dir }
func (i info) Sys() any                   { return nil }
func (i info) Type() fs.FileMode          { return i.Mode().Type() }
func (i info) Info() (fs.FileInfo, error) { return i, nil }

func (i info) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o555
	}
	return 0o444
}

// window is how much a read fetches: blocks of the store are 1 MiB, and a guest that reads a little reads on.
const window = 1 << 20

// file is an open shared file. It sees one content, that of when it was opened, as long as the store has it.
type file struct {
	fs   *FS
	meta *fsv1.File
	pos  int64
	off  int64 // of have in the file
	have []byte
}

func (f *file) Stat() (fs.FileInfo, error) {
	return info{name: path.Base(f.meta.GetPath()), size: f.meta.GetSize(), when: f.meta.GetUpdateTime().AsTime()}, nil
}

func (f *file) Close() error { f.have = nil; return nil }

func (f *file) Read(p []byte) (int, error) {
	n, err := f.ReadAt(p, f.pos)
	f.pos += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	done := 0
	defer func() { f.fs.read += int64(done) }()
	for done < len(p) {
		at := off + int64(done)
		if at >= f.meta.GetSize() {
			return done, io.EOF
		}
		if at < f.off || at >= f.off+int64(len(f.have)) {
			if err := f.fetch(at); err != nil {
				return done, err
			}
		}
		done += copy(p[done:], f.have[at-f.off:])
	}
	return done, nil
}

// fetch makes have the window that begins at the block of off.
func (f *file) fetch(off int64) error {
	off -= off % window
	stream, err := f.fs.client.GetFile(f.fs.ctx, &fsv1.GetFileRequest{
		User: string(f.fs.user), Path: f.meta.GetPath(), Offset: off, Length: window,
	})
	if err != nil {
		return err
	}
	want := min(window, f.meta.GetSize()-off)
	have := make([]byte, 0, want)
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if now := m.GetFile(); now != nil && now.GetDigest() != f.meta.GetDigest() {
			return fmt.Errorf("%s was replaced while it was open: %w", f.meta.GetPath(), abi.ESTALE)
		}
		have = append(have, m.GetData()...)
	}
	if int64(len(have)) != want {
		return fault.DataLoss.New("FILE_SHORT", "%s ends at byte %d instead of %d", f.meta.GetPath(), off+int64(len(have)), f.meta.GetSize())
	}
	f.off, f.have = off, have
	return nil
}

// dir is an open directory.
type dir struct {
	fs    *FS
	name  string
	token string
	begun bool
	rest  []fs.DirEntry
}

func (d *dir) Stat() (fs.FileInfo, error) { return info{name: path.Base(d.name), dir: true}, nil }
func (d *dir) Close() error               { return nil }

func (d *dir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.name, Err: errors.New("is a directory")}
}

// ReadDir gives the next n entries, or all that are left if n <= 0, in no promised order.
func (d *dir) ReadDir(n int) ([]fs.DirEntry, error) {
	var out []fs.DirEntry
	for n <= 0 || len(out) < n {
		if len(d.rest) == 0 {
			if d.begun && d.token == "" {
				break
			}
			if err := d.page(); err != nil {
				return out, err
			}
			continue
		}
		out = append(out, d.rest[0])
		d.rest = d.rest[1:]
	}
	if n > 0 && len(out) == 0 {
		return nil, io.EOF
	}
	return out, nil
}

func (d *dir) page() error {
	prefix := ""
	if d.name != "." {
		prefix = d.name + "/"
	}
	list, err := d.fs.client.ListFiles(d.fs.ctx, &fsv1.ListFilesRequest{
		User: string(d.fs.user), Prefix: prefix, PageSize: 1000, PageToken: d.token, Shallow: true,
	})
	if err != nil {
		return err
	}
	d.begun, d.token = true, list.GetNextPageToken()
	for _, sub := range list.GetDirectories() {
		d.rest = append(d.rest, info{name: path.Base(sub), dir: true})
	}
	for _, f := range list.GetFiles() {
		d.rest = append(d.rest, info{name: path.Base(f.GetPath()), size: f.GetSize(), when: f.GetUpdateTime().AsTime()})
	}
	return nil
}
