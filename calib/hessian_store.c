#include "calib/hessian_store.h"

#include <stdlib.h>
#include <string.h>

#include "calib/hessian_parts.h"
#include "calib/journal.h"
#include "calib/pass.h"
#include "calib/source_files.h"
#include "core/file.h"

// ---- What a store is about ------------------------------------------------------------------

// The configuration decides what the layers do with the tensors.
static nyb_status add_config(json_t *model, const char *folder, nyb_err *err)
{
    nyb_arena arena = {0};
    nyb_map map = {0};
    char hash[NYB_HASH_TEXT];
    const char *const path = nyb_path_join(&arena, folder, "config.json");
    nyb_status status = path ? NYB_OK : nyb_no_memory(err, "path", 1, 1);
    if (status == NYB_OK && nyb_path_is_folder(folder)) {
        status = nyb_map_open(&map, path, err);
        if (status == NYB_OK) {
            nyb_hash_of(map.at, map.bytes, hash);
            json_object_set_new(
                model, "config.json",
                json_pack("{s:I, s:s}", "bytes", (json_int_t) map.bytes, "sha256", hash));
            nyb_map_close(&map);
        }
    }
    nyb_arena_clear(&arena);
    return status;
}

static json_t *describe_files(const nyb_context *ctx, const nyb_model *model)
{
    json_t *const list = nyb_source_files(ctx, nyb_model_checkpoint(model));
    json_t *const files = list ? json_object() : NULL;
    size_t i;
    json_t *file;
    json_array_foreach(list, i, file)
    {
        json_object_set_new(files, json_string_value(json_object_get(file, "file")),
                            json_pack("{s:O, s:O}", "bytes", json_object_get(file, "bytes"),
                                      "sha256", json_object_get(file, "sha256")));
    }
    json_decref(list);
    return files;
}

nyb_status nyb_store_about_make(nyb_store_about *out, const nyb_context *ctx,
                                const nyb_model *model, bool all_experts,
                                const nyb_samples *samples, nyb_err *err)
{
    const bool experts = nyb_model_config_of(model)->experts.count > 0;
    const nyb_compute compute = nyb_calibration_compute(ctx, nyb_model_weight_dtype(model));
    *out = (nyb_store_about){
        .model = describe_files(ctx, model),
        .settings = json_pack("{s:s, s:s, s:I, s:i, s:i}", "compute",
                              compute == NYB_COMPUTE_BF16 ? "bf16" : "f32", "experts",
                              !experts      ? "none"
                              : all_experts ? "all"
                                            : "routed",
                              "sequence_length", (json_int_t) samples->length, "unit_tokens",
                              NYB_UNIT_TOKENS, "step_exponent", NYB_HESSIAN_STEP_EXPONENT)};
    if (samples->first_weight > 1)
        json_object_set_new(out->settings, "first_weight",
                            json_integer((json_int_t) samples->first_weight));
    nyb_status status = out->model && out->settings ? NYB_OK : nyb_no_memory(err, "store", 1, 1);
    if (status == NYB_OK)
        status = add_config(out->model, nyb_model_folder(model), err);
    if (status != NYB_OK)
        nyb_store_about_clear(out);
    return status;
}

void nyb_store_about_clear(nyb_store_about *about)
{
    json_decref(about->model);
    json_decref(about->settings);
    *about = (nyb_store_about){0};
}

nyb_status nyb_hessian_store_check(const nyb_hessian_store *store, const nyb_store_about *about,
                                   const char *whose, nyb_err *err)
{
    char difference[512];
    if (nyb_json_difference(about->model, store->about.model, difference, sizeof(difference)))
        return nyb_fail(err, NYB_E_ARG, "%s: is of another model than %s: %s in the store",
                        store->path, whose, difference);
    if (nyb_json_difference(about->settings, store->about.settings, difference, sizeof(difference)))
        return nyb_fail(err, NYB_E_ARG, "%s: has other settings than %s: %s in the store",
                        store->path, whose, difference);
    return NYB_OK;
}

// ---- Opening --------------------------------------------------------------------------------

static nyb_status damaged(const nyb_hessian_store *s, const char *what, nyb_err *err)
{
    return nyb_fail(
        err, NYB_E_FORMAT,
        "%s: '%s' is damaged: what is there is not what was written; make the store anew", s->path,
        what);
}

// An attribute of the root that is a JSON object.
static nyb_status take_object(const nyb_hessian_store *s, const json_t *root, const char *key,
                              json_t **out, nyb_err *err)
{
    const char *const text = json_string_value(json_object_get(root, key));
    nyb_err inner = {0};
    if (text && nyb_json_parse(out, text, strlen(text), key, &inner) == NYB_OK &&
        json_is_object(*out))
        return NYB_OK;
    return nyb_fail(err, NYB_E_FORMAT, "%s: the attribute '%s' of its root is %s", s->path, key,
                    text ? "damaged" : "missing");
}

// The digest of all attributes, of which those of the groups hold the digests of the arrays.
static nyb_status check_attributes(nyb_hessian_store *s, const json_t *root, nyb_err *err)
{
    char hash[NYB_HASH_TEXT];
    size_t count = 0;
    const nyb_hdf5_item *const items = nyb_hdf5_items(s->file, &count);
    json_t *const all = json_object();
    for (size_t i = 0; i < count; i++) {
        if (items[i].is_group && json_object_size(items[i].attributes) > 0)
            json_object_set_new(all, items[i].path, json_deep_copy(items[i].attributes));
    }
    json_object_del(json_object_get(all, ""), NYB_STORE_DIGEST);
    const bool good = nyb_store_digest(all, hash);
    json_decref(all);
    if (!good)
        return nyb_no_memory(err, "attributes", count, 1);
    const char *const said = json_string_value(json_object_get(root, NYB_STORE_DIGEST));
    if (!said || strcmp(said, hash) != 0)
        return damaged(s, "attributes", err);
    s->digest = nyb_arena_text(&s->arena, said, strlen(said));
    return s->digest ? NYB_OK : nyb_no_memory(err, "digest", 1, 1);
}

static nyb_status take_root(nyb_hessian_store *s, nyb_err *err)
{
    const nyb_hdf5_item *const item = nyb_hdf5_find(s->file, "");
    const json_t *const root = item ? item->attributes : NULL;
    const char *const schema = json_string_value(json_object_get(root, "schema"));
    if (!schema || strcmp(schema, NYB_STORE_SCHEMA) != 0)
        return nyb_fail(err, NYB_E_FORMAT,
                        "%s: is no store of Hessians: its schema is '%s', not '%s'", s->path,
                        schema ? schema : "missing", NYB_STORE_SCHEMA);
    nyb_status status = check_attributes(s, root, err);
    if (status == NYB_OK)
        status = take_object(s, root, "model", &s->about.model, err);
    if (status == NYB_OK)
        status = take_object(s, root, "settings", &s->about.settings, err);
    if (status == NYB_OK)
        status = take_object(s, root, "calibration", &s->calibration, err);
    if (status == NYB_OK)
        status = nyb_json_size(root, "tokens", &s->counted, s->path, err);
    const nyb_hdf5_item *const tokens = nyb_hdf5_find(s->file, "tokens");
    if (status != NYB_OK)
        return status;
    if (!tokens || tokens->is_group || tokens->tensor.rank != 2 || tokens->tensor.dtype != NYB_I32)
        return nyb_fail(err, NYB_E_FORMAT, "%s: 'tokens' is missing, or no table of int32",
                        s->path);
    s->samples = tokens->tensor.shape[0];
    s->length = tokens->tensor.shape[1];
    if (s->samples == 0 || s->length == 0)
        return nyb_fail(err, NYB_E_FORMAT, "%s: 'tokens' is empty", s->path);
    s->unpacked = json_integer_value(json_object_get(root, "compress")) > 0;
    return NYB_OK;
}

nyb_status nyb_hessian_store_open(nyb_hessian_store *out, const char *path, nyb_err *err)
{
    *out = (nyb_hessian_store){.sound = json_object()};
    out->path = nyb_arena_text(&out->arena, path, strlen(path));
    nyb_status status = out->path ? nyb_hdf5_open(&out->file, path, err)
                                  : nyb_no_memory(err, "path", strlen(path), 1);
    if (status == NYB_OK)
        status = take_root(out, err);
    if (status != NYB_OK)
        nyb_hessian_store_close(out);
    return status;
}

void nyb_hessian_store_close(nyb_hessian_store *store)
{
    nyb_hdf5_close(store->file);
    nyb_store_about_clear(&store->about);
    json_decref(store->calibration);
    json_decref(store->sound);
    nyb_arena_clear(&store->arena);
    *store = (nyb_hessian_store){0};
}

nyb_status nyb_hessian_store_open_for(nyb_hessian_store *out, const nyb_context *ctx,
                                      const char *path, const nyb_model *model, bool all_experts,
                                      nyb_err *err)
{
    nyb_store_about about;
    nyb_context wanted = ctx ? *ctx : (nyb_context){0};
    nyb_status status = nyb_hessian_store_open(out, path, err);
    if (status != NYB_OK)
        return status;
    if (wanted.compute == NYB_COMPUTE_AUTO)
        wanted.compute = nyb_hessian_store_compute(out);
    const nyb_samples samples = {.length = out->length,
                                 .first_weight = (size_t) json_integer_value(
                                     json_object_get(out->about.settings, "first_weight"))};
    status = nyb_store_about_make(&about, &wanted, model, all_experts, &samples, err);
    if (status == NYB_OK) {
        status = nyb_hessian_store_check(out, &about, "the run", err);
        nyb_store_about_clear(&about);
    }
    if (status != NYB_OK)
        nyb_hessian_store_close(out);
    return status;
}

nyb_compute nyb_hessian_store_compute(const nyb_hessian_store *store)
{
    const char *const word = json_string_value(json_object_get(store->about.settings, "compute"));
    return word && strcmp(word, "bf16") == 0 ? NYB_COMPUTE_BF16 : NYB_COMPUTE_F32;
}

// ---- Arrays ---------------------------------------------------------------------------------

// An array, whose digest is the attribute `digest` of `attributes`.
static nyb_status read_array(nyb_hessian_store *s, const char *name, const json_t *attributes,
                             const char *digest, nyb_tensor *out, nyb_err *err)
{
    char hash[NYB_HASH_TEXT];
    const char *const said = json_string_value(json_object_get(attributes, digest));
    const nyb_status status = nyb_hdf5_read(s->file, name, out, err);
    if (status != NYB_OK || json_object_get(s->sound, name))
        return status;
    nyb_hash_of(out->at, out->bytes, hash);
    if (!said || strcmp(said, hash) != 0)
        return damaged(s, name, err);
    if (!s->unpacked) // those are decoded anew each time
        json_object_set_new(s->sound, name, json_true());
    return NYB_OK;
}

// What was decoded stays in memory while the file is open.
static nyb_status let_go(nyb_hessian_store *s, const nyb_tensor *array, nyb_err *err)
{
    if (!s->unpacked) {
        nyb_map_release(array->at, array->bytes);
        return NYB_OK;
    }
    nyb_hdf5_close(s->file);
    s->file = NULL;
    return nyb_hdf5_open(&s->file, s->path, err);
}

static nyb_status missing(const nyb_hessian_store *s, const char *module, nyb_err *err)
{
    return nyb_fail(err, NYB_E_FORMAT, "%s: has no Hessian of '%s'", s->path, module);
}

// The group with a layer's sum.
static const nyb_hdf5_item *group_of(const nyb_hessian_store *s, const char *module)
{
    char path[512];
    const nyb_hdf5_item *group = NULL;
    for (int hop = 0; hop < 2 && module; hop++) {
        if (snprintf(path, sizeof(path), NYB_STORE_GROUP "/%s", module) >= (int) sizeof(path))
            return NULL;
        group = nyb_hdf5_find(s->file, path);
        module = group ? json_string_value(json_object_get(group->attributes, "same_as")) : NULL;
    }
    return group && group->is_group && !module ? group : NULL;
}

static nyb_status check_shape(const nyb_hessian_store *s, const nyb_tensor *array, size_t n,
                              nyb_err *err)
{
    if (array->dtype == NYB_F64 && array->rank == 1 && array->shape[0] == nyb_triangle(n))
        return NYB_OK;
    return nyb_fail(err, NYB_E_FORMAT,
                    "%s: '%s' is %zu values of %s, want the %zu float64 of a triangle of order %zu",
                    s->path, array->name, array->rank == 1 ? array->shape[0] : 0,
                    nyb_dtype_name(array->dtype), nyb_triangle(n), n);
}

nyb_status nyb_hessian_store_entry(const nyb_hessian_store *store, const char *module,
                                   nyb_store_entry *out, nyb_err *err)
{
    const nyb_hdf5_item *const group = group_of(store, module);
    *out = (nyb_store_entry){0};
    if (!group)
        return missing(store, module, err);
    nyb_status status = nyb_json_size(group->attributes, "order", &out->order, store->path, err);
    if (status == NYB_OK)
        status = nyb_json_size(group->attributes, "tokens", &out->tokens, store->path, err);
    if (status == NYB_OK)
        status = nyb_json_size(group->attributes, "routed", &out->routed, store->path, err);
    if (status != NYB_OK || out->tokens == 0)
        return status;
    char path[600];
    (void) snprintf(path, sizeof(path), "%s/high", group->path);
    const nyb_hdf5_item *const high = nyb_hdf5_find(store->file, path);
    if (!high || !json_object_get(group->attributes, NYB_STORE_HIGH))
        return missing(store, module, err);
    return check_shape(store, &high->tensor, out->order, err);
}

// The layers that a sum is of, from its attribute.
static nyb_status take_modules(nyb_hessian_store *s, const nyb_hdf5_item *group, nyb_store_sum *out,
                               nyb_err *err)
{
    const char *const text = json_string_value(json_object_get(group->attributes, "modules"));
    json_t *list = NULL;
    size_t i;
    json_t *name;
    if (!text || nyb_json_parse(&list, text, strlen(text), group->path, NULL) != NYB_OK ||
        !json_is_array(list) || json_array_size(list) == 0) {
        json_decref(list);
        return nyb_fail(err, NYB_E_FORMAT, "%s: '%s' does not say which layers it is of", s->path,
                        group->path);
    }
    out->modules = nyb_arena_alloc(&s->arena, json_array_size(list), sizeof(*out->modules));
    nyb_status status = out->modules ? NYB_OK : nyb_no_memory(err, "layers", 1, 1);
    json_array_foreach(list, i, name)
    {
        const char *const word = json_string_value(name);
        const char *const kept =
            out->modules && word ? nyb_arena_text(&s->arena, word, strlen(word)) : NULL;
        if (!kept && status == NYB_OK)
            status = nyb_fail(err, NYB_E_FORMAT, "%s: '%s' has a layer without a name", s->path,
                              group->path);
        if (kept)
            out->modules[out->count++] = kept;
    }
    json_decref(list);
    return status;
}

nyb_status nyb_hessian_store_list(nyb_hessian_store *store, nyb_store_sum **out, size_t *count,
                                  nyb_err *err)
{
    size_t all = 0, found = 0;
    const nyb_hdf5_item *const items = nyb_hdf5_items(store->file, &all);
    nyb_store_sum *const list = nyb_arena_alloc(&store->arena, all + 1, sizeof(*list));
    nyb_status status = list ? NYB_OK : nyb_no_memory(err, "sums", all, sizeof(*list));
    for (size_t i = 0; status == NYB_OK && i < all; i++) {
        size_t place = SIZE_MAX;
        if (!items[i].is_group || !json_object_get(items[i].attributes, "place"))
            continue;
        status = nyb_json_size(items[i].attributes, "place", &place, store->path, err);
        if (status == NYB_OK && (place >= all || list[place].count > 0))
            status = nyb_fail(err, NYB_E_FORMAT,
                              "%s: '%s' has the place %zu, which is no place or "
                              "another's",
                              store->path, items[i].path, place);
        if (status == NYB_OK)
            status = take_modules(store, &items[i], &list[place], err);
        found++;
    }
    for (size_t i = 0; status == NYB_OK && i < found; i++) {
        if (list[i].count == 0)
            status = nyb_fail(err, NYB_E_FORMAT, "%s: has no sum at place %zu", store->path, i);
    }
    *out = list;
    *count = found;
    return status;
}

// One half of a sum, "high" or "low", into `to` or, as f32, into the rows of `h`.
typedef struct half {
    const char *name, *digest;
    double *to;
    nyb_hessian *h;
} half;

static void widen(const half *part, const void *at, size_t n)
{
    const unsigned char *from = at;
    if (part->to)
        memcpy(part->to, at, nyb_triangle(n) * sizeof(double));
    for (size_t i = 0; part->h && i < n; i++) {
        float *const row = nyb_row(part->h->h, i);
        for (size_t j = i; j < n; j++, from += sizeof(double)) {
            double value;
            memcpy(&value, from, sizeof(value));
            row[j] = (float) value;
        }
    }
}

static nyb_status read_half(nyb_hessian_store *s, const char *module, const half *part, size_t n,
                            nyb_err *err)
{
    char path[600];
    const nyb_hdf5_item *const group = group_of(s, module);
    nyb_tensor array = {0};
    if (!group)
        return missing(s, module, err);
    (void) snprintf(path, sizeof(path), "%s/%s", group->path, part->name);
    if (!json_object_get(group->attributes, part->digest))
        return NYB_OK; // it is zero
    nyb_status status = read_array(s, path, group->attributes, part->digest, &array, err);
    if (status == NYB_OK)
        status = check_shape(s, &array, n, err);
    if (status != NYB_OK)
        return status;
    widen(part, array.at, n);
    return let_go(s, &array, err);
}

nyb_status nyb_hessian_store_add(const nyb_context *ctx, nyb_hessian_store *store,
                                 const char *module, nyb_hessian_sum *sum, nyb_err *err)
{
    nyb_hessian_sum part;
    nyb_store_entry entry;
    nyb_err inner = {0};
    nyb_status status = nyb_hessian_store_entry(store, module, &entry, err);
    if (status == NYB_OK)
        status = nyb_hessian_sum_init(&part, sum->n, err);
    if (status != NYB_OK)
        return status;
    part.tokens = entry.tokens;
    status =
        read_half(store, module, &(half){"high", NYB_STORE_HIGH, part.high, NULL}, sum->n, err);
    if (status == NYB_OK)
        status =
            read_half(store, module, &(half){"low", NYB_STORE_LOW, part.low, NULL}, sum->n, err);
    if (status == NYB_OK) {
        status = nyb_hessian_sum_merge(ctx, sum, &part, &inner);
        if (status != NYB_OK)
            (void) nyb_fail(err, status, "%s: '%s': %s", store->path, module, inner.text);
    }
    nyb_hessian_sum_clear(&part);
    return status;
}

nyb_status nyb_hessian_store_read(nyb_hessian_store *store, const char *module, size_t n,
                                  nyb_hessian *out, nyb_err *err)
{
    nyb_store_entry entry;
    nyb_hessian_empty(out);
    nyb_status status = nyb_hessian_store_entry(store, module, &entry, err);
    if (status == NYB_OK)
        status = nyb_hessian_renew(out, n, err);
    if (status != NYB_OK)
        return status;
    out->tokens = entry.tokens;
    status = read_half(store, module, &(half){"high", NYB_STORE_HIGH, NULL, out}, n, err);
    if (status != NYB_OK)
        nyb_hessian_clear(out);
    return status;
}

nyb_status nyb_hessian_store_tokens(nyb_hessian_store *store, nyb_arena *arena, uint32_t **ids,
                                    unsigned char **marks, nyb_err *err)
{
    const json_t *const root = nyb_hdf5_find(store->file, "")->attributes;
    const size_t count = store->samples * store->length;
    nyb_tensor tokens, bytes = {0};
    nyb_status status = read_array(store, "tokens", root, "tokens_sha256", &tokens, err);
    const bool marked = json_object_get(root, "marks_sha256") != NULL;
    if (status == NYB_OK && marked)
        status = read_array(store, "marks", root, "marks_sha256", &bytes, err);
    if (status != NYB_OK)
        return status;
    if (marked && bytes.bytes != count)
        return damaged(store, "marks", err);
    *ids = nyb_arena_alloc(arena, count, sizeof(**ids));
    *marks = marked ? nyb_arena_alloc(arena, count, 1) : NULL;
    if (!*ids || (marked && !*marks))
        return nyb_no_memory(err, "tokens", count, sizeof(**ids));
    memcpy(*ids, tokens.at, count * sizeof(**ids));
    if (marked)
        memcpy(*marks, bytes.at, count);
    return NYB_OK;
}
