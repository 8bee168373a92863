#include "formats/keras_layers.h"

#include <stdio.h>
#include <string.h>

#include "core/dtype.h"
#include "formats/keras_names.h"
#include "formats/keras_parts.h"
#include "formats/keras_policy.h"

enum { DEPTH = 32, LAYERS = 1 << 20 };

typedef struct reading {
    nyb_keras_layers *to;
    const nyb_keras_file *file;
    json_t *shared; // where in `to` the first occurrence of each shared layer is
    size_t room;
    unsigned depth;
    nyb_err *err;
} reading;

static nyb_status out_of_memory(const reading *r)
{
    return nyb_no_memory(r->err, nyb_keras_path(r->file), 1, sizeof(nyb_keras_layer));
}

static nyb_status malformed(const reading *r, const char *place, const char *what)
{
    return nyb_fail(r->err, NYB_E_FORMAT, "%s: its configuration: '%s': %s",
                    nyb_keras_path(r->file), *place ? place : "the model", what);
}

static const char *text_in(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

// ---- One layer ------------------------------------------------------------------------------

static size_t count_variables(const reading *r, const char *place)
{
    size_t count = 0;
    for (;;) {
        char number[32];
        nyb_arena arena = {0};
        (void) snprintf(number, sizeof(number), "%zu", count);
        const char *const path = nyb_keras_variable_path(&arena, place, number);
        const nyb_hdf5_item *const item = path ? nyb_keras_find(r->file, path) : NULL;
        const bool there = item && !item->is_group;
        nyb_arena_clear(&arena);
        if (!there)
            return count;
        count++;
    }
}

// The mode of a dtype policy, which can be a word, an object, or a map from scopes to such.
static const char *policy_mode(const json_t *policy, const char *scope)
{
    const json_t *const config = json_object_get(policy, "config");
    const char *const kind = text_in(policy, "class_name");
    if (kind && strcmp(kind, "DTypePolicyMap") == 0) {
        const json_t *const map = json_object_get(config, "policy_map");
        const json_t *const own = json_object_get(map, scope);
        return policy_mode(own ? own : json_object_get(config, "default_policy"), scope);
    }
    return text_in(config, "mode");
}

// Of a layer that is listed nowhere, in the policy of the one around it.
static const char *sublayer_mode(reading *r, const nyb_keras_layer *part)
{
    const json_t *const policy = json_object_get(part->parent->config, "dtype");
    const json_t *const map = json_object_get(json_object_get(policy, "config"), "policy_map");
    const char *const key = nyb_keras_policy_key(&r->to->arena, part);
    const json_t *const own = key ? json_object_get(map, key) : NULL;
    return own ? policy_mode(own, part->scope) : policy_mode(policy, part->scope);
}

static size_t last_input_rank(const json_t *build)
{
    const json_t *shape = json_object_get(build, "input_shape");
    if (!shape)
        shape = json_object_get(json_object_get(build, "shapes_dict"), "query_shape");
    return json_array_size(shape);
}

static nyb_status add(reading *r, const nyb_keras_layer *layer, nyb_keras_layer **out)
{
    nyb_keras_layers *const to = r->to;
    if (to->count == LAYERS)
        return malformed(r, layer->place, "too many layers");
    if (to->count == r->room) {
        const size_t room = r->room ? 2 * r->room : 64;
        nyb_keras_layer **const more = nyb_arena_alloc(&to->arena, room, sizeof(*more));
        if (!more)
            return out_of_memory(r);
        if (to->count > 0)
            memcpy(more, to->all, to->count * sizeof(nyb_keras_layer *));
        to->all = more;
        r->room = room;
    }
    nyb_keras_layer *const made = nyb_arena_alloc(&to->arena, 1, sizeof(*made));
    if (!made)
        return out_of_memory(r);
    *made = *layer;
    made->first = made;
    made->variables = count_variables(r, made->place);
    to->all[to->count++] = made;
    *out = made;
    return NYB_OK;
}

// A layer that is written twice in a configuration has the same number there. `layer` is the last that
// was added. NULL: there is no memory.
static const nyb_keras_layer *first_of(reading *r, const nyb_keras_layer *layer)
{
    const json_t *const id = json_object_get(layer->object, "shared_object_id");
    nyb_arena arena = {0};
    if (!json_is_integer(id))
        return layer;
    const char *const key =
        nyb_arena_format(&arena, "%lld %s", (long long) json_integer_value(id), layer->class_name);
    const json_t *const before = key ? json_object_get(r->shared, key) : NULL;
    const nyb_keras_layer *first = before ? r->to->all[json_integer_value(before)]->first : layer;
    if (!key || (!before && json_object_set_new(r->shared, key,
                                                json_integer((json_int_t) r->to->count - 1)) != 0))
        first = NULL;
    nyb_arena_clear(&arena);
    return first;
}

// ---- The tree -------------------------------------------------------------------------------

static nyb_status read_object(reading *r, json_t *object, const nyb_keras_layer *parent,
                              const char *place);

static const char *scope_of(reading *r, const nyb_keras_layer *parent, const char *name)
{
    // The model itself opens no scope while it is built.
    return parent && parent->parent ? nyb_arena_format(&r->to->arena, "%s/%s", parent->scope, name)
                                    : nyb_arena_text(&r->to->arena, name, strlen(name));
}

// Layers that Keras makes within another without writing them into the configuration.
static nyb_status read_sublayers(reading *r, const nyb_keras_layer *layer)
{
    const nyb_keras_sublayer *const parts = nyb_keras_sublayers(layer->class_name);
    for (size_t i = 0; parts && parts[i].attribute; i++) {
        const char *const place =
            nyb_keras_child_place(r->file, &r->to->arena, layer->place, parts[i].attribute);
        if (!place)
            continue;
        nyb_keras_layer part = {.class_name = parts[i].class_name,
                                .name = parts[i].name,
                                .place = place,
                                .scope = scope_of(r, layer, parts[i].name),
                                .parent = layer,
                                .input_rank = parts[i].input_rank(layer)};
        part.equation = nyb_keras_sublayer_equation(&r->to->arena, &parts[i], layer);
        part.mode = part.scope ? sublayer_mode(r, &part) : NULL;
        nyb_keras_layer *made;
        const nyb_status status = part.scope ? add(r, &part, &made) : out_of_memory(r);
        if (status != NYB_OK)
            return status;
    }
    return NYB_OK;
}

// Layers that are attributes of a layer and stand in its configuration under the attribute's name
// (TimeDistributed has "layer").
static nyb_status read_attributes(reading *r, const nyb_keras_layer *layer)
{
    const char *key;
    json_t *value;
    json_object_foreach(layer->config, key, value)
    {
        if (!text_in(value, "class_name") || !json_is_object(json_object_get(value, "config")))
            continue;
        const char *const place = nyb_keras_child_place(r->file, &r->to->arena, layer->place, key);
        const nyb_status status = place ? read_object(r, value, layer, place) : NYB_OK;
        if (status != NYB_OK)
            return status;
    }
    return NYB_OK;
}

static bool is_input(const json_t *object)
{
    const char *const kind = text_in(object, "class_name");
    return kind && strcmp(kind, "InputLayer") == 0;
}

// Functions of keras.ops are nodes of a graph, too, but no layers.
static bool is_layer(const json_t *object)
{
    const char *const module = text_in(object, "module");
    return !module ||
           (strncmp(module, "keras.src.ops", 13) != 0 && strncmp(module, "keras.ops", 9) != 0);
}

static nyb_status read_members(reading *r, const nyb_keras_layer *model, json_t *members)
{
    nyb_keras_counter counter = {0};
    const bool sequential = !json_object_get(model->config, "input_layers");
    nyb_status status = NYB_OK;
    size_t i;
    json_t *object;
    json_array_foreach(members, i, object)
    {
        const char *const kind = text_in(object, "class_name");
        if (!kind || !json_is_object(json_object_get(object, "config"))) {
            status = malformed(r, model->place, "a layer of it has no class or configuration");
            break;
        }
        if (!is_layer(object) || (sequential && i == 0 && is_input(object)))
            continue;
        const char *const name = nyb_keras_counter_next(&counter, &r->to->arena, kind);
        const char *const place =
            !name ? NULL
                  : nyb_arena_format(&r->to->arena, "%s%slayers/%s", model->place,
                                     *model->place ? "/" : "", name);
        status = place ? read_object(r, object, model, place) : out_of_memory(r);
        if (status != NYB_OK)
            break;
    }
    nyb_keras_counter_clear(&counter);
    return status;
}

static nyb_status read_inside(reading *r, const nyb_keras_layer *layer)
{
    json_t *const members = json_object_get(layer->config, "layers");
    if (json_is_array(members) && json_is_object(json_array_get(members, 0)))
        return read_members(r, layer, members);
    const nyb_status status = read_sublayers(r, layer);
    return status == NYB_OK && layer->parent ? read_attributes(r, layer) : status;
}

static nyb_status read_object(reading *r, json_t *object, const nyb_keras_layer *parent,
                              const char *place)
{
    json_t *const config = json_object_get(object, "config");
    const char *const kind = text_in(object, "class_name");
    const char *const name =
        text_in(config, "name") ? text_in(config, "name") : text_in(object, "name");
    if (!kind || !json_is_object(config))
        return malformed(r, place, "it has no class or configuration");
    if (++r->depth > DEPTH)
        return malformed(r, place, "layers are nested too deep");

    nyb_keras_layer layer = {.class_name = kind,
                             .name = name ? name : "",
                             .place = place,
                             .scope = scope_of(r, parent, name ? name : ""),
                             .object = object,
                             .config = config,
                             .parent = parent,
                             .equation = text_in(config, "equation"),
                             .input_rank =
                                 last_input_rank(json_object_get(object, "build_config"))};
    if (!layer.scope)
        return out_of_memory(r);
    layer.mode = policy_mode(json_object_get(config, "dtype"), layer.scope);
    nyb_keras_layer *made = NULL;
    nyb_status status = add(r, &layer, &made);
    if (status == NYB_OK) {
        const nyb_keras_layer *const first = first_of(r, made);
        made->first = first ? first : made;
        status = !first ? out_of_memory(r) : first == made ? read_inside(r, made) : NYB_OK;
    }
    r->depth--;
    return status;
}

// ---- Without a configuration ----------------------------------------------------------------

// A layer for each group that has arrays; the name of its place tells the class.
static nyb_status guess(reading *r, const nyb_keras_layer *model)
{
    const size_t count = nyb_keras_count(r->file);
    for (size_t i = 0; i < count; i++) {
        const nyb_hdf5_item *const item = nyb_keras_item_at(r->file, i);
        const size_t length = strlen(item->path);
        if (!item->is_group || length < 6 || strcmp(item->path + length - 5, "/vars") != 0)
            continue;
        const char *const place = nyb_arena_text(&r->to->arena, item->path, length - 5);
        if (!place)
            return out_of_memory(r);
        const char *const name = json_string_value(json_object_get(item->attributes, "name"));
        const char *const scope = nyb_keras_guess_scope(r->file, &r->to->arena, place);
        if (!scope)
            return out_of_memory(r);
        const nyb_keras_guess guessed = nyb_keras_guess_of(place, model->class_name);
        const nyb_keras_layer layer = {
            .class_name = guessed.class_name,
            .name = name ? name : "",
            .place = place,
            .scope = scope,
            .parent = model,
            .equation = guessed.equation,
            .mode = policy_mode(json_object_get(model->config, "dtype"), scope)};
        nyb_keras_layer *made;
        const nyb_status status = add(r, &layer, &made);
        if (status != NYB_OK)
            return status;
    }
    return NYB_OK;
}

static nyb_status read_all(reading *r)
{
    json_t *const config = r->file->config;
    const json_t *const inner = json_object_get(config, "config");
    const bool listed = json_is_array(json_object_get(inner, "layers"));
    if (listed)
        return read_object(r, config, NULL, "");
    const char *const kind = text_in(config, "class_name");
    const char *const name = text_in(inner, "name");
    const nyb_keras_layer model = {.class_name = kind ? kind : "",
                                   .name = name ? name : "",
                                   .place = "",
                                   .scope = "",
                                   .object = config,
                                   .config = json_object_get(config, "config")};
    const char *const module = text_in(config, "module");
    if (config && (!module || strncmp(module, "keras_hub", 9) != 0))
        return nyb_fail(r->err, NYB_E_UNSUPPORTED,
                        "%s: the configuration of its class '%s' does not list its layers; save "
                        "the weights alone (.weights.h5)",
                        nyb_keras_path(r->file), kind ? kind : "?");
    nyb_keras_layer *made;
    const nyb_status status = add(r, &model, &made);
    return status == NYB_OK ? guess(r, made) : status;
}

nyb_status nyb_keras_layers_read(nyb_keras_layers *out, const nyb_keras_file *file, nyb_err *err)
{
    *out = (nyb_keras_layers){.file = file};
    reading r = {.to = out, .file = file, .shared = json_object(), .err = err};
    const nyb_status status = read_all(&r);
    json_decref(r.shared);
    if (status != NYB_OK)
        nyb_keras_layers_clear(out);
    return status;
}

void nyb_keras_layers_clear(nyb_keras_layers *layers)
{
    nyb_arena_clear(&layers->arena);
    *layers = (nyb_keras_layers){0};
}

// ---- Arrays ---------------------------------------------------------------------------------

nyb_status nyb_keras_variable(nyb_keras_file *file, const nyb_keras_layer *layer, size_t index,
                              nyb_tensor *out, nyb_err *err)
{
    char number[32];
    nyb_arena arena = {0};
    (void) snprintf(number, sizeof(number), "%zu", index);
    const char *const path = nyb_keras_variable_path(&arena, layer->first->place, number);
    const nyb_status status =
        path ? nyb_keras_read(file, path, out, err) : nyb_no_memory(err, layer->place, 1, 1);
    nyb_arena_clear(&arena);
    return status;
}

nyb_status nyb_keras_floats(nyb_keras_file *file, const nyb_keras_layer *layer, size_t index,
                            nyb_arena *arena, float **out, nyb_tensor *shape, nyb_err *err)
{
    nyb_status status = nyb_keras_variable(file, layer, index, shape, err);
    if (status != NYB_OK)
        return status;
    if (!nyb_dtype_is_float(shape->dtype))
        return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: array %zu of '%s' holds %s, not floats",
                        nyb_keras_path(file), index, layer->place, nyb_dtype_name(shape->dtype));
    const size_t count = shape->bytes / nyb_dtype_bytes(shape->dtype);
    *out = nyb_arena_alloc(arena, count, sizeof(float));
    if (!*out)
        return nyb_no_memory(err, layer->place, count, sizeof(float));
    nyb_widen(*out, shape->at, shape->dtype, count);
    return NYB_OK;
}
