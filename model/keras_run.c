// Running a graph, call by call.
#include <stdio.h>
#include <string.h>

#include "model/keras_op.h"

static size_t value_count(const nyb_graph *g)
{
    return g->input_count + g->call_count;
}

static nyb_status check_input(const nyb_graph_input *want, const nyb_array *got, size_t samples,
                              nyb_err *err)
{
    bool fits = want->rank == 0 || want->rank == got->rank;
    for (unsigned i = 1; fits && i < want->rank; i++)
        fits = want->shape[i] == 0 || want->shape[i] == got->shape[i];
    if (!fits) {
        char text[160] = "";
        size_t at = 0;
        for (unsigned i = 1; i < want->rank && at + 32 < sizeof(text); i++)
            at += (size_t) (want->shape[i]
                                ? snprintf(text + at, sizeof(text) - at, ", %zu", want->shape[i])
                                : snprintf(text + at, sizeof(text) - at, ", any"));
        return nyb_fail(err, NYB_E_SHAPE,
                        "input '%s' has %u axes of which one does not fit, want [samples%s]",
                        want->name, got->rank, text);
    }
    if (got->shape[0] != samples)
        return nyb_fail(err, NYB_E_SHAPE, "input '%s' has %zu samples, the first input has %zu",
                        want->name, got->shape[0], samples);
    if (samples == 0)
        return nyb_fail(err, NYB_E_SHAPE, "input '%s' has no samples", want->name);
    return NYB_OK;
}

static nyb_status take_inputs(nyb_graph_run *run, nyb_array *inputs, size_t count, nyb_err *err)
{
    const nyb_graph *const g = run->graph;
    if (count != g->input_count)
        return nyb_fail(err, NYB_E_ARG,
                        "%zu files of samples are given, the model has %zu input%s "
                        "(the first is '%s'): name one for each, in their order",
                        count, g->input_count, g->input_count == 1 ? "" : "s", g->inputs[0].name);
    run->values = nyb_alloc(value_count(g), sizeof(*run->values));
    if (!run->values)
        return nyb_no_memory(err, "values", value_count(g), sizeof(*run->values));
    for (size_t i = 0; i < count; i++) {
        const nyb_status status = check_input(&g->inputs[i], &inputs[i], inputs[0].shape[0], err);
        if (status != NYB_OK)
            return status;
    }
    for (size_t i = 0; i < count; i++) {
        run->values[i] = inputs[i];
        inputs[i] = (nyb_array){0};
    }
    return NYB_OK;
}

nyb_status nyb_graph_begin(nyb_graph_run *out, const nyb_context *ctx, const nyb_graph *graph,
                           nyb_array *inputs, size_t count, nyb_err *err)
{
    *out = (nyb_graph_run){.ctx = ctx, .graph = graph};
    const nyb_status status = take_inputs(out, inputs, count, err);
    for (size_t i = 0; i < count; i++)
        nyb_array_clear(&inputs[i]);
    if (status != NYB_OK)
        nyb_graph_end(out);
    return status;
}

void nyb_graph_end(nyb_graph_run *run)
{
    for (size_t i = 0; run->values && i < value_count(run->graph); i++)
        nyb_array_clear(&run->values[i]);
    nyb_free(run->values);
    *run = (nyb_graph_run){0};
}

static nyb_status check_memory(const nyb_graph_run *run, const char *what, nyb_err *err)
{
    size_t bytes = 0;
    if (!run->ctx || run->ctx->memory_bytes == 0)
        return NYB_OK;
    for (size_t i = 0; i < value_count(run->graph); i++)
        bytes += run->values[i].at ? nyb_array_count(&run->values[i]) * sizeof(float) : 0;
    if (bytes <= run->ctx->memory_bytes)
        return NYB_OK;
    return nyb_fail(err, NYB_E_NOMEM,
                    "the samples' values take %zu MiB up to '%s' and the ceiling is %zu MiB: raise "
                    "--memory, or give fewer samples",
                    bytes >> 20, what, run->ctx->memory_bytes >> 20);
}

nyb_status nyb_graph_make(nyb_graph_run *run, size_t index, nyb_err *err)
{
    const nyb_graph_call *const call = &run->graph->calls[index];
    const nyb_graph_layer *const layer = run->graph->layers[call->layer];
    const nyb_array **const in = nyb_alloc(call->input_count, sizeof(nyb_array *));
    nyb_array out = {0};
    if (!in)
        return nyb_no_memory(err, "inputs", call->input_count, sizeof(nyb_array *));
    for (size_t i = 0; i < call->input_count; i++) {
        if (call->inputs[i] != (size_t) NYB_NO_VALUE)
            in[i] = &run->values[call->inputs[i]];
    }
    const nyb_graph_args args = {.run = run,
                                 .layer = layer,
                                 .options = call->options,
                                 .in = in,
                                 .count = call->input_count,
                                 .out = &out};
    nyb_status status = layer->op->run(&args, err);
    nyb_free(in);
    if (status != NYB_OK) {
        nyb_array_clear(&out);
        return status;
    }
    nyb_array_clear(&run->values[call->output]);
    run->values[call->output] = out;
    return check_memory(run, layer->source->scope, err);
}

void nyb_graph_release(nyb_graph_run *run, size_t index)
{
    for (size_t v = 0; v < value_count(run->graph); v++) {
        if (run->graph->last_use[v] <= index)
            nyb_array_clear(&run->values[v]);
    }
}

nyb_status nyb_graph_like(const nyb_graph_args *args, nyb_err *err)
{
    return nyb_array_init(args->out, args->in[0]->rank, args->in[0]->shape,
                          args->layer->source->scope, err);
}
