/* fuzz FIRST COUNT [FAULT]: draws COUNT cases from the seeds FIRST, FIRST + 1, ... and compares each function of onca.h with plain
   loops. Meant to be linked under sanitizers. Exits 1 at the first difference, and says its seed. */
#include <signal.h>
#include <unistd.h>
#include "faults.h"
#include "views.h"

static onca_bag bag;

static void say_where(void) {
    fprintf(stderr, "seed %llu, level %s: B %lld S %lld D %lld N %lld stride %lld type %d threads %d%s%s%s\n",
            (unsigned long long)seed, level, (long long)bag.queries, (long long)bag.views, (long long)bag.dim,
            (long long)bag.keys, (long long)bag.key_stride, bag.key_type, bag.threads, bag.query_factor ? " by query" : "",
            bag.key_factor ? " by key" : "", bag.present ? " masked" : "");
}

#define CHECK(holds, ...) \
    do { if (!(holds)) { fprintf(stderr, __VA_ARGS__); fputs("\n", stderr); say_where(); free_all(); exit(1); } } while (0)

/* Within a share of the size of the terms, or too small for float32 to hold all digits. */
static int near(double found, bounded want, double share) {
    return fabs(found - want.value) <= share * want.size + 1e-30;
}

static void check_status(const char *what, int status) { CHECK(status == ONCA_OK, "%s: status %d", what, status); }

/* The set in `bits` of row b must be the first `count` of list; past the last key nothing is set. */
static void check_set(const char *what, int64_t b, const uint64_t *bits, const entry *list, int64_t count) {
    int64_t words = words_of(&bag), number = 0;
    for (int64_t i = 0; i < count; i++)
        CHECK(has(bits, words, b, list[i].column), "%s: row %lld lacks column %lld, which stands at rank %lld of %lld", what,
              (long long)b, (long long)list[i].column, (long long)i, (long long)count);
    for (int64_t w = 0; w < words; w++) number += __builtin_popcountll(bits[b * words + w]);
    CHECK(number == count, "%s: row %lld has %lld entries, not %lld", what, (long long)b, (long long)number, (long long)count);
}

/* All scores, close to double, the same bits on every level but "portable". wild: some overflow, or are close to it. */
static float *check_scores(const char *const *levels, int *wild) {
    int64_t number = bag.queries * bag.keys;
    float *score = room(number, 4), *again = room(number, 4);
    check_status("scores", onca_scores(&bag, score));
    *wild = 0;
    for (int64_t b = 0; b < bag.queries; b++)
        for (int64_t n = 0; n < bag.keys; n++) {
            bounded want = score_of(&bag, b, n), plain = product(&bag, b * bag.views, n);
            if (!(want.size < 1e37 && plain.size < 1e37 && want.size > 1e-30)) { *wild |= want.size >= 1e37; continue; }
            if (plain.size < 1e-30) continue; /* float32 loses its digits there */
            CHECK(near(score[b * bag.keys + n], want, 0x1p-23 * (bag.dim / 16.0 + 8)), "scores: row %lld column %lld: %.9g, not %.9g",
                  (long long)b, (long long)n, score[b * bag.keys + n], want.value);
        }
    for (int i = 1; levels[i]; i++) { /* "portable" may round twice where the others round once */
        if (!strcmp(level, "portable") || onca_use(levels[i])) continue;
        check_status("scores", onca_scores(&bag, again));
        CHECK(number == 0 || *wild || !memcmp(score, again, number * 4), "scores: %s and %s differ", level, levels[i]);
    }
    CHECK(onca_use(level) == 0, "the level %s is gone", level);
    return score;
}

static int by_column(const void *one, const void *other) {
    const entry *x = one, *y = other;
    return (x->column > y->column) - (x->column < y->column);
}

/* The scores that were kept are those of the first `many` entries of the list, in order of columns. */
static void check_known(int64_t b, const float *known, entry *list, int64_t many) {
    qsort(list, many, sizeof *list, by_column);
    for (int64_t i = 0; i < many; i++)
        CHECK(known[i] == list[i].score, "select: row %lld keeps %.9g as its score %lld, not %.9g", (long long)b, known[i],
              (long long)i, list[i].score);
}

static void check_lengths(void) {
    float *length = room(bag.keys, 4);
    check_status("lengths", onca_lengths(bag.keys, bag.dim, bag.key, bag.key_stride, bag.key_type, bag.threads, length));
    for (int64_t n = 0; n < bag.keys; n++) {
        double squares = 0;
        for (int64_t d = 0; d < bag.dim; d++) squares += key_at(&bag, n, d) * key_at(&bag, n, d);
        if (squares > 1e37 || (squares < 1e-30 && squares > 0)) continue; /* float32 loses its digits there */
        CHECK(fabs(length[n] - sqrt(squares)) <= sqrt(squares) * 0x1p-23 * (bag.dim / 16.0 + 8), "lengths: row %lld: %.9g, not %.9g",
              (long long)n, length[n], sqrt(squares));
    }
}

static void check_select(const float *score) {
    int64_t edges = below(5), words = words_of(&bag), *rank = room(bag.queries * edges, 8), *place = draw_places(bag.keys);
    int64_t *at = room(bag.queries * edges, 8);
    float *edge = room(bag.queries * edges, 4);
    uint64_t *chosen = chance(0.1) ? NULL : room(edges * bag.queries * words, 8);
    int32_t tied = -1, ties = 0;
    entry *list = room(bag.keys + 1, sizeof *list);
    for (int64_t i = 0; i < bag.queries * edges; i++) rank[i] = chance(0.2) ? below(4) : below(bag.keys + 4);
    int64_t sample = chance(0.6) ? 0 : 1 + below(2 * bag.keys + 2);
    float spread = chance(0.6) ? 0 : (float)uniform(0.01, 2), *known = NULL;
    int64_t *start = NULL;
    for (int64_t b = 0; b < bag.queries && edges == 2 && chance(0.7); b++) /* windows: an inner set is the second */
        if (rank[2 * b] < rank[2 * b + 1]) rank[2 * b] = rank[2 * b + 1], rank[2 * b + 1] = below(rank[2 * b] + 1);
    if (chosen && bag.views == 1 && edges == 1 && chance(0.8)) { /* the scores of the set are kept */
        start = room(bag.queries + 1, 8), start[0] = 0;
        for (int64_t b = 0; b < bag.queries; b++) start[b + 1] = start[b] + rank[b] + 16 + below(40);
        known = room(start[bag.queries], 4);
    }
    check_status("select", onca_select(&bag, edges, rank, place, sample, spread, edge, at, chosen, &tied, known, start));
    for (int64_t b = 0; b < bag.queries; b++) {
        int64_t number = ordered(&bag, score, place, b, list);
        for (int64_t e = 0; e < edges; e++) {
            int64_t i = b * edges + e, k = rank[i] < number ? rank[i] : number;
            entry want = k ? list[k - 1] : (entry){INFINITY, -1, -1};
            CHECK(edge[i] == want.score && at[i] == want.place, "select: row %lld rank %lld of %lld: (%.9g, %lld), not (%.9g, %lld)",
                  (long long)b, (long long)k, (long long)number, edge[i], (long long)at[i], want.score, (long long)want.place);
            if (chosen) check_set("select", b, chosen + e * bag.queries * words, list, k);
            ties |= k > 1 && list[k - 2].score == want.score;
            ties |= k > 0 && k < number && list[k].score == want.score;
        }
        if (known) check_known(b, known + start[b], list, rank[b] < number ? rank[b] : number);
    }
    CHECK(tied == ties, "select: tied %d, not %d", tied, ties);
}

static void check_above(const float *score) {
    float *bound = room(bag.queries, 4);
    uint64_t *chosen = room(bag.queries * words_of(&bag), 8);
    entry *list = room(bag.keys + 1, sizeof *list);
    for (int64_t b = 0; b < bag.queries; b++)
        bound[b] = bag.keys && chance(0.9) ? score[b * bag.keys + below(bag.keys)] : (float)PICK(-INFINITY, INFINITY, 0);
    check_status("above", onca_above(&bag, bound, chosen));
    for (int64_t b = 0; b < bag.queries; b++) {
        int64_t number = ordered(&bag, score, NULL, b, list);
        while (number && !(list[number - 1].score > bound[b])) number--;
        check_set("above", b, chosen, list, number);
    }
}

static void check_nearest(const float *score) {
    int64_t k = chance(0.5) ? below(12) : below(bag.keys + 4), *column = room(bag.queries * k, 8);
    float *found = room(bag.queries * k, 4);
    entry *list = room(bag.keys + 1, sizeof *list);
    check_status("nearest", onca_nearest(&bag, k, column, found));
    for (int64_t b = 0; b < bag.queries; b++) {
        int64_t number = ordered(&bag, score, NULL, b, list);
        for (int64_t i = 0; i < k; i++) {
            entry want = i < number ? list[i] : (entry){-INFINITY, -1, -1};
            CHECK(found[b * k + i] == want.score && column[b * k + i] == want.column,
                  "nearest: row %lld number %lld of %lld: (%.9g, %lld), not (%.9g, %lld)", (long long)b, (long long)i,
                  (long long)k, found[b * k + i], (long long)column[b * k + i], want.score, (long long)want.column);
        }
    }
}

/* Rounding of adding up, one term after the other at worst. */
static double adding(void) { return 1e-5 + bag.keys * 0x1p-24; }

/* Whether products of whole blocks are taken in 16 bits. What they are off by is then a share of the lengths of rows, whatever
   their numbers are. */
static int in_16_bits(void) { return bag.key_type == ONCA_BFLOAT16 && (!strcmp(level, "avx512") || !strcmp(level, "amx")); }

/* What rounding of the product of query b and key n, without factors, grows with. */
static double size_of_product(int64_t b, int64_t n) {
    double query = 0, key = 0;
    if (!in_16_bits()) return product(&bag, b, n).size;
    for (int64_t d = 0; d < bag.dim; d++)
        query += bag.query[b * bag.dim + d] * (double)bag.query[b * bag.dim + d], key += key_at(&bag, n, d) * key_at(&bag, n, d);
    return sqrt(query * key);
}

/* Of slopes [rows, dim] in 16 bits: the sizes of all numbers of a row together, at each. */
static void join_sizes(bounded *slope, int64_t rows) {
    for (int64_t r = 0; r < rows && in_16_bits(); r++, slope += bag.dim) {
        double all = 1e-24; /* of weights, what is next to nothing is lost */
        for (int64_t d = 0; d < bag.dim; d++) all += slope[d].size;
        for (int64_t d = 0; d < bag.dim; d++) slope[d].size = all;
    }
}

/* Rounding of sums over a row: that of the scores, as often as the scale says, of exp, and of adding up. */
static double looseness(const float *score, double scale) {
    double most = 0;
    for (int64_t b = 0; b < bag.queries; b++)
        for (int64_t n = 0; n < bag.keys; n++)
            if (there(&bag, b, n)) {
                most = fmax(most, size_of_product(b, n) * fabs(query_factor(&bag, b) * key_factor(&bag, n)));
                most = fmax(most, fabs(score[b * bag.keys + n]));
            }
    double loose = adding() + 8 * fabs(scale) * most * 0x1p-23 * (bag.dim / 16.0 + 8);
    return in_16_bits() ? loose + 1.5 * 0x1p-10 + (1 + 4 * fabs(scale) * most) * sqrt(bag.dim) / 32767 : loose;
}

static void check_slopes(const char *what, const float *found, const bounded *want, int64_t number, double loose) {
    for (int64_t i = 0; i < number && found; i++)
        CHECK(near(found[i], want[i], loose), "%s: %lld: %.9g, not %.9g (%.3g)", what, (long long)i, found[i], want[i].value,
              want[i].size);
}

static float *maybe(int64_t count) { return chance(0.25) ? NULL : room(count, 4); }

static bounded *nought(int64_t count) {
    bounded *sums = room(count, sizeof *sums);
    return sums ? memset(sums, 0, count * sizeof *sums) : NULL;
}

/* Twice the same call, with the same arguments: the same bits. */
#define TWICE(what, call, count, out) do { \
    check_status(what, call); \
    float *first = (out) && (count) ? room(count, 4) : NULL; \
    if (first) memcpy(first, out, (count) * 4); \
    check_status(what, call); \
    CHECK(!first || !memcmp(first, out, (count) * 4), what ": two calls differ"); } while (0)

/* Among other scales, with slopes of some, a scale gives the bits that it gives alone. */
static void check_more_scales(float scale, const float *lse, const float *toward, const float *mean) {
    enum { SCALES = 3 };
    const float scales[SCALES] = {scale, scale * (float)PICK(0, -1, 0.5, 2), scale};
    const int64_t one = bag.queries, slopes = below(SCALES + 1);
    float *more = room(SCALES * one, 4), *slope = room(slopes * one * bag.dim, 4), *middle = room(slopes * one, 4);
    check_status("sums", onca_sums(&bag, SCALES, scales, slopes, more, slope, middle));
    for (int64_t s = 0; s < SCALES; s += 2) {
        CHECK(!one || !memcmp(more + s * one, lse, one * 4), "sums: at several scales others than at one");
        if (s >= slopes || !one) continue;
        CHECK(!toward || !memcmp(slope + s * one * bag.dim, toward, one * bag.dim * 4), "sums: slopes at several scales");
        CHECK(!mean || !memcmp(middle + s * one, mean, one * 4), "sums: means at several scales");
    }
}

static void check_sums(const float *score, float scale) {
    int64_t dim = bag.dim;
    double loose = looseness(score, scale), *share = room(bag.keys, 8);
    float *lse = room(bag.queries, 4), *toward = maybe(bag.queries * dim), *mean = maybe(bag.queries), *weight = room(bag.queries, 4);
    bounded *slope = nought(bag.queries * dim), *middle = nought(bag.queries);
    bounded *back = nought(bag.keys * dim), *by_factor = nought(bag.keys);
    TWICE("sums", onca_sums(&bag, 1, &scale, 1, lse, toward, mean), bag.queries, lse);
    check_more_scales(scale, lse, toward, mean);
    for (int64_t b = 0; b < bag.queries; b++) {
        double want = softmax(&bag, score, b, scale, share), level = fmax(1, fabs(want));
        CHECK(lse[b] == want || fabs(lse[b] - want) <= loose * level, "sums: row %lld: %.9g, not %.9g", (long long)b, lse[b], want);
        weight[b] = chance(0.1) ? 0 : (float)normal();
        for (int64_t n = 0; n < bag.keys && want > -INFINITY; n++) {
            bounded plain = product(&bag, b, n);
            double factor = query_factor(&bag, b), part = weight[b] * share[n] * scale * factor;
            add_keys(&bag, b, n, share[n] * scale, slope + b * dim);
            middle[b].value += share[n] * score[b * bag.keys + n];
            middle[b].size += share[n] * size_of_product(b, n) * fabs(factor * key_factor(&bag, n));
            by_factor[n].value += part * plain.value, by_factor[n].size += fabs(part) * size_of_product(b, n) + 1e-24;
            for (int64_t d = 0; d < dim; d++) {
                double term = part * key_factor(&bag, n) * bag.query[b * dim + d];
                back[n * dim + d].value += term, back[n * dim + d].size += fabs(term);
            }
        }
    }
    join_sizes(slope, bag.queries), join_sizes(back, bag.keys);
    check_slopes("sums: toward", toward, slope, bag.queries * dim, loose);
    check_slopes("sums: mean", mean, middle, bag.queries, loose);
    for (int64_t i = 0; i < bag.queries * dim; i++) slope[i].value *= weight[i / dim], slope[i].size *= fabs(weight[i / dim]);
    for (int64_t b = 0; b < bag.queries; b++) middle[b].value *= weight[b], middle[b].size *= fabs(weight[b]);
    float *to_query = maybe(bag.queries * dim), *to_mean = maybe(bag.queries);
    float *to_key = maybe(bag.keys * dim), *to_factor = maybe(bag.keys);
    TWICE("spread", onca_spread(&bag, scale, lse, weight, to_query, to_key, to_factor, to_mean), bag.keys * dim, to_key);
    check_slopes("spread: toward", to_query, slope, bag.queries * dim, loose);
    check_slopes("spread: mean", to_mean, middle, bag.queries, loose);
    check_slopes("spread: back", to_key, back, bag.keys * dim, loose);
    check_slopes("spread: back_factor", to_factor, by_factor, bag.keys, loose);
}

/* The n-th allocation of a call fails, for each n: the call says so, and reads and writes nothing that it should not. */
#define STARVED(what, call) do { \
    for (int64_t n = 0, tripped = 1; tripped && n < 64; n++) { \
        refusals = 0, grants = n; \
        int status = call; \
        grants = INT64_MAX, tripped = refusals; \
        CHECK(status == (tripped ? ONCA_NO_MEMORY : ONCA_OK), what ": status %d, memory for %lld blocks", status, (long long)n); \
    } } while (0)

/* Queries that are the keys, with bits that mirror each other: what sums and spread give, which are checked by themselves. */
static void check_mutual(void) {
    int64_t rows = 1 + draw_size(420), dim = 1 + below(20), values = rows * dim, words = (rows + 63) / 64;
    float *query = room(values, 4), *each = room(rows, 4), *weight = room(rows, 4), scale = PICK(0, 1, 5, 20, 300, -20);
    float *lse = room(rows, 4), *found = room(rows, 4), *toward = room(values, 4), *both = room(values, 4), *back = room(values, 4);
    float *mean = room(rows, 4), *middle = room(rows, 4), *by_factor = room(rows, 4), size = PICK(0.2, 1, 3);
    uint64_t *bits = chance(0.3) ? NULL : draw_bits(rows, rows);
    uint16_t *narrow = chance(0.5) ? room(values, 2) : NULL;
    for (int64_t i = 0; i < values; i++) {
        query[i] = size * (float)normal() / sqrtf(dim);
        if (!narrow) continue;
        memcpy(narrow + i, (char *)(query + i) + 2, 2), memset(query + i, 0, 2); /* little-endian: the upper half */
    }
    for (int64_t b = 0; b < rows; b++) each[b] = uniform(0.5, 2), weight[b] = (float)normal();
    for (int64_t b = 0; b < rows && bits; b++)
        for (int64_t n = 0; n < b; n++)
            if (has(bits, words, b, n) != has(bits, words, n, b)) bits[n * words + b / 64] ^= (uint64_t)1 << b % 64;
    bag = (onca_bag){.queries = rows, .views = 1, .dim = dim, .keys = rows, .query = query, .key = narrow ? (void *)narrow : query,
                     .key_stride = dim, .key_type = narrow ? ONCA_BFLOAT16 : ONCA_FLOAT32, .threads = bag.threads, .present = bits};
    if (chance(0.5)) bag.query_factor = bag.key_factor = each;
    check_status("sums", onca_sums(&bag, 1, &scale, 0, lse, NULL, NULL));
    check_status("spread", onca_spread(&bag, scale, lse, weight, both, back, by_factor, middle));
    TWICE("mutual sums", onca_mutual_sums(&bag, scale, found), rows, found);
    TWICE("mutual", onca_mutual(&bag, scale, found, weight, toward, mean), values, toward);
    double most_slope = 0, most_mean = 0, reach = 0, rounds = in_16_bits() ? 1.5 * 0x1p-9 + sqrt(dim) / 32767 : 3e-5;
    for (int64_t b = 0; b < rows; b++) {
        if (scale != 0) by_factor[b] = by_factor[b] * (float)key_factor(&bag, b) / scale; /* the mean of b as a key */
        reach = fmax(reach, fabs(scale) * score_of(&bag, b, b).size);
        most_mean = fmax(most_mean, fabs(middle[b]) + fabs(by_factor[b]));
        for (int64_t i = b * dim; i < (b + 1) * dim; i++) most_slope = fmax(most_slope, fabs(both[i]) + fabs(back[i]));
    }
    for (int64_t b = 0; b < rows; b++) {
        double loose = rounds + (in_16_bits() ? 4 * sqrt(dim) / 32767 : 4e-6) * reach;
        CHECK(found[b] == lse[b] || fabs(found[b] - lse[b]) <= loose, "mutual sums: row %lld: %.9g, not %.9g", (long long)b, found[b],
              lse[b]);
        if (scale != 0) CHECK(near(mean[b] - middle[b] - by_factor[b], (bounded){0, most_mean}, loose), "mutual: mean of row %lld: %.9g",
                              (long long)b, mean[b]);
        for (int64_t i = b * dim; i < (b + 1) * dim; i++)
            CHECK(near(toward[i] - both[i] - back[i], (bounded){0, most_slope}, loose), "mutual: %lld: %.9g, not %.9g", (long long)i,
                  toward[i], (double)both[i] + back[i]);
    }
    if (!chance(0.1)) return;
    STARVED("mutual sums", onca_mutual_sums(&bag, scale, found));
    STARVED("mutual", onca_mutual(&bag, scale, found, weight, toward, mean));
}

static void check_hinge(const float *score) {
    int64_t dim = bag.dim, *active = room(bag.queries, 8);
    float *offset = room(bag.queries, 4), *hinge = room(bag.queries, 4), *toward = maybe(bag.queries * dim), *mean = maybe(bag.queries);
    for (int64_t b = 0; b < bag.queries; b++)
        offset[b] = bag.keys && chance(0.5) ? -score[b * bag.keys + below(bag.keys)] : (float)normal();
    check_status("hinge", onca_hinge(&bag, offset, hinge, active, toward, mean));
    for (int64_t b = 0; b < bag.queries; b++) {
        bounded sum = {0, 0}, middle = {0, 0}, *slope = nought(dim);
        int64_t least = 0, most = 0; /* entries whose product rounds to either side of 0 may be active or not */
        for (int64_t n = 0; n < bag.keys; n++) {
            if (!there(&bag, b, n)) continue;
            double s = score[b * bag.keys + n], over = s + offset[b], size = score_of(&bag, b, n).size;
            double loose = size * 0x1p-23 * (dim / 16.0 + 8);
            least += over > loose, most += over > 0 || (over > -loose && loose > 0);
            sum.size += size + fabs(offset[b]), middle.size += size;
            if (over > 0) sum.value += over, middle.value += s, add_keys(&bag, b, n, 1, slope);
        }
        CHECK(least <= active[b] && active[b] <= most, "hinge: row %lld: %lld active, not %lld to %lld", (long long)b,
              (long long)active[b], (long long)least, (long long)most);
        CHECK(near(hinge[b], sum, adding()), "hinge: row %lld: %.9g, not %.9g", (long long)b, hinge[b], sum.value);
        if (least != most) continue;
        if (mean) CHECK(near(mean[b], middle, adding()), "hinge: mean of row %lld: %.9g, not %.9g", (long long)b, mean[b], middle.value);
        check_slopes("hinge: toward", toward ? toward + b * dim : NULL, slope, dim, adding());
        free(given[--held]); /* slope, the latest */
    }
}

static void check_bits(void) {
    int64_t rows = bag.queries, keys = bag.keys, words = words_of(&bag), most = below(keys + 4), kinds = 1 + below(6);
    int64_t *mine = room(rows, 8), *theirs = room(keys, 8), *count = room(rows, 8), *hits = room(keys, 8);
    int64_t *column = room(rows * most, 8);
    uint64_t *equal = room(rows * words, 8), *bits = draw_bits(rows, keys);
    entry *list = room(keys + 1, sizeof *list);
    for (int64_t b = 0; b < rows; b++) mine[b] = chance(0.05) ? INT64_MIN + below(2) : below(kinds) - 1;
    for (int64_t n = 0; n < keys; n++) theirs[n] = chance(0.05) ? INT64_MIN + below(2) : below(kinds) - 1;
    for (int64_t n = 0; n < keys; n++) theirs[n] |= chance(0.05) ? (int64_t)1 << 40 : 0;
    check_status("equal", onca_equal(rows, keys, mine, theirs, bag.threads, equal));
    onca_count(rows, keys, bits, count), onca_hits(rows, keys, bits, hits), onca_listed(rows, keys, bits, most, column);
    for (int64_t b = 0; b < rows; b++) {
        int64_t same = 0, number = 0;
        for (int64_t n = 0; n < keys; n++) {
            if (mine[b] == theirs[n] && mine[b] >= 0) list[same++].column = n;
            if (!has(bits, words, b, n)) continue;
            hits[n]--;
            if (number++ < most) CHECK(column[b * most + number - 1] == n, "listed: row %lld lacks %lld", (long long)b, (long long)n);
        }
        check_set("equal", b, equal, list, same);
        CHECK(count[b] == number, "count: row %lld: %lld, not %lld", (long long)b, (long long)count[b], (long long)number);
        for (; number < most; number++) CHECK(column[b * most + number] == -1, "listed: row %lld is not filled up", (long long)b);
    }
    for (int64_t n = 0; n < keys; n++) CHECK(hits[n] == 0, "hits: column %lld is out by %lld", (long long)n, (long long)hits[n]);
}

/* A nan or an infinity in one row: choosing must say so, if the row is looked at. */
static void check_poison(void) {
    float bad = (float)PICK(NAN, INFINITY, -INFINITY), *edge = room(bag.queries, 4), *found = room(bag.queries, 4);
    int64_t *rank = room(bag.queries, 8), *at = room(bag.queries, 8), b = below(bag.queries), n = below(bag.keys), looked = 0;
    int32_t tied;
    if (chance(0.5)) {
        ((float *)bag.query)[(b * bag.views + below(bag.views)) * bag.dim + below(bag.dim)] = bad;
        for (int64_t i = 0; i < bag.keys; i++) looked |= there(&bag, b, i);
    } else {
        bag.key_type == ONCA_FLOAT16 ? (void)(((uint16_t *)bag.key)[n * bag.key_stride] = isnan(bad) ? 0x7E00 : bad > 0 ? 0x7C00 : 0xFC00)
                                     : put_key(&bag, (void *)bag.key, n * bag.key_stride, bad);
        for (int64_t i = 0; i < bag.queries; i++) looked |= there(&bag, i, n);
    }
    for (int64_t i = 0; i < bag.queries; i++) rank[i] = 1 + below(bag.keys);
    int chose = onca_select(&bag, 1, rank, NULL, 0, 0, edge, at, NULL, &tied, NULL, NULL), neared = onca_nearest(&bag, 1, at, found);
    CHECK(chose == ONCA_NOT_FINITE || (!looked && chose == ONCA_OK), "select: status %d where %g is", chose, bad);
    CHECK(neared == ONCA_NOT_FINITE || (!looked && neared == ONCA_OK), "nearest: status %d where %g is", neared, bad);
}

/* Views of images: all that is written is a number, and nothing else is touched. */
static void check_views(void) {
    onca_view_job job = {.count = below(4), .height = 1 + below(40), .width = 1 + below(40), .size = 1 + below(40), .threads = 2};
    int64_t pixels = job.count * 3 * job.height * job.width, *crop = room(job.count * 4, 8), chosen = below(7);
    uint8_t *bytes = room(pixels, 1), *flag = room(job.count, 1);
    float *floats = room(pixels, 4), *blur = room(job.count, 4), *view = room(job.count * 3 * job.size * job.size, 4);
    int32_t *step = room(chosen, 4);
    for (int64_t i = 0; i < pixels; i++) bytes[i] = below(256), floats[i] = chance(0.5) ? below(2) : uniform(0, 1);
    for (int64_t i = 0; i < job.count; i++) {
        crop[4 * i + 2] = 1 + below(job.height), crop[4 * i + 3] = 1 + below(job.width);
        crop[4 * i] = below(job.height - crop[4 * i + 2] + 1), crop[4 * i + 1] = below(job.width - crop[4 * i + 3] + 1);
        flag[i] = chance(0.5), blur[i] = chance(0.3) ? 0 : uniform(0.05, 3);
    }
    for (int f = 0; f < 4; f++) {
        float *factor = room(job.count, 4);
        for (int64_t i = 0; i < job.count; i++) factor[i] = f == 3 ? uniform(-0.5, 0.5) : uniform(0, 3);
        job.factor[f] = factor;
    }
    for (int64_t i = 0; i < chosen; i++) step[i] = below(6);
    job.bytes = chance(0.5) ? bytes : NULL, job.floats = floats, job.crop = crop, job.blur = blur, job.view = view;
    job.flip = chance(0.5) ? flag : NULL, job.grey = flag; /* asked where a step says so */
    job.taps = 1 + 2 * below(job.size), job.steps = chosen, job.step = step;
    check_status("views", onca_views(&job));
    for (int64_t i = 0; i < job.count * 3 * job.size * job.size; i++)
        CHECK(view[i] >= -1e-5f && view[i] <= 1.00001f, "views: %lld: %.9g (%lld x %lld to %lld, %lld taps)", (long long)i, view[i],
              (long long)job.height, (long long)job.width, (long long)job.size, (long long)job.taps);
}

static void check_memory(void) {
    int64_t rows = bag.queries, values = rows * bag.dim, edges = 2, k = 5;
    int64_t *rank = room(rows * edges, 8), *at = room(rows * (k + edges), 8);
    float *score = room(rows * (k + edges), 4), *each = room(rows, 4), *one = room(rows, 4), *toward = room(values, 4);
    float *all = room(rows * bag.keys, 4);
    float *back = room(bag.keys * bag.dim, 4), *by_factor = room(bag.keys, 4);
    uint64_t *chosen = room(edges * rows * words_of(&bag), 8);
    int32_t tied;
    for (int64_t i = 0; i < rows * edges; i++) rank[i] = below(bag.keys + 1);
    for (int64_t b = 0; b < rows; b++) each[b] = one[b] = 1;
    STARVED("scores", onca_scores(&bag, all));
    STARVED("lengths", onca_lengths(bag.keys, bag.dim, bag.key, bag.key_stride, bag.key_type, bag.threads, by_factor));
    STARVED("equal", onca_equal(rows, rows, rank, rank, bag.threads, chosen));
    STARVED("select", onca_select(&bag, edges, rank, NULL, 0, 0, score, at, chosen, &tied, NULL, NULL));
    STARVED("above", onca_above(&bag, one, chosen));
    STARVED("nearest", onca_nearest(&bag, k, at, score));
    if (bag.views > 1) return;
    STARVED("sums", onca_sums(&bag, 1, (const float[]){1e-3f}, 1, each, toward, score));
    STARVED("spread", onca_spread(&bag, 1e-3f, each, one, toward, back, by_factor, score));
    STARVED("hinge", onca_hinge(&bag, one, each, at, toward, score));
}

static void check_case(const char *const *levels, int usable) {
    int wild;
    state = seed * 0x2545F4914F6CDD1Du;
    do level = levels[below(usable)]; while (onca_use(level));
    bag = draw_bag();
    no_threads = chance(0.05);
    float *score = check_scores(levels, &wild), most = 0;
    check_bits(), check_views(), check_lengths();
    if (!wild) check_select(score), check_above(score), check_nearest(score);
    for (int64_t i = 0; i < bag.queries * bag.keys; i++) most = fmaxf(most, fabsf(score[i]));
    int tame = !wild && !far && bag.views == 1 && most < 1e8f && (most > 1e-8f || most == 0);
    if (tame) {
        float scale = most > 0 ? (float)(PICK(0, 1, 5, 20, 20, 100, 300, -20) / most) : 5;
        check_sums(score, fabsf(scale) < 1e6f ? scale : 5), check_hinge(score);
    }
    if (!wild && chance(0.1)) check_memory();
    if (!wild && bag.queries && bag.keys && chance(0.3)) check_poison();
    if (chance(0.5)) check_mutual();
    free_all();
}

/* A sanitizer that finds something ends by abort, so that the seed is said. */
const char *__asan_default_options(void) { return "abort_on_error=1"; }
const char *__ubsan_default_options(void) { return "abort_on_error=1:print_stacktrace=1"; }
const char *__tsan_default_options(void) { return "abort_on_error=1:halt_on_error=1"; }
static void at_abort(int signal) { (void)signal, say_where(); }
static void at_break(int signal) { (void)signal, say_where(), _exit(130); }

int main(int count, char **arguments) {
    const char *const levels[] = {"portable", "avx2", "avx512", "amx", NULL};
    uint64_t first = count > 1 ? strtoull(arguments[1], NULL, 10) : 0, number = count > 2 ? strtoull(arguments[2], NULL, 10) : 100;
    planted = count > 3 ? atoi(arguments[3]) : 0;
    signal(SIGABRT, at_abort), signal(SIGINT, at_break);
    for (seed = first; seed < first + number; seed++) check_case(levels, 4);
    printf("%llu cases hold\n", (unsigned long long)number);
    return 0;
}
