package abi

var roomMemory = Room{
	Name: "memory",
	Doc: "Mappings of memory and of files into memory. Lengths are in bytes and are rounded up to the 64 KiB page. Numbers of " +
		"prot and flags are those of wasi-libc's <sys/mman.h>. Memory is never protected: a mapping can be read and written, and so " +
		"can what was unmapped, until another mapping clears it.",
	Funcs: []Func{
		{
			Module: Native, Mission: "mmap", Support: Built,
			Decl: "void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)",
			Doc:  "Maps len bytes and returns their address, a multiple of the page; addr is a hint that is ignored. Anonymous memory is zero, a file's is a private copy of its bytes from off, zero past its end. It ends with the call. Returns 0 and sets last_error: ENOMEM if memory can't grow, EINVAL for a len of 0, an off that is no multiple of the page, unknown prot, and flags that are neither MAP_PRIVATE nor MAP_SHARED, EBADF for fd, EACCES if it is not open for reading, ENODEV if it is neither a regular file nor /dev/zero, ENOTSUP for MAP_FIXED, for MAP_SHARED of a file, for PROT_NONE and PROT_EXEC, and for a guest of Go, whose allocator takes all memory for its own.",
		},
		{
			Module: Native, Mission: "munmap", Support: Built,
			Decl: "int munmap(void *addr, size_t len)",
			Doc:  "Gives the pages of mappings in a range back for reuse by later mappings and returns 0. EINVAL if addr is no multiple of the page, len is 0 or no page of the range is mapped; ENOMEM if a file's mapping would become two and there are too many.",
		},
		{
			Module: Env, Support: Built,
			Decl: "void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)",
			Doc:  "As the native mmap, with (void *)-1 on failure as POSIX has it.",
		},
		{
			Module: Env, Support: Built,
			Decl: "int munmap(void *addr, size_t len)",
			Doc:  "As the native munmap, with -1 on failure as POSIX has it.",
		},
		{
			Module: Env, Support: Built,
			Decl: "void *__sbrk(long increment)",
			Doc:  "Grows memory by increment bytes, a multiple of the page, and returns where they begin; 0 asks where memory ends. (void *)-1 if memory can't grow, which includes becoming smaller.",
		},
	},
}
