package fs_test

import (
	"math/rand/v2"
	"net/url"
	paths "path"
	"strings"
	"testing"
	"unicode/utf8"

	fsv1 "skein.dev/proto/skein/fs/v1"
)

// Hundreds of paths made of hostile parts, and as many that are these with bytes changed, by REST and by gRPC: each is refused as a
// bad name, or is a clean path inside its user's tree, which both find again. Nothing else appears, and nobody else's changes.
func TestManyHostilePaths(t *testing.T) {
	s := start(t, "file://"+t.TempDir())
	s.ready(t, 200)
	if _, err := s.rpcPut(t.Context(), "bob", "secret", []byte("secret")); err != nil {
		t.Fatal(err)
	}
	parts := []string{
		"", ".", "..", "a", "%2e%2e", "%252e%252e", "..%2f", "..%5c", "%00", "%c0%ae%c0%ae", "bob", "%2fetc", "x!", "%7f", "%e2%80%ae", "faasm:%2f%2f..",
	}
	var all []string
	for _, a := range parts {
		for _, b := range parts {
			all = append(all, a+"/"+b)
		}
	}
	rng := rand.New(rand.NewPCG(6, 6))
	const letters = "./%\\:!~ab0257ef "
	for _, p := range all[:len(all):len(all)] {
		b := []byte(p + "/" + parts[rng.IntN(len(parts))])
		for range 1 + rng.IntN(3) {
			b[rng.IntN(len(b))] = letters[rng.IntN(len(letters))]
		}
		all = append(all, string(b))
	}
	names := map[string]bool{}
	for _, sent := range all {
		plain, err := url.PathUnescape(sent)
		if err != nil || strings.ContainsAny(sent, " ") {
			plain, sent = sent, url.PathEscape(sent) // else no request can be made of it
		}
		resp := s.do(t, "PUT", "/v1/files/ann/"+sent, strings.NewReader("x"))
		var name string
		switch {
		case resp.StatusCode == 200:
			file, err := decodeFile(resp)
			if name = file.GetPath(); err != nil || name != paths.Clean(strings.TrimLeft(plain, "/")) {
				t.Errorf("PUT %q: %q, %v", sent, name, err)
			}
			names[name] = true
		case resp.StatusCode == 301 || resp.StatusCode == 307: // cleaned away by the web server; a client that follows meets the rest
		case resp.StatusCode != 400 || resp.reason() != "BAD_NAME":
			t.Errorf("PUT %q: %d %s", sent, resp.StatusCode, resp.text)
		}
		if !utf8.ValidString(plain) {
			continue // gRPC has no way to say it
		}
		file, err := s.rpcPut(t.Context(), "ann", plain, []byte("x"))
		if err == nil {
			names[file.GetPath()] = true
		}
		if (err == nil) != (resp.StatusCode == 200) && resp.StatusCode/100 != 3 {
			t.Errorf("%q is %d by REST, and by gRPC %v", plain, resp.StatusCode, err)
		}
	}
	t.Logf("%d paths, %d names", len(all), len(names))
	for name := range names {
		if name == "" || name[0] == '/' || paths.Clean("/"+name) != "/"+name || !utf8.ValidString(name) || strings.ContainsAny(name, "\x00\n\x7f") {
			t.Errorf("%q is a name", name)
		}
	}
	for user, want := range map[string]int{"ann": len(names), "bob": 1, "fs": 0, "names": 0} {
		got, token := 0, ""
		for range 100 {
			l, err := s.rpc.ListFiles(t.Context(), &fsv1.ListFilesRequest{User: user, PageSize: 1000, PageToken: token})
			if err != nil {
				t.Fatal(err)
			}
			got += len(l.GetFiles())
			if token = l.GetNextPageToken(); token == "" {
				break
			}
		}
		if got != want {
			t.Errorf("%s has %d files, want %d", user, got, want)
		}
	}
	if data, _, err := s.rpcGet(t.Context(), "bob", "secret", 0, 0); err != nil || string(data) != "secret" {
		t.Errorf("bob has %q, %v", data, err)
	}
}
