// From the configuration of a Keras model to the list of its calls.
//
// A model is read in two steps: its layers once, then its calls each time the model is called, in
// the order in which Keras itself makes them.
#include "model/keras_graph.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "model/keras_build.h"

nyb_status nyb_graph_fail(const nyb_keras_layer *layer, nyb_status status, nyb_err *err,
                          const char *format, ...)
{
    char text[600];
    va_list args;
    va_start(args, format);
    (void) vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return nyb_fail(err, status, "layer '%s' (%s): %s", layer->scope, layer->class_name, text);
}

// ---- Layers ---------------------------------------------------------------------------------

static const nyb_keras_layer *layer_of(const nyb_graph *g, const json_t *object)
{
    for (size_t i = 0; i < g->source->count; i++) {
        if (g->source->all[i]->object == object)
            return g->source->all[i];
    }
    return NULL;
}

static bool is_model(const char *class_name)
{
    return strcmp(class_name, "Functional") == 0 || strcmp(class_name, "Sequential") == 0;
}

// The layer of the graph that this one is, if it was seen before.
static size_t known_layer(const nyb_graph *g, const nyb_keras_layer *source)
{
    for (size_t i = 0; i < g->layer_count; i++) {
        if (g->layers[i]->source == source->first)
            return i;
    }
    return SIZE_MAX;
}

static nyb_status open_layer(nyb_graph_builder *b, nyb_graph_entry *e, nyb_err *err)
{
    nyb_graph *const g = b->graph;
    e->layer = known_layer(g, e->source);
    if (e->layer != SIZE_MAX)
        return NYB_OK;
    nyb_graph_layer *const layer = nyb_arena_alloc(&g->arena, 1, sizeof(*layer));
    if (!layer)
        return nyb_no_memory(err, e->source->scope, 1, sizeof(*layer));
    layer->source = e->source->first;
    layer->op = nyb_graph_op_find(e->source->class_name);
    if (!layer->op)
        return nyb_graph_fail(e->source, NYB_E_UNSUPPORTED, err,
                              "layers of this class are not supported where a model is run");
    if (layer->source->mode)
        return nyb_graph_fail(e->source, NYB_E_UNSUPPORTED, err,
                              "it is quantised already (%s): start from the full-precision model",
                              layer->source->mode);
    e->layer = g->layer_count;
    g->layers[g->layer_count++] = layer;
    const nyb_graph_opening opening = {.graph = g, .layer = layer, .config = layer->source->config};
    return layer->op->open ? layer->op->open(&opening, err) : NYB_OK;
}

static nyb_status open_model(nyb_graph_builder *b, const nyb_keras_layer *source, unsigned depth,
                             nyb_graph_model **out, nyb_err *err);

static nyb_status open_entry(nyb_graph_builder *b, const json_t *object, unsigned depth,
                             nyb_graph_entry *e, nyb_err *err)
{
    const char *const class_name = json_string_value(json_object_get(object, "class_name"));
    const json_t *const nodes = json_object_get(object, "inbound_nodes");
    const json_t *const config = json_object_get(object, "config");
    *e = (nyb_graph_entry){.name = json_string_value(json_object_get(config, "name")),
                           .config = config,
                           .nodes = nodes,
                           .node_count = json_array_size(nodes)};
    if (!e->name)
        e->name = json_string_value(json_object_get(object, "name"));
    if (!class_name || !e->name)
        return nyb_fail(err, NYB_E_FORMAT, "config.json: a layer has no class_name or no name");
    if (strcmp(class_name, "InputLayer") == 0)
        return NYB_OK;
    e->source = layer_of(b->graph, object);
    if (!e->source)
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "'%s' (%s): it is an operation and not a layer, and operations are not "
                        "supported where a model is run",
                        e->name, class_name);
    return is_model(class_name) ? open_model(b, e->source, depth + 1, &e->model, err)
                                : open_layer(b, e, err);
}

static nyb_status open_model(nyb_graph_builder *b, const nyb_keras_layer *source, unsigned depth,
                             nyb_graph_model **out, nyb_err *err)
{
    const json_t *const list = json_object_get(source->config, "layers");
    const size_t count = json_array_size(list);
    nyb_graph_model *const m = nyb_arena_alloc(&b->graph->arena, 1, sizeof(*m));
    *out = m;
    if (depth > NYB_GRAPH_DEPTH)
        return nyb_graph_fail(source, NYB_E_FORMAT, err, "models lie in it more than %d deep",
                              NYB_GRAPH_DEPTH);
    if (count == 0)
        return nyb_graph_fail(source, NYB_E_FORMAT, err, "it has no layers");
    if (m)
        m->entries = nyb_arena_alloc(&b->graph->arena, count, sizeof(*m->entries));
    if (!m || !m->entries)
        return nyb_no_memory(err, source->scope, count, sizeof(*m->entries));
    m->source = source;
    m->functional = strcmp(source->class_name, "Functional") == 0;
    nyb_status status = NYB_OK;
    for (; m->count < count && status == NYB_OK; m->count++)
        status = open_entry(b, json_array_get(list, m->count), depth, &m->entries[m->count], err);
    return status;
}

// ---- The whole ------------------------------------------------------------------------------

static nyb_status read_shape(nyb_graph_input *out, const json_t *shape, nyb_err *err)
{
    const json_t *const list = nyb_graph_items(shape);
    if (json_array_size(list) > NYB_MAX_RANK)
        return nyb_fail(err, NYB_E_UNSUPPORTED, "input '%s' has more than %d axes", out->name,
                        NYB_MAX_RANK);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_int_t n = json_integer_value(json_array_get(list, i));
        out->shape[out->rank++] = n > 0 && i > 0 ? (size_t) n : 0;
    }
    return NYB_OK;
}

static const nyb_graph_entry *input_named(const nyb_graph_model *m, const char *name)
{
    for (size_t i = 0; i < m->count; i++) {
        if (!m->entries[i].source && (!name || strcmp(m->entries[i].name, name) == 0))
            return &m->entries[i];
    }
    return NULL;
}

// The model's own inputs. A Sequential model may have none in its list; it has one all the same.
static nyb_status list_inputs(nyb_graph_builder *b, const nyb_graph_model *m, nyb_err *err)
{
    nyb_graph *const g = b->graph;
    const json_t *ends[NYB_GRAPH_VALUES];
    size_t count = 1;
    nyb_status status =
        m->functional ? nyb_graph_ends(m, "input_layers", ends, &count, err) : NYB_OK;
    if (status != NYB_OK)
        return status;
    g->inputs = nyb_arena_alloc(&g->arena, count, sizeof(*g->inputs));
    if (!g->inputs)
        return nyb_no_memory(err, "inputs", count, sizeof(*g->inputs));
    for (; g->input_count < count && status == NYB_OK; g->input_count++) {
        nyb_graph_input *const input = &g->inputs[g->input_count];
        const char *const name =
            m->functional ? json_string_value(json_array_get(ends[g->input_count], 0)) : NULL;
        const nyb_graph_entry *const e = input_named(m, name);
        input->name = e ? e->name : "input";
        if (e)
            status = read_shape(input, json_object_get(e->config, "batch_shape"), err);
    }
    return status;
}

static nyb_status set_outputs(nyb_graph_builder *b, const nyb_graph_model *m,
                              const nyb_graph_values *outputs, nyb_err *err)
{
    nyb_graph *const g = b->graph;
    const json_t *ends[NYB_GRAPH_VALUES];
    size_t count = 0;
    g->outputs = outputs->at;
    g->output_count = outputs->count;
    g->output_names = nyb_arena_alloc(&g->arena, outputs->count, sizeof(const char *));
    if (!g->output_names)
        return nyb_no_memory(err, "outputs", outputs->count, sizeof(const char *));
    if (m->functional && nyb_graph_ends(m, "output_layers", ends, &count, err) != NYB_OK)
        return NYB_E_FORMAT;
    for (size_t i = 0; i < g->output_count; i++)
        g->output_names[i] = m->functional ? json_string_value(json_array_get(ends[i], 0))
                                           : m->entries[m->count - 1].name;
    return NYB_OK;
}

static nyb_status find_uses(nyb_graph_builder *b, nyb_err *err)
{
    nyb_graph *const g = b->graph;
    const size_t count = g->input_count + g->call_count;
    g->last_use = nyb_arena_alloc(&g->arena, count, sizeof(*g->last_use));
    if (!g->last_use)
        return nyb_no_memory(err, "values", count, sizeof(*g->last_use));
    for (size_t c = 0; c < g->call_count; c++) {
        g->last_use[g->calls[c].output] = c;
        for (size_t i = 0; i < g->calls[c].input_count; i++) {
            if (g->calls[c].inputs[i] != (size_t) NYB_NO_VALUE)
                g->last_use[g->calls[c].inputs[i]] = c;
        }
    }
    for (size_t i = 0; i < g->output_count; i++)
        g->last_use[g->outputs[i]] = SIZE_MAX;
    return NYB_OK;
}

static nyb_status build(nyb_graph_builder *b, nyb_err *err)
{
    nyb_graph *const g = b->graph;
    const nyb_keras_layer *const root = g->source->count ? g->source->all[0] : NULL;
    nyb_graph_model *m = NULL;
    nyb_graph_values inputs = {0}, outputs = {0};
    if (!root || !root->config || !is_model(root->class_name))
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: its configuration is no Sequential or Functional model, so it cannot "
                        "be run",
                        nyb_keras_path(g->file));
    g->layers = nyb_arena_alloc(&g->arena, g->source->count, sizeof(nyb_graph_layer *));
    if (!g->layers)
        return nyb_no_memory(err, "layers", g->source->count, sizeof(nyb_graph_layer *));
    nyb_status status = open_model(b, root, 0, &m, err);
    if (status == NYB_OK)
        status = list_inputs(b, m, err);
    if (status == NYB_OK)
        status = nyb_graph_values_make(b, &inputs, g->input_count, err);
    if (status != NYB_OK)
        return status;
    for (; inputs.count < g->input_count; inputs.count++)
        inputs.at[inputs.count] = inputs.count;
    status = nyb_graph_call_model(b, m, &inputs, 0, &outputs, err);
    if (status == NYB_OK)
        status = set_outputs(b, m, &outputs, err);
    return status == NYB_OK ? find_uses(b, err) : status;
}

nyb_status nyb_graph_open(nyb_graph *out, const nyb_keras_layers *source, nyb_keras_file *file,
                          nyb_err *err)
{
    *out = (nyb_graph){.source = source, .file = file};
    nyb_graph_builder b = {.graph = out};
    const nyb_status status = build(&b, err);
    if (status != NYB_OK)
        nyb_graph_close(out);
    return status;
}

void nyb_graph_close(nyb_graph *graph)
{
    nyb_arena_clear(&graph->arena);
    *graph = (nyb_graph){0};
}
