#include "calib/beside.h"

#include "core/memory.h"
#include "core/threads.h"

nyb_status nyb_beside_open(nyb_beside *out, nyb_pass *main, const nyb_job *job,
                           const nyb_pass_params *params, nyb_err *err)
{
    *out = (nyb_beside){.strength = job->params->objective_strength};
    const nyb_status status = nyb_pass_open(&out->pass, main->ctx, job->model, params, err);
    if (status == NYB_OK)
        main->beside = &out->pass;
    return status;
}

void nyb_beside_close(nyb_beside *beside)
{
    nyb_beside_end(beside);
    nyb_pass_close(&beside->pass);
}

nyb_status nyb_beside_start(nyb_beside *beside, size_t blocks, nyb_err *err)
{
    nyb_status status = nyb_pass_embed(&beside->pass, err);
    for (size_t b = 0; status == NYB_OK && b < blocks; b++) {
        status = nyb_block_weights_load(beside->pass.ctx, &beside->pass.weights, b, err);
        if (status == NYB_OK)
            status = nyb_pass_block(&beside->pass, err);
    }
    return status;
}

nyb_status nyb_beside_begin(nyb_beside *beside, size_t width, nyb_err *err)
{
    nyb_beside_end(beside);
    beside->cross = nyb_mat_of(nyb_alloc(width, width * sizeof(float)), width, width);
    return beside->cross.at ? NYB_OK
                            : nyb_no_memory(err, "a cross-moment", width, width * sizeof(float));
}

typedef struct difference {
    nyb_mat x, y;
} difference;

static void subtract_rows(void *arg, size_t row, unsigned worker)
{
    const difference *const d = arg;
    float *const y = nyb_row(d->y, row);
    const float *const x = nyb_row(d->x, row);
    (void) worker;
    for (size_t j = 0; j < d->x.cols; j++)
        y[j] -= x[j];
}

void nyb_beside_add(nyb_beside *beside, nyb_mat x)
{
    difference d = {.x = x, .y = nyb_mat_of(beside->pass.tile, x.rows, x.cols)};
    nyb_parallel(beside->pass.ctx, x.rows, subtract_rows, &d);
    nyb_cross_add(beside->pass.ctx, beside->cross, x, d.y);
}

void nyb_beside_end(nyb_beside *beside)
{
    nyb_free(beside->cross.at);
    beside->cross = (nyb_mat){0};
}

nyb_status nyb_beside_target(const nyb_beside *beside, const nyb_gptq_factor *factor, nyb_mat w,
                             nyb_mat *out, nyb_err *err)
{
    *out = nyb_mat_of(nyb_alloc_raw(w.rows * w.cols, sizeof(float)), w.rows, w.cols);
    if (!out->at)
        return nyb_no_memory(err, "a target", w.rows, w.cols * sizeof(float));
    const nyb_status status =
        nyb_gptq_target(beside->pass.ctx, factor, w, beside->cross, beside->strength, *out, err);
    if (status != NYB_OK) {
        nyb_free(out->at);
        *out = (nyb_mat){0};
    }
    return status;
}

size_t nyb_beside_bytes(const nyb_context *ctx, const nyb_job *job)
{
    const size_t width = nyb_pass_width(job->model);
    size_t largest = 0;
    for (size_t i = 0; i < job->count; i++) {
        const size_t size = job->layers[i].linear->rows * job->layers[i].linear->cols;
        largest = size > largest ? size : largest;
    }
    // Weights, target, cross-moment, a copy of the factor, tiles of rows.
    const size_t floats =
        largest + 2 * width * width + NYB_UNIT_TOKENS * width + nyb_threads(ctx) * 2 * 64 * width;
    return nyb_block_weights_bytes(job->model) + floats * sizeof(float);
}
