// What POSIX programs call and wasi-libc lacks, under its POSIX names: link it beside skein.c into a guest that uses it.

#include <skein.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static int posix(int result) {
	if (result >= 0)
		return result;
	errno = -result;
	return -1;
}

void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off) {
	static void *volatile first;
	if (!first) // the allocator takes its memory at its first use: before there is a mapping
		first = malloc(1);
	void *at = __skein_mmap(addr, len, prot, flags, fd, off);
	if (at)
		return at;
	errno = __skein_last_error();
	return MAP_FAILED;
}

int munmap(void *addr, size_t len) { return posix(__skein_munmap(addr, len)); }

int dup(int fd) { return posix(__skein_dup(fd)); }

int dup2(int fd, int to) { return posix(__skein_dup2(fd, to)); }

int skein_dupfd(int fd, int least) { return posix(__skein_fcntl(fd, SKEIN_F_DUPFD, least)); }
