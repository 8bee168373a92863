#include "calib/beside.h"
#include "calib/gguf_quantize.h"
#include "calib/output.h"
#include "calib/walk.h"
#include "core/clock.h"
#include "core/linalg.h"
#include "core/random.h"
#include "core/threads.h"
#include "kernels/gemm.h"

// What fraction of the speed of large products the parts of a run reach, measured on Llama-like
// models of 100 M to 1 G parameters.
static const double forward_share = 0.75, hessian_share = 0.8, factor_share = 0.4,
                    solve_share = 0.3;

// ---- The machine ---------------------------------------------------------------------------

enum { PROBE = 512, PROBE_TASKS_A_THREAD = 24 };

typedef struct probe {
    nyb_mat source;
    const nyb_gemm *gemm;   // NULL: BLAS
    const uint32_t *packed; // source
    float *results;         // [threads, PROBE, PROBE]
} probe;

static void multiply(void *arg, size_t index, unsigned worker)
{
    const probe *const p = arg;
    const nyb_mat c = nyb_mat_of(p->results + (size_t) worker * PROBE * PROBE, PROBE, PROBE);
    (void) index;
    if (p->gemm)
        nyb_gemm_tile(p->gemm, c, p->packed, p->packed, PROBE, 1.0f, false);
    else
        nyb_gemm_nt(c, p->source, p->source, 1.0f, 0.0f);
}

static double speed_of(const nyb_context *ctx, probe *p)
{
    const size_t threads = nyb_threads(ctx), tasks = threads * PROBE_TASKS_A_THREAD;
    nyb_parallel(ctx, threads, multiply, p); // threads start, pages are touched
    const double start = nyb_seconds();
    nyb_parallel(ctx, tasks, multiply, p);
    const double each = 2.0 * (double) PROBE * (double) PROBE * (double) PROBE;
    return (double) tasks * each / (nyb_seconds() - start);
}

static nyb_status measure_speeds(const nyb_context *ctx, nyb_quantize_plan *plan, nyb_err *err)
{
    const nyb_gemm *const g = nyb_gemm_get(ctx->compute);
    const size_t size = PROBE * PROBE, threads = nyb_threads(ctx);
    const size_t words = nyb_gemm_packed(g, PROBE, PROBE);
    float *const memory = nyb_alloc(size * (threads + 1) + words, sizeof(float));
    if (!memory)
        return nyb_no_memory(err, "probe", size * (threads + 1) + words, sizeof(float));
    uint64_t seed = 1;
    for (size_t i = 0; i < size; i++)
        memory[i] = (float) nyb_random_unit(&seed);

    uint32_t *const packed = (uint32_t *) (void *) (memory + size * (threads + 1));
    probe p = {.source = nyb_mat_of(memory, PROBE, PROBE), .results = memory + size};
    plan->gemm_flops_per_second = speed_of(ctx, &p);
    p.gemm = g;
    p.packed = packed;
    const nyb_operand source = nyb_operand_of(p.source);
    nyb_gemm_pack(g, packed, &source, 0, nyb_gemm_panels(PROBE, g->width));
    plan->product_flops_per_second = speed_of(ctx, &p);
    nyb_free(memory);
    return NYB_OK;
}

// ---- The work ------------------------------------------------------------------------------

// The part of the tokens that the unrounded model sees too.
static double share_beside(const nyb_job *job)
{
    const size_t samples = job->samples.count;
    return job->forward && job->params->objective == NYB_OBJECTIVE_MODEL
               ? (double) nyb_beside_count(job, samples) / (double) samples
               : 0.0;
}

static void count_layer(const nyb_job *job, const nyb_job_layer *layer, double tokens,
                        nyb_quantize_plan *p)
{
    const double rows = (double) layer->linear->rows, cols = (double) layer->linear->cols;
    if (job->forward)
        p->forward_flops += 2.0 * (1.0 + share_beside(job)) * tokens * rows * cols;
    if (nyb_job_calibrates(layer))
        // The solve and two losses; the product that refinement starts from and its rounds, of
        // which each has a product and a search that takes as long as two; the target's three
        // products, two of them with triangles.
        p->solve_flops += (3.0 + (layer->settings.refine > 0 ? 2.0 : 0.0) +
                           6.0 * layer->settings.refine + (share_beside(job) > 0.0 ? 4.0 : 0.0)) *
                          rows * cols * cols;
}

static nyb_status count_bits(const nyb_job *job, nyb_quantize_plan *p, nyb_err *err)
{
    nyb_status status = NYB_OK;
    double bits = 0.0, weights = 0.0;
    for (size_t i = 0; status == NYB_OK && i < job->count + job->outer; i++) {
        const nyb_job_layer *const layer = &job->layers[i];
        size_t bytes = 0;
        if (layer->settings.skip)
            continue;
        status = nyb_layout_bytes(layer->layout, &layer->spec, &bytes, err);
        bits += 8.0 * (double) bytes;
        weights += (double) layer->linear->rows * (double) layer->linear->cols;
    }
    p->bits_per_weight = weights > 0.0 ? bits / weights : 0.0;
    return status;
}

// Tokens that a stage sees, if routers send each expert its share.
static double tokens_of(const nyb_job *job, const nyb_stage *stage, const nyb_quantize_plan *p)
{
    const nyb_experts_config *const e = &nyb_model_config_of(job->model)->experts;
    const bool all = job->params->experts.calibration == NYB_EXPERTS_ALL;
    const double share =
        stage->expert == NYB_ALL_TOKENS || all ? 1.0 : (double) e->top_k / (double) e->count;
    return share * (double) p->tokens;
}

static void count_block(const nyb_job *job, size_t block, nyb_quantize_plan *p)
{
    size_t count = 0;
    const nyb_job_layer *const layers = nyb_job_block(job, block, &count);
    const nyb_model_config *const c = nyb_model_config_of(job->model);
    for (size_t s = 0; s < nyb_stage_count(job->model, block); s++) {
        const nyb_stage stage = nyb_stage_at(job->model, block, s);
        const double width = (double) stage.width, tokens = tokens_of(job, &stage, p);
        bool needed = false;
        for (size_t i = stage.first; i < stage.first + stage.count; i++) {
            count_layer(job, &layers[i], tokens, p);
            needed |= nyb_job_calibrates(&layers[i]);
        }
        if (needed) {
            p->hessian_flops +=
                job->forward ? (1.0 + 2.0 * share_beside(job)) * tokens * width * width : 0.0;
            p->factor_flops += 2.0 / 3.0 * width * width * width;
        }
    }
    if (job->forward) // half of the scores lie above the diagonal
        p->forward_flops += 2.0 * (1.0 + share_beside(job)) * (double) p->tokens *
                            (double) p->sequence_length * (double) (c->heads * c->head_dim);
}

static nyb_status plan_job(const nyb_context *ctx, const nyb_job *job, nyb_quantize_plan *p,
                           nyb_err *err)
{
    const nyb_walk_bytes bytes = nyb_walk_memory(ctx, job);
    *p = (nyb_quantize_plan){
        .layers = job->rounded,
        .blocks = nyb_block_count(job->model),
        .samples = job->samples.count,
        .sequence_length = job->samples.length,
        .tokens = job->samples.count * job->samples.length,
        .activation_bytes = bytes.room.activations,
        .weight_bytes = bytes.room.weights,
        .hessian_bytes = bytes.room.hessians,
        .other_bytes = bytes.room.other,
        .spill_bytes = bytes.spilled,
        .memory_bytes = nyb_room_total(&bytes.room),
    };
    for (size_t b = 0; b < p->blocks; b++)
        count_block(job, b, p);
    nyb_status status = count_bits(job, p, err);
    if (status == NYB_OK)
        status = nyb_output_bytes(job, &p->disk_bytes, err);
    if (status == NYB_OK)
        status = measure_speeds(ctx, p, err);
    if (status == NYB_OK)
        p->seconds = (p->forward_flops / forward_share + p->hessian_flops / hessian_share) /
                         p->product_flops_per_second +
                     (p->factor_flops / factor_share + p->solve_flops / solve_share) /
                         p->gemm_flops_per_second;
    return status;
}

nyb_status nyb_quantize_planned(const nyb_context *ctx, const nyb_quantize_params *params,
                                nyb_quantize_plan *plan, nyb_err *err)
{
    nyb_job job;
    nyb_quantize_params inner = *params;
    nyb_status status = nyb_job_inputs_found(params, err);
    if (status != NYB_OK)
        return status;
    if (nyb_gguf_wanted(params) && params->settings.method != NYB_METHOD_GPTQ)
        return nyb_fail(err, NYB_E_ARG, "plain rounding to %s needs no plan: it takes seconds",
                        params->format);
    if (nyb_gguf_wanted(params))
        status = nyb_gguf_solve_params(&inner, params, err);
    inner.out = params->out;
    if (status == NYB_OK)
        status = nyb_job_open(ctx, &job, &inner, err);
    if (status != NYB_OK)
        return status;
    nyb_context settled = ctx ? *ctx : (nyb_context){0};
    settled.compute = nyb_job_compute(ctx, &job);
    status = plan_job(&settled, &job, plan, err);
    nyb_job_close(&job);
    if (status == NYB_OK && nyb_gguf_wanted(params)) {
        // The file has the type's own blocks, whatever the layers pass through on the way to it.
        nyb_dtype dtype = NYB_F32;
        status = nyb_gguf_type_asked(&dtype, params, err);
        const nyb_block_size block = nyb_dtype_block(dtype);
        plan->bits_per_weight = 8.0 * (double) block.bytes / (double) block.values;
    }
    return status;
}
