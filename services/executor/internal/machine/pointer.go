package machine

import (
	"strconv"
	"strings"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental/table"

	"skein.dev/platform/fault"
)

// Pointer is a function of a module's table 0, as C has pointers to functions.
type Pointer struct {
	Entry uint32
	Input []byte // read as a decimal number if the function takes one
}

// pointed is a function that a table has; the zero value is none.
type pointed struct {
	fn     api.Function
	entry  uint32
	number bool // it takes an i32
	result bool
}

// forms are the types of functions that can be called by pointer, in the order in which they are tried.
var forms = []struct {
	pointed
	params, results []api.ValueType
}{
	{pointed{result: true}, nil, []api.ValueType{api.ValueTypeI32}},
	{pointed{result: true, number: true}, []api.ValueType{api.ValueTypeI32}, []api.ValueType{api.ValueTypeI32}},
	{pointed{number: true}, []api.ValueType{api.ValueTypeI32}, nil},
}

// CheckPointer says whether a running instance's table has a function at entry that RunPointer could call: () -> i32, or
// with number also (i32) -> i32 and (i32) -> (). BAD_ENTRY if not.
func CheckPointer(inst api.Module, entry uint32, number bool) error {
	p, err := lookup(inst, entry)
	if err == nil && p.number && !number {
		err = badEntry(entry, "it takes an argument")
	}
	return err
}

func lookup(inst api.Module, entry uint32) (pointed, error) {
	for _, form := range forms {
		p := form.pointed
		p.entry = entry
		if p.fn = find(inst, entry, form.params, form.results); p.fn == nil {
			continue
		}
		if p.fn.Definition().GoFunction() != nil {
			return pointed{}, badEntry(entry, "it is the host's")
		}
		return p, nil
	}
	return pointed{}, badEntry(entry, "the table has no function there, or one of another type")
}

// find is the engine's look-up, which panics where a call_indirect would trap.
func find(inst api.Module, entry uint32, params, results []api.ValueType) (fn api.Function) {
	defer func() {
		if recover() != nil {
			fn = nil
		}
	}()
	return table.LookupFunction(inst, 0, entry, params, results)
}

func badEntry(entry uint32, why string) error {
	return fault.Invalid.New("BAD_ENTRY", "entry %d of the function table can't be called: %s", entry, why).
		WithHint("the function takes nothing and returns int; in Faasm's form it may take one int")
}

// callPointer calls a function of the table of an initialised instance. A command was initialised only in part: what its
// _start does before main is left to its constructors, if it exports them.
func (inst *instance) callPointer(ctx Guest, p Pointer) (uint32, error) {
	if inst.mod.constructors {
		if _, err := inst.invoke(ctx, inst.engine.ExportedFunction(constructorsExport)); err != nil {
			return 0, err
		}
	}
	if inst.pointed.fn == nil || inst.pointed.entry != p.Entry {
		found, err := lookup(inst.engine, p.Entry)
		if err != nil {
			return 0, Abort{err}
		}
		inst.pointed = found
	}
	arg := int64(0)
	if inst.pointed.number {
		var err error
		if arg, err = strconv.ParseInt(strings.Trim(string(p.Input), " \t\r\n\x00"), 10, 32); err != nil {
			return 0, Abort{fault.Invalid.New("BAD_INPUT", "entry %d takes a number, and the input is not a decimal one of 32 bits", p.Entry)}
		}
	}
	code, err := inst.invokeWith(ctx, inst.pointed.fn, uint32(arg))
	if !inst.pointed.result {
		code = 0
	}
	return code, err
}

// Reenter calls a function of the guest's from a host function that the guest has called; stack holds the arguments, and
// then the results. It doesn't return if the guest fails in it. A guest that comes from there to a host function that
// would reenter it fails: nothing else would bound the process's own stack.
func Reenter(ctx Guest, fn api.Function, stack []uint64) {
	m := ctx.Meter()
	if m.reentered {
		panic(Abort{fault.Invalid.New("REENTERED", "the guest's function that a host function called has called one that would call it again")})
	}
	outer := m.stack
	m.reentered = true
	m.enter(fn)
	err := fn.CallWithStack(ctx, stack)
	m.stack, m.reentered = outer, false
	if err != nil {
		panic(err)
	}
}
