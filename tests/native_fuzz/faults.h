/* Memory and threads that the system refuses, and faults that the fuzzer must find. The linker leads calls here:
   -Wl,--wrap=malloc and so on. */
#ifndef FAULTS_H
#define FAULTS_H
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include "draw.h"

static _Atomic int64_t grants = INT64_MAX; /* how often memory is still given */
static _Atomic int refusals, no_threads;

static int refused(void) {
    if (atomic_fetch_sub(&grants, 1) > 0) return 0;
    atomic_fetch_add(&refusals, 1);
    return 1;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_aligned_alloc(size_t to, size_t size);
int __real_posix_memalign(void **at, size_t to, size_t size);
int __real_pthread_create(pthread_t *made, const pthread_attr_t *how, void *(*run)(void *), void *given);

void *__wrap_malloc(size_t size) { return refused() ? NULL : __real_malloc(size); }
void *__wrap_calloc(size_t count, size_t size) { return refused() ? NULL : __real_calloc(count, size); }
void *__wrap_realloc(void *old, size_t size) { return refused() ? NULL : __real_realloc(old, size); }
void *__wrap_aligned_alloc(size_t to, size_t size) { return refused() ? NULL : __real_aligned_alloc(to, size); }
int __wrap_posix_memalign(void **at, size_t to, size_t size) {
    return refused() ? ENOMEM : __real_posix_memalign(at, to, size);
}
int __wrap_pthread_create(pthread_t *made, const pthread_attr_t *how, void *(*run)(void *), void *given) {
    return no_threads ? EAGAIN : __real_pthread_create(made, how, run, given);
}

/* Faults planted by the third argument, to see that they are found. */
static int planted;
enum { ONE_BIT = 1, A_SLOPE, ONE_TOO_FAR, NAN_PASSED_OVER, A_LEAK, A_KEPT_SCORE };

int __real_onca_select(const onca_bag *bag, int64_t edges, const int64_t *rank, const int64_t *place, int64_t sample, float spread,
                       float *score, int64_t *at, uint64_t *chosen, int32_t *tied, float *known, const int64_t *known_start);
int __wrap_onca_select(const onca_bag *bag, int64_t edges, const int64_t *rank, const int64_t *place, int64_t sample, float spread,
                       float *score, int64_t *at, uint64_t *chosen, int32_t *tied, float *known, const int64_t *known_start) {
    int status = __real_onca_select(bag, edges, rank, place, sample, spread, score, at, chosen, tied, known, known_start);
    if (planted == ONE_BIT && chosen && edges > 0 && bag->queries > 0 && bag->keys > 700) chosen[0] ^= 1;
    if (planted == A_KEPT_SCORE && known && known_start[bag->queries] > known_start[0] + 16) known[known_start[0]] += 1;
    static void *volatile lost; /* the latest is held, those before it leak */
    if (planted == A_LEAK) lost = malloc(8);
    return status;
}

int __real_onca_sums(const onca_bag *bag, int64_t scales, const float *scale, int64_t slopes, float *lse, float *toward, float *mean);
int __wrap_onca_sums(const onca_bag *bag, int64_t scales, const float *scale, int64_t slopes, float *lse, float *toward, float *mean) {
    int status = __real_onca_sums(bag, scales, scale, slopes, lse, toward, mean);
    if (planted == A_SLOPE && toward && slopes && bag->queries > 0) toward[0] *= 1.01f;
    return status;
}

int __real_onca_above(const onca_bag *bag, const float *bound, uint64_t *chosen);
int __wrap_onca_above(const onca_bag *bag, const float *bound, uint64_t *chosen) {
    volatile float beyond = planted == ONE_TOO_FAR && bag->queries > 0 ? bound[bag->queries] : 0;
    (void)beyond;
    return __real_onca_above(bag, bound, chosen);
}

int __real_onca_nearest(const onca_bag *bag, int64_t k, int64_t *column, float *score);
int __wrap_onca_nearest(const onca_bag *bag, int64_t k, int64_t *column, float *score) {
    int status = __real_onca_nearest(bag, k, column, score);
    return planted == NAN_PASSED_OVER && status == ONCA_NOT_FINITE ? ONCA_OK : status;
}
#endif
