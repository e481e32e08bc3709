// Maps parts of a shared file, writes to the copies, gives parts back, and reads what is mapped and what the file has. argv: the
// file's name, its size, a number for the random choices.
#include "check.h"
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>

#define PAGE 65536
#define MOST 24

static struct { unsigned char *at; size_t n, off; } maps[MOST]; // of pages; at is NULL for none
static unsigned char written[MOST][128];                      // what each page was filled with, 0 for nothing
static size_t size;
static uint32_t seed;

static uint32_t any(void) { return (seed = seed * 1664525u + 1013904223u) >> 8; }

// As in the test.
static unsigned char content(size_t i) { return i < size ? (unsigned char)(7 + (i >> 20) + (i * 7 >> 8)) : 0; }

static int right(int m) {
    for (size_t p = 0; p < maps[m].n; p++)
        for (size_t i = 0; i < PAGE; i += i < PAGE - 4096 - 977 ? 977 : 1) {
            unsigned char want = written[m][p] ? written[m][p] : content((maps[m].off + p) * PAGE + i);
            CHECK(maps[m].at[p * PAGE + i] == want);
        }
    return 0;
}

int main(int argc, char **argv) {
    int fd = open(argv[1], O_RDONLY), err;
    CHECK(argc == 4 && fd >= 0);
    size = (size_t)atol(argv[2]), seed = (uint32_t)atol(argv[3]);
    size_t pages = (size + PAGE - 1) / PAGE;
    for (int round = 0; round < 400; round++) {
        int m = (int)(any() % MOST);
        if (!maps[m].at) {
            maps[m].n = any() % 40 + 1, maps[m].off = any() % pages;
            maps[m].at = mmap(NULL, maps[m].n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, (off_t)maps[m].off * PAGE);
            if (maps[m].at == MAP_FAILED) {
                CHECK(errno == ENOMEM);
                maps[m].at = NULL;
                continue;
            }
            memset(written[m], 0, sizeof written[m]);
            if ((err = right(m))) return err;
        } else if (any() % 3) {
            size_t p = any() % maps[m].n;
            memset(maps[m].at + p * PAGE, written[m][p] = any() % 255 + 1, PAGE);
            unsigned char c;
            size_t at = (maps[m].off + p) * PAGE + any() % PAGE;
            if (at < size) CHECK(pread(fd, &c, 1, (off_t)at) == 1 && c == content(at));
        } else {
            if ((err = right(m))) return err;
            size_t from = any() % maps[m].n, n = any() % (maps[m].n - from) + 1;
            CHECK(munmap(maps[m].at + from * PAGE, n * PAGE) == 0);
            int rest = (int)(any() % MOST); // the part behind becomes a mapping of its own
            size_t behind = maps[m].n - from - n;
            if (behind && !maps[rest].at) {
                maps[rest].at = maps[m].at + (from + n) * PAGE, maps[rest].n = behind, maps[rest].off = maps[m].off + from + n;
                memcpy(written[rest], written[m] + from + n, behind);
            } else if (behind) {
                CHECK(munmap(maps[m].at + (from + n) * PAGE, behind * PAGE) == 0);
            }
            maps[m].n = from;
            if (!from) maps[m].at = NULL;
        }
    }
    for (int m = 0; m < MOST; m++)
        if (maps[m].at && (err = right(m))) return err;
    return 0;
}
