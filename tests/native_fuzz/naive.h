/* What the functions of onca.h must give, in plain loops: sets by sorting, everything else in double. */
#ifndef NAIVE_H
#define NAIVE_H
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "onca.h"

typedef struct { float score; int64_t place, column; } entry;
typedef struct { double value, size; } bounded; /* a sum, and the sum of the sizes of its terms: what rounding grows with */

static int64_t words_of(const onca_bag *bag) { return (bag->keys + 63) / 64; }

static int has(const uint64_t *bits, int64_t words, int64_t row, int64_t column) {
    return bits[row * words + column / 64] >> column % 64 & 1;
}

static int there(const onca_bag *bag, int64_t b, int64_t n) {
    return !bag->present || has(bag->present, words_of(bag), b, n);
}

static double key_at(const onca_bag *bag, int64_t n, int64_t d) {
    int64_t i = n * bag->key_stride + d;
    if (bag->key_type == ONCA_FLOAT32) return ((const float *)bag->key)[i];
    uint16_t half = ((const uint16_t *)bag->key)[i];
    if (bag->key_type == ONCA_BFLOAT16) {
        uint32_t word = (uint32_t)half << 16;
        float wide;
        memcpy(&wide, &word, sizeof wide);
        return wide;
    }
    int exponent = half >> 10 & 31, fraction = half & 1023;
    double size = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    if (exponent == 31) size = fraction ? NAN : INFINITY;
    return half >> 15 ? -size : size;
}

static double key_factor(const onca_bag *bag, int64_t n) { return bag->key_factor ? bag->key_factor[n] : 1; }
static double query_factor(const onca_bag *bag, int64_t row) { return bag->query_factor ? bag->query_factor[row] : 1; }

/* The product of query row `row` and key n, without the factors. */
static bounded product(const onca_bag *bag, int64_t row, int64_t n) {
    bounded sum = {0, 0};
    for (int64_t d = 0; d < bag->dim; d++) {
        double term = bag->query[row * bag->dim + d] * key_at(bag, n, d);
        sum.value += term, sum.size += fabs(term);
    }
    return sum;
}

static bounded score_of(const onca_bag *bag, int64_t b, int64_t n) {
    bounded best = {-INFINITY, 0};
    for (int64_t row = b * bag->views; row < (b + 1) * bag->views; row++) {
        bounded sum = product(bag, row, n);
        double factor = key_factor(bag, n) * query_factor(bag, row);
        best.value = fmax(best.value, sum.value * factor), best.size = fmax(best.size, sum.size * fabs(factor));
    }
    return best;
}

static int harder(const void *one, const void *other) {
    const entry *a = one, *b = other;
    if (a->score != b->score) return a->score > b->score ? -1 : 1;
    return a->place < b->place ? -1 : a->place > b->place;
}

/* The present entries of row b, hardest first, ties by place; how many there are. score [B,N] as onca_scores gives it. */
static int64_t ordered(const onca_bag *bag, const float *score, const int64_t *place, int64_t b, entry *list) {
    int64_t number = 0;
    for (int64_t n = 0; n < bag->keys; n++)
        if (there(bag, b, n)) list[number++] = (entry){score[b * bag->keys + n], place ? place[n] : n, n};
    qsort(list, number, sizeof *list, harder);
    return number;
}

/* log sum exp(scale * s) over the present entries of a row, and share[n] of each in it. */
static double softmax(const onca_bag *bag, const float *score, int64_t b, double scale, double *share) {
    double most = -INFINITY, sum = 0;
    for (int64_t n = 0; n < bag->keys; n++)
        if (there(bag, b, n)) most = fmax(most, scale * score[b * bag->keys + n]);
    for (int64_t n = 0; n < bag->keys; n++)
        sum += share[n] = there(bag, b, n) ? exp(scale * score[b * bag->keys + n] - most) : 0;
    for (int64_t n = 0; n < bag->keys && sum > 0; n++) share[n] /= sum;
    return sum > 0 ? log(sum) + most : -INFINITY;
}

/* Adds weight times the keys, with both factors, to slope [D]. */
static void add_keys(const onca_bag *bag, int64_t b, int64_t n, double weight, bounded *slope) {
    double factor = weight * key_factor(bag, n) * query_factor(bag, b);
    for (int64_t d = 0; d < bag->dim; d++) {
        double term = factor * key_at(bag, n, d);
        slope[d].value += term, slope[d].size += fabs(term);
    }
}
#endif
