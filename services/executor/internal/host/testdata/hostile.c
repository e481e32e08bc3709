// Calls rows of state with whatever arguments, out of memory that another instance changes meanwhile: each byte that a row
// looks at may be another at the next look.
#include "check.h"
#include <faasm/host_interface.h>

static uint32_t seed;
static uint32_t any(void) { return seed = seed * 1664525u + 1013904223u; }
static uint32_t few(void) { return any() >> (8 + any() % 24); }

static char *shared;
#define SIZE (256 << 10)

static void *place(void) {
    switch (any() % 6) {
    case 0: return (void *)any();
    case 1: return shared + SIZE - few() % 16;
    default: return shared + any() % SIZE;
    }
}

static void poke(void) {
    char *key = place();
    uint32_t n = any() % 8 ? any() % 6 : few();
    void *p = place();
    uint32_t len = any() % 8 ? few() % 5000 : any();
    int64_t off = any() % 4 ? few() % 100000 : (int64_t)any() << any() % 33;
    switch (any() % 24) {
    case 0: __skein_read_state(key, n, off, p, len); break;
    case 1: __skein_set_state(key, n, p, len % 100000); break;
    case 2: __skein_set_state_offset(key, n, p, len % 100000, off % 1000000); break;
    case 3: __skein_push_state(key, n); break;
    case 4: __skein_pull_state(key, n); break;
    case 5: __skein_push_state_offset(key, n, off, len); break;
    case 6: __skein_pull_state_offset(key, n, off, len); break;
    case 7: __skein_append_state(key, n, p, len % 1000); break;
    case 8: __skein_read_appended_state(key, n, off, p, len); break;
    case 9: __skein_clear_appended_state(key, n); break;
    case 10: __skein_state_size(key, n); break;
    case 11: __skein_delete_state(key, n); break;
    case 12: __skein_compare_and_set_state(key, n, p, len, place(), few() % 1000); break;
    case 13: __skein_add_state_i64(key, n, off, p); break;
    case 14: __skein_list_state(key, n, p, len); break;
    case 15: if (__skein_lock_state_read(key, n) == 0) __skein_unlock_state_read(key, n); break;
    case 16: __skein_get_state(key, n, few() % 100000, any() % 10); break;
    case 17: __skein_get_state_offset(key, n, off % 200000, few() % 100000, few() % 200000, any() % 10); break;
    case 18: // over nothing of its own but what is shared
        __skein_map_state(key, n, few() & -65536, few() % 65536, any() % 2 ? shared + 65536 : (void *)(any() | 0x80000000), any() % 10);
        break;
    case 19: __skein_unlock_state_write(key, n); break;
    default: // Faasm's, of which most end the call when they fail
        if (any() % 8) return;
        switch (any() % 8) {
        case 0: __faasm_read_state(key, p, len); break;
        case 1: __faasm_write_state(key, p, len % 100000); break;
        case 2: __faasm_read_state_ptr(key, len % 100000); break;
        case 3: __faasm_write_state_offset(key, len, few(), p, few() % 1000); break;
        case 4: __faasm_push_state_partial_mask(key, place()); break;
        case 5: __faasm_read_appended_state(key, p, len, few()); break;
        case 6: __faasm_flag_state_offset_dirty(key, few(), few(), few()); break;
        case 7: __faasm_write_state_from_file(key, place()); break;
        }
    }
}

int main(int argc, char **argv) {
    seed = atoi(argv[1]);
    shared = skein_get_state("shared", SIZE, 0);
    CHECK(shared);
    if (argc > 2) { // the one that changes it
        for (int i = 0; i < 3000000; i++) shared[any() % SIZE] = any() >> 30 ? 'a' + (any() >> 30) : 0;
        return 0;
    }
    for (int i = 0; i < 400; i++) poke();
    return 0;
}
