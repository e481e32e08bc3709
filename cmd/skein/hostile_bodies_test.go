package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	fsv1 "skein.dev/proto/skein/fs/v1"
)

type sender = func(f *fsv1.File, data string) error

// bodyCase is a lie about a file, and what is said of it.
type bodyCase struct {
	liar
	code, say, left string // left: content of the part
}

// A file whose content is not what was said never has its name, and the next try is not spoiled by what came.
func TestHostileBodies(t *testing.T) {
	endless := func(data string) func(*fsv1.File, int64, sender) error {
		return func(f *fsv1.File, _ int64, send sender) error {
			for {
				if err := send(f, data); err != nil {
					return err
				}
				f = nil
			}
		}
	}
	with := func(change func(*fsv1.File)) func(*fsv1.File) *fsv1.File {
		return func(f *fsv1.File) *fsv1.File { change(f); return f }
	}
	n := atomic.Int64{}
	for name, c := range map[string]bodyCase{
		"endless":    {liar{get: endless(strings.Repeat("x", 64<<10))}, "BAD_ANSWER", "than the 6 bytes", ""},
		"no bytes":   {liar{get: endless("")}, "BAD_ANSWER", "sends no bytes", ""},
		"longer":     {liar{get: func(f *fsv1.File, _ int64, send sender) error { return send(f, "hello,x") }}, "BAD_ANSWER", "than the 6 bytes", ""},
		"shorter":    {liar{get: func(f *fsv1.File, off int64, send sender) error { return send(f, "hel"[off:]) }}, "CUT_OFF", "3 of 6 bytes", "hel"},
		"nothing":    {liar{get: func(*fsv1.File, int64, sender) error { return nil }}, "CUT_OFF", "0 of 6 bytes", ""},
		"other":      {liar{get: func(f *fsv1.File, _ int64, send sender) error { return send(f, "HELLO,") }}, "DIGEST_MISMATCH", "hello", ""},
		"negative":   {liar{stat: with(func(f *fsv1.File) { f.Size = -1 })}, "BAD_ANSWER", "-1 bytes", ""},
		"none":       {liar{stat: func(*fsv1.File) *fsv1.File { return nil }}, "BAD_ANSWER", "hello", ""},
		"no digest":  {liar{stat: with(func(f *fsv1.File) { f.Digest = "" })}, "BAD_ANSWER", "hello", ""},
		"dig a path": {liar{stat: with(func(f *fsv1.File) { f.Digest = "/../../../victim" })}, "BAD_ANSWER", "hello", ""},
		"ever new": {liar{stat: with(func(f *fsv1.File) {
			f.Digest = fmt.Sprintf("%064x", n.Add(1))
		})}, "FILE_CHANGED", "hello", ""},
		"long error": {liar{get: func(*fsv1.File, int64, sender) error {
			return status.Error(codes.Internal, strings.Repeat("error ", 50<<10))
		}}, "", "error error", ""},
		"longer error": {liar{get: func(*fsv1.File, int64, sender) error {
			return status.Error(codes.Internal, strings.Repeat("error ", 1<<20))
		}}, "", "error: ", ""},
	} {
		t.Run(name, c.check)
	}
}

func (c *bodyCase) check(t *testing.T) {
	b := newBox(t)
	c.files = map[string]string{"lib/hello": "hello,"}
	server := serveLiar(t, &c.liar)
	for _, args := range [][]string{{"get", "ann/lib/hello", filepath.Join(b.dest, "hello")}, {"cp", "ann:lib/hello", b.dest + "/"}, {"cp", "-r", "ann:lib", b.dest}} {
		want(t, bounded(t, server, "", append([]string{"files"}, args...)...), exitFailure, "", "["+c.code, c.say)
		if c.left == "" {
			b.holds(t)
		}
	}
	honest := serveLiar(t, &liar{files: c.files})
	if c.left != "" {
		honest = serveLiar(t, &liar{files: c.files, get: func(f *fsv1.File, off int64, send sender) error {
			if off == 0 {
				t.Error("it did not go on where it was")
			}
			return send(f, "hello,"[off:])
		}})
	}
	want(t, bounded(t, honest, "", "files", "get", "ann/lib/hello", filepath.Join(b.dest, "hello")), 0, "")
	b.holds(t, "hello=hello,")
	if c.liar.get != nil { // what goes to stdout can't be taken back, but it is not called whole
		r := bounded(t, server, "", "files", "get", "ann/lib/hello")
		want(t, r, exitFailure, r.stdout, "["+c.code)
		if len(r.stdout) > 6 {
			t.Errorf("%d bytes", len(r.stdout))
		}
	}
}

// A server that knows no ranges, or refuses them, costs one try.
func TestHostileRanges(t *testing.T) {
	content := "hello,"
	for name, refuse := range map[string]error{"ignored": nil, "refused": status.Error(codes.OutOfRange, "no ranges here")} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			l := &liar{files: map[string]string{"hello": content}}
			l.get = func(f *fsv1.File, off int64, send func(*fsv1.File, string) error) error {
				if off > 0 && refuse != nil {
					return refuse
				}
				return send(f, content)
			}
			server := serveLiar(t, l)
			part := partFile("hello", l.file("hello").GetDigest())
			write(t, b.dest, map[string]string{part: "hel"})
			r := bounded(t, server, "", "files", "get", "ann/hello", filepath.Join(b.dest, "hello"))
			want(t, r, exitFailure, "")
			b.holds(t)
			want(t, bounded(t, server, "", "files", "get", "ann/hello", filepath.Join(b.dest, "hello")), 0, "")
			b.holds(t, "hello="+content)
		})
	}
}

// What answers may be no gRPC at all. It is believed nothing, and followed nowhere.
func TestHostileHTTP(t *testing.T) {
	var followed atomic.Int64
	other := serveHTTP(t, false, func(http.ResponseWriter, *http.Request) { followed.Add(1) })
	for name, answer := range map[string]http.HandlerFunc{
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+other+"/", http.StatusFound)
		},
		"416": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", `"no"`)
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		},
		"json": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = fmt.Fprintf(w, `{"detail":"%s"}`, strings.Repeat("no ", 8<<20))
		},
		"endless": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			for r.Context().Err() == nil {
				if _, err := w.Write([]byte("\x00\xff\xff\xff\xff" + strings.Repeat("x", 64<<10))); err != nil {
					return
				}
			}
		},
	} {
		for _, h2 := range []bool{true, false} {
			if !h2 && name != "redirect" && name != "endless" {
				continue // it gets no further than the first bytes, and that takes the time of four tries
			}
			t.Run(fmt.Sprintf("%s, HTTP/2 %v", name, h2), func(t *testing.T) {
				b := newBox(t)
				server := serveHTTP(t, h2, answer)
				for _, line := range [][]string{
					{"files", "cp", "-r", "ann:lib", b.dest},
					{"files", "sync", "ann:lib", b.dest},
					{"files", "get", "ann/a", filepath.Join(b.dest, "a")},
					{"state", "export", "ann"},
				} {
					say := []string{"error: "}
					if !h2 || name != "endless" {
						say = append(say, server, "hint: ")
					}
					want(t, bounded(t, server, "", line...), exitFailure, "", say...)
				}
				b.holds(t)
			})
		}
	}
	if followed.Load() > 0 {
		t.Error("another host was asked")
	}
}

func serveHTTP(t *testing.T, h2 bool, answer http.HandlerFunc) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: answer, Protocols: &http.Protocols{}}
	s.Protocols.SetHTTP1(!h2)
	s.Protocols.SetUnencryptedHTTP2(h2)
	go func() { _ = s.Serve(lis) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.Shutdown(ctx)
		_ = s.Close()
	})
	return lis.Addr().String()
}
