// pi throws points at a square and counts those in the circle, in batches of which each is a call by pointer. Each batch
// has a seed of its own, so that the answer is always the same.
#include <skein.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { POINTS = 1000000, MOST = 1000 };

// splitmix64: small, and good for any seed.
static uint64_t next(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static double coordinate(uint64_t *state) { return (double)(next(state) >> 11) * 0x1p-53; }

static int batch(void) {
    uint64_t seed, hits = 0;
    if (__skein_read_call_input(&seed, sizeof seed) != sizeof seed)
        return 1;
    for (int i = 0; i < POINTS; i++) {
        double x = coordinate(&seed), y = coordinate(&seed);
        hits += x * x + y * y <= 1;
    }
    return skein_output(&hits, sizeof hits) < 0;
}

SKEIN_EXPORT(handle) int handle(void) {
    char *in = skein_input(NULL);
    int workers = in && *in ? atoi(in) : 8;
    free(in);
    if (workers < 1 || workers > MOST)
        return 2;
    static int ids[MOST];
    for (int i = 0; i < workers; i++) {
        uint64_t seed = (uint64_t)i;
        if ((ids[i] = skein_chain_fn(batch, &seed, sizeof seed)) < 0)
            return 3;
    }
    uint64_t sum = 0;
    for (int i = 0; i < workers; i++) {
        uint64_t hits;
        if (skein_await(ids[i]) || __skein_await_call_output(ids[i], &hits, sizeof hits) != sizeof hits)
            return 4;
        sum += hits;
    }
    char text[64];
    snprintf(text, sizeof text, "%.6f after %d batches of %d points\n", 4.0 * (double)sum / ((double)workers * POINTS), workers, POINTS);
    return skein_output_string(text) < 0;
}
