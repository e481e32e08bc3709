package upload

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"

	"skein.dev"
	"skein.dev/platform/blob"
	"skein.dev/platform/blob/blobtest"
	"skein.dev/platform/fault"
	"skein.dev/platform/prepare"
	uploadv1 "skein.dev/proto/skein/upload/v1"
)

// failing is a bucket whose nth call fails, before it had its effect or after.
type failing struct {
	blob.Bucket
	left  atomic.Int64
	after bool
}

var errDown = fault.Unavailable.New("STORE_DOWN", "planned")

func (b *failing) now() bool { return b.left.Add(-1) == 0 }

func (b *failing) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, blob.Info, error) {
	if b.now() {
		return nil, blob.Info{}, errDown
	}
	return b.Bucket.Get(ctx, key, off, n)
}

func (b *failing) Put(ctx context.Context, key string, r io.Reader, size int64, opts blob.PutOptions) (info blob.Info, err error) {
	fails := b.now()
	if !fails || b.after {
		info, err = b.Bucket.Put(ctx, key, r, size, opts)
	}
	if fails {
		return blob.Info{}, errDown
	}
	return info, err
}

func (b *failing) Delete(ctx context.Context, key string) (err error) {
	fails := b.now()
	if !fails || b.after {
		err = b.Bucket.Delete(ctx, key)
	}
	if fails {
		return errDown
	}
	return err
}

func (b *failing) List(ctx context.Context, prefix, after string, limit int, delimiter bool) (blob.Page, error) {
	if b.now() {
		return blob.Page{}, errDown
	}
	return b.Bucket.List(ctx, prefix, after, limit, delimiter)
}

// Each call of the store fails once, in every kind of change: what is visible is the old or the new whole, and doing it
// again ends well, with a request id and without.
func TestFailureAtEveryCall(t *testing.T) {
	f := skein.Function{User: "ann", Name: "f"}
	changes := map[string]func(ctx context.Context, r *Registry, id string) (int64, error){
		"upload": func(ctx context.Context, r *Registry, id string) (int64, error) {
			fn, _, err := r.Upload(ctx, f, module("new"), id)
			return fn.Current.Number, err
		},
		"rollback": func(ctx context.Context, r *Registry, id string) (int64, error) {
			fn, err := r.RollBack(ctx, f, 1, id)
			return fn.Current.Number, err
		},
		"delete": func(ctx context.Context, r *Registry, id string) (int64, error) { return 0, r.Delete(ctx, f, id) },
	}
	result := map[string]int64{"upload": 3, "rollback": 1, "delete": 0}
	for name, change := range changes {
		for _, id := range []string{"", "id"} {
			for _, after := range []bool{false, true} {
				call := int64(1)
				for ; ; call++ {
					ctx := t.Context()
					bucket, err := blob.Open(ctx, "file:"+t.TempDir())
					if err != nil {
						t.Fatal(err)
					}
					b := &failing{Bucket: bucket, after: after}
					r := newRegistry(b)
					compiled(t, bucket, "one", "two", "next")
					if id != "" {
						compiled(t, bucket, "new") // else the change itself compiles
					}
					for _, text := range []string{"one", "two"} {
						if _, _, err := r.Upload(ctx, f, module(text), ""); err != nil {
							t.Fatal(err)
						}
					}
					b.left.Store(call)
					_, err = change(ctx, r, id)
					if b.left.Swap(0) > 0 {
						break // fewer calls than that
					}
					if err != nil && !errors.Is(err, errDown) {
						t.Errorf("%s, call %d: %v", name, call, err)
					}
					b.left.Store(0)
					now, err := r.Get(ctx, f)
					if err != nil && (name != "delete" || !errors.Is(err, fault.NotFound)) {
						t.Errorf("%s, call %d, then get: %v", name, call, err)
					} else if got := now.Current.Number; got != 2 && got != result[name] {
						t.Errorf("%s, call %d: version %d is current", name, call, got)
					}
					got, err := change(ctx, r, id)
					// A deletion that was through but for its answer can't be told from none, without an id.
					if err != nil && (name != "delete" || id != "" || !errors.Is(err, fault.NotFound)) || got != result[name] {
						t.Errorf("%s, call %d, id %q, after %v, again: version %d, %v", name, call, id, after, got, err)
					}
					if fn, _, err := r.Upload(ctx, f, module("next"), ""); err != nil || fn.Current.Number < 3 || name == "upload" && fn.Current.Number != 4 {
						t.Errorf("%s, call %d, then the next upload: %+v %v", name, call, fn, err)
					}
				}
				if call < 3 {
					t.Errorf("%s: only %d calls", name, call-1)
				}
			}
		}
	}
}

// A damaged module is put right by sending it again.
func TestRepair(t *testing.T) {
	ctx := t.Context()
	bucket, err := blob.Open(ctx, "file:"+t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r := newRegistry(bucket)
	f, wasm := skein.Function{User: "ann", Name: "f"}, module("x")
	if _, _, err := r.Upload(ctx, f, wasm, ""); err != nil {
		t.Fatal(err)
	}
	key := prepare.ModuleKey(skein.DigestOf(wasm))
	for _, damage := range [][]byte{bytes.Repeat([]byte("?"), len(wasm)), []byte("short")} {
		if _, err := bucket.Put(ctx, key, bytes.NewReader(damage), int64(len(damage)), blob.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, created, err := r.Upload(ctx, f, wasm, ""); err != nil || created {
			t.Errorf("%v %v", created, err)
		}
		if got, _, err := blob.Read(ctx, bucket, key, 1<<20); err != nil || !bytes.Equal(got, wasm) {
			t.Errorf("%q %v", got, err)
		}
	}
	for _, damage := range []string{"{", "{}", `{"first":1,"latest":1,"current":{"number":1,"digest":"x"}}`} {
		if _, err := bucket.Put(ctx, headKey(f), strings.NewReader(damage), int64(len(damage)), blob.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		_, err := r.Get(ctx, f)
		wants(t, err, fault.DataLoss, "STORE_CORRUPT")
	}
}

// The store is away when the service starts, comes, goes and comes back.
func TestStoreDown(t *testing.T) {
	minio := blobtest.Start(t, "minio")
	minio.Kill()
	cfg := DefaultConfig()
	cfg.Bucket = minio.URL()
	s := start(t, cfg)
	ready := func(want int) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			resp, err := http.Get("http://" + s.addr + "/healthz")
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode == want {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("health is %d, want %d", resp.StatusCode, want)
			}
		}
	}
	down := func() {
		t.Helper()
		ready(503)
		began := time.Now()
		if code, p := s.rest("PUT", "/v1/functions/ann/f", bytes.NewReader(module("down")), nil); code != 503 || p.Reason != "STORE_DOWN" {
			t.Errorf("%d %+v", code, p)
		}
		_, err := s.send("ann/f", module("down"), "", 1<<20)
		wants(t, err, fault.Unavailable, "STORE_DOWN")
		if code, p := s.rest("GET", "/v1/functions/ann/f", nil, nil); code != 503 || p.Reason != "STORE_DOWN" {
			t.Errorf("%d %+v", code, p)
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("that took %s", took)
		}
	}
	down()
	minio.Restart()
	ready(200)
	s.put("ann/f", module("one"), 201)
	minio.Kill()
	down()
	minio.Restart()
	ready(200)
	if got := s.numbers("ann", "f", 0); !slices.Equal(got, []int64{1}) {
		t.Errorf("versions %v", got)
	}
	if fn := s.put("ann/f", module("two"), 201); fn.GetCurrent().GetNumber() != 2 {
		t.Errorf("%v", fn)
	}
}

func TestIntake(t *testing.T) {
	in := &intake{1 << 20, semaphore.NewWeighted(2 << 20), time.Second}
	for _, n := range []int{0, 1, 1000, 64 << 10, 64<<10 + 1, 1<<20 - 1, 1 << 20} {
		want := bytes.Repeat([]byte{7}, n)
		for _, announced := range []int64{-1, 0, int64(n), min(int64(n)+1, 1<<20), 1 << 20} {
			got, release, err := in.read(bytes.NewReader(want), announced)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%d bytes, %d announced: %d, %v", n, announced, len(got), err)
			}
			release()
		}
	}
	for _, announced := range []int64{-1, 0, 1<<20 + 1} {
		_, _, err := in.read(bytes.NewReader(make([]byte, 1<<20+1)), announced)
		wants(t, err, fault.TooLarge, "TOO_LARGE")
	}
	_, first, err := in.read(bytes.NewReader(make([]byte, 1<<20)), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = in.read(bytes.NewReader(make([]byte, 1<<20)), 1<<20)
	wants(t, err, fault.Exhausted, "UPLOADS_BUSY")
	if fault.From(err).RetryAfter == 0 {
		t.Error("it doesn't say when to try again")
	}
	first()
	if !in.budget.TryAcquire(2 << 20) {
		t.Error("the budget was not given back")
	}
}

// Whoever stops in the middle is cut off, and leaves nothing.
func TestSlowAndCut(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Bucket = "file:" + t.TempDir()
	s := start(t, cfg)
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, "PUT /v1/functions/ann/f HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n\x00asm")
	_ = conn.Close()
	stream, err := s.rpc.Upload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	gate := &intake{1 << 20, semaphore.NewWeighted(2 << 20), 50 * time.Millisecond}
	slow := &frames{stream: silent{ctx: t.Context()}, gate: gate, next: make(chan frame)}
	_, _, err = gate.read(slow, -1)
	wants(t, err, fault.Timeout, "SLOW_UPLOAD")
	_ = stream.CloseSend()
	// Over REST the deadline is the connection's.
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _, err := gate.read(&body{r.Body, http.NewResponseController(w), gate}, -1)
		fault.WriteProblem(w, err, "", "")
	})}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = srv.Serve(lis) }()
	defer func() { _ = srv.Close() }()
	go func() { _, _ = w.Write([]byte("half")) }()
	resp, err := http.Post("http://"+lis.Addr().String(), "", r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusGatewayTimeout || !strings.Contains(string(text), "SLOW_UPLOAD") {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
	_ = w.Close()
	if keys := s.objects(); len(keys) != 0 {
		t.Errorf("something was stored: %v", keys)
	}
}

func TestHead(t *testing.T) {
	v := func(n int64) record { return record{Number: n, Digest: "d"} }
	h := head{}.promote(v(1)).promote(v(3)).promote(v(2))
	if h.Current.Number != 3 || h.Latest != 3 || h.First != 1 || !h.owns(2) || h.owns(4) {
		t.Errorf("%+v", h)
	}
	h = h.roll(v(1), time.Time{}).promote(v(2)) // an upload that ends late doesn't undo a rollback
	if h.Current.Number != 1 || h.Latest != 3 {
		t.Errorf("%+v", h)
	}
	h = h.bury(5, time.Time{})
	if h.exists() || !h.gone(5) || h.gone(6) || h.owns(3) {
		t.Errorf("%+v", h)
	}
	h = h.promote(v(6))
	if !h.exists() || h.First != 6 || !h.gone(5) || h.gone(6) {
		t.Errorf("%+v", h)
	}
	for i := range requestsKept + 5 {
		h = h.with(request{ID: string(rune('a' + i)), Op: "upload"})
	}
	if len(h.Requests) != requestsKept || h.Requests[requestsKept-1].ID != string(rune('a'+requestsKept+4)) {
		t.Errorf("%d requests are kept", len(h.Requests))
	}
}

func TestConfig(t *testing.T) {
	for _, bad := range []Config{
		{Bucket: "file:x", MaxModule: 0, Memory: 1 << 30},
		{Bucket: "file:x", MaxModule: skein.MaxModule + 1, Memory: 1 << 40},
		{Bucket: "file:x", MaxModule: 100, Memory: 199},
		{Bucket: "ftp://x", MaxModule: 100, Memory: 200},
		{Bucket: "file:x", MaxModule: 100, Memory: 200, ArtifactKey: "fifteen bytes.."},
	} {
		if err := bad.Start(t.Context(), nil); err == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
	cfg := DefaultConfig()
	fs := flag.NewFlagSet("upload", flag.ContinueOnError)
	cfg.Flags(fs)
	if err := fs.Parse([]string{"--bucket=file:y", "--max-module=5", "--upload-memory=10", "--artifact-key=k"}); err != nil || cfg != (Config{"file:y", 5, 10, "k"}) {
		t.Errorf("%+v %v", cfg, err)
	}
}

// silent is a stream on which nothing comes.
type silent struct {
	grpc.ClientStreamingServer[uploadv1.UploadRequest, uploadv1.UploadResponse]
	ctx context.Context
}

func (s silent) Context() context.Context { return s.ctx }
