package abi

const noteMemory = "arrives with memory mappings"

var roomMemory = Room{
	Name: "memory",
	Doc: "Mappings of memory and of files into memory. Lengths are in bytes and are rounded up to the 64 KiB page. Numbers of " +
		"prot and flags are those of wasi-libc's <sys/mman.h>.",
	Funcs: []Func{
		{
			Module: Native, Mission: "mmap", Note: noteMemory,
			Decl: "void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)",
			Doc:  "Maps len bytes and returns their address; addr is a hint that is ignored. Anonymous memory is zero, a file's is a private copy of its bytes from off, zero past its end. Returns 0 and sets last_error: ENOMEM if memory can't grow, EBADF for fd, EINVAL for off or len 0, ENOTSUP for MAP_FIXED, for MAP_SHARED of a file and for PROT_NONE.",
		},
		{
			Module: Native, Mission: "munmap", Note: noteMemory,
			Decl: "int munmap(void *addr, size_t len)",
			Doc:  "Gives a mapping, or whole pages of one, back for reuse by later mappings and returns 0. EINVAL if addr is not on a page of a mapping.",
		},
		{
			Module: Env, Note: noteMemory,
			Decl: "void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)",
			Doc:  "As the native mmap, with (void *)-1 on failure as POSIX has it.",
		},
		{
			Module: Env, Note: noteMemory,
			Decl: "int munmap(void *addr, size_t len)",
			Doc:  "As the native munmap, with -1 on failure as POSIX has it.",
		},
		{
			Module: Env, Note: noteMemory,
			Decl: "void *__sbrk(long increment)",
			Doc:  "Moves the end of the heap by increment bytes, a multiple of the page, and returns where it was before; 0 asks where it is. (void *)-1 if memory can't grow.",
		},
	},
}
