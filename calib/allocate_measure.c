// What every layer loses at all bits and group sizes, and what the model's predictions lose by it.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "calib/allocation.h"
#include "core/log.h"

typedef struct measuring {
    nyb_allocation *a;
    nyb_pass pass;             // for the weights
    nyb_divergence divergence; // .model NULL: not asked for
    nyb_hessian hessian;
    nyb_gptq_factor factor;
    size_t factor_group;
    unsigned fewest; // bits that there are to choose from
} measuring;

// A number as the table holds it, so that a choice from the table is the same.
static double as_written(double value)
{
    char text[40];
    (void) snprintf(text, sizeof(text), "%.9g", value);
    return strtod(text, NULL);
}

// ---- Solves -------------------------------------------------------------------------------------

static nyb_status prepare(measuring *m, const nyb_gptq_params *params, nyb_err *err)
{
    if (m->factor.u.at && m->factor_group == params->grid.group_size)
        return NYB_OK;
    nyb_gptq_factor_clear(&m->factor);
    m->factor_group = params->grid.group_size;
    return nyb_gptq_prepare(m->a->ctx, &m->factor, &m->hessian, params, err);
}

static nyb_mat weight_of(const measuring *m, const nyb_job_layer *layer)
{
    return m->pass.weights.weights[layer->index];
}

// What the layer will take in the output.
static nyb_status stored_bits(const nyb_job_layer *layer, uint64_t *bits, nyb_err *err)
{
    size_t bytes = 0;
    const nyb_status status = nyb_layout_bytes(layer->layout, &layer->spec, &bytes, err);
    *bits = 8 * (uint64_t) bytes;
    return status;
}

static nyb_status measure_option(measuring *m, nyb_bits_layer *to, size_t index, nyb_err *err)
{
    const nyb_bits_option *const option = &m->a->options[index];
    nyb_job_layer layer;
    nyb_qweight q = {0};
    nyb_gptq_report report = {0};
    to->loss[index] = (double) NAN;
    if (nyb_job_regroup(&m->a->job, to->layer, option->bits, option->group_size, &layer, NULL) !=
        NYB_OK)
        return NYB_OK; // the format cannot hold it, or the layer is too narrow
    nyb_solve_params params = nyb_job_solve(&m->a->job, &layer);
    params.gptq.refine = params.gptq.refine > 1 ? 1 : params.gptq.refine;
    params.gptq.skip_measurements = true;
    nyb_status status = prepare(m, &params.gptq, err);
    const nyb_solve_input input = {.factor = &m->factor, .hessian = &m->hessian};
    if (status == NYB_OK)
        status = nyb_solve_layer(m->a->ctx, input, weight_of(m, &layer), &params, &q, &report, err);
    if (status != NYB_OK)
        return status;
    to->loss[index] = as_written(report.loss > 0.0 ? report.loss : 0.0);
    if (to->rounded)
        nyb_qweight_dequantize(&q, 0, nyb_mat_of(to->rounded, q.rows, q.cols));
    nyb_qweight_clear(&q);
    return stored_bits(&layer, &to->bits[index], err);
}

// A layer that keeps its settings takes a part of the budget.
static nyb_status count_fixed(measuring *m, const nyb_job_layer *layer, nyb_err *err)
{
    uint64_t bits = 0;
    const nyb_status status = stored_bits(layer, &bits, err);
    m->a->fixed += bits;
    return status;
}

static nyb_status at_layer(const measuring *m, const nyb_job_layer *layer, nyb_status status,
                           const nyb_err *inner, nyb_err *err)
{
    return status == NYB_OK ? NYB_OK
                            : nyb_fail(err, status, "%s: '%s': %s", m->a->params->quantize.model,
                                       layer->linear->module, inner->text);
}

// ---- Predictions --------------------------------------------------------------------------------

static void swap_weights(const measuring *m, const nyb_bits_layer *layer)
{
    const nyb_mat w = weight_of(m, layer->layer);
    for (size_t i = 0; i < w.rows; i++) {
        for (size_t j = 0; j < w.cols; j++) {
            const float kept = nyb_row(w, i)[j];
            nyb_row(w, i)[j] = layer->rounded[i * w.cols + j];
            layer->rounded[i * w.cols + j] = kept;
        }
    }
}

// Whether rounding to so many bits moves the predictions enough to be told from chance. Divergence
// and error stay in proportion from 3 bits on.
static bool is_telling(const measuring *m, unsigned bits)
{
    return bits <= 3 || (bits == 4 && m->fewest == 4);
}

// Tries the option on the layers of one item, which have just been rounded by it, if none with
// these bits has been tried.
static nyb_status probe(measuring *m, const nyb_bits_layer *layers, size_t count, size_t index,
                        nyb_err *err)
{
    nyb_allocation *const a = m->a;
    nyb_bits_item *const item = &a->items[layers->item];
    const size_t place = index % a->bit_count;
    double kl = 0.0;
    if (!isnan(item->kl[place]) || !is_telling(m, a->options[index].bits) ||
        !nyb_option_held(layers, count, index))
        return NYB_OK;
    for (size_t i = 0; i < count; i++)
        swap_weights(m, &layers[i]);
    const nyb_status status = nyb_divergence_of(&m->divergence, &m->pass.weights, &kl, err);
    for (size_t i = 0; i < count; i++)
        swap_weights(m, &layers[i]);
    item->kl[place] = as_written(kl > 0.0 ? kl : 0.0);
    item->probed[place] = index;
    return status;
}

// The items of the layers [first, end).
static nyb_status probe_items(measuring *m, size_t first, size_t end, size_t index, nyb_err *err)
{
    nyb_status status = NYB_OK;
    for (size_t i = first, next; status == NYB_OK && m->divergence.model && i < end; i = next) {
        next = nyb_item_end(m->a, i);
        status = probe(m, &m->a->layers[i], next - i, index, err);
    }
    return status;
}

static nyb_status open_divergence(measuring *m, nyb_err *err)
{
    nyb_allocation *const a = m->a;
    nyb_hessian_store *const store = a->job.hessians;
    uint32_t *ids = NULL;
    unsigned char *marks = NULL;
    if (a->samples == 0)
        return NYB_OK;
    const nyb_status status = nyb_hessian_store_tokens(store, &a->arena, &ids, &marks, err);
    return status == NYB_OK ? nyb_divergence_open(&m->divergence, a->ctx, a->job.model, ids,
                                                  a->samples, store->length, err)
                            : status;
}

// ---- Stages -------------------------------------------------------------------------------------

// Counts a layer that is not chosen for, or measures what goes before all options.
static nyb_status begin_layer(measuring *m, const nyb_job_layer *layer, nyb_bits_layer *to,
                              nyb_err *err)
{
    const nyb_mat weight = weight_of(m, layer);
    if (!to)
        return layer->settings.skip ? NYB_OK : count_fixed(m, layer, err);
    if (m->divergence.model) {
        to->rounded = nyb_alloc_raw(weight.rows, weight.cols * sizeof(float));
        if (!to->rounded)
            return nyb_no_memory(err, "weights", weight.rows, weight.cols * sizeof(float));
    }
    const nyb_status status =
        nyb_hessian_loss(m->a->ctx, &m->hessian, weight, NULL, &to->energy, err);
    to->energy = as_written(to->energy);
    return status;
}

// Options turn group by group, so that all layers and all bits share a group size's factor.
static nyb_status measure_options(measuring *m, size_t first, size_t end, nyb_err *err)
{
    nyb_allocation *const a = m->a;
    nyb_status status = NYB_OK;
    for (size_t o = 0; status == NYB_OK && o < a->option_count; o++) {
        for (size_t i = first; status == NYB_OK && i < end; i++) {
            nyb_err inner = {0};
            status = measure_option(m, &a->layers[i], o, &inner);
            status = at_layer(m, a->layers[i].layer, status, &inner, err);
        }
        if (status == NYB_OK)
            status = probe_items(m, first, end, o, err);
    }
    return status;
}

// `next` is the first layer to be chosen for that was not measured yet.
static nyb_status measure_stage(measuring *m, size_t block, size_t index, size_t *next,
                                nyb_err *err)
{
    nyb_allocation *const a = m->a;
    size_t count = 0;
    const nyb_job_layer *const layers = nyb_job_block(&a->job, block, &count);
    const nyb_stage stage = nyb_stage_at(a->job.model, block, index);
    const size_t first = *next;
    nyb_status status = nyb_hessian_store_read(a->job.hessians, layers[stage.first].linear->module,
                                               stage.width, &m->hessian, err);
    for (size_t i = stage.first; status == NYB_OK && i < stage.first + stage.count; i++) {
        const bool chosen = *next < a->count && a->layers[*next].layer == &layers[i];
        nyb_err inner = {0};
        status = begin_layer(m, &layers[i], chosen ? &a->layers[*next] : NULL, &inner);
        status = at_layer(m, &layers[i], status, &inner, err);
        *next += chosen;
    }
    if (status == NYB_OK)
        status = measure_options(m, first, *next, err);
    nyb_gptq_factor_clear(&m->factor);
    nyb_hessian_clear(&m->hessian);
    for (size_t i = first; i < *next; i++) {
        nyb_free(a->layers[i].rounded);
        a->layers[i].rounded = NULL;
    }
    return status;
}

static nyb_status measure_all(measuring *m, nyb_err *err)
{
    const nyb_model *const model = m->a->job.model;
    nyb_status status = NYB_OK;
    size_t next = 0;
    for (size_t b = 0; status == NYB_OK && b < nyb_block_count(model); b++) {
        status = nyb_block_weights_load(m->a->ctx, &m->pass.weights, b, err);
        for (size_t s = 0; status == NYB_OK && s < nyb_stage_count(model, b); s++)
            status = measure_stage(m, b, s, &next, err);
        nyb_step(m->a->ctx, &(nyb_progress){.stage = "measure",
                                            .unit = "blocks",
                                            .done = b + 1,
                                            .total = nyb_block_count(model)});
    }
    return status;
}

nyb_status nyb_allocation_measure(nyb_allocation *a, nyb_err *err)
{
    measuring m = {.a = a, .fewest = a->options[0].bits};
    for (size_t i = 1; i < a->bit_count; i++)
        m.fewest = a->options[i].bits < m.fewest ? a->options[i].bits : m.fewest;
    for (size_t i = 0; i < a->item_count * NYB_ALLOCATE_BITS; i++)
        a->items[i / NYB_ALLOCATE_BITS].kl[i % NYB_ALLOCATE_BITS] = (double) NAN;
    a->fixed = 0; // a damaged table may have left something
    nyb_status status = nyb_pass_open(&m.pass, a->ctx, a->job.model, &(nyb_pass_params){0}, err);
    if (status == NYB_OK)
        status = open_divergence(&m, err);
    if (status == NYB_OK)
        status = measure_all(&m, err);
    nyb_gptq_factor_clear(&m.factor);
    nyb_hessian_clear(&m.hessian);
    nyb_divergence_close(&m.divergence);
    nyb_pass_close(&m.pass);
    return status;
}
