// mapreduce counts the words of a shared file: functions take a part of it each and append what they counted to a log in shared
// state; another function adds that up. Its input is how many shall count, and the file's name.
#include "words.h"

#include <errno.h>
#include <fcntl.h>
#include <skein.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_MAPPERS = 256, MOST_NAME = 512, SHOWN = 10, PIECE = 256 << 10, RECORD = 512 << 10 };

// part is what a mapper is given: the words that begin in [from, to) of the file.
typedef struct {
    int64_t from, to;
    char log[64], path[MOST_NAME];
} part;

static int fail(const char *what, int err) {
    fprintf(stderr, "mapreduce: %s: %s\n", what, strerror(-err));
    return 1;
}

static int64_t clamp(int64_t n, int64_t most) { return n < 0 ? 0 : n < most ? n : most; }

// count_part counts the words that begin in a part, the last to its end.
static int count_part(const part *p, counter *c) {
    static char piece[PIECE];
    int fd = open(p->path, O_RDONLY);
    if (fd < 0) return -errno;
    int err = 0;
    bool skip = p->from > 0; // what ends here began before
    for (int64_t at = p->from - skip, n; !err && (n = pread(fd, piece, PIECE, at)) != 0; at += n) {
        if (n < 0) {
            err = -errno;
            break;
        }
        int64_t i = 0, inside = clamp(p->to - at, n);
        for (; skip && i < n; i += skip) skip = letter(piece[i]);
        if (i < inside) {
            err = count(c, piece + i, inside - i) ? -ENOMEM : 0;
            i = inside;
        }
        if (at + i < p->to) continue;
        for (; i < n && c->len && letter(piece[i]); i++) count(c, piece + i, 1);
        if (i < n || !c->len) break;
    }
    close(fd);
    return !err && flush(c) ? -ENOMEM : err;
}

// entry is a word in a record: this and its text, one after the other.
typedef struct __attribute__((packed)) {
    uint64_t count;
    uint8_t len;
} entry;

// append writes all words to the log, as many as go into each record.
static int append(const char *log, const words *w) {
    char *record = malloc(RECORD);
    size_t size = 0;
    int err = record ? 0 : -ENOMEM;
    for (size_t i = 0; i < w->capacity && !err; i++) {
        const word *at = &w->all[i];
        if (!at->text) continue;
        if (size + sizeof(entry) + at->len > RECORD) err = skein_log_append(log, record, size), size = 0;
        entry e = {at->count, (uint8_t)at->len};
        memcpy(record + size, &e, sizeof e);
        memcpy(record + size + sizeof e, at->text, at->len);
        size += sizeof e + at->len;
    }
    if (size && !err) err = skein_log_append(log, record, size);
    free(record);
    return err;
}

static int mapper(void) {
    part p;
    if (__skein_read_call_input(&p, sizeof p) != sizeof p) return fail("input", -EINVAL);
    counter c = {0};
    int err = count_part(&p, &c);
    if (err) return fail(p.path, err);
    err = append(p.log, &c.words);
    return err ? fail(p.log, err) : 0;
}

// merge adds up what is in the log.
static int merge(const char *key, words *w) {
    skein_log log = {.key = key};
    const void *record;
    size_t len;
    int more;
    while ((more = skein_log_next(&log, &record, &len)) == 1) {
        for (const char *at = record, *end = at + len; at < end;) {
            entry e;
            memcpy(&e, at, sizeof e);
            char text[ROOM];
            if (e.len > MOST_LETTERS) return -EILSEQ;
            memcpy(text, at + sizeof e, e.len);
            pad(text, e.len);
            if (add(w, text, e.len, hash_of(text, e.len), e.count)) return -ENOMEM;
            at += sizeof e + e.len;
        }
    }
    skein_log_close(&log);
    return more;
}

// reducer makes the sums the value "wordcount", and the most frequent words its output.
static int reducer(void) {
    part p;
    if (__skein_read_call_input(&p, sizeof p) != sizeof p) return fail("input", -EINVAL);
    words w = {0};
    int err = merge(p.log, &w);
    if (err) return fail(p.log, err);
    sorted(&w);
    char *lines;
    size_t written, head = 0;
    FILE *out = open_memstream(&lines, &written);
    if (!out) return fail("memory", -errno);
    for (size_t i = 0; i < w.used; i++) {
        fprintf(out, "%llu %.*s\n", w.all[i].count, (int)w.all[i].len, w.all[i].text);
        if (i < SHOWN) {
            fflush(out); // written counts what has left the buffer
            head = written;
        }
    }
    if (fclose(out)) return fail("memory", -errno);
    err = skein_set_state("wordcount", lines, written);
    if (!err) err = skein_push_state("wordcount");
    if (!err) err = skein_output(lines, head);
    return err < 0 ? fail("wordcount", err) : 0;
}

// run has the mappers count, and then the reducer add up; its output is ours.
static int run(part p, int mappers, int64_t size) {
    int ids[MOST_MAPPERS];
    for (int i = 0; i < mappers; i++) {
        p.from = size * i / mappers, p.to = size * (i + 1) / mappers;
        if ((ids[i] = skein_chain_fn(mapper, &p, sizeof p)) < 0) return fail("chain", ids[i]);
    }
    for (int i = 0; i < mappers; i++)
        if (skein_await(ids[i])) return fail("a mapper", -ECANCELED);
    int reduce = skein_chain_fn(reducer, &p, sizeof p);
    if (reduce < 0 || skein_await(reduce)) return fail("the reducer", reduce < 0 ? reduce : -ECANCELED);
    size_t len;
    char *out = skein_await_output(reduce, &len);
    int failed = !out || skein_output(out, len) < 0;
    free(out);
    return failed;
}

SKEIN_EXPORT(handle) int handle(void) {
    char *in = skein_input(NULL);
    part p = {.path = "/"};
    int mappers = 0, fields = in ? sscanf(in, "%d %510[^\n]", &mappers, p.path + 1) : 0;
    free(in);
    if (fields != 2 || mappers < 1 || mappers > MOST_MAPPERS) {
        fprintf(stderr, "mapreduce: want a number of functions, 1 to %d, and the name of a file\n", MOST_MAPPERS);
        return 2;
    }
    struct stat about;
    if (stat(p.path, &about)) return fail(p.path, -errno);
    uint64_t id; // other calls have a log of their own
    if (getentropy(&id, sizeof id)) return fail("random", -errno);
    snprintf(p.log, sizeof p.log, "mapreduce/%016llx", id);
    int failed = run(p, mappers, about.st_size);
    int err = skein_delete_state(p.log);
    return failed || (err && err != -ENOENT ? fail(p.log, err) : 0);
}
