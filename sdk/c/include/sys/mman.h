// mmap and munmap as POSIX has them, over room memory of the host interface: implemented in sdk/c/posix.c, instead of wasi-libc's
// emulation. What the host refuses, and with which errno, is said at __skein_mmap. Of what else <sys/mman.h> declares, nothing is
// there: it would not link.

#ifndef SKEIN_SYS_MMAN_H
#define SKEIN_SYS_MMAN_H

#ifndef _WASI_EMULATED_MMAN
#define _WASI_EMULATED_MMAN // without it wasi-libc's header is an error
#endif
#include_next <sys/mman.h>

#endif
