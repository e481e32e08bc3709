package service

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"
)

// Config is what every service has.
type Config struct {
	Name   string // for logs and traces
	Listen string
	Grace  time.Duration
	Log    string

	// For a caller of Run.
	Spans    []trace.SpanProcessor // further readers of this process's spans
	OnListen func(addr string)     // called once the port is open
	Quiet    bool                  // log nothing
}

// DefaultConfig has a usable value for every setting.
func DefaultConfig() Config {
	return Config{Listen: "127.0.0.1:8080", Grace: 30 * time.Second, Log: "info"}
}

// ports are where the services listen unless told otherwise: the defaults of one find the defaults of another on a
// machine that runs them all.
var ports = map[string]string{"planner": "8080", "upload": "8081", "state": "8082", "fs": "8083", "executor": "8084"}

// Named is c for the service of that name.
func (c Config) Named(name string) Config {
	c.Name = name
	if port := ports[name]; port != "" {
		c.Listen = "127.0.0.1:" + port
	}
	return c
}

// Flags registers the settings that all services share.
func (c *Config) Flags(fs *flag.FlagSet) {
	fs.StringVar(&c.Listen, "listen", c.Listen, "`address` for gRPC and REST; port 0 takes a free one; planner, upload, state, fs and executor begin at 8080 in this order")
	fs.DurationVar(&c.Grace, "grace", c.Grace, "how long work in progress may take to end after SIGTERM")
	fs.StringVar(&c.Log, "log", c.Log, "least `level` that is logged: debug, info, warn or error")
}

// envAliases are names that the ecosystem has for some of our settings; our own name wins.
var envAliases = map[string]string{"redis-url": "REDIS_URL"}

// EnvName is the variable that sets a flag: --redis-url is SKEIN_REDIS_URL.
func EnvName(flagName string) string {
	return "SKEIN_" + strings.ToUpper(strings.ReplaceAll(flagName, "-", "_"))
}

// ParseFlags parses args into fs. A flag beats its environment variable, which beats the default.
func ParseFlags(fs *flag.FlagSet, args []string) error {
	var bad error
	fs.VisitAll(func(f *flag.Flag) {
		name := EnvName(f.Name)
		value, ok := os.LookupEnv(name)
		if alias := envAliases[f.Name]; !ok && alias != "" {
			name = alias
			value, ok = os.LookupEnv(name)
		}
		if ok && bad == nil {
			if err := fs.Set(f.Name, value); err != nil {
				bad = fmt.Errorf("%s=%q: %w", name, value, err)
			}
		}
		f.Usage += " (" + EnvName(f.Name) + ")"
	})
	if bad != nil {
		return bad
	}
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("%s: unexpected argument %q", fs.Name(), fs.Arg(0))
	}
	return nil
}

func (c *Config) logger() (*slog.Logger, error) {
	var level slog.Level // info
	if c.Log != "" {
		if err := level.UnmarshalText([]byte(c.Log)); err != nil {
			return nil, fmt.Errorf("--log %.40q is no level: use debug, info, warn or error", c.Log)
		}
	}
	if c.Quiet {
		return slog.New(slog.DiscardHandler), nil
	}
	opts := &slog.HandlerOptions{Level: level}
	var h slog.Handler = slog.NewJSONHandler(os.Stderr, opts)
	if info, err := os.Stderr.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
		h = slog.NewTextHandler(os.Stderr, opts)
	}
	log := slog.New(traceHandler{h})
	if c.Name != "" {
		log = log.With("service", c.Name)
	}
	return log, nil
}

// traceHandler adds the id of the trace that a line belongs to.
type traceHandler struct{ slog.Handler }

func (h traceHandler) Handle(ctx context.Context, r slog.Record) error {
	if sc := oteltrace.SpanContextFromContext(ctx); sc.IsValid() {
		r.AddAttrs(slog.String("trace_id", sc.TraceID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

func (h traceHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return traceHandler{h.Handler.WithAttrs(attrs)}
}

func (h traceHandler) WithGroup(name string) slog.Handler {
	return traceHandler{h.Handler.WithGroup(name)}
}
