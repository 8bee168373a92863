// The calls of a graph: what each refers to, in the order in which Keras makes them.
#include <stdint.h>
#include <string.h>

#include "model/keras_build.h"

enum { MOST_CALLS = 10000 };

// ---- Arguments of a call --------------------------------------------------------------------

// What a call's arguments refer to, where all of it has been made.
typedef struct arguments {
    const nyb_graph_execution *run;
    const nyb_graph_entry *of;
    nyb_graph_values found;
    bool waits; // for something that is not made yet
} arguments;

bool nyb_graph_is(const json_t *object, const char *class_name)
{
    const char *const name = json_string_value(json_object_get(object, "class_name"));
    return name && strcmp(name, class_name) == 0;
}

const json_t *nyb_graph_items(const json_t *value)
{
    if (nyb_graph_is(value, "__tuple__"))
        value = json_object_get(json_object_get(value, "config"), "items")
                    ? json_object_get(json_object_get(value, "config"), "items")
                    : json_object_get(value, "items");
    return json_is_array(value) ? value : NULL;
}

nyb_status nyb_graph_refer(const nyb_graph_execution *run, const json_t *history, bool listed,
                           size_t *value, bool *waits, nyb_err *err)
{
    const char *const name = json_string_value(json_array_get(history, 0));
    const json_int_t call = json_integer_value(json_array_get(history, 1));
    const json_int_t result = json_integer_value(json_array_get(history, 2));
    const nyb_graph_model *const m = run->model;
    *waits = false;
    for (size_t i = 0; name && i < m->count; i++) {
        const nyb_graph_entry *const e = &m->entries[i];
        if (strcmp(e->name, name) != 0)
            continue;
        const json_int_t n = listed && e->model && e->model->functional ? call - 1 : call;
        const size_t calls = e->source ? e->node_count : 1;
        if (n < 0 || result < 0 || (size_t) n >= calls)
            break;
        *waits = (size_t) n >= run->done[i];
        if (*waits)
            return NYB_OK;
        if ((size_t) result >= run->made[i][n].count)
            break;
        *value = run->made[i][n].at[result];
        return NYB_OK;
    }
    return nyb_graph_fail(m->source, NYB_E_FORMAT, err,
                          "config.json refers to call %lld, result %lld of a layer '%s', which is "
                          "not there",
                          (long long) call, (long long) result, name ? name : "?");
}

// Appends every value in an argument: a tensor, or a list of such. null is NYB_NO_VALUE.
static nyb_status collect(arguments *a, const json_t *value, unsigned depth, nyb_err *err)
{
    const json_t *const list = nyb_graph_items(value);
    nyb_status status = NYB_OK;
    for (size_t i = 0; i < json_array_size(list) && status == NYB_OK && depth < NYB_GRAPH_DEPTH;
         i++)
        status = collect(a, json_array_get(list, i), depth + 1, err);
    if (list || status != NYB_OK)
        return status;
    if (a->found.count == NYB_GRAPH_VALUES)
        return nyb_graph_fail(a->of->source, NYB_E_FORMAT, err, "a call has more than %d inputs",
                              NYB_GRAPH_VALUES);
    size_t *const to = &a->found.at[a->found.count];
    *to = (size_t) NYB_NO_VALUE;
    if (nyb_graph_is(value, "__keras_tensor__")) {
        const json_t *const history =
            json_object_get(json_object_get(value, "config"), "keras_history");
        bool waits = false;
        status = nyb_graph_refer(a->run, history, false, to, &waits, err);
        a->waits = a->waits || waits;
    } else if (!json_is_null(value)) {
        status = nyb_graph_fail(a->of->source, NYB_E_UNSUPPORTED, err,
                                "it is called with a constant, not with values of layers alone");
    }
    a->found.count++;
    return status;
}

// ---- Calls ----------------------------------------------------------------------------------

nyb_status nyb_graph_values_make(nyb_graph_builder *b, nyb_graph_values *out, size_t count,
                                 nyb_err *err)
{
    *out = (nyb_graph_values){.at = nyb_arena_alloc(&b->graph->arena, count, sizeof(*out->at))};
    return out->at ? NYB_OK : nyb_no_memory(err, "values", count, sizeof(*out->at));
}

static nyb_status grow_calls(nyb_graph_builder *b, nyb_err *err)
{
    nyb_graph *const g = b->graph;
    const size_t capacity = b->capacity ? 2 * b->capacity : 64;
    if (g->call_count < b->capacity)
        return NYB_OK;
    if (g->call_count >= MOST_CALLS)
        return nyb_fail(err, NYB_E_UNSUPPORTED, "the model has more than %d calls of layers",
                        MOST_CALLS);
    nyb_graph_call *const calls = nyb_arena_alloc(&g->arena, capacity, sizeof(*calls));
    if (!calls)
        return nyb_no_memory(err, "calls", capacity, sizeof(*calls));
    if (g->call_count > 0)
        memcpy(calls, g->calls, g->call_count * sizeof(*calls));
    g->calls = calls;
    b->capacity = capacity;
    return NYB_OK;
}

// Puts the call of a plain layer on the list; *value is its result.
nyb_status nyb_graph_add_call(nyb_graph_builder *b, const nyb_graph_entry *e,
                              const nyb_graph_values *inputs, const nyb_graph_options *options,
                              size_t *value, nyb_err *err)
{
    nyb_graph *const g = b->graph;
    const nyb_graph_op *const op = g->layers[e->layer]->op;
    bool complete = inputs->count >= op->required;
    for (size_t i = 0; i < inputs->count; i++) {
        const bool wanted = i < op->required || !op->slots;
        complete = complete && (!wanted || inputs->at[i] != (size_t) NYB_NO_VALUE);
    }
    if (!complete)
        return nyb_graph_fail(e->source, NYB_E_FORMAT, err, "a call of it lacks an input");
    if (op->identity) {
        *value = inputs->at[0];
        return NYB_OK;
    }
    const nyb_status status = grow_calls(b, err);
    if (status != NYB_OK)
        return status;
    *value = g->input_count + g->call_count;
    g->calls[g->call_count++] = (nyb_graph_call){.layer = e->layer,
                                                 .inputs = inputs->at,
                                                 .input_count = inputs->count,
                                                 .output = *value,
                                                 .options = options};
    return NYB_OK;
}

// A keyword of a call that says how, not with what.
static nyb_status read_option(nyb_graph_options *options, const nyb_graph_entry *e, const char *key,
                              const json_t *value, nyb_err *err)
{
    if (json_is_null(value) || strcmp(key, "training") == 0 || json_is_false(value))
        return NYB_OK;
    if (strcmp(key, "use_causal_mask") == 0 && json_is_true(value))
        options->causal = true;
    else if (strcmp(key, "reverse") == 0 && json_is_true(value))
        options->reverse = true;
    else
        return nyb_graph_fail(e->source, NYB_E_UNSUPPORTED, err,
                              "it is called with '%s', which is not supported", key);
    return NYB_OK;
}

static size_t slot_of(const nyb_graph_op *op, const char *key)
{
    size_t i = 0;
    while (op->slots && op->slots[i] && strcmp(op->slots[i], key) != 0)
        i++;
    return op->slots && op->slots[i] ? i : SIZE_MAX;
}

static size_t slot_count(const nyb_graph_op *op)
{
    size_t n = 0;
    while (op->slots[n])
        n++;
    return n;
}

// The first argument of a layer is called by different names.
static bool names_first(const char *key)
{
    static const char *const names[] = {"inputs", "x", "input", "args"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(names[i], key) == 0)
            return true;
    }
    return false;
}

// Puts the values of a layer with slots to their places.
static nyb_status read_slots(nyb_graph_builder *b, arguments *a, const nyb_graph_op *op,
                             const json_t *node, nyb_graph_options *options, nyb_err *err)
{
    const json_t *const args = nyb_graph_items(json_object_get(node, "args"));
    const size_t slots = slot_count(op);
    nyb_graph_values placed;
    nyb_status status = nyb_graph_values_make(b, &placed, slots, err);
    if (status != NYB_OK)
        return status;
    placed.count = slots;
    for (size_t i = 0; i < slots; i++)
        placed.at[i] = (size_t) NYB_NO_VALUE;
    for (size_t i = 0; i < json_array_size(args) && status == NYB_OK; i++) {
        a->found.count = 0;
        if (i < slots)
            status = collect(a, json_array_get(args, i), 0, err);
        else
            status = read_option(options, a->of, "?", json_array_get(args, i), err);
        if (status == NYB_OK && i < slots && a->found.count > 0)
            placed.at[i] = a->found.at[0];
    }
    const char *key = NULL;
    json_t *value = NULL;
    json_t *const named = json_object_get(node, "kwargs");
    json_object_foreach(named, key, value)
    {
        const size_t slot = slots == 1 && names_first(key) ? 0 : slot_of(op, key);
        a->found.count = 0;
        if (status == NYB_OK && slot == SIZE_MAX)
            status = read_option(options, a->of, key, value, err);
        else if (status == NYB_OK)
            status = collect(a, value, 0, err);
        if (status == NYB_OK && a->found.count > 0)
            placed.at[slot] = a->found.at[0];
    }
    a->found = placed;
    return status;
}

// All values of a call's arguments, in order: of layers that take a list, and of models.
static nyb_status read_list(arguments *a, const json_t *node, nyb_graph_options *options,
                            nyb_err *err)
{
    nyb_status status = NYB_OK;
    const json_t *const args = nyb_graph_items(json_object_get(node, "args"));
    if (json_array_size(args) > 0)
        status = collect(a, json_array_get(args, 0), 0, err);
    for (size_t i = 1; i < json_array_size(args) && status == NYB_OK; i++)
        status = read_option(options, a->of, "?", json_array_get(args, i), err);
    const char *key = NULL;
    json_t *value = NULL;
    json_t *const named = json_object_get(node, "kwargs");
    json_object_foreach(named, key, value)
    {
        if (status == NYB_OK && names_first(key) && a->found.count == 0)
            status = collect(a, value, 0, err);
        else if (status == NYB_OK)
            status = read_option(options, a->of, key, value, err);
    }
    return status;
}

// Makes call `node` of an entry if its inputs are there; *waits otherwise.
nyb_status nyb_graph_make_node(nyb_graph_builder *b, nyb_graph_execution *run, size_t index,
                               size_t node, unsigned depth, bool *waits, nyb_err *err)
{
    const nyb_graph_entry *const e = &run->model->entries[index];
    const json_t *const text = json_array_get(e->nodes, node);
    const nyb_graph_op *const op = e->model ? NULL : b->graph->layers[e->layer]->op;
    nyb_graph_options *const options = nyb_arena_alloc(&b->graph->arena, 1, sizeof(*options));
    size_t memory[NYB_GRAPH_VALUES];
    arguments a = {.run = run, .of = e, .found = {.at = memory}};
    if (!options)
        return nyb_no_memory(err, "a call", 1, sizeof(*options));
    if (!json_is_object(text))
        return nyb_graph_fail(
            e->source, NYB_E_UNSUPPORTED, err,
            "its calls are written as Keras 2 did it: save the model with Keras 3");
    nyb_status status = op && op->slots ? read_slots(b, &a, op, text, options, err)
                                        : read_list(&a, text, options, err);
    *waits = a.waits;
    if (status != NYB_OK || a.waits)
        return status;
    nyb_graph_values inputs;
    nyb_graph_values *const made = &run->made[index][node];
    status = nyb_graph_values_make(b, &inputs, a.found.count, err);
    if (status == NYB_OK && a.found.count > 0)
        memcpy(inputs.at, a.found.at, a.found.count * sizeof(*inputs.at));
    inputs.count = a.found.count;
    if (status == NYB_OK && e->model)
        return nyb_graph_call_model(b, e->model, &inputs, depth + 1, made, err);
    if (status == NYB_OK)
        status = nyb_graph_values_make(b, made, 1, err);
    made->count = 1;
    return status == NYB_OK ? nyb_graph_add_call(b, e, &inputs, options, &made->at[0], err)
                            : status;
}

static nyb_status begin(nyb_graph_builder *b, nyb_graph_execution *run, const nyb_graph_model *m,
                        nyb_err *err)
{
    nyb_arena *const arena = &b->graph->arena;
    *run =
        (nyb_graph_execution){.model = m,
                              .made = nyb_arena_alloc(arena, m->count, sizeof(nyb_graph_values *)),
                              .done = nyb_arena_alloc(arena, m->count, sizeof(size_t))};
    for (size_t i = 0; run->made && run->done && i < m->count; i++) {
        // An input has one result and no calls.
        const size_t calls = m->entries[i].source ? m->entries[i].node_count : 1;
        run->made[i] = nyb_arena_alloc(arena, calls, sizeof(nyb_graph_values));
        if (!run->made[i])
            return nyb_no_memory(err, "calls", calls, sizeof(nyb_graph_values));
    }
    return run->made && run->done ? NYB_OK
                                  : nyb_no_memory(err, "calls", m->count, sizeof(nyb_graph_values));
}

// The references in input_layers or output_layers, in Keras' order: objects by their sorted keys.
static nyb_status list_ends(const json_t *value, const json_t **out, size_t *count, unsigned depth)
{
    if (json_is_array(value) && json_is_string(json_array_get(value, 0))) {
        if (*count == NYB_GRAPH_VALUES)
            return NYB_E_FORMAT;
        out[(*count)++] = value;
        return NYB_OK;
    }
    if (depth > NYB_GRAPH_DEPTH || (!json_is_array(value) && !json_is_object(value)))
        return NYB_E_FORMAT;
    nyb_status status = NYB_OK;
    for (size_t i = 0; i < json_array_size(value) && status == NYB_OK; i++)
        status = list_ends(json_array_get(value, i), out, count, depth + 1);
    if (!json_is_object(value))
        return status;
    if (nyb_graph_items(value))
        return list_ends(nyb_graph_items(value), out, count, depth + 1);
    const char *last = "";
    for (size_t n = 0; n < json_object_size(value) && status == NYB_OK; n++) {
        const char *key = NULL, *next = NULL;
        json_t *item = NULL;
        json_object_foreach((json_t *) (uintptr_t) value, key, item) // reads alone
        {
            if ((n == 0 || strcmp(key, last) > 0) && (!next || strcmp(key, next) < 0))
                next = key;
        }
        status =
            next ? list_ends(json_object_get(value, next), out, count, depth + 1) : NYB_E_FORMAT;
        last = next ? next : last;
    }
    return status;
}

nyb_status nyb_graph_ends(const nyb_graph_model *m, const char *key,
                          const json_t *out[NYB_GRAPH_VALUES], size_t *count, nyb_err *err)
{
    *count = 0;
    if (list_ends(json_object_get(m->source->config, key), out, count, 0) == NYB_OK && *count > 0)
        return NYB_OK;
    return nyb_graph_fail(m->source, NYB_E_FORMAT, err, "its %s are no references to layers", key);
}

static nyb_status set_inputs(nyb_graph_builder *b, nyb_graph_execution *run,
                             const nyb_graph_values *inputs, nyb_err *err)
{
    const nyb_graph_model *const m = run->model;
    const json_t *ends[NYB_GRAPH_VALUES];
    size_t count = 0;
    nyb_status status = nyb_graph_ends(m, "input_layers", ends, &count, err);
    if (status == NYB_OK && count != inputs->count)
        return nyb_graph_fail(m->source, NYB_E_FORMAT, err,
                              "it is called with %zu values, it has "
                              "%zu inputs",
                              inputs->count, count);
    for (size_t i = 0; i < count && status == NYB_OK; i++) {
        const char *const name = json_string_value(json_array_get(ends[i], 0));
        size_t at = 0;
        while (at < m->count &&
               !(!m->entries[at].source && name && strcmp(m->entries[at].name, name) == 0))
            at++;
        if (at == m->count)
            return nyb_graph_fail(m->source, NYB_E_FORMAT, err, "its input '%s' is no InputLayer",
                                  name);
        status = nyb_graph_values_make(b, &run->made[at][0], 1, err);
        if (status != NYB_OK)
            return status;
        run->made[at][0].at[0] = inputs->at[i];
        run->made[at][0].count = 1;
        run->done[at] = 1;
    }
    return status;
}

// Calls of all layers, over and over until none is left that can be made, as Keras does it.
static nyb_status make_calls(nyb_graph_builder *b, nyb_graph_execution *run, unsigned depth,
                             nyb_err *err)
{
    const nyb_graph_model *const m = run->model;
    nyb_status status = NYB_OK;
    bool moved = true;
    const nyb_graph_entry *open = NULL;
    while (moved && status == NYB_OK) {
        moved = false;
        open = NULL;
        for (size_t i = 0; i < m->count && status == NYB_OK; i++) {
            bool waits = !m->entries[i].source;
            while (!waits && status == NYB_OK && run->done[i] < m->entries[i].node_count) {
                status = nyb_graph_make_node(b, run, i, run->done[i], depth, &waits, err);
                if (status == NYB_OK && !waits) {
                    run->done[i]++;
                    moved = true;
                }
            }
            open = waits && m->entries[i].source ? &m->entries[i] : open;
        }
    }
    if (status == NYB_OK && open)
        return nyb_graph_fail(open->source, NYB_E_FORMAT, err,
                              "a call of it waits for itself: the graph has a loop");
    return status;
}

static nyb_status call_functional(nyb_graph_builder *b, const nyb_graph_model *m,
                                  const nyb_graph_values *inputs, unsigned depth,
                                  nyb_graph_values *outputs, nyb_err *err)
{
    nyb_graph_execution run;
    const json_t *ends[NYB_GRAPH_VALUES];
    size_t count = 0;
    nyb_status status = begin(b, &run, m, err);
    if (status == NYB_OK)
        status = set_inputs(b, &run, inputs, err);
    if (status == NYB_OK)
        status = make_calls(b, &run, depth, err);
    if (status == NYB_OK)
        status = nyb_graph_ends(m, "output_layers", ends, &count, err);
    if (status == NYB_OK)
        status = nyb_graph_values_make(b, outputs, count, err);
    for (size_t i = 0; i < count && status == NYB_OK; i++) {
        bool waits = false;
        status = nyb_graph_refer(&run, ends[i], true, &outputs->at[i], &waits, err);
        if (status == NYB_OK && waits)
            status = nyb_graph_fail(m->source, NYB_E_FORMAT, err,
                                    "its output %zu is a call that is never made", i);
    }
    outputs->count = count;
    return status;
}

static nyb_status call_sequential(nyb_graph_builder *b, const nyb_graph_model *m,
                                  const nyb_graph_values *inputs, unsigned depth,
                                  nyb_graph_values *outputs, nyb_err *err)
{
    nyb_graph_values now = *inputs;
    nyb_status status = NYB_OK;
    for (size_t i = 0; i < m->count && status == NYB_OK; i++) {
        const nyb_graph_entry *const e = &m->entries[i];
        static const nyb_graph_options none = {0};
        nyb_graph_values next;
        if (!e->source)
            continue;
        if (now.count != 1)
            return nyb_graph_fail(e->source, NYB_E_FORMAT, err,
                                  "it gets %zu values in a Sequential "
                                  "model, want 1",
                                  now.count);
        if (e->model) {
            status = nyb_graph_call_model(b, e->model, &now, depth + 1, &next, err);
        } else {
            status = nyb_graph_values_make(b, &next, 1, err);
            next.count = 1;
            if (status == NYB_OK)
                status = nyb_graph_add_call(b, e, &now, &none, &next.at[0], err);
        }
        now = next;
    }
    *outputs = now;
    return status;
}

nyb_status nyb_graph_call_model(nyb_graph_builder *b, const nyb_graph_model *m,
                                const nyb_graph_values *inputs, unsigned depth,
                                nyb_graph_values *outputs, nyb_err *err)
{
    *outputs = (nyb_graph_values){0};
    if (depth > NYB_GRAPH_DEPTH || ++b->executions > MOST_CALLS)
        return nyb_graph_fail(
            m->source, NYB_E_UNSUPPORTED, err,
            "models lie in it more than %d deep, or are called more than %d times", NYB_GRAPH_DEPTH,
            MOST_CALLS);
    return m->functional ? call_functional(b, m, inputs, depth, outputs, err)
                         : call_sequential(b, m, inputs, depth, outputs, err);
}
