package shared

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"skein.dev/abi"
)

// What may be mapped is the block's content, and can be neither changed nor cut short.
func TestSealed(t *testing.T) {
	s := startFS(t, "file://"+t.TempDir())
	data := content(3, mib+100)
	s.put("x", data)
	f := openFile(t, s.cache(nil).View("ann"), "x").(*file)
	m, start, length, err := f.Sealed(t.Context(), mib+50)
	if err != nil || start != mib || length != 100 {
		t.Fatal(start, length, err)
	}
	again, _, _, err := f.Sealed(t.Context(), mib)
	if err != nil || again != m {
		t.Error("another file")
	}
	view, err := unix.Mmap(int(m.Fd()), 0, int(length), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil || !bytes.Equal(view, data[mib:]) {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(view) }()
	if m.Truncate(10) == nil || m.Truncate(4096) == nil {
		t.Error("its size can be changed")
	}
	if _, err := m.WriteAt([]byte("x"), 0); err == nil {
		t.Error("it can be written to")
	}
	if _, err := unix.Mmap(int(m.Fd()), 0, int(length), unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
		t.Error("it can be mapped to be written to")
	}
	for _, off := range []int64{-1, mib + 100, 1 << 60} {
		_, _, _, err := f.Sealed(t.Context(), off)
		want(t, "past the end", err, abi.ENXIO)
	}
}
