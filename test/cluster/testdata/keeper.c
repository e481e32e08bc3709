// Operations on shared state for tests of what is left of them when something breaks. The exit code is the errno of what failed.
#include <skein.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TRY(x) do { long long r_ = (x); if (r_ < 0) return (int)-r_; } while (0)

static int output_number(long long n) {
    char text[32];
    return skein_output(text, snprintf(text, sizeof text, "%lld", n)) < 0;
}

// The whole value in the global tier; 0 bytes if there is none.
static long long global(const char *key, char *buf, size_t size) {
    long long n = __skein_read_appended_state(key, strlen(key), 0, buf, size - 1);
    if (n == -ENOENT)
        n = 0;
    if (n >= 0)
        buf[n] = 0;
    return n;
}

// Reads a number and writes it plus one, which nobody but the lock keeps others from doing too.
static int increment(const char *key) {
    char text[32] = {0};
    TRY(__skein_lock_state_global_write(key, strlen(key)));
    TRY(__skein_lock_state_write(key, strlen(key)));
    TRY(skein_discard_state(key)); // what a holder that failed has left here
    int r = skein_pull_state(key);
    if (r != -ENOENT) {
        TRY(r);
        TRY(__skein_read_state(key, strlen(key), 0, text, sizeof text - 1));
    }
    int n = snprintf(text, sizeof text, "%lld", atoll(text) + 1);
    TRY(skein_set_state(key, text, n));
    TRY(skein_push_state(key));
    TRY(skein_output(text, n));
    TRY(__skein_unlock_state_write(key, strlen(key)));
    TRY(__skein_unlock_state_global_write(key, strlen(key)));
    return 0;
}

// Waits until somebody has stored a value.
static int await_value(const char *key) {
    char c;
    for (int i = 0; i < 12000; i++) {
        if (global(key, &c, 1) >= 0 && __skein_read_appended_state(key, strlen(key), 0, &c, 1) > 0)
            return 0;
        usleep(5000);
    }
    return ETIMEDOUT;
}

// Takes the lock, pushes "pushed", leaves "unpushed" here, says so, and stays.
static int stay(const char *key, const char *said) {
    TRY(__skein_lock_state_global_write(key, strlen(key)));
    TRY(__skein_lock_state_write(key, strlen(key)));
    TRY(skein_set_state(key, "pushed  ", 8));
    TRY(skein_push_state(key));
    TRY(skein_set_state_at(key, 0, "unpushed", 8));
    TRY(skein_append_state(said, "here", 4));
    for (volatile int i = 0;; i++)
        ;
}

// Takes the lock, says so, and when told to go on writes a hundred times with it. The answer is how many were refused.
static int stale(const char *key, const char *said, const char *go) {
    size_t k = strlen(key);
    TRY(__skein_lock_state_global_write(key, k));
    TRY(skein_set_state(key, "fine", 4));
    TRY(skein_push_state(key));
    TRY(skein_append_state(said, "here", 4));
    TRY(await_value(go));
    int refused = 0;
    for (int i = 0; i < 100; i++) {
        long long r = 0;
        int64_t sum;
        switch (i % 8) {
        case 0: r = skein_set_state(key, "stale", 5) ?: skein_push_state(key); break;
        case 1: r = skein_pull_state(key) ?: skein_set_state_at(key, 1, "stale", 5) ?: skein_push_state(key); break;
        case 2: r = skein_append_state(key, "stale", 5); break;
        case 3: r = __skein_compare_and_set_state(key, k, "fresh", 5, "stale", 5); break;
        case 4: r = __skein_add_state_i64(key, k, 1, &sum); break;
        case 5: r = __skein_clear_appended_state(key, k); break;
        case 6: r = skein_delete_state(key); break;
        case 7: r = skein_expire_state(key, 1); break;
        }
        refused += r == -ESTALE;
    }
    char text[64];
    int n = snprintf(text, sizeof text, "refused %d, unlock %d", refused, __skein_unlock_state_global_write(key, k) == -ESTALE);
    TRY(skein_append_state(said, text, n));
    return skein_output(text, n) < 0;
}

// A hundred writers have disjoint stripes of a value, which share pages and chunks. A round writes one of a writer's stripes and
// pushes it: through a mapping or by rows.
static int write_rounds(int who, int writers, int rounds, int stripe, int stripes) {
    static unsigned char mine[1 << 17];
    int64_t size = (int64_t)stripe * stripes;
    int each = stripes / writers;
    unsigned char *all = NULL;
    if (who % 2 && !(all = skein_get_state("w/value", size, 0)))
        return errno;
    for (int round = 0; round < rounds; round++) {
        int64_t at = (int64_t)stripe * (who + writers * (round % each));
        unsigned char fill = (unsigned char)(1 + (who * 7 + round) % 255);
        if (all) {
            memset(all + at, fill, stripe);
        } else {
            memset(mine, fill, stripe);
            TRY(skein_set_state_at("w/value", at, mine, stripe));
        }
        TRY(__skein_push_state_offset("w/value", 7, at, stripe));
        if (round % 8 == 7)
            TRY(__skein_pull_state_offset("w/value", 7, at, stripe));
        TRY(__skein_read_state("w/value", 7, at, mine, stripe));
        for (int i = 0; i < stripe; i++)
            if (mine[i] != fill) {
                char text[96];
                skein_output(text, snprintf(text, sizeof text, "writer %d, round %d: byte %d of %lld is %d, not %d", who, round, i, (long long)at, mine[i], fill));
                return 200; // no errno: bytes are lost
            }
    }
    return 0;
}

static int all_of(const unsigned char *p, size_t size, unsigned char fill) {
    for (size_t i = 0; i < size; i++)
        if (p[i] != fill)
            return 0;
    return 1;
}

// Tries something for up to 30 s, and gives how often it failed, or -errno.
static int until(int (*try)(const char *key), const char *key) {
    for (int failed = 0;; failed++) {
        int r = try(key);
        if (r >= 0 || failed == 300)
            return r < 0 ? r : failed;
        usleep(100000);
    }
}

// Makes all of a large value one byte, by a copy ("set") or in place ("map"), and pushes until that succeeds. What was not pushed
// must have stayed here meanwhile. The answer is how often the push failed.
static int fill_and_push(const char *key, const char *how, size_t size, unsigned char fill) {
    unsigned char *all = NULL;
    if (!strcmp(how, "map")) {
        if (!(all = skein_get_state(key, size, 0)))
            return errno;
        memset(all, fill, size);
    } else {
        unsigned char *mine = malloc(size);
        memset(mine, fill, size);
        TRY(skein_set_state(key, mine, size));
        free(mine);
    }
    int r = skein_push_state(key), failed = r < 0;
    if (!all && !(all = skein_get_state(key, size, 0)))
        return errno;
    if (!all_of(all, size, fill))
        return 200; // no errno: bytes are lost
    if (failed)
        TRY(failed += until(skein_push_state, key));
    return output_number(failed);
}

// Pulls a large value until that succeeds; all of it must be one byte then. The answer is how often the pull failed.
static int pull_and_look(const char *key, size_t size, unsigned char fill) {
    int failed = until(skein_pull_state, key);
    TRY(failed);
    unsigned char *all = skein_get_state(key, size, 0);
    if (!all)
        return errno;
    return all_of(all, size, fill) ? output_number(failed) : 200;
}

SKEIN_EXPORT(handle) int handle(void) {
    static char in[256], word[16], a[64], b[64], c[64], buf[1 << 18];
    int n = __skein_read_call_input(in, sizeof in - 1), numbers[5];
    in[n < 255 ? n : 255] = 0;
    a[0] = b[0] = c[0] = 0;
    sscanf(in, "%15s %63s %63s %63s", word, a, b, c);
    if (!strcmp(word, "add")) {
        int64_t sum;
        TRY(__skein_add_state_i64(a, strlen(a), atoll(b), &sum));
        return output_number(sum);
    }
    if (!strcmp(word, "append")) {
        long long at = skein_append_state(a, b, strlen(b));
        TRY(at);
        return output_number(at);
    }
    if (!strcmp(word, "get")) {
        long long size = global(a, buf, sizeof buf);
        TRY(size);
        return skein_output(buf, size) < 0;
    }
    if (!strcmp(word, "cas")) {
        int was = __skein_compare_and_set_state(a, strlen(a), b, strcmp(b, "-") ? strlen(b) : 0, c, strlen(c));
        TRY(was);
        return output_number(was);
    }
    if (!strcmp(word, "increment")) return increment(a);
    if (!strcmp(word, "stay")) return stay(a, b);
    if (!strcmp(word, "stale")) return stale(a, b, c);
    if (!strcmp(word, "write") && sscanf(in, "write %d %d %d %d %d", numbers, numbers + 1, numbers + 2, numbers + 3, numbers + 4) == 5)
        return write_rounds(numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]);
    if (!strcmp(word, "fill")) return fill_and_push(a, b, strtoul(c, NULL, 10), in[strlen(in) - 1]);
    if (!strcmp(word, "look")) return pull_and_look(a, strtoul(b, NULL, 10), c[0]);
    if (!strcmp(word, "lock")) {
        TRY(__skein_lock_state_global_write(a, strlen(a)));
        return -__skein_unlock_state_global_write(a, strlen(a));
    }
    // What holds locks and ends in some way.
    if (!strcmp(word, "hold")) {
        TRY(__skein_lock_state_global_write(a, strlen(a)));
        TRY(__skein_lock_state_write(a, strlen(a)));
        TRY(skein_append_state("h/said", "here", 4));
        if (!strcmp(b, "trap")) __builtin_trap();
        if (!strcmp(b, "exit")) exit(3);
        if (!strcmp(b, "return")) return 0;
        if (!strcmp(b, "sleep")) sleep(60);
        for (volatile int i = 0;; i++)
            ;
    }
    return 255;
}
