// mapreduce counts the words of a shared file: functions take a part each and append what they counted to a log, from which one
// adds it up. It is called with the file's name and the number of functions as arguments.
#include "words.h"

#include <errno.h>
#include <skein.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <fcntl.h>
#include <wasi/api.h>

enum { MOST_MAPPERS = 256, MOST_NAME = 512, SHOWN = 10, PIECE = 256 << 10, RECORD = 512 << 10 };

// part is what a mapper is given: the words that begin in [from, to) of the file.
typedef struct {
    int64_t from, to;
    char log[64];
    char path[MOST_NAME];
} part;

static int fail(const char *what, int err) {
    fprintf(stderr, "mapreduce: %s: %s\n", what, strerror(err));
    return 1;
}

// count_part reads a part and counts its words. One that began before belongs to the part before; the last is read to its end.
static int count_part(const part *p, counter *c) {
    static char piece[PIECE];
    int fd = open(p->path, O_RDONLY);
    if (fd < 0) return -errno;
    int64_t at = p->from;
    bool skip = at > 0 && pread(fd, piece, 1, at - 1) == 1 && letter(piece[0]);
    int err = 0;
    for (bool more = true; more && !err;) {
        ssize_t n = pread(fd, piece, PIECE, at), i = 0, end;
        if (n <= 0) {
            err = n < 0 ? -errno : 0;
            break;
        }
        for (; skip && i < n; i++) skip = letter(piece[i]);
        if (skip && at + i >= p->to) break; // all of it is a word that began before
        for (end = n < p->to - at ? n : (p->to > at ? p->to - at : 0), more = at + n < p->to || end == n; end < n && letter(piece[end]) && (c->len || end > 0); end++)
            more = end + 1 == n;
        if (at + end >= p->to && !(end == n && letter(piece[n - 1]))) more = false;
        if (i < end && count(c, piece + i, end - i)) err = -ENOMEM;
        at += n;
    }
    if (!err && flush(c)) err = -ENOMEM;
    close(fd);
    return err;
}
