// Does one thing many times, for benchmarks: its arguments are what, how many bytes, and how often.
#include "check.h"

volatile uint64_t sum;

int main(int argc, char **argv) {
    size_t size = atoi(argv[2]);
    int n = atoi(argv[3]);
    char *buf = malloc(size);
    const uint64_t *words = (const uint64_t *)buf;
    memset(buf, 1, size);
    CHECK(skein_set_state("k", buf, size) == 0);
    if (!strcmp(argv[1], "read"))
        for (int i = 0; i < n; i++) CHECK(__skein_read_state("k", 1, 0, buf, size) == (int)size);
    if (!strcmp(argv[1], "mapped")) CHECK((words = skein_get_state("k", 0, 0)));
    if (strcmp(argv[1], "read"))
        for (int i = 0; i < n; i++) {
            uint64_t s = 0;
            for (size_t j = 0; j < size / 8; j++) s += words[j];
            sum += s;
        }
    return 0;
}
