package upload

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"skein.dev"
	"skein.dev/platform/fault"
	"skein.dev/platform/runconfig"
	uploadv1 "skein.dev/proto/skein/upload/v1"
)

// A function's configuration is replaced as a whole, outlives versions and ends with the function.
func TestConfigure(t *testing.T) {
	everywhere(t, func(t *testing.T, cfg Config) {
		s := start(t, cfg)
		configure := func(id string, c *uploadv1.FunctionConfig) (*uploadv1.Function, error) {
			resp, err := s.rpc.ConfigureFunction(t.Context(), &uploadv1.ConfigureFunctionRequest{User: "ann", Function: "f", Config: c, RequestId: id})
			return resp.GetFunction(), err
		}
		full := &uploadv1.FunctionConfig{
			Timeout: durationpb.New(5 * time.Second), MaxAttempts: 7, RetryFailures: true, ResultAge: durationpb.New(time.Hour), WebhookUrl: "https://example.com/hook",
		}
		same := func(c, want *uploadv1.FunctionConfig, revision int64) bool {
			c, want = proto.CloneOf(c), proto.CloneOf(want)
			want.Revision = revision
			return proto.Equal(c, want)
		}
		_, err := configure("", full)
		wants(t, err, fault.NotFound, "NO_FUNCTION")

		s.put("ann/f", module("one"), http.StatusCreated)
		if f, err := configure("first", full); err != nil || !same(f.GetConfig(), full, 2) {
			t.Fatalf("%v, %v", f, err)
		}
		s.put("ann/f", module("two"), http.StatusCreated)
		if _, err := s.rpc.RollBack(t.Context(), &uploadv1.RollBackRequest{User: "ann", Function: "f"}); err != nil {
			t.Fatal(err)
		}
		if c := mustGet(t, s, "ann", "f").GetConfig(); !same(c, full, 2) {
			t.Errorf("after an upload and a rollback: %v", c)
		}
		if resp, err := s.rpc.ListFunctions(t.Context(), &uploadv1.ListFunctionsRequest{User: "ann"}); err != nil || !same(resp.GetFunctions()[0].GetConfig(), full, 2) {
			t.Errorf("the list has %v, %v", resp, err)
		}

		// A repeated request changes nothing, another with its id is refused.
		var f uploadv1.Function
		if status, p := s.rest("PUT", "/v1/functions/ann/f/config", strings.NewReader(`{"timeout": "9s"}`), &f); status != http.StatusOK {
			t.Fatalf("%d %v", status, p)
		}
		if want := (&uploadv1.FunctionConfig{Timeout: durationpb.New(9 * time.Second)}); !same(f.GetConfig(), want, 3) {
			t.Errorf("not replaced as a whole: %v", f.GetConfig())
		}
		if _, err := configure("first", full); err != nil {
			t.Error(err)
		}
		if c := mustGet(t, s, "ann", "f").GetConfig(); c.GetTimeout().AsDuration() != 9*time.Second {
			t.Errorf("a repeated request undid a later one: %v", c)
		}
		_, err = configure("first", &uploadv1.FunctionConfig{MaxAttempts: 2})
		wants(t, err, fault.Exists, "REQUEST_ID_REUSED")

		if _, err := s.rpc.DeleteFunction(t.Context(), &uploadv1.DeleteFunctionRequest{User: "ann", Function: "f"}); err != nil {
			t.Fatal(err)
		}
		s.put("ann/f", module("three"), http.StatusCreated)
		if c := mustGet(t, s, "ann", "f").GetConfig(); !same(c, &uploadv1.FunctionConfig{}, 4) {
			t.Errorf("a function that came back has %v", c)
		}
	})
}

func TestConfigureRefuses(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Bucket = "file:" + t.TempDir()
	s := start(t, cfg)
	s.put("ann/f", module("one"), http.StatusCreated)
	for _, c := range []struct {
		config *uploadv1.FunctionConfig
		reason string
	}{
		{&uploadv1.FunctionConfig{Timeout: durationpb.New(-1)}, "BAD_TIMEOUT"},
		{&uploadv1.FunctionConfig{Timeout: durationpb.New(24*time.Hour + 1)}, "BAD_TIMEOUT"},
		{&uploadv1.FunctionConfig{Timeout: &durationpb.Duration{Seconds: 1, Nanos: -1}}, "BAD_TIMEOUT"},
		{&uploadv1.FunctionConfig{MaxAttempts: -1}, "BAD_MAX_ATTEMPTS"},
		{&uploadv1.FunctionConfig{MaxAttempts: 11}, "BAD_MAX_ATTEMPTS"},
		{&uploadv1.FunctionConfig{ResultAge: durationpb.New(-1)}, "BAD_RESULT_AGE"},
		{&uploadv1.FunctionConfig{ResultAge: durationpb.New(31 * 24 * time.Hour)}, "BAD_RESULT_AGE"},
		{&uploadv1.FunctionConfig{ResultAge: &durationpb.Duration{Nanos: 2e9}}, "BAD_RESULT_AGE"},
		{&uploadv1.FunctionConfig{WebhookUrl: "ftp://example.com/"}, "BAD_WEBHOOK"},
		{&uploadv1.FunctionConfig{WebhookUrl: "https://"}, "BAD_WEBHOOK"},
		{&uploadv1.FunctionConfig{Stdin: 9}, "BAD_STREAM"},
		{&uploadv1.FunctionConfig{Stdout: -1}, "BAD_STREAM"},
		{&uploadv1.FunctionConfig{Env: map[string]string{"A=B": ""}}, "BAD_ENV"},
		{&uploadv1.FunctionConfig{Args: []string{"\x00"}}, "BAD_ARGS"},
		{&uploadv1.FunctionConfig{Secrets: map[string]string{"A": ""}}, "NO_SECRET"},
		{&uploadv1.FunctionConfig{Mounts: []*uploadv1.Mount{{Prefix: "..", At: "/"}}}, "BAD_MOUNT"},
	} {
		_, err := s.rpc.ConfigureFunction(t.Context(), &uploadv1.ConfigureFunctionRequest{User: "ann", Function: "f", Config: c.config})
		wants(t, err, fault.Invalid, c.reason)
	}
	_, err := s.rpc.ConfigureFunction(t.Context(), &uploadv1.ConfigureFunctionRequest{
		User: "ann", Function: "f", Config: &uploadv1.FunctionConfig{Secrets: map[string]string{"A": "value"}},
	})
	wants(t, err, fault.Precondition, "SECRETS_KEY") // it was started without
	if c := mustGet(t, s, "ann", "f").GetConfig(); !proto.Equal(c, &uploadv1.FunctionConfig{Revision: 1}) {
		t.Errorf("a refused one was kept: %v", c)
	}
	if status, p := s.rest("PUT", "/v1/functions/ann/f/config", strings.NewReader(`{"maxAttempts": "many"}`), &uploadv1.Function{}); status != http.StatusBadRequest {
		t.Errorf("%d %v", status, p)
	}
	_, err = s.rpc.ConfigureFunction(t.Context(), &uploadv1.ConfigureFunctionRequest{User: "Ann", Function: "f"})
	wants(t, err, fault.Invalid, "BAD_NAME")
}

// How guests are started is one object for each revision, which the function names and takes with it; of secrets only names come out.
func TestConfigureRun(t *testing.T) {
	everywhere(t, func(t *testing.T, cfg Config) {
		cfg.ArtifactKey = "a key of sixteen bytes"
		s := start(t, cfg)
		s.put("ann/f", module("one"), http.StatusCreated)
		f := skein.Function{User: "ann", Name: "f"}
		configure := func(c *uploadv1.FunctionConfig, id string) *uploadv1.Function {
			t.Helper()
			resp, err := s.rpc.ConfigureFunction(t.Context(), &uploadv1.ConfigureFunctionRequest{User: "ann", Function: "f", Config: c, RequestId: id})
			if err != nil {
				t.Fatal(err)
			}
			return resp.GetFunction()
		}
		environ := func(fn *uploadv1.Function) []string {
			t.Helper()
			d, err := skein.ParseDigest(fn.GetConfigDigest())
			if err != nil {
				t.Fatal(err)
			}
			c, err := runconfig.Get(t.Context(), s.bucket, f, d)
			if err != nil {
				t.Fatal(err)
			}
			key, err := runconfig.NewKey(cfg.ArtifactKey)
			if err != nil {
				t.Fatal(err)
			}
			env, err := c.Environ(key, f)
			if err != nil {
				t.Fatal(err)
			}
			return env
		}
		if d := mustGet(t, s, "ann", "f").GetConfigDigest(); d != "" {
			t.Errorf("a function that was never configured names %s", d)
		}
		first := configure(&uploadv1.FunctionConfig{
			Args: []string{"-x"}, Env: map[string]string{"A": "1"}, Secrets: map[string]string{"S": "one", "T": "two"}, Stdout: uploadv1.Stdout_STDOUT_LOG,
		}, "")
		if got, want := first.GetConfig(), (&uploadv1.FunctionConfig{
			Args: []string{"-x"}, Env: map[string]string{"A": "1"}, Secrets: map[string]string{"S": "", "T": ""}, Stdout: uploadv1.Stdout_STDOUT_LOG, Revision: 2,
		}); !proto.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		if env := environ(first); !slices.Equal(env, []string{"A=1", "S=one", "T=two"}) {
			t.Error(env)
		}
		// What was read and is sent back keeps the secrets; one that is left out is gone. The first object stays for calls that have it.
		c := first.GetConfig()
		delete(c.GetSecrets(), "T")
		second := configure(c, "")
		if env := environ(second); !slices.Equal(env, []string{"A=1", "S=one"}) {
			t.Error(env)
		}
		if env := environ(first); len(env) != 3 {
			t.Error(env)
		}
		_, err := s.rpc.ConfigureFunction(t.Context(), &uploadv1.ConfigureFunctionRequest{User: "ann", Function: "f", Config: c})
		wants(t, err, fault.Conflict, "CONFIG_CHANGED") // c is of the first revision
		// A repeated request is known by its secrets too, and not by anything that tells them.
		configure(&uploadv1.FunctionConfig{Secrets: map[string]string{"S": "three"}}, "id")
		configure(&uploadv1.FunctionConfig{Secrets: map[string]string{"S": "three"}}, "id")
		_, err = s.rpc.ConfigureFunction(t.Context(), &uploadv1.ConfigureFunctionRequest{
			User: "ann", Function: "f", Config: &uploadv1.FunctionConfig{Secrets: map[string]string{"S": "four"}}, RequestId: "id",
		})
		wants(t, err, fault.Exists, "REQUEST_ID_REUSED")
		if resp, err := s.rpc.ListFunctions(t.Context(), &uploadv1.ListFunctionsRequest{User: "ann"}); err != nil ||
			!proto.Equal(resp.GetFunctions()[0].GetConfig(), &uploadv1.FunctionConfig{Revision: 4}) {
			t.Errorf("the list has %v, %v", resp, err)
		}
		if n := count(s.objects(), "/config/"); n != 3 {
			t.Errorf("%d objects, want one for each revision", n)
		}
		if _, err := s.rpc.DeleteFunction(t.Context(), &uploadv1.DeleteFunctionRequest{User: "ann", Function: "f"}); err != nil {
			t.Fatal(err)
		}
		if n := count(s.objects(), "/config/"); n != 0 {
			t.Errorf("%d objects are left", n)
		}
	})
}

func count(keys []string, part string) (n int) {
	for _, k := range keys {
		if strings.Contains(k, part) {
			n++
		}
	}
	return n
}

// A hundred who read, edit and send back at the same time undo nothing of one another.
func TestConfigureParallel(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Bucket = "file:" + t.TempDir()
	s := start(t, cfg)
	s.put("ann/f", module("one"), http.StatusCreated)
	const many = 100
	var group errgroup.Group
	for i := range many {
		group.Go(func() error {
			for try := range many {
				time.Sleep(rand.N(time.Duration(1+min(try, 30)) * 30 * time.Millisecond)) // as a client does, so that not all collide each time
				got, err := s.rpc.GetFunction(t.Context(), &uploadv1.GetFunctionRequest{User: "ann", Function: "f"})
				if err != nil {
					return err
				}
				c := got.GetFunction().GetConfig()
				if c.Env == nil {
					c.Env = map[string]string{}
				}
				c.Env[fmt.Sprint("V", i)] = "1"
				_, err = s.rpc.ConfigureFunction(t.Context(), &uploadv1.ConfigureFunctionRequest{User: "ann", Function: "f", Config: c})
				if err == nil {
					return nil
				}
				if fault.From(err).Reason != "CONFIG_CHANGED" {
					return err
				}
			}
			return errors.New("it never succeeds")
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if c := mustGet(t, s, "ann", "f").GetConfig(); len(c.GetEnv()) != many || c.GetRevision() != many+1 {
		t.Errorf("%d variables at revision %d", len(c.GetEnv()), c.GetRevision())
	}
}
