package upload

import (
	"context"
	"encoding/json"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"skein.dev"
	"skein.dev/platform/fault"
	uploadv1 "skein.dev/proto/skein/upload/v1"
)

// Settings are how a function's calls are treated, whatever their version; the planner gives what is zero its default.
type Settings struct {
	Timeout       time.Duration `json:"timeout,omitempty"`
	MaxAttempts   int32         `json:"max_attempts,omitempty"`
	RetryFailures bool          `json:"retry_failures,omitempty"`
	ResultAge     time.Duration `json:"result_age,omitempty"`
	Webhook       string        `json:"webhook,omitempty"`
}

func (s Settings) check() error {
	switch {
	case s.Timeout < 0 || s.Timeout > skein.MaxTimeout:
		return fault.Invalid.New("BAD_TIMEOUT", "a timeout of %s is not between 0 and %s", s.Timeout, skein.MaxTimeout)
	case s.MaxAttempts < 0 || s.MaxAttempts > skein.MaxAttempts:
		return fault.Invalid.New("BAD_MAX_ATTEMPTS", "%d attempts: want 1 to %d, or 0 for the default", s.MaxAttempts, skein.MaxAttempts)
	case s.ResultAge < 0 || s.ResultAge > skein.MaxResultAge:
		return fault.Invalid.New("BAD_RESULT_AGE", "a result's age of %s is not between 0 and %s", s.ResultAge, skein.MaxResultAge)
	}
	if err := skein.CheckWebhook(s.Webhook); err != nil {
		return fault.Invalid.New("BAD_WEBHOOK", "%s", err)
	}
	return nil
}

// Configure replaces a function's settings. Errors: NotFound NO_FUNCTION, Invalid BAD_TIMEOUT, BAD_MAX_ATTEMPTS,
// BAD_RESULT_AGE, BAD_WEBHOOK.
func (r *Registry) Configure(ctx context.Context, f skein.Function, s Settings, requestID string) (_ Function, err error) {
	ctx, end := begin(ctx, "upload configure", &f)
	defer end(&err)
	if err := checkRequestID(requestID); err != nil {
		return Function{}, err
	}
	if err := s.check(); err != nil {
		return Function{}, err
	}
	text, err := json.Marshal(s)
	if err != nil {
		return Function{}, err
	}
	req := request{ID: requestID, Op: "configure", Digest: skein.DigestOf(text).String()}
	for try := range tries {
		h, etag, err := r.head(ctx, f)
		if err != nil {
			return Function{}, err
		}
		_, repeated, err := h.answered(req)
		if err != nil {
			return Function{}, err
		}
		if !h.exists() {
			return Function{}, noFunction(f)
		}
		if repeated {
			h.Settings = s
			return function(f, h)
		}
		next := h.with(req)
		next.Settings = s
		if ok, err := r.swap(ctx, f, etag, next); err != nil {
			return Function{}, err
		} else if ok {
			return function(f, next)
		}
		if err := pause(ctx, try); err != nil {
			return Function{}, err
		}
	}
	return Function{}, busy(f)
}

func (s *server) ConfigureFunction(ctx context.Context, r *uploadv1.ConfigureFunctionRequest) (*uploadv1.ConfigureFunctionResponse, error) {
	f, err := skein.NewFunction(r.GetUser(), r.GetFunction())
	if err != nil {
		return nil, err
	}
	settings, err := fromConfig(r.GetConfig())
	if err != nil {
		return nil, err
	}
	fn, err := s.registry.Configure(ctx, f, settings, r.GetRequestId())
	if err != nil {
		return nil, err
	}
	return &uploadv1.ConfigureFunctionResponse{Function: functionProto(fn)}, nil
}

func fromConfig(c *uploadv1.FunctionConfig) (Settings, error) {
	if t := c.GetTimeout(); t != nil && t.CheckValid() != nil {
		return Settings{}, fault.Invalid.New("BAD_TIMEOUT", "the timeout is no valid duration")
	}
	if a := c.GetResultAge(); a != nil && a.CheckValid() != nil {
		return Settings{}, fault.Invalid.New("BAD_RESULT_AGE", "the result's age is no valid duration")
	}
	return Settings{
		Timeout: c.GetTimeout().AsDuration(), MaxAttempts: c.GetMaxAttempts(), RetryFailures: c.GetRetryFailures(),
		ResultAge: c.GetResultAge().AsDuration(), Webhook: c.GetWebhookUrl(),
	}, nil
}

func configProto(s Settings) *uploadv1.FunctionConfig {
	c := &uploadv1.FunctionConfig{MaxAttempts: s.MaxAttempts, RetryFailures: s.RetryFailures, WebhookUrl: s.Webhook}
	if s.Timeout > 0 {
		c.Timeout = durationpb.New(s.Timeout)
	}
	if s.ResultAge > 0 {
		c.ResultAge = durationpb.New(s.ResultAge)
	}
	return c
}
