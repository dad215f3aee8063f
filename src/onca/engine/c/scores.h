/* All scores of a bag, by the routine that selection uses. */

typedef struct {
    const onca_bag *bag;
    int64_t padded;
    const float *query;
    float *score;
} FN(score_call);

static int FN(score_tiles)(void *given, int64_t from, int64_t to, int part) {
    const FN(score_call) *call = given;
    const onca_bag *bag = call->bag;
    const int64_t rows = bag->queries * bag->views, padded = call->padded;
    float *key = room(TILE * padded, 4), score[TILE + 16];
    uint16_t row[TILE + 16];
    uint8_t column[TILE + 16];
    (void)part;
    if (!key) return ONCA_NO_MEMORY;
    for (int64_t t = from; t < to; t++) {
        int64_t first = t * TILE, count = least(TILE, bag->keys - first);
        FN(widen_keys)(bag, first, count, key, padded);
        for (int64_t r = 0; r < rows; r++) {
            float *into = call->score + r / bag->views * bag->keys + first;
            for (int64_t j = 0; j < count; j++) row[j] = 0, column[j] = (uint8_t)j;
            FN(pair_scores)(call->query + r * padded, 0, key, padded, bag->query_factor ? bag->query_factor + r : NULL, 0,
                            bag->key_factor ? bag->key_factor + first : NULL, row, column, count, score);
            for (int64_t j = 0; j < count; j++)
                if (r % bag->views == 0 || score[j] > into[j] || score[j] != score[j]) into[j] = score[j];
        }
    }
    free(key);
    return ONCA_OK;
}

static int FN(scores)(const onca_bag *bag, float *score) {
    const int64_t padded = up(most(bag->dim, 1), 16), rows = bag->queries * bag->views;
    float *query = room(rows * padded, 4);
    if (!query) return ONCA_NO_MEMORY;
    for (int64_t r = 0; r < rows; r++)
        FN(widen)(ONCA_FLOAT32, bag->query + r * bag->dim, bag->dim, query + r * padded, padded);
    FN(score_call) call = {bag, padded, query, score};
    int status = parted(up(bag->keys, TILE) / TILE, 1, bag->threads, FN(score_tiles), &call);
    free(query);
    return status;
}
