package abi

import (
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, c := range []struct{ decl, name, signature, text string }{
		{"int f(void)", "f", "() -> i32", "int f(void)"},
		{"void f(int a)", "f", "(i32)", "void f(int a)"},
		{"void  *f( const char*key,size_t n )", "f", "(i32, i32) -> i32", "void *f(const char *key, size_t n)"},
		{"int64_t f(int64_t off, uint64_t *sum)", "f", "(i64, i32) -> i64", "int64_t f(int64_t off, uint64_t *sum)"},
		{"double f(float x, double y)", "f", "(f32, f64) -> f64", "double f(float x, double y)"},
		{"int f(char ***argv, const char *const *envp)", "f", "(i32, i32) -> i32", "int f(char ***argv, const char *const *envp)"},
		{"int f(unsigned long long a, long b)", "f", "(i64, i32) -> i32", "int f(unsigned long long a, long b)"},
		{"void f(ident_t *loc, int argc, kmpc_micro fn, ...)", "f", "(i32, i32, i32, i32)", "void f(ident_t *loc, int argc, kmpc_micro fn, ...)"},
		{"int MPI_Comm_free(MPI_Comm *comm)", "MPI_Comm_free", "(i32) -> i32", "int MPI_Comm_free(MPI_Comm *comm)"},
		{"int f(skein_fn fn, off_t off)", "f", "(i32, i64) -> i32", "int f(skein_fn fn, off_t off)"},
	} {
		p, err := Parse(c.decl)
		if err != nil {
			t.Error(err)
			continue
		}
		if p.Name != c.name || p.Signature().String() != c.signature || p.String() != c.text {
			t.Errorf("Parse(%q) = %s, %s, %s; want %s, %s, %s", c.decl, p.Name, p.Signature(), p, c.name, c.signature, c.text)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for decl, want := range map[string]string{
		"":                            "empty",
		"int f":                       "want RESULT NAME(PARAMS)",
		"int f(void);":                "unexpected ';'",
		"f(void)":                     "want a type and a name",
		"int f()":                     "want a type and a name",
		"int f(int)":                  "want a type and a name",
		"int f(unsigned int)":         "needs a name",
		"int f(const char *)":         "needs a name",
		"int f(void a)":               "parameter a is void",
		"int f(quux a)":               `unknown C type "quux"`,
		"quux *f(int a)":              `unknown C type "quux"`,
		"int f(ident_t loc)":          "can only be pointed to",
		"int f(..., int a)":           "... must be the last",
		"int f(...)":                  "... must be the last",
		"int f(char * int p)":         `unexpected "int" after *`,
		"int f(int dims[])":           "unexpected '['",
		"int f(int (*fn)(void))":      "needs a name",
		"int f(int a,, int b)":        "want a type and a name",
		"int f(* a)":                  "a type can't begin with *",
		"int const f(int register a)": `unknown C type "int register"`,
	} {
		if p, err := Parse(decl); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q) = %v, %v; want an error with %q", decl, p, err, want)
		}
	}
}

// What Parse accepts, String writes so that Parse reads the same.
func FuzzParse(f *testing.F) {
	for _, row := range Rows() {
		f.Add(row.Decl)
	}
	f.Add("int f(char ** const* p, ...)")
	f.Fuzz(func(t *testing.T, decl string) {
		p, err := Parse(decl)
		if err != nil {
			return
		}
		again, err := Parse(p.String())
		if err != nil {
			t.Fatalf("%q became %q: %v", decl, p, err)
		}
		if again.String() != p.String() || !again.Signature().Equal(p.Signature()) {
			t.Fatalf("%q became %q, then %q", decl, p, again)
		}
	})
}

func TestRooms(t *testing.T) {
	var names []string
	for _, room := range Rooms() {
		names = append(names, room.Name)
		if !strings.HasSuffix(room.Doc, ".") {
			t.Errorf("room %s: doc doesn't end with a period", room.Name)
		}
		for _, c := range room.Consts {
			if !strings.HasSuffix(c.Doc, ".") {
				t.Errorf("constant %s: doc doesn't end with a period", c.Name)
			}
		}
	}
	if want := strings.Fields("io chain state memory fs wasi dynlink threads mpi openmp"); !slices.Equal(names, want) {
		t.Errorf("rooms are %v, want %v", names, want)
	}
}

func TestRows(t *testing.T) {
	seen := map[[2]string]string{}
	wasi := 0
	for _, room := range Rooms() {
		for _, f := range room.Funcs {
			row, err := f.Row(room.Name)
			if err != nil {
				t.Error(err)
				continue
			}
			name := row.Module + "." + row.Name
			if other, twice := seen[[2]string{row.Module, row.Name}]; twice {
				t.Errorf("%s is in room %s and in room %s", name, other, room.Name)
			}
			seen[[2]string{row.Module, row.Name}] = room.Name
			if !slices.Contains([]string{Native, Env, WASI, WASIThreads}, row.Module) {
				t.Errorf("%s: unknown module", name)
			}
			if !strings.HasSuffix(row.Doc, ".") {
				t.Errorf("%s: doc doesn't end with a period", name)
			}
			if row.Support != Built && row.Note == "" {
				t.Errorf("%s is %s and has no note", name, row.Support)
			}
			if row.Support > Built {
				t.Errorf("%s: %s", name, row.Support)
			}
			if got, ok := Lookup(row.Module, row.Name); !ok || got.Decl != row.Decl {
				t.Errorf("Lookup(%s) = %q, %t", name, got.Decl, ok)
			}
			if row.Module == WASI {
				wasi++
			}
		}
	}
	if wasi != 46 {
		t.Errorf("%d rows of WASI preview 1, want 46", wasi)
	}
	if _, ok := Lookup(Native, "read_my_mind"); ok {
		t.Error("Lookup finds a row that isn't there")
	}
}

// The rows that the mission names: the first column of the design's host-interface.md §2, literally.
func TestMission(t *testing.T) {
	for _, mission := range []string{
		"byte* read_call_input()",
		"void write_call_output(out_data)",
		"int chain_name(name, args)",
		"int chain_ptr(ptr, args)",
		"int await_call(call_id)",
		"byte* await_call_output(call_id)",
		"byte* get_state(key, flags)",
		"byte* get_state_offset(key, off, flags)",
		"void set_state(key, val)",
		"void set_state_offset(key, val, len, off)",
		"void push/pull_state(key)",
		"void push/pull_state_offset(key, off)",
		"void append_state(key, val)",
		"void lock_state_read/write(key)",
		"dlopen/dlsym", "dlclose",
		"mmap", "munmap",
		"dup",
		"WASI",
		"pthreads",
		"MPI",
		"OpenMP",
	} {
		if !slices.ContainsFunc(Rows(), func(r Row) bool { return r.Mission == mission }) {
			t.Errorf("no row carries out the mission's %s", mission)
		}
	}
}

// What the executor serves today. A row joins this list in the commit that serves it.
func TestBuilt(t *testing.T) {
	var built []string
	for _, row := range Rows() {
		if row.Support == Built && row.Module != WASI {
			built = append(built, row.Module+"."+row.Name)
		}
	}
	want := strings.Fields(`
		faasm.read_call_input faasm.write_call_output faasm.append_call_output faasm.last_error
		env.__faasm_read_input env.__faasm_write_output
		faasm.chain_name faasm.chain_ptr faasm.await_call faasm.await_call_output faasm.await_any faasm.cancel_call faasm.call_error
		env.__faasm_chain_name env.__faasm_chain_ptr env.__faasm_await_call env.__faasm_await_call_output
		faasm.get_state faasm.map_state faasm.get_state_offset
		faasm.read_state faasm.set_state faasm.set_state_offset faasm.push_state faasm.pull_state faasm.discard_state
		faasm.push_state_offset faasm.pull_state_offset faasm.append_state faasm.read_appended_state faasm.clear_appended_state
		faasm.lock_state_read faasm.lock_state_write faasm.unlock_state_read faasm.unlock_state_write
		faasm.lock_state_global_read faasm.lock_state_global_write faasm.unlock_state_global_read faasm.unlock_state_global_write
		faasm.state_size faasm.delete_state faasm.expire_state faasm.compare_and_set_state faasm.add_state_i64 faasm.list_state
		env.__faasm_read_state env.__faasm_read_state_ptr env.__faasm_read_state_offset env.__faasm_read_state_offset_ptr
		env.__faasm_write_state env.__faasm_write_state_offset env.__faasm_write_state_from_file
		env.__faasm_push_state env.__faasm_push_state_partial env.__faasm_push_state_partial_mask env.__faasm_pull_state
		env.__faasm_append_state env.__faasm_read_appended_state env.__faasm_clear_appended_state
		env.__faasm_lock_state_read env.__faasm_unlock_state_read env.__faasm_lock_state_write env.__faasm_unlock_state_write
		env.__faasm_flag_state_dirty env.__faasm_flag_state_offset_dirty
		faasm.dup faasm.dup2 faasm.fcntl env.dup env.dup2`)
	if !slices.Equal(built, want) {
		t.Errorf("built rows:\n%v\nwant:\n%v", built, want)
	}
}

func TestNearest(t *testing.T) {
	for _, c := range []struct{ module, name, want string }{
		{Native, "read_cal_input", "faasm.read_call_input"},
		{Env, "read_call_input", "faasm.read_call_input"},
		{"skein", "set_state", "faasm.set_state"},
		{Native, "mmapp", "faasm.mmap"},
		{Env, "mmapp", "env.mmap"},
		{Env, "MPI_Sendd", "env.MPI_Send"},
		{"wasi_unstable", "fd_write", "wasi_snapshot_preview1.fd_write"},
		{"wasi", "thread_spawn", "wasi.thread-spawn"},
	} {
		if got := Nearest(c.module, c.name); got != c.want {
			t.Errorf("Nearest(%s.%s) = %s, want %s", c.module, c.name, got, c.want)
		}
	}
	if got := Nearest("x", strings.Repeat("y", 1<<20)); got == "" {
		t.Error("a name without likeness has no nearest row")
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"kitten", "sitting", 3}, {"flaw", "lawn", 2}, {"abc", "abc", 0}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestErrnos(t *testing.T) {
	all := Errnos()
	if len(all) != 77 {
		t.Fatalf("%d error numbers, want 77", len(all))
	}
	for e, want := range map[Errno]string{
		0: "ESUCCESS", 8: "EBADF", 21: "EFAULT", 28: "EINVAL", 44: "ENOENT", 52: "ENOSYS", 69: "EROFS", 76: "ENOTCAPABLE", 77: "Errno(77)",
	} {
		if e.Name() != want {
			t.Errorf("errno %d is %s, want %s", e, e.Name(), want)
		}
	}
	for _, e := range all {
		if e.Text() == "" {
			t.Errorf("%s has no text", e.Name())
		}
	}
	if got := ENOENT.Error(); got != "ENOENT: no such file or directory" {
		t.Errorf("ENOENT says %q", got)
	}
}

func BenchmarkLookup(b *testing.B) {
	for b.Loop() {
		if _, ok := Lookup(Env, "MPI_Sendrecv"); !ok {
			b.Fatal("no such row")
		}
	}
}
