#include "formats/keras_save.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "core/json.h"
#include "formats/keras_copy.h"
#include "formats/keras_names.h"
#include "formats/keras_parts.h"
#include "formats/keras_policy.h"

typedef struct saving {
    const nyb_keras_layers *layers;
    nyb_keras_file *source;
    const nyb_keras_target *target;
    nyb_arena arena; // paths
    json_t *places;  // which layer has the arrays of a group: index by the group's path
    json_t *map;     // of a folder in shards: file of each group
    size_t bytes;    // of all arrays written
    nyb_err *err;
} saving;

static nyb_status out_of_memory(const saving *s)
{
    return nyb_no_memory(s->err, nyb_keras_path(s->source), 1, 1);
}

size_t nyb_keras_edit_bytes(const nyb_keras_edit *edit)
{
    size_t bytes = 0;
    for (size_t i = 0; i < edit->count; i++)
        bytes += &edit->variables[i] == edit->bias ? 0 : edit->variables[i].bytes;
    return bytes;
}

// ---- Arrays ---------------------------------------------------------------------------------

static const nyb_keras_layer *layer_of(const saving *s, const char *vars)
{
    const json_t *const index = json_object_get(s->places, vars);
    return index ? s->layers->all[json_integer_value(index)] : NULL;
}

static nyb_status write_array(saving *s, nyb_hdf5_writer *to, const nyb_tensor *tensor)
{
    s->bytes += tensor->bytes;
    return nyb_hdf5_put(to, tensor, NULL, s->err);
}

// Whether a path is that of something directly in a group.
static bool is_member(const char *path, const char *group)
{
    const size_t length = strlen(group);
    if (length == 0)
        return *path && !strchr(path, '/');
    return strncmp(path, group, length) == 0 && path[length] == '/' &&
           !strchr(path + length + 1, '/');
}

// What begins as a group does stands behind it. `index` is the group's.
static nyb_status copy_arrays(saving *s, nyb_hdf5_writer *to, size_t index)
{
    const size_t count = nyb_keras_count(s->source);
    const char *const group = nyb_keras_item_at(s->source, index)->path;
    const size_t length = strlen(group);
    nyb_status status = NYB_OK;
    for (size_t i = index + 1; status == NYB_OK && i < count; i++) {
        const nyb_hdf5_item *const item = nyb_keras_item_at(s->source, i);
        nyb_tensor tensor;
        if (strncmp(item->path, group, length) != 0)
            break;
        if (item->is_group || !is_member(item->path, group))
            continue;
        status = nyb_keras_read(s->source, item->path, &tensor, s->err);
        if (status == NYB_OK)
            status = write_array(s, to, &tensor);
    }
    return status;
}

static nyb_status write_edit(saving *s, nyb_hdf5_writer *to, const char *vars,
                             const nyb_keras_edit *edit)
{
    nyb_status status = NYB_OK;
    nyb_arena arena = {0};
    for (size_t i = 0; status == NYB_OK && i < edit->count; i++) {
        nyb_tensor tensor = edit->variables[i];
        tensor.name = nyb_arena_format(&arena, "%s/%zu", vars, i);
        status = tensor.name ? write_array(s, to, &tensor) : out_of_memory(s);
    }
    nyb_arena_clear(&arena);
    for (size_t i = 0; status == NYB_OK && i < s->layers->count; i++) {
        if (s->layers->all[i]->first == edit->layer)
            status =
                nyb_keras_set_policy(s->layers->all[i], edit->mode, edit->quantization, s->err);
    }
    return status;
}

// The arrays of a group "place/vars", quantised where the caller wants it.
static nyb_status write_variables(saving *s, nyb_hdf5_writer *to, size_t index)
{
    const char *const vars = nyb_keras_item_at(s->source, index)->path;
    const nyb_keras_layer *const layer = layer_of(s, vars);
    nyb_keras_edit edit = {.layer = layer};
    nyb_arena arena = {0};
    nyb_status status =
        layer ? s->target->edit(s->target->user, layer, &arena, &edit, s->err) : NYB_OK;
    if (status == NYB_OK)
        status = edit.mode ? write_edit(s, to, vars, &edit) : copy_arrays(s, to, index);
    json_decref(edit.quantization);
    nyb_arena_clear(&arena);
    return status;
}

// ---- Files of weights -----------------------------------------------------------------------

static nyb_status write_group(saving *s, nyb_hdf5_writer *to, size_t index)
{
    const nyb_hdf5_item *const item = nyb_keras_item_at(s->source, index);
    const char *name;
    json_t *value;
    nyb_status status = *item->path ? nyb_hdf5_put_group(to, item->path, s->err) : NYB_OK;
    json_object_foreach((json_t *) (uintptr_t) item->attributes, name, value)
    {
        if (status == NYB_OK)
            status = nyb_hdf5_put_attribute(to, item->path, name, value, s->err);
    }
    return status == NYB_OK ? write_variables(s, to, index) : status;
}

static nyb_status note_shard(saving *s, const char *group, const char *file)
{
    if (!s->map)
        return NYB_OK;
    const char *const path = nyb_arena_format(&s->arena, "/%s", group);
    return path && json_object_set_new(s->map, path, json_string(file)) == 0 ? NYB_OK
                                                                             : out_of_memory(s);
}

static bool is_variables(const char *path)
{
    const size_t length = strlen(path);
    return strcmp(path, "vars") == 0 || (length > 5 && strcmp(path + length - 5, "/vars") == 0);
}

static nyb_status write_groups(saving *s, nyb_hdf5_writer *to, size_t store)
{
    nyb_status status = NYB_OK;
    for (size_t i = 0; status == NYB_OK && i < s->source->count; i++) {
        const nyb_keras_item *const it = &s->source->items[i];
        if (!it->item->is_group || it->store != store)
            continue;
        status = write_group(s, to, i);
        if (status == NYB_OK && is_variables(it->item->path))
            status = note_shard(s, it->item->path, s->source->stores[store].name);
    }
    return status;
}

static nyb_status write_store(saving *s, const char *path, size_t store)
{
    nyb_hdf5_writer *to;
    nyb_status status = nyb_hdf5_create(&to, path, s->err);
    if (status != NYB_OK)
        return status;
    status = write_groups(s, to, store);
    if (status == NYB_OK)
        return nyb_hdf5_finish(to, s->err);
    nyb_hdf5_discard(to);
    return status;
}

// ---- Each kind of checkpoint ----------------------------------------------------------------

static nyb_status save_weights(saving *s, const char *partial)
{
    return write_store(s, partial, 0);
}

// config.json on one line, as Keras writes it in archives.
static char *config_text(const json_t *config)
{
    return json_dumps(config, JSON_REAL_PRECISION(17) | JSON_ENSURE_ASCII);
}

static nyb_status pack_archive(saving *s, const char *partial, const char *weights,
                               const char *config)
{
    const size_t count = nyb_archive_count(s->source->archive);
    nyb_archive_member *const members = nyb_arena_alloc(&s->arena, count, sizeof(*members));
    if (!members)
        return out_of_memory(s);
    for (size_t i = 0; i < count; i++) {
        const char *const name = nyb_archive_name(s->source->archive, i);
        members[i] = (nyb_archive_member){.name = name};
        if (strcmp(name, NYB_KERAS_WEIGHTS_NAME) == 0) {
            members[i].file = weights;
        } else if (strcmp(name, "config.json") == 0) {
            members[i].bytes = config;
            members[i].length = strlen(config);
        } else {
            members[i].from = s->source->archive;
        }
    }
    return nyb_archive_write(partial, members, count, s->err);
}

static nyb_status save_archive(saving *s, const char *partial)
{
    const char *const weights = nyb_arena_format(&s->arena, "%s.h5", partial);
    if (!weights)
        return out_of_memory(s);
    nyb_status status = write_store(s, weights, 0);
    char *const config = status == NYB_OK ? config_text(s->source->config) : NULL;
    if (status == NYB_OK)
        status = config ? pack_archive(s, partial, weights, config) : out_of_memory(s);
    free(config);
    (void) unlink(weights);
    return status;
}

static nyb_status save_map(saving *s, const char *folder)
{
    const char *const path = nyb_path_join(&s->arena, folder, NYB_KERAS_MAP_NAME);
    json_t *const whole = json_pack("{s:{s:I}, s:O}", "metadata", "total_size",
                                    (json_int_t) s->bytes, "weight_map", s->map);
    const nyb_status status = path && whole ? nyb_json_save(whole, path, s->err) : out_of_memory(s);
    json_decref(whole);
    return status;
}

static nyb_status save_folder(saving *s, const char *partial)
{
    const nyb_keras_file *const from = s->source;
    nyb_status status = nyb_keras_copy_folder(from->path, partial, s->err);
    const bool sharded =
        from->store_count != 1 || strcmp(from->stores[0].name, NYB_KERAS_WEIGHTS_NAME) != 0;
    s->map = sharded ? json_object() : NULL;
    for (size_t i = 0; status == NYB_OK && i < from->store_count; i++) {
        const char *const path = nyb_path_join(&s->arena, partial, from->stores[i].name);
        status = path ? write_store(s, path, i) : out_of_memory(s);
    }
    if (status == NYB_OK && s->map)
        status = save_map(s, partial);
    const char *const config = nyb_path_join(&s->arena, partial, "config.json");
    if (status == NYB_OK && from->config)
        status = config ? nyb_json_save(from->config, config, s->err) : out_of_memory(s);
    return status == NYB_OK ? nyb_folder_sync(partial, s->err) : status;
}

// ---- The whole ------------------------------------------------------------------------------

static nyb_status index_places(saving *s)
{
    s->places = json_object();
    for (size_t i = 0; s->places && i < s->layers->count; i++) {
        const nyb_keras_layer *const layer = s->layers->all[i];
        const char *const vars =
            nyb_arena_format(&s->arena, "%s%svars", layer->place, *layer->place ? "/" : "");
        if (layer->first != layer)
            continue;
        if (!vars || json_object_set_new(s->places, vars, json_integer((json_int_t) i)) != 0)
            return out_of_memory(s);
    }
    return s->places ? NYB_OK : out_of_memory(s);
}

static nyb_status save_partial(saving *s, const char *partial)
{
    switch (nyb_keras_kind_of(s->source)) {
    case NYB_KERAS_ARCHIVE:
        return save_archive(s, partial);
    case NYB_KERAS_FOLDER:
        return save_folder(s, partial);
    default:
        return save_weights(s, partial);
    }
}

static nyb_status save(saving *s)
{
    const char *const path = s->target->path;
    const bool force = s->target->force;
    const char *const partial = nyb_arena_format(&s->arena, "%s.partial", path);
    if (!partial)
        return out_of_memory(s);
    if (nyb_path_exists(path) && !force)
        return nyb_fail(s->err, NYB_E_EXISTS, "%s: already exists; use --force to replace it",
                        path);
    if (nyb_path_exists(partial) && !force)
        return nyb_fail(s->err, NYB_E_EXISTS,
                        "%s: left by an interrupted run, or made by one that goes on; use --force "
                        "to replace it",
                        partial);
    nyb_keras_remove(partial);
    nyb_status status = index_places(s);
    if (status == NYB_OK)
        status = save_partial(s, partial);
    if (status == NYB_OK)
        status = s->target->ready(s->target->user, partial, s->bytes, s->err);
    if (status == NYB_OK)
        status = nyb_keras_put_in_place(partial, path, s->err);
    if (status != NYB_OK)
        nyb_keras_remove(partial);
    return status;
}

nyb_status nyb_keras_save(const nyb_keras_layers *layers, nyb_keras_file *source,
                          const nyb_keras_target *target, nyb_err *err)
{
    saving s = {.layers = layers, .source = source, .target = target, .err = err};
    const nyb_status status = save(&s);
    json_decref(s.places);
    json_decref(s.map);
    nyb_arena_clear(&s.arena);
    return status;
}
