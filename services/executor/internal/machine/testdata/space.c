// A guest that maps state into its image and above it, in the way that its input says.
#include <skein.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SIZE (1 << 20)
#define PAGE 65536
#define CHECK(x) do { if (!(x)) return __LINE__; } while (0)

// In the image: every byte of it is something else than zero, but for the middle.
static unsigned char region[SIZE] __attribute__((aligned(PAGE)));

static unsigned char filled(size_t i) { return i >= SIZE / 4 && i < SIZE / 2 ? 0 : (unsigned char)(i * 7 % 255 + 1); }

SKEIN_EXPORT(skein_init) int init(void) {
    for (size_t i = 0; i < SIZE; i++) region[i] = filled(i);
    return 0;
}

static int intact(size_t from, size_t to) {
    for (size_t i = from; i < to; i++)
        if (region[i] != filled(i)) return 0;
    return 1;
}

static uint32_t state;
static uint32_t any(void) { return state = state * 1664525u + 1013904223u; }

SKEIN_EXPORT(handle) int handle(void) {
    unsigned char in[8] = {0};
    __skein_read_call_input(in, sizeof in);
    memcpy(&state, in + 4, 4);
    CHECK(intact(0, SIZE));
    unsigned char *above = NULL;
    size_t at = any() % 8 * PAGE, n = (any() % 8 + 1) * PAGE;
    for (const char *how = (const char *)in; how < (const char *)in + 4 && *how; how++) switch (*how) {
    case 'i': // inside the image
        CHECK(__skein_map_state("k", 1, 0, n, region + at, 0) == 0);
        CHECK(intact(0, at) && intact(at + n, SIZE));
        CHECK(region[at] == 'v' && region[at + n - 1] == 'v');
        memset(region + at, 'v', n); // all that anybody writes is this
        break;
    case 'a': // above it
        CHECK((above = __skein_get_state("k", 1, 0, 0)) && above[0] == 'v' && above[SIZE - 1] == 'v');
        memset(above, 'v', SIZE);
        CHECK(malloc(3 << 20)); // it may grow behind that
        break;
    case 'e': // whatever: none of it may do harm
        for (int i = 0; i < 300; i++) {
            uint32_t off = any() >> any() % 32, len = any() >> any() % 32, addr = any() | 0x80000000;
            if (i % 3) off &= -PAGE, addr &= -PAGE;
            int64_t far = i % 5 ? off : -(int64_t)off << i % 40;
            if (i % 4 == 0) { // not over its own stack
                size_t in = off % SIZE & -PAGE;
                addr = (uint32_t)(uintptr_t)(region + in);
                len %= SIZE - in + 1;
            }
            __skein_map_state("k", 1, i % 2 ? off : far, len, (void *)addr, any() % 8);
            __skein_get_state_offset("k", 1, far, len, i % 7 ? 0 : far % SIZE, any() % 4);
        }
        break;
    case 'x': __builtin_trap();
    }
    return 0;
}
