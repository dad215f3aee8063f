/* Scores to weights: what entries add to the sums of their query, and what their keys are multiplied with in its slope. Part of
   sums.h. */

/* x where the lowest bits are set, y elsewhere. */
static inline FN(vec) FN(lit)(uint64_t bits, FN(vec) x, FN(vec) y) {
#if WIDTH == 512
    return (FN(vec))_mm512_mask_mov_ps((__m512)y, (__mmask16)bits, (__m512)x);
#else
    const int32_t place[8] = {1, 2, 4, 8, 16, 32, 64, 128};
    FN(ivec) one;
    memcpy(&one, place, sizeof one);
    FN(ivec) on = ((one - one + (int32_t)(bits & 0xff)) & one) != 0;
    return (FN(vec))(((FN(ivec))x & on) | ((FN(ivec))y & ~on));
#endif
}

static inline FN(vec) FN(only)(uint64_t bits, FN(vec) x) { return FN(lit)(bits, x, (FN(vec)){0}); }

static inline float FN(added)(FN(vec) x) {
#if WIDTH == 512
    return _mm512_reduce_add_ps((__m512)x);
#else
    float sum = x[0];
    for (int i = 1; i < LANES; i++) sum += x[i];
    return sum;
#endif
}

static inline float FN(highest)(FN(vec) x) {
#if WIDTH == 512
    return _mm512_reduce_max_ps((__m512)x);
#else
    float top = x[0];
    for (int i = 1; i < LANES; i++) top = x[i] > top ? x[i] : top;
    return top;
#endif
}

/* exp(x) for x up to 89, within 2 units in the last place; 0 where it is negligible; nan stays nan. */
static inline FN(vec) FN(share)(FN(vec) x) {
    const float magic = 12582912.0f + 127; /* 1.5 * 2^23: what is added is rounded, and the low bits are 2^n's */
    FN(vec) shifted = FN(mad)(x, FN(all)(1.44269504f), FN(all)(magic)), n = shifted - magic;
    FN(vec) r = FN(mad)(n, FN(all)(-0.693359375f), x); /* ln 2 in two parts: the first product is exact */
    r = FN(mad)(n, FN(all)(2.12194440e-4f), r);
    FN(vec) p = FN(mad)(FN(all)(1.37513883e-3f), r, FN(all)(8.36892174e-3f)); /* least squares of the relative error */
    p = FN(mad)(p, r, FN(all)(4.16695340e-2f));
    p = FN(mad)(p, r, FN(all)(1.66665184e-1f));
    p = FN(mad)(p, r, FN(all)(4.99999886e-1f));
    p = FN(mad)(p, r, FN(all)(1.0f));
    p = FN(mad)(p, r, FN(all)(1.0f)) * (FN(vec))((FN(ivec))shifted << 23);
    return (FN(vec))((FN(ivec))p & ~(x < NEGLIGIBLE));
}

/* Brings what a query has summed so far to a higher reference. */
static void FN(raise)(sum_state *state, float *slope, int64_t padded, float reference) {
    float down = expf(state->reference - reference);
    state->reference = reference;
    state->total *= down;
    state->moment *= down;
    if (slope)
        for (int64_t d = 0; d < padded; d += 16) FN(store)(slope + d, FN(load)(slope + d) * down);
}

/* slope [padded]: NULL where none is wanted. to: the weights, may be `score`. */
static void FN(weigh_lse)(float by, sum_state *state, float *slope, int64_t padded, const float *score, float *to,
                          const uint64_t *bits, int64_t count) {
    const FN(vec) scale = FN(all)(by), nothing = FN(all)(-INFINITY);
    FN(vec) top = nothing, total = {0}, moment = {0};
    for (int64_t j = 0; j < count; j += LANES)
        top = FN(top)(FN(lit)(bits[j / 64] >> j % 64, FN(take)(score + j) * scale, nothing), top); /* nan is passed over */
    float highest = FN(highest)(top);
    if (highest > state->reference) FN(raise)(state, slope, padded, highest);
    const FN(vec) reference = FN(all)(-state->reference);
    for (int64_t j = 0; j < count; j += LANES) {
        FN(vec) x = FN(take)(score + j), weight = FN(only)(bits[j / 64] >> j % 64, FN(share)(FN(mad)(x, scale, reference)));
        total += weight;
        moment += FN(only)(bits[j / 64] >> j % 64, weight * x);
        memcpy(to + j, &weight, sizeof weight);
    }
    state->total += FN(added)(total);
    state->moment += FN(added)(moment);
}

static void FN(weigh_spread)(float scale, float lse, float weight, sum_state *state, float *score, const uint64_t *bits,
                             int64_t count) {
    FN(vec) moment = {0};
    for (int64_t j = 0; j < count; j += LANES) {
        FN(vec) score_j = FN(take)(score + j), x = FN(mad)(score_j, FN(all)(scale), FN(all)(-lse));
        x = -FN(top)(FN(all)(-89), -x); /* past it exp is inf; in this order nan goes through */
        FN(vec) share = FN(only)(bits[j / 64] >> j % 64, FN(share)(x) * weight);
        moment += FN(only)(bits[j / 64] >> j % 64, share * score_j);
        memcpy(score + j, &share, sizeof share);
    }
    state->moment += FN(added)(moment);
}

static void FN(weigh_hinge)(float offset, sum_state *state, float *score, const uint64_t *bits, int64_t count) {
    FN(vec) total = {0}, moment = {0}, active = {0};
    for (int64_t j = 0; j < count; j += LANES) {
        FN(vec) x = FN(take)(score + j), over = x + offset;
        FN(vec) one = FN(only)(bits[j / 64] >> j % 64, FN(all)(1));
        FN(ivec) on = (one > 0.0f) & ~(over <= 0.0f); /* not `over > 0`: nan is on, so that it is seen */
        one = (FN(vec))((FN(ivec))one & on);
        total += (FN(vec))((FN(ivec))over & on);
        moment += (FN(vec))((FN(ivec))x & on);
        active += one;
        memcpy(score + j, &one, sizeof one);
    }
    state->total += FN(added)(total);
    state->moment += FN(added)(moment);
    state->active += (int64_t)FN(added)(active);
}
