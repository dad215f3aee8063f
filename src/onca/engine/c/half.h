/* Products of rows in 16-bit whole numbers, twice as many at once as in float32: what sums take for keys of bf16.

   A row is brought to 16 bits by a step of its own, so that its length in steps is at most HALF_LENGTH. By Cauchy and Schwarz no
   product of two rows then leaves 32 bits in the end (in between it may wrap around), and it is off by at most
   sqrt(dim) / 32,767 of the lengths, usually by 1e-5; bf16 itself rounds each number by up to 2^-9.

   Weights times the steps of the rows they are multiplied with are brought to 16 bits by runs of HALF_RUN, each with a step of
   its own: so many small ones beside a large one are lost only where they are in its run, together at most HALF_RUN / 2 steps.
   That is 2^-11 of the run's sum, or 2^-10 where signs are mixed; usually 1e-4. The step is also so large that no sum of the run,
   in any dimension, leaves 32 bits.

   Rows whose lengths are not in range (half_step) are not for these routines. */
#include "half_tile.h"

#ifndef ONCA_HALF
#define ONCA_HALF
enum { HALF_RUN = 64 };     /* rows: a word of bits */
enum { HALF_DIM = 2048 };   /* of rows, at most: beyond, rounding would come near that of bf16 */
#define HALF_LENGTH 46300.0f /* its square is less than 2^31, by more than what lengths are off */
#define HALF_OFFSET 32768   /* what is taken from weights of one sign, so that they use all 16 bits */

typedef struct { /* rows in 16 bits. Pairs: two numbers side by side in 32 bits */
    float *step;            /* [rows]: of each, 0 where it is all zeros */
    float largest;          /* number, in steps, of all rows */
    int32_t *small;         /* [rows, width / 2]: pairs of dimensions */
    int32_t *across;        /* [rows / 64][pairs of dimensions][64], NULL where not wanted */
    int32_t *along, *start; /* pairs of rows [rows / 2, row]; HALF_OFFSET times the sum of each run [rows / HALF_RUN, row] */
} half_rows;

/* Numbers of a row with its zeros, as FN(packed) wants them. */
static inline int64_t half_width(int64_t dim) { return up(dim, 32); }

/* Numbers of 32 bits of so many rows, a multiple of HALF_RUN. */
static inline int64_t half_numbers(int64_t rows, int64_t dim) {
    return rows + rows * half_width(dim) + (rows / 2 + rows / HALF_RUN) * spaced(dim);
}

/* Lays rows out in `memory`; what comes back is where they end. */
static inline float *half_open(half_rows *to, int64_t rows, int64_t dim, float *memory) {
    const int64_t pairs = rows * half_width(dim) / 2;
    to->step = memory;
    to->largest = 0;
    to->small = (int32_t *)(memory + rows);
    to->across = to->small + pairs;
    to->along = to->across + pairs;
    to->start = to->along + rows / 2 * spaced(dim);
    memset(to->step, 0, (size_t)rows * 4);
    return memory + half_numbers(rows, dim);
}

/* What the weights of a run may come to, in steps. */
static inline float half_sum(const half_rows *rows) { return 2147450000.0f / rows->largest - HALF_RUN; }
#endif

#if WIDTH == 512

/* The step of a row, and its largest number in steps; -1 where its length is not in range. */
static float FN(half_step)(const float *row, int64_t padded, float *largest) {
    v16 squares = {0}, top = {0};
    for (int64_t d = 0; d < padded; d += 16) {
        v16 x = FN(load)(row + d);
        squares = FN(fma)(x, x, squares);
        top = FN(top)(FN(size_of)(x), top);
    }
    const float length = sqrtf(FN(sum)(squares)), most_number = FN(top_of)(top);
    *largest = 0;
    if (most_number == 0) return 0;
    if (!(length > 0x1p-20f && length < 0x1p20f)) return -1;
    const float step = fmaxf(length / (HALF_LENGTH - sqrtf((float)padded) / 2), most_number / 32767);
    *largest = most_number / step + 1;
    return step;
}

/* Is a row in range? Then it has a step. largest: over all rows so far. */
static int FN(half_take)(const float *row, int64_t padded, float *step, float *largest) {
    float its;
    const float found = FN(half_step)(row, padded, &its);
    *step = fmaxf(found, 0);
    *largest = fmaxf(*largest, its);
    return found >= 0;
}

/* A row in 16 bits, with zeros up to `width`. */
static void FN(half_row)(const float *row, float step, int64_t padded, int64_t width, int16_t *to) {
    const v16 by = FN(splat)(step > 0 ? 1 / step : 0);
    memset(to + padded, 0, (size_t)(width - padded) * 2);
    for (int64_t d = 0; d < padded; d += 16) {
        __m512i number = _mm512_cvtps_epi32((__m512)(FN(load)(row + d) * by));
        _mm256_storeu_si256((__m256i *)(to + d), _mm512_cvtsepi32_epi16(number));
    }
}

/* Pairs of a run's rows, and what they begin with. from [HALF_RUN, width] */
static void FN(half_pairs)(const int16_t *from, int64_t width, int64_t padded, int64_t row, int32_t *along, int32_t *start) {
    const __m512i ones = _mm512_set1_epi32(0x00010001);
    for (int64_t d = 0; d < padded; d += 16) {
        __m512i sum = _mm512_setzero_si512();
        for (int64_t j = 0; j < HALF_RUN; j += 2) {
            const int16_t *one = from + j * width + d, *other = one + width;
            __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)one));
            __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)other));
            __m512i pair = _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
            sum = _mm512_dpwssd_epi32(sum, pair, ones);
            _mm512_storeu_si512(along + j / 2 * row + d, pair);
        }
        _mm512_storeu_si512(start + d, _mm512_mullo_epi32(sum, _mm512_set1_epi32(HALF_OFFSET)));
    }
}

/* Brings rows, `row` elements apart, to 16 bits. Their steps are known. */
static void FN(half_pack)(const float *rows, int64_t count, int64_t row, int64_t dim, const half_rows *to) {
    const int64_t padded = up(dim, 16), width = half_width(dim);
    for (int64_t first = 0; first < count; first += HALF_RUN) {
        const int64_t there = least(HALF_RUN, count - first);
        int16_t *small = (int16_t *)(to->small + first * width / 2);
        for (int64_t j = 0; j < there; j++)
            FN(half_row)(rows + (first + j) * row, to->step[first + j], padded, width, small + j * width);
        memset(small + there * width, 0, (size_t)((HALF_RUN - there) * width) * 2);
        if (to->across) FN(packed)((const uint8_t *)small, 2 * width, (uint8_t *)(to->across + first * width / 2));
        if (to->along) FN(half_pairs)(small, width, padded, row, to->along + first / 2 * row, to->start + first / HALF_RUN * row);
    }
}

/* By how much weights times steps are multiplied, and the steps that they then have: in each lane a run, of which the largest size
   and the sum are given. What is below 1e-37 is nothing; a run that is not finite has a step of nan. */
static inline v16 FN(half_scale)(v16 largest, v16 sum, float most_number, float most_sum, float *step) {
    v16 by = most_number / largest, other = most_sum / FN(size_of)(sum);
    by = FN(choose)(by < other, by, other);
    by = FN(choose)(by < 1e37f, by, FN(splat)(1e37f));
    by = FN(choose)(sum < 0, -by, by);
    FN(store)(step, 1 / by + sum * 0);
    return by;
}

/* Weights of a row [runs * HALF_RUN], of one sign unless `mixed`, times the steps of `rows`, in 16 bits. to: may be where the
   weights are. steps [16]: of the runs. */
static void FN(half_weights)(int mixed, const float *weight, const half_rows *rows, int64_t runs, int16_t *to, float *steps) {
    const __m256i offset = _mm256_set1_epi16(mixed ? 0 : (int16_t)-HALF_OFFSET);
    float largest[16] = {0};
    v16 sum[16] = {{0}}, by;
    for (int64_t k = 0; k < runs; k++) {
        v16 top = {0}, total = {0};
        for (int64_t j = k * HALF_RUN; j < (k + 1) * HALF_RUN; j += 16) {
            v16 x = FN(load)(weight + j) * FN(load)(rows->step + j), size = FN(size_of)(x);
            top = FN(top)(size, top);
            total += mixed ? size : x;
        }
        sum[k] = total;
        largest[k] = FN(top_of)(top);
    }
    by = FN(half_scale)(FN(load)(largest), FN(sum_16)(sum), mixed ? 32767 : 65534, half_sum(rows), steps);
    for (int64_t k = 0; k < runs; k++)
        for (int64_t j = k * HALF_RUN; j < (k + 1) * HALF_RUN; j += 16) {
            v16 x = FN(load)(weight + j) * FN(load)(rows->step + j) * by[k];
            __m256i number = _mm512_cvtepi32_epi16(_mm512_cvtps_epi32((__m512)x));
            _mm256_storeu_si256((__m256i *)(to + j), _mm256_xor_si256(number, offset));
        }
}

/* The same for the columns of weights [count, weight_row], that a run of `rows`, those from `first` on, is multiplied
   with: pairs to [HALF_RUN / 2, weight_row], steps [columns]. */
static void FN(half_columns)(const float *weight, int64_t weight_row, const half_rows *rows, int64_t first, int64_t count,
                             int64_t columns, int32_t *to, float *steps) {
    const float *step = rows->step + first;
    for (int64_t j = 0; j < columns; j += 16, weight += 16, to += 16, steps += 16) {
        v16 largest = {0}, sum = {0};
        for (int64_t b = 0; b < count; b++) {
            v16 size = FN(size_of)(FN(load)(weight + b * weight_row) * step[b]);
            largest = FN(top)(size, largest);
            sum += size;
        }
        v16 by = FN(half_scale)(largest, sum, 32767, half_sum(rows), steps);
        for (int64_t b = 0; b < count; b += 2) {
            v16 low = FN(load)(weight + b * weight_row) * step[b] * by, high = {0};
            if (b + 1 < count) high = FN(load)(weight + (b + 1) * weight_row) * step[b + 1] * by;
            __m512i one = _mm512_and_si512(_mm512_cvtps_epi32((__m512)low), _mm512_set1_epi32(0xffff));
            __m512i other = _mm512_slli_epi32(_mm512_cvtps_epi32((__m512)high), 16);
            _mm512_storeu_si512(to + b / 2 * weight_row, _mm512_or_si512(one, other));
        }
    }
}

/* score [count, columns]: products of rows from `first` on with others, as many as `columns`, a multiple of 64. */
static void FN(half_scores)(const half_rows *rows, int64_t first, int64_t count, const half_rows *others, int64_t columns,
                            int64_t dim, float *score, int64_t score_row) {
    const int64_t pairs = half_width(dim) / 2;
    FN(half_multiply)(&(half_product){.rows = count, .columns = columns, .depth = (dim + 1) / 2, .a = rows->small + first * pairs,
                                      .a_row = pairs, .a_depth = 1, .b = others->across, .b_depth = 64, .b_panel = 64 * pairs,
                                      .by_row = rows->step + first, .by_apart = 1, .by_column = others->step, .c = score,
                                      .c_row = score_row});
}

/* c += weights times `rows`, by rows of weights [count, weight_row], which are lost; steps [count, 16]: scratch. */
static void FN(half_slopes)(int mixed, float *weight, int64_t weight_row, int64_t count, const half_rows *rows, int64_t runs,
                            int64_t padded, float *steps, float *c, int64_t row) {
    for (int64_t i = 0; i < count; i++)
        FN(half_weights)(mixed, weight + i * weight_row, rows, runs, (int16_t *)(weight + i * weight_row), steps + i * 16);
    for (int64_t k = 0; k < runs; k++)
        FN(half_multiply)(&(half_product){.rows = count, .columns = padded, .depth = HALF_RUN / 2,
                                          .a = (const int32_t *)weight + k * HALF_RUN / 2, .a_row = weight_row, .a_depth = 1,
                                          .b = rows->along + k * HALF_RUN / 2 * row, .b_depth = row, .b_panel = 64,
                                          .start = mixed ? NULL : rows->start + k * row, .by_row = steps + k, .by_apart = 16,
                                          .c = c, .c_row = row, .add = 1});
}

/* c += weights times `rows` from `first` on, by the first `columns` of weights [count, weight_row]. scratch: HALF_RUN / 2 *
   weight_row numbers, and then the columns up to a multiple of 16. */
static void FN(half_turned)(const float *weight, int64_t weight_row, int64_t count, int64_t columns, const half_rows *rows,
                            int64_t first, int64_t padded, float *scratch, float *c, int64_t row) {
    float *steps = scratch + HALF_RUN / 2 * weight_row;
    int32_t *turned = (int32_t *)scratch;
    for (int64_t k = 0; k < count; k += HALF_RUN) {
        const int64_t some = least(HALF_RUN, count - k);
        FN(half_columns)(weight + k * weight_row, weight_row, rows, first + k, some, up(columns, 16), turned, steps);
        FN(half_multiply)(&(half_product){.rows = columns, .columns = padded, .depth = (some + 1) / 2, .a = turned, .a_row = 1,
                                          .a_depth = weight_row, .b = rows->along + (first + k) / 2 * row, .b_depth = row,
                                          .b_panel = 64, .by_row = steps, .by_apart = 1, .c = c, .c_row = row, .add = 1});
    }
}

#else /* no way is faster than float32: these are never called */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
static int FN(half_take)(const float *row, int64_t padded, float *step, float *largest) { return 0; }
static void FN(half_pack)(const float *rows, int64_t count, int64_t row, int64_t dim, const half_rows *to) {}
static void FN(half_scores)(const half_rows *rows, int64_t first, int64_t count, const half_rows *others, int64_t columns,
                            int64_t dim, float *score, int64_t score_row) {}
static void FN(half_slopes)(int mixed, float *weight, int64_t weight_row, int64_t count, const half_rows *rows, int64_t runs,
                            int64_t padded, float *steps, float *c, int64_t row) {}
static void FN(half_turned)(const float *weight, int64_t weight_row, int64_t count, int64_t columns, const half_rows *rows,
                            int64_t first, int64_t padded, float *scratch, float *c, int64_t row) {}
#pragma GCC diagnostic pop
#endif

static int FN(takes_half)(const onca_bag *bag) {
    return WIDTH == 512 && bag->key_type == ONCA_BFLOAT16 && bag->dim <= HALF_DIM;
}
