package prepare

import "encoding/binary"

// helper is a function that Prepare adds to the module, behind its own.
type helper uint8

const (
	slowLoop  helper = iota // () -> i32: another chunk for a loop
	slowEntry               // (): another allowance, the fuel being used up
	charge                  // (n i32) -> n: charges an operation on n elements or bytes that comes next
	fill                    // (d, value, n i32): memory.fill in pieces
	copying                 // (d, s, n i32): memory.copy in pieces
	wait32                  // (address, expected i32, timeout i64, offset i32) -> i32: memory.atomic.wait32 in pieces
	wait64                  // (address i32, expected, timeout i64, offset i32) -> i32
	helperCount
)

const (
	piece     = 256 << 10  // bytes that a fill or copy does at a time
	pieceUnit = 6          // log2 of the bytes of a fill or copy that a unit pays
	countUnit = 3          // log2 of the elements that a unit pays, or bytes of memory.init
	nap       = 10_000_000 // ns of an atomic wait between two looks at the host
)

var helperInfo = [helperCount]struct {
	name   string
	kind   []byte // its type as the type section has it
	locals []byte // as its code has them
	body   func(*emitter)
}{
	slowLoop:  {"slow_loop", []byte{0x60, 0, 1, 0x7f}, []byte{0}, (*emitter).slowLoop},
	slowEntry: {"slow_entry", []byte{0x60, 0, 0}, []byte{0}, (*emitter).slowEntry},
	charge:    {"charge", []byte{0x60, 1, 0x7f, 1, 0x7f}, []byte{0}, (*emitter).charge},
	fill:      {"memory.fill", []byte{0x60, 3, 0x7f, 0x7f, 0x7f, 0}, []byte{0}, (*emitter).fill},
	copying:   {"memory.copy", []byte{0x60, 3, 0x7f, 0x7f, 0x7f, 0}, []byte{0}, (*emitter).copying},
	wait32:    {"memory.atomic.wait32", []byte{0x60, 4, 0x7f, 0x7f, 0x7e, 0x7f, 1, 0x7f}, []byte{2, 1, 0x7e, 1, 0x7f}, func(e *emitter) { e.wait(opAtomicWait32, 2) }},
	wait64:    {"memory.atomic.wait64", []byte{0x60, 4, 0x7f, 0x7e, 0x7e, 0x7f, 1, 0x7f}, []byte{2, 1, 0x7e, 1, 0x7f}, func(e *emitter) { e.wait(opAtomicWait64, 3) }},
}

// note records what a function's instructions need.
func (l *layout) note(in *instr, f *function) {
	switch in.op {
	case opLoop:
		f.loops++
	case opCall, opReturnCall:
		l.calls = append(l.calls, in.x)
	case opCallIndirect, opReturnCallInd, opCallRef, opReturnCallRef:
		f.indirect = true
	case opDataDrop:
		l.drops = true
	case opMemoryInit, opTableInit, opTableCopy, opTableFill, opTableGrow, opThrow, opThrowRef, opTryTable:
		l.used[charge] = true
	case opRefFunc:
		if _, known := l.refIndex[in.x]; !known {
			if l.refIndex == nil {
				l.refIndex = map[uint32]uint32{}
			}
			l.refIndex[in.x] = uint32(len(l.refFuncs))
			l.refFuncs = append(l.refFuncs, in.x)
		}
	case opAtomicWait32:
		l.used[wait32] = true
	case opAtomicWait64:
		l.used[wait64] = true
	}
}

func bulkHelper(op opcode) helper {
	if op == opMemoryFill {
		return fill
	}
	return copying
}

// Instructions that only emitted code needs a name for.
const (
	opDrop       opcode = 0x1a
	opSelect     opcode = 0x1b
	opI32Ne      opcode = 0x47
	opI32LtS     opcode = 0x48
	opI32LtU     opcode = 0x49
	opI32GtU     opcode = 0x4b
	opI32LeU     opcode = 0x4d
	opI64Eqz     opcode = 0x50
	opI64LtU     opcode = 0x54
	opI64GtU     opcode = 0x56
	opI64GeS     opcode = 0x59
	opI32ShrU    opcode = 0x76
	opI64Sub     opcode = 0x7d
	opI64Shl     opcode = 0x86
	opI64ExtendU opcode = 0xad
)

const void = 0x40 // block type

// emitter writes instructions.
type emitter struct {
	b       []byte
	fuel    uint32 // the global
	yield   uint32 // the import
	helpers [helperCount]uint32
}

func (e *emitter) u32(v uint32) { e.b = binary.AppendUvarint(e.b, uint64(v)) }

// op writes an instruction and its unsigned immediates.
func (e *emitter) op(op opcode, immediates ...uint32) {
	if op > 0xff {
		e.b = append(e.b, byte(op>>8))
		e.u32(uint32(op & 0xff))
	} else {
		e.b = append(e.b, byte(op))
	}
	for _, v := range immediates {
		e.u32(v)
	}
}

// constant writes i32.const or i64.const.
func (e *emitter) constant(op opcode, v int64) {
	e.op(op)
	e.b = signed(e.b, v)
}

// signed appends LEB128.
func signed(b []byte, v int64) []byte {
	for ; v < -64 || v >= 64; v >>= 7 {
		b = append(b, byte(v)&0x7f|0x80)
	}
	return append(b, byte(v)&0x7f)
}

// spend takes what amount leaves on the stack from the fuel, and yields if none is left.
func (e *emitter) spend(amount func()) {
	e.op(opGlobalGet, e.fuel)
	amount()
	e.op(opI32Sub)
	e.op(opGlobalSet, e.fuel)
	e.op(opGlobalGet, e.fuel)
	e.constant(opI32Const, 0)
	e.op(opI32LtS)
	e.op(opIf, void)
	e.slowEntry()
	e.op(opEnd)
}

func (e *emitter) slowEntry() {
	e.op(opCall, e.yield)
	e.op(opGlobalSet, e.fuel)
}

func (e *emitter) slowLoop() {
	e.spend(func() { e.constant(opI32Const, chunk) })
	e.constant(opI32Const, chunk)
}

func (e *emitter) charge() {
	e.spend(func() { e.shifted(0, countUnit) })
	e.op(opLocalGet, 0)
}

// shifted is a local's value in units.
func (e *emitter) shifted(local uint32, by int64) {
	e.op(opLocalGet, local)
	e.constant(opI32Const, by)
	e.op(opI32ShrU)
}

// Parameters of fill and copying: n is the length, and they are the addresses of what is written and what is read.
const (
	target = 0
	source = 1
	length = 2
)

// bulk writes one memory.fill or memory.copy, whose operands are given, and its charge.
func (e *emitter) bulk(op opcode, operands func(), n func()) {
	e.spend(func() {
		n()
		e.constant(opI32Const, pieceUnit)
		e.op(opI32ShrU)
	})
	operands()
	n()
	if op == opMemoryFill {
		e.op(op, 0)
	} else {
		e.op(op, 0, 0)
	}
}

func (e *emitter) whole() { e.op(opLocalGet, length) }
func (e *emitter) piece() { e.constant(opI32Const, piece) }

// operands are the two before the length.
func (e *emitter) operands() {
	e.op(opLocalGet, target)
	e.op(opLocalGet, source)
}

// small does what is no longer than a piece, and returns.
func (e *emitter) small(op opcode) {
	e.whole()
	e.piece()
	e.op(opI32LeU)
	e.op(opIf, void)
	e.bulk(op, e.operands, e.whole)
	e.op(opReturn)
	e.op(opEnd)
}

// outside traps if the range from address on isn't all inside the memory: before anything is written, as the instruction
// does in one piece.
func (e *emitter) outside(op opcode, address uint32) {
	e.op(opLocalGet, address)
	e.op(opI64ExtendU)
	e.op(opLocalGet, length)
	e.op(opI64ExtendU)
	e.op(opI64Add)
	e.op(opMemorySize, 0)
	e.op(opI64ExtendU)
	e.constant(opI64Const, 16)
	e.op(opI64Shl)
	e.op(opI64GtU)
	e.op(opIf, void)
	e.bulk(op, e.operands, e.whole)
	e.op(opReturn)
	e.op(opEnd)
}

// step adds or subtracts a piece.
func (e *emitter) step(op opcode, local uint32) {
	e.op(opLocalGet, local)
	e.piece()
	e.op(op)
	e.op(opLocalSet, local)
}

// more repeats the loop while more than a piece remains.
func (e *emitter) more() {
	e.whole()
	e.piece()
	e.op(opI32GtU)
	e.op(opBrIf, 0)
	e.op(opEnd)
}

func (e *emitter) fill() {
	e.small(opMemoryFill)
	e.outside(opMemoryFill, target)
	e.op(opLoop, void)
	e.bulk(opMemoryFill, e.operands, e.piece)
	e.step(opI32Add, target)
	e.step(opI32Sub, length)
	e.more()
	e.bulk(opMemoryFill, e.operands, e.whole)
}

func (e *emitter) copying() {
	e.small(opMemoryCopy)
	e.outside(opMemoryCopy, target)
	e.outside(opMemoryCopy, source)
	e.operands()
	e.op(opI32LeU)
	e.op(opIf, void)
	e.op(opLoop, void)
	e.bulk(opMemoryCopy, e.operands, e.piece)
	e.step(opI32Add, target)
	e.step(opI32Add, source)
	e.step(opI32Sub, length)
	e.more()
	e.op(opElse)
	// The target lies behind the source and may overlap it: the last piece goes first.
	e.op(opLoop, void)
	e.step(opI32Sub, length)
	e.bulk(opMemoryCopy, func() {
		for _, address := range []uint32{target, source} {
			e.op(opLocalGet, address)
			e.whole()
			e.op(opI32Add)
		}
	}, e.piece)
	e.more()
	e.op(opEnd)
	e.bulk(opMemoryCopy, e.operands, e.whole)
}

// wait is an atomic wait that looks at the host between naps. A value that changed between two of them ends it as if it
// had been another one from the start: who waits looks at the value again after either.
func (e *emitter) wait(op opcode, align uint32) {
	const address, expected, timeout, offset, slept, result = 0, 1, 2, 3, 4, 5
	e.op(opLocalGet, address)
	e.op(opLocalGet, offset)
	e.op(opI32Add)
	e.op(opLocalTee, address)
	e.op(opLocalGet, offset)
	e.op(opI32LtU)
	e.op(opIf, void) // beyond 4 GiB: to where no memory reaches, to trap there
	e.constant(opI32Const, -8)
	e.op(opLocalSet, address)
	e.op(opEnd)
	e.op(opLoop, void)
	// A negative timeout, for ever, is large as an unsigned one.
	e.op(opLocalGet, timeout)
	e.constant(opI64Const, nap)
	e.op(opLocalGet, timeout)
	e.constant(opI64Const, nap)
	e.op(opI64LtU)
	e.op(opSelect)
	e.op(opLocalSet, slept)
	e.op(opLocalGet, address)
	e.op(opLocalGet, expected)
	e.op(opLocalGet, slept)
	e.op(op, align, 0)
	e.op(opLocalTee, result)
	e.constant(opI32Const, 2) // it timed out
	e.op(opI32Ne)
	e.op(opIf, void)
	e.op(opLocalGet, result)
	e.op(opReturn)
	e.op(opEnd)
	e.op(opLocalGet, timeout)
	e.constant(opI64Const, 0)
	e.op(opI64GeS)
	e.op(opIf, void)
	e.op(opLocalGet, timeout)
	e.op(opLocalGet, slept)
	e.op(opI64Sub)
	e.op(opLocalTee, timeout)
	e.op(opI64Eqz)
	e.op(opIf, void)
	e.constant(opI32Const, 2)
	e.op(opReturn)
	e.op(opEnd)
	e.op(opEnd)
	e.slowEntry()
	e.op(opBr, 0)
	e.op(opEnd)
	e.op(opUnreachable)
}
