package executor

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"skein.dev"
	"skein.dev/platform/blob"
	"skein.dev/platform/fault"
	"skein.dev/platform/runconfig"
	"skein.dev/services/executor/internal/host"
)

// settings holds how functions' guests are started, as far as it has been read: each is read once, however many calls wait for it,
// and never changes. Its secrets are open in memory, and nowhere else.
type settings struct {
	bucket blob.Bucket
	key    *runconfig.Key // nil: no secret can be opened
	behind *behind
	budget int64 // bytes that are kept
	mu     sync.Mutex
	all    map[settingKey]*setting
	order  []settingKey // those that were read, the oldest first
	size   int64        // bytes of these
}

type settingKey struct {
	function skein.Function
	digest   skein.Digest
}

// setting is one, once done is closed; a failure is told to those who wait and then forgotten.
type setting struct {
	done   chan struct{}
	err    error
	config runconfig.Config
	env    []string
	size   int64
	// environ is variables, as a value that is made once
	environ func(*host.Call) []string
}

func newSetting() *setting {
	set := &setting{done: make(chan struct{})}
	set.environ = set.variables
	return set
}

const (
	settingsBudget = 32 << 20
	settingsTime   = 30 * time.Second // to read one; that goes on when the call that caused it ends, for the next one
)

// unset is what a function has that was never configured.
var unset = newSetting()

// of gives the settings that a call has. Errors: those of runconfig.Get and Environ.
func (s *settings) of(ctx context.Context, f skein.Function, d skein.Digest) (*setting, error) {
	if d.IsZero() {
		return unset, nil
	}
	key := settingKey{f, d}
	s.mu.Lock()
	set := s.all[key]
	if set == nil {
		set = newSetting()
		s.all[key] = set
		s.behind.do(ctx, settingsTime, func(ctx context.Context) { s.load(ctx, key, set) })
	}
	s.mu.Unlock()
	select {
	case <-set.done:
		return set, set.err
	case <-ctx.Done():
		return nil, fault.From(ctx.Err())
	}
}

func (s *settings) load(ctx context.Context, key settingKey, set *setting) {
	ctx, span := tracer().Start(ctx, "load configuration", trace.WithAttributes(attribute.String("skein.digest", key.digest.String())))
	defer span.End()
	c, err := runconfig.Get(ctx, s.bucket, key.function, key.digest)
	if err == nil {
		set.config = *c
		set.env, err = c.Environ(s.key, key.function)
	}
	set.size = 1 << 10
	for _, text := range slices.Concat(set.env, set.config.Args) {
		set.size += 2 * int64(len(text)) // sealed or plain they are there too
	}
	s.mu.Lock()
	if set.err = err; err != nil {
		span.SetStatus(codes.Error, err.Error())
		delete(s.all, key)
	} else {
		s.order = append(s.order, key)
		s.size += set.size
		s.evict()
	}
	s.mu.Unlock()
	close(set.done)
}

// evict drops those that were read first. The caller holds mu.
func (s *settings) evict() {
	for s.size > s.budget && len(s.order) > 1 {
		s.size -= s.all[s.order[0]].size
		delete(s.all, s.order[0])
		s.order = s.order[1:]
	}
}

// apply makes a call begin as it is set; plain says that its module is a program that knows nothing of the host interface.
func (set *setting) apply(c *host.Call, call *skein.Call, plain bool) {
	c.Args = slices.Concat([]string{call.Function.Name}, set.config.Args, call.Args)
	if set.config.Stdin != runconfig.StdinEmpty {
		c.Stdin = bytes.NewReader(call.Input)
	}
	c.Stdout = c.Log
	if set.config.Stdout == runconfig.StdoutOutput || set.config.Stdout == runconfig.StdoutByModule && plain {
		c.Stdout = c.OutputStream()
	}
}

// variables are the guest's environment: who it is, the trace it belongs to, and what its function is configured with.
func (set *setting) variables(c *host.Call) []string {
	env := []string{"SKEIN_CALL_ID=" + c.ID.String(), "SKEIN_USER=" + string(c.Function.User), "SKEIN_FUNCTION=" + c.Function.Name}
	if trace.SpanContextFromContext(c).IsValid() {
		carrier := propagation.MapCarrier{}
		propagation.TraceContext{}.Inject(c, carrier)
		if tp := carrier.Get("traceparent"); tp != "" {
			env = append(env, "TRACEPARENT="+tp)
		}
	}
	return append(env, set.env...)
}
