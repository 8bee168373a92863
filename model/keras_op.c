// The classes of layers that the graph knows, and what their files share.
#include "model/keras_op.h"

#include <limits.h>
#include <string.h>

static const char *const one[] = {"inputs", NULL};

// Layers that do nothing when a model is used.
static const nyb_graph_op identities[] = {
    {.class_name = "Dropout", .slots = one, .required = 1, .identity = true},
    {.class_name = "SpatialDropout1D", .slots = one, .required = 1, .identity = true},
    {.class_name = "GaussianNoise", .slots = one, .required = 1, .identity = true},
    {.class_name = "GaussianDropout", .slots = one, .required = 1, .identity = true},
    {.class_name = "AlphaDropout", .slots = one, .required = 1, .identity = true},
    {.class_name = "ActivityRegularization", .slots = one, .required = 1, .identity = true},
    {.class_name = "Identity", .slots = one, .required = 1, .identity = true},
};

static const nyb_graph_op *const ops[] = {
    &nyb_graph_op_dense,      &nyb_graph_op_einsum,     &nyb_graph_op_embedding,
    &nyb_graph_op_reversible, &nyb_graph_op_mha,        &nyb_graph_op_gqa,
    &nyb_graph_op_layer_norm, &nyb_graph_op_rms_norm,   &nyb_graph_op_activation,
    &nyb_graph_op_relu,       &nyb_graph_op_leaky_relu, &nyb_graph_op_elu,
    &nyb_graph_op_prelu,      &nyb_graph_op_softmax,    &nyb_graph_op_flatten,
    &nyb_graph_op_reshape,    &nyb_graph_op_permute,    &nyb_graph_op_concatenate,
    &nyb_graph_op_add,        &nyb_graph_op_subtract,   &nyb_graph_op_multiply,
    &nyb_graph_op_average,    &nyb_graph_op_maximum,    &nyb_graph_op_minimum,
    &nyb_graph_op_mean_pool,  &nyb_graph_op_max_pool,
};

const nyb_graph_op *nyb_graph_op_find(const char *class_name)
{
    for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
        if (strcmp(ops[i]->class_name, class_name) == 0)
            return ops[i];
    }
    for (size_t i = 0; i < sizeof(identities) / sizeof(identities[0]); i++) {
        if (strcmp(identities[i].class_name, class_name) == 0)
            return &identities[i];
    }
    return NULL;
}

nyb_status nyb_graph_variable(nyb_graph *graph, const nyb_keras_layer *layer, size_t index,
                              nyb_array *out, nyb_err *err)
{
    nyb_tensor shape;
    *out = (nyb_array){0};
    const nyb_status status =
        nyb_keras_floats(graph->file, layer->first, index, &graph->arena, &out->at, &shape, err);
    if (status != NYB_OK)
        return status;
    out->rank = shape.rank;
    memcpy(out->shape, shape.shape, sizeof(out->shape));
    if (out->rank == 0)
        return nyb_graph_fail(layer, NYB_E_FORMAT, err, "its array %zu is a single number", index);
    return NYB_OK;
}

nyb_status nyb_graph_vector(nyb_graph *graph, const nyb_keras_layer *layer, size_t index,
                            size_t count, float **out, nyb_err *err)
{
    nyb_array array;
    const nyb_status status = nyb_graph_variable(graph, layer, index, &array, err);
    if (status != NYB_OK)
        return status;
    if (nyb_array_count(&array) != count)
        return nyb_graph_fail(layer, NYB_E_FORMAT, err, "its array %zu has %zu values, want %zu",
                              index, nyb_array_count(&array), count);
    *out = array.at;
    return NYB_OK;
}

nyb_status nyb_graph_integer(const nyb_graph_opening *o, const char *key, int *out, nyb_err *err)
{
    const json_t *const value = json_object_get(o->config, key);
    const json_int_t n = json_integer_value(value);
    if (!value || json_is_null(value))
        return NYB_OK;
    if (!json_is_integer(value) || n < INT_MIN || n > INT_MAX)
        return nyb_graph_fail(o->layer->source, NYB_E_FORMAT, err, "its '%s' is no whole number",
                              key);
    *out = (int) n;
    return NYB_OK;
}

nyb_status nyb_graph_size(const nyb_graph_opening *o, const char *key, size_t *out, nyb_err *err)
{
    return nyb_json_size(o->config, key, out, o->layer->source->scope, err);
}

nyb_status nyb_graph_real(const nyb_graph_opening *o, const char *key, double *out, nyb_err *err)
{
    return nyb_json_real(o->config, key, out, o->layer->source->scope, err);
}

nyb_status nyb_graph_bool(const nyb_graph_opening *o, const char *key, bool *out, nyb_err *err)
{
    return nyb_json_bool(o->config, key, out, o->layer->source->scope, err);
}

void *nyb_graph_self(const nyb_graph_opening *o, size_t bytes, nyb_err *err)
{
    o->layer->self = nyb_arena_alloc(&o->graph->arena, 1, bytes);
    if (!o->layer->self) {
        const nyb_status status = nyb_no_memory(err, o->layer->source->scope, 1, bytes);
        (void) status;
    }
    return o->layer->self;
}

nyb_status nyb_graph_add_linear(const nyb_graph_opening *o, const nyb_keras_layer *layer,
                                const nyb_array *kernel, size_t in, unsigned stage,
                                nyb_graph_linear **linear, nyb_err *err)
{
    const size_t count = nyb_array_count(kernel);
    *linear = nyb_arena_alloc(&o->graph->arena, 1, sizeof(**linear));
    if (!*linear)
        return nyb_no_memory(err, layer->scope, 1, sizeof(**linear));
    if (count == 0)
        return nyb_graph_fail(layer, NYB_E_FORMAT, err, "its kernel is empty");
    **linear = (nyb_graph_linear){.layer = layer->first,
                                  .in = in,
                                  .out = count / in,
                                  .kernel = kernel->at,
                                  .plain = true,
                                  .rank = kernel->rank,
                                  .stage = stage};
    memcpy((*linear)->shape, kernel->shape, sizeof(kernel->shape));
    o->layer->linears[o->layer->linear_count++] = *linear;
    o->layer->stages = stage + 1 > o->layer->stages ? stage + 1 : o->layer->stages;
    return NYB_OK;
}

size_t nyb_graph_linear_count(const nyb_graph *graph, size_t layer)
{
    return graph->layers[layer]->linear_count;
}

nyb_graph_linear *nyb_graph_linear_at(const nyb_graph *graph, size_t layer, size_t index)
{
    return graph->layers[layer]->linears[index];
}

unsigned nyb_graph_stage_count(const nyb_graph *graph, size_t layer)
{
    return graph->layers[layer]->stages;
}

size_t nyb_graph_last_call(const nyb_graph *graph, size_t layer)
{
    size_t last = SIZE_MAX;
    for (size_t c = 0; c < graph->call_count; c++)
        last = graph->calls[c].layer == layer ? c : last;
    return last;
}
