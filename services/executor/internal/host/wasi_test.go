package host

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"skein.dev"
	"skein.dev/abi"
	"skein.dev/platform/prepare"
	"skein.dev/services/executor/internal/machine"
	"skein.dev/services/executor/internal/replica"
	"skein.dev/services/executor/internal/replica/replicatest"
	"skein.dev/services/executor/internal/vfs/vfstest"
)

// caller is a module that imports every row of preview 1 and exports a function for each that passes its arguments on.
func caller(pages byte) []byte {
	leb := func(n int) []byte {
		return []byte{byte(n)&0x7f | 0x80, byte(n>>7)&0x7f | 0x80, byte(n >> 14 & 0x7f)}
	}
	name := func(s string) []byte { return append(leb(len(s)), s...) }
	section := func(id byte, n int, items []byte) []byte {
		body := append(leb(n), items...)
		return slices.Concat([]byte{id}, leb(len(body)), body)
	}
	var types, imports, funcs, exports, code []byte
	n := 0
	for _, r := range abi.Rows() {
		if r.Module == abi.WASI {
			n++
		}
	}
	i := 0
	for _, r := range abi.Rows() {
		if r.Module != abi.WASI {
			continue
		}
		types = append(append(append(types, 0x60), leb(len(r.Signature.Params))...), r.Signature.Params...)
		types = append(append(types, leb(len(r.Signature.Results))...), r.Signature.Results...)
		imports = slices.Concat(imports, name(r.Module), name(r.Name), []byte{0}, leb(i))
		funcs = append(funcs, leb(i)...)
		exports = slices.Concat(exports, name(r.Name), []byte{0}, leb(n+i))
		body := []byte{0}
		for p := range r.Signature.Params {
			body = append(append(body, 0x20), leb(p)...)
		}
		body = slices.Concat(body, []byte{0x10}, leb(i), []byte{0x0b})
		code = slices.Concat(code, leb(len(body)), body)
		i++
	}
	exports = slices.Concat(exports, name("memory"), []byte{2, 0})
	return slices.Concat([]byte("\x00asm\x01\x00\x00\x00"), section(1, n, types), section(2, n, imports), section(3, n, funcs),
		section(5, 1, []byte{0, pages}), section(7, n+1, exports), section(10, n, code))
}

func instance(t *testing.T, wasm []byte, cfg wazero.RuntimeConfig) api.Module {
	t.Helper()
	rt := wazero.NewRuntimeWithConfig(t.Context(), cfg)
	t.Cleanup(func() { _ = rt.Close(context.Background()) })
	if err := Link(t.Context(), rt); err != nil {
		t.Fatal(err)
	}
	inst, err := rt.InstantiateWithConfig(t.Context(), wasm, wazero.NewModuleConfig().WithStartFunctions())
	if err != nil {
		t.Fatal(err)
	}
	return inst
}

// Whatever arguments a row gets, it answers: the only panics are those that end a guest.
func TestRandomArguments(t *testing.T) {
	const tuples = 2000
	inst := instance(t, caller(2), wazero.NewRuntimeConfigCompiler())
	mem := inst.Memory()
	rng := rand.New(rand.NewPCG(1, 2))
	size := uint64(mem.Size())
	values := []uint64{
		0, 1, 2, 3, 4, 5, 7, 8, 24, 32, 48, 63, 64, 256, 1024, 1025, 4096, 4097, size - 48, size - 8, size - 4, size - 1, size, size + 1,
		1<<31 - 1, 1 << 31, 1<<32 - 8, 1<<32 - 1, 1<<63 - 1, 1 << 63, 1<<64 - 1,
	}
	texts := []string{"dir/file", "dir", "..", "dir/../../x", "a\x00b", "\xff", "/", strings.Repeat("x/", 3000)}
	argument := func(typ api.ValueType) uint64 {
		v := rng.Uint64()
		switch rng.IntN(4) {
		case 0, 1:
			v = values[rng.IntN(len(values))]
		case 2:
			v = uint64(rng.IntN(len(texts)))*8192 + 1024 // a path, and for iovecs rubbish
		}
		if typ == api.ValueTypeI32 {
			v = uint64(uint32(v))
		}
		return v
	}
	for _, boot := range []bool{false, true} {
		answers := map[string]map[uint64]int{}
		for _, r := range abi.Rows() {
			if r.Module != abi.WASI {
				continue
			}
			answers[r.Name] = map[uint64]int{}
			fn := inst.ExportedFunction(r.Name)
			log := &Log{}
			c := &Call{
				Args: []string{"a", ""}, Env: func(*Call) []string { return []string{"K=V"} }, Stdin: strings.NewReader(strings.Repeat("in", 9999)), Stdout: log, Stderr: log, Log: log,
				Files: vfstest.Setup(map[string]string{"dir/file": "content", "x": ""}), Boot: boot,
			}
			for i := range tuples {
				if i%50 == 0 {
					c.table = nil // else all is soon closed
				}
				if i%500 == 0 { // what rows wrote would soon be all there is
					whole, _ := mem.Read(0, mem.Size())
					for at := 0; at < len(whole); at += 8 {
						binary.LittleEndian.PutUint64(whole[at:], argument(api.ValueTypeI64))
					}
					for j, s := range texts {
						copy(whole[j*8192+1024:], s)
					}
				}
				args := make([]uint64, len(r.Signature.Params))
				for j, typ := range r.Signature.Params {
					args[j] = argument(typ)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Millisecond)
				c.Context = ctx
				results, err := fn.Call(c, args...)
				_, exited := errors.AsType[machine.ExitCode](err)
				switch {
				case exited && (r.Name == "proc_exit" || r.Name == "proc_raise" && args[0] <= lastSignal):
				case err != nil && (ctx.Err() == nil || !errors.Is(err, ctx.Err())):
					t.Fatalf("%s(%#x): %v", r.Name, args, err)
				case err == nil && results[0] > 76:
					t.Fatalf("%s(%#x) answers %d", r.Name, args, results[0])
				case err == nil:
					answers[r.Name][results[0]]++
				}
				cancel()
			}
		}
		for name, got := range answers {
			if len(got) < 2 && name != "proc_exit" && name != "proc_raise" && name != "sched_yield" {
				t.Errorf("%s always answers %v: the arguments are not varied enough", name, got)
			}
		}
	}
	if uint64(mem.Size()) != size {
		t.Errorf("memory has become %d bytes", mem.Size())
	}
}

// A module without a memory gets EFAULT.
func TestNoMemory(t *testing.T) {
	g := guest{stack: []uint64{1, 8, 1, 8}}
	if _, err := g.bytes(0, 1); !errors.Is(err, abi.EFAULT) {
		t.Error(err)
	}
	for name, fn := range preview1Rows() {
		if name == "proc_exit" || name == "proc_raise" || name == "sched_yield" {
			continue
		}
		stack := make([]uint64, 9)
		stack[2] = 1
		if got := fn(&Call{Context: t.Context(), Args: []string{"a"}, Env: func(*Call) []string { return []string{"K=V"} }}, guest{stack: stack}); got == 0 && !strings.HasPrefix(name, "fd_") && name != "random_get" {
			t.Errorf("%s succeeds without a memory", name)
		}
	}
}

func preview1Rows() room {
	all := room{}
	for _, r := range []room{wasiProcess, wasiFD, wasiPath, wasiSock} {
		for name, fn := range r {
			all[strings.TrimPrefix(name, abi.WASI+".")] = fn
		}
	}
	return all
}

// A poll ends with its call, and a fill of much memory does too.
func TestWaitsEnd(t *testing.T) {
	inst := instance(t, caller(2), wazero.NewRuntimeConfigCompiler())
	mem := inst.Memory()
	mem.WriteUint64Le(24, 3600e9)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := inst.ExportedFunction("poll_oneoff").Call(&Call{Context: ctx}, 0, 64, 1, 128)
	if abort, ok := errors.AsType[machine.Abort](err); !ok || !errors.Is(abort.Err, context.DeadlineExceeded) {
		t.Errorf("a poll past its deadline: %v", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
	if _, err = inst.ExportedFunction("random_get").Call(&Call{Context: ctx}, 0, 64<<10); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("random bytes for a call that is over: %v", err)
	}
}

// What a boot asks for decides whether it can be a snapshot.
func TestBoot(t *testing.T) {
	inst := instance(t, caller(2), wazero.NewRuntimeConfigCompiler())
	mem := inst.Memory()
	mem.WriteString(1024, "dir/file")
	mem.WriteUint32Le(0, 2048) // an iovec
	mem.WriteUint32Le(4, 4)
	for _, c := range []struct {
		row   string
		args  []uint64
		errno abi.Errno
		taint string
	}{
		{"args_sizes_get", []uint64{64, 68}, 0, ""},
		{"environ_sizes_get", []uint64{64, 68}, 0, ""},
		{"clock_time_get", []uint64{1, 0, 64}, 0, ""},
		{"random_get", []uint64{64, 8}, 0, ""},
		{"fd_write", []uint64{1, 0, 1, 64}, 0, ""},
		{"fd_prestat_get", []uint64{3, 64}, 0, ""},
		{"fd_fdstat_get", []uint64{0, 64}, 0, ""},
		{"fd_filestat_get", []uint64{3, 64}, 0, ""},
		{"fd_fdstat_set_flags", []uint64{0, 4}, 0, ""}, // as Go does at its start
		{"sock_accept", []uint64{3, 0, 64}, abi.ENOTSOCK, ""},
		{"fd_read", []uint64{0, 0, 1, 64}, 0, "fd_read"}, // and there is nothing
		{"path_open", []uint64{3, 0, 1024, 8, 0, 2, 0, 0, 64}, abi.ENOENT, "files"},
		{"path_filestat_get", []uint64{3, 0, 1024, 8, 64}, abi.ENOENT, "files"},
		{"path_create_directory", []uint64{3, 1024, 3}, 0, "files"},
		{"fd_readdir", []uint64{3, 64, 256, 0, 60}, 0, "fd_readdir"},
		{"fd_close", []uint64{0}, 0, "fd_close"},
		{"fd_renumber", []uint64{1, 2}, 0, "fd_renumber"},
	} {
		boot := &Call{Context: t.Context(), Boot: true, Files: vfstest.Setup(map[string]string{"dir/file": ""}), Args: []string{"function"}}
		results, err := inst.ExportedFunction(c.row).Call(boot, c.args...)
		if err != nil || abi.Errno(results[0]) != c.errno || boot.Meter().Tainted() != c.taint {
			t.Errorf("%s: %v, %v, taint %q; want %v, %q", c.row, results, err, boot.Meter().Tainted(), c.errno, c.taint)
		}
	}

	for name, want := range map[string]int64{
		"faasm.read_call_input": 0, "faasm.write_call_output": -int64(abi.EPERM), "faasm.set_state": -int64(abi.EPERM),
		"faasm.state_size": -int64(abi.EPERM), "faasm.push_state": -int64(abi.EPERM), "env.__faasm_read_state": -int64(abi.EPERM),
		"faasm.get_state_offset": 0, "faasm.list_state": -int64(abi.EPERM), "faasm.lock_state_write": -int64(abi.EPERM),
		"faasm.chain_name": -int64(abi.EPERM), "faasm.chain_ptr": -int64(abi.EPERM), "faasm.await_call": -int64(abi.EPERM),
		"faasm.await_call_output": -int64(abi.EPERM), "faasm.await_any": -int64(abi.EPERM), "faasm.cancel_call": -int64(abi.EPERM),
		"faasm.call_error": -int64(abi.EPERM), "env.__faasm_chain_name": 0, "env.__faasm_await_call": 1,
	} {
		f, _ := skein.NewFunction("ann", "f")
		boot := &Call{Context: t.Context(), Boot: true, Function: f, Input: []byte("secret"), State: replica.New(replicatest.Client(t), 1<<20)}
		mem.WriteString(0, "key")
		fn := ioRoom[name]
		if fn == nil {
			fn = stateRoom[name]
		}
		if fn == nil {
			fn = chainRoom[name]
		}
		if fn == nil {
			fn = faasmState[name]
		}
		got := int64(int32(fn(boot, guest{mem: mem, stack: []uint64{0, 3, 64, 3, 0, 0}})))
		if got != want || boot.Meter().Tainted() == "" || boot.Output != nil {
			t.Errorf("%s: %d, taint %q; want %d and a taint", name, got, boot.Meter().Tainted(), want)
		}
	}
}

// Go's library works over our preview 1, and a reactor that was frozen at its boot knows its call afterwards.
func TestGoGuest(t *testing.T) {
	if testing.Short() {
		t.Skip("it compiles a Go program twice")
	}
	const common = `args: [[guest two]]
env: [value 2]
stdin: [hello <nil>]
input: [hello]
file: [content <nil>]
dir: [[- file] <nil>]
absent: [true]
outside: [true]
walk: [[. file] <nil>]
write: [one tw <nil>]
slept: [true true]
goroutine: [true]
random: [true]
`
	call := func() *Call {
		log := &Log{}
		return &Call{
			Context: t.Context(), Args: []string{"guest", "two"}, Env: func(*Call) []string { return []string{"KEY=value", "OTHER="} }, Input: []byte("hello"),
			Stdin: strings.NewReader("hello"), Stdout: log, Stderr: log, Log: log, Files: vfstest.Setup(map[string]string{"dir/file": "content"}),
		}
	}
	check := func(t *testing.T, c *Call, init string) {
		t.Helper()
		if want := init + common; string(c.Output) != want {
			t.Errorf("got\n%s\nwant\n%s", c.Output, want)
		}
		if log := c.Log.Bytes(); string(log) != "to the log\n" {
			t.Errorf("log %q", log)
		}
	}
	t.Run("command", func(t *testing.T) {
		c := call()
		_, err := instance(t, buildGo(t), wazero.NewRuntimeConfigInterpreter()).ExportedFunction("_start").Call(c)
		if code, ok := errors.AsType[machine.ExitCode](err); !ok || code != 7 {
			t.Fatalf("%v\n%s", err, c.Log.Bytes())
		}
		check(t, c, "init: [[guest two]value]\n")
	})
	t.Run("reactor", func(t *testing.T) {
		wasm := buildGo(t, "-buildmode=c-shared")
		info, err := prepare.Inspect(wasm, prepare.DefaultLimits())
		if err == nil {
			err = errors.Join(prepare.CheckEntry(info), prepare.CheckImports(info))
		}
		if _, exported := info.Export(prepare.RestoredExport); err != nil || !exported {
			t.Fatalf("exports skein_restored: %t, %v", exported, err)
		}
		inst := instance(t, wasm, wazero.NewRuntimeConfigInterpreter()) // compiling a Go program takes minutes under the race detector
		boot := &Call{Context: t.Context(), Boot: true, Args: []string{"function"}}
		if _, err := inst.ExportedFunction("_initialize").Call(boot); err != nil {
			t.Fatal(err)
		}
		if why := boot.Meter().Tainted(); why != "" {
			t.Errorf("a Go program's start is tainted: %s", why)
		}
		c := call()
		if _, err := inst.ExportedFunction("skein_restored").Call(c); err != nil {
			t.Fatal(err)
		}
		results, err := inst.ExportedFunction("handle").Call(c)
		if err != nil || results[0] != 7 {
			t.Fatalf("%v, %v\n%s", results, err, c.Log.Bytes())
		}
		check(t, c, "init: [[function]]\n")
	})
}

// buildGo compiles the SDK's guest for tests of preview 1.
func buildGo(t *testing.T, flags ...string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "guest.wasm")
	cmd := exec.CommandContext(t.Context(), "go", slices.Concat([]string{"build", "-o", out}, flags, []string{"./testdata/wasi"})...)
	cmd.Dir = filepath.Join("..", "..", "..", "..", "sdk", "go")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOWORK=off")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, bytes.TrimSpace(msg))
	}
	wasm, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}
