/* Sums and slopes over sets: log-sum-exp, hinge, and the products that their slopes are.

   A thread goes over keys in chunks, widened once, and over its queries in blocks of TILE_ROWS. Where a block has few entries in
   a chunk they are taken one by one; else the block is multiplied with the whole chunk, what is not present is weighed 0, and
   the weights are multiplied with the keys (toward) and with the queries (back). Factors are multiplied into the copies of the
   rows, so that a score is one product, within rounding of what onca_scores gives. Whether a block is dense is a matter of that
   block and chunk alone, so that no row's result depends on how queries are shared among threads. */
#include "tile.h"

#ifndef ONCA_SUMS
#define ONCA_SUMS
enum { SUM_STEP = 192 };          /* chunks are multiples of it: whole words of bits, and whole tiles of TILE_ROWS for `back` */
enum { SUM_KEYS = 4 * SUM_STEP }; /* of a chunk, at most: they, packed and not, and the scores stay in the second cache */
enum { SUM_WORDS = SUM_KEYS / 64 };
enum { SUM_ROW = SUM_KEYS + 16 }; /* elements between rows of scores: as `spaced` would have them */
enum { SUM_QUERIES = 132 };       /* multiplied at once, at most */
enum { SUM_ELEMENTS = 768 * 144 }; /* of the keys of a chunk, and six times those of the queries */
#define NEGLIGIBLE (-80.0f) /* exp of less is taken as 0: nothing next to a sum of 1, and products of it would be denormal */

typedef enum { SUM_LSE, SUM_SPREAD, SUM_MUTUAL, SUM_HINGE } sum_kind;

typedef struct { /* a call */
    const onca_bag *bag;
    sum_kind kind;
    float scale;
    const float *bound;  /* [B] of a spread: lse; of a hinge: offset */
    const float *weight; /* [B] of a spread; both with zeros up to whole tiles where it is mutual */
    float *value;        /* [B] lse or hinge */
    int64_t *active;
    float *toward, *mean, *back, *back_factor;
    int64_t padded, row; /* elements of a row with its zeros, and from row to row */
    int64_t chunk;       /* keys */
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
    uint64_t all[SUM_WORDS];   /* the bits of all its keys */
    sum_state *state;          /* [queries] */
    uint8_t *finite_block;     /* [queries / TILE_ROWS] */
    float *query, *slope;      /* [queries, row]: times query_factor; sum of weight * key */
    float *key, *across;       /* [SUM_KEYS, row]: times key_factor; the same as tile_pack gives it */
    float *back;               /* [SUM_KEYS, row]: sum of weight * query */
    float *score;              /* [SUM_QUERIES, SUM_ROW]: scores, then weights */
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

static int open_piece(sum_piece *p, const sum_walk *asked, int64_t first, int64_t queries) {
    int64_t row = asked->row, blocks = (queries + TILE_ROWS - 1) / TILE_ROWS;
    int64_t rows = blocks * TILE_ROWS * row, keys = asked->chunk * row;
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
    const onca_bag *bag = p->asked->bag;
    for (int64_t i = 0; i < p->queries; i++) {
        v16 check = FN(scaled_row)(bag->query + (p->first + i) * bag->dim, bag->dim, factor_of(bag->query_factor, p->first + i),
                                   p->query + i * p->asked->row, p->asked->padded);
        p->finite_block[i / TILE_ROWS] = (i % TILE_ROWS == 0 || p->finite_block[i / TILE_ROWS]) && FN(sum)(check) == 0;
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

/* Makes weights of the first `count` scores (the rest of the last 16 too: no bit is set there) for query i of the piece. */
static void FN(weigh)(sum_piece *p, int64_t i, float *score, const uint64_t *bits, int64_t count) {
    const sum_walk *asked = p->asked;
    int64_t b = p->first + i;
    if (asked->kind == SUM_MUTUAL)
        FN(weigh_mutual)(asked, asked->bound[b], asked->weight[b], asked->bound + p->start, asked->weight + p->start, p->state + i,
                         score, bits, count);
    else if (asked->kind == SUM_LSE) FN(weigh_lse)(asked, p->state + i, p->slope + i * asked->row, score, bits, count);
    else if (asked->kind == SUM_HINGE) FN(weigh_hinge)(asked->bound[b], p->state + i, score, bits, count);
    else FN(weigh_spread)(asked->scale, asked->bound[b], asked->weight[b], p->state + i, score, bits, count);
}

#include "listed.h"

/* ---- whole blocks ---- */

static void FN(dense)(sum_piece *p, int64_t first, int64_t queries) {
    const sum_walk *asked = p->asked;
    const int64_t row = asked->row, panel = FN(tile_columns), dim = asked->bag->dim;
    if (!p->packed) FN(tile_pack)(p->key, p->keys, row, dim, p->across);
    p->packed = 1;
    FN(tile_multiply)(&(block_product){.rows = queries, .columns = up(p->keys, panel), .depth = dim, .a = p->query + first * row,
                                      .a_row = row, .a_depth = 1, .b = p->across, .b_depth = panel, .b_panel = dim * panel,
                                      .c = p->score, .c_row = SUM_ROW});
    for (int64_t i = 0; i < queries; i++)
        FN(weigh)(p, first + i, p->score + i * SUM_ROW, present_bits(p, first + i), up(p->keys, 64));
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
    int64_t entries = 0, queries = least(TILE_ROWS, p->queries - i), words = (p->keys + 63) / 64;
    for (int64_t b = i; b < i + queries; b++) {
        const uint64_t *bits = present_bits(p, b);
        for (int64_t w = 0; w < words; w++) entries += __builtin_popcountll(bits[w]);
    }
    if (3 * entries < queries * p->keys && p->asked->kind != SUM_MUTUAL) return 0;
    FN(take_keys)(p);
    if (p->asked->kind == SUM_MUTUAL) return 1; /* whoever asks has seen that all sums are finite */
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
    const int64_t most_rows = most(TILE_ROWS, least(SUM_QUERIES, SUM_ELEMENTS / 6 / asked->row / TILE_ROWS * TILE_ROWS));
    FN(take_queries)(p);
    for (p->start = from; p->start < to; p->start += asked->chunk) {
        p->keys = least(asked->chunk, to - p->start);
        p->taken = p->packed = 0;
        lowest_bits(p->all, p->keys);
        if (asked->back || asked->back_factor) memset(p->back, 0, (size_t)(asked->chunk * asked->row) * 4);
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
    if (!status) FN(finish)(piece);
    for (int k = 0; k < parts; k++) free(piece[k].memory);
    return status;
}

static int FN(run_walk)(sum_walk asked) {
    asked.padded = up(asked.bag->dim, 16);
    asked.row = spaced(asked.bag->dim);
    int back = asked.back || asked.back_factor; /* then a third block of the size of the keys is in use */
    asked.chunk = most(1, least(SUM_KEYS, SUM_ELEMENTS / asked.row) / SUM_STEP / (back ? 2 : 1)) * SUM_STEP;
    if (back) return FN(all_keys)(&asked);
    return parted(asked.bag->queries, TILE_ROWS, asked.bag->threads, FN(some_queries), &asked);
}

static int FN(sums)(const onca_bag *bag, float scale, float *lse, float *toward, float *mean) {
    return FN(run_walk)((sum_walk){.bag = bag, .kind = SUM_LSE, .scale = scale, .value = lse, .toward = toward, .mean = mean});
}

static int FN(spread)(const onca_bag *bag, float scale, const float *lse, const float *weight, float *toward, float *back,
                      float *back_factor, float *mean) {
    return FN(run_walk)((sum_walk){.bag = bag, .kind = SUM_SPREAD, .scale = scale, .bound = lse, .weight = weight,
                                   .toward = toward, .mean = mean, .back = back, .back_factor = back_factor});
}

static int FN(mutual)(const onca_bag *bag, float scale, const float *lse, const float *weight, float *toward, float *mean) {
    const int64_t padded = up(bag->keys, SUM_STEP);
    float *bound = room(2 * padded, 4), *weights = bound + padded;
    if (!bound) return ONCA_NO_MEMORY;
    memset(bound, 0, (size_t)padded * 8);
    for (int64_t b = 0; b < bag->queries; b++)
        if (lse[b] > -INFINITY) bound[b] = lse[b], weights[b] = weight[b]; /* or there is nothing in that row */
    int status = FN(run_walk)((sum_walk){.bag = bag, .kind = SUM_MUTUAL, .scale = scale, .bound = bound, .weight = weights,
                                         .toward = toward, .mean = mean});
    free(bound);
    return status;
}

static int FN(hinge)(const onca_bag *bag, const float *offset, float *hinge, int64_t *active, float *toward, float *mean) {
    return FN(run_walk)((sum_walk){.bag = bag, .kind = SUM_HINGE, .scale = 1, .bound = offset, .value = hinge, .active = active,
                                   .toward = toward, .mean = mean});
}
