/* Products of float32 blocks, register by register: 6 rows by as many columns as fill the registers.

   Blocks lie in rows that are an odd number of cache lines apart (`spaced`): rows a power of two apart would fall on the same few
   places of the cache. */

#undef TILE_VECTORS
#define TILE_VECTORS (LANES == 16 ? 4 : 2) /* of columns: with 6 rows the sums fill the registers */

#ifndef ONCA_TILE
#define ONCA_TILE
enum { TILE_ROWS = 6 };      /* of a tile */
enum { TILE_DEPTH = 132 };   /* most of the shared dimension at once: its part of a panel of columns stays in the first cache */
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define TILE_UNROLLED _Pragma("GCC unroll 8")

/* c[r][j] (+)= sum over k of a[r][k] * b[k][j]. Elements apart: of a, rows and k; of b, k and panels of columns (those of
   FN(columns_of_tile)); of c, rows. rows: up to a multiple of TILE_ROWS may be read and written; columns: a multiple of 16. */
typedef struct {
    int64_t rows, columns, depth;
    const float *a;
    int64_t a_row, a_depth;
    const float *b;
    int64_t b_depth, b_panel;
    float *c;
    int64_t c_row;
    int add; /* to what c holds? */
} block_product;

/* Elements between rows of `count` numbers: at least count, a multiple of 16 that is odd. */
static inline int64_t spaced(int64_t count) { return ((count + 15) / 16 | 1) * 16; }
#endif

enum { FN(tile_columns) = LANES * TILE_VECTORS };

/* One tile; `vectors` and `add` are constants wherever this is called. */
ALWAYS_INLINE void FN(tile)(int vectors, int add, const block_product *p, int64_t depth, const float *a, const float *b,
                            float *c) {
    FN(vec) sum[TILE_ROWS][TILE_VECTORS] = {0};
    const int64_t a_row = p->a_row, a_depth = p->a_depth, b_depth = p->b_depth, c_row = p->c_row;
    for (int64_t k = 0; k < depth; k++, a += a_depth, b += b_depth) {
        FN(vec) column[TILE_VECTORS];
        TILE_UNROLLED for (int v = 0; v < vectors; v++) column[v] = FN(take)(b + v * LANES);
        TILE_UNROLLED for (int r = 0; r < TILE_ROWS; r++)
            TILE_UNROLLED for (int v = 0; v < vectors; v++) sum[r][v] += a[r * a_row] * column[v];
    }
    TILE_UNROLLED for (int r = 0; r < TILE_ROWS; r++)
        TILE_UNROLLED for (int v = 0; v < vectors; v++) {
            float *to = c + r * c_row + v * LANES;
            if (add) sum[r][v] += FN(take)(to);
            memcpy(to, &sum[r][v], sizeof sum[r][v]);
        }
}

#define TILES(vectors, add)                                                                                                    \
    for (int64_t r = 0; r < p->rows; r += TILE_ROWS) FN(tile)(vectors, add, p, depth, a + r * p->a_row, b, c + r * p->c_row)

/* All rows against one panel of columns and one part of the depth: b's part stays in the first cache. */
static void FN(tile_panel)(const block_product *p, int vectors, int add, int64_t depth, const float *a, const float *b,
                           float *c) {
    if (vectors == TILE_VECTORS && add) TILES(TILE_VECTORS, 1);
    else if (vectors == TILE_VECTORS) TILES(TILE_VECTORS, 0);
#if WIDTH == 512 /* elsewhere 16 columns, of which rows are multiples, are whole panels */
    else if (vectors == 3 && add) TILES(3, 1);
    else if (vectors == 3) TILES(3, 0);
    else if (vectors == 2 && add) TILES(2, 1);
    else if (vectors == 2) TILES(2, 0);
    else if (add) TILES(1, 1);
    else TILES(1, 0);
#endif
}

static void FN(tile_multiply)(const block_product *p) {
    int64_t parts = (p->depth + TILE_DEPTH - 1) / TILE_DEPTH, depth = (p->depth + parts - 1) / parts;
    for (int64_t k = 0; k < p->depth; k += depth)
        for (int64_t j = 0; j < p->columns; j += FN(tile_columns)) {
            int vectors = (int)(least(FN(tile_columns), p->columns - j) / LANES);
            FN(tile_panel)(p, vectors, p->add || k > 0, least(depth, p->depth - k), p->a + k * p->a_depth,
                      p->b + k * p->b_depth + j / FN(tile_columns) * p->b_panel, p->c + j);
        }
}

/* packed[j / columns of a tile][d][j % those] = rows[j][d]: how `tile_multiply` wants rows whose products with rows
   are taken. Zeros after the last. row: elements between rows. */
static void FN(tile_pack)(const float *rows, int64_t count, int64_t row, int64_t dim, float *packed) {
    for (int64_t first = 0; first < count; first += FN(tile_columns), packed += dim * FN(tile_columns))
        for (int64_t j = 0; j < FN(tile_columns); j++)
            for (int64_t d = 0; d < dim; d++)
                packed[d * FN(tile_columns) + j] = first + j < count ? rows[(first + j) * row + d] : 0;
}
