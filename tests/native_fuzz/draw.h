/* Cases drawn from a seed: shapes, strides, values that tie, overflow or vanish, masks, factors. */
#ifndef DRAW_H
#define DRAW_H
#include <stdio.h>
#include "naive.h"

static uint64_t state, seed;
static const char *level = "";
static int far; /* are vectors very long or very short? */

/* Memory is given out in exact sizes, so that a sanitizer sees one step too far, filled with rubbish, so that what is not
   written shows, and freed at the end of a case. What is empty is NULL, as an empty tensor's memory is. */
static void *given[256];
static int held;

static void *room(int64_t count, int64_t size) {
    if (count == 0) return NULL;
    if (held == 256) abort();
    return memset(given[held++] = malloc(count * size), 0xA5, count * size);
}

static void free_all(void) { while (held) free(given[--held]); }

static uint64_t next(void) { /* splitmix64 */
    uint64_t z = state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u, z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}
static int64_t below(int64_t n) { return next() % (uint64_t)n; }
static double uniform(double low, double high) { return low + (high - low) * (next() >> 11) * 0x1p-53; }
static int chance(double share) { return uniform(0, 1) < share; }
static double normal(void) {
    double sum = -6;
    for (int i = 0; i < 12; i++) sum += uniform(0, 1);
    return sum;
}
#define PICK(...) ((double[]){__VA_ARGS__})[below(sizeof(double[]){__VA_ARGS__} / sizeof(double))]

/* Near a multiple of what tiles and words are made of, or anything. */
static int64_t draw_size(int64_t most) {
    int64_t n = chance(0.6) ? (int64_t)PICK(0, 16, 32, 64, 128, 256, 1024, 2048, 4096) + below(5) - 2 : below(most + 1);
    return n < 0 ? 0 : n > most ? n % (most + 1) : n;
}

enum { NORMAL, COARSE, EQUAL, MOSTLY_EQUAL, CLOSE, OUTLIERS, ZEROS, UNEVEN, STYLES };

/* One row of `style`; like: the row that others are equal or close to. */
static void draw_row(double *row, const double *like, int64_t dim, int style) {
    double height = style == UNEVEN ? pow(10, uniform(-6, 6)) : 1;
    int same = style == EQUAL || (style == MOSTLY_EQUAL && chance(0.7)), none = style == ZEROS && chance(0.5);
    for (int64_t d = 0; d < dim; d++) {
        if (same) row[d] = like[d];
        else if (style == CLOSE) row[d] = like[d] + 1e-6 * normal(); /* scores that differ in their last bits */
        else if (none) row[d] = chance(0.5) ? 0.0 : -0.0;
        else if (style == COARSE || style == ZEROS) row[d] = below(5) - 2;
        else row[d] = height * normal() * (style == OUTLIERS && chance(0.02) ? 1e4 : 1);
    }
}

static uint16_t half_of(double value) {
    int exponent;
    double size = fmin(fabs(value), 65504);
    frexp(size, &exponent);
    exponent = exponent < -13 ? -13 : exponent;
    double steps = nearbyint(ldexp(size, 11 - exponent)); /* below 1024: subnormal; 2048: the next power */
    uint16_t bits = steps == 0 ? 0 : (uint16_t)((exponent + 13) * 1024 + (int)steps);
    return bits | (signbit(value) ? 0x8000 : 0);
}

static void put_key(onca_bag *bag, void *key, int64_t i, double value) {
    float narrow = (float)value;
    if (bag->key_type == ONCA_FLOAT32) ((float *)key)[i] = narrow;
    else if (bag->key_type == ONCA_FLOAT16) ((uint16_t *)key)[i] = half_of(value);
    else memcpy((uint16_t *)key + i, (char *)&narrow + 2, 2); /* little-endian: the upper half */
}

static void draw_vectors(onca_bag *bag) {
    int64_t rows = bag->queries * bag->views, dim = bag->dim, shift = chance(0.3) ? below(9) : 0;
    int style = below(STYLES), own = chance(0.7) ? style : below(STYLES);
    far = chance(0.2);
    double query_size = far ? pow(10, uniform(-30, 19)) : 1, key_size = far ? pow(10, uniform(-30, 19)) : 1;
    double *like = room(dim, 8), *row = room(dim, 8);
    float *query = room(rows * dim, 4);
    draw_row(like, like, dim, NORMAL);
    for (int64_t r = 0; r < rows; r++) {
        draw_row(row, like, dim, own);
        for (int64_t d = 0; d < dim; d++) query[r * dim + d] = (float)(row[d] * query_size);
    }
    bag->query = query;
    bag->key_type = below(3);
    bag->key_stride = dim + (chance(0.3) ? below(40) : 0);
    int64_t size = bag->key_type == ONCA_FLOAT32 ? 4 : 2, last = bag->keys ? (bag->keys - 1) * bag->key_stride + dim : 0;
    char *memory = room(last ? last + shift : 0, size), *key = last ? memory + shift * size : NULL;
    for (int64_t n = 0; n < bag->keys; n++) {
        draw_row(row, like, dim, style);
        for (int64_t d = 0; d < dim; d++) put_key(bag, key, n * bag->key_stride + d, row[d] * key_size);
    }
    bag->key = key;
}

static const float *draw_factor(int64_t rows) {
    if (chance(0.5)) return NULL;
    int equal = chance(0.3), turned = chance(0.15), wide = chance(0.1);
    float *factor = room(rows, 4);
    for (int64_t r = 0; r < rows; r++) {
        factor[r] = equal ? 0.5f : (float)(wide ? pow(10, uniform(-12, 12)) : uniform(0.2, 3));
        if (turned && chance(0.5)) factor[r] = chance(0.2) ? 0 : -factor[r];
    }
    return factor;
}

static uint64_t *draw_bits(int64_t rows, int64_t keys) {
    int64_t words = (keys + 63) / 64;
    double share = PICK(0, 0.02, 0.1, 0.3, 0.9, 0.99, 1);
    uint64_t *bits = room(rows * words, 8);
    if (bits) memset(bits, 0, rows * words * 8);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t n = 0, empty = chance(0.1); n < keys && !empty; n++)
            if (chance(share)) bits[r * words + n / 64] |= (uint64_t)1 << n % 64;
    return bits;
}

/* Few keys are all scored; more are screened; of very many, lists of candidates may run over. */
static onca_bag draw_bag(void) {
    onca_bag bag = {0};
    int many = chance(0.05), few = chance(0.45);
    bag.queries = many ? below(3) : chance(0.1) ? draw_size(70) : below(7);
    bag.views = many || chance(0.75) ? 1 : chance(0.9) ? 1 + below(4) : 1 + below(70);
    bag.dim = many ? 1 + below(20) : chance(0.95) ? 1 + below(chance(0.6) ? 20 : 140) : 1 + draw_size(400);
    bag.keys = many ? 8193 + below(30000) : few ? draw_size(600) : 500 + draw_size(2600);
    bag.threads = (int32_t)(1 + below(4));
    draw_vectors(&bag);
    bag.query_factor = draw_factor(bag.queries * bag.views);
    bag.key_factor = draw_factor(bag.keys);
    bag.present = chance(0.4) ? NULL : draw_bits(bag.queries, bag.keys);
    return bag;
}

static int64_t *draw_places(int64_t keys) {
    if (chance(0.5)) return NULL;
    int64_t *place = room(keys, 8), shuffled = chance(0.5);
    for (int64_t n = 0; n < keys; n++) place[n] = 7 + 3 * n;
    for (int64_t n = keys - 1; n > 0 && shuffled; n--) {
        int64_t other = below(n + 1), kept = place[n];
        place[n] = place[other], place[other] = kept;
    }
    return place;
}
#endif
