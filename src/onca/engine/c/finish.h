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
    int one;          /* one bracket holds all of what is chosen, but not of what the second of two edges chooses */
    float *known;     /* the scores of what is chosen, or NULL; known_start [queries + 1] */
    const int64_t *known_start;
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

typedef struct { /* where a set ends: at those that score `score` and stand up to place `last` */
    float score;
    int64_t last;
} set_end;

/* How many are to be chosen for an edge of a query, of those that are there; not below 0. */
static int64_t wanted_rank(const selection *call, int64_t query, int64_t edge) {
    return most(0, least(call->k ? call->k : call->rank[query * call->edges + edge], call->there[query]));
}

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

/* Which of the candidates `word` of a tile, whose scores are listed, are in a set. */
static inline uint64_t FN(listed_in)(uint64_t word, const float *listed, const int64_t *place, int64_t first, set_end end) {
    uint64_t in = 0;
#if WIDTH == 512
    const int64_t many = __builtin_popcountll(word);
    uint64_t more = 0, same = 0;
    int64_t i = 0;
    do { /* lists have a vector's room at their end: the first is taken without asking, which could not be foretold */
        __m512 y = _mm512_loadu_ps(listed + i);
        more |= (uint64_t)_mm512_cmp_ps_mask(y, _mm512_set1_ps(end.score), _CMP_GT_OQ) << i;
        same |= (uint64_t)_mm512_cmp_ps_mask(y, _mm512_set1_ps(end.score), _CMP_EQ_OQ) << i;
    } while ((i += 16) < many);
    in = _pdep_u64(more, word);
    for (same = _pdep_u64(same, word); same; same &= same - 1) {
        int64_t j = first + __builtin_ctzll(same);
        if ((place ? place[j] : j) <= end.last) in |= same & -same;
    }
#else
    for (; word; word &= word - 1, listed++) {
        int64_t j = first + __builtin_ctzll(word);
        if (*listed > end.score || (*listed == end.score && (place ? place[j] : j) <= end.last)) in |= word & -word;
    }
#endif
    return in;
}

/* The listed scores whose bits are set in `kept`, to `to`; how many. Nothing is written behind them. */
static inline int64_t FN(hand_over)(const float *listed, int64_t many, uint64_t kept, float *to) {
#if WIDTH == 512
    int64_t i = 0;
    do {
        const __mmask16 in = (__mmask16)(kept >> i);
        _mm512_mask_compressstoreu_ps(to, in, _mm512_maskz_loadu_ps(in, listed + i));
        to += __builtin_popcount(in);
    } while ((i += 16) < many);
#else
    (void)many;
    for (uint64_t rest = kept; rest; rest &= rest - 1) *to++ = listed[__builtin_ctzll(rest)];
#endif
    return __builtin_popcountll(kept);
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

/* Where the set of an edge of query q ends, from the candidates of a bracket. Whether the bracket held. */
static int FN(find_end)(selection *call, const block *b, const candidates *list, int64_t q, int64_t edge, int64_t bracket,
                        float *spare, set_end *end, int *status) {
    const int64_t rank = wanted_rank(call, b->which[q], edge);
    int64_t left = rank;
    *end = (set_end){INFINITY, -1};
    if (rank == 0) return 1;
    for (int p = 0; p < b->parts; p++) left -= b->above[(p * b->edges + bracket) * b->queries + q];
    if (list->full || left < 1 || left > list->count) return 0;
    const float score = FN(ranked)(list->score, list->count, left, 0, spare);
    if (!b->open && !(score >= b->low[bracket * b->queries + q] && score <= b->high[bracket * b->queries + q])) return 0;
    int32_t over = 0, same = 0;
    for (int64_t i = 0; i < list->count; i++) over += list->score[i] > score, same += list->score[i] == score;
    if (same > 1) atomic_store(&call->tied, 1);
    end->score = score;
    if (!call->k) end->last = FN(place_of)(wanted_row(b, q), b->words, list->score, call->place, score, same, left - over);
    if (!call->k && end->last < 0) *status = ONCA_NO_MEMORY;
    return 1;
}

/* Adds an edge's candidates to what is surely above it. */
static void FN(finish_set)(const selection *call, const block *b, const float *listed, int64_t q, int64_t edge, set_end end) {
    const uint64_t *wanted = wanted_row(b, q);
    uint64_t *chosen = call->chosen + (edge * b->bag->queries + b->which[q]) * b->words;
    for (int64_t w = 0; w < b->words; listed += __builtin_popcountll(wanted[w++]))
        chosen[w] |= FN(listed_in)(wanted[w], listed, call->place, w * TILE, end);
}

/* The same where one bracket holds the set: what is surely above it, and candidates, stand in the sets of the first and the last
   edge, and become these; the scores of the set are handed over, if they are wanted. */
static void FN(finish_one)(const selection *call, const block *b, const float *listed, int64_t q, const set_end *end) {
    const int two = call->edges == 2;
    uint64_t *wanted = wanted_row(b, q), *outer = call->chosen + b->which[q] * b->words;
    float *to = call->known ? call->known + call->known_start[b->which[q]] : NULL;
    for (int64_t w = 0; w < b->words; w++) {
        const uint64_t word = wanted[w], above = two ? outer[w] : 0;
        const int64_t many = __builtin_popcountll(word);
        const uint64_t in = FN(listed_in)(word, listed, call->place, w * TILE, end[0]);
        const uint64_t inner = two ? FN(listed_in)(word, listed, call->place, w * TILE, end[1]) : 0;
        wanted[w] = above | inner;
        outer[w] = above | in; /* the same word where there is one edge */
        if (to) to += FN(hand_over)(listed, many, FN(extracted)(in, word), to);
        listed += many;
    }
}

/* All edges of one query, from its candidates. */
static int FN(finish_query)(selection *call, const block *b, const candidates *list, int64_t q, float *spare) {
    const int64_t query = b->which[q];
    int status = ONCA_OK;
    set_end end[call->edges];
    for (int64_t e = 0; e < call->edges && !status; e++) {
        if (!FN(find_end)(call, b, list, q, e, b->one ? 0 : e, spare, end + e, &status)) return call->failed[query] = 1, ONCA_OK;
        if (call->score) call->score[query * call->edges + e] = end[e].score;
        if (call->at) call->at[query * call->edges + e] = end[e].last;
    }
    if (status) return status;
    if (call->k) return FN(list_best)(call, wanted_row(b, q), list->score, list->count, query, end->score, wanted_rank(call, query, 0));
    if (b->one) FN(finish_one)(call, b, list->score, q, end);
    for (int64_t e = 0; e < call->edges && call->chosen && !b->one; e++) FN(finish_set)(call, b, list->score, q, e, end[e]);
    return ONCA_OK;
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
        if (!status) status = FN(finish_query)(s->call, b, &list, q, spare);
        if (list.own) free(list.score);
        free(spare);
    }
    return status;
}
