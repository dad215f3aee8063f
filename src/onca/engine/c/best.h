/* The best of entries whose scores are known: no product is made again. Plain C, the same at every level. */
#ifndef ONCA_BEST
#define ONCA_BEST
typedef struct {
    const onca_bag *bag;
    int64_t k, *column;
    float *score;
} best_call;

/* Whether a selection kept the scores of all entries that are present. */
static int all_known(const onca_bag *bag) {
    if (!bag->known || !bag->present) return 0;
    uint64_t unknown = 0;
    for (int64_t w = 0; w < bag->queries * (up(bag->keys, TILE) / TILE); w++) unknown |= bag->present[w] & ~bag->known_set[w];
    return !unknown;
}

/* The score of what `ranking` gave. */
static float ranked_score(uint64_t entry) { return unordered((int32_t)(0x7fffffffu - (uint32_t)(entry >> 32))); }

/* Puts an entry in its place among the best so far, unless there are k better ones. How many there are then. */
static int64_t put_best(uint64_t *best, int64_t count, int64_t k, uint64_t entry) {
    if (count == k && entry > best[k - 1]) return count;
    int64_t i = count < k ? count++ : k - 1;
    for (; i > 0 && best[i - 1] > entry; i--) best[i] = best[i - 1];
    best[i] = entry;
    return count;
}

/* The k best of query b, and how many there are. Few scores are better than those before: only they are looked up. */
static int64_t best_of_row(const best_call *call, int64_t b, uint64_t *best) {
    const onca_bag *bag = call->bag;
    const int64_t words = up(bag->keys, TILE) / TILE;
    const uint64_t *set = bag->known_set + b * words, *present = bag->present + b * words;
    const float *known = bag->known + bag->known_start[b];
    int64_t many = 0, count = 0, w = 0, before = 0; /* before: entries of the set in front of word w */
    float worst = 0; /* of k: the score of the last */
    for (int64_t i = 0; i < words; i++) many += __builtin_popcountll(set[i]);
    for (int64_t i = 0; i < many; i++) {
        if (count == call->k && !(known[i] > worst)) continue; /* of equals the first stands */
        while (before + __builtin_popcountll(set[w]) <= i) before += __builtin_popcountll(set[w++]);
        uint64_t word = set[w];
        for (int64_t skip = i - before; skip; skip--) word &= word - 1;
        if (!(present[w] & word & -word)) continue;
        count = put_best(best, count, call->k, ranking(known[i], w * TILE + __builtin_ctzll(word)));
        worst = ranked_score(best[count - 1]);
    }
    return count;
}

static int best_rows(void *given, int64_t from, int64_t to, int part) {
    const best_call *call = given;
    const int64_t k = call->k;
    uint64_t *best = room(k, sizeof *best);
    (void)part;
    if (!best) return ONCA_NO_MEMORY;
    for (int64_t b = from; b < to; b++) {
        int64_t count = best_of_row(call, b, best);
        for (int64_t i = 0; i < k; i++) {
            call->column[b * k + i] = i < count ? (int64_t)(best[i] & 0xffffffffu) : -1;
            call->score[b * k + i] = i < count ? ranked_score(best[i]) : -INFINITY;
        }
    }
    free(best);
    return ONCA_OK;
}

static int best_known(const onca_bag *bag, int64_t k, int64_t *column, float *score) {
    best_call call = {bag, k, column, score};
    return k > 0 ? parted(bag->queries, 1, bag->threads, best_rows, &call) : ONCA_OK;
}
#endif
