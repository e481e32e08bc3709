package upload

import (
	"context"
	"flag"
	"fmt"

	"golang.org/x/sync/semaphore"

	"skein.dev"
	"skein.dev/platform/blob"
	"skein.dev/platform/compile"
	"skein.dev/platform/prepare"
	"skein.dev/platform/runconfig"
	"skein.dev/platform/service"
	uploadv1 "skein.dev/proto/skein/upload/v1"
)

// Config is the settings of the upload service. The zero value is not usable; DefaultConfig is.
type Config struct {
	Bucket      string
	MaxModule   int64 // bytes
	Memory      int64 // bytes of modules that arrive at the same time
	ArtifactKey string
}

// DefaultConfig has a usable value for every setting.
func DefaultConfig() Config {
	return Config{Bucket: "file:.skein/objects", MaxModule: skein.MaxModule, Memory: 2 * skein.MaxModule}
}

// Flags registers the settings.
func (c *Config) Flags(fs *flag.FlagSet) {
	fs.StringVar(&c.Bucket, "bucket", c.Bucket, "`URL` of the object store: s3://BUCKET?endpoint=http://HOST:PORT&region=REGION or file:DIR")
	fs.Int64Var(&c.MaxModule, "max-module", c.MaxModule, "most `bytes` a module may have, up to 256 MiB")
	fs.Int64Var(&c.Memory, "upload-memory", c.Memory, "most `bytes` that modules may take while they arrive, all together; at least twice --max-module")
	fs.StringVar(&c.ArtifactKey, "artifact-key", c.ArtifactKey, compile.KeyUsage)
}

// Start adds the upload service to s. It doesn't wait for the object store: the service is not ready while that is away.
func (c *Config) Start(ctx context.Context, s *service.Server) error {
	if c.MaxModule <= 0 || c.MaxModule > skein.MaxModule {
		return fmt.Errorf("--max-module=%d: want 1 to %d", c.MaxModule, int64(skein.MaxModule))
	}
	if c.Memory < 2*c.MaxModule { // a buffer that grows holds its old content beside the new
		return fmt.Errorf("--upload-memory=%d: want at least twice --max-module, %d", c.Memory, 2*c.MaxModule)
	}
	if err := compile.CheckKey(c.ArtifactKey); err != nil {
		return err
	}
	secrets, err := runconfig.NewKey(c.ArtifactKey)
	if err != nil {
		return err
	}
	bucket, err := blob.Open(ctx, c.Bucket)
	if err != nil {
		return fmt.Errorf("--bucket: %w", err)
	}
	s.Ready(bucket.Ping)
	limits := prepare.DefaultLimits()
	limits.ModuleBytes = int(c.MaxModule)
	registry := &Registry{bucket: bucket, limits: limits, effort: compile.DefaultLimits(), key: []byte(c.ArtifactKey), secrets: secrets}
	gate := &intake{c.MaxModule, semaphore.NewWeighted(c.Memory), idle}
	stop := make(chan struct{})
	s.Drain(func(context.Context) error { close(stop); return nil })
	uploadv1.RegisterUploadServiceServer(s, &server{registry: registry, gate: gate, stop: stop})
	(&rest{registry, gate}).routes(s)
	return s.Gateway(uploadv1.RegisterUploadServiceHandler)
}
