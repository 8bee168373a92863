#include "calib/observe.h"

#include <math.h>
#include <string.h>

#include "calib/activations.h"
#include "calib/room.h"
#include "core/log.h"
#include "core/threads.h"
#include "kernels/vector.h"
#include "model/forward.h"

enum {
    ROWS = 64,            // tokens of one task
    CHUNK_TOKENS = 16384, // that go through the model together at most
};

typedef struct observation {
    const nyb_context *ctx;
    nyb_observed *out;
    const nyb_samples *samples;
    nyb_batch batch;
    nyb_block_weights weights;
    nyb_observer *seen; // [workers] of the stage at hand
    float *rows;        // [workers, ROWS * widest input]
    size_t widest;
    size_t first; // sample of the chunk
    size_t stage;
    nyb_status *bad; // [workers]
} observation;

static void observe_rows(void *arg, size_t index, unsigned worker)
{
    observation *const o = arg;
    const nyb_batch *const batch = &o->batch;
    const size_t width = nyb_stage_at(batch->model, o->weights.index, o->stage).width;
    const size_t all = nyb_stage_rows(batch, &o->weights, o->stage), row0 = index * ROWS;
    const size_t rows = all - row0 < ROWS ? all - row0 : ROWS;
    const uint32_t *const tokens = nyb_stage_tokens(batch, &o->weights, o->stage);
    const unsigned char *const marks =
        o->samples->marks ? o->samples->marks + o->first * o->samples->length : NULL;
    const nyb_mat in = nyb_mat_of(o->rows + worker * ROWS * o->widest, rows, width);
    nyb_stage_input(batch, &o->weights, o->stage, row0, in);
    if (nyb_vector_ops_get()->first_not_finite(in.at, rows * width) < rows * width) {
        o->bad[worker] = NYB_E_NUMERIC;
        return;
    }
    for (size_t i = 0; i < rows; i++) {
        if (!marks || marks[tokens ? tokens[row0 + i] : row0 + i])
            nyb_observer_add(&o->seen[worker], nyb_row(in, i), width, 1);
    }
}

static nyb_status observe_stage(observation *o, nyb_err *err)
{
    const unsigned workers = nyb_threads(o->ctx);
    const size_t rows = nyb_stage_rows(&o->batch, &o->weights, o->stage);
    const nyb_stage stage = nyb_stage_at(o->batch.model, o->weights.index, o->stage);
    nyb_observer *const to = &o->out->stages[o->out->first[o->weights.index] + o->stage];
    memset(o->seen, 0, workers * sizeof(*o->seen));
    nyb_parallel(o->ctx, (rows + ROWS - 1) / ROWS, observe_rows, o);
    for (unsigned w = 0; w < workers; w++) {
        if (o->bad[w] != NYB_OK)
            return nyb_fail(err, o->bad[w], "%s: an input of '%s' is not a number",
                            nyb_model_folder(o->batch.model),
                            nyb_linear_at(o->batch.model, o->weights.index, stage.first)->module);
        nyb_observer_merge(to, &o->seen[w]);
    }
    return NYB_OK;
}

static nyb_status observe_blocks(observation *o, nyb_err *err)
{
    const nyb_model *const model = o->batch.model;
    const uint32_t *const ids = o->samples->ids + o->first * o->samples->length;
    nyb_status status = nyb_embed(o->ctx, &o->batch, ids, err);
    for (size_t b = 0; status == NYB_OK && b < nyb_block_count(model); b++) {
        status = nyb_block_weights_load(o->ctx, &o->weights, b, err);
        for (o->stage = 0; status == NYB_OK && o->stage < nyb_stage_count(model, b); o->stage++) {
            status = observe_stage(o, err);
            if (status == NYB_OK)
                nyb_stage_run(o->ctx, &o->weights, o->stage, &o->batch);
        }
    }
    return status;
}

// How many samples go through the model together, under the ceiling.
static nyb_status choose_chunk(const observation *o, const nyb_model *model, size_t *most,
                               nyb_err *err)
{
    const size_t length = o->samples->length, workers = nyb_threads(o->ctx);
    const size_t observers = workers + o->out->first[nyb_block_count(model)];
    nyb_room room = {
        .weights = nyb_block_weights_stored_bytes(model),
        .other = NYB_PROGRAM_BYTES + observers * sizeof(nyb_observer) +
                 workers * ROWS * o->widest * sizeof(float) + o->samples->count * length * 5,
    };
    *most = CHUNK_TOKENS / length ? CHUNK_TOKENS / length : 1;
    *most = *most < o->samples->count ? *most : o->samples->count;
    *most =
        nyb_activations_fit(o->ctx, model, *most, length, NYB_F32, nyb_room_left(o->ctx, &room));
    room.activations = nyb_activations_memory(o->ctx, model, *most, length, NYB_F32);
    return nyb_room_check(o->ctx, &room, err);
}

static nyb_status observe_chunks(observation *o, nyb_model *model, nyb_err *err)
{
    const size_t length = o->samples->length;
    size_t most = 0;
    nyb_status status = choose_chunk(o, model, &most, err);
    for (o->first = 0; status == NYB_OK && o->first < o->samples->count;) {
        const size_t left = o->samples->count - o->first, some = left < most ? left : most;
        status = nyb_batch_init_even(&o->batch, o->ctx, model, some, length, err);
        if (status == NYB_OK)
            status = observe_blocks(o, err);
        nyb_batch_clear(&o->batch);
        o->first += some;
        nyb_step(o->ctx, &(nyb_progress){.stage = "observe",
                                         .unit = "samples",
                                         .done = o->first,
                                         .total = o->samples->count});
    }
    return status;
}

static nyb_status make_room(nyb_observed *out, nyb_model *model, size_t *widest, nyb_err *err)
{
    const size_t blocks = nyb_block_count(model);
    out->model = model;
    out->first = nyb_alloc(blocks + 1, sizeof(*out->first));
    for (size_t b = 0; out->first && b < blocks; b++) {
        const size_t stages = nyb_stage_count(model, b);
        out->first[b + 1] = out->first[b] + stages;
        for (size_t s = 0; s < stages; s++) {
            const size_t width = nyb_stage_at(model, b, s).width;
            *widest = width > *widest ? width : *widest;
        }
    }
    if (out->first)
        out->stages = nyb_alloc(out->first[blocks], sizeof(*out->stages));
    return out->stages ? NYB_OK : nyb_no_memory(err, "observers", blocks, sizeof(*out->stages));
}

nyb_status nyb_observe(const nyb_context *ctx, nyb_observed *out, nyb_model *model,
                       const nyb_samples *samples, nyb_err *err)
{
    observation o = {.ctx = ctx, .out = out, .samples = samples};
    const unsigned workers = nyb_threads(ctx);
    *out = (nyb_observed){0};
    nyb_status status = make_room(out, model, &o.widest, err);
    if (status == NYB_OK)
        status = nyb_block_weights_init_stored(&o.weights, model, err);
    if (status == NYB_OK) {
        o.seen = nyb_alloc(workers, sizeof(*o.seen));
        o.bad = nyb_alloc(workers, sizeof(*o.bad));
        o.rows = nyb_alloc_raw(workers * ROWS, o.widest * sizeof(float));
        status = o.seen && o.bad && o.rows ? observe_chunks(&o, model, err)
                                           : nyb_no_memory(err, "inputs", workers, o.widest);
    }
    nyb_block_weights_clear(&o.weights);
    nyb_free(o.seen);
    nyb_free(o.bad);
    nyb_free(o.rows);
    if (status != NYB_OK)
        nyb_observed_clear(out);
    return status;
}

void nyb_observed_clear(nyb_observed *observed)
{
    nyb_free(observed->first);
    nyb_free(observed->stages);
    *observed = (nyb_observed){0};
}

const nyb_observer *nyb_observed_of(const nyb_observed *observed, size_t block, size_t linear)
{
    const size_t count = nyb_stage_count(observed->model, block);
    for (size_t s = 0; s < count; s++) {
        const nyb_stage stage = nyb_stage_at(observed->model, block, s);
        if (linear >= stage.first && linear < stage.first + stage.count)
            return &observed->stages[observed->first[block] + s];
    }
    return NULL;
}
