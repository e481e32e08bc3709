// Mappings, checked from the guest's side. What argv[1] says is done: "plant" leaves a secret in mappings, "look" looks for it.
#include "check.h"
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>

#define PAGE 65536
#define PAGES 1024

__attribute__((import_module("env"), import_name("mmap"))) void *env_mmap(void *, size_t, int, int, int, off_t);
__attribute__((import_module("env"), import_name("munmap"))) int env_munmap(void *, size_t);
__attribute__((import_module("env"), import_name("__sbrk"))) void *env_sbrk(long);

static size_t end(void) { return __builtin_wasm_memory_size(0); }

static void *anonymous(size_t n) { return mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }

static int zero(const unsigned char *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (p[i]) return 0;
    return 1;
}

static uint32_t seed = 1;
static uint32_t any(void) { return (seed = seed * 1664525u + 1013904223u) >> 8; }

// The model: of each page of memory whether mmap has it, and which mapping's it is.
static unsigned char ours[1024], tag[1024];

static size_t first_fit(size_t n) {
    size_t run = 0;
    for (size_t i = 0; i < end(); i++) {
        run = ours[i] && !tag[i] ? run + 1 : 0;
        if (run == n) return i + 1 - n;
    }
    return end() - run;
}

static int holds(size_t page) {
    unsigned char *p = (unsigned char *)(page * PAGE);
    for (size_t i = 0; i < PAGE; i += 509)
        if (p[i] != tag[page]) return 0;
    return p[PAGE - 1] == tag[page];
}

static int model(void) {
    for (int round = 0; round < 1500; round++) {
        size_t n = any() % 12 + 1;
        if (any() % 2) {
            size_t at = first_fit(n), was = end();
            unsigned char *p = anonymous(n * PAGE - any() % PAGE);
            if (at + n > PAGES && p == MAP_FAILED) {
                CHECK(errno == ENOMEM);
                continue;
            }
            CHECK(p == (unsigned char *)(at * PAGE) && zero(p, n * PAGE));
            CHECK(end() == (at + n > was ? at + n : was));
            unsigned char t = any() % 255 + 1;
            memset(p, t, n * PAGE);
            memset(ours + at, 1, n);
            memset(tag + at, t, n);
        } else { // in front, in the middle, at the end of one or of more
            size_t at = any() % (end() - 40) + 40, used = 0;
            for (size_t i = at; i < at + n; i++) {
                if (tag[i]) CHECK(holds(i) && ++used);
            }
            int r = munmap((void *)(at * PAGE), n * PAGE - any() % PAGE);
            CHECK(used ? r == 0 : r == -1 && errno == EINVAL);
            memset(tag + at, 0, n);
            for (size_t i = at; i < at + n && i < end(); i++)
                if (ours[i]) memset((void *)(i * PAGE), 0xee, PAGE); // a guest may; nobody is to find it
        }
        if (any() % 16 == 0) CHECK(malloc(100000));
    }
    for (size_t i = 0; i < end(); i++)
        if (tag[i]) CHECK(holds(i));
    return 0;
}

static int refused(size_t n, int prot, int flags, int fd, off_t off, int want) {
    errno = 0;
    size_t was = end();
    return mmap(NULL, n, prot, flags, fd, off) == MAP_FAILED && errno == want && end() == was;
}

static int bad(int file, int directory) {
    int rw = PROT_READ | PROT_WRITE, anon = MAP_PRIVATE | MAP_ANONYMOUS;
    CHECK(refused(0, rw, anon, -1, 0, EINVAL));
    CHECK(refused(1, rw, MAP_ANONYMOUS, -1, 0, EINVAL));
    CHECK(refused(1, rw, MAP_ANONYMOUS | 3, -1, 0, EINVAL));
    CHECK(refused(1, 8, anon, -1, 0, EINVAL));
    CHECK(refused(1, rw, anon, -1, 1, EINVAL) && refused(1, rw, MAP_PRIVATE, file, 4096, EINVAL));
    CHECK(refused(1, rw, MAP_PRIVATE, file, -PAGE, EINVAL));
    CHECK(refused(1, PROT_NONE, anon, -1, 0, ENOTSUP) && refused(1, rw | PROT_EXEC, anon, -1, 0, ENOTSUP));
    CHECK(refused(1, rw, anon | MAP_FIXED, -1, 0, ENOTSUP) && refused(1, rw, anon | MAP_FIXED_NOREPLACE, -1, 0, ENOTSUP));
    CHECK(refused(1, rw, MAP_SHARED, file, 0, ENOTSUP) && refused(1, PROT_READ, MAP_SHARED, file, 0, ENOTSUP));
    CHECK(refused(1, rw, MAP_PRIVATE, 99, 0, EBADF) && refused(1, rw, MAP_PRIVATE, -1, 0, EBADF));
    CHECK(refused(1, rw, MAP_PRIVATE, directory, 0, ENODEV) && refused(1, rw, MAP_PRIVATE, 0, 0, ENODEV));
    CHECK(refused(1, rw, MAP_PRIVATE, 1, 0, EACCES));
    CHECK(refused((size_t)-1, rw, anon, -1, 0, ENOMEM) && refused(PAGES * PAGE + PAGE, rw, anon, -1, 0, ENOMEM));
    CHECK(refused(0xffff0000, rw, MAP_PRIVATE, file, 0, ENOMEM));
    CHECK(munmap(0, PAGE) == -1 && errno == EINVAL && munmap(OUTSIDE, 100) == -1);
    CHECK(munmap((void *)0xffff0000, (size_t)-1) == -1 && munmap((void *)(end() * PAGE), PAGE) == -1);
    char *p = anonymous(1);
    CHECK(munmap(p + 1, PAGE) == -1 && errno == EINVAL && munmap(p, 0) == -1 && errno == EINVAL);
    CHECK(munmap(p, 1) == 0 && munmap(p, 1) == -1 && errno == EINVAL);
    return 0;
}

static int files(int file) {
    char *p = mmap(NULL, 3 * PAGE, PROT_READ, MAP_PRIVATE, file, 0);
    CHECK(p != MAP_FAILED && !memcmp(p, "content", 7) && zero((unsigned char *)p + 7, 3 * PAGE - 7));
    char *q = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, file, PAGE);
    CHECK(q != MAP_FAILED && zero((unsigned char *)q, PAGE));
    int own = open("own", O_RDWR | O_CREAT, 0600), wo = open("own", O_WRONLY);
    CHECK(own >= 0 && wo >= 0 && refused(1, PROT_READ, MAP_PRIVATE, wo, 0, EACCES));
    for (int i = 0; i < 100000; i++) CHECK(write(own, &i, 4) == 4);
    int *r = mmap(NULL, 400000 - PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, own, PAGE);
    CHECK(r != MAP_FAILED && close(own) == 0);
    for (int i = 0; i < 100000 - PAGE / 4; i++) CHECK(r[i] == i + PAGE / 4);
    memset(r, '!', PAGE);
    int got, again = open("own", O_RDONLY); // what was written to the copy is not in the file
    CHECK(pread(again, &got, 4, PAGE) == 4 && got == PAGE / 4);
    int copy = dup(again), high = fcntl(again, F_DUPFD, 20);
    CHECK(copy > again && high == 20 && (fcntl(high, F_GETFL) & O_ACCMODE) == O_RDONLY && dup2(high, 21) == 21);
    CHECK(lseek(again, 8, SEEK_SET) == 8 && read(21, &got, 4) == 4 && got == 2 && dup(99) == -1 && errno == EBADF);
    int zeros = open("/dev/zero", O_RDONLY), null = open("/dev/null", O_RDONLY);
    unsigned char *z = mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE, zeros, 0);
    CHECK(z != MAP_FAILED && zero(z, 2 * PAGE) && refused(1, PROT_READ, MAP_PRIVATE, null, 0, ENODEV));
    return 0;
}

static int faasm(int file) {
    char *p = env_mmap(NULL, 7, PROT_READ, MAP_PRIVATE, file, 0);
    CHECK(p != MAP_FAILED && !memcmp(p, "content", 8) && env_munmap(p, 7) == 0 && env_munmap(p, 7) == -1);
    CHECK(env_mmap(NULL, 0, PROT_READ, MAP_PRIVATE, file, 0) == MAP_FAILED && __skein_last_error() == EINVAL);
    size_t was = end();
    CHECK(env_sbrk(0) == (void *)(was * PAGE) && env_sbrk(2 * PAGE) == (void *)(was * PAGE) && end() == was + 2);
    CHECK(env_sbrk(1) == (void *)-1 && env_sbrk(-PAGE) == (void *)-1 && env_sbrk(0x7fff0000) == (void *)-1);
    CHECK(env_munmap((void *)(was * PAGE), PAGE) == -1); // it is the heap's
    return 0;
}

// Is not in the program's own data.
static const unsigned char hidden[] = {'S' ^ 1, 'E' ^ 1, 'C' ^ 1, 'R' ^ 1, 'E' ^ 1, 'T' ^ 1, '4' ^ 1, '2' ^ 1};

static int plant(void) {
    unsigned char *p = anonymous(20 * PAGE), *q = anonymous(PAGE);
    CHECK(p != MAP_FAILED && q != MAP_FAILED);
    for (size_t i = 0; i < 20 * PAGE; i++) p[i] = hidden[i % 8] ^ 1;
    for (size_t i = 0; i < PAGE; i++) q[i] = hidden[i % 8] ^ 1;
    CHECK(munmap(p + 3 * PAGE, 2 * PAGE) == 0);
    for (size_t i = 0; i < PAGE; i++) p[3 * PAGE + i] = hidden[i % 8] ^ 1; // after it was given back
    return 0;
}

static int look(void) {
    CHECK(anonymous(40 * PAGE) != MAP_FAILED && malloc(1 << 20));
    for (const unsigned char *p = (void *)8; p < (unsigned char *)(end() * PAGE - 8); p++) {
        int same = 0;
        while (same < 8 && p[same] == (hidden[same] ^ 1)) same++;
        CHECK(same < 8);
    }
    return 0;
}

int main(int argc, char **argv) {
    (void)argc;
    if (!strcmp(argv[1], "plant")) return plant();
    if (!strcmp(argv[1], "look")) return look();
    int file = open("dir/file", O_RDONLY), directory = open("dir", O_RDONLY | O_DIRECTORY), err;
    CHECK(file >= 0 && directory >= 0);
    if ((err = bad(file, directory))) return err;
    if ((err = files(file))) return err;
    if ((err = faasm(file))) return err;
    size_t pages = end();
    CHECK(__skein_mmap(0, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) && __skein_munmap((void *)(pages * PAGE), PAGE) <= 0);
    return strcmp(argv[1], "all") ? 0 : model();
}
