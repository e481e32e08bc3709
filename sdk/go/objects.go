package skein

import (
	"encoding/binary"
	"errors"
	"iter"
	"math"
	"unsafe"
)

// Counter is the key of a signed integer of 64 bits in the global tier. It begins as 0 and wraps. Additions are atomic, and
// each is one exchange with the global tier: add what a call has counted at its end.
type Counter string

// Add adds delta and returns the sum.
func (c Counter) Add(delta int64) (sum int64, err error) {
	return AddState(string(c), delta)
}

// Value is what has been added so far.
func (c Counter) Value() (int64, error) {
	var sum [8]byte
	_, err := ReadAppended(string(c), 0, sum[:])
	if errors.Is(err, ENOENT) {
		err = nil
	}
	return int64(binary.LittleEndian.Uint64(sum[:])), err
}

// Log is the key of a sequence of records of any bytes, 0 to MaxRecord each, that all functions of the user add to. A record
// is appended whole, and the order is the same for all. In the value each is its length, 4 bytes, little-endian, and its bytes.
type Log string

// MaxRecord bounds a record of a Log, in bytes.
const MaxRecord = 1 << 20

const (
	recordPrefix = 4
	readAhead    = 64 << 10
)

// Append adds a record. EMSGSIZE if it is too long, EFBIG if the log would pass a value's limit.
func (l Log) Append(record []byte) error {
	if len(record) > MaxRecord {
		return call("append to log", string(l), -int32(EMSGSIZE))
	}
	framed := binary.LittleEndian.AppendUint32(make([]byte, 0, recordPrefix+len(record)), uint32(len(record)))
	_, err := AppendState(string(l), append(framed, record...))
	return err
}

// Clear makes the log empty. What readers have begun is not defined then.
func (l Log) Clear() error {
	return ClearAppended(string(l))
}

// Records are those that the log has, or gets while it is read; none if it is absent. A record is valid until the next. The
// sequence ends after an error; EILSEQ if the value is no log.
func (l Log) Records() iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		var ahead []byte // what was read and not yet given
		var at int64     // of what comes behind it
		for {
			size, whole := recordSize(ahead)
			switch {
			case size > MaxRecord:
				yield(nil, call("read log", string(l), -int32(EILSEQ)))
				return
			case whole:
				if !yield(ahead[recordPrefix:recordPrefix+size], nil) {
					return
				}
				ahead = ahead[recordPrefix+size:]
				continue
			}
			more := make([]byte, len(ahead)+max(readAhead, recordPrefix+size))
			kept := copy(more, ahead)
			n, err := ReadAppended(string(l), at, more[kept:])
			if errors.Is(err, ENOENT) {
				n, err = 0, nil
			}
			if err == nil && n == 0 && kept > 0 {
				err = call("read log", string(l), -int32(EILSEQ))
			}
			if err != nil {
				yield(nil, err)
			}
			if err != nil || n == 0 {
				return
			}
			ahead, at = more[:kept+n], at+int64(n)
		}
	}
}

// recordSize is the size of the record that b begins with, 0 if that is not there yet, and whether b has all of it.
func recordSize(b []byte) (size int, whole bool) {
	if len(b) < recordPrefix {
		return 0, false
	}
	size = int(binary.LittleEndian.Uint32(b))
	return size, size <= len(b)-recordPrefix
}

// Number is what arrays are of: types whose bytes mean the same everywhere.
type Number interface {
	~int8 | ~int16 | ~int32 | ~int64 | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~float32 | ~float64
}

// Array is a value that is a row of numbers, or a part of it, mapped: all calls on this executor that open it see the same
// bytes at once, without copying. Numbers that several calls write to need a lock, or an algorithm that bears races.
//
// The executor's memory lies in Go's heap until the call ends, so don't keep an Array for another call. ENOTSUP where the
// executor's system can't map.
type Array[T Number] struct {
	Data  []T // what the value has from First on
	First int

	key string
}

// OpenArray opens all of an array. n 0 takes it as it is, ENOENT if absent. Otherwise one that is absent is made, and one
// that is shorter grows, with zeroes. EINVAL if the value is longer, or no whole number of elements.
func OpenArray[T Number](key string, n int, flags StateFlags) (*Array[T], error) {
	total := n
	if n == 0 {
		size, err := StateSize(key)
		if err != nil {
			return nil, err
		}
		var t T
		n = int(size / int64(unsafe.Sizeof(t)))
	}
	return OpenArrayPart[T](key, 0, n, total, flags)
}

// OpenArrayPart opens n numbers from first of an array of total, 0 for as many as it has. Only the chunks of 256 KiB that the
// part lies in are fetched.
func OpenArrayPart[T Number](key string, first, n, total int, flags StateFlags) (*Array[T], error) {
	var t T
	each := int64(unsafe.Sizeof(t))
	refuse := func(e Errno) (*Array[T], error) { return nil, call("open array", key, -int32(e)) }
	switch most := int(math.MaxInt32 / each); {
	case first < 0 || n <= 0 || total < 0:
		return refuse(EINVAL)
	case first > most || n > most || total > most:
		return refuse(EFBIG)
	}
	size, err := StateSize(key)
	switch {
	case err != nil && (total == 0 || !errors.Is(err, ENOENT)):
		return nil, err
	case size%each != 0 || total > 0 && size > int64(total)*each:
		return refuse(EINVAL)
	}
	if size < int64(total)*each {
		// Writing nothing behind the end moves the end there, if nobody has meanwhile.
		if err := SetStateAt(key, nil, int64(total)*each); err != nil {
			return nil, err
		}
	}
	if flags&StatePull != 0 {
		if err := PullState(key); err != nil && !errors.Is(err, ENOENT) {
			return nil, err
		}
	}
	at, err := mapAt(key, int64(first)*each, n*int(each), flags&^StatePull)
	if err != nil {
		return nil, err
	}
	return &Array[T]{Data: unsafe.Slice((*T)(at), n), First: first, key: key}, nil
}

// Push sends what this executor has changed of the numbers in Data.
func (a *Array[T]) Push() error {
	off, n := a.place()
	return PushStateAt(a.key, off, n)
}

// Pull fetches what was pushed elsewhere of the numbers in Data, keeping what was changed here since the last Push.
func (a *Array[T]) Pull() error {
	off, n := a.place()
	return PullStateAt(a.key, off, n)
}

func (a *Array[T]) place() (off int64, n int) {
	var t T
	each := int64(unsafe.Sizeof(t))
	return int64(a.First) * each, len(a.Data) * int(each)
}

// Matrix is an array of rows of Cols numbers each.
type Matrix[T Number] struct {
	*Array[T]
	Rows, Cols int // of the view
	FirstRow   int
}

// OpenMatrix opens all of a matrix. Errors are those of OpenArray. rows 0 takes it as it is, with EINVAL if it is no whole
// number of rows.
func OpenMatrix[T Number](key string, rows, cols int, flags StateFlags) (*Matrix[T], error) {
	n := rows
	if rows == 0 {
		size, err := StateSize(key)
		if err != nil {
			return nil, err
		}
		var t T
		row := int64(max(cols, 0)) * int64(unsafe.Sizeof(t))
		if row == 0 || size%row != 0 {
			return nil, call("open matrix", key, -int32(EINVAL))
		}
		n = int(size / row)
	}
	return OpenMatrixRows[T](key, 0, n, rows, cols, flags)
}

// OpenMatrixRows opens n rows from first of a matrix of rows by cols.
func OpenMatrixRows[T Number](key string, first, n, rows, cols int, flags StateFlags) (*Matrix[T], error) {
	switch {
	case first < 0 || n <= 0 || rows < 0 || cols <= 0:
		return nil, call("open matrix", key, -int32(EINVAL))
	case max(first, n, rows) > math.MaxInt32/cols:
		return nil, call("open matrix", key, -int32(EFBIG))
	}
	a, err := OpenArrayPart[T](key, first*cols, n*cols, rows*cols, flags)
	if err != nil {
		return nil, err
	}
	return &Matrix[T]{a, n, cols, first}, nil
}

// Row is a row by its index in the whole matrix. It panics if the view doesn't have it, as indexing does.
func (m *Matrix[T]) Row(i int) []T {
	i -= m.FirstRow
	return m.Data[i*m.Cols : (i+1)*m.Cols : (i+1)*m.Cols]
}

// view is a range of a value that is mapped.
type view struct {
	key   string
	off   int64
	n     int
	flags StateFlags
}

// views are those of this call, so that to open one again takes no memory.
var views = map[view][]byte{}

// mapAt maps n bytes from off of a value, and gives the address of the first.
func mapAt(key string, off int64, n int, flags StateFlags) (unsafe.Pointer, error) {
	page := off &^ (statePage - 1)
	v := view{key, page, n + int(off-page), flags}
	part := views[v]
	if part == nil {
		var err error
		if part, err = MapState(v.key, v.off, v.n, v.flags); err != nil {
			return nil, err
		}
		views[v] = part
	}
	return unsafe.Pointer(&part[off-page]), nil
}
