package prepare

import (
	"strings"

	"skein.dev/abi"
	"skein.dev/platform/fault"
)

// Section ids. Sections come in this order: type … memory, tag, global … element, data count, code, data.
const (
	secCustom = iota
	secType
	secImport
	secFunction
	secTable
	secMemory
	secGlobal
	secExport
	secStart
	secElement
	secCode
	secData
	secDataCount
	secTag
)

var sections = [...]struct {
	name string
	rank int // place in the order
}{
	{"custom", 0},
	{"type", 1},
	{"import", 2},
	{"function", 3},
	{"table", 4},
	{"memory", 5},
	{"global", 7},
	{"export", 8},
	{"start", 9},
	{"element", 10},
	{"code", 12},
	{"data", 13},
	{"data count", 11},
	{"tag", 6},
}

// parser is one run of Inspect.
type parser struct {
	limit *Limits
	r     reader
	m     *Module

	types    []abi.Signature
	funcs    []uint32 // type of each function, imported ones first
	imported int      // of them
	tags     int
	space    space // for code
	code     decoder
	konst    decoder

	layout    layout
	stack     []constant // of the constant expression
	segments  int        // entries of the element segments
	allLocals int
	allParams int
	grows     []bool // tables that the code grows
	names     int
	customs   int
}

func (p *parser) module() {
	r := &p.r
	if err := header(r.b); err != nil {
		r.fail(err)
		return
	}
	if len(r.b) > p.limit.ModuleBytes {
		r.fail(limit{"bytes", p.limit.ModuleBytes, "strip debugging sections: llvm-strip, wasm-opt -O --strip-debug"}.exceeds(uint64(len(r.b)), 0))
		return
	}
	p.space.data = -1
	p.code = decoder{r: r, limit: p.limit, space: &p.space}
	p.konst = decoder{r: r, limit: p.limit, space: &p.space}
	r.pos = 8
	rank := 0
	for r.err == nil && r.pos < len(r.b) {
		rank = p.section(rank)
	}
	if r.err == nil {
		p.finish()
	}
}

// section reads one section behind those of rank and returns the rank then.
func (p *parser) section(rank int) int {
	r := &p.r
	at := r.pos
	id := int(r.byte())
	if id >= len(sections) {
		r.fail(bad(at, "section of unknown kind %d", id))
		return rank
	}
	s := sections[id]
	size := r.u32()
	if r.err == nil && uint64(size) > uint64(r.left()) {
		r.fail(bad(at, "truncated: its %s section has %d bytes, of which %d are there", s.name, size, r.left()).WithHint("send the whole file"))
	}
	if r.err != nil {
		return rank
	}
	if s.rank > 0 && s.rank <= rank {
		r.fail(bad(at, "its %s section is out of order, or there are two", s.name))
		return rank
	}
	r.end = r.pos + int(size)
	content := r.pos
	p.content(id)
	if r.err != nil {
		return rank
	}
	if r.left() > 0 {
		r.fail(bad(r.pos, "its %s section is %d bytes longer than what is in it", s.name, r.left()))
		return rank
	}
	p.layout.sections[id] = r.span(content)
	r.end = len(r.b)
	return max(rank, s.rank)
}

func (p *parser) content(id int) {
	switch id {
	case secCustom:
		p.custom()
	case secType:
		p.typeSection()
	case secImport:
		p.importSection()
	case secFunction:
		p.functionSection()
	case secTable:
		p.tableSection()
	case secMemory:
		p.memorySection()
	case secTag:
		p.tagSection()
	case secGlobal:
		p.globalSection()
	case secExport:
		p.exportSection()
	case secStart:
		p.startSection()
	case secElement:
		p.elementSection()
	case secDataCount:
		p.space.data = int(p.r.u32())
		if l := p.dataLimit(); p.space.data > l.most {
			p.r.fail(l.exceeds(uint64(p.space.data), p.r.pos))
		}
	case secCode:
		p.codeSection()
	case secData:
		p.dataSection()
	}
}

// finish checks what only the whole module can tell.
func (p *parser) finish() {
	r, m := &p.r, p.m
	if bodies := len(p.layout.bodies); bodies != m.Functions {
		r.fail(bad(r.pos, "it declares %d functions and has code for %d", m.Functions, bodies))
	}
	if p.space.data >= 0 && p.space.data != m.Data {
		r.fail(bad(r.pos, "it announces %d data segments and has %d", p.space.data, m.Data))
	}
	for i, grows := range p.grows {
		if grows && r.err == nil {
			p.growth(m.Tables[i])
		}
	}
	for _, e := range m.Exports {
		switch {
		case e.Kind != ExternFunc:
		case e.Name == "_start":
			m.Kind = Command
		case e.Name == "handle" && m.Kind == Library:
			m.Kind = Reactor
		}
	}
}

// growth bounds a table that the code grows: engines allocate what the guest asks for, up to the declared maximum.
func (p *parser) growth(t Table) {
	l := limit{"elements of a table that the code grows", p.limit.TableElements, hintGrow}
	switch {
	case !t.HasMax:
		p.r.fail(fault.Invalid.New("MODULE_LIMIT", "module: its code grows a table without a maximum, at most %d elements are allowed", l.most).
			WithHint("%s", l.hint))
	case uint64(t.Max) > uint64(l.most):
		p.r.fail(l.exceeds(uint64(t.Max), p.r.pos))
	}
}

func (p *parser) custom() {
	r := &p.r
	if p.customs++; p.customs > p.limit.Customs {
		r.fail(limit{"custom sections", p.limit.Customs, hintNames}.exceeds(uint64(p.customs), r.pos))
		return
	}
	content := r.pos
	name := r.name(p.limit.NameBytes)
	switch {
	case r.err != nil:
		return
	case name == "name":
		if p.m.Flags.Names {
			r.fail(bad(r.pos, "it has two name sections"))
			return
		}
		p.m.Flags.Names = true
		content = r.pos
		p.nameSection()
		p.layout.names = r.span(content)
		return
	case name == "dylink.0":
		p.m.Flags.Dylink = true
		p.layout.dylink = span{uint32(content), uint32(r.end)}
	case name == "go:buildid":
		p.m.Flags.Go = true
	case strings.HasPrefix(name, ".debug_"):
		p.m.Flags.Debug = true
	}
	r.pos = r.end
}

// nameSection walks the names: engines allocate by the counts in there.
func (p *parser) nameSection() {
	r := &p.r
	section := r.end
	for r.err == nil && r.pos < section {
		id := r.byte()
		size := r.u32()
		at := r.pos
		if r.take(int(size)); r.err != nil {
			return
		}
		next := r.pos
		r.pos, r.end = at, next
		switch id {
		case 0: // the module's
			r.name(p.limit.ModuleBytes)
		case 1: // functions'
			p.nameMap(nil)
		case 2: // locals'
			p.nameMap(p.nameMapOf)
		default:
			r.pos = next
		}
		if r.err == nil && r.pos != next {
			r.fail(bad(at, "its name section is not well formed").WithHint("%s", hintNames))
			return
		}
		if r.err == nil {
			r.end = section
		}
	}
}

func (p *parser) nameMapOf() { p.nameMap(nil) }

// nameMap walks pairs of an index and a name, or of an index and what inner reads.
func (p *parser) nameMap(inner func()) {
	r := &p.r
	at := r.pos
	l := limit{"entries of the name section", p.limit.Names, hintNames}
	n := r.count(2, l)
	if p.names += n; p.names > l.most {
		r.fail(l.exceeds(uint64(p.names), at))
	}
	for i := 0; i < n && r.err == nil; i++ {
		r.u32()
		if inner != nil {
			inner()
		} else {
			r.name(p.limit.ModuleBytes)
		}
	}
}
