#include "eval/point_histogram.h"

#include <math.h>

#include "core/memory.h"
#include "eval/report_data.h"

// ---- Weights --------------------------------------------------------------------------------

enum { BINS = 96 }; // even, and a multiple of 4: halves of bins are merged in pairs

// Counts of values in [-top, top), for a top that is a power of two and grows with them.
typedef struct spread {
    double top; // 0: nothing was counted yet
    double counts[BINS];
} spread;

// Doubles top: two bins become one.
static void grow(spread *s)
{
    double merged[BINS] = {0};
    for (size_t i = 0; i < BINS; i++)
        merged[BINS / 4 + i / 2] += s->counts[i];
    for (size_t i = 0; i < BINS; i++)
        s->counts[i] = merged[i];
    s->top *= 2.0;
}

static void count(spread *s, const float *values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const double v = (double) values[i];
        if (!isfinite(v)) // no top is above it
            continue;
        if (s->top == 0.0)
            s->top = 0x1p-20;
        while (!(v >= -s->top && v < s->top))
            grow(s);
        s->counts[(size_t) ((v / s->top + 1.0) * (BINS / 2))] += 1.0;
    }
}

static json_t *describe(const char *kind, double low, double high, const double *counts, size_t n)
{
    json_t *const list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_integer((json_int_t) counts[i]));
    return json_pack("{s:s, s:f, s:f, s:o}", "kind", kind, "low", low, "high", high, "counts",
                     list);
}

typedef struct looking {
    const nyb_model *model;
    nyb_report_data kinds; // of the layers
    spread *spreads;       // [kinds]
    size_t count, room;    // of spreads
    nyb_err *err;
} looking;

static spread *spread_of(looking *l, size_t kind)
{
    if (kind >= l->room) {
        spread *const more = nyb_arena_alloc(&l->kinds.arena, 2 * kind + 8, sizeof(*more));
        for (size_t i = 0; more && i < l->count; i++)
            more[i] = l->spreads[i];
        l->spreads = more;
        l->room = more ? 2 * kind + 8 : 0;
    }
    l->count = kind >= l->count ? kind + 1 : l->count;
    return l->spreads ? &l->spreads[kind] : NULL;
}

static nyb_status count_linear(looking *l, const nyb_linear *linear)
{
    size_t kind = 0, block = 0;
    const nyb_status status = nyb_report_place(&l->kinds, linear->module, &kind, &block, l->err);
    spread *const to = status == NYB_OK ? spread_of(l, kind) : NULL;
    if (!to)
        return status != NYB_OK ? status : nyb_no_memory(l->err, "histograms", 1, sizeof(spread));
    float *const values = nyb_alloc_raw(linear->rows * linear->cols, sizeof(*values));
    if (!values)
        return nyb_no_memory(l->err, linear->module, linear->rows * linear->cols, sizeof(float));
    const nyb_status read =
        nyb_linear_read(l->model, linear, nyb_mat_of(values, linear->rows, linear->cols), l->err);
    if (read == NYB_OK)
        count(to, values, linear->rows * linear->cols);
    nyb_free(values);
    return read;
}

nyb_status nyb_histogram_weights(json_t **out, const nyb_model *model, nyb_err *err)
{
    looking l = {.model = model, .err = err};
    nyb_status status = NYB_OK;
    *out = json_array();
    for (size_t b = 0; b < nyb_block_count(model); b++) {
        for (size_t i = 0; status == NYB_OK && i < nyb_linear_count(model, b); i++)
            status = count_linear(&l, nyb_linear_at(model, b, i));
    }
    nyb_report_shorten(&l.kinds);
    for (size_t k = 0; status == NYB_OK && k < l.count; k++)
        json_array_append_new(*out, describe(l.kinds.kinds[k].shown, -l.spreads[k].top,
                                             l.spreads[k].top, l.spreads[k].counts, BINS));
    nyb_report_clear(&l.kinds);
    return status;
}

// ---- Scales ---------------------------------------------------------------------------------

// Quarters of octaves: the same bounds for every checkpoint, so that they can be compared.
enum { LOWEST = -64, HIGHEST = 64, STEPS = 4, OCTAVES = (HIGHEST - LOWEST) * STEPS };

static void count_scales(double *counts, const nyb_qweight *q)
{
    for (size_t i = 0; i < q->rows * q->groups; i++) {
        const double place = (log2(fabs((double) q->scales[i])) - LOWEST) * STEPS;
        if (place >= 0.0 && place < OCTAVES)
            counts[(size_t) place] += 1.0;
    }
}

static nyb_status count_packed(double *counts, const nyb_model *model, const nyb_linear *linear,
                               nyb_err *err)
{
    nyb_qweight q;
    if (!linear->quantized)
        return NYB_OK;
    const nyb_status status =
        nyb_quantization_read(&q, nyb_model_quantization(model), nyb_model_checkpoint(model),
                              linear->module, linear->rows, linear->cols, err);
    if (status != NYB_OK)
        return status;
    count_scales(counts, &q);
    nyb_qweight_clear(&q);
    return NYB_OK;
}

nyb_status nyb_histogram_scales(json_t **out, const nyb_model *model, nyb_err *err)
{
    double counts[OCTAVES] = {0};
    size_t first = OCTAVES, last = 0;
    nyb_status status = NYB_OK;
    *out = NULL;
    for (size_t b = 0; b < nyb_block_count(model); b++) {
        for (size_t i = 0; status == NYB_OK && i < nyb_linear_count(model, b); i++)
            status = count_packed(counts, model, nyb_linear_at(model, b, i), err);
    }
    for (size_t i = 0; i < OCTAVES; i++) {
        first = counts[i] > 0.0 && first == OCTAVES ? i : first;
        last = counts[i] > 0.0 ? i + 1 : last;
    }
    if (status != NYB_OK || last == 0)
        return status;
    *out = json_array();
    json_array_append_new(*out,
                          describe("all", LOWEST + (double) first / STEPS,
                                   LOWEST + (double) last / STEPS, counts + first, last - first));
    return NYB_OK;
}
