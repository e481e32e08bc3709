// sgd learns a sparse linear classifier by stochastic gradient descent in the manner of HOGWILD: functions take a part of the
// examples each, and all change the same weights without locks. Weights and examples are values that are mapped, so functions on
// one executor work in the same memory. Executors exchange what they changed from time to time.
#include "sgd.h"

#include <errno.h>
#include <skein.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_WORKERS = 64 };

// task is what a worker is given.
typedef struct {
    shape shape;
    int64_t from, to; // its examples
    int64_t epoch;
    int64_t interval; // examples between exchanges
    int64_t copy;     // get and set all weights instead of sharing them
} task;

// problem is views of a part of the examples, and of all weights.
typedef struct {
    char keys[5][96];
    skein_matrix columns, values;
    skein_array labels, weights, clock;
} problem;

enum { COLUMNS, VALUES, LABELS, WEIGHTS, CLOCK };

static int fail(const char *what, int err) {
    fprintf(stderr, "sgd: %s: %s\n", what, strerror(-err));
    return 1;
}

// The shape is in the keys: what lies there never changes, but for the weights.
static void name(problem *p, const shape *s) {
    static const char *const names[] = {"columns", "values", "labels", "weights", "clock"};
    for (int i = 0; i < 5; i++)
        snprintf(p->keys[i], sizeof p->keys[i], "sgd/%lldx%lldx%lld.%lld/%s", s->examples, s->features, s->nonzeros, s->seed, names[i]);
}

// examples opens n examples from a first one; they are made if there are none and write is set.
static int examples(problem *p, const shape *s, int64_t first, int64_t n, bool write) {
    const int flags = write ? 0 : SKEIN_STATE_READ_ONLY_HINT;
    const int64_t total = write ? s->examples : 0;
    int err = skein_matrix_open_rows(&p->columns, p->keys[COLUMNS], sizeof(uint32_t), first, n, total, s->nonzeros, flags);
    if (!err) err = skein_matrix_open_rows(&p->values, p->keys[VALUES], sizeof(float), first, n, total, s->nonzeros, flags);
    if (!err) err = skein_array_open_part(&p->labels, p->keys[LABELS], sizeof(float), first, n, total, flags);
    return err;
}

// make generates the examples. The labels are shared last, and say that all is there.
static int make(const shape *s) {
    problem p;
    name(&p, s);
    if (skein_state_size(p.keys[LABELS]) == s->examples * (int64_t)sizeof(float)) return 0;
    int err = examples(&p, s, 0, s->examples, true);
    if (err) return err;
    for (int64_t i = 0; i < s->examples; i++)
        generate(s, i, skein_matrix_row(&p.columns, i), skein_matrix_row(&p.values, i), &SKEIN_AT(float, p.labels, i));
    err = skein_matrix_push(&p.columns);
    if (!err) err = skein_matrix_push(&p.values);
    if (!err) err = skein_array_push(&p.labels);
    return err;
}

static int open_task(task *t, problem *p) {
    if (__skein_read_call_input(t, sizeof *t) != sizeof *t) return -EINVAL;
    name(p, &t->shape);
    int err = examples(p, &t->shape, t->from, t->to - t->from, false);
    if (!err) err = skein_array_open(&p->weights, p->keys[WEIGHTS], sizeof(double), t->shape.features, SKEIN_STATE_PULL);
    return err;
}

static void learn(const task *t, problem *p, double *weights, int64_t from, int64_t to) {
    for (int64_t i = from; i < to; i++)
        step(weights, skein_matrix_row(&p->columns, i), skein_matrix_row(&p->values, i), t->shape.nonzeros,
             SKEIN_AT(float, p->labels, i - t->from), rate_of(t->epoch));
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

enum { SLICE = 64 }; // examples between looks at the clock

// worker learns its examples in the shared weights. The executor's clock, which never leaves it, counts the examples that
// all workers here have learnt: whoever makes it pass an interval exchanges for all. A race on it does no harm.
static int worker(void) {
    task t;
    problem p;
    int err = open_task(&t, &p);
    if (err) return fail("open", err);
    if ((err = skein_array_open(&p.clock, p.keys[CLOCK], sizeof(int64_t), 1, SKEIN_STATE_LOCAL))) return fail("clock", err);
    volatile int64_t *clock = p.clock.at;
    for (int64_t i = t.from; i < t.to; i += SLICE) {
        int64_t end = least(i + SLICE, t.to);
        learn(&t, &p, p.weights.at, i, end);
        int64_t was = *clock, now = was + end - i;
        *clock = now;
        if (was / t.interval == now / t.interval) continue;
        if ((err = skein_array_push(&p.weights))) return fail("push", err);
        if ((err = skein_array_pull(&p.weights))) return fail("pull", err);
    }
    err = skein_array_push(&p.weights);
    return err ? fail("push", err) : 0;
}

// copier does the same without shared memory: it gets all weights, learns some examples, and sets all weights. What others
// set in between is lost.
static int copier(void) {
    task t;
    problem p;
    int err = open_task(&t, &p);
    if (err) return fail("open", err);
    const size_t size = t.shape.features * sizeof(double);
    double *weights = malloc(size);
    if (!weights) return fail("memory", -ENOMEM);
    const char *key = p.keys[WEIGHTS];
    for (int64_t i = t.from; i < t.to; i += t.interval) {
        int64_t n = __skein_read_appended_state(key, strlen(key), 0, weights, size);
        if (n != (int64_t)size) return fail("get", n < 0 ? (int)n : -EINVAL);
        learn(&t, &p, weights, i, least(i + t.interval, t.to));
        if ((err = skein_set_state(key, weights, size))) return fail("set", err);
        if ((err = skein_push_state(key))) return fail("push", err);
    }
    return 0;
}

// score puts out how many of its examples the weights classify as they are labelled.
static int score(void) {
    task t;
    problem p;
    int err = open_task(&t, &p);
    if (err) return fail("open", err);
    int64_t right = 0;
    for (int64_t i = t.from; i < t.to; i++)
        right += margin(p.weights.at, skein_matrix_row(&p.columns, i), skein_matrix_row(&p.values, i), t.shape.nonzeros,
                        SKEIN_AT(float, p.labels, i - t.from)) > 0;
    return skein_output(&right, sizeof right) < 0;
}

// all has n functions do a part of the task each, and adds up what they put out.
static int64_t all(int (*fn)(void), task t, int64_t n) {
    int ids[MOST_WORKERS];
    for (int64_t i = 0; i < n; i++) {
        t.from = t.shape.examples * i / n, t.to = t.shape.examples * (i + 1) / n;
        if ((ids[i] = skein_chain_fn(fn, &t, sizeof t)) < 0) return ids[i];
    }
    int64_t sum = 0, one;
    for (int64_t i = 0; i < n; i++) {
        int exit = skein_await(ids[i]);
        if (exit) return exit < 0 ? exit : -ECANCELED;
        if (__skein_await_call_output(ids[i], &one, sizeof one) == sizeof one) sum += one;
    }
    return sum;
}

// options are the words "name=number" of the input.
static bool options(task *t, int64_t *workers, int64_t *epochs) {
    char *in = skein_input(NULL), *next = in;
    const struct { const char *name; int64_t *to, least, most; } known[] = {
        {"examples", &t->shape.examples, MOST_WORKERS, 1 << 20}, {"features", &t->shape.features, 1, 1 << 23},
        {"nonzeros", &t->shape.nonzeros, 1, 1 << 10}, {"seed", &t->shape.seed, 0, INT32_MAX},
        {"workers", workers, 1, MOST_WORKERS}, {"epochs", epochs, 1, 1000}, {"interval", &t->interval, 1, 1 << 20}, {"copy", &t->copy, 0, 1},
    };
    bool ok = in;
    for (char *word; ok && (word = strsep(&next, " \n")); ) {
        char *value = strchr(word, '='), *end;
        if (!*word) continue;
        ok = false;
        for (size_t k = 0; value && k < sizeof known / sizeof *known; k++) {
            if (strncmp(word, known[k].name, value - word) || known[k].name[value - word]) continue;
            *known[k].to = strtoll(value + 1, &end, 10);
            ok = end > value + 1 && !*end && *known[k].to >= known[k].least && *known[k].to <= known[k].most;
        }
        if (!ok) fprintf(stderr, "sgd: \"%s\" is no option, or out of its range\n", word);
    }
    free(in);
    return ok;
}

SKEIN_EXPORT(handle) int handle(void) {
    task t = {.shape = {.examples = 16384, .features = 65536, .nonzeros = 32, .seed = 1}, .interval = 4096};
    int64_t workers = 4, epochs = 3;
    if (!options(&t, &workers, &epochs)) return 2;
    int err = make(&t.shape);
    if (err) return fail("examples", err);

    problem p;
    name(&p, &t.shape);
    double *zeros = calloc(t.shape.features, sizeof *zeros);
    if (!zeros) return fail("memory", -ENOMEM);
    err = skein_set_state(p.keys[WEIGHTS], zeros, t.shape.features * sizeof *zeros);
    free(zeros);
    if (!err) err = skein_push_state(p.keys[WEIGHTS]);
    if (err) return fail("weights", err);

    int64_t right = 0;
    for (t.epoch = 0; t.epoch < epochs && right >= 0; t.epoch++) right = all(t.copy ? copier : worker, t, workers);
    if (right >= 0) right = all(score, t, workers);
    if (right < 0) return fail("workers", (int)right);
    char text[96];
    snprintf(text, sizeof text, "%lld of %lld right after %lld epochs by %lld workers\n", right, t.shape.examples, epochs, workers);
    return skein_output_string(text) < 0;
}
