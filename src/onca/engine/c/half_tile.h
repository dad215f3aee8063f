/* Products of blocks of 16-bit numbers, two at once, register by register as in tile.h. Matrix units for bf16 (TDPBF16PS) would take
   the place of FN(half_multiply), with rows as they are and weights as sums of two numbers. */

#ifndef ONCA_HALF_TILE
#define ONCA_HALF_TILE
/* c[r][j] (+)= by_row[r] * by_column[j] * (start[j] + sum over k of a[r][k] * b[k][j]), where k counts pairs. As in block_product:
   rows up to a multiple of TILE_ROWS may be read and written, columns are a multiple of 16. */
typedef struct {
    int64_t rows, columns, depth;
    const int32_t *a;
    int64_t a_row, a_depth;
    const int32_t *b;
    int64_t b_depth, b_panel;
    const int32_t *start; /* NULL: 0; else depth is at most TILE_DEPTH */
    const float *by_row, *by_column; /* by_column NULL: 1 */
    int64_t by_apart;     /* elements between rows of by_row */
    float *c;
    int64_t c_row;
    int add;
} half_product;
#endif

#if WIDTH == 512
ALWAYS_INLINE void FN(half_tile)(int vectors, int add, const half_product *p, int64_t depth, const int32_t *a, const int32_t *b,
                                 int64_t r, int64_t j) {
    w16 sum[TILE_ROWS][TILE_VECTORS];
    const int64_t a_row = p->a_row, a_depth = p->a_depth, b_depth = p->b_depth;
    TILE_UNROLLED for (int v = 0; v < vectors; v++) {
        w16 start = {0};
        if (p->start) memcpy(&start, p->start + j + 16 * v, sizeof start);
        TILE_UNROLLED for (int i = 0; i < TILE_ROWS; i++) sum[i][v] = start;
    }
    for (int64_t k = 0; k < depth; k++, a += a_depth, b += b_depth) {
        w16 column[TILE_VECTORS];
        TILE_UNROLLED for (int v = 0; v < vectors; v++) memcpy(&column[v], b + 16 * v, sizeof column[v]);
        TILE_UNROLLED for (int i = 0; i < TILE_ROWS; i++) {
            int32_t pair;
            memcpy(&pair, a + i * a_row, sizeof pair); /* two numbers of 16 bits, whatever they were written as */
            __m512i both = _mm512_set1_epi32(pair);
            TILE_UNROLLED for (int v = 0; v < vectors; v++)
                sum[i][v] = (w16)_mm512_dpwssd_epi32((__m512i)sum[i][v], (__m512i)column[v], both);
        }
    }
    v16 by_column[TILE_VECTORS];
    TILE_UNROLLED for (int v = 0; v < vectors; v++) by_column[v] = p->by_column ? FN(load)(p->by_column + j + 16 * v) : FN(splat)(1);
    TILE_UNROLLED for (int i = 0; i < TILE_ROWS; i++) {
        const float by = p->by_row[(r + i) * p->by_apart];
        TILE_UNROLLED for (int v = 0; v < vectors; v++) {
            float *to = p->c + (r + i) * p->c_row + j + 16 * v;
            v16 x = __builtin_convertvector(sum[i][v], v16) * by_column[v];
            FN(store)(to, add ? FN(fma)(x, FN(splat)(by), FN(load)(to)) : x * by);
        }
    }
}

#define HALF_TILES(vectors, add)                                                                                               \
    for (int64_t r = 0; r < p->rows; r += TILE_ROWS) FN(half_tile)(vectors, add, p, depth, a + r * p->a_row, b, r, j)

static void FN(half_panel)(const half_product *p, int vectors, int add, int64_t depth, const int32_t *a, const int32_t *b,
                           int64_t j) {
    if (vectors == 4 && add) HALF_TILES(4, 1);
    else if (vectors == 4) HALF_TILES(4, 0);
    else if (vectors == 3) HALF_TILES(3, 1);
    else if (vectors == 2) HALF_TILES(2, 1);
    else HALF_TILES(1, 1);
}

static void FN(half_multiply)(const half_product *p) {
    for (int64_t k = 0; k < p->depth; k += TILE_DEPTH)
        for (int64_t j = 0; j < p->columns; j += 64)
            FN(half_panel)(p, (int)(least(64, p->columns - j) / 16), p->add || k > 0, least(TILE_DEPTH, p->depth - k),
                           p->a + k * p->a_depth, p->b + k * p->b_depth + j / 64 * p->b_panel, j);
}
#endif
