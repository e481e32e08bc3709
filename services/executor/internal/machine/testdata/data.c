// A reactor with 2 MiB of data and 1 MiB that its constructor builds.
#include <stdint.h>
#include <stdlib.h>

__attribute__((export_name("handle"))) int handle(void);

#define ROW 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16
#define X4(...) __VA_ARGS__, __VA_ARGS__, __VA_ARGS__, __VA_ARGS__
#define MEG X4(X4(X4(X4(X4(X4(X4(ROW)))))))
static uint32_t table[1 << 19] = {MEG, MEG};
static uint32_t *built;
static int calls;

__attribute__((constructor)) static void build(void) {
    built = malloc(1 << 20);
    for (uint32_t i = 0; i < 1 << 18; i++) built[i] = i * 2654435761u;
    for (uint32_t i = 0; i < 1 << 19; i++) table[i] += i;
}

int handle(void) {
    uint32_t sum = 0;
    for (int i = 0; i < 16; i++) sum += table[i << 15] + built[i << 14];
    for (int i = 0; i < 16; i++) table[i << 15] = built[i << 14] = 1;
    uint32_t want = 0;
    for (uint32_t i = 0; i < 16; i++) want += (i << 15) + (i << 14) * 2654435761u + 1;
    return ++calls == 1 && sum == want ? 0 : (int)(sum & 127) + 1;
}
