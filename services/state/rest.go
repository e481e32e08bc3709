package state

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"skein.dev"
	"skein.dev/platform/fault"
	"skein.dev/platform/service"
)

// rest is Store over plain HTTP: values are raw bodies, what is known of them is in headers or JSON.
//
//	PUT    /v1/state/{user}/{key}         body → value; If-Match: "version", If-None-Match: *, Content-Range: bytes a-b/*
//	GET    /v1/state/{user}/{key}         value → body; Range: bytes=a-b, a-, -n. HEAD is the same without the body
//	DELETE /v1/state/{user}/{key}
//	POST   /v1/state/{user}/{key}:append  body at the value's end
//	POST   …:resize?size=  …:add?delta=&offset=  …:expire?ttl=  …:appendElement  …:clearElements
//	GET    …:elements      …:watch               see rest_streams.go
//	GET    /v1/state/{user}               ?prefix= &page_size= &page_token=
//	GET    /v1/state/{user}:usage  …:export   POST …:import
//
// A key is what follows the user, unescaped once. A client that escapes all but letters, digits, '-' and '_' can name
// every key; one that doesn't meets the web's own rules for "//", "." and "..". An ETag is the version in quotes. Changes
// take ?request_id=.
type rest struct {
	store   *Store
	leaving <-chan struct{} // closed when the process is to end
}

// Errors that only HTTP tells apart from others.
var (
	badRange   = &fault.Kind{Text: "range not satisfiable", Code: codes.OutOfRange, Errno: fault.Invalid.Errno, HTTP: http.StatusRequestedRangeNotSatisfiable}
	notMatched = &fault.Kind{Text: "precondition failed", Code: codes.Aborted, Errno: fault.Conflict.Errno, HTTP: http.StatusPreconditionFailed}
)

func (h *rest) routes(s *service.Server) {
	s.Handle("PUT /v1/state/{user}/{key...}", h.put)
	s.Handle("GET /v1/state/{user}/{key...}", h.get)
	s.Handle("DELETE /v1/state/{user}/{key...}", h.remove)
	s.Handle("POST /v1/state/{user}/{key...}", h.post)
	s.Handle("GET /v1/state/{user}", h.getUser)
	s.Handle("POST /v1/state/{user}", h.postUser)
}

// target reads the key from the path as it was sent, since the decoded path no longer tells "/" from "%2F" or a verb from a
// key that ends like one. A verb such as ":append" must follow the key if it is not "".
func target(r *http.Request, verb string) (skein.StateKey, error) {
	_, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.EscapedPath(), "/v1/state/"), "/")
	rest, ok := strings.CutSuffix(rest, verb)
	if !ok {
		return skein.StateKey{}, fault.NotFound.New("NO_ROUTE", "POST needs a verb after the key").WithHint("such as :append")
	}
	key, err := url.PathUnescape(rest)
	if err != nil {
		return skein.StateKey{}, fault.Invalid.New("BAD_NAME", "the key is not percent-encoded: %s", err)
	}
	return skein.NewStateKey(r.PathValue("user"), key)
}

func (h *rest) put(w http.ResponseWriter, r *http.Request) error {
	k, err := target(r, "")
	if err != nil {
		return err
	}
	expected, err := condition(r)
	if err != nil {
		return err
	}
	id := r.URL.Query().Get("request_id")
	var info Info
	switch field := r.Header.Get("Content-Range"); {
	case field != "":
		if expected != Any {
			return fault.Unsupported.New("NO_CONDITION", "a range can't be written under a condition")
		}
		var from int64
		var data []byte
		if from, data, err = rangeBody(r, field); err == nil {
			info, err = h.store.SetRange(r.Context(), k, from, data, id)
		}
	default:
		if err := h.store.checkSize(max(0, r.ContentLength)); err != nil {
			return err // before it is sent
		}
		info, err = h.store.Write(r.Context(), k, body{r.Body}, expected, id)
	}
	if e := fault.From(err); e != nil && expected != Any && e.Reason == "CAS_MISMATCH" {
		return (&fault.Error{Kind: notMatched, Reason: e.Reason, Message: e.Message}).WithHint("%s", e.Hint)
	}
	if err != nil {
		return err
	}
	w.Header().Set("ETag", etag(info))
	return writeJSON(w, infoJSON(info))
}

// condition reads the version that the value must have.
func condition(r *http.Request) (int64, error) {
	match, none := r.Header.Get("If-Match"), r.Header.Get("If-None-Match")
	switch {
	case match == "" && none == "":
		return Any, nil
	case match == "" && none == "*":
		return Absent, nil
	case none == "":
		inner, ok1 := strings.CutPrefix(match, `"`)
		inner, ok2 := strings.CutSuffix(inner, `"`)
		if v, err := strconv.ParseInt(inner, 10, 64); err == nil && ok1 && ok2 && v > 0 {
			return v, nil
		}
	}
	return 0, fault.Invalid.New("BAD_CONDITION", "If-Match: %.80q, If-None-Match: %.80q: this is none that we know", match, none).
		WithHint(`use If-Match: "VERSION" or If-None-Match: *`)
}

// rangeBody reads a body that says which bytes of the value it is.
func rangeBody(r *http.Request, field string) (int64, []byte, error) {
	spec, total, ok1 := strings.Cut(strings.TrimPrefix(field, "bytes "), "/")
	first, last, ok2 := strings.Cut(spec, "-")
	from, err1 := number(first)
	to, err2 := number(last)
	if !ok1 || !ok2 || err1 != nil || err2 != nil || to < from || total != "*" || !strings.HasPrefix(field, "bytes ") {
		return 0, nil, fault.Invalid.New("BAD_RANGE", "Content-Range: %.80q is none that we know", field).
			WithHint("use Content-Range: bytes FIRST-LAST/*")
	}
	data, err := payload(r)
	if err != nil {
		return 0, nil, err
	}
	if to-from != int64(len(data))-1 {
		return 0, nil, fault.Invalid.New("BAD_RANGE", "Content-Range: %.80q, but the body has %d bytes", field, len(data))
	}
	return from, data, nil
}

// number is one of digits only: no sign.
func number(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err //nolint:gosec // it has 63 bits
}

// payload reads a body that must fit one message.
func payload(r *http.Request) ([]byte, error) {
	if err := checkPayload(r.ContentLength); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(body{r.Body}, skein.MaxPayload+1))
	if err != nil {
		return nil, err
	}
	return data, checkPayload(int64(len(data)))
}

// body is a request's, whose failure is the client's.
type body struct{ io.Reader }

func (b body) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fault.Cancelled.New("BODY_CUT", "the body ended early: %s", err)
	}
	return n, err
}

func (h *rest) get(w http.ResponseWriter, r *http.Request) error {
	switch path := r.URL.EscapedPath(); {
	case strings.HasSuffix(path, ":elements"):
		return h.elements(w, r)
	case strings.HasSuffix(path, ":watch"):
		return h.watch(w, r)
	}
	return h.getValue(w, r)
}

func (h *rest) getValue(w http.ResponseWriter, r *http.Request) error {
	k, err := target(r, "")
	if err != nil {
		return err
	}
	head := w.Header()
	describe := func(i Info) {
		head.Set("ETag", etag(i))
		head.Set("Last-Modified", i.Updated.Format(http.TimeFormat))
		head.Set("Content-Type", "application/octet-stream")
		head.Set("X-Content-Type-Options", "nosniff") // bytes of a user's must not run in a browser as something else
		head.Set("Accept-Ranges", "bytes")
		head.Set("Content-Length", strconv.FormatInt(i.Size, 10))
	}
	if r.Method == http.MethodHead {
		info, err := h.store.Stat(r.Context(), k)
		if err == nil {
			describe(info)
		}
		return err
	}
	want, err := parseRange(r.Header.Get("Range"))
	if err != nil {
		return err
	}
	if want.suffix {
		info, err := h.store.Stat(r.Context(), k)
		if err != nil {
			return err
		}
		want.offset = max(0, info.Size-want.length)
	}
	started := false
	err = h.store.Read(r.Context(), k, want.offset, want.length, func(i Info) error {
		if want.suffix && want.offset != max(0, i.Size-want.length) {
			return fault.Conflict.New("VALUE_CHANGED", "the value %s changed while it was read", k).WithHint("read it again")
		}
		n := span(i.Size, want.offset, want.length)
		if want.given && n == 0 {
			head.Set("Content-Range", "bytes */"+strconv.FormatInt(i.Size, 10))
			return badRange.New("BAD_RANGE", "the value %s has %d bytes: none are in the range", k, i.Size)
		}
		describe(i)
		if want.given {
			head.Set("Content-Length", strconv.FormatInt(n, 10))
			head.Set("Content-Range", "bytes "+strconv.FormatInt(want.offset, 10)+"-"+strconv.FormatInt(want.offset+n-1, 10)+"/"+strconv.FormatInt(i.Size, 10))
			w.WriteHeader(http.StatusPartialContent)
		}
		started = true
		return nil
	}, func(b []byte) error {
		_, err := w.Write(b)
		return err
	})
	if err != nil && started {
		panic(http.ErrAbortHandler) // cut the connection: the client must not take what it has for all
	}
	return err
}

// byteRange is what a Range header asks for. A suffix is the last length bytes.
type byteRange struct {
	offset, length int64 // length 0: to the end
	given, suffix  bool
}

// parseRange reads "bytes=a-b", "bytes=a-" or "bytes=-n". More than one range, or a unit we don't know, is as if there were
// none, which HTTP allows.
func parseRange(field string) (byteRange, error) {
	spec, ok := strings.CutPrefix(field, "bytes=")
	if !ok || strings.Contains(spec, ",") {
		return byteRange{}, nil
	}
	bad := fault.Invalid.New("BAD_RANGE", "Range: %.80q is not a range", field)
	first, last, ok := strings.Cut(strings.TrimSpace(spec), "-")
	if !ok {
		return byteRange{}, bad
	}
	if first == "" {
		n, err := number(last)
		if err != nil {
			return byteRange{}, bad
		}
		if n == 0 {
			return byteRange{}, badRange.New("BAD_RANGE", "the last 0 bytes are none")
		}
		return byteRange{0, n, true, true}, nil
	}
	from, err := number(first)
	if err != nil {
		return byteRange{}, bad
	}
	if last == "" {
		return byteRange{from, 0, true, false}, nil
	}
	to, err := number(last)
	if err != nil || to < from {
		return byteRange{}, bad
	}
	return byteRange{from, max(to-from+1, to-from), true, false}, nil // without overflow
}

func (h *rest) remove(w http.ResponseWriter, r *http.Request) error {
	k, err := target(r, "")
	if err != nil {
		return err
	}
	if err := h.store.Delete(r.Context(), k, r.URL.Query().Get("request_id")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// post changes a value by the verb behind its key.
func (h *rest) post(w http.ResponseWriter, r *http.Request) error {
	path := r.URL.EscapedPath()
	verb := path[strings.LastIndexByte(path, ':')+1:] // all of it if there is none
	k, err := target(r, ":"+verb)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	id := q.Get("request_id")
	switch verb {
	case "append":
		return h.append(w, r, k, id)
	case "resize":
		size, err := numberOf(q, "size")
		if err != nil {
			return err
		}
		info, _, err := h.store.Resize(r.Context(), k, size, id)
		return answerInfo(w, info, err)
	case "expire":
		var ttl time.Duration
		if text := q.Get("ttl"); text != "" {
			if ttl, err = time.ParseDuration(text); err != nil || ttl == 0 {
				return fault.Invalid.New("BAD_EXPIRY", "ttl=%.40q is not a time to live", text).WithHint("such as 90s or 24h; leave it out for never")
			}
		}
		info, err := h.store.Expire(r.Context(), k, ttl, id)
		return answerInfo(w, info, err)
	case "add":
		return h.add(w, r, k, id)
	case "appendElement":
		data, err := payload(r)
		if err != nil {
			return err
		}
		index, err := h.store.AppendElement(r.Context(), k, data, id)
		if err != nil {
			return err
		}
		return writeJSON(w, struct {
			Index int64 `json:"index,string"`
		}{index})
	case "clearElements":
		if err := h.store.ClearElements(r.Context(), k, id); err != nil {
			return err
		}
		return writeJSON(w, struct{}{})
	}
	return fault.NotFound.New("NO_ROUTE", "%.40q is no verb", verb).WithHint("append, resize, add, expire, appendElement or clearElements")
}

func answerInfo(w http.ResponseWriter, info Info, err error) error {
	if err != nil {
		return err
	}
	w.Header().Set("ETag", etag(info))
	return writeJSON(w, infoJSON(info))
}

// numberOf reads a number, 0 if there is none, from a query.
func numberOf(q url.Values, name string) (int64, error) {
	text := q.Get(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fault.Invalid.New("BAD_NUMBER", "%s=%.40q is not a number", name, text)
	}
	return n, nil
}

func (h *rest) append(w http.ResponseWriter, r *http.Request, k skein.StateKey, id string) error {
	data, err := payload(r)
	if err != nil {
		return err
	}
	offset, info, err := h.store.Append(r.Context(), k, data, id)
	if err != nil {
		return err
	}
	w.Header().Set("ETag", etag(info))
	return writeJSON(w, struct {
		Offset int64     `json:"offset,string"`
		Info   valueInfo `json:"info"`
	}{offset, infoJSON(info)})
}

func (h *rest) add(w http.ResponseWriter, r *http.Request, k skein.StateKey, id string) error {
	delta, err1 := numberOf(r.URL.Query(), "delta")
	offset, err2 := numberOf(r.URL.Query(), "offset")
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	sum, info, err := h.store.Add(r.Context(), k, offset, delta, id)
	if err != nil {
		return err
	}
	w.Header().Set("ETag", etag(info))
	return writeJSON(w, struct {
		Value int64     `json:"value,string"`
		Info  valueInfo `json:"info"`
	}{sum, infoJSON(info)})
}

// getUser is about all values of a user; a verb follows the name, which can't hold a colon.
func (h *rest) getUser(w http.ResponseWriter, r *http.Request) error {
	name, verb, _ := strings.Cut(r.PathValue("user"), ":")
	u, err := skein.ParseUser(name)
	if err != nil {
		return err
	}
	switch verb {
	case "":
		return h.list(w, r, u)
	case "export":
		return h.export(w, r, u)
	case "usage":
		usage, err := h.store.Usage(r.Context(), u)
		if err != nil {
			return err
		}
		return writeJSON(w, struct {
			Bytes       int64 `json:"bytes,string"`
			Values      int64 `json:"values,string"`
			BytesLimit  int64 `json:"bytesLimit,string"`
			ValuesLimit int64 `json:"valuesLimit,string"`
		}(usage))
	}
	return fault.NotFound.New("NO_ROUTE", "%.40q is no verb", verb).WithHint("export or usage")
}

func (h *rest) postUser(w http.ResponseWriter, r *http.Request) error {
	name, ok := strings.CutSuffix(r.PathValue("user"), ":import")
	if !ok {
		return fault.NotFound.New("NO_ROUTE", "POST needs a key, or a verb after the user").WithHint("such as :import")
	}
	u, err := skein.ParseUser(name)
	if err != nil {
		return err
	}
	return h.importAll(w, r, u)
}

func (h *rest) list(w http.ResponseWriter, r *http.Request, u skein.User) (err error) {
	q := r.URL.Query()
	size := int64(0)
	if s := q.Get("page_size"); s != "" {
		if size, err = strconv.ParseInt(s, 10, 32); err != nil {
			return fault.Invalid.New("BAD_PAGE", "page_size=%.40q is not a number", s)
		}
	}
	page, next, err := h.store.List(r.Context(), u, q.Get("prefix"), int(size), q.Get("page_token"))
	if err != nil {
		return err
	}
	answer := struct {
		Values []valueInfo `json:"values"`
		Next   string      `json:"nextPageToken"`
	}{[]valueInfo{}, next}
	for _, i := range page {
		answer.Values = append(answer.Values, infoJSON(i))
	}
	return writeJSON(w, answer)
}

// valueInfo is the contract's ValueInfo as its JSON mapping has it, with the path that names the value.
type valueInfo struct {
	User       string `json:"user"`
	Key        []byte `json:"key"`
	Path       string `json:"path"` // the key percent-encoded: /v1/state/{user}/{path}
	Size       int64  `json:"size,string"`
	Version    int64  `json:"version,string"`
	UpdateTime string `json:"updateTime"`
	ExpireTime string `json:"expireTime,omitempty"`
}

func infoJSON(i Info) valueInfo {
	expires := ""
	if !i.Expires.IsZero() {
		expires = i.Expires.Format(time.RFC3339Nano)
	}
	return valueInfo{string(i.Key.User), []byte(i.Key.Key), escape(i.Key.Key), i.Size, i.Version, i.Updated.Format(time.RFC3339Nano), expires}
}

// escape leaves only bytes that no client, proxy or router reads anything into: not even '.', for "..".
func escape(key string) string {
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, len(key))
	for i := range len(key) {
		switch c := key[i]; {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_':
			b = append(b, c)
		default:
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(b)
}

func etag(i Info) string { return `"` + strconv.FormatInt(i.Version, 10) + `"` }

func writeJSON(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}
