package prepare

// rewriter writes the code of a module's functions with their interruption points.
type rewriter struct {
	p  *parser
	pl *planner
	d  decoder
	e  emitter

	f       *function
	pair    uint32 // type (i32, i32) -> ()
	counter uint32 // local that holds a charged function's units, or what its entry found
	labels  []label
	depth   uint32 // labels that are open in the output
	loops   []loopPlan
	splits  []split
	before  before
	body    int // of the loop that is to be written once more: where it begins; 0: none
}

// label is a block that is open, with its label's place in the output.
type label struct {
	at    uint32 // labels outside of it
	apart bool   // a loop in the form that keeps its slow path apart
}

// newRewriter numbers what Prepare adds.
func newRewriter(p *parser, pl *planner) *rewriter {
	w := &rewriter{p: p, pl: pl, d: decoder{r: &reader{b: p.r.b}, limit: p.limit, space: &p.space}}
	w.e.fuel = p.fuelGlobal()
	w.e.yield = uint32(p.imported)
	next := uint32(len(p.funcs)) + 1
	for h, used := range p.layout.used {
		if used {
			w.e.helpers[h] = next
			next++
		}
	}
	w.pair = uint32(len(p.types)) + next - uint32(len(p.funcs)) // behind the types of yield and of the helpers
	return w
}

// moved is the index that a function of the module has behind the new import.
func (p *parser) moved(f uint32) uint32 {
	if f < uint32(p.imported) {
		return f
	}
	return f + 1
}

// fuelGlobal is the index of the fuel: behind the module's globals, and those of the references that its code makes.
func (p *parser) fuelGlobal() uint32 { return uint32(len(p.layout.globals) + len(p.layout.refFuncs)) }

// function writes the code of one function: groups of locals, then instructions. It is valid until the next.
func (w *rewriter) function(i uint32) ([]byte, error) {
	f, e := &w.p.layout.bodies[i], &w.e
	e.b = e.b[:0]
	w.f = f
	w.labels, w.depth = append(w.labels[:0], label{}), 1
	w.loops = w.pl.loops[f.firstLoop:]
	w.splits = w.pl.splits[f.splits.from:f.splits.to]
	locals := w.p.enter(&w.d, i)
	w.counter = uint32(w.d.locals)
	if f.charged {
		w.entry(locals)
	} else {
		e.b = append(e.b, w.p.r.b[locals.from:locals.to]...)
	}
	d := &w.d
	copied := int(locals.to) // up to where the input is in the output
	flush := func(to int) {
		e.b = append(e.b, w.p.r.b[copied:to]...)
		copied = to
	}
	for d.next() {
		in := &d.in
		if len(w.splits) > 0 && w.splits[0].at == uint32(in.offset) {
			flush(in.offset)
			w.split(w.splits[0].landing)
			w.splits = w.splits[1:]
		}
		if w.changes(in) {
			flush(in.offset)
			w.instruction(in)
			copied = d.r.pos
		}
		w.before.note(in)
	}
	if d.r.err != nil {
		return nil, d.r.err
	}
	if f.charged {
		flush(d.in.offset)
		w.exit()
	}
	flush(d.in.end)
	return e.b, nil
}

// entry writes the locals, with the counter behind them, and the point at a function's entry. Its slow path lies behind the
// function's code, where it costs the parameters' registers least:
//
//	loop $entry
//	  block $slow
//	    fuel -= amount; br_if $slow (fuel < 0)
//	    …
//	    return
//	  end
//	  slow_entry()
//	  br $entry
//	end
//	unreachable
//
// $entry charges again, and must find more than it takes: MinFuel.
func (w *rewriter) entry(locals span) {
	e := &w.e
	r := reader{b: w.p.r.b, pos: int(locals.from), end: int(locals.to)}
	e.u32(r.u32() + 1)
	e.b = append(e.b, r.take(r.left())...)
	own := byte(1)
	if w.f.bulk {
		own = 2
	}
	e.b = append(e.b, own, 0x7f)
	amount := 1 + w.f.longest/unit + min(w.f.locals/frame, mostFrame)
	if w.f.loops > 0 {
		// Units that no loop uses are lost. A whole chunk would be paid in vain by functions whose loops are short; and one
		// that isn't paid would let them run for nothing.
		amount += w.f.prepaid
	}
	e.op(opLoop, void)
	e.op(opBlock, void)
	w.spend(amount)
	e.op(opBrIf, 0)
	w.depth += 2
	if w.f.loops > 0 {
		e.constant(opI32Const, int64(w.f.prepaid))
		e.op(opLocalSet, w.counter)
	}
}

func (w *rewriter) exit() {
	e := &w.e
	e.op(opReturn)
	e.op(opEnd)
	e.op(opCall, e.helpers[slowEntry])
	e.op(opBr, 0)
	e.op(opEnd)
	e.op(opUnreachable)
}

// spend takes units from the fuel and leaves on the stack whether it has fallen below zero. It keeps what is left in the
// counter, which is quicker than to read the global again.
func (w *rewriter) spend(units uint32) {
	e := &w.e
	e.op(opGlobalGet, e.fuel)
	e.constant(opI32Const, int64(units))
	e.op(opI32Sub)
	e.op(opLocalTee, w.counter)
	e.op(opGlobalSet, e.fuel)
	e.op(opLocalGet, w.counter)
	e.constant(opI32Const, 0)
	e.op(opI32LtS)
}

// count takes units from the counter and leaves on the stack whether it has fallen below zero.
func (w *rewriter) count(units uint32) {
	e := &w.e
	e.op(opLocalGet, w.counter)
	e.constant(opI32Const, int64(units))
	e.op(opI32Sub)
	e.op(opLocalTee, w.counter)
	e.constant(opI32Const, 0)
	e.op(opI32LtS)
}

// inline is a point in the middle of code: it leaves the stack as it is.
func (w *rewriter) inline(units uint32) {
	e := &w.e
	w.count(units)
	e.op(opIf, void)
	e.op(opCall, e.helpers[slowLoop])
	e.constant(opI32Const, int64(units))
	e.op(opI32Sub)
	e.op(opLocalSet, w.counter)
	e.op(opEnd)
}

// split is a point between instructions, or where exceptions land. There the engine gives locals the values that they had
// when the try_table was entered, the counter too: what loops have taken from it since is made up for by a chunk.
func (w *rewriter) split(landing bool) {
	switch {
	case w.f.loops > 0 && landing:
		w.e.op(opCall, w.e.helpers[slowLoop])
		w.e.constant(opI32Const, splitWeight)
		w.e.op(opI32Sub)
		w.e.op(opLocalSet, w.counter)
	case w.f.loops > 0:
		w.inline(splitWeight)
	case w.f.charged:
		w.spend(splitWeight)
		w.e.op(opIf, void)
		w.e.op(opCall, w.e.helpers[slowEntry])
		w.e.op(opEnd)
	default: // a short function, where an exception may land
		w.e.spend(func() { w.e.constant(opI32Const, splitWeight) })
	}
}

// changes reports whether in isn't copied as it is, and follows blocks.
func (w *rewriter) changes(in *instr) bool {
	switch in.op {
	case opBlock, opIf:
		w.open(w.depth, false)
		return false
	case opEnd:
		if w.labels[len(w.labels)-1].apart {
			return true
		}
		w.close()
		return false
	case opLoop, opTryTable, opThrow, opThrowRef,
		opBr, opBrIf, opBrTable, opBrOnNull, opBrOnNonNull,
		opCall, opReturnCall, opRefFunc,
		opMemoryInit, opTableInit, opTableCopy, opTableFill, opTableGrow, opAtomicWait32, opAtomicWait64:
		return true
	case opMemoryFill, opMemoryCopy:
		_, short := w.before.length()
		return !short
	}
	return false
}

func (w *rewriter) open(at uint32, apart bool) {
	w.labels = append(w.labels, label{at, apart})
	w.depth++
}

// close ends the innermost block, as far as it is one label.
func (w *rewriter) close() {
	w.labels = w.labels[:len(w.labels)-1]
	w.depth--
}

// instruction writes what in becomes.
func (w *rewriter) instruction(in *instr) {
	e := &w.e
	switch in.op {
	case opLoop:
		w.loop(in)
	case opEnd:
		w.loopEnd()
	case opTryTable:
		w.tryTable(in)
	case opBr, opBrIf, opBrOnNull, opBrOnNonNull:
		e.op(in.op, w.target(in.x))
	case opBrTable:
		e.op(in.op, uint32(len(in.labels)-1))
		for _, l := range in.labels {
			e.u32(w.target(l))
		}
	case opThrow, opThrowRef:
		w.dear()
		e.b = append(e.b, w.p.r.b[in.offset:in.end]...)
	case opCall, opReturnCall:
		e.op(in.op, w.p.moved(in.x))
	case opRefFunc:
		// The engine makes another object at every ref.func and keeps all of them as long as the instance lives.
		e.op(opGlobalGet, uint32(len(w.p.layout.globals))+w.p.layout.refIndex[in.x])
	case opMemoryFill, opMemoryCopy:
		w.bulk(in)
	case opMemoryInit, opTableInit, opTableCopy, opTableFill, opTableGrow:
		e.op(opCall, e.helpers[charge]) // the length is on top
		e.b = append(e.b, w.p.r.b[in.offset:in.end]...)
	case opAtomicWait32, opAtomicWait64:
		e.constant(opI32Const, int64(int32(in.y)))
		if in.op == opAtomicWait32 {
			e.op(opCall, e.helpers[wait32])
		} else {
			e.op(opCall, e.helpers[wait64])
		}
	}
}

// bulk writes a memory.fill or memory.copy of unknown length: a small one as it is, others by their helper. A function with
// one is charged, and so has locals behind its own.
func (w *rewriter) bulk(in *instr) {
	e, length := &w.e, w.counter+1
	e.op(opLocalSet, length)
	e.op(opLocalGet, length)
	e.constant(opI32Const, smallBulk)
	e.op(opI32LeU)
	e.constant(opIf, int64(w.pair)) // its type takes the two addresses
	e.op(opLocalGet, length)
	e.b = append(e.b, w.p.r.b[in.offset:in.end]...)
	e.op(opElse)
	e.op(opLocalGet, length)
	e.op(opCall, e.helpers[bulkHelper(in.op)])
	e.op(opEnd)
}

// target is a label's number in the output.
func (w *rewriter) target(l uint32) uint32 {
	return w.depth - 1 - w.labels[len(w.labels)-1-int(l)].at
}

// loop writes a loop's head. The usual form keeps the slow path out of the loop, where it costs its registers nothing:
//
//	block $exit
//	  loop $head
//	    block $slow
//	      counter -= weight; br_if $slow (counter < 0)
//	      …
//	      br $exit
//	    end
//	    counter = slow_loop()
//	    br $head
//	  end
//	end
//
// A small loop is written twice, with a block around the first body that its branches to $head end, so that they go on
// with the second.
//
// The head that follows the slow path charges once more, from the new chunk: what was left of the old one is
// lost. A loop with parameters would have to carry them through $slow; its head has the slow path inside.
func (w *rewriter) loop(in *instr) {
	e, b := &w.e, w.p.r.b
	l := w.loops[0]
	w.loops = w.loops[1:]
	if in.block.index >= 0 && len(w.p.types[in.block.index].Params) > 0 {
		e.b = append(e.b, b[in.offset:in.end]...)
		w.open(w.depth, false)
		w.inline(uint32(l.weight))
		return
	}
	kind := b[in.offset+1 : in.end]
	e.b = append(append(e.b, byte(opBlock)), kind...)
	e.b = append(append(e.b, byte(opLoop)), kind...)
	e.op(opBlock, void)
	w.count(uint32(l.weight))
	e.op(opBrIf, 0)
	head := w.depth + 1
	w.depth += 3
	if l.twice {
		w.body = in.end
		e.op(opBlock, void)
		head = w.depth
		w.depth++
	}
	w.labels = append(w.labels, label{head, true})
}

// loopEnd is behind a loop's body, the last or the first of two.
func (w *rewriter) loopEnd() {
	e := &w.e
	if w.body != 0 {
		e.op(opBr, 3)
		e.op(opEnd)
		w.depth--
		w.labels[len(w.labels)-1].at = w.depth - 2
		w.d.r.pos, w.body = w.body, 0
		w.d.open = append(w.d.open, opLoop)
		return
	}
	e.op(opBr, 2)
	e.op(opEnd)
	e.op(opCall, e.helpers[slowLoop])
	e.op(opLocalSet, w.counter)
	e.op(opBr, 0)
	e.op(opEnd)
	e.op(opEnd)
	w.close()
	w.depth -= 2
}

// dear charges for an exception. It leaves the stack as it is.
func (w *rewriter) dear() {
	w.e.constant(opI32Const, exception<<countUnit)
	w.e.op(opCall, w.e.helpers[charge])
	w.e.op(opDrop)
}

func (w *rewriter) tryTable(in *instr) {
	e, b := &w.e, w.p.r.b
	if len(in.catches) > 0 {
		w.dear()
	}
	// The block type is copied: what follows it is the vector of catches.
	r := reader{b: b, pos: in.offset + 1, end: in.end}
	(&decoder{r: &r, space: &w.p.space}).blockType()
	e.b = append(e.b, b[in.offset:r.pos]...)
	e.u32(uint32(len(in.catches)))
	for _, c := range in.catches {
		e.b = append(e.b, c.kind)
		if c.kind < 2 {
			e.u32(c.tag)
		}
		e.u32(w.target(c.label))
	}
	w.open(w.depth, false)
}

// body writes a helper's code.
func (e *emitter) body(h helper) []byte {
	info := &helperInfo[h]
	e.b = append(e.b[:0], info.locals...)
	info.body(e)
	e.op(opEnd)
	return e.b
}
