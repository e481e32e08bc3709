// Gomap asks for mappings that Go's allocator would take for its own.
package main

import (
	"fmt"
	"os"
	"unsafe"
)

//go:wasmimport faasm mmap
func mmap(addr unsafe.Pointer, n uint32, prot, flags, fd int32, off int64) uint32

//go:wasmimport faasm last_error
func lastError() int32

func main() {
	kept := [][]byte{}
	for i := range 200 {
		if at := mmap(nil, 1<<16, 3, 0x22, -1, 0); at != 0 || lastError() != 58 {
			fmt.Println("mapped at", at, "error", lastError())
			os.Exit(1)
		}
		b := make([]byte, 100_000)
		for j := range b {
			b[j] = byte(i)
		}
		kept = append(kept, b)
	}
	for i, b := range kept {
		for _, v := range b {
			if v != byte(i) {
				fmt.Println("the heap was written to")
				os.Exit(1)
			}
		}
	}
}
