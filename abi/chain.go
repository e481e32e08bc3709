package abi

const noteMigrate = "arrives with migration of calls between executors"

var roomChain = Room{
	Name: "chain",
	Doc: "Calls made by calls. A handle is a small integer that means something only to the instance that got it, for one of " +
		"its own children; ECHILD for any other. Since a call waits only for its own children, no cycle of waits can come about. " +
		"While it waits its slot is free for others. Children that still run when it ends go on, unless it was cancelled, passed " +
		"its deadline or was lost with its executor: then all below it are cancelled. While an executor has lost its planner, a call " +
		"that makes its first child waits for the planner's return.",
	Funcs: []Func{
		{
			Module: Native, Support: Built, Mission: "int chain_name(name, args)",
			Decl: "int chain_name(const char *name, size_t name_len, const void *in, size_t in_len)",
			Doc:  "Starts a call of the same user's function name with the in_len bytes at in as its input, and returns its handle at once. It runs the version that the first call of name in this tree of calls ran, and its deadline is the caller's. ENOENT if there is no such function; EAGAIN if 64 calls are above this one, if it has 1,000 children, if its tree has 10,000 calls, if its children's inputs and outputs together pass 64 MiB or if the calls that wait on this executor keep more memory than it has for them; EMSGSIZE if the input passes the limit, EFAULT for a range outside memory; ENOTSUP for a call that no planner knows of. Where name is known here already, a limit of the tree shows only as the child's failure.",
		},
		{
			Module: Native, Support: Built, Mission: "int chain_ptr(ptr, args)",
			Decl: "int chain_ptr(skein_fn fn, const void *in, size_t in_len)",
			Doc:  "Starts a call of this module's function-table entry fn in an instance and memory of its own, begun from the function's snapshot, and returns its handle. fn takes nothing, reads its input like any call and returns the exit code. In a command fn runs without _start: no constructor has run unless the module exports __wasm_call_ctors, which is called first. EINVAL if fn is not such an entry, otherwise as chain_name.",
		},
		{
			Module: Native, Support: Built, Mission: "int await_call(call_id)",
			Decl: "int await_call(int id)",
			Doc:  "Waits for the child to end and returns its exit code, 0 to 255. ECHILD for a handle that is not mine, ECANCELED if it was cancelled, ETIMEDOUT if it passed its deadline, EIO if it trapped or its executor was lost; call_error has the words.",
		},
		{
			Module: Native, Support: Built, Mission: "byte* await_call_output(call_id)",
			Decl: "int await_call_output(int id, void *buf, size_t cap)",
			Doc:  "Waits for the child to end, copies at most cap bytes of its output to buf and returns the output's full size in bytes. May be repeated, so that cap 0 asks the size. Errors as await_call, EFAULT if buf is outside memory, and ENOBUFS if the output was not kept because it would have brought the inputs and outputs of all children beyond 64 MiB.",
		},
		{
			Module: Native, Support: Built,
			Decl: "int await_any(const int *ids, size_t n, int timeout_ms)",
			Doc:  "Waits until one of the n children has ended and returns its index in ids; the lowest if several have. timeout_ms is in milliseconds, 0 only looks and a negative one waits for ever. EAGAIN when the time is over, ECHILD if any handle is not mine, EINVAL if n is 0 or more than 1,000, EFAULT if ids is outside memory.",
		},
		{
			Module: Native, Support: Built,
			Decl: "int cancel_call(int id)",
			Doc:  "Asks the child to stop and returns 0 without waiting for it; a child that has ended stays as it is. ECHILD for a handle that is not mine.",
		},
		{
			Module: Native, Support: Built,
			Decl: "int call_error(int id, void *buf, size_t cap)",
			Doc:  "Copies at most cap bytes of the reason why the child failed, UTF-8 without a NUL, and returns the reason's full size; 0 if it succeeded. EAGAIN if it has not ended, ECHILD for a handle that is not mine, EFAULT if buf is outside memory.",
		},
		{
			Module: Env, Support: Built,
			Decl: "unsigned int __faasm_chain_name(const char *name, const unsigned char *in, long in_len)",
			Doc:  "Starts a call as chain_name does and returns its handle, to be awaited by the same instance; 0 if it could not be started.",
		},
		{
			Module: Env, Support: Built,
			Decl: "unsigned int __faasm_chain_ptr(faasm_fn fn, const unsigned char *in, long in_len)",
			Doc:  "Starts a call as chain_ptr does and returns its handle, 0 if it could not be started. fn takes no parameter, or one i32 that receives the input read as a decimal number; what it returns, if anything, is the exit code.",
		},
		{
			Module: Env, Support: Built,
			Decl: "int __faasm_await_call(unsigned int id)",
			Doc:  "Waits for the child and returns its exit code; 1 on any failure.",
		},
		{
			Module: Env, Support: Built,
			Decl: "int __faasm_await_call_output(unsigned int id, char **out, int *len)",
			Doc:  "Waits for the child, stores its output in memory from the guest's exported malloc (the guest frees it), its address at out and its size in bytes at len, and returns the exit code; 1 on any failure, which leaves out and len as they are.",
		},
		{
			Module: Env, Note: notePython,
			Decl: "unsigned int __faasm_chain_py(const char *entry, const unsigned char *in, long in_len)",
			Doc:  "Starts a call of another entry point of the same Python function and returns its handle; 0 if it could not be started.",
		},
		{
			Module: Env, Note: noteMigrate,
			Decl: "void __faasm_migrate_point(FaasmMigrateEntryPoint fn, int arg)",
			Doc:  "A point where the call may move to another executor, where it goes on as fn(arg); if it doesn't move it returns.",
		},
	},
}
