/* Blocks of queries with a whole chunk: products of all with all, in float32 or in 16 bits. Part of sums.h. */

/* Brings the keys of the chunk to the form that blocks want; the other way's is lost. */
static void FN(pack_keys)(sum_piece *p, sum_way way) {
    const int64_t row = p->asked->row, dim = p->asked->bag->dim;
    if (p->packed == way) return;
    if (way == HALF) FN(half_pack)(p->key, p->keys, row, dim, &p->half.key);
    else FN(tile_pack)(p->key, p->keys, row, dim, p->across);
    p->packed = way;
}

static void FN(block_scores)(const sum_piece *p, sum_way way, int64_t first, int64_t queries) {
    const int64_t row = p->asked->row, panel = FN(tile_columns), dim = p->asked->bag->dim;
    if (way == HALF) FN(half_scores)(&p->half.query, first, queries, &p->half.key, up(p->keys, 64), dim, p->score, SUM_ROW);
    else
        FN(tile_multiply)(&(block_product){.rows = queries, .columns = up(p->keys, panel), .depth = dim, .a = p->query + first * row,
                                          .a_row = row, .a_depth = 1, .b = p->across, .b_depth = panel, .b_panel = dim * panel,
                                          .c = p->score, .c_row = SUM_ROW});
}

/* The slopes of a block of queries: += weights times keys. Weights are lost. */
static void FN(block_slopes)(sum_piece *p, sum_way way, int64_t scale, int64_t first, int64_t queries, float *weight) {
    const int64_t row = p->asked->row, padded = p->asked->padded, runs = up(p->keys, HALF_RUN) / HALF_RUN;
    if (!p->asked->toward || scale >= p->asked->slopes) return;
    float *slope = slope_at(p, scale, first);
    if (way == HALF) FN(half_slopes)(0, weight, SUM_ROW, queries, &p->half.key, runs, padded, p->half.steps, slope, row);
    else
        FN(tile_multiply)(&(block_product){.rows = queries, .columns = padded, .depth = p->keys, .a = weight, .a_row = SUM_ROW,
                                          .a_depth = 1, .b = p->key, .b_depth = row, .b_panel = FN(tile_columns), .c = slope,
                                          .c_row = row, .add = 1});
}

/* The slopes of the keys of the chunk: += weights times queries. */
static void FN(block_back)(sum_piece *p, sum_way way, int64_t first, int64_t queries) {
    const int64_t row = p->asked->row, padded = p->asked->padded;
    if (!p->asked->back && !p->asked->back_factor) return;
    if (way == HALF)
        FN(half_turned)(p->score, SUM_ROW, queries, p->keys, &p->half.query, first, padded, p->half.turned, p->back, row);
    else
        FN(tile_multiply)(&(block_product){.rows = p->keys, .columns = padded, .depth = queries, .a = p->score, .a_row = 1,
                                          .a_depth = SUM_ROW, .b = p->query + first * row, .b_depth = row,
                                          .b_panel = FN(tile_columns), .c = p->back, .c_row = row, .add = 1});
}

static void FN(dense)(sum_piece *p, sum_way way, int64_t first, int64_t queries) {
    const sum_walk *asked = p->asked;
    FN(pack_keys)(p, way);
    FN(block_scores)(p, way, first, queries);
    for (int64_t scale = asked->scales - 1; scale > 0; scale--) {
        for (int64_t i = 0; i < queries; i++)
            FN(weigh_at)(p, scale, first + i, p->score + i * SUM_ROW, p->other + i * SUM_ROW, present_bits(p, first + i), up(p->keys, 64));
        FN(block_slopes)(p, way, scale, first, queries, p->other);
    }
    for (int64_t i = 0; i < queries; i++)
        FN(weigh)(p, first + i, p->score + i * SUM_ROW, present_bits(p, first + i), up(p->keys, 64));
    FN(block_back)(p, way, first, queries);
    FN(block_slopes)(p, way, 0, first, queries, p->score);
}

/* Are all keys of the chunk in range for 16 bits? Their steps, too. */
static int FN(half_fits)(sum_piece *p) {
    half_piece *half = &p->half;
    if (half->fits >= 0) return half->fits;
    half->fits = 1, half->key.largest = 0;
    memset(half->key.step, 0, (size_t)p->asked->chunk * 4);
    for (int64_t j = 0; j < p->keys; j++)
        half->fits &= FN(half_take)(p->key + j * p->asked->row, p->asked->padded, half->key.step + j, &half->key.largest);
    return half->fits;
}

/* Is it less work to multiply the block of queries from i on with the whole chunk? An entry by itself costs about as much as
   three in a block. What is not finite goes one by one: 0 times it would spoil rows that do not hold it. */
static sum_way FN(way_of)(sum_piece *p, int64_t i) {
    int64_t entries = 0, queries = least(TILE_ROWS, p->queries - i), words = (p->keys + 63) / 64;
    for (int64_t b = i; b < i + queries; b++) {
        const uint64_t *bits = present_bits(p, b);
        for (int64_t w = 0; w < words; w++) entries += __builtin_popcountll(bits[w]);
    }
    if (3 * entries < queries * p->keys) return ONE_BY_ONE;
    FN(take_keys)(p);
    if (!p->finite) return ONE_BY_ONE;
    const sum_way able = p->able[i / TILE_ROWS];
    return able == HALF && !FN(half_fits)(p) ? WHOLE : able;
}
