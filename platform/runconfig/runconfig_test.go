package runconfig

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"skein.dev"
	"skein.dev/platform/blob"
	"skein.dev/platform/fault"
)

var fn = skein.Function{User: "ann", Name: "f"}

func newKey(t *testing.T, shared string) *Key {
	t.Helper()
	k, err := NewKey(shared)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func seal(t *testing.T, k *Key, f skein.Function, name, value string) Sealed {
	t.Helper()
	s, err := k.Seal(f, name, value)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func wants(t *testing.T, err error, kind *fault.Kind, reason string) {
	t.Helper()
	if e := fault.From(err); e == nil || e.Kind != kind || e.Reason != reason {
		t.Errorf("%v, want %s", err, reason)
	}
}

// What was put is what is got, by its digest alone, and its bytes hold no secret.
func TestObject(t *testing.T) {
	bucket, err := blob.Open(t.Context(), "file:"+t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t, "a key of sixteen bytes")
	const secret = "n0b0dy kn0ws\nit"
	c := Config{
		Revision: 3, Args: []string{"-x", "ü"}, Env: map[string]string{"Z": "1", "A": ""}, Secrets: map[string]Sealed{"M": seal(t, key, fn, "M", secret)},
		Mounts: []Mount{{"", "/"}, {"models/v2", "/data"}}, KeepLocal: true, Stdin: StdinEmpty, Stdout: StdoutLog,
	}
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	d, err := Put(t.Context(), bucket, fn, &c)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Get(t.Context(), bucket, fn, d)
	if err != nil || !reflect.DeepEqual(*got, c) {
		t.Fatalf("%+v, %v", got, err)
	}
	env, err := got.Environ(key, fn)
	if want := []string{"A=", "M=" + secret, "Z=1"}; err != nil || !slices.Equal(env, want) {
		t.Fatalf("%q, %v", env, err)
	}
	b, _, err := blob.Read(t.Context(), bucket, Prefix(fn)+d.String(), maxObject)
	if err != nil || bytes.Contains(b, []byte("kn0ws")) {
		t.Fatalf("%s, %v", b, err)
	}

	if d, err := Put(t.Context(), bucket, fn, &Config{Revision: 4}); err != nil || !d.IsZero() {
		t.Errorf("nothing to say has digest %s, %v", d, err)
	}
	_, err = Get(t.Context(), bucket, skein.Function{User: "bob", Name: "f"}, d)
	wants(t, err, fault.NotFound, "NO_CONFIG")
	b[len(b)/2] ^= 1
	if _, err := bucket.Put(t.Context(), Prefix(fn)+d.String(), bytes.NewReader(b), int64(len(b)), blob.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err = Get(t.Context(), bucket, fn, d)
	wants(t, err, fault.DataLoss, "CONFIG_DAMAGED")
}

// A secret opens under its key, for its function and its name, as it is; nothing else does, and no error tells of what is in it.
func TestSecrets(t *testing.T) {
	key := newKey(t, "a key of sixteen bytes")
	const value = "n0b0dy kn0ws"
	s := seal(t, key, fn, "TOKEN", value)
	if again := seal(t, key, fn, "TOKEN", value); bytes.Equal(s, again) {
		t.Error("the same value is sealed the same way")
	}
	open := func(k *Key, f skein.Function, name string, s Sealed) error {
		_, err := (&Config{Secrets: map[string]Sealed{name: s}}).Environ(k, f)
		if err != nil && strings.Contains(fmt.Sprintf("%+v %s", err, fault.From(err).Hint), "kn0ws") {
			t.Errorf("%v tells the secret", err)
		}
		return err
	}
	if err := open(newKey(t, "a key of sixteen bytes"), fn, "TOKEN", s); err != nil {
		t.Error(err)
	}
	wants(t, open(newKey(t, "another key of many"), fn, "TOKEN", s), fault.Precondition, "SECRETS_KEY")
	wants(t, open(nil, fn, "TOKEN", s), fault.Precondition, "SECRETS_KEY")
	wants(t, open(key, skein.Function{User: "bob", Name: "f"}, "TOKEN", s), fault.DataLoss, "SECRET_DAMAGED")
	wants(t, open(key, fn, "OTHER", s), fault.DataLoss, "SECRET_DAMAGED")
	for i := range s {
		bad := slices.Clone(s)
		bad[i] ^= 1
		if open(key, fn, "TOKEN", bad) == nil || open(key, fn, "TOKEN", s[:i]) == nil {
			t.Fatalf("it opens with byte %d changed, or cut there", i)
		}
	}
	_, err := newKey(t, "").Seal(fn, "TOKEN", value)
	wants(t, err, fault.Precondition, "SECRETS_KEY")
	_, err = key.Seal(fn, "TOKEN", "n0b0dy kn0ws\x00")
	wants(t, err, fault.Invalid, "BAD_ENV")
	if key.Sum([]byte("x")) == newKey(t, "another key of many").Sum([]byte("x")) {
		t.Error("a sum needs no key")
	}
}

func TestCheck(t *testing.T) {
	key := newKey(t, "a key of sixteen bytes")
	env := func(name, value string) Config { return Config{Env: map[string]string{name: value}} }
	many := func(n, size int) map[string]string {
		m := map[string]string{}
		for i := range n {
			m[fmt.Sprintf("%03d", i)] = strings.Repeat("v", size)
		}
		return m
	}
	mounts := func(list ...string) (c Config) {
		for i := 0; i < len(list); i += 2 {
			c.Mounts = append(c.Mounts, Mount{list[i], list[i+1]})
		}
		return c
	}
	secrets := map[string]Sealed{"S": seal(t, key, fn, "S", strings.Repeat("v", 100))}
	for _, c := range []struct {
		config Config
		kind   *fault.Kind
		reason string
	}{
		{env("A", "any\nthing ü="), nil, ""},
		{env("a.b-c", ""), nil, ""},
		{Config{Env: many(skein.MaxEnv, 253)}, nil, ""},
		{mounts("", "/", "a/b", "/data"), nil, ""},
		{Config{Args: slices.Repeat([]string{""}, skein.MaxArgs)}, nil, ""},

		{env("", "x"), fault.Invalid, "BAD_ENV"},
		{env("A=B", "x"), fault.Invalid, "BAD_ENV"},
		{env("A\x00B", "x"), fault.Invalid, "BAD_ENV"},
		{env("A\nB", "x"), fault.Invalid, "BAD_ENV"},
		{env("A\xff", "x"), fault.Invalid, "BAD_ENV"},
		{env("A", "x\x00"), fault.Invalid, "BAD_ENV"},
		{env("A", "\xff"), fault.Invalid, "BAD_ENV"},
		{env("SKEIN_USER", "x"), fault.Invalid, "BAD_ENV"},
		{env("TRACEPARENT", "x"), fault.Invalid, "BAD_ENV"},
		{Config{Env: map[string]string{"S": ""}, Secrets: secrets}, fault.Invalid, "BAD_ENV"},
		{Config{Secrets: map[string]Sealed{"SKEIN_X": nil}}, fault.Invalid, "BAD_ENV"},
		{Config{Env: many(skein.MaxEnv+1, 0)}, fault.TooLarge, "TOO_LARGE"},
		{Config{Env: many(skein.MaxEnv, 0), Secrets: secrets}, fault.TooLarge, "TOO_LARGE"},
		{Config{Env: many(1, skein.MaxEnvBytes-2)}, fault.TooLarge, "TOO_LARGE"},
		{Config{Env: many(1, skein.MaxEnvBytes-100), Secrets: secrets}, fault.TooLarge, "TOO_LARGE"},
		{Config{Args: []string{"a\x00"}}, fault.Invalid, "BAD_ARGS"},
		{Config{Args: []string{"\xff"}}, fault.Invalid, "BAD_ARGS"},
		{Config{Args: slices.Repeat([]string{""}, skein.MaxArgs+1)}, fault.TooLarge, "TOO_LARGE"},
		{Config{Args: []string{strings.Repeat("a", skein.MaxArgBytes+1)}}, fault.TooLarge, "TOO_LARGE"},
		{mounts("..", "/a"), fault.Invalid, "BAD_MOUNT"},
		{mounts("/a", "/a"), fault.Invalid, "BAD_MOUNT"},
		{mounts("a//b", "/a"), fault.Invalid, "BAD_MOUNT"},
		{mounts(".", "/a"), fault.Invalid, "BAD_MOUNT"},
		{mounts("a", "a"), fault.Invalid, "BAD_MOUNT"},
		{mounts("a", ""), fault.Invalid, "BAD_MOUNT"},
		{mounts("a", "/a/"), fault.Invalid, "BAD_MOUNT"},
		{mounts("a", "/../a"), fault.Invalid, "BAD_MOUNT"},
		{mounts("a", "/x", "b", "/x"), fault.Invalid, "BAD_MOUNT"},
		{Config{Mounts: make([]Mount, skein.MaxMounts+1)}, fault.TooLarge, "TOO_LARGE"},
	} {
		err := c.config.Check()
		if c.reason == "" {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		wants(t, err, c.kind, c.reason)
	}
}
