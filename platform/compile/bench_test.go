package compile_test

import (
	"os"
	"testing"
	"time"

	"skein.dev/platform/compile"
	"skein.dev/platform/prepare"
)

// BenchmarkModule goes the way of a module from upload to an engine, and tells the parts apart. SKEIN_BENCH_WASM names a
// file; without, it is the smallest module there is.
func BenchmarkModule(b *testing.B) {
	module := wasm(0, nil)
	if name := os.Getenv("SKEIN_BENCH_WASM"); name != "" {
		var err error
		if module, err = os.ReadFile(name); err != nil {
			b.Fatal(err)
		}
	}
	parts := map[string]time.Duration{}
	part := func(name string, start time.Time) { parts[name] += time.Since(start) }
	for b.Loop() {
		start := time.Now()
		p, err := prepare.Prepare(module, prepare.DefaultLimits())
		if err != nil {
			b.Fatal(err)
		}
		part("prepare", start)
		start = time.Now()
		a, err := compile.Compile(b.Context(), p, compile.DefaultLimits())
		if err != nil {
			b.Fatal(err)
		}
		part("compile", start)
		start = time.Now()
		encoded, err := a.Encode(nil)
		if err != nil {
			b.Fatal(err)
		}
		part("encode", start)
		start = time.Now()
		back, err := compile.Decode(encoded, nil, a.Digest, a.Fingerprint)
		if err != nil {
			b.Fatal(err)
		}
		part("decode", start)
		w := newWorld(b)
		start = time.Now()
		mod, err := compile.Load(b.Context(), w, w.dir, back)
		if err != nil {
			b.Fatal(err)
		}
		part("load", start)
		_ = mod.Close(b.Context())
		b.ReportMetric(float64(len(a.Code))/1e6, "MB-code")
		b.ReportMetric(float64(len(encoded))/1e6, "MB-artifact")
	}
	for name, took := range parts {
		b.ReportMetric(float64(took.Microseconds())/1e3/float64(b.N), "ms-"+name)
	}
}
