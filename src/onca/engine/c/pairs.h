/* Exact scores of listed pairs of a query and a key. */

/* Products of four pairs at once: their chains of additions overlap. */
static inline void FN(dot_4)(const float *query, int64_t step, const float *key, int64_t padded, const uint16_t *row,
                             const uint8_t *column, v16 *to) {
    const float *x0 = query + row[0] * step, *x1 = query + row[1] * step, *x2 = query + row[2] * step, *x3 = query + row[3] * step;
    const float *y0 = key + column[0] * padded, *y1 = key + column[1] * padded;
    const float *y2 = key + column[2] * padded, *y3 = key + column[3] * padded;
    FN(vec) total[4][PARTS] = {{{0}}};
    for (int64_t d = 0; d < padded; d += 16)
        for (int i = 0; i < PARTS; i++) {
            int64_t at = d + i * LANES;
            total[0][i] = FN(mad)(FN(take)(x0 + at), FN(take)(y0 + at), total[0][i]);
            total[1][i] = FN(mad)(FN(take)(x1 + at), FN(take)(y1 + at), total[1][i]);
            total[2][i] = FN(mad)(FN(take)(x2 + at), FN(take)(y2 + at), total[2][i]);
            total[3][i] = FN(mad)(FN(take)(x3 + at), FN(take)(y3 + at), total[3][i]);
        }
    memcpy(to, total, sizeof total);
}

/* One query with eight keys: the query is read once. */
static inline void FN(dot_row_8)(const float *x, const float *const *y, int64_t padded, v16 *to) {
    const float *y0 = y[0], *y1 = y[1], *y2 = y[2], *y3 = y[3], *y4 = y[4], *y5 = y[5], *y6 = y[6], *y7 = y[7];
    FN(vec) total[8][PARTS] = {{{0}}};
    for (int64_t d = 0; d < padded; d += 16)
        for (int i = 0; i < PARTS; i++) {
            int64_t at = d + i * LANES;
            FN(vec) one = FN(take)(x + at);
            total[0][i] = FN(mad)(one, FN(take)(y0 + at), total[0][i]);
            total[1][i] = FN(mad)(one, FN(take)(y1 + at), total[1][i]);
            total[2][i] = FN(mad)(one, FN(take)(y2 + at), total[2][i]);
            total[3][i] = FN(mad)(one, FN(take)(y3 + at), total[3][i]);
            total[4][i] = FN(mad)(one, FN(take)(y4 + at), total[4][i]);
            total[5][i] = FN(mad)(one, FN(take)(y5 + at), total[5][i]);
            total[6][i] = FN(mad)(one, FN(take)(y6 + at), total[6][i]);
            total[7][i] = FN(mad)(one, FN(take)(y7 + at), total[7][i]);
        }
    memcpy(to, total, sizeof total);
}

/* score [count] of pairs (row[i], column[i]) of query rows `step` floats apart with the keys of a tile, times their factors
   (row_factor by row, factor by column; NULL is 1). row, column and score have 16 places more than count. */
static void FN(pair_scores)(const float *query, int64_t step, const float *key, int64_t padded, const float *row_factor,
                            int64_t factor_step, const float *factor, uint16_t *row, uint8_t *column, int64_t count, float *score) {
    v16 total[16];
    for (int i = 0; i < 16; i++) row[count + i] = count ? row[count - 1] : 0;
    memset(column + count, count ? column[count - 1] : 0, 16);
    for (int64_t i = 0; i < count; i += 16) {
        if (row[i] == row[i + 15]) {
            const float *keys[16];
            for (int l = 0; l < 16; l++) keys[l] = key + column[i + l] * padded;
            for (int l = 0; l < 16; l += 8) FN(dot_row_8)(query + row[i] * step, keys + l, padded, total + l);
        } else
            for (int l = 0; l < 16; l += 4) FN(dot_4)(query, step, key, padded, row + i + l, column + i + l, total + l);
        FN(store)(score + i, FN(sum_16)(total));
    }
    if (factor)
        for (int64_t i = 0; i < count; i++) score[i] *= factor[column[i]];
    if (row_factor)
        for (int64_t i = 0; i < count; i++) score[i] *= row_factor[row[i] * factor_step];
    for (int64_t i = 0; i < count; i++) score[i] += 0.0f; /* -0 and 0 are one score */
}
