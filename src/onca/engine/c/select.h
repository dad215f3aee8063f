/* Scores, and exact selection by them. */

static int FN(scores)(const onca_bag *bag, float *score) {
    int64_t padded = up(bag->dim, 16), rows = bag->queries * bag->views;
    float *query = room(rows * padded, 4), *key = room(TILE * padded, 4);
    if (!query || !key) return free(query), free(key), ONCA_NO_MEMORY;
    for (int64_t r = 0; r < rows; r++)
        FN(widen)(ONCA_FLOAT32, bag->query + r * bag->dim, bag->dim, query + r * padded, padded);
    for (int64_t first = 0; first < bag->keys; first += TILE) {
        int64_t count = least(TILE, bag->keys - first);
        FN(widen_keys)(bag, first, count, key, padded);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = 0; j < count; j++) {
                float *to = score + r / bag->views * bag->keys + first + j, value = FN(dot)(query + r * padded, key + j * padded, padded);
                if (bag->key_factor) value *= bag->key_factor[first + j];
                if (bag->query_factor) value *= bag->query_factor[r];
                if (r % bag->views == 0 || value > *to) *to = value;
            }
    }
    free(query);
    free(key);
    return ONCA_OK;
}

static int FN(select)(const onca_bag *bag, int64_t edges, const int64_t *rank, const int64_t *place, int64_t sample, float spread,
                      float *score, int64_t *at, uint64_t *chosen, int32_t *tied) {
    (void)bag, (void)edges, (void)rank, (void)place, (void)sample, (void)spread, (void)score, (void)at, (void)chosen, (void)tied;
    return ONCA_NO_MEMORY;
}

static int FN(above)(const onca_bag *bag, const float *bound, uint64_t *chosen) {
    (void)bag, (void)bound, (void)chosen;
    return ONCA_NO_MEMORY;
}

static int FN(nearest)(const onca_bag *bag, int64_t k, int64_t *column, float *score) {
    (void)bag, (void)k, (void)column, (void)score;
    return ONCA_NO_MEMORY;
}
