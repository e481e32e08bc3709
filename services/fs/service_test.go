package fs_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/protobuf/types/known/timestamppb"

	"skein.dev"
	"skein.dev/platform/blob/blobtest"
	"skein.dev/platform/fault"
	"skein.dev/platform/service"
	fsv1 "skein.dev/proto/skein/fs/v1"
	"skein.dev/services/fs"
)

// suite is a running fs service.
type suite struct {
	base  string // http://host:port
	rpc   fsv1.FsServiceClient
	spans *tracetest.SpanRecorder
}

func start(t *testing.T, bucket string) *suite {
	t.Helper()
	cfg := fs.DefaultConfig()
	cfg.Bucket, cfg.MaxFile, cfg.Sweep = bucket, 4*block, 0
	s := &suite{spans: tracetest.NewSpanRecorder()}
	base := service.DefaultConfig()
	base.Name, base.Listen, base.Quiet, base.Grace = "fs", "127.0.0.1:0", true, time.Second
	base.Spans = []sdktrace.SpanProcessor{s.spans}
	listening := make(chan string, 1)
	base.OnListen = func(addr string) { listening <- addr }
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- service.Run(ctx, base, cfg.Start) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the service ended with %v", err)
		}
	})
	select {
	case addr := <-listening:
		s.base = "http://" + addr
		conn, err := service.Connect(addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		s.rpc = fsv1.NewFsServiceClient(conn)
	case err := <-ended:
		ended <- nil
		t.Fatalf("the service did not start: %v", err)
	}
	return s
}

// ready waits for readiness to be what is wanted.
func (s *suite) ready(t *testing.T, want int) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		resp := s.do(t, "GET", "/healthz", nil)
		if resp.StatusCode == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("/healthz stays %d %s", resp.StatusCode, resp.text)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

type response struct {
	*http.Response
	text string
	err  error // of reading the body
}

// do sends a request whose target is not cleaned in any way; head is name, value, ...
func (s *suite) do(t *testing.T, method, target string, body io.Reader, head ...string) response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.base, body)
	if err != nil {
		t.Fatal(err)
	}
	target, query, _ := strings.Cut(target, "?")
	req.URL.Opaque, req.URL.RawQuery = strings.TrimPrefix(s.base, "http:")+target, query
	for i := 0; i < len(head); i += 2 {
		req.Header.Set(head[i], head[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req) // follows no redirect
	if err != nil {
		t.Fatalf("%s %.200s: %v", method, target, err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	return response{resp, string(text), err}
}

func (r response) reason() string {
	var p fault.Problem
	_ = json.Unmarshal([]byte(r.text), &p)
	return p.Reason
}

func (s *suite) rpcPut(ctx context.Context, user, path string, data []byte) (*fsv1.File, error) {
	stream, err := s.rpc.PutFile(ctx)
	if err != nil {
		return nil, err
	}
	first := &fsv1.PutFileRequest{User: user, Path: path}
	for {
		n := min(len(data), 300<<10)
		first.Data, data = data[:n], data[n:]
		if stream.Send(first) != nil {
			break // CloseAndRecv says why
		}
		if first = (&fsv1.PutFileRequest{}); len(data) == 0 {
			break
		}
	}
	resp, err := stream.CloseAndRecv()
	return resp.GetFile(), err
}

func (s *suite) rpcGet(ctx context.Context, user, path string, off, length int64) (data []byte, file *fsv1.File, err error) {
	stream, err := s.rpc.GetFile(ctx, &fsv1.GetFileRequest{User: user, Path: path, Offset: off, Length: length})
	if err != nil {
		return nil, nil, err
	}
	for {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return data, file, nil
		} else if err != nil {
			return data, file, err
		}
		if len(msg.GetData()) > 256<<10 || file != nil && msg.GetFile() != nil {
			return nil, nil, fmt.Errorf("a frame of %d bytes, file %v", len(msg.GetData()), msg.GetFile())
		}
		if msg.GetFile() != nil {
			file = msg.GetFile()
		}
		data = append(data, msg.GetData()...)
	}
}

// What one way puts, every way gets.
func TestEveryWay(t *testing.T) {
	each(t, func(t *testing.T, bucket string) {
		s := start(t, bucket)
		s.ready(t, 200)
		for _, size := range []int{0, 1, 256 << 10, block - 1, block, block + 1, 3*block + 500_000} {
			data := bytes.Repeat([]byte("0123456789abcdefg"), size/17+1)[:size]
			digest := skein.DigestOf(data).String()
			name := fmt.Sprintf("dir/%d.txt", size)
			put := map[string]func() (*fsv1.File, error){
				"grpc": func() (*fsv1.File, error) { return s.rpcPut(t.Context(), "ann", name, data) },
				"sized": func() (*fsv1.File, error) {
					resp := s.do(t, "PUT", "/v1/files/ann/"+name, bytes.NewReader(data))
					return decodeFile(resp)
				},
				"chunked": func() (*fsv1.File, error) {
					resp := s.do(t, "PUT", "/v1/files/ann/"+name, struct{ io.Reader }{bytes.NewReader(data)})
					return decodeFile(resp)
				},
			}
			for way, put := range put {
				file, err := put()
				if err != nil || file.GetSize() != int64(size) || file.GetDigest() != digest || file.GetPath() != name || file.GetUser() != "ann" || time.Since(file.GetUpdateTime().AsTime()).Abs() > time.Minute {
					t.Fatalf("%s put of %d bytes: %v, %v", way, size, file, err)
				}
				got, file, err := s.rpcGet(t.Context(), "ann", name, 0, 0)
				if err != nil || !bytes.Equal(got, data) || file.GetDigest() != digest {
					t.Errorf("%s put, grpc get of %d bytes: %d bytes, %v, %v", way, size, len(got), file, err)
				}
				resp := s.do(t, "GET", "/v1/files/ann/"+name, nil)
				if resp.StatusCode != 200 || resp.text != string(data) || resp.ContentLength != int64(size) || resp.Header.Get("ETag") != `"`+digest+`"` {
					t.Errorf("%s put, REST get of %d bytes: %d, %d bytes, %v", way, size, resp.StatusCode, len(resp.text), resp.Header)
				}
				stat, err := s.rpc.StatFile(t.Context(), &fsv1.StatFileRequest{User: "ann", Path: "dir//./" + name[4:]})
				if err != nil || stat.GetFile().GetDigest() != digest {
					t.Errorf("stat: %v, %v", stat, err)
				}
				if _, err := s.rpc.DeleteFile(t.Context(), &fsv1.DeleteFileRequest{User: "ann", Path: name}); err != nil {
					t.Error(err)
				}
				_, err = s.rpc.StatFile(t.Context(), &fsv1.StatFileRequest{User: "ann", Path: name})
				want(t, err, fault.NotFound, "NO_FILE")
			}
		}
	})
}

func decodeFile(resp response) (*fsv1.File, error) {
	var v struct {
		User, Path, Digest, UpdateTime string
		Size                           string
	}
	if err := json.Unmarshal([]byte(resp.text), &v); err != nil || resp.StatusCode != 200 || resp.Header.Get("ETag") != `"`+v.Digest+`"` {
		return nil, fmt.Errorf("%d %v %s", resp.StatusCode, resp.Header, resp.text)
	}
	f := &fsv1.File{User: v.User, Path: v.Path, Digest: v.Digest}
	_, err := fmt.Sscan(v.Size, &f.Size)
	var at time.Time
	if e := at.UnmarshalText([]byte(v.UpdateTime)); e != nil {
		err = e
	}
	f.UpdateTime = timestamppb.New(at)
	return f, err
}

func TestREST(t *testing.T) {
	s := start(t, "file://"+t.TempDir())
	if resp := s.do(t, "GET", "/v1/files/ann/none", nil); resp.StatusCode != 404 || resp.reason() != "NO_FILE" {
		t.Errorf("%d %s", resp.StatusCode, resp.text)
	}
	if resp := s.do(t, "DELETE", "/v1/files/ann/none", nil); resp.StatusCode != 404 {
		t.Errorf("%d %s", resp.StatusCode, resp.text)
	}
	digest := skein.DigestOf([]byte("0123456789"))
	tag := `"` + digest.String() + `"`
	for _, c := range []struct {
		method, name, body string
		head               []string
		status             int
		want               string
	}{
		{"PUT", "n.html", "x", []string{"If-Match", tag}, 412, ""},
		{"PUT", "n.html", "0123456789", []string{"If-None-Match", "*"}, 200, ""},
		{"PUT", "n.html", "x", []string{"If-None-Match", "*"}, 412, ""},
		{"PUT", "n.html", "0123456789", []string{"If-Match", tag}, 200, ""},
		{"PUT", "n.html", "x", []string{"If-Match", "what"}, 400, ""},
		{"PUT", "n.html", "x", []string{"If-None-Match", tag}, 400, ""},
		{"GET", "n.html", "", nil, 200, "0123456789"},
		{"HEAD", "n.html", "", nil, 200, ""},
		{"HEAD", "n.html", "", []string{"Range", "bytes=2-4"}, 206, ""},
		{"GET", "n.html", "", []string{"If-None-Match", tag}, 304, ""},
		{"GET", "n.html", "", []string{"If-None-Match", `"x", W/` + tag}, 304, ""},
		{"GET", "n.html", "", []string{"If-None-Match", `"x"`}, 200, "0123456789"},
		{"GET", "n.html", "", []string{"Range", "bytes=2-4"}, 206, "234"},
		{"GET", "n.html", "", []string{"Range", "bytes=2-"}, 206, "23456789"},
		{"GET", "n.html", "", []string{"Range", "bytes=-3"}, 206, "789"},
		{"GET", "n.html", "", []string{"Range", "bytes=-30"}, 206, "0123456789"},
		{"GET", "n.html", "", []string{"Range", "bytes=9-99999999999999999999"}, 206, "9"},
		{"GET", "n.html", "", []string{"Range", "bytes=10-"}, 416, ""},
		{"GET", "n.html", "", []string{"Range", "bytes=-0"}, 416, ""},
		{"GET", "n.html", "", []string{"Range", "bytes=4-2"}, 200, "0123456789"},
		{"GET", "n.html", "", []string{"Range", "bytes=0-1,3-4"}, 200, "0123456789"},
		{"GET", "n.html", "", []string{"Range", "bytes=-"}, 200, "0123456789"},
		{"GET", "n.html", "", []string{"Range", "lines=1-2"}, 200, "0123456789"},
		{"GET", "n.html", "", []string{"Range", "bytes=+1-2"}, 200, "0123456789"},
		{"GET", "n.html", "", []string{"Range", "bytes=2-4", "If-Range", tag}, 206, "234"},
		{"GET", "n.html", "", []string{"Range", "bytes=2-4", "If-Range", `"x"`}, 200, "0123456789"},
		{"PUT", "empty", "", nil, 200, ""},
		{"GET", "empty", "", nil, 200, ""},
		{"GET", "empty", "", []string{"Range", "bytes=0-"}, 416, ""},
		{"POST", "empty", "", nil, 404, ""},
		{"DELETE", "empty", "", nil, 204, ""},
	} {
		resp := s.do(t, c.method, "/v1/files/ann/"+c.name, strings.NewReader(c.body), c.head...)
		if resp.StatusCode != c.status || c.want != "" && resp.text != c.want {
			t.Errorf("%s %s %q: %d %s, want %d %s", c.method, c.name, c.head, resp.StatusCode, resp.text, c.status, c.want)
		}
		h := resp.Header
		switch {
		case resp.StatusCode == 206 && (!strings.HasPrefix(h.Get("Content-Range"), "bytes ") || !strings.HasSuffix(h.Get("Content-Range"), "/10")),
			resp.StatusCode == 416 && !strings.HasPrefix(h.Get("Content-Range"), "bytes */"),
			resp.StatusCode == 304 && h.Get("ETag") != tag,
			resp.StatusCode < 300 && c.method != "PUT" && c.name == "n.html" && (h.Get("ETag") != tag || !strings.HasPrefix(h.Get("Content-Type"), "text/html") ||
				h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Accept-Ranges") != "bytes" || h.Get("Last-Modified") == ""):
			t.Errorf("%s %q: %d %v", c.method, c.head, resp.StatusCode, h)
		case c.method == "HEAD" && resp.StatusCode == 200 && resp.ContentLength != 10:
			t.Errorf("HEAD says %d bytes", resp.ContentLength)
		}
	}
}

// The generated route lists, though ours surround it.
func TestRESTList(t *testing.T) {
	s := start(t, "file://"+t.TempDir())
	for _, name := range []string{"a", "a/b", "a%20b", "%C3%A9/x"} {
		if resp := s.do(t, "PUT", "/v1/files/ann/"+name, strings.NewReader("x")); resp.StatusCode != 200 {
			t.Fatal(resp.text)
		}
	}
	var pages []string
	for token := ""; ; {
		resp := s.do(t, "GET", "/v1/files/ann?shallow=true&page_size=2&page_token="+url.QueryEscape(token), nil)
		var l struct {
			Files         []struct{ Path string }
			Directories   []string
			NextPageToken string
		}
		if err := json.Unmarshal([]byte(resp.text), &l); err != nil || resp.StatusCode != 200 {
			t.Fatalf("%d %s", resp.StatusCode, resp.text)
		}
		page := l.Directories
		for _, f := range l.Files {
			page = append(page, f.Path)
		}
		slices.Sort(page)
		pages = append(pages, strings.Join(page, ","))
		if token = l.NextPageToken; token == "" {
			break
		}
	}
	if got := strings.Join(pages, " | "); got != "a,a b | a/,é/" {
		t.Error(got)
	}
	for _, q := range []string{"ann?page_size=-1", "ann?page_token=!", "ann?prefix=..%2f", "An"} {
		if resp := s.do(t, "GET", "/v1/files/"+q, nil); resp.StatusCode != 400 {
			t.Errorf("%s: %d %s", q, resp.StatusCode, resp.text)
		}
	}
}

// No path leads out of the user's tree, whichever way it comes and however it is written.
func TestHostilePaths(t *testing.T) {
	each(t, func(t *testing.T, bucket string) {
		s := start(t, bucket)
		s.ready(t, 200)
		if _, err := s.rpcPut(t.Context(), "bob", "secret", []byte("secret")); err != nil {
			t.Fatal(err)
		}
		long := strings.Repeat("long/", 820)
		refused := []string{ // as they are sent over REST
			"", "%2e", "%2e%2e", "%2e%2e/bob/secret", "%2E%2E%2Fbob%2Fsecret", "..%2fbob%2fsecret", "..%2f..%2f..%2f..%2fetc%2fpasswd", "a/%2e%2e/%2e%2e/bob/secret",
			"a%2f..%2f..%2fbob%2fsecret", "%2f..%2fbob", "nul%00", "%00", "a%0ab", "a%7f", "%ff", "..%c0%af", "%c0%ae%c0%ae/bob", long, strings.Repeat("x", 241), "%ed%a0%80",
			"..%5c..%5cx", "a/%C2%A0../b",
		}
		for _, p := range refused {
			for _, method := range []string{"GET", "PUT", "DELETE", "HEAD"} {
				resp := s.do(t, method, "/v1/files/ann/"+p, strings.NewReader("x"))
				if resp.StatusCode != 400 || method != "HEAD" && resp.reason() != "BAD_NAME" {
					t.Errorf("%s %.100q: %d %s", method, p, resp.StatusCode, resp.text)
				}
			}
			if plain, err := url.PathUnescape(p); err == nil && !strings.Contains(plain, "\xff") && !strings.Contains(plain, "\xc0") && !strings.Contains(plain, "\xed") {
				_, err := s.rpcPut(t.Context(), "ann", plain, []byte("x"))
				want(t, err, fault.Invalid, "BAD_NAME")
				_, _, err = s.rpcGet(t.Context(), "ann", plain, 0, 0)
				want(t, err, fault.Invalid, "BAD_NAME")
				_, err = s.rpc.StatFile(t.Context(), &fsv1.StatFileRequest{User: "ann", Path: plain})
				want(t, err, fault.Invalid, "BAD_NAME")
				_, err = s.rpc.DeleteFile(t.Context(), &fsv1.DeleteFileRequest{User: "ann", Path: plain})
				want(t, err, fault.Invalid, "BAD_NAME")
			}
		}
		// What the web server cleans away by a redirect does nothing.
		for _, p := range []string{".", "../bob/secret", "a/../../bob/secret", "./x", "a//b"} {
			if resp := s.do(t, "PUT", "/v1/files/ann/"+p, strings.NewReader("x")); resp.StatusCode != 301 && resp.StatusCode != 307 && resp.StatusCode != 400 {
				t.Errorf("PUT %q: %d %s", p, resp.StatusCode, resp.text)
			}
		}
		// Names that only look hostile are names: they are unescaped once and mean nothing more.
		allowed := map[string]string{
			"%252e%252e/x": "%2e%2e/x", "a%2fb": "a/b", "a%2f%2e%2fc": "a/c", "a/%2e%2e/d": "d", "back%5cslash": "back\\slash", "C:": "C:",
			"%E2%80%AErtl": "\u202ertl", "...": "...", "..a": "..a", "a..": "a..", "faasm:%2f%2fx": "faasm:/x", "xl.meta/y": "xl.meta/y", "a%3fb%23c": "a?b#c", "+": "+", "~": "~",
			"%5bminio_cache:v2,id:x%5d": "[minio_cache:v2,id:x]", "a__XLDIR__": "a__XLDIR__", "%3Cscript%3E": "<script>",
		}
		for sent, name := range allowed {
			file, err := decodeFile(s.do(t, "PUT", "/v1/files/ann/"+sent, strings.NewReader(name)))
			if err != nil || file.GetPath() != name {
				t.Errorf("PUT %q: %v, %v", sent, file, err)
				continue
			}
			if data, _, err := s.rpcGet(t.Context(), "ann", name, 0, 0); err != nil || string(data) != name {
				t.Errorf("%q: %q, %v", name, data, err)
			}
			if resp := s.do(t, "GET", "/v1/files/ann/"+sent, nil); resp.text != name {
				t.Errorf("GET %q: %d %s", sent, resp.StatusCode, resp.text)
			}
		}
		l, err := s.rpc.ListFiles(t.Context(), &fsv1.ListFilesRequest{User: "ann", PageSize: 1000})
		if err != nil || len(l.GetFiles()) != len(allowed) {
			t.Errorf("%d files are listed of %d, %v", len(l.GetFiles()), len(allowed), err)
		}
		if data, _, err := s.rpcGet(t.Context(), "bob", "secret", 0, 0); err != nil || string(data) != "secret" {
			t.Errorf("bob has %q, %v", data, err)
		}
		for _, user := range []string{"", "..", "Ann", "ann/../bob", "bob%2f", "*", "a_b", strings.Repeat("a", 64)} {
			_, _, err := s.rpcGet(t.Context(), user, "secret", 0, 0)
			want(t, err, fault.Invalid, "BAD_NAME")
			_, err = s.rpc.ListFiles(t.Context(), &fsv1.ListFilesRequest{User: user})
			want(t, err, fault.Invalid, "BAD_NAME")
		}
	})
}

func TestTooLarge(t *testing.T) {
	s := start(t, "file://"+t.TempDir())
	data := make([]byte, 4*block+1)
	if resp := s.do(t, "PUT", "/v1/files/ann/x", bytes.NewReader(data[:4*block])); resp.StatusCode != 200 {
		t.Fatalf("at the limit: %d %s", resp.StatusCode, resp.text)
	}
	if resp := s.do(t, "PUT", "/v1/files/ann/y", bytes.NewReader(data)); resp.StatusCode != 413 || resp.reason() != "TOO_LARGE" {
		t.Errorf("sized: %d %s", resp.StatusCode, resp.text)
	}
	if resp := s.do(t, "PUT", "/v1/files/ann/y", struct{ io.Reader }{bytes.NewReader(data)}); resp.StatusCode != 413 || resp.reason() != "TOO_LARGE" {
		t.Errorf("chunked: %d %s", resp.StatusCode, resp.text)
	}
	_, err := s.rpcPut(t.Context(), "ann", "y", make([]byte, 50*block))
	want(t, err, fault.TooLarge, "TOO_LARGE")
	if resp := s.do(t, "GET", "/v1/files/ann/y", nil); resp.StatusCode != 404 {
		t.Errorf("%d", resp.StatusCode)
	}
}

// A client that goes away in the middle leaves no file.
func TestBrokenUpload(t *testing.T) {
	s := start(t, "file://"+t.TempDir())
	for _, header := range []string{"Content-Length: 3000000", "Transfer-Encoding: chunked"} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.base, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprintf(conn, "PUT /v1/files/ann/x HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", header)
		if strings.HasSuffix(header, "chunked") {
			_, _ = fmt.Fprintf(conn, "%x\r\n%s\r\n", 1500000, bytes.Repeat([]byte("x"), 1500000))
		} else {
			_, _ = conn.Write(make([]byte, 1500000))
		}
		_ = conn.(*net.TCPConn).CloseWrite() //nolint:forcetypeassert // it was dialled so
		reply, _ := io.ReadAll(conn)
		_ = conn.Close()
		if strings.Contains(string(reply), "200 OK") {
			t.Errorf("%s: %s", header, reply)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := s.rpc.PutFile(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&fsv1.PutFileRequest{User: "ann", Path: "x", Data: make([]byte, 1500000)}); err != nil {
		t.Fatal(err)
	}
	cancel()
	time.Sleep(100 * time.Millisecond)
	_, err = s.rpc.StatFile(t.Context(), &fsv1.StatFileRequest{User: "ann", Path: "x"})
	want(t, err, fault.NotFound, "NO_FILE")
}

// Damage is an error before the first byte, or else an end of the connection before the announced length.
func TestDamageOverREST(t *testing.T) {
	dir := t.TempDir()
	s := start(t, "file://"+dir)
	var data []byte
	for i := range byte(4) {
		data = append(data, bytes.Repeat([]byte{i}, block)...)
	}
	if resp := s.do(t, "PUT", "/v1/files/ann/x", bytes.NewReader(data)); resp.StatusCode != 200 {
		t.Fatal(resp.text)
	}
	damage := func(i int) {
		flip(t, filepath.Join(dir, "objects/fs/blocks/ann", skein.DigestOf(data[i*block:(i+1)*block]).String()+"="), 77)
	}
	damage(0)
	resp := s.do(t, "GET", "/v1/files/ann/x", nil)
	if resp.StatusCode != 500 || resp.reason() != "DIGEST_MISMATCH" || resp.Header.Get("ETag") != "" {
		t.Errorf("first block: %d %v %.200s", resp.StatusCode, resp.Header, resp.text)
	}
	if resp := s.do(t, "GET", "/v1/files/ann/x", nil, "Range", "bytes=1048576-"); resp.StatusCode != 206 || resp.text != string(data[block:]) || resp.err != nil {
		t.Errorf("the rest: %d %v", resp.StatusCode, resp.err)
	}
	damage(0)
	damage(2)
	resp = s.do(t, "GET", "/v1/files/ann/x", nil)
	if resp.StatusCode != 200 || !errors.Is(resp.err, io.ErrUnexpectedEOF) || resp.text != string(data[:len(resp.text)]) || len(resp.text) > 2*block {
		t.Errorf("third block: %d, %d bytes, %v", resp.StatusCode, len(resp.text), resp.err)
	}
	got, _, err := s.rpcGet(t.Context(), "ann", "x", 0, 0)
	want(t, err, fault.DataLoss, "DIGEST_MISMATCH")
	if len(got) != 2*block {
		t.Errorf("%d bytes came before the damage", len(got))
	}
	damage(2)
	if err := os.RemoveAll(filepath.Join(dir, "objects/fs/blocks")); err != nil {
		t.Fatal(err)
	}
	if resp := s.do(t, "GET", "/v1/files/ann/x", nil); resp.StatusCode != 500 || resp.reason() != "BLOCK_MISSING" {
		t.Errorf("no blocks: %d %s", resp.StatusCode, resp.text)
	}
}

// The service starts without its store, says so, and works once that is there.
func TestStoreDown(t *testing.T) {
	store := blobtest.Start(t, "minio")
	store.Kill()
	s := start(t, store.URL())
	down := func() {
		t.Helper()
		for _, method := range []string{"GET", "PUT", "DELETE"} {
			began := time.Now()
			resp := s.do(t, method, "/v1/files/ann/x", bytes.NewReader(make([]byte, 2*block)))
			if resp.StatusCode != 503 || resp.reason() != "STORE_DOWN" || time.Since(began) > 10*time.Second {
				t.Errorf("%s: %d %s after %v", method, resp.StatusCode, resp.text, time.Since(began))
			}
		}
		_, err := s.rpc.ListFiles(t.Context(), &fsv1.ListFilesRequest{User: "ann"})
		want(t, err, fault.Unavailable, "STORE_DOWN")
	}
	s.ready(t, 503)
	down()
	store.Restart()
	s.ready(t, 200)
	if resp := s.do(t, "PUT", "/v1/files/ann/x", strings.NewReader("old")); resp.StatusCode != 200 {
		t.Fatal(resp.text)
	}
	// It goes away while a file is put.
	content, feed := io.Pipe()
	go func() {
		_, _ = feed.Write(make([]byte, block+5))
		store.Kill()
		_, _ = feed.Write(make([]byte, block))
		_ = feed.Close()
	}()
	if resp := s.do(t, "PUT", "/v1/files/ann/x", content); resp.StatusCode != 503 || resp.reason() != "STORE_DOWN" {
		t.Errorf("%d %s", resp.StatusCode, resp.text)
	}
	_ = content.Close()
	down()
	s.ready(t, 503)
	store.Restart()
	s.ready(t, 200)
	if resp := s.do(t, "GET", "/v1/files/ann/x", nil); resp.text != "old" {
		t.Errorf("%d %s", resp.StatusCode, resp.text)
	}
}

func TestSpans(t *testing.T) {
	s := start(t, "file://"+t.TempDir())
	s.do(t, "PUT", "/v1/files/ann/dir/x", strings.NewReader("12345"))
	s.do(t, "GET", "/v1/files/ann/dir/x", nil)
	if _, err := s.rpc.ListFiles(t.Context(), &fsv1.ListFilesRequest{User: "ann", Prefix: "dir/"}); err != nil {
		t.Fatal(err)
	}
	s.do(t, "DELETE", "/v1/files/ann/dir/x", nil)
	seen := map[string]string{}
	for _, span := range s.spans.Ended() {
		for _, a := range span.Attributes() {
			if strings.HasPrefix(string(a.Key), "skein.") {
				seen[span.Name()] += a.Value.String() + " "
			}
		}
	}
	for name, attrs := range map[string]string{"fs put": "ann dir/x 5 ", "fs get": "ann dir/x 5 ", "fs list": "ann dir/ 0 ", "fs delete": "ann dir/x 0 "} {
		if seen[name] != attrs {
			t.Errorf("span %s has %q, want %q", name, seen[name], attrs)
		}
	}
}

func TestConfigRefuses(t *testing.T) {
	for _, spoil := range []func(*fs.Config){
		func(c *fs.Config) { c.Bucket = "ftp://x" },
		func(c *fs.Config) { c.MaxFile = 0 },
		func(c *fs.Config) { c.MaxFile = fs.MaxFile + 1 },
		func(c *fs.Config) { c.Grace = 0 },
		func(c *fs.Config) { c.Sweep = -1 },
	} {
		cfg := fs.DefaultConfig()
		spoil(&cfg)
		if err := cfg.Start(t.Context(), nil); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}
