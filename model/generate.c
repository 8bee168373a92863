#include "nybble/generate.h"

#include <math.h>
#include <time.h>

#include "core/arena.h"
#include "core/file.h"
#include "core/log.h"
#include "formats/ids.h"
#include "kernels/vector.h"
#include "model/forward.h"
#include "model/sampler.h"

struct nyb_generator {
    nyb_context context;
    nyb_arena arena;
    nyb_model *model;
    nyb_model_config config;   // with the end-of-sequence ids of generation_config.json
    nyb_block_weights *blocks; // [config.blocks]
};

// What one run takes.
typedef struct generation {
    nyb_generator *generator;
    nyb_cache cache;
    nyb_batch prompt, step; // one batch reads the prompt, one a token at a time
    nyb_sampler sampler;
    float *logits; // [vocab]
} generation;

// generation_config.json has the last word on when a text ends.
static nyb_status read_eos(nyb_generator *g, const char *folder, nyb_err *err)
{
    json_t *doc = NULL;
    const char *const path = nyb_path_join(&g->arena, folder, "generation_config.json");
    if (!path)
        return nyb_no_memory(err, "a path", 1, 1);
    if (!nyb_path_exists(path))
        return NYB_OK;
    nyb_status status = nyb_json_load(&doc, path, err);
    if (status != NYB_OK)
        return status;
    const json_t *const eos = json_object_get(doc, "eos_token_id");
    if (eos && !json_is_null(eos))
        status = nyb_eos_read(&g->config, eos, path, err);
    json_decref(doc);
    return status;
}

static nyb_status check_ceiling(const nyb_generator *g, nyb_err *err)
{
    size_t bytes = 0;
    const size_t ceiling = g->context.memory_bytes;
    if (!nyb_mul_size(nyb_block_weights_stored_bytes(g->model), g->config.blocks, &bytes) ||
        (ceiling && bytes > ceiling))
        return nyb_fail(err, NYB_E_NOMEM, "the model's weights take %zu bytes, the ceiling is %zu",
                        bytes, ceiling);
    return NYB_OK;
}

static nyb_status load_blocks(nyb_generator *g, nyb_err *err)
{
    nyb_status status = check_ceiling(g, err);
    if (status != NYB_OK)
        return status;
    g->blocks = nyb_arena_alloc(&g->arena, g->config.blocks, sizeof(*g->blocks));
    if (!g->blocks)
        return nyb_no_memory(err, "the list of layers", g->config.blocks, sizeof(*g->blocks));
    for (size_t b = 0; status == NYB_OK && b < g->config.blocks; b++) {
        status = nyb_block_weights_init_stored(&g->blocks[b], g->model, err);
        if (status == NYB_OK)
            status = nyb_block_weights_load(&g->context, &g->blocks[b], b, err);
        const nyb_progress step = {
            .stage = "load", .unit = "layers", .done = b + 1, .total = g->config.blocks};
        if (status == NYB_OK)
            nyb_step(&g->context, &step);
    }
    return status;
}

nyb_status nyb_generator_open(nyb_generator **out, const nyb_context *ctx, const char *folder,
                              nyb_err *err)
{
    *out = NULL;
    nyb_generator *const g = nyb_alloc(1, sizeof(*g));
    if (!g)
        return nyb_no_memory(err, "a generator", 1, sizeof(*g));
    if (ctx)
        g->context = *ctx;
    nyb_status status = nyb_model_open(&g->model, folder, err);
    if (status == NYB_OK) {
        g->config = *nyb_model_config_of(g->model);
        status = read_eos(g, folder, err);
    }
    if (status == NYB_OK)
        status = load_blocks(g, err);
    if (status != NYB_OK) {
        nyb_generator_close(g);
        return status;
    }
    *out = g;
    return NYB_OK;
}

void nyb_generator_close(nyb_generator *g)
{
    if (!g)
        return;
    for (size_t b = 0; g->blocks && b < g->config.blocks; b++)
        nyb_block_weights_clear(&g->blocks[b]);
    nyb_model_close(g->model);
    nyb_arena_clear(&g->arena);
    nyb_free(g);
}

nyb_status nyb_generator_prompt(nyb_generator *g, const char *path, const uint32_t **ids,
                                size_t *count, nyb_err *err)
{
    nyb_ids read = {0};
    const nyb_status status = nyb_ids_load(&read, &g->arena, path, g->config.vocab, err);
    if (status != NYB_OK)
        return status;
    if (read.samples != 1)
        return nyb_fail(err, NYB_E_SHAPE, "%s: holds %zu sequences, a prompt is one", path,
                        read.samples);
    *ids = read.at;
    *count = read.length;
    return NYB_OK;
}

static double now_ms(void)
{
    struct timespec t;
    (void) clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double) t.tv_sec + 1e-6 * (double) t.tv_nsec;
}

// Runs the batch's tokens, which follow those in the cache, and leaves the logits of the last.
static nyb_status advance(generation *run, nyb_batch *batch, const uint32_t *ids, nyb_err *err)
{
    const nyb_generator *const g = run->generator;
    nyb_status status = nyb_embed(&g->context, batch, ids, err);
    if (status != NYB_OK)
        return status;
    for (size_t b = 0; b < g->config.blocks; b++)
        nyb_block_run(&g->context, &g->blocks[b], batch);
    run->cache.used += batch->tokens;
    return nyb_head(&g->context, batch, batch->tokens - 1,
                    nyb_mat_of(run->logits, 1, g->config.vocab), err);
}

static bool is_eos(const nyb_model_config *config, uint32_t id)
{
    for (size_t i = 0; i < config->eos_count; i++) {
        if (config->eos[i] == id)
            return true;
    }
    return false;
}

// Tokens one after the other, from the logits that are there.
static nyb_status make_tokens(generation *run, const nyb_generate_params *params,
                              nyb_generate_token token, void *user, nyb_generate_result *result,
                              nyb_err *err)
{
    result->stop = NYB_STOP_LENGTH;
    while (result->new_tokens < params->max_tokens) {
        uint32_t id = 0;
        nyb_status status = nyb_sampler_next(&run->sampler, run->logits, &id, err);
        if (status != NYB_OK)
            return status;
        result->new_tokens++;
        if (token && !token(user, id)) {
            result->stop = NYB_STOP_CALLER;
            return NYB_OK;
        }
        if (!params->ignore_eos && is_eos(&run->generator->config, id)) {
            result->stop = NYB_STOP_EOS;
            return NYB_OK;
        }
        if (result->new_tokens == params->max_tokens)
            return NYB_OK;
        status = advance(run, &run->step, &id, err);
        if (status != NYB_OK)
            return status;
    }
    return NYB_OK;
}

// The last new token is never run, so that the cache holds one position less.
static nyb_status prepare(generation *run, size_t count, const nyb_generate_params *params,
                          nyb_err *err)
{
    const nyb_generator *const g = run->generator;
    size_t positions = 0;
    if (!nyb_add_size(count, params->max_tokens - 1, &positions))
        return nyb_no_memory(err, "the positions of a text", count, params->max_tokens);
    nyb_status status = nyb_sampler_init(&run->sampler, params, g->config.vocab, err);
    if (status == NYB_OK)
        status = nyb_cache_init(&run->cache, g->model, positions, err);
    if (status == NYB_OK)
        status =
            nyb_batch_init_cached(&run->prompt, &g->context, g->model, count, &run->cache, err);
    if (status == NYB_OK)
        status = nyb_batch_init_cached(&run->step, &g->context, g->model, 1, &run->cache, err);
    run->logits = status == NYB_OK ? nyb_alloc_raw(g->config.vocab, sizeof(float)) : NULL;
    if (status == NYB_OK && !run->logits)
        return nyb_no_memory(err, "logits", g->config.vocab, sizeof(float));
    return status;
}

nyb_status nyb_generate(nyb_generator *generator, const uint32_t *prompt, size_t count,
                        const nyb_generate_params *params, nyb_generate_token token, void *user,
                        nyb_generate_result *result, nyb_err *err)
{
    nyb_generate_result made = {.prompt_tokens = count};
    generation run = {.generator = generator};
    if (count == 0 || params->max_tokens == 0)
        return nyb_fail(err, NYB_E_ARG, "%s is 0, want 1 or more",
                        count ? "the number of new tokens" : "the length of the prompt");
    const double start = now_ms();
    nyb_status status = prepare(&run, count, params, err);
    if (status == NYB_OK)
        status = advance(&run, &run.prompt, prompt, err);
    const double middle = now_ms();
    if (status == NYB_OK)
        status = make_tokens(&run, params, token, user, &made, err);
    made.prompt_ms = middle - start;
    made.new_ms = now_ms() - middle;
    if (status == NYB_OK && result)
        *result = made;
    nyb_batch_clear(&run.prompt);
    nyb_batch_clear(&run.step);
    nyb_cache_clear(&run.cache);
    nyb_sampler_clear(&run.sampler);
    nyb_free(run.logits);
    return status;
}
