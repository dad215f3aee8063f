/* Views of images: crop and resize, colours, blur, one image after the other in the cache. No torch, no Python. */
#ifndef ONCA_VIEWS_H
#define ONCA_VIEWS_H
#include <stdint.h>

/* What acts on a cropped image, in the order that `step` gives. Formulas are those of onca.views. */
enum { ONCA_BRIGHTNESS = 0, ONCA_CONTRAST = 1, ONCA_SATURATION = 2, ONCA_HUE = 3, ONCA_GREY = 4, ONCA_BLUR = 5 };

typedef struct {
    int64_t count, height, width, size; /* images; their pixels; a view's pixels on a side */
    const uint8_t *bytes;               /* images [count, 3, height, width], or NULL: */
    const float *floats;                /* the same as numbers in 0..1 */
    const int64_t *crop;                /* [count, 4]: top, left, height, width, inside the image */
    const uint8_t *flip, *grey;         /* [count] or NULL: mirrored, without colour */
    const float *factor[4];             /* [count] each: of brightness, contrast, saturation; share of a turn of hue */
    const float *blur;                  /* [count]: sigma in pixels, 0 is none */
    int64_t taps;                       /* pixels the blur is wide, odd, less than twice the size */
    int64_t steps;
    const int32_t *step;                /* [steps] */
    int32_t threads;
    float *view;                        /* [count, 3, size, size] */
} onca_view_job;

/* 0, or ONCA_NO_MEMORY. */
int onca_views(const onca_view_job *job);
#endif
