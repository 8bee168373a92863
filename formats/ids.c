#include "formats/ids.h"

#include <inttypes.h>
#include <string.h>

#include "core/json.h"
#include "formats/npy.h"

static bool ends_in(const char *path, const char *end)
{
    const size_t length = strlen(path), tail = strlen(end);
    return length > tail && strcmp(path + length - tail, end) == 0;
}

bool nyb_ids_named(const char *path)
{
    return ends_in(path, ".npy") || ends_in(path, ".json");
}

static nyb_status make_room(nyb_ids *out, nyb_arena *arena, const char *path, nyb_err *err)
{
    size_t count = 0;
    if (out->samples == 0 || out->length == 0)
        return nyb_fail(err, NYB_E_FORMAT, "%s: holds no token ids", path);
    if (!nyb_mul_size(out->samples, out->length, &count))
        return nyb_no_memory(err, path, out->samples, out->length);
    out->at = nyb_arena_alloc(arena, count, sizeof(*out->at));
    return out->at ? NYB_OK : nyb_no_memory(err, path, count, sizeof(*out->at));
}

static nyb_status take(nyb_ids *out, size_t index, int64_t id, size_t vocabulary, const char *path,
                       nyb_err *err)
{
    if (id < 0 || (uint64_t) id >= vocabulary || id > UINT32_MAX)
        return nyb_fail(err, NYB_E_FORMAT,
                        "%s: id %" PRId64 " at position %zu is outside the vocabulary of %zu", path,
                        id, index, vocabulary);
    out->at[index] = (uint32_t) id;
    return NYB_OK;
}

static nyb_status take_array(nyb_ids *out, nyb_arena *arena, const nyb_tensor *array,
                             size_t vocabulary, nyb_err *err)
{
    if (array->rank != 1 && array->rank != 2)
        return nyb_fail(err, NYB_E_SHAPE, "%s: has %u axes, want [tokens] or [samples, length]",
                        array->name, array->rank);
    out->stream = array->rank == 1;
    out->samples = out->stream ? 1 : array->shape[0];
    out->length = array->shape[array->rank - 1];

    nyb_status status = make_room(out, arena, array->name, err);
    for (size_t i = 0; status == NYB_OK && i < out->samples * out->length; i++) {
        int64_t id = 0;
        status = nyb_npy_integers(&id, array, i, 1, err);
        if (status == NYB_OK)
            status = take(out, i, id, vocabulary, array->name, err);
    }
    return status;
}

static nyb_status take_row(nyb_ids *out, size_t row, const json_t *list, size_t vocabulary,
                           const char *path, nyb_err *err)
{
    if (!json_is_array(list) || json_array_size(list) != out->length)
        return nyb_fail(err, NYB_E_SHAPE, "%s: row %zu has %zu ids, the first has %zu", path, row,
                        json_array_size(list), out->length);
    for (size_t i = 0; i < out->length; i++) {
        const json_t *const id = json_array_get(list, i);
        if (!json_is_integer(id))
            return nyb_fail(err, NYB_E_FORMAT, "%s: entry %zu of row %zu is not a whole number",
                            path, i, row);
        const nyb_status status =
            take(out, row * out->length + i, json_integer_value(id), vocabulary, path, err);
        if (status != NYB_OK)
            return status;
    }
    return NYB_OK;
}

static nyb_status take_list(nyb_ids *out, nyb_arena *arena, const json_t *list, size_t vocabulary,
                            const char *path, nyb_err *err)
{
    if (!json_is_array(list))
        return nyb_fail(err, NYB_E_FORMAT, "%s: want a list of ids or a list of lists", path);
    out->stream = !json_is_array(json_array_get(list, 0));
    out->samples = out->stream ? 1 : json_array_size(list);
    out->length = json_array_size(out->stream ? list : json_array_get(list, 0));

    nyb_status status = make_room(out, arena, path, err);
    for (size_t row = 0; status == NYB_OK && row < out->samples; row++)
        status = take_row(out, row, out->stream ? list : json_array_get(list, row), vocabulary,
                          path, err);
    return status;
}

nyb_status nyb_ids_load(nyb_ids *out, nyb_arena *arena, const char *path, size_t vocabulary,
                        nyb_err *err)
{
    nyb_status status;
    *out = (nyb_ids){0};
    if (ends_in(path, ".json")) {
        json_t *list = NULL;
        status = nyb_json_load(&list, path, err);
        if (status == NYB_OK)
            status = take_list(out, arena, list, vocabulary, path, err);
        json_decref(list);
        return status;
    }

    nyb_npy array;
    status = nyb_npy_open(&array, path, err);
    if (status != NYB_OK)
        return status;
    status = take_array(out, arena, &array.tensor, vocabulary, err);
    nyb_npy_close(&array);
    return status;
}
