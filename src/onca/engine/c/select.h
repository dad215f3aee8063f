/* Exact selection: a bracket for each wanted rank, one walk over the keys, and the end of it on short lists. Rows for which
   the bracket did not hold are done again with every score exact. */
#ifndef ONCA_SELECT
#define ONCA_SELECT
static void put_away(block *b) {
    for (int64_t i = 0; b->lists && i < b->parts * b->queries; i++)
        if (b->lists[i].own) free(b->lists[i].score);
    free(b->lists), free(b->slab), free(b->expected), free(b->above);
    if (!b->one) free(b->wanted);
    free(b->over), free(b->under), free(b->high), free(b->low), free(b->factor);
    screen_rows *r = &b->rows;
    free(r->exact), free(r->small), free(r->start), free(r->step), free(r->centre), free(r->coarse), free(r->fine);
}

/* Where lists of candidates start: a share of what is expected, and a little more, or of the room for the scores of the set. Those
   that outgrow it move. */
static int lay_lists(block *b, const selection *call) {
    int64_t total = 0, *room_of = b->expected;
    for (int64_t i = 0; i < b->parts * b->queries && call->known; i++) {
        const int64_t *start = call->known_start + b->which[i % b->queries], share = (start[1] - start[0]) / b->parts;
        b->lists[i] = (candidates){.score = call->known + start[0] + i / b->queries * share, .held = share};
    }
    if (call->known) return ONCA_OK;
    for (int64_t q = 0; q < b->queries; q++) {
        room_of[q] = up(least(room_of[q], b->limit) / b->parts * 17 / 16 + 96, 16);
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
#endif

static int FN(set_up)(block *b, selection *call, const int64_t *which, int64_t queries, int open) {
    const onca_bag *bag = call->bag;
    const int64_t rows = queries * bag->views, spare = rows + 2 * GROUP;
    *b = (block){.bag = bag, .which = which, .queries = queries, .words = call->words, .open = open, .one = call->one};
    b->edges = b->one ? 1 : call->edges;
    b->chosen = call->chosen, b->bound = call->bound, b->mean = call->sample.mean, b->mean_length = call->sample.mean_length;
    b->parts = parts_of(up(bag->keys, TILE) / TILE, AHEAD, bag->threads);
    b->limit = open || bag->keys <= 8192 ? INT64_MAX : most(8192, bag->keys * 3 / 10) / b->parts + 1024;
    screen_rows *r = &b->rows;
    r->rows = rows, r->padded = call->padded, r->bytes = call->bytes;
    r->exact = room(rows * r->padded, 4), r->small = room(spare * r->bytes, 1), r->start = room(spare, 4);
    r->step = room(rows, 4), r->centre = room(rows, 4), r->coarse = room(rows, 4), r->fine = room(rows, 4);
    b->factor = bag->query_factor ? room(rows, 4) : NULL;
    b->high = room(b->edges * queries, 4), b->low = room(b->edges * queries, 4);
    b->over = room(b->parts * b->edges * rows, 4), b->under = room(b->parts * b->edges * rows, 4);
    b->lists = calloc((size_t)(b->parts * queries), sizeof *b->lists);
    b->expected = calloc((size_t)queries, sizeof *b->expected);
    b->wanted = b->one ? b->chosen + (call->edges - 1) * bag->queries * b->words : call->bound ? NULL : room(queries * b->words, 8);
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
                finite = FN(extent)(b->rows.exact + r * b->rows.padded, 1, NULL, b->rows.padded).finite;
                finite &= fabsf(factor) <= FLT_MAX;
            } else
                finite = FN(screen_row)(&b->rows, r, factor, b->mean);
            if (!finite && s->call->there[b->which[q]] > 0) return ONCA_NOT_FINITE;
        }
    return ONCA_OK;
}

/* How far from `middle`, of `count` sampled entries, the rank of an edge may lie. */
static double FN(half_width)(const selection *call, double middle, int64_t count) {
    return call->spread * sqrt(fmax(middle * (1 - middle / (double)count), 0)) + 1;
}

/* Bracket e of query q from the values of its sampled entries: around an edge, or from the first to the last of a set. */
static void FN(bracket)(const selection *call, const block *b, int64_t q, int64_t e, const float *value, const int32_t *of,
                        int64_t count, float *key, float *spare) {
    const int64_t there = call->there[b->which[q]], whole = call->k || b->one, rank = wanted_rank(call, b->which[q], e);
    const int64_t before = !whole ? rank : call->edges == 2 ? wanted_rank(call, b->which[q], 1) : 0;
    float *high = b->high + e * b->queries + q, *low = b->low + e * b->queries + q;
    *high = INFINITY, *low = -INFINITY;
    if (rank <= 0) *low = INFINITY;
    if (rank <= 0 || count == 0 || there == 0) return;
    const double scale = (double)count / (double)there;
    const double half = FN(half_width)(call, (double)rank * scale, count), upper = FN(half_width)(call, (double)before * scale, count);
    const double skew = call->spread * call->spread / 6; /* few are expected: their number is spread more to above */
    const int64_t first = (int64_t)floor((double)before * scale - upper), last = (int64_t)ceil((double)rank * scale + half + skew);
    *low = FN(bound_at)(b, q, value, of, &call->sample, count, last, (int64_t)(half / 16), key, spare);
    *high = FN(bound_at)(b, q, value, of, &call->sample, count, first, (int64_t)(upper / 16), key, spare);
    b->expected[q] += (int64_t)((double)(least(last, count) - most(first, 0)) / scale);
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
    for (int64_t i = 0; i < b.edges * queries && !status && open; i++) b.high[i] = INFINITY, b.low[i] = -INFINITY;
    if (!status && !call->bound) status = lay_lists(&b, call);
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

/* Are two edges so close to each other that one list of what lies between them is shorter than one around each? */
static int FN(is_narrow)(const selection *call) {
    const int64_t queries = call->bag->queries;
    int64_t total = 0;
    if (call->edges != 2 || !call->chosen || call->bag->views > 1) return 0;
    for (int64_t q = 0; q < queries; q++) {
        const int64_t between = wanted_rank(call, q, 0) - wanted_rank(call, q, 1);
        if (between < 0) return 0;
        total += between;
    }
    return total <= queries * call->bag->keys / 10;
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
    call->one = !status && (call->known || FN(is_narrow)(call));
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
                      float *score, int64_t *at, uint64_t *chosen, int32_t *tied, float *known, const int64_t *known_start) {
    selection call = {.bag = bag, .edges = edges, .rank = rank, .place = place, .score = score, .at = at, .chosen = chosen};
    call.spread = spread > 0 ? spread : 4, call.known = known, call.known_start = known_start;
    int status = edges > 0 ? FN(run_all)(&call, sample) : ONCA_OK;
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
