/* Sums and slopes over sets: log-sum-exp, hinge, and the products that their slopes are.

   A thread goes over keys in chunks, widened once, and over its queries in blocks of TILE_ROWS. Where a block has few entries in a
   chunk they are taken one by one; else the block is multiplied with the whole chunk, what is not present is weighed 0, and the
   weights are multiplied with the keys (toward) and with the queries (back). Factors are multiplied into the copies of the rows,
   so that a score is one product, within rounding of what onca_scores gives. Whether a block is dense is a matter of that block
   and chunk alone, so that no row's result depends on how queries are shared among threads. */
#include "tile.h"

#ifndef ONCA_SUMS
#define ONCA_SUMS
enum { SUM_KEYS = 192 };             /* of a chunk: a multiple of 64 (a word of bits) and of TILE_ROWS (they are the rows of `back`) */
enum { SUM_WORDS = SUM_KEYS / 64 };
enum { SUM_ROW = SUM_KEYS + 16 };    /* elements between rows of scores: as `spaced` would have them */
enum { SUM_QUERIES = 264, SUM_ELEMENTS = 38400 }; /* queries multiplied at once: so many at most, of so many elements at most */
#define NEGLIGIBLE (-80.0f) /* exp of less is taken as 0: next to a sum of 1 it is nothing, and products of it would be denormal */

typedef enum { SUM_LSE, SUM_SPREAD, SUM_HINGE } sum_kind;

typedef struct { /* a call */
    const onca_bag *bag;
    sum_kind kind;
    float scale;
    const float *bound;  /* [B] of a spread: lse; of a hinge: offset */
    const float *weight; /* [B] of a spread */
    float *value;        /* [B] lse or hinge */
    int64_t *active;
    float *toward, *mean, *back, *back_factor;
    int64_t padded, row; /* elements of a row with its zeros, and from row to row */
} sum_walk;

typedef struct {     /* of a query */
    float reference; /* of an lse: the largest scale * score so far; what follows, and the slope, is relative to its exp */
    double total, moment;
    int64_t active;
} sum_state;

typedef struct { /* a thread's share of a walk: some queries, and one chunk of keys after the other */
    const sum_walk *asked;
    int64_t first, queries;
    int64_t start, keys;       /* the chunk */
    int finite, taken, packed; /* of the chunk: all of it finite; `key` is filled; `across` is */
    sum_state *state;          /* [queries] */
    uint8_t *finite_block;     /* [queries / TILE_ROWS] */
    float *query, *slope;      /* [queries, row]: times query_factor; sum of weight * key */
    float *key, *across;       /* [SUM_KEYS, row]: times key_factor; the same as tile_pack gives it */
    float *back;               /* [SUM_KEYS, row]: sum of weight * query */
    float *score;              /* [SUM_QUERIES, SUM_ROW]: scores, then weights */
    void *memory;
} sum_piece;

static inline uint64_t present_word(const onca_bag *bag, int64_t query, int64_t word) {
    int64_t words = (bag->keys + 63) / 64;
    if (bag->present) return bag->present[query * words + word];
    return word < words - 1 || bag->keys % 64 == 0 ? ~0ull : (1ull << bag->keys % 64) - 1;
}

static inline float factor_of(const float *factor, int64_t i) { return factor ? factor[i] : 1.0f; }

static int open_piece(sum_piece *p, const sum_walk *asked, int64_t first, int64_t queries) {
    int64_t row = asked->row, blocks = (queries + TILE_ROWS - 1) / TILE_ROWS, rows = blocks * TILE_ROWS * row, keys = SUM_KEYS * row;
    int64_t scores = least(blocks * TILE_ROWS, SUM_QUERIES) * SUM_ROW;
    *p = (sum_piece){.asked = asked, .first = first, .queries = queries};
    char *memory = p->memory = room((2 * rows + 3 * keys + scores) * 4 + queries * (int64_t)sizeof(sum_state) + blocks, 1);
    if (!memory) return ONCA_NO_MEMORY;
    p->query = (float *)memory;
    p->slope = p->query + rows;
    p->key = p->slope + rows;
    p->back = p->key + keys;
    p->across = p->back + keys;
    p->score = p->across + keys;
    p->state = (sum_state *)(p->score + scores);
    p->finite_block = (uint8_t *)(p->state + queries);
    memset(p->query, 0, (size_t)rows * 8);
    memset(p->score, 0, (size_t)scores * 4);
    for (int64_t i = 0; i < queries; i++) p->state[i] = (sum_state){.reference = -INFINITY};
    return ONCA_OK;
}
#endif

/* ---- rows ---- */

/* Multiplies a row by a factor; is all of it finite? */
static int FN(scale_row)(float *row, int64_t padded, float factor) {
    v16 check = {0};
    for (int64_t d = 0; d < padded; d += 16) {
        v16 x = FN(load)(row + d) * factor;
        FN(store)(row + d, x);
        check += x * 0.0f;
    }
    return FN(sum)(check) == 0;
}

static void FN(take_queries)(sum_piece *p) {
    const onca_bag *bag = p->asked->bag;
    for (int64_t i = 0; i < p->queries; i++) {
        float *row = p->query + i * p->asked->row;
        memcpy(row, bag->query + (p->first + i) * bag->dim, (size_t)bag->dim * 4);
        int finite = FN(scale_row)(row, p->asked->padded, factor_of(bag->query_factor, p->first + i));
        p->finite_block[i / TILE_ROWS] = (i % TILE_ROWS == 0 || p->finite_block[i / TILE_ROWS]) && finite;
    }
}

static void FN(take_keys)(sum_piece *p) {
    if (p->taken) return;
    const onca_bag *bag = p->asked->bag;
    p->taken = p->finite = 1;
    for (int64_t j = 0; j < p->keys; j++) {
        float *row = p->key + j * p->asked->row;
        FN(widen_keys)(bag, p->start + j, 1, row, p->asked->padded);
        if (!FN(scale_row)(row, p->asked->padded, factor_of(bag->key_factor, p->start + j))) p->finite = 0;
    }
}

/* ---- scores to weights, and what they add to the sums of their row ---- */

/* The lowest 16 bits as a mask. */
ALWAYS_INLINE w16 FN(lit)(uint64_t bits) {
    const w16 place = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};
    return (((w16){0} + (int32_t)(bits & 0xffff)) & place) != 0;
}

ALWAYS_INLINE v16 FN(only)(w16 mask, v16 x) { return (v16)((w16)x & mask); }

static float FN(highest)(v16 x) {
    float top = x[0];
    for (int i = 1; i < 16; i++) top = x[i] > top ? x[i] : top;
    return top;
}

/* exp(scale * score - reference), 0 where that is negligible; nan stays nan. */
ALWAYS_INLINE v16 FN(share)(v16 score, float scale, float reference) {
    v16 x = FN(fma)(score, FN(splat)(scale), FN(splat)(-reference));
    return FN(only)(~(x < NEGLIGIBLE), FN(exp)(x));
}

/* Brings what a row has summed so far to a higher reference. */
static void FN(raise)(const sum_walk *asked, sum_state *state, float *slope, float reference) {
    float down = expf(state->reference - reference);
    state->reference = reference;
    state->total *= down;
    state->moment *= down;
    for (int64_t d = 0; d < asked->padded; d += 16) FN(store)(slope + d, FN(load)(slope + d) * down);
}

static void FN(weigh_lse)(const sum_walk *asked, sum_state *state, float *slope, float *score, const uint64_t *bits, int64_t count) {
    v16 top = FN(splat)(-INFINITY), total = {0}, moment = {0};
    for (int64_t j = 0; j < count; j += 16) {
        w16 there = FN(lit)(bits[j / 64] >> j % 64);
        top = FN(larger)(FN(choose)(there, FN(load)(score + j) * asked->scale, top), top);
    }
    float highest = FN(highest)(top);
    if (highest > state->reference) FN(raise)(asked, state, slope, highest);
    for (int64_t j = 0; j < count; j += 16) {
        w16 there = FN(lit)(bits[j / 64] >> j % 64);
        v16 x = FN(load)(score + j), weight = FN(only)(there, FN(share)(x, asked->scale, state->reference));
        total += weight;
        moment += FN(only)(there, weight * x);
        FN(store)(score + j, weight);
    }
    state->total += FN(sum)(total);
    state->moment += FN(sum)(moment);
}

static void FN(weigh_spread)(float scale, float lse, float weight, sum_state *state, float *score, const uint64_t *bits, int64_t count) {
    v16 moment = {0};
    for (int64_t j = 0; j < count; j += 16) {
        w16 there = FN(lit)(bits[j / 64] >> j % 64);
        v16 x = FN(load)(score + j), share = FN(only)(there, FN(share)(x, scale, lse) * weight);
        moment += FN(only)(there, share * x);
        FN(store)(score + j, share);
    }
    state->moment += FN(sum)(moment);
}

static void FN(weigh_hinge)(float offset, sum_state *state, float *score, const uint64_t *bits, int64_t count) {
    v16 total = {0}, moment = {0}, active = {0};
    for (int64_t j = 0; j < count; j += 16) {
        v16 x = FN(load)(score + j), over = x + offset;
        w16 on = FN(lit)(bits[j / 64] >> j % 64) & ~(over <= 0.0f); /* not `> 0`: nan counts, so that it is seen */
        v16 one = FN(only)(on, FN(splat)(1));
        total += FN(only)(on, over);
        moment += FN(only)(on, x);
        active += one;
        FN(store)(score + j, one);
    }
    state->total += FN(sum)(total);
    state->moment += FN(sum)(moment);
    state->active += (int64_t)FN(sum)(active);
}

/* Makes weights of the first `count` scores (the rest of the last 16 too: no bit is set there) for query i of the piece. */
static void FN(weigh)(sum_piece *p, int64_t i, float *score, const uint64_t *bits, int64_t count) {
    const sum_walk *asked = p->asked;
    int64_t b = p->first + i;
    if (asked->kind == SUM_LSE) FN(weigh_lse)(asked, p->state + i, p->slope + i * asked->row, score, bits, count);
    else if (asked->kind == SUM_HINGE) FN(weigh_hinge)(asked->bound[b], p->state + i, score, bits, count);
    else FN(weigh_spread)(asked->scale, asked->bound[b], asked->weight[b], p->state + i, score, bits, count);
}

/* ---- entries one by one ---- */

/* The columns whose bits are set, and how many. Three more of the last: entries are taken by four. */
static int64_t FN(columns)(const uint64_t *bits, int32_t *column) {
    int64_t count = 0;
    for (int w = 0; w < SUM_WORDS; w++)
        for (uint64_t rest = bits[w]; rest; rest &= rest - 1) column[count++] = w * 64 + __builtin_ctzll(rest);
    if (count)
        for (int i = 0; i < 3; i++) column[count + i] = column[count - 1];
    return count;
}

static void FN(listed_scores)(const sum_piece *p, const float *query, const int32_t *column, int64_t count, float *score) {
    const int64_t padded = p->asked->padded, row = p->asked->row;
    for (int64_t i = 0; i < count; i += 4) {
        const float *a = p->key + column[i] * row, *b = p->key + column[i + 1] * row;
        const float *c = p->key + column[i + 2] * row, *d = p->key + column[i + 3] * row;
        v16 to_a = {0}, to_b = {0}, to_c = {0}, to_d = {0};
        for (int64_t k = 0; k < padded; k += 16) {
            v16 x = FN(load)(query + k);
            to_a = FN(fma)(x, FN(load)(a + k), to_a);
            to_b = FN(fma)(x, FN(load)(b + k), to_b);
            to_c = FN(fma)(x, FN(load)(c + k), to_c);
            to_d = FN(fma)(x, FN(load)(d + k), to_d);
        }
        score[i] = FN(sum)(to_a);
        score[i + 1] = FN(sum)(to_b);
        score[i + 2] = FN(sum)(to_c);
        score[i + 3] = FN(sum)(to_d);
    }
}

/* to += sum of weight * key over a list, for `vectors` vectors of dimensions, which stay in registers. */
ALWAYS_INLINE void FN(listed_part)(int vectors, const float *key, int64_t row, const int32_t *column, const float *weight,
                                   int64_t count, float *to) {
    FN(tile_vector) sum[8];
    TILE_UNROLLED for (int v = 0; v < vectors; v++) sum[v] = FN(tile_load)(to + v * TILE_LANES);
    for (int64_t i = 0; i < count; i++) {
        const float *from = key + column[i] * row;
        TILE_UNROLLED for (int v = 0; v < vectors; v++) sum[v] += weight[i] * FN(tile_load)(from + v * TILE_LANES);
    }
    TILE_UNROLLED for (int v = 0; v < vectors; v++) memcpy(to + v * TILE_LANES, &sum[v], sizeof sum[v]);
}

static void FN(listed_slope)(const sum_piece *p, const int32_t *column, const float *weight, int64_t count, float *to) {
    const int64_t padded = p->asked->padded, row = p->asked->row;
    int64_t d = 0;
    for (; d + 8 * TILE_LANES <= padded; d += 8 * TILE_LANES) FN(listed_part)(8, p->key + d, row, column, weight, count, to + d);
    for (; d + 4 * TILE_LANES <= padded; d += 4 * TILE_LANES) FN(listed_part)(4, p->key + d, row, column, weight, count, to + d);
    for (; d < padded; d += TILE_LANES) FN(listed_part)(1, p->key + d, row, column, weight, count, to + d);
}

static void FN(sparse)(sum_piece *p, int64_t i) {
    const sum_walk *asked = p->asked;
    uint64_t bits[SUM_WORDS] = {0}, low[SUM_WORDS];
    int32_t column[SUM_KEYS + 3];
    float score[SUM_KEYS + 16] __attribute__((aligned(64)));
    for (int64_t w = 0; w * 64 < p->keys; w++) bits[w] = present_word(asked->bag, p->first + i, p->start / 64 + w);
    int64_t count = FN(columns)(bits, column);
    if (!count) return;
    FN(take_keys)(p);
    float *query = p->query + i * asked->row;
    FN(listed_scores)(p, query, column, count, score);
    for (int64_t w = 0; w < SUM_WORDS; w++)
        low[w] = count >= 64 * (w + 1) ? ~0ull : count <= 64 * w ? 0 : (1ull << count % 64) - 1;
    FN(weigh)(p, i, score, low, count);
    if (asked->toward) FN(listed_slope)(p, column, score, count, p->slope + i * asked->row);
    if (!asked->back && !asked->back_factor) return;
    for (int64_t j = 0; j < count; j++) {
        float *to = p->back + column[j] * asked->row;
        for (int64_t d = 0; d < asked->padded; d += 16) FN(store)(to + d, FN(load)(to + d) + score[j] * FN(load)(query + d));
    }
}

/* ---- whole blocks ---- */

static void FN(dense)(sum_piece *p, int64_t first, int64_t queries) {
    const sum_walk *asked = p->asked;
    const int64_t row = asked->row, panel = FN(tile_columns), dim = asked->bag->dim;
    if (!p->packed) FN(tile_pack)(p->key, p->keys, row, dim, p->across);
    p->packed = 1;
    FN(tile_multiply)(&(block_product){.rows = queries, .columns = up(p->keys, panel), .depth = dim, .a = p->query + first * row,
                                      .a_row = row, .a_depth = 1, .b = p->across, .b_depth = panel, .b_panel = dim * panel,
                                      .c = p->score, .c_row = SUM_ROW});
    for (int64_t i = 0; i < queries; i++) {
        uint64_t bits[SUM_WORDS] = {0};
        for (int64_t w = 0; w * 64 < p->keys; w++) bits[w] = present_word(asked->bag, p->first + first + i, p->start / 64 + w);
        FN(weigh)(p, first + i, p->score + i * SUM_ROW, bits, up(p->keys, 64));
    }
    if (asked->toward)
        FN(tile_multiply)(&(block_product){.rows = queries, .columns = asked->padded, .depth = p->keys, .a = p->score,
                                          .a_row = SUM_ROW, .a_depth = 1, .b = p->key, .b_depth = row, .b_panel = panel,
                                          .c = p->slope + first * row, .c_row = row, .add = 1});
    if (asked->back || asked->back_factor)
        FN(tile_multiply)(&(block_product){.rows = p->keys, .columns = asked->padded, .depth = queries, .a = p->score, .a_row = 1,
                                          .a_depth = SUM_ROW, .b = p->query + first * row, .b_depth = row, .b_panel = panel,
                                          .c = p->back, .c_row = row, .add = 1});
}

/* Is it less work to multiply the block of queries from i on with the whole chunk? An entry by itself costs about as much as
   three in a block. What is not finite goes one by one: 0 times it would spoil rows that do not hold it. */
static int FN(is_dense)(sum_piece *p, int64_t i) {
    int64_t entries = 0, queries = least(TILE_ROWS, p->queries - i);
    for (int64_t b = p->first + i; b < p->first + i + queries; b++)
        for (int64_t w = 0; w * 64 < p->keys; w++) entries += __builtin_popcountll(present_word(p->asked->bag, b, p->start / 64 + w));
    if (3 * entries < queries * p->keys) return 0;
    FN(take_keys)(p);
    return p->finite && p->finite_block[i / TILE_ROWS];
}

/* The slopes by the keys of the chunk, now that all queries have been added. */
static void FN(give_back)(sum_piece *p) {
    const sum_walk *asked = p->asked;
    const onca_bag *bag = asked->bag;
    float *key = p->across; /* not needed any more */
    p->packed = 0;
    for (int64_t j = 0; j < p->keys; j++) {
        float *slope = p->back + j * asked->row, factor = asked->scale * factor_of(bag->key_factor, p->start + j);
        if (asked->back)
            for (int64_t d = 0; d < bag->dim; d++) asked->back[(p->start + j) * bag->dim + d] = factor * slope[d];
        if (!asked->back_factor) continue;
        FN(widen_keys)(bag, p->start + j, 1, key, asked->padded);
        asked->back_factor[p->start + j] = asked->scale * FN(dot)(key, slope, asked->padded);
    }
}

/* Adds the keys from .. to - 1 to the piece's queries. */
static void FN(walk)(sum_piece *p, int64_t from, int64_t to) {
    const sum_walk *asked = p->asked;
    const int64_t most_rows = most(TILE_ROWS, least(SUM_QUERIES, SUM_ELEMENTS / asked->row / TILE_ROWS * TILE_ROWS));
    FN(take_queries)(p);
    for (p->start = from; p->start < to; p->start += SUM_KEYS) {
        p->keys = least(SUM_KEYS, to - p->start);
        p->taken = p->packed = 0;
        if (asked->back || asked->back_factor) memset(p->back, 0, (size_t)(SUM_KEYS * asked->row) * 4);
        for (int64_t i = 0, next; i < p->queries; i = next) {
            for (next = i; next < p->queries && next - i < most_rows && FN(is_dense)(p, next);) next += TILE_ROWS;
            if (next > i) FN(dense)(p, i, least(next, p->queries) - i);
            else
                for (next = least(i + TILE_ROWS, p->queries); i < next; i++) FN(sparse)(p, i);
        }
        if (asked->back || asked->back_factor) FN(give_back)(p);
    }
}

/* What the sums of the piece's queries come to. */
static void FN(finish)(const sum_piece *p) {
    const sum_walk *asked = p->asked;
    for (int64_t i = 0; i < p->queries; i++) {
        const sum_state *state = p->state + i;
        int64_t b = p->first + i, dim = asked->bag->dim;
        double part = asked->kind == SUM_LSE ? state->total == 0 ? 0 : 1 / state->total : 1;
        if (asked->value) asked->value[b] = (float)(asked->kind == SUM_LSE ? log(state->total) + state->reference : state->total);
        if (asked->active) asked->active[b] = state->active;
        if (asked->mean) asked->mean[b] = (float)(state->moment * part);
        float factor = (float)(part * asked->scale * factor_of(asked->bag->query_factor, b));
        if (asked->toward)
            for (int64_t d = 0; d < dim; d++) asked->toward[b * dim + d] = factor * p->slope[i * asked->row + d];
    }
}

/* ---- calls ---- */

static int FN(some_queries)(void *given, int64_t from, int64_t to, int part) {
    (void)part;
    const sum_walk *asked = given;
    sum_piece piece;
    int status = open_piece(&piece, asked, from, to - from);
    if (status) return status;
    FN(walk)(&piece, 0, asked->bag->keys);
    FN(finish)(&piece);
    free(piece.memory);
    return ONCA_OK;
}

typedef struct { /* all queries against a part of the keys for each thread */
    const sum_walk *asked;
    sum_piece *piece;
} FN(by_keys);

static int FN(some_keys)(void *given, int64_t from, int64_t to, int part) {
    const FN(by_keys) *call = given;
    sum_piece *p = call->piece + part;
    int status = open_piece(p, call->asked, 0, call->asked->bag->queries);
    if (!status) FN(walk)(p, from, to);
    return status;
}

static int FN(all_keys)(sum_walk *asked) {
    const onca_bag *bag = asked->bag;
    int parts = parts_of(bag->keys, SUM_KEYS, bag->threads);
    sum_piece piece[parts];
    memset(piece, 0, sizeof piece);
    int status = parted(bag->keys, SUM_KEYS, bag->threads, FN(some_keys), &(FN(by_keys)){asked, piece});
    for (int k = 1; k < parts && !status; k++)
        for (int64_t i = 0; i < bag->queries; i++) {
            piece[0].state[i].moment += piece[k].state[i].moment;
            for (int64_t d = 0; d < asked->padded; d++) piece[0].slope[i * asked->row + d] += piece[k].slope[i * asked->row + d];
        }
    if (!status) FN(finish)(piece);
    for (int k = 0; k < parts; k++) free(piece[k].memory);
    return status;
}

static int FN(run_walk)(sum_walk asked) {
    asked.padded = up(asked.bag->dim, 16);
    asked.row = spaced(asked.bag->dim);
    if (asked.back || asked.back_factor) return FN(all_keys)(&asked);
    return parted(asked.bag->queries, TILE_ROWS, asked.bag->threads, FN(some_queries), &asked);
}

static int FN(sums)(const onca_bag *bag, float scale, float *lse, float *toward, float *mean) {
    return FN(run_walk)((sum_walk){.bag = bag, .kind = SUM_LSE, .scale = scale, .value = lse, .toward = toward, .mean = mean});
}

static int FN(spread)(const onca_bag *bag, float scale, const float *lse, const float *weight, float *toward, float *back,
                      float *back_factor, float *mean) {
    return FN(run_walk)((sum_walk){.bag = bag, .kind = SUM_SPREAD, .scale = scale, .bound = lse, .weight = weight, .toward = toward,
                                   .mean = mean, .back = back, .back_factor = back_factor});
}

static int FN(hinge)(const onca_bag *bag, const float *offset, float *hinge, int64_t *active, float *toward, float *mean) {
    return FN(run_walk)((sum_walk){.bag = bag, .kind = SUM_HINGE, .scale = 1, .bound = offset, .value = hinge, .active = active,
                                   .toward = toward, .mean = mean});
}
