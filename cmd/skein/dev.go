package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/spf13/cobra"

	"skein.dev"
	"skein.dev/platform/fault"
	"skein.dev/platform/service"
	"skein.dev/platform/telemetry"
	"skein.dev/services/executor"
	"skein.dev/services/fs"
	"skein.dev/services/planner"
	"skein.dev/services/state"
	"skein.dev/services/upload"
)

// devServer is what the flags of `dev` say.
type devServer struct {
	listen, data, example, log string
	slots                      int
	quiet, insecure            bool
}

// keptTraces bounds the memory that traces take; a trace of an ordinary call has about ten spans.
const keptTraces = 2000

func (a *app) devCmd() *cobra.Command {
	d := devServer{listen: "127.0.0.1:8080", data: ".skein", log: "warn"}
	cmd := &cobra.Command{
		Use: "dev", Short: "Run all services in this process, with nothing else installed", Args: cobra.NoArgs,
		Long: `Run all services in this process, with nothing else installed.

It is the code that runs in production, with two addresses changed: Redis' protocol is served in this process from memory,
and objects lie in the data directory. State, and calls that have not ended, are lost at exit; functions and files are kept. There is no authentication.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.dev(cmd.Context(), &d) },
	}
	f := cmd.Flags()
	f.StringVar(&d.listen, "listen", d.listen, "`address` for gRPC and REST; port 0 takes a free one")
	f.StringVar(&d.data, "data", d.data, "`directory` for functions and files")
	f.StringVar(&d.example, "example", "", "also build, upload and call the Go example in this `directory`")
	f.IntVar(&d.slots, "slots", 0, "how many calls may run at once (default the executor's)")
	f.StringVar(&d.log, "log", d.log, "least `level` that is logged: debug, info, warn or error")
	f.BoolVar(&d.quiet, "quiet", false, "log nothing and print nothing but the address")
	f.BoolVar(&d.insecure, "insecure", false, "let other machines in, although nothing asks who they are")
	return cmd
}

func (a *app) dev(ctx context.Context, d *devServer) error {
	if err := d.check(); err != nil {
		return err
	}
	objects, err := d.prepareData()
	if err != nil {
		return err
	}
	key, err := d.key()
	if err != nil {
		return err
	}
	values, stateURL, err := newRedis()
	if err != nil {
		return err
	}
	defer values.Close()
	calls, journalURL, err := newRedis() // it runs one script at a time: calls must not wait for those of values
	if err != nil {
		return err
	}
	defer calls.Close()
	traces, err := telemetry.NewStore(ctx, keptTraces)
	if err != nil {
		return err
	}

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	cfg := service.DefaultConfig()
	cfg.Name, cfg.Listen, cfg.Log, cfg.Quiet = "skein", d.listen, d.log, d.quiet
	cfg.Grace = 5 * time.Second // who stops it here waits at the keyboard
	cfg.Spans = append(cfg.Spans, traces.Processor())
	var greeting sync.WaitGroup
	cfg.OnListen = func(addr string) { greeting.Go(func() { a.greet(ctx, d, addr) }) }
	err = service.Run(ctx, cfg, func(ctx context.Context, s *service.Server) error {
		s.Handle("GET /api/v3/traces/{trace_id}", func(w http.ResponseWriter, r *http.Request) error {
			traces.ServeHTTP(w, r)
			return nil
		})
		return d.start(ctx, s, stateURL, journalURL, objects, key)
	})
	stop()
	greeting.Wait() // it writes to our streams, which are the caller's again when we return
	return d.explain(err)
}

// embeddedTimeout is for a Redis in this process: it is slower on a busy machine, but never away.
const embeddedTimeout = 30 * time.Second

// start starts the five services, each before those that call it.
func (d *devServer) start(ctx context.Context, s *service.Server, stateURL, journalURL, objects, key string) error {
	var (
		stateCfg    = state.DefaultConfig()
		fsCfg       = fs.DefaultConfig()
		uploadCfg   = upload.DefaultConfig()
		plannerCfg  = planner.Config{Webhooks: planner.Webhooks{Allow: "127.0.0.0/8,::1"}} // receivers that are being written are here
		executorCfg executor.Config
	)
	for name, cfg := range map[string]service.Flagger{
		"state": &stateCfg, "fs": &fsCfg, "upload": &uploadCfg, "planner": &plannerCfg, "executor": &executorCfg,
	} {
		flags := flag.NewFlagSet(name, flag.ContinueOnError)
		cfg.Flags(flags)
		if err := service.ParseFlags(flags, nil); err != nil { // defaults, and what the environment says
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	self := s.Addr()
	stateCfg.RedisURL, plannerCfg.RedisURL = stateURL, journalURL
	stateCfg.RedisTimeout = embeddedTimeout
	plannerCfg.RedisTimeout = embeddedTimeout
	fsCfg.Sole = true
	fsCfg.Bucket, uploadCfg.Bucket, executorCfg.Bucket = objects, objects, objects
	plannerCfg.Upload, plannerCfg.Volatile = self, true
	executorCfg.Planner, executorCfg.State, executorCfg.Fs = self, self, self
	executorCfg.Name = "dev"
	if uploadCfg.ArtifactKey == "" { // the environment has none
		uploadCfg.ArtifactKey, executorCfg.Key = key, key
	}
	if d.slots > 0 {
		executorCfg.Slots = d.slots
	}
	for _, one := range []struct {
		name  string
		start service.Start
	}{
		{"state", stateCfg.Start},
		{"fs", fsCfg.Start},
		{"upload", uploadCfg.Start},
		{"planner", plannerCfg.Start},
		{"executor", executorCfg.Start},
	} {
		if err := one.start(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", one.name, err)
		}
	}
	return nil
}

// check refuses what would open this machine to others unasked.
func (d *devServer) check() error {
	if d.slots < 0 {
		return usagef("--slots %d: want a number from 1", d.slots)
	}
	host, _, err := net.SplitHostPort(d.listen)
	if err != nil {
		return usagef("--listen %q: want HOST:PORT, such as 127.0.0.1:8080", d.listen)
	}
	if ip := net.ParseIP(host); d.insecure || host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return fault.Denied.New("NOT_LOOPBACK", "--listen %s lets other machines in, and skein dev asks nobody who they are", d.listen).
		WithHint("listen on 127.0.0.1, or add --insecure if you trust everybody on that network")
}

// prepareData makes the data directory and finds out now, rather than at the first upload, whether it can be written.
func (d *devServer) prepareData() (bucket string, err error) {
	dir, err := filepath.Abs(d.data)
	if err != nil {
		return "", err
	}
	dir = filepath.Join(dir, "objects")
	if err = os.MkdirAll(dir, 0o755); err == nil {
		var probe *os.File
		if probe, err = os.CreateTemp(dir, ".writable-*"); err == nil {
			err = errors.Join(probe.Close(), os.Remove(probe.Name()))
		}
	}
	if err != nil {
		return "", fault.Precondition.New("DATA_DIR", "the data directory can't be written: %v", err).WithHint("name another with --data")
	}
	return "file:" + dir, nil
}

// key is the data directory's own artifact key, beside the objects: who has only those has no secrets.
func (d *devServer) key() (string, error) {
	path := filepath.Join(d.data, "artifact-key")
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		_, err = file.WriteString(rand.Text())
		err = errors.Join(err, file.Close())
	}
	var key []byte
	if err == nil || errors.Is(err, os.ErrExist) {
		key, err = os.ReadFile(path)
	}
	if err == nil && len(key) == 0 {
		err = fmt.Errorf("%s is empty", path)
	}
	if err != nil {
		return "", fault.Precondition.New("DATA_DIR", "the key of the data directory can't be read or made: %v", err).WithHint("remove it, or name another directory with --data")
	}
	return string(key), nil
}

// explain says what to do about a taken port.
func (d *devServer) explain(err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fault.Exists.New("PORT_TAKEN", "%s is taken, perhaps by another skein dev", d.listen).
			WithHint("stop that one, or use --listen 127.0.0.1:0 for any free port")
	}
	return err
}

// newRedis serves Redis' protocol from memory. The password keeps other users of this machine out of it.
func newRedis() (m *miniredis.Miniredis, url string, err error) {
	m = miniredis.NewMiniRedis()
	m.ClockTTL(true) // else its clock stands still and no key expires
	password := skein.NewCallID().String()
	m.RequireAuth(password)
	if err := m.StartAddr("127.0.0.1:0"); err != nil {
		return nil, "", fmt.Errorf("embedded redis: %w", err)
	}
	return m, "redis://:" + password + "@" + m.Addr(), nil
}

// greet says, once the services can work, where they are and what they don't promise.
func (a *app) greet(ctx context.Context, d *devServer, addr string) {
	if err := ready(ctx, addr); err != nil {
		return // the process ends, and says why
	}
	if d.quiet {
		_, _ = fmt.Fprintln(a.stdout, addr)
	} else {
		_, _ = fmt.Fprintf(a.stdout, `skein dev is ready: five services in one process
  gRPC, REST  http://%s
  data        %s: functions and files are kept there
  warning     state and calls are in memory and lost at exit; nothing asks who calls
  try         %s upload ann/echo echo.wasm && %[3]s invoke ann/echo --input hello
`, addr, d.data, command(addr))
	}
	if d.example != "" {
		if err := a.runExample(ctx, d.example, addr); err != nil && ctx.Err() == nil {
			a.explain(fmt.Errorf("the example %s: %w", d.example, err))
		}
	}
	if !d.quiet {
		_, _ = fmt.Fprintln(a.stdout, "\nCtrl-C stops it.")
	}
}

// command is how a person calls this program for that server.
func command(addr string) string {
	if addr == "127.0.0.1:8080" {
		return "skein"
	}
	return "skein --server " + addr
}

// ready waits until the services say that they can work.
func ready(ctx context.Context, addr string) error {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/healthz", nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
