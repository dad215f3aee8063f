/* Sums and slopes where the queries are the keys, and who is present for whom is mutual: an entry and its mirror image then have
   one score, which is made once.

   Rows are cut into blocks, and each pair of blocks is visited once, for the sums and slopes of the rows of both. Pairs come in
   rounds: in round r, block i meets block (r - i) modulo their number, which now and then is itself, so that every block has one
   partner in every round. Threads take pairs as they come free; before a pair, they wait until both of its blocks have gone through
   all earlier rounds. So a row is added to in one order, however many threads there are, and whichever is ahead. */

#ifndef ONCA_MUTUAL
#define ONCA_MUTUAL
enum { BLOCK = SUM_STEP, BLOCK_WORDS = BLOCK / 64, BLOCK_ROW = BLOCK + 16 };
enum { PAIR_SCRATCH = HALF_RUN / 2 * BLOCK_ROW + BLOCK }; /* numbers; more than BLOCK * 16 */
#define BOUNDED 60.0f /* scale * score up to it: its exp, either way, and sums of those are far from what float32 can hold */

typedef struct { /* a call */
    const onca_bag *bag;
    float scale;
    int slopes; /* or sums */
    int64_t blocks, padded, row; /* elements of a row with its zeros, and from row to row */
    float *rows, *across;        /* [blocks * BLOCK, row]: times their factor; the same, block by block, as tile_pack gives it */
    float *largest;              /* [blocks] product of a row with itself; inf where one is not finite */
    int half;                    /* are products taken in 16 bits, if rows are in range? */
    half_rows *narrow;           /* [blocks]: these, and not `across` */
    double *total;               /* [blocks * BLOCK] sum of exp(scale * score), where sums are asked for */
    float *lse, *weight, *slope; /* where slopes are: [blocks * BLOCK], with zeros; [blocks * BLOCK, row] sum of weight * row */
    _Atomic int64_t next;        /* pair to be taken */
    _Atomic int64_t *rounds;     /* [blocks] that each has gone through */
    void *memory;
} mutual_walk;

static inline int64_t rows_of(const mutual_walk *walk, int64_t block) {
    return least(BLOCK, walk->bag->queries - block * BLOCK);
}

/* Which rows of a block are present for query b; all: the bits of those that are there. */
static inline void present_of(const mutual_walk *walk, int64_t b, int64_t block, const uint64_t *all, uint64_t *bits) {
    const onca_bag *bag = walk->bag;
    const uint64_t *present = bag->present ? bag->present + b * ((bag->keys + 63) / 64) + block * BLOCK_WORDS : all;
    for (int w = 0; w < BLOCK_WORDS; w++) bits[w] = all[w] ? present[w] : 0; /* the last row ends with its last word */
}

static int open_mutual(mutual_walk *walk, const onca_bag *bag, float scale, int slopes, int half) {
    int64_t blocks = (bag->queries + BLOCK - 1) / BLOCK, count = blocks * BLOCK, row = spaced(bag->dim);
    *walk = (mutual_walk){.bag = bag, .scale = scale, .slopes = slopes, .blocks = blocks, .padded = up(bag->dim, 16), .row = row,
                          .half = half};
    int64_t numbers = count * (row + bag->dim + (slopes ? row + 2 : 0)) + up(blocks, 2);
    numbers += half ? blocks * half_numbers(BLOCK, bag->dim) : 0;
    char *memory = walk->memory = room(blocks * (int64_t)(8 + sizeof(half_rows)) + 8 * count + 4 * numbers, 1);
    if (!memory) return ONCA_NO_MEMORY;
    walk->narrow = (half_rows *)memory;
    walk->rounds = (_Atomic int64_t *)(walk->narrow + blocks);
    walk->total = (double *)(walk->rounds + blocks);
    walk->rows = (float *)(walk->total + count);
    walk->across = walk->rows + count * row;
    walk->largest = walk->across + count * bag->dim;
    walk->lse = walk->largest + up(blocks, 2);
    walk->weight = walk->lse + count;
    walk->slope = walk->weight + count;
    float *rest = walk->lse + (slopes ? count * (row + 2) : 0);
    for (int64_t k = 0; k < blocks; k++) atomic_init(walk->rounds + k, 0);
    for (int64_t k = 0; k < blocks && half; k++) rest = half_open(walk->narrow + k, BLOCK, bag->dim, rest);
    memset(walk->total, 0, (size_t)count * 8);
    if (slopes) memset(walk->lse, 0, (size_t)(count * (row + 2)) * 4);
    return ONCA_OK;
}

static void await(const mutual_walk *walk, int64_t block, int64_t round) {
    while (atomic_load(walk->rounds + block) < round) sched_yield();
}
#endif

static int FN(take_blocks)(void *given, int64_t from, int64_t to, int part) {
    const mutual_walk *walk = given;
    const onca_bag *bag = walk->bag;
    (void)part;
    for (int64_t k = from; k < to; k++) {
        float *rows = walk->rows + k * BLOCK * walk->row, largest = 0;
        memset(rows, 0, (size_t)(BLOCK * walk->row) * 4);
        for (int64_t i = 0, b = k * BLOCK; i < rows_of(walk, k); i++, b++) {
            float *row = rows + i * walk->row;
            v16 check = FN(scaled_row)(bag->query + b * bag->dim, bag->dim, factor_of(bag->query_factor, b), row, walk->padded);
            float product = FN(sum)(check) == 0 ? FN(dot)(row, row, walk->padded) : INFINITY;
            if (product > largest) largest = product;
            half_rows *to = walk->narrow + k;
            if (walk->half && !(product < INFINITY && FN(half_take)(row, walk->padded, to->step + i, &to->largest))) to->largest = INFINITY;
        }
        walk->largest[k] = largest;
    }
    return ONCA_OK;
}

static int FN(pack_blocks)(void *given, int64_t from, int64_t to, int part) {
    const mutual_walk *walk = given;
    const int64_t row = walk->row, dim = walk->bag->dim;
    (void)part;
    for (int64_t k = from; k < to; k++)
        if (walk->half) FN(half_pack)(walk->rows + k * BLOCK * row, BLOCK, row, dim, walk->narrow + k);
        else FN(tile_pack)(walk->rows + k * BLOCK * row, BLOCK, row, dim, walk->across + k * BLOCK * dim);
    return ONCA_OK;
}

/* Rows of all blocks, as products take them; what comes back is the largest product of a row with itself. */
static float FN(take_rows)(mutual_walk *walk) {
    float largest = 0;
    parted(walk->blocks, 1, walk->bag->threads, FN(take_blocks), walk);
    for (int64_t k = 0; k < walk->blocks; k++) {
        largest = walk->largest[k] > largest ? walk->largest[k] : largest;
        walk->half = walk->half && walk->narrow[k].largest < INFINITY;
    }
    parted(walk->blocks, 1, walk->bag->threads, FN(pack_blocks), walk);
    return largest;
}

/* What the entries of a pair of blocks add to the sums of its rows and, where it has a mirror image, of its columns. */
static void FN(pair_sums)(const mutual_walk *walk, int64_t i, int64_t j, const float *score) {
    const FN(vec) scale = FN(all)(walk->scale);
    uint64_t all[SUM_WORDS], bits[BLOCK_WORDS];
    float columns[BLOCK] __attribute__((aligned(64))) = {0};
    lowest_bits(all, rows_of(walk, j));
    const int64_t width = up(rows_of(walk, j), 64);
    for (int64_t b = i * BLOCK, end = b + rows_of(walk, i); b < end; b++, score += BLOCK_ROW) {
        FN(vec) total = {0};
        present_of(walk, b, j, all, bits);
        for (int64_t c = 0; c < width; c += LANES) {
            FN(vec) one = FN(only)(bits[c / 64] >> c % 64, FN(share)(FN(take)(score + c) * scale));
            FN(vec) column = FN(take)(columns + c) + one;
            memcpy(columns + c, &column, sizeof column);
            total += one;
        }
        walk->total[b] += FN(added)(total);
    }
    if (i != j)
        for (int64_t c = 0; c < BLOCK; c++) walk->total[j * BLOCK + c] += columns[c];
}

/* Makes weights of scores: what an entry weighs in the sum of its row and, by its mirror image, in that of its column. */
static void FN(pair_weights)(const mutual_walk *walk, int64_t i, int64_t j, float *score) {
    const float *lse = walk->lse + j * BLOCK, *weight = walk->weight + j * BLOCK;
    const FN(vec) scale = FN(all)(walk->scale);
    uint64_t all[SUM_WORDS], bits[BLOCK_WORDS];
    lowest_bits(all, rows_of(walk, j));
    const int64_t width = up(rows_of(walk, j), 64);
    for (int64_t b = i * BLOCK, end = b + rows_of(walk, i); b < end; b++, score += BLOCK_ROW) {
        const FN(vec) own_lse = FN(all)(-walk->lse[b]), own_weight = FN(all)(walk->weight[b]);
        present_of(walk, b, j, all, bits);
        for (int64_t c = 0; c < width; c += LANES) {
            FN(vec) x = FN(take)(score + c), own = FN(share)(FN(mad)(x, scale, own_lse));
            FN(vec) other = FN(share)(FN(mad)(x, scale, -FN(take)(lse + c)));
            x = FN(only)(bits[c / 64] >> c % 64, FN(mad)(other, FN(take)(weight + c), own * own_weight));
            memcpy(score + c, &x, sizeof x);
        }
    }
}

static void FN(pair_products)(const mutual_walk *walk, int64_t i, int64_t j, float *score) {
    const int64_t panel = FN(tile_columns), dim = walk->bag->dim, columns = up(rows_of(walk, j), 64);
    if (walk->half) FN(half_scores)(walk->narrow + i, 0, rows_of(walk, i), walk->narrow + j, columns, dim, score, BLOCK_ROW);
    else
        FN(tile_multiply)(&(block_product){.rows = rows_of(walk, i), .columns = columns, .depth = dim,
                                          .a = walk->rows + i * BLOCK * walk->row, .a_row = walk->row, .a_depth = 1,
                                          .b = walk->across + j * BLOCK * dim, .b_depth = panel, .b_panel = dim * panel,
                                          .c = score, .c_row = BLOCK_ROW});
}

/* scratch: [BLOCK, 16] or, one after the other, what half_turned asks for. weight is lost. */
static void FN(half_pair_slopes)(const mutual_walk *walk, int64_t i, int64_t j, float *weight, float *scratch) {
    const int64_t row = walk->row, block = BLOCK * row, mine = rows_of(walk, i), its = rows_of(walk, j);
    if (i != j)
        FN(half_turned)(weight, BLOCK_ROW, mine, its, walk->narrow + i, 0, walk->padded, scratch, walk->slope + j * block, row);
    FN(half_slopes)(1, weight, BLOCK_ROW, mine, walk->narrow + j, up(its, 64) / 64, walk->padded, scratch,
                    walk->slope + i * block, row);
}

static void FN(pair_slopes)(const mutual_walk *walk, int64_t i, int64_t j, const float *weight) {
    const int64_t row = walk->row, block = BLOCK * row;
    block_product product = {.rows = rows_of(walk, i), .columns = walk->padded, .depth = rows_of(walk, j), .a = weight,
                             .a_row = BLOCK_ROW, .a_depth = 1, .b = walk->rows + j * block, .b_depth = row,
                             .b_panel = FN(tile_columns), .c = walk->slope + i * block, .c_row = row, .add = 1};
    FN(tile_multiply)(&product);
    if (i == j) return;
    product.rows = rows_of(walk, j), product.depth = rows_of(walk, i);
    product.a_row = 1, product.a_depth = BLOCK_ROW;
    product.b = walk->rows + i * block, product.c = walk->slope + j * block;
    FN(tile_multiply)(&product);
}

static int FN(some_pairs)(void *given, int64_t from, int64_t to, int part) {
    mutual_walk *walk = given;
    const int64_t blocks = walk->blocks;
    float *score = room(BLOCK * BLOCK_ROW + PAIR_SCRATCH, 4), *scratch = score + BLOCK * BLOCK_ROW;
    (void)from, (void)to, (void)part;
    if (!score) return ONCA_NO_MEMORY;
    memset(scratch, 0, PAIR_SCRATCH * sizeof *scratch);
    for (int64_t next; (next = atomic_fetch_add(&walk->next, 1)) < blocks * blocks;) {
        int64_t round = next / blocks, i = next % blocks, j = (round + blocks - i) % blocks;
        if (i > j) continue; /* it comes as (j, i) */
        await(walk, i, round);
        await(walk, j, round);
        FN(pair_products)(walk, i, j, score);
        if (walk->slopes) FN(pair_weights)(walk, i, j, score);
        if (walk->slopes && walk->half) FN(half_pair_slopes)(walk, i, j, score, scratch);
        else if (walk->slopes) FN(pair_slopes)(walk, i, j, score);
        else FN(pair_sums)(walk, i, j, score);
        atomic_store(walk->rounds + i, round + 1);
        atomic_store(walk->rounds + j, round + 1);
    }
    free(score);
    return ONCA_OK;
}

/* A row has as many partners as there are blocks, so threads work for at most half as many pairs at once. */
static int FN(all_pairs)(mutual_walk *walk) {
    return parted(walk->blocks, 2, walk->bag->threads, FN(some_pairs), walk);
}

static int FN(mutual_sums)(const onca_bag *bag, float scale, float *lse) {
    mutual_walk walk;
    int status = open_mutual(&walk, bag, scale, 0, FN(takes_half)(bag));
    if (status) return status;
    int bounded = fabsf(scale) * FN(take_rows)(&walk) <= BOUNDED;
    if (bounded) status = FN(all_pairs)(&walk);
    for (int64_t b = 0; bounded && b < bag->queries; b++) lse[b] = (float)log(walk.total[b]);
    free(walk.memory);
    return bounded ? status : FN(sums)(bag, 1, &scale, 0, lse, NULL, NULL);
}

static int FN(mutual)(const onca_bag *bag, float scale, const float *lse, const float *weight, float *toward, float *mean) {
    mutual_walk walk;
    int status = open_mutual(&walk, bag, scale, 1, FN(takes_half)(bag));
    if (status) return status;
    for (int64_t b = 0; b < bag->queries; b++)
        if (lse[b] > -INFINITY) walk.lse[b] = lse[b], walk.weight[b] = weight[b]; /* or there is nothing in that row */
    FN(take_rows)(&walk);
    status = FN(all_pairs)(&walk);
    for (int64_t b = 0; b < bag->queries; b++) {
        const float *slope = walk.slope + b * walk.row, factor = scale * factor_of(bag->query_factor, b);
        for (int64_t d = 0; d < bag->dim; d++) toward[b * bag->dim + d] = factor * slope[d];
        mean[b] = FN(dot)(walk.rows + b * walk.row, slope, walk.padded); /* the sum of weight * score */
    }
    free(walk.memory);
    return status;
}
