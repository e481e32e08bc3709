// fanout calls functions of its own by pointer, and they call others: each in an instance and a memory of its own.
#include <skein.h>
#include <stdio.h>
#include <stdlib.h>

enum { WORKERS = 4, LEAVES = 4 };

static int input_number(void) {
    char *in = skein_input(NULL);
    int n = in ? atoi(in) : 0;
    free(in);
    return n;
}

static int output_number(int n) {
    char text[16];
    snprintf(text, sizeof text, "%d", n);
    return skein_output_string(text) < 0;
}

// sum starts n children of fn with the numbers from first on, waits for them all and adds up what they put out.
static int sum(int (*fn)(void), int first, int n) {
    int ids[n], total = 0;
    for (int i = 0; i < n; i++) {
        char text[16];
        ids[i] = skein_chain_fn(fn, text, snprintf(text, sizeof text, "%d", first + i));
        if (ids[i] < 0)
            return -1;
    }
    for (int i = 0; i < n; i++) {
        char *out = skein_await(ids[i]) == 0 ? skein_await_output(ids[i], NULL) : NULL;
        if (!out)
            return -1;
        total += atoi(out);
        free(out);
    }
    return total;
}

static int leaf(void) {
    int n = input_number();
    return output_number(n * n);
}

static int worker(void) {
    int total = sum(leaf, input_number() * LEAVES + 1, LEAVES);
    return total < 0 || output_number(total);
}

SKEIN_EXPORT(handle) int handle(void) {
    int total = sum(worker, 0, WORKERS);
    if (total < 0)
        return 1;
    char text[64];
    snprintf(text, sizeof text, "the squares of 1 to %d add up to %d\n", WORKERS * LEAVES, total);
    return skein_output_string(text) < 0;
}
