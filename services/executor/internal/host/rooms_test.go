package host

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"skein.dev"
	"skein.dev/abi"
	"skein.dev/platform/prepare"
	"skein.dev/services/executor/internal/machine"
	"skein.dev/services/executor/internal/replica"
	"skein.dev/services/executor/internal/replica/replicatest"
	"skein.dev/services/executor/internal/vfs/vfstest"
)

// TestRooms runs the guests of testdata, which check the rows from their own side, and names each built row that none of
// them called.
func TestRooms(t *testing.T) {
	called := &counter{names: map[string]int{}}
	ctx := experimental.WithFunctionListenerFactory(t.Context(), called)
	m, err := machine.Open(ctx, machine.Config{GuestMemory: 64 << 20}, Link)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close(ctx) }()
	for _, guest := range []struct {
		name, output string
		log          []string
	}{
		{"io", "a\x00bcd", []string{"faasm.dlclose is not built yet (ENOSYS)", "faasm.dlsym is not built yet"}},
		{"chain", "", nil},
		{"state", "", nil},
		{"heap", "", nil},
		{"memory", "", nil},
		{"wasi", "", []string{"log\n"}},
		{"suite", "", nil},
	} {
		t.Run(guest.name, func(t *testing.T) {
			flags := []string{"-Wl,--export=malloc"}
			if guest.name == "heap" {
				flags = nil // the SDK has to do without
			}
			mod := load(t, m, buildC(t, filepath.Join("testdata", guest.name+".c"), flags...))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			f, _ := skein.NewFunction("ann", guest.name)
			log := &Log{}
			c := &Call{
				Context: ctx, Function: f, Args: []string{guest.name, "two"}, Env: func(*Call) []string { return []string{"KEY=value"} },
				Input: []byte("hello"), Stdin: strings.NewReader("hello"), Stdout: log, Stderr: log, Log: log,
				Files: vfstest.Setup(map[string]string{"dir/file": "content"}),
				State: replica.New(replicatest.Client(t), 1<<20), Chain: atOnce(mod),
			}
			exit := mod.Run(c)
			c.End()
			if exit.State != skein.Succeeded {
				t.Fatalf("%+v: a check of testdata/%s.c failed at a line that is %d modulo 255\n%s", exit, guest.name, exit.Code-1, log.Bytes())
			}
			if string(c.Output) != guest.output {
				t.Errorf("output %q, want %q", c.Output, guest.output)
			}
			for _, want := range guest.log {
				if !strings.Contains(string(log.Bytes()), want) {
					t.Errorf("log %q lacks %q", log.Bytes(), want)
				}
			}
		})
	}
	if t.Failed() {
		return
	}
	for _, r := range abi.Rows() {
		if r.Support != abi.Planned && called.names[key(r)] == 0 {
			t.Errorf("no guest of testdata calls %s", key(r))
		}
	}
}

func load(t testing.TB, m *machine.Machine, wasm []byte) *machine.Module {
	t.Helper()
	p, err := prepare.Prepare(wasm, prepare.DefaultLimits())
	if err == nil {
		err = prepare.CheckImports(&p.Module)
	}
	if err != nil {
		t.Fatal(err)
	}
	compiled, err := m.Runtime().CompileModule(t.Context(), p.Wasm)
	if err != nil {
		t.Fatal(err)
	}
	mod, err := m.Load(t.Context(), compiled, p)
	if err != nil {
		t.Fatal(err)
	}
	return mod
}

// A malloc that the host calls may do what any code of a guest's may, and ends its own call at most.
func TestHostileMalloc(t *testing.T) {
	m, err := machine.Open(t.Context(), machine.Config{GuestMemory: 4 << 20, WarmMemory: 16 << 20}, Link)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close(context.Background()) }()
	mod := load(t, m, buildC(t, "testdata/malloc.c"))
	if err := mod.Boot(&Call{Context: t.Context(), Boot: true}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // an instance that was left in the middle of it is in order
		for mode, want := range map[string]machine.Exit{
			"again":   {State: skein.Failed, Reason: "REENTERED"},
			"trap":    {State: skein.Failed, Reason: "GUEST_TRAP"},
			"spin":    {State: skein.TimedOut, Reason: "DEADLINE"},
			"exit":    {State: skein.Failed, Reason: "GUEST_EXIT", Code: 9},
			"null":    {State: skein.Failed, Reason: "GUEST_EXIT", Code: 1},
			"outside": {State: skein.Failed, Reason: "GUEST_EXIT", Code: 1},
			"grow":    {State: skein.Succeeded},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			exit := mod.Run(&Call{Context: ctx, Args: []string{"malloc", mode}, Chain: atOnce(mod)})
			cancel()
			if exit.State != want.State || exit.Reason != want.Reason || exit.Code != want.Code {
				t.Errorf("%s: %+v, want %+v", mode, exit, want)
			}
		}
	}
}

// atOnce runs each child to its end before its parent goes on, so that nothing is waited for: a module calls itself, under
// the name self.
func atOnce(mod *machine.Module) *Chain {
	var ended []*skein.Result
	of := func(handle int32) (*skein.Result, error) {
		if handle < 1 || int(handle) > len(ended) {
			return nil, abi.ECHILD
		}
		return ended[handle-1], nil
	}
	return &Chain{
		Start: func(c *Call, name string, entry *uint32, input []byte) (int32, error) {
			child := &Call{Context: c.Context, Args: []string{"child"}, Input: input, Stdin: bytes.NewReader(nil)}
			var exit machine.Exit
			switch {
			case entry != nil:
				exit = mod.RunPointer(child, machine.Pointer{Entry: *entry, Input: input})
			case name == "self":
				exit = mod.Run(child)
			default:
				return 0, abi.ENOENT
			}
			ended = append(ended, &skein.Result{State: exit.State, ExitCode: exit.Code, Reason: exit.Reason, Message: exit.Message, Output: child.Output})
			return int32(len(ended)), nil
		},
		Wait: func(_ *Call, handles []int32, _ time.Duration, _ int64) (int, error) {
			for _, h := range handles {
				if _, err := of(h); err != nil {
					return 0, err
				}
			}
			return 0, nil
		},
		Turn:   func(*Call) {},
		Result: func(_ *Call, handle int32) (*skein.Result, error) { return of(handle) },
		Cancel: func(_ *Call, handle int32) error {
			_, err := of(handle)
			return err
		},
	}
}

// counter counts the host functions that guests call.
type counter struct {
	mu    sync.Mutex
	names map[string]int
}

func (c *counter) NewFunctionListener(def api.FunctionDefinition) experimental.FunctionListener {
	name := def.ModuleName() + "." + def.Name()
	if exports := def.ExportNames(); len(exports) > 0 {
		name = def.ModuleName() + "." + exports[0]
	}
	return experimental.FunctionListenerFunc(func(context.Context, api.Module, api.FunctionDefinition, []uint64, experimental.StackIterator) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.names[name]++
	})
}

// A row and a function that don't match must stop the start, whichever of them is missing.
func TestMatch(t *testing.T) {
	nop := func(*Call, guest) int64 { return 0 }
	built := abi.Row{Func: abi.Func{Module: "faasm", Support: abi.Built}, Name: "a"}
	planned := abi.Row{Func: abi.Func{Module: "faasm", Support: abi.Planned}, Name: "b"}
	if _, err := match([]abi.Row{built, planned}, []room{{"faasm.a": nop}}); err != nil {
		t.Errorf("matching rows: %v", err)
	}
	for want, rooms := range map[string][]room{
		"faasm.a is built in the abi and has no function":  {{}},
		"faasm.b has a function and is planned in the abi": {{"faasm.a": nop, "faasm.b": nop}},
		"faasm.c has a function and no row in the abi":     {{"faasm.a": nop, "faasm.c": nop}},
		"faasm.a has two functions":                        {{"faasm.a": nop}, {"faasm.a": nop}},
	} {
		if _, err := match([]abi.Row{built, planned}, rooms); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestLogIsCut(t *testing.T) {
	l := &Log{}
	for range 3 {
		if n, err := l.Write(make([]byte, skein.MaxLog/2)); n != skein.MaxLog/2 || err != nil {
			t.Fatal(n, err)
		}
	}
	b := l.Bytes()
	if !bytes.HasSuffix(b, []byte("\nskein: 524288 bytes more were cut\n")) || len(b) > skein.MaxLog+100 {
		t.Errorf("%d bytes, ending in %q", len(b), b[len(b)-40:])
	}
}

// buildC compiles a guest with Debian's clang and wasi-libc.
func buildC(t testing.TB, src string, flags ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath("clang"); err != nil {
		if os.Getenv("SKEIN_REQUIRE_TOOLS") == "1" {
			t.Fatal("clang is missing: apt-get install clang lld wasi-libc libclang-rt-dev-wasm32")
		}
		t.Skip("clang is missing: apt-get install clang lld wasi-libc libclang-rt-dev-wasm32")
	}
	out := filepath.Join(t.TempDir(), "guest.wasm")
	sdk := filepath.Join("..", "..", "..", "..", "sdk", "c")
	cmd := exec.CommandContext(t.Context(), "clang", "--target=wasm32-wasi", "--sysroot=/usr", "-O1", "-Wall", "-Werror", "-Wno-unused-result",
		"-I", filepath.Join(sdk, "include"), filepath.Join(sdk, "skein.c"), filepath.Join(sdk, "posix.c"), src, "-o", out,
		"-Wl,--stack-first", "-Wl,-z,stack-size=1048576")
	cmd.Args = append(cmd.Args, flags...)
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, msg)
	}
	wasm, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}
