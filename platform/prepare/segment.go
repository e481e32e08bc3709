package prepare

func (p *parser) dataLimit() limit {
	return limit{"data segments", p.limit.Data, "merge them, or load the data from a file instead of compiling it in"}
}

func (p *parser) elementSection() {
	r := &p.r
	n := r.count(2, limit{"element segments", p.limit.Elements, hintSplit})
	for i := 0; i < n && r.err == nil; i++ {
		p.element()
	}
	p.m.Elements = n
	p.space.elems = n
}

// element reads one segment. Bit 0 of its form: not active; bit 1: it names its table, or if not active is declarative;
// bit 2: entries are expressions rather than function indices.
func (p *parser) element() {
	r := &p.r
	at := r.pos
	form := r.u32()
	if form > 7 {
		r.fail(bad(at, "element segment of unknown form %d", form))
		return
	}
	active, named, exprs := form&1 == 0, form&2 != 0, form&4 != 0
	e := elements{active: active}
	if active {
		if named {
			e.table = r.u32()
		}
		if r.err == nil && uint64(e.table) >= uint64(len(p.m.Tables)) {
			r.fail(bad(at, "element segment for table %d of %d", e.table, len(p.m.Tables)))
		}
		e.offset = p.constant()
	} else if !named {
		p.m.Flags.Passive = true
	}
	plain := form&3 == 0 || p.elementKind(exprs)
	l := limit{"entries of element segments", p.limit.SegmentItems, hintSplit}
	size := 1
	if exprs {
		size = 2
	}
	n := r.count(size, l)
	if p.segments += n; p.segments > l.most {
		r.fail(l.exceeds(uint64(p.segments), at))
	}
	for i := 0; i < n && r.err == nil; i++ {
		f, ok := p.entry(exprs)
		if plain = plain && ok; active && plain {
			e.funcs = append(e.funcs, f)
		}
	}
	if r.err != nil {
		return
	}
	if active && (!plain || e.offset.known != known) {
		p.layout.fixed[e.table] = true
	}
	e.at = r.span(at)
	p.layout.elements = append(p.layout.elements, e)
}

// entry reads an entry of a segment. ok is false if it is neither a function nor null.
func (p *parser) entry(exprs bool) (f uint32, ok bool) {
	if !exprs {
		return p.function(), true
	}
	c := p.constant()
	if c.entry == nullEntry {
		return NoFunc, true
	}
	return c.bits, c.entry == funcEntry
}

// elementKind reads what a segment's entries are: a reference type before expressions, else a byte that means function. It
// reports whether that is any function, or null.
func (p *parser) elementKind(exprs bool) bool {
	r := &p.r
	at := r.pos
	if !exprs {
		if r.byte() != 0 {
			r.fail(bad(at, "element segment of unknown kind"))
		}
		return true
	}
	t := valueType(r, len(p.types))
	switch t {
	case funcRef, 0x6f, 0x69:
	case 0x63, 0x64:
		p.m.Flags.TypedRefs = true
	default:
		r.fail(bad(at, "element segment of type %#x", t))
	}
	return t == funcRef
}

func (p *parser) dataSection() {
	r := &p.r
	n := r.count(2, p.dataLimit())
	for i := 0; i < n && r.err == nil; i++ {
		at := r.pos
		form := r.u32()
		s := segment{active: form != 1, at: at}
		switch {
		case form > 2:
			r.fail(bad(at, "data segment of unknown form %d", form))
		case form == 1:
			p.m.Flags.Passive = true
		default:
			if form == 2 && r.u32() != 0 {
				r.fail(bad(at, "more than one memory is not supported"))
			}
			if p.m.Memory == nil {
				r.fail(bad(at, "a data segment without a memory"))
			}
			s.offset = p.constant()
		}
		size := int(r.u32())
		start := r.pos
		r.take(size)
		s.data = r.span(start)
		p.layout.segments = append(p.layout.segments, s)
	}
	p.m.Data = n
}

func (p *parser) codeSection() {
	r := &p.r
	section := r.end
	p.grows = make([]bool, len(p.m.Tables))
	n := r.count(2, limit{"functions", p.limit.Functions, hintSplit})
	if r.err == nil && n != p.m.Functions {
		r.fail(bad(r.pos, "it declares %d functions and has code for %d", p.m.Functions, n))
	}
	for i := 0; i < n && r.err == nil; i++ {
		at := r.pos
		size := r.u32()
		if r.err == nil && uint64(size) > uint64(r.left()) {
			r.fail(bad(at, "truncated: function %d has %d bytes, of which %d are there", p.imported+i, size, r.left()))
		}
		if l := (limit{"bytes of code in one function", p.limit.BodyBytes, hintCode}); r.err == nil && uint64(size) > uint64(l.most) {
			r.fail(l.exceeds(uint64(size), at))
		}
		if r.err != nil {
			return
		}
		r.end = r.pos + int(size)
		p.body(i)
		p.layout.bodies[i].code = r.span(r.end - int(size))
		if r.err == nil && r.left() > 0 {
			r.fail(bad(r.pos, "function %d is %d bytes longer than its code", p.imported+i, r.left()))
		}
		if r.err == nil {
			r.end = section
		}
	}
}

// body walks the code of one defined function.
func (p *parser) body(i int) {
	r, d := &p.r, &p.code
	at := r.pos
	locals := p.localDecls()
	p.layout.bodies = append(p.layout.bodies, function{locals: uint32(locals)})
	if r.err != nil {
		return
	}
	branches := 0
	f, calls := &p.layout.bodies[i], uint32(len(p.layout.calls))
	for d.start(locals + len(p.types[p.funcs[p.imported+i]].Params)); d.next(); {
		p.layout.note(&d.in, f)
		if p.note(&d.in) {
			branches++
		}
	}
	f.calls = span{calls, uint32(len(p.layout.calls))}
	if r.err != nil {
		return
	}
	l := limit{"branches times locals in one function", p.limit.Flow, hintCode}
	if flow := uint64(branches) * uint64(locals); flow > uint64(l.most) {
		r.fail(l.exceeds(flow, at))
	}
}

// localDecls reads a function's groups of locals and returns how many locals there are.
func (p *parser) localDecls() int {
	r := &p.r
	at := r.pos
	one := limit{"locals in one function", p.limit.Locals, hintCode}
	all := limit{"locals in all functions", p.limit.AllLocals, hintSplit}
	groups := r.u32()
	if uint64(groups)*2 > uint64(r.left()) {
		r.fail(bad(at, "truncated: %d groups of locals are announced in the last %d bytes", groups, r.left()))
	}
	locals := uint64(0)
	for g := uint32(0); g < groups && r.err == nil; g++ {
		locals += uint64(r.u32())
		if locals > uint64(one.most) {
			r.fail(one.exceeds(locals, at))
		}
		if t := valueType(r, len(p.types)); t == 0x63 || t == 0x64 {
			p.m.Flags.TypedRefs = true
		}
	}
	if r.err != nil {
		return 0
	}
	if p.allLocals += int(locals); p.allLocals > all.most {
		r.fail(all.exceeds(uint64(p.allLocals), at))
	}
	return int(locals)
}

// note records what an instruction tells of its module, and reports whether control may branch there.
func (p *parser) note(in *instr) bool {
	f := &p.m.Flags
	switch in.op {
	case opBlock, opLoop, opIf, opElse, opBr, opBrIf, opBrTable:
		return true
	case opTryTable:
		f.Exceptions = true
		return true
	case opThrow, opThrowRef:
		f.Exceptions = true
	case opReturnCall, opReturnCallInd:
		f.TailCalls = true
	case opCallRef:
		f.TypedRefs = true
	case opReturnCallRef:
		f.TailCalls, f.TypedRefs = true, true
	case opRefAsNonNull:
		f.TypedRefs = true
	case opBrOnNull, opBrOnNonNull:
		f.TypedRefs = true
		return true
	case opTableSet, opTableFill:
		f.TableMutation = true
	case opTableGrow:
		f.TableMutation = true
		p.grows[in.x] = true
	case opTableInit, opTableCopy, opElemDrop:
		f.TableMutation, f.Bulk = true, true
	case opMemoryInit, opDataDrop:
		f.DataOps, f.Bulk = true, true
	default:
		switch in.op >> 8 {
		case prefixVector:
			f.SIMD = true
		case prefixAtomic:
			f.Threads = true
		case prefixMisc:
			f.Bulk = f.Bulk || in.op == opMemoryCopy || in.op == opMemoryFill
		}
	}
	return false
}
