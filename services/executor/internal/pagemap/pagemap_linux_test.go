package pagemap_test

import (
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"skein.dev/services/executor/internal/pagemap"
)

// What one mapping of a file was used for says nothing of another, and nothing is left of one that is gone.
func TestTouched(t *testing.T) {
	for how, scan := range map[string]pagemap.Scan{"kernel": pagemap.ByKernel(pagemap.Touched), "read": pagemap.ByRead(pagemap.Touched)} {
		t.Run(how, func(t *testing.T) {
			if !pagemap.Works(scan, pagemap.Touched) {
				if os.Getenv("SKEIN_REQUIRE_TOOLS") != "" && how == "read" {
					t.Fatal("this system does not tell")
				}
				t.Skip("this system has no such scan")
			}
			const pages = 3000
			fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = unix.Close(fd) })
			if err := unix.Ftruncate(fd, pages*pagemap.Page); err != nil {
				t.Fatal(err)
			}
			var maps [2][]byte
			for i := range maps {
				if maps[i], err = unix.Mmap(fd, 0, pages*pagemap.Page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
					t.Fatal(err)
				}
			}
			var want [2][]int
			for p := range pages { // more runs than a scan tells at once
				if i := p % 5; i < 2 {
					maps[i][p*pagemap.Page+p] = 1
					want[i] = append(want[i], p)
				}
			}
			for i, m := range maps {
				var got []int
				n, err := scan(m, pages, func(first, n int) {
					for p := first; p < first+n; p++ {
						got = append(got, p)
					}
				})
				if err != nil || n != len(want[i]) || !slices.Equal(got, want[i]) {
					t.Errorf("mapping %d: %d pages, %v: %v, want %v", i, n, err, got, want[i])
				}
			}
			gone := maps[0]
			if err := unix.Munmap(gone); err != nil {
				t.Fatal(err)
			}
			if n, err := scan(gone, pages, func(int, int) {}); n != 0 || err != nil {
				t.Errorf("of one that is gone: %d pages, %v", n, err)
			}
			_ = unix.Munmap(maps[1])
		})
	}
}
