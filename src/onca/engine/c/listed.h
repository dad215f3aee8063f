/* Sets of few entries, one by one: their scores, and what they add to the slopes. Part of sums.h. */

/* The columns whose bits are set, and how many. Fifteen more of the last: entries are taken by sixteen. */
static int64_t FN(columns)(const uint64_t *bits, int64_t words, uint16_t *column) {
    int64_t count = 0;
#if WIDTH == 512 /* no branch that depends on few bits: they cannot be foretold */
    for (int64_t w = 0; w < words; w++) {
        const int64_t many = __builtin_popcountll(bits[w]);
        uint8_t place[TILE];
        FN(places)(bits[w], place);
        const __m512i first = _mm512_set1_epi16((int16_t)(w * 64));
        int64_t i = 0;
        do _mm512_storeu_si512(column + count + i, _mm512_add_epi16(first, _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)(place + i)))));
        while ((i += 32) < many);
        count += many;
    }
#else
    for (int64_t w = 0; w < words; w++)
        for (uint64_t rest = bits[w]; rest; rest &= rest - 1) column[count++] = (uint16_t)(w * 64 + __builtin_ctzll(rest));
#endif
    if (count)
        for (int i = 0; i < 15; i++) column[count + i] = column[count - 1];
    return count;
}

/* Keys for entries by themselves: where they lie, if nothing has to be done to them. */
static void FN(single_keys)(sum_piece *p) {
    const onca_bag *bag = p->asked->bag;
    if (p->one) return;
    p->one = p->key, p->one_row = p->asked->row;
    if (p->taken) return;
    if (bag->key_factor) FN(take_keys)(p);
    else if (bag->key_type == ONCA_FLOAT32 && bag->dim == p->asked->padded)
        p->one = (const float *)key_row(bag, p->start), p->one_row = bag->key_stride;
    else
        for (int64_t j = 0; j < p->keys; j++)
            FN(widen)(bag->key_type, key_row(bag, p->start + j), bag->dim, p->key + j * p->asked->row, p->asked->padded);
}

/* The scores of query i's entries `bits` of the chunk, where all of them are known. Whether they are. */
static int FN(known_scores)(sum_piece *p, int64_t i, const uint64_t *bits, float *score) {
    const onca_bag *bag = p->asked->bag;
    if (!p->known) return 0;
    const int64_t words = (bag->keys + 63) / 64, first = p->start / 64, many = (p->keys + 63) / 64, b = p->first + i;
    const uint64_t *set = bag->known_set + b * words;
    known_at *at = p->known + i;
    for (; at->word < first; at->word++) at->count += __builtin_popcountll(set[at->word]);
    uint64_t unknown = 0;
    for (int64_t w = 0; w < many; w++) unknown |= bits[w] & ~set[first + w];
    if (unknown) return 0;
    const float *known = bag->known + bag->known_start[b] + at->count;
    int64_t passed = 0;
    for (int64_t w = 0; w < many; w++) {
        const uint64_t here = set[first + w];
        score += FN(hand_over)(known + passed, __builtin_popcountll(here), FN(extracted)(bits[w], here), score);
        passed += __builtin_popcountll(here);
    }
    at->word = first + many, at->count += passed;
    if (i + 4 < p->queries) /* another row, which would come too late by itself */
        for (int64_t l = 0; l < passed + 16; l += 16)
            __builtin_prefetch(bag->known + bag->known_start[b + 4] + at[4].count + l);
    return 1;
}

static void FN(listed_scores)(const sum_piece *p, const float *query, const uint16_t *column, int64_t count, float *score) {
    v16 total[16] = {{0}};
    for (int64_t i = 0; i < count; i += 16) {
        const float *key[16];
        for (int l = 0; l < 16; l++) key[l] = p->one + column[i + l] * p->one_row;
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
    const int64_t padded = p->asked->padded, row = p->one_row;
    int64_t d = 0;
    for (; d + 8 * LANES <= padded; d += 8 * LANES) FN(listed_part)(8, p->one + d, row, column, weight, count, to + d);
    for (; d + 4 * LANES <= padded; d += 4 * LANES) FN(listed_part)(4, p->one + d, row, column, weight, count, to + d);
    for (; d < padded; d += LANES) FN(listed_part)(1, p->one + d, row, column, weight, count, to + d);
}

static void FN(sparse)(sum_piece *p, int64_t i) {
    const sum_walk *asked = p->asked;
    uint64_t low[SUM_WORDS];
    uint16_t column[SUM_KEYS + 32];
    float score[SUM_KEYS + 16] __attribute__((aligned(64))), other[SUM_KEYS + 16] __attribute__((aligned(64)));
    int64_t count = FN(columns)(present_bits(p, i), (p->keys + 63) / 64, column);
    if (!count) return;
    FN(single_keys)(p);
    float *query = p->query + i * asked->row;
    if (!FN(known_scores)(p, i, present_bits(p, i), score)) FN(listed_scores)(p, query, column, count, score);
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
