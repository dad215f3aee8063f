/* The one walk over all keys: each entry is surely above an edge's bracket, surely below, or a candidate that is scored
   exactly while its key is in the cache. */
#ifndef ONCA_STREAM
#define ONCA_STREAM
enum { AHEAD = 8 }; /* tiles whose words of bits are kept together: a cache line of each row */

typedef struct { /* exact scores of a row's candidates, in order of their columns, which are the set bits of `wanted` */
    float *score;
    int64_t count, held;
    int own, full; /* own: score is to be freed. full: more came than may be kept: the row must be done again */
} candidates;

typedef struct { /* a block of queries */
    const onca_bag *bag;
    const int64_t *which; /* [queries] of the bag */
    int64_t queries, edges, words;
    int open; /* without screening: every entry that is present is a candidate */
    screen_rows rows;
    const float *mean;
    float mean_length;
    float *factor;      /* [rows] or NULL */
    float *high, *low;  /* [edges, queries] the bracket, in scores */
    float *over, *under; /* [parts, edges, rows] the same in x */
    uint64_t *chosen;   /* [edges, queries of the bag, words] or NULL */
    const float *bound; /* [queries of the bag]: candidates above it are chosen at once, and not kept */
    int parts;
    int64_t limit;      /* candidates that a part keeps of a row */
    int64_t *expected;  /* [queries] candidates */
    float *slab;        /* where lists start */
    candidates *lists;  /* [parts, queries] */
    uint64_t *wanted;   /* [queries, words] which are candidates */
    int64_t *above;     /* [parts, edges, queries] how many are surely above */
} block;

/* Space for `count` more candidates and a vector beyond them. */
static int make_space(candidates *list, int64_t count) {
    if (list->count + count + 16 <= list->held) return ONCA_OK;
    int64_t held = up(list->held * 3 / 2 + count + 16, 512);
    float *score = list->own ? realloc(list->score, (size_t)held * sizeof *score) : malloc((size_t)held * sizeof *score);
    if (!score) return ONCA_NO_MEMORY;
    if (!list->own && list->count) memcpy(score, list->score, (size_t)list->count * sizeof *score);
    list->score = score, list->held = held, list->own = 1;
    return ONCA_OK;
}
#endif

typedef struct { /* what one part of the walk works with */
    float *key, *near, *high, *low, *score, *other;
    uint8_t *bytes, *packed, *row, *column;
    int32_t *product;
    uint64_t *present, *word, *wanted; /* [AHEAD, queries], word [AHEAD, edges, queries] */
    uint8_t query[GROUP], many[GROUP]; /* those of a group that have candidates, and how many */
    int64_t some;
    screen_tile tile;
    int64_t group; /* queries whose rows are multiplied at a time */
} FN(desk);

static void FN(clear)(FN(desk) *d) {
    void *all[] = {d->key, d->near, d->high, d->low, d->score, d->other, d->bytes, d->packed,
                   d->row, d->column, d->product, d->present, d->word, d->wanted};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static int FN(lay)(FN(desk) *d, const block *b) {
    const int64_t views = b->bag->views, padded = b->rows.padded, most_pairs = GROUP * TILE + 128;
    memset(d, 0, sizeof *d);
    d->group = most(1, GROUP / views);
    int64_t product = up(d->group * views, 32) * TILE * 4;
    d->key = room(TILE * padded, 4), d->near = room(padded, 4);
    d->high = room(b->edges * b->rows.rows, 4), d->low = room(b->edges * b->rows.rows, 4);
    d->score = room(most_pairs, 4), d->other = room(most_pairs, 4);
    d->bytes = room(TILE * b->rows.bytes, 1), d->packed = room(TILE * b->rows.bytes, 1);
    d->row = room(most_pairs, 1), d->column = room(most_pairs, 1);
    d->product = room(product, 1);
    d->present = room(b->queries * AHEAD, 8), d->word = room(b->edges * b->queries * AHEAD, 8), d->wanted = room(b->queries * AHEAD, 8);
    if (!(d->key && d->near && d->high && d->low && d->score && d->other && d->bytes && d->packed && d->row && d->column &&
          d->product && d->present && d->word && d->wanted))
        return FN(clear)(d), ONCA_NO_MEMORY;
    memset(d->product, 0, (size_t)product);
    memset(d->bytes, 128, (size_t)(TILE * b->rows.bytes));
    memset(&d->tile, 0, sizeof d->tile);
    return ONCA_OK;
}

/* Bits of which entries of a tile are there. */
static uint64_t FN(tile_bits)(int64_t keys, int64_t tile) {
    int64_t left = keys - tile * TILE;
    return left >= TILE ? ~(uint64_t)0 : ((uint64_t)1 << left) - 1;
}

static void FN(fetch_present)(const block *b, FN(desk) *d, int64_t first, int64_t count) {
    for (int64_t q = 0; q < b->queries; q++)
        for (int64_t t = 0; t < count; t++)
            d->present[t * b->queries + q] = b->bag->present ? b->bag->present[b->which[q] * b->words + first + t]
                                                           : FN(tile_bits)(b->bag->keys, first + t);
}

static void FN(write_words)(const block *b, const FN(desk) *d, int64_t first, int64_t count) {
    for (int64_t q = 0; q < b->queries && b->wanted; q++)
        for (int64_t t = 0; t < count; t++) b->wanted[q * b->words + first + t] = d->wanted[t * b->queries + q];
    for (int64_t e = 0; e < b->edges && b->chosen; e++)
        for (int64_t q = 0; q < b->queries; q++) {
            uint64_t *to = b->chosen + (e * b->bag->queries + b->which[q]) * b->words + first;
            for (int64_t t = 0; t < count; t++) to[t] = d->word[(t * b->edges + e) * b->queries + q];
        }
}

/* The tile's keys as float32, in 8 bits, and the bounds on x of every row. Whether all present keys are finite. */
static int FN(read_tile)(const block *b, FN(desk) *d, int64_t tile, int64_t slot, int part) {
    const onca_bag *bag = b->bag;
    const int64_t first = tile * TILE, count = least(TILE, bag->keys - first), rows = b->rows.rows;
    const float *factor = bag->key_factor ? bag->key_factor + first : NULL;
    FN(widen_keys)(bag, first, count, d->key, b->rows.padded);
    if (b->open) {
        d->tile.bad = 0;
        for (int64_t j = 0; j < count; j++) {
            FN(extents) size = FN(extent)(d->key + j * b->rows.padded, 1, NULL, b->rows.padded, NULL);
            if (!size.finite || (factor && !(fabsf(factor[j]) <= FLT_MAX))) d->tile.bad |= (uint64_t)1 << j;
        }
    } else
        FN(screen_keys)(d->key, factor, count, b->rows.padded, b->rows.bytes, b->mean, b->mean_length, d->near, d->bytes, &d->tile,
                        d->packed);
    if (d->tile.bad)
        for (int64_t q = 0; q < b->queries; q++)
            if (d->present[slot * b->queries + q] & d->tile.bad) return ONCA_NOT_FINITE;
    if (b->open) return ONCA_OK;
    const float *over = b->over + part * b->edges * rows, *under = b->under + part * b->edges * rows;
    for (int64_t e = 0; e < b->edges; e++)
        for (int64_t r = 0; r < rows; r++) {
            float error = b->rows.coarse[r] * d->tile.norm + b->rows.fine[r] * d->tile.rest;
            d->high[e * rows + r] = over[e * rows + r] + error;
            d->low[e * rows + r] = under[e * rows + r] - error;
        }
    return ONCA_OK;
}

/* Query q's candidates in a tile; sure [edges]: those surely above an edge, and no candidates for another. */
static inline uint64_t FN(classes)(const block *b, const FN(desk) *d, int64_t q, const int32_t *product, uint64_t present,
                                   int64_t edges, int64_t views, uint64_t *sure) {
    uint64_t wanted = 0;
    for (int64_t e = 0; e < edges; e++) {
        uint64_t above = 0, below = ~(uint64_t)0;
        for (int64_t v = 0; v < views; v++) {
            int64_t r = q * views + v, at = e * b->rows.rows + r;
            uint64_t over, under;
            FN(compared)(product + v * TILE, b->rows.start[r], d->tile.scale, d->high[at], d->low[at], &over, &under);
            above |= over;
            below &= under;
        }
        sure[e] = above & present;
        wanted |= ~(above | below) & present;
    }
    for (int64_t e = 0; e < edges; e++) sure[e] &= ~wanted;
    return wanted;
}

/* Exact scores of the pairs listed for queries from q on: of several views the largest. Whether none is nan. */
static int FN(score_pairs)(const block *b, FN(desk) *d, int64_t q, int64_t first, int64_t count) {
    const int64_t views = b->bag->views, step = views * b->rows.padded;
    const float *factor = b->bag->key_factor ? b->bag->key_factor + first : NULL;
    for (int64_t v = 0; v < views; v++) {
        float *to = v ? d->other : d->score;
        FN(pair_scores)(b->rows.exact + q * step + v * b->rows.padded, step, d->key, b->rows.padded,
                        b->factor ? b->factor + q * views + v : NULL, views, factor, d->row, d->column, count, to);
        if (v)
            for (int64_t i = 0; i < count; i++) d->score[i] = to[i] > d->score[i] || to[i] != to[i] ? to[i] : d->score[i];
    }
    int unordered = 0;
    for (int64_t i = 0; i < count; i++) unordered |= d->score[i] != d->score[i];
    return !unordered;
}

/* Adds candidates to a list. score has 16 places more than count. */
static int FN(keep)(candidates *list, const float *score, int64_t count, int64_t limit) {
    if (list->full) return ONCA_OK;
    if (list->count + count > limit) return list->full = 1, ONCA_OK;
    if (list->count + count + 16 > list->held && make_space(list, count)) return ONCA_NO_MEMORY;
    for (int64_t i = 0; i < count; i += 16) memcpy(list->score + list->count + i, score + i, 64);
    list->count += count;
    return ONCA_OK;
}

/* Sends the scored candidates of one query where they belong. */
static int FN(settle)(const block *b, FN(desk) *d, int64_t q, int64_t from, int64_t count, uint64_t *word, int part) {
    if (b->bound) {
        for (int64_t i = from; i < from + count; i++) *word |= (uint64_t)(d->score[i] > b->bound[b->which[q]]) << d->column[i];
        return ONCA_OK;
    }
    candidates *list = b->lists + part * b->queries + q;
    int status = FN(keep)(list, d->score + from, count, b->limit);
    if (list->full && !b->open) /* its bracket is closed from here on: nothing more is scored for it */
        for (int64_t e = 0; e < b->edges; e++)
            for (int64_t r = q * b->bag->views; r < (q + 1) * b->bag->views; r++)
                b->over[(part * b->edges + e) * b->rows.rows + r] = b->under[(part * b->edges + e) * b->rows.rows + r] = INFINITY;
    return status;
}

/* The candidates of a group of queries in a tile, listed in d->row and d->column: their number. */
static inline int64_t FN(list_pairs)(const block *b, FN(desk) *d, int64_t slot, int64_t q, int64_t count, int64_t edges,
                                     int64_t views, int64_t *above) {
    const int64_t queries = b->queries;
    const int open = b->open;
    const uint64_t *present = d->present + slot * queries + q;
    uint64_t *wanted = d->wanted + slot * queries + q, *word = d->word + slot * edges * queries + q, sure[edges];
    uint8_t *row = d->row, *column = d->column;
    int64_t pairs = 0, some = 0;
    for (int64_t i = 0; i < count; i++) {
        memset(sure, 0, sizeof sure);
        uint64_t bits = present[i];
        if (!open) bits = FN(classes)(b, d, q + i, d->product + i * views * TILE, bits, edges, views, sure);
        for (int64_t e = 0; e < edges; e++) {
            word[e * queries + i] = sure[e];
            above[e * queries + q + i] += __builtin_popcountll(sure[e]);
        }
        const uint8_t many = (uint8_t)__builtin_popcountll(bits);
        wanted[i] = bits;
        d->many[some] = many; /* without a branch, which nobody could foretell */
        d->query[some] = (uint8_t)i;
        some += many > 0;
        FN(places)(bits, column + pairs);
        memset(row + pairs, (int)i, TILE);
        pairs += many;
    }
    d->some = some;
    return pairs;
}

/* Asks for some keys of the tile after this one, so that they come while this one is multiplied. */
static void FN(ask_for_keys)(const onca_bag *bag, int64_t first, int64_t count) {
    const int64_t size = bag->key_type == ONCA_FLOAT32 ? 4 : 2;
    for (int64_t j = first; j < least(first + count, bag->keys); j++)
        for (int64_t at = 0; at < bag->dim * size; at += 64)
            __builtin_prefetch((const char *)bag->key + j * bag->key_stride * size + at, 0, 2);
}

/* A group of queries against a tile. */
static int FN(tile_group)(const block *b, FN(desk) *d, int64_t tile, int64_t slot, int64_t q, int64_t count, int part) {
    const int64_t views = b->bag->views, edges = b->edges;
    int64_t *above = b->above + part * edges * b->queries;
    uint64_t *word = d->word + slot * edges * b->queries + q;
    if (!b->open) FN(products)(&b->rows, q * views, count * views, d->packed, d->product);
    int64_t pairs = edges == 1 && views == 1 ? FN(list_pairs)(b, d, slot, q, count, 1, 1, above)
                                             : FN(list_pairs)(b, d, slot, q, count, edges, views, above);
    if (pairs == 0) return ONCA_OK;
    if (!FN(score_pairs)(b, d, q, tile * TILE, pairs)) return ONCA_NOT_FINITE;
    for (int64_t i = 0, from = 0; i < d->some; from += d->many[i++])
        if (FN(settle)(b, d, q + d->query[i], from, d->many[i], word + d->query[i], part)) return ONCA_NO_MEMORY;
    return ONCA_OK;
}

/* One part of the walk: tiles from .. to - 1. */
static int FN(stream)(void *given, int64_t from, int64_t to, int part) {
    const block *b = given;
    FN(desk) d;
    int status = FN(lay)(&d, b);
    if (status) return status;
    const int64_t groups = (b->queries + d.group - 1) / d.group, share = (TILE + groups - 1) / groups;
    FN(tiles_ready)();
    for (int64_t first = from; first < to && !status; first += AHEAD) {
        int64_t count = least(AHEAD, to - first);
        FN(fetch_present)(b, &d, first, count);
        for (int64_t t = 0; t < count && !status; t++) {
            status = FN(read_tile)(b, &d, first + t, t, part);
            for (int64_t q = 0, at = 0; q < b->queries && !status; q += d.group, at += share) {
                if (at < TILE) FN(ask_for_keys)(b->bag, (first + t + 1) * TILE + at, share);
                status = FN(tile_group)(b, &d, first + t, t, q, least(d.group, b->queries - q), part);
            }
        }
        FN(write_words)(b, &d, first, count);
    }
    FN(tiles_done)();
    FN(clear)(&d);
    return status;
}
