// F_DUPFD for fcntl, which wasi-libc lacks: implemented in sdk/c/posix.c. All else goes to wasi-libc's.

#include_next <fcntl.h>

#ifndef SKEIN_FCNTL_H
#define SKEIN_FCNTL_H

#ifndef F_DUPFD
#define F_DUPFD 0
#endif

#ifdef __cplusplus
extern "C" {
#endif

int skein_dupfd(int fd, int least);

#ifdef __cplusplus
}
#endif

// A use of the name within its own expansion is the function.
#define skein_fcntl_arg(arg, ...) (arg)
#define fcntl(fd, cmd, ...)                                                      \
	((cmd) == F_DUPFD ? skein_dupfd((fd), (int)skein_fcntl_arg(__VA_ARGS__ + 0)) \
	                  : fcntl((fd), (cmd), __VA_ARGS__ + 0))

#endif
