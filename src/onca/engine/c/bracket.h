/* Where the wanted ranks must lie: from a sample of keys, scored in 8 bits. A bracket that does not hold costs time, never
   truth: what it leaves out is counted, so that it shows. */
#ifndef ONCA_BRACKET
#define ONCA_BRACKET
typedef struct { /* sampled keys */
    int64_t count, tiles;
    int64_t *column; /* [count] ascending */
    uint8_t *packed; /* [tiles] of TILE * bytes */
    float *scale;    /* [tiles * TILE] */
    float *mean;     /* [padded] of some keys times their factors */
    float mean_length;
} key_sample;

enum { SAMPLED = 16, MEANT = 256 }; /* query rows that meet the sample at a time; keys that the mean is taken of */

/* Signed integers in the order of floats. */
static inline int32_t ordered(float x) {
    int32_t bits;
    memcpy(&bits, &x, 4);
    return bits ^ (bits >> 31 & 0x7fffffff);
}

static inline float unordered(int32_t place) {
    float x;
    place ^= place >> 31 & 0x7fffffff;
    memcpy(&x, &place, 4);
    return x;
}

static void forget(key_sample *s) {
    free(s->column), free(s->packed), free(s->scale), free(s->mean);
    memset(s, 0, sizeof *s);
}

static uint64_t scattered(uint64_t x) { /* a fixed hash: the same sample in every call */
    x = (x + 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 29) * 0x94d049bb133111ebu;
    return x ^ x >> 32;
}
#endif

static int64_t FN(many_at_least)(const float *x, int64_t count, float bound) {
    FN(ivec) total = {0};
    int64_t sum = 0, even = count / LANES * LANES;
    for (int64_t i = 0; i < even; i += LANES) total -= FN(take)(x + i) >= bound;
#if WIDTH == 512
    sum = _mm512_reduce_add_epi32((__m512i)total);
#else
    for (int l = 0; l < LANES; l++) sum += total[l];
#endif
    for (int64_t i = even; i < count; i++) sum += x[i] >= bound;
    return sum;
}

/* The smallest of those x that are at least `bound`. */
static float FN(next_from)(const float *x, int64_t count, float bound) {
    const FN(vec) none = FN(all)(-INFINITY);
    FN(vec) best = none; /* of -x, so that FN(top) serves */
    const int64_t even = count / LANES * LANES;
    float found = -INFINITY;
    for (int64_t i = 0; i < even; i += LANES) {
        FN(vec) y = FN(take)(x + i);
        FN(ivec) in = y >= bound;
        best = FN(top)(best, (FN(vec))(((FN(ivec))-y & in) | ((FN(ivec))none & ~in)));
    }
    if (even) found = FN(top_of)(best);
    for (int64_t i = even; i < count; i++) found = x[i] >= bound && -x[i] > found ? -x[i] : found;
    return -found;
}

static float FN(largest)(const float *x, int64_t count) {
    FN(vec) best = FN(all)(-INFINITY);
    const int64_t even = count / LANES * LANES;
    float found = -INFINITY;
    for (int64_t i = 0; i < even; i += LANES) best = FN(top)(best, FN(take)(x + i));
    if (even) found = FN(top_of)(best);
    for (int64_t i = even; i < count; i++) found = x[i] > found ? x[i] : found;
    return found;
}

/* Those x that are low .. high, in their order, to `to` (LANES more places than there are such x); the number of larger ones. */
static int64_t FN(between)(const float *x, int64_t count, float low, float high, float *to, int64_t *kept) {
    int64_t larger = 0, n = 0, i = 0;
#if WIDTH == 512
    for (; i + 16 <= count; i += 16) {
        __m512 y = _mm512_loadu_ps(x + i);
        __mmask16 over = _mm512_cmp_ps_mask(y, _mm512_set1_ps(high), _CMP_GT_OQ);
        __mmask16 in = _mm512_cmp_ps_mask(y, _mm512_set1_ps(low), _CMP_GE_OQ) & ~over;
        _mm512_storeu_ps(to + n, _mm512_maskz_compress_ps(in, y));
        n += __builtin_popcount(in);
        larger += __builtin_popcount(over);
    }
#endif
    for (; i < count; i++) {
        to[n] = x[i];
        n += x[i] >= low && x[i] <= high;
        larger += x[i] > high;
    }
    *kept = n;
    return larger;
}

/* The rank-th largest of x (1 the largest), by halving the range; or, sooner, one whose rank is within `loose`. */
static float FN(halved)(const float *x, int64_t count, int64_t rank, int64_t loose) {
    int64_t from = ordered(FN(next_from)(x, count, -INFINITY)), to = (int64_t)ordered(FN(largest)(x, count)) + 1;
    for (int step = 0; to - from > 1; step++) { /* at least rank are >= from, fewer are >= to */
        int64_t middle = from + (to - from) / 2, many;
        if (step < 16) { /* values are spread by size first, and only what is close together by the floats between */
            float half = unordered((int32_t)from) / 2 + unordered((int32_t)(to - 1)) / 2;
            if (half == half && ordered(half) > from && ordered(half) < to) middle = ordered(half);
        }
        many = FN(many_at_least)(x, count, unordered((int32_t)middle));
        if (many >= rank) from = middle;
        else to = middle;
        if (many >= 1 && llabs(many - rank) <= loose) {
            from = middle;
            break;
        }
    }
    return FN(next_from)(x, count, unordered((int32_t)from));
}

/* The same, for long lists by way of a few of them, which say between what to look. spare: count + LANES places. */
static float FN(ranked)(const float *x, int64_t count, int64_t rank, int64_t loose, float *spare) {
    enum { FEW = 256 };
    if (count < 4 * FEW) return FN(halved)(x, count, rank, loose);
    for (int64_t i = 0; i < FEW; i++) spare[i] = x[i * count / FEW];
    double middle = (double)rank / (double)count * FEW, half = 3 * sqrt(middle * (1 - middle / FEW)) + 1;
    float high = middle - half < 1 ? INFINITY : FN(halved)(spare, FEW, (int64_t)(middle - half), 1);
    float low = middle + half > FEW ? -INFINITY : FN(halved)(spare, FEW, (int64_t)(middle + half), 1);
    int64_t kept, larger = FN(between)(x, count, low, high, spare, &kept);
    if (rank <= larger || rank > larger + kept) return FN(halved)(x, count, rank, loose);
    return FN(halved)(spare, kept, rank - larger, loose);
}

/* The mean of some keys times their factors, of those that are in range. */
static int FN(find_mean)(const onca_bag *bag, int64_t padded, key_sample *s) {
    int64_t many = least(MEANT, bag->keys), used = 0;
    float *row = room(padded, 4);
    s->mean = room(padded, 4);
    if (!row || !s->mean) return free(row), ONCA_NO_MEMORY;
    memset(s->mean, 0, (size_t)padded * 4);
    for (int64_t i = 0; i < many; i++) {
        int64_t j = bag->keys * i / many;
        float factor = bag->key_factor ? bag->key_factor[j] : 1;
        FN(widen_keys)(bag, j, 1, row, padded);
        FN(extents) size = FN(extent)(row, 1, NULL, padded);
        if (!size.finite || !in_range(factor) || !in_range(size.raw)) continue;
        used++;
        for (int64_t d = 0; d < padded; d++) s->mean[d] += row[d] * factor;
    }
    for (int64_t d = 0; d < padded && used; d++) s->mean[d] /= (float)used;
    s->mean_length = FN(extent)(s->mean, 1, NULL, padded).length;
    if (!(s->mean_length <= LITTLE + MUCH * MUCH)) memset(s->mean, 0, (size_t)padded * 4), s->mean_length = 0;
    free(row);
    return ONCA_OK;
}

/* One key at random of each of `count` equal stretches, in 8 bits. */
static int FN(take_sample)(const onca_bag *bag, int64_t count, int64_t padded, int64_t bytes, key_sample *s) {
    s->count = count, s->tiles = up(count, TILE) / TILE;
    s->column = room(count, 8), s->packed = room(s->tiles * TILE * bytes, 1), s->scale = room(s->tiles * TILE, 4);
    float *key = room(TILE * padded, 4), factor[TILE];
    uint8_t *bytes_of = room(TILE * bytes, 1);
    int status = s->column && s->packed && s->scale && key && bytes_of ? ONCA_OK : ONCA_NO_MEMORY;
    if (!status) memset(bytes_of, 128, (size_t)(TILE * bytes));
    for (int64_t t = 0; t < s->tiles && !status; t++) {
        int64_t many = least(TILE, count - t * TILE);
        screen_tile tile;
        for (int64_t i = 0; i < many; i++) {
            int64_t n = t * TILE + i, start = bag->keys * n / count, stop = bag->keys * (n + 1) / count;
            int64_t j = start + (int64_t)(scattered((uint64_t)n) % (uint64_t)(stop - start));
            s->column[n] = j;
            factor[i] = bag->key_factor ? bag->key_factor[j] : 1;
            FN(widen_keys)(bag, j, 1, key + i * padded, padded);
        }
        FN(screen_keys)(key, factor, many, padded, bytes, s->mean, s->mean_length, bytes_of, &tile,
                        s->packed + t * TILE * bytes);
        memcpy(s->scale + t * TILE, tile.scale, sizeof tile.scale);
    }
    free(key), free(bytes_of);
    return status;
}

/* value [count] = the scores of query row r with the sample, in 8 bits; the largest of these and what is there when `more`. */
static void FN(sample_values)(const screen_rows *rows, int64_t r, const key_sample *s, int64_t tile, const int32_t *product,
                              int more, float *value) {
    const float *scale = s->scale + tile * TILE, step = rows->step[r], centre = rows->centre[r];
    for (int64_t j = 0; j < TILE; j++) {
        float x = scale[j] * (float)product[j] * step + centre;
        value[j] = more && value[j] > x ? value[j] : x;
    }
}

/* The exact score of one entry. */
static float FN(one_score)(const block *b, int64_t q, int64_t column, float *key) {
    float best = 0;
    FN(widen_keys)(b->bag, column, 1, key, b->rows.padded);
    for (int64_t v = 0; v < b->bag->views; v++) {
        int64_t r = q * b->bag->views + v;
        float score = FN(dot)(b->rows.exact + r * b->rows.padded, key, b->rows.padded);
        if (b->bag->key_factor) score *= b->bag->key_factor[column];
        if (b->factor) score *= b->factor[r];
        if (v == 0 || score > best) best = score;
    }
    return best + 0.0f;
}

/* The exact score of the sampled key that stands about at `rank` of the values; past the ends inf. */
static float FN(bound_at)(const block *b, int64_t q, const float *value, const int32_t *of, const key_sample *s, int64_t count,
                          int64_t rank, int64_t loose, float *key, float *spare) {
    if (rank < 1) return INFINITY;
    if (rank > count) return -INFINITY;
    float wanted = FN(ranked)(value, count, rank, loose, spare);
    int64_t i = 0;
    for (int32_t some = 0; i + 64 <= count; i += 64) { /* in strides as far as there is none */
        for (int l = 0; l < 64; l++) some |= value[i + l] == wanted;
        if (some) break;
    }
    for (; i < count; i++)
        if (value[i] == wanted) return FN(one_score)(b, q, s->column[of ? of[i] : i], key);
    return -INFINITY; /* nan among the values: nothing is known */
}
