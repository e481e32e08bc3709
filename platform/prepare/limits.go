package prepare

import (
	"fmt"

	"skein.dev"
	"skein.dev/platform/fault"
)

// Limits bounds what a module may hold. They are there for the engine behind this package: each figure keeps it from
// needing minutes, or memory out of proportion to the module's size, to decode, compile or instantiate one.
type Limits struct {
	ModuleBytes int // the whole module
	Types       int // function types
	Params      int // parameters of one function type, and results of one
	// AllParams bounds the parameters and results of all function types together. The engine makes code of them, and that
	// is kept in no artifact: 10,000 types of 1,000 parameters, 10 MB, took 13 s and a gigabyte wherever they were loaded.
	AllParams     int
	Imports       int
	Exports       int
	Functions     int // functions that the module defines
	Globals       int // globals that it defines
	Tags          int // exception tags that it defines
	Tables        int
	TableElements int // elements that all tables begin with; also how far one may be declared to grow, if it does
	MemoryPages   int // pages of 64 KiB that the memory begins with
	Elements      int // element segments
	Data          int // data segments; Go's linker makes one of every few bytes that aren't zero
	SegmentItems  int // entries of all element segments
	Customs       int // custom sections
	Names         int // entries of the name section
	NameBytes     int // one import, export or custom section name
	BodyBytes     int // one function's code
	Locals        int // locals that one function declares
	AllLocals     int // locals that all functions declare; an engine keeps them spelled out
	Nesting       int // blocks inside one another
	Targets       int // targets of one br_table, and catches of one try_table
	// Flow bounds, in each function, the product of its locals and its branching instructions: the compiler's work grows
	// with it. 3,000 ifs over 50,000 locals are a module of 37 KB and took half a minute.
	Flow int
}

// DefaultLimits leave room for the largest programs that were measured (Ruby: 17,825 functions; gore, a game in Go:
// 67,810 data segments) and keep below what made an engine slow (docs/guarantees.md).
func DefaultLimits() Limits {
	return Limits{
		ModuleBytes:   skein.MaxModule,
		Types:         50_000,
		Params:        1_000,
		AllParams:     100_000,
		Imports:       10_000,
		Exports:       100_000,
		Functions:     50_000,
		Globals:       100_000,
		Tags:          10_000,
		Tables:        100,
		TableElements: 1 << 20,
		MemoryPages:   128 << 20 / 65536,
		Elements:      100_000,
		Data:          500_000,
		SegmentItems:  1 << 20,
		Customs:       1_000,
		Names:         1 << 20,
		NameBytes:     16 << 10,
		BodyBytes:     1 << 20,
		Locals:        5_000,
		AllLocals:     2_000_000,
		Nesting:       4_096,
		Targets:       16_384,
		Flow:          50_000_000,
	}
}

// limit is one of Limits as an error tells it.
type limit struct {
	what string // "functions", "bytes of code in one function"
	most int
	hint string
}

const (
	hintSplit  = "split the program into several functions that call one another"
	hintCode   = "split the function in the source; code that a generator made large is the usual cause"
	hintMemory = "link with a smaller --initial-memory and let the program grow its memory; data that is compiled in counts too"
	hintGrow   = "declare a maximum for the table, or don't grow it"
	hintNames  = "strip the module: llvm-strip, wasm-strip or the linker's -s"
)

// exceeds is the error of a limit. value is what the module has, as far as it was read.
func (l limit) exceeds(value uint64, offset int) *fault.Error {
	return fault.Invalid.New("MODULE_LIMIT", "module: %d %s, at most %d are allowed (byte offset %#x)", value, l.what, l.most, offset).
		WithHint("%s", l.hint)
}

func bad(offset int, format string, args ...any) *fault.Error {
	return fault.Invalid.New("BAD_MODULE", "module: %s (byte offset %#x)", fmt.Sprintf(format, args...), offset).
		WithHint("the file may be damaged, or built for features that are not supported; docs/guests.md has the builds that work")
}
