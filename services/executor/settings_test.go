package executor

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"skein.dev"
	"skein.dev/platform/blob"
	"skein.dev/platform/fault"
	"skein.dev/platform/runconfig"
	"skein.dev/services/executor/internal/host"
)

var annF = skein.Function{User: "ann", Name: "f"}

// countedBucket counts what is read, and is away while it is told so.
type countedBucket struct {
	blob.Bucket
	reads atomic.Int64
	down  atomic.Bool
}

func (b *countedBucket) Get(ctx context.Context, key string, off, length int64) (io.ReadCloser, blob.Info, error) {
	b.reads.Add(1)
	if b.down.Load() {
		return nil, blob.Info{}, errDown
	}
	return b.Bucket.Get(ctx, key, off, length)
}

func newSettings(t *testing.T, p *place, shared string) (*settings, *countedBucket) {
	t.Helper()
	key, err := runconfig.NewKey(shared)
	if err != nil {
		t.Fatal(err)
	}
	bucket := &countedBucket{Bucket: p.bucket}
	return &settings{bucket: bucket, key: key, behind: newBehind(), budget: settingsBudget, all: map[settingKey]*setting{}}, bucket
}

// configure stores a configuration with a secret for ann/f.
func configure(t *testing.T, s *settings, c runconfig.Config) skein.Digest {
	t.Helper()
	sealed, err := s.key.Seal(annF, "TOKEN", "hidden")
	if err != nil {
		t.Fatal(err)
	}
	c.Secrets = map[string]runconfig.Sealed{"TOKEN": sealed}
	d, err := runconfig.Put(t.Context(), s.bucket, annF, &c)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A configuration is read once, however many calls have it, and again only when there was no room for it.
func TestSettings(t *testing.T) {
	s, bucket := newSettings(t, newPlace(t), "a key of sixteen bytes")
	d := configure(t, s, runconfig.Config{Args: []string{"-x"}, Env: map[string]string{"A": "1"}})
	var wait sync.WaitGroup
	for range 100 {
		wait.Go(func() {
			set, err := s.of(t.Context(), annF, d)
			if err != nil {
				t.Error(err)
				return
			}
			c := &host.Call{Context: t.Context(), Function: annF, Log: &host.Log{}}
			set.apply(c, &skein.Call{Function: annF, Args: []string{"more"}}, false)
			if env := set.environ(c); !slices.Equal(env[len(env)-2:], []string{"A=1", "TOKEN=hidden"}) || !slices.Equal(c.Args, []string{"f", "-x", "more"}) {
				t.Errorf("%q %q", c.Args, env)
			}
		})
	}
	wait.Wait()
	if n := bucket.reads.Load(); n != 1 {
		t.Errorf("read %d times", n)
	}
	s.budget = 1
	other := configure(t, s, runconfig.Config{Args: []string{"other"}})
	for _, d := range []skein.Digest{other, d, other} {
		if _, err := s.of(t.Context(), annF, d); err != nil {
			t.Fatal(err)
		}
	}
	if n := bucket.reads.Load(); n != 4 || len(s.all) != 1 || s.size > 10<<10 {
		t.Errorf("read %d times, %d are kept, of %d bytes", n, len(s.all), s.size)
	}
}

// A call whose configuration can't be had fails with why, which says nothing of what is in it; the next one tries again.
func TestSettingsFail(t *testing.T) {
	p := newPlace(t)
	digest, mods := p.put(counter), p.executor("")
	s, bucket := newSettings(t, p, "a key of sixteen bytes")
	e := &Executor{name: "e", log: mods.log, machine: mods.machine, modules: mods, settings: s, slots: newSlots(1)}
	var err error
	if e.meters, err = newMeters(e); err != nil {
		t.Fatal(err)
	}
	d := configure(t, s, runconfig.Config{})
	run := func(f skein.Function, config skein.Digest) skein.Result {
		return e.Run(t.Context(), skein.Call{
			ID: skein.NewCallID(), Function: f, Version: skein.Version{Digest: digest, Config: config}, Deadline: time.Now().Add(time.Minute),
		})
	}
	fails := func(f skein.Function, config skein.Digest, reason string) {
		t.Helper()
		res := run(f, config)
		if res.State != skein.Failed || res.Reason != reason || strings.Contains(fmt.Sprintf("%+v", res), "hidden") {
			t.Errorf("%+v, want %s", res, reason)
		}
	}
	bucket.down.Store(true)
	fails(annF, d, "STORE_DOWN")
	bucket.down.Store(false)
	key := s.key
	s.key, _ = runconfig.NewKey("another key of many bytes")
	fails(annF, d, "SECRETS_KEY")
	s.key = nil
	fails(annF, d, "SECRETS_KEY")
	s.key = key
	fails(annF, skein.Digest{1}, "NO_CONFIG")
	fails(skein.Function{User: "bob", Name: "f"}, d, "NO_CONFIG")
	if res := run(annF, d); res.ExitCode != 8 {
		t.Errorf("%+v", res)
	}
	if len(s.all) != 1 {
		t.Errorf("%d failures are kept", len(s.all)-1)
	}
	for _, span := range p.spans.Ended() {
		if strings.Contains(fmt.Sprint(span.Attributes(), span.Status(), span.Events()), "hidden") {
			t.Errorf("the secret is in span %s", span.Name())
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	bucket.down.Store(true)
	if _, err := s.of(ctx, annF, skein.Digest{2}); fault.From(err).Kind != fault.Cancelled && fault.From(err).Reason != "STORE_DOWN" {
		t.Error(err)
	}
}
