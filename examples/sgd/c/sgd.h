// The problem and the mathematics of sgd, without any of Skein: a sparse linear classifier (hinge loss) that stochastic gradient
// descent learns. The benchmark compiles it for the processor as well.
#ifndef SGD_H
#define SGD_H

#include <math.h>
#include <stdint.h>

// Shape of a problem. Each example has the same number of features that are not zero.
typedef struct {
    int64_t examples, features, nonzeros, seed;
} shape;

// mix makes a number that looks random of any.
static inline uint64_t mix(uint64_t z) {
    z += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static inline double unit(uint64_t z) { return (double)(z >> 11) * 0x1p-53; } // 0 to 1

// generate makes the ith example: columns, and their values, of the features that it has, and its label, 1 or -1. Few features
// are frequent, as words are. The labels are those of a hidden classifier, but one in twenty is wrong.
static inline void generate(const shape *s, int64_t i, uint32_t *columns, float *values, float *label) {
    uint64_t r = mix((uint64_t)s->seed * 0x10001 + (uint64_t)i);
    double sum = 0;
    for (int64_t k = 0; k < s->nonzeros; k++) {
        double u = unit(r = mix(r));
        columns[k] = (uint32_t)((double)s->features * u * u * u);
        values[k] = (float)(0.5 + unit(r = mix(r)));
        sum += (unit(mix(columns[k] ^ (uint64_t)s->seed << 32)) - 0.5) * values[k];
    }
    *label = (sum > 0) == (mix(r) % 20 > 0) ? 1 : -1;
}

static inline double margin(const double *weights, const uint32_t *columns, const float *values, int64_t n, float label) {
    double sum = 0;
    for (int64_t k = 0; k < n; k++) sum += weights[columns[k]] * values[k];
    return sum * label;
}

// step learns one example: it touches only the weights of features that the example has.
static inline void step(double *weights, const uint32_t *columns, const float *values, int64_t n, float label, double rate) {
    if (margin(weights, columns, values, n, label) < 1)
        for (int64_t k = 0; k < n; k++) weights[columns[k]] += rate * label * values[k];
}

static inline double rate_of(int64_t epoch) { return 0.1 / (1 + (double)epoch); }

#endif
