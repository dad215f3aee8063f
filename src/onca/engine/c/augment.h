/* The views of single images; compiled once for each level. Loops are written so that compilers make vectors of them. */

static inline float FN(unit)(float x) {
    x = x < 0 ? 0 : x; /* written so that nan stays nan */
    return x > 1 ? 1 : x;
}

/* One axis of a crop: output j is the sum over t < taps of weight[t * size + j] times pixel first[j] + t of the crop.

   The triangle of torch's antialiased interpolation: two outputs wide, at least two pixels, cut off at the crop's edge.
   Positions are rounded to float32 where torch does that. Returns taps. */
static int64_t FN(axis)(int64_t extent, int64_t size, int flip, float scale, int32_t *first, float *weight) {
    float step = (float)extent / (float)size, reach = step > 1 ? step : 1, shrink = 1 / reach;
    int64_t taps = least((int64_t)ceilf(2 * reach), extent);
    for (int64_t j = 0; j < size; j++) {
        float centre = step * ((float)(flip ? size - 1 - j : j) + 0.5f), sum = 0;
        int64_t start = (int64_t)floorf(centre - reach - 0.5f) + 1;
        first[j] = (int32_t)most(0, least(start, extent - taps));
        for (int64_t t = 0; t < taps; t++) {
            float near = 1 - fabsf((float)(first[j] + t) + 0.5f - centre) * shrink;
            weight[t * size + j] = near > 0 ? near : 0;
            sum += weight[t * size + j];
        }
        for (int64_t t = 0; t < taps; t++) weight[t * size + j] *= scale / sum;
    }
    return taps;
}

static void FN(add_bytes)(int64_t n, float weight, const uint8_t *restrict from, float *restrict to) {
    for (int64_t x = 0; x < n; x++) to[x] += weight * (float)from[x];
}

static void FN(add_floats)(int64_t n, float weight, const float *restrict from, float *restrict to) {
    for (int64_t x = 0; x < n; x++) to[x] += weight * from[x];
}

static void FN(add_picked)(int64_t n, const float *restrict weight, const int32_t *restrict place, const float *restrict from,
                           float *restrict to) {
    for (int64_t j = 0; j < n; j++) to[j] += weight[j] * from[place[j]];
}

/* Cuts image i and resizes it: down the columns into a row, then along that row. */
static void FN(crop)(const onca_view_job *job, int64_t i, scratch *room, float *view) {
    const int64_t *box = job->crop + 4 * i, size = job->size, area = job->height * job->width;
    int64_t down = FN(axis)(box[2], size, 0, job->bytes ? 1 / 255.0f : 1.0f, room->row, room->down);
    int64_t across = FN(axis)(box[3], size, job->flip && job->flip[i], 1, room->column, room->across);
    for (int64_t channel = 0; channel < 3; channel++)
        for (int64_t y = 0; y < size; y++) {
            int64_t place = (3 * i + channel) * area + (box[0] + room->row[y]) * job->width + box[1];
            float *line = view + (channel * size + y) * size;
            memset(room->line, 0, (size_t)box[3] * sizeof(float));
            for (int64_t t = 0; t < down; t++, place += job->width) {
                float weight = room->down[t * size + y];
                if (job->bytes) FN(add_bytes)(box[3], weight, job->bytes + place, room->line);
                else FN(add_floats)(box[3], weight, job->floats + place, room->line);
            }
            memset(line, 0, (size_t)size * sizeof(float));
            for (int64_t t = 0; t < across; t++)
                FN(add_picked)(size, room->across + t * size, room->column, room->line + t, line);
        }
}

static void FN(brightness)(int64_t n, float factor, float *restrict view) {
    for (int64_t p = 0; p < 3 * n; p++) view[p] = FN(unit)(view[p] * factor);
}

static float FN(mean)(int64_t n, const float *values) {
    float part[64] = {0}, sum = 0; /* many short sums: less rounding than one long one, and vectors */
    int64_t p = 0;
    for (; p + 64 <= n; p += 64)
        for (int64_t lane = 0; lane < 64; lane++) part[lane] += values[p + lane];
    for (; p < n; p++) part[p % 64] += values[p];
    for (int64_t lane = 0; lane < 64; lane++) sum += part[lane];
    return sum / (float)n;
}

static inline float FN(luma)(float red, float green, float blue) { return 0.2989f * red + 0.587f * green + 0.114f * blue; }

static void FN(contrast)(int64_t n, float factor, float *restrict view) {
    float grey = FN(luma)(FN(mean)(n, view), FN(mean)(n, view + n), FN(mean)(n, view + 2 * n)) * (1 - factor);
    for (int64_t p = 0; p < 3 * n; p++) view[p] = FN(unit)(view[p] * factor + grey);
}

static void FN(saturation)(int64_t n, float factor, float *restrict red, float *restrict green, float *restrict blue) {
    for (int64_t p = 0; p < n; p++) {
        float grey = FN(luma)(red[p], green[p], blue[p]) * (1 - factor);
        red[p] = FN(unit)(red[p] * factor + grey);
        green[p] = FN(unit)(green[p] * factor + grey);
        blue[p] = FN(unit)(blue[p] * factor + grey);
    }
}

static void FN(grey)(int64_t n, float *restrict red, float *restrict green, float *restrict blue) {
    for (int64_t p = 0; p < n; p++) red[p] = green[p] = blue[p] = FN(luma)(red[p], green[p], blue[p]);
}

static inline float FN(tent)(float z) {
    z = fabsf(z);
    z = z > 1 ? z : 1;
    return (z < 2 ? z : 2) - 1;
}

/* As onca.views.hue: hue in sextants from cyan, so that there is no case per sextant. */
static void FN(hue)(int64_t n, float shift, float *restrict red, float *restrict green, float *restrict blue) {
    const float whole = 12582912; /* 1.5 x 2^23: adding and subtracting it rounds to an integer */
    for (int64_t p = 0; p < n; p++) {
        float r = red[p], g = green[p], b = blue[p];
        float high = r > g ? r : g, low = r < g ? r : g;
        high = high > b ? high : b;
        low = low < b ? low : b;
        float span = high - low, z = 2 - ((g - r) + (b - low)) / (span > FLT_MIN ? span : FLT_MIN);
        z = copysignf(z, b - g) + 6 * shift;
        float turns = z * (1 / 6.0f) + whole;
        z -= 6 * (turns - whole);
        red[p] = low + span * FN(tent)(z);
        green[p] = high - span * FN(tent)(z + 1);
        blue[p] = high - span * FN(tent)(z - 1);
    }
}

static int64_t FN(reflected)(int64_t place, int64_t size) {
    place = place < 0 ? -place : place;
    return place < size ? place : 2 * size - 2 - place;
}

typedef float FN(lanes) __attribute__((vector_size(WIDTH / 8)));
enum { FN(LANES) = WIDTH / 32 };

/* to[x] = sum over t of weight[t] * from[t][x]. Memory past n - 1 is read and written up to a whole vector. */
static void FN(weighted)(int64_t n, int64_t taps, const float *weight, const float *const *from, float *to) {
    for (int64_t x = 0; x < n; x += FN(LANES)) {
        FN(lanes) sum = {0}, some;
        for (int64_t t = 0; t < taps; t++) {
            memcpy(&some, from[t] + x, sizeof some);
            sum += weight[t] * some;
        }
        memcpy(to + x, &sum, sizeof sum);
    }
}

/* Blurs one channel along its rows, into room->plane, and then down the columns, borders reflected. */
static void FN(blur)(int64_t size, int64_t taps, scratch *room, float *channel) {
    int64_t reach = taps / 2, wide = up(size);
    for (int64_t t = 0; t < taps; t++) room->from[t] = room->padded + t;
    for (int64_t y = 0; y < size; y++) {
        const float *line = channel + y * size;
        for (int64_t x = 0; x < reach; x++) {
            room->padded[x] = line[reach - x];
            room->padded[reach + size + x] = line[size - 2 - x];
        }
        memcpy(room->padded + reach, line, (size_t)size * sizeof(float));
        FN(weighted)(size, taps, room->kernel, room->from, room->plane + y * wide);
    }
    for (int64_t y = 0; y < size; y++) {
        for (int64_t t = 0; t < taps; t++) room->from[t] = room->plane + FN(reflected)(y + t - reach, size) * wide;
        FN(weighted)(size, taps, room->kernel, room->from, room->padded);
        memcpy(channel + y * size, room->padded, (size_t)size * sizeof(float));
    }
}

/* Gaussian weights, of sum 1; those of no account are 0, because processors are slow at numbers close to the smallest. */
static void FN(gaussian)(int64_t taps, float sigma, float *kernel) {
    float sum = 0;
    for (int64_t t = 0; t < taps; t++) {
        float offset = (float)(t - taps / 2), weight = expf(-offset * offset / (2 * sigma * sigma));
        sum += kernel[t] = weight > 1e-30f ? weight : 0;
    }
    for (int64_t t = 0; t < taps; t++) kernel[t] /= sum;
}

static void FN(view)(const onca_view_job *job, int64_t i, scratch *room) {
    int64_t n = job->size * job->size;
    float *red = job->view + 3 * i * n, *green = red + n, *blue = green + n;
    FN(crop)(job, i, room, red);
    for (int64_t s = 0; s < job->steps; s++) {
        int32_t op = job->step[s];
        float factor = op <= ONCA_HUE ? job->factor[op][i] : 0;
        if (op == ONCA_BRIGHTNESS) FN(brightness)(n, factor, red);
        else if (op == ONCA_CONTRAST) FN(contrast)(n, factor, red);
        else if (op == ONCA_SATURATION) FN(saturation)(n, factor, red, green, blue);
        else if (op == ONCA_HUE && factor != 0) FN(hue)(n, factor, red, green, blue);
        else if (op == ONCA_GREY && job->grey[i]) FN(grey)(n, red, green, blue);
        else if (op == ONCA_BLUR && job->blur[i] > 0) {
            FN(gaussian)(job->taps, job->blur[i], room->kernel);
            for (int64_t channel = 0; channel < 3; channel++) FN(blur)(job->size, job->taps, room, red + channel * n);
        }
    }
}
#undef LEVEL
#undef WIDTH
