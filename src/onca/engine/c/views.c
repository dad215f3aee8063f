/* Views: levels, memory and threads. What is done to an image is in augment.h. */
#define _GNU_SOURCE
#include "views.h"

#include "onca.h"

#include <float.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static inline int64_t least(int64_t x, int64_t y) { return x < y ? x : y; }
static inline int64_t most(int64_t x, int64_t y) { return x > y ? x : y; }
static inline int64_t up(int64_t x) { return (x + 15) / 16 * 16; } /* to a whole vector */

typedef struct { /* what one thread writes on */
    int32_t *row, *column;
    float *down, *across, *line, *kernel, *padded, *plane;
    const float **from;
    void *memory;
} scratch;

#include "target.h"
#if !defined(__clang__)
#pragma GCC optimize("no-trapping-math") /* no flag of floating point is ever read: choosing needs no branch */
#endif

#define LEVEL portable
#define WIDTH 128
#include "augment.h"
#if defined(__x86_64__)
#define LEVEL avx2
#define WIDTH 256
TARGET("avx2,fma")
#include "augment.h"
TARGET_END
#define LEVEL avx512
#define WIDTH 512
TARGET("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")
#include "augment.h"
TARGET_END
#endif

typedef void make(const onca_view_job *job, int64_t i, scratch *room);

static make *fastest(void) {
#if defined(__x86_64__)
    const char *level = onca_level();
    if (strcmp(level, "avx2") == 0) return view_avx2;
    if (strcmp(level, "portable") != 0) return view_avx512;
#endif
    return view_portable;
}

/* Pixels that an output takes at most, on an axis of so many. */
static int64_t most_taps(int64_t length, int64_t size) { return least((2 * length + size - 1) / size + 2, most(length, 2)); }

/* Memory for one thread's images: 0, or ONCA_NO_MEMORY. */
static int make_room(const onca_view_job *job, scratch *room) {
    int64_t size = job->size, wide = up(size), taps = job->taps;
    int64_t down = size * most_taps(job->height, size), across = size * most_taps(job->width, size);
    int64_t pointers = taps * (int64_t)sizeof(float *), floats = down + across + job->width + taps + (wide + taps) + size * wide;
    room->memory = malloc((size_t)(pointers + 4 * (floats + 2 * size)));
    if (!room->memory) return ONCA_NO_MEMORY;
    room->from = room->memory;
    room->down = (float *)(room->from + taps);
    room->across = room->down + down;
    room->line = room->across + across;
    room->kernel = room->line + job->width;
    room->padded = room->kernel + taps;
    room->plane = room->padded + wide + taps;
    room->row = (int32_t *)(room->plane + size * wide);
    room->column = room->row + size;
    return ONCA_OK;
}

typedef struct { /* a thread's images */
    const onca_view_job *job;
    int64_t from, to;
    int status;
} share;

static void *make_share(void *given) {
    share *mine = given;
    make *view = fastest();
    scratch room;
    mine->status = make_room(mine->job, &room);
    if (mine->status != ONCA_OK) return NULL;
    for (int64_t i = mine->from; i < mine->to; i++) view(mine->job, i, &room);
    free(room.memory);
    return NULL;
}

__attribute__((visibility("default"))) int onca_views(const onca_view_job *job) {
    int parts = (int)most(1, least(job->threads, job->count)), worst = ONCA_OK;
    share shares[parts];
    pthread_t made[parts];
    int running[parts];
    for (int i = parts - 1; i >= 0; i--) { /* the first part is the caller's own */
        shares[i] = (share){job, job->count * i / parts, job->count * (i + 1) / parts, ONCA_OK};
        running[i] = i > 0 && pthread_create(&made[i], NULL, make_share, &shares[i]) == 0;
        if (!running[i]) make_share(&shares[i]);
    }
    for (int i = 0; i < parts; i++) {
        if (running[i]) pthread_join(made[i], NULL);
        if (shares[i].status != ONCA_OK) worst = shares[i].status;
    }
    return worst;
}
