// files reads shared files as its input says: "check PATH" puts out the size and the one byte that all of it is made of;
// "open|random|whole|small|stat|list N PATH" do that N times, for benchmarks, and put out how much there was; "write|patch|create N PATH" write
// files of their own so often.
#include <skein.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char buf[64 << 10];

static int fail(void) { return errno ? errno : 255; }

static int output_number(long long n) {
    char text[32];
    return skein_output(text, (size_t)snprintf(text, sizeof text, "%lld", n)) < 0;
}

// whole reads a file to its end; with a byte to compare it notices one that is another.
static long long whole(const char *path, int *byte) {
    int fd = open(path, O_RDONLY);
    if (fd < 0) return -1;
    long long all = 0;
    ssize_t n;
    while ((n = read(fd, buf, sizeof buf)) > 0) {
        for (ssize_t i = 0; byte && i < n; i++) {
            if (*byte < 0) *byte = (unsigned char)buf[i];
            if (*byte != (unsigned char)buf[i]) *byte = 256;
        }
        all += n;
    }
    close(fd);
    return n < 0 ? -1 : all;
}

static int check(const char *path) {
    int byte = -1;
    long long size = whole(path, &byte);
    if (size < 0) return fail();
    char text[64];
    return skein_output(text, (size_t)snprintf(text, sizeof text, "%lld %d", size, byte)) < 0;
}

static long long opens(int n, const char *path, size_t len) {
    long long all = 0;
    for (int i = 0; i < n; i++) {
        int fd = open(path, O_RDONLY);
        ssize_t got = fd < 0 ? -1 : read(fd, buf, len);
        if (got < 0) return -1;
        all += got;
        close(fd);
    }
    return all;
}

static long long jumps(int n, const char *path) {
    int fd = open(path, O_RDONLY);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0) return -1;
    unsigned x = 1;
    long long all = 0;
    for (int i = 0; i < n; i++) {
        x = x * 1664525 + 1013904223;
        ssize_t got = pread(fd, buf, 4096, (off_t)((x >> 8) % (unsigned)(st.st_size / 4096)) * 4096);
        if (got < 0) return -1;
        all += got;
    }
    close(fd);
    return all;
}

static long long small(int n, const char *dir) {
    char path[256];
    long long all = 0;
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%05d", dir, i);
        long long size = whole(path, NULL);
        if (size < 0) return -1;
        all += size;
    }
    return all;
}

static long long stats(int n, const char *path) {
    long long all = 0;
    for (int i = 0; i < n; i++) {
        struct stat st;
        int fd = open(path, O_RDONLY);
        if (fd < 0 || fstat(fd, &st) < 0) return -1;
        all += st.st_size;
        close(fd);
    }
    return all;
}

static long long lists(int n, const char *path) {
    long long all = 0;
    for (int i = 0; i < n; i++) {
        DIR *d = opendir(path);
        if (!d) return -1;
        for (struct dirent *e; (e = readdir(d));)
            all += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
        closedir(d);
    }
    return all;
}

// write1 makes a file of so many bytes.
static long long write1(const char *path, long long size) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (fd < 0) return -1;
    for (long long at = 0, n; at < size; at += n) {
        n = size - at < (long long)sizeof buf ? size - at : (long long)sizeof buf;
        if (write(fd, buf, (size_t)n) != n) return -1;
    }
    return close(fd) ? -1 : size;
}

static long long creates(int n, const char *path, long long size) {
    long long all = 0;
    for (int i = 0; i < n; i++) {
        long long one = write1(path, size);
        if (one < 0 || unlink(path)) return -1;
        all += one;
    }
    return all;
}

static long long patches(int n, const char *path) {
    if (write1(path, 16 << 20) < 0) return -1;
    int fd = open(path, O_WRONLY);
    unsigned x = 1;
    long long all = 0;
    for (int i = 0; i < n; i++) {
        x = x * 1664525 + 1013904223;
        ssize_t put = pwrite(fd, buf, 4096, (off_t)((x >> 8) % 4096) * 4096);
        if (put < 0) return -1;
        all += put;
    }
    close(fd);
    return unlink(path) ? -1 : all;
}

SKEIN_EXPORT(handle) int handle(void) {
    char in[256] = {0}, what[16], path[200];
    int n = 0;
    __skein_read_call_input(in, sizeof in - 1);
    if (sscanf(in, "check %199s", path) == 1) return check(path);
    if (sscanf(in, "%15s %d %199s", what, &n, path) != 3) return 255;
    long long all = -1;
    if (!strcmp(what, "open")) all = opens(n, path, 4096);
    if (!strcmp(what, "random")) all = jumps(n, path);
    if (!strcmp(what, "small")) all = small(n, path);
    if (!strcmp(what, "stat")) all = stats(n, path);
    if (!strcmp(what, "list")) all = lists(n, path);
    if (!strcmp(what, "write")) all = creates(n, path, 16 << 20);
    if (!strcmp(what, "create")) all = creates(n, path, 4096);
    if (!strcmp(what, "patch")) all = patches(n, path);
    if (!strcmp(what, "whole"))
        for (all = 0; n > 0 && all >= 0; n--) {
            long long size = whole(path, NULL);
            all = size < 0 ? size : all + size;
        }
    return all < 0 ? fail() : output_number(all);
}
