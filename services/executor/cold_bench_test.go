package executor

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"skein.dev"
	"skein.dev/platform/blob"
	"skein.dev/platform/blob/blobtest"
	"skein.dev/services/executor/internal/host"
)

// BenchmarkCold is the first call on an executor of a function that others have run: artifact and snapshot come from a real
// MinIO. It is compared with what the engine alone does for a first call when its own cache on disk has the code: load,
// instantiate, initialise, call. The parts are in milliseconds; what is not in them is the rest of the first call.
func BenchmarkCold(b *testing.B) {
	for name, build := range map[string][]string{
		"c":  {"clang", "--target=wasm32-wasi", "--sysroot=/usr", "-O3", "-msimd128", "-mbulk-memory", "-ftls-model=local-exec", "-mexec-model=reactor", "-Isdk/c/include", "sdk/c/skein.c", "examples/echo/c/echo.c", "-o"},
		"go": {"go", "build", "-buildmode=c-shared", "-o"},
	} {
		b.Run(name, func(b *testing.B) {
			b.Setenv("GOOS", "wasip1")
			b.Setenv("GOARCH", "wasm")
			root, err := filepath.Abs("../..")
			if err != nil {
				b.Fatal(err)
			}
			file := filepath.Join(b.TempDir(), "echo.wasm")
			args := append(slices.Clone(build[1:]), file)
			if name == "go" {
				args = append(args, "./examples/echo/go")
			}
			cmd := exec.Command(build[0], args...)
			cmd.Dir = root
			if out, err := cmd.CombinedOutput(); err != nil {
				b.Skipf("%v\n%s", err, out)
			}
			wasm, err := os.ReadFile(file)
			if err != nil {
				b.Fatal(err)
			}
			cold(b, wasm)
		})
	}
}

func cold(b *testing.B, wasm []byte) {
	bucket, err := blob.Open(b.Context(), blobtest.Start(b, "minio").URL())
	if err != nil {
		b.Fatal(err)
	}
	p := &place{t: b, bucket: bucket, spans: tracetest.NewSpanRecorder()}
	otel.SetTracerProvider(trace.NewTracerProvider(trace.WithSpanProcessor(p.spans)))
	d := p.put(wasm)
	first := func(s *modules) time.Duration {
		began := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		mod, _, err := s.acquire(ctx, d)
		if err != nil {
			b.Fatal(err)
		}
		defer s.release(d)
		if r := result(mod.Run(&host.Call{Context: ctx, Args: []string{"echo"}, Input: []byte("hello"), Log: &host.Log{}})); r.State != skein.Succeeded {
			b.Fatalf("%+v", r)
		}
		return time.Since(began)
	}
	first(p.executor("")) // stores artifact and snapshot
	p.await("snapshot put", 1)
	p.spans.Reset()
	cache := b.TempDir()
	engineFirst(b, cache, wasm) // fills its cache
	var ours, bare, ratios []float64
	for b.Loop() {
		s := p.executor("")
		o := first(s)
		e := engineFirst(b, cache, wasm)
		ours, bare, ratios = append(ours, ms(o)), append(bare, ms(e)), append(ratios, float64(o)/float64(e))
	}
	b.ReportMetric(0, "ns/op")
	for q, suffix := range map[float64]string{.25: "-q1", .5: "", .75: "-q3"} {
		b.ReportMetric(middle(ratios, q), "ratio"+suffix)
	}
	b.ReportMetric(middle(ours, .5)*1e6, "ours-ns")
	b.ReportMetric(middle(bare, .5)*1e6, "bare-ns")
	for part, unit := range map[string]string{"artifact get": "artifact-ms", "load code": "load-ms", "snapshot get": "snapshot-ms"} {
		var took []float64
		for _, s := range p.spans.Ended() {
			if s.Name() == part {
				took = append(took, ms(s.EndTime().Sub(s.StartTime())))
			}
		}
		b.ReportMetric(middle(took, .5), unit)
	}
}

// engineFirst is a first call in an engine of its own whose code is in a cache on disk.
func engineFirst(b *testing.B, cache string, wasm []byte) time.Duration {
	b.Helper()
	began := time.Now()
	ctx := &host.Call{Context: b.Context(), Args: []string{"echo"}, Input: []byte("hello"), Log: &host.Log{}}
	files, err := wazero.NewCompilationCacheWithDir(cache)
	if err != nil {
		b.Fatal(err)
	}
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().WithCompilationCache(files))
	defer func() { _ = rt.Close(context.Background()); _ = files.Close(context.Background()) }()
	if err := host.Link(ctx, rt); err != nil {
		b.Fatal(err)
	}
	compiled, err := rt.CompileModule(ctx, wasm)
	if err != nil {
		b.Fatal(err)
	}
	inst, err := rt.InstantiateModule(ctx, compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize"))
	if err != nil {
		b.Fatal(err)
	}
	if _, err := inst.ExportedFunction("handle").Call(ctx); err != nil {
		b.Fatal(err)
	}
	return time.Since(began)
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

func middle(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(values))
	return v[int(q*float64(len(v)-1))]
}
