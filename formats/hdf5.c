#include "formats/hdf5.h"

#include <stdlib.h>
#include <string.h>

#include "core/child.h"
#include "core/file.h"
#include "core/json.h"
#include "formats/hdf5_child.h"

enum { LIST_SECONDS = 60, DECODE_SECONDS = 60, DECODE_BYTES_PER_SECOND = 10 << 20 };

// What the caller does not see of an item.
typedef struct place {
    bool mapped; // the values lie at `offset` of the file
    size_t offset;
    void *decoded; // in shared memory; NULL: not yet
} place;

struct nyb_hdf5 {
    nyb_arena arena;
    const char *path;
    nyb_map map;
    json_t *list; // texts and attributes of the items belong to it
    nyb_hdf5_item *items;
    place *places;
    const nyb_hdf5_item **by_path; // as strcmp() orders them
    size_t count;
};

// ---- Taking over the listing ----------------------------------------------------------------

static nyb_status bad_listing(const nyb_hdf5 *file, nyb_err *err)
{
    return nyb_fail(err, NYB_E_FORMAT,
                    "%s: reading it went astray: the file is damaged, or made to do harm",
                    file->path);
}

// The process that listed the file may have been led astray: nothing that it says is trusted.
static nyb_status take_array(nyb_hdf5 *file, size_t index, const json_t *said, nyb_err *err)
{
    nyb_hdf5_item *const item = &file->items[index];
    const json_int_t dtype = json_integer_value(json_object_get(said, "dtype"));
    const json_t *const shape = json_object_get(said, "shape");
    const json_t *const offset = json_object_get(said, "offset");
    const size_t rank = json_array_size(shape);
    if (dtype < 0 || dtype >= NYB_DTYPE_COUNT || rank > NYB_MAX_RANK)
        return bad_listing(file, err);
    nyb_tensor t = {.name = item->path, .dtype = (nyb_dtype) dtype, .rank = (unsigned) rank};
    t.bytes = nyb_dtype_bytes(t.dtype);
    for (size_t i = 0; i < rank; i++) {
        const json_int_t size = json_integer_value(json_array_get(shape, i));
        t.shape[i] = (size_t) size;
        if (size < 0 || !nyb_mul_size(t.bytes, t.shape[i], &t.bytes))
            return bad_listing(file, err);
    }
    const json_int_t at = json_integer_value(offset);
    if (offset &&
        (at < 0 || (size_t) at > file->map.bytes || t.bytes > file->map.bytes - (size_t) at))
        return nyb_fail(err, NYB_E_FORMAT, "%s: '%s' reaches beyond the end of the file",
                        file->path, item->path);
    if (!offset && t.bytes / NYB_HDF5_EXPANSION > file->map.bytes)
        return bad_listing(file, err);
    item->tensor = t;
    file->places[index] = (place){.mapped = offset != NULL, .offset = (size_t) at};
    return NYB_OK;
}

static int by_path(const void *a, const void *b)
{
    return strcmp((*(const nyb_hdf5_item *const *) a)->path,
                  (*(const nyb_hdf5_item *const *) b)->path);
}

static nyb_status take_items(nyb_hdf5 *file, nyb_err *err)
{
    file->count = json_array_size(file->list);
    file->items = nyb_arena_alloc(&file->arena, file->count, sizeof(*file->items));
    file->places = nyb_arena_alloc(&file->arena, file->count, sizeof(*file->places));
    file->by_path = nyb_arena_alloc(&file->arena, file->count, sizeof(const nyb_hdf5_item *));
    if (!file->items || !file->places || !file->by_path)
        return nyb_no_memory(err, file->path, file->count, sizeof(*file->items));
    for (size_t i = 0; i < file->count; i++) {
        const json_t *const said = json_array_get(file->list, i);
        nyb_hdf5_item *const item = &file->items[i];
        item->path = json_string_value(json_object_get(said, "path"));
        item->attributes = json_object_get(said, "attributes");
        item->is_group = !json_object_get(said, "dtype");
        if (!item->path || !json_is_object(item->attributes))
            return bad_listing(file, err);
        const nyb_status status = item->is_group ? NYB_OK : take_array(file, i, said, err);
        if (status != NYB_OK)
            return status;
        file->by_path[i] = item;
    }
    if (file->count > 1)
        qsort(file->by_path, file->count, sizeof(const nyb_hdf5_item *), by_path);
    return NYB_OK;
}

// ---- Opening --------------------------------------------------------------------------------

static nyb_status list(nyb_hdf5 *file, const nyb_hdf5_listing *listing, nyb_err *err)
{
    nyb_hdf5_listing copy = *listing;
    const nyb_status status = nyb_child_run(file->path, LIST_SECONDS, nyb_hdf5_list, &copy, err);
    if (status != NYB_OK)
        return status;
    if (*listing->used > listing->room)
        return bad_listing(file, err);
    return nyb_json_parse(&file->list, listing->text, *listing->used, file->path, err);
}

// A listing takes a few times what the links and headers take in the file.
static nyb_status list_into(nyb_hdf5 *file, nyb_err *err)
{
    const size_t small = file->map.bytes < ((size_t) 1 << 28) ? file->map.bytes : (size_t) 1 << 28;
    const size_t room = ((size_t) 16 << 20) + 4 * small;
    char *const shared = nyb_shared_alloc(room + NYB_ALIGN);
    if (!shared)
        return nyb_no_memory(err, file->path, room, 1);
    const nyb_hdf5_listing listing = {.path = file->path,
                                      .map = &file->map,
                                      .text = shared + NYB_ALIGN,
                                      .room = room,
                                      .used = (size_t *) (void *) shared};
    const nyb_status status = list(file, &listing, err);
    nyb_shared_free(shared, room + NYB_ALIGN);
    return status;
}

static nyb_status open_into(nyb_hdf5 *file, const char *path, const char *shown, nyb_err *err)
{
    static const char magic[] = "\211HDF\r\n\032\n";
    file->path = nyb_arena_text(&file->arena, shown, strlen(shown));
    if (!file->path)
        return nyb_no_memory(err, shown, strlen(shown), 1);
    nyb_status status = nyb_map_open(&file->map, path, err);
    if (status != NYB_OK)
        return status;
    if (file->map.bytes < sizeof(magic) - 1 || memcmp(file->map.at, magic, sizeof(magic) - 1) != 0)
        return nyb_fail(err, NYB_E_FORMAT, "%s: not an HDF5 file: it does not begin as one", shown);
    status = list_into(file, err);
    return status == NYB_OK ? take_items(file, err) : status;
}

nyb_status nyb_hdf5_open_as(nyb_hdf5 **out, const char *path, const char *shown, nyb_err *err)
{
    *out = NULL;
    nyb_hdf5 *const file = nyb_alloc(1, sizeof(*file));
    if (!file)
        return nyb_no_memory(err, shown, 1, sizeof(*file));
    const nyb_status status = open_into(file, path, shown, err);
    if (status == NYB_OK)
        *out = file;
    else
        nyb_hdf5_close(file);
    return status;
}

nyb_status nyb_hdf5_open(nyb_hdf5 **out, const char *path, nyb_err *err)
{
    return nyb_hdf5_open_as(out, path, path, err);
}

void nyb_hdf5_close(nyb_hdf5 *file)
{
    if (!file)
        return;
    for (size_t i = 0; file->places && i < file->count; i++)
        nyb_shared_free(file->places[i].decoded, file->items[i].tensor.bytes);
    json_decref(file->list);
    nyb_map_close(&file->map);
    nyb_arena_clear(&file->arena);
    nyb_free(file);
}

const nyb_hdf5_item *nyb_hdf5_items(const nyb_hdf5 *file, size_t *count)
{
    *count = file->count;
    return file->items;
}

static int path_to(const void *path, const void *item)
{
    return strcmp(path, (*(const nyb_hdf5_item *const *) item)->path);
}

const nyb_hdf5_item *nyb_hdf5_find(const nyb_hdf5 *file, const char *path)
{
    const nyb_hdf5_item *const *const found =
        file->count ? bsearch(path, file->by_path, file->count, sizeof(*file->by_path), path_to)
                    : NULL;
    return found ? *found : NULL;
}

// ---- Values ---------------------------------------------------------------------------------

static nyb_status decode(const nyb_hdf5 *file, const nyb_tensor *tensor, place *at, nyb_err *err)
{
    void *const room = nyb_shared_alloc(tensor->bytes);
    if (!room)
        return nyb_no_memory(err, tensor->name, tensor->bytes, 1);
    nyb_hdf5_decoding decoding = {
        .path = file->path, .map = &file->map, .tensor = tensor, .at = room};
    const unsigned seconds =
        DECODE_SECONDS + (unsigned) (tensor->bytes / DECODE_BYTES_PER_SECOND % 1000000);
    const nyb_status status = nyb_child_run(file->path, seconds, nyb_hdf5_decode, &decoding, err);
    if (status == NYB_OK)
        at->decoded = room;
    else
        nyb_shared_free(room, tensor->bytes);
    return status;
}

nyb_status nyb_hdf5_read(nyb_hdf5 *file, const char *path, nyb_tensor *out, nyb_err *err)
{
    const nyb_hdf5_item *const item = nyb_hdf5_find(file, path);
    *out = (nyb_tensor){0};
    if (!item || item->is_group)
        return nyb_fail(err, NYB_E_FORMAT, "%s: there is no array '%s'", file->path, path);
    place *const at = &file->places[item - file->items];
    if (!at->mapped && !at->decoded) {
        const nyb_status status = decode(file, &item->tensor, at, err);
        if (status != NYB_OK)
            return status;
    }
    *out = item->tensor;
    out->at = at->mapped ? file->map.at + at->offset : at->decoded;
    return NYB_OK;
}
