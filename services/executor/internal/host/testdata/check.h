// A guest of these tests ends with the line of the first check that fails, modulo 256.
#include <errno.h>
#include <skein.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK(x) do { if (!(x)) return __LINE__ % 255 + 1; } while (0)
#define OUTSIDE ((void *)0xfffffff0)
