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
    int32_t total = 0;
    for (int64_t i = 0; i < count; i++) total += x[i] >= bound;
    return total;
}

/* The rank-th largest of x (1 the largest), by halving the range of floats; or, sooner, one whose rank is within `loose`. */
static float FN(ranked)(const float *x, int64_t count, int64_t rank, int64_t loose) {
    float low = INFINITY, high = -INFINITY, found = INFINITY;
    for (int64_t i = 0; i < count; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    int64_t from = ordered(low), to = (int64_t)ordered(high) + 1; /* at least rank are >= from, fewer are >= to */
    while (to - from > 1) {
        int64_t middle = from + (to - from) / 2, many = FN(many_at_least)(x, count, unordered((int32_t)middle));
        if (many >= rank) from = middle;
        else to = middle;
        if (llabs(many - rank) <= loose && many >= 1) {
            from = middle;
            break;
        }
    }
    float bound = unordered((int32_t)from);
    for (int64_t i = 0; i < count; i++) found = x[i] >= bound && x[i] < found ? x[i] : found;
    return found;
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
        float factor = bag->key_factor ? bag->key_factor[j] : 1, length, largest;
        int finite;
        FN(widen_keys)(bag, j, 1, row, padded);
        largest = FN(extent)(row, padded, &length, &finite);
        if (!finite || !in_range(factor) || !in_range(largest)) continue;
        used++;
        for (int64_t d = 0; d < padded; d++) s->mean[d] += row[d] * factor;
    }
    for (int64_t d = 0; d < padded && used; d++) s->mean[d] /= (float)used;
    int finite;
    FN(extent)(s->mean, padded, &s->mean_length, &finite);
    if (!(s->mean_length <= LITTLE + MUCH * MUCH)) memset(s->mean, 0, (size_t)padded * 4), s->mean_length = 0;
    free(row);
    return ONCA_OK;
}

/* One key at random of each of `count` equal stretches, in 8 bits. */
static int FN(take_sample)(const onca_bag *bag, int64_t count, int64_t padded, int64_t bytes, key_sample *s) {
    s->count = count, s->tiles = up(count, TILE) / TILE;
    s->column = room(count, 8), s->packed = room(s->tiles * TILE * bytes, 1), s->scale = room(s->tiles * TILE, 4);
    float *key = room(TILE * padded, 4), *near = room(padded, 4), factor[TILE];
    uint8_t *bytes_of = room(TILE * bytes, 1);
    int status = s->column && s->packed && s->scale && key && near && bytes_of ? ONCA_OK : ONCA_NO_MEMORY;
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
        FN(screen_keys)(key, factor, many, padded, bytes, s->mean, s->mean_length, near, bytes_of, &tile,
                        s->packed + t * TILE * bytes);
        memcpy(s->scale + t * TILE, tile.scale, sizeof tile.scale);
    }
    free(key), free(near), free(bytes_of);
    return status;
}

/* value [count] = the scores of query row r with the sample, in 8 bits; the largest of these and what is there when `more`. */
static void FN(sample_values)(const screen_rows *rows, int64_t r, const key_sample *s, int64_t tile, const int32_t *product,
                              int more, float *value) {
    const float *scale = s->scale + tile * TILE, step = rows->step[r], centre = rows->centre[r];
    for (int64_t j = 0; j < TILE; j++) {
        float x = scale[j] * (float)(product[j] + rows->start[r]) * step + centre;
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
                          int64_t rank, int64_t loose, float *key) {
    if (rank < 1) return INFINITY;
    if (rank > count) return -INFINITY;
    float wanted = FN(ranked)(value, count, rank, loose);
    for (int64_t i = 0; i < count; i++)
        if (value[i] == wanted) return FN(one_score)(b, q, s->column[of ? of[i] : i], key);
    return -INFINITY; /* nan among the values: nothing is known */
}
