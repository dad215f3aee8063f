/* Lengths of rows of any key type. */

typedef struct {
    int64_t dim, stride;
    const void *row;
    int32_t type;
    float *length;
} FN(length_call);

static int FN(length_rows)(void *given, int64_t from, int64_t to, int part) {
    const FN(length_call) *call = given;
    const int64_t padded = up(most(call->dim, 1), 16), size = call->type == ONCA_FLOAT32 ? 4 : 2;
    float *wide = room(padded, 4);
    (void)part;
    if (!wide) return ONCA_NO_MEMORY;
    for (int64_t n = from; n < to; n++) {
        FN(widen)(call->type, (const char *)call->row + n * call->stride * size, call->dim, wide, padded);
        call->length[n] = sqrtf(FN(dot)(wide, wide, padded));
    }
    free(wide);
    return ONCA_OK;
}

static int FN(lengths)(int64_t rows, int64_t dim, const void *row, int64_t stride, int32_t type, int32_t threads, float *length) {
    FN(length_call) call = {dim, stride, row, type, length};
    return parted(rows, TILE, threads, FN(length_rows), &call);
}
