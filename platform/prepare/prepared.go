package prepare

// Version names what Prepare makes of a module. It changes whenever the same bytes are prepared otherwise, so that what
// was compiled from an older form is not taken for the newer.
const Version = 3

// The names under which a prepared module shows what the machine needs of it. Guests can't have names like these: Prepare
// refuses a module that exports or imports one.
const (
	Reserved   = "skein:"       // how all of them begin
	StartName  = "skein:start"  // export: the start function, if there was a start section; the machine calls it once, before all else
	FuelName   = "skein:fuel"   // export: the i32 global that interruption points charge; the machine sets it before a call
	YieldName  = "yield"        // import: () -> i32, called when fuel is used up; it returns the next allowance, of at least MinFuel
	YieldFrom  = "skein:fuel"   // the import's module
	GlobalName = "skein:global" // export: prefix of a mutable global's index among those that the module defines: skein:global0
)

// Bounds of what yield returns. Below, a guest would spend its time in yielding; above, one that was cheap so far and turns
// to what is dear runs too long between two yields. A unit is up to sixteen instructions.
const (
	MinFuel = 2_000
	MaxFuel = 64_000
)

// Prepared is a module as the machine compiles and runs it: nothing happens at its instantiation. What its data segments
// and its start section would have done is left to the machine.
type Prepared struct {
	Module Module // of the bytes as they were uploaded
	Wasm   []byte // what is compiled

	// Image is what the active data segments put into the memory, in their order: later ones may overwrite earlier ones. All
	// lie inside the memory's minimum. Wasm has none of them.
	Image []Segment
	// Elements are what the active element segments put into tables that the module defines, in their order, as Image is for
	// the memory. All lie inside their table's minimum, and Wasm has none of them. A table has all of its active segments
	// here or all in Wasm, where those stay that the machine can't do in the engine's stead.
	Elements []ElementSegment
	// Globals are the mutable globals that the module defines and that hold numbers, as Wasm exports them. The one of fuel is
	// not among them.
	Globals []Global
	// MaxPages is the largest memory that the module declares it wants, in pages of 64 KiB; 65,536 if it doesn't say.
	MaxPages uint32
	// Deep is set for a module that has state which memory and Globals don't show: its code can change tables or drop
	// segments, or it has mutable globals of v128 or references. An instance of it serves one call.
	Deep bool
}

// Segment is data at its place in memory.
type Segment struct {
	Offset uint32
	Data   []byte
}

// ElementSegment is functions at their place in a table of functions.
type ElementSegment struct {
	Table  uint32 // in the index space of tables
	Offset uint32
	Funcs  []uint32 // in the index space that Wasm has for functions; NoFunc for null
}

// NoFunc is the null of ElementSegment.Funcs.
const NoFunc = 1<<32 - 1

// Global is an export of Prepared.Wasm.
type Global struct {
	Name string
	Type byte // abi.I32, I64, F32 or F64
}
