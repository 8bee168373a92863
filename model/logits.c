#include "nybble/logits.h"

#include "core/arena.h"
#include "core/log.h"
#include "formats/ids.h"
#include "formats/npy.h"
#include "model/forward.h"

enum {
    LOGITS_TOKENS = 256,          // of one call of the head
    ACTIVATION_BYTES = 512 << 20, // of samples that run together, without a ceiling
};

typedef struct logits_run {
    const nyb_context *ctx;
    const nyb_model *model;
    nyb_ids ids;
    size_t together; // samples
    nyb_block_weights weights;
    nyb_batch batch;
    size_t width; // of a row: the vocabulary, a classifier's labels, or an encoder's states
    nyb_mat tile; // [LOGITS_TOKENS, width]
    nyb_npy_writer *writer;
} logits_run;

static size_t width_of(const nyb_model_config *config)
{
    return config->labels ? config->labels : config->bare ? config->hidden : config->vocab;
}

static bool is_classifier(const logits_run *r)
{
    return nyb_model_config_of(r->model)->labels > 0;
}

// How many samples fit the ceiling beside the weights of a block and a tile of logits.
static nyb_status plan(logits_run *r, nyb_err *err)
{
    const nyb_context *const ctx = r->ctx;
    const size_t rows = r->ids.length < LOGITS_TOKENS ? r->ids.length : LOGITS_TOKENS;
    const size_t fixed = nyb_block_weights_stored_bytes(r->model) + rows * r->width * sizeof(float);
    const size_t ceiling =
        ctx && ctx->memory_bytes ? ctx->memory_bytes : fixed + (size_t) ACTIVATION_BYTES;
    const size_t one = nyb_batch_bytes(ctx, r->model, 1, r->ids.length, r->ids.length);
    if (ctx && ctx->memory_bytes && (fixed > ceiling || one > ceiling - fixed))
        return nyb_fail(err, NYB_E_NOMEM,
                        "one sample of %zu tokens takes %zu bytes, the ceiling is %zu",
                        r->ids.length, one < SIZE_MAX - fixed ? one + fixed : SIZE_MAX, ceiling);
    r->together = 1;
    while (r->together < r->ids.samples &&
           nyb_batch_bytes(ctx, r->model, r->together + 1, (r->together + 1) * r->ids.length,
                           r->ids.length) <= ceiling - fixed)
        r->together++;
    return NYB_OK;
}

static nyb_status append(logits_run *r, size_t rows, nyb_err *err)
{
    return nyb_npy_append(r->writer, r->tile.at, rows * r->width * sizeof(float), err);
}

static nyb_status write_classes(logits_run *r, nyb_err *err)
{
    nyb_mat out = r->tile;
    out.rows = r->batch.samples;
    const nyb_status status = nyb_classify(r->ctx, &r->batch, out, err);
    return status == NYB_OK ? append(r, out.rows, err) : status;
}

// The last states as they lie in the batch.
static nyb_status write_states(logits_run *r, nyb_err *err)
{
    nyb_status status = NYB_OK;
    for (size_t t = 0; t < r->batch.tokens && status == NYB_OK; t++)
        status = nyb_npy_append(r->writer, nyb_row(r->batch.x, t), r->width * sizeof(float), err);
    return status;
}

static nyb_status write_logits(logits_run *r, nyb_err *err)
{
    for (size_t t = 0; t < r->batch.tokens; t += r->tile.rows) {
        const size_t left = r->batch.tokens - t;
        const size_t rows = left < r->tile.rows ? left : r->tile.rows;
        nyb_status status =
            nyb_head(r->ctx, &r->batch, t, nyb_block(r->tile, 0, rows, 0, r->tile.cols), err);
        if (status == NYB_OK)
            status = append(r, rows, err);
        if (status != NYB_OK)
            return status;
    }
    return NYB_OK;
}

static nyb_status run_samples(logits_run *r, nyb_err *err)
{
    for (size_t s = 0; s < r->ids.samples; s += r->together) {
        const size_t left = r->ids.samples - s;
        const size_t samples = left < r->together ? left : r->together;
        nyb_batch_clear(&r->batch);
        nyb_status status =
            nyb_batch_init_even(&r->batch, r->ctx, r->model, samples, r->ids.length, err);
        if (status == NYB_OK)
            status = nyb_forward(r->ctx, &r->batch, &r->weights, r->ids.at + s * r->ids.length,
                                 "logits", err);
        if (status == NYB_OK)
            status = nyb_model_config_of(r->model)->bare ? write_states(r, err)
                     : is_classifier(r)                  ? write_classes(r, err)
                                                         : write_logits(r, err);
        if (status != NYB_OK)
            return status;
    }
    return nyb_npy_finish(r->writer, err);
}

static nyb_status prepare(logits_run *r, nyb_arena *arena, const char *path, nyb_err *err)
{
    const size_t length = r->ids.length;
    const nyb_tensor each = {
        .name = path, .dtype = NYB_F32, .rank = 3, .shape = {r->ids.samples, length, r->width}};
    const nyb_tensor whole = {
        .name = path, .dtype = NYB_F32, .rank = 2, .shape = {r->ids.samples, r->width}};
    nyb_status status = plan(r, err);
    if (status != NYB_OK)
        return status;
    const size_t some = length < LOGITS_TOKENS ? length : LOGITS_TOKENS;
    r->tile = nyb_arena_mat(arena, is_classifier(r) ? r->together : some, r->width);
    if (!r->tile.at)
        return nyb_no_memory(err, "a tile of logits", r->tile.rows, r->width * sizeof(float));
    status = nyb_block_weights_init_stored(&r->weights, r->model, err);
    return status == NYB_OK
               ? nyb_npy_create(&r->writer, path, is_classifier(r) ? &whole : &each, err)
               : status;
}

nyb_status nyb_logits(const nyb_context *ctx, const char *folder, const char *tokens,
                      const char *path, nyb_logits_result *result, nyb_err *err)
{
    nyb_arena arena = {0};
    nyb_model *model = NULL;
    logits_run r = {.ctx = ctx};
    nyb_status status = nyb_model_open(&model, folder, err);
    r.model = model;
    if (status == NYB_OK)
        r.width = width_of(nyb_model_config_of(model));
    if (status == NYB_OK)
        status = nyb_ids_load(&r.ids, &arena, tokens, nyb_model_config_of(model)->vocab, err);
    if (status == NYB_OK)
        status = prepare(&r, &arena, path, err);
    if (status == NYB_OK)
        status = run_samples(&r, err);
    if (status == NYB_OK && result)
        *result =
            (nyb_logits_result){.samples = r.ids.samples, .length = r.ids.length, .vocab = r.width};
    nyb_npy_discard(r.writer);
    nyb_batch_clear(&r.batch);
    nyb_block_weights_clear(&r.weights);
    nyb_model_close(model);
    nyb_arena_clear(&arena);
    return status;
}
