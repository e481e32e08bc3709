// plain is a command-line program: no SDK, no row of the host interface, only what any C program has.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int cat(void) {
    char buf[1 << 16];
    for (size_t n; (n = fread(buf, 1, sizeof buf, stdin)) > 0;) {
        if (fwrite(buf, 1, n, stdout) != n) return 1;
    }
    return fflush(stdout) != 0;
}

// zeros writes what it can and looks at no error.
static int zeros(long n) {
    static char buf[1 << 16];
    for (; n > 0; n -= (long)sizeof buf) {
        if (fwrite(buf, 1, n < (long)sizeof buf ? (size_t)n : sizeof buf, stdout) == 0) clearerr(stdout);
    }
    fflush(stdout);
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 2) return cat();
    if (!strcmp(argv[1], "args")) {
        for (int i = 0; i < argc; i++) puts(argv[i]);
    } else if (!strcmp(argv[1], "env")) {
        for (int i = 2; i < argc; i++) {
            const char *v = getenv(argv[i]);
            printf("%s=%s\n", argv[i], v ? v : "(none)");
        }
    } else if (!strcmp(argv[1], "length")) { // of a variable that is not to be shown
        const char *v = getenv(argv[2]);
        printf("%zu\n", v ? strlen(v) : 0);
    } else if (!strcmp(argv[1], "fail")) {
        fputs("half of it", stdout);
        fputs("it went wrong\n", stderr);
        return atoi(argv[2]);
    } else if (!strcmp(argv[1], "zeros")) {
        return zeros(atol(argv[2]));
    }
    return 0;
}
