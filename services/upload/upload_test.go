package upload

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"skein.dev"
	"skein.dev/platform/blob"
	"skein.dev/platform/blob/blobtest"
	"skein.dev/platform/compile"
	"skein.dev/platform/compile/compiletest"
	"skein.dev/platform/fault"
	"skein.dev/platform/prepare"
	"skein.dev/platform/service"
	uploadv1 "skein.dev/proto/skein/upload/v1"
)

func TestMain(m *testing.M) {
	os.Exit(compiletest.Main(m, ""))
}

// newRegistry is one as Config makes it.
func newRegistry(bucket blob.Bucket) *Registry {
	return &Registry{bucket: bucket, limits: prepare.DefaultLimits(), effort: compile.DefaultLimits()}
}

// module is a small valid command that imports proc_exit; each text makes another.
func module(text string) []byte {
	custom := append([]byte{4, 't', 'e', 'x', 't'}, text...)
	size := []byte{byte(len(custom)&0x7f | 0x80), byte(len(custom)>>7&0x7f | 0x80), byte(len(custom) >> 14)}
	return slices.Concat([]byte("\x00asm\x01\x00\x00\x00"),
		[]byte("\x01\x08\x02\x60\x00\x00\x60\x01\x7f\x00"),
		[]byte("\x02\x24\x01\x16wasi_snapshot_preview1\x09proc_exit\x00\x01"),
		[]byte("\x03\x02\x01\x00"),
		[]byte("\x07\x0a\x01\x06_start\x00\x01"),
		[]byte("\x0a\x04\x01\x02\x00\x0b"),
		[]byte{0}, size, custom)
}

// suite is a running service with a client of each kind.
type suite struct {
	t      *testing.T
	addr   string
	rpc    uploadv1.UploadServiceClient
	bucket blob.Bucket
}

func start(t *testing.T, cfg Config) *suite {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	addr, done := make(chan string, 1), make(chan error, 1)
	base := service.DefaultConfig()
	base.Listen, base.Quiet, base.Name, base.Grace = "127.0.0.1:0", true, "upload", 5*time.Second
	base.OnListen = func(a string) { addr <- a }
	go func() { done <- service.Run(ctx, base, cfg.Start) }()
	s := &suite{t: t}
	select {
	case s.addr = <-addr:
	case err := <-done:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	conn, err := service.Connect(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	s.rpc = uploadv1.NewUploadServiceClient(conn)
	if s.bucket, err = blob.Open(ctx, cfg.Bucket); err != nil {
		t.Fatal(err)
	}
	return s
}

// everywhere runs a test over a directory and over a real MinIO.
func everywhere(t *testing.T, test func(t *testing.T, cfg Config)) {
	t.Run("directory", func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.Bucket = "file:" + t.TempDir()
		test(t, cfg)
	})
	t.Run("minio", func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.Bucket = blobtest.MinIO(t)
		test(t, cfg)
	})
}

// rest sends a request and reads the answer: its status, and its JSON if to is not nil.
func (s *suite) rest(method, path string, body io.Reader, to proto.Message) (int, fault.Problem) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, "http://"+s.addr+path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	var problem fault.Problem
	switch {
	case resp.StatusCode >= 400:
		if err := json.Unmarshal(data, &problem); err != nil {
			s.t.Fatalf("%s: %v", data, err)
		}
	case to != nil:
		if err := protojson.Unmarshal(data, to); err != nil {
			s.t.Fatalf("%s: %v", data, err)
		}
	}
	return resp.StatusCode, problem
}

// put uploads over REST and wants this status.
func (s *suite) put(name string, wasm []byte, status int) *uploadv1.Function {
	s.t.Helper()
	fn := &uploadv1.Function{}
	if got, problem := s.rest("PUT", "/v1/functions/"+name, bytes.NewReader(wasm), fn); got != status {
		s.t.Fatalf("PUT %s: %d %+v, want %d", name, got, problem, status)
	}
	return fn
}

// send uploads over gRPC in frames of some bytes.
func (s *suite) send(name string, wasm []byte, id string, frame int) (*uploadv1.UploadResponse, error) {
	user, function, _ := strings.Cut(name, "/")
	stream, err := s.rpc.Upload(s.t.Context())
	if err != nil {
		return nil, err
	}
	msg := &uploadv1.UploadRequest{User: user, Function: function, RequestId: id}
	for first := true; first || len(wasm) > 0; first = false {
		n := min(frame, len(wasm))
		msg.Data, wasm = wasm[:n], wasm[n:]
		if err := stream.Send(msg); err != nil {
			break // CloseAndRecv says why
		}
		msg = &uploadv1.UploadRequest{}
	}
	return stream.CloseAndRecv()
}

func (s *suite) objects() (keys []string) {
	s.t.Helper()
	for item, err := range blob.All(s.t.Context(), s.bucket, "") {
		if err != nil {
			s.t.Fatal(err)
		}
		keys = append(keys, item.Key)
	}
	return keys
}

func (s *suite) numbers(user, function string, size int32) (numbers []int64) {
	s.t.Helper()
	token := ""
	for {
		page, err := s.rpc.ListVersions(s.t.Context(), &uploadv1.ListVersionsRequest{User: user, Function: function, PageSize: size, PageToken: token})
		if err != nil {
			s.t.Fatal(err)
		}
		for _, v := range page.GetVersions() {
			numbers = append(numbers, v.GetNumber())
		}
		if token = page.GetNextPageToken(); token == "" {
			return numbers
		}
	}
}

func wants(t *testing.T, err error, kind *fault.Kind, reason string) {
	t.Helper()
	if e := fault.From(err); err == nil || e.Kind != kind || e.Reason != reason {
		t.Errorf("want %s %s, got %+v", kind, reason, e)
	}
}

func TestLife(t *testing.T) {
	everywhere(t, func(t *testing.T, cfg Config) {
		s := start(t, cfg)
		one, two := module("one"), module(strings.Repeat("two", 50_000))

		// The first upload says all that is known.
		fn := s.put("ann/echo", one, 201)
		v := fn.GetCurrent()
		if fn.GetUser() != "ann" || fn.GetName() != "echo" || v.GetNumber() != 1 || v.GetSize() != int64(len(one)) ||
			v.GetDigest() != skein.DigestOf(one).String() || v.GetKind() != uploadv1.ModuleKind_MODULE_KIND_COMMAND ||
			!slices.Equal(v.GetImports(), []string{"wasi_snapshot_preview1.proc_exit"}) || time.Since(v.GetCreateTime().AsTime()) > time.Minute {
			t.Fatalf("%v", fn)
		}
		stored, _, err := blob.Read(t.Context(), s.bucket, prepare.ModuleKey(skein.DigestOf(one)), 1<<20)
		if err != nil || !bytes.Equal(stored, one) {
			t.Fatalf("stored %d bytes, %v", len(stored), err)
		}
		// The same bytes again are nothing new.
		if again := s.put("ann/echo", one, 200); !proto.Equal(again, fn) {
			t.Errorf("%v, want %v", again, fn)
		}
		// Others are, over gRPC too.
		up, err := s.send("ann/echo", two, "", 1<<20-1)
		if err != nil || !up.GetCreated() || up.GetFunction().GetCurrent().GetNumber() != 2 {
			t.Fatalf("%v %v", up, err)
		}
		if up, err = s.send("ann/echo", two, "", 7777); err != nil || up.GetCreated() {
			t.Fatalf("%v %v", up, err)
		}
		// Another function shares the module.
		s.put("ann/other", two, 201)
		s.put("bob/echo", one, 201)
		if keys := s.objects(); len(keys) != 2+2+3+4 { // modules, artifacts, heads, records
			t.Errorf("%v", keys)
		}

		got := &uploadv1.Function{}
		if code, _ := s.rest("GET", "/v1/functions/ann/echo", nil, got); code != 200 || !proto.Equal(got, mustGet(t, s, "ann", "echo")) || got.GetCurrent().GetNumber() != 2 {
			t.Errorf("%d %v", code, got)
		}
		versions := &uploadv1.ListVersionsResponse{}
		if code, _ := s.rest("GET", "/v1/functions/ann/echo/versions", nil, versions); code != 200 || len(versions.GetVersions()) != 2 ||
			!proto.Equal(versions.GetVersions()[1], v) || versions.GetNextPageToken() != "" {
			t.Errorf("%d %v", code, versions)
		}

		// Rolling back names an older one; the next upload is new again.
		if code, _ := s.rest("POST", "/v1/functions/ann/echo:rollBack", strings.NewReader("{}"), got); code != 200 || got.GetCurrent().GetNumber() != 1 {
			t.Errorf("%d %v", code, got)
		}
		if code, p := s.rest("POST", "/v1/functions/ann/echo:rollBack", strings.NewReader("{}"), nil); code != 404 || p.Reason != "NO_VERSION" {
			t.Errorf("%d %+v", code, p)
		}
		if code, p := s.rest("POST", "/v1/functions/ann/echo:rollBack", strings.NewReader(`{"version": 9}`), nil); code != 404 || p.Reason != "NO_VERSION" {
			t.Errorf("%d %+v", code, p)
		}
		if code, _ := s.rest("POST", "/v1/functions/ann/echo:rollBack", strings.NewReader(`{"version": "2"}`), got); code != 200 || got.GetCurrent().GetNumber() != 2 {
			t.Errorf("%d %v", code, got)
		}
		s.put("ann/echo", one, 201)
		if got := s.numbers("ann", "echo", 2); !slices.Equal(got, []int64{3, 2, 1}) {
			t.Errorf("%v", got)
		}

		// Deleting ends it; coming back goes on counting.
		if code, p := s.rest("DELETE", "/v1/functions/ann/echo", nil, nil); code != 200 {
			t.Fatalf("%d %+v", code, p)
		}
		for _, call := range [][2]string{{"GET", ""}, {"GET", "/versions"}, {"DELETE", ""}, {"POST", ":rollBack"}} {
			if code, p := s.rest(call[0], "/v1/functions/ann/echo"+call[1], strings.NewReader("{}"), nil); code != 404 || p.Reason != "NO_FUNCTION" {
				t.Errorf("%s %s after delete: %d %+v", call[0], call[1], code, p)
			}
		}
		if keys := s.objects(); len(keys) != 2+2+3+2 {
			t.Errorf("after delete: %v", keys)
		}
		if fn := s.put("ann/echo", one, 201); fn.GetCurrent().GetNumber() != 4 {
			t.Errorf("%v", fn)
		}
		if code, p := s.rest("POST", "/v1/functions/ann/echo:rollBack", strings.NewReader(`{"version": 3}`), nil); code != 404 || p.Reason != "NO_VERSION" {
			t.Errorf("%d %+v", code, p)
		}
		if got := s.numbers("ann", "echo", 0); !slices.Equal(got, []int64{4}) {
			t.Errorf("%v", got)
		}
	})
}

func mustGet(t *testing.T, s *suite, user, function string) *uploadv1.Function {
	t.Helper()
	got, err := s.rpc.GetFunction(t.Context(), &uploadv1.GetFunctionRequest{User: user, Function: function})
	if err != nil {
		t.Fatal(err)
	}
	return got.GetFunction()
}

func TestList(t *testing.T) {
	everywhere(t, func(t *testing.T, cfg Config) {
		s := start(t, cfg)
		var want []string
		for _, user := range []string{"ann", "an", "bob", "zoe"} {
			for i := range 7 {
				name := fmt.Sprintf("%s/f%d", user, i)
				s.put(name, module(user), 201)
				want = append(want, name)
			}
		}
		for _, gone := range []string{"ann/f3", "bob/f0", "zoe/f6"} {
			if code, _ := s.rest("DELETE", "/v1/functions/"+gone, nil, nil); code != 200 {
				t.Fatal(code)
			}
			want = slices.DeleteFunc(want, func(s string) bool { return s == gone })
		}
		slices.Sort(want)
		walk := func(user string, size int32) (names []string) {
			token := ""
			for range 40 {
				page, err := s.rpc.ListFunctions(t.Context(), &uploadv1.ListFunctionsRequest{User: user, PageSize: size, PageToken: token})
				if err != nil {
					t.Fatal(err)
				}
				if size > 0 && len(page.GetFunctions()) > int(size) {
					t.Errorf("a page of %d", len(page.GetFunctions()))
				}
				for _, fn := range page.GetFunctions() {
					names = append(names, fn.GetUser()+"/"+fn.GetName())
				}
				if token = page.GetNextPageToken(); token == "" {
					return names
				}
			}
			t.Fatal("no end")
			return nil
		}
		for _, size := range []int32{0, 1, 2, 3, 7, 1000} {
			if got := walk("", size); !slices.Equal(got, want) {
				t.Errorf("pages of %d: %v", size, got)
			}
			var of []string
			for _, name := range want {
				if strings.HasPrefix(name, "ann/") {
					of = append(of, name)
				}
			}
			if got := walk("ann", size); !slices.Equal(got, of) {
				t.Errorf("ann's, pages of %d: %v", size, got)
			}
		}
		list := &uploadv1.ListFunctionsResponse{}
		if code, _ := s.rest("GET", "/v1/functions/bob?page_size=2", nil, list); code != 200 || len(list.GetFunctions()) != 1 || list.GetNextPageToken() == "" {
			t.Errorf("%d %v", code, list)
		}
		for _, bad := range []string{"/v1/functions?page_token=%%", "/v1/functions?page_token=zzz", "/v1/functions/ann?page_token=" + list.GetNextPageToken(), "/v1/functions?page_size=-1", "/v1/functions/ann/f1/versions?page_token=x", "/v1/functions/ann/f1/versions?page_token=-9223372036854775808"} {
			if code, p := s.rest("GET", bad, nil, nil); code != 400 {
				t.Errorf("%s: %d %+v", bad, code, p)
			}
		}
		if code, p := s.rest("GET", "/v1/functions/Ann", nil, nil); code != 400 || p.Reason != "BAD_NAME" {
			t.Errorf("%d %+v", code, p)
		}
	})
}

// What is refused must leave nothing behind, over REST as over gRPC.
func TestRefused(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Bucket, cfg.MaxModule = "file:"+t.TempDir(), 1<<20
	s := start(t, cfg)
	good := module("good")
	imports := func(from, to string) []byte { return bytes.Replace(good, []byte(from), []byte(to), 1) }
	for _, c := range []struct {
		name, function string
		wasm           []byte
		kind           *fault.Kind
		reason         string
	}{
		{"empty", "ann/f", nil, fault.Invalid, "BAD_MODULE"},
		{"truncated", "ann/f", good[:len(good)-1], fault.Invalid, "BAD_MODULE"},
		{"header", "ann/f", good[:7], fault.Invalid, "BAD_MODULE"},
		{"text", "ann/f", []byte("<html>"), fault.Invalid, "BAD_MODULE"},
		{"component", "ann/f", []byte("\x00asm\x0d\x00\x01\x00"), fault.Invalid, "MODULE_IS_COMPONENT"},
		{"no entry", "ann/f", imports("_start", "_stort"), fault.Invalid, "NO_ENTRY"},
		{"entry type", "ann/f", imports("_start\x00\x01", "_start\x00\x00"), fault.Invalid, "ABI_MISMATCH"},
		{"unknown import", "ann/f", imports("proc_exit", "proc_quit"), fault.Invalid, "UNKNOWN_IMPORT"},
		{"import type", "ann/f", imports("proc_exit\x00\x01", "proc_exit\x00\x00"), fault.Invalid, "ABI_MISMATCH"},
		{"type error", "ann/f", bytes.Replace(good, []byte("\x0a\x04\x01\x02\x00\x0b"), []byte("\x0a\x05\x01\x03\x00\x1a\x0b"), 1), fault.Invalid, "BAD_MODULE"},
		{"oversized", "ann/f", append(good, make([]byte, 1<<20)...), fault.TooLarge, "TOO_LARGE"},
		{"user", "Ann/f", good, fault.Invalid, "BAD_NAME"},
		{"function", "ann/-f", good, fault.Invalid, "BAD_NAME"},
		{"function with a verb", "ann/f:rollBack", good, fault.Invalid, "BAD_NAME"},
		{"long name", "ann/" + strings.Repeat("f", 64), good, fault.Invalid, "BAD_NAME"},
	} {
		t.Run(c.name, func(t *testing.T) {
			// With a length, and in chunks without one.
			for _, body := range []io.Reader{bytes.NewReader(c.wasm), io.MultiReader(bytes.NewReader(c.wasm))} {
				code, p := s.rest("PUT", "/v1/functions/"+c.function, body, nil)
				if code != c.kind.HTTP || p.Reason != c.reason || p.Detail == "" || p.Hint == "" && c.reason != "BAD_NAME" {
					t.Errorf("REST: %d %+v", code, p)
				}
			}
			_, err := s.send(c.function, c.wasm, "", 1000)
			wants(t, err, c.kind, c.reason)
		})
	}
	if code, p := s.rest("PUT", "/v1/functions/ann/f?request_id="+strings.Repeat("x", 200), bytes.NewReader(good), nil); code != 400 || p.Reason != "BAD_REQUEST_ID" {
		t.Errorf("%d %+v", code, p)
	}
	_, err := s.send("ann/f", make([]byte, 1<<20+1), "", 1<<20+1)
	wants(t, err, fault.TooLarge, "FRAME_TOO_LARGE")
	stream, err := s.rpc.Upload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.CloseAndRecv()
	wants(t, err, fault.Invalid, "BAD_FRAME")
	stream, err = s.rpc.Upload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = stream.Send(&uploadv1.UploadRequest{User: "ann", Function: "f", Data: good[:20]})
	_ = stream.Send(&uploadv1.UploadRequest{User: "bob", Data: good[20:]})
	_, err = stream.CloseAndRecv()
	wants(t, err, fault.Invalid, "BAD_FRAME")

	if keys := s.objects(); len(keys) != 0 {
		t.Errorf("something was stored: %v", keys)
	}
	// A module of exactly the limit is not refused.
	s.put("ann/f", module(strings.Repeat("x", 1<<20-len(module(""))))[:1<<20], 201)
}

func TestRequestID(t *testing.T) {
	everywhere(t, func(t *testing.T, cfg Config) {
		s := start(t, cfg)
		const clients = 20
		answers := make([]*uploadv1.UploadResponse, clients)
		var wg sync.WaitGroup
		for i := range clients {
			wg.Go(func() {
				var err error
				if answers[i], err = s.send("ann/f", module("a"), "first", 100); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, a := range answers {
			if !proto.Equal(a, answers[0]) || !a.GetCreated() || a.GetFunction().GetCurrent().GetNumber() != 1 {
				t.Errorf("%v", a)
			}
		}
		_, err := s.send("ann/f", module("b"), "first", 100)
		wants(t, err, fault.Exists, "REQUEST_ID_REUSED")

		s.put("ann/f?request_id=second", module("b"), 201)
		s.put("ann/f?request_id=third", module("b"), 200)
		s.put("ann/f", module("c"), 201)
		if fn := s.put("ann/f?request_id=third", module("b"), 200); fn.GetCurrent().GetNumber() != 2 {
			t.Errorf("%v", fn)
		}
		if fn := s.put("ann/f?request_id=second", module("b"), 201); fn.GetCurrent().GetNumber() != 2 {
			t.Errorf("%v", fn)
		}
		if got := mustGet(t, s, "ann", "f").GetCurrent().GetNumber(); got != 3 {
			t.Errorf("a repetition made %d current", got)
		}
		back := &uploadv1.RollBackRequest{User: "ann", Function: "f", RequestId: "back"}
		for range 3 {
			if got, err := s.rpc.RollBack(t.Context(), back); err != nil || got.GetFunction().GetCurrent().GetNumber() != 2 {
				t.Errorf("%v %v", got, err)
			}
		}
		_, err = s.rpc.RollBack(t.Context(), &uploadv1.RollBackRequest{User: "ann", Function: "f", RequestId: "first"})
		wants(t, err, fault.Exists, "REQUEST_ID_REUSED")
		_, err = s.rpc.RollBack(t.Context(), &uploadv1.RollBackRequest{User: "ann", Function: "f", RequestId: "back", Version: 1})
		wants(t, err, fault.Exists, "REQUEST_ID_REUSED")
		for range 2 {
			if _, err := s.rpc.DeleteFunction(t.Context(), &uploadv1.DeleteFunctionRequest{User: "ann", Function: "f", RequestId: "away"}); err != nil {
				t.Error(err)
			}
		}
		s.put("ann/f", module("d"), 201)
		if _, err := s.rpc.DeleteFunction(t.Context(), &uploadv1.DeleteFunctionRequest{User: "ann", Function: "f", RequestId: "away"}); err != nil {
			t.Error(err)
		}
		if got := mustGet(t, s, "ann", "f").GetCurrent().GetNumber(); got != 4 {
			t.Errorf("a repeated deletion took %d", got)
		}
	})
}

// Many at the same time, through two processes: no number twice, none lost, the greatest current.
func TestConcurrent(t *testing.T) {
	everywhere(t, func(t *testing.T, cfg Config) {
		a, b := start(t, cfg), start(t, cfg)
		const n = 24
		for i := range n - 4 { // the others are compiled in the midst
			compiled(t, a.bucket, fmt.Sprint(i))
		}
		numbers := make([]int64, n)
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				up, err := []*suite{a, b}[i%2].send("ann/f", module(fmt.Sprint(i)), fmt.Sprint("id", i), 1<<20)
				if err != nil {
					t.Error(err)
					return
				}
				numbers[i] = up.GetFunction().GetCurrent().GetNumber()
			})
		}
		wg.Wait()
		sorted := slices.Sorted(slices.Values(numbers))
		for i, got := range sorted {
			if got != int64(i+1) {
				t.Fatalf("numbers %v", sorted)
			}
		}
		fn := mustGet(t, a, "ann", "f")
		if fn.GetCurrent().GetNumber() != n {
			t.Errorf("current is %v", fn)
		}
		versions := a.numbers("ann", "f", 5)
		slices.Reverse(versions)
		if !slices.Equal(versions, sorted) {
			t.Errorf("versions %v", versions)
		}

		// Everything at once: what is current at the end is a version that is there, with its module.
		for i := range 3 * n {
			wg.Go(func() {
				s := []*suite{a, b}[i%2]
				var err error
				switch i % 6 {
				case 0:
					_, err = s.rpc.DeleteFunction(t.Context(), &uploadv1.DeleteFunctionRequest{User: "ann", Function: "f"})
				case 1:
					_, err = s.rpc.RollBack(t.Context(), &uploadv1.RollBackRequest{User: "ann", Function: "f"})
				default:
					_, err = s.send("ann/f", module(fmt.Sprint(i%n)), "", 1<<20)
				}
				if err != nil && !errors.Is(err, fault.NotFound) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		a.put("ann/f", module("last"), 201)
		last := mustGet(t, b, "ann", "f").GetCurrent().GetNumber()
		for i, number := range b.numbers("ann", "f", 0) {
			if number > last || i == 0 && number != last {
				t.Errorf("version %d is listed, %d is current", number, last)
			}
		}
		for v := range allVersions(t, b) {
			d, err := skein.ParseDigest(v.GetDigest())
			if err != nil {
				t.Fatal(err)
			}
			if data, _, err := blob.Read(t.Context(), b.bucket, prepare.ModuleKey(d), 1<<20); err != nil || skein.DigestOf(data) != d {
				t.Errorf("version %d: %v", v.GetNumber(), err)
			}
		}
	})
}

func allVersions(t *testing.T, s *suite) func(func(*uploadv1.Version) bool) {
	return func(yield func(*uploadv1.Version) bool) {
		page, err := s.rpc.ListVersions(t.Context(), &uploadv1.ListVersionsRequest{User: "ann", Function: "f", PageSize: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range page.GetVersions() {
			if !yield(v) {
				return
			}
		}
	}
}
