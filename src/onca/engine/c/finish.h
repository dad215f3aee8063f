/* The end of a selection: the wanted ranks, found in the lists of candidates. */
#ifndef ONCA_FINISH
#define ONCA_FINISH
typedef struct {
    const onca_bag *bag;
    int64_t edges, words, padded, bytes;
    const int64_t *rank; /* [queries, edges] */
    const int64_t *place;
    const int64_t *there; /* [queries] how many are present */
    key_sample sample;
    float spread;
    float *score;     /* [queries, edges] or NULL */
    int64_t *at;      /* [queries, edges] or NULL */
    uint64_t *chosen; /* [edges, queries, words] or NULL */
    atomic_int tied;
    int64_t k;        /* nearest: how many are listed in column, best [queries, k]; else 0 */
    int64_t *column;
    float *best;
    const float *bound; /* above: the bound itself, and no ranks */
    char *failed;       /* [queries] */
} selection;

typedef struct {
    selection *call;
    block *block;
} stage;

/* Ascending order of numbers, by merging ever longer runs. spare: [count]. */
static void sort(uint64_t *x, uint64_t *spare, int64_t count) {
    enum { RUN = 8 };
    for (int64_t first = 0; first < count; first += RUN)
        for (int64_t i = first + 1; i < least(first + RUN, count); i++) {
            uint64_t one = x[i];
            int64_t j = i;
            for (; j > first && x[j - 1] > one; j--) x[j] = x[j - 1];
            x[j] = one;
        }
    for (int64_t run = RUN; run < count; run *= 2) {
        for (int64_t first = 0; first < count; first += 2 * run) {
            int64_t i = first, middle = least(first + run, count), j = middle, end = least(first + 2 * run, count);
            for (int64_t to = first; to < end; to++) {
                int left = j >= end || (i < middle && x[i] <= x[j]);
                spare[to] = left ? x[i] : x[j];
                i += left, j += !left;
            }
        }
        memcpy(x, spare, (size_t)count * sizeof *x);
    }
}

/* A score and a column as one number: the smaller, the better the score, and the smaller the column among equal ones. */
static uint64_t ranking(float score, int64_t column) {
    return (uint64_t)(0x7fffffffu - (uint32_t)ordered(score)) << 32 | (uint64_t)column;
}
#endif

/* The candidates of a query from all parts, as one list. */
static int FN(gathered)(const block *b, int64_t q, candidates *all) {
    *all = b->lists[q];
    all->own = 0;
    if (b->parts == 1) return ONCA_OK;
    for (int p = 1; p < b->parts; p++) {
        all->count += b->lists[p * b->queries + q].count;
        all->full |= b->lists[p * b->queries + q].full;
    }
    if (all->full) return ONCA_OK;
    all->score = room(all->count + 16, 4), all->own = 1;
    if (!all->score) return ONCA_NO_MEMORY;
    for (int64_t p = 0, to = 0; p < b->parts; p++) {
        candidates *list = b->lists + p * b->queries + q;
        memcpy(all->score + to, list->score, (size_t)list->count * 4);
        to += list->count;
        if (list->own) free(list->score);
        *list = (candidates){0};
    }
    return ONCA_OK;
}

/* Columns of those candidates that score at least (or, same: exactly) `score`, ascending: [count]. Their scores, if wanted. */
static int64_t FN(columns_of)(const uint64_t *wanted, int64_t words, const float *listed, float score, int same, int64_t *column,
                           float *value) {
    int64_t count = 0;
    for (int64_t w = 0; w < words; w++)
        for (uint64_t word = wanted[w]; word; word &= word - 1, listed++) {
            if (*listed < score || (same && *listed > score)) continue;
            if (value) value[count] = *listed;
            column[count++] = w * TILE + __builtin_ctzll(word);
        }
    return count;
}

/* The column of the index-th candidate. */
static int64_t FN(column_at)(const uint64_t *wanted, int64_t index) {
    int64_t w = 0, many;
    for (; (many = __builtin_popcountll(wanted[w])) <= index; w++) index -= many;
    uint64_t word = wanted[w];
    for (; index; index--) word &= word - 1;
    return w * TILE + __builtin_ctzll(word);
}

/* The place of the need-th of the `same` entries that score `score`: that of the smallest places (none is
   negative). -1: no memory. */
static int64_t FN(place_of)(const uint64_t *wanted, int64_t words, const float *listed, const int64_t *place, float score,
                            int64_t same, int64_t need) {
    if (!place || same == 1) {
        int64_t i = 0, column;
        for (;; i++)
            if (listed[i] == score && --need == 0) break;
        column = FN(column_at)(wanted, i);
        return place ? place[column] : column;
    }
    int64_t *found = room(2 * same, 8), last;
    if (!found) return -1;
    FN(columns_of)(wanted, words, listed, score, 1, found, NULL);
    for (int64_t i = 0; i < same; i++) found[i] = place[found[i]];
    sort((uint64_t *)found, (uint64_t *)found + same, same);
    last = found[need - 1];
    free(found);
    return last;
}

/* Adds to chosen the candidates that score more than `score`, and of those that score the same the ones up to place `last`. */
static void FN(choose_listed)(const uint64_t *wanted, int64_t words, const float *listed, const int64_t *place, float score,
                              int64_t last, uint64_t *chosen) {
    for (int64_t w = 0; w < words; w++) {
        uint64_t word = wanted[w], in = 0;
#if WIDTH == 512
        int64_t many = __builtin_popcountll(word);
        uint64_t more = 0, same = 0;
        for (int64_t i = 0; i < many; i += 16) { /* lists have a vector's room at their end */
            __m512 y = _mm512_loadu_ps(listed + i);
            more |= (uint64_t)_mm512_cmp_ps_mask(y, _mm512_set1_ps(score), _CMP_GT_OQ) << i;
            same |= (uint64_t)_mm512_cmp_ps_mask(y, _mm512_set1_ps(score), _CMP_EQ_OQ) << i;
        }
        listed += many;
        in = _pdep_u64(more, word);
        for (same = _pdep_u64(same, word); same; same &= same - 1) {
            int64_t j = w * TILE + __builtin_ctzll(same);
            if ((place ? place[j] : j) <= last) in |= same & -same;
        }
#else
        for (; word; word &= word - 1, listed++) {
            int64_t j = w * TILE + __builtin_ctzll(word);
            if (*listed > score || (*listed == score && (place ? place[j] : j) <= last)) in |= word & -word;
        }
#endif
        chosen[w] |= in;
    }
}

/* The k best of a list, sorted: all that score more than `score`, `rank` in number with the first of those that score it. */
static int FN(list_best)(const selection *call, const uint64_t *wanted, const float *listed, int64_t count, int64_t query,
                         float score, int64_t rank) {
    uint64_t *best = room(2 * count, 8);
    int64_t *column = room(count, 8);
    float *value = room(count, 4);
    int status = best && column && value ? ONCA_OK : ONCA_NO_MEMORY;
    int64_t found = status || rank == 0 ? 0 : FN(columns_of)(wanted, call->words, listed, score, 0, column, value);
    for (int64_t i = 0; i < found; i++) best[i] = ranking(value[i], column[i]);
    if (found) sort(best, best + count, found);
    for (int64_t i = 0; i < call->k && !status; i++) {
        int there = i < rank;
        call->column[query * call->k + i] = there ? (int64_t)(best[i] & 0xffffffffu) : -1;
        call->best[query * call->k + i] = there ? unordered((int32_t)(0x7fffffffu - (uint32_t)(best[i] >> 32))) : -INFINITY;
    }
    free(best), free(column), free(value);
    return status;
}

/* One edge of one query, from its candidates. Whether the bracket held. */
static int FN(finish_edge)(selection *call, const block *b, const candidates *list, int64_t q, int64_t e, float *spare,
                           int *status) {
    int64_t query = b->which[q], to = query * b->edges + e, above = 0;
    int64_t rank = least(call->k ? call->k : call->rank[to], call->there[query]), last = -1;
    const uint64_t *wanted = b->wanted + q * b->words;
    float score = INFINITY;
    for (int p = 0; p < b->parts; p++) above += b->above[(p * b->edges + e) * b->queries + q];
    if (rank > 0) {
        int64_t left = rank - above;
        if (list->full || left < 1 || left > list->count) return 0;
        score = FN(ranked)(list->score, list->count, left, 0, spare);
        if (!b->open && !(score >= b->low[e * b->queries + q] && score <= b->high[e * b->queries + q])) return 0;
        int32_t over = 0, same = 0;
        for (int64_t i = 0; i < list->count; i++) over += list->score[i] > score, same += list->score[i] == score;
        if (same > 1) atomic_store(&call->tied, 1);
        if (!call->k) last = FN(place_of)(wanted, b->words, list->score, call->place, score, same, left - over);
        if (!call->k && last < 0) *status = ONCA_NO_MEMORY;
        if (call->chosen)
            FN(choose_listed)(wanted, b->words, list->score, call->place, score, last,
                              call->chosen + (e * b->bag->queries + query) * b->words);
    }
    if (call->k) *status = FN(list_best)(call, wanted, list->score, list->count, query, score, most(rank, 0));
    if (call->score) call->score[to] = score;
    if (call->at) call->at[to] = last;
    return 1;
}

static int FN(finish_rows)(void *given, int64_t from, int64_t to, int part) {
    const stage *s = given;
    const block *b = s->block;
    int status = ONCA_OK;
    (void)part;
    for (int64_t q = from; q < to && !status; q++) {
        candidates list;
        status = FN(gathered)(b, q, &list);
        float *spare = room(list.count + 16, 4);
        if (!spare) status = ONCA_NO_MEMORY;
        for (int64_t e = 0; e < b->edges && !status; e++)
            if (!FN(finish_edge)(s->call, b, &list, q, e, spare, &status)) s->call->failed[b->which[q]] = 1;
        if (list.own) free(list.score);
        free(spare);
    }
    return status;
}
