/* Sets of few entries, one by one: their scores, and what they add to the slopes. Part of sums.h. */

/* The columns whose bits are set, and how many. Fifteen more of the last: entries are taken by sixteen. */
static int64_t FN(columns)(const uint64_t *bits, int64_t words, uint16_t *column) {
    int64_t count = 0;
#if WIDTH == 512 /* no branch that depends on the bits: they cannot be foreseen */
    __m512i place = _mm512_set_epi16(31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9,
                                     8, 7, 6, 5, 4, 3, 2, 1, 0);
    for (int64_t w = 0; w < 2 * words; w++, place = _mm512_add_epi16(place, _mm512_set1_epi16(32))) {
        uint32_t some = (uint32_t)(bits[w / 2] >> w % 2 * 32);
        _mm512_storeu_si512(column + count, _mm512_maskz_compress_epi16(some, place));
        count += __builtin_popcount(some);
    }
#else
    for (int64_t w = 0; w < words; w++)
        for (uint64_t rest = bits[w]; rest; rest &= rest - 1) column[count++] = (uint16_t)(w * 64 + __builtin_ctzll(rest));
#endif
    if (count)
        for (int i = 0; i < 15; i++) column[count + i] = column[count - 1];
    return count;
}

static void FN(listed_scores)(const sum_piece *p, const float *query, const uint16_t *column, int64_t count, float *score) {
    v16 total[16] = {{0}};
    for (int64_t i = 0; i < count; i += 16) {
        const float *key[16];
        for (int l = 0; l < 16; l++) key[l] = p->key + column[i + l] * p->asked->row;
        FN(dot_row_8)(query, key, p->asked->padded, total);
        if (i + 8 < count) FN(dot_row_8)(query, key + 8, p->asked->padded, total + 8);
        FN(store)(score + i, FN(sum_16)(total));
    }
}

/* to += sum of weight * key over a list, for `vectors` vectors of dimensions, which stay in registers. */
ALWAYS_INLINE void FN(listed_part)(int vectors, const float *key, int64_t row, const uint16_t *column, const float *weight,
                                   int64_t count, float *to) {
    FN(vec) sum[8];
    TILE_UNROLLED for (int v = 0; v < vectors; v++) sum[v] = FN(take)(to + v * LANES);
    for (int64_t i = 0; i < count; i++) {
        const char *from = (const char *)key + column[i] * row * 4;
        FN(vec) w = FN(all)(weight[i]);
        TILE_UNROLLED for (int v = 0; v < vectors; v++) sum[v] = FN(mad)(w, FN(take)((const float *)from + v * LANES), sum[v]);
    }
    TILE_UNROLLED for (int v = 0; v < vectors; v++) memcpy(to + v * LANES, &sum[v], sizeof sum[v]);
}

static void FN(listed_slope)(const sum_piece *p, const uint16_t *column, const float *weight, int64_t count, float *to) {
    const int64_t padded = p->asked->padded, row = p->asked->row;
    int64_t d = 0;
    for (; d + 8 * LANES <= padded; d += 8 * LANES) FN(listed_part)(8, p->key + d, row, column, weight, count, to + d);
    for (; d + 4 * LANES <= padded; d += 4 * LANES) FN(listed_part)(4, p->key + d, row, column, weight, count, to + d);
    for (; d < padded; d += LANES) FN(listed_part)(1, p->key + d, row, column, weight, count, to + d);
}

static void FN(sparse)(sum_piece *p, int64_t i) {
    const sum_walk *asked = p->asked;
    uint64_t low[SUM_WORDS];
    uint16_t column[SUM_KEYS + 32];
    float score[SUM_KEYS + 16] __attribute__((aligned(64))), other[SUM_KEYS + 16] __attribute__((aligned(64)));
    int64_t count = FN(columns)(present_bits(p, i), (p->keys + 63) / 64, column);
    if (!count) return;
    FN(take_keys)(p);
    float *query = p->query + i * asked->row;
    FN(listed_scores)(p, query, column, count, score);
    lowest_bits(low, count);
    for (int64_t scale = asked->scales - 1; scale > 0; scale--) {
        FN(weigh_at)(p, scale, i, score, other, low, count);
        if (asked->toward && scale < asked->slopes) FN(listed_slope)(p, column, other, count, slope_at(p, scale, i));
    }
    FN(weigh)(p, i, score, low, count);
    if (asked->toward && asked->slopes) FN(listed_slope)(p, column, score, count, slope_at(p, 0, i));
    if (!asked->back && !asked->back_factor) return;
    for (int64_t j = 0; j < count; j++) {
        float *to = p->back + column[j] * asked->row;
        for (int64_t d = 0; d < asked->padded; d += 16) FN(store)(to + d, FN(load)(to + d) + score[j] * FN(load)(query + d));
    }
}
