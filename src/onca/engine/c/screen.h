/* Screening: scores in 8 bits, and how far they can be from exact ones.

   A query row q becomes step * small (small: whole numbers of -127 .. 127), and so does what a key, times its factor, has
   beside the mean of some keys: k * factor = mean + scale * small + rest. Then
       q . k * factor = q . mean + step * scale * (small . small) + error,
       |error| <= |q - step * small_q| |k * factor - mean| + |step * small_q| |rest|,
   by Cauchy and Schwarz, and a little more for what float32 rounds. Taking the mean away makes the bound small where all
   embeddings point one way, as they do early in training; any mean will do, since it is only what both sides share.
   Products of whole numbers are the same on every level.

   Entries are sorted by their whole product alone: divided by the key's scale, all of this is a threshold to either side,
       above:  small . small >  (over + coarse * norm) / scale + fine * (rest / scale)
       below:  small . small < (under - coarse * norm) / scale - fine * (rest / scale)
   with the largest norm and the largest rest / scale of 64 keys, so one multiplication and addition for a key and an edge. In
   units of 2^-24, float32 rounds the product (if dim > 1,040), over + coarse * norm, 1 / scale, fine * rest and the last
   addition by at most 5 of each term. `over` and `under` are widened by 16, coarse by 64 and more, and rest by 64 and more of
   the product's own bound |small_q| |k * factor - mean|: rounding cannot make an entry sure that is not. */
#ifndef ONCA_SCREEN
#define ONCA_SCREEN
enum { GROUP = 32 }; /* query rows whose products with a tile are taken at a time */

typedef struct { /* rows of a block of queries */
    int64_t rows, padded, bytes; /* float32 and 8-bit dimensions of a row: multiples of 16 and 64 */
    float *exact;                /* [rows, padded] */
    int8_t *small;               /* [rows + GROUP, bytes] */
    int32_t *start;              /* [rows + GROUP] -128 * sum(small), where products start: keys are held as small + 128 */
    float *step, *centre;        /* [rows] score = step * x + centre, x = scale * (small . small) */
    float *coarse, *fine;        /* [rows] |x - its exact value| <= coarse * norm + fine * rest */
} screen_rows;

typedef struct { /* what is known of a tile's keys beside their packed bytes [bytes / 4][TILE][4] */
    float scale[TILE], inverse[TILE]; /* never 0 or inf */
    float norm, rest;                 /* the largest norm, and the largest rest / scale */
    uint64_t bad; /* keys that hold nan or inf */
} screen_tile;

/* Sizes beyond which float32 products may leave their range, so that no bound holds: such rows are never screened. */
static const float LITTLE = 1e-9f, MUCH = 1e9f;

static int in_range(float x) { return fabsf(x) >= LITTLE && fabsf(x) <= MUCH; }

/* Relative rounding of float32 sums over a row, generously. */
static float rounding(int64_t padded) { return (float)(padded / 16 + 32) * 0x1p-23f; }
#endif

/* y in 8 bits, y = from * times - mean (NULL: 0): low bytes of small + shift, small = y / scale in whole numbers. The squares of
   what is left, in 16 sums. */
static inline v16 FN(quantised)(const float *from, float times, const float *mean, int64_t padded, float scale, float shift,
                                uint8_t *to) {
    const float inverse = 1 / scale, magic = 12582912.0f + shift; /* 1.5 * 2^23: adding it rounds, and leaves the number in the low bits */
    union { v16 all; FN(vec) part[PARTS]; } left = {{0}};
    for (int64_t d = 0; d < padded; d += 16)
        for (int i = 0; i < PARTS; i++) {
            const int64_t at = d + i * LANES;
            FN(vec) y = mean ? FN(mad)(FN(take)(from + at), FN(all)(times), -FN(take)(mean + at)) : FN(take)(from + at);
            FN(vec) bits = FN(mad)(y, FN(all)(inverse), FN(all)(magic)), over = y - (bits - magic) * scale;
            left.part[i] = FN(mad)(over, over, left.part[i]);
#if WIDTH == 512
            _mm_storeu_si128((__m128i *)(to + at), _mm512_cvtepi32_epi8((__m512i)bits));
#else
            FN(ivec) whole = (FN(ivec))bits;
            for (int l = 0; l < LANES; l++) to[at + l] = (uint8_t)whole[l];
#endif
        }
    return left.all;
}

static int FN(all_finite)(const float *row, int64_t padded) {
    int finite = 1;
    for (int64_t d = 0; d < padded; d++) finite &= fabsf(row[d]) <= FLT_MAX;
    return finite;
}

typedef struct {
    float raw, largest, length; /* largest magnitudes of a row as it is and of what it has beside the mean; length of that */
    int finite;
} FN(extents);

static inline FN(vec) FN(size_of)(FN(vec) x) { return (FN(vec))((FN(ivec))x & 0x7fffffff); }

/* How large a row is, and row * times - mean (NULL: 0). */
static inline FN(extents) FN(extent)(const float *row, float times, const float *mean, int64_t padded) {
    FN(vec) squares[PARTS] = {{0}}, raw = {0}, largest = {0};
    for (int64_t d = 0; d < padded; d += 16)
        for (int i = 0; i < PARTS; i++) {
            FN(vec) x = FN(take)(row + d + i * LANES), y = mean ? FN(mad)(x, FN(all)(times), -FN(take)(mean + d + i * LANES)) : x;
            squares[i] = FN(mad)(y, y, squares[i]);
            raw = FN(top)(FN(size_of)(x), raw);
            largest = FN(top)(FN(size_of)(y), largest);
        }
    FN(extents) found = {FN(top_of)(raw), FN(top_of)(largest), sqrtf(FN(sum_parts)(squares)), 1};
    if (!(found.length <= FLT_MAX)) found.finite = FN(all_finite)(row, padded); /* or it is only too large to be squared */
    return found;
}

/* Query row r in 8 bits. mean: [padded]. Whether it is finite. */
static int FN(screen_row)(const screen_rows *rows, int64_t r, float factor, const float *mean) {
    const float *exact = rows->exact + r * rows->padded;
    int8_t *small = rows->small + r * rows->bytes;
    FN(extents) size = FN(extent)(exact, 1, NULL, rows->padded);
    const float largest = size.largest, scale = largest / 127;
    if (!size.finite || !(fabsf(factor) <= FLT_MAX)) return 0;
    memset(small, 0, (size_t)rows->bytes);
    rows->start[r] = 0;
    rows->step[r] = 1;
    rows->centre[r] = rows->coarse[r] = rows->fine[r] = 0;
    if (largest == 0 || factor == 0) return 1; /* all its scores are 0, and so is x */
    if (!in_range(largest) || !in_range(factor)) return rows->coarse[r] = rows->fine[r] = INFINITY, 1;
    const float rest = sqrtf(FN(sum)(FN(quantised)(exact, 1, NULL, rows->padded, scale, 0, (uint8_t *)small)));
    int32_t total = 0, squares = 0;
    for (int64_t d = 0; d < rows->bytes; d++) {
        if (factor < 0) small[d] = (int8_t)-small[d]; /* so that a larger x is a larger score */
        total += small[d];
        squares += small[d] * small[d];
    }
    rows->start[r] = -128 * total;
    rows->step[r] = scale * fabsf(factor);
    rows->centre[r] = FN(dot)(exact, mean, rows->padded) * factor;
    float much = 1 + rounding(rows->padded);
    rows->coarse[r] = (rest / scale + 127 * rounding(rows->padded)) * much;
    rows->fine[r] = (sqrtf((float)squares) + rows->coarse[r]) * much;
    return 1;
}

/* Four bytes of each key side by side: what one instruction multiplies. from [TILE][bytes], to [bytes / 4][TILE][4]. */
static void FN(packed)(const uint8_t *from, int64_t bytes, uint8_t *to) {
#if WIDTH == 512
    for (int64_t d = 0; d < bytes; d += 64)
        for (int64_t j = 0; j < TILE; j += 16) { /* 16 x 16 numbers of 4 bytes, turned in four steps of pairs */
            __m512i a[16], b[16];
            for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_si512(from + (j + i) * bytes + d);
            for (int i = 0; i < 16; i += 2) {
                b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
                b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
            }
            for (int i = 0; i < 16; i += 4)
                for (int l = 0; l < 2; l++) {
                    a[i + 2 * l] = _mm512_unpacklo_epi64(b[i + l], b[i + l + 2]);
                    a[i + 2 * l + 1] = _mm512_unpackhi_epi64(b[i + l], b[i + l + 2]);
                }
            for (int i = 0; i < 16; i += 8)
                for (int l = 0; l < 4; l++) {
                    b[i + l] = _mm512_shuffle_i32x4(a[i + l], a[i + l + 4], 0x88);
                    b[i + l + 4] = _mm512_shuffle_i32x4(a[i + l], a[i + l + 4], 0xdd);
                }
            for (int l = 0; l < 8; l++) { /* b[l]: numbers l and l + 8 of keys 0-7, b[l + 8] of keys 8-15 */
                int64_t row = d / 4 + l;
                _mm512_storeu_si512(to + (row * TILE + j) * 4, _mm512_shuffle_i32x4(b[l], b[l + 8], 0x88));
                _mm512_storeu_si512(to + ((row + 8) * TILE + j) * 4, _mm512_shuffle_i32x4(b[l], b[l + 8], 0xdd));
            }
        }
#else
    for (int64_t d = 0; d < bytes; d += 64)
        for (int64_t j = 0; j < TILE; j++)
            for (int64_t i = 0; i < 64; i += 4) memcpy(to + (d + i) * TILE + j * 4, from + j * bytes + d + i, 4);
#endif
}

typedef struct { /* of a tile's keys: bounds for each, before the largest are taken */
    float scale[TILE], length[TILE], rest[TILE];
    uint64_t finite;
} FN(key_sizes);

/* Key j in 8 bits, whatever its size. */
static void FN(screen_key)(const float *key, float times, int64_t padded, int64_t bytes, const float *mean, float coarsest,
                           int64_t j, uint8_t *to, FN(key_sizes) *of) {
    FN(extents) size = FN(extent)(key, times, mean, padded);
    of->scale[j] = 1, of->rest[j] = 0;
    if (!size.finite || !(fabsf(times) <= FLT_MAX)) {
        of->finite &= ~((uint64_t)1 << j);
        memset(to, 128, (size_t)bytes);
        return;
    }
    of->length[j] = size.length;
    if (size.raw != 0 && times != 0 && !(in_range(size.raw) && in_range(times))) of->length[j] = INFINITY;
    else if (size.largest > 1e-15f && size.length <= FLT_MAX) {
        of->scale[j] = fmaxf(size.largest / 127, coarsest);
        of->rest[j] = sqrtf(FN(sum)(FN(quantised)(key, times, mean, padded, of->scale[j], 128, to)));
        memset(to + padded, 128, (size_t)(bytes - padded));
        return;
    } else { /* too little to be squared: it is all rest */
        of->rest[j] = of->length[j] = fmaxf(size.length, size.largest * sqrtf((float)padded));
        of->scale[j] = fmaxf(fmaxf(of->length[j], coarsest), 1e-15f);
    }
    memset(to, 128, (size_t)bytes);
}

#if WIDTH == 512
/* The same for 16 keys from j on at once, if all of them are of ordinary size. Whether they are. */
static int FN(screen_16)(const float *key, const float *factor, int64_t padded, int64_t bytes, const float *mean, float coarsest,
                         int64_t j, uint8_t *to, FN(key_sizes) *of) {
    v16 squares[16], raw[16], largest[16];
    for (int i = 0; i < 16; i++) {
        const float *row = key + i * padded, times = factor ? factor[i] : 1;
        squares[i] = raw[i] = largest[i] = (v16){0};
        for (int64_t d = 0; d < padded; d += 16) {
            v16 x = FN(load)(row + d), y = FN(fma)(x, FN(splat)(times), -FN(load)(mean + d));
            squares[i] = FN(fma)(y, y, squares[i]);
            raw[i] = FN(top)((v16)((w16)x & 0x7fffffff), raw[i]);
            largest[i] = FN(top)((v16)((w16)y & 0x7fffffff), largest[i]);
        }
    }
    const v16 size = FN(top_16)(raw), big = FN(top_16)(largest), square = FN(sum_16)(squares);
    const v16 by = factor ? (v16)((w16)FN(load)(factor) & 0x7fffffff) : FN(splat)(1);
    w16 ordinary = (size >= LITTLE) & (size <= MUCH) & (by >= LITTLE) & (by <= MUCH) & (big > 1e-15f) & (square <= FLT_MAX);
    if (_mm512_movepi32_mask((__m512i)ordinary) != 0xffff) return 0; /* nan is not: it leaves its mark in the squares */
    FN(store)(of->scale + j, FN(larger)(big * (1.0f / 127), FN(splat)(coarsest)));
    FN(store)(of->length + j, (v16)_mm512_sqrt_ps((__m512)square));
    for (int i = 0; i < 16; i++) {
        squares[i] = FN(quantised)(key + i * padded, factor ? factor[i] : 1, mean, padded, of->scale[j + i], 128, to + i * bytes);
        memset(to + i * bytes + padded, 128, (size_t)(bytes - padded));
    }
    FN(store)(of->rest + j, (v16)_mm512_sqrt_ps((__m512)FN(sum_16)(squares)));
    return 1;
}
#endif

/* A tile of keys in 8 bits. key [count, padded] float32; factor of these keys or NULL; bytes_of [TILE, bytes]: scratch.
   mean_length: the length of mean. */
static void FN(screen_keys)(const float *key, const float *factor, int64_t count, int64_t padded, int64_t bytes, const float *mean,
                            float mean_length, uint8_t *bytes_of, screen_tile *tile, uint8_t *packed) {
    const float slack = rounding(padded), coarsest = slack * mean_length / 2; /* finer steps beside the mean would be in vain */
    const uint64_t all = count < TILE ? ((uint64_t)1 << count) - 1 : ~(uint64_t)0;
    FN(key_sizes) of = {.finite = all};
    for (int64_t j = 0, next; j < count; j = next) {
        next = least(j + 16, count);
#if WIDTH == 512
        if (next == j + 16 && FN(screen_16)(key + j * padded, factor ? factor + j : NULL, padded, bytes, mean, coarsest, j,
                                            bytes_of + j * bytes, &of))
            continue;
#endif
        for (; j < next; j++)
            FN(screen_key)(key + j * padded, factor ? factor[j] : 1, padded, bytes, mean, coarsest, j, bytes_of + j * bytes, &of);
    }
    for (int64_t j = count; j < TILE; j++) of.scale[j] = 1, memset(bytes_of + j * bytes, 128, (size_t)bytes);
    memcpy(tile->scale, of.scale, sizeof tile->scale);
    tile->norm = tile->rest = 0;
    tile->bad = all & ~of.finite;
    for (int64_t j = 0; j < TILE; j++) {
        tile->inverse[j] = 1 / tile->scale[j];
        if (!(of.finite >> j & 1)) continue;
        const float norm = of.length[j], left = (of.rest[j] + slack * (norm + 2 * mean_length)) * (1 + slack) * tile->inverse[j];
        if (norm * (1 + slack) > tile->norm) tile->norm = norm * (1 + slack);
        if (left > tile->rest) tile->rest = left;
    }
    FN(packed)(bytes_of, bytes, packed);
}

#include "product.h"
