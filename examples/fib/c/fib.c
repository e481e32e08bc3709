// fib computes a Fibonacci number by two calls of itself, each of which does the same.
#include <skein.h>
#include <stdio.h>
#include <stdlib.h>

static int fib(void);

static int child(int n) {
    char text[16];
    return skein_chain_fn(fib, text, snprintf(text, sizeof text, "%d", n));
}

static long result(int id) {
    char *out = skein_await(id) == 0 ? skein_await_output(id, NULL) : NULL;
    long n = out ? atol(out) : -1;
    free(out);
    return n;
}

static int fib(void) {
    char *in = skein_input(NULL);
    int n = in && *in ? atoi(in) : 10;
    free(in);
    long f = n;
    if (n > 1) {
        int a = child(n - 1), b = child(n - 2); // both run while this call waits
        long x = result(a), y = result(b);
        if (x < 0 || y < 0)
            return 1;
        f = x + y;
    }
    char text[24];
    snprintf(text, sizeof text, "%ld\n", f);
    return skein_output_string(text) < 0;
}

SKEIN_EXPORT(handle) int handle(void) { return fib(); }
