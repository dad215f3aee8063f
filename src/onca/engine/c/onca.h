/* The plain C interface of the native engine. No torch, no Python: pointers, sizes, and a status.

   A score is the product of a query row and a key row, accumulated in float32 by one routine (onca_scores gives it), then
   times key_factor, then times query_factor where those are given. Every function that chooses, chooses by exactly these
   scores, whatever instructions the processor has: screening in 8 bits only decides which scores are looked at.

   Bits: entry j of a row is bit j % 64 of word j / 64; a row has words = (keys + 63) / 64 of them. Of what is written, bits
   past the last key are 0. Of what is read (present), they must be. */
#ifndef ONCA_H
#define ONCA_H
#include <stdint.h>

enum { ONCA_FLOAT32 = 0, ONCA_BFLOAT16 = 1, ONCA_FLOAT16 = 2 };
enum { ONCA_OK = 0, ONCA_NOT_FINITE = 1, ONCA_NO_MEMORY = 2 };  /* a row that is looked at holds nan or inf; malloc */

/* queries B against keys N, each of dim D. With views S > 1 each query is S rows, one after the other, and its score is the
   largest of theirs. */
typedef struct {
    int64_t queries, views, dim, keys;
    const float *query;          /* [B*S, D] */
    const float *query_factor;   /* [B*S] or NULL */
    const void *key;             /* [N, D], rows key_stride elements apart */
    int64_t key_stride;
    int32_t key_type;            /* ONCA_FLOAT32 ... */
    int32_t threads;
    const float *key_factor;     /* [N] or NULL */
    const uint64_t *present;     /* [B, words] or NULL: all */
    const float *known;          /* scores that onca_select gave of these rows, for sums and nearest; or NULL */
    const int64_t *known_start;  /* [B] where a query's begin */
    const uint64_t *known_set;   /* [B, words] of which entries they are, in order of columns */
} onca_bag;

#if defined(__cplusplus)
extern "C" {
#endif

/* The level in use: "amx", "avx512", "avx2" or "portable"; and a lower one by name (tests). 0, or -1: not on this machine. */
const char *onca_level(void);
int onca_use(const char *level);

/* All scores, [B, N]. For tests and for small bags. */
int onca_scores(const onca_bag *bag, float *score);

/* length [rows] of rows [rows, dim] of a key type, stride elements apart: the root of the sum of squares, in float32. */
int onca_lengths(int64_t rows, int64_t dim, const void *row, int64_t stride, int32_t type, int32_t threads, float *length);

/* For each query and edge e, the rank[b,e]-th present entry from the hard end (1 the hardest; ties: the smaller place first;
   0 gives (inf, -1, nothing); more than are present counts as all of them), its score and place, and the set of the rank
   hardest in chosen [E, B, words]. place [N]: the places of the entries, NULL: their columns. tied: do others tie with an edge.
   chosen may be NULL. sample, spread: keys sampled for the bracket and its half width in standard deviations (0: the engine's own;
   tests force failing brackets).

   known (NULL: not wanted): the scores of the set of the only edge, in order of columns, each row's from known_start[b] on. Then
   edges is 1, chosen is not NULL, views is 1, and known has room from known_start[b] to known_start[b + 1] for 16 more than are
   wanted; half as many again lets the walk work in place. */
int onca_select(const onca_bag *bag, int64_t edges, const int64_t *rank, const int64_t *place, int64_t sample, float spread,
                float *score, int64_t *at, uint64_t *chosen, int32_t *tied, float *known, const int64_t *known_start);

/* The present entries whose score is more than bound[b]: chosen [B, words]. */
int onca_above(const onca_bag *bag, const float *bound, uint64_t *chosen);

/* The k present entries with the highest scores, best first, ties by column; (-1, -inf) where there are fewer. [B, k] */
int onca_nearest(const onca_bag *bag, int64_t k, int64_t *column, float *score);

/* lse [scales,B] = log sum over present of exp(scale[i] * s); -inf where nothing is. Of the first `slopes` scales, with toward
   [slopes,B,D] (NULL: not wanted) also its slope by the query row as given, and with mean [slopes,B] (NULL: not wanted) the mean
   of s under the softmax. scales from 1; views must be 1. */
int onca_sums(const onca_bag *bag, int64_t scales, const float *scale, int64_t slopes, float *lse, float *toward, float *mean);

/* The slopes of sum_b weight[b] * lse[b] by keys (back [N,D], back_factor [N]) and by queries (toward [B,D]); those that are NULL
   are not wanted. lse as onca_sums gave it. */
int onca_spread(const onca_bag *bag, float scale, const float *lse, const float *weight, float *toward, float *back,
                float *back_factor, float *mean);

/* Where the queries are the keys (with the same factors), and who is present for whom is mutual: lse as onca_sums gives it, and the
   slopes of sum_b weight[b] * lse[b] by row b as a query and as a key together, toward [B,D], and mean [B] likewise. Each score is
   made once for two entries. */
int onca_mutual_sums(const onca_bag *bag, float scale, float *lse);
int onca_mutual(const onca_bag *bag, float scale, const float *lse, const float *weight, float *toward, float *mean);

/* hinge [B] = sum over present of max(0, s + offset[b]); active [B] = how many are above 0; toward [B,D] as above (or NULL),
   mean [B] (or NULL) = sum of s over the active ones. */
int onca_hinge(const onca_bag *bag, const float *offset, float *hinge, int64_t *active, float *toward, float *mean);

/* Bits alone. */
int onca_equal(int64_t queries, int64_t keys, const int64_t *mine, const int64_t *theirs, int32_t threads, uint64_t *chosen); /* equal and >= 0 */
void onca_count(int64_t queries, int64_t keys, const uint64_t *bits, int64_t *count);                 /* [B] */
void onca_hits(int64_t queries, int64_t keys, const uint64_t *bits, int64_t *hits);                   /* [N] */
void onca_listed(int64_t queries, int64_t keys, const uint64_t *bits, int64_t most, int64_t *column); /* [B, most], -1 */

#if defined(__cplusplus)
}
#endif
#endif
