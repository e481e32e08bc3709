package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"skein.dev/abi"
)

// A native function's C name is its import name with this prefix: reserved, as __wasi_ is, so that it can't meet a
// program's own names or libc's (mmap, dup, dlopen); sugar.h has the names for people.
const cPrefix = "__skein_"

const width = 116 // columns of a wrapped comment's text

func roomHeader(room abi.Room) []byte {
	var b bytes.Buffer
	rows := nativeRows(room.Name)
	begin(&b, "SKEIN_"+strings.ToUpper(room.Name)+"_H",
		"Room "+room.Name+" of the host interface. "+room.Doc+" An error is -errno with the numbers of <errno.h>.")
	includes(&b, rows)
	for _, c := range room.Consts {
		fmt.Fprintf(&b, "\n%s#define SKEIN_%s %d\n", comment(c.Doc), c.Name, c.Value)
	}
	declareRows(&b, rows, cPrefix)
	end(&b)
	return b.Bytes()
}

func faasmHeader() []byte {
	var b bytes.Buffer
	rows := slices.DeleteFunc(slices.Clone(abi.Rows()), func(r abi.Row) bool {
		return r.Module != abi.Env || !strings.HasPrefix(r.Name, "__faasm_")
	})
	begin(&b, "FAASM_HOST_INTERFACE_H", "Faasm's host interface as Skein serves it, for programs written for Faasm's C and C++ API.")
	includes(&b, rows)
	declareRows(&b, rows, "")
	end(&b)
	return b.Bytes()
}

func umbrellaHeader() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "// %s\n//\n// The host interface of Skein: its functions as they are imported, by room, and sugar over them.\n\n", mark)
	b.WriteString("#ifndef SKEIN_H\n#define SKEIN_H\n\n")
	for _, room := range abi.Rooms() {
		if len(nativeRows(room.Name)) > 0 {
			fmt.Fprintf(&b, "#include <skein/%s.h>\n", room.Name)
		}
	}
	b.WriteString("#include <skein/sugar.h>\n#include <skein/objects.h>\n\n#endif\n")
	return b.Bytes()
}

func begin(b *bytes.Buffer, guard, doc string) {
	fmt.Fprintf(b, "// %s\n//\n%s\n#ifndef %s\n#define %s\n\n", mark, comment(doc), guard, guard)
}

func includes(b *bytes.Buffer, rows []abi.Row) {
	b.WriteString("#include <stddef.h>\n#include <stdint.h>\n")
	if slices.ContainsFunc(rows, func(r abi.Row) bool { return strings.Contains(r.Decl, "off_t") }) {
		b.WriteString("#include <sys/types.h>\n")
	}
	b.WriteString("\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n")
	if defs := abi.Typedefs(rows...); len(defs) > 0 {
		b.WriteString("\n")
		for _, t := range defs {
			fmt.Fprintln(b, t.C)
		}
	}
}

func declareRows(b *bytes.Buffer, rows []abi.Row, prefix string) {
	for _, r := range rows {
		doc := r.Doc
		if r.Support != abi.Built {
			doc += " [" + r.Support.String() + ": " + r.Note + "]"
		}
		fmt.Fprintf(b, "\n%s__attribute__((import_module(%q), import_name(%q)))\n%s;\n",
			comment(doc), r.Module, r.Name, r.Prototype(prefix+r.Name))
	}
}

func end(b *bytes.Buffer) {
	b.WriteString("\n#ifdef __cplusplus\n}\n#endif\n\n#endif\n")
}

// comment wraps text into // lines, which C and Go share.
func comment(text string) string {
	var b strings.Builder
	line := "//"
	for _, word := range strings.Fields(text) {
		if len(line)+1+len(word) > width+2 {
			b.WriteString(line + "\n")
			line = "//"
		}
		line += " " + word
	}
	b.WriteString(line + "\n")
	return b.String()
}
