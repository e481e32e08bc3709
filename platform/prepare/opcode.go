package prepare

// opcode is an instruction's code; those with a prefix byte are prefix<<8 | code, such as 0xfc0a for memory.copy.
type opcode uint16

// The instructions that this package treats one by one; opTable knows the rest by shape alone.
const (
	opBlock         opcode = 0x02
	opLoop          opcode = 0x03
	opIf            opcode = 0x04
	opElse          opcode = 0x05
	opUnreachable   opcode = 0x00
	opThrow         opcode = 0x08
	opThrowRef      opcode = 0x0a
	opEnd           opcode = 0x0b
	opBr            opcode = 0x0c
	opBrIf          opcode = 0x0d
	opBrTable       opcode = 0x0e
	opReturn        opcode = 0x0f
	opCall          opcode = 0x10
	opCallIndirect  opcode = 0x11
	opReturnCall    opcode = 0x12
	opReturnCallInd opcode = 0x13
	opCallRef       opcode = 0x14
	opReturnCallRef opcode = 0x15
	opTryTable      opcode = 0x1f
	opLocalGet      opcode = 0x20
	opLocalSet      opcode = 0x21
	opLocalTee      opcode = 0x22
	opGlobalGet     opcode = 0x23
	opGlobalSet     opcode = 0x24
	opTableSet      opcode = 0x26
	opMemorySize    opcode = 0x3f
	opMemoryGrow    opcode = 0x40
	opI32Const      opcode = 0x41
	opI64Const      opcode = 0x42
	opF32Const      opcode = 0x43
	opF64Const      opcode = 0x44
	opI32Add        opcode = 0x6a
	opI32Sub        opcode = 0x6b
	opI32Mul        opcode = 0x6c
	opI64Add        opcode = 0x7c
	opI64Mul        opcode = 0x7e
	opRefNull       opcode = 0xd0
	opRefFunc       opcode = 0xd2
	opRefAsNonNull  opcode = 0xd4
	opBrOnNull      opcode = 0xd5
	opBrOnNonNull   opcode = 0xd6
	opMemoryInit    opcode = 0xfc08
	opDataDrop      opcode = 0xfc09
	opMemoryCopy    opcode = 0xfc0a
	opMemoryFill    opcode = 0xfc0b
	opTableInit     opcode = 0xfc0c
	opElemDrop      opcode = 0xfc0d
	opTableCopy     opcode = 0xfc0e
	opTableGrow     opcode = 0xfc0f
	opTableFill     opcode = 0xfc11
	opV128Const     opcode = 0xfd0c
	opAtomicNotify  opcode = 0xfe00
	opAtomicWait32  opcode = 0xfe01
	opAtomicWait64  opcode = 0xfe02

	prefixMisc   = 0xfc
	prefixVector = 0xfd
	prefixAtomic = 0xfe
)

// shape says which immediates follow an opcode.
type shape uint8

const (
	shapeUnknown   shape = iota // no instruction
	shapeLegacy                 // of the first exception proposal, which engines drop
	shapeNone                   // no immediate
	shapeBlock                  // block type
	shapeLabel                  // label
	shapeLabels                 // vector of labels, default label
	shapeTry                    // block type, vector of catches
	shapeFunc                   // function
	shapeType                   // type
	shapeIndirect               // type, table
	shapeLocal                  // local
	shapeGlobal                 // global
	shapeTable                  // table
	shapeTables                 // table, table
	shapeTag                    // tag
	shapeElem                   // element segment
	shapeElemTable              // element segment, table
	shapeData                   // data segment
	shapeDataMem                // data segment, memory
	shapeMem                    // memory
	shapeMems                   // memory, memory
	shapeMemArg                 // alignment, offset
	shapeMemLane                // alignment, offset, lane
	shapeLane                   // lane
	shapeSelect                 // vector of one type
	shapeHeap                   // heap type
	shapeI32
	shapeI64
	shapeBytes // a fixed number of bytes
	shapeFence // a zero byte
)

// opInfo is what the decoder must know of an instruction.
type opInfo struct {
	shape shape
	align uint8 // log2 of the natural alignment, for shapeMemArg and shapeMemLane
	size  uint8 // lanes for shapeLane and shapeMemLane; bytes for shapeBytes
}

// opTable holds the instructions by prefix: none, 0xfc, 0xfd, 0xfe. It is what wazero v1.12 decodes.
type opTable struct{ plain, misc, vector, atomic [256]opInfo }

var ops = newOpTable()

func newOpTable() *opTable {
	t := &opTable{}
	t.fillPlain()
	t.fillMisc()
	t.fillVector()
	t.fillAtomic()
	return t
}

func set(t *[256]opInfo, info opInfo, from, to int) {
	for i := from; i <= to; i++ {
		t[i] = info
	}
}

// aligned sets memory accesses from code on, one per alignment.
func aligned(t *[256]opInfo, s shape, from int, aligns ...uint8) {
	for i, a := range aligns {
		t[from+i] = opInfo{shape: s, align: a}
	}
}

func (t *opTable) fillPlain() {
	p := &t.plain
	none := opInfo{shape: shapeNone}
	set(p, none, 0x00, 0x01)
	set(p, opInfo{shape: shapeBlock}, 0x02, 0x04)
	p[0x05] = none
	set(p, opInfo{shape: shapeLegacy}, 0x06, 0x07) // try, catch
	p[0x08] = opInfo{shape: shapeTag}
	p[0x09] = opInfo{shape: shapeLegacy} // rethrow
	set(p, none, 0x0a, 0x0b)
	set(p, opInfo{shape: shapeLabel}, 0x0c, 0x0d)
	p[0x0e] = opInfo{shape: shapeLabels}
	p[0x0f] = none
	p[0x10], p[0x11] = opInfo{shape: shapeFunc}, opInfo{shape: shapeIndirect}
	p[0x12], p[0x13] = opInfo{shape: shapeFunc}, opInfo{shape: shapeIndirect}
	set(p, opInfo{shape: shapeType}, 0x14, 0x15)
	set(p, opInfo{shape: shapeLegacy}, 0x18, 0x19) // delegate, catch_all
	set(p, none, 0x1a, 0x1b)
	p[0x1c] = opInfo{shape: shapeSelect}
	p[0x1f] = opInfo{shape: shapeTry}
	set(p, opInfo{shape: shapeLocal}, 0x20, 0x22)
	set(p, opInfo{shape: shapeGlobal}, 0x23, 0x24)
	set(p, opInfo{shape: shapeTable}, 0x25, 0x26)
	aligned(p, shapeMemArg, 0x28, 2, 3, 2, 3, 0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 2, 3, 2, 3, 0, 1, 0, 1, 2)
	set(p, opInfo{shape: shapeMem}, 0x3f, 0x40)
	p[0x41], p[0x42] = opInfo{shape: shapeI32}, opInfo{shape: shapeI64}
	p[0x43], p[0x44] = opInfo{shape: shapeBytes, size: 4}, opInfo{shape: shapeBytes, size: 8}
	set(p, none, 0x45, 0xc4)
	p[0xd0] = opInfo{shape: shapeHeap}
	p[0xd1] = none
	p[0xd2] = opInfo{shape: shapeFunc}
	p[0xd4] = none
	set(p, opInfo{shape: shapeLabel}, 0xd5, 0xd6)
}

func (t *opTable) fillMisc() {
	m := &t.misc
	set(m, opInfo{shape: shapeNone}, 0x00, 0x07) // saturating conversions
	m[0x08], m[0x09] = opInfo{shape: shapeDataMem}, opInfo{shape: shapeData}
	m[0x0a], m[0x0b] = opInfo{shape: shapeMems}, opInfo{shape: shapeMem}
	m[0x0c], m[0x0d] = opInfo{shape: shapeElemTable}, opInfo{shape: shapeElem}
	m[0x0e] = opInfo{shape: shapeTables}
	set(m, opInfo{shape: shapeTable}, 0x0f, 0x11)
}

func (t *opTable) fillVector() {
	v := &t.vector
	set(v, opInfo{shape: shapeNone}, 0x00, 0xff)
	aligned(v, shapeMemArg, 0x00, 4, 3, 3, 3, 3, 3, 3, 0, 1, 2, 3, 4)
	set(v, opInfo{shape: shapeBytes, size: 16}, 0x0c, 0x0d) // v128.const, i8x16.shuffle
	for i, lanes := range []uint8{16, 16, 16, 8, 8, 8, 4, 4, 2, 2, 4, 4, 2, 2} {
		v[0x15+i] = opInfo{shape: shapeLane, size: lanes}
	}
	for i := range 4 { // loads and stores of one lane
		v[0x54+i] = opInfo{shape: shapeMemLane, align: uint8(i), size: 16 >> i}
		v[0x58+i] = v[0x54+i]
	}
	aligned(v, shapeMemArg, 0x5c, 2, 3)
	for _, hole := range []int{
		0x9a, 0xa2, 0xa5, 0xa6, 0xaf, 0xb0, 0xb2, 0xb3, 0xb4, 0xbb, 0xc2, 0xc5, 0xc6, 0xcf, 0xd0, 0xd2, 0xd3, 0xd4, 0xe2, 0xee,
	} {
		v[hole] = opInfo{}
	}
}

func (t *opTable) fillAtomic() {
	a := &t.atomic
	aligned(a, shapeMemArg, 0x00, 2, 2, 3)
	a[0x03] = opInfo{shape: shapeFence}
	aligned(a, shapeMemArg, 0x10, 2, 3, 0, 1, 0, 1, 2)
	for group := range 8 { // store, add, sub, and, or, xor, xchg, cmpxchg
		aligned(a, shapeMemArg, 0x17+7*group, 2, 3, 0, 1, 0, 1, 2)
	}
}
