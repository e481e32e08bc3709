package prepare

// layout is where a module's parts lie, as the parser met them: what rewriting needs and Inspect doesn't tell.
type layout struct {
	sections [len(sections)]span // their contents; a section that isn't there is empty
	dylink   span                // content of the dylink.0 section, its name included
	names    span                // content of the name section behind its name
	refs     []span              // function indices outside of code, in their order
	globals  []global            // imported ones first
	segments []segment
	elements []elements
	fixed    []bool     // tables whose active segments stay in the module
	bodies   []function // of the functions that the module defines
	calls    []uint32   // callees of all direct calls, function by function
	used     [helperCount]bool
	drops    bool              // the code drops data segments
	refFuncs []uint32          // functions that the code makes references of
	refIndex map[uint32]uint32 // their places in refFuncs
	start    uint32            // the start function, if there is one
	entries  uint32            // of the type section, where a group of types counts once
}

// span is bytes of the module.
type span struct{ from, to uint32 }

func (r *reader) span(from int) span { return span{uint32(from), uint32(r.pos)} }

func (s span) empty() bool { return s.from == s.to }

// global is one global variable.
type global struct {
	kind     byte // first byte of its type
	mutable  bool
	imported bool
	value    constant // it begins with
}

// segment is one data segment.
type segment struct {
	active bool
	at     int // of it, in the module
	offset constant
	data   span
}

// elements is one element segment.
type elements struct {
	active bool
	lifted bool // it is not in the prepared module
	at     span // of it, in the module
	table  uint32
	offset constant
	funcs  []uint32 // of an active one
}

// function is one that the module defines: what the parser saw of it, then what the plan makes of it.
type function struct {
	code     span // locals and instructions
	calls    span // in layout.calls
	loops    uint32
	locals   uint32 // that it declares
	bulk     bool   // it fills or copies memory, of lengths that only it knows
	indirect bool   // it calls through tables or references

	state     uint8  // in the planner's walk over the calls
	charged   bool   // its entry is an interruption point
	longest   uint32 // path through it, up to its own interruption points; what it calls counts while that is not charged
	prepaid   uint32 // units that its loops have from its entry: enough for any to begin
	firstLoop uint32 // in planner.loops
	splits    span   // in planner.splits
}
