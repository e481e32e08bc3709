package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"skein.dev"
)

// write makes files of a map from paths to contents.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// tree is all files below a directory and what they hold.
func tree(t *testing.T, dir string) string {
	t.Helper()
	all, err := listLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, name := range []string{"a", "b", "dir/a", "dir/deep/er", "empty", "new"} {
		if _, ok := all[name]; ok {
			text, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, name+"="+string(text))
			delete(all, name)
		}
	}
	if len(all) > 0 {
		t.Errorf("%v besides", all)
	}
	return strings.Join(out, " ")
}

func TestFilesTree(t *testing.T) {
	run := at(t, startDev(t))
	src, back := t.TempDir(), filepath.Join(t.TempDir(), "back")
	write(t, src, map[string]string{"a": "1", "dir/a": "2", "dir/deep/er": "3", "empty": ""})
	want(t, run("", "files", "cp", "-r", src, "ann:lib"), 0, "+ a\n+ dir/a\n+ dir/deep/er\n+ empty\n")
	want(t, run("", "files", "cp", "-r", "ann:lib", back), 0, "+ a\n+ dir/a\n+ dir/deep/er\n+ empty\n")
	if got := tree(t, back); got != "a=1 dir/a=2 dir/deep/er=3 empty=" {
		t.Error(got)
	}
	// What is alike is left alone, what differs is replaced, what is too much goes only if it is asked for.
	want(t, run("", "files", "sync", back, "ann:lib"), 0, "")
	write(t, back, map[string]string{"a": "9", "new": "n"})
	if err := os.Remove(filepath.Join(back, "dir", "a")); err != nil {
		t.Fatal(err)
	}
	want(t, run("", "files", "sync", "-n", "--delete", back, "ann:lib"), 0, "+ a\n+ new\n- dir/a\n")
	want(t, run("", "files", "sync", back, "ann:lib"), 0, "+ a\n+ new\n")
	want(t, run("", "files", "sync", "--delete", back, "ann:lib/"), 0, "- dir/a\n")
	want(t, run("", "files", "sync", "--delete", "ann:lib", src), 0, "+ a\n+ new\n- dir/a\n")
	if got := tree(t, src); got != "a=9 dir/deep/er=3 empty= new=n" {
		t.Error(got)
	}
	// One file, either way and within; a directory takes its name.
	want(t, run("", "files", "cp", "ann:lib/a", "ann:x/y"), 0, "")
	want(t, run("", "files", "cp", "ann:x/y", src), 0, "")
	want(t, run("", "files", "cp", filepath.Join(src, "y"), "ann:z/"), 0, "")
	want(t, run("", "files", "get", "ann/z/y"), 0, "9")
	want(t, run("", "files", "rm", "-r", "ann/lib"), 0, "")
	want(t, run("", "files", "rm", "-r", "ann/lib"), exitFailure, "", "[NO_FILE]")
	if r := run("", "files", "ls", "ann", "-o", "text"); strings.Count(r.stdout, "\n") != 3 {
		t.Error(r)
	}
	for _, bad := range [][]string{{"a", "b"}, {"ann:a", "bob:a"}, {src, "ann:x"}, {"ann:x", src}, {"An:x", src}} {
		if r := run("", append([]string{"files", "cp"}, bad...)...); r.code == 0 {
			t.Errorf("cp %v: %+v", bad, r)
		}
	}
}

// A large file goes by blocks: what the service has is not sent again, and a get goes on where it broke.
func TestFilesResume(t *testing.T) {
	data := t.TempDir()
	run := at(t, startDev(t, "--data", data))
	dir := t.TempDir()
	big := make([]byte, 9<<20+5)
	for i := range big {
		big[i] = byte(i >> 20)
	}
	file, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	put := func() {
		t.Helper()
		if err := os.WriteFile(file, big, 0o600); err != nil {
			t.Fatal(err)
		}
		if doc := fields(t, run("", "files", "put", "ann/big", file)); doc["digest"] != skein.DigestOf(big).String() {
			t.Errorf("put gave %v", doc)
		}
		want(t, run("", "files", "get", "ann/big", out), 0, "")
		if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, big) {
			t.Errorf("%d bytes of %d came back: %v", len(got), len(big), err)
		}
	}
	put()
	big[5<<20]++
	put()
	other := skein.DigestOf(nil).String()
	want(t, run("", "files", "put", "ann/big", file, "--if-absent"), exitFailure, "", "[FILE_CHANGED]")
	want(t, run("", "files", "put", "ann/big", file, "--if-digest", other), exitFailure, "", "[FILE_CHANGED]")
	want(t, run("x", "files", "put", "ann/big", "-", "--if-digest", other), exitFailure, "", "[FILE_CHANGED]")
	want(t, run("", "files", "rm", "ann/big", "--if-digest", other), exitFailure, "", "[FILE_CHANGED]")
	fields(t, run("", "files", "put", "ann/big", file, "--if-digest", skein.DigestOf(big).String()))
	part := filepath.Join(dir, fmt.Sprintf(".out.%.16s.part", skein.DigestOf(big).String()))
	if err := os.WriteFile(part, big[:7<<20], 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, run("", "files", "get", "ann/big", out), 0, "")
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, big) {
		t.Errorf("%d bytes of %d came back: %v", len(got), len(big), err)
	}
	// A beginning that is none is found out.
	if err := os.WriteFile(part, big[:6<<20+1], 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(part, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt([]byte("other"), 100)
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	want(t, run("", "files", "get", "ann/big", out), exitFailure, "", "[DIGEST_MISMATCH]")
	want(t, run("", "files", "get", "ann/big", out), 0, "")
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); left != nil {
		t.Errorf("left over: %v", left)
	}
}

// A link to a directory is what it leads to: as an empty source it would have all deleted.
func TestFilesLinkedSource(t *testing.T) {
	run := at(t, startDev(t))
	dir := t.TempDir()
	src, link := filepath.Join(dir, "src"), filepath.Join(dir, "link")
	write(t, src, map[string]string{"a": "1", "b": "2"})
	if err := os.Symlink("src", link); err != nil {
		t.Fatal(err)
	}
	want(t, run("", "files", "cp", "-r", src, "ann:lib"), 0, "+ a\n+ b\n")
	want(t, run("", "files", "sync", "--delete", link, "ann:lib"), 0, "")
	// What is no directory has nothing below it, and is one file.
	want(t, run("", "files", "cp", "-r", filepath.Join(src, "a"), "ann:x"), 0, "")
	want(t, run("", "files", "get", "ann/x"), 0, "1")
	want(t, run("", "files", "sync", "--delete", filepath.Join(src, "a"), "ann:lib"), exitUsage, "", "is no directory")
	want(t, run("", "files", "get", "ann/lib/b"), 0, "2")
}
