package main

import (
	"bytes"
	"fmt"
	"strings"

	"skein.dev/abi"
)

const docsIntro = `# Host interface

<!-- ` + mark + ` -->

What a guest may ask of its host: every function that a module may import, by room. A module that imports anything else
is refused at upload.

- Module ` + "`faasm`" + ` is Skein's own: strings and keys are (pointer, length); a result of 0 or more is success, an error is
  ` + "`-errno`" + ` with [WASI's numbers](#error-numbers); a function that returns an address returns 0 and sets ` + "`last_error`" + `.
  In C its functions are ` + "`__skein_<name>`" + ` of ` + "`<skein.h>`" + `; ` + "`<skein/sugar.h>`" + ` and the SDKs have friendlier forms.
- Module ` + "`env`" + ` serves programs written for Faasm, MPI, OpenMP and pthreads; strings are NUL-terminated.
- ` + "`wasi_snapshot_preview1`" + ` and ` + "`wasi`" + ` are the standard's.
- All is wasm32: pointers, ` + "`size_t`, `int` and `long`" + ` are i32. Every (pointer, length) is checked before it is used: EFAULT.

**Support.** *built*: works as described. *partial*: works except for what its note says. *planned*: links and answers
ENOSYS (52): natively -52, or 0 with ` + "`last_error`" + ` 52 where the result is an address.

| room | built | partial | planned |
|---|---:|---:|---:|
`

// reference returns docs/host-interface.md.
func reference() []byte {
	var b bytes.Buffer
	b.WriteString(docsIntro)
	total := map[abi.Support]int{}
	for _, room := range abi.Rooms() {
		count := map[abi.Support]int{}
		for _, f := range room.Funcs {
			count[f.Support]++
			total[f.Support]++
		}
		fmt.Fprintf(&b, "| [%s](#%s) | %d | %d | %d |\n", room.Name, room.Name, count[abi.Built], count[abi.Partial], count[abi.Planned])
	}
	fmt.Fprintf(&b, "| all | %d | %d | %d |\n", total[abi.Built], total[abi.Partial], total[abi.Planned])
	for _, room := range abi.Rooms() {
		section(&b, room)
	}
	b.WriteString("\n## Error numbers\n\n| number | name | meaning |\n|---:|---|---|\n")
	for _, e := range abi.Errnos() {
		fmt.Fprintf(&b, "| %d | %s | %s |\n", e, e.Name(), e.Text())
	}
	return b.Bytes()
}

func section(b *bytes.Buffer, room abi.Room) {
	fmt.Fprintf(b, "\n## %s\n\n%s\n", room.Name, escape(room.Doc))
	if len(room.Consts) > 0 {
		b.WriteString("\n| constant | value | meaning |\n|---|---:|---|\n")
		for _, c := range room.Consts {
			fmt.Fprintf(b, "| `SKEIN_%s` | %d | %s |\n", c.Name, c.Value, escape(c.Doc))
		}
	}
	b.WriteString("\n| import | prototype, wasm type | support | meaning |\n|---|---|---|---|\n")
	for _, r := range abi.Rows() {
		if r.Room != room.Name {
			continue
		}
		support, meaning := r.Support.String(), escape(r.Doc)
		if r.Note != "" {
			support += ": " + escape(r.Note)
		}
		// The mission names whole families (WASI, MPI, ...) once; repeating that in each row would say nothing.
		if r.Mission != "" && strings.ContainsAny(r.Mission, "(/") || r.Mission == r.Name {
			meaning += " Mission: `" + r.Mission + "`."
		}
		fmt.Fprintf(b, "| `%s.%s` | `%s`<br>`%s` | %s | %s |\n", r.Module, r.Name, r.Decl, r.Signature, support, meaning)
	}
}

// escape keeps names such as <errno.h>, and pairs of underscores, from being read as markup.
func escape(text string) string {
	return strings.NewReplacer("<", "&lt;", "__", `\_\_`, "*", `\*`, "|", `\|`).Replace(text)
}
