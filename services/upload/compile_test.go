package upload

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"skein.dev"
	"skein.dev/platform/blob"
	"skein.dev/platform/compile"
	"skein.dev/platform/fault"
	"skein.dev/platform/prepare"
)

var artifacts sync.Map // text of a module → *compile.Artifact

// compiled puts the artifacts of modules into a bucket; each is compiled once in a run of tests.
func compiled(t *testing.T, bucket blob.Bucket, texts ...string) {
	t.Helper()
	for _, text := range texts {
		a, ok := artifacts.Load(text)
		if !ok {
			p, err := prepare.Prepare(module(text), prepare.DefaultLimits())
			if err != nil {
				t.Fatal(err)
			}
			if a, err = compile.Compile(t.Context(), p, compile.DefaultLimits()); err != nil {
				t.Fatal(err)
			}
			artifacts.Store(text, a)
		}
		if err := compile.Put(t.Context(), bucket, nil, a.(*compile.Artifact)); err != nil {
			t.Fatal(err)
		}
	}
}

// bomb is a module that takes the compiler minutes, if no limit but its own keeps it from that.
func bomb() []byte {
	const targets = 1_000_000
	uleb := func(n int) []byte {
		return []byte{byte(n) | 0x80, byte(n>>7) | 0x80, byte(n>>14) | 0x80, byte(n >> 21)}
	}
	body := slices.Concat([]byte("\x00\x02\x40\x41\x00\x0e"), uleb(targets), make([]byte, targets+1), []byte("\x0b\x0b"))
	code := slices.Concat([]byte{1}, uleb(len(body)), body)
	return bytes.Replace(module(""), []byte("\x0a\x04\x01\x02\x00\x0b"), slices.Concat([]byte{0x0a}, uleb(len(code)), code), 1)
}

// counting counts what is put, by the beginning of its key.
type counting struct {
	blob.Bucket
	modules, artifacts atomic.Int64
}

func (b *counting) Put(ctx context.Context, key string, r io.Reader, size int64, opts blob.PutOptions) (blob.Info, error) {
	switch {
	case strings.HasPrefix(key, "modules/"):
		b.modules.Add(1)
	case strings.HasPrefix(key, "artifacts/"):
		b.artifacts.Add(1)
	}
	return b.Bucket.Put(ctx, key, r, size, opts)
}

func newBucket(t *testing.T) *counting {
	t.Helper()
	bucket, err := blob.Open(t.Context(), "file:"+t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &counting{Bucket: bucket}
}

// What executors find is the very module, compiled: once, whoever sends it and however often.
func TestCompiledOnce(t *testing.T) {
	bucket := newBucket(t)
	r, wasm := newRegistry(bucket), module("x")
	d := skein.DigestOf(wasm)
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			if _, _, err := r.Upload(t.Context(), skein.Function{User: "ann", Name: string(rune('a' + i%26))}, wasm, ""); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if m, a := bucket.modules.Load(), bucket.artifacts.Load(); m != 1 || a != 1 {
		t.Errorf("%d modules and %d artifacts were put", m, a)
	}
	a, err := compile.Get(t.Context(), bucket, nil, d)
	if err != nil {
		t.Fatal(err)
	}
	want, err := prepare.Prepare(wasm, prepare.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Prepared.Wasm, want.Wasm) || a.Prepared.Module.Digest != d || len(a.Code) == 0 {
		t.Errorf("%+v", a)
	}
}

// An artifact that is damaged, another's, or made with another key is made anew by the next upload.
func TestArtifactRepair(t *testing.T) {
	bucket, ctx := newBucket(t), t.Context()
	r, f, wasm := newRegistry(bucket), skein.Function{User: "ann", Name: "f"}, module("x")
	r.key = []byte("a key that is a secret")
	if _, _, err := r.Upload(ctx, f, wasm, ""); err != nil {
		t.Fatal(err)
	}
	fingerprint, err := compile.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	key := compile.Key(skein.DigestOf(wasm), fingerprint)
	good, _, err := blob.Read(ctx, bucket, key, compile.MaxArtifact)
	if err != nil {
		t.Fatal(err)
	}
	compiled(t, bucket, "one", "x") // with no key
	swapped, _, err := blob.Read(ctx, bucket, compile.Key(skein.DigestOf(module("one")), fingerprint), compile.MaxArtifact)
	if err != nil {
		t.Fatal(err)
	}
	unkeyed, _, err := blob.Read(ctx, bucket, key, compile.MaxArtifact)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	for name, damage := range map[string][]byte{"flipped": flipped, "cut": good[:100], "empty": nil, "swapped": swapped, "unkeyed": unkeyed} {
		if _, err := bucket.Put(ctx, key, bytes.NewReader(damage), int64(len(damage)), blob.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		_, err := compile.Get(ctx, bucket, r.key, skein.DigestOf(wasm))
		wants(t, err, fault.DataLoss, "ARTIFACT_DAMAGED")
		if _, created, err := r.Upload(ctx, f, wasm, ""); err != nil || created {
			t.Errorf("%s: %v %v", name, created, err)
		}
		if _, err := compile.Get(ctx, bucket, r.key, skein.DigestOf(wasm)); err != nil {
			t.Errorf("%s, then: %v", name, err)
		}
	}
}

// A module that would keep the compiler busy for minutes is refused in time, and nothing of it stays.
func TestTooCostly(t *testing.T) {
	bucket := newBucket(t)
	r, f := newRegistry(bucket), skein.Function{User: "ann", Name: "f"}
	r.limits.Targets, r.limits.BodyBytes = 1<<30, 1<<30
	r.effort.CPU = time.Second
	_, _, err := r.Upload(t.Context(), f, bomb(), "")
	wants(t, err, fault.Invalid, "MODULE_TOO_COSTLY")
	for item, err := range blob.All(t.Context(), bucket, "") {
		t.Errorf("%s was stored, %v", item.Key, err)
	}
	// Whoever sends it and goes away frees the compiler.
	r.effort = compile.DefaultLimits()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, _, err := r.Upload(ctx, f, bomb(), ""); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, fault.Timeout) {
		t.Error(err)
	}
	if _, _, err := r.Upload(t.Context(), f, module("x"), ""); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("it took %s", took)
	}
}

// The last of those who wait ends the work; another who comes meanwhile keeps it going.
func TestBuilds(t *testing.T) {
	var b builds
	d := skein.DigestOf(nil)
	started, ended, finish := make(chan struct{}, 9), make(chan struct{}, 9), make(chan struct{})
	work := func(ctx context.Context) error {
		started <- struct{}{}
		defer func() { ended <- struct{}{} }()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-finish:
			return nil
		}
	}
	first, leave := context.WithCancel(t.Context())
	errs := make(chan error, 9)
	go func() { errs <- b.do(first, d, work) }()
	<-started
	second, leaveToo := context.WithCancel(t.Context())
	go func() { errs <- b.do(second, d, work) }()
	for waiting := 0; waiting < 2; time.Sleep(time.Millisecond) {
		b.mu.Lock()
		waiting = b.all[d].waiting
		b.mu.Unlock()
	}
	leave()
	if err := <-errs; !errors.Is(err, context.Canceled) || len(ended) > 0 {
		t.Fatalf("%v, %d ended", err, len(ended))
	}
	leaveToo()
	if err := <-errs; !errors.Is(err, context.Canceled) || len(ended) != 1 {
		t.Fatalf("%v, %d ended", err, len(ended))
	}
	go func() { errs <- b.do(t.Context(), d, work) }()
	<-started
	close(finish)
	if err := <-errs; err != nil || len(b.all) != 0 {
		t.Fatalf("%v, %d are left", err, len(b.all))
	}
}
