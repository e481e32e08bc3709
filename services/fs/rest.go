package fs

import (
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"skein.dev"
	"skein.dev/platform/fault"
	"skein.dev/platform/service"
)

// rest is Files over plain HTTP: a file is a raw body.
//
//	PUT    /v1/files/{user}/{path}  body → file; If-Match: "digest", If-None-Match: *
//	GET    /v1/files/{user}/{path}  file → body; Range: bytes=a-b, a-, -n; If-None-Match. HEAD is the same without the body
//	DELETE /v1/files/{user}/{path}  If-Match: "digest"
//	GET    /v1/files/{user}         ?prefix= &page_size= &page_token= &shallow= &names_only=
//	GET    /v1/blocks/{user}/{digest}  a block of files → body
//	PUT    /v1/blocks/{user}/{digest}  body → a block, for POST /v1/files/{user}:compose
//
// A path is what follows the user, unescaped once. An ETag is the content's digest in quotes.
type rest struct {
	files *Files
	log   *slog.Logger
	list  func(http.ResponseWriter, *http.Request)
}

// Errors that only HTTP tells apart from others.
var (
	badRange   = &fault.Kind{Text: "range not satisfiable", Code: codes.OutOfRange, Errno: fault.Invalid.Errno, HTTP: http.StatusRequestedRangeNotSatisfiable}
	notMatched = &fault.Kind{Text: "precondition failed", Code: codes.Aborted, Errno: fault.Conflict.Errno, HTTP: http.StatusPreconditionFailed}
)

func (h *rest) routes(s *service.Server) {
	s.Handle("PUT /v1/files/{user}/{path...}", h.put)
	s.Handle("GET /v1/files/{user}/{path...}", h.get)
	s.Handle("DELETE /v1/files/{user}/{path...}", h.remove)
	s.Handle("GET /v1/blocks/{user}/{digest}", h.getBlock)
	s.Handle("PUT /v1/blocks/{user}/{digest}", h.putBlock)
	// Of itself the mux would send this to the route with an empty path.
	s.Handle("GET /v1/files/{user}", func(w http.ResponseWriter, r *http.Request) error {
		h.list(w, r)
		return nil
	})
}

// target reads the path as it was sent: unescaping it a second time would let "%252e%252e" become "..".
func target(r *http.Request) (skein.FilePath, error) {
	_, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.EscapedPath(), "/v1/files/"), "/")
	p, err := url.PathUnescape(rest)
	if err != nil {
		return skein.FilePath{}, fault.Invalid.New("BAD_NAME", "the path is not percent-encoded: %s", err)
	}
	return skein.NewFilePath(r.PathValue("user"), p)
}

func etag(d skein.Digest) string { return `"` + d.String() + `"` }

func (h *rest) put(w http.ResponseWriter, r *http.Request) error {
	p, err := target(r)
	if err != nil {
		return err
	}
	cond, err := condition(r)
	if err != nil {
		return err
	}
	if r.ContentLength > h.files.max { // before it is sent
		return fault.TooLarge.New("TOO_LARGE", "the file has %d bytes, at most %d are allowed", r.ContentLength, h.files.max).WithHint("raise --max-file")
	}
	// A client that stops sending must not hold the put, and its blocks, for ever.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(h.files.grace))
	file, err := h.files.Put(r.Context(), p, body{r.Body}, cond)
	if err != nil {
		return unmatched(err)
	}
	text, err := fileJSON(file)
	if err != nil {
		return err
	}
	w.Header().Set("ETag", etag(file.Digest))
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(text, '\n'))
	return nil
}

// unmatched gives a condition that does not hold the status that HTTP has for it.
func unmatched(err error) error {
	if e := fault.From(err); e != nil && e.Reason == "FILE_CHANGED" {
		return &fault.Error{Kind: notMatched, Reason: e.Reason, Message: e.Message, Hint: e.Hint}
	}
	return err
}

// condition reads what must hold for a PUT or, without If-None-Match, a DELETE.
func condition(r *http.Request) (Condition, error) {
	match, none := r.Header.Get("If-Match"), r.Header.Get("If-None-Match")
	switch {
	case match == "" && none == "":
		return Condition{}, nil
	case match == "" && none == "*":
		return Condition{Absent: true}, nil
	case none == "":
		if d, err := skein.ParseDigest(strings.Trim(match, `"`)); err == nil && match == etag(d) {
			return Condition{Match: &d}, nil
		}
	}
	return Condition{}, fault.Invalid.New("BAD_CONDITION", "If-Match: %.80q, If-None-Match: %.80q: this is none that we know", match, none).
		WithHint(`use If-Match: "DIGEST" or If-None-Match: *`)
}

// body gives the errors of a request's body a kind: the client is to blame, or gone.
type body struct{ r io.Reader }

func (b body) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fault.Cancelled.New("BROKEN_BODY", "the request's body could not be read to its end")
	}
	return n, err
}

func (h *rest) remove(w http.ResponseWriter, r *http.Request) error {
	p, err := target(r)
	if err != nil {
		return err
	}
	cond, err := condition(r)
	if err == nil && cond.Absent {
		err = fault.Invalid.New("BAD_CONDITION", "a file that must not exist can't be deleted").WithHint(`use If-Match: "DIGEST"`)
	}
	if err != nil {
		return err
	}
	if err := h.files.Delete(r.Context(), p, cond.Match); err != nil {
		return unmatched(err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *rest) get(w http.ResponseWriter, r *http.Request) error {
	p, err := target(r)
	if err != nil {
		return err
	}
	file, err := h.files.Stat(r.Context(), p)
	if err != nil {
		return err
	}
	head := w.Header()
	head.Set("ETag", etag(file.Digest))
	head.Set("Last-Modified", file.Modified.UTC().Format(http.TimeFormat))
	if matches(r.Header.Get("If-None-Match"), etag(file.Digest)) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	status, off, length := http.StatusOK, int64(0), file.Size
	if field := r.Header.Get("Range"); field != "" && (r.Header.Get("If-Range") == "" || r.Header.Get("If-Range") == etag(file.Digest)) {
		var ok bool
		if off, length, ok = parseRange(field, file.Size); ok && length == 0 {
			head.Del("ETag")
			head.Del("Last-Modified")
			head.Set("Content-Range", "bytes */"+strconv.FormatInt(file.Size, 10))
			return badRange.New("BAD_RANGE", "the file has %d bytes, and none of them is in range %.80q", file.Size, field)
		} else if ok {
			status = http.StatusPartialContent
			head.Set("Content-Range", "bytes "+strconv.FormatInt(off, 10)+"-"+strconv.FormatInt(off+length-1, 10)+"/"+strconv.FormatInt(file.Size, 10))
		}
	}
	head.Set("Accept-Ranges", "bytes")
	head.Set("Content-Length", strconv.FormatInt(length, 10))
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Content-Security-Policy", "sandbox") // a user's page has no part in this origin
	head.Set("Content-Type", "application/octet-stream")
	if t := mime.TypeByExtension(path.Ext(p.Path)); t != "" {
		head.Set("Content-Type", t)
	}
	if r.Method == http.MethodHead || length == 0 {
		w.WriteHeader(status)
		return nil
	}
	return h.send(w, r, file, status, off, length)
}

// blockOf reads whose block a request is about.
func blockOf(r *http.Request) (user skein.User, d skein.Digest, err error) {
	if user, err = skein.ParseUser(r.PathValue("user")); err == nil {
		d, err = skein.ParseDigest(r.PathValue("digest"))
	}
	return user, d, err
}

func (h *rest) getBlock(w http.ResponseWriter, r *http.Request) error {
	user, d, err := blockOf(r)
	if err != nil {
		return err
	}
	return h.files.Block(r.Context(), user, d, func(data []byte) error {
		head := w.Header()
		head.Set("ETag", etag(d))
		head.Set("Content-Length", strconv.Itoa(len(data)))
		head.Set("Content-Type", "application/octet-stream")
		head.Set("X-Content-Type-Options", "nosniff")
		if r.Method != http.MethodHead {
			_, _ = w.Write(data) // the client has left, which is no news
		}
		return nil
	})
}

func (h *rest) putBlock(w http.ResponseWriter, r *http.Request) error {
	user, d, err := blockOf(r)
	if err != nil {
		return err
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(h.files.grace))
	buf := buffers.Get().(*[]byte) //nolint:forcetypeassert // nothing else is in there
	defer buffers.Put(buf)
	in := body{r.Body}
	n, err := service.Fill(in, *buf)
	if err == nil { // full: is there more?
		var more [1]byte
		if m, _ := service.Fill(in, more[:]); m > 0 {
			return fault.TooLarge.New("BAD_BLOCK", "a block has at most %d bytes", blockSize)
		}
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	if err := h.files.PutBlock(r.Context(), user, d, (*buf)[:n]); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// send writes the body. The status goes out with the first verified block; what fails after that can only be told by
// ending the connection before the announced length.
func (h *rest) send(w http.ResponseWriter, r *http.Request, file File, status int, off, length int64) error {
	sent := false
	err := h.files.Read(r.Context(), file, off, length, func(data []byte) error {
		if !sent {
			w.WriteHeader(status)
			sent = true
		}
		_, err := w.Write(data)
		return err
	})
	if err == nil {
		return nil
	}
	if sent {
		if r.Context().Err() == nil { // or the client has left, which is no news
			h.log.ErrorContext(r.Context(), "a file ended early", "path", file.Path.String(), "error", err)
		}
		panic(http.ErrAbortHandler)
	}
	for _, name := range []string{"ETag", "Last-Modified", "Content-Range", "Accept-Ranges"} {
		w.Header().Del(name)
	}
	return err
}

// matches reads If-None-Match: a list of ETags, weak ones counting as well.
func matches(field, tag string) bool {
	for t := range strings.SplitSeq(field, ",") {
		if t = strings.TrimPrefix(strings.TrimSpace(t), "W/"); t == tag || t == "*" {
			return true
		}
	}
	return false
}

// parseRange reads a Range of one range of bytes; without ok it is to be ignored, as any other is. Length 0 means that the
// file has nothing of it.
func parseRange(field string, size int64) (off, length int64, ok bool) {
	spec, isBytes := strings.CutPrefix(field, "bytes=")
	first, last, isRange := strings.Cut(strings.TrimSpace(spec), "-")
	if !isBytes || !isRange {
		return 0, size, false
	}
	to, err := number(last)
	if first == "" { // the last bytes
		if last == "" || err != nil {
			return 0, size, false
		}
		to = min(to, size)
		return size - to, to, true
	}
	from, err1 := number(first)
	if err1 != nil || err != nil || last != "" && to < from {
		return 0, size, false
	}
	if last == "" || to >= size {
		to = size - 1
	}
	if from >= size {
		return 0, 0, true
	}
	return from, to - from + 1, true
}

// number reads digits only: no sign, no space. An empty one is 0; one too large for an int64 is the largest.
func number(s string) (int64, error) {
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, strconv.ErrSyntax
		}
	}
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		return n, nil
	}
	return n, err
}
