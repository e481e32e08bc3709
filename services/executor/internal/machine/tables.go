package machine

import (
	"context"
	"fmt"
	"reflect"
	"unsafe"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"skein.dev/platform/fault"
	"skein.dev/platform/prepare"
)

// The engine makes an object for each element of each table of each instance, which for a large module takes longer and
// keeps more than all else of an instance. So prepare takes the elements out of the module, and they come into the tables
// here: once a module the engine is asked for the object of each, and instances get copies in one piece of memory. The
// objects of two instances differ in nothing but which instance is theirs. What this must know of the engine is checked
// when a machine is opened, against what the engine does itself.

// reference is what a table's element points to: the engine's functionInstance. Its pointers are none to the collector,
// so that it need not look at thousands for each instance: code is not its to keep, and each instance keeps its context.
type reference struct {
	code    uintptr
	context uintptr // of the instance that the function is of
	kind    uint32
	index   uint32
}

// elements are what the active segments of a module's tables hold.
type elements struct {
	segments []prepare.ElementSegment
	own      uint32 // a function that the module defines
	total    int
}

func elementsOf(p *prepare.Prepared) elements {
	e := elements{segments: p.Elements, own: 1} // behind yield
	for _, i := range p.Module.Imports {
		if i.Kind == prepare.ExternFunc {
			e.own++
		}
	}
	for _, s := range p.Elements {
		e.total += len(s.Funcs)
	}
	return e
}

// inside is the engine's view of an instance.
type inside struct {
	functions interface {
		FunctionInstanceReference(index uint32) uintptr
	}
	tables reflect.Value
}

func look(inst api.Module) inside {
	v := reflect.ValueOf(inst).Elem()
	var in inside
	reflect.ValueOf(&in.functions).Elem().Set(v.FieldByName("Engine").Elem())
	in.tables = v.FieldByName("Tables")
	return in
}

// table is where an instance keeps the elements of one of its tables.
func (in inside) table(i uint32) *[]uintptr {
	return in.tables.Index(int(i)).Elem().FieldByName("References").Addr().Interface().(*[]uintptr)
}

func (in inside) reference(function uint32) reference {
	return *at(in.functions.FunctionInstanceReference(function))
}

// at is where an element points to, which its instance keeps.
func at(element uintptr) *reference { return *(**reference)(unsafe.Pointer(&element)) }

// template has the references of all elements, in the order of segments, as an instance's are but for the context where
// it is the instance's own: that is 0. Those of null are zero.
func (e *elements) template(in inside) []reference {
	list := make([]reference, 0, e.total)
	own := in.reference(e.own).context
	for _, s := range e.segments {
		for _, f := range s.Funcs {
			var r reference
			if f != prepare.NoFunc {
				if r = in.reference(f); r.context == own {
					r.context = 0
				}
			}
			list = append(list, r)
		}
	}
	return list
}

// fill puts the elements into an instance's tables. They point into what it returns, which must live as long as the
// instance can be called.
func (e *elements) fill(in inside, template []reference) []reference {
	own := in.reference(e.own).context
	list := append([]reference(nil), template...)
	rest := list
	var table *[]uintptr
	for i, s := range e.segments {
		if i == 0 || s.Table != e.segments[i-1].Table {
			table = in.table(s.Table)
		}
		t := (*table)[s.Offset:][:len(s.Funcs)]
		for i := range t {
			r := &rest[i]
			switch {
			case r.code == 0:
				t[i] = 0
				continue
			case r.context == 0:
				r.context = own
			}
			t[i] = uintptr(unsafe.Pointer(r))
		}
		rest = rest[len(t):]
	}
	return list
}

// fillTables gives an instance its elements, again after dropTables.
func (inst *instance) fillTables() {
	e := &inst.mod.elements
	if e.total == 0 {
		return
	}
	in := look(inst.engine)
	template := inst.mod.references.Load()
	if template == nil {
		made := e.template(in)
		template = &made
		inst.mod.references.Store(template)
	}
	inst.references = e.fill(in, *template)
}

// dropTables lets go of the elements of an instance that is not called until fillTables.
func (inst *instance) dropTables() {
	if inst.references == nil {
		return
	}
	in := look(inst.engine)
	for _, s := range inst.mod.elements.segments {
		clear((*in.table(s.Table))[s.Offset:][:len(s.Funcs)]) // so that none points to what is gone
	}
	inst.references = nil
}

// checkTables fails if the engine's tables are not what this file takes them for.
func checkTables(ctx context.Context, rt wazero.Runtime) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
		if err != nil {
			err = fault.Internal.New("ENGINE_TABLES", "the engine keeps tables in a way that this build of Skein does not know: %v", err).
				WithHint("build with the version of wazero that go.mod names")
		}
	}()
	code, err := rt.CompileModule(ctx, []byte(tablesProbe))
	if err != nil {
		return err
	}
	defer func() { _ = code.Close(ctx) }()
	var contexts []uintptr
	e := elements{own: 1, segments: []prepare.ElementSegment{{Table: 1, Offset: 1, Funcs: []uint32{2, prepare.NoFunc, 0, 1}}}}
	var template []reference
	for range 2 { // the second time with what the first has made
		inst, err := rt.InstantiateModule(ctx, code, wazero.NewModuleConfig().WithName("").WithStartFunctions())
		if err != nil {
			return err
		}
		defer func() { _ = inst.Close(ctx) }()
		in := look(inst)
		if template == nil {
			if err := knownLayout(in); err != nil {
				return err
			}
			template = e.template(in)
		}
		if err := e.sameAs(in, template); err != nil {
			return err
		}
		contexts = append(contexts, in.reference(1).context)
	}
	if contexts[0] == contexts[1] {
		return fmt.Errorf("instances are not told apart")
	}
	return nil
}

// sameAs fills the second table of an instance and compares it with the first, which the engine has filled.
func (e *elements) sameAs(in inside, template []reference) error {
	list := e.fill(in, template)
	theirs, ours := *in.table(0), *in.table(1)
	if len(list) != 4 || len(theirs) != 6 || len(ours) != 6 {
		return fmt.Errorf("tables of %d and %d elements", len(theirs), len(ours))
	}
	for i := range theirs {
		switch filled := i == 1 || i == 3 || i == 4; {
		case filled != (theirs[i] != 0) || filled != (ours[i] != 0):
			return fmt.Errorf("element %d is %#x, not %#x", i, ours[i], theirs[i])
		case filled && *at(theirs[i]) != *at(ours[i]):
			return fmt.Errorf("element %d is %+v, not %+v", i, *at(ours[i]), *at(theirs[i]))
		}
	}
	return nil
}

// knownLayout compares reference with the engine's type field by field.
func knownLayout(in inside) error {
	list, ok := reflect.TypeOf(in.functions).Elem().FieldByName("localFunctionInstances")
	if !ok || list.Type.Kind() != reflect.Slice || list.Type.Elem().Kind() != reflect.Pointer {
		return fmt.Errorf("%T has no list of functions", in.functions)
	}
	theirs, ours := list.Type.Elem().Elem(), reflect.TypeFor[reference]()
	if theirs.Kind() != reflect.Struct || theirs.Size() != ours.Size() || theirs.NumField() != ours.NumField() {
		return fmt.Errorf("%v is not of the form of %v", theirs, ours)
	}
	for i, name := range []string{"executable", "moduleContextOpaquePtr", "typeID", "indexInModule"} {
		a, b := theirs.Field(i), ours.Field(i)
		pointer := a.Type.Kind() == reflect.Pointer && b.Type.Kind() == reflect.Uintptr
		if a.Name != name || a.Offset != b.Offset || !pointer && a.Type.Kind() != b.Type.Kind() {
			return fmt.Errorf("field %d of %v is %s %v", i, theirs, a.Name, a.Type)
		}
	}
	return nil
}

// tablesProbe imports yield, defines two functions of two types, and has two tables of six elements; into the first the
// engine puts functions 2, null, yield and 1 from the second element on.
const tablesProbe = "\x00asm\x01\x00\x00\x00" +
	"\x01\x0c\x03" + "\x60\x00\x01\x7f" + "\x60\x00\x00" + "\x60\x01\x7f\x00" +
	"\x02\x14\x01" + "\x0a" + prepare.YieldFrom + "\x05" + prepare.YieldName + "\x00\x00" +
	"\x03\x03\x02\x01\x02" +
	"\x04\x07\x02\x70\x00\x06\x70\x00\x06" +
	"\x09\x12\x01\x04\x41\x01\x0b\x04" + "\xd2\x02\x0b" + "\xd0\x70\x0b" + "\xd2\x00\x0b" + "\xd2\x01\x0b" +
	"\x0a\x07\x02\x02\x00\x0b\x02\x00\x0b"
