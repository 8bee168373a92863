#include "calib/beside.h"

#include <string.h>

#include "core/memory.h"

// ---- Samples --------------------------------------------------------------------------------

size_t nyb_beside_unit(const nyb_job *job)
{
    return job->params->objective_step * nyb_activations_unit(job->samples.length);
}

size_t nyb_beside_count(const nyb_job *job, size_t samples)
{
    const size_t unit = nyb_activations_unit(job->samples.length), step = nyb_beside_unit(job);
    const size_t rest = samples % step;
    return samples / step * unit + (rest < unit ? rest : unit);
}

static size_t both_bytes(const nyb_context *ctx, const nyb_job *job, size_t chunk)
{
    const size_t length = job->samples.length;
    return nyb_activations_memory(ctx, job->model, chunk, length, NYB_F32) +
           nyb_activations_memory(ctx, job->model, nyb_beside_count(job, chunk), length, NYB_F32);
}

size_t nyb_beside_fit(const nyb_context *ctx, const nyb_job *job, size_t bytes)
{
    const size_t step = nyb_beside_unit(job), all = job->samples.count;
    size_t chunk = step;
    if (all <= step || bytes == 0 || both_bytes(ctx, job, all) <= bytes)
        return all;
    while (chunk + step < all && both_bytes(ctx, job, chunk + step) <= bytes)
        chunk += step;
    return chunk;
}

// Every step-th unit of the job's samples, from the first one on.
static nyb_status choose_samples(nyb_beside *b, const nyb_job *job, nyb_err *err)
{
    const nyb_samples *const all = &job->samples;
    const size_t unit = nyb_activations_unit(all->length), step = nyb_beside_unit(job);
    const size_t count = nyb_beside_count(job, all->count), length = all->length;
    b->samples = (nyb_samples){.count = count, .length = length, .begins = all->begins};
    b->samples.ids = nyb_arena_alloc(&b->samples.arena, count * length, sizeof(*all->ids));
    if (all->marks)
        b->samples.marks = nyb_arena_alloc(&b->samples.arena, count * length, 1);
    if (!b->samples.ids || (all->marks && !b->samples.marks))
        return nyb_no_memory(err, "samples", count, length);
    for (size_t i = 0; i < count; i++) {
        const size_t from = (i / unit * step + i % unit) * length, to = i * length;
        memcpy(b->samples.ids + to, all->ids + from, length * sizeof(*all->ids));
        if (all->marks)
            memcpy(b->samples.marks + to, all->marks + from, length);
    }
    return NYB_OK;
}

// ---- The pass -------------------------------------------------------------------------------

nyb_status nyb_beside_open(nyb_beside *out, nyb_pass *main, const nyb_job *job,
                           const nyb_pass_params *params, nyb_err *err)
{
    nyb_pass_params own = *params;
    *out = (nyb_beside){.strength = job->params->objective_strength};
    own.samples = &out->samples;
    own.chunk_samples = nyb_beside_count(job, params->chunk_samples);
    own.stored = true; // nobody overwrites these weights
    nyb_status status = choose_samples(out, job, err);
    if (status == NYB_OK)
        status = nyb_pass_open(&out->pass, main->ctx, job->model, &own, err);
    if (status != NYB_OK) {
        nyb_beside_close(out);
        return status;
    }
    main->beside = &out->pass;
    main->beside_step = job->params->objective_step;
    return NYB_OK;
}

void nyb_beside_close(nyb_beside *beside)
{
    nyb_beside_end(beside);
    nyb_pass_close(&beside->pass);
    nyb_samples_close(&beside->samples);
}

nyb_status nyb_beside_load(nyb_beside *beside, size_t block, nyb_err *err)
{
    return nyb_block_weights_load(beside->pass.ctx, &beside->pass.weights, block, err);
}

nyb_status nyb_beside_start(nyb_beside *beside, size_t blocks, nyb_err *err)
{
    nyb_status status = nyb_pass_embed(&beside->pass, err);
    for (size_t b = 0; status == NYB_OK && b < blocks; b++) {
        status = nyb_beside_load(beside, b, err);
        if (status == NYB_OK)
            status = nyb_pass_block(&beside->pass, err);
    }
    return status;
}

// ---- The sum --------------------------------------------------------------------------------

nyb_status nyb_beside_begin(nyb_beside *beside, size_t width, nyb_err *err)
{
    nyb_beside_end(beside);
    beside->cross = nyb_mat_of(nyb_alloc(width, width * sizeof(float)), width, width);
    return beside->cross.at ? NYB_OK
                            : nyb_no_memory(err, "a cross-moment", width, width * sizeof(float));
}

void nyb_beside_end(nyb_beside *beside)
{
    nyb_free(beside->cross.at);
    beside->cross = (nyb_mat){0};
    beside->tokens = 0;
}

nyb_status nyb_beside_add(nyb_beside *beside, nyb_hessian *hessian, const nyb_pass_rows *rows,
                          nyb_err *err)
{
    beside->tokens += rows->again ? 0 : rows->x.rows;
    return nyb_hessian_add_cross(beside->pass.ctx, hessian, rows->x, beside->cross, rows->off, err);
}

nyb_status nyb_beside_target(const nyb_beside *beside, const nyb_gptq_factor *factor, nyb_mat w,
                             nyb_mat *out, nyb_err *err)
{
    // Where none of its tokens counts, the sum is zero.
    const double share = beside->tokens ? (double) factor->tokens / (double) beside->tokens : 1.0;
    *out = nyb_mat_of(nyb_alloc_raw(w.rows * w.cols, sizeof(float)), w.rows, w.cols);
    if (!out->at)
        return nyb_no_memory(err, "a target", w.rows, w.cols * sizeof(float));
    const nyb_status status = nyb_gptq_target(beside->pass.ctx, factor, w, beside->cross,
                                              beside->strength * share, *out, err);
    if (status != NYB_OK) {
        nyb_free(out->at);
        *out = (nyb_mat){0};
    }
    return status;
}

size_t nyb_beside_bytes(const nyb_context *ctx, const nyb_job *job)
{
    const size_t width = nyb_pass_width(job->model);
    const size_t target = nyb_gptq_target_bytes(ctx, width);
    const size_t loss = nyb_hessian_loss_bytes(ctx, width); // not at the same time
    size_t largest = 0;
    for (size_t i = 0; i < job->count; i++) {
        const size_t size = job->layers[i].linear->rows * job->layers[i].linear->cols;
        largest = size > largest ? size : largest;
    }
    // The target, the cross-moment, a tile of rows.
    const size_t floats = largest + width * width + NYB_UNIT_TOKENS * width;
    return nyb_block_weights_stored_bytes(job->model) + floats * sizeof(float) +
           nyb_hessian_scratch(ctx, width, NYB_UNIT_TOKENS) + (target > loss ? target - loss : 0) +
           nyb_beside_count(job, job->samples.count) * job->samples.length * 5;
}
