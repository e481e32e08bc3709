package vfs_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skein.dev/abi"
	"skein.dev/services/executor/internal/vfs"
	"skein.dev/services/executor/internal/vfs/vfstest"
)

var (
	modelOps  = flag.Int("vfs.ops", 6000, "operations that are compared with Linux")
	modelSeed = flag.Uint64("vfs.seed", 1, "of the first sequence")
)

// The same operations on a layer and in a directory of Linux have the same results and error numbers. What preview 1 wants
// otherwise:
//   - what leaves the directory that a path starts in is ENOTCAPABLE (here it is checked that Linux finds that it leaves it);
//   - a directory is opened together with Directory and Write, as that is a right to change what is in it (not generated);
//   - directories have 1 link and no size (not compared), as on file systems that don't count;
//   - seeking in a directory is EISDIR: cookies do that (not generated).
func TestModel(t *testing.T) {
	const sequence = 300
	for i := range max(1, *modelOps/sequence) {
		m := newModel(t, *modelSeed+uint64(i), i%3)
		for range sequence {
			m.step()
			if t.Failed() {
				t.Fatalf("seed %d:\n%s", m.seed, strings.Join(m.log[max(0, len(m.log)-40):], "\n"))
			}
		}
		m.compareAll()
		m.close()
		if t.Failed() {
			t.Fatalf("seed %d at its end:\n%s", m.seed, strings.Join(m.log[max(0, len(m.log)-40):], "\n"))
		}
	}
}

type model struct {
	t     *testing.T
	seed  uint64
	rng   *rand.Rand
	dir   string
	store *vfs.Store
	layer *vfs.Layer
	tab   *vfs.Table
	fds   map[int32]int // the layer's → Linux's
	log   []string
}

// newModel makes both trees the same: kind 0 is empty, 1 has files of the lower, 2 so too and everything goes to disk.
func newModel(t *testing.T, seed uint64, kind int) *model {
	m := &model{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 7)), fds: map[int32]int{}}
	dir, err := os.MkdirTemp("", "skein-model-")
	if err != nil {
		t.Fatal(err)
	}
	m.dir = dir
	lower := vfstest.New(nil)
	if kind > 0 {
		for _, p := range []string{"a", "b/a", "b/b", "b/c/a", "b/c/d/e", "c/a", "d/d/d"} {
			content := strings.Repeat(p, m.rng.IntN(60_000))
			lower.Set(p, content)
			if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, p)), 0o755), os.WriteFile(filepath.Join(dir, p), []byte(content), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
	}
	memory := int64(64 << 20)
	if kind == 2 {
		memory = 0
	}
	m.store = vfs.NewStore("", memory, 1<<40)
	m.layer = vfs.NewLayer(lower, m.store, vfs.Limits{Bytes: 1 << 40, Open: 40})
	m.tab = vfs.NewTable(vfs.Setup{Layer: m.layer, Limits: vfs.Limits{Open: 40}}, nil, nil, nil)
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	m.fds[vfs.Root] = root
	return m
}

func (m *model) close() {
	for _, fd := range m.fds {
		_ = unix.Close(fd)
	}
	m.tab.End()
	m.layer.Close()
	if m.store.Memory() != 0 || m.store.Disk() != 0 || m.layer.Bytes() != 0 {
		m.t.Errorf("at the end %d bytes of memory and %d of disk are taken, %d by the layer", m.store.Memory(), m.store.Disk(), m.layer.Bytes())
	}
	_ = os.RemoveAll(m.dir)
}

func pick[T any](m *model, of ...T) T { return of[m.rng.IntN(len(of))] }

var long = strings.Repeat("n", 255)

func (m *model) path() string {
	var b strings.Builder
	n := 1 + m.rng.IntN(3)
	for i := range n {
		if i > 0 {
			b.WriteString(pick(m, "/", "/", "/", "/", "//"))
		}
		switch r := m.rng.IntN(60); {
		case r == 0:
			b.WriteString(long)
		case r == 1:
			b.WriteString(long + "n")
		case r < 6:
			b.WriteString(".")
		case r < 10:
			b.WriteString("..")
		default:
			b.WriteString(pick(m, "a", "b", "c", "d", "e"))
		}
	}
	if m.rng.IntN(12) == 0 {
		b.WriteString(pick(m, "/", "//", "/."))
	}
	if m.rng.IntN(300) == 0 {
		return ""
	}
	return b.String()
}

func (m *model) target() string {
	if m.rng.IntN(4) == 0 {
		return "/" + m.path()
	}
	return m.path()
}

// base is an open directory, mostly the root.
func (m *model) base() (*vfs.Open, int) {
	fd := int32(vfs.Root)
	if m.rng.IntN(4) == 0 {
		fd = m.fd()
	}
	o, err := m.tab.GetDir(fd)
	if err != nil {
		o, _ = m.tab.GetDir(vfs.Root)
		fd = vfs.Root
	}
	return o, m.fds[fd]
}

// fd is an open one but for a few times.
func (m *model) fd() int32 {
	all := make([]int32, 0, len(m.fds))
	for fd := range m.fds {
		all = append(all, fd)
	}
	slices.Sort(all)
	return pick(m, all...)
}

// file is an open one that is no directory, if there is one.
func (m *model) file() (int32, *vfs.Open, int) {
	for range 8 {
		fd := m.fd()
		if o, err := m.tab.Get(fd); err == nil && o.Type() == vfs.Regular {
			return fd, o, m.fds[fd]
		}
	}
	return -1, nil, -1
}

func (m *model) step() {
	ops := []func(){
		m.open, m.open, m.open, m.open, m.closeFD, m.read, m.read, m.write, m.write, m.seek, m.resize, m.mkdir, m.mkdir, m.rmdir,
		m.unlink, m.unlink, m.rename, m.rename, m.rename, m.link, m.symlink, m.symlink, m.readlink, m.stat, m.stat, m.fstat, m.utimes,
		m.readdir, m.dup,
	}
	pick(m, ops...)()
}

func (m *model) open() {
	dir, real := m.base()
	p := m.path()
	how := vfs.How{
		Create: m.rng.IntN(2) == 0, Exclusive: m.rng.IntN(4) == 0, Truncate: m.rng.IntN(6) == 0, Directory: m.rng.IntN(6) == 0,
		NoFollow: m.rng.IntN(6) == 0, Read: true,
	}
	if !how.Directory && m.rng.IntN(2) == 0 {
		how.Write, how.Read = true, m.rng.IntN(3) > 0
		if m.rng.IntN(4) == 0 {
			how.Flags = vfs.Append
		}
	}
	op := fmt.Sprintf("open %.40q %+v at %d", p, how, real)
	fd, err := m.tab.OpenAt(m.t.Context(), dir, p, how)
	if m.leaves(op, err, real, p) {
		return
	}
	flags := unix.O_RDONLY
	for _, f := range []struct {
		on   bool
		flag int
	}{
		{how.Create, unix.O_CREAT},
		{how.Exclusive, unix.O_EXCL},
		{how.Truncate, unix.O_TRUNC},
		{how.Directory, unix.O_DIRECTORY},
		{how.NoFollow, unix.O_NOFOLLOW},
		{how.Flags != 0, unix.O_APPEND},
		{how.Write && how.Read, unix.O_RDWR},
		{how.Write && !how.Read, unix.O_WRONLY},
	} {
		if f.on {
			flags |= f.flag
		}
	}
	if how.Exclusive && !how.Create {
		flags &^= unix.O_EXCL // its meaning is not defined
	}
	open := &unix.OpenHow{Flags: uint64(flags), Resolve: unix.RESOLVE_IN_ROOT}
	if how.Create {
		open.Mode = 0o644
	}
	got := name(err)
	if len(m.fds) > 36-4 && errors.Is(err, abi.EMFILE) {
		m.log = append(m.log, op+" → EMFILE")
		return
	}
	there, rerr := unix.Openat2(real, p, open)
	m.same(op, got, name(rerr))
	if err == nil && rerr == nil {
		m.fds[fd] = there
		m.log[len(m.log)-1] += fmt.Sprint(" ", fd, "/", there)
	}
}

func (m *model) closeFD() {
	fd := m.fd()
	if fd == vfs.Root {
		return
	}
	m.same(fmt.Sprint("close ", fd), name(m.tab.Close(context.Background(), fd)), name(unix.Close(m.fds[fd])))
	delete(m.fds, fd)
}

func (m *model) size() int {
	switch m.rng.IntN(8) {
	case 0:
		return 0
	case 1:
		return m.rng.IntN(300_000)
	case 2:
		return 1 << 16
	}
	return m.rng.IntN(9000)
}

func (m *model) offset() int64 {
	switch m.rng.IntN(10) {
	case 0:
		return -1
	case 1:
		return 1 << 33
	case 2:
		return m.rng.Int64N(3 << 20)
	case 3:
		return 1 << 16 * m.rng.Int64N(4)
	}
	return m.rng.Int64N(150_000)
}

func (m *model) read() {
	fd := m.fd()
	if _, o, _ := m.file(); o != nil {
		fd, _, _ = m.file()
	}
	o, err := m.tab.Get(fd)
	if fd < 0 || err != nil || fd == vfs.Root {
		return
	}
	a, b := make([]byte, m.size()), []byte(nil)
	b = make([]byte, len(a))
	if m.rng.IntN(2) == 0 {
		off := m.offset()
		n, err := o.ReadAt(m.t.Context(), a, off)
		k, rerr := unix.Pread(m.fds[fd], b, off)
		m.same(fmt.Sprintf("pread %d: %d at %d", fd, len(a), off), digest(a[:n])+name(err), digest(b[:max(0, k)])+name(rerr))
		return
	}
	n, err := o.Read(m.t.Context(), a)
	k, rerr := unix.Read(m.fds[fd], b)
	if o.Type() == vfs.Directory && errors.Is(rerr, unix.EINVAL) {
		rerr = unix.EISDIR // after the end of a listing, on ext4
	}
	m.same(fmt.Sprintf("read %d: %d", fd, len(a)), digest(a[:n])+name(err), digest(b[:max(0, k)])+name(rerr))
}

func (m *model) write() {
	fd, o, real := m.file()
	if o == nil {
		return
	}
	p := bytes.Repeat([]byte{byte(m.rng.IntN(255) + 1)}, m.size())
	if m.rng.IntN(2) == 0 {
		off := m.offset()
		n, err := o.WriteAt(m.t.Context(), p, off)
		k, rerr := unix.Pwrite(real, p, off)
		m.same(fmt.Sprintf("pwrite %d: %d at %d", fd, len(p), off), fmt.Sprint(n, name(err)), fmt.Sprint(max(0, k), name(rerr)))
		return
	}
	n, err := o.Write(m.t.Context(), p)
	k, rerr := unix.Write(real, p)
	m.same(fmt.Sprintf("write %d: %d", fd, len(p)), fmt.Sprint(n, name(err)), fmt.Sprint(max(0, k), name(rerr)))
}

func (m *model) seek() {
	fd, o, real := m.file()
	if o == nil {
		return
	}
	off, whence := m.offset(), pick(m, io.SeekStart, io.SeekCurrent, io.SeekEnd, 9)
	n, err := o.Seek(off, whence)
	k, rerr := unix.Seek(real, off, whence)
	m.same(fmt.Sprintf("seek %d: %d from %d", fd, off, whence), fmt.Sprint(n, name(err)), fmt.Sprint(max(0, k), name(rerr)))
}

func (m *model) resize() {
	fd, o, real := m.file()
	if o == nil {
		return
	}
	n := m.offset()
	switch m.rng.IntN(4) {
	case 0:
		k := int64(m.size())
		n = min(n, 1<<20) // Linux would take the room
		m.same(fmt.Sprintf("fallocate %d: %d at %d", fd, k, n), name(o.Allocate(n, k)), name(unix.Fallocate(real, 0, n, k)))
	case 1:
		flags := uint16(m.rng.IntN(2))
		o.SetFlags(flags)
		_, err := unix.FcntlInt(uintptr(real), unix.F_SETFL, int(flags)*unix.O_APPEND)
		m.same(fmt.Sprintf("append %d: %d", fd, flags), "ok", name(err))
	default:
		m.same(fmt.Sprintf("ftruncate %d: %d", fd, n), name(o.SetSize(n)), name(unix.Ftruncate(real, n)))
	}
}

func (m *model) mkdir() {
	dir, real := m.base()
	p := m.path()
	op := fmt.Sprintf("mkdir %.40q at %d", p, real)
	err := m.tab.MakeDirAt(m.t.Context(), dir, p)
	if !m.leaves(op, err, real, p) {
		m.same(op, name(err), name(at(real, p, func(fd int, last string) error { return unix.Mkdirat(fd, last, 0o755) })))
	}
}

func (m *model) rmdir() {
	dir, real := m.base()
	p := m.path()
	op := fmt.Sprintf("rmdir %.40q at %d", p, real)
	err := m.tab.RemoveDirAt(m.t.Context(), dir, p)
	if !m.leaves(op, err, real, p) {
		m.same(op, name(err), name(at(real, p, func(fd int, last string) error { return unix.Unlinkat(fd, last, unix.AT_REMOVEDIR) })))
	}
}

func (m *model) unlink() {
	dir, real := m.base()
	p := m.path()
	op := fmt.Sprintf("unlink %.40q at %d", p, real)
	err := m.tab.UnlinkAt(m.t.Context(), dir, p)
	if !m.leaves(op, err, real, p) {
		m.same(op, name(err), name(at(real, p, func(fd int, last string) error { return unix.Unlinkat(fd, last, 0) })))
	}
}

func (m *model) rename() {
	dir, real := m.base()
	dir2, real2 := m.base()
	p, q := m.path(), m.path()
	op := fmt.Sprintf("rename %.40q at %d to %.40q at %d", p, real, q, real2)
	err := m.tab.RenameAt(m.t.Context(), dir, p, dir2, q)
	if errors.Is(err, abi.ENOTCAPABLE) && (m.quietly(real, p) || m.quietly(real2, q)) {
		m.log = append(m.log, op+" → ENOTCAPABLE")
		return
	}
	m.same(op, name(err), name(at(real, p, func(fd int, last string) error {
		return at(real2, q, func(fd2 int, last2 string) error { return unix.Renameat(fd, last, fd2, last2) })
	})))
}

// quietly is leaves without a complaint.
func (m *model) quietly(dir int, p string) bool {
	up, _ := split(p)
	for _, p := range []string{p, up} {
		fd, err := unix.Openat2(dir, p, &unix.OpenHow{Flags: unix.O_PATH, Resolve: unix.RESOLVE_BENEATH})
		if err == nil {
			_ = unix.Close(fd)
		}
		if errors.Is(err, unix.EXDEV) {
			return true
		}
	}
	return false
}

func (m *model) link() {
	dir, real := m.base()
	dir2, real2 := m.base()
	p, q, links := m.path(), m.path(), m.rng.IntN(2) == 0
	op := fmt.Sprintf("link %.40q at %d (%t) as %.40q at %d", p, real, links, q, real2)
	err := m.tab.LinkAt(m.t.Context(), dir, p, links, dir2, q)
	if errors.Is(err, abi.ENOTCAPABLE) && (m.quietly(real, p) || m.quietly(real2, q)) {
		m.log = append(m.log, op+" → ENOTCAPABLE")
		return
	}
	m.same(op, name(err), name(there(real, p, links, func(fd int) error {
		return at(real2, q, func(fd2 int, last string) error { return unix.Linkat(fd, "", fd2, last, unix.AT_EMPTY_PATH) })
	})))
}

func (m *model) symlink() {
	dir, real := m.base()
	to, p := m.target(), m.path()
	if to == "" {
		to = "." // what Linux refuses before it looks at the path
	}
	op := fmt.Sprintf("symlink %.40q at %d: %.40q", p, real, to)
	err := m.tab.SymlinkAt(m.t.Context(), to, dir, p)
	if !m.leaves(op, err, real, p) {
		m.same(op, name(err), name(at(real, p, func(fd int, last string) error { return unix.Symlinkat(to, fd, last) })))
	}
}

func (m *model) readlink() {
	dir, real := m.base()
	p := m.path()
	op := fmt.Sprintf("readlink %.40q at %d", p, real)
	to, err := m.tab.ReadLinkAt(m.t.Context(), dir, p)
	if m.leaves(op, err, real, p) {
		return
	}
	var content string
	rerr := there(real, p, false, func(fd int) error {
		buf := make([]byte, 5000)
		n, err := unix.Readlinkat(fd, "", buf)
		content = string(buf[:max(0, n)])
		if errors.Is(err, unix.ENOENT) { // what an empty path says of what is no link
			err = unix.EINVAL
		}
		return err
	})
	m.same(op, to+name(err), content+name(rerr))
}

func (m *model) stat() {
	dir, real := m.base()
	p, links := m.path(), m.rng.IntN(2) == 0
	op := fmt.Sprintf("stat %.40q at %d (%t)", p, real, links)
	st, err := m.tab.StatAt(m.t.Context(), dir, p, links)
	if m.leaves(op, err, real, p) {
		return
	}
	var want string
	if rerr := there(real, p, links, func(fd int) error { want = statText(fd); return nil }); rerr != nil {
		want = name(rerr)
	}
	m.same(op, text(st, err), want)
}

func (m *model) fstat() {
	fd := m.fd()
	o, err := m.tab.Get(fd)
	if err != nil {
		m.t.Fatal(err)
	}
	if fd == vfs.Root {
		return
	}
	m.same(fmt.Sprint("fstat ", fd), text(o.Stat(), nil), statText(m.fds[fd]))
}

func (m *model) utimes() {
	when := m.rng.Int64N(old)
	later := time.Now().UnixNano()
	times := vfs.Times{Access: pick(m, nil, &when, &later), Modified: pick(m, nil, &when, &later)}
	spec := func(t *int64) unix.Timespec {
		switch t {
		case nil:
			return unix.Timespec{Nsec: unix.UTIME_OMIT}
		case &later:
			return unix.Timespec{Nsec: unix.UTIME_NOW}
		}
		return unix.NsecToTimespec(when)
	}
	specs := []unix.Timespec{spec(times.Access), spec(times.Modified)}
	set := func(fd int) error {
		return unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprint("/proc/self/fd/", fd), specs, 0)
	}
	if m.rng.IntN(2) == 0 {
		fd := m.fd()
		o, _ := m.tab.Get(fd)
		if fd != vfs.Root {
			m.same(fmt.Sprint("futimens ", fd), name(o.SetTimes(times)), name(set(m.fds[fd])))
		}
		return
	}
	dir, real := m.base()
	p, links := m.path(), m.rng.IntN(2) == 0
	op := fmt.Sprintf("utimens %.40q at %d (%t)", p, real, links)
	err := m.tab.SetTimesAt(m.t.Context(), dir, p, links, times)
	if m.leaves(op, err, real, p) {
		return
	}
	m.same(op, name(err), name(there(real, p, links, set)))
}

func (m *model) dup() {
	fd := m.fd()
	if fd == vfs.Root || len(m.fds) > 30 {
		return
	}
	if m.rng.IntN(2) == 0 {
		to, err := m.tab.Dup(fd, 0)
		real, rerr := unix.Dup(m.fds[fd])
		m.same(fmt.Sprint("dup ", fd), name(err), name(rerr))
		if err == nil {
			m.fds[to] = real
		}
		return
	}
	to := m.fd()
	if to == vfs.Root || to == fd {
		return
	}
	if m.rng.IntN(2) == 0 {
		m.same(fmt.Sprint("renumber ", fd, to), name(m.tab.Renumber(context.Background(), fd, to)), name(unix.Dup2(m.fds[fd], m.fds[to])))
		_ = unix.Close(m.fds[fd])
		delete(m.fds, fd)
		return
	}
	m.same(fmt.Sprint("dup2 ", fd, to), name(m.tab.DupTo(context.Background(), fd, to)), name(unix.Dup2(m.fds[fd], m.fds[to])))
}

func (m *model) readdir() {
	fd := m.fd()
	o, err := m.tab.Get(fd)
	if err != nil || o.Type() != vfs.Directory || fd == vfs.Root {
		return
	}
	m.same(fmt.Sprint("readdir ", fd), names(m.t, o), realNames(m.t, m.fds[fd]))
}
