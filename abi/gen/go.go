package main

import (
	"bytes"
	"fmt"
	"go/format"
	"go/token"
	"slices"
	"strings"

	"skein.dev/abi"
)

const rawDir = "sdk/go/internal/raw/"

// goFiles adds the externs of sdk/go, for built native rows only: what is not built can't be called by mistake. Nor can what
// returns memory that the host grew, which Go's allocator would take.
func goFiles(files map[string][]byte) error {
	sources := map[string]string{
		rawDir + "raw.go":      rawDoc,
		rawDir + "notguest.go": "//go:build !wasip1\n\npackage raw\n\nimport \"unsafe\"\n",
		"sdk/go/errno.go":      goErrnos(),
	}
	for _, room := range abi.Rooms() {
		rows := slices.DeleteFunc(nativeRows(room.Name), func(r abi.Row) bool { return r.Support != abi.Built || strings.Contains(r.Result, "*") })
		if len(rows) == 0 {
			continue
		}
		externs := "//go:build wasip1\n\npackage raw\n\nimport \"unsafe\"\n"
		for _, r := range rows {
			externs += fmt.Sprintf("\n%s//\n//go:wasmimport %s %s\n//go:noescape\n%s\n", comment(goName(r.Name)+": "+r.Doc), r.Module, r.Name, goFunc(r))
			sources[rawDir+"notguest.go"] += fmt.Sprintf("\n%s { return NotGuest }\n", goFunc(r))
		}
		if !strings.Contains(externs, "unsafe.Pointer") {
			externs = strings.Replace(externs, "\nimport \"unsafe\"\n", "", 1)
		}
		sources[rawDir+room.Name+".go"] = externs
	}
	for name, source := range sources {
		out, err := format.Source([]byte("// " + mark + "\n\n" + source))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		files[name] = out
	}
	return nil
}

const rawDoc = `// Package raw declares the host's functions as they are imported, one file per room. Off wasip1 they exist so that
// programs compile, and answer NotGuest.
package raw

// NotGuest is what every function answers in a program that no host runs; no errno is that large.
const NotGuest = -1 << 31
`

func goFunc(r abi.Row) string {
	params := make([]string, len(r.Params))
	for i, p := range r.Params {
		name := p.Name
		if token.IsKeyword(name) {
			name += "_"
		}
		params[i] = name + " " + goType(p.C, p.Type)
	}
	signature := "func " + goName(r.Name) + "(" + strings.Join(params, ", ") + ")"
	if len(r.Signature.Results) == 1 {
		signature += " " + goType(r.Result, r.Signature.Results[0])
	}
	return signature
}

func goName(name string) string {
	var b strings.Builder
	for word := range strings.SplitSeq(name, "_") {
		if word != "" {
			b.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return b.String()
}

func goType(ctype string, t abi.ValueType) string {
	unsigned := strings.HasPrefix(ctype, "u") || ctype == "size_t"
	switch {
	case strings.Contains(ctype, "*"):
		return "unsafe.Pointer"
	case t == abi.I32 && unsigned:
		return "uint32"
	case t == abi.I32:
		return "int32"
	case t == abi.I64 && unsigned:
		return "uint64"
	case t == abi.I64:
		return "int64"
	case t == abi.F32:
		return "float32"
	}
	return "float64"
}

func goErrnos() string {
	var b bytes.Buffer
	b.WriteString("package skein\n\n// The error numbers of WASI preview 1.\nconst (\n")
	for _, e := range abi.Errnos()[1:] {
		fmt.Fprintf(&b, "%s Errno = %d // %s\n", e.Name(), e, e.Text())
	}
	b.WriteString(")\n\nvar errnos = [...]struct{ name, text string }{\n")
	for _, e := range abi.Errnos() {
		fmt.Fprintf(&b, "%d: {%q, %q},\n", e, e.Name(), e.Text())
	}
	b.WriteString("}\n")
	return b.String()
}
