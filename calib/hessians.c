// Making a store of Hessians: the model as it is, run over the samples.
#include <stdio.h>
#include <string.h>

#include "calib/hessian_parts.h"
#include "calib/hessian_store.h"
#include "calib/pass.h"
#include "calib/room.h"
#include "calib/source_files.h"
#include "core/clock.h"
#include "core/file.h"
#include "core/log.h"
#include "core/threads.h"
#include "gptq/hessian.h"
#include "nybble/calibrate.h"
#include "nybble/version.h"

typedef struct making {
    const nyb_context *ctx;
    const nyb_hessians_params *params;
    nyb_model *model;
    nyb_store_about about;
    nyb_samples all, samples; // of the command; those that are run
    nyb_hessian_store before; // that is extended; zeroed: none
    nyb_pass pass;
    nyb_hessian unit;    // over a piece of a stage's input
    nyb_hessian_sum sum; // over all
    nyb_hessian_writer writer;
    size_t layers;
} making;

// ---- One stage ------------------------------------------------------------------------------

static nyb_status add_inputs(void *arg, const nyb_pass_rows *rows, nyb_err *err)
{
    making *const m = arg;
    const nyb_status status = nyb_hessian_add_operand(m->ctx, &m->unit, &rows->operand, err);
    if (rows->again)
        m->unit.tokens = 0;
    return status == NYB_OK ? nyb_hessian_sum_take(m->ctx, &m->sum, &m->unit, err) : status;
}

// Writes the sum of the stage whose inputs were shown.
static nyb_status put_stage(making *m, size_t block, size_t index, nyb_err *err)
{
    const nyb_stage stage = nyb_stage_at(m->model, block, index);
    const char *modules[NYB_STAGE_LINEARS];
    size_t routed = stage.expert == NYB_ALL_TOKENS ? 0 : m->pass.routed[stage.expert];
    nyb_status status = NYB_OK;
    for (size_t i = 0; i < stage.count; i++)
        modules[i] = nyb_linear_at(m->model, block, stage.first + i)->module;
    if (m->before.file) {
        nyb_store_entry entry;
        status = nyb_hessian_store_entry(&m->before, modules[0], &entry, err);
        if (status == NYB_OK)
            status = nyb_hessian_store_add(m->ctx, &m->before, modules[0], &m->sum, err);
        routed += entry.routed;
    }
    m->layers += stage.count;
    return status == NYB_OK
               ? nyb_hessian_writer_put(&m->writer, modules, stage.count, &m->sum, routed, err)
               : status;
}

// Takes the tokens through the stage `run` and writes the sum over the inputs of stage `next`.
static nyb_status sum_stage(making *m, size_t block, size_t run, size_t next, nyb_err *err)
{
    const nyb_stage stage = nyb_stage_at(m->model, block, next);
    nyb_err inner = {0};
    nyb_status status = nyb_hessian_init(&m->unit, stage.width, err);
    if (status == NYB_OK)
        status = nyb_hessian_sum_init(&m->sum, stage.width, err);
    if (status == NYB_OK) {
        status = nyb_pass_stage(&m->pass, run, next, add_inputs, m, &inner);
        if (status != NYB_OK)
            (void) nyb_fail(err, status, "%s: '%s': %s", nyb_model_folder(m->model),
                            nyb_linear_at(m->model, block, stage.first)->module, inner.text);
    }
    nyb_hessian_clear(&m->unit);
    if (status == NYB_OK)
        status = put_stage(m, block, next, err);
    nyb_hessian_sum_clear(&m->sum);
    return status;
}

static nyb_status sum_block(making *m, size_t block, nyb_err *err)
{
    const size_t stages = nyb_stage_count(m->model, block);
    const bool last = block + 1 == nyb_block_count(m->model); // nobody reads its output
    nyb_status status = nyb_block_weights_load(m->ctx, &m->pass.weights, block, err);
    if (status == NYB_OK)
        status = sum_stage(m, block, nyb_no_stage, 0, err);
    for (size_t s = 0; status == NYB_OK && s + 1 < stages; s++)
        status = sum_stage(m, block, s, s + 1, err);
    if (status == NYB_OK && !last)
        status = nyb_pass_stage(&m->pass, stages - 1, nyb_no_stage, add_inputs, m, err);
    return status;
}

static nyb_status sum_blocks(making *m, nyb_err *err)
{
    const size_t blocks = nyb_block_count(m->model);
    nyb_status status = nyb_pass_embed(&m->pass, err);
    for (size_t b = 0; status == NYB_OK && b < blocks; b++) {
        status = sum_block(m, b, err);
        nyb_step(m->ctx,
                 &(nyb_progress){
                     .stage = "calibrate", .unit = "blocks", .done = b + 1, .total = blocks});
    }
    return status;
}

// ---- Which samples --------------------------------------------------------------------------

// Samples [first, end) of `all`, whose memory they share.
static nyb_samples view(const nyb_samples *all, size_t first, size_t end)
{
    nyb_samples out = {.ids = all->ids + first * all->length,
                       .count = end - first,
                       .length = all->length,
                       .begins = all->begins,
                       .first_weight = all->first_weight};
    const size_t tokens = out.count * out.length;
    out.counted = tokens;
    if (!all->marks)
        return out;
    out.marks = all->marks + first * all->length;
    out.counted = 0;
    for (size_t i = 0; i < tokens; i++)
        out.counted += out.marks[i];
    if (out.counted == tokens)
        out.marks = NULL;
    return out;
}

static nyb_status choose_part(making *m, nyb_err *err)
{
    const size_t unit = nyb_activations_unit(m->all.length), part = m->params->part;
    const size_t units = (m->all.count + unit - 1) / unit, parts = m->params->parts;
    m->samples = view(&m->all, 0, m->all.count);
    if (parts == 0)
        return NYB_OK;
    if (part < 1 || part > parts || parts > units)
        return nyb_fail(
            err, NYB_E_ARG,
            "part %zu of %zu is asked for; the %zu samples are %zu units of %zu, so there "
            "are 1 to %zu parts",
            part, parts, m->all.count, units, unit, units);
    const size_t first = units * (part - 1) / parts * unit, end = units * part / parts * unit;
    m->samples = view(&m->all, first, end < m->all.count ? end : m->all.count);
    return m->samples.counted > 0
               ? NYB_OK
               : nyb_fail(err, NYB_E_ARG, "no token of part %zu of %zu counts", part, parts);
}

static bool same_samples(const nyb_samples *a, const nyb_samples *b, size_t count)
{
    const size_t tokens = count * a->length;
    if (memcmp(a->ids, b->ids, tokens * sizeof(*a->ids)) != 0)
        return false;
    for (size_t i = 0; i < tokens; i++) {
        if ((a->marks ? a->marks[i] : 1) != (b->marks ? b->marks[i] : 1))
            return false;
    }
    return true;
}

// Leaves out the samples that the store has.
static nyb_status skip_known(making *m, nyb_err *err)
{
    nyb_hessian_store *const store = &m->before;
    const size_t unit = nyb_activations_unit(m->all.length);
    nyb_samples old = {.count = store->samples, .length = store->length};
    nyb_status status = nyb_hessian_store_check(store, &m->about, "the run", err);
    if (status == NYB_OK)
        status = nyb_hessian_store_tokens(store, &m->all.arena, &old.ids, &old.marks, err);
    if (status != NYB_OK)
        return status;
    if (old.count >= m->all.count || !same_samples(&old, &m->all, old.count))
        return nyb_fail(
            err, NYB_E_ARG,
            "%s: its %zu samples are not the first of the %zu asked for; make a store of "
            "other text by itself and merge the two",
            store->path, old.count, m->all.count);
    if (old.count % unit != 0)
        return nyb_fail(err, NYB_E_ARG,
                        "%s: its %zu samples are not whole units of %zu, so it cannot be extended",
                        store->path, old.count, unit);
    m->samples = view(&m->all, old.count, m->all.count);
    return NYB_OK;
}

static nyb_status choose_samples(making *m, nyb_err *err)
{
    const nyb_hessians_params *const p = m->params;
    nyb_status status = nyb_samples_open(m->ctx, &m->all, m->model, &p->samples, err);
    if (status == NYB_OK)
        status = nyb_store_about_make(&m->about, m->ctx, m->model, p->experts == NYB_EXPERTS_ALL,
                                      &m->all, err);
    if (status != NYB_OK || !p->extend)
        return status == NYB_OK ? choose_part(m, err) : status;
    status = nyb_hessian_store_open(&m->before, p->extend, err);
    return status == NYB_OK ? skip_known(m, err) : status;
}

// ---- The run --------------------------------------------------------------------------------

// Which files the tokens are from, and what machines made the sums: kernels round them otherwise.
static json_t *describe_calibration(const making *m)
{
    const nyb_samples_params *const samples = &m->params->samples;
    json_t *const own = json_pack("{s:[], s:[s]}", "files", "machines", nyb_build().kernel_level);
    for (size_t i = 0; i < samples->path_count; i++)
        json_array_append_new(json_object_get(own, "files"),
                              json_string(nyb_base_name(samples->paths[i])));
    json_t *const out = json_pack("{s:[], s:[]}", "files", "machines");
    if (out && m->before.file)
        nyb_store_unite(out, m->before.calibration);
    if (out && own)
        nyb_store_unite(out, own);
    json_decref(own);
    return out;
}

// Opens the pass within the ceiling.
static nyb_status open_pass(making *m, nyb_err *err)
{
    const size_t width = nyb_pass_width(m->model);
    const size_t sums = nyb_triangle(width) * 2 * sizeof(double) * (m->before.file ? 2 : 1);
    nyb_room room = {
        .weights = nyb_block_weights_stored_bytes(m->model),
        .hessians = sums + width * width * sizeof(float) +
                    nyb_hessian_scratch(m->ctx, width, NYB_UNIT_TOKENS),
        .other = NYB_PROGRAM_BYTES + NYB_UNIT_TOKENS * width * sizeof(float) +
                 m->all.count * m->all.length * 5,
    };
    const size_t length = m->samples.length;
    const nyb_dtype operands = nyb_batch_operands(m->ctx, m->model);
    const size_t chunk = nyb_activations_fit(m->ctx, m->model, m->samples.count, length, operands,
                                             nyb_room_left(m->ctx, &room));
    room.activations = nyb_activations_memory(m->ctx, m->model, chunk, length, operands);
    const nyb_status status = nyb_room_check(m->ctx, &room, err);
    if (status != NYB_OK)
        return status;
    char folder[4096];
    const char *const slash = strrchr(m->params->out, '/');
    (void) snprintf(folder, sizeof(folder), "%.*s", slash ? (int) (slash - m->params->out + 1) : 1,
                    slash ? m->params->out : ".");
    const nyb_pass_params params = {.samples = &m->samples,
                                    .chunk_samples = chunk,
                                    .operands = operands,
                                    .folder = folder,
                                    .stored = true,
                                    .all_experts = m->params->experts == NYB_EXPERTS_ALL};
    return nyb_pass_open(&m->pass, m->ctx, m->model, &params, err);
}

static nyb_status finish(making *m, nyb_err *err)
{
    json_t *const calibration = describe_calibration(m);
    const nyb_samples whole = m->before.file ? view(&m->all, 0, m->all.count) : m->samples;
    const nyb_status status =
        calibration ? nyb_hessian_writer_finish(&m->writer, &m->about, &whole, calibration, err)
                    : nyb_no_memory(err, "attributes", 1, 1);
    json_decref(calibration);
    return status;
}

static nyb_status make(making *m, nyb_err *err)
{
    const nyb_hessians_params *const p = m->params;
    nyb_status status = choose_samples(m, err);
    if (status == NYB_OK)
        status = nyb_hessian_writer_open(&m->writer, p->out, p->compression, p->force, err);
    if (status == NYB_OK)
        status = open_pass(m, err);
    if (status == NYB_OK)
        status = sum_blocks(m, err);
    return status == NYB_OK ? finish(m, err) : status;
}

static nyb_status check_params(const nyb_hessians_params *p, nyb_err *err)
{
    if (p->samples.path_count == 0)
        return nyb_fail(err, NYB_E_ARG, "calibration needs data: give --calib FILE (text or ids)");
    if (p->extend && p->parts > 0)
        return nyb_fail(err, NYB_E_ARG, "a part of the windows cannot extend a store: merge them");
    if (p->compression > 9)
        return nyb_fail(err, NYB_E_ARG, "compression is %u, want 0 to 9", p->compression);
    if (nyb_path_exists(p->out) && !p->force)
        return nyb_fail(err, NYB_E_EXISTS, "%s: already exists; use --force to replace it", p->out);
    const nyb_status status = p->extend ? nyb_path_readable(p->extend, err) : NYB_OK;
    return status == NYB_OK ? nyb_samples_found(&p->samples, err) : status;
}

nyb_status nyb_calibrate_hessians(const nyb_context *ctx, const nyb_hessians_params *params,
                                  nyb_calibrate_result *result, nyb_err *err)
{
    const double start = nyb_seconds();
    making m = {.params = params};
    nyb_context settled = ctx ? *ctx : (nyb_context){0};
    nyb_status status = check_params(params, err);
    if (status != NYB_OK)
        return status;
    m.ctx = &settled;
    status = nyb_model_open(&m.model, params->model, err);
    if (status == NYB_OK) {
        settled.compute = nyb_calibration_compute(ctx, nyb_model_weight_dtype(m.model));
        status = make(&m, err);
    }
    if (status == NYB_OK && result)
        *result = (nyb_calibrate_result){.layers = m.layers,
                                         .samples = m.samples.count,
                                         .tokens = m.samples.counted,
                                         .seconds = nyb_seconds() - start};
    nyb_hessian_writer_close(&m.writer);
    nyb_pass_close(&m.pass);
    nyb_hessian_store_close(&m.before);
    nyb_store_about_clear(&m.about);
    nyb_samples_close(&m.all);
    nyb_model_close(m.model);
    return status;
}
