#include "nybble/predict.h"

#include <string.h>

#include "core/memory.h"
#include "model/keras_graph.h"
#include "nybble/npy.h"

enum { SAMPLES_AT_ONCE = 256 };

typedef struct prediction {
    const nyb_context *ctx;
    const nyb_predict_params *params;
    nyb_keras_file *file;
    nyb_keras_layers layers;
    nyb_graph graph;
    nyb_array *inputs;        // [params->input_count]
    nyb_npy_writer **writers; // [params->output_count]
    nyb_predict_result result;
} prediction;

static nyb_status check_counts(const prediction *p, nyb_err *err)
{
    const nyb_graph *const g = &p->graph;
    if (g->output_count != p->params->output_count)
        return nyb_fail(
            err, NYB_E_ARG,
            "%zu files are named for the results, the model has %zu output%s (the first "
            "is '%s'): name one for each, in their order",
            p->params->output_count, g->output_count, g->output_count == 1 ? "" : "s",
            g->output_names[0]);
    if (g->output_count > NYB_PREDICT_OUTPUTS)
        return nyb_fail(err, NYB_E_UNSUPPORTED, "the model has %zu outputs, more than %d",
                        g->output_count, NYB_PREDICT_OUTPUTS);
    return NYB_OK;
}

static nyb_status load_inputs(prediction *p, nyb_err *err)
{
    nyb_status status = NYB_OK;
    p->inputs = nyb_alloc(p->params->input_count, sizeof(*p->inputs));
    p->writers = nyb_alloc(p->params->output_count, sizeof(nyb_npy_writer *));
    if (!p->inputs || !p->writers)
        return nyb_no_memory(err, "inputs", p->params->input_count, sizeof(*p->inputs));
    for (size_t i = 0; i < p->params->input_count && status == NYB_OK; i++)
        status = nyb_array_load(&p->inputs[i], p->params->inputs[i], err);
    return status;
}

// Samples [first, first + count) of every input, copied.
static nyb_status begin(prediction *p, nyb_graph_run *run, size_t first, size_t count, nyb_err *err)
{
    const size_t inputs = p->params->input_count;
    nyb_array *const some = nyb_alloc(inputs, sizeof(*some));
    nyb_status status = some ? NYB_OK : nyb_no_memory(err, "inputs", inputs, sizeof(*some));
    for (size_t i = 0; i < inputs && status == NYB_OK; i++) {
        nyb_array part = p->inputs[i];
        const size_t left = part.shape[0] > first ? part.shape[0] - first : 0;
        part.shape[0] = left < count ? left : count;
        status = nyb_array_init(&some[i], part.rank, part.shape, p->params->inputs[i], err);
        const size_t size = status == NYB_OK ? nyb_array_count(&some[i]) : 0;
        if (size > 0)
            memcpy(some[i].at, p->inputs[i].at + first * (size / part.shape[0]),
                   size * sizeof(float));
    }
    if (status == NYB_OK)
        status = nyb_graph_begin(run, p->ctx, &p->graph, some, inputs, err);
    for (size_t i = 0; some && i < inputs; i++)
        nyb_array_clear(&some[i]);
    nyb_free(some);
    return status;
}

// The first samples tell the outputs' shapes.
static nyb_status create_outputs(prediction *p, const nyb_graph_run *run, nyb_err *err)
{
    nyb_status status = NYB_OK;
    p->result.output_count = p->graph.output_count;
    for (size_t i = 0; i < p->graph.output_count && status == NYB_OK; i++) {
        const nyb_array *const out = &run->values[p->graph.outputs[i]];
        nyb_tensor shape = {.name = p->params->outputs[i], .dtype = NYB_F32, .rank = out->rank};
        memcpy(shape.shape, out->shape, sizeof(shape.shape));
        shape.shape[0] = p->result.samples;
        p->result.rank[i] = out->rank;
        memcpy(p->result.shape[i], shape.shape, sizeof(shape.shape));
        status = nyb_npy_create(&p->writers[i], p->params->outputs[i], &shape, err);
    }
    return status;
}

static nyb_status run_some(prediction *p, nyb_graph_run *run, size_t first, nyb_err *err)
{
    nyb_status status = NYB_OK;
    for (size_t c = 0; c < p->graph.call_count && status == NYB_OK; c++) {
        status = nyb_graph_make(run, c, err);
        nyb_graph_release(run, c);
    }
    if (status == NYB_OK && first == 0)
        status = create_outputs(p, run, err);
    for (size_t i = 0; i < p->graph.output_count && status == NYB_OK; i++) {
        const nyb_array *const out = &run->values[p->graph.outputs[i]];
        status = nyb_npy_append(p->writers[i], out->at, nyb_array_count(out) * sizeof(float), err);
    }
    return status;
}

static nyb_status run_all(prediction *p, nyb_err *err)
{
    nyb_status status = load_inputs(p, err);
    p->result.samples = status == NYB_OK && p->params->input_count ? p->inputs[0].shape[0] : 0;
    for (size_t i = 1; i < p->params->input_count && status == NYB_OK; i++) {
        if (p->inputs[i].shape[0] != p->result.samples)
            status = nyb_fail(err, NYB_E_SHAPE, "%s: %zu samples, and '%s' has %zu",
                              p->params->inputs[i], p->inputs[i].shape[0], p->params->inputs[0],
                              p->result.samples);
    }
    size_t first = 0;
    do { // also without samples, which nyb_graph_begin() refuses
        nyb_graph_run run = {0};
        if (status == NYB_OK)
            status = begin(p, &run, first, SAMPLES_AT_ONCE, err);
        if (status == NYB_OK)
            status = run_some(p, &run, first, err);
        nyb_graph_end(&run);
        first += SAMPLES_AT_ONCE;
    } while (status == NYB_OK && first < p->result.samples);
    for (size_t i = 0; i < p->params->output_count && status == NYB_OK; i++)
        status = nyb_npy_finish(p->writers[i], err);
    return status;
}

nyb_status nyb_predict(const nyb_context *ctx, const nyb_predict_params *params,
                       nyb_predict_result *result, nyb_err *err)
{
    prediction p = {.ctx = ctx, .params = params};
    nyb_status status = nyb_keras_open(&p.file, params->model, NULL, err);
    if (status == NYB_OK)
        status = nyb_keras_layers_read(&p.layers, p.file, err);
    if (status == NYB_OK)
        status = nyb_graph_open(&p.graph, &p.layers, p.file, err);
    if (status == NYB_OK)
        status = check_counts(&p, err);
    if (status == NYB_OK)
        status = run_all(&p, err);
    if (status == NYB_OK && result)
        *result = p.result;
    for (size_t i = 0; p.writers && i < params->output_count; i++)
        nyb_npy_discard(p.writers[i]);
    for (size_t i = 0; p.inputs && i < params->input_count; i++)
        nyb_array_clear(&p.inputs[i]);
    nyb_free(p.writers);
    nyb_free(p.inputs);
    nyb_graph_close(&p.graph);
    nyb_keras_layers_clear(&p.layers);
    nyb_keras_close(p.file);
    return status;
}
