// What the walk holds, known before it begins.
#include "calib/beside.h"
#include "calib/pass.h"
#include "calib/walk.h"
#include "core/threads.h"
#include "gptq/refine.h"

// What refinement takes for one layer, lines of its row tiles apart.
static size_t refine_bytes(const nyb_job_layer *layer)
{
    if (!nyb_job_calibrates(layer) || layer->settings.refine == 0)
        return 0;
    return nyb_gptq_refine_bytes(layer->linear->cols, nyb_layout_groups(&layer->spec));
}

// What the activations take of `left` bytes, 0: no limit.
static void fit_activations(const nyb_context *ctx, const nyb_job *job, size_t left,
                            nyb_walk_bytes *bytes)
{
    const nyb_samples *const s = &job->samples;
    const bool two = job->params->objective == NYB_OBJECTIVE_MODEL;
    // The small difference of two passes' inputs would be lost in their rounding to bf16.
    const nyb_dtype kept = two ? NYB_F32 : nyb_batch_operands(ctx, job->model);
    const size_t chunk =
        two ? nyb_beside_fit(ctx, job, left)
            : nyb_activations_fit(ctx, job->model, s->count, s->length, kept, left);
    bytes->chunk_samples = chunk;
    bytes->operands = kept;
    bytes->room.activations = nyb_activations_memory(ctx, job->model, chunk, s->length, kept);
    bytes->spilled = nyb_activations_spill(job->model, chunk, s->count, s->length, kept);
    if (!two)
        return;
    const size_t other = nyb_beside_count(job, chunk), all = nyb_beside_count(job, s->count);
    bytes->room.activations += nyb_activations_memory(ctx, job->model, other, s->length, kept);
    bytes->spilled += nyb_activations_spill(job->model, other, all, s->length, kept);
}

bool nyb_walk_needs_blocks(const nyb_job *job)
{
    return job->forward || job->hessians;
}

nyb_walk_bytes nyb_walk_memory(const nyb_context *ctx, const nyb_job *job)
{
    const size_t width = nyb_pass_width(job->model);
    const nyb_samples *const s = &job->samples;
    nyb_walk_bytes bytes = {0};
    nyb_room *const room = &bytes.room;
    size_t largest = 0, refined = 0, outer = 0;
    for (size_t i = 0; i < job->count; i++) {
        const size_t more = refine_bytes(&job->layers[i]);
        refined = more > refined ? more : refined;
        const size_t size = job->layers[i].linear->rows * job->layers[i].linear->cols;
        largest = size > largest ? size : largest;
    }
    for (size_t i = job->count; i < job->count + job->outer; i++) {
        const size_t size = job->layers[i].linear->rows * job->layers[i].linear->cols;
        largest = size > largest ? size : largest;
        outer = size > outer ? size : outer;
    }
    room->weights = nyb_block_weights_bytes(job->model) + nyb_model_outer_bytes(job->model);
    if (room->weights < outer * sizeof(float)) // in the blocks' place
        room->weights = outer * sizeof(float);
    if (!nyb_walk_needs_blocks(job))
        room->weights = largest * sizeof(float);
    // The codes and their packed copy, the solver's working copies of a row tile for each thread.
    const size_t lines = refined > 0 ? 7 : 1;
    room->other = NYB_PROGRAM_BYTES + 3 * largest + nyb_threads(ctx) * lines * 4 * 64 * width;
    room->other += NYB_UNIT_TOKENS * width * sizeof(float) + s->count * s->length * 5;
    if (!job->calibrated && !job->hessians)
        return bytes;
    room->hessians =
        2 * width * width * sizeof(float) + nyb_hessian_loss_bytes(ctx, width) + refined;
    if (!job->forward)
        return bytes;
    room->hessians += nyb_hessian_scratch(ctx, width, NYB_UNIT_TOKENS);
    if (job->params->objective == NYB_OBJECTIVE_MODEL)
        room->other += nyb_beside_bytes(ctx, job);
    fit_activations(ctx, job, nyb_room_left(ctx, room), &bytes);
    return bytes;
}
