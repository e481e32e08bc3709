package fs

import (
	"context"
	"flag"
	"fmt"
	"time"

	"skein.dev/platform/blob"
	"skein.dev/platform/service"
	fsv1 "skein.dev/proto/skein/fs/v1"
)

// Config is the settings of the fs service. The zero value is not usable; DefaultConfig is.
type Config struct {
	Bucket  string        // as blob.Open has it
	MaxFile int64         // bytes
	Grace   time.Duration // for blocks that no file has
	Sweep   time.Duration // between two sweeps; 0: never
	Sole    bool          // no other fs service changes files in the bucket
}

// DefaultConfig has a usable value for every setting.
func DefaultConfig() Config {
	return Config{Bucket: "file:.skein/objects", MaxFile: 1 << 30, Grace: time.Hour, Sweep: time.Hour}
}

// Flags registers the settings.
func (c *Config) Flags(fs *flag.FlagSet) {
	fs.StringVar(&c.Bucket, "bucket", c.Bucket, "`URL` of the objects: s3://BUCKET?endpoint=http://HOST:PORT with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or file:DIR")
	fs.Int64Var(&c.MaxFile, "max-file", c.MaxFile, "most `bytes` a file may have, up to 32 GiB")
	fs.DurationVar(&c.Sweep, "sweep-interval", c.Sweep, "how often blocks that no file has are deleted; 0 is never")
	fs.DurationVar(&c.Grace, "sweep-grace", c.Grace, "how long a block is kept without a file that has it, and how long an upload may take")
	fs.BoolVar(&c.Sole, "sole", c.Sole, "no other fs service serves this bucket: executors keep what they know of files for as long as they hear from this one, instead of asking again after their --file-lease")
}

// Start adds the fs service to s. It doesn't wait for the store: the service is not ready while that is away.
func (c *Config) Start(ctx context.Context, s *service.Server) error {
	if c.MaxFile <= 0 || c.MaxFile > MaxFile {
		return fmt.Errorf("--max-file=%d: want 1 to %d", c.MaxFile, int64(MaxFile))
	}
	if c.Grace <= 0 || c.Sweep < 0 {
		return fmt.Errorf("--sweep-grace=%s --sweep-interval=%s: want a grace of more than 0 and an interval of at least 0", c.Grace, c.Sweep)
	}
	bucket, err := blob.Open(ctx, c.Bucket)
	if err != nil {
		return fmt.Errorf("--bucket: %w", err)
	}
	s.Ready(bucket.Ping)
	files := New(bucket, c.MaxFile, c.Grace)
	stop := make(chan struct{})
	s.Drain(func(context.Context) error { close(stop); return nil })
	fsv1.RegisterFsServiceServer(s, &server{files: files, sole: c.Sole, stop: stop})
	if err := s.Gateway(fsv1.RegisterFsServiceHandler); err != nil {
		return err
	}
	(&rest{files, s.Log(), s.JSON}).routes(s)
	if c.Sweep > 0 {
		s.Go(func(ctx context.Context) error { return c.sweep(ctx, files, s) })
	}
	return nil
}

func (c *Config) sweep(ctx context.Context, files *Files, s *service.Server) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(c.Sweep):
		}
		deleted, err := files.Sweep(ctx, c.Grace)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			s.Log().Warn("sweep: what could not be swept waits for the next time", "deleted", deleted, "error", err)
		case deleted > 0:
			s.Log().Info("sweep", "deleted", deleted)
		}
	}
}
