package state

import (
	"context"
	"flag"
	"fmt"
	"time"

	statev1 "skein.dev/proto/skein/state/v1"

	"skein.dev/platform/service"
)

// Config is the settings of the state service. The zero value is not usable; DefaultConfig is.
type Config struct {
	RedisURL     string
	RedisTimeout time.Duration
	MaxValue     int64 // bytes
	Volatile     bool
	UserBytes    int64
	UserValues   int64
}

// DefaultConfig has a usable value for every setting.
func DefaultConfig() Config {
	return Config{RedisURL: "redis://127.0.0.1:6379/0", RedisTimeout: time.Second, MaxValue: 64 << 20}
}

// Flags registers the settings.
func (c *Config) Flags(fs *flag.FlagSet) {
	fs.StringVar(&c.RedisURL, "redis-url", c.RedisURL, "`URL` of Redis: redis[s]://[user:password@]host:port/db; with ?addr=host:port of a cluster, with ?master_name=name of its Sentinels")
	fs.DurationVar(&c.RedisTimeout, "redis-timeout", c.RedisTimeout, "how long Redis may take to answer before it counts as down")
	fs.Int64Var(&c.MaxValue, "max-value-size", c.MaxValue, "most `bytes` a value may have, up to 1 GiB")
	fs.BoolVar(&c.Volatile, "volatile", c.Volatile, "accept a Redis without an append-only file, or one that evicts: it may lose values")
	fs.Int64Var(&c.UserBytes, "user-bytes", c.UserBytes, "most `bytes` that the values and elements of a user may have together; 0 for no limit")
	fs.Int64Var(&c.UserValues, "user-values", c.UserValues, "how many values a user may have; 0 for no limit")
}

// Start adds the state service to s. It doesn't wait for Redis: the service is not ready while Redis is away.
func (c *Config) Start(_ context.Context, s *service.Server) error {
	if c.MaxValue <= 0 || c.MaxValue > MaxValue {
		return fmt.Errorf("--max-value-size=%d: want 1 to %d", c.MaxValue, int64(MaxValue))
	}
	if c.RedisTimeout <= 0 {
		return fmt.Errorf("--redis-timeout=%s: want more than 0", c.RedisTimeout)
	}
	if c.UserBytes < 0 || c.UserValues < 0 {
		return fmt.Errorf("--user-bytes=%d, --user-values=%d: neither may be negative", c.UserBytes, c.UserValues)
	}
	db, err := open(c.RedisURL, c.RedisTimeout)
	if err != nil {
		return fmt.Errorf("--redis-url: %w", err)
	}
	s.Close(db.close)
	db.volatile = c.Volatile
	s.Ready(db.ping)
	store := newStore(db, c.MaxValue)
	store.quota.bytes, store.quota.values = c.UserBytes, c.UserValues
	leaving := make(chan struct{})
	s.Drain(func(context.Context) error { close(leaving); return nil })
	statev1.RegisterStateServiceServer(s, &server{store: store, leaving: leaving})
	(&rest{store, leaving}).routes(s)
	return nil
}
