package vfs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"skein.dev/abi"
	"skein.dev/services/executor/internal/vfs"
)

func name(err error) string {
	if err == nil {
		return "ok"
	}
	if e, ok := errors.AsType[abi.Errno](err); ok {
		return e.Name()
	}
	if e, ok := errors.AsType[unix.Errno](err); ok {
		return unix.ErrnoName(e)
	}
	return err.Error()
}

func (m *model) same(op, got, want string) {
	m.log = append(m.log, op+" → "+got)
	if got != want {
		m.t.Errorf("%s: %s, Linux: %s", op, got, want)
	}
}

// leaves reports whether the layer said that a path leaves its directory; Linux must find so too.
func (m *model) leaves(op string, err error, dir int, paths ...string) bool {
	if !errors.Is(err, abi.ENOTCAPABLE) {
		return false
	}
	m.log = append(m.log, op+" → ENOTCAPABLE")
	for _, p := range paths {
		how := &unix.OpenHow{Flags: unix.O_PATH, Resolve: unix.RESOLVE_BENEATH}
		fd, err := unix.Openat2(dir, p, how)
		if err == nil {
			_ = unix.Close(fd)
		}
		if errors.Is(err, unix.EXDEV) {
			return true
		}
		parent, _ := split(p)
		if fd, err = unix.Openat2(dir, parent, how); err == nil {
			_ = unix.Close(fd)
		}
		if errors.Is(err, unix.EXDEV) {
			return true
		}
	}
	m.t.Errorf("%s: ENOTCAPABLE, but Linux finds it inside", op)
	return true
}

// split parts the last component, with the slashes after it, from the rest.
func split(p string) (parent, last string) {
	end := len(strings.TrimRight(p, "/"))
	i := strings.LastIndexByte(p[:end], '/') + 1
	if i == 0 {
		return ".", p
	}
	return p[:i], p[i:]
}

// parent opens the directory that p's last component is in.
func parent(dir int, p string) (int, string, error) {
	if p == "" {
		return -1, "", unix.ENOENT
	}
	up, last := split(p)
	fd, err := unix.Openat2(dir, up, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY, Resolve: unix.RESOLVE_IN_ROOT})
	return fd, last, err
}

func at(dir int, p string, f func(dir int, last string) error) error {
	fd, last, err := parent(dir, p)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return f(fd, last)
}

// there opens what a path leads to, as nothing but a place.
func there(dir int, p string, links bool, f func(fd int) error) error {
	flags := uint64(unix.O_PATH)
	if !links {
		flags |= unix.O_NOFOLLOW
	}
	fd, err := unix.Openat2(dir, p, &unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return f(fd)
}

func digest(p []byte) string {
	h := fnv.New64a()
	_, _ = h.Write(p)
	return fmt.Sprintf("%d bytes %x", len(p), h.Sum64())
}

const old = 1_000_000_000_000_000_000 // explicit times lie before it

func text(st vfs.Stat, err error) string {
	if err != nil {
		return name(err)
	}
	s := fmt.Sprint("type ", st.Type)
	if st.Type != vfs.Directory {
		s += fmt.Sprint(" links ", st.Links, " size ", st.Size)
	}
	if st.Modified < old && st.Modified != 0 {
		s += fmt.Sprint(" mtime ", st.Modified)
	}
	return s
}

func statText(fd int) string {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return name(err)
	}
	out := vfs.Stat{Links: st.Nlink, Size: st.Size, Modified: st.Mtim.Nano()}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		out.Type = vfs.Directory
	case unix.S_IFREG:
		out.Type = vfs.Regular
	case unix.S_IFLNK:
		out.Type = vfs.Symlink
	}
	return text(out, nil)
}

func names(t *testing.T, o *vfs.Open) string {
	var all []string
	if err := o.ReadDir(t.Context(), 0, func(e vfs.Entry) bool { all = append(all, fmt.Sprint(e.Name, ":", e.Type)); return true }); err != nil {
		return name(err)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func realNames(t *testing.T, fd int) string {
	if _, err := unix.Seek(fd, 0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	var all []string
	buf := make([]byte, 8192)
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil && !errors.Is(err, unix.ENOENT) { // of a directory that was removed
			return name(err)
		}
		if n <= 0 {
			break
		}
		for b := buf[:n]; len(b) > 0; {
			size := int(b[16]) | int(b[17])<<8
			typ := map[byte]vfs.Type{unix.DT_DIR: vfs.Directory, unix.DT_REG: vfs.Regular, unix.DT_LNK: vfs.Symlink}[b[18]]
			end := bytes.IndexByte(b[19:size], 0)
			all = append(all, fmt.Sprint(string(b[19:19+end]), ":", typ))
			b = b[size:]
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// compareAll walks both trees.
func (m *model) compareAll() {
	inos := map[uint64]uint64{}
	back := map[uint64]uint64{}
	root, _ := m.tab.GetDir(vfs.Root)
	var walk func(p string, depth int)
	walk = func(p string, depth int) {
		fd, err := m.tab.OpenAt(m.t.Context(), root, p, vfs.How{Directory: true, Read: true})
		if err != nil {
			m.t.Errorf("open %s: %v", p, err)
			return
		}
		o, _ := m.tab.Get(fd)
		defer func() { _ = m.tab.Close(context.Background(), fd) }()
		real, err := unix.Open(filepath.Join(m.dir, p), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			m.t.Errorf("%s: %v", p, err)
			return
		}
		got, want := names(m.t, o), realNames(m.t, real)
		_ = unix.Close(real)
		m.same("list "+p, got, want)
		var entries []vfs.Entry
		_ = o.ReadDir(m.t.Context(), 0, func(e vfs.Entry) bool { entries = append(entries, e); return true })
		for _, e := range entries {
			if e.Name == "." || e.Name == ".." {
				continue
			}
			q := strings.TrimPrefix(p+"/"+e.Name, "./")
			st, err := m.tab.StatAt(m.t.Context(), root, q, false)
			var rst unix.Stat_t
			if err := unix.Lstat(filepath.Join(m.dir, q), &rst); err != nil {
				m.t.Errorf("%s: %v", q, err)
				continue
			}
			if err != nil || st.Ino != e.Ino {
				m.t.Errorf("%s: number %d in the directory, %d, %v", q, e.Ino, st.Ino, err)
			}
			if a, ok := inos[rst.Ino]; ok && a != st.Ino {
				m.t.Errorf("%s: number %d, another name of it has %d", q, st.Ino, a)
			}
			if a, ok := back[st.Ino]; ok && a != rst.Ino {
				m.t.Errorf("%s: number %d is another's", q, st.Ino)
			}
			inos[rst.Ino], back[st.Ino] = st.Ino, rst.Ino
			switch e.Type {
			case vfs.Directory:
				walk(q, depth+1)
			case vfs.Regular:
				m.compareFile(root, q)
			case vfs.Symlink:
				a, _ := m.tab.ReadLinkAt(m.t.Context(), root, q)
				b, _ := os.Readlink(filepath.Join(m.dir, q))
				m.same("content of "+q, a, b)
			}
		}
	}
	for fd := range m.fds {
		if fd > 20 {
			_ = m.tab.Close(context.Background(), fd)
			_ = unix.Close(m.fds[fd])
			delete(m.fds, fd)
		}
	}
	walk(".", 0)
}

func (m *model) compareFile(root *vfs.Open, p string) {
	st, err := m.tab.StatAt(m.t.Context(), root, p, false)
	info, rerr := os.Lstat(filepath.Join(m.dir, p))
	if err != nil || rerr != nil || st.Size != info.Size() {
		m.t.Errorf("%s: %+v, %v; %v, %v", p, st, err, info, rerr)
		return
	}
	f, err := os.Open(filepath.Join(m.dir, p))
	if err != nil {
		m.t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	fd, err := m.tab.OpenAt(m.t.Context(), root, p, vfs.How{Read: true})
	if err != nil {
		m.t.Errorf("%s: %v", p, err)
		return
	}
	defer func() { _ = m.tab.Close(context.Background(), fd) }()
	o, _ := m.tab.Get(fd)
	a, b := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); off < st.Size; off += int64(len(a)) {
		if off > 4<<20 && off < 1<<33-(1<<20) {
			off = 1<<33 - 1<<20
		}
		n, err := o.ReadAt(m.t.Context(), a, off)
		k, rerr := f.ReadAt(b, off)
		if err != nil || rerr != nil && !errors.Is(rerr, io.EOF) || !bytes.Equal(a[:n], b[:k]) {
			m.t.Errorf("%s differs from %d on: %d bytes, %v; %d, %v", p, off, n, err, k, rerr)
			return
		}
	}
}
