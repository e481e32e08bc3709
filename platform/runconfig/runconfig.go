// Package runconfig is how a function's guests are started: arguments, environment, secrets, mounts and streams. It is an object
// of its own in the object store, named by its digest, which is all of it that travels with a call: so none of it is in the
// planner's journal, in records or in listings, and a call has what was configured when it was accepted. Upload writes such
// objects, executors read them.
//
// Secrets (secret.go) are sealed in it with a key that the store has not.
package runconfig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"skein.dev"
	"skein.dev/platform/blob"
	"skein.dev/platform/fault"
)

// Config is a function's; the zero value is that of a function that was never configured.
type Config struct {
	// Revision is the function's configuration's. It makes each object another one, so that what a deletion sweeps is never what came
	// after it.
	Revision  int64             `json:"revision,omitempty"`
	Args      []string          `json:"args,omitempty"` // after argv[0]; the call's own follow
	Env       map[string]string `json:"env,omitempty"`
	Secrets   map[string]Sealed `json:"secrets,omitempty"` // by the variable's name
	Mounts    []Mount           `json:"mounts,omitempty"`  // none: all of the user's shared files at "/"
	KeepLocal bool              `json:"keep_local,omitempty"`
	Stdin     Stdin             `json:"stdin,omitempty"`
	Stdout    Stdout            `json:"stdout,omitempty"`
}

// Mount shows the shared files below a prefix at an absolute path.
type Mount struct {
	Prefix string `json:"prefix,omitempty"` // clean and relative; "" for all
	At     string `json:"at"`               // clean
}

// Stdin is what a guest reads from its standard input.
type Stdin string

// The call's input unless it is to be empty.
const (
	StdinInput Stdin = ""
	StdinEmpty Stdin = "empty"
)

// Stdout is where a guest's standard output goes.
type Stdout string

// By the module: a plain program's is its output, that of a guest that knows the host interface is in its log.
const (
	StdoutByModule Stdout = ""
	StdoutOutput   Stdout = "output"
	StdoutLog      Stdout = "log"
)

// IsZero tells whether there is nothing to be told to an executor.
func (c *Config) IsZero() bool {
	return len(c.Args)+len(c.Env)+len(c.Secrets)+len(c.Mounts) == 0 && !c.KeepLocal && c.Stdin == "" && c.Stdout == ""
}

// Check refuses what can't reach a guest as it is, and what is too much. Errors: Invalid BAD_ENV, BAD_ARGS, BAD_MOUNT; TooLarge TOO_LARGE.
func (c *Config) Check() error {
	size, err := skein.CheckArgs(c.Args)
	switch {
	case err != nil:
		return fault.Invalid.New("BAD_ARGS", "%s", err)
	case len(c.Args) > skein.MaxArgs || size > skein.MaxArgBytes:
		return fault.TooLarge.New("TOO_LARGE", "%d arguments of %d bytes in all: at most %d and %d are allowed", len(c.Args), size, skein.MaxArgs, skein.MaxArgBytes)
	}
	if err := c.checkEnv(); err != nil {
		return err
	}
	return c.checkMounts()
}

func (c *Config) checkEnv() error {
	size := 0
	for name, value := range c.Env {
		if err := checkVariable(name, value); err != nil {
			return err
		}
		if _, both := c.Secrets[name]; both {
			return badEnv(name, "is a variable and a secret")
		}
		size += len(name) + len(value)
	}
	for name, value := range c.Secrets {
		if err := checkVariable(name, ""); err != nil {
			return err
		}
		size += len(name) + value.size()
	}
	if n := len(c.Env) + len(c.Secrets); n > skein.MaxEnv || size > skein.MaxEnvBytes {
		return fault.TooLarge.New("TOO_LARGE", "an environment of %d variables of %d bytes: at most %d and %d are allowed", n, size, skein.MaxEnv, skein.MaxEnvBytes).
			WithHint("put large data into a file")
	}
	return nil
}

// checkVariable says what is wrong with a variable; never its value, which may be a secret.
func checkVariable(name, value string) error {
	switch {
	case name == "":
		return badEnv(name, "has no name")
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == '=' || r == 0x7f }) || !utf8.ValidString(name):
		return badEnv(name, "has a name with '=' or a control character, or that is not UTF-8")
	case strings.HasPrefix(name, "SKEIN_"), name == "TRACEPARENT":
		return badEnv(name, "is the platform's")
	case strings.IndexByte(value, 0) >= 0:
		return badEnv(name, "has a value with a NUL byte")
	case !utf8.ValidString(value):
		return badEnv(name, "has a value that is not UTF-8")
	}
	return nil
}

func badEnv(name, why string) error {
	return fault.Invalid.New("BAD_ENV", "environment variable %.80q %s", name, why)
}

func (c *Config) checkMounts() error {
	bad := func(m Mount, why string) error {
		return fault.Invalid.New("BAD_MOUNT", "the mount of %.80q at %.80q: %s", m.Prefix, m.At, why).
			WithHint("want a directory of the shared files, such as models/v2, and an absolute path, such as /data")
	}
	if n := len(c.Mounts); n > skein.MaxMounts {
		return fault.TooLarge.New("TOO_LARGE", "%d mounts: at most %d are allowed", n, skein.MaxMounts)
	}
	at := map[string]bool{}
	for _, m := range c.Mounts {
		if clean, err := skein.CleanPath(m.Prefix); m.Prefix != "" && (err != nil || clean != m.Prefix || clean == ".") {
			return bad(m, "the prefix is no clean relative path")
		}
		if _, err := skein.CleanPath(m.At); err != nil || !path.IsAbs(m.At) || path.Clean(m.At) != m.At {
			return bad(m, "where it is to be seen is no clean absolute path")
		}
		if at[m.At] {
			return bad(m, "there is another at the same place")
		}
		at[m.At] = true
	}
	return nil
}

// Environ is the environment as "NAME=value" each, in the order of names. Errors: Precondition SECRETS_KEY, DataLoss SECRET_DAMAGED.
func (c *Config) Environ(key *Key, f skein.Function) ([]string, error) {
	values := maps.Clone(c.Env)
	for name, sealed := range c.Secrets {
		value, err := key.open(f, name, sealed)
		if err != nil {
			return nil, err
		}
		if values == nil {
			values = map[string]string{}
		}
		values[name] = value
	}
	env := make([]string, 0, len(values))
	for _, name := range slices.Sorted(maps.Keys(values)) {
		env = append(env, name+"="+values[name])
	}
	return env, nil
}

// Prefix is where a bucket keeps a function's configurations.
func Prefix(f skein.Function) string { return "functions/" + f.String() + "/config/" }

// maxObject bounds an object in bytes: JSON writes a control character as six.
const maxObject = 1 << 20

// Put keeps c for a function and returns its digest, the zero digest for a zero c. It is put before anything names it.
func Put(ctx context.Context, bucket blob.Bucket, f skein.Function, c *Config) (skein.Digest, error) {
	if c.IsZero() {
		return skein.Digest{}, nil
	}
	b, err := json.Marshal(c)
	if err != nil {
		return skein.Digest{}, fault.Internal.New("CONFIG", "the configuration of %s: %v", f, err)
	}
	d := skein.DigestOf(b)
	_, err = bucket.Put(ctx, Prefix(f)+d.String(), bytes.NewReader(b), int64(len(b)), blob.PutOptions{})
	return d, err
}

// Get reads what Put has kept. Errors: NotFound NO_CONFIG, DataLoss CONFIG_DAMAGED, the bucket's.
func Get(ctx context.Context, bucket blob.Bucket, f skein.Function, d skein.Digest) (*Config, error) {
	b, _, err := blob.Read(ctx, bucket, Prefix(f)+d.String(), maxObject)
	switch {
	case errors.Is(err, fault.NotFound):
		return nil, fault.NotFound.New("NO_CONFIG", "the configuration that this call of %s began with is gone", f).
			WithHint("the function was deleted meanwhile: call it again")
	case err != nil && fault.From(err).Kind != fault.TooLarge:
		return nil, err
	}
	var c Config
	if err != nil || skein.DigestOf(b) != d || json.Unmarshal(b, &c) != nil {
		return nil, fault.DataLoss.New("CONFIG_DAMAGED", "the configuration %.12s of %s in the object store is not what was put there", d, f).
			WithHint("configure the function again")
	}
	return &c, nil
}
