package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// program is a Go benchmark of a package that only its own module can import; it reports metrics: a ratio or what it may.
type program struct {
	dir, name string
	rounds    int             // 0 for one a burst
	goals     map[string]goal // of the ratio, by what follows the benchmark's name
}

var programs = []program{
	{dir: "services/executor/internal/machine", name: "BenchmarkCallExport", goals: map[string]goal{"": {most: 1.5}}},
	{dir: "services/executor/internal/machine", name: "BenchmarkCallInstance"},
	{dir: "services/executor/internal/machine", name: "BenchmarkCallHost", goals: map[string]goal{"": {most: 1.5}}},
	{dir: "services/executor/internal/machine", name: "BenchmarkFresh", goals: map[string]goal{
		"tiny": {most: 1. / 3}, "data": {most: 1. / 50}, "gore": {most: 1. / 50}, "large": {most: 1. / 50},
	}},
	{dir: "services/executor/internal/machine", name: "BenchmarkReset", goals: map[string]goal{"gore": {most: 2}, "large": {most: 2}}},
	{dir: "services/executor/internal/machine", name: "BenchmarkDensity", rounds: 1},
	{dir: "services/executor/internal/machine", name: "BenchmarkGap", rounds: 5},
	{dir: "services/executor", name: "BenchmarkCold", goals: map[string]goal{"go": {most: 1.1}}},
	{dir: "services/executor", name: "BenchmarkChainLocal", goals: map[string]goal{"": {most: 12}}},
	{dir: "services/executor", name: "BenchmarkFanoutLocal", goals: map[string]goal{"": {most: 12}}},
	{dir: "services/planner", name: "BenchmarkDecisions", rounds: 400, goals: map[string]goal{"": {most: 1.3}}},
	{dir: "platform/prepare", name: "BenchmarkInterruption", rounds: 3, goals: map[string]goal{"": {most: 1.10}}},
}

// String is the benchmark's name as ours are: call.export for BenchmarkCallExport.
func (p program) String() string {
	var b strings.Builder
	for i, r := range strings.TrimPrefix(p.name, "Benchmark") {
		if r >= 'A' && r <= 'Z' {
			if i > 0 {
				b.WriteByte('.')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// measure runs it. It gives a row for each of its parts.
func (p program) measure(ctx context.Context, w *world) ([]row, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()
	rounds := p.rounds
	if rounds == 0 {
		rounds = w.cfg.bursts
	}
	module, dir := p.dir, "."
	if i := strings.Index(p.dir, "/internal/"); i >= 0 {
		module, dir = p.dir[:i], "."+p.dir[i:]
	} else if strings.HasPrefix(p.dir, "platform/") {
		module, dir = "platform", "./"+strings.TrimPrefix(p.dir, "platform/")
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^"+p.name+"$", "-benchtime", fmt.Sprint(rounds)+"x", "-timeout", "20m", dir)
	cmd.Dir = filepath.Join(w.root, module)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(w.root, ".bin")+string(os.PathListSeparator)+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("go test: %w\n%s", err, out)
	}
	var rows []row
	for line := range strings.Lines(string(out)) {
		if words := strings.Fields(line); len(words) > 3 && strings.HasPrefix(line, p.name) {
			rows = append(rows, p.row(words))
		}
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("no result\n%s", out)
	}
	return rows, nil
}

// row reads "BenchmarkName/part-2 16 1.5 ratio 1.4 ratio-q1 …".
func (p program) row(words []string) row {
	part := strings.TrimPrefix(words[0], p.name)
	if i := strings.LastIndexByte(part, '-'); i >= 0 {
		part = part[:i] // how many processors
	}
	part = strings.TrimPrefix(part, "/")
	m := map[string]float64{}
	for i := 3; i < len(words); i += 2 {
		if v, err := strconv.ParseFloat(words[i-1], 64); err == nil {
			m[words[i]] = v
		}
	}
	take := func(unit string) float64 {
		v := m[unit]
		delete(m, unit)
		return v
	}
	delete(m, "ns/op")
	name := p.String()
	if part != "" {
		name += "." + part
	}
	spreadOf := func(unit string) spread {
		s := spread{take(unit + "-q1"), take(unit), take(unit + "-q3")}
		if s.q1 == 0 {
			s.q1, s.q3 = s.median, s.median
		}
		return s
	}
	r := row{
		bench: bench{name: name, goal: p.goals[part]}, time: spreadOf("ratio"), cpu: spreadOf("cpu-ratio"),
		ours: figures{p50: take("ours-ns"), cpu: take("ours-cpu-ns")}, bare: figures{p50: take("bare-ns"), cpu: take("bare-cpu-ns")},
	}
	if r.time.median == 0 && r.ours.p50 > 0 { // no ratio: the two figures speak for themselves
		m["ours-ns"], m["bare-ns"] = r.ours.p50, r.bare.p50
	}
	var details []string
	for unit, v := range m {
		details = append(details, unit+" "+digits(v))
	}
	slices.Sort(details)
	r.details = strings.Join(details, ", ")
	return r
}
