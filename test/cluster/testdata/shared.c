// Calls of a tree that share state, over all executors: "all N" starts N of each of the others, and checks what they left.
#include <skein.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PART (100 * 1000) // parts share chunks and pages
#define MOST 64
#define CHECK(x) do { if (!(x)) return __LINE__ % 255 + 1; } while (0)

static char pattern(int part, int i) { return (char)(part * 31 + i * 7 + 1); }

// Writes a part of a value through a mapping.
static int part(int at, int n) {
    char *mine = skein_get_state_offset("parts", (int64_t)at * PART, PART, (int64_t)n * PART, 0);
    CHECK(mine);
    for (int i = 0; i < PART; i++)
        mine[i] = pattern(at, i);
    return skein_push_state("parts");
}

// Counts, under a lock of the cluster, in a way that would lose counts without.
static int count(void) {
    long long n = 0;
    for (int i = 0; i < 3; i++) {
        CHECK(__skein_lock_state_global_write("count", 5) == 0);
        CHECK(__skein_lock_state_write("count", 5) == 0); // among the calls here too, for they share the copy
        int pulled = skein_pull_state("count");
        CHECK(pulled == 0 || pulled == -ENOENT);
        n = 0;
        int size = __skein_read_state("count", 5, 0, &n, sizeof n);
        CHECK(size == sizeof n || size == -ENOENT);
        n++;
        CHECK(skein_set_state("count", &n, sizeof n) == 0 && skein_push_state("count") == 0);
        CHECK(__skein_unlock_state_write("count", 5) == 0);
        CHECK(__skein_unlock_state_global_write("count", 5) == 0);
    }
    int64_t sum;
    return __skein_add_state_i64("sum", 3, 1, &sum);
}

static int all(int n) {
    int ids[2 * MOST];
    for (int i = 0; i < 2 * n; i++) {
        char what[32];
        int len = snprintf(what, sizeof what, i % 2 ? "count" : "part %d %d", i / 2, n);
        ids[i] = skein_chain("shared", what, len);
        CHECK(ids[i] > 0);
    }
    for (int i = 0; i < 2 * n; i++) {
        int code = skein_await(ids[i]);
        if (code)
            return code < 0 ? -code : code;
    }
    char *parts = skein_get_state("parts", 0, SKEIN_STATE_PULL);
    CHECK(parts && skein_state_size("parts") == (int64_t)n * PART);
    for (int at = 0; at < n; at++)
        for (int i = 0; i < PART; i++)
            CHECK(parts[at * PART + i] == pattern(at, i));
    long long counted = 0;
    int64_t sum = 0;
    CHECK(skein_pull_state("count") == 0 && __skein_read_state("count", 5, 0, &counted, sizeof counted) == sizeof counted);
    CHECK(__skein_add_state_i64("sum", 3, 0, &sum) == 0);
    char text[64];
    snprintf(text, sizeof text, "%lld %lld", counted, (long long)sum);
    return skein_output_string(text);
}

SKEIN_EXPORT(handle) int handle(void) {
    char in[32] = {0};
    int a = 0, b = 0;
    __skein_read_call_input(in, sizeof in - 1);
    if (sscanf(in, "part %d %d", &a, &b) == 2) return part(a, b);
    if (!strcmp(in, "count")) return count();
    if (sscanf(in, "all %d", &a) == 1 && a <= MOST) return all(a);
    return 255;
}
