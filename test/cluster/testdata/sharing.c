// sharing does one thing with files that is named by its arguments. A name may be one of the shared tree itself, faasm://.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int failed(const char *what) {
    printf("%s: %s\n", what, strerror(errno));
    return 0;
}

static int get(const char *name) {
    char buf[4096];
    FILE *f = fopen(name, "r");
    if (!f) return failed("open");
    size_t n = fread(buf, 1, sizeof buf, f);
    fclose(f);
    return fwrite(buf, 1, n, stdout) != n;
}

static int put(const char *name, const char *mode, const char *text) {
    FILE *f = fopen(name, mode);
    if (!f) return failed("open");
    fputs(text, f);
    return fclose(f) ? failed("close") : 0;
}

static int list(const char *name) {
    DIR *dir = opendir(name);
    if (!dir) return failed("opendir");
    for (struct dirent *e; (e = readdir(dir));)
        if (e->d_name[0] != '.') puts(e->d_name);
    return closedir(dir);
}

// large puts so many MiB of a byte, in pieces.
static int large(const char *name, int mib, int byte) {
    char *piece = malloc(1 << 20);
    memset(piece, byte, 1 << 20);
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (fd < 0) return failed("open");
    for (int i = 0; i < mib; i++)
        if (write(fd, piece, 1 << 20) != 1 << 20) return failed("write");
    return close(fd) ? failed("close") : 0;
}

// mixed reads all of a file and tells whether its bytes are the same.
static int mixed(const char *name) {
    char *piece = malloc(1 << 20);
    int fd = open(name, O_RDONLY), first = -1;
    if (fd < 0) return failed("open");
    long long size = 0;
    for (ssize_t n; (n = read(fd, piece, 1 << 20)) > 0; size += n)
        for (ssize_t i = 0; i < n; i++) {
            if (first < 0) first = piece[i];
            if (piece[i] != first) return puts("mixed"), 0;
        }
    return printf("%lld of %c\n", size, first) < 0;
}

int main(int argc, char **argv) {
    const char *what = argc > 2 ? argv[1] : "", *name = argc > 2 ? argv[2] : "", *text = argc > 3 ? argv[3] : "";
    struct stat st;
    if (!strcmp(what, "get")) return get(name);
    if (!strcmp(what, "put")) return put(name, "w", text);
    if (!strcmp(what, "append")) return put(name, "a", text);
    if (!strcmp(what, "list")) return list(name);
    if (!strcmp(what, "large")) return large(name, atoi(text), argv[4][0]);
    if (!strcmp(what, "mixed")) return mixed(name);
    if (!strcmp(what, "remove")) return unlink(name) ? failed("unlink") : 0;
    if (!strcmp(what, "mkdir")) return mkdir(name, 0777) ? failed("mkdir") : 0;
    if (!strcmp(what, "rename")) return rename(name, text) ? failed("rename") : 0;
    if (!strcmp(what, "stat")) return stat(name, &st) ? failed("stat") : printf("%lld\n", (long long)st.st_size) < 0;
    if (!strcmp(what, "leave")) { // open at the end, with an exit code
        FILE *f = fopen(name, "w");
        fputs(text, f);
        fflush(f);
        _exit(atoi(argv[4]));
    }
    if (!strcmp(what, "trap")) {
        FILE *f = fopen(name, "w");
        fputs(text, f);
        fflush(f);
        __builtin_trap();
    }
    return 2;
}
