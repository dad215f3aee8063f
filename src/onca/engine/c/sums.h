/* Sums and slopes over sets: log-sum-exp, hinge, and the products that their slopes are.

   A thread goes over keys in chunks, widened once, and over its queries in blocks of TILE_ROWS. Where a block has few entries in
   a chunk they are taken one by one; else the block is multiplied with the whole chunk, what is not present is weighed 0, and
   the weights are multiplied with the keys (toward) and with the queries (back): in float32, or in 16 bits where keys are of bf16
   (half.h). An lse at several scales takes the scores once and weighs them for each. Factors are multiplied into the copies of the
   rows, so that a score is one product, within rounding of what onca_scores gives. Which way a block goes is a matter of that
   block and chunk alone, so that no row's result depends on how queries are shared among threads. */
#include "tile.h"
#include "half.h"

#ifndef ONCA_SUMS
#define ONCA_SUMS
enum { SUM_STEP = 192 };          /* chunks are multiples of it: whole words of bits, and whole tiles of TILE_ROWS for `back` */
enum { SUM_KEYS = 4 * SUM_STEP }; /* of a chunk, at most: they, packed and not, and the scores stay in the second cache */
enum { SUM_WORDS = SUM_KEYS / 64 };
enum { SUM_ROW = SUM_KEYS + 16 }; /* elements between rows of scores: as `spaced` would have them */
enum { SUM_QUERIES = 132 };       /* multiplied at once, at most */
enum { SUM_ELEMENTS = 768 * 144 }; /* of the keys of a chunk, and six times those of the queries */
#define NEGLIGIBLE (-80.0f) /* exp of less is taken as 0: nothing next to a sum of 1, and products of it would be denormal */

typedef enum { SUM_LSE, SUM_SPREAD, SUM_HINGE } sum_kind;

typedef struct { /* a call */
    const onca_bag *bag;
    sum_kind kind;
    const float *scale;  /* [scales] */
    int64_t scales, slopes; /* of an lse: how many there are, and the first so many have slopes; else 1 */
    const float *bound;  /* [B] of a spread: lse; of a hinge: offset */
    const float *weight; /* [B] of a spread */
    float *value;        /* [scales,B] lse or hinge */
    int64_t *active;
    float *toward, *mean; /* [slopes,B,D], [slopes,B] */
    float *back, *back_factor;
    int64_t padded, row; /* elements of a row with its zeros, and from row to row */
    int64_t chunk;       /* keys */
    int half;            /* are products taken in 16 bits, where rows are in range? */
} sum_walk;

typedef enum { ONE_BY_ONE, WHOLE, HALF } sum_way; /* how a block of queries goes over a chunk */

typedef struct {     /* of a query */
    float reference; /* of an lse: the largest scale * score so far; what follows, and the slope, is relative to its exp */
    double total, moment;
    int64_t active;
} sum_state;

typedef struct { /* of a query, where its scores are known */
    int64_t word, count; /* how many of them stand before a word of bits */
} known_at;

typedef struct { /* what a piece has in 16 bits */
    half_rows key, query; /* the chunk; the queries */
    int fits;             /* are all keys of the chunk in range? -1: not yet known */
    float *steps;         /* [SUM_QUERIES, 16]: of weights, by rows and runs */
    float *turned;        /* [HALF_RUN / 2, SUM_ROW] and [SUM_KEYS]: weights by columns, and their steps */
} half_piece;

typedef struct { /* a thread's share of a walk: some queries, and one chunk of keys after the other */
    const sum_walk *asked;
    int64_t first, queries;
    int64_t start, keys;       /* the chunk */
    int finite, taken;         /* of the chunk: all of it finite; `key` is filled */
    sum_way packed;            /* how the chunk is packed */
    uint64_t all[SUM_WORDS];   /* the bits of all its keys */
    sum_state *state;          /* [scales, queries] */
    uint8_t *able;             /* [queries / TILE_ROWS]: the fastest way, a sum_way, that each block of queries may go */
    float *query;              /* [queries, row]: times query_factor */
    float *slope;              /* [slopes, queries up to whole tiles, row]: sum of weight * key */
    float *key, *across;       /* [SUM_KEYS, row]: times key_factor; the same packed, as tile_pack or half_pack do it */
    const float *one;          /* the chunk's keys for entries by themselves, one_row elements apart: `key`, or where they lie */
    int64_t one_row;
    known_at *known;           /* [queries] or NULL */
    float *back;               /* [SUM_KEYS, row]: sum of weight * query */
    float *score;              /* [SUM_QUERIES, SUM_ROW]: scores, then weights of the first scale */
    float *other;              /* [SUM_QUERIES, SUM_ROW] where there are more: weights of each of them in turn */
    half_piece half;
    void *memory;
} sum_piece;

/* Which keys of the chunk are present for query i of the piece. */
static inline const uint64_t *present_bits(const sum_piece *p, int64_t i) {
    const onca_bag *bag = p->asked->bag;
    return bag->present ? bag->present + (p->first + i) * ((bag->keys + 63) / 64) + p->start / 64 : p->all;
}

static inline void lowest_bits(uint64_t *bits, int64_t count) {
    for (int64_t w = 0; w < SUM_WORDS; w++)
        bits[w] = count >= 64 * (w + 1) ? ~0ull : count <= 64 * w ? 0 : (1ull << count % 64) - 1;
}

static inline float factor_of(const float *factor, int64_t i) { return factor ? factor[i] : 1.0f; }

static inline const char *key_row(const onca_bag *bag, int64_t j) {
    return (const char *)bag->key + j * bag->key_stride * (bag->key_type == ONCA_FLOAT32 ? 4 : 2);
}

/* The sums at a scale of query i of the piece, and its slope. */
static inline sum_state *state_at(const sum_piece *p, int64_t scale, int64_t i) { return p->state + scale * p->queries + i; }

static inline float *slope_at(const sum_piece *p, int64_t scale, int64_t i) {
    return p->slope + (scale * up(p->queries, TILE_ROWS) + i) * p->asked->row;
}

/* Numbers of 32 bits that half_piece has, for so many queries. */
static inline int64_t half_piece_numbers(const sum_walk *asked, int64_t queries) {
    const int64_t dim = asked->bag->dim, rows = half_numbers(asked->chunk, dim) + half_numbers(up(queries + TILE_ROWS, HALF_RUN), dim);
    return rows + 16 * SUM_QUERIES + HALF_RUN / 2 * SUM_ROW + SUM_KEYS;
}

static void open_half_piece(half_piece *half, const sum_walk *asked, int64_t queries, float *memory) {
    memory = half_open(&half->key, asked->chunk, asked->bag->dim, memory);
    memory = half_open(&half->query, up(queries + TILE_ROWS, HALF_RUN), asked->bag->dim, memory);
    half->query.across = NULL;
    if (!asked->back && !asked->back_factor) half->query.along = NULL;
    half->steps = memory;
    half->turned = memory + 16 * SUM_QUERIES;
    memset(memory, 0, (size_t)(16 * SUM_QUERIES + HALF_RUN / 2 * SUM_ROW + SUM_KEYS) * 4);
}

static int open_piece(sum_piece *p, const sum_walk *asked, int64_t first, int64_t queries) {
    int64_t row = asked->row, blocks = (queries + TILE_ROWS - 1) / TILE_ROWS, states = asked->scales * queries;
    int64_t rows = blocks * TILE_ROWS * row, keys = asked->chunk * row, slopes = most(1, asked->slopes) * rows;
    int64_t scores = least(blocks * TILE_ROWS, SUM_QUERIES) * SUM_ROW, both = asked->scales > 1 ? 2 * scores : scores;
    int64_t half = asked->half ? half_piece_numbers(asked, queries) : 0;
    int64_t known = asked->bag->known ? queries * (int64_t)sizeof(known_at) : 0;
    *p = (sum_piece){.asked = asked, .first = first, .queries = queries};
    const int64_t bytes = (rows + slopes + 3 * keys + both + half) * 4 + states * (int64_t)sizeof(sum_state) + known + blocks;
    char *memory = p->memory = room(bytes, 1);
    if (!memory) return ONCA_NO_MEMORY;
    p->query = (float *)memory;
    p->slope = p->query + rows;
    p->key = p->slope + slopes;
    p->back = p->key + keys;
    p->across = p->back + keys;
    p->score = p->across + keys;
    p->other = p->score + both - scores;
    if (half) open_half_piece(&p->half, asked, queries, p->score + both);
    p->state = (sum_state *)(p->score + both + half);
    p->known = known ? (known_at *)(p->state + states) : NULL;
    p->able = (uint8_t *)(p->state + states) + known;
    if (known) memset(p->known, 0, (size_t)known);
    memset(p->query, 0, (size_t)(rows + slopes) * 4);
    memset(p->score, 0, (size_t)both * 4);
    for (int64_t i = 0; i < states; i++) p->state[i] = (sum_state){.reference = -INFINITY};
    return ONCA_OK;
}
#endif

#include "weigh.h"

/* ---- rows ---- */

/* A row of `dim` numbers times a factor, and zeros up to `padded`; what comes back is 0 if all of it is finite. */
static inline v16 FN(scaled_row)(const float *from, int64_t dim, float factor, float *to, int64_t padded) {
    float rest[16] = {0};
    v16 check = {0};
    for (int64_t d = 0; d < padded; d += 16) {
        if (d + 16 > dim) memcpy(rest, from + d, (size_t)(dim - d) * 4);
        v16 x = FN(load)(d + 16 > dim ? rest : from + d) * factor;
        FN(store)(to + d, x);
        check += x * 0.0f;
    }
    return check;
}

static void FN(take_queries)(sum_piece *p) {
    const sum_walk *asked = p->asked;
    const onca_bag *bag = asked->bag;
    half_piece *half = &p->half;
    for (int64_t i = 0; i < p->queries; i++) {
        v16 check = FN(scaled_row)(bag->query + (p->first + i) * bag->dim, bag->dim, factor_of(bag->query_factor, p->first + i),
                                   p->query + i * asked->row, asked->padded);
        const float *row = p->query + i * asked->row;
        sum_way able = FN(sum)(check) == 0 ? WHOLE : ONE_BY_ONE;
        if (able == WHOLE && asked->half && FN(half_take)(row, asked->padded, half->query.step + i, &half->query.largest)) able = HALF;
        uint8_t *block = p->able + i / TILE_ROWS;
        if (i % TILE_ROWS == 0 || able < *block) *block = (uint8_t)able;
    }
}

static void FN(take_keys)(sum_piece *p) {
    if (p->taken) return;
    const onca_bag *bag = p->asked->bag;
    v16 check = {0};
    p->taken = 1;
    for (int64_t j = 0; j < p->keys; j++) {
        const void *from = key_row(bag, p->start + j);
        float *row = p->key + j * p->asked->row;
        if (bag->key_type != ONCA_FLOAT32) FN(widen)(bag->key_type, from, bag->dim, row, p->asked->padded), from = row;
        check += FN(scaled_row)(from, bag->dim, factor_of(bag->key_factor, p->start + j), row, p->asked->padded);
    }
    p->finite = FN(sum)(check) == 0;
}

/* Makes weights of the first `count` scores (the rest of the last 16 too: no bit is set there) for query i of the piece, at one of
   the scales; `to` may be `score`. */
static void FN(weigh_at)(sum_piece *p, int64_t scale, int64_t i, const float *score, float *to, const uint64_t *bits, int64_t count) {
    float *slope = p->asked->toward && scale < p->asked->slopes ? slope_at(p, scale, i) : NULL;
    FN(weigh_lse)(p->asked->scale[scale], state_at(p, scale, i), slope, p->asked->padded, score, to, bits, count);
}

/* The same in place, at the first scale. */
static void FN(weigh)(sum_piece *p, int64_t i, float *score, const uint64_t *bits, int64_t count) {
    const sum_walk *asked = p->asked;
    int64_t b = p->first + i;
    if (asked->kind == SUM_LSE) FN(weigh_at)(p, 0, i, score, score, bits, count);
    else if (asked->kind == SUM_HINGE) FN(weigh_hinge)(asked->bound[b], p->state + i, score, bits, count);
    else FN(weigh_spread)(*asked->scale, asked->bound[b], asked->weight[b], p->state + i, score, bits, count);
}

#include "listed.h"

#include "dense.h"

/* ---- walks ---- */

/* The slopes by the keys of the chunk, now that all queries have been added. */
static void FN(give_back)(sum_piece *p) {
    const sum_walk *asked = p->asked;
    const onca_bag *bag = asked->bag;
    float *key = p->across; /* not needed any more */
    p->packed = ONE_BY_ONE;
    for (int64_t j = 0; j < p->keys; j++) {
        float *slope = p->back + j * asked->row, factor = *asked->scale * factor_of(bag->key_factor, p->start + j);
        if (asked->back)
            for (int64_t d = 0; d < bag->dim; d++) asked->back[(p->start + j) * bag->dim + d] = factor * slope[d];
        if (!asked->back_factor) continue;
        FN(widen_keys)(bag, p->start + j, 1, key, asked->padded);
        asked->back_factor[p->start + j] = *asked->scale * FN(dot)(key, slope, asked->padded);
    }
}

/* Adds the keys from .. to - 1 to the piece's queries. */
static void FN(walk)(sum_piece *p, int64_t from, int64_t to) {
    const sum_walk *asked = p->asked;
    const int64_t most_rows = most(TILE_ROWS, least(SUM_QUERIES, SUM_ELEMENTS / 6 / asked->row / TILE_ROWS * TILE_ROWS));
    FN(take_queries)(p);
    if (asked->half) FN(half_pack)(p->query, p->queries, asked->row, asked->bag->dim, &p->half.query);
    for (p->start = from; p->start < to; p->start += asked->chunk) {
        p->keys = least(asked->chunk, to - p->start);
        p->taken = 0, p->packed = ONE_BY_ONE, p->half.fits = -1;
        p->one = NULL;
        lowest_bits(p->all, p->keys);
        if (asked->back || asked->back_factor) memset(p->back, 0, (size_t)(asked->chunk * asked->row) * 4);
        for (int64_t i = 0, next; i < p->queries; i = next) {
            const sum_way way = FN(way_of)(p, i);
            next = i + TILE_ROWS;
            if (way == ONE_BY_ONE)
                for (next = least(next, p->queries); i < next; i++) FN(sparse)(p, i);
            else {
                while (next < p->queries && next - i < most_rows && FN(way_of)(p, next) == way) next += TILE_ROWS;
                FN(dense)(p, way, i, least(next, p->queries) - i);
            }
        }
        if (asked->back || asked->back_factor) FN(give_back)(p);
    }
}

/* What the sums of the piece's queries come to at a scale. */
static void FN(finish)(const sum_piece *p, int64_t scale) {
    const sum_walk *asked = p->asked;
    for (int64_t i = 0; i < p->queries; i++) {
        const sum_state *state = state_at(p, scale, i);
        int64_t b = scale * asked->bag->queries + p->first + i, dim = asked->bag->dim;
        double part = asked->kind == SUM_LSE ? state->total == 0 ? 0 : 1 / state->total : 1;
        if (asked->value) asked->value[b] = (float)(asked->kind == SUM_LSE ? log(state->total) + state->reference : state->total);
        if (asked->active) asked->active[b] = state->active;
        if (scale >= asked->slopes) continue;
        const float *slope = slope_at(p, scale, i);
        if (asked->mean) asked->mean[b] = (float)(state->moment * part);
        float factor = (float)(part * asked->scale[scale] * factor_of(asked->bag->query_factor, p->first + i));
        if (asked->toward)
            for (int64_t d = 0; d < dim; d++) asked->toward[b * dim + d] = factor * slope[d];
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
    for (int64_t scale = 0; scale < asked->scales; scale++) FN(finish)(&piece, scale);
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
    int parts = parts_of(bag->keys, asked->chunk, bag->threads);
    sum_piece piece[parts];
    memset(piece, 0, sizeof piece);
    int status = parted(bag->keys, asked->chunk, bag->threads, FN(some_keys), &(FN(by_keys)){asked, piece});
    for (int k = 1; k < parts && !status; k++)
        for (int64_t i = 0; i < bag->queries; i++) {
            piece[0].state[i].moment += piece[k].state[i].moment;
            float *to = piece[0].slope + i * asked->row, *from = piece[k].slope + i * asked->row;
            for (int64_t d = 0; d < asked->padded; d++) to[d] += from[d];
        }
    if (!status) FN(finish)(piece, 0);
    for (int k = 0; k < parts; k++) free(piece[k].memory);
    return status;
}

static int FN(run_walk)(sum_walk asked) {
    if (!asked.scales) asked.scales = asked.slopes = 1;
    asked.padded = up(asked.bag->dim, 16);
    asked.row = spaced(asked.bag->dim);
    asked.half = asked.kind != SUM_HINGE && FN(takes_half)(asked.bag); /* of a hinge, who is active is told by exact scores */
    int back = asked.back || asked.back_factor; /* then a third block of the size of the keys is in use */
    asked.chunk = most(1, least(SUM_KEYS, SUM_ELEMENTS / asked.row) / SUM_STEP / (back ? 2 : 1)) * SUM_STEP;
    if (back) return FN(all_keys)(&asked);
    return parted(asked.bag->queries, TILE_ROWS, asked.bag->threads, FN(some_queries), &asked);
}

static int FN(sums)(const onca_bag *bag, int64_t scales, const float *scale, int64_t slopes, float *lse, float *toward,
                    float *mean) {
    return FN(run_walk)((sum_walk){.bag = bag, .kind = SUM_LSE, .scale = scale, .scales = scales, .slopes = slopes, .value = lse,
                                   .toward = toward, .mean = mean});
}

static int FN(spread)(const onca_bag *bag, float scale, const float *lse, const float *weight, float *toward, float *back,
                      float *back_factor, float *mean) {
    return FN(run_walk)((sum_walk){.bag = bag, .kind = SUM_SPREAD, .scale = &scale, .bound = lse, .weight = weight,
                                   .toward = toward, .mean = mean, .back = back, .back_factor = back_factor});
}

static int FN(hinge)(const onca_bag *bag, const float *offset, float *hinge, int64_t *active, float *toward, float *mean) {
    const float one = 1;
    return FN(run_walk)((sum_walk){.bag = bag, .kind = SUM_HINGE, .scale = &one, .bound = offset, .value = hinge, .active = active,
                                   .toward = toward, .mean = mean});
}
