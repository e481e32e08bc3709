package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"skein.dev"
	fsv1 "skein.dev/proto/skein/fs/v1"
	statev1 "skein.dev/proto/skein/state/v1"
)

// liar is a server that answers as a case of a test wants, and honestly, from files, where it wants nothing.
type liar struct {
	fsv1.UnimplementedFsServiceServer
	statev1.UnimplementedStateServiceServer

	files map[string]string
	list  func(n int) *fsv1.ListFilesResponse // the answer to the nth request
	stat  func(f *fsv1.File) *fsv1.File
	get   func(f *fsv1.File, off int64, send func(f *fsv1.File, data string) error) error
	state liarState

	lists int
}

func (l *liar) file(path string) *fsv1.File {
	text := l.files[path]
	return &fsv1.File{User: "ann", Path: path, Size: int64(len(text)), Digest: skein.DigestOf([]byte(text)).String()}
}

func (l *liar) ListFiles(context.Context, *fsv1.ListFilesRequest) (*fsv1.ListFilesResponse, error) {
	if l.list != nil {
		l.lists++
		return l.list(l.lists), nil
	}
	resp := &fsv1.ListFilesResponse{}
	for path := range l.files {
		resp.Files = append(resp.Files, l.file(path))
	}
	return resp, nil
}

func (l *liar) StatFile(_ context.Context, r *fsv1.StatFileRequest) (*fsv1.StatFileResponse, error) {
	f := l.file(r.GetPath())
	if l.stat != nil {
		f = l.stat(f)
	}
	return &fsv1.StatFileResponse{File: f}, nil
}

func (l *liar) GetFile(r *fsv1.GetFileRequest, out grpc.ServerStreamingServer[fsv1.GetFileResponse]) error {
	f := l.file(r.GetPath())
	if l.stat != nil {
		f = l.stat(f)
	}
	send := func(f *fsv1.File, data string) error {
		return out.Send(&fsv1.GetFileResponse{File: f, Data: []byte(data)})
	}
	if l.get != nil {
		return l.get(f, r.GetOffset(), send)
	}
	return send(f, l.files[r.GetPath()][r.GetOffset():])
}

// serveLiar gives the server's address.
func serveLiar(t *testing.T, l *liar) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	fsv1.RegisterFsServiceServer(s, l)
	statev1.RegisterStateServiceServer(s, l)
	go func() { _ = s.Serve(lis) }()
	t.Cleanup(s.Stop)
	return lis.Addr().String()
}

// bounded runs a command line that must end by itself, soon and with few words.
func bounded(t *testing.T, server, stdin string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	var out, said bytes.Buffer
	code := Run(ctx, append([]string{"--server", server}, args...), strings.NewReader(stdin), &out, &said)
	if ctx.Err() != nil {
		t.Errorf("skein %v did not end", args)
	}
	if said.Len() > 20<<10 {
		t.Errorf("skein %v said %d bytes", args, said.Len())
	}
	return result{out.String(), said.String(), code}
}

// box is a directory in which dest is copied to, and the rest is not to be touched.
type box struct{ dir, dest string }

func newBox(t *testing.T) box {
	t.Helper()
	dir := t.TempDir()
	b := box{dir, filepath.Join(dir, "deep", "dest")}
	write(t, dir, map[string]string{"victim": "v", "deep/victim": "v", "out/victim": "v"})
	if err := os.Mkdir(b.dest, 0o755); err != nil {
		t.Fatal(err)
	}
	return b
}

// holds checks what files, links and content lie in dest, and that nothing else has changed.
func (b box) holds(t *testing.T, want ...string) {
	t.Helper()
	all := []string{}
	err := filepath.WalkDir(b.dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(b.dest, name)
		if e.Type()&fs.ModeSymlink != 0 {
			all = append(all, rel+"@")
			return nil
		}
		text, err := os.ReadFile(name)
		all = append(all, rel+"="+clipped(string(text), 300))
		return err
	})
	want = append(want, "../../out/victim=v", "../../victim=v", "../victim=v")
	slices.Sort(all)
	slices.Sort(want)
	if err != nil || !slices.Equal(all, want) {
		t.Errorf("there is %q, want %q (%v)", all, want, err)
	}
}

func (b box) link(t *testing.T, name, to string) {
	t.Helper()
	if err := os.Symlink(to, filepath.Join(b.dest, name)); err != nil {
		t.Fatal(err)
	}
}

// No name that a server gives is written to, or looked at, outside of the directory that is copied to.
func TestHostileNames(t *testing.T) {
	long := strings.Repeat("n", 5000)
	for _, name := range []string{
		"lib/../../victim", "lib/../victim", "../victim", "../../victim", "/etc/victim", "lib/a\x00b", "lib//a", "lib/", "lib", "lib/.", "lib/..", "", ".", "..",
		"other/a", "lib/" + long, "lib/" + strings.Repeat("d/", 2000) + "f", "lib/esc\x1b[2J",
	} {
		b := newBox(t)
		l := &liar{}
		l.list = func(int) *fsv1.ListFilesResponse {
			return &fsv1.ListFilesResponse{Files: []*fsv1.File{{User: "ann", Path: name, Size: 1, Digest: skein.DigestOf([]byte("v")).String()}}}
		}
		server := serveLiar(t, l)
		for _, args := range [][]string{{"cp", "-r"}, {"sync"}, {"sync", "-n"}, {"sync", "--delete"}} {
			r := bounded(t, server, "", append(append([]string{"files"}, args...), "ann:lib", b.dest)...)
			want(t, r, exitFailure, "", "[BAD_ANSWER]", "below ann:lib", "hint: ")
			if strings.Contains(r.stderr, "\x1b") || len(r.stderr) > 1000 {
				t.Errorf("%.80q: %s", name, r.stderr)
			}
		}
		b.holds(t)
	}
	// Names that are fine alone and not together.
	b := newBox(t)
	server := serveLiar(t, &liar{files: map[string]string{"lib/a": "1", "lib/a/b": "2"}})
	want(t, bounded(t, server, "", "files", "cp", "-r", "ann:lib", b.dest), exitFailure, "", "[FILE_AND_DIRECTORY]", "a/b", "hint: ")
	b.holds(t)
	// The longest that a file may have fits, with what is added until it is whole.
	longest := strings.Repeat("n", skein.MaxPathSegment)
	server = serveLiar(t, &liar{files: map[string]string{"lib/" + longest: "1"}})
	want(t, bounded(t, server, "", "files", "cp", "-r", "ann:lib", b.dest), 0, "+ "+longest+"\n")
	b.holds(t, longest+"=1")
}

// What lies in the destination already leads nowhere else, and is named if it is in the way.
func TestHostileLinks(t *testing.T) {
	server := serveLiar(t, &liar{files: map[string]string{"lib/d/victim": "evil", "lib/e": ""}})
	copies := func(dest string) result { return bounded(t, server, "", "files", "cp", "-r", "ann:lib", dest) }
	for name, to := range map[string]string{"relative": "../../out", "absolute": "", "nowhere": "../../none", "itself": "d"} {
		b := newBox(t)
		if to == "" {
			to = filepath.Join(b.dir, "out")
		}
		b.link(t, "d", to)
		r := copies(b.dest)
		if want(t, r, exitFailure, r.stdout, "d/victim: ", filepath.Join(b.dest, "d")+" is a link", "[IN_THE_WAY]", "hint: "); t.Failed() {
			t.Fatal(name)
		}
		_ = os.Remove(filepath.Join(b.dest, "e"))
		b.holds(t, "d@")
	}
	b := newBox(t)
	write(t, b.dest, map[string]string{"d": "file"})
	r := copies(b.dest)
	want(t, r, exitFailure, r.stdout, filepath.Join(b.dest, "d")+" is a file where a directory", "[IN_THE_WAY]")
	_ = os.Remove(filepath.Join(b.dest, "e")) // it may have been before or after
	b.holds(t, "d=file")

	b = newBox(t)
	write(t, b.dest, map[string]string{"d/victim/x": "file"})
	r = copies(b.dest)
	want(t, r, exitFailure, r.stdout, filepath.Join(b.dest, "d/victim")+" is a directory where a file", "[IN_THE_WAY]")
	_ = os.Remove(filepath.Join(b.dest, "e"))
	b.holds(t, "d/victim/x=file")

	// A link that is a file's name is replaced, one that stays inside is followed, and so is the destination itself.
	b = newBox(t)
	write(t, b.dest, map[string]string{"real/x": "1"})
	b.link(t, "d", "real")
	b.link(t, "real/victim", "../../../out/victim")
	b.link(t, "e", "../../out/victim")
	self := filepath.Join(t.TempDir(), "self")
	if err := os.Symlink(b.dest, self); err != nil {
		t.Fatal(err)
	}
	want(t, copies(self), 0, "+ d/victim\n+ e\n")
	b.holds(t, "d@", "real/x=1", "real/victim=evil", "e=")
	want(t, bounded(t, server, "", "files", "sync", "--delete", "-n", "ann:lib", self), 0, "+ d/victim\n- real/victim\n- real/x\n")
}

// A list ends, whatever the server does.
func TestHostilePages(t *testing.T) {
	one := func(n int, token string) *fsv1.ListFilesResponse {
		path := fmt.Sprintf("lib/%09d", n)
		return &fsv1.ListFilesResponse{Files: []*fsv1.File{(&liar{}).file(path)}, NextPageToken: token}
	}
	for name, c := range map[string]struct {
		list func(n int) *fsv1.ListFilesResponse
		say  string
	}{
		"again":  {func(n int) *fsv1.ListFilesResponse { return one(n, "again") }, "[BAD_ANSWER]"},
		"circle": {func(n int) *fsv1.ListFilesResponse { return one(n, fmt.Sprint(n%7)) }, "[BAD_ANSWER]"},
		"late":   {func(n int) *fsv1.ListFilesResponse { return one(n, fmt.Sprint(min(n, 20))) }, "[BAD_ANSWER]"},
		"empty": {func(n int) *fsv1.ListFilesResponse {
			return &fsv1.ListFilesResponse{NextPageToken: fmt.Sprint(n)}
		}, "[BAD_ANSWER]"},
		"endless": {func(n int) *fsv1.ListFilesResponse {
			resp := one(n, fmt.Sprint(n))
			resp.Files[0].User = strings.Repeat("u", 3<<20) // what nobody looks at is held all the same
			return resp
		}, "[LIST_SIZE]"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			server := serveLiar(t, &liar{list: c.list})
			for _, args := range [][]string{{"cp", "-r", "ann:lib", b.dest}, {"ls", "ann/lib"}, {"rm", "-r", "ann/lib"}} {
				if name == "endless" && args[0] != "ls" {
					continue // all list in one way, and this one takes its time
				}
				l := bounded(t, server, "", append([]string{"files"}, args...)...)
				want(t, l, exitFailure, "", c.say, "hint: ")
			}
			b.holds(t)
		})
	}
}
