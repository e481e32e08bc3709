package main

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"skein.dev"
	fsv1 "skein.dev/proto/skein/fs/v1"
)

// liar is an fs service that says whatever a test wants.
type liar struct {
	fsv1.UnimplementedFsServiceServer
	list []string // paths
	page string   // the next, always
	file *fsv1.File
	body []string // messages
}

func (l *liar) ListFiles(context.Context, *fsv1.ListFilesRequest) (*fsv1.ListFilesResponse, error) {
	resp := &fsv1.ListFilesResponse{NextPageToken: l.page}
	for _, p := range l.list {
		resp.Files = append(resp.Files, &fsv1.File{User: "ann", Path: p, Size: l.file.GetSize(), Digest: l.file.GetDigest()})
	}
	return resp, nil
}

func (l *liar) StatFile(context.Context, *fsv1.StatFileRequest) (*fsv1.StatFileResponse, error) {
	return &fsv1.StatFileResponse{File: l.file}, nil
}

func (l *liar) GetFile(_ *fsv1.GetFileRequest, out fsv1.FsService_GetFileServer) error {
	for _, b := range l.body {
		if err := out.Send(&fsv1.GetFileResponse{File: l.file, Data: []byte(b)}); err != nil {
			return err
		}
	}
	return nil
}

func (l *liar) serve(t *testing.T) string {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	fsv1.RegisterFsServiceServer(s, l)
	go func() { _ = s.Serve(lis) }()
	t.Cleanup(s.Stop)
	return lis.Addr().String()
}

// content is a file that is what it says it is.
func content(text string) *fsv1.File {
	return &fsv1.File{User: "ann", Path: "lib/a", Size: int64(len(text)), Digest: skein.DigestOf([]byte(text)).String()}
}

// Whatever a service says, nothing is written outside of the directory that was named, and nothing in it that is not what was promised.
func TestHostileFiles(t *testing.T) {
	const text = "hello"
	for name, c := range map[string]struct {
		liar
		args []string
		says string
	}{
		"above":            {liar{list: []string{"lib/../../out"}}, nil, "[BAD_LISTING]"},
		"above, no prefix": {liar{list: []string{"../out"}}, nil, "[BAD_LISTING]"},
		"absolute":         {liar{list: []string{"/etc/out"}}, nil, "[BAD_LISTING]"},
		"elsewhere":        {liar{list: []string{"other/a"}}, nil, "[BAD_LISTING]"},
		"itself":           {liar{list: []string{"lib/"}}, nil, "[BAD_LISTING]"},
		"dot":              {liar{list: []string{"lib/."}}, nil, "[BAD_LISTING]"},
		"control":          {liar{list: []string{"lib/a\x1b[2J"}}, nil, "[BAD_LISTING]"},
		"NUL":              {liar{list: []string{"lib/a\x00b"}}, nil, "[BAD_LISTING]"},
		"long":             {liar{list: []string{"lib/" + strings.Repeat("x", 300)}}, nil, "[BAD_LISTING]"},
		"twice":            {liar{list: []string{"lib/a", "lib/a"}}, nil, "[BAD_LISTING]"},
		"no end":           {liar{page: "again"}, nil, "[BAD_LISTING]"},
		"whole tree":       {liar{list: []string{"../out"}}, []string{"files", "cp", "-r", "ann:", "TARGET"}, "[BAD_LISTING]"},
		"sync":             {liar{list: []string{"lib/../../out"}}, []string{"files", "sync", "--delete", "ann:lib", "TARGET"}, "[BAD_LISTING]"},
		"link to a file":   {liar{list: []string{"lib/link"}}, nil, ""},
		"link out":         {liar{list: []string{"lib/links/out"}}, nil, "error: links/out: "},
		"file below file":  {liar{list: []string{"lib/a", "lib/a/b"}}, nil, "error: a"},
		"other content":    {liar{list: []string{"lib/a"}, body: []string{"hallo"}}, nil, "[DIGEST_MISMATCH]"},
		"too short":        {liar{list: []string{"lib/a"}, body: []string{"hell"}}, nil, "[DIGEST_MISMATCH]"},
		"too long":         {liar{list: []string{"lib/a"}, body: []string{text, text}}, nil, "[DIGEST_MISMATCH]"},
		"digest":           {liar{list: []string{"lib/a"}, file: &fsv1.File{Size: 5, Digest: "/../../../out"}}, nil, "[BAD_DIGEST]"},
		"digest of one":    {liar{file: &fsv1.File{Size: 5, Digest: "/../../../out"}}, []string{"files", "get", "ann/lib/a", "TARGET/a"}, "[BAD_DIGEST]"},
		"no file":          {liar{file: &fsv1.File{}}, []string{"files", "get", "ann/lib/a", "TARGET/a"}, "[BAD_DIGEST]"},
		"negative":         {liar{list: []string{"lib/a"}, file: &fsv1.File{Size: -5, Digest: content(text).GetDigest()}}, nil, "[DIGEST_MISMATCH]"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.file == nil {
				c.file = content(text)
			}
			if c.body == nil {
				c.body = []string{text}
			}
			if c.args == nil {
				c.args = []string{"files", "cp", "-r", "ann:lib", "TARGET"}
			}
			top := t.TempDir()
			target := filepath.Join(top, "deep", "target")
			write(t, top, map[string]string{"deep/target/kept": "", "victim": "mine", "dir/victim": "mine"})
			for at, to := range map[string]string{"links": "../../dir", "link": "../../victim"} {
				if err := os.Symlink(to, filepath.Join(target, at)); err != nil {
					t.Fatal(err)
				}
			}
			before := outside(t, top, target)
			for i, a := range c.args {
				c.args[i] = strings.Replace(a, "TARGET", target, 1)
			}
			r := at(t, c.serve(t))("", c.args...)
			if after := outside(t, top, target); after != before {
				t.Errorf("outside there was\n%s\nand now there is\n%s", before, after)
			}
			switch got, err := os.ReadFile(filepath.Join(target, "link")); {
			case c.says == "":
				if r.code != 0 || err != nil || string(got) != text { // the link itself is replaced
					t.Errorf("%+v: %q %v", r, got, err)
				}
			case r.code != exitFailure || !strings.Contains(r.stderr, c.says):
				t.Errorf("%+v, want %s", r, c.says)
			}
			if got, err := os.ReadFile(filepath.Join(target, "a")); err == nil && string(got) != text {
				t.Errorf("%q was taken for the file", got)
			}
		})
	}
}

// outside is all files that are not below a directory, and what they hold.
func outside(t *testing.T, top, but string) (all string) {
	t.Helper()
	err := filepath.WalkDir(top, func(name string, e fs.DirEntry, err error) error {
		if name == but {
			return filepath.SkipDir
		}
		if err == nil && e.Type().IsRegular() {
			text, _ := os.ReadFile(name)
			all += fmt.Sprintln(name, string(text))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
