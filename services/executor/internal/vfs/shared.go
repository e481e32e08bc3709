package vfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"sync"

	"skein.dev"
	"skein.dev/abi"
	"skein.dev/platform/fault"
	fsv1 "skein.dev/proto/skein/fs/v1"
)

// Shared is a user's shared files, asked of the fs service each time.
type Shared struct {
	client fsv1.FsServiceClient
	user   skein.User
}

// NewShared gives the files of a user.
func NewShared(client fsv1.FsServiceClient, user skein.User) *Shared {
	return &Shared{client: client, user: user}
}

// Stat looks at a file or a directory. A directory exists if a file lies under it; the root always does.
func (s *Shared) Stat(ctx context.Context, name string) (LowerInfo, error) {
	if name == "." {
		return LowerInfo{Dir: true}, nil
	}
	meta, err := s.stat(ctx, name)
	switch {
	case err == nil:
		return infoOf(meta), nil
	case !errors.Is(err, abi.ENOENT):
		return LowerInfo{}, err
	}
	list, err := s.client.ListFiles(ctx, &fsv1.ListFilesRequest{User: string(s.user), Prefix: name + "/", PageSize: 1})
	switch {
	case err != nil:
		return LowerInfo{}, err
	case len(list.GetFiles()) == 0:
		return LowerInfo{}, abi.ENOENT
	}
	return LowerInfo{Dir: true}, nil
}

func (s *Shared) stat(ctx context.Context, name string) (*fsv1.File, error) {
	if clean, err := skein.CleanPath(name); err != nil || clean != name { // such a name can't have been stored
		return nil, abi.ENOENT
	}
	stat, err := s.client.StatFile(ctx, &fsv1.StatFileRequest{User: string(s.user), Path: name})
	if errors.Is(err, fault.NotFound) {
		return nil, abi.ENOENT
	}
	return stat.GetFile(), err
}

// infoOf takes for the ID a part of the content's digest.
func infoOf(meta *fsv1.File) LowerInfo {
	info := LowerInfo{Size: meta.GetSize(), Modified: meta.GetUpdateTime().AsTime(), ID: 1}
	_, _ = fmt.Sscanf(meta.GetDigest(), "%16x", &info.ID) // what is no digest has ID 1
	return info
}

// Open opens a file.
func (s *Shared) Open(ctx context.Context, name string) (LowerFile, error) {
	meta, err := s.stat(ctx, name)
	if err == nil {
		return &sharedFile{shared: s, meta: meta}, nil
	}
	if errors.Is(err, abi.ENOENT) {
		if info, err := s.Stat(ctx, name); err == nil && info.Dir {
			return nil, abi.EISDIR
		}
	}
	return nil, err
}

// List gives names in a directory.
func (s *Shared) List(ctx context.Context, dir, after string, n int) (out []LowerEntry, err error) {
	prefix := ""
	if dir != "." {
		prefix = dir + "/"
	}
	// The service's pages go by whole paths, in which "a/" comes after "a!": names that only differ so are few.
	for token := ""; ; {
		list, err := s.client.ListFiles(ctx, &fsv1.ListFilesRequest{
			User: string(s.user), Prefix: prefix, PageSize: 1000, PageToken: token, Shallow: true,
		})
		if err != nil {
			return nil, err
		}
		for _, sub := range list.GetDirectories() {
			out = append(out, LowerEntry{Name: path.Base(sub), Dir: true})
		}
		for _, f := range list.GetFiles() {
			out = append(out, LowerEntry{Name: path.Base(f.GetPath())})
		}
		if token = list.GetNextPageToken(); token == "" {
			break
		}
	}
	if len(out) == 0 && dir != "." {
		return nil, abi.ENOENT
	}
	return page(out, after, n), nil
}

// sharedWindow is how much a read fetches: blocks of the store are 1 MiB, and a guest that reads a little reads on.
const sharedWindow = 1 << 20

// sharedFile is an open shared file. It sees one content, that of when it was opened, as long as the store has it.
type sharedFile struct {
	shared *Shared
	meta   *fsv1.File

	mu   sync.Mutex // guards the window; it is not held while one is fetched
	off  int64      // of have in the file
	have []byte
}

func (f *sharedFile) Info() LowerInfo { return infoOf(f.meta) }
func (f *sharedFile) Close() error    { return nil }

func (f *sharedFile) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		at := off + int64(done)
		if at >= f.meta.GetSize() {
			return done, io.EOF
		}
		f.mu.Lock()
		start, have := f.off, f.have
		f.mu.Unlock()
		if at < start || at >= start+int64(len(have)) {
			var err error
			if start, have, err = f.fetch(ctx, at); err != nil {
				return done, err
			}
		}
		done += copy(p[done:], have[at-start:])
	}
	return done, nil
}

// fetch reads the window that begins at the block of off.
func (f *sharedFile) fetch(ctx context.Context, off int64) (int64, []byte, error) {
	off -= off % sharedWindow
	stream, err := f.shared.client.GetFile(ctx, &fsv1.GetFileRequest{
		User: string(f.shared.user), Path: f.meta.GetPath(), Offset: off, Length: sharedWindow,
	})
	if err != nil {
		return 0, nil, err
	}
	want := min(sharedWindow, f.meta.GetSize()-off)
	have := make([]byte, 0, want)
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, nil, err
		}
		if now := m.GetFile(); now != nil && now.GetDigest() != f.meta.GetDigest() {
			return 0, nil, fmt.Errorf("%s was replaced while it was open: %w", f.meta.GetPath(), abi.ESTALE)
		}
		have = append(have, m.GetData()...)
	}
	if int64(len(have)) != want {
		return 0, nil, fault.DataLoss.New("FILE_SHORT", "%s ends at byte %d instead of %d", f.meta.GetPath(), off+int64(len(have)), f.meta.GetSize())
	}
	f.mu.Lock()
	f.off, f.have = off, have
	f.mu.Unlock()
	return off, have, nil
}

// page is n of the entries that come after a name, in order.
func page(all []LowerEntry, after string, n int) []LowerEntry {
	all = slices.DeleteFunc(all, func(e LowerEntry) bool { return e.Name <= after })
	slices.SortFunc(all, func(a, b LowerEntry) int { return strings.Compare(a.Name, b.Name) })
	return all[:min(n, len(all))]
}
