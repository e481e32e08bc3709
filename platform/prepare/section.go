package prepare

import (
	"skein.dev/abi"
)

// funcRef is the type of a reference to any function, or null.
const funcRef = 0x70

// valueType reads one and returns its first byte; an index in it must be of one of so many types.
func valueType(r *reader, types int) byte {
	at := r.pos
	switch c := r.byte(); c {
	case 0x7f, 0x7e, 0x7d, 0x7c, 0x7b, 0x70, 0x6f, 0x69: // i32 i64 f32 f64 v128 funcref externref exnref
		return c
	case 0x63, 0x64: // ref null, ref
		heapType(r, types)
		return c
	default:
		r.fail(bad(at, "value type %#x", c))
		return 0
	}
}

func heapType(r *reader, types int) {
	at := r.pos
	switch t := r.signed(33); {
	case r.err != nil:
	case t == -0x10 || t == -0x11 || t == -0x17: // func extern exn
	case t < 0 || t >= int64(types):
		r.fail(bad(at, "heap type %d of %d", t, types))
	}
}

func (p *parser) typeSection() {
	r := &p.r
	l := limit{"function types", p.limit.Types, hintSplit}
	n := r.count(1, l)
	p.layout.entries = uint32(n)
	for i := 0; i < n && r.err == nil; i++ {
		at := r.pos
		if r.peek() != 0x4e {
			p.functionType(len(p.types))
			continue
		}
		// A group of types that may mention one another.
		r.pos++
		p.m.Flags.TypedRefs = true
		members := r.count(3, l)
		if total := len(p.types) + members; total > l.most {
			r.fail(l.exceeds(uint64(total), at))
		}
		known := len(p.types) + members
		for j := 0; j < members && r.err == nil; j++ {
			p.functionType(known)
		}
	}
	if r.err == nil && len(p.types) > l.most {
		r.fail(l.exceeds(uint64(len(p.types)), r.pos))
	}
	p.space.types = len(p.types)
}

func (p *parser) functionType(known int) {
	r := &p.r
	switch at, form := r.pos, r.byte(); form {
	case 0x60:
	case 0x50, 0x4f, 0x5f, 0x5e:
		r.fail(bad(at, "it uses garbage-collected types, which are not supported"))
	default:
		r.fail(bad(at, "type of unknown form %#x", form))
	}
	p.types = append(p.types, abi.Signature{Params: p.valueTypes("parameters of a function", known), Results: p.valueTypes("results of a function", known)})
}

func (p *parser) valueTypes(what string, known int) []abi.ValueType {
	r := &p.r
	at := r.pos
	n := r.count(1, limit{what, p.limit.Params, "pass them in memory"})
	if n == 0 {
		return nil
	}
	all := limit{"parameters and results of all function types", p.limit.AllParams, hintSplit}
	if p.allParams += n; p.allParams > all.most {
		r.fail(all.exceeds(uint64(p.allParams), at))
		return nil
	}
	list := make([]abi.ValueType, n)
	for i := range list {
		list[i] = valueType(r, known)
		if list[i] == 0x63 || list[i] == 0x64 {
			p.m.Flags.TypedRefs = true
		}
		if r.err != nil {
			return nil
		}
	}
	return list
}

func (p *parser) importSection() {
	r := &p.r
	n := r.count(4, limit{"imports", p.limit.Imports, hintSplit})
	for i := 0; i < n && r.err == nil; i++ {
		imp := Import{Module: r.name(p.limit.NameBytes), Name: r.name(p.limit.NameBytes)}
		at := r.pos
		imp.Kind = ExternKind(r.byte())
		switch imp.Kind {
		case ExternFunc:
			t := r.index(len(p.types), "type")
			if r.err == nil {
				imp.Type = p.types[t]
				p.funcs = append(p.funcs, t)
			}
		case ExternTable:
			p.table(true)
		case ExternMemory:
			p.memory(true)
		case ExternGlobal:
			p.globalType(true)
		case ExternTag:
			if t, ok := p.tag(); ok {
				imp.Type = p.types[t]
			}
		default:
			r.fail(bad(at, "import of unknown kind %d", byte(imp.Kind)))
		}
		p.m.Imports = append(p.m.Imports, imp)
	}
	p.imported = len(p.funcs)
	p.count()
}

// count brings the index spaces of code up to date.
func (p *parser) count() {
	p.space.funcs, p.space.tables, p.space.globals, p.space.tags = len(p.funcs), len(p.m.Tables), len(p.layout.globals), p.tags
	p.space.memory = p.m.Memory != nil
}

func (p *parser) functionSection() {
	r := &p.r
	n := r.count(1, limit{"functions", p.limit.Functions, hintSplit})
	for i := 0; i < n && r.err == nil; i++ {
		p.funcs = append(p.funcs, r.index(len(p.types), "type"))
	}
	p.m.Functions = n
	p.count()
}

// bounds reads a minimum and perhaps a maximum, as memories and tables have them.
func (p *parser) bounds() (lo, hi uint32, hasMax, shared bool) {
	r := &p.r
	at := r.pos
	flags := r.byte()
	switch {
	case flags&4 != 0 && flags < 8:
		r.fail(bad(at, "64-bit memories and tables are not supported").WithHint("build for wasm32"))
	case flags > 3:
		r.fail(bad(at, "limits of unknown form %#x", flags))
	}
	lo = r.u32()
	if hasMax = flags&1 != 0; hasMax {
		hi = r.u32()
		if r.err == nil && hi < lo {
			r.fail(bad(at, "a maximum of %d is below the minimum of %d", hi, lo))
		}
	}
	return lo, hi, hasMax, flags&2 != 0
}

func (p *parser) table(imported bool) {
	r := &p.r
	at := r.pos
	valued := r.peek() == 0x40 && !imported
	if valued {
		r.pos++
		if r.byte() != 0 {
			r.fail(bad(at, "table of unknown form"))
		}
		p.m.Flags.TypedRefs = true
	}
	t := Table{Imported: imported, Type: valueType(r, len(p.types))}
	switch t.Type {
	case 0x70, 0x6f, 0x69:
	case 0x63, 0x64:
		p.m.Flags.TypedRefs = true
	default:
		r.fail(bad(at, "table of type %#x", t.Type))
	}
	var shared bool
	t.Min, t.Max, t.HasMax, shared = p.bounds()
	if shared {
		r.fail(bad(at, "shared tables are not supported"))
	}
	if valued {
		p.constant()
	}
	p.m.Tables = append(p.m.Tables, t)
	p.layout.fixed = append(p.layout.fixed, imported || valued || t.Type != funcRef)
	var sum uint64
	for _, t := range p.m.Tables {
		sum += uint64(t.Min)
	}
	if l := (limit{"table elements", p.limit.TableElements, hintSplit}); r.err == nil && sum > uint64(l.most) {
		r.fail(l.exceeds(sum, at))
	}
	if l := (limit{"tables", p.limit.Tables, hintSplit}); len(p.m.Tables) > l.most {
		r.fail(l.exceeds(uint64(len(p.m.Tables)), at))
	}
}

func (p *parser) tableSection() {
	r := &p.r
	n := r.count(3, limit{"tables", p.limit.Tables, hintSplit})
	for i := 0; i < n && r.err == nil; i++ {
		p.table(false)
		p.count()
	}
}

func (p *parser) memorySection() {
	r := &p.r
	at := r.pos
	switch n := r.u32(); n {
	case 0:
	case 1:
		p.memory(false)
	default:
		r.fail(bad(at, "more than one memory is not supported"))
	}
	p.count()
}

func (p *parser) memory(imported bool) {
	r := &p.r
	at := r.pos
	if p.m.Memory != nil {
		r.fail(bad(at, "more than one memory is not supported"))
		return
	}
	const pages = 1 << 16
	m := &Memory{Imported: imported}
	m.Min, m.Max, m.HasMax, m.Shared = p.bounds()
	switch l := (limit{"pages of 64 KiB that the memory begins with", p.limit.MemoryPages, hintMemory}); {
	case r.err != nil:
	case m.Min > pages || m.Max > pages:
		r.fail(bad(at, "a memory of more than %d pages of 64 KiB", pages))
	case uint64(m.Min) > uint64(l.most):
		r.fail(l.exceeds(uint64(m.Min), at))
	case m.Shared && !m.HasMax:
		r.fail(bad(at, "a shared memory needs a maximum").WithHint("link with --max-memory"))
	}
	p.m.Memory = m
	p.m.Flags.Threads = p.m.Flags.Threads || m.Shared
}

// tag reads a tag's type.
func (p *parser) tag() (uint32, bool) {
	r := &p.r
	at := r.pos
	if r.byte() != 0 {
		r.fail(bad(at, "tag of unknown form"))
	}
	t := r.index(len(p.types), "type")
	if r.err != nil {
		return 0, false
	}
	if len(p.types[t].Results) > 0 {
		r.fail(bad(at, "a tag can't have results"))
	}
	p.tags++
	p.m.Flags.Exceptions = true
	return t, true
}

func (p *parser) tagSection() {
	r := &p.r
	n := r.count(2, limit{"tags", p.limit.Tags, hintSplit})
	for i := 0; i < n && r.err == nil; i++ {
		p.tag()
	}
	p.m.Tags = n
	p.count()
}

func (p *parser) globalType(imported bool) *global {
	r := &p.r
	kind := valueType(r, len(p.types))
	at, mutable := r.pos, r.byte()
	if mutable > 1 {
		r.fail(bad(at, "mutability %d of a global", mutable))
	}
	p.layout.globals = append(p.layout.globals, global{kind: kind, mutable: mutable == 1, imported: imported})
	return &p.layout.globals[len(p.layout.globals)-1]
}

func (p *parser) globalSection() {
	r := &p.r
	n := r.count(4, limit{"globals", p.limit.Globals, hintSplit})
	for i := 0; i < n && r.err == nil; i++ {
		g := p.globalType(false)
		g.value = p.constant() // may only refer to globals before it
		p.count()
	}
	p.m.Globals = n
}

// function reads a function's index outside of code.
func (p *parser) function() uint32 {
	at := p.r.pos
	f := p.r.index(len(p.funcs), "function")
	p.layout.refs = append(p.layout.refs, p.r.span(at))
	return f
}

func (p *parser) exportSection() {
	r := &p.r
	n := r.count(3, limit{"exports", p.limit.Exports, "export only what a host calls: don't link with --export-all"})
	seen := make(map[string]struct{}, n)
	p.m.Exports = make([]Export, 0, n)
	for i := 0; i < n && r.err == nil; i++ {
		at := r.pos
		e := Export{Name: r.name(p.limit.NameBytes)}
		if _, twice := seen[e.Name]; twice {
			r.fail(bad(at, "two exports are named %.80q", e.Name))
		}
		seen[e.Name] = struct{}{}
		e.Kind = ExternKind(r.byte())
		switch e.Kind {
		case ExternFunc:
			e.Index = p.function()
			if r.err == nil {
				e.Type = p.types[p.funcs[e.Index]]
			}
		case ExternTable:
			e.Index = r.index(len(p.m.Tables), "table")
		case ExternMemory:
			memories := 0
			if p.m.Memory != nil {
				memories = 1
			}
			e.Index = r.index(memories, "memory")
		case ExternGlobal:
			e.Index = r.index(len(p.layout.globals), "global")
		case ExternTag:
			e.Index = r.index(p.tags, "tag")
		default:
			r.fail(bad(at, "export of unknown kind %d", byte(e.Kind)))
		}
		p.m.Exports = append(p.m.Exports, e)
	}
}

func (p *parser) startSection() {
	r := &p.r
	at := r.pos
	f := r.index(len(p.funcs), "function")
	if r.err != nil {
		return
	}
	if t := p.types[p.funcs[f]]; len(t.Params)+len(t.Results) > 0 {
		r.fail(bad(at, "the start function has type %s, not ()", t))
	}
	p.m.HasStart, p.layout.start = true, f
}
