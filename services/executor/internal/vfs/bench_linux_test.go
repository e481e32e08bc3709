package vfs_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"skein.dev/services/executor/internal/vfs"
	"skein.dev/services/executor/internal/vfs/vfstest"
)

// What local files cost beside Linux' own: `go test -bench Files ./internal/vfs`.
func BenchmarkFiles(b *testing.B) {
	content := string(make([]byte, 4096))
	tree := vfstest.New(map[string]string{"d/file": content})
	buf := make([]byte, 4096)
	host := filepath.Join(b.TempDir(), "file")
	if err := os.WriteFile(host, []byte(content), 0o600); err != nil {
		b.Fatal(err)
	}
	b.Run("open+read4k+close/vfs", func(b *testing.B) {
		tab := vfs.NewTable(vfs.Setup{Lower: tree}, nil, nil, nil)
		defer tab.End()
		root, _ := tab.GetDir(vfs.Root)
		b.ReportAllocs()
		for b.Loop() {
			fd, err := tab.OpenAt(b.Context(), root, "d/file", vfs.How{Read: true})
			if err != nil {
				b.Fatal(err)
			}
			o, _ := tab.Get(fd)
			if n, _ := o.Read(b.Context(), buf); n != 4096 {
				b.Fatal(n)
			}
			_ = tab.Close(context.Background(), fd)
		}
	})
	b.Run("open+read4k+close/os", func(b *testing.B) {
		for b.Loop() {
			f, err := os.Open(host)
			if err != nil {
				b.Fatal(err)
			}
			if n, _ := f.Read(buf); n != 4096 {
				b.Fatal(n)
			}
			_ = f.Close()
		}
	})
	b.Run("stat/vfs", func(b *testing.B) {
		tab := vfs.NewTable(vfs.Setup{Lower: tree}, nil, nil, nil)
		defer tab.End()
		root, _ := tab.GetDir(vfs.Root)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := tab.StatAt(b.Context(), root, "d/file", true); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("stat/os", func(b *testing.B) {
		for b.Loop() {
			if _, err := os.Stat(host); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, size := range []int{4 << 10, 16 << 20} {
		data := make([]byte, min(size, 1<<20))
		b.Run(fmt.Sprintf("create+write%dk+unlink/vfs", size>>10), func(b *testing.B) {
			tab := vfs.NewTable(vfs.Setup{Store: vfs.NewStore("", 64<<20, 1<<30)}, nil, nil, nil)
			defer tab.End()
			root, _ := tab.GetDir(vfs.Root)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				fd, err := tab.OpenAt(b.Context(), root, "new", vfs.How{Create: true, Write: true})
				if err != nil {
					b.Fatal(err)
				}
				o, _ := tab.Get(fd)
				for done := 0; done < size; done += len(data) {
					if n, err := o.Write(b.Context(), data[:min(len(data), size)]); n == 0 {
						b.Fatal(err)
					}
				}
				_ = tab.Close(context.Background(), fd)
				_ = tab.UnlinkAt(b.Context(), root, "new")
			}
		})
		b.Run(fmt.Sprintf("create+write%dk+unlink/os", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				f, err := os.Create(host + "2")
				if err != nil {
					b.Fatal(err)
				}
				for done := 0; done < size; done += len(data) {
					if _, err := f.Write(data[:min(len(data), size)]); err != nil {
						b.Fatal(err)
					}
				}
				_ = f.Close()
				_ = os.Remove(host + "2")
			}
		})
	}
	b.Run("nothing/vfs", func(b *testing.B) { // a call that only logs
		b.ReportAllocs()
		for b.Loop() {
			tab := vfs.NewTable(vfs.Setup{Lower: tree}, nil, nil, nil)
			_, _ = tab.Get(1)
			tab.End()
		}
	})
}
