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
    char *room; // for texts: what is left of a block, which is never given back
    size_t left;
} words;

enum { BLOCK = 64 << 10 };

// Texts are compared in steps of 8 bytes, and have zeros up to the next.
enum { STEP = 8, ROOM = MOST_LETTERS + STEP };

static inline uint64_t eight(const char *text) {
    uint64_t n;
    memcpy(&n, text, sizeof n);
    return n;
}

static inline int same(const char *a, const char *b, uint32_t len) {
    for (uint32_t i = 0; i < len; i += STEP)
        if (eight(a + i) != eight(b + i)) return 0;
    return 1;
}

static inline void pad(char *text, uint32_t len) { memset(text + len, 0, STEP); }

static inline char *keep(words *w, const char *text, uint32_t len) {
    len = (len + STEP - 1) / STEP * STEP;
    if (w->left < len) {
        if (!(w->room = malloc(BLOCK))) return NULL;
        w->left = BLOCK;
    }
    char *at = memcpy(w->room, text, len);
    w->room += len, w->left -= len;
    return at;
}

static inline int letter(unsigned char c) { return (unsigned char)((c | 0x20) - 'a') < 26; }

// place finds where a word is, or belongs.
static inline word *place(const words *w, const char *text, uint32_t len, uint32_t hash) {
    for (size_t i = hash & (w->capacity - 1);; i = (i + 1) & (w->capacity - 1)) {
        word *at = &w->all[i];
        if (!at->text || (at->hash == hash && at->len == len && same(at->text, text, len))) return at;
    }
}

// add counts a word, which is padded; returns 0, or -1 if there is no memory.
static inline int add(words *w, const char *text, uint32_t len, uint32_t hash, uint64_t count) {
    if (2 * (w->used + 1) > w->capacity) {
        words larger = *w;
        larger.capacity = w->capacity ? 2 * w->capacity : 1024;
        if (!(larger.all = calloc(larger.capacity, sizeof *larger.all))) return -1;
        for (size_t i = 0; i < w->capacity; i++)
            if (w->all[i].text) *place(&larger, w->all[i].text, w->all[i].len, w->all[i].hash) = w->all[i];
        free(w->all);
        *w = larger;
    }
    word *at = place(w, text, len, hash);
    if (!at->text) {
        if (!(at->text = keep(w, text, len))) return -1;
        at->len = len, at->hash = hash;
        w->used++;
    }
    at->count += count;
    return 0;
}

static const uint32_t EMPTY_HASH = 2166136261;

static inline uint32_t hash_more(uint32_t hash, unsigned char c) { return (hash ^ c) * 16777619; }

static inline uint32_t hash_of(const char *text, uint32_t len) {
    uint32_t h = EMPTY_HASH;
    for (uint32_t i = 0; i < len; i++) h = hash_more(h, (unsigned char)text[i]);
    return h;
}

// counter goes on where the last bytes ended, so that a text may come in pieces: word is the one that is not at its end yet.
typedef struct {
    words words;
    char word[ROOM];
    uint32_t len, hash;
} counter;

static inline int flush(counter *c) {
    pad(c->word, c->len);
    int err = c->len ? add(&c->words, c->word, c->len, c->hash, 1) : 0;
    c->len = 0;
    return err;
}

static inline int count(counter *c, const char *text, size_t n) {
    uint32_t len = c->len, hash = len ? c->hash : EMPTY_HASH;
    for (size_t i = 0; i < n; i++) {
        unsigned char low = text[i] | 0x20;
        if (letter(low)) {
            if (len == MOST_LETTERS) continue;
            c->word[len++] = (char)low;
            hash = hash_more(hash, low);
        } else if (len) {
            pad(c->word, len);
            if (add(&c->words, c->word, len, hash, 1)) return -1;
            len = 0, hash = EMPTY_HASH;
        }
    }
    c->len = len, c->hash = hash;
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
