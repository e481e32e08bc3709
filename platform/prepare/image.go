package prepare

import (
	"skein.dev/abi"
	"skein.dev/platform/fault"
)

const pageSize = 64 << 10

// constant is the value of a constant expression as far as offsets need it.
type constant struct {
	bits  uint32 // of an i32
	known byte   // 0: of another type, ill-typed, or made from an imported global
	entry byte   // what it is as an element of a table of functions; bits is the function
}

const (
	unknown byte = iota
	known
	imported // it depends on an imported global
)

const (
	noEntry byte = iota
	funcEntry
	nullEntry
)

// constant reads a constant expression: the value of a global or an element, or a segment's offset.
func (p *parser) constant() constant {
	d := &p.konst
	p.stack = p.stack[:0]
	for d.start(0); d.next(); {
		switch op := d.in.op; {
		case op == opRefFunc:
			p.layout.refs = append(p.layout.refs, span{uint32(d.in.offset + 1), uint32(d.in.end)})
			p.push(constant{bits: d.in.x, entry: funcEntry})
		case op == opRefNull && p.r.b[d.in.offset+1] == funcRef:
			p.push(constant{entry: nullEntry})
		case op == opI32Const:
			p.push(constant{bits: uint32(d.in.value), known: known})
		case op == opGlobalGet:
			p.push(p.layout.globals[d.in.x].constant())
		case op >= opI32Add && op <= opI32Mul:
			p.m.Flags.ExtendedConst = true
			p.push(calculate(op, p.pop(), p.pop()))
		case op >= opI64Add && op <= opI64Mul:
			p.m.Flags.ExtendedConst = true
			p.pop()
			p.pop()
			p.push(constant{})
		case op == opV128Const:
			p.m.Flags.SIMD = true
			p.push(constant{})
		case op == opRefNull, op > opI32Const && op <= opF64Const:
			p.push(constant{})
		case op == opEnd:
		default:
			p.r.fail(bad(d.in.offset, "instruction %#x in a constant expression", uint16(op)))
		}
	}
	if len(p.stack) != 1 {
		return constant{} // ill-typed: the engine refuses it, or Prepare if it is an offset
	}
	return p.stack[0]
}

func (p *parser) push(c constant) { p.stack = append(p.stack, c) }

func (p *parser) pop() constant {
	last := len(p.stack) - 1
	if last < 0 {
		return constant{}
	}
	c := p.stack[last]
	p.stack = p.stack[:last]
	return c
}

// constant is what a constant expression finds in g.
func (g global) constant() constant {
	switch {
	case g.mutable || g.kind != abi.I32:
		return constant{}
	case g.imported:
		return constant{known: imported}
	}
	return g.value
}

// calculate is i32 arithmetic on b and a, a being on top.
func calculate(op opcode, a, b constant) constant {
	if a.known != known || b.known != known {
		return constant{known: max(a.known, b.known) &^ known}
	}
	switch op {
	case opI32Add:
		b.bits += a.bits
	case opI32Sub:
		b.bits -= a.bits
	default:
		b.bits *= a.bits
	}
	return b
}

// image lifts the active data segments out of the module.
func (p *parser) image() ([]Segment, *fault.Error) {
	active := 0
	for _, s := range p.layout.segments {
		if s.active {
			active++
		}
	}
	list := make([]Segment, 0, active)
	for i, s := range p.layout.segments {
		if !s.active {
			continue
		}
		switch s.offset.known {
		case imported:
			return nil, bad(s.at, "the place of data segment %d depends on an imported global", i).
				WithHint("position-independent programs get their addresses so: that comes with the dynlink room; link statically, without -pie or -shared, for now")
		case unknown:
			return nil, bad(s.at, "the offset of data segment %d is not a constant i32", i)
		}
		data := p.r.b[s.data.from:s.data.to]
		size := uint64(p.m.Memory.Min) * pageSize
		if end := uint64(s.offset.bits) + uint64(len(data)); end > size {
			return nil, bad(s.at, "data segment %d reaches up to %#x, outside the memory, which begins with %#x bytes", i, end, size).
				WithHint("link with a larger --initial-memory")
		}
		if len(data) > 0 {
			list = append(list, Segment{s.offset.bits, data})
		}
	}
	return list, nil
}

// tables lifts active element segments out of the module. It leaves those of a table whose elements could be of another
// type than any function, since the engine checks the types of none but active segments.
func (p *parser) tables() ([]ElementSegment, *fault.Error) {
	var list []ElementSegment
	for i := range p.layout.elements {
		e := &p.layout.elements[i]
		if !e.active || p.layout.fixed[e.table] {
			continue
		}
		least := p.m.Tables[e.table].Min
		if end := uint64(e.offset.bits) + uint64(len(e.funcs)); end > uint64(least) {
			return nil, bad(int(e.at.from), "element segment %d reaches up to %d, outside its table, which begins with %d elements", i, end, least)
		}
		for j, f := range e.funcs {
			if f != NoFunc {
				e.funcs[j] = p.moved(f)
			}
		}
		if e.lifted = true; len(e.funcs) > 0 {
			list = append(list, ElementSegment{e.table, e.offset.bits, e.funcs})
		}
	}
	return list, nil
}
