/* Sets of entries as bits: made from equal numbers, counted, listed. */

#ifndef ONCA_BITS
#define ONCA_BITS
typedef struct { /* numbers of queries: an open table of those that are not negative, and who has them first */
    const int64_t *mine;
    int32_t *first; /* [slots], -1: nobody */
    uint64_t slots; /* a power of two, at least twice as many as numbers */
} number_table;

/* The slot of a number, or the one in which it would stand. */
static inline uint64_t slot_of(const number_table *t, int64_t number) {
    uint64_t at = ((uint64_t)number * 0x9e3779b97f4a7c15u >> 32) & (t->slots - 1);
    while (t->first[at] >= 0 && t->mine[t->first[at]] != number) at = (at + 1) & (t->slots - 1);
    return at;
}
#endif

typedef struct {
    int64_t keys;
    const int64_t *mine, *theirs;
    uint64_t *chosen;
} FN(equal_call);

/* A key is looked up once for all queries: it has one number, and so belongs to the row of one number. Queries that share a
   number share that row. */
static int FN(equal_rows)(void *given, int64_t from, int64_t to, int part) {
    const FN(equal_call) *call = given;
    const int64_t words = up(call->keys, TILE) / TILE, *mine = call->mine + from;
    uint64_t *chosen = call->chosen + from * words;
    number_table table = {.mine = mine, .slots = 16};
    (void)part;
    if (from == to || !words) return ONCA_OK;
    while (table.slots < (uint64_t)(2 * (to - from))) table.slots *= 2;
    table.first = room((int64_t)table.slots, sizeof *table.first);
    if (!table.first) return ONCA_NO_MEMORY;
    memset(table.first, 0xff, table.slots * sizeof *table.first);
    memset(chosen, 0, (size_t)((to - from) * words) * sizeof *chosen);
    for (int64_t b = to - from - 1; b >= 0; b--)
        if (mine[b] >= 0) table.first[slot_of(&table, mine[b])] = (int32_t)b;
    for (int64_t j = 0; j < call->keys; j++) {
        const int64_t theirs = call->theirs[j], b = theirs < 0 ? -1 : table.first[slot_of(&table, theirs)];
        if (b >= 0) chosen[b * words + j / TILE] |= (uint64_t)1 << j % TILE;
    }
    for (int64_t b = 0; b < to - from; b++) {
        const int64_t first = mine[b] < 0 ? b : table.first[slot_of(&table, mine[b])];
        if (first != b) memcpy(chosen + b * words, chosen + first * words, (size_t)words * sizeof *chosen);
    }
    free(table.first);
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
