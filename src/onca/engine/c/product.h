/* What screening does with every entry, per level: products of 8-bit numbers, comparison with bounds, lists of set bits. */

#if defined(AMX)
/* Tiles are 16 rows of 64 bytes: 0-3 sums of 2 x 2 blocks, 4-5 rows of queries, 6-7 keys as they are packed. */
#if defined(ONCA_EMULATE_AMX)
typedef struct { uint8_t tile[8][16][64]; } FN(tiles);
static void FN(tiles_ready)(void) {}
static void FN(tiles_done)(void) {}
#define TILE_LOAD(t, n, from, stride) \
    for (int i_ = 0; i_ < 16; i_++) memcpy((t)->tile[n][i_], (const char *)(from) + i_ * (stride), 64)
#define TILE_STORE(t, n, to, stride) \
    for (int i_ = 0; i_ < 16; i_++) memcpy((char *)(to) + i_ * (stride), (t)->tile[n][i_], 64)
#define TILE_PRODUCT(t, n, rows, keys) FN(tile_product)((t)->tile[n], (t)->tile[rows], (t)->tile[keys])
static void FN(tile_product)(uint8_t (*sum)[64], uint8_t (*rows)[64], uint8_t (*keys)[64]) {
    for (int r = 0; r < 16; r++)
        for (int j = 0; j < 16; j++) {
            int32_t total;
            memcpy(&total, sum[r] + 4 * j, 4);
            for (int d = 0; d < 64; d++) total += (int8_t)rows[r][d] * keys[d / 4][4 * j + d % 4];
            memcpy(sum[r] + 4 * j, &total, 4);
        }
}
#else
typedef int FN(tiles);
static void FN(tiles_ready)(void) { /* by each thread, before its first product */
    struct { uint8_t palette, first_row, none[14]; uint16_t width[16]; uint8_t rows[16]; } shape = {.palette = 1};
    for (int i = 0; i < 8; i++) shape.width[i] = 64, shape.rows[i] = 16;
    _tile_loadconfig(&shape);
}
static void FN(tiles_done)(void) { _tile_release(); }
#define TILE_LOAD(t, n, from, stride) _tile_loadd(n, from, stride)
#define TILE_STORE(t, n, to, stride) _tile_stored(n, to, stride)
#define TILE_PRODUCT(t, n, rows, keys) _tile_dpbsud(n, rows, keys)
#endif

/* product [count, TILE] = small . small of query rows first .. first + count - 1, up to a multiple of 16, with a tile's keys. */
static void FN(products)(const screen_rows *rows, int64_t first, int64_t count, const uint8_t *packed, int32_t *product) {
    FN(tiles) state = {0};
    const int64_t bytes = rows->bytes, stride = 4 * TILE;
    (void)state;
    for (int64_t r = 0; r < count; r += 32) {
        w16 start[32];
        for (int i = 0; i < 32; i++) start[i] = rows->start[first + r + i] - (w16){0};
        for (int64_t j = 0; j < TILE; j += 32) {
            const int8_t *small = rows->small + (first + r) * bytes;
            const int two = r + 16 < count;
            TILE_LOAD(&state, 0, start, 64);
            TILE_LOAD(&state, 1, start, 64);
            TILE_LOAD(&state, 2, start + 16, 64);
            TILE_LOAD(&state, 3, start + 16, 64);
            for (int64_t d = 0; d < bytes; d += 64) {
                const uint8_t *keys = packed + d * TILE + j * 4;
                TILE_LOAD(&state, 4, small + d, bytes);
                TILE_LOAD(&state, 6, keys, stride);
                TILE_LOAD(&state, 7, keys + 64, stride);
                TILE_PRODUCT(&state, 0, 4, 6);
                TILE_PRODUCT(&state, 1, 4, 7);
                if (!two) continue;
                TILE_LOAD(&state, 5, small + 16 * bytes + d, bytes);
                TILE_PRODUCT(&state, 2, 5, 6);
                TILE_PRODUCT(&state, 3, 5, 7);
            }
            TILE_STORE(&state, 0, product + r * TILE + j, stride);
            TILE_STORE(&state, 1, product + r * TILE + j + 16, stride);
            if (!two) continue;
            TILE_STORE(&state, 2, product + (r + 16) * TILE + j, stride);
            TILE_STORE(&state, 3, product + (r + 16) * TILE + j + 16, stride);
        }
    }
}
#else
static void FN(tiles_ready)(void) {}
static void FN(tiles_done)(void) {}
#if WIDTH == 512
static void FN(products)(const screen_rows *rows, int64_t first, int64_t count, const uint8_t *packed, int32_t *product) {
    const int64_t bytes = rows->bytes;
    for (int64_t r = 0; r < count; r += 4) {
        const int8_t *small = rows->small + (first + r) * bytes;
        __m512i sum[4][4];
        for (int i = 0; i < 4; i++)
            for (int g = 0; g < 4; g++) sum[i][g] = _mm512_set1_epi32(rows->start[first + r + i]);
        for (int64_t d = 0; d < bytes; d += 4) {
            __m512i key[4];
            for (int g = 0; g < 4; g++) key[g] = _mm512_loadu_si512(packed + d * TILE + g * 64);
            for (int i = 0; i < 4; i++) {
                int32_t four;
                memcpy(&four, small + i * bytes + d, 4);
                __m512i query = _mm512_set1_epi32(four);
                for (int g = 0; g < 4; g++) sum[i][g] = _mm512_dpbusd_epi32(sum[i][g], key[g], query);
            }
        }
        for (int i = 0; i < 4; i++)
            for (int g = 0; g < 4; g++) _mm512_storeu_si512(product + (r + i) * TILE + g * 16, sum[i][g]);
    }
}
#elif WIDTH == 256
/* Four rows by 8 keys: bytes of keys are widened to 16 bits, first and third apart from second and fourth. */
static void FN(products_8)(const int8_t *small, const int32_t *start, int64_t bytes, const uint8_t *packed, int32_t *product) {
    const __m256i low = _mm256_set1_epi16(0xff);
    __m256i sum[4];
    for (int i = 0; i < 4; i++) sum[i] = _mm256_set1_epi32(start[i]);
    for (int64_t d = 0; d < bytes; d += 4) {
        __m256i key = _mm256_loadu_si256((const __m256i *)(packed + d * TILE));
        __m256i even = _mm256_and_si256(key, low), odd = _mm256_srli_epi16(key, 8);
        for (int i = 0; i < 4; i++) {
            int32_t four;
            memcpy(&four, small + i * bytes + d, 4);
            __m256i query = _mm256_set1_epi32(four);
            __m256i query_odd = _mm256_srai_epi16(query, 8), query_even = _mm256_srai_epi16(_mm256_slli_epi16(query, 8), 8);
            sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(even, query_even));
            sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(odd, query_odd));
        }
    }
    for (int i = 0; i < 4; i++) _mm256_storeu_si256((__m256i *)(product + i * TILE), sum[i]);
}

static void FN(products)(const screen_rows *rows, int64_t first, int64_t count, const uint8_t *packed, int32_t *product) {
    for (int64_t r = 0; r < count; r += 4)
        for (int64_t j = 0; j < TILE; j += 8)
            FN(products_8)(rows->small + (first + r) * rows->bytes, rows->start + first + r, rows->bytes, packed + j * 4,
                           product + r * TILE + j);
}
#else
static void FN(products)(const screen_rows *rows, int64_t first, int64_t count, const uint8_t *packed, int32_t *product) {
    for (int64_t r = 0; r < count; r++) {
        const int8_t *small = rows->small + (first + r) * rows->bytes;
        int32_t *to = product + r * TILE;
        for (int j = 0; j < TILE; j++) to[j] = rows->start[first + r];
        for (int64_t d = 0; d < rows->bytes; d += 4) {
            const uint8_t *key = packed + d * TILE;
            for (int j = 0; j < TILE; j++)
                to[j] += small[d] * key[4 * j] + small[d + 1] * key[4 * j + 1] + small[d + 2] * key[4 * j + 2] +
                         small[d + 3] * key[4 * j + 3];
        }
    }
}
#endif
#endif

/* The products of a row and a tile against thresholds: above = bits of product > high * inverse + slack, below = bits of
   product < low * inverse - slack. With nan neither. */
static inline void FN(compared)(const int32_t *product, const float *inverse, float high, float low, float slack, uint64_t *above,
                                uint64_t *below) {
    uint64_t over = 0, under = 0;
#if WIDTH == 512
    __mmask16 more[4], less[4];
    for (int g = 0; g < 4; g++) {
        __m512 x = _mm512_cvtepi32_ps(_mm512_loadu_si512(product + 16 * g)), by = _mm512_loadu_ps(inverse + 16 * g);
        __m512 top = _mm512_fmadd_ps(by, _mm512_set1_ps(high), _mm512_set1_ps(slack));
        __m512 bottom = _mm512_fmsub_ps(by, _mm512_set1_ps(low), _mm512_set1_ps(slack));
        more[g] = _mm512_cmp_ps_mask(x, top, _CMP_GT_OQ);
        less[g] = _mm512_cmp_ps_mask(x, bottom, _CMP_LT_OQ);
    }
    over = _mm512_kunpackd(_mm512_kunpackw(more[3], more[2]), _mm512_kunpackw(more[1], more[0]));
    under = _mm512_kunpackd(_mm512_kunpackw(less[3], less[2]), _mm512_kunpackw(less[1], less[0]));
#elif WIDTH == 256
    for (int g = 0; g < 8; g++) {
        __m256 x = _mm256_cvtepi32_ps(_mm256_loadu_si256((const __m256i *)(product + 8 * g))), by = _mm256_loadu_ps(inverse + 8 * g);
        __m256 top = _mm256_fmadd_ps(by, _mm256_set1_ps(high), _mm256_set1_ps(slack));
        __m256 bottom = _mm256_fmsub_ps(by, _mm256_set1_ps(low), _mm256_set1_ps(slack));
        over |= (uint64_t)_mm256_movemask_ps(_mm256_cmp_ps(x, top, _CMP_GT_OQ)) << (8 * g);
        under |= (uint64_t)_mm256_movemask_ps(_mm256_cmp_ps(x, bottom, _CMP_LT_OQ)) << (8 * g);
    }
#else
    for (int j = 0; j < TILE; j++) {
        float x = (float)product[j];
        over |= (uint64_t)(x > high * inverse[j] + slack) << j;
        under |= (uint64_t)(x < low * inverse[j] - slack) << j;
    }
#endif
    *above = over;
    *below = under;
}

/* Places of the set bits, ascending; up to 64 bytes are written whatever their number. */
static inline void FN(places)(uint64_t bits, uint8_t *to) {
#if WIDTH == 512
    static const uint8_t each[64] __attribute__((aligned(64))) = {
        0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
        32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};
    _mm512_storeu_si512(to, _mm512_maskz_compress_epi8(bits, _mm512_load_si512(each)));
#else
    for (; bits; bits &= bits - 1) *to++ = (uint8_t)__builtin_ctzll(bits);
#endif
}

/* Those of `bits` at the places of the set bits of `from`, side by side from the lowest on. */
static inline uint64_t FN(extracted)(uint64_t bits, uint64_t from) {
#if WIDTH
    return _pext_u64(bits, from);
#else
    uint64_t found = 0;
    for (uint64_t at = 1; from; from &= from - 1, at <<= 1)
        if (bits & from & -from) found |= at;
    return found;
#endif
}

/* The low bits of `bits`, one after the other, at the places of the set bits of `into`. */
static inline uint64_t FN(deposited)(uint64_t bits, uint64_t into) {
#if WIDTH
    return _pdep_u64(bits, into);
#else
    uint64_t found = 0;
    for (; into; into &= into - 1, bits >>= 1)
        if (bits & 1) found |= into & -into;
    return found;
#endif
}
