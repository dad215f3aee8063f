/* The native engine: levels, threads, and the exported functions. The algorithms are in the headers, which are compiled once
   for each level; which of them runs is asked of the processor when the first function is called. */
#define _GNU_SOURCE
#include "onca.h"

#include <float.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

typedef float v16 __attribute__((vector_size(64)));
typedef int32_t w16 __attribute__((vector_size(64)));

enum { TILE = 64 }; /* keys of a word of bits, and of a tile */

static inline int64_t up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }
static inline int64_t least(int64_t x, int64_t y) { return x < y ? x : y; }
static inline int64_t most(int64_t x, int64_t y) { return x > y ? x : y; }

/* 64-byte aligned memory for `count` things of `size` bytes; NULL when there is none. free() gives it back. */
static void *room(int64_t count, int64_t size) { return aligned_alloc(64, (size_t)up(most(count * size, 1), 64)); }

/* ---- threads: made and joined in each call, so that nothing is left running when a process forks ---- */

typedef int work(void *state, int64_t from, int64_t to, int part); /* a status */
typedef struct {
    work *run;
    void *state;
    int64_t from, to;
    int part, status;
} share;

static void *run_share(void *given) {
    share *mine = given;
    mine->status = mine->run(mine->state, mine->from, mine->to, mine->part);
    return NULL;
}

/* How many parts `parted` makes of 0 .. count - 1: never more than there are grains. */
static int parts_of(int64_t count, int64_t grain, int threads) {
    return (int)most(1, least(threads, (count + grain - 1) / grain));
}

/* Runs `run` on up to `threads` equal ranges of 0 .. count - 1, whose ends are multiples of `grain`. The worst status. */
static int parted(int64_t count, int64_t grain, int threads, work *run, void *state) {
    int parts = parts_of(count, grain, threads), worst = ONCA_OK;
    if (parts == 1) return run(state, 0, count, 0);
    share shares[parts];
    pthread_t made[parts];
    int running[parts];
    int64_t grains = (count + grain - 1) / grain;
    for (int i = parts - 1; i >= 0; i--) {
        shares[i] = (share){run, state, grains * i / parts * grain, least(count, grains * (i + 1) / parts * grain), i, 0};
        running[i] = i > 0 && pthread_create(&made[i], NULL, run_share, &shares[i]) == 0;
        if (!running[i]) run_share(&shares[i]); /* the first part is the caller's own */
    }
    for (int i = 0; i < parts; i++) {
        if (running[i]) pthread_join(made[i], NULL);
        if (shares[i].status > worst) worst = shares[i].status;
    }
    return worst;
}

/* ---- levels ---- */

typedef struct {
    const char *name;
    int (*scores)(const onca_bag *, float *);
    int (*lengths)(int64_t, int64_t, const void *, int64_t, int32_t, int32_t, float *);
    int (*select)(const onca_bag *, int64_t, const int64_t *, const int64_t *, int64_t, float, float *, int64_t *, uint64_t *,
                  int32_t *, float *, const int64_t *);
    int (*above)(const onca_bag *, const float *, uint64_t *);
    int (*nearest)(const onca_bag *, int64_t, int64_t *, float *);
    int (*sums)(const onca_bag *, int64_t, const float *, int64_t, float *, float *, float *);
    int (*spread)(const onca_bag *, float, const float *, const float *, float *, float *, float *, float *);
    int (*mutual_sums)(const onca_bag *, float, float *);
    int (*mutual)(const onca_bag *, float, const float *, const float *, float *, float *);
    int (*hinge)(const onca_bag *, const float *, float *, int64_t *, float *, float *);
    int (*equal)(int64_t, int64_t, const int64_t *, const int64_t *, int32_t, uint64_t *);
    void (*count)(int64_t, int64_t, const uint64_t *, int64_t *);
    void (*hits)(int64_t, int64_t, const uint64_t *, int64_t *);
    void (*listed)(int64_t, int64_t, const uint64_t *, int64_t, int64_t *);
} level;

#define TABLE(which)                                                                                                              \
    {#which, scores_##which, lengths_##which, select_##which, above_##which, nearest_##which, sums_##which, spread_##which,      \
     mutual_sums_##which, mutual_##which, hinge_##which, equal_##which, count_##which, hits_##which, listed_##which}

#include "target.h"
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi" /* vectors are handed only between functions of this file */
#endif

#define LEVEL portable
#define WIDTH 0
#include "level.h"

#if defined(__x86_64__)
#define LEVEL avx2
#define WIDTH 256
TARGET("avx2,fma,f16c,popcnt,bmi,bmi2,lzcnt")
#include "level.h"
TARGET_END

#define WITH_512 "avx2,fma,f16c,popcnt,bmi,bmi2,lzcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx512vbmi2"
#define LEVEL avx512
#define WIDTH 512
TARGET(WITH_512)
#include "level.h"
TARGET_END

#if defined(ONCA_EMULATE_AMX)
#define WITH_AMX WITH_512
#else
#define WITH_AMX WITH_512 ",amx-tile,amx-int8"
#endif
#define LEVEL amx
#define WIDTH 512
#define AMX 1
TARGET(WITH_AMX)
#include "level.h"
TARGET_END
#endif

#include "best.h"

/* From the lowest to the highest. */
static const level levels[] = {
    TABLE(portable),
#if defined(__x86_64__)
    TABLE(avx2),
    TABLE(avx512),
    TABLE(amx),
#endif
};

#if defined(__x86_64__)
static uint64_t enabled(void) { /* which registers the system saves: XCR0 */
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static int amx_allowed(void) {
#if defined(ONCA_EMULATE_AMX)
    return 1;
#elif defined(__linux__)
    enum { ASK = 0x1023, TILES = 18 }; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA: asked once a process */
    return (enabled() >> 17 & 3) == 3 && syscall(SYS_arch_prctl, ASK, TILES) == 0;
#else
    return 0;
#endif
}

static int highest(void) {
    uint32_t a, b, c, d, amx = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    uint32_t wanted = bit_FMA | bit_OSXSAVE | bit_AVX | bit_F16C | bit_POPCNT;
    if ((c & wanted) != wanted || (enabled() & 0x6) != 0x6 || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    amx = d >> 24 & d >> 25 & 1; /* AMX-TILE and AMX-INT8 */
    wanted = 1u << 5 | 1u << 3 | 1u << 8; /* AVX2, BMI1, BMI2 */
    if ((b & wanted) != wanted) return 0;
    wanted = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;          /* AVX512F, DQ, BW, VL */
    uint32_t more = 1u << 1 | 1u << 6 | 1u << 11;                /* VBMI, VBMI2, VNNI */
    if ((b & wanted) != wanted || (c & more) != more || (enabled() & 0xe6) != 0xe6) return 1;
#if defined(ONCA_EMULATE_AMX)
    amx = 1;
#endif
    return amx && amx_allowed() ? 3 : 2;
}
#else
static int highest(void) { return 0; }
#endif

static _Atomic int chosen_level = -1;

static int level_now(void) {
    int now = atomic_load(&chosen_level), none = -1;
    if (now >= 0) return now;
    now = highest();
    return atomic_compare_exchange_strong(&chosen_level, &none, now) ? now : none;
}

#define USE(name) levels[level_now()].name

/* ---- what is exported ---- */

#define EXPORT __attribute__((visibility("default")))

EXPORT const char *onca_level(void) { return USE(name); }

EXPORT int onca_use(const char *name) {
    for (int i = highest(); i >= 0; i--)
        if (strcmp(levels[i].name, name) == 0) {
            atomic_store(&chosen_level, i);
            return 0;
        }
    return -1;
}

EXPORT int onca_scores(const onca_bag *bag, float *score) { return USE(scores)(bag, score); }

EXPORT int onca_lengths(int64_t rows, int64_t dim, const void *row, int64_t stride, int32_t type, int32_t threads, float *length) {
    return USE(lengths)(rows, dim, row, stride, type, threads, length);
}

EXPORT int onca_select(const onca_bag *bag, int64_t edges, const int64_t *rank, const int64_t *place, int64_t sample, float spread,
                       float *score, int64_t *at, uint64_t *chosen, int32_t *tied, float *known, const int64_t *known_start) {
    return USE(select)(bag, edges, rank, place, sample, spread, score, at, chosen, tied, known, known_start);
}

EXPORT int onca_above(const onca_bag *bag, const float *bound, uint64_t *chosen) { return USE(above)(bag, bound, chosen); }

EXPORT int onca_nearest(const onca_bag *bag, int64_t k, int64_t *column, float *score) {
    return all_known(bag) ? best_known(bag, k, column, score) : USE(nearest)(bag, k, column, score);
}

EXPORT int onca_sums(const onca_bag *bag, int64_t scales, const float *scale, int64_t slopes, float *lse, float *toward, float *mean) {
    return USE(sums)(bag, scales, scale, slopes, lse, toward, mean);
}

EXPORT int onca_spread(const onca_bag *bag, float scale, const float *lse, const float *weight, float *toward, float *back,
                       float *back_factor, float *mean) {
    return USE(spread)(bag, scale, lse, weight, toward, back, back_factor, mean);
}

EXPORT int onca_mutual_sums(const onca_bag *bag, float scale, float *lse) { return USE(mutual_sums)(bag, scale, lse); }

EXPORT int onca_mutual(const onca_bag *bag, float scale, const float *lse, const float *weight, float *toward, float *mean) {
    return USE(mutual)(bag, scale, lse, weight, toward, mean);
}

EXPORT int onca_hinge(const onca_bag *bag, const float *offset, float *hinge, int64_t *active, float *toward, float *mean) {
    return USE(hinge)(bag, offset, hinge, active, toward, mean);
}

EXPORT int onca_equal(int64_t queries, int64_t keys, const int64_t *mine, const int64_t *theirs, int32_t threads, uint64_t *chosen) {
    return USE(equal)(queries, keys, mine, theirs, threads, chosen);
}

EXPORT void onca_count(int64_t queries, int64_t keys, const uint64_t *bits, int64_t *count) {
    USE(count)(queries, keys, bits, count);
}

EXPORT void onca_hits(int64_t queries, int64_t keys, const uint64_t *bits, int64_t *hits) { USE(hits)(queries, keys, bits, hits); }

EXPORT void onca_listed(int64_t queries, int64_t keys, const uint64_t *bits, int64_t many, int64_t *column) {
    USE(listed)(queries, keys, bits, many, column);
}
