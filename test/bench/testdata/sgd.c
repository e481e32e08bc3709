// The baseline of app.sgd: examples/sgd/c compiled for the processor, with threads for functions. It serves one request a line:
//
//   redis|shared WORKERS EPOCHS INTERVAL EXAMPLES FEATURES NONZEROS SEED
//
// and answers how many examples are classified right. "redis" gets and sets all weights in Redis around each interval, as
// functions without shared memory do; "shared" shares an array among the threads. Examples are generated once and kept.
#define _GNU_SOURCE
#include "../../../examples/sgd/c/sgd.h"
#include "peer.h"

#include <netinet/tcp.h>
#include <pthread.h>
#include <string.h>

enum { MOST_WORKERS = 64 };

static shape now;
static uint32_t *columns;
static float *values, *labels;
static double *shared;
static int redis_port;

static void *memory(size_t size) {
    void *p = calloc(1, size);
    if (!p) die("memory");
    return p;
}

static void write_all(int fd, const void *data, size_t n) {
    for (ssize_t k; n > 0; data = (const char *)data + k, n -= k)
        if ((k = write(fd, data, n)) <= 0) die("write");
}

static void read_all(int fd, void *data, size_t n) {
    for (ssize_t k; n > 0; data = (char *)data + k, n -= k)
        if ((k = read(fd, data, n)) <= 0) die("read");
}

static int dial(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(redis_port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd < 0 || connect(fd, (void *)&at, sizeof at)) die("redis");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static void expect(int fd, const char *text) {
    char got[32] = {0};
    read_all(fd, got, strlen(text));
    if (strcmp(got, text)) die("redis answers something else");
}

static void set_weights(int fd, const double *weights) {
    char head[96];
    size_t size = now.features * sizeof *weights;
    int n = snprintf(head, sizeof head, "*3\r\n$3\r\nSET\r\n$9\r\nsgd-bench\r\n$%zu\r\n", size);
    write_all(fd, head, n);
    write_all(fd, weights, size);
    write_all(fd, "\r\n", 2);
    expect(fd, "+OK\r\n");
}

static void get_weights(int fd, double *weights) {
    char head[32];
    size_t size = now.features * sizeof *weights;
    static const char get[] = "*2\r\n$3\r\nGET\r\n$9\r\nsgd-bench\r\n";
    write_all(fd, get, sizeof get - 1);
    snprintf(head, sizeof head, "$%zu\r\n", size);
    expect(fd, head);
    read_all(fd, weights, size);
    expect(fd, "\r\n");
}

typedef struct {
    int64_t from, to, epoch, interval;
    int redis, scores;
    int64_t right;
} task;

static void *work(void *arg) {
    task *t = arg;
    int fd = t->redis ? dial() : -1;
    double *weights = t->redis ? memory(now.features * sizeof *weights) : shared;
    const int64_t n = now.nonzeros;
    if (t->scores) t->interval = now.examples;
    for (int64_t i = t->from; i < t->to;) {
        if (t->redis) get_weights(fd, weights);
        for (int64_t end = i + t->interval < t->to ? i + t->interval : t->to; i < end; i++) {
            if (t->scores)
                t->right += margin(weights, columns + i * n, values + i * n, n, labels[i]) > 0;
            else
                step(weights, columns + i * n, values + i * n, n, labels[i], rate_of(t->epoch));
        }
        if (t->redis && !t->scores) set_weights(fd, weights);
    }
    if (t->redis) {
        close(fd);
        free(weights);
    }
    return NULL;
}

// all has threads do a part each, and adds up what they found right.
static int64_t all(task t, int64_t n) {
    pthread_t threads[MOST_WORKERS];
    task tasks[MOST_WORKERS];
    for (int64_t i = 0; i < n; i++) {
        tasks[i] = t;
        tasks[i].from = now.examples * i / n, tasks[i].to = now.examples * (i + 1) / n;
        if (pthread_create(&threads[i], NULL, work, &tasks[i])) die("thread");
    }
    int64_t right = 0;
    for (int64_t i = 0; i < n; i++) {
        pthread_join(threads[i], NULL);
        right += tasks[i].right;
    }
    return right;
}

static int64_t train(task t, const shape *s, int64_t workers, int64_t epochs) {
    if (memcmp(s, &now, sizeof now)) {
        free(columns), free(values), free(labels), free(shared);
        now = *s;
        columns = memory(now.examples * now.nonzeros * sizeof *columns), values = memory(now.examples * now.nonzeros * sizeof *values);
        labels = memory(now.examples * sizeof *labels), shared = memory(now.features * sizeof *shared);
        for (int64_t i = 0; i < now.examples; i++)
            generate(&now, i, columns + i * now.nonzeros, values + i * now.nonzeros, labels + i);
    }
    memset(shared, 0, now.features * sizeof *shared);
    if (t.redis) {
        int fd = dial();
        set_weights(fd, shared);
        close(fd);
    }
    for (t.epoch = 0; t.epoch < epochs; t.epoch++) all(t, workers);
    t.scores = 1;
    return all(t, workers);
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    redis_port = atoi(argv[1]);
    int fd;
    FILE *peer = peer_accept(&fd);
    char line[256], mode[16];
    while (fgets(line, sizeof line, peer)) {
        task t = {0};
        shape s;
        memset(&s, 0, sizeof s);
        int64_t workers, epochs;
        if (sscanf(line, "%15s %ld %ld %ld %ld %ld %ld %ld", mode, &workers, &epochs, &t.interval, &s.examples, &s.features, &s.nonzeros,
                   &s.seed) != 8 || workers < 1 || workers > MOST_WORKERS)
            return 2;
        t.redis = !strcmp(mode, "redis");
        dprintf(fd, "%ld\n", train(t, &s, workers, epochs));
    }
    return 0;
}
