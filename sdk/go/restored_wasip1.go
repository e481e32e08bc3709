package skein

import (
	"os"
	"strings"
	"unsafe"
)

// A reactor is frozen once its init functions have run, and calls begin there. What Go's library read before that moment
// was nobody's: the host calls this before the first call after it, and os.Args and the environment become that call's.
//
// A package that keeps something else of the kind from its init functions (os.Getenv's answers, a seeded generator, an
// open file) should rather ask for it in handle.
//
//go:wasmexport skein_restored
func restored() {
	os.Args = stringsOf(argsSizesGet, argsGet)
	os.Clearenv()
	for _, e := range stringsOf(environSizesGet, environGet) {
		if name, value, ok := strings.Cut(e, "="); ok {
			_ = os.Setenv(name, value) // what the host names badly can't be asked for either
		}
	}
}

// stringsOf asks how many strings there are and how many bytes they need, and gets them.
func stringsOf(sizes func(n, size *uint32) uint32, get func(ptrs, buf unsafe.Pointer) uint32) []string {
	var n, size uint32
	if sizes(&n, &size) != 0 || n == 0 {
		return nil
	}
	ptrs, buf := make([]uint32, n), make([]byte, size)
	if get(unsafe.Pointer(unsafe.SliceData(ptrs)), unsafe.Pointer(unsafe.SliceData(buf))) != 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(buf), "\x00"), "\x00")
}

//go:wasmimport wasi_snapshot_preview1 args_sizes_get
//go:noescape
func argsSizesGet(n, size *uint32) uint32

//go:wasmimport wasi_snapshot_preview1 args_get
//go:noescape
func argsGet(ptrs, buf unsafe.Pointer) uint32

//go:wasmimport wasi_snapshot_preview1 environ_sizes_get
//go:noescape
func environSizesGet(n, size *uint32) uint32

//go:wasmimport wasi_snapshot_preview1 environ_get
//go:noescape
func environGet(ptrs, buf unsafe.Pointer) uint32
