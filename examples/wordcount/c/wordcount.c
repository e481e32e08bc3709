// wordcount counts the words of a shared file, or of its input. All counts go into the state value "wordcount", where
// other functions find them; the ten most frequent words are the output. A word is a run of the letters A to Z.
#include <skein.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN = 10 }; // words in the output

typedef struct {
    const char *start; // into the text, lower-cased
    size_t len;
    size_t count;
} word;

static int fail(const char *what) {
    perror(what);
    return EXIT_FAILURE;
}

static char *read_file(const char *name, size_t *len) {
    char path[1024];
    if (snprintf(path, sizeof path, "/%s", name) >= (int)sizeof path) return NULL;
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    char *text = NULL;
    size_t cap = 0;
    *len = 0;
    do {
        if (*len == cap) {
            char *more = realloc(text, cap = cap ? 2 * cap : 64 << 10);
            if (!more) break;
            text = more;
        }
        *len += fread(text + *len, 1, cap - *len, f);
    } while (!feof(f) && !ferror(f));
    if (!feof(f)) {
        free(text);
        text = NULL;
    }
    fclose(f);
    return text;
}

static int letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

static int by_text(const void *pa, const void *pb) {
    const word *a = pa, *b = pb;
    int order = memcmp(a->start, b->start, a->len < b->len ? a->len : b->len);
    return order ? order : (a->len > b->len) - (a->len < b->len);
}

static int by_count(const void *pa, const void *pb) {
    const word *a = pa, *b = pb;
    return a->count != b->count ? (a->count < b->count) - (a->count > b->count) : by_text(pa, pb);
}

// Lower-cases the text, and gives its words, each once, with how often it occurs; the most frequent first.
static word *count(char *text, size_t len, size_t *n) {
    word *words = malloc((len / 2 + 1) * sizeof *words); // a letter and a separator make the shortest word
    if (!words) return NULL;
    size_t all = 0;
    for (size_t i = 0; i < len;) {
        size_t start = i;
        for (; i < len && letter(text[i]); i++) text[i] |= 0x20;
        if (i > start)
            words[all++] = (word){text + start, i - start, 1};
        else
            i++;
    }
    qsort(words, all, sizeof *words, by_text);
    *n = 0;
    for (size_t i = 0; i < all; i++) {
        if (*n > 0 && by_text(&words[*n - 1], &words[i]) == 0)
            words[*n - 1].count++;
        else
            words[(*n)++] = words[i];
    }
    qsort(words, *n, sizeof *words, by_count);
    return words;
}

int main(int argc, char **argv) {
    size_t len;
    char *text = argc > 1 ? read_file(argv[1], &len) : skein_input(&len);
    if (!text) return fail(argc > 1 ? argv[1] : "input");
    size_t n;
    word *words = count(text, len, &n);
    if (!words) return fail("count");

    char *lines;
    size_t written, head = 0;
    FILE *out = open_memstream(&lines, &written);
    if (!out) return fail("memory");
    for (size_t i = 0; i < n; i++) {
        fprintf(out, "%zu %.*s\n", words[i].count, (int)words[i].len, words[i].start);
        if (i < SHOWN) {
            fflush(out); // written counts what has left the buffer
            head = written;
        }
    }
    if (fclose(out)) return fail("memory");

    int err = skein_set_state("wordcount", lines, written);
    if (!err) err = skein_push_state("wordcount");
    if (!err) err = skein_output(lines, head);
    if (err < 0) {
        fprintf(stderr, "%s\n", strerror(-err));
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
