/* Vectors of 16 float32 and what is done with them. Included once for each level: FN(name) carries the level's name, and the
   same source becomes AVX-512, twice AVX2, or whatever the compiler makes of it elsewhere.

   Rows are held padded with zeros to a multiple of 16 (`padded`): then no routine has a ragged end. */

static inline v16 FN(load)(const float *from) {
    v16 x;
    memcpy(&x, from, sizeof x);
    return x;
}

static inline void FN(store)(float *to, v16 x) { memcpy(to, &x, sizeof x); }

static inline v16 FN(splat)(float x) { return (v16){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }

/* mask: -1 or 0 in each lane, as comparisons of vectors give it. */
static inline v16 FN(choose)(w16 mask, v16 yes, v16 no) { return (v16)(((w16)yes & mask) | ((w16)no & ~mask)); }

static inline v16 FN(larger)(v16 x, v16 y) { return FN(choose)(x > y, x, y); }

/* x * y + z, rounded once where the level has such an instruction: written out, so that no compiler flag changes scores. */
static inline v16 FN(fma)(v16 x, v16 y, v16 z) {
#if WIDTH == 512
    return (v16)_mm512_fmadd_ps((__m512)x, (__m512)y, (__m512)z);
#elif WIDTH == 256
    union { v16 all; __m256 half[2]; } a = {x}, b = {y}, c = {z};
    c.half[0] = _mm256_fmadd_ps(a.half[0], b.half[0], c.half[0]);
    c.half[1] = _mm256_fmadd_ps(a.half[1], b.half[1], c.half[1]);
    return c.all;
#else
    return x * y + z;
#endif
}

/* The 16 lanes added in a fixed order: halves folded onto each other four times. FN(sum_16) below adds in the same order. */
static inline float FN(sum)(v16 x) {
    typedef float v8 __attribute__((vector_size(32)));
    typedef float v4 __attribute__((vector_size(16)));
    union { v16 all; v8 half[2]; } a = {x};
    union { v8 all; v4 half[2]; } b = {.all = a.half[0] + a.half[1]};
    v4 c = b.half[0] + b.half[1];
    return (c[0] + c[2]) + (c[1] + c[3]);
}

/* Vectors as wide as the level's registers, for loops that have to be fast below AVX-512 too: compilers keep a v16 that
   does not fit a register in memory. PARTS of them are 16 lanes. */
#if WIDTH == 512
#define LANES 16
#elif WIDTH == 256
#define LANES 8
#else
#define LANES 4
#endif
#define PARTS (16 / LANES)
typedef float FN(vec) __attribute__((vector_size(4 * LANES)));
typedef int32_t FN(ivec) __attribute__((vector_size(4 * LANES)));

static inline FN(vec) FN(take)(const float *from) {
    FN(vec) x;
    memcpy(&x, from, sizeof x);
    return x;
}

static inline FN(vec) FN(all)(float x) { return x - (FN(vec)){0}; }

static inline FN(vec) FN(mad)(FN(vec) x, FN(vec) y, FN(vec) z) {
#if WIDTH == 512
    return (FN(vec))_mm512_fmadd_ps((__m512)x, (__m512)y, (__m512)z);
#elif WIDTH == 256
    return (FN(vec))_mm256_fmadd_ps((__m256)x, (__m256)y, (__m256)z);
#else
    return x * y + z;
#endif
}

static inline FN(vec) FN(top)(FN(vec) x, FN(vec) y) {
#if WIDTH == 512
    return (FN(vec))_mm512_max_ps((__m512)x, (__m512)y);
#elif WIDTH == 256
    return (FN(vec))_mm256_max_ps((__m256)x, (__m256)y);
#else
    FN(ivec) more = x > y;
    return (FN(vec))(((FN(ivec))x & more) | ((FN(ivec))y & ~more));
#endif
}

/* The largest lane. */
static inline float FN(top_of)(FN(vec) x) {
#if WIDTH == 512
    return _mm512_reduce_max_ps((__m512)x);
#else
    float found = x[0];
    for (int l = 1; l < LANES; l++) found = x[l] > found ? x[l] : found;
    return found;
#endif
}

/* The sum of FN(sum) for 16 lanes that are PARTS vectors. */
static inline float FN(sum_parts)(const FN(vec) *x) {
    v16 whole;
    memcpy(&whole, x, sizeof whole);
    return FN(sum)(whole);
}

/* Lane i of what comes back: the 16 lanes of x[i] put together, as FN(sum) adds them, or the largest of them. Rows are folded in
   half pairwise, so that every step is a full vector's. */
#if WIDTH == 512
#define FOLD_16(name, join)                                                                                                    \
    static inline v16 FN(name)(const v16 *x) {                                                                                 \
        __m512 a[8], b[4], c[2];                                                                                               \
        const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);                         \
        for (int i = 0; i < 8; i++) {                                                                                          \
            __m512 y = (__m512)x[2 * i], z = (__m512)x[2 * i + 1];                                                             \
            a[i] = join(_mm512_shuffle_f32x4(y, z, 0x44), _mm512_shuffle_f32x4(y, z, 0xee));                                   \
        }                                                                                                                      \
        for (int i = 0; i < 4; i++)                                                                                            \
            b[i] = join(_mm512_shuffle_f32x4(a[2 * i], a[2 * i + 1], 0x88), _mm512_shuffle_f32x4(a[2 * i], a[2 * i + 1], 0xdd)); \
        for (int i = 0; i < 2; i++) {                                                                                          \
            __m512d y = (__m512d)b[2 * i], z = (__m512d)b[2 * i + 1];                                                          \
            c[i] = join((__m512)_mm512_unpacklo_pd(y, z), (__m512)_mm512_unpackhi_pd(y, z));                                   \
        }                                                                                                                      \
        __m512 found = join(_mm512_shuffle_ps(c[0], c[1], 0x88), _mm512_shuffle_ps(c[0], c[1], 0xdd));                         \
        return (v16)_mm512_permutexvar_ps(order, found);                                                                       \
    }
FOLD_16(sum_16, _mm512_add_ps)
FOLD_16(top_16, _mm512_max_ps)
#undef FOLD_16
#else
static inline v16 FN(sum_16)(const v16 *x) {
    v16 sums;
    for (int i = 0; i < 16; i++) sums[i] = FN(sum)(x[i]);
    return sums;
}
#endif

/* The product of two rows: lane l takes dimensions l, l + 16, ... Every score of the engine is this sum, bit for bit. */
static inline float FN(dot)(const float *x, const float *y, int64_t padded) {
    FN(vec) total[PARTS] = {{0}};
    for (int64_t d = 0; d < padded; d += 16)
        for (int i = 0; i < PARTS; i++)
            total[i] = FN(mad)(FN(take)(x + d + i * LANES), FN(take)(y + d + i * LANES), total[i]);
    return FN(sum_parts)(total);
}

static inline float FN(half)(uint16_t bits) { /* IEEE binary16 without an instruction for it */
    uint32_t rest = (uint32_t)(bits & 0x7fff) << 13, sign = (uint32_t)(bits & 0x8000) << 16;
    union { uint32_t bits; float value; } x = {rest}, shift = {0x77800000u}; /* 2^112: the difference of the biases */
    if (rest >= 0x0f800000u) x.bits |= 0x7f800000u; /* inf and nan stay so */
    else x.value *= shift.value;
    x.bits |= sign;
    return x.value;
}

/* A row of `dim` numbers of any key type as float32, followed by zeros up to `padded`. */
static inline void FN(widen)(int32_t type, const void *from, int64_t dim, float *restrict to, int64_t padded) {
    const uint16_t *narrow = from;
    int64_t d = 0;
    if (type == ONCA_FLOAT32) {
        const float *wide = from;
        for (; d < dim; d++) to[d] = wide[d];
    } else if (type == ONCA_BFLOAT16) {
        for (; d < dim; d++) {
            uint32_t bits = (uint32_t)narrow[d] << 16;
            memcpy(to + d, &bits, sizeof bits);
        }
    } else {
#if WIDTH
        for (; d + 8 <= dim; d += 8)
            _mm256_storeu_ps(to + d, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(narrow + d))));
#endif
        for (; d < dim; d++) to[d] = FN(half)(narrow[d]);
    }
    for (; d < padded; d++) to[d] = 0;
}

/* The rows of keys first .. first + count - 1 as float32, [count, padded]. */
static inline void FN(widen_keys)(const onca_bag *bag, int64_t first, int64_t count, float *to, int64_t padded) {
    int64_t size = bag->key_type == ONCA_FLOAT32 ? 4 : 2;
    for (int64_t j = 0; j < count; j++)
        FN(widen)(bag->key_type, (const char *)bag->key + (first + j) * bag->key_stride * size, bag->dim, to + j * padded, padded);
}

/* exp, to about 2 units in the last place; 0 below -104, inf above 89, nan stays nan. */
static inline v16 FN(exp)(v16 x) {
    const v16 lowest = FN(splat)(-110.0f), highest = FN(splat)(90.0f), magic = FN(splat)(12582912.0f); /* 1.5 * 2^23 */
    x = FN(choose)(x < lowest, lowest, x);
    x = FN(choose)(x > highest, highest, x);
    v16 n = FN(fma)(x, FN(splat)(1.44269504f), magic) - magic; /* rounds to a whole number */
    v16 r = FN(fma)(n, FN(splat)(-0.693359375f), x);           /* ln 2 in two parts: the first product is exact */
    r = FN(fma)(n, FN(splat)(2.12194440e-4f), r);
    v16 p = FN(splat)(1.0f / 5040);
    p = FN(fma)(p, r, FN(splat)(1.0f / 720));
    p = FN(fma)(p, r, FN(splat)(1.0f / 120));
    p = FN(fma)(p, r, FN(splat)(1.0f / 24));
    p = FN(fma)(p, r, FN(splat)(1.0f / 6));
    p = FN(fma)(p, r, FN(splat)(0.5f));
    p = FN(fma)(p * r, r, r) + 1.0f;
    w16 power = __builtin_convertvector(n, w16), half = power >> 1; /* 2^n in two factors: the ends are denormal or inf */
    return p * (v16)((half + 127) << 23) * (v16)((power - half + 127) << 23);
}
