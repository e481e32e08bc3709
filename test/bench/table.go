package main

import (
	"bytes"
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// row is a benchmark's result.
type row struct {
	bench      bench
	time, cpu  spread // ours / bare
	ours, bare figures
	details    string // what else was measured
}

// figures are absolute. They are printed and judged by nobody.
type figures struct{ p50, p99, cpu float64 } // ns; 0 if not known

// newRow is made of rounds in which ours came first and the bare side second.
func newRow(b bench, rounds [][]burst) row {
	r := row{bench: b}
	r.time = spreadOver(rounds, func(b []burst) float64 { return b[0].perOp() / b[1].perOp() })
	r.cpu = spreadOver(rounds, func(b []burst) float64 { return b[0].cpuPerOp() / b[1].cpuPerOp() })
	r.ours, r.bare = figuresOf(rounds, 0), figuresOf(rounds, 1)
	return r
}

func spreadOver(rounds [][]burst, of func([]burst) float64) spread {
	values := make([]float64, len(rounds))
	for i, b := range rounds {
		values[i] = of(b)
	}
	return spreadOf(values)
}

// figuresOf are the medians of one side.
func figuresOf(rounds [][]burst, side int) figures {
	return figures{
		spreadOver(rounds, func(b []burst) float64 { return float64(b[side].quantile(.5)) }).median,
		spreadOver(rounds, func(b []burst) float64 { return float64(b[side].quantile(.99)) }).median,
		spreadOver(rounds, func(b []burst) float64 { return b[side].cpuPerOp() }).median,
	}
}

func (r row) brief() string {
	if r.time.median == 0 {
		return r.details
	}
	return fmt.Sprintf("time %s  CPU %s  %s", r.time, r.cpu, r.verdict())
}

// digits are those that mean something.
func digits(v float64) string {
	switch {
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case v < 0.1:
		return strconv.FormatFloat(v, 'g', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

func (s spread) String() string {
	switch {
	case s.median == 0:
		return "–"
	case s.q1 == s.median && s.q3 == s.median: // a single figure
		return digits(s.median)
	}
	return fmt.Sprintf("%s (%s–%s)", digits(s.median), digits(s.q1), digits(s.q3))
}

func (r row) verdict() string {
	g := r.bench.goal
	if g.most == 0 {
		return "—"
	}
	kind, value := "time", r.time.median
	if g.cpu {
		kind, value = "CPU", r.cpu.median
	}
	reached := "reached"
	if value > g.most {
		reached = "not yet"
	}
	return fmt.Sprintf("%s ≤ %s, %s", kind, digits(g.most), reached)
}

// table is Markdown.
func table(rows []row) string {
	var b strings.Builder
	b.WriteString("| benchmark | clients | time, ours / bare | CPU, ours / bare | goal | ours: p50, p99, CPU µs | bare: p50, p99, CPU µs |\n")
	b.WriteString("|---|---:|---|---|---|---|---|\n")
	for _, r := range rows {
		if r.time.median == 0 {
			continue
		}
		clients := "1"
		if r.bench.clients > 0 {
			clients = strconv.Itoa(r.bench.clients)
		}
		fmt.Fprintf(&b, "| `%s` | %s | **%s** | %s | %s | %s | %s |\n", r.bench.name, clients, r.time, r.cpu, r.verdict(), r.ours, r.bare)
	}
	b.WriteString("\nMeasured beside these:\n\n")
	for _, r := range rows {
		if r.details != "" {
			fmt.Fprintf(&b, "- `%s`: %s\n", r.bench.name, r.details)
		}
	}
	return b.String()
}

func (f figures) String() string {
	us := func(ns float64) string {
		if ns == 0 {
			return "–"
		}
		if ns < 10_000 {
			return strconv.FormatFloat(ns/1e3, 'g', 2, 64)
		}
		return strconv.FormatFloat(ns/1e3, 'f', 0, 64)
	}
	return us(f.p50) + ", " + us(f.p99) + ", " + us(f.cpu)
}

// ground is what the figures were measured on.
type ground struct {
	root, cpu, kernel, commit, load, guest string
	versions                               []string
	cfg                                    config
}

func newGround(root string) *ground {
	g := &ground{root: root, cpu: "unknown CPU", kernel: firstLine("/proc/sys/kernel/osrelease"), load: firstWords(firstLine("/proc/loadavg"), 3)}
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			g.cpu = strings.TrimSpace(value)
			break
		}
	}
	if out, err := exec.Command("git", "-C", root, "describe", "--always", "--dirty").Output(); err == nil {
		g.commit = strings.TrimSpace(string(out))
	}
	return g
}

// learn notes what is known only after the run.
func (g *ground) learn(w *world) {
	g.cfg, g.guest = w.cfg, w.guest
	g.load += " before, " + firstWords(firstLine("/proc/loadavg"), 3) + " after"
	info, err := buildinfo.ReadFile(w.bin("executor"))
	if err != nil {
		return
	}
	for _, dep := range info.Deps {
		switch dep.Path {
		case "github.com/tetratelabs/wazero", "google.golang.org/grpc":
			g.versions = append(g.versions, filepath.Base(dep.Path)+" "+dep.Version)
		}
	}
}

func (g *ground) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured %s at commit %s: %d × %s, Linux %s, %s", time.Now().UTC().Format(time.DateOnly), g.commit, runtime.NumCPU(), g.cpu, g.kernel, runtime.Version())
	for _, v := range g.versions {
		b.WriteString(", " + v)
	}
	fmt.Fprintf(&b, "; load average %s; %d pairs of bursts of %s", g.load, g.cfg.bursts, g.cfg.burst)
	if g.guest != "" {
		b.WriteString("; guest: " + g.guest)
	}
	b.WriteString(".\n")
	return b.String()
}

func firstLine(file string) string {
	b, _ := os.ReadFile(file)
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return string(line)
}

func firstWords(s string, n int) string {
	words := strings.Fields(s)
	return strings.Join(words[:min(n, len(words))], " ")
}

// The results in docs/benchmarks.md lie between these.
const begin, end = "<!-- results: make bench -->\n", "<!-- end of results -->\n"

func rewrite(file, text string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok1 := strings.Cut(string(old), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		return fmt.Errorf("%s has no %q and %q", file, strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	return os.WriteFile(file, []byte(before+begin+"\n"+text+"\n"+after2(after)), 0o644)
}

func after2(after string) string { return end + after }
