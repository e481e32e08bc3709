package prepare

import (
	"strings"

	"skein.dev/abi"
	"skein.dev/platform/fault"
)

// Entries of a module: what a host calls.
const (
	StartExport      = "_start"      // () of a command
	HandleExport     = "handle"      // () -> i32 of a reactor: its exit code
	InitializeExport = "_initialize" // () of a reactor, once before its first call

	// What a reactor may have besides.
	InitExport     = "skein_init"     // () -> i32, once after _initialize and before the module is frozen; 0 is success
	ZygoteExport   = "_faasm_zygote"  // the same under Faasm's name
	RestoredExport = "skein_restored" // (), before a call that begins as the module was frozen
)

const hintOptional = "skein_init: () -> i32, _faasm_zygote: () -> i32 and skein_restored: () are names of what the host calls around a snapshot; give the function that type, or another name"

const hintEntry = "a command exports _start: (), a reactor handle: () -> i32 and perhaps _initialize: (); input and output pass through the faasm functions"

// CheckEntry reports whether m can be run as a function of its own. Errors are fault.Invalid: NO_ENTRY if m exports
// neither _start nor handle, ABI_MISMATCH if one of its entries, or of the optional exports that a host calls, is not the
// function that it should be.
func CheckEntry(m *Module) error {
	nothing, code := abi.Signature{}, abi.Signature{Results: []abi.ValueType{abi.I32}}
	for _, entry := range []struct {
		name string
		want abi.Signature
		hint string
	}{
		{StartExport, nothing, hintEntry},
		{HandleExport, code, hintEntry},
		{InitializeExport, nothing, hintEntry},
		{InitExport, code, hintOptional},
		{ZygoteExport, code, hintOptional},
		{RestoredExport, nothing, hintOptional},
	} {
		e, ok := m.Export(entry.name)
		if !ok {
			continue
		}
		if e.Kind != ExternFunc {
			return fault.Invalid.New("ABI_MISMATCH", "module: its export %s is a %s, not a function %s", entry.name, e.Kind, entry.want).
				WithHint("%s", entry.hint)
		}
		if !e.Type.Equal(entry.want) {
			return fault.Invalid.New("ABI_MISMATCH", "module: its export %s has type %s, not %s", entry.name, typeText(e.Type), entry.want).
				WithHint("%s", entry.hint)
		}
	}
	if m.Kind != Library {
		return nil
	}
	hint := "link a program with a main, or export a function handle: () -> i32 (C: __attribute__((export_name(\"handle\"))), Go: //go:wasmexport handle)"
	if m.Flags.Dylink {
		hint = "this is a shared library: upload it as a file and let a function open it with dlopen"
	}
	return fault.Invalid.New("NO_ENTRY", "module: it exports neither _start nor handle").WithHint("%s", hint)
}

// CheckFeatures reports whether m does without what the engine has and should not. Error: fault.Invalid TYPED_REFS. For
// references to functions of a certain type wazero 1.12 takes those of any other, so that a function could be called with
// a number in place of a pointer, and give a pointer in place of a number.
func CheckFeatures(m *Module) error {
	if !m.Flags.TypedRefs {
		return nil
	}
	return fault.Invalid.New("TYPED_REFS", "module: it uses typed function references (call_ref, ref null $t), which are not supported").
		WithHint("call through a table: call_indirect")
}

// CheckImports reports whether Skein's host interface has all that m imports. Errors are fault.Invalid: UNKNOWN_IMPORT
// for a function that no row of package abi describes, ABI_MISMATCH for one of another type, UNSUPPORTED_IMPORT for
// memories, tables, globals and tags.
func CheckImports(m *Module) error {
	for _, imp := range m.Imports {
		if imp.Kind != ExternFunc {
			return unsupported(imp)
		}
		row, ok := abi.Lookup(imp.Module, imp.Name)
		if !ok {
			return fault.Invalid.New("UNKNOWN_IMPORT", "module: it imports %s, which the host interface does not have", clip(imp.String())).
				WithHint("the nearest is %s; docs/host-interface.md lists them all", abi.Nearest(imp.Module, imp.Name))
		}
		if !imp.Type.Equal(row.Signature) {
			return fault.Invalid.New("ABI_MISMATCH", "module: it imports %s with type %s, which is %s in the host interface",
				imp, typeText(imp.Type), row.Signature).
				WithHint("its prototype is: %s; include the SDK's header instead of declaring it", row.Prototype(row.Name))
		}
	}
	return nil
}

func unsupported(imp Import) error {
	e := fault.Invalid.New("UNSUPPORTED_IMPORT", "module: it imports the %s %s; only functions can be imported so far", imp.Kind, clip(imp.String()))
	switch {
	case imp.Kind == ExternMemory:
		return e.WithHint("programs with threads import their shared memory: that comes with the threads room; build without -pthread, and without --import-memory, for now")
	case imp.Kind == ExternTable, strings.HasPrefix(imp.Module, "GOT."):
		return e.WithHint("position-independent programs import their table and addresses: that comes with the dynlink room; link statically, without -pie or -shared, for now")
	}
	return e.WithHint("define the %s in the module itself", imp.Kind)
}

// typeText is a signature for a message; a hostile one is long.
func typeText(s abi.Signature) string { return clip(s.String()) }

// clip keeps a hostile name from filling an error message.
func clip(s string) string {
	const most = 160
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
