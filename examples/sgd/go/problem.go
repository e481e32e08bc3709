package main

import (
	"fmt"
	"unsafe"
)

// Shape of a problem. Each example has the same number of features that are not zero. The numbers are those of sgd/c, to the last
// bit, and so are the keys: functions of both may work on the same values.
type Shape struct{ Examples, Features, Nonzeros, Seed int }

// key has the shape in it: what lies there never changes, but for the weights.
func (s Shape) key(name string) string {
	return fmt.Sprintf("sgd/%dx%dx%d.%d/%s", s.Examples, s.Features, s.Nonzeros, s.Seed, name)
}

// mix makes a number that looks random of any.
func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func unit(z uint64) float64 { return float64(z>>11) * 0x1p-53 } // 0 to 1

// generate makes the ith example: columns, and their values, of the features that it has, and its label, 1 or -1. Few features
// are frequent, as words are. The labels are those of a hidden classifier, but one in twenty is wrong.
func (s Shape) generate(i int, columns []uint32, values []float32) (label float32) {
	r := mix(uint64(s.Seed)*0x10001 + uint64(i))
	sum := 0.0
	for k := range columns {
		r = mix(r)
		u := unit(r)
		columns[k] = uint32(float64(s.Features) * u * u * u)
		r = mix(r)
		values[k] = float32(0.5 + unit(r))
		sum += (unit(mix(uint64(columns[k])^uint64(s.Seed)<<32)) - 0.5) * float64(values[k])
	}
	if (sum > 0) == (mix(r)%20 > 0) {
		return 1
	}
	return -1
}

func margin(weights []float64, columns []uint32, values []float32, label float32) float64 {
	sum := 0.0
	for k, c := range columns {
		sum += weights[c] * float64(values[k])
	}
	return sum * float64(label)
}

// step learns one example: it touches only the weights of features that the example has.
func step(weights []float64, columns []uint32, values []float32, label float32, rate float64) {
	if margin(weights, columns, values, label) < 1 {
		for k, c := range columns {
			weights[c] += rate * float64(label) * float64(values[k])
		}
	}
}

func rateOf(epoch int) float64 { return 0.1 / (1 + float64(epoch)) }

// numbers are the bytes of weights as such. The processor's order of bytes is that of state: wasm has no other.
func numbers(b []byte) []float64 {
	return unsafe.Slice((*float64)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/8)
}
