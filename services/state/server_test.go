package state

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"skein.dev"
	"skein.dev/platform/fault"
	"skein.dev/platform/service"
	statev1 "skein.dev/proto/skein/state/v1"
)

// serve runs the service as its main does and waits until it is ready.
func serve(t testing.TB, redisURL string, spans ...trace.SpanProcessor) (addr string) {
	t.Helper()
	addr, stop := serving(t, redisURL, spans...)
	t.Cleanup(stop)
	return addr
}

// serving is serve for who wants to end it.
func serving(t testing.TB, redisURL string, spans ...trace.SpanProcessor) (addr string, stop func()) {
	t.Helper()
	cfg := DefaultConfig()
	fs := flag.NewFlagSet("state", flag.ContinueOnError)
	cfg.Flags(fs)
	most := "8388608"
	if _, ok := t.(*testing.B); ok {
		most = strconv.Itoa(MaxValue)
	}
	if err := fs.Parse([]string{"--redis-url", redisURL, "--redis-timeout", "5s", "--max-value-size", most}); err != nil {
		t.Fatal(err)
	}
	listening := make(chan string, 1)
	base := service.DefaultConfig()
	base.Name, base.Listen, base.Quiet, base.Spans = "state", "127.0.0.1:0", true, spans
	base.OnListen = func(addr string) { listening <- addr }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- service.Run(ctx, base, cfg.Start) }()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	select {
	case addr = <-listening:
	case err := <-done:
		done <- nil
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		resp, err := http.Get("http://" + addr + "/healthz")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return addr, stop
			}
		}
		if time.Now().After(end) {
			t.Fatal("the service does not get ready")
		}
	}
}

func TestGRPC(t *testing.T) {
	seen := tracetest.NewSpanRecorder()
	conn, err := service.Connect(serve(t, "redis://"+miniredis.RunT(t).Addr(), seen))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	c, ctx := statev1.NewStateServiceClient(conn), t.Context()
	k := []byte("key\xff")

	_, err = c.GetValue(ctx, &statev1.GetValueRequest{User: "ann", Key: k})
	reason(t, "get", err, fault.NotFound, "NO_VALUE")
	for _, bad := range []*statev1.StatValueRequest{
		{User: "ann"},
		{User: "Ann", Key: k},
		{User: "", Key: k},
		{User: "ann", Key: []byte("a\x00b")},
		{User: "ann", Key: bytes.Repeat([]byte("k"), skein.MaxKeyLen+1)},
	} {
		_, err := c.StatValue(ctx, bad)
		reason(t, bad.String(), err, fault.Invalid, "BAD_NAME")
	}
	set, err := c.SetValue(ctx, &statev1.SetValueRequest{User: "ann", Key: k, Data: []byte("hello")})
	if err != nil || set.GetInfo().GetSize() != 5 || !bytes.Equal(set.GetInfo().GetKey(), k) || set.GetInfo().GetUser() != "ann" {
		t.Fatal(set, err)
	}
	if age := time.Since(set.GetInfo().GetUpdateTime().AsTime()); age < -time.Minute || age > time.Minute {
		t.Errorf("updated %s ago", age)
	}
	cas := &statev1.CompareAndSetRequest{User: "ann", Key: k, ExpectedVersion: set.GetInfo().GetVersion(), Data: []byte("HELLO"), RequestId: "1"}
	first, err := c.CompareAndSet(ctx, cas)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := c.CompareAndSet(ctx, cas); err != nil || again.String() != first.String() {
		t.Error(again, err)
	}
	cas.RequestId = "2"
	_, err = c.CompareAndSet(ctx, cas)
	reason(t, "cas", err, fault.Conflict, "CAS_MISMATCH")
	cas.ExpectedVersion = -1
	_, err = c.CompareAndSet(ctx, cas)
	reason(t, "cas", err, fault.Invalid, "BAD_VERSION")
	if _, err := c.SetRange(ctx, &statev1.SetRangeRequest{User: "ann", Key: k, Offset: 6, Data: []byte("there")}); err != nil {
		t.Error(err)
	}
	app, err := c.AppendValue(ctx, &statev1.AppendValueRequest{User: "ann", Key: k, Data: []byte("!"), RequestId: "3"})
	if err != nil || app.GetOffset() != 11 || app.GetInfo().GetSize() != 12 {
		t.Error(app, err)
	}
	got, err := c.GetValue(ctx, &statev1.GetValueRequest{User: "ann", Key: k, Offset: 4})
	if err != nil || string(got.GetData()) != "O\x00there!" || got.GetInfo().GetVersion() != app.GetInfo().GetVersion() {
		t.Errorf("%q %v", got, err)
	}

	// A value of many frames.
	big := bytes.Repeat([]byte("0123456789abcde\n"), 7<<20/16)
	w, err := c.WriteValue(ctx)
	if err != nil {
		t.Fatal(err)
	}
	head := &statev1.WriteValueRequest{User: "ann", Key: k}
	for part := range slices.Chunk(big, 100_001) {
		head.Data = part
		if err := w.Send(head); err != nil {
			t.Fatal(err)
		}
		head = &statev1.WriteValueRequest{}
	}
	wrote, err := w.CloseAndRecv()
	if err != nil || wrote.GetInfo().GetSize() != int64(len(big)) {
		t.Fatal(wrote, err)
	}
	read := func(offset, length int64) (data []byte, infos int, err error) {
		r, err := c.ReadValue(ctx, &statev1.ReadValueRequest{User: "ann", Key: k, Offset: offset, Length: length})
		if err != nil {
			return nil, 0, err
		}
		for {
			f, err := r.Recv()
			if errors.Is(err, io.EOF) {
				return data, infos, nil
			}
			if err != nil {
				return data, infos, err
			}
			if f.GetInfo() != nil {
				infos++
				if f.GetInfo().String() != wrote.GetInfo().String() {
					t.Error(f.GetInfo())
				}
			}
			if len(f.GetData()) > 256<<10 {
				t.Errorf("a frame of %d bytes", len(f.GetData()))
			}
			data = append(data, f.GetData()...)
		}
	}
	for _, r := range [][2]int64{{0, 0}, {5, 10}, {chunkSize - 1, 2*chunkSize + 2}, {int64(len(big)), 0}, {int64(len(big)) - 3, 100}} {
		want := big[r[0]:]
		if r[1] > 0 {
			want = want[:min(int64(len(want)), r[1])]
		}
		if data, infos, err := read(r[0], r[1]); err != nil || infos != 1 || !bytes.Equal(data, want) {
			t.Errorf("%v: %d bytes, %d infos, %v", r, len(data), infos, err)
		}
	}
	_, _, err = read(-1, 0)
	reason(t, "read", err, fault.Invalid, "BAD_RANGE")
	_, err = c.GetValue(ctx, &statev1.GetValueRequest{User: "ann", Key: k})
	reason(t, "get of much", err, fault.TooLarge, "TOO_LARGE")

	// Streams that end early change nothing.
	none, err := c.WriteValue(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_, err = none.CloseAndRecv()
	reason(t, "empty stream", err, fault.Invalid, "NO_KEY")
	gone, cancel := context.WithCancel(ctx)
	cut, err := c.WriteValue(gone)
	if err != nil {
		t.Fatal(err)
	}
	if err := cut.Send(&statev1.WriteValueRequest{User: "ann", Key: k, Data: big[:2<<20]}); err != nil {
		t.Fatal(err)
	}
	cancel()
	_, err = cut.CloseAndRecv()
	if !errors.Is(err, fault.Cancelled) {
		t.Error("cut stream:", err)
	}
	stat, err := c.StatValue(ctx, &statev1.StatValueRequest{User: "ann", Key: k})
	if err != nil || stat.GetInfo().String() != wrote.GetInfo().String() {
		t.Error(stat, err)
	}
	tooMuch, err := c.WriteValue(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_ = tooMuch.Send(&statev1.WriteValueRequest{User: "ann", Key: k, Data: big[:3<<20]})
	for range 4 {
		_ = tooMuch.Send(&statev1.WriteValueRequest{Data: big[:3<<20]})
	}
	_, err = tooMuch.CloseAndRecv()
	reason(t, "too much", err, fault.TooLarge, "TOO_LARGE")

	if _, err := c.SetValue(ctx, &statev1.SetValueRequest{User: "ann", Key: []byte("other")}); err != nil {
		t.Error(err)
	}
	list, err := c.ListValues(ctx, &statev1.ListValuesRequest{User: "ann", PageSize: 1})
	if err != nil || len(list.GetValues()) != 1 || list.GetNextPageToken() == "" {
		t.Fatal(list, err)
	}
	list, err = c.ListValues(ctx, &statev1.ListValuesRequest{User: "ann", Prefix: []byte("o"), PageToken: list.GetNextPageToken()})
	if err != nil || len(list.GetValues()) != 1 || string(list.GetValues()[0].GetKey()) != "other" {
		t.Error(list, err)
	}
	_, err = c.ListValues(ctx, &statev1.ListValuesRequest{User: "ann/../bob"})
	reason(t, "list", err, fault.Invalid, "BAD_NAME")
	for range 2 {
		if _, err := c.DeleteValue(ctx, &statev1.DeleteValueRequest{User: "ann", Key: k, RequestId: "4"}); err != nil {
			t.Error(err)
		}
	}
	_, err = c.DeleteValue(ctx, &statev1.DeleteValueRequest{User: "ann", Key: k})
	reason(t, "delete", err, fault.NotFound, "NO_VALUE")
	checkSpans(t, seen)
}

// Every operation has its span, which tells the bytes but not the key.
func checkSpans(t *testing.T, seen *tracetest.SpanRecorder) {
	t.Helper()
	names := map[string]int{}
	for _, span := range seen.Ended() {
		if !strings.HasPrefix(span.Name(), "state ") {
			continue
		}
		names[span.Name()]++
		text := fmt.Sprint(span.Attributes())
		if !strings.Contains(text, "skein.user") || !strings.Contains(text, "skein.state.key_digest") || !strings.Contains(text, "skein.state.bytes") || strings.Contains(text, "key\xff") {
			t.Errorf("%s: %s", span.Name(), text)
		}
	}
	for _, op := range []string{"get", "stat", "set", "write", "set_range", "append", "delete", "list"} {
		if names["state "+op] == 0 {
			t.Errorf("no span of %s: %v", op, names)
		}
	}
}

// request is one over REST: header is pairs.
func request(t *testing.T, method, url string, body io.Reader, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(data)
}

func TestREST(t *testing.T) {
	addr := serve(t, "redis://"+miniredis.RunT(t).Addr())
	base := "http://" + addr + "/v1/state/ann/"
	big := strings.Repeat("0123456789abcdef", 5<<20/16)
	var tag string // of the last answer that had one
	for _, c := range []struct {
		method, path, body string
		header             []string
		status             int
		want               string // body, or what it contains if it is JSON; "…" skips it
	}{
		{"GET", "k", "", nil, 404, "NO_VALUE"},
		{"HEAD", "k", "", nil, 404, ""},
		{"DELETE", "k", "", nil, 404, "NO_VALUE"},
		{"PUT", "k", "hello", []string{"If-Match", `"5"`}, 412, "CAS_MISMATCH"},
		{"PUT", "k", "hello", []string{"If-None-Match", "*"}, 200, `"size":"5"`},
		{"PUT", "k", "hello", []string{"If-None-Match", "*"}, 412, "CAS_MISMATCH"},
		{"PUT", "k", big, []string{"If-None-Match", "*"}, 412, "CAS_MISMATCH"},
		{"PUT", "k", "HELLO", []string{"If-Match", "TAG"}, 200, `"key":"aw=="`},
		{"PUT", "k", "x", []string{"If-Match", "5"}, 400, "BAD_CONDITION"},
		{"PUT", "k", "x", []string{"If-Match", `"x"`}, 400, "BAD_CONDITION"},
		{"PUT", "k", "x", []string{"If-Match", `*`}, 400, "BAD_CONDITION"},
		{"PUT", "k", "x", []string{"If-None-Match", `"5"`}, 400, "BAD_CONDITION"},
		{"PUT", "k", "llo", []string{"Content-Range", "bytes 2-4/*"}, 200, `"size":"5"`},
		{"PUT", "k", "llo", []string{"Content-Range", "bytes 2-5/*"}, 400, "BAD_RANGE"},
		{"PUT", "k", "llo", []string{"Content-Range", "bytes 4-2/*"}, 400, "BAD_RANGE"},
		{"PUT", "k", "llo", []string{"Content-Range", "bytes -2-4/*"}, 400, "BAD_RANGE"},
		{"PUT", "k", "llo", []string{"Content-Range", "bytes 2-4/9"}, 400, "BAD_RANGE"},
		{"PUT", "k", "llo", []string{"Content-Range", "2-4/*"}, 400, "BAD_RANGE"},
		{"PUT", "k", "llo", []string{"Content-Range", "bytes 9223372036854775805-9223372036854775807/*"}, 413, "TOO_LARGE"},
		{"PUT", "k", "llo", []string{"Content-Range", "bytes 2-4/*", "If-Match", "TAG"}, 501, "NO_CONDITION"},
		{"GET", "k", "", nil, 200, "HEllo"},
		{"HEAD", "k", "", nil, 200, ""},
		{"POST", "k:append", " there", nil, 200, `"offset":"5"`},
		{"POST", "k:append?request_id=1", "!", nil, 200, `"offset":"11"`},
		{"POST", "k:append?request_id=1", "!", nil, 200, `"offset":"11"`},
		{"POST", "k:append?request_id=1", "?", nil, 409, "REQUEST_ID_REUSED"},
		{"POST", "k", "!", nil, 404, "NO_ROUTE"},
		{"POST", "k%3Aappend", "!", nil, 404, "NO_ROUTE"},
		{"POST", "k:append", big, nil, 413, "TOO_LARGE"},
		{"GET", "k", "", []string{"Range", "bytes=6-10"}, 206, "there"},
		{"GET", "k", "", []string{"Range", "bytes=6-"}, 206, "there!"},
		{"GET", "k", "", []string{"Range", "bytes=6-9223372036854775807"}, 206, "there!"},
		{"GET", "k", "", []string{"Range", "bytes=-6"}, 206, "there!"},
		{"GET", "k", "", []string{"Range", "bytes=-600"}, 206, "HEllo there!"},
		{"GET", "k", "", []string{"Range", "bytes=12-"}, 416, "BAD_RANGE"},
		{"GET", "k", "", []string{"Range", "bytes=-0"}, 416, "BAD_RANGE"},
		{"GET", "k", "", []string{"Range", "bytes=5-2"}, 400, "BAD_RANGE"},
		{"GET", "k", "", []string{"Range", "bytes=+1-2"}, 400, "BAD_RANGE"},
		{"GET", "k", "", []string{"Range", "bytes=x"}, 400, "BAD_RANGE"},
		{"GET", "k", "", []string{"Range", "lines=1-2"}, 200, "HEllo there!"},
		{"GET", "k", "", []string{"Range", "bytes=0-1,3-4"}, 200, "HEllo there!"},
		{"PUT", "k", big, nil, 200, `"size":"5242880"`},
		{"GET", "k", "", nil, 200, big},
		{"GET", "k", "", []string{"Range", "bytes=1000000-2999999"}, 206, big[1_000_000:3_000_000]},
		{"PUT", "k", big + big, nil, 413, "TOO_LARGE"},
		{"PUT", "k", "", nil, 200, `"size":"0"`},
		{"GET", "k", "", nil, 200, ""},
		{"GET", "k", "", []string{"Range", "bytes=0-"}, 416, "BAD_RANGE"},
		{"DELETE", "k?request_id=2", "", nil, 204, ""},
		{"DELETE", "k?request_id=2", "", nil, 204, ""},
		{"GET", "", "", nil, 400, "BAD_NAME"},
		{"PUT", "a%00b", "", nil, 400, "BAD_NAME"},
		{"PUT", strings.Repeat("k", skein.MaxKeyLen+1), "", nil, 400, "BAD_NAME"},
		{"PUT", "k?request_id=" + strings.Repeat("i", maxRequestID+1), "", nil, 400, "BAD_REQUEST_ID"},
		{"GET", "../Bob/k", "", nil, 400, "BAD_NAME"},
		{"GET", "?page_size=x", "", nil, 400, "BAD_NAME"},
		{"GET", "../ann?page_size=x", "", nil, 400, "BAD_PAGE"},
		{"GET", "../ann?page_token=%2B", "", nil, 400, "BAD_PAGE"},
		{"GET", "../ann", "", nil, 200, `{"values":[],"nextPageToken":""}`},
	} {
		for i, h := range c.header {
			if h == "TAG" {
				c.header[i] = tag
			}
		}
		resp, got := request(t, c.method, base+c.path, strings.NewReader(c.body), c.header...)
		what := fmt.Sprintf("%s %.80s %q", c.method, c.path, c.header)
		if resp.StatusCode != c.status {
			t.Errorf("%s: %s %.300s", what, resp.Status, got)
			continue
		}
		if e := resp.Header.Get("ETag"); e != "" {
			tag = e
		}
		if strings.Contains(resp.Header.Get("Content-Type"), "json") {
			if !strings.Contains(got, c.want) {
				t.Errorf("%s: %.300s, want %s", what, got, c.want)
			}
		} else if got != c.want {
			t.Errorf("%s: %d bytes %.80q, want %d", what, len(got), got, len(c.want))
		}
		if value := c.method == "GET" && c.status/100 == 2 && !strings.HasPrefix(c.path, ".."); value || c.method == "HEAD" && c.status == 200 {
			if resp.Header.Get("ETag") == "" || resp.Header.Get("Last-Modified") == "" || value && resp.ContentLength != int64(len(c.want)) {
				t.Errorf("%s: header %v", what, resp.Header)
			}
		}
		if c.status == 206 && !strings.HasPrefix(resp.Header.Get("Content-Range"), "bytes ") {
			t.Errorf("%s: Content-Range %q", what, resp.Header.Get("Content-Range"))
		}
	}
}

// Every key can be named, and what lists it tells how.
func TestRESTKeys(t *testing.T) {
	addr := serve(t, "redis://"+miniredis.RunT(t).Addr())
	base := "http://" + addr + "/v1/state/ann"
	for i, k := range hostileKeys {
		// An io.Reader of a type that net/http doesn't know, so that the length is unknown too.
		if resp, got := request(t, "PUT", base+"/"+escape(k), io.MultiReader(strings.NewReader(strconv.Itoa(i)))); resp.StatusCode != 200 {
			t.Errorf("%q: %s %s", k, resp.Status, got)
		}
	}
	token, found := "", 0
	for {
		resp, body := request(t, "GET", base+"?page_size=10&page_token="+token, nil)
		var page struct {
			Values []struct {
				Key        []byte
				Path, User string
				UpdateTime time.Time
			}
			NextPageToken string
		}
		if err := json.Unmarshal([]byte(body), &page); err != nil || resp.StatusCode != 200 {
			t.Fatal(resp.Status, body, err)
		}
		for _, v := range page.Values {
			i := slices.Index(hostileKeys, string(v.Key))
			if _, got := request(t, "GET", base+"/"+v.Path, nil); got != strconv.Itoa(i) || v.User != "ann" || v.UpdateTime.IsZero() {
				t.Errorf("%q at %s: %q %+v", v.Key, v.Path, got, v)
			}
			found++
		}
		if token = page.NextPageToken; token == "" {
			break
		}
	}
	if found != len(hostileKeys) {
		t.Errorf("listed %d of %d", found, len(hostileKeys))
	}
	// The plain form, and a verb on a key that ends like one.
	for path, want := range map[string]string{"a/b": "3", "a%2Fb": "3", "%3Aappend": strconv.Itoa(slices.Index(hostileKeys, ":append"))} {
		if _, got := request(t, "GET", base+"/"+path, nil); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	if resp, got := request(t, "POST", base+"/k%3Aappend:append", strings.NewReader("!")); resp.StatusCode != 200 || !strings.Contains(got, `"path":"k%3Aappend"`) {
		t.Error(resp.Status, got)
	}
	if _, got := request(t, "GET", base+"?prefix=a%2F", nil); strings.Count(got, `"path"`) != 2 {
		t.Error(got)
	}
}

// A body that is cut is not a value.
func TestRESTBodyCut(t *testing.T) {
	r := miniredis.RunT(t)
	addr := serve(t, "redis://"+r.Addr())
	for _, n := range []int{10, 3 << 20} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprintf(conn, "PUT /v1/state/ann/k HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", n+1)
		_, _ = conn.Write(make([]byte, n))
		_ = conn.(*net.TCPConn).CloseWrite()
		answer, _ := io.ReadAll(conn)
		_ = conn.Close()
		if line, _, _ := strings.Cut(string(answer), "\r\n"); !strings.Contains(line, "499") && line != "" {
			t.Errorf("after %d bytes: %s", n, line)
		}
		if keys := r.Keys(); len(keys) != 0 {
			t.Errorf("after %d bytes: %q", n, keys)
		}
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []struct{ url, want string }{
		{"http://x", "scheme"},
		{"redis://:hunter2@host:99999999\x7f/", "redis url"},
		{"redis://h/notadb", "database"},
		{"redis://h?unknown=1", "unknown"},
		{"redis://h?addr=x", ""},
		{"redis://h:1?addr=h:2", ""},
		{"redis://h:26379?master_name=m", ""},
		{"unix:///tmp/redis.sock", ""},
	} {
		d, err := open(c.url, time.Second)
		if err == nil {
			_ = d.close()
		}
		if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%q: %v", c.url, err)
		}
	}
	for _, max := range []int64{0, -1, MaxValue + 1} {
		cfg := DefaultConfig()
		cfg.MaxValue = max
		if err := cfg.Start(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "--max-value-size") {
			t.Errorf("%d: %v", max, err)
		}
	}
}
