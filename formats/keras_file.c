#include "formats/keras_file.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "core/json.h"
#include "formats/keras_parts.h"

enum { JSON_LIMIT = 256 << 20 };

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static bool folder_has(const char *folder, const char *name)
{
    nyb_arena arena = {0};
    const char *const path = nyb_path_join(&arena, folder, name);
    const bool there = path && nyb_path_exists(path);
    nyb_arena_clear(&arena);
    return there;
}

bool nyb_keras_is(const char *path)
{
    if (nyb_path_is_folder(path))
        return folder_has(path, NYB_KERAS_WEIGHTS_NAME) || folder_has(path, NYB_KERAS_MAP_NAME);
    return ends_with(path, ".keras") || ends_with(path, ".h5") || ends_with(path, ".hdf5");
}

// ---- Joining the files ----------------------------------------------------------------------

static nyb_status open_store(nyb_keras_file *f, const char *name, const char *path,
                             const char *shown, nyb_err *err)
{
    nyb_keras_store *const store = &f->stores[f->store_count];
    const nyb_status status = nyb_hdf5_open_as(&store->file, path, shown, err);
    if (status != NYB_OK)
        return status;
    store->name = nyb_arena_text(&f->arena, name, strlen(name));
    f->store_count++;
    return store->name ? NYB_OK : nyb_no_memory(err, name, strlen(name), 1);
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const nyb_keras_item *) a)->item->path,
                  ((const nyb_keras_item *) b)->item->path);
}

static int path_to(const void *path, const void *item)
{
    return strcmp(path, ((const nyb_keras_item *) item)->item->path);
}

static nyb_status refuse_old(const nyb_keras_file *f, nyb_err *err)
{
    for (size_t i = 0; i < f->store_count; i++) {
        const nyb_hdf5_item *const root = nyb_hdf5_find(f->stores[i].file, "");
        if (nyb_hdf5_find(f->stores[i].file, "model_weights") ||
            (root && json_object_get(root->attributes, "model_config")))
            return nyb_fail(err, NYB_E_UNSUPPORTED,
                            "%s: a whole model as Keras 2 saved it; load it in Keras 3 and save it "
                            "as .keras",
                            f->path);
    }
    return NYB_OK;
}

// Groups may be in several files, arrays in one only.
static nyb_status join_items(nyb_keras_file *f, nyb_err *err)
{
    size_t total = 0, used = 0;
    for (size_t i = 0; i < f->store_count; i++) {
        size_t count;
        (void) nyb_hdf5_items(f->stores[i].file, &count);
        total += count;
    }
    f->items = nyb_arena_alloc(&f->arena, total, sizeof(*f->items));
    if (!f->items)
        return nyb_no_memory(err, f->path, total, sizeof(*f->items));
    for (size_t i = 0; i < f->store_count; i++) {
        size_t count;
        const nyb_hdf5_item *const items = nyb_hdf5_items(f->stores[i].file, &count);
        for (size_t k = 0; k < count; k++)
            f->items[used++] = (nyb_keras_item){.item = &items[k], .store = i};
    }
    if (used > 1)
        qsort(f->items, used, sizeof(*f->items), by_path);
    for (size_t i = 0; i < used; i++) {
        const bool again = f->count > 0 && by_path(&f->items[i], &f->items[f->count - 1]) == 0;
        if (again && !(f->items[i].item->is_group && f->items[f->count - 1].item->is_group))
            return nyb_fail(err, NYB_E_FORMAT, "%s: '%s' is in it twice", f->path,
                            f->items[i].item->path);
        if (!again)
            f->items[f->count++] = f->items[i];
    }
    return refuse_old(f, err);
}

// ---- Folders --------------------------------------------------------------------------------

static nyb_status add_shard(nyb_keras_file *f, const json_t *name, nyb_err *err)
{
    const char *const text = json_string_value(name);
    if (!text || strchr(text, '/') || !ends_with(text, ".weights.h5"))
        return nyb_fail(err, NYB_E_FORMAT, "%s/%s: names '%.100s' as a file of weights", f->path,
                        NYB_KERAS_MAP_NAME, text ? text : "?");
    for (size_t i = 0; i < f->store_count; i++) {
        if (strcmp(f->stores[i].name, text) == 0)
            return NYB_OK;
    }
    if (f->store_count == NYB_KERAS_SHARDS)
        return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: more than %d files of weights", f->path,
                        NYB_KERAS_SHARDS);
    const char *const path = nyb_path_join(&f->arena, f->path, text);
    return path ? open_store(f, text, path, path, err) : nyb_no_memory(err, text, strlen(text), 1);
}

static nyb_status open_shards(nyb_keras_file *f, const json_t *map, nyb_err *err)
{
    const json_t *const places = json_object_get(map, "weight_map");
    const char *place;
    json_t *names;
    if (!json_is_object(places))
        return nyb_fail(err, NYB_E_FORMAT, "%s/%s: it has no weight_map", f->path,
                        NYB_KERAS_MAP_NAME);
    json_object_foreach((json_t *) (uintptr_t) places, place, names)
    {
        size_t i;
        json_t *name;
        nyb_status status = json_is_array(names) ? NYB_OK : add_shard(f, names, err);
        json_array_foreach(names, i, name)
        {
            if (status == NYB_OK)
                status = add_shard(f, name, err);
        }
        if (status != NYB_OK)
            return status;
    }
    return NYB_OK;
}

static nyb_status open_folder(nyb_keras_file *f, nyb_err *err)
{
    const char *const config = nyb_path_join(&f->arena, f->path, "config.json");
    const char *const whole = nyb_path_join(&f->arena, f->path, NYB_KERAS_WEIGHTS_NAME);
    const char *const map = nyb_path_join(&f->arena, f->path, NYB_KERAS_MAP_NAME);
    if (!config || !whole || !map)
        return nyb_no_memory(err, f->path, 1, 1);
    nyb_status status = nyb_path_exists(config) ? nyb_json_load(&f->config, config, err) : NYB_OK;
    if (status != NYB_OK || nyb_path_exists(whole))
        return status == NYB_OK ? open_store(f, NYB_KERAS_WEIGHTS_NAME, whole, whole, err) : status;
    json_t *shards = NULL;
    status = nyb_json_load(&shards, map, err);
    if (status == NYB_OK)
        status = open_shards(f, shards, err);
    json_decref(shards);
    return status;
}

// ---- Archives -------------------------------------------------------------------------------

static nyb_status read_json(nyb_keras_file *f, const char *name, json_t **out, nyb_err *err)
{
    char *text = NULL;
    size_t length = 0;
    nyb_arena arena = {0};
    const char *const shown = nyb_arena_format(&f->arena, "%s:%s", f->path, name);
    nyb_status status =
        shown ? nyb_archive_text(f->archive, name, JSON_LIMIT, &arena, &text, &length, err)
              : nyb_no_memory(err, name, 1, 1);
    if (status == NYB_OK)
        status = nyb_json_parse(out, text, length, shown, err);
    nyb_arena_clear(&arena);
    return status;
}

// libhdf5 needs the file by itself: it is unpacked into one without a name.
static nyb_status extract_weights(nyb_keras_file *f, nyb_err *err)
{
    f->extracted = nyb_file_nameless(nyb_file_temporary());
    if (f->extracted < 0)
        return nyb_fail(err, NYB_E_IO,
                        "%s: cannot unpack it into %s; set TMPDIR to a folder with "
                        "room",
                        f->path, nyb_file_temporary());
    const nyb_status status =
        nyb_archive_extract(f->archive, NYB_KERAS_WEIGHTS_NAME, f->extracted, err);
    if (status != NYB_OK)
        return status;
    const char *const path = nyb_arena_format(&f->arena, "/proc/self/fd/%d", f->extracted);
    const char *const shown = nyb_arena_format(&f->arena, "%s:%s", f->path, NYB_KERAS_WEIGHTS_NAME);
    return path && shown ? open_store(f, NYB_KERAS_WEIGHTS_NAME, path, shown, err)
                         : nyb_no_memory(err, f->path, 1, 1);
}

static nyb_status open_archive(nyb_keras_file *f, nyb_err *err)
{
    nyb_status status = nyb_archive_open(&f->archive, f->path, err);
    if (status != NYB_OK)
        return status;
    if (!nyb_archive_has(f->archive, NYB_KERAS_WEIGHTS_NAME))
        return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: it has no '%s'%s", f->path,
                        NYB_KERAS_WEIGHTS_NAME,
                        nyb_archive_has(f->archive, "model.weights.npz")
                            ? "; weights in .npz are not read: save it with weights in HDF5"
                            : "");
    status = read_json(f, "config.json", &f->config, err);
    return status == NYB_OK ? extract_weights(f, err) : status;
}

// ---- Opening --------------------------------------------------------------------------------

static nyb_status open_into(nyb_keras_file *f, const char *config, nyb_err *err)
{
    nyb_status status = NYB_OK;
    if (nyb_path_is_folder(f->path)) {
        f->kind = NYB_KERAS_FOLDER;
        status = open_folder(f, err);
    } else if (ends_with(f->path, ".h5") || ends_with(f->path, ".hdf5")) {
        f->kind = NYB_KERAS_WEIGHTS;
        status = open_store(f, f->path, f->path, f->path, err);
    } else {
        f->kind = NYB_KERAS_ARCHIVE;
        status = open_archive(f, err);
    }
    if (status == NYB_OK && config && f->config)
        return nyb_fail(err, NYB_E_ARG, "%s: it has a configuration of its own; '%s' is not needed",
                        f->path, config);
    if (status == NYB_OK && config)
        status = nyb_json_load(&f->config, config, err);
    return status == NYB_OK ? join_items(f, err) : status;
}

nyb_status nyb_keras_open(nyb_keras_file **out, const char *path, const char *config, nyb_err *err)
{
    *out = NULL;
    nyb_keras_file *const f = nyb_alloc(1, sizeof(*f));
    if (!f)
        return nyb_no_memory(err, path, 1, sizeof(*f));
    f->extracted = -1;
    f->path = nyb_arena_text(&f->arena, path, strlen(path));
    const nyb_status status =
        f->path ? open_into(f, config, err) : nyb_no_memory(err, path, strlen(path), 1);
    if (status == NYB_OK)
        *out = f;
    else
        nyb_keras_close(f);
    return status;
}

void nyb_keras_close(nyb_keras_file *f)
{
    if (!f)
        return;
    for (size_t i = 0; i < f->store_count; i++)
        nyb_hdf5_close(f->stores[i].file);
    if (f->extracted >= 0)
        (void) close(f->extracted);
    nyb_archive_close(f->archive);
    json_decref(f->config);
    nyb_arena_clear(&f->arena);
    nyb_free(f);
}

const char *nyb_keras_path(const nyb_keras_file *f)
{
    return f->path;
}

nyb_keras_kind nyb_keras_kind_of(const nyb_keras_file *f)
{
    return f->kind;
}

const json_t *nyb_keras_config(const nyb_keras_file *f)
{
    return f->config;
}

size_t nyb_keras_count(const nyb_keras_file *f)
{
    return f->count;
}

const nyb_hdf5_item *nyb_keras_item_at(const nyb_keras_file *f, size_t index)
{
    return f->items[index].item;
}

static const nyb_keras_item *find(const nyb_keras_file *f, const char *path)
{
    return f->count ? bsearch(path, f->items, f->count, sizeof(*f->items), path_to) : NULL;
}

const nyb_hdf5_item *nyb_keras_find(const nyb_keras_file *f, const char *path)
{
    const nyb_keras_item *const found = find(f, path);
    return found ? found->item : NULL;
}

nyb_status nyb_keras_read(nyb_keras_file *f, const char *path, nyb_tensor *out, nyb_err *err)
{
    const nyb_keras_item *const found = find(f, path);
    if (!found)
        return nyb_fail(err, NYB_E_FORMAT, "%s: there is no array '%s'", f->path, path);
    return nyb_hdf5_read(f->stores[found->store].file, path, out, err);
}
