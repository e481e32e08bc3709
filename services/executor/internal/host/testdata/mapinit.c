// Maps before it would be frozen.
#include "check.h"
#include <sys/mman.h>

static char *early;

SKEIN_EXPORT(skein_init) int init(void) {
    early = mmap(NULL, 100, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(early != MAP_FAILED);
    strcpy(early, "early");
    return 0;
}

SKEIN_EXPORT(handle) int handle(void) {
    char *late = mmap(NULL, 100, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(late != MAP_FAILED && late != early && !strcmp(early, "early"));
    CHECK(munmap(early, 100) == 0);
    return 0;
}
