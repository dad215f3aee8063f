/* Sets of entries as bits: made from equal numbers, counted, listed. */

typedef struct {
    int64_t keys;
    const int64_t *mine, *theirs;
    uint64_t *chosen;
} FN(equal_call);

static int FN(equal_rows)(void *given, int64_t from, int64_t to, int part) {
    const FN(equal_call) *call = given;
    int64_t words = up(call->keys, TILE) / TILE;
    (void)part;
    for (int64_t b = from; b < to; b++)
        for (int64_t w = 0; w < words; w++) {
            const int64_t *theirs = call->theirs + w * TILE, many = least(TILE, call->keys - w * TILE), mine = call->mine[b];
            uint64_t word = 0;
            if (mine >= 0)
                for (int64_t j = 0; j < many; j++) word |= (uint64_t)(theirs[j] == mine) << j;
            call->chosen[b * words + w] = word;
        }
    return ONCA_OK;
}

static int FN(equal)(int64_t queries, int64_t keys, const int64_t *mine, const int64_t *theirs, int32_t threads, uint64_t *chosen) {
    FN(equal_call) call = {keys, mine, theirs, chosen};
    return parted(queries, 1, threads, FN(equal_rows), &call);
}

static int64_t FN(count_row)(int64_t words, const uint64_t *bits) {
    int64_t total = 0;
    for (int64_t w = 0; w < words; w++) total += __builtin_popcountll(bits[w]);
    return total;
}

static void FN(count)(int64_t queries, int64_t keys, const uint64_t *bits, int64_t *count) {
    int64_t words = up(keys, TILE) / TILE;
    for (int64_t b = 0; b < queries; b++) count[b] = FN(count_row)(words, bits + b * words);
}

static void FN(hits)(int64_t queries, int64_t keys, const uint64_t *bits, int64_t *hits) {
    int64_t words = up(keys, TILE) / TILE;
    if (keys) memset(hits, 0, (size_t)keys * sizeof *hits);
    for (int64_t b = 0; b < queries; b++)
        for (int64_t w = 0; w < words; w++)
            for (uint64_t word = bits[b * words + w]; word; word &= word - 1) hits[w * TILE + __builtin_ctzll(word)]++;
}

static void FN(listed)(int64_t queries, int64_t keys, const uint64_t *bits, int64_t many, int64_t *column) {
    int64_t words = up(keys, TILE) / TILE;
    for (int64_t b = 0; b < queries; b++) {
        int64_t found = 0, *row = column + b * many;
        for (int64_t w = 0; w < words && found < many; w++)
            for (uint64_t word = bits[b * words + w]; word && found < many; word &= word - 1)
                row[found++] = w * TILE + __builtin_ctzll(word);
        while (found < many) row[found++] = -1;
    }
}
