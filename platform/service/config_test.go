package service

import (
	"context"
	"flag"
	"strings"
	"testing"
	"time"
)

func TestFlagsAndEnvironment(t *testing.T) {
	parse := func(args ...string) (url string, every time.Duration, err error) {
		fs := flag.NewFlagSet("test", flag.ContinueOnError)
		fs.SetOutput(discard{})
		fs.StringVar(&url, "redis-url", "default", "a `URL`")
		fs.DurationVar(&every, "every", time.Second, "how often")
		err = ParseFlags(fs, args)
		return url, every, err
	}
	want := func(wantURL string, args ...string) {
		t.Helper()
		if url, _, err := parse(args...); url != wantURL || err != nil {
			t.Errorf("%v: %q, %v; want %q", args, url, err, wantURL)
		}
	}
	want("default")
	t.Setenv("REDIS_URL", "the ecosystem's")
	want("the ecosystem's")
	t.Setenv("SKEIN_REDIS_URL", "ours")
	want("ours")
	want("flag", "--redis-url", "flag")
	for _, args := range [][]string{{"word"}, {"--unknown"}, {"--every", "soon"}} {
		if _, _, err := parse(args...); err == nil {
			t.Errorf("%v is taken", args)
		}
	}
	t.Setenv("SKEIN_EVERY", "soon")
	if _, _, err := parse(); err == nil || !strings.Contains(err.Error(), "SKEIN_EVERY") {
		t.Errorf("a bad variable: %v", err)
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func TestBadSettings(t *testing.T) {
	for want, cfg := range map[string]Config{
		"--log":    {Listen: "127.0.0.1:0", Log: "loud"},
		"--listen": {Listen: "127.0.0.1:99999", Quiet: true},
	} {
		err := Run(t.Context(), cfg, func(context.Context, *Server) error { return nil })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
