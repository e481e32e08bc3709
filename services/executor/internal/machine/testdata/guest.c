// One guest that goes wrong in the way that its first argument names.
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile int sink, one = 1;
static char *volatile kept;

static int deep(int n);
static int (*volatile again)(int) = deep; // so that the compiler can't make a loop of it

static int deep(int n) {
    volatile char frame[64];
    frame[n % 64] = (char)n;
    return again(n + 1) + frame[n % 64];
}

int main(int argc, char **argv) {
    const char *how = argc > 1 ? argv[1] : "";
    if (!strcmp(how, "exit")) exit(atoi(argv[2]));
    if (!strcmp(how, "unreachable")) __builtin_trap();
    if (!strcmp(how, "bounds")) return *(volatile int *)0xfffffff0;
    if (!strcmp(how, "divide")) return one / sink;
    if (!strcmp(how, "stack")) return deep(0);
    if (!strcmp(how, "loop")) for (;;) sink++;
    if (!strcmp(how, "sleep")) sleep(3600);
    if (!strcmp(how, "memory")) {
        for (;;) {
            if (!(kept = malloc(1 << 20))) return 9;
            kept[0] = 1;
        }
    }
    write(1, "fine\n", 5);
    return 0;
}
