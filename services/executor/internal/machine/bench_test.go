package machine_test

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"skein.dev"
	"skein.dev/platform/prepare"
	"skein.dev/services/executor/internal/host"
	"skein.dev/services/executor/internal/machine"
)

// These compare our layer with the bare engine in the manner of test/bench, whose table their metrics become: both sides
// take turns within each iteration, and the result is the median of the turns' ratios.

// BenchmarkCallExport is the call of an exported function that does nothing: ours as a whole run, with the instance reset
// for the next, the engine's by a kept handle.
func BenchmarkCallExport(b *testing.B) {
	wasm := oneFunction(nothing)
	handle := bare(b, wasm)
	versus(b, 1, ours(b, wasm), func() error {
		_, err := handle.Call(b.Context())
		return err
	})
}

// BenchmarkCallInstance is the same against what the engine does for a call that sees nothing of another: an instance.
func BenchmarkCallInstance(b *testing.B) {
	wasm := oneFunction(nothing)
	rt, compiled := engine(b, wasm)
	cfg := wazero.NewModuleConfig().WithName("")
	versus(b, 1, ours(b, wasm), func() error {
		inst, err := rt.InstantiateModule(b.Context(), compiled, cfg)
		if err != nil {
			return err
		}
		if _, err := inst.ExportedFunction("handle").Call(b.Context()); err != nil {
			return err
		}
		return inst.Close(b.Context())
	})
}

// BenchmarkCallHost is a host call that takes 64 bytes from the guest's memory, write_call_output, out of a loop in the
// guest: through rows and rooms, and as a bare function of the engine that copies them too.
func BenchmarkCallHost(b *testing.B) {
	wasm := oneFunction(loopOfOutputs)
	handle := bare(b, wasm)
	versus(b, hostCalls, ours(b, wasm), func() error {
		_, err := handle.Call(b.Context())
		return err
	})
}

// ours is a run of the module through the machine, linked as in the executor.
func ours(b *testing.B, wasm []byte) func() error {
	b.Helper()
	m := open(b, machine.Config{GuestMemory: 16 << 20, WarmMemory: 16 << 20})
	p, err := prepare.Prepare(wasm, prepare.DefaultLimits())
	if err != nil {
		b.Fatal(err)
	}
	code, err := m.Runtime().CompileModule(b.Context(), p.Wasm)
	if err != nil {
		b.Fatal(err)
	}
	mod, err := m.Load(b.Context(), code, p)
	if err == nil {
		err = mod.Boot(bootCall(b))
	}
	if err != nil {
		b.Fatal(err)
	}
	return func() error {
		ctx, cancel := context.WithTimeout(b.Context(), time.Minute) // every call has a deadline
		defer cancel()
		log := &host.Log{}
		exit := mod.Run(&host.Call{Context: ctx, Args: []string{"bench"}, Stdout: log, Stderr: log, Log: log})
		if exit.State != skein.Succeeded {
			return errors.New(exit.Message)
		}
		return nil
	}
}

// engine is wazero as it comes, with a host function that copies 64 bytes.
func engine(b *testing.B, wasm []byte) (wazero.Runtime, wazero.CompiledModule) {
	b.Helper()
	rt := wazero.NewRuntimeWithConfig(b.Context(), wazero.NewRuntimeConfigCompiler())
	b.Cleanup(func() { _ = rt.Close(context.Background()) })
	var output []byte // a copy of its own each time, as a call's output is
	i32 := api.ValueTypeI32
	_, err := rt.NewHostModuleBuilder("faasm").NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(_ context.Context, mod api.Module, stack []uint64) {
		bytes, ok := mod.Memory().Read(uint32(stack[0]), uint32(stack[1]))
		if !ok {
			panic("out of memory")
		}
		output = append([]byte(nil), bytes...)
		stack[0] = uint64(len(output) - len(bytes))
	}), []api.ValueType{i32, i32}, []api.ValueType{i32}).Export("write_call_output").Instantiate(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	compiled, err := rt.CompileModule(b.Context(), wasm)
	if err != nil {
		b.Fatal(err)
	}
	return rt, compiled
}

// bare is the kept handle of a kept instance.
func bare(b *testing.B, wasm []byte) api.Function {
	b.Helper()
	rt, compiled := engine(b, wasm)
	inst, err := rt.InstantiateModule(b.Context(), compiled, wazero.NewModuleConfig())
	if err != nil {
		b.Fatal(err)
	}
	return inst.ExportedFunction("handle")
}

// versus lets both sides take turns and reports the ratio of their times; each call of them is ops operations.
func versus(b *testing.B, ops int, ours, bare func() error) {
	b.Helper()
	const turn = 250 * time.Millisecond
	type cost struct{ time, cpu float64 } // ns an operation
	run := func(f func() error, d time.Duration) cost {
		before := cpuTime()
		began := time.Now()
		n, batch := 0, 1
		for time.Since(began) < d {
			for range batch {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
			n += batch * ops
			if batch < 16 && time.Since(began) < d/100 {
				batch *= 2 // the clock must not be what is measured
			}
		}
		return cost{float64(time.Since(began)) / float64(n), float64(cpuTime()-before) / float64(n)}
	}
	run(ours, turn/4) // warm-up
	run(bare, turn/4)
	var ratios, cpus, ourTime, bareTime, ourCPU, bareCPU []float64
	for i := range b.N {
		var o, e cost
		if i%2 == 0 {
			o, e = run(ours, turn), run(bare, turn)
		} else {
			e, o = run(bare, turn), run(ours, turn)
		}
		ratios, cpus = append(ratios, o.time/e.time), append(cpus, o.cpu/e.cpu)
		ourTime, bareTime = append(ourTime, o.time), append(bareTime, e.time)
		ourCPU, bareCPU = append(ourCPU, o.cpu), append(bareCPU, e.cpu)
	}
	b.ReportMetric(0, "ns/op") // of a pair of turns: it means nothing
	for name, values := range map[string][]float64{"ratio": ratios, "cpu-ratio": cpus} {
		b.ReportMetric(quantile(values, .25), name+"-q1")
		b.ReportMetric(quantile(values, .5), name)
		b.ReportMetric(quantile(values, .75), name+"-q3")
	}
	for name, values := range map[string][]float64{"ours-ns": ourTime, "bare-ns": bareTime, "ours-cpu-ns": ourCPU, "bare-cpu-ns": bareCPU} {
		b.ReportMetric(quantile(values, .5), name)
	}
}

func quantile(values []float64, q float64) float64 {
	v := slices.Sorted(slices.Values(values))
	x := q * float64(len(v)-1)
	i := int(x)
	return v[i] + (x-float64(i))*(v[min(i+1, len(v)-1)]-v[i])
}

// cpuTime is this process's.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if runtime.GOOS == "windows" || syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// hostCalls are so many that the instance around them does not count.
const hostCalls = 1 << 16

var (
	nothing = []byte{0, 0x41, 0, 0x0b}
	// (local i32) (loop (drop (call 0 (i32.const 0) (i32.const 64)))
	//   (br_if 0 (i32.ne (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 65536)))) (i32.const 0)
	loopOfOutputs = []byte{
		1, 1, 0x7f, 0x03, 0x40, 0x41, 0, 0x41, 0xc0, 0, 0x10, 0, 0x1a,
		0x20, 0, 0x41, 1, 0x6a, 0x22, 0, 0x41, 0x80, 0x80, 4, 0x47, 0x0d, 0, 0x0b, 0x41, 0, 0x0b,
	}
)

// oneFunction is a reactor with one page of memory that may call write_call_output as function 0.
func oneFunction(code []byte) []byte {
	name := func(s string) []byte { return append([]byte{byte(len(s))}, s...) }
	section := func(id byte, parts ...[]byte) []byte {
		body := bytes.Join(parts, nil)
		return append([]byte{id, byte(len(body))}, body...)
	}
	return bytes.Join([][]byte{
		[]byte("\x00asm\x01\x00\x00\x00"),
		section(1, []byte{2, 0x60, 2, 0x7f, 0x7f, 1, 0x7f, 0x60, 0, 1, 0x7f}),
		section(2, []byte{1}, name("faasm"), name("write_call_output"), []byte{0, 0}),
		section(3, []byte{1, 1}),
		section(5, []byte{1, 0, 1}),
		section(7, []byte{2}, name("memory"), []byte{2, 0}, name("handle"), []byte{0, 1}),
		section(10, []byte{1, byte(len(code))}, code),
	}, nil)
}
