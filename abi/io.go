package abi

const (
	noteIdentity = "arrives with the Faasm compatibility rows"
	notePython   = "arrives with the CPython wrapper"
)

var roomIO = Room{
	Name: "io",
	Doc:  "What a call is given and what it gives back.",
	Funcs: []Func{
		{
			Module: Native, Support: Built, Mission: "byte* read_call_input()",
			Decl: "int read_call_input(void *buf, size_t cap)",
			Doc:  "Copies at most cap bytes of the call's input to buf and returns the input's full size in bytes, so that cap 0 asks the size. EFAULT if buf is outside memory.",
		},
		{
			Module: Native, Support: Built, Mission: "void write_call_output(out_data)",
			Decl: "int write_call_output(const void *ptr, size_t len)",
			Doc:  "Makes the len bytes at ptr the call's output, replacing what was written before, and returns 0. Any bytes are allowed. EMSGSIZE if the output would pass the limit (the old output stays), EFAULT if ptr is outside memory.",
		},
		{
			Module: Native, Support: Built,
			Decl: "int append_call_output(const void *ptr, size_t len)",
			Doc:  "Adds the len bytes at ptr to the end of the call's output and returns 0. EMSGSIZE if the output would pass the limit (nothing is added), EFAULT if ptr is outside memory.",
		},
		{
			Module: Native, Support: Built,
			Decl: "int last_error(void)",
			Doc:  "Returns the errno, positive, of this instance's last failed function whose result is an address; 0 if none failed in this call. A success doesn't clear it.",
		},
		{
			Module: Env, Support: Built,
			Decl: "long __faasm_read_input(unsigned char *buf, long len)",
			Doc:  "With len 0 returns the input's size in bytes. Otherwise copies at most len bytes to buf and returns how many were copied.",
		},
		{
			Module: Env, Support: Built,
			Decl: "void __faasm_write_output(const char *out, long len)",
			Doc:  "Makes the len bytes at out the call's output, as write_call_output does; it can't report an error, so an output past the limit fails the call.",
		},
		{
			Module: Env, Note: noteIdentity,
			Decl: "unsigned int __faasm_conf_flag(const char *key)",
			Doc:  "Returns 1 if the named flag of the executor is on and 0 if it is off or unknown; ALWAYS_ON and ALWAYS_OFF are what they say.",
		},
		{
			Module: Env, Note: noteIdentity,
			Decl: "void __faasm_backtrace(int depth)",
			Doc:  "Writes at most depth frames of the guest's stack to the call's log.",
		},
		{
			Module: Env, Note: noteIdentity,
			Decl: "void __faasm_host_interface_test(int test)",
			Doc:  "Faasm's hook for testing its hosts: 1 fails the call with a host error; other numbers do nothing.",
		},
		{
			Module: Env, Note: notePython,
			Decl: "void __faasm_get_py_user(unsigned char *buf, long len)",
			Doc:  "Copies the user of the Python function being called to buf, NUL-terminated and cut to len bytes.",
		},
		{
			Module: Env, Note: notePython,
			Decl: "void __faasm_get_py_func(unsigned char *buf, long len)",
			Doc:  "Copies the name of the Python function being called to buf, NUL-terminated and cut to len bytes.",
		},
		{
			Module: Env, Note: notePython,
			Decl: "void __faasm_get_py_entry(unsigned char *buf, long len)",
			Doc:  "Copies the name of the Python entry point being called to buf, NUL-terminated and cut to len bytes; empty for the default.",
		},
		{
			Module: Env, Note: noteIdentity,
			Decl: "int getpid(void)",
			Doc:  "Returns a process number that is the same throughout a call and means nothing outside it.",
		},
		{
			Module: Env, Note: noteIdentity,
			Decl: "unsigned int getuid(void)",
			Doc:  "Returns 1000, the user number of every guest.",
		},
		{
			Module: Env, Note: noteIdentity,
			Decl: "unsigned int geteuid(void)",
			Doc:  "Returns 1000, the user number of every guest.",
		},
		{
			Module: Env, Note: noteIdentity,
			Decl: "unsigned int getgid(void)",
			Doc:  "Returns 1000, the group number of every guest.",
		},
		{
			Module: Env, Note: noteIdentity,
			Decl: "unsigned int getegid(void)",
			Doc:  "Returns 1000, the group number of every guest.",
		},
	},
}
