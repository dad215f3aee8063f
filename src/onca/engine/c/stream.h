/* The one walk over all keys: each entry is surely above an edge's bracket, surely below, or a candidate that is scored
   exactly while its key is in the cache. */
#ifndef ONCA_STREAM
#define ONCA_STREAM
enum { AHEAD = 8 };      /* tiles whose words of bits are kept together: a cache line of each row */
enum { WAITING = 2048 }; /* candidates that wait before they are scored together, while the tile's keys lie in the nearest cache */

typedef struct { /* exact scores of a row that lie in a bracket, in order of their columns, which are the set bits of `wanted` */
    float *score;
    int64_t count, held;
    int own, full; /* own: score is to be freed. full: more came than may be kept: the row must be done again */
} candidates;

typedef struct { /* a block of queries */
    const onca_bag *bag;
    const int64_t *which; /* [queries] of the bag */
    int64_t queries, edges, words; /* edges: brackets */
    int open; /* without screening: every entry that is present is a candidate */
    int one;  /* one bracket holds all of the set that is chosen */
    screen_rows rows;
    const float *mean;
    float mean_length;
    float *factor;      /* [rows] or NULL */
    float *high, *low;  /* [edges, queries] the bracket, in scores */
    float *over, *under; /* [parts, edges, rows] the same in x */
    uint64_t *chosen;   /* [edges, queries of the bag, words] or NULL */
    const float *bound; /* [queries of the bag]: candidates above it are chosen at once, and not kept */
    int parts;
    int64_t limit;      /* scores that a part keeps of a row */
    int64_t *expected;  /* [queries] scores that are kept */
    float *slab;        /* where lists start */
    candidates *lists;  /* [parts, queries] */
    uint64_t *wanted;   /* [queries, words] whose scores are kept; where there is one bracket, in `chosen` (see `wanted_row`) */
    int64_t *above;     /* [parts, edges, queries] how many are above an edge's bracket, and not kept */
} block;

/* The bits of a query's candidates. With one bracket they stand where the set of the last edge will: where that is the only one,
   nothing is surely above it. */
static inline uint64_t *wanted_row(const block *b, int64_t q) { return b->wanted + (b->one ? b->which[q] : q) * b->words; }

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
    float *key, *high, *low, *slack, *score, *other;
    uint8_t *bytes, *packed, *column, *many;
    uint16_t *row, *query;
    int32_t *product;
    uint64_t *present, *word, *wanted; /* [AHEAD, queries], word [AHEAD, edges, queries] */
    int64_t pairs, some; /* candidates that wait for their scores: row and column; the queries that have some, and how many */
    screen_tile tile;
    int64_t group; /* queries whose rows are multiplied at a time */
} FN(desk);

static void FN(clear)(FN(desk) *d) {
    void *all[] = {d->key, d->high, d->low, d->slack, d->score, d->other, d->bytes, d->packed,
                   d->row, d->column, d->query, d->many, d->product, d->present, d->word, d->wanted};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static int FN(lay)(FN(desk) *d, const block *b) {
    const int64_t views = b->bag->views, padded = b->rows.padded, most_pairs = WAITING + GROUP * TILE + 128;
    memset(d, 0, sizeof *d);
    d->group = most(1, GROUP / views);
    int64_t product = up(d->group * views, 32) * TILE * 4;
    d->key = room(TILE * padded, 4);
    d->high = room(b->edges * b->rows.rows, 4), d->low = room(b->edges * b->rows.rows, 4);
    d->slack = room(b->rows.rows, 4), d->score = room(most_pairs, 4), d->other = room(most_pairs, 4);
    d->bytes = room(TILE * b->rows.bytes, 1), d->packed = room(TILE * b->rows.bytes, 1);
    d->row = room(most_pairs, 2), d->column = room(most_pairs, 1);
    d->query = room(b->queries + 1, 2), d->many = room(b->queries + 1, 1);
    d->product = room(product, 1);
    d->present = room(b->queries * AHEAD, 8), d->word = room(b->edges * b->queries * AHEAD, 8), d->wanted = room(b->queries * AHEAD, 8);
    if (!(d->key && d->high && d->low && d->slack && d->score && d->other && d->bytes && d->packed && d->row && d->column &&
          d->query && d->many &&
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
        for (int64_t t = 0; t < count; t++) wanted_row(b, q)[first + t] = d->wanted[t * b->queries + q];
    for (int64_t e = 0; e < b->edges && b->chosen && b->chosen != b->wanted; e++)
        for (int64_t q = 0; q < b->queries; q++) {
            uint64_t *to = b->chosen + (e * b->bag->queries + b->which[q]) * b->words + first;
            for (int64_t t = 0; t < count; t++) to[t] = d->word[(t * b->edges + e) * b->queries + q];
        }
}

/* The tile's keys as float32, in 8 bits, and the thresholds of every row. Whether all present keys are finite. */
static int FN(read_tile)(const block *b, FN(desk) *d, int64_t tile, int64_t slot, int part) {
    const onca_bag *bag = b->bag;
    const int64_t first = tile * TILE, count = least(TILE, bag->keys - first), rows = b->rows.rows;
    const float *factor = bag->key_factor ? bag->key_factor + first : NULL;
    FN(widen_keys)(bag, first, count, d->key, b->rows.padded);
    if (b->open) {
        d->tile.bad = 0;
        for (int64_t j = 0; j < count; j++) {
            FN(extents) size = FN(extent)(d->key + j * b->rows.padded, 1, NULL, b->rows.padded);
            if (!size.finite || (factor && !(fabsf(factor[j]) <= FLT_MAX))) d->tile.bad |= (uint64_t)1 << j;
        }
    } else
        FN(screen_keys)(d->key, factor, count, b->rows.padded, b->rows.bytes, b->mean, b->mean_length, d->bytes, &d->tile,
                        d->packed);
    if (d->tile.bad)
        for (int64_t q = 0; q < b->queries; q++)
            if (d->present[slot * b->queries + q] & d->tile.bad) return ONCA_NOT_FINITE;
    if (b->open) return ONCA_OK;
    const float *over = b->over + part * b->edges * rows, *under = b->under + part * b->edges * rows;
    for (int64_t e = 0; e < b->edges; e++)
        for (int64_t r = 0; r < rows; r++) {
            float error = b->rows.coarse[r] * d->tile.norm;
            d->high[e * rows + r] = over[e * rows + r] + error;
            d->low[e * rows + r] = under[e * rows + r] - error;
        }
    for (int64_t r = 0; r < rows; r++) d->slack[r] = b->rows.fine[r] * d->tile.rest;
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
            FN(compared)(product + v * TILE, d->tile.inverse, d->high[at], d->low[at], d->slack[r], &over, &under);
            above |= over;
            below &= under;
        }
        sure[e] = above & present;
        wanted |= ~(above | below) & present;
    }
    for (int64_t e = 0; e < edges; e++) sure[e] &= ~wanted;
    return wanted;
}

/* Exact scores of the pairs listed: of several views the largest. Whether none is nan. */
static int FN(score_pairs)(const block *b, FN(desk) *d, int64_t first) {
    const int64_t views = b->bag->views, step = views * b->rows.padded, count = d->pairs;
    const float *factor = b->bag->key_factor ? b->bag->key_factor + first : NULL;
    for (int64_t v = 0; v < views; v++) {
        float *to = v ? d->other : d->score;
        FN(pair_scores)(b->rows.exact + v * b->rows.padded, step, d->key, b->rows.padded, b->factor ? b->factor + v : NULL, views,
                        factor, d->row, d->column, count, to);
        if (v)
            for (int64_t i = 0; i < count; i++) d->score[i] = to[i] > d->score[i] || to[i] != to[i] ? to[i] : d->score[i];
    }
    int unordered = 0;
    for (int64_t i = 0; i < count; i++) unordered |= d->score[i] != d->score[i];
    return !unordered;
}

/* Which of some scores lie in a bracket: bit i for score[i]; over: those above it. */
static inline uint64_t FN(bracketed)(float low, float high, const float *score, int64_t count, uint64_t *over) {
    uint64_t more = 0, from = 0;
#if WIDTH == 512
    int64_t i = 0;
    do {
        __m512 x = _mm512_loadu_ps(score + i);
        more |= (uint64_t)_mm512_cmp_ps_mask(x, _mm512_set1_ps(high), _CMP_GT_OQ) << i;
        from |= (uint64_t)_mm512_cmp_ps_mask(x, _mm512_set1_ps(low), _CMP_GE_OQ) << i;
    } while ((i += 16) < count);
    more = _bzhi_u64(more, (unsigned)count), from = _bzhi_u64(from, (unsigned)count);
#else
    for (int64_t i = 0; i < count; i++) {
        more |= (uint64_t)(score[i] > high) << i;
        from |= (uint64_t)(score[i] >= low) << i;
    }
#endif
    *over = more;
    return from & ~more;
}

/* Closes the brackets of a query: nothing more is scored for it. */
static void FN(close)(const block *b, int64_t q, int part) {
    for (int64_t e = 0; e < b->edges; e++)
        for (int64_t r = q * b->bag->views; r < (q + 1) * b->bag->views; r++)
            b->over[(part * b->edges + e) * b->rows.rows + r] = b->under[(part * b->edges + e) * b->rows.rows + r] = INFINITY;
}

/* Adds to a list those of `count` scores whose bits are set in `kept`. score has 16 places more than count. */
static inline int FN(keep)(candidates *list, const float *score, int64_t count, uint64_t kept, int64_t limit) {
    const int64_t many = __builtin_popcountll(kept);
    if (list->full) return ONCA_OK;
    if (list->count + many > limit) return list->full = 1, ONCA_OK;
    if (list->count + many + 16 > list->held && make_space(list, many)) return ONCA_NO_MEMORY;
    float *to = list->score + list->count;
#if WIDTH == 512
    int64_t i = 0;
    do {
        const __mmask16 in = (__mmask16)(kept >> i);
        _mm512_storeu_ps(to, _mm512_maskz_compress_ps(in, _mm512_loadu_ps(score + i)));
        to += __builtin_popcount(in);
    } while ((i += 16) < count);
#else
    (void)count;
    for (; kept; kept &= kept - 1) *to++ = score[__builtin_ctzll(kept)];
#endif
    list->count += many;
    return ONCA_OK;
}

/* Sends the scored candidates of one query where they belong: wanted are their bits, and then of those the ones that are kept;
   word, above [edges, queries]: those of this query. */
static inline int FN(settle)(const block *b, FN(desk) *d, int64_t q, int64_t from, int64_t count, int64_t edges, uint64_t *wanted,
                             uint64_t *word, int64_t *above, int part) {
    if (b->bound) {
        for (int64_t i = from; i < from + count; i++) *word |= (uint64_t)(d->score[i] > b->bound[b->which[q]]) << d->column[i];
        return ONCA_OK;
    }
    uint64_t over[edges], bits = *wanted, kept = 0;
    for (int64_t e = 0; e < edges; e++)
        kept |= FN(bracketed)(b->low[e * b->queries + q], b->high[e * b->queries + q], d->score + from, count, over + e);
    for (int64_t e = 0; e < edges; e++) over[e] &= ~kept;
    candidates *list = b->lists + part * b->queries + q;
    int status = FN(keep)(list, d->score + from, count, kept, b->limit);
    *wanted = FN(deposited)(kept, bits);
    for (int64_t e = 0; e < edges; e++) {
        word[e * b->queries] |= FN(deposited)(over[e], bits);
        above[e * b->queries] += __builtin_popcountll(over[e]);
    }
    if (list->full && !b->open) FN(close)(b, q, part);
    return status;
}

/* Lists the candidates of a group of queries in a tile. */
static inline void FN(list_pairs)(const block *b, FN(desk) *d, int64_t slot, int64_t first, int64_t count, int64_t edges,
                                  int64_t views, int64_t *above) {
    const int64_t queries = b->queries;
    const int open = b->open;
    const uint64_t *present = d->present + slot * queries;
    uint64_t *wanted = d->wanted + slot * queries, *word = d->word + slot * edges * queries, sure[edges];
    int64_t pairs = d->pairs, some = d->some;
    for (int64_t q = first; q < first + count; q++) {
        memset(sure, 0, sizeof sure);
        uint64_t bits = present[q];
        if (!open) bits = FN(classes)(b, d, q, d->product + (q - first) * views * TILE, bits, edges, views, sure);
        for (int64_t e = 0; e < edges; e++) {
            word[e * queries + q] = sure[e];
            above[e * queries + q] += __builtin_popcountll(sure[e]);
        }
        const uint8_t many = (uint8_t)__builtin_popcountll(bits);
        wanted[q] = bits;
        d->many[some] = many; /* without a branch, which nobody could foretell */
        d->query[some] = (uint16_t)q;
        some += many > 0;
        FN(places)(bits, d->column + pairs);
        for (int l = 0; l < TILE; l++) d->row[pairs + l] = (uint16_t)q;
        pairs += many;
    }
    d->pairs = pairs, d->some = some;
}

/* Asks for some keys of the tile after this one, so that they come while this one is multiplied. */
static void FN(ask_for_keys)(const onca_bag *bag, int64_t first, int64_t count) {
    const int64_t size = bag->key_type == ONCA_FLOAT32 ? 4 : 2;
    for (int64_t j = first; j < least(first + count, bag->keys); j++)
        for (int64_t at = 0; at < bag->dim * size; at += 64)
            __builtin_prefetch((const char *)bag->key + j * bag->key_stride * size + at, 0, 2);
}

/* What `settle` does with each query, where there is one bracket and lists to be kept: with all that does not change read once, a
   fortieth of a window's time. */
static inline int FN(settle_listed)(const block *b, const FN(desk) *d, uint64_t *word, uint64_t *wanted, int part) {
    candidates *lists = b->lists + part * b->queries;
    const float *low = b->low, *high = b->high, *score = d->score;
    int64_t *above = b->above + part * b->queries;
    const uint8_t *many = d->many;
    const uint16_t *query = d->query;
    for (int64_t i = 0; i < d->some; score += many[i++]) {
        const int64_t q = query[i], count = many[i];
        const candidates *soon = lists + query[least(i + 8, d->some - 1)];
        __builtin_prefetch(soon->score + soon->count, 1);
        uint64_t over, kept = FN(bracketed)(low[q], high[q], score, count, &over);
        if (FN(keep)(lists + q, score, count, kept, b->limit)) return ONCA_NO_MEMORY;
        if (lists[q].full && !b->open) FN(close)(b, q, part);
        const uint64_t bits = wanted[q];
        wanted[q] = FN(deposited)(kept, bits);
        word[q] |= FN(deposited)(over, bits);
        above[q] += __builtin_popcountll(over);
    }
    return ONCA_OK;
}

/* Scores the candidates that wait, and sends them where they belong. */
static inline int FN(settle_pairs)(const block *b, FN(desk) *d, int64_t tile, int64_t slot, int64_t edges, int part) {
    uint64_t *word = d->word + slot * edges * b->queries, *wanted = d->wanted + slot * b->queries;
    int64_t *above = b->above + part * edges * b->queries;
    int status = ONCA_OK;
    if (!FN(score_pairs)(b, d, tile * TILE)) return ONCA_NOT_FINITE;
    if (edges == 1 && !b->bound) status = FN(settle_listed)(b, d, word, wanted, part);
    else
        for (int64_t i = 0, from = 0; i < d->some && !status; from += d->many[i++]) {
            const int64_t q = d->query[i];
            status = FN(settle)(b, d, q, from, d->many[i], edges, wanted + q, word + q, above + q, part);
        }
    d->pairs = d->some = 0;
    return status;
}

/* All queries against a tile. edges and views are those of the block: constants where there is one of each. */
static inline int FN(sort_tile)(const block *b, FN(desk) *d, int64_t tile, int64_t slot, int64_t edges, int64_t views, int part) {
    const int64_t groups = (b->queries + d->group - 1) / d->group, share = (TILE + groups - 1) / groups;
    int status = ONCA_OK;
    for (int64_t q = 0, at = 0; q < b->queries && !status; q += d->group, at += share) {
        const int64_t count = least(d->group, b->queries - q);
        if (at < TILE) FN(ask_for_keys)(b->bag, (tile + 1) * TILE + at, share);
        if (!b->open) FN(products)(&b->rows, q * views, count * views, d->packed, d->product);
        FN(list_pairs)(b, d, slot, q, count, edges, views, b->above + part * edges * b->queries);
        if (d->pairs > WAITING || (d->pairs && q + count == b->queries)) status = FN(settle_pairs)(b, d, tile, slot, edges, part);
    }
    return status;
}

/* One part of the walk: tiles from .. to - 1. */
static int FN(stream)(void *given, int64_t from, int64_t to, int part) {
    const block *b = given;
    FN(desk) d;
    int status = FN(lay)(&d, b);
    if (status) return status;
    FN(tiles_ready)();
    for (int64_t first = from; first < to && !status; first += AHEAD) {
        int64_t count = least(AHEAD, to - first);
        FN(fetch_present)(b, &d, first, count);
        for (int64_t t = 0; t < count && !status; t++) {
            status = FN(read_tile)(b, &d, first + t, t, part);
            if (status) break;
            status = b->edges == 1 && b->bag->views == 1 ? FN(sort_tile)(b, &d, first + t, t, 1, 1, part)
                                                         : FN(sort_tile)(b, &d, first + t, t, b->edges, b->bag->views, part);
        }
        FN(write_words)(b, &d, first, count);
    }
    FN(tiles_done)();
    FN(clear)(&d);
    return status;
}
