package shared

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skein.dev"
	"skein.dev/abi"
	"skein.dev/platform/prepare"
	"skein.dev/services/executor/internal/host"
	"skein.dev/services/executor/internal/machine"
	"skein.dev/services/executor/internal/vfs"
)

func mapPrivate(t *testing.T, fd int, off int64, n int) []byte {
	t.Helper()
	b, err := unix.Mmap(fd, off, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(b) })
	return b
}

// What is sealed is the content, one copy of the blocks that were asked for; it can't be cut short or changed, and whoever has
// mapped it keeps it when the cache has let go of it.
func TestSeal(t *testing.T) {
	s := startFS(t, "file://"+t.TempDir())
	data := content(3, 4*mib+100)
	s.put("x", data)
	s.put("y", content(4, 3*mib))
	s.put("empty", nil)
	c := s.cache(func(cfg *Config) { cfg.Memory = 10 * mib })
	f := openFile(t, c.View("ann"), "x").(vfs.Sealer)
	var first, second, end []byte
	want(t, "a part", f.Seal(t.Context(), mib+4096, mib, func(fd int) error {
		first, second = mapPrivate(t, fd, mib+4096, mib), mapPrivate(t, fd, mib+4096, mib)
		return nil
	}), nil)
	if n := s.fetches.Load(); n > 3 { // and one that is read ahead
		t.Errorf("%d blocks were fetched for two", n)
	}
	clear(first)
	if c.seals.used != 2*mib || !bytes.Equal(second, data[mib+4096:][:mib]) {
		t.Errorf("%d bytes are sealed, or it is not the content", c.seals.used)
	}
	want(t, "all", f.Seal(t.Context(), 0, int64(len(data)), func(fd int) error {
		end = mapPrivate(t, fd, 4*mib, 4096)
		_, err := unix.Mmap(fd, 0, 4096, unix.PROT_WRITE, unix.MAP_SHARED)
		want(t, "mapped to be written", err, unix.EPERM)
		_, err = unix.Pwrite(fd, []byte("x"), 0)
		want(t, "written to", err, unix.EPERM)
		want(t, "cut", unix.Ftruncate(fd, 4096), unix.EPERM)
		return nil
	}), nil)
	if !bytes.Equal(end[:100], data[4*mib:]) || !bytes.Equal(end[100:], make([]byte, 3996)) {
		t.Error("the end")
	}
	for _, r := range [][2]int64{{-1, 1}, {0, 0}, {4*mib + 100, 1}, {0, 4*mib + 101}, {1 << 60, 1 << 62}} {
		want(t, "a bad range", f.Seal(t.Context(), r[0], r[1], func(int) error { t.Error("used"); return nil }), abi.EINVAL)
	}
	// There is room for 5 MiB: the other file takes the place of this one, and is then not let go of while it is in use.
	g := openFile(t, c.View("ann"), "y").(vfs.Sealer)
	want(t, "another", g.Seal(t.Context(), 0, 3*mib, func(int) error {
		want(t, "too much", f.Seal(t.Context(), 0, 4*mib, func(int) error { t.Error("used"); return nil }), abi.ENOTSUP)
		return nil
	}), nil)
	if !bytes.Equal(second, data[mib+4096:][:mib]) {
		t.Error("a mapping ended with the seal")
	}
	if c.seals.used > 5*mib || c.blocks.budget() != 10*mib-c.seals.used || c.blocks.memory.used > c.blocks.budget() {
		t.Errorf("%d bytes sealed, %d for blocks", c.seals.used, c.blocks.budget())
	}
	empty := openFile(t, c.View("ann"), "empty").(vfs.Sealer)
	want(t, "nothing", empty.Seal(t.Context(), 0, 1, nil), abi.EINVAL)
}

// Guests that map the same file at the same time, write to it and give parts back see their own writes and nobody else's, whether
// it is mapped, copied for want of room, or copied because this system can't map; and the cache sees none.
func TestGuestsMapFiles(t *testing.T) {
	wasm := mapGuest(t)
	s := startFS(t, "file://"+t.TempDir())
	data := content(7, 5*mib+12345)
	s.put("f", data)
	for name, how := range map[string]struct {
		memory   int64
		portable bool
	}{"mapped": {64 * mib, false}, "no room": {4 * mib, false}, "portable": {64 * mib, true}} {
		t.Run(name, func(t *testing.T) {
			c := s.cache(func(cfg *Config) { cfg.Memory = how.memory })
			m, err := machine.Open(t.Context(), machine.Config{GuestMemory: 48 * mib, WarmMemory: 256 * mib, Portable: how.portable}, host.Link)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = m.Close(context.Background()) }()
			mod := loadGuest(t, m, wasm)
			var wg sync.WaitGroup
			for w := range 2 {
				wg.Go(func() {
					for i := range 3 {
						ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
						call := &host.Call{
							Context: ctx, Args: []string{"map", "f", strconv.Itoa(len(data)), strconv.Itoa(10*w + i)},
							Files: vfs.Setup{Lower: c.View("ann")},
						}
						exit := mod.Run(call)
						call.End()
						cancel()
						if exit.State != skein.Succeeded {
							t.Errorf("%+v: a check of mapfile.c failed at a line that is %d modulo 255", exit, exit.Code-1)
						}
					}
				})
			}
			wg.Wait()
			if got := read(t, c.View("ann"), "f"); got != string(data) {
				t.Error("the file has changed")
			}
			if mapped := c.seals.used == 6*mib-(mib-12345); mapped != (name == "mapped") {
				t.Errorf("%d bytes are sealed", c.seals.used)
			}
		})
	}
}

func mapGuest(t *testing.T) []byte {
	t.Helper()
	if _, err := exec.LookPath("clang"); err != nil {
		if os.Getenv("SKEIN_REQUIRE_TOOLS") == "1" {
			t.Fatal("clang is missing")
		}
		t.Skip("clang is missing: apt-get install clang lld wasi-libc libclang-rt-dev-wasm32")
	}
	out, sdk := filepath.Join(t.TempDir(), "guest.wasm"), "../../../../sdk/c/"
	msg, err := exec.CommandContext(t.Context(), "clang", "--target=wasm32-wasi", "--sysroot=/usr", "-O1", "-I", sdk+"include", sdk+"skein.c",
		sdk+"posix.c", "../host/testdata/mapfile.c", "-o", out, "-Wl,--stack-first").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, msg)
	}
	wasm, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

func loadGuest(t *testing.T, m *machine.Machine, wasm []byte) *machine.Module {
	t.Helper()
	p, err := prepare.Prepare(wasm, prepare.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	code, err := m.Runtime().CompileModule(t.Context(), p.Wasm)
	if err != nil {
		t.Fatal(err)
	}
	mod, err := m.Load(t.Context(), code, p)
	if err != nil {
		t.Fatal(err)
	}
	if err := mod.Boot(&host.Call{Context: t.Context(), Boot: true}); err != nil {
		t.Fatal(err)
	}
	return mod
}
