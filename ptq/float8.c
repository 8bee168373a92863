#include "nybble/float8.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "core/dtype.h"
#include "core/memory.h"
#include "core/qweight.h"
#include "core/threads.h"
#include "ptq/grid.h"
#include "ptq/observer.h"

static const char *const scale_words[] = {"default", "tensor", "channel", "block"};
static const char *const kind_words[] = {"int", "e4m3", "e5m2"};

static bool find_word(const char *const *words, size_t count, const char *name, unsigned *out)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(words[i], name) == 0) {
            *out = (unsigned) i;
            return true;
        }
    }
    return false;
}

const char *nyb_scales_name(nyb_scales scales)
{
    return (unsigned) scales <= NYB_SCALES_BLOCK ? scale_words[scales] : "?";
}

bool nyb_scales_by_name(const char *name, nyb_scales *out)
{
    unsigned found = 0;
    const bool known = find_word(scale_words, 4, name, &found);
    *out = known ? (nyb_scales) found : *out;
    return known;
}

const char *nyb_code_kind_name(nyb_code_kind kind)
{
    return (unsigned) kind <= NYB_CODE_E5M2 ? kind_words[kind] : "?";
}

bool nyb_code_kind_by_name(const char *name, nyb_code_kind *out)
{
    unsigned found = 0;
    const bool known = find_word(kind_words, 3, name, &found);
    *out = known ? (nyb_code_kind) found : *out;
    return known;
}

// Work is cut into stripes of rows that share no scale with another stripe, unless all do.
typedef struct float8_job {
    nyb_mat w;
    const nyb_float8_params *params;
    nyb_qweight *out;
    float largest; // finite value
    size_t *bad;   // [stripes] row of the first weight that is not finite, SIZE_MAX: none
} float8_job;

static size_t stripe_end(const float8_job *job, size_t row0)
{
    const size_t left = job->w.rows - row0;
    return row0 + (left < NYB_FLOAT8_BLOCK ? left : NYB_FLOAT8_BLOCK);
}

// Puts the largest magnitude of every row's groups where their scales will be.
static void measure(void *arg, size_t stripe, unsigned worker)
{
    const float8_job *const job = arg;
    const nyb_qweight *const q = job->out;
    const size_t row0 = stripe * NYB_FLOAT8_BLOCK;
    (void) worker;
    job->bad[stripe] = SIZE_MAX;
    for (size_t i = stripe_end(job, row0); i-- > row0;) {
        const float *const row = nyb_row(job->w, i);
        float *const most = q->scales + i * q->groups;
        float check = 0.0f;
        for (size_t j = 0; j < q->cols; j++) {
            float *const to = &most[j / q->group_size];
            *to = fmaxf(*to, fabsf(row[j]));
            check += row[j] - row[j]; // 0, or NaN from a NaN or an infinity on
        }
        if (check != 0.0f)
            job->bad[stripe] = i;
    }
}

// The largest over rows [row0, row1), for all of them.
static void share(const nyb_qweight *q, size_t row0, size_t row1)
{
    for (size_t g = 0; g < q->groups; g++) {
        float most = 0.0f;
        for (size_t i = row0; i < row1; i++)
            most = fmaxf(most, q->scales[i * q->groups + g]);
        for (size_t i = row0; i < row1; i++)
            q->scales[i * q->groups + g] = most;
    }
}

// What is clipped of rows [row0, row1), all alike if `shared`: replaces the largest magnitudes.
static void clip(const float8_job *job, size_t row0, size_t row1, bool shared)
{
    const nyb_qweight *const q = job->out;
    const nyb_rounding_to rounding = {.kind = q->kind, .top = job->largest};
    for (size_t g = 0; g < q->groups; g++) {
        const size_t col0 = g * q->group_size, left = q->cols - col0;
        nyb_observer seen = {0};
        for (size_t i = row0; i < row1; i++) {
            nyb_observer_add(&seen, nyb_row(job->w, i) + col0,
                             left < q->group_size ? left : q->group_size, 1);
            if (shared && i + 1 < row1)
                continue;
            const float range = nyb_observer_range(&seen, &job->params->range, rounding);
            for (size_t k = shared ? row0 : i; k <= i; k++)
                q->scales[k * q->groups + g] = range;
            seen = (nyb_observer){0};
        }
    }
}

static float scale_of(const float8_job *job, float most)
{
    const nyb_dtype dtype = job->params->scale_dtype;
    return most > 0.0f ? nyb_grid_storable((double) most / (double) job->largest, dtype) : 1.0f;
}

static void encode(void *arg, size_t stripe, unsigned worker)
{
    enum { SOME = 512 };
    const float8_job *const job = arg;
    const nyb_qweight *const q = job->out;
    const size_t row0 = stripe * NYB_FLOAT8_BLOCK, end = stripe_end(job, row0);
    const nyb_dtype dtype = nyb_code_dtype(q->kind);
    float values[SOME];
    (void) worker;
    const bool shared = q->scale_rows > 1;
    if (shared && q->scale_rows != SIZE_MAX)
        share(q, row0, end);
    if (job->params->range.kind != NYB_RANGE_ABSMAX && q->scale_rows != SIZE_MAX)
        clip(job, row0, end, shared);
    for (size_t i = row0; i < end; i++) {
        float *const scales = q->scales + i * q->groups;
        for (size_t g = 0; g < q->groups; g++)
            scales[g] = scale_of(job, scales[g]);
        for (size_t j = 0; j < q->cols; j += SOME) {
            const size_t some = q->cols - j < SOME ? q->cols - j : SOME;
            for (size_t k = 0; k < some; k++)
                values[k] = nyb_clamp(nyb_row(job->w, i)[j + k] / scales[(j + k) / q->group_size],
                                      -job->largest, job->largest);
            nyb_narrow(q->codes + i * q->cols + j, dtype, values, some);
        }
    }
}

static nyb_status report(const float8_job *job, size_t stripes, nyb_err *err)
{
    for (size_t s = 0; s < stripes; s++) {
        if (job->bad[s] == SIZE_MAX)
            continue;
        const float *const row = nyb_row(job->w, job->bad[s]);
        size_t j = 0;
        while (isfinite(row[j]))
            j++;
        return nyb_fail(err, NYB_E_NUMERIC, "weight (%zu, %zu) is %g", job->bad[s], j,
                        (double) row[j]);
    }
    return NYB_OK;
}

static nyb_status round_all(const nyb_context *ctx, float8_job *job, nyb_err *err)
{
    const size_t stripes = (job->w.rows + NYB_FLOAT8_BLOCK - 1) / NYB_FLOAT8_BLOCK;
    job->bad = nyb_alloc(stripes, sizeof(*job->bad));
    if (!job->bad)
        return nyb_no_memory(err, "stripes of rows", stripes, sizeof(*job->bad));
    nyb_parallel(ctx, stripes, measure, job);
    const nyb_status status = report(job, stripes, err);
    nyb_free(job->bad);
    if (status != NYB_OK)
        return status;
    if (job->out->scale_rows == SIZE_MAX)
        share(job->out, 0, job->w.rows);
    if (job->out->scale_rows == SIZE_MAX && job->params->range.kind != NYB_RANGE_ABSMAX)
        clip(job, 0, job->w.rows, true);
    nyb_parallel(ctx, stripes, encode, job);
    for (size_t k = 0; k < job->w.rows * job->out->groups; k++) {
        if (!isfinite(job->out->scales[k]))
            return nyb_fail(err, NYB_E_NUMERIC,
                            "row %zu, group %zu needs a scale too large for %s: choose a wider "
                            "scale type",
                            k / job->out->groups, k % job->out->groups,
                            nyb_dtype_name(job->params->scale_dtype));
    }
    return NYB_OK;
}

static nyb_status check(const nyb_float8_params *params, nyb_err *err)
{
    if (params->kind != NYB_CODE_E4M3 && params->kind != NYB_CODE_E5M2)
        return nyb_fail(err, NYB_E_ARG, "codes of kind '%s', want e4m3 or e5m2",
                        nyb_code_kind_name(params->kind));
    if ((unsigned) params->range.kind >= NYB_RANGE_COUNT ||
        !(params->range.percentile >= 0.0 && params->range.percentile <= 100.0))
        return nyb_fail(err, NYB_E_ARG, "range is %d, its percentile %g", (int) params->range.kind,
                        params->range.percentile);
    if ((unsigned) params->scales > NYB_SCALES_BLOCK)
        return nyb_fail(err, NYB_E_ARG, "scales are %d", (int) params->scales);
    if (!nyb_dtype_is_float(params->scale_dtype))
        return nyb_fail(err, NYB_E_ARG, "scales cannot be stored as %s, want F32, F16 or BF16",
                        nyb_dtype_name(params->scale_dtype));
    return NYB_OK;
}

nyb_status nyb_round_float8(const nyb_context *ctx, nyb_qweight *out, nyb_mat w,
                            const nyb_float8_params *params, nyb_err *err)
{
    const bool blocks = params->scales == NYB_SCALES_BLOCK;
    *out = (nyb_qweight){0};
    nyb_status status = check(params, err);
    if (status == NYB_OK)
        status = nyb_qweight_init(out, w.rows, w.cols, 8,
                                  blocks && w.cols > NYB_FLOAT8_BLOCK ? NYB_FLOAT8_BLOCK : 0, err);
    if (status != NYB_OK)
        return status;
    out->kind = params->kind;
    out->scale_rows = blocks                                ? NYB_FLOAT8_BLOCK
                      : params->scales == NYB_SCALES_TENSOR ? SIZE_MAX
                                                            : 0;
    out->symmetric = true;
    out->scale_dtype = params->scale_dtype;
    float8_job job = {.w = w,
                      .params = params,
                      .out = out,
                      .largest = params->kind == NYB_CODE_E4M3 ? 448.0f : 57344.0f};
    status = round_all(ctx, &job, err);
    if (status != NYB_OK)
        nyb_qweight_clear(out);
    return status;
}
