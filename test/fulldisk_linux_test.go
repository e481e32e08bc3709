package test

import (
	"bytes"
	"crypto/rand"
	"net/http"
	"syscall"
	"testing"

	"skein.dev/test/cluster"
)

// smallDisk is a directory on a disk of its own of so many MiB. Without the right to mount one the test is skipped.
func smallDisk(t *testing.T, mib string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size="+mib+"m"); err != nil {
		t.Skipf("mounting a small disk, which takes root: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// used is how many bytes of a disk are.
func used(t *testing.T, dir string) int64 {
	t.Helper()
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	return int64(fs.Blocks-fs.Bfree) * fs.Bsize
}

// An executor whose disk is full tells guests so, keeps nothing of what they could not write, and goes on reading shared files.
func TestFullDiskOfExecutor(t *testing.T) {
	disk := smallDisk(t, "16")
	c := cluster.Processes(t, cluster.Options{ExecutorArgs: []string{"--local-dir", disk, "--file-cache", disk + "/cache", "--local-memory", "1", "--file-memory", "4"}})
	uploadAs(t, c, "ann/f", "sharing")
	says := func(want string, args ...string) {
		t.Helper()
		query := ""
		for _, a := range args {
			query += "&args=" + a
		}
		a := request(t, c, http.MethodPost, "/v1/invoke/ann/f?timeout=1m"+query, nil)
		if a.status != 200 || string(a.body) != want {
			t.Errorf("%v: %s", args, a)
		}
	}
	says("", "large", "/big", "8", "a")
	says("write: No space left on device\n", "large", "/big", "64", "a")
	if n := used(t, disk); n > 1<<20 {
		t.Errorf("%d bytes of it are left", n)
	}
	says("", "large", "/big", "8", "a")
	const shared = 40 << 20
	want(t, 200, c, http.MethodPut, "/v1/files/ann/shared", bytes.Repeat([]byte("s"), shared))
	for range 2 { // the second finds in the cache what fits there
		says("41943040 of s\n", "mixed", "/shared")
	}
	says("write: No space left on device\n", "large", "/big", "64", "a")
	says("41943040 of s\n", "mixed", "/shared")
}

// A store of functions and files whose disk is full refuses what has no room and serves what it has. Blocks of what was refused stay for the
// sweep, as those of any put that breaks off do.
func TestFullDiskOfStore(t *testing.T) {
	c := cluster.Dev(t, "--data", smallDisk(t, "32"))
	small, large := bytes.Repeat([]byte("x"), 1<<20), make([]byte, 64<<20)
	_, _ = rand.Read(large) // no two blocks are the same
	want(t, 200, c, http.MethodPut, "/v1/files/ann/small", small)
	fails(t, 429, "STORE_FULL", c, http.MethodPut, "/v1/files/ann/large", large)
	want(t, 404, c, http.MethodGet, "/v1/files/ann/large", nil)
	if a := want(t, 200, c, http.MethodGet, "/v1/files/ann/small", nil); !bytes.Equal(a.body, small) {
		t.Errorf("what was there has %d bytes", len(a.body))
	}
	want(t, 204, c, http.MethodDelete, "/v1/files/ann/small", nil)
	want(t, 404, c, http.MethodGet, "/v1/files/ann/small", nil)
}
