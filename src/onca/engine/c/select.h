/* Exact selection: a bracket for each wanted rank, one walk over the keys, and the end of it on short lists. Rows for which
   the bracket did not hold are done again with every score exact. */
#ifndef ONCA_SELECT
#define ONCA_SELECT
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

static void put_away(block *b) {
    for (int64_t i = 0; b->lists && i < b->parts * b->queries; i++)
        if (b->lists[i].own) free(b->lists[i].score);
    free(b->lists), free(b->slab), free(b->expected), free(b->wanted), free(b->above);
    free(b->over), free(b->under), free(b->high), free(b->low), free(b->factor);
    screen_rows *r = &b->rows;
    free(r->exact), free(r->small), free(r->start), free(r->step), free(r->centre), free(r->coarse), free(r->fine);
}

/* Where lists of candidates start: a share of what is expected, and a little more. Those that outgrow it move. */
static int lay_lists(block *b) {
    int64_t total = 0, *room_of = b->expected;
    for (int64_t q = 0; q < b->queries; q++) {
        room_of[q] = up(least(room_of[q], b->limit) / b->parts * 9 / 8 + 128, 16);
        total += room_of[q];
    }
    b->slab = room(total * b->parts, sizeof *b->slab);
    if (!b->slab) return ONCA_NO_MEMORY;
    float *next = b->slab;
    for (int64_t i = 0; i < b->parts * b->queries; i++) {
        b->lists[i] = (candidates){.score = next, .held = room_of[i % b->queries]};
        next += b->lists[i].held;
    }
    return ONCA_OK;
}

typedef struct {
    float score;
    int64_t column;
} neighbour;

static int by_number(const void *x, const void *y) {
    const int64_t *a = x, *b = y;
    return (*a > *b) - (*a < *b);
}

static int by_score(const void *x, const void *y) {
    const neighbour *a = x, *b = y;
    return a->score != b->score ? (a->score < b->score ? 1 : -1) : (a->column > b->column) - (a->column < b->column);
}
#endif

static int FN(set_up)(block *b, selection *call, const int64_t *which, int64_t queries, int open) {
    const onca_bag *bag = call->bag;
    const int64_t rows = queries * bag->views, spare = rows + 2 * GROUP;
    *b = (block){.bag = bag, .which = which, .queries = queries, .edges = call->edges, .words = call->words, .open = open};
    b->chosen = call->chosen, b->bound = call->bound, b->mean = call->sample.mean, b->mean_length = call->sample.mean_length;
    b->parts = parts_of(up(bag->keys, TILE) / TILE, AHEAD, bag->threads);
    b->limit = open || bag->keys <= 8192 ? INT64_MAX : most(8192, bag->keys / 6) / b->parts + 1024;
    screen_rows *r = &b->rows;
    r->rows = rows, r->padded = call->padded, r->bytes = call->bytes;
    r->exact = room(rows * r->padded, 4), r->small = room(spare * r->bytes, 1), r->start = room(spare, 4);
    r->step = room(rows, 4), r->centre = room(rows, 4), r->coarse = room(rows, 4), r->fine = room(rows, 4);
    b->factor = bag->query_factor ? room(rows, 4) : NULL;
    b->high = room(b->edges * queries, 4), b->low = room(b->edges * queries, 4);
    b->over = room(b->parts * b->edges * rows, 4), b->under = room(b->parts * b->edges * rows, 4);
    b->lists = calloc((size_t)(b->parts * queries), sizeof *b->lists);
    b->expected = calloc((size_t)queries, sizeof *b->expected);
    b->wanted = call->bound ? NULL : room(queries * b->words, 8);
    b->above = calloc((size_t)(b->parts * b->edges * queries), sizeof *b->above);
    if (!(r->exact && r->small && r->start && r->step && r->centre && r->coarse && r->fine && b->high && b->low && b->over &&
          b->under && b->lists && b->expected && b->above && (b->wanted || call->bound) && (b->factor || !bag->query_factor)))
        return ONCA_NO_MEMORY;
    memset(r->small, 0, (size_t)(spare * r->bytes));
    memset(r->start, 0, (size_t)spare * 4);
    return ONCA_OK;
}

/* Query rows of queries from .. to - 1 as float32 and in 8 bits. */
static int FN(read_queries)(void *given, int64_t from, int64_t to, int part) {
    const stage *s = given;
    const block *b = s->block;
    const onca_bag *bag = b->bag;
    (void)part;
    for (int64_t q = from; q < to; q++)
        for (int64_t v = 0; v < bag->views; v++) {
            int64_t r = q * bag->views + v, of = b->which[q] * bag->views + v;
            float factor = bag->query_factor ? bag->query_factor[of] : 1;
            int finite;
            FN(widen)(ONCA_FLOAT32, bag->query + of * bag->dim, bag->dim, b->rows.exact + r * b->rows.padded, b->rows.padded);
            if (b->factor) b->factor[r] = factor;
            if (b->open) {
                finite = FN(extent)(b->rows.exact + r * b->rows.padded, 1, NULL, b->rows.padded, NULL).finite;
                finite &= fabsf(factor) <= FLT_MAX;
            } else
                finite = FN(screen_row)(&b->rows, r, factor, b->mean);
            if (!finite && s->call->there[b->which[q]] > 0) return ONCA_NOT_FINITE;
        }
    return ONCA_OK;
}

/* How many of the values are candidates between the bounds, if all keys are as far from their 8 bits as the sampled ones. */
static int64_t FN(candidates_of)(const selection *call, const block *b, int64_t q, float low, float high, const float *value,
                                 int64_t count) {
    float error = 0;
    for (int64_t r = q * b->bag->views; r < (q + 1) * b->bag->views; r++)
        error = fmaxf(error, b->rows.step[r] * (b->rows.coarse[r] * call->sample.norm + b->rows.fine[r] * call->sample.rest));
    return most(0, FN(many_at_least)(value, count, low - error) - FN(many_at_least)(value, count, high + error));
}

/* The bracket of edge e of query q from the values of its sampled entries. */
static void FN(bracket)(const selection *call, const block *b, int64_t q, int64_t e, const float *value, const int32_t *of,
                        int64_t count, float *key, float *spare) {
    int64_t there = call->there[b->which[q]], rank = least(call->k ? call->k : call->rank[b->which[q] * b->edges + e], there);
    float *high = b->high + e * b->queries + q, *low = b->low + e * b->queries + q;
    *high = INFINITY, *low = -INFINITY;
    if (rank <= 0) *low = INFINITY;
    if (rank <= 0 || count == 0 || there == 0) return;
    double share = (double)rank / (double)there, middle = share * (double)count;
    double half = call->spread * sqrt(fmax(share * (1 - share) * (double)count, 0)) + 1;
    int64_t loose = (int64_t)(half / 16);
    *low = FN(bound_at)(b, q, value, of, &call->sample, count, (int64_t)ceil(middle + half), loose, key, spare);
    if (!call->k) *high = FN(bound_at)(b, q, value, of, &call->sample, count, (int64_t)floor(middle - half), loose, key, spare);
    b->expected[q] += (int64_t)((double)FN(candidates_of)(call, b, q, *low, *high, value, count) / (double)count * (double)there);
}

/* Brackets of queries from .. to - 1. */
static int FN(brackets)(void *given, int64_t from, int64_t to, int part) {
    const stage *s = given;
    const selection *call = s->call;
    const block *b = s->block;
    const key_sample *sample = &call->sample;
    const int64_t views = b->bag->views, group = most(1, SAMPLED / views), length = sample->tiles * TILE;
    float *value = room(group * length, 4), *mine = room(length, 4), *key = room(b->rows.padded, 4), *spare = room(length + 16, 4);
    int32_t *product = room(up(group * views, 32) * TILE, 4), *of = room(length, 4);
    int status = value && mine && key && spare && product && of ? ONCA_OK : ONCA_NO_MEMORY;
    (void)part;
    FN(tiles_ready)();
    for (int64_t q = from; q < to && !status; q += group) {
        int64_t many = least(group, to - q);
        for (int64_t t = 0; t < sample->tiles; t++) {
            FN(products)(&b->rows, q * views, many * views, sample->packed + t * TILE * b->rows.bytes, product);
            for (int64_t i = 0; i < many * views; i++)
                FN(sample_values)(&b->rows, q * views + i, sample, t, product + i * TILE, i % views != 0,
                                  value + i / views * length + t * TILE);
        }
        for (int64_t i = 0; i < many; i++) {
            const float *use = value + i * length;
            const uint64_t *present = b->bag->present ? b->bag->present + b->which[q + i] * b->words : NULL;
            int64_t count = present ? 0 : sample->count;
            for (int64_t j = 0; j < sample->count && present; j++) {
                mine[count] = use[j], of[count] = (int32_t)j;
                count += present[sample->column[j] / TILE] >> sample->column[j] % TILE & 1;
            }
            for (int64_t e = 0; e < b->edges; e++)
                FN(bracket)(call, b, q + i, e, present ? mine : use, present ? of : NULL, count, key, spare);
        }
    }
    FN(tiles_done)();
    free(value), free(mine), free(key), free(spare), free(product), free(of);
    return status;
}

/* The brackets in x = (score - centre) / step, a little wider than rounding can make them. */
static void FN(bounds)(const block *b) {
    const int64_t rows = b->rows.rows, views = b->bag->views;
    for (int64_t e = 0; e < b->edges; e++)
        for (int64_t r = 0; r < rows; r++) {
            double centre = b->rows.centre[r], step = b->rows.step[r];
            float over = (float)((b->high[e * b->queries + r / views] - centre) / step);
            float under = (float)((b->low[e * b->queries + r / views] - centre) / step);
            if (fabsf(over) <= FLT_MAX) over += fabsf(over) * 0x1p-20f + FLT_MIN;
            if (fabsf(under) <= FLT_MAX) under -= fabsf(under) * 0x1p-20f + FLT_MIN;
            for (int64_t p = 0; p < b->parts; p++) {
                b->over[(p * b->edges + e) * rows + r] = over;
                b->under[(p * b->edges + e) * rows + r] = under;
            }
        }
}

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

/* The place of the need-th of the `same` entries that score `score`: that of the smallest places. -1: no memory. */
static int64_t FN(place_of)(const uint64_t *wanted, int64_t words, const float *listed, const int64_t *place, float score,
                            int64_t same, int64_t need) {
    if (!place || same == 1) {
        int64_t i = 0, column;
        for (;; i++)
            if (listed[i] == score && --need == 0) break;
        column = FN(column_at)(wanted, i);
        return place ? place[column] : column;
    }
    int64_t *found = room(same, 8), last;
    if (!found) return -1;
    FN(columns_of)(wanted, words, listed, score, 1, found, NULL);
    for (int64_t i = 0; i < same; i++) found[i] = place[found[i]];
    qsort(found, (size_t)same, sizeof *found, by_number);
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
    neighbour *best = room(count, sizeof *best);
    int64_t *column = room(count, 8);
    float *value = room(count, 4);
    int status = best && column && value ? ONCA_OK : ONCA_NO_MEMORY;
    int64_t found = status || rank == 0 ? 0 : FN(columns_of)(wanted, call->words, listed, score, 0, column, value);
    for (int64_t i = 0; i < found; i++) best[i] = (neighbour){value[i], column[i]};
    if (!status) qsort(best, (size_t)found, sizeof *best, by_score);
    for (int64_t i = 0; i < call->k && !status; i++) {
        call->column[query * call->k + i] = i < rank ? best[i].column : -1;
        call->best[query * call->k + i] = i < rank ? best[i].score : -INFINITY;
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

/* All steps for some queries of the bag. */
static int FN(run_block)(selection *call, const int64_t *which, int64_t queries, int open) {
    block b;
    stage s = {call, &b};
    const int threads = call->bag->threads;
    int status = FN(set_up)(&b, call, which, queries, open);
    if (!status) status = parted(queries, 1, threads, FN(read_queries), &s);
    if (!status && !open && call->bound)
        for (int64_t q = 0; q < queries; q++) b.high[q] = b.low[q] = call->bound[which[q]];
    else if (!status && !open)
        status = parted(queries, SAMPLED, threads, FN(brackets), &s);
    if (!status && !open) FN(bounds)(&b);
    for (int64_t q = 0; q < queries && !status && open; q++) b.expected[q] = call->there[which[q]];
    if (!status && !call->bound) status = lay_lists(&b);
    if (!status) status = parted(up(call->bag->keys, TILE) / TILE, AHEAD, threads, FN(stream), &b);
    if (!status && !call->bound) status = parted(queries, 1, threads, FN(finish_rows), &s);
    put_away(&b);
    return status;
}

/* How many keys to sample: what a candidate costs weighs about seven times a sampled entry. */
static int64_t FN(sample_size)(const selection *call) {
    const int64_t keys = call->bag->keys;
    double width = 0;
    for (int64_t i = 0; i < call->bag->queries * (call->k ? 1 : call->edges); i++) {
        int64_t there = most(1, call->there[call->k ? i : i / call->edges]);
        double share = fmin(1, (double)(call->k ? call->k : call->rank[i]) / (double)there);
        width = fmax(width, share * (1 - share));
    }
    double size = pow(call->spread * sqrt(width) * (double)keys * 7, 2.0 / 3);
    return least(most(up((int64_t)size, TILE), 4 * TILE), up(keys / 4, TILE));
}

/* Blocks of queries, then the rows that failed. sample: wanted keys, 0 is the engine's own number. */
static int FN(run_all)(selection *call, int64_t sample) {
    const onca_bag *bag = call->bag;
    const int64_t open_rows = most(8, least(1024, ((int64_t)1 << 21) / most(1, bag->keys)));
    int64_t *which = room(bag->queries, 8), *there = room(bag->queries, 8), again = 0;
    int open = (bag->keys < 512 && sample == 0) || bag->dim > 60000, status = ONCA_OK;
    call->words = up(bag->keys, TILE) / TILE, call->padded = up(most(bag->dim, 1), 16), call->bytes = up(most(bag->dim, 1), 64);
    call->failed = calloc((size_t)bag->queries + 1, 1), call->there = there;
    if (!which || !there || !call->failed) status = ONCA_NO_MEMORY;
    for (int64_t q = 0; q < bag->queries && !status; q++) {
        which[q] = q;
        there[q] = bag->present ? FN(count_row)(call->words, bag->present + q * call->words) : bag->keys;
    }
    if (!status && !open) status = FN(find_mean)(bag, call->padded, &call->sample);
    if (!status && !open && !call->bound)
        status = FN(take_sample)(bag, sample > 0 ? least(sample, bag->keys) : FN(sample_size)(call), call->padded, call->bytes,
                                 &call->sample);
    int64_t step = open ? open_rows : most(GROUP, 1024 / bag->views);
    for (int64_t q = 0; q < bag->queries && !status; q += step)
        status = FN(run_block)(call, which + q, least(step, bag->queries - q), open);
    for (int64_t q = 0; q < bag->queries && !status; q++)
        if (call->failed[q]) which[again++] = q;
    for (int64_t q = 0; q < again && !status; q += open_rows)
        status = FN(run_block)(call, which + q, least(open_rows, again - q), 1);
    free(which), free(there), free(call->failed);
    forget(&call->sample);
    return status;
}

static int FN(select)(const onca_bag *bag, int64_t edges, const int64_t *rank, const int64_t *place, int64_t sample, float spread,
                      float *score, int64_t *at, uint64_t *chosen, int32_t *tied) {
    selection call = {.bag = bag, .edges = edges, .rank = rank, .place = place, .score = score, .at = at, .chosen = chosen};
    call.spread = spread > 0 ? spread : 4;
    int status = FN(run_all)(&call, sample);
    if (tied) *tied = atomic_load(&call.tied);
    return status;
}

static int FN(above)(const onca_bag *bag, const float *bound, uint64_t *chosen) {
    selection call = {.bag = bag, .edges = 1, .chosen = chosen, .bound = bound};
    return FN(run_all)(&call, 0);
}

static int FN(nearest)(const onca_bag *bag, int64_t k, int64_t *column, float *score) {
    selection call = {.bag = bag, .edges = 1, .k = k, .column = column, .best = score, .spread = 4};
    return k > 0 ? FN(run_all)(&call, 0) : ONCA_OK;
}

/* ---- all scores ---- */

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
    uint8_t row[TILE + 16], column[TILE + 16];
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
