package abi

const noteDynlink = "arrives with shared libraries"

var roomDynlink = Room{
	Name: "dynlink",
	Doc: "Shared libraries from the guest's file system, by the dynamic-linking ABI of the WebAssembly tool conventions. Numbers " +
		"of flags are those of musl's <dlfcn.h>.",
	Funcs: []Func{
		{
			Module: Native, Mission: "dlopen/dlsym", Note: noteDynlink,
			Decl: "int dlopen(const char *path, size_t path_len, int flags)",
			Doc:  "Loads the library at path and those it needs, runs their constructors and returns a handle greater than 0; the same library again gives the same handle and counts a reference. An empty path means the program itself. ENOENT if there is no such file, ENOEXEC if it is not a library that fits, ENOMEM if it finds no room.",
		},
		{
			Module: Native, Mission: "dlopen/dlsym", Note: noteDynlink,
			Decl: "void *dlsym(int handle, const char *name, size_t name_len)",
			Doc:  "Returns the symbol's value: an index of the function table that the guest calls directly, or the address of data. Handle 0 is RTLD_DEFAULT and searches everything in load order. Returns 0 and sets last_error: ENOENT if there is no such symbol, EINVAL for the handle.",
		},
		{
			Module: Native, Mission: "dlclose", Note: noteDynlink,
			Decl: "int dlclose(int handle)",
			Doc:  "Drops one reference of the library and returns 0; its code stays until the call ends. EINVAL for the handle.",
		},
		{
			Module: Native, Note: noteDynlink,
			Decl: "int dlerror(void *buf, size_t cap)",
			Doc:  "Copies at most cap bytes of what went wrong last in this room, UTF-8 without a NUL, forgets it if all of it fitted, and returns its full size; 0 if nothing did.",
		},
		{
			Module: Env, Note: noteDynlink,
			Decl: "void *dlopen(const char *path, int flags)",
			Doc:  "As the native dlopen, with a NULL path for the program itself and 0 on failure.",
		},
		{
			Module: Env, Note: noteDynlink,
			Decl: "void *dlsym(void *handle, const char *name)",
			Doc:  "As the native dlsym; 0 on failure.",
		},
		{
			Module: Env, Note: noteDynlink,
			Decl: "int dlclose(void *handle)",
			Doc:  "As the native dlclose, with a result other than 0 on failure.",
		},
		{
			Module: Env, Note: noteDynlink,
			Decl: "char *dlerror(void)",
			Doc:  "Returns what went wrong last as a NUL-terminated string that is valid until the next call of it, and forgets it; 0 if nothing did.",
		},
	},
}
