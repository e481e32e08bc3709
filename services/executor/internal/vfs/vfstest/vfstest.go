// Package vfstest is a tree in memory for tests that need something below a layer.
package vfstest

import (
	"context"
	"hash/fnv"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"skein.dev/abi"
	"skein.dev/services/executor/internal/vfs"
)

// Tree is a vfs.Lower of files that a test can change at any time; directories are where files are.
type Tree struct {
	mu    sync.Mutex
	files map[string]file
	names []string                    // of files, in order
	Fail  func(op, path string) error // what a look fails with; set before the tree is used
}

// New makes a tree of path → content.
func New(files map[string]string) *Tree {
	t := &Tree{files: map[string]file{}}
	for path, content := range files {
		t.Set(path, content)
	}
	return t
}

// Setup is a call's with the tree below it.
func Setup(files map[string]string) vfs.Setup {
	t := New(files)
	return vfs.Setup{Lower: t, Shared: t}
}

// Set makes or replaces a file.
func (t *Tree) Set(path, content string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i, had := slices.BinarySearch(t.names, path); !had {
		t.names = slices.Insert(t.names, i, path)
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(content))
	t.files[path] = file{content, h.Sum64()}
}

// Put makes or replaces a file, as a vfs.Shared does.
func (t *Tree) Put(_ context.Context, path string, content io.Reader, absent bool) error {
	if err := t.fail("put", path); err != nil {
		return err
	}
	all, err := io.ReadAll(content)
	if err != nil {
		return err
	}
	t.mu.Lock()
	_, had := t.files[path]
	t.mu.Unlock()
	if had && absent {
		return abi.EEXIST
	}
	t.Set(path, string(all))
	return nil
}

// Remove removes a file.
func (t *Tree) Remove(_ context.Context, path string) error {
	if err := t.fail("remove", path); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if i, had := slices.BinarySearch(t.names, path); had {
		t.names = slices.Delete(t.names, i, i+1)
	}
	_, had := t.files[path]
	delete(t.files, path)
	if !had {
		return abi.ENOENT
	}
	return nil
}

// When is the time of all files.
var When = time.Unix(1_700_000_000, 42)

type file struct {
	content string
	id      uint64
}

func (f file) Info() vfs.LowerInfo {
	return vfs.LowerInfo{Size: int64(len(f.content)), Modified: When, ID: f.id}
}

func (f file) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return strings.NewReader(f.content).ReadAt(p, off)
}

func (f file) Close() error { return nil }

func (t *Tree) fail(op, path string) error {
	if t.Fail == nil {
		return nil
	}
	return t.Fail(op, path)
}

// Stat looks at a path.
func (t *Tree) Stat(_ context.Context, path string) (vfs.LowerInfo, error) {
	if err := t.fail("stat", path); err != nil {
		return vfs.LowerInfo{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if f, ok := t.files[path]; ok {
		return f.Info(), nil
	}
	if path == "." || t.directory(path+"/") {
		return vfs.LowerInfo{Dir: true}, nil
	}
	return vfs.LowerInfo{}, abi.ENOENT
}

func (t *Tree) directory(prefix string) bool {
	i, _ := slices.BinarySearch(t.names, prefix)
	return i < len(t.names) && strings.HasPrefix(t.names[i], prefix)
}

// Open opens a file.
func (t *Tree) Open(_ context.Context, path string) (vfs.LowerFile, error) {
	if err := t.fail("open", path); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if f, ok := t.files[path]; ok {
		return f, nil
	}
	if path == "." || t.directory(path+"/") {
		return nil, abi.EISDIR
	}
	return nil, abi.ENOENT
}

// List gives names in a directory.
func (t *Tree) List(_ context.Context, dir, after string, n int) (out []vfs.LowerEntry, err error) {
	if err := t.fail("list", dir); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	prefix := dir + "/"
	if dir == "." {
		prefix = ""
	} else if !t.directory(prefix) {
		return nil, abi.ENOENT
	}
	i, _ := slices.BinarySearch(t.names, prefix)
	for ; i < len(t.names) && strings.HasPrefix(t.names[i], prefix); i++ {
		name, _, deep := strings.Cut(t.names[i][len(prefix):], "/")
		if name > after {
			out = append(out, vfs.LowerEntry{Name: name, Dir: deep})
		}
	}
	slices.SortFunc(out, func(a, b vfs.LowerEntry) int { return strings.Compare(a.Name, b.Name) })
	out = slices.Compact(out)
	return out[:min(n, len(out))], nil
}
