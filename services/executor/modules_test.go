package executor

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"skein.dev"
	"skein.dev/platform/blob"
	"skein.dev/platform/compile"
	"skein.dev/platform/compile/compiletest"
	"skein.dev/platform/fault"
	"skein.dev/platform/prepare"
	"skein.dev/services/executor/internal/host"
	"skein.dev/services/executor/internal/machine"
)

func TestMain(m *testing.M) {
	os.Exit(compiletest.Main(m, ""))
}

// counter is a reactor that exits with how often its handle has run in its memory, and whose start function makes that 7.
var counter = slices.Concat(
	[]byte("\x00asm\x01\x00\x00\x00"),
	[]byte{1, 8, 2, 0x60, 0, 0, 0x60, 0, 1, 0x7f},
	[]byte{3, 3, 2, 0, 1},
	[]byte{5, 3, 1, 0, 1},
	[]byte{7, 10, 1, 6}, []byte("handle"), []byte{0, 1},
	[]byte{8, 1, 0},
	[]byte{10, 29, 2},
	[]byte{9, 0, 0x41, 0, 0x41, 7, 0x36, 2, 0, 0x0b},
	[]byte{17, 0, 0x41, 0, 0x41, 0, 0x28, 2, 0, 0x41, 1, 0x6a, 0x36, 2, 0, 0x41, 8, 0x0b},
)

// place is an executor's store and loader without the rest.
type place struct {
	t      testing.TB
	bucket blob.Bucket
	dir    string
	spans  *tracetest.SpanRecorder
}

func newPlace(t testing.TB) *place {
	t.Helper()
	dir := t.TempDir()
	bucket, err := blob.Open(t.Context(), "file:"+dir)
	if err != nil {
		t.Fatal(err)
	}
	p := &place{t: t, bucket: bucket, dir: dir, spans: tracetest.NewSpanRecorder()}
	before := otel.GetTracerProvider()
	otel.SetTracerProvider(trace.NewTracerProvider(trace.WithSpanProcessor(p.spans)))
	t.Cleanup(func() { otel.SetTracerProvider(before) })
	return p
}

// executor opens one more on the same store.
func (p *place) executor(key string) *modules {
	p.t.Helper()
	m, err := machine.Open(p.t.Context(), machine.Config{GuestMemory: 16 << 20, WarmMemory: 16 << 20}, host.Link)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			p.t.Error(err)
		}
	})
	b := newBehind()
	p.t.Cleanup(b.close)
	return &modules{
		bucket: p.bucket, key: []byte(key), machine: m, log: slog.New(slog.DiscardHandler), behind: b, budget: 1 << 30, all: map[skein.Digest]*module{},
	}
}

// did counts the spans of a name.
func (p *place) did(name string) (n int) {
	for _, s := range p.spans.Ended() {
		if s.Name() == name {
			n++
		}
	}
	return n
}

// await waits for the nth span of a name.
func (p *place) await(name string, n int) {
	p.t.Helper()
	for end := time.Now().Add(time.Minute); p.did(name) < n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("%d of %d times: %s", p.did(name), n, name)
		}
	}
}

func (p *place) put(wasm []byte) skein.Digest {
	p.t.Helper()
	d := skein.DigestOf(wasm)
	if _, err := p.bucket.Put(p.t.Context(), prepare.ModuleKey(d), bytes.NewReader(wasm), int64(len(wasm)), blob.PutOptions{}); err != nil {
		p.t.Fatal(err)
	}
	return d
}

func (p *place) call(s *modules, d skein.Digest) (skein.Result, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	mod, _, err := s.acquire(ctx, d)
	if err != nil {
		return skein.Result{}, err
	}
	defer s.release(d)
	return result(mod.Run(&host.Call{Context: ctx, Log: &host.Log{}})), nil
}

func (p *place) want(s *modules, d skein.Digest) {
	p.t.Helper()
	if r, err := p.call(s, d); err != nil || r.ExitCode != 8 {
		p.t.Fatalf("%+v, %v", r, err)
	}
}

// An executor that is closed puts nothing into the store afterwards, where others may have begun to delete.
func TestCloseWaits(t *testing.T) {
	p := newPlace(t)
	s, d := p.executor(""), p.put(counter)
	p.want(s, d)
	s.behind.close()
	if n := p.did("snapshot put"); n != 1 {
		t.Errorf("%d of the snapshot's puts had ended", n)
	}
}

// A thousand first calls at once compile once, boot once, and all answer.
func TestThousandFirstCalls(t *testing.T) {
	p := newPlace(t)
	s, d := p.executor(""), p.put(counter)
	var wait sync.WaitGroup
	for range 1000 {
		wait.Go(func() {
			if r, err := p.call(s, d); err != nil || r.ExitCode != 8 {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
	wait.Wait()
	if c, b := p.did("compile"), p.did("boot"); c != 1 || b != 1 {
		t.Errorf("%d compilations and %d boots", c, b)
	}
	p.await("snapshot put", 1)
	// Another executor makes use of what the first one made.
	p.want(p.executor(""), d)
	if c, b := p.did("compile"), p.did("boot"); c != 1 || b != 1 {
		t.Errorf("%d compilations and %d boots for two executors", c, b)
	}
}

// What lies in the store and is not what it should be is made again, and never run.
func TestDamagedStore(t *testing.T) {
	fingerprint, err := compile.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	other := bytes.Replace(counter, []byte{0x41, 8, 0x0b}, []byte{0x41, 9, 0x0b}, 1)
	for name, damage := range map[string]func(p *place, key, foreign string) error{
		"changed": func(p *place, key, _ string) error {
			return p.edit(key, func(b []byte) []byte { b[len(b)-1] ^= 1; return b })
		},
		"cut": func(p *place, key, _ string) error {
			return p.edit(key, func(b []byte) []byte { return b[:len(b)/2] })
		},
		"empty": func(p *place, key, _ string) error {
			return p.edit(key, func([]byte) []byte { return nil })
		},
		"swapped": func(p *place, key, foreign string) error {
			b, _, err := blob.Read(p.t.Context(), p.bucket, foreign, 1<<30)
			if err != nil {
				return err
			}
			return p.edit(key, func([]byte) []byte { return b })
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			d, e := p.put(counter), p.put(other)
			s := p.executor("a key")
			p.want(s, d)
			p.await("snapshot put", 1)
			if r, err := p.call(s, e); err != nil || r.ExitCode != 9 {
				t.Fatalf("%+v, %v", r, err)
			}
			p.await("snapshot put", 2)
			for what, keys := range map[string][2]string{
				"compile": {compile.Key(d, fingerprint), compile.Key(e, fingerprint)},
				"boot":    {snapshotKey(d), snapshotKey(e)},
			} {
				before := p.did(what)
				if err := damage(p, keys[0], keys[1]); err != nil {
					t.Fatal(err)
				}
				p.want(p.executor("a key"), d)
				if p.did(what) != before+1 {
					t.Errorf("%s: it was not made again", what)
				}
				p.await("snapshot put", p.did("boot"))
				p.want(p.executor("a key"), d)
				if p.did(what) != before+1 {
					t.Errorf("%s: what was made again was not stored", what)
				}
			}
			// Another key is somebody else's: what it signed counts for nothing.
			before := p.did("compile")
			p.want(p.executor("another key"), d)
			if p.did("compile") != before+1 {
				t.Error("an artifact of another key was run")
			}
		})
	}
}

func (p *place) edit(key string, change func([]byte) []byte) error {
	b, _, err := blob.Read(p.t.Context(), p.bucket, key, 1<<30)
	if err != nil {
		return err
	}
	b = change(b)
	_, err = p.bucket.Put(p.t.Context(), key, bytes.NewReader(b), int64(len(b)), blob.PutOptions{})
	return err
}

// A module that is not what was uploaded is not run; its name says so.
func TestDamagedModule(t *testing.T) {
	p := newPlace(t)
	d := p.put(counter)
	if err := p.edit(prepare.ModuleKey(d), func(b []byte) []byte { b[len(b)-2] = 9; return b }); err != nil {
		t.Fatal(err)
	}
	_, err := p.call(p.executor(""), d)
	if e := fault.From(err); e == nil || e.Kind != fault.DataLoss || e.Reason != "DIGEST_MISMATCH" {
		t.Errorf("%v", err)
	}
	if objects, _ := filepath.Glob(filepath.Join(p.dir, "artifacts", "*", "*")); len(objects) > 0 {
		t.Errorf("it was compiled: %v", objects)
	}
}

// Modules leave when there is no room, and come back.
func TestEviction(t *testing.T) {
	p := newPlace(t)
	s := p.executor("")
	s.budget = 1
	d, e := p.put(counter), p.put(bytes.Replace(counter, []byte{0x41, 8, 0x0b}, []byte{0x41, 9, 0x0b}, 1))
	for range 3 {
		p.want(s, d)
		if r, err := p.call(s, e); err != nil || r.ExitCode != 9 {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	if n := len(s.digests()); n != 1 {
		t.Errorf("%d modules are kept", n)
	}
	if n := p.did("load code"); n < 5 {
		t.Errorf("only %d loads: nothing was evicted", n)
	}
}

// downBucket is a store that is away.
type downBucket struct{ blob.Bucket }

var errDown = fault.Unavailable.New("STORE_DOWN", "planned")

func (downBucket) Get(context.Context, string, int64, int64) (io.ReadCloser, blob.Info, error) {
	return nil, blob.Info{}, errDown
}

// A call whose module can't be had because the store is away says so, and not that it is at fault: it may be tried again.
func TestStoreDown(t *testing.T) {
	p := newPlace(t)
	d, s := p.put(counter), p.executor("")
	e := &Executor{name: "e", log: s.log, machine: s.machine, modules: s, slots: newSlots(1)}
	var err error
	if e.meters, err = newMeters(e); err != nil {
		t.Fatal(err)
	}
	call := skein.Call{ID: skein.NewCallID(), Version: skein.Version{Digest: d}, Deadline: time.Now().Add(time.Minute)}
	s.bucket = downBucket{p.bucket}
	if res := e.Run(t.Context(), call); res.State != skein.Failed || res.Reason != "STORE_DOWN" {
		t.Errorf("%+v", res)
	}
	s.bucket = p.bucket
	if res := e.Run(t.Context(), call); res.ExitCode != 8 {
		t.Errorf("%+v", res)
	}
}
