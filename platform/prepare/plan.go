package prepare

// How interruption points charge. A unit of fuel is worth about sixteen simple instructions; what is charged is always at
// least what runs, and is more on paths that are shorter than the longest.
const (
	unit       = 16   // instructions
	chunk      = 1024 // units that a loop takes from the fuel at a time
	prepaid    = 32   // units at least that a function's loops have from its entry
	short      = 64   // instructions: a function without loops whose paths are no longer needs no point of its own
	stretch    = 1024 // instructions: no path between two points is longer
	frame      = 64   // locals that make a function's entry dearer by a unit: deep recursion touches memory for them
	hostCall   = 64   // instructions that a call of an import counts for, beside its own time
	reference  = 64   // the same for a call that isn't direct: its target may be short
	inlineBulk = 4096 // bytes: a fill or copy of a known length up to this needs no helper
	smallBulk  = 1024 // bytes: up to this, one of unknown length is done without the helper, and counted as if it were as long
	twiceLong  = 48   // instructions: an innermost loop no longer than this is written twice, so that every other round passes its head
	twiceBytes = 128  // the same in bytes
	exception  = 2048 // units of a throw, and of entering a try_table: the engine copies the whole stack there
)

// splitWeight is what a point in the middle of a stretch charges: the longest way to the next one.
const splitWeight = 1 + stretch/unit

// mostFrame keeps what an entry charges below the least allowance, of which it would ask for another without end.
const (
	mostFrame = 1000
	_         = uint(MinFuel - 1 - (1 + stretch/unit + mostFrame + splitWeight))
)

// A loop's weight must stay well below a chunk, or its head would ask for another chunk without end.
const _ = uint(chunk/4 - splitWeight)

// planner decides where interruption points are and what each charges.
//
// Every instruction that runs is paid by a point that ran before it. Points are the head of every loop, the entry of every
// function that isn't short, and splits. A region is what runs between points: a function's body without its loops, or a
// loop's body without the loops in it. A region's point pays for the longest path through the region. Paths end at a split,
// which pays for stretch instructions whatever follows. A loop inside pays for itself, so that its region's path goes on
// behind it as if it were not there.
//
// Every cycle passes a point. What runs without end in one activation passes a loop's head again and again, since there is
// no other way back in a function. What enters functions without end enters, sooner or later, only short ones, if it is to
// avoid their points, by direct calls; among them there is no cycle, since on every cycle of direct calls the walk of plan
// finds one function while it is being visited and takes it out of the short ones; and a call tree of short functions that
// has no cycle is bounded, and paid by the region that it was called from. A tail call is a call here. A thrown exception
// only leaves activations, and lands at a label, where a split follows, or at a loop's head.
type planner struct {
	p      *parser
	d      decoder
	loops  []loopPlan // in the order of their heads, function by function
	splits []split    // in their order

	frames  []block
	regions []region
	live    bool // the next instruction can be reached
	f       *function
	before  before
}

// block is an open block, loop, if, or the function itself.
type block struct {
	op     opcode
	region int    // that it lies in; for a loop its own
	join   uint32 // longest path that branches to its end
	joined bool   // some do
	caught bool   // exceptions do
	from   uint32 // of an if: the path at its head
	reach  bool   // of an if: its head can be reached
}

// split is a point in the middle of code.
type split struct {
	at      uint32 // offset in the module of the instruction that it comes before
	landing bool   // of exceptions
}

type region struct {
	path    uint32 // instructions since its last point
	longest uint32
	loop    int    // in planner.loops; negative for the function
	from    uint32 // offset of its first instruction
	complex bool   // it has a loop, a call or a try_table inside
}

// loopPlan is what the head of a loop charges, for one round or for several.
type loopPlan struct {
	weight uint8
	twice  bool
}

const (
	unvisited = iota
	visiting
	visited
)

// plan visits the functions in an order in which callees come before callers, as far as recursion lets them.
func (p *parser) plan() (*planner, error) {
	pl := &planner{p: p, d: decoder{r: &reader{b: p.r.b}, limit: p.limit, space: &p.space}}
	type visit struct{ f, call uint32 }
	var stack []visit
	bodies := p.layout.bodies
	for root := range bodies {
		if bodies[root].state != unvisited {
			continue
		}
		bodies[root].state = visiting
		stack = append(stack, visit{f: uint32(root)})
		for len(stack) > 0 {
			top := &stack[len(stack)-1]
			f := &bodies[top.f]
			if next := f.calls.from + top.call; next < f.calls.to {
				top.call++
				callee, ok := p.defined(p.layout.calls[next])
				if !ok {
					continue
				}
				switch g := &bodies[callee]; g.state {
				case visiting: // on this path: a cycle of direct calls goes through it
					g.charged = true
				case unvisited:
					g.state = visiting
					stack = append(stack, visit{f: callee})
				}
				continue
			}
			if err := pl.function(top.f); err != nil {
				return nil, err
			}
			f.state = visited
			stack = stack[:len(stack)-1]
		}
	}
	return pl, nil
}

// defined gives a function's index among those that the module defines.
func (p *parser) defined(f uint32) (uint32, bool) {
	if f < uint32(p.imported) {
		return 0, false
	}
	return f - uint32(p.imported), true
}

// function finds the weights of one function.
func (pl *planner) function(i uint32) error {
	p, d := pl.p, &pl.d
	f := &p.layout.bodies[i]
	pl.f = f
	f.firstLoop = uint32(len(pl.loops))
	splits := len(pl.splits)
	pl.frames = append(pl.frames[:0], block{op: opBlock})
	pl.regions = append(pl.regions[:0], region{loop: -1})
	pl.live = true
	f.prepaid = prepaid
	p.enter(d, i)
	for d.next() {
		pl.step(&d.in)
		pl.before.note(&d.in)
	}
	if d.r.err != nil {
		return d.r.err
	}
	f.splits = span{uint32(splits), uint32(len(pl.splits))}
	f.charged = f.charged || f.loops > 0 || f.indirect || f.bulk || f.longest > short
	return nil
}

// enter puts d at the first instruction of function i, which the parser has checked, and returns where its locals are.
func (p *parser) enter(d *decoder, i uint32) span {
	f := &p.layout.bodies[i]
	r := d.r
	r.pos, r.end = int(f.code.from), int(f.code.to)
	for groups := r.u32(); groups > 0; groups-- {
		r.u32()
		valueType(r, len(p.types))
	}
	d.start(len(p.types[p.funcs[p.imported+int(i)]].Params) + int(f.locals))
	return r.span(int(f.code.from))
}

func (pl *planner) step(in *instr) {
	if pl.live {
		pl.pass(in)
	}
	switch in.op {
	case opBlock, opIf:
		pl.open(in.op)
	case opTryTable:
		for _, c := range in.catches { // their labels don't count the try_table itself
			pl.frames[len(pl.frames)-1-int(c.label)].caught = true
		}
		pl.here().complex = true
		pl.open(in.op)
	case opCall, opCallIndirect, opCallRef:
		pl.here().complex = true
	case opLoop:
		pl.here().complex = true
		pl.regions = append(pl.regions, region{loop: len(pl.loops), from: uint32(in.end)})
		pl.loops = append(pl.loops, loopPlan{})
		pl.open(in.op)
	case opElse:
		f := &pl.frames[len(pl.frames)-1]
		pl.join(f)
		f.op = opElse
		pl.live = f.reach
		pl.here().path = f.from
	case opEnd:
		pl.end(in)
	case opBr:
		pl.branch(in.x)
		pl.live = false
	case opBrIf, opBrOnNull, opBrOnNonNull:
		pl.branch(in.x)
	case opBrTable:
		for _, label := range in.labels {
			pl.branch(label)
		}
		pl.live = false
	case opMemoryFill, opMemoryCopy:
		if _, known := pl.before.length(); !known {
			pl.f.bulk = true
			pl.p.layout.used[bulkHelper(in.op)] = true
		}
	case opUnreachable, opReturn, opReturnCall, opReturnCallInd, opReturnCallRef, opThrow, opThrowRef:
		pl.live = false
	}
}

func (pl *planner) here() *region { return &pl.regions[len(pl.regions)-1] }

func (pl *planner) open(op opcode) {
	pl.frames = append(pl.frames, block{op: op, region: len(pl.regions) - 1, from: pl.here().path, reach: pl.live})
}

// pass lengthens the path by an instruction.
func (pl *planner) pass(in *instr) {
	cost := pl.cost(in)
	r := pl.here()
	if r.path+cost > stretch {
		pl.splits = append(pl.splits, split{at: uint32(in.offset)})
		r.path = 0
	}
	r.path += cost
	r.longest = max(r.longest, r.path)
}

// branch lengthens the longest path to a label. Back to a loop's head there is nothing to do: the head is a point.
func (pl *planner) branch(label uint32) {
	f := &pl.frames[len(pl.frames)-1-int(label)]
	if !pl.live || f.op == opLoop {
		return
	}
	f.join = max(f.join, pl.regions[f.region].path)
	f.joined = true
}

// join is a branch from before the end of f, or from before its else.
func (pl *planner) join(f *block) {
	if pl.live {
		f.join = max(f.join, pl.here().path)
		f.joined = true
	}
}

func (pl *planner) end(in *instr) {
	last := len(pl.frames) - 1
	f := &pl.frames[last]
	pl.frames = pl.frames[:last]
	if f.op == opLoop {
		r := pl.here()
		l := loopPlan{uint8(1 + r.longest/unit), !r.complex && r.longest <= twiceLong && uint32(in.offset)-r.from <= twiceBytes}
		if l.twice {
			l.weight *= 2
		}
		pl.loops[r.loop] = l
		pl.f.prepaid = max(pl.f.prepaid, uint32(l.weight))
		pl.regions = pl.regions[:len(pl.regions)-1]
		return // the path of the region around goes on
	}
	pl.join(f)
	if f.op == opIf && f.reach { // no else: the way past it
		f.join = max(f.join, f.from)
		f.joined = true
	}
	r := pl.here()
	switch {
	case last == 0:
		pl.f.longest = r.longest
	case f.caught:
		// Exceptions land here from anywhere in their block, at whatever length of path.
		pl.splits = append(pl.splits, split{uint32(in.end), true})
		r.path, pl.live = 0, true
	default:
		r.path, pl.live = f.join, f.joined
	}
}

// cost is what an instruction adds to a path.
func (pl *planner) cost(in *instr) uint32 {
	switch op := in.op; {
	case op == opBlock, op == opLoop, op == opElse, op == opEnd:
		return 0
	case op == opCall || op == opReturnCall:
		return 4 + pl.callee(in.x)
	case op == opCallIndirect, op == opReturnCallInd, op == opCallRef, op == opReturnCallRef:
		return 8 + reference
	case op == opMemoryGrow, op == opTableGrow: // they leave for Go
		return 64
	case op >= 0x6d && op <= 0x70, op >= 0x7f && op <= 0x82, op == 0x91, op == 0x95, op == 0x9f, op == 0xa3:
		return 8 // division, remainder, square root
	case op == opMemoryFill || op == opMemoryCopy:
		if n, ok := pl.before.length(); ok {
			return 8 + n/16
		}
		return 8 + smallBulk/16
	case op >= opMemoryInit && op <= opTableFill:
		return 16
	case op>>8 == prefixVector:
		return 2
	case op>>8 == prefixAtomic:
		return 16
	}
	return 1
}

func (pl *planner) callee(f uint32) uint32 {
	i, ok := pl.p.defined(f)
	if !ok {
		return hostCall
	}
	if g := &pl.p.layout.bodies[i]; !g.charged {
		return g.longest
	}
	return 0
}

// before is the instruction before one, if it was an i32.const, and so what is on top of the stack.
type before struct {
	constant bool
	value    uint32
}

func (b *before) note(in *instr) { b.constant, b.value = in.op == opI32Const, uint32(in.value) }

// length is that of a memory.fill or memory.copy which is short enough to need no helper.
func (b *before) length() (uint32, bool) { return b.value, b.constant && b.value <= inlineBulk }
