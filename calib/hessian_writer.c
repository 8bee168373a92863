#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "calib/hessian_parts.h"
#include "calib/hessian_store.h"
#include "core/file.h"
#include "nybble/version.h"

enum { CHUNK = 65536 }; // values of a piece of a compressed array

bool nyb_store_digest(const json_t *groups, char text[NYB_HASH_TEXT])
{
    char *const all = json_dumps(groups, JSON_COMPACT | JSON_SORT_KEYS);
    if (!all)
        return false;
    nyb_hash_of(all, strlen(all), text);
    free(all);
    return true;
}

void nyb_store_unite(json_t *to, const json_t *from)
{
    const char *key;
    json_t *list, *text, *known;
    size_t i, k;
    json_object_foreach(to, key, list)
    {
        json_array_foreach(json_object_get(from, key), i, text)
        {
            bool there = false;
            json_array_foreach(list, k, known) there |= json_equal(known, text);
            if (!there)
                json_array_append(list, text);
        }
    }
}

nyb_status nyb_hessian_writer_open(nyb_hessian_writer *out, const char *path, unsigned compress,
                                   bool force, nyb_err *err)
{
    *out = (nyb_hessian_writer){.compress = compress, .groups = json_object()};
    out->path = nyb_arena_text(&out->arena, path, strlen(path));
    out->partial = nyb_arena_format(&out->arena, "%s.partial", path);
    nyb_status status = NYB_OK;
    if (!out->path || !out->partial || !out->groups)
        status = nyb_no_memory(err, "path", strlen(path), 1);
    else if (nyb_path_exists(path) && !force)
        status = nyb_fail(err, NYB_E_EXISTS, "%s: already exists; use --force to replace it", path);
    if (status == NYB_OK)
        status = nyb_hdf5_create(&out->file, out->partial, err);
    if (status != NYB_OK)
        nyb_hessian_writer_close(out);
    return status;
}

// Writes an array and puts its digest into `attributes`.
static nyb_status put_array(nyb_hessian_writer *w, nyb_tensor array, json_t *attributes,
                            const char *digest, nyb_err *err)
{
    char hash[NYB_HASH_TEXT];
    nyb_hdf5_storage storage = {0};
    size_t count = 1;
    for (unsigned i = 0; i < array.rank; i++)
        count *= array.shape[i];
    array.bytes = count * nyb_dtype_bytes(array.dtype);
    if (w->compress > 0 && count > 0) {
        const size_t rows = array.rank > 1 ? CHUNK / array.shape[1] : CHUNK;
        storage.chunk[0] = rows < 1 ? 1 : rows < array.shape[0] ? rows : array.shape[0];
        storage.chunk[1] = array.rank > 1 ? array.shape[1] : 0;
        storage.deflate = w->compress;
        storage.checksum = true;
    }
    nyb_hash_of(array.at, array.bytes, hash);
    if (json_object_set_new(attributes, digest, json_string(hash)) != 0)
        return nyb_no_memory(err, "attributes", 1, 1);
    return nyb_hdf5_put(w->file, &array, &storage, err);
}

static nyb_status put_half(nyb_hessian_writer *w, const char *group, const char *name,
                           const nyb_hessian_sum *sum, json_t *attributes, nyb_err *err)
{
    const bool high = strcmp(name, "high") == 0;
    const char *const path = nyb_arena_format(&w->arena, "%s/%s", group, name);
    if (!path)
        return nyb_no_memory(err, "path", strlen(group), 1);
    const nyb_tensor array = {.name = path,
                              .dtype = NYB_F64,
                              .rank = 1,
                              .shape = {nyb_triangle(sum->n)},
                              .at = high ? sum->high : sum->low};
    return put_array(w, array, attributes, high ? NYB_STORE_HIGH : NYB_STORE_LOW, err);
}

// Makes the group with these attributes, which are taken over.
static nyb_status put_attributes(nyb_hessian_writer *w, const char *group, json_t *attributes,
                                 nyb_err *err)
{
    const char *key;
    json_t *value;
    nyb_status status = nyb_hdf5_put_group(w->file, group, err);
    json_object_foreach(attributes, key, value)
    {
        if (status == NYB_OK)
            status = nyb_hdf5_put_attribute(w->file, group, key, value, err);
    }
    if (json_object_set_new(w->groups, group, attributes) != 0 && status == NYB_OK)
        status = nyb_no_memory(err, "attributes", 1, 1);
    return status;
}

static const char *group_of(nyb_hessian_writer *w, const char *module)
{
    return nyb_arena_format(&w->arena, NYB_STORE_GROUP "/%s", module);
}

static json_t *text_of(const json_t *value)
{
    char *const text = json_dumps(value, JSON_COMPACT);
    json_t *const out = text ? json_string(text) : NULL;
    free(text);
    return out;
}

nyb_status nyb_hessian_writer_put(nyb_hessian_writer *writer, const char *const *modules,
                                  size_t count, const nyb_hessian_sum *sum, size_t routed,
                                  nyb_err *err)
{
    const char *const group = group_of(writer, modules[0]);
    json_t *const names = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(names, json_string(modules[i]));
    json_t *const own =
        json_pack("{s:I, s:I, s:I, s:I, s:o}", "place", (json_int_t) writer->places++, "order",
                  (json_int_t) sum->n, "tokens", (json_int_t) sum->tokens, "routed",
                  (json_int_t) routed, "modules", text_of(names));
    json_decref(names);
    nyb_status status = group && own ? NYB_OK : nyb_no_memory(err, "attributes", 1, 1);
    if (status == NYB_OK && sum->tokens > 0)
        status = put_half(writer, group, "high", sum, own, err);
    if (status == NYB_OK && !nyb_hessian_sum_is_plain(sum))
        status = put_half(writer, group, "low", sum, own, err);
    if (status != NYB_OK) {
        json_decref(own);
        return status;
    }
    status = put_attributes(writer, group, own, err);
    for (size_t i = 1; status == NYB_OK && i < count; i++) {
        const char *const other = group_of(writer, modules[i]);
        json_t *const same = json_pack("{s:s}", "same_as", modules[0]);
        status = other && same ? put_attributes(writer, other, same, err)
                               : nyb_no_memory(err, "attributes", 1, 1);
    }
    return status;
}

static nyb_status put_root(nyb_hessian_writer *w, json_t *root, nyb_err *err)
{
    char hash[NYB_HASH_TEXT];
    nyb_status status = put_attributes(w, "", root, err);
    if (status == NYB_OK && !nyb_store_digest(w->groups, hash))
        status = nyb_no_memory(err, "attributes", 1, 1);
    json_t *const digest = status == NYB_OK ? json_string(hash) : NULL;
    if (status == NYB_OK)
        status = nyb_hdf5_put_attribute(w->file, "", NYB_STORE_DIGEST, digest, err);
    json_decref(digest);
    return status;
}

nyb_status nyb_hessian_writer_finish(nyb_hessian_writer *writer, const nyb_store_about *about,
                                     const nyb_samples *samples, const json_t *calibration,
                                     nyb_err *err)
{
    const nyb_tensor ids = {.name = "tokens",
                            .dtype = NYB_I32, // ids are below 2^31: the same bytes
                            .rank = 2,
                            .shape = {samples->count, samples->length},
                            .at = samples->ids};
    const nyb_tensor marks = {.name = "marks",
                              .dtype = NYB_U8,
                              .rank = 2,
                              .shape = {samples->count, samples->length},
                              .at = samples->marks};
    json_t *const root =
        json_pack("{s:s, s:s, s:o, s:o, s:o, s:I, s:i}", "schema", NYB_STORE_SCHEMA, "nybble",
                  nyb_version(), "model", text_of(about->model), "settings",
                  text_of(about->settings), "calibration", text_of(calibration), "tokens",
                  (json_int_t) samples->counted, "compress", (int) writer->compress);
    if (!root)
        return nyb_no_memory(err, "attributes", 1, 1);
    nyb_status status = put_array(writer, ids, root, "tokens_sha256", err);
    if (status == NYB_OK && samples->marks)
        status = put_array(writer, marks, root, "marks_sha256", err);
    if (status != NYB_OK) {
        json_decref(root);
        return status;
    }
    status = put_root(writer, root, err);
    if (status != NYB_OK)
        return status;
    nyb_hdf5_writer *const file = writer->file;
    writer->file = NULL;
    status = nyb_hdf5_finish(file, err);
    if (status == NYB_OK)
        status = nyb_rename(writer->partial, writer->path, err);
    if (status != NYB_OK)
        (void) unlink(writer->partial);
    return status;
}

void nyb_hessian_writer_close(nyb_hessian_writer *writer)
{
    if (writer->file) {
        nyb_hdf5_discard(writer->file);
        (void) unlink(writer->partial);
    }
    json_decref(writer->groups);
    nyb_arena_clear(&writer->arena);
    *writer = (nyb_hessian_writer){0};
}
