// Command bench measures what the suite adds to the ground it stands on: a call through real processes of ours against the
// least that could carry it, both in the same run. An absolute time says nothing on a shared machine, so every figure is a
// ratio: the two sides take turns in short bursts, and the result is the median of the bursts' ratios with its quartiles.
// Beside the time stands the CPU time of all processes that took part, which a busy machine disturbs less. Nothing here
// passes or fails by a time; a call that answers wrongly ends the run.
//
//	go run ./test/bench                       all, as a table
//	go run ./test/bench -md                   and into docs/benchmarks.md
//	go run ./test/bench -run 'planned|stream' -bursts 40
//	go run ./test/bench -run planned -profile /tmp/prof
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// config is what the flags say.
type config struct {
	run     *regexp.Regexp
	bursts  int
	burst   time.Duration
	md      bool
	profile string
	long    bool
}

func main() {
	// A child dies with the thread that started it (process.go), so that thread must be one that stays.
	runtime.LockOSThread()
	if len(os.Args) > 2 && os.Args[1] == roleArg {
		if err := play(os.Args[2], os.Args[3:]); err != nil {
			slog.Error("bench", "role", os.Args[2], "error", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	if err := benchmark(ctx, os.Args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func benchmark(ctx context.Context, args []string) error {
	cfg, err := parse(args)
	if err != nil {
		return err
	}
	root, err := findRoot()
	if err != nil {
		return err
	}
	w := &world{cfg: cfg, root: root, out: os.Stderr}
	defer w.close()
	ground := newGround(root)
	rows, err := measure(ctx, w)
	if err != nil {
		return err
	}
	if err := w.saveProfiles(); err != nil {
		return err
	}
	ground.learn(w)
	text := ground.String() + "\n" + table(rows)
	fmt.Print(text)
	if cfg.md {
		return rewrite(filepath.Join(root, "docs", "benchmarks.md"), text)
	}
	return nil
}

func parse(args []string) (config, error) {
	cfg := config{burst: 250 * time.Millisecond, bursts: 16, run: regexp.MustCompile("")}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.Func("run", "only the benchmarks whose name and clients, such as invoke.rest/64, match `regexp`", func(s string) (err error) {
		cfg.run, err = regexp.Compile(s)
		return err
	})
	flags.IntVar(&cfg.bursts, "bursts", cfg.bursts, "how many pairs of bursts, at least 12 for a figure to be quoted")
	flags.DurationVar(&cfg.burst, "burst", cfg.burst, "how long a burst takes, at least 250ms for a figure to be quoted")
	flags.BoolVar(&cfg.md, "md", false, "rewrite the results in docs/benchmarks.md")
	flags.BoolVar(&cfg.long, "long", false, "trees of calls and growth at their full sizes: minutes more")
	flags.StringVar(&cfg.profile, "profile", "", "write CPU profiles of the suite's processes to `dir`")
	err := flags.Parse(args)
	switch {
	case err != nil:
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case cfg.bursts < 1 || cfg.burst < time.Millisecond:
		err = errors.New("want at least one burst of at least 1ms")
	case cfg.md && (cfg.run.String() != "" || cfg.bursts < 12 || cfg.burst < 250*time.Millisecond):
		err = errors.New("-md wants all benchmarks, 12 bursts or more and 250ms or more each")
	}
	return cfg, err
}

// job is what gives rows: a benchmark of two sides, one of more, or a program.
type job struct {
	name    string
	measure func(context.Context, *world) ([]row, error)
}

func jobs(cfg config) (all []job) {
	for _, b := range slices.Concat(benchmarks, treeRows(cfg.long)) {
		all = append(all, job{b.String(), func(ctx context.Context, w *world) ([]row, error) {
			r, err := b.measure(ctx, w)
			return []row{r}, err
		}})
	}
	for _, s := range studies {
		all = append(all, job{s.name, func(ctx context.Context, w *world) ([]row, error) { return s.measure(ctx, w, s.name) }})
	}
	for _, p := range programs {
		all = append(all, job{p.String(), p.measure})
	}
	return all
}

// measure does the jobs that are wanted.
func measure(ctx context.Context, w *world) (rows []row, err error) {
	family := ""
	for _, j := range jobs(w.cfg) {
		if !w.cfg.run.MatchString(j.name) {
			continue
		}
		if f, _, _ := strings.Cut(j.name, "."); f != family {
			family = f
			w.retire()
		}
		more, err := j.measure(ctx, w)
		switch {
		case errors.Is(err, errSkip):
			fmt.Fprintf(w.out, "%-27s %v\n", j.name, err)
			continue
		case err != nil:
			return nil, fmt.Errorf("%s: %w", j.name, err)
		}
		for _, r := range more {
			fmt.Fprintf(w.out, "%-27s %s\n", r.bench, r.brief())
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

// bench is one row of the table.
type bench struct {
	name    string
	clients int
	goal    goal
	sides   func(ctx context.Context, w *world, clients int) (ours, bare side, err error)
}

func (b bench) String() string {
	if b.clients == 0 {
		return b.name
	}
	return fmt.Sprintf("%s/%d", b.name, b.clients)
}

// goal is the most that a ratio should be: of times, or of CPU times. See ../shared/design/performance.md.
type goal struct {
	most float64
	cpu  bool
}

var benchmarks = []bench{
	{name: "invoke.warm.direct", clients: 1, goal: goal{most: 1.25}, sides: direct},
	{name: "invoke.warm.direct", clients: 32, goal: goal{most: 1.30}, sides: direct},
	{name: "invoke.warm.planned", clients: 1, goal: goal{most: 2.3}, sides: planned},
	{name: "invoke.warm.planned", clients: 32, goal: goal{most: 1.9}, sides: planned},
	{name: "invoke.warm.routed", clients: 1, goal: goal{most: 1.3}, sides: routed},
	{name: "invoke.warm.routed", clients: 32, goal: goal{most: 1.3}, sides: routed},
	{name: "invoke.async", goal: goal{most: 1}, sides: async},
	{name: "plan.stream", clients: 1, goal: goal{most: 2.3}, sides: streamed},
	{name: "plan.stream", clients: 32, goal: goal{most: 1.9}, sides: streamed},
	{name: "invoke.rest", clients: 1, goal: goal{most: 2.4}, sides: rest},
	{name: "invoke.rest", clients: 64, goal: goal{most: 1 / 0.45}, sides: rest},
	{name: "throughput.core.direct", clients: 64, goal: goal{most: 1.35, cpu: true}, sides: direct},
	{name: "throughput.core.planned", clients: 64, goal: goal{most: 2.4, cpu: true}, sides: planned},
	{name: "throughput.core.stream", clients: 64, goal: goal{most: 2.4, cpu: true}, sides: streamed},
	{name: "chain.remote", clients: 1, goal: goal{most: 1.8}, sides: chainRemote},
	{name: "fanout.1000.remote", goal: goal{most: 0.30}, sides: fanoutRemote},
	{name: "fanout.1000.workerd", clients: 1, goal: goal{most: 1}, sides: fanoutPeer},
	{name: "planner.decisions.100", clients: 1, goal: goal{most: 1 / 0.75}, sides: decisions(100)},
	{name: "planner.decisions.100", clients: 100, goal: goal{most: 1 / 0.75}, sides: decisions(100)},
	{name: "planner.decisions.1000", clients: 1, goal: goal{most: 1 / 0.75}, sides: decisions(1000)},
	{name: "planner.decisions.1000", clients: 100, goal: goal{most: 1 / 0.75}, sides: decisions(1000)},
	{name: "planner.decisions.10000", clients: 1, goal: goal{most: 1 / 0.75}, sides: decisions(10_000)},
	{name: "planner.decisions.10000", clients: 100, goal: goal{most: 1 / 0.75}, sides: decisions(10_000)},
	{name: "planner.decisions.growth", clients: 100, goal: goal{most: 1.3}, sides: decisionsGrow},
	{name: "file.read.cached", clients: 1, goal: goal{most: 4}, sides: cachedFile("file.read.cached")},
	{name: "file.read.random", clients: 1, goal: goal{most: 2}, sides: cachedFile("file.read.random")},
	{name: "file.read.sequential", clients: 1, goal: goal{most: 1.5}, sides: cachedFile("file.read.sequential")},
	{name: "file.small", clients: 1, goal: goal{most: 4}, sides: cachedFile("file.small")},
	{name: "file.stat", clients: 1, goal: goal{most: 4}, sides: cachedFile("file.stat")},
	{name: "file.list", clients: 1, goal: goal{most: 2}, sides: cachedFile("file.list")},
	{name: "file.write", clients: 1, goal: goal{most: 1.5}, sides: cachedFile("file.write")},
	{name: "file.write.random", clients: 1, goal: goal{most: 2}, sides: cachedFile("file.write.random")},
	{name: "file.write.small", clients: 1, goal: goal{most: 4}, sides: cachedFile("file.write.small")},
	{name: "file.mmap", clients: 1, goal: goal{most: 0.2}, sides: mappedFile},
	{name: "file.first.4KiB", clients: 1, goal: goal{most: 2}, sides: firstRead("first-small", smallFile, 10, 20, "0")},
	{name: "file.first.16MiB", clients: 1, goal: goal{most: 1.5}, sides: firstRead("first-large", mediumFile, 8, 1, "64")},
}

func (b bench) measure(ctx context.Context, w *world) (row, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute+4*time.Duration(w.cfg.bursts)*w.cfg.burst)
	defer cancel()
	ours, bare, err := b.sides(ctx, w, b.clients)
	if err != nil {
		return row{}, err
	}
	defer ours.close()
	defer bare.close()
	rounds, err := alternate(ctx, w.cfg, ours, bare)
	if err != nil {
		return row{}, err
	}
	return newRow(b, rounds), nil
}

// findRoot is the repository's: where go.work is.
func findRoot() (string, error) {
	out, err := exec.Command("go", "env", "GOWORK").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOWORK: %w", err)
	}
	file := strings.TrimSpace(string(out))
	if filepath.Base(file) != "go.work" {
		return "", errors.New("run it inside the repository, without GOWORK=off")
	}
	return filepath.Dir(file), nil
}
