// state does one thing with state many times, for benchmarks: its input is what, a key, a size in bytes and how often. It puts
// out how many ns that took by its own clock, and a number that shows that it was done.
#include <errno.h>
#include <skein.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CHECK(x) do { if (!(x)) return __LINE__ % 255 + 1; } while (0)

enum { PAGE = 4 << 10, GUEST_PAGE = 64 << 10, CHUNK = 256 << 10 };

static char what[16], key[64], other[72];
static size_t key_len, other_len;
static int size, n;
static volatile uint64_t kept; // so that what was read is not left out

static int64_t ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int done(int64_t began, int64_t number) {
    char text[48];
    int64_t took = ns() - began;
    snprintf(text, sizeof text, "%lld %lld", (long long)took, (long long)number);
    return skein_output_string(text) < 0;
}

static bool nap(void) { return nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL) == 0; }

// buffer is memory of its own that has been touched.
static char *buffer(void) {
    char *buf = aligned_alloc(GUEST_PAGE, (size + GUEST_PAGE - 1) & -GUEST_PAGE);
    if (buf) memset(buf, 1, size);
    return buf;
}

static int read_at(bool second, int64_t off, void *buf, size_t cap) {
    return second ? __skein_read_state(other, other_len, off, buf, cap) : __skein_read_state(key, key_len, off, buf, cap);
}

static int copied(void) {
    char *buf = buffer();
    CHECK(buf && read_at(false, 0, buf, size) == size);
    int64_t began = ns();
    for (int i = 0; i < n; i++) CHECK(read_at(false, 0, buf, size) == size);
    return done(began, n);
}

// The least host call that copies as much: the input is padded to the size.
static int input(void) {
    char *buf = buffer();
    CHECK(buf && __skein_read_call_input(buf, size) == size);
    int64_t began = ns();
    for (int i = 0; i < n; i++) CHECK(__skein_read_call_input(buf, size) == size);
    return done(began, n);
}

static int from_mapping(void) {
    char *buf = buffer(), *at = skein_get_state(key, 0, 0);
    CHECK(buf && at);
    memcpy(buf, at, size);
    int64_t began = ns();
    for (int i = 0; i < n; i++) {
        memcpy(buf, at, size);
        __asm__ volatile("" ::: "memory");
    }
    kept = buf[size - 1];
    return done(began, n);
}

// Both of two that share a value read all of it, or change a half each, "sum" and "add"; or memory of their own.
static int loop(bool own, bool add, int half) {
    uint64_t *at = own ? (uint64_t *)buffer() : skein_get_state(key, 0, 0), sum = 0;
    CHECK(at);
    int words = size / 8, from = add ? half * words / 2 : 0, to = add ? from + words / 2 : words;
    for (int j = from; j < to; j++) sum += at[j];
    int64_t began = ns();
    for (int i = 0; i < n; i++) {
        if (add)
            for (int j = from; j < to; j++) at[j]++;
        else
            for (int j = from; j < to; j++) sum += at[j];
        __asm__ volatile("" ::: "memory");
    }
    kept = sum;
    return done(began, n);
}

// Maps a value over memory of its own, again and again, and looks into it.
static int map(void) {
    char *at = buffer();
    CHECK(at);
    int64_t began = ns(), sum = 0;
    for (int i = 0; i < n; i++) {
        CHECK(__skein_map_state(key, key_len, 0, size, at, 0) == 0);
        sum += at[0];
    }
    return done(began, sum);
}

// Two values in turn, of which the executor keeps only one.
static int pull(void) {
    char *buf = buffer();
    CHECK(buf && read_at(true, 0, buf, size) == size);
    int64_t began = ns();
    for (int i = 0; i < n; i++) CHECK(read_at(i % 2, 0, buf, size) == size);
    return done(began, n);
}

// 4 KiB of each chunk, of two values in turn.
static int chunks(void) {
    char buf[PAGE];
    const int each = size / CHUNK;
    CHECK(read_at(true, 0, buf, sizeof buf) == size);
    int64_t began = ns();
    for (int i = 0; i < n; i++) CHECK(read_at(i / each % 2, (int64_t)(i % each) * CHUNK, buf, sizeof buf) == size);
    return done(began, n);
}

// The same past the replica: exactly these bytes.
static int range(void) {
    char buf[PAGE];
    int64_t began = ns();
    for (int i = 0; i < n; i++)
        CHECK(__skein_read_appended_state(key, key_len, (int64_t)(i % (size / CHUNK)) * CHUNK, buf, sizeof buf) == sizeof buf);
    return done(began, n);
}

static int push(void) {
    char *buf = buffer();
    CHECK(buf);
    int64_t began = ns();
    for (int i = 0; i < n; i++) {
        buf[0]++;
        CHECK(skein_set_state(key, buf, size) == 0 && skein_push_state(key) == 0);
    }
    return done(began, n);
}

// Changes so many bytes at each step of a mapped value, and pushes it. No change comes twice.
static int change(int bytes, int step) {
    char *at = skein_get_state(key, size, 0);
    CHECK(at && skein_push_state(key) == 0);
    int64_t began = ns();
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < size; j += step)
            for (int k = j; k < j + bytes; k++) at[k]++;
        CHECK(skein_push_state(key) == 0);
    }
    return done(began, n);
}

static int append(void) {
    char one[64] = {0};
    int64_t began = ns(), last = 0;
    for (int i = 0; i < n; i++) CHECK((last = __skein_append_state(key, key_len, one, sizeof one)) >= 0);
    return done(began, last + sizeof one);
}

// Takes a lock from another that does so too, n times, and gives it back. Whoever had it last itself holds it until the other has
// come; so one always stands in line soon, and each has it from the other. It tells how often it had.
static int lock(void) {
    char name[80];
    snprintf(name, sizeof name, "%s.turn", key);
    volatile struct { int last, came, left; } *turn = skein_get_state(name, sizeof *turn, SKEIN_STATE_LOCAL);
    CHECK(turn && __skein_lock_state_write(key, key_len) == 0);
    const int both = (++turn->came + 1) & ~1;
    CHECK(__skein_unlock_state_write(key, key_len) == 0);
    for (int tries = 0; turn->came < both; tries++) CHECK(tries < 100 * 1000 && nap());
    int handed = 0;
    int64_t began = ns();
    for (int tries = 0; handed < n && turn->left < both - 1; tries++) {
        CHECK(tries < 100 * 1000 && __skein_lock_state_write(key, key_len) == 0);
        const bool mine = turn->last == size; // which is who it is
        turn->last = size;
        handed += !mine;
        CHECK((!mine || nap()) && __skein_unlock_state_write(key, key_len) == 0);
    }
    int64_t took = ns() - began;
    CHECK(__skein_lock_state_write(key, key_len) == 0);
    turn->left++;
    CHECK(__skein_unlock_state_write(key, key_len) == 0);
    return done(ns() - took, handed);
}

// The same among executors; it notes who had it in the global tier if that is wanted.
static int global(bool noted) {
    const char me = (char)size;
    int64_t began = ns();
    for (int i = 0; i < n; i++) {
        CHECK(__skein_lock_state_global_write(key, key_len) == 0);
        if (noted) CHECK(__skein_append_state(key, key_len, &me, 1) >= 0);
        CHECK(__skein_unlock_state_global_write(key, key_len) == 0);
    }
    return done(began, n);
}

static int set(void) {
    char *buf = buffer();
    CHECK(buf && skein_set_state(key, buf, size) == 0);
    return done(ns(), size);
}

SKEIN_EXPORT(handle) int handle(void) {
    char in[97] = {0};
    int more = 0;
    __skein_read_call_input(in, sizeof in - 1);
    CHECK(sscanf(in, "%15s %63s %d %d %d", what, key, &size, &n, &more) >= 4);
    snprintf(other, sizeof other, "%s.other", key);
    key_len = strlen(key), other_len = strlen(other);
    const struct { const char *name; int (*does)(void); } simple[] = {
        {"set", set}, {"copied", copied}, {"input", input}, {"mapped", from_mapping}, {"map", map}, {"pull", pull},
        {"chunks", chunks}, {"range", range}, {"push", push}, {"append", append}, {"lock", lock},
    };
    for (size_t i = 0; i < sizeof simple / sizeof *simple; i++)
        if (!strcmp(what, simple[i].name)) return simple[i].does();
    if (!strcmp(what, "sum") || !strcmp(what, "add")) return loop(false, *what == 'a', more);
    if (!strcmp(what, "own-sum") || !strcmp(what, "own-add")) return loop(true, what[4] == 'a', more);
    if (!strcmp(what, "delta")) return change(PAGE, CHUNK);
    if (!strcmp(what, "sparse")) return change(PAGE, 100 * PAGE);
    if (!strcmp(what, "all")) return change(PAGE, PAGE);
    if (!strcmp(what, "global") || !strcmp(what, "noted")) return global(*what == 'n');
    return 255;
}
