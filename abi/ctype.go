package abi

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ValueType is a wasm value type, as its byte in the binary format. It is an alias so that a []ValueType is what wasm
// runtimes take.
type ValueType = byte

// The wasm value types of the host interface.
const (
	I32 ValueType = 0x7f
	I64 ValueType = 0x7e
	F32 ValueType = 0x7d
	F64 ValueType = 0x7c
)

// TypeName returns the name of t in the wasm text format.
func TypeName(t ValueType) string {
	switch t {
	case I32:
		return "i32"
	case I64:
		return "i64"
	case F32:
		return "f32"
	case F64:
		return "f64"
	}
	return fmt.Sprintf("0x%02x", t)
}

// Signature is the wasm type of a function.
type Signature struct {
	Params, Results []ValueType
}

// String returns "(i32, i64) -> i32", or "(i32)" where there is no result.
func (s Signature) String() string {
	list := func(types []ValueType) string {
		names := make([]string, len(types))
		for i, t := range types {
			names[i] = TypeName(t)
		}
		return strings.Join(names, ", ")
	}
	text := "(" + list(s.Params) + ")"
	switch len(s.Results) {
	case 0:
		return text
	case 1:
		return text + " -> " + list(s.Results)
	}
	return text + " -> (" + list(s.Results) + ")"
}

// Equal reports whether s and t are the same wasm type.
func (s Signature) Equal(t Signature) bool {
	return slices.Equal(s.Params, t.Params) && slices.Equal(s.Results, t.Results)
}

// Param is one parameter of a prototype. C varargs are one parameter named "..." whose value is the address of the
// arguments, as clang passes them on wasm32.
type Param struct {
	Name string
	C    string // C type, such as "const char *"
	Type ValueType
}

// Prototype is a parsed C prototype.
type Prototype struct {
	Name   string
	Result string // C type, such as "void *"
	Params []Param
}

// Signature returns the wasm32 type of p.
func (p Prototype) Signature() Signature {
	var s Signature
	for _, param := range p.Params {
		s.Params = append(s.Params, param.Type)
	}
	if t, err := valueType(p.Result); err == nil && t != 0 {
		s.Results = []ValueType{t}
	}
	return s
}

// String returns p as C. Parse reads it back.
func (p Prototype) String() string {
	params := make([]string, len(p.Params))
	for i, param := range p.Params {
		params[i] = declare(param.C, param.Name)
	}
	if len(params) == 0 {
		params = []string{"void"}
	}
	return declare(p.Result, p.Name) + "(" + strings.Join(params, ", ") + ")"
}

func declare(ctype, name string) string {
	if ctype == "" || strings.HasSuffix(ctype, "*") {
		return ctype + name
	}
	return ctype + " " + name
}

// builtin are the C types that the language and its standard headers define. A wrong value type here is found by the
// clang referee (referee_test.go), not by this package.
var builtin = map[string]ValueType{
	"void": 0,
	"char": I32, "signed char": I32, "unsigned char": I32, "int": I32, "unsigned int": I32, "long": I32,
	"unsigned long": I32, "long long": I64, "unsigned long long": I64, "float": F32, "double": F64,
	"size_t": I32, "uint8_t": I32, "uint16_t": I32, "int32_t": I32, "uint32_t": I32, "int64_t": I64, "uint64_t": I64, "off_t": I64,
}

// Typedef is a type that a C program needs defined before it can use a prototype.
type Typedef struct {
	Name string
	C    string // its definition, with the semicolon
	Type ValueType
}

// typedefs complete the closed list of types. MPI's handles are pointers as in Faasm's mpi.h and in the MPI 5.0 ABI; a
// program's own headers may define them otherwise, as long as they are 32 bits wide.
var typedefs = []Typedef{
	{"skein_fn", "typedef int (*skein_fn)(void);", I32},
	{"faasm_fn", "typedef int (*faasm_fn)();", I32},
	{"FaasmMigrateEntryPoint", "typedef void (*FaasmMigrateEntryPoint)(int);", I32},
	{"pthread_t", "typedef struct __pthread *pthread_t;", I32},
	{"pthread_key_t", "typedef unsigned int pthread_key_t;", I32},
	{"pthread_object", "typedef struct pthread_object pthread_object;", 0},
	{"pthread_start", "typedef void *(*pthread_start)(void *);", I32},
	{"pthread_routine", "typedef void (*pthread_routine)(void);", I32},
	{"pthread_destructor", "typedef void (*pthread_destructor)(void *);", I32},
	{"timespec", "typedef struct timespec timespec;", 0},
	{"MPI_Comm", "typedef struct mpi_comm *MPI_Comm;", I32},
	{"MPI_Datatype", "typedef struct mpi_datatype *MPI_Datatype;", I32},
	{"MPI_Op", "typedef struct mpi_op *MPI_Op;", I32},
	{"MPI_Request", "typedef struct mpi_request *MPI_Request;", I32},
	{"MPI_Group", "typedef struct mpi_group *MPI_Group;", I32},
	{"MPI_Info", "typedef struct mpi_info *MPI_Info;", I32},
	{"MPI_Win", "typedef struct mpi_win *MPI_Win;", I32},
	{"MPI_Errhandler", "typedef struct mpi_errhandler *MPI_Errhandler;", I32},
	{"MPI_Message", "typedef struct mpi_message *MPI_Message;", I32},
	{"MPI_Status", "typedef struct mpi_status MPI_Status;", 0},
	{"MPI_Aint", "typedef long MPI_Aint;", I32},
	{"MPI_Count", "typedef long long MPI_Count;", I64},
	{"MPI_Fint", "typedef int MPI_Fint;", I32},
	{"MPI_User_function", "typedef void (*MPI_User_function)(void *, void *, int *, MPI_Datatype *);", I32},
	{"ident_t", "typedef struct ident ident_t;", 0},
	{"kmpc_micro", "typedef void (*kmpc_micro)(int *, int *, ...);", I32},
	{"kmpc_reduce_fn", "typedef void (*kmpc_reduce_fn)(void *, void *);", I32},
	{"kmpc_copy_fn", "typedef void (*kmpc_copy_fn)(void *, void *);", I32},
	{"kmpc_ctor", "typedef void *(*kmpc_ctor)(void *);", I32},
	{"kmpc_cctor", "typedef void *(*kmpc_cctor)(void *, void *);", I32},
	{"kmpc_dtor", "typedef void (*kmpc_dtor)(void *);", I32},
	{"kmp_task_entry", "typedef int (*kmp_task_entry)(int, void *);", I32},
	{"kmp_task_t", "typedef struct kmp_task kmp_task_t;", 0},
	{"kmp_depend_info", "typedef struct kmp_depend_info kmp_depend_info;", 0},
	{"kmp_critical_name", "typedef int kmp_critical_name[8];", 0},
	{"omp_lock_t", "typedef struct omp_lock omp_lock_t;", 0},
	{"omp_nest_lock_t", "typedef struct omp_nest_lock omp_nest_lock_t;", 0},
}

// Typedefs returns those that the rows need, in an order in which C accepts them.
func Typedefs(rows ...Row) []Typedef {
	used := map[string]bool{}
	for _, row := range rows {
		for _, t := range append([]Param{{C: row.Result}}, row.Params...) {
			used[baseType(t.C)] = true
		}
	}
	if used["MPI_User_function"] {
		used["MPI_Datatype"] = true
	}
	return slices.DeleteFunc(slices.Clone(typedefs), func(t Typedef) bool { return !used[t.Name] })
}

// baseType strips pointers and const.
func baseType(ctype string) string {
	words := strings.Fields(strings.ReplaceAll(ctype, "*", " "))
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "const" }), " ")
}

// valueType returns how wasm32 passes a C type; 0 is void.
func valueType(ctype string) (ValueType, error) {
	base := baseType(ctype)
	t, known := builtin[base]
	if i := slices.IndexFunc(typedefs, func(t Typedef) bool { return t.Name == base }); i >= 0 {
		t, known = typedefs[i].Type, true
	}
	switch {
	case !known:
		return 0, fmt.Errorf("unknown C type %q", base)
	case strings.Contains(ctype, "*"):
		return I32, nil
	case t == 0 && base != "void":
		return 0, fmt.Errorf("type %q can only be pointed to", base)
	}
	return t, nil
}

// Parse reads a C prototype without a semicolon, such as "int await_call(int id)". Every parameter needs a name; arrays
// and function types are written as pointers and typedefs. A type outside the closed list is an error.
func Parse(decl string) (Prototype, error) {
	p, err := parse(decl)
	if err != nil {
		return Prototype{}, fmt.Errorf("prototype %q: %w", decl, err)
	}
	return p, nil
}

func parse(decl string) (Prototype, error) {
	tokens, err := tokenize(decl)
	if err != nil {
		return Prototype{}, err
	}
	open := slices.Index(tokens, "(")
	if open < 0 || tokens[len(tokens)-1] != ")" {
		return Prototype{}, errors.New("want RESULT NAME(PARAMS)")
	}
	result, err := parseParam(tokens[:open])
	if err != nil {
		return Prototype{}, err
	}
	p := Prototype{Name: result.Name, Result: result.C}
	params := tokens[open+1 : len(tokens)-1]
	if slices.Equal(params, []string{"void"}) {
		return p, nil
	}
	for more := true; more; {
		one := params
		comma := slices.Index(params, ",")
		if more = comma >= 0; more {
			one, params = params[:comma], params[comma+1:]
		}
		if slices.Equal(one, []string{"..."}) {
			if more || len(p.Params) == 0 {
				return Prototype{}, errors.New("... must be the last of several parameters")
			}
			p.Params = append(p.Params, Param{Name: "...", Type: I32})
			break
		}
		param, err := parseParam(one)
		if err != nil {
			return Prototype{}, err
		}
		if param.Type == 0 {
			return Prototype{}, fmt.Errorf("parameter %s is void", param.Name)
		}
		p.Params = append(p.Params, param)
	}
	return p, nil
}

// parseParam reads a type and the name that ends it.
func parseParam(tokens []string) (Param, error) {
	if len(tokens) < 2 {
		return Param{}, fmt.Errorf("want a type and a name, not %q", strings.Join(tokens, " "))
	}
	name := tokens[len(tokens)-1]
	if name == "*" || name == "const" || !isWord(name) {
		return Param{}, fmt.Errorf("%q needs a name", strings.Join(tokens, " "))
	}
	if _, isType := builtin[name]; isType {
		return Param{}, fmt.Errorf("%q needs a name", strings.Join(tokens, " "))
	}
	var ctype string
	for i, t := range tokens[:len(tokens)-1] {
		switch {
		case t == "*":
			if i == 0 {
				return Param{}, errors.New("a type can't begin with *")
			}
		case !isWord(t):
			return Param{}, fmt.Errorf("unexpected %q", t)
		}
		ctype = declare(ctype, t)
	}
	// "char int *p" would lose its order in baseType: words may only follow a star if they are const.
	if star := strings.Index(ctype, "*"); star >= 0 {
		if rest := baseType(ctype[star:]); rest != "" {
			return Param{}, fmt.Errorf("unexpected %q after *", rest)
		}
	}
	t, err := valueType(ctype)
	if err != nil {
		return Param{}, err
	}
	return Param{Name: name, C: ctype, Type: t}, nil
}

func isWord(token string) bool {
	c := token[0]
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func tokenize(decl string) ([]string, error) {
	var tokens []string
	for i := 0; i < len(decl); {
		c := decl[i]
		switch {
		case c == ' ' || c == '\t' || c == '\n':
			i++
		case strings.HasPrefix(decl[i:], "..."):
			tokens = append(tokens, "...")
			i += 3
		case strings.IndexByte("*(),", c) >= 0:
			tokens = append(tokens, decl[i:i+1])
			i++
		default:
			end := i
			for end < len(decl) && (isWord(decl[end:]) || end > i && decl[end] >= '0' && decl[end] <= '9') {
				end++
			}
			if end == i {
				return nil, fmt.Errorf("unexpected %q", c)
			}
			tokens = append(tokens, decl[i:end])
			i = end
		}
	}
	if len(tokens) == 0 {
		return nil, errors.New("empty")
	}
	return tokens, nil
}
