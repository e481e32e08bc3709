// Package abi is the contract between a guest and its host: every function that a guest may import, written once as a C
// prototype with its meaning, its mission name and an honest level of support. Rooms lists it all, Lookup finds one row;
// headers, externs, docs/host-interface.md and the host's own checks are derived from here.
package abi

import (
	"fmt"
	"sync"
)

// The import modules of the host interface.
const (
	Native      = "faasm"                  // Skein's own functions: (pointer, length) strings, errors as -errno
	Env         = "env"                    // Faasm's, and what clang, MPI and pthread programs import
	WASI        = "wasi_snapshot_preview1" // WASI preview 1; errors as +errno
	WASIThreads = "wasi"                   // wasi-threads
)

// Support says how much of a row works today. The zero value claims nothing.
type Support uint8

const (
	// Planned: the row links and answers ENOSYS (52). Natively that is -52, or 0 with last_error 52 where the result is an
	// address; in WASI it is 52. It never traps and never pretends to have worked.
	Planned Support = iota
	// Partial: the row works except for what its Note says.
	Partial
	// Built: the row works as its Doc says.
	Built
)

func (s Support) String() string {
	switch s {
	case Planned:
		return "planned"
	case Partial:
		return "partial"
	case Built:
		return "built"
	}
	return fmt.Sprintf("Support(%d)", uint8(s))
}

// Func is one row as its room's file states it.
type Func struct {
	Module  string  // import module
	Decl    string  // C prototype for wasm32, from the closed list of types in ctype.go
	Import  string  // import name, only where it can't be the prototype's (wasi-threads' "thread-spawn")
	Mission string  // the mission's name of it, such as "byte* read_call_input()"; many rows have none
	Doc     string  // arguments, units, result and errno cases; full sentences
	Support Support // what works today
	Note    string  // what is missing and what brings it; required unless Built
}

// Const is a number that a room's functions take or return, for hosts and for the C header (as SKEIN_<Name>).
type Const struct {
	Name  string
	Value int
	Doc   string
}

// Room is one section of the host interface. Its name is also the name of its files on every floor.
type Room struct {
	Name   string
	Doc    string
	Consts []Const
	Funcs  []Func
}

// Row is a Func with what its prototype says.
type Row struct {
	Func
	Room      string
	Name      string // import name
	Result    string // C type of the result
	Params    []Param
	Signature Signature // wasm type
}

// Row parses f's prototype.
func (f Func) Row(room string) (Row, error) {
	p, err := Parse(f.Decl)
	if err != nil {
		return Row{}, fmt.Errorf("abi: room %s: %w", room, err)
	}
	name := p.Name
	if f.Import != "" {
		name = f.Import
	}
	return Row{Func: f, Room: room, Name: name, Result: p.Result, Params: p.Params, Signature: p.Signature()}, nil
}

// Prototype returns the C prototype of the row with ident in place of its name, without a semicolon.
func (r Row) Prototype(ident string) string {
	return Prototype{Name: ident, Result: r.Result, Params: r.Params}.String()
}

// Rooms returns the whole host interface, always in the same order. The caller must not change it.
func Rooms() []Room {
	return []Room{
		roomIO, roomChain, roomState, roomMemory, roomFS, roomWASI, roomDynlink, roomThreads, roomMPI, roomOpenMP,
	}
}

type index struct {
	rows   []Row
	byName map[[2]string]int // (module, name) -> rows
}

// table parses every room once. A row that doesn't parse is a bug in this package, which its tests report by name;
// a panic here is what a broken build of it would meet.
var table = sync.OnceValue(func() index {
	x := index{byName: map[[2]string]int{}}
	for _, room := range Rooms() {
		for _, f := range room.Funcs {
			row, err := f.Row(room.Name)
			if err != nil {
				panic(err)
			}
			x.byName[[2]string{row.Module, row.Name}] = len(x.rows)
			x.rows = append(x.rows, row)
		}
	}
	return x
})

// Rows returns every row in the order of the rooms. The caller must not change it.
func Rows() []Row { return table().rows }

// Lookup returns the row that a guest's import of name from module means.
func Lookup(module, name string) (Row, bool) {
	x := table()
	i, ok := x.byName[[2]string{module, name}]
	if !ok {
		return Row{}, false
	}
	return x.rows[i], true
}

// Nearest returns "module.name" of the row whose name is closest to an import that doesn't exist, for error messages.
// The same name in another module beats a misspelling; among equal misspellings the same module wins.
func Nearest(module, name string) string {
	// Names come from strangers' modules; the distance costs their length.
	const longest = 128
	name = name[:min(len(name), longest)]
	best, bestCost := "", int(^uint(0)>>1)
	for _, row := range table().rows {
		cost := 3 * distance(name, row.Name)
		if row.Module != module {
			cost += 2
		}
		if cost < bestCost {
			best, bestCost = row.Module+"."+row.Name, cost
		}
	}
	return best
}

// distance is Levenshtein's, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}

// each makes one Func of every (prototype, doc) pair: for rooms whose rows share everything else.
func each(common Func, pairs ...[2]string) []Func {
	funcs := make([]Func, len(pairs))
	for i, p := range pairs {
		funcs[i] = common
		funcs[i].Decl, funcs[i].Doc = p[0], p[1]
	}
	return funcs
}
