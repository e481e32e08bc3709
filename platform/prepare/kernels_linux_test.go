package prepare

import (
	"cmp"
	"context"
	_ "embed"
	"math"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

//go:embed testdata/kernels.c
var kernelsC string

//go:embed testdata/guest.go.txt
var guestGo string

// kernel is a function of a guest on both sides.
type kernel struct {
	name            string
	plain, prepared api.Function
	args            []uint64
	times           [2][]float64 // seconds of CPU a call: plain, prepared
}

// pair makes an instance of a guest as it is and one prepared.
func pair(t testing.TB, wasm []byte) (plainMod, prepared api.Module, p *Prepared, e *engine) {
	t.Helper()
	ctx := t.Context()
	p, err := Prepare(wasm, DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	e = newEngine(t, func() int32 {
		if time.Since(began) < 0 { // what a machine does at least: look at the clock
			panic(errOverdue)
		}
		return MaxFuel
	})
	a := newEngine(t, func() int32 { return 0 })
	wasi_snapshot_preview1.MustInstantiate(ctx, a)
	wasi_snapshot_preview1.MustInstantiate(ctx, e)
	if plainMod, err = a.InstantiateWithConfig(ctx, wasm, plain("")); err != nil {
		t.Fatal(err)
	}
	if prepared, err = e.boot(ctx, p, ""); err != nil {
		t.Fatal(err)
	}
	for _, mod := range []api.Module{plainMod, prepared} {
		if f := mod.ExportedFunction(InitializeExport); f != nil {
			if _, err := f.Call(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	return plainMod, prepared, p, e
}

func buildKernels(t testing.TB, flags ...string) []byte {
	return build(t, "kernels.c", kernelsC, append([]string{"clang", "--target=wasm32", "-nostdlib", "-O3", "-mbulk-memory", "-Wl,--no-entry"}, flags...)...)
}

func buildGuest(t testing.TB) []byte {
	return build(t, "main.go", guestGo, "go", "build", "-buildmode=c-shared")
}

// kernels are those of testdata/kernels.c, and the Go guest.
func kernels(t testing.TB) []*kernel {
	var list []*kernel
	add := func(wasm []byte, prefix string, args ...uint64) {
		plainMod, prepared, p, _ := pair(t, wasm)
		for _, e := range p.Module.Exports {
			if want := os.Getenv("KERNEL"); want != "" && want != e.Name {
				continue
			}
			if e.Kind == ExternFunc && len(e.Type.Params) == len(args) && len(e.Type.Results) == 1 {
				list = append(list, &kernel{
					name: prefix + e.Name, args: slices.Clone(args),
					plain: plainMod.ExportedFunction(e.Name), prepared: prepared.ExportedFunction(e.Name),
				})
			}
		}
	}
	add(buildKernels(t), "", 100)
	add(buildGuest(t), "go-")
	return list
}

// run calls one side and returns its CPU time.
func (k *kernel) run(t testing.TB, f api.Function) (float64, uint64) {
	began := threadCPU(t)
	results, err := f.Call(context.Background(), k.args...)
	if err != nil {
		t.Fatalf("%s: %v", k.name, err)
	}
	return (threadCPU(t) - began).Seconds(), results[0]
}

// Prepared kernels compute what they always did, and come back to the host while they do.
func TestKernels(t *testing.T) {
	for _, flags := range [][]string{nil, {"-msimd128"}, {"-mtail-call"}, {"-O0"}} {
		plainMod, prepared, p, e := pair(t, buildKernels(t, flags...))
		for _, x := range p.Module.Exports {
			if x.Kind != ExternFunc {
				continue
			}
			e.yields = 0
			want, err := plainMod.ExportedFunction(x.Name).Call(t.Context(), 40)
			got, errB := prepared.ExportedFunction(x.Name).Call(t.Context(), 40)
			if err != nil || errB != nil || want[0] != got[0] {
				t.Errorf("%v %s: %v %v, prepared %v %v", flags, x.Name, want, err, got, errB)
			}
			if e.yields == 0 {
				t.Errorf("%v %s: never yields", flags, x.Name)
			}
		}
	}
}

// BenchmarkInterruption measures what interruption points cost: CPU time of prepared kernels to that of the same ones
// unprepared, in turns. "ratio" is the geometric mean, "worst" the largest; the others are single kernels.
func BenchmarkInterruption(b *testing.B) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	list := kernels(b)
	for _, k := range list {
		k.run(b, k.prepared)
		if t, _ := k.run(b, k.plain); len(k.args) > 0 { // to about 10 ms
			k.args[0] = uint64(min(max(float64(k.args[0])*0.010/t, 1), 1e6))
		}
	}
	const rounds = 7
	for b.Loop() {
		for range rounds {
			for _, k := range list {
				plainTime, want := k.run(b, k.plain)
				preparedTime, got := k.run(b, k.prepared)
				if want != got {
					b.Fatalf("%s: %d, prepared %d", k.name, want, got)
				}
				k.times[0], k.times[1] = append(k.times[0], plainTime), append(k.times[1], preparedTime)
			}
		}
	}
	sum, worst := 0.0, 0.0
	for _, k := range list {
		ratio := median(k.times[1]) / median(k.times[0])
		sum += math.Log(ratio)
		worst = max(worst, ratio)
		b.ReportMetric(ratio, k.name)
		b.Logf("%-12s %.3f (least %.3f), %.1f ms", k.name, ratio, slices.Min(k.times[1])/slices.Min(k.times[0]), median(k.times[0])*1e3)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(math.Exp(sum/float64(len(list))), "ratio")
	b.ReportMetric(worst, "worst")
}

func median[T cmp.Ordered](list []T) T {
	list = slices.Clone(list)
	slices.Sort(list)
	return list[len(list)/2]
}

// BenchmarkPrepare is how long a module takes to be prepared.
func BenchmarkPrepare(b *testing.B) {
	wasm := buildGuest(b)
	b.SetBytes(int64(len(wasm)))
	var p *Prepared
	for b.Loop() {
		var err error
		if p, err = Prepare(wasm, DefaultLimits()); err != nil {
			b.Fatal(err)
		}
	}
	data := 0
	for _, s := range p.Image {
		data += len(s.Data)
	}
	b.ReportMetric(float64(len(p.Wasm)+data)/float64(len(wasm)), "size")
}
