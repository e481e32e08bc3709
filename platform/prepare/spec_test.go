package prepare

import (
	"bytes"
	"encoding/json"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero/api"

	"skein.dev/platform/fault"
)

// A script is a part of the WebAssembly test-suite, as wast2json writes it.
type script struct {
	Commands []command `json:"commands"`
}

type command struct {
	Type     string `json:"type"`
	Line     int    `json:"line"`
	Name     string `json:"name"`
	Filename string `json:"filename"`
	Module   string `json:"module_type"`
	As       string `json:"as"`
	Action   struct {
		Type   string  `json:"type"`
		Module string  `json:"module"`
		Field  string  `json:"field"`
		Args   []value `json:"args"`
	} `json:"action"`
}

type value struct {
	Type  string          `json:"type"`
	Lane  string          `json:"lane_type"`
	Value json.RawMessage `json:"value"`
}

// bits are a value as the engine takes it.
func (v value) bits(t *testing.T) []uint64 {
	var one string
	var lanes []string
	if v.Type != "v128" {
		_ = json.Unmarshal(v.Value, &one) // null stays empty
		return []uint64{number(t, v.Type, one)}
	}
	if err := json.Unmarshal(v.Value, &lanes); err != nil {
		t.Fatal(err)
	}
	both := make([]uint64, 2)
	width := 128 / len(lanes)
	for i, lane := range lanes {
		both[i*width/64] |= number(t, v.Lane, lane) << (i * width % 64)
	}
	return both
}

func number(t *testing.T, kind, text string) uint64 {
	switch {
	case text == "" || text == "null":
		return 0
	case strings.HasPrefix(text, "nan"): // as an argument
		if kind == "f32" {
			return uint64(math.Float32bits(float32(math.NaN())))
		}
		return math.Float64bits(math.NaN())
	}
	var n uint64
	var err error
	if text[0] == '-' {
		var s int64
		s, err = strconv.ParseInt(text, 10, 64)
		n = uint64(s)
	} else {
		n, err = strconv.ParseUint(text, 10, 64)
	}
	if err != nil {
		t.Fatal(err)
	}
	switch kind {
	case "i8":
		n &= 0xff
	case "i16":
		n &= 0xffff
	case "i32", "f32":
		n &= 0xffffffff
	case "externref":
		n++ // 0 is null to the engine
	}
	return n
}

// twin is a module of a script twice: as it is, and prepared.
type twin struct{ plain, prepared api.Module }

// suite counts what a run of scripts met.
type suite struct {
	modules, prepared, calls, traps, memories int
	skipped                                   map[string]int // modules that ran as they are on both sides, by reason
	valid, accepted                           int            // of all modules, what the engine takes, and what Prepare takes of that
	cured                                     map[string]int // modules that only became valid by being prepared, by what the engine said
}

// trial is one script run on two engines.
type trial struct {
	*testing.T
	*suite
	dir         string
	a, b        *engine
	named       map[string]*twin
	last        *twin
	all         []*twin
	specLimits  Limits
	allowancesN int
}

// wazeroDir is the engine's source, which comes with the test-suite.
func wazeroDir(t testing.TB) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// Every script of the suite does the same with prepared modules as with those they were made from: results, traps, memories
// and globals. Whatever the engine takes of the suite, it takes prepared.
func TestSpec(t *testing.T) {
	root := filepath.Join(wazeroDir(t), "internal/integration_test/spectest")
	spectest, err := os.ReadFile(filepath.Join(root, "testdata/spectest.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(root, "*/testdata/*.json"))
	if err != nil || len(files) < 200 {
		t.Fatalf("%d scripts, %v", len(files), err)
	}
	s := &suite{skipped: map[string]int{}, cured: map[string]int{}}
	for i, file := range files {
		if testing.Short() && i%8 != 0 {
			continue
		}
		rel, _ := filepath.Rel(root, file)
		t.Run(strings.TrimSuffix(strings.Replace(rel, "/testdata/", "/", 1), ".json"), func(t *testing.T) {
			tr := newTrial(t, s, filepath.Dir(file))
			for _, e := range []*engine{tr.a, tr.b} {
				if _, err := e.InstantiateWithConfig(t.Context(), spectest, plain("spectest")); err != nil {
					t.Fatal(err)
				}
			}
			tr.run(file)
		})
	}
	t.Logf("%d modules, of which %d ran prepared; %d calls, %d traps, %d memories compared", s.modules, s.prepared, s.calls, s.traps, s.memories)
	for _, why := range slices.Sorted(maps.Keys(s.skipped)) {
		t.Logf("%4d not prepared: %s", s.skipped[why], why)
	}
	t.Logf("%d modules of all are valid, Prepare accepts %d of them; prepared only are valid: %v", s.valid, s.accepted, s.cured)
	if !testing.Short() && s.prepared*100 < s.modules*95 {
		t.Errorf("only %d of %d modules ran prepared", s.prepared, s.modules)
	}
}

func newTrial(t *testing.T, s *suite, dir string) *trial {
	tr := &trial{T: t, suite: s, dir: dir, named: map[string]*twin{}, specLimits: DefaultLimits()}
	tr.specLimits.MemoryPages = 1 << 16
	tr.a = newEngine(t, func() int32 { return MaxFuel })
	tr.b = newEngine(t, func() int32 { // small ones, so that points yield often
		tr.allowancesN++
		return MinFuel + int32(tr.allowancesN*37%400)
	})
	return tr
}

func (tr *trial) run(file string) {
	raw, err := os.ReadFile(file)
	if err != nil {
		tr.Fatal(err)
	}
	var sc script
	if err := json.Unmarshal(raw, &sc); err != nil {
		tr.Fatal(err)
	}
	for i := range sc.Commands {
		c := &sc.Commands[i]
		switch c.Type {
		case "module":
			name := ""
			for j := i + 1; j < len(sc.Commands) && name == ""; j++ { // an instance has one name, and has it from its start
				next := &sc.Commands[j]
				if next.Type == "module" && c.Name == "" {
					break
				}
				if next.Type == "register" && (next.Name == "" && j == i+1 || next.Name == c.Name && c.Name != "") {
					name = next.As
				}
			}
			tr.last = tr.module(c, name)
			if c.Name != "" {
				tr.named[c.Name] = tr.last
			}
		case "assert_uninstantiable", "assert_unlinkable":
			tr.module(c, "")
		case "assert_invalid", "assert_malformed":
			if c.Module != "text" {
				tr.compile(c)
			}
		case "register":
		case "action", "assert_return", "assert_trap", "assert_exhaustion", "assert_exception":
			tr.action(c)
		default:
			tr.Fatalf("line %d: %s", c.Line, c.Type)
		}
	}
	for _, w := range tr.all {
		tr.compareState(w)
	}
}

// compile checks that what the engine takes it takes prepared.
func (tr *trial) compile(c *command) (*Prepared, []byte, error) {
	wasm, err := os.ReadFile(filepath.Join(tr.dir, c.Filename))
	if err != nil {
		tr.Fatal(err)
	}
	p, err := Prepare(wasm, tr.specLimits)
	_, invalid := tr.a.CompileModule(tr.Context(), wasm)
	if invalid == nil {
		tr.valid++
	}
	if err != nil {
		return nil, wasm, err
	}
	_, still := tr.b.CompileModule(tr.Context(), p.Wasm)
	switch {
	case invalid == nil && still != nil:
		tr.Errorf("line %d: %s: prepared, it is invalid: %v", c.Line, c.Filename, still)
	case invalid == nil:
		tr.accepted++
	case still == nil:
		what, _, _ := strings.Cut(invalid.Error(), "\n")
		tr.cured[what]++
	}
	if len(p.Wasm) > 8*len(wasm)+1024 {
		tr.Errorf("line %d: %s: %d bytes have become %d", c.Line, c.Filename, len(wasm), len(p.Wasm))
	}
	return p, wasm, nil
}

// module makes a module's twin; nil if it can't be instantiated.
func (tr *trial) module(c *command, name string) *twin {
	ctx := tr.Context()
	p, wasm, refused := tr.compile(c)
	plainMod, errA := tr.a.InstantiateWithConfig(ctx, wasm, plain(name))
	if refused != nil && (errA != nil || c.Type != "module") { // the engine overlooks elements outside of a table
		_, _ = tr.b.InstantiateWithConfig(ctx, wasm, plain(name)) // for what it does to other modules until it fails
		return nil
	}
	tr.modules++
	why := ""
	switch {
	case refused != nil:
		why = fault.From(refused).Message
		if i := strings.IndexByte(why, '('); i > 0 {
			why = why[:i]
		}
	default:
		if m := p.Module.Memory; name != "" && m != nil && m.HasMax {
			why = "another module wants its memory to have a maximum"
		}
	}
	var preparedMod api.Module
	var errB error
	if why != "" {
		tr.skipped[why]++
		preparedMod, errB = tr.b.InstantiateWithConfig(ctx, wasm, plain(name))
	} else {
		tr.prepared++
		preparedMod, errB = tr.b.boot(ctx, p, name)
	}
	if cause(errA) != cause(errB) {
		tr.Errorf("line %d: %s: instantiated: %v, prepared: %v", c.Line, c.Filename, errA, errB)
	}
	if errA != nil || errB != nil {
		return nil
	}
	w := &twin{plainMod, preparedMod}
	tr.all = append(tr.all, w)
	return w
}

// cause is an error without what differs by design: the stack, and names of modules.
func cause(err error) string {
	if err == nil {
		return ""
	}
	text, _, _ := strings.Cut(err.Error(), "\nwasm stack trace")
	if i := strings.Index(text, "wasm error: "); i >= 0 {
		text = text[i:]
	}
	text, _, _ = strings.Cut(text, " (recovered by")
	return text
}

func (tr *trial) action(c *command) {
	w := tr.last
	if c.Action.Module != "" {
		w = tr.named[c.Action.Module]
	}
	if w == nil {
		return // it couldn't be instantiated on either side
	}
	if c.Action.Type == "get" {
		if a, b := w.plain.ExportedGlobal(c.Action.Field), w.prepared.ExportedGlobal(c.Action.Field); a.Get() != b.Get() {
			tr.Errorf("line %d: global %s: %v, prepared %v", c.Line, c.Action.Field, a, b)
		}
		return
	}
	var args []uint64
	for _, v := range c.Action.Args {
		args = append(args, v.bits(tr.T)...)
	}
	f := w.plain.ExportedFunction(c.Action.Field)
	a, errA := f.Call(tr.Context(), args...)
	b, errB := w.prepared.ExportedFunction(c.Action.Field).Call(tr.Context(), args...)
	tr.calls++
	if errA != nil {
		tr.traps++
	}
	if cause(errA) != cause(errB) {
		tr.Errorf("line %d: %s(%v): %v, prepared: %v", c.Line, c.Action.Field, args, errA, errB)
	}
	i := 0
	for _, kind := range f.Definition().ResultTypes() {
		slots := 1
		if kind == v128 {
			slots = 2
		}
		for range slots {
			if errA == nil && errB == nil && !same(kind, a[i], b[i]) {
				tr.Errorf("line %d: %s(%v): %#x, prepared %#x", c.Line, c.Action.Field, args, a, b)
			}
			i++
		}
	}
}

// same compares results; a reference's bits are an address.
func same(kind api.ValueType, a, b uint64) bool {
	switch kind {
	case i32, api.ValueTypeF32:
		return uint32(a) == uint32(b)
	case i64, f64, v128, api.ValueTypeExternref:
		return a == b
	}
	return (a == 0) == (b == 0)
}

// compareState compares what is left of a twin's memory.
func (tr *trial) compareState(w *twin) {
	a, b := w.plain.Memory(), w.prepared.Memory()
	if reflect.ValueOf(a).IsNil() {
		return
	}
	tr.memories++
	if a.Size() != b.Size() {
		tr.Errorf("memory of %d bytes, prepared %d", a.Size(), b.Size())
		return
	}
	bytesA, _ := a.Read(0, a.Size())
	bytesB, _ := b.Read(0, b.Size())
	if !bytes.Equal(bytesA, bytesB) {
		tr.Errorf("memories differ")
	}
}
