package machine_test

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"

	"skein.dev"
	"skein.dev/services/executor/internal/host"
	"skein.dev/services/executor/internal/machine"
)

// BenchmarkFresh is an instance made of a snapshot, against the engine's of the module as it was uploaded and the
// initialisation that ours has behind it.
func BenchmarkFresh(b *testing.B) {
	for _, name := range append(guests, "large") {
		b.Run(strings.TrimSuffix(name, ".c"), func(b *testing.B) {
			m := open(b, tiers["native"])
			mod := boot(b, m, name)
			c := &host.Call{Context: b.Context(), Args: []string{"bench"}}
			rt := wazero.NewRuntimeWithConfig(b.Context(), wazero.NewRuntimeConfigCompiler())
			b.Cleanup(func() { _ = rt.Close(context.Background()) })
			if err := host.Link(b.Context(), rt); err != nil {
				b.Fatal(err)
			}
			compiled, err := rt.CompileModule(b.Context(), build(b, name).wasm)
			if err != nil {
				b.Fatal(err)
			}
			cfg := wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize")
			versus(b, 1, mod.Fresh, func() error {
				inst, err := rt.InstantiateModule(c, compiled, cfg)
				if err != nil {
					return err
				}
				return inst.Close(c)
			})
		})
	}
}

// BenchmarkReset is a call with the reset after it, against the call alone, and the reset alone, in nanoseconds.
func BenchmarkReset(b *testing.B) {
	for _, name := range append(guests, "large") {
		b.Run(strings.TrimSuffix(name, ".c"), func(b *testing.B) {
			mod := boot(b, open(b, tiers["native"]), name)
			clean, alone := keep(b, mod), keep(b, mod)
			call := func(k machine.Kept) { // those that find themselves called before say so: it is no matter here
				k.Call(&host.Call{Context: b.Context(), Args: []string{"bench"}})
			}
			var resets []float64
			versus(b, 1, func() error {
				call(clean)
				began := time.Now()
				err := clean.Reset()
				resets = append(resets, float64(time.Since(began)))
				return err
			}, func() error {
				call(alone)
				return nil
			})
			b.ReportMetric(quantile(resets, .5), "reset-ns")
			if exit := clean.Call(&host.Call{Context: b.Context(), Args: []string{"bench"}}); exit.State != skein.Succeeded {
				b.Errorf("%+v", exit)
			}
		})
	}
}

func keep(b *testing.B, mod *machine.Module) machine.Kept {
	b.Helper()
	k, err := mod.Keep()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(k.Close)
	return k
}

// BenchmarkDensity is what an idle instance costs: bytes of this process's that are resident, its share of those that it
// shares, and mappings; as it was made, once it was called, and once it was left alone.
func BenchmarkDensity(b *testing.B) {
	for name, n := range map[string]int{"tiny.c": 10_000, "gore": 1_000} {
		b.Run(strings.TrimSuffix(name, ".c"), func(b *testing.B) {
			cfg := tiers["native"]
			cfg.WarmMemory = 64 << 30
			m := open(b, cfg)
			mod := boot(b, m, name)
			for range b.N {
				before := footprint(b)
				report := func(what string) {
					after := footprint(b)
					b.ReportMetric((after.rss-before.rss)/float64(n), what+"-rss-KiB")
					b.ReportMetric((after.pss-before.pss)/float64(n), what+"-pss-KiB")
					b.ReportMetric(float64(after.mappings-before.mappings), what+"-mappings")
				}
				began := time.Now()
				if err := mod.Prewarm(n); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(time.Since(began).Microseconds())/float64(n), "make-µs")
				report("made")
				if failed := mod.CallEach(func() machine.Guest {
					return &host.Call{Context: b.Context(), Args: []string{"bench"}}
				}); failed > 0 {
					b.Errorf("%d of %d calls failed", failed, n)
				}
				report("called")
				m.Age(11 * time.Second)
				report("left")
				b.ReportMetric(float64(m.Mappings()), "charged-mappings")
				if mod.Idle() < n {
					b.Errorf("of %d instances %d are idle", n, mod.Idle())
				}
				m.Age(time.Hour)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

type memory struct {
	rss, pss float64 // KiB
	mappings int
}

func footprint(b *testing.B) (m memory) {
	b.Helper()
	runtime.GC()
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		b.Skip(err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 2 {
			continue
		}
		n, _ := strconv.ParseFloat(f[1], 64)
		switch f[0] {
		case "Rss:":
			m.rss = n
		case "Pss:":
			m.pss = n
		}
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		b.Skip(err)
	}
	m.mappings = bytes.Count(maps, []byte("\n"))
	return m
}
