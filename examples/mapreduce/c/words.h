// Counting words, without any of Skein. A word is a run of the letters A to Z, in lower case. The benchmark compiles this for the
// processor as well.
#ifndef WORDS_H
#define WORDS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_LETTERS = 64 }; // the rest of a longer word is ignored

typedef struct {
    char *text; // NULL in a place that is free
    uint64_t count;
    uint32_t len, hash;
} word;

// words is a hash table with open addressing; its capacity is a power of two.
typedef struct {
    word *all;
    size_t capacity, used;
} words;

static inline int letter(unsigned char c) { return (unsigned char)((c | 0x20) - 'a') < 26; }

// place finds where a word is, or belongs.
static inline word *place(const words *w, const char *text, uint32_t len, uint32_t hash) {
    for (size_t i = hash & (w->capacity - 1);; i = (i + 1) & (w->capacity - 1)) {
        word *at = &w->all[i];
        if (!at->text || (at->hash == hash && at->len == len && !memcmp(at->text, text, len))) return at;
    }
}

// add counts a word; returns 0, or -1 if there is no memory.
static inline int add(words *w, const char *text, uint32_t len, uint32_t hash, uint64_t count) {
    if (2 * (w->used + 1) > w->capacity) {
        words larger = {.capacity = w->capacity ? 2 * w->capacity : 1024, .used = w->used};
        if (!(larger.all = calloc(larger.capacity, sizeof *larger.all))) return -1;
        for (size_t i = 0; i < w->capacity; i++)
            if (w->all[i].text) *place(&larger, w->all[i].text, w->all[i].len, w->all[i].hash) = w->all[i];
        free(w->all);
        *w = larger;
    }
    word *at = place(w, text, len, hash);
    if (!at->text) {
        if (!(at->text = malloc(len))) return -1;
        memcpy(at->text, text, len);
        at->len = len, at->hash = hash;
        w->used++;
    }
    at->count += count;
    return 0;
}

static inline uint32_t hash_of(const char *text, uint32_t len) {
    uint32_t h = 2166136261;
    for (uint32_t i = 0; i < len; i++) h = (h ^ (unsigned char)text[i]) * 16777619;
    return h;
}

// counter goes on where the last bytes ended, so that a text may come in pieces.
typedef struct {
    words words;
    char word[MOST_LETTERS];
    uint32_t len;
} counter;

static inline int flush(counter *c) {
    int err = c->len ? add(&c->words, c->word, c->len, hash_of(c->word, c->len), 1) : 0;
    c->len = 0;
    return err;
}

static inline int count(counter *c, const char *text, size_t len) {
    for (size_t i = 0; i < len; i++) {
        if (letter(text[i])) {
            if (c->len < MOST_LETTERS) c->word[c->len++] = text[i] | 0x20;
        } else if (c->len && flush(c))
            return -1;
    }
    return 0;
}

static inline int by_count(const void *pa, const void *pb) {
    const word *a = pa, *b = pb;
    if (a->count != b->count) return (a->count < b->count) - (a->count > b->count);
    int order = memcmp(a->text, b->text, a->len < b->len ? a->len : b->len);
    return order ? order : (a->len > b->len) - (a->len < b->len);
}

// sorted moves the words to the front, the most frequent first, of equal ones that which is first in the alphabet.
static inline void sorted(words *w) {
    size_t n = 0;
    for (size_t i = 0; i < w->capacity; i++)
        if (w->all[i].text) w->all[n++] = w->all[i];
    qsort(w->all, n, sizeof *w->all, by_count);
}

#endif
