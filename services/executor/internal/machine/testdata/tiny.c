// A small reactor that does what the first byte of its input says.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "skein/io.h"

__attribute__((export_name("skein_init"))) int skein_init(void);
__attribute__((export_name("skein_restored"))) void skein_restored(void);
__attribute__((export_name("handle"))) int handle(void);

static int booted, restored, calls;
static char planted[4096];
static volatile uint32_t sink, one = 1;

int skein_init(void) {
    booted = 1;
    return 0;
}

void skein_restored(void) { restored++; }

static uint8_t *end(void) { return (uint8_t *)(__builtin_wasm_memory_size(0) << 16); }

// looks for the complement of what is in memory, so that the question is not its own answer.
static int found(const uint8_t *inverted, size_t n) {
    for (uint8_t *p = (uint8_t *)8; p + n < end(); p++) {
        size_t i = 0;
        while (i < n && p[i] == (uint8_t)~inverted[i]) i++;
        if (i == n) return 1;
    }
    return 0;
}

static void plant(const uint8_t *secret, size_t n) {
    memcpy(planted + 100, secret, n);
    for (int i = 0; i < 3; i++) memcpy(malloc(n + 1000), secret, n);
    long grown = (long)__builtin_wasm_memory_grow(0, 2);
    if (grown != -1) memcpy((uint8_t *)(grown << 16) + 70000, secret, n);
}

// scribble grows memory and writes to pages all over it.
static void scribble(uint32_t seed) {
    srand(seed);
    __builtin_wasm_memory_grow(0, rand() % 4 ? rand() % 20 : 0);
    for (int i = rand() % 8 ? rand() % 200 : rand() % 3000; i > 0; i--) {
        uint8_t *p = (uint8_t *)(uintptr_t)(65536 + (uint32_t)rand() % (uint32_t)(end() - 65536 - 8));
        if (p < (uint8_t *)&calls - 64 || p > (uint8_t *)&calls + 64) *p ^= (uint8_t)rand() | 1;
    }
    calls = 77;
}

static int deep(int n);
static int (*volatile again)(int) = deep;

static int deep(int n) {
    sink++;
    return again(n + 1) + n;
}

// tree calls itself 2^n times.
static uint32_t tree(uint32_t n) { return n ? tree(n - 1) * 3 + tree(n - 1) : one; }

static int fill(void) {
    size_t n = 48 << 20;
    char *big = malloc(n);
    if (!big) return 9;
    for (int i = 0;; i++) {
        memset(big, i, n);
        sink += (uint32_t)big[i % 1000];
    }
}

static int fresh(void) {
    struct { uint8_t random[16]; struct timespec wall, steady; } out;
    getentropy(out.random, sizeof out.random);
    clock_gettime(CLOCK_REALTIME, &out.wall);
    clock_gettime(CLOCK_MONOTONIC, &out.steady);
    return __skein_write_call_output(&out, sizeof out);
}

int handle(void) {
    uint8_t in[64];
    int n = __skein_read_call_input(in, sizeof in);
    calls++;
    if (n < 1) return calls == 1 && booted ? 0 : 1;
    switch (in[0]) {
    case 'n': {
        int now[3] = {booted, restored, calls};
        return __skein_write_call_output(now, sizeof now);
    }
    case 'p': plant(in + 1, (size_t)n - 1); return 0;
    case 'l': return found(in + 1, (size_t)n - 1) ? 42 : 0;
    case 'g': scribble(*(uint32_t *)(in + 4)); return 0;
    case 't': planted[5] = 1; __builtin_trap();
    case 'o': planted[5] = 1; return *(volatile int *)0xfffffff0;
    case 'r': return deep(0);
    case 'x': planted[5] = 1; _exit(3);
    case 'f': for (;;) sink++;
    case 'c': return (int)tree(60);
    case 'b': return fill();
    case 'w': return sleep(in[1]);
    case 'k': return fresh();
    case 'm': {
        uint32_t sum = 0;
        for (uint32_t i = 0; i < 80u * 1000 * 1000; i++) sum = sum * 31 + i + one;
        return sum == 1;
    }
    }
    return 99;
}
