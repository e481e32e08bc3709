package prepare

import (
	"bytes"
	"unicode/utf8"

	"skein.dev/platform/fault"
)

const hintCore = "build a core module: clang --target=wasm32-wasip1, GOOS=wasip1 GOARCH=wasm go build, or cargo build --target wasm32-wasip1"

// magics name what people upload by mistake.
var magics = []struct{ prefix, what, hint string }{
	{"\x1f\x8b", "a gzip file", "unpack it first: gunzip"},
	{"\x28\xb5\x2f\xfd", "a zstd file", "unpack it first: zstd -d"},
	{"\xfd7zXZ", "an xz file", "unpack it first: unxz"},
	{"PK\x03\x04", "a zip file", "unpack it first: unzip"},
	{"\x7fELF", "an ELF binary, built for this machine instead of WebAssembly", hintCore},
	{"MZ", "a Windows binary", hintCore},
	{"\xcf\xfa\xed\xfe", "a Mach-O binary", hintCore},
	{"!<arch>", "an archive of object files", "link it first; " + hintCore},
	{"BC\xc0\xde", "LLVM bitcode", hintCore},
}

// header reads magic number and version, and says what the bytes are if they are no core module.
func header(b []byte) *fault.Error {
	const magic = "\x00asm"
	no := func(what, hint string) *fault.Error {
		return fault.Invalid.New("BAD_MODULE", "module: %s", what).WithHint("%s", hint)
	}
	switch {
	case len(b) == 0:
		return no("it is empty", "send the bytes of a .wasm file, as with curl -T FILE or --data-binary @FILE")
	case len(b) < 8 && bytes.HasPrefix([]byte("\x00asm\x01\x00\x00\x00"), b):
		return no("truncated: it ends within its header", "send the whole file")
	case !bytes.HasPrefix(b, []byte(magic)):
		return no("it is "+guess(b)+", not WebAssembly", hintFor(b))
	case len(b) < 8:
		return no("truncated: it ends within its header", "send the whole file")
	}
	version, layer := uint16(b[4])|uint16(b[5])<<8, uint16(b[6])|uint16(b[7])<<8
	switch {
	case layer == 1:
		return fault.Invalid.New("MODULE_IS_COMPONENT", "module: this is a component; a core module is wanted").WithHint("%s", hintCore)
	case version != 1 || layer != 0:
		return no("its version is not 1, the only one there is", hintCore)
	}
	return nil
}

func guess(b []byte) string {
	for _, m := range magics {
		if bytes.HasPrefix(b, []byte(m.prefix)) {
			return m.what
		}
	}
	head := b[:min(len(b), 512)]
	switch start := bytes.TrimSpace(head); {
	case bytes.HasPrefix(start, []byte("(module")), bytes.HasPrefix(start, []byte(";;")):
		return "WebAssembly text"
	case bytes.HasPrefix(start, []byte("version https://git-lfs")):
		return "a Git LFS pointer"
	}
	for !utf8.Valid(head) && len(b) > len(head) && len(head) > 508 {
		head = head[:len(head)-1] // the cut may have split a character
	}
	if utf8.Valid(head) && !bytes.ContainsRune(head, 0) {
		return "text"
	}
	return "some other kind of file"
}

func hintFor(b []byte) string {
	for _, m := range magics {
		if bytes.HasPrefix(b, []byte(m.prefix)) {
			return m.hint
		}
	}
	if guess(b) == "WebAssembly text" {
		return "translate it first: wat2wasm or wasm-tools parse"
	}
	return hintCore
}
