// dup and dup2, which wasi-libc lacks: implemented in sdk/c/posix.c.

#include_next <unistd.h>

#ifndef SKEIN_UNISTD_H
#define SKEIN_UNISTD_H

#ifdef __cplusplus
extern "C" {
#endif

int dup(int fd);
int dup2(int fd, int to);

#ifdef __cplusplus
}
#endif

#endif
