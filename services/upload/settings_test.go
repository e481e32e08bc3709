package upload

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"skein.dev/platform/fault"
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
		_, err := configure("", full)
		wants(t, err, fault.NotFound, "NO_FUNCTION")

		s.put("ann/f", module("one"), http.StatusCreated)
		if f, err := configure("first", full); err != nil || !proto.Equal(f.GetConfig(), full) {
			t.Fatalf("%v, %v", f, err)
		}
		s.put("ann/f", module("two"), http.StatusCreated)
		if _, err := s.rpc.RollBack(t.Context(), &uploadv1.RollBackRequest{User: "ann", Function: "f"}); err != nil {
			t.Fatal(err)
		}
		if c := mustGet(t, s, "ann", "f").GetConfig(); !proto.Equal(c, full) {
			t.Errorf("after an upload and a rollback: %v", c)
		}
		if resp, err := s.rpc.ListFunctions(t.Context(), &uploadv1.ListFunctionsRequest{User: "ann"}); err != nil || !proto.Equal(resp.GetFunctions()[0].GetConfig(), full) {
			t.Errorf("the list has %v, %v", resp, err)
		}

		// A repeated request changes nothing, another with its id is refused.
		var f uploadv1.Function
		if status, p := s.rest("PUT", "/v1/functions/ann/f/config", strings.NewReader(`{"timeout": "9s"}`), &f); status != http.StatusOK {
			t.Fatalf("%d %v", status, p)
		}
		if want := (&uploadv1.FunctionConfig{Timeout: durationpb.New(9 * time.Second)}); !proto.Equal(f.GetConfig(), want) {
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
		if c := mustGet(t, s, "ann", "f").GetConfig(); !proto.Equal(c, &uploadv1.FunctionConfig{}) {
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
	} {
		_, err := s.rpc.ConfigureFunction(t.Context(), &uploadv1.ConfigureFunctionRequest{User: "ann", Function: "f", Config: c.config})
		wants(t, err, fault.Invalid, c.reason)
	}
	if c := mustGet(t, s, "ann", "f").GetConfig(); !proto.Equal(c, &uploadv1.FunctionConfig{}) {
		t.Errorf("a refused one was kept: %v", c)
	}
	if status, p := s.rest("PUT", "/v1/functions/ann/f/config", strings.NewReader(`{"maxAttempts": "many"}`), &uploadv1.Function{}); status != http.StatusBadRequest {
		t.Errorf("%d %v", status, p)
	}
	_, err := s.rpc.ConfigureFunction(t.Context(), &uploadv1.ConfigureFunctionRequest{User: "Ann", Function: "f"})
	wants(t, err, fault.Invalid, "BAD_NAME")
}
