// Package prepare reads a WebAssembly module before any engine sees it: it refuses what is malformed, what would cost an
// engine too much, and what asks for a host that Skein isn't. Enter by Inspect, then CheckEntry and CheckImports. Prepare
// then makes of it what the machine runs: layout.go is what the parser remembers for it, image.go lifts the data out, plan.go
// decides where code is interrupted, code.go writes functions anew, helper.go those that are added, rewrite.go the sections.
package prepare

import (
	"skein.dev"
	"skein.dev/abi"
)

// ModuleKey is where the bucket keeps a module's bytes. The upload service writes them, executors read them.
func ModuleKey(d skein.Digest) string { return "modules/" + d.String() }

// Kind is how a module is run.
type Kind uint8

const (
	// Library has no entry: only another module can use it.
	Library Kind = iota
	// Command exports _start: it runs from there to its exit, once an instance.
	Command
	// Reactor exports handle, and perhaps _initialize: it answers calls.
	Reactor
)

func (k Kind) String() string {
	switch k {
	case Command:
		return "command"
	case Reactor:
		return "reactor"
	}
	return "library"
}

// ExternKind is what an import or export is, by its byte in the binary format.
type ExternKind byte

// The kinds of imports and exports.
const (
	ExternFunc   ExternKind = 0
	ExternTable  ExternKind = 1
	ExternMemory ExternKind = 2
	ExternGlobal ExternKind = 3
	ExternTag    ExternKind = 4
)

func (k ExternKind) String() string {
	switch k {
	case ExternFunc:
		return "function"
	case ExternTable:
		return "table"
	case ExternMemory:
		return "memory"
	case ExternGlobal:
		return "global"
	case ExternTag:
		return "tag"
	}
	return "unknown"
}

// Import is what a module asks of its host.
type Import struct {
	Module, Name string
	Kind         ExternKind
	Type         abi.Signature // of a function or tag
}

func (i Import) String() string { return i.Module + "." + i.Name }

// Export is what a module gives.
type Export struct {
	Name  string
	Kind  ExternKind
	Index uint32        // in the index space of its kind
	Type  abi.Signature // of a function
}

// Memory is a module's linear memory; sizes are in pages of 64 KiB.
type Memory struct {
	Min, Max uint32 // Max only if HasMax
	HasMax   bool
	Shared   bool
	Imported bool
}

// Table is one of a module's tables.
type Table struct {
	Min, Max uint32 // elements; Max only if HasMax
	HasMax   bool
	Imported bool
	Type     byte // first byte of its element type; 0x70 is funcref
}

// Flags tell what a module is built for and what its code can change beside memory and globals.
type Flags struct {
	Threads       bool // atomic instructions or a shared memory
	SIMD          bool
	Bulk          bool // memory.copy, memory.fill and their like
	TailCalls     bool
	Exceptions    bool // tags, throw, try_table
	TypedRefs     bool // typed function references
	ExtendedConst bool // arithmetic in constant expressions
	TableMutation bool // the code can change a table or drop an element segment
	DataOps       bool // the code reads or drops data segments: memory.init, data.drop
	Passive       bool // there is a passive data or element segment
	Dylink        bool // there is a dylink.0 section: a shared library, or a program that loads some
	Names         bool // there is a name section
	Debug         bool // there are DWARF sections
	Go            bool // Go's linker made it: its allocator takes all memory that there is for its own
}

// Module is what Inspect learned.
type Module struct {
	Digest    skein.Digest
	Size      int
	Kind      Kind
	Imports   []Import
	Exports   []Export
	Memory    *Memory // nil if it has none
	Tables    []Table // imported ones first
	Functions int     // that it defines; so are the next two
	Globals   int
	Tags      int
	HasStart  bool // a start function runs when it is instantiated
	Elements  int  // segments
	Data      int  // segments
	Flags     Flags
}

// Export finds an export by name.
func (m *Module) Export(name string) (Export, bool) {
	for _, e := range m.Exports {
		if e.Name == name {
			return e, true
		}
	}
	return Export{}, false
}

// Inspect reads wasm in one pass: its structure, every index, and every instruction, but not the types on the operand
// stack, which an engine checks. Time and memory stay in proportion to len(wasm). Errors are fault.Invalid:
//
//	BAD_MODULE           it is malformed, or not WebAssembly at all
//	MODULE_IS_COMPONENT  it is a component: core modules are wanted
//	MODULE_LIMIT         it is larger in some way than limits allow
func Inspect(wasm []byte, limits Limits) (*Module, error) {
	p, err := parse(wasm, &limits)
	if err != nil {
		return nil, err
	}
	return p.m, nil
}

func parse(wasm []byte, limits *Limits) (*parser, error) {
	p := &parser{limit: limits, r: reader{b: wasm, end: len(wasm)}, m: &Module{Size: len(wasm)}}
	p.module()
	if p.r.err != nil {
		return nil, p.r.err
	}
	p.m.Digest = skein.DigestOf(wasm)
	return p, nil
}
