#include "check.h"

// The first use of the allocator comes after a mapping: it must not take that for its own.
int main(void) {
    char *m = skein_get_state("k", 1 << 20, 0);
    CHECK(m && (uintptr_t)m % 4096 == 0);
    memset(m, 'v', 1 << 20);
    for (int i = 0; i < 3000; i++) {
        char *p = malloc(1000);
        CHECK(p);
        memset(p, '!', 1000);
    }
    for (int i = 0; i < 1 << 20; i++) CHECK(m[i] == 'v');
    CHECK(skein_get_state_offset("k", 1000, 10, 0, SKEIN_STATE_READ_ONLY_HINT) == m + 1000);
    CHECK(!skein_get_state("none", 0, 0) && errno == ENOENT);
    CHECK(skein_lock_state_read("k") == 0 && skein_unlock_state_read("k") == 0);
    CHECK(skein_lock_state_write("k") == 0 && skein_unlock_state_write("k") == 0);
    return 0;
}
