// Package cluster starts Skein for tests, with the binaries that users run: Dev in one process, Processes in as many as a
// deployment has, with a real Redis and a real MinIO. What a test starts ends with it.
package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"skein.dev/platform/blob/blobtest"
)

// Cluster is a running suite. In one process, the first four are the same.
type Cluster struct {
	Planner, Upload, State, Fs *Process
	Standby                    *Process // another planner, if Options ask for it
	Executors                  []*Process
	Redis                      *Process         // nil in Dev
	Objects                    *blobtest.Server // nil in Dev

	t    testing.TB
	opt  Options
	desk string // where executors attach
}

// Options of Processes.
type Options struct {
	Executors    int      // 1 if 0
	RedisDown    bool     // Redis does not run yet: Cluster.Redis.Start brings it up
	Env          []string // further environment of the five services
	ExecutorArgs []string
	PlannerArgs  []string
	Standby      bool // a second planner, which takes over
	// Front is what executors attach to in the planner's place, if it is set: it gets the planner's address and gives its own.
	Front func(planner string) (address string)
	// StateFront is the same for state, for each executor.
	StateFront func(executor int, state string) (address string)
}

// Dev starts `skein dev`.
func Dev(t testing.TB, args ...string) *Cluster {
	t.Helper()
	args = append([]string{"dev", "--log", "info", "--data", t.TempDir()}, args...)
	p := service(t, "skein dev", Bin(t, "skein"), args...).Start()
	return &Cluster{Planner: p, Upload: p, State: p, Fs: p, t: t}
}

// Processes starts each service as a process of its own, and the servers that they need.
func Processes(t *testing.T, opt Options) *Cluster {
	t.Helper()
	c := &Cluster{t: t, opt: opt}
	planner := Bin(t, "planner") // builds; nothing runs yet
	c.Redis = Redis(t)
	c.Objects = blobtest.Start(t, "minio") // its credentials go into our environment
	if !opt.RedisDown {
		c.Redis.Start()
	}
	c.State = c.service("state", Bin(t, "state"), "--redis-url", "redis://"+c.Redis.Addr)
	c.Fs = c.service("fs", Bin(t, "fs"), "--bucket", c.Objects.URL())
	c.Upload = c.service("upload", Bin(t, "upload"), "--bucket", c.Objects.URL())
	for _, p := range []*Process{c.State, c.Fs, c.Upload} {
		p.Launch()
	}
	c.Planner = c.service("planner", planner, append([]string{"--upload", c.Upload.Addr, "--redis-url", "redis://" + c.Redis.Addr}, opt.PlannerArgs...)...).Launch()
	c.desk = c.Planner.Addr
	if opt.Standby {
		c.Planner.AwaitReady() // it is the one that leads
		c.Standby = c.service("standby", planner, "--upload", c.Upload.Addr, "--redis-url", "redis://"+c.Redis.Addr).Launch()
		c.desk += "," + c.Standby.Addr
	}
	if opt.Front != nil {
		c.desk = opt.Front(c.Planner.Addr)
	}
	for range max(opt.Executors, 1) {
		c.addExecutor().Launch()
	}
	for _, p := range c.services() {
		if !opt.RedisDown || p == c.Upload || p == c.Fs {
			p.AwaitReady()
		}
	}
	t.Cleanup(c.stop)
	return c
}

func (c *Cluster) service(name, bin string, args ...string) *Process {
	p := service(c.t, name, bin, append(args, "--grace", grace)...)
	p.env = c.opt.Env
	return p
}

func (c *Cluster) addExecutor() *Process {
	name := fmt.Sprintf("executor-%d", len(c.Executors)+1)
	state := c.State.Addr
	if c.opt.StateFront != nil {
		state = c.opt.StateFront(len(c.Executors), state)
	}
	args := append([]string{
		"--planner", c.desk, "--state", state, "--fs", c.Fs.Addr, "--bucket", c.Objects.URL(), "--name", name,
	}, c.opt.ExecutorArgs...)
	p := c.service(name, Bin(c.t, "executor"), args...)
	c.Executors = append(c.Executors, p)
	return p
}

func (c *Cluster) services() []*Process {
	return append(slices.Clone(c.Executors), c.Planner, c.Upload, c.Fs, c.State)
}

// stop ends the services, all at the same time, while the servers that they need still run.
func (c *Cluster) stop() {
	var wait sync.WaitGroup
	all := c.services()
	if c.Standby != nil {
		all = append(all, c.Standby)
	}
	for _, p := range all {
		if p.Running() {
			wait.Go(p.Stop)
		}
	}
	wait.Wait()
}

// Dev reports whether the suite is one process.
func (c *Cluster) Dev() bool { return c.Planner == c.State }

// prefixes say which service has a REST path.
func (c *Cluster) byPath(path string) *Process {
	switch {
	case strings.HasPrefix(path, "/v1/functions"):
		return c.Upload
	case strings.HasPrefix(path, "/v1/state"):
		return c.State
	case strings.HasPrefix(path, "/v1/files"):
		return c.Fs
	}
	return c.Planner
}

// URL gives the address of a REST path, as an ingress would route it by its prefix.
func (c *Cluster) URL(path string) string { return "http://" + c.byPath(path).Addr + path }

// Env is what makes the command line, and scripts, talk to this suite.
func (c *Cluster) Env() []string {
	return []string{
		"SKEIN_SERVER=" + c.Planner.Addr, "SKEIN_PLANNER=" + c.Planner.Addr, "SKEIN_UPLOAD=" + c.Upload.Addr,
		"SKEIN_STATE=" + c.State.Addr, "SKEIN_FS=" + c.Fs.Addr,
	}
}

// AwaitStatus waits until a process's /healthz gives a status.
func (p *Process) AwaitStatus(want int, d time.Duration) {
	p.t.Helper()
	p.Await(fmt.Sprintf("has status %d", want), d, func(ctx context.Context) error {
		got, err := p.Health(ctx)
		if err == nil && got != want {
			err = fmt.Errorf("%w: status %d", errNotYet, got)
		}
		return err
	})
}
