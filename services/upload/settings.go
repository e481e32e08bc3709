package upload

import (
	"context"
	"encoding/json"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"skein.dev"
	"skein.dev/platform/fault"
	"skein.dev/platform/runconfig"
	uploadv1 "skein.dev/proto/skein/upload/v1"
)

// Settings are how a function's calls are treated, whatever their version; the planner gives what is zero its default.
type Settings struct {
	Timeout       time.Duration `json:"timeout,omitempty"`
	MaxAttempts   int32         `json:"max_attempts,omitempty"`
	RetryFailures bool          `json:"retry_failures,omitempty"`
	ResultAge     time.Duration `json:"result_age,omitempty"`
	Webhook       string        `json:"webhook,omitempty"`
	// Run is how its guests are started; executors read it from an object of its own.
	Run runconfig.Config `json:"run,omitzero"`
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

// Change is a new configuration of a function.
type Change struct {
	Settings                   // but for the secrets of Run
	Secrets  map[string]string // all that there are to be: values, or "" to keep the one that there is
	Revision int64             // what is changed; 0 for whatever is there
}

// Configure replaces a function's settings. A repeated request changes nothing, and is answered with what is there. Errors: NotFound
// NO_FUNCTION; Conflict CONFIG_CHANGED; Invalid BAD_TIMEOUT, BAD_MAX_ATTEMPTS, BAD_RESULT_AGE, BAD_WEBHOOK, NO_SECRET; Precondition
// SECRETS_KEY; those of runconfig.Config.Check; the bucket's.
func (r *Registry) Configure(ctx context.Context, f skein.Function, c Change, requestID string) (_ Function, err error) {
	ctx, end := begin(ctx, "upload configure", &f)
	defer end(&err)
	if err := checkRequestID(requestID); err != nil {
		return Function{}, err
	}
	if err := c.check(); err != nil {
		return Function{}, err
	}
	sealed, err := r.seal(f, c.Secrets)
	if err != nil {
		return Function{}, err
	}
	req := request{ID: requestID, Op: "configure", Digest: r.sum(&c)}
	for try := range tries {
		h, etag, err := r.head(ctx, f)
		if err != nil {
			return Function{}, err
		}
		_, repeated, err := h.answered(req)
		switch {
		case err != nil:
			return Function{}, err
		case !h.exists():
			return Function{}, noFunction(f)
		case repeated:
			return function(f, h)
		case c.Revision != 0 && c.Revision != h.Revision+1:
			return Function{}, fault.Conflict.New("CONFIG_CHANGED", "the configuration of %s is of revision %d by now, not %d", f, h.Revision+1, c.Revision).
				WithHint("read it again")
		}
		next, err := r.configured(ctx, f, h.with(req), &c, sealed)
		if err != nil {
			return Function{}, err
		}
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

// configured is a head with its settings changed, and has put the object that it names.
func (r *Registry) configured(ctx context.Context, f skein.Function, h head, c *Change, sealed map[string]runconfig.Sealed) (head, error) {
	run := c.Run
	run.Secrets = nil
	for name := range c.Secrets {
		value, ok := sealed[name]
		if !ok {
			value, ok = h.Settings.Run.Secrets[name]
		}
		if !ok {
			return h, fault.Invalid.New("NO_SECRET", "the secret %.80q has no value, and %s had none of that name", name, f).WithHint("give its value")
		}
		if run.Secrets == nil {
			run.Secrets = map[string]runconfig.Sealed{}
		}
		run.Secrets[name] = value
	}
	if err := run.Check(); err != nil {
		return h, err
	}
	h.Revision++
	h.Settings, h.Config = c.Settings, ""
	h.Settings.Run = run
	run.Revision = h.Revision
	d, err := runconfig.Put(ctx, r.bucket, f, &run)
	if !d.IsZero() {
		h.Config = d.String()
	}
	return h, err
}

func (r *Registry) seal(f skein.Function, secrets map[string]string) (map[string]runconfig.Sealed, error) {
	sealed := map[string]runconfig.Sealed{}
	for name, value := range secrets {
		if value == "" {
			continue
		}
		var err error
		if sealed[name], err = r.secrets.Seal(f, name, value); err != nil {
			return nil, err
		}
	}
	return sealed, nil
}

// sum tells a repeated change from another with its request id.
func (r *Registry) sum(c *Change) string {
	text, err := json.Marshal(c)
	if err != nil { // it has only text and numbers
		panic(err)
	}
	return r.secrets.Sum(text).String()
}

func (s *server) ConfigureFunction(ctx context.Context, r *uploadv1.ConfigureFunctionRequest) (*uploadv1.ConfigureFunctionResponse, error) {
	f, err := skein.NewFunction(r.GetUser(), r.GetFunction())
	if err != nil {
		return nil, err
	}
	change, err := fromConfig(r.GetConfig())
	if err != nil {
		return nil, err
	}
	fn, err := s.registry.Configure(ctx, f, change, r.GetRequestId())
	if err != nil {
		return nil, err
	}
	return &uploadv1.ConfigureFunctionResponse{Function: functionProto(fn)}, nil
}

var (
	stdins = map[uploadv1.Stdin]runconfig.Stdin{
		uploadv1.Stdin_STDIN_UNSPECIFIED: runconfig.StdinInput,
		uploadv1.Stdin_STDIN_INPUT:       runconfig.StdinInput,
		uploadv1.Stdin_STDIN_EMPTY:       runconfig.StdinEmpty,
	}
	stdouts = map[uploadv1.Stdout]runconfig.Stdout{
		uploadv1.Stdout_STDOUT_UNSPECIFIED: runconfig.StdoutByModule,
		uploadv1.Stdout_STDOUT_OUTPUT:      runconfig.StdoutOutput,
		uploadv1.Stdout_STDOUT_LOG:         runconfig.StdoutLog,
	}
)

func fromConfig(c *uploadv1.FunctionConfig) (Change, error) {
	if t := c.GetTimeout(); t != nil && t.CheckValid() != nil {
		return Change{}, fault.Invalid.New("BAD_TIMEOUT", "the timeout is no valid duration")
	}
	if a := c.GetResultAge(); a != nil && a.CheckValid() != nil {
		return Change{}, fault.Invalid.New("BAD_RESULT_AGE", "the result's age is no valid duration")
	}
	in, okIn := stdins[c.GetStdin()]
	out, okOut := stdouts[c.GetStdout()]
	if !okIn || !okOut {
		return Change{}, fault.Invalid.New("BAD_STREAM", "stdin %d or stdout %d is none that is known", c.GetStdin(), c.GetStdout())
	}
	run := runconfig.Config{Args: c.GetArgs(), Env: c.GetEnv(), KeepLocal: c.GetKeepLocal(), Stdin: in, Stdout: out}
	for _, m := range c.GetMounts() {
		run.Mounts = append(run.Mounts, runconfig.Mount{Prefix: m.GetPrefix(), At: m.GetAt()})
	}
	return Change{
		Settings: Settings{
			Timeout: c.GetTimeout().AsDuration(), MaxAttempts: c.GetMaxAttempts(), RetryFailures: c.GetRetryFailures(),
			ResultAge: c.GetResultAge().AsDuration(), Webhook: c.GetWebhookUrl(), Run: run,
		},
		Secrets: c.GetSecrets(), Revision: c.GetRevision(),
	}, nil
}

// configProto has of secrets the names alone.
func configProto(s Settings, revision int64) *uploadv1.FunctionConfig {
	c := &uploadv1.FunctionConfig{
		MaxAttempts: s.MaxAttempts, RetryFailures: s.RetryFailures, WebhookUrl: s.Webhook, Revision: revision,
		Env: s.Run.Env, Args: s.Run.Args, KeepLocal: s.Run.KeepLocal,
	}
	if s.Timeout > 0 {
		c.Timeout = durationpb.New(s.Timeout)
	}
	if s.ResultAge > 0 {
		c.ResultAge = durationpb.New(s.ResultAge)
	}
	if s.Run.Stdin == runconfig.StdinEmpty {
		c.Stdin = uploadv1.Stdin_STDIN_EMPTY
	}
	for wire, out := range stdouts {
		if out == s.Run.Stdout {
			c.Stdout = wire
		}
	}
	for _, m := range s.Run.Mounts {
		c.Mounts = append(c.Mounts, &uploadv1.Mount{Prefix: m.Prefix, At: m.At})
	}
	for name := range s.Run.Secrets {
		if c.Secrets == nil {
			c.Secrets = map[string]string{}
		}
		c.Secrets[name] = ""
	}
	return c
}

func digestText(d skein.Digest) string {
	if d.IsZero() {
		return ""
	}
	return d.String()
}
