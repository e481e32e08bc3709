package prepare

import "encoding/binary"

// instr is one instruction with its immediates. Slices are valid until the next one is read.
type instr struct {
	op     opcode
	offset int // of its first byte, in the module
	end    int // of the byte after its last

	// What of these is set follows from the opcode's shape.
	block blockType
	x     uint32 // first index; label; lane; alignment
	y     uint32 // second index; offset
	value uint64 // bits of i32, i64, f32 and f64 constants
	bytes []byte // v128.const, i8x16.shuffle
	// labels are a br_table's, the default last.
	labels  []uint32
	catches []catch
}

// catch is one clause of a try_table.
type catch struct {
	kind  byte   // 0 catch, 1 catch_ref, 2 catch_all, 3 catch_all_ref
	tag   uint32 // of the first two kinds
	label uint32
}

// blockType is what a block takes and leaves: a type's index, or no parameter and at most one result.
type blockType struct {
	index  int32 // of the type; negative: none
	result byte  // the first byte of the result's type if index is negative; 0 for no result
}

// space is what instructions may refer to: how many there are of everything.
type space struct {
	types, funcs, tables, globals, tags, elems int
	memory                                     bool
	data                                       int // as the data count section says; negative without one
}

// decoder walks the instructions of one expression: a function's body, or the value of a global or an offset.
//
//	for d.next() {
//		switch d.in.op { … }
//	}
//	if d.r.err != nil { … }
//
// It checks what can be told without types: immediates, indices, and how blocks nest. It doesn't follow them by
// recursion, and keeps two bytes for each that is open.
type decoder struct {
	r     *reader
	limit *Limits
	space *space
	in    instr

	open   []opcode // blocks around the next instruction; the first is the expression itself
	locals int
	done   bool // the final end was read
}

// start begins an expression at the reader's position, for a function of so many parameters and locals.
func (d *decoder) start(locals int) {
	d.open = append(d.open[:0], opBlock)
	d.locals = locals
	d.done = false
}

// depth is the number of blocks that the instruction is in, itself not counted.
func (d *decoder) depth() int { return len(d.open) - 1 }

// next reads one instruction. It returns false behind the expression's last end, and after an error.
func (d *decoder) next() bool {
	r := d.r
	if d.done || r.err != nil {
		return false
	}
	in := &d.in
	in.offset = r.pos
	code := r.byte()
	in.op = opcode(code)
	info := ops.plain[code]
	if code >= prefixMisc {
		info = d.prefixed(code)
	}
	d.immediates(info)
	d.nest()
	in.end = r.pos
	return r.err == nil
}

// prefixed reads the rest of an opcode.
func (d *decoder) prefixed(prefix byte) opInfo {
	r, at := d.r, d.in.offset
	start := r.pos
	code := r.u32()
	if code > 0xff {
		if prefix == prefixVector && code < 0x200 {
			r.fail(bad(at, "relaxed SIMD instruction 0xfd %#x is not supported", code).
				WithHint("build without relaxed SIMD: -mno-relaxed-simd for clang, -C target-feature=-relaxed-simd for rustc"))
		} else {
			r.fail(bad(at, "unknown instruction %#x %#x", prefix, code))
		}
		return opInfo{}
	}
	d.in.op = opcode(prefix)<<8 | opcode(code)
	switch prefix {
	case prefixMisc:
		return ops.misc[code]
	case prefixVector, prefixAtomic:
		// An engine that takes these codes for one byte, as wazero does, must not find another instruction in a longer form.
		if n := r.pos - start; code < 0x80 && n != 1 || n > 2 {
			r.fail(bad(at, "the code of instruction %#x %#x is longer than it need be", prefix, code))
		}
		if prefix == prefixVector {
			return ops.vector[code]
		}
		return ops.atomic[code]
	}
	return opInfo{}
}

func (d *decoder) immediates(info opInfo) {
	in, r, sp := &d.in, d.r, d.space
	switch info.shape {
	case shapeNone:
	case shapeBlock:
		in.block = d.blockType()
	case shapeLabel:
		in.x = r.index(len(d.open), "label")
	case shapeLabels:
		d.readLabels()
	case shapeTry:
		in.block = d.blockType()
		d.readCatches()
	case shapeFunc:
		in.x = r.index(sp.funcs, "function")
	case shapeType:
		in.x = r.index(sp.types, "type")
	case shapeIndirect:
		in.x = r.index(sp.types, "type")
		in.y = r.index(sp.tables, "table")
	case shapeLocal:
		in.x = r.index(d.locals, "local")
	case shapeGlobal:
		in.x = r.index(sp.globals, "global")
	case shapeTable:
		in.x = r.index(sp.tables, "table")
	case shapeTables:
		in.x = r.index(sp.tables, "table")
		in.y = r.index(sp.tables, "table")
	case shapeTag:
		in.x = r.index(sp.tags, "tag")
	case shapeElem:
		in.x = r.index(sp.elems, "element segment")
	case shapeElemTable:
		in.x = r.index(sp.elems, "element segment")
		in.y = r.index(sp.tables, "table")
	case shapeI32:
		in.value = uint64(uint32(r.signed(32)))
	case shapeI64:
		in.value = uint64(r.signed(64))
	case shapeBytes:
		d.readBytes(int(info.size))
	case shapeSelect:
		if at := r.pos; r.byte() != 1 {
			r.fail(bad(at, "a select must have one type"))
		}
		valueType(r, sp.types)
	case shapeHeap:
		heapType(r, sp.types)
	case shapeLegacy:
		r.fail(bad(in.offset, "an instruction of the legacy exception handling (%#x) is not supported", uint16(in.op)).
			WithHint("translate it: wasm-opt --translate-to-exnref; or build with the standard exceptions (clang: -mllvm -wasm-use-legacy-eh=false), or without any"))
	case shapeUnknown:
		r.fail(bad(in.offset, "unknown instruction %#x", uint16(in.op)))
	default:
		d.memoryImmediates(info)
	}
}

// memoryImmediates are those of instructions that need a memory.
func (d *decoder) memoryImmediates(info opInfo) {
	in, r := &d.in, d.r
	if !d.space.memory && info.shape != shapeLane && info.shape != shapeFence && info.shape != shapeData {
		r.fail(bad(in.offset, "instruction %#x needs a memory, and there is none", uint16(in.op)))
		return
	}
	switch info.shape {
	case shapeData:
		in.x = d.dataIndex()
	case shapeDataMem:
		in.x = d.dataIndex()
		r.zero()
	case shapeMem:
		r.zero()
	case shapeMems:
		r.zero()
		r.zero()
	case shapeMemArg, shapeMemLane:
		at := r.pos
		in.x = r.u32()
		if in.x&0x40 != 0 {
			r.fail(bad(at, "more than one memory is not supported"))
		} else if in.x > uint32(info.align) {
			r.fail(bad(at, "alignment 2^%d is above the natural one, 2^%d", in.x, info.align))
		}
		in.y = r.u32()
		if info.shape == shapeMemLane {
			d.lane(info.size)
		}
	case shapeLane:
		in.x = d.lane(info.size)
	case shapeFence:
		if at := r.pos; r.byte() != 0 {
			r.fail(bad(at, "an atomic fence must be of order 0"))
		}
	}
}

func (d *decoder) lane(lanes uint8) uint32 {
	at := d.r.pos
	lane := d.r.byte()
	if lane >= lanes {
		d.r.fail(bad(at, "lane %d of %d", lane, lanes))
	}
	return uint32(lane)
}

func (d *decoder) dataIndex() uint32 {
	if d.space.data < 0 {
		d.r.fail(bad(d.in.offset, "instruction %#x needs a data count section", uint16(d.in.op)))
		return 0
	}
	return d.r.index(d.space.data, "data segment")
}

func (d *decoder) readBytes(n int) {
	b := d.r.take(n)
	if b == nil {
		return
	}
	switch n {
	case 4:
		d.in.value = uint64(binary.LittleEndian.Uint32(b))
	case 8:
		d.in.value = binary.LittleEndian.Uint64(b)
	case 16:
		d.in.bytes = b
		if d.in.op == opV128Const {
			return
		}
		for i, lane := range b {
			if lane >= 32 {
				d.r.fail(bad(d.in.end+i, "shuffle lane %d of 32", lane))
			}
		}
	}
}

func (d *decoder) readLabels() {
	r, in := d.r, &d.in
	n := r.count(1, limit{"targets of a br_table", d.limit.Targets, hintCode})
	in.labels = in.labels[:0]
	for i := 0; i <= n && r.err == nil; i++ {
		in.labels = append(in.labels, r.index(len(d.open), "label"))
	}
}

func (d *decoder) readCatches() {
	r, in := d.r, &d.in
	n := r.count(2, limit{"catches of a try_table", d.limit.Targets, hintCode})
	in.catches = in.catches[:0]
	for i := 0; i < n && r.err == nil; i++ {
		at := r.pos
		c := catch{kind: r.byte()}
		if c.kind > 3 {
			r.fail(bad(at, "catch of kind %d", c.kind))
		}
		if c.kind < 2 {
			c.tag = r.index(d.space.tags, "tag")
		}
		c.label = r.index(len(d.open), "label")
		in.catches = append(in.catches, c)
	}
}

func (d *decoder) blockType() blockType {
	r := d.r
	switch c := r.peek(); {
	case c == 0x40:
		r.pos++
		return blockType{index: -1}
	case c >= 0x40 && c < 0x80:
		return blockType{index: -1, result: valueType(r, d.space.types)}
	}
	at := r.pos
	i := r.signed(33)
	if r.err == nil && (i < 0 || i >= int64(d.space.types)) {
		r.fail(bad(at, "block type %d of %d", i, d.space.types))
	}
	return blockType{index: int32(i)}
}

// nest follows blocks.
func (d *decoder) nest() {
	r, in := d.r, &d.in
	if r.err != nil {
		return
	}
	switch in.op {
	case opBlock, opLoop, opIf, opTryTable:
		if len(d.open) > d.limit.Nesting {
			r.fail(limit{"blocks inside one another", d.limit.Nesting, hintCode}.exceeds(uint64(len(d.open)), in.offset))
			return
		}
		d.open = append(d.open, in.op)
	case opElse:
		if last := len(d.open) - 1; d.open[last] == opIf {
			d.open[last] = opElse
		} else {
			r.fail(bad(in.offset, "an else without an if"))
		}
	case opEnd:
		d.open = d.open[:len(d.open)-1]
		d.done = len(d.open) == 0
	}
}
