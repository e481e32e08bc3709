package prepare

import (
	"encoding/binary"
	"fmt"
	"strings"

	"skein.dev/abi"
)

// Prepare inspects wasm and makes of it what the machine runs: the same program, which does nothing when it is
// instantiated, shows what its state is, and calls back often. The same bytes always give the same result. Time and memory
// stay in proportion to len(wasm); Image aliases it. Errors are those of Inspect, and BAD_MODULE also for a module that
// can't be instantiated because a segment lies outside of its memory or table, for one whose data has its place from an
// imported global, and for names that are Reserved. An engine takes the result whenever it takes wasm; that it doesn't the other way round is on purpose: data at the place of a global, and
// values too many at the end of a loop or function are no error any more.
func Prepare(wasm []byte, limits Limits) (*Prepared, error) {
	p, err := parse(wasm, &limits)
	if err != nil {
		return nil, err
	}
	if err := p.reserved(); err != nil {
		return nil, err
	}
	image, bad := p.image()
	if bad != nil {
		return nil, bad
	}
	tables, bad := p.tables()
	if bad != nil {
		return nil, bad
	}
	p.layout.used[slowLoop], p.layout.used[slowEntry] = true, true
	pl, err := p.plan()
	if err != nil {
		return nil, err
	}
	out := &output{p: p, refs: p.layout.refs, b: make([]byte, 0, len(wasm)+len(wasm)/8+4096)}
	if err := out.module(newRewriter(p, pl)); err != nil {
		return nil, err
	}
	prepared := &Prepared{Module: *p.m, Wasm: out.b, Image: image, Elements: tables, MaxPages: 1 << 16}
	prepared.Deep = p.m.Flags.TableMutation || p.layout.drops
	if m := p.m.Memory; m != nil && m.HasMax {
		prepared.MaxPages = m.Max
	}
	for i, g := range p.layout.globals {
		switch {
		case g.imported || !g.mutable:
		case g.numeric():
			prepared.Globals = append(prepared.Globals, Global{p.globalName(i), g.kind})
		default:
			prepared.Deep = true
		}
	}
	return prepared, nil
}

// roomToGrow is how much longer than twice its length a module may become. Programs grow by a tenth; nothing but loops
// without content grows tenfold.
const roomToGrow = 4 << 20

// reserved refuses names that only a prepared module may have.
func (p *parser) reserved() error {
	names := make([]string, 0, 2*len(p.m.Imports)+len(p.m.Exports))
	for _, i := range p.m.Imports {
		names = append(names, i.Module, i.Name)
	}
	for _, e := range p.m.Exports {
		names = append(names, e.Name)
	}
	for _, name := range names {
		if strings.HasPrefix(name, Reserved) {
			return bad(0, "it imports or exports %q; names that begin with %s are reserved", clip(name), Reserved).
				WithHint("rename it; if this is a module that was prepared for a machine already, upload the one it was made from")
		}
	}
	return nil
}

// numeric reports whether the machine can read and write g.
func (g global) numeric() bool {
	switch g.kind {
	case abi.I32, abi.I64, abi.F32, abi.F64:
		return true
	}
	return false
}

// globalName is the export of global i.
func (p *parser) globalName(i int) string {
	return fmt.Sprintf("%s%d", GlobalName, i-(len(p.layout.globals)-p.m.Globals))
}

// output writes the prepared module.
type output struct {
	p    *parser
	b    []byte
	refs []span // function indices outside of code that are not yet written
}

func (o *output) module(w *rewriter) error {
	o.b = append(o.b, o.p.r.b[:8]...)
	if s := o.p.layout.dylink; !s.empty() {
		o.section(secCustom, func() { o.copy(s) })
	}
	o.types()
	o.imports()
	o.functions()
	o.same(secTable)
	o.memory()
	o.same(secTag)
	o.globals()
	o.exports()
	o.elements()
	dataOps := o.p.m.Flags.DataOps
	if dataOps {
		o.same(secDataCount)
	}
	if err := o.code(w); err != nil {
		return err
	}
	if dataOps {
		o.data()
	}
	if o.p.m.Flags.Names {
		o.section(secCustom, func() { o.names(w) })
	}
	return nil
}

func (o *output) u32(v uint32) { o.b = binary.AppendUvarint(o.b, uint64(v)) }

func (o *output) str(s string) {
	o.u32(uint32(len(s)))
	o.b = append(o.b, s...)
}

// section writes one section. Its size takes five bytes whatever it is, since it is known too late.
func (o *output) section(id byte, content func()) {
	o.b = append(o.b, id)
	o.sized(content)
}

func (o *output) sized(content func()) {
	at := len(o.b)
	o.b = append(o.b, 0, 0, 0, 0, 0)
	content()
	size := uint32(len(o.b) - at - 5)
	for i := range 4 {
		o.b[at+i] = byte(size>>(7*i)) | 0x80
	}
	o.b[at+4] = byte(size >> 28)
}

// copy writes bytes of the input, with the functions in them renumbered.
func (o *output) copy(s span) {
	in := o.p.r.b
	for len(o.refs) > 0 && o.refs[0].from < s.to {
		ref := o.refs[0]
		o.refs = o.refs[1:]
		r := reader{b: in, pos: int(ref.from), end: int(ref.to)}
		o.b = append(o.b, in[s.from:ref.from]...)
		o.u32(o.p.moved(r.u32()))
		s.from = ref.to
	}
	o.b = append(o.b, in[s.from:s.to]...)
}

// same writes a section with what it has.
func (o *output) same(id byte) {
	if s := o.p.layout.sections[id]; !s.empty() {
		o.section(id, func() { o.copy(s) })
	}
}

// longer writes a section with more entries behind those it has.
func (o *output) longer(id byte, more int, entries func()) {
	s := o.p.layout.sections[id]
	o.section(id, func() {
		count := uint32(0)
		if !s.empty() {
			r := reader{b: o.p.r.b, pos: int(s.from), end: int(s.to)}
			count = r.u32()
			s.from = uint32(r.pos)
		}
		o.u32(count + uint32(more))
		o.copy(s)
		entries()
	})
}

// eachHelper visits the helpers in use, in the order of their indices.
func (o *output) eachHelper(visit func(h helper)) (n int) {
	for h, used := range o.p.layout.used {
		if used {
			n++
			visit(helper(h))
		}
	}
	return n
}

func (o *output) helpers() int { return o.eachHelper(func(helper) {}) }

// types adds the type of yield, those of the helpers, and (i32, i32) -> () for blocks.
func (o *output) types() {
	o.longer(secType, 1+o.helpers()+1, func() {
		o.b = append(o.b, 0x60, 0, 1, abi.I32)
		o.eachHelper(func(h helper) { o.b = append(o.b, helperInfo[h].kind...) })
		o.b = append(o.b, 0x60, 2, abi.I32, abi.I32, 0)
	})
}

func (o *output) imports() {
	o.longer(secImport, 1, func() {
		o.str(YieldFrom)
		o.str(YieldName)
		o.b = append(o.b, byte(ExternFunc))
		o.u32(uint32(len(o.p.types)))
	})
}

func (o *output) functions() {
	o.longer(secFunction, o.helpers(), func() {
		next := uint32(len(o.p.types))
		o.eachHelper(func(helper) {
			next++
			o.u32(next)
		})
	})
}

// memory drops the maximum of a memory of its own: the machine's allocator keeps it, and must be able to go below what the
// memory has grown to. A shared memory can't be without.
func (o *output) memory() {
	m := o.p.m.Memory
	if m == nil || m.Imported || m.Shared {
		o.same(secMemory)
		return
	}
	o.section(secMemory, func() {
		o.b = append(o.b, 1, 0)
		o.u32(m.Min)
	})
}

// globals adds the references that code makes, then the fuel.
func (o *output) globals() {
	p := o.p
	o.longer(secGlobal, len(p.layout.refFuncs)+1, func() {
		for _, f := range p.layout.refFuncs {
			o.b = append(o.b, 0x64) // ref, not null
			o.b = append(signed(o.b, int64(p.funcs[f])), 0, byte(opRefFunc))
			o.u32(p.moved(f))
			o.b = append(o.b, byte(opEnd))
		}
		o.b = append(o.b, abi.I32, 1, byte(opI32Const), 0, byte(opEnd))
	})
}

func (o *output) exports() {
	p := o.p
	more := 1
	if p.m.HasStart {
		more++
	}
	for _, g := range p.layout.globals {
		if g.mutable && !g.imported && g.numeric() {
			more++
		}
	}
	o.longer(secExport, more, func() {
		o.export(FuelName, ExternGlobal, p.fuelGlobal())
		if p.m.HasStart {
			o.export(StartName, ExternFunc, p.moved(p.layout.start))
		}
		for i, g := range p.layout.globals {
			if g.mutable && !g.imported && g.numeric() {
				o.export(p.globalName(i), ExternGlobal, uint32(i))
			}
		}
	})
}

func (o *output) export(name string, kind ExternKind, index uint32) {
	o.str(name)
	o.b = append(o.b, byte(kind))
	o.u32(index)
}

func (o *output) code(w *rewriter) (err error) {
	bodies := o.p.layout.bodies
	o.section(secCode, func() {
		o.u32(uint32(len(bodies) + o.helpers()))
		for i := range bodies {
			var code []byte
			if code, err = w.function(uint32(i)); err != nil {
				return
			}
			o.u32(uint32(len(code)))
			o.b = append(o.b, code...)
			if most := 2*len(o.p.r.b) + roomToGrow; len(o.b) > most {
				err = limit{"bytes with its interruption points", most, "empty loops are the usual cause; let the compiler remove them"}.exceeds(uint64(len(o.b)), int(bodies[i].code.from))
				return
			}
		}
		o.eachHelper(func(h helper) {
			code := w.e.body(h)
			o.u32(uint32(len(code)))
			o.b = append(o.b, code...)
		})
	})
	return err
}

// elements keeps the segments that were not lifted and the numbers of all: an active one is dropped once the module is
// instantiated, so that an empty declarative one is the same.
func (o *output) elements() {
	list := o.p.layout.elements
	if len(list) == 0 {
		return
	}
	o.section(secElement, func() {
		o.u32(uint32(len(list)))
		for _, e := range list {
			if !e.lifted {
				o.copy(e.at)
				continue
			}
			for len(o.refs) > 0 && o.refs[0].from < e.at.to {
				o.refs = o.refs[1:]
			}
			o.b = append(o.b, 3, 0, 0)
		}
	})
}

// data keeps the passive segments and the numbers of all: an active one is empty once the module is instantiated.
func (o *output) data() {
	o.section(secData, func() {
		o.u32(uint32(len(o.p.layout.segments)))
		for _, s := range o.p.layout.segments {
			o.b = append(o.b, 1)
			if s.active {
				s.data.from = s.data.to
			}
			o.u32(s.data.to - s.data.from)
			o.b = append(o.b, o.p.r.b[s.data.from:s.data.to]...)
		}
	})
}

// names writes a name section with the module's name and those of functions.
func (o *output) names(w *rewriter) {
	o.str("name")
	s := o.p.layout.names
	r := &reader{b: o.p.r.b, pos: int(s.from), end: int(s.to)}
	for r.left() > 0 {
		at := r.pos
		id := r.byte()
		content := r.take(int(r.u32()))
		switch id {
		case 0:
			o.b = append(o.b, o.p.r.b[at:r.pos]...)
		case 1:
			o.b = append(o.b, id)
			o.sized(func() { o.functionNames(w, content) })
		}
	}
}

// functionNames writes the names of functions that there are, in order, and those of the helpers.
func (o *output) functionNames(w *rewriter, content []byte) {
	type named struct {
		index uint32
		name  []byte
	}
	r := &reader{b: content, end: len(content)}
	n := int(r.u32())
	list := make([]named, 0, n)
	next := uint32(0)
	for range n {
		f := r.u32()
		name := r.take(int(r.u32()))
		if f >= next && f < uint32(len(o.p.funcs)) {
			list = append(list, named{o.p.moved(f), name})
			next = f + 1
		}
	}
	o.eachHelper(func(h helper) {
		list = append(list, named{w.e.helpers[h], []byte(Reserved + helperInfo[h].name)})
	})
	o.u32(uint32(len(list)))
	for _, f := range list {
		o.u32(f.index)
		o.u32(uint32(len(f.name)))
		o.b = append(o.b, f.name...)
	}
}
