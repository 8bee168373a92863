#include "formats/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "formats/gguf_names.h"
#include "formats/keras_hub.h"
#include "formats/safetensors.h"

// A tensor and the number of its file; the tensor comes first, so that a pointer to it finds
// the file.
typedef struct entry {
    nyb_tensor tensor;
    size_t file;
} entry;

struct nyb_checkpoint {
    nyb_arena arena;
    const char *path;
    nyb_safetensors *files;
    size_t file_count;     // opened
    nyb_gguf gguf;         // in the files' place; its path is NULL when it is not open
    nyb_keras_file *keras; // likewise; NULL when it is not open
    nyb_map copies;        // of its matrices
    nyb_map *maps;         // [map_count] of its weights
    const char **map_paths;
    size_t map_count;
    entry *entries; // by name
    size_t count;
};

static const char single_name[] = "model.safetensors";
static const char index_name[] = "model.safetensors.index.json";

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

// Kinds of model files that are recognised in order to say what to do with them.
static const nyb_stranger strangers[] = {
    {".bin", "a PyTorch pickle"},  {".pt", "a PyTorch pickle"},   {".pth", "a PyTorch pickle"},
    {".ckpt", "a PyTorch pickle"}, {".pkl", "a pickle"},          {".gguf", "a GGUF file"},
    {".h5", "an HDF5 file"},       {".keras", "a Keras archive"}, {".npz", "a NumPy archive"},
};

const nyb_stranger *nyb_checkpoint_stranger_at(size_t index)
{
    return index < sizeof(strangers) / sizeof(strangers[0]) ? &strangers[index] : NULL;
}

static const char *stranger_text(const char *name)
{
    for (size_t i = 0; i < sizeof(strangers) / sizeof(strangers[0]); i++) {
        if (ends_with(name, strangers[i].end))
            return strangers[i].text;
    }
    return NULL;
}

static nyb_status refuse(const char *path, const char *kind, nyb_err *err)
{
    if (strstr(kind, "pickle"))
        return nyb_fail(err, NYB_E_UNSUPPORTED,
                        "%s: %s, which can run code when it is loaded; convert it in Python with "
                        "transformers: AutoModelForCausalLM.from_pretrained(folder)"
                        ".save_pretrained(out)",
                        path, kind);
    if (strstr(kind, "GGUF"))
        return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: a GGUF file: name it instead of its folder",
                        path);
    return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: %s, not a Hugging Face folder of safetensors",
                    path, kind);
}

static nyb_status open_file(nyb_checkpoint *c, const char *path, nyb_err *err)
{
    const nyb_status status = nyb_safetensors_open(&c->files[c->file_count], path, err);
    if (status == NYB_OK)
        c->file_count++;
    return status;
}

static nyb_status reserve_files(nyb_checkpoint *c, size_t count, nyb_err *err)
{
    c->files = nyb_arena_alloc(&c->arena, count, sizeof(*c->files));
    return c->files ? NYB_OK : nyb_no_memory(err, c->path, count, sizeof(*c->files));
}

static nyb_status open_single(nyb_checkpoint *c, const char *path, nyb_err *err)
{
    const nyb_status status = reserve_files(c, 1, err);
    return status == NYB_OK ? open_file(c, path, err) : status;
}

static nyb_status check_shard_name(const json_t *value, const char *tensor, const char *index,
                                   nyb_err *err)
{
    const char *const name = json_string_value(value);
    if (!name)
        return nyb_fail(err, NYB_E_FORMAT, "%s: the file of tensor '%s' is not a string", index,
                        tensor);
    if (strlen(name) != json_string_length(value) || strpbrk(name, "/\\") ||
        !ends_with(name, ".safetensors") || name[0] == '.')
        return nyb_fail(err, NYB_E_FORMAT,
                        "%s: '%s', the file of tensor '%s', is not the name of a *.safetensors "
                        "file in this folder",
                        index, name, tensor);
    return NYB_OK;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *) a, *(const char *const *) b);
}

// The different file names of a weight map, sorted, in the arena. They borrow the map's texts.
static nyb_status list_shards(const char ***names, size_t *count, nyb_checkpoint *c,
                              json_t *weights, const char *index, nyb_err *err)
{
    const char *tensor = NULL;
    json_t *value = NULL;
    size_t n = 0;

    const char **const all =
        nyb_arena_alloc(&c->arena, json_object_size(weights), sizeof(const char *));
    if (!all)
        return nyb_no_memory(err, index, json_object_size(weights), sizeof(const char *));
    json_object_foreach(weights, tensor, value)
    {
        const nyb_status status = check_shard_name(value, tensor, index, err);
        if (status != NYB_OK)
            return status;
        all[n++] = json_string_value(value);
    }
    if (n > 1)
        qsort(all, n, sizeof(*all), by_text);

    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (kept == 0 || strcmp(all[kept - 1], all[i]) != 0)
            all[kept++] = all[i];
    }
    *names = all;
    *count = kept;
    return NYB_OK;
}

// Every tensor of this shard is in the map under this shard's name.
static nyb_status check_shard(const nyb_safetensors *file, const char *name, const json_t *weights,
                              const char *index, nyb_err *err)
{
    for (size_t i = 0; i < file->count; i++) {
        const char *const tensor = file->tensors[i].name;
        const char *const listed = json_string_value(json_object_get(weights, tensor));
        if (!listed)
            return nyb_fail(err, NYB_E_FORMAT, "%s: tensor '%s' is not listed in %s", file->path,
                            tensor, index);
        if (strcmp(listed, name) != 0)
            return nyb_fail(err, NYB_E_FORMAT, "%s: holds tensor '%s', which %s lists in '%s'",
                            file->path, tensor, index, listed);
    }
    return NYB_OK;
}

static bool shard_has(const nyb_safetensors *file, const char *tensor)
{
    for (size_t i = 0; i < file->count; i++) {
        if (strcmp(file->tensors[i].name, tensor) == 0)
            return true;
    }
    return false;
}

// Called when fewer tensors are in the files than in the map: names one that is missing.
static nyb_status name_missing(const nyb_checkpoint *c, json_t *weights, const char *index,
                               nyb_err *err)
{
    const char *tensor = NULL;
    json_t *value = NULL;

    json_object_foreach(weights, tensor, value)
    {
        bool found = false;
        for (size_t i = 0; i < c->file_count && !found; i++)
            found = shard_has(&c->files[i], tensor);
        if (!found)
            return nyb_fail(err, NYB_E_FORMAT,
                            "%s: lists tensor '%s' in '%s', which has none of "
                            "this name",
                            index, tensor, json_string_value(value));
    }
    return nyb_fail(err, NYB_E_FORMAT, "%s: lists more tensors than its files hold", index);
}

static nyb_status open_listed(nyb_checkpoint *c, json_t *weights, const char *index, nyb_err *err)
{
    const char **names = NULL;
    size_t count = 0, tensors = 0;

    nyb_status status = list_shards(&names, &count, c, weights, index, err);
    if (status == NYB_OK)
        status = reserve_files(c, count, err);
    for (size_t i = 0; i < count && status == NYB_OK; i++) {
        const char *const path = nyb_path_join(&c->arena, c->path, names[i]);
        status = path ? open_file(c, path, err) : nyb_no_memory(err, index, strlen(names[i]), 1);
        if (status == NYB_OK)
            status = check_shard(&c->files[i], names[i], weights, index, err);
        if (status == NYB_OK)
            tensors += c->files[i].count;
    }
    if (status == NYB_OK && tensors < json_object_size(weights))
        status = name_missing(c, weights, index, err);
    return status;
}

static nyb_status open_index(nyb_checkpoint *c, const char *path, nyb_err *err)
{
    json_t *index = NULL;
    nyb_status status = nyb_json_load(&index, path, err);
    if (status != NYB_OK)
        return status;

    json_t *const weights = json_object_get(index, "weight_map");
    if (json_object_size(weights) == 0)
        status = nyb_fail(err, NYB_E_FORMAT, "%s: has no 'weight_map' with entries", path);
    else
        status = open_listed(c, weights, path, err);
    json_decref(index);
    return status;
}

// What a folder without model.safetensors and without an index holds.
typedef struct content {
    const char *tensors;  // a *.safetensors file
    const char *stranger; // a model file of another kind
    size_t tensor_files;
} content;

static nyb_status scan(content *out, nyb_checkpoint *c, nyb_err *err)
{
    DIR *const folder = opendir(c->path);
    if (!folder)
        return nyb_fail(err, NYB_E_IO, "%s: cannot open the folder: %s", c->path, strerror(errno));

    const struct dirent *item;
    nyb_status status = NYB_OK;
    while (status == NYB_OK && (item = readdir(folder))) {
        const char **slot = NULL;
        if (ends_with(item->d_name, ".safetensors")) {
            out->tensor_files++;
            slot = &out->tensors;
        } else if (stranger_text(item->d_name)) {
            slot = &out->stranger;
        }
        // The least name, so that the message does not depend on the file system's order.
        if (!slot || (*slot && strcmp(*slot, item->d_name) <= 0))
            continue;
        *slot = nyb_arena_text(&c->arena, item->d_name, strlen(item->d_name));
        if (!*slot)
            status = nyb_no_memory(err, c->path, strlen(item->d_name), 1);
    }
    (void) closedir(folder);
    return status;
}

static nyb_status open_unnamed(nyb_checkpoint *c, nyb_err *err)
{
    content found = {0};
    const nyb_status status = scan(&found, c, err);
    if (status != NYB_OK)
        return status;

    if (found.tensor_files == 1 && strncmp(found.tensors, "adapter_", 8) == 0)
        return nyb_fail(err, NYB_E_UNSUPPORTED, "%s: holds an adapter ('%s'), not a whole model",
                        c->path, found.tensors);
    if (found.tensor_files == 1) {
        const char *const path = nyb_path_join(&c->arena, c->path, found.tensors);
        return path ? open_single(c, path, err) : nyb_no_memory(err, c->path, 1, 1);
    }
    if (found.tensor_files > 1)
        return nyb_fail(err, NYB_E_FORMAT,
                        "%s: holds %zu *.safetensors files but neither '%s' nor '%s'", c->path,
                        found.tensor_files, single_name, index_name);
    if (found.stranger) {
        const char *const path = nyb_path_join(&c->arena, c->path, found.stranger);
        return refuse(path ? path : c->path, stranger_text(found.stranger), err);
    }
    return nyb_fail(err, NYB_E_IO, "%s: holds no *.safetensors file", c->path);
}

static nyb_status open_folder(nyb_checkpoint *c, nyb_err *err)
{
    const char *const single = nyb_path_join(&c->arena, c->path, single_name);
    const char *const index = nyb_path_join(&c->arena, c->path, index_name);
    if (!single || !index)
        return nyb_no_memory(err, c->path, strlen(c->path), 2);

    const bool has_single = nyb_path_exists(single);
    if (!nyb_path_exists(index))
        return has_single ? open_single(c, single, err) : open_unnamed(c, err);

    const nyb_status status = open_index(c, index, err);
    // Readers differ in which of the two they take, so a folder with both is only good when the
    // index leads to that very file.
    if (status == NYB_OK && has_single &&
        (c->file_count != 1 || strcmp(c->files[0].path, single) != 0))
        return nyb_fail(err, NYB_E_FORMAT,
                        "%s: holds '%s' beside an index of other files; remove the stale one",
                        c->path, single_name);
    return status;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const entry *) a)->tensor.name, ((const entry *) b)->tensor.name);
}

static nyb_status gather(nyb_checkpoint *c, nyb_err *err)
{
    size_t total = 0;
    for (size_t f = 0; f < c->file_count; f++)
        total += c->files[f].count;
    c->entries = nyb_arena_alloc(&c->arena, total, sizeof(*c->entries));
    if (!c->entries)
        return nyb_no_memory(err, c->path, total, sizeof(*c->entries));

    for (size_t f = 0; f < c->file_count; f++) {
        for (size_t i = 0; i < c->files[f].count; i++)
            c->entries[c->count++] = (entry){.tensor = c->files[f].tensors[i], .file = f};
    }
    if (total > 1)
        qsort(c->entries, total, sizeof(*c->entries), by_name);
    return NYB_OK;
}

// Tensors of a file of another kind, under the names that a folder has.
static nyb_status gather_foreign(nyb_checkpoint *c, const nyb_tensor *tensors, size_t count,
                                 nyb_err *err)
{
    c->entries = nyb_arena_alloc(&c->arena, count, sizeof(*c->entries));
    if (!c->entries)
        return nyb_no_memory(err, c->path, count, sizeof(*c->entries));
    for (; c->count < count; c->count++)
        c->entries[c->count] = (entry){.tensor = tensors[c->count]};
    if (count > 1)
        qsort(c->entries, count, sizeof(*c->entries), by_name);
    for (size_t i = 1; i < count; i++) {
        if (strcmp(c->entries[i - 1].tensor.name, c->entries[i].tensor.name) == 0)
            return nyb_fail(err, NYB_E_FORMAT, "%s: two tensors are '%s'", c->path,
                            c->entries[i].tensor.name);
    }
    return NYB_OK;
}

static nyb_status open_gguf(nyb_checkpoint *c, nyb_err *err)
{
    nyb_tensor *tensors = NULL;
    size_t count = 0;
    nyb_status status = nyb_gguf_open(&c->gguf, c->path, err);
    if (status == NYB_OK)
        status = nyb_gguf_as_folder(&c->gguf, &tensors, &count, err);
    return status == NYB_OK ? gather_foreign(c, tensors, count, err) : status;
}

enum { MOST_WEIGHT_FILES = 1000 };

// Maps the files of weights, for those who want whole files.
static nyb_status map_weights(nyb_checkpoint *c, nyb_err *err)
{
    DIR *const folder = opendir(c->path);
    if (!folder)
        return nyb_fail(err, NYB_E_IO, "%s: cannot open the folder: %s", c->path, strerror(errno));
    nyb_status status = NYB_OK;
    const struct dirent *item;
    while (status == NYB_OK && (item = readdir(folder))) {
        if (!ends_with(item->d_name, ".weights.h5") || c->map_count == MOST_WEIGHT_FILES)
            continue;
        c->map_paths[c->map_count] = nyb_path_join(&c->arena, c->path, item->d_name);
        if (!c->map_paths[c->map_count++])
            status = nyb_no_memory(err, c->path, strlen(item->d_name), 1);
    }
    (void) closedir(folder);
    if (status == NYB_OK && c->map_count > 1)
        qsort(c->map_paths, c->map_count, sizeof(*c->map_paths), by_text);
    for (size_t i = 0; i < c->map_count && status == NYB_OK; i++)
        status = nyb_map_open(&c->maps[i], c->map_paths[i], err);
    return status;
}

static nyb_status open_keras(nyb_checkpoint *c, nyb_err *err)
{
    nyb_tensor *tensors = NULL;
    size_t count = 0;
    c->maps = nyb_arena_alloc(&c->arena, MOST_WEIGHT_FILES, sizeof(*c->maps));
    c->map_paths = nyb_arena_alloc(&c->arena, MOST_WEIGHT_FILES, sizeof(const char *));
    if (!c->maps || !c->map_paths)
        return nyb_no_memory(err, c->path, MOST_WEIGHT_FILES, sizeof(*c->maps));
    nyb_status status = nyb_keras_open(&c->keras, c->path, NULL, err);
    if (status == NYB_OK)
        status = nyb_hub_as_folder(c->keras, &c->arena, &c->copies, &tensors, &count, err);
    if (status == NYB_OK)
        status = map_weights(c, err);
    return status == NYB_OK ? gather_foreign(c, tensors, count, err) : status;
}

static nyb_status open_path(nyb_checkpoint *c, const char *path, nyb_err *err)
{
    c->path = nyb_arena_text(&c->arena, path, strlen(path));
    if (!c->path)
        return nyb_no_memory(err, path, strlen(path), 1);

    nyb_status status = NYB_OK;
    if (nyb_gguf_named(path))
        return open_gguf(c, err);
    if (nyb_path_is_folder(path) && nyb_keras_is(path))
        return open_keras(c, err);
    if (nyb_path_is_folder(path))
        status = open_folder(c, err);
    else if (nyb_path_exists(path) && stranger_text(path))
        status = refuse(path, stranger_text(path), err);
    else
        status = open_single(c, path, err);
    return status == NYB_OK ? gather(c, err) : status;
}

nyb_status nyb_checkpoint_open(nyb_checkpoint **out, const char *path, nyb_err *err)
{
    *out = NULL;
    nyb_checkpoint *const c = nyb_alloc(1, sizeof(*c));
    if (!c)
        return nyb_no_memory(err, path, 1, sizeof(*c));
    const nyb_status status = open_path(c, path, err);
    if (status == NYB_OK)
        *out = c;
    else
        nyb_checkpoint_close(c);
    return status;
}

void nyb_checkpoint_close(nyb_checkpoint *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->file_count; i++)
        nyb_safetensors_close(&c->files[i]);
    nyb_gguf_close(&c->gguf);
    for (size_t i = 0; i < c->map_count; i++)
        nyb_map_close(&c->maps[i]);
    nyb_map_close(&c->copies);
    nyb_keras_close(c->keras);
    nyb_arena_clear(&c->arena);
    nyb_free(c);
}

const nyb_gguf *nyb_checkpoint_gguf(const nyb_checkpoint *c)
{
    return c->gguf.path ? &c->gguf : NULL;
}

nyb_keras_file *nyb_checkpoint_keras(const nyb_checkpoint *c)
{
    return c->keras;
}

const char *nyb_checkpoint_path(const nyb_checkpoint *c)
{
    return c->path;
}

size_t nyb_checkpoint_count(const nyb_checkpoint *c)
{
    return c->count;
}

const nyb_tensor *nyb_checkpoint_at(const nyb_checkpoint *c, size_t index)
{
    return &c->entries[index].tensor;
}

const nyb_tensor *nyb_checkpoint_find(const nyb_checkpoint *c, const char *name)
{
    size_t low = 0, high = c->count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const int side = strcmp(name, c->entries[middle].tensor.name);
        if (side == 0)
            return &c->entries[middle].tensor;
        if (side < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

bool nyb_part_of_matrix(const char *part)
{
    static const char *const others[] = {"bias", "weight_shape", "input_scale", "block_type"};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        if (strcmp(part, others[i]) == 0)
            return false;
    }
    return true;
}

size_t nyb_checkpoint_layer_bytes(const nyb_checkpoint *c, const char *module)
{
    const size_t length = strlen(module);
    size_t low = 0, high = c->count, bytes = 0;
    while (low < high) { // the first name that is not before "<module>."
        const size_t middle = low + (high - low) / 2;
        const char *const name = c->entries[middle].tensor.name;
        const int side = strncmp(name, module, length);
        if (side < 0 || (side == 0 && (unsigned char) name[length] < '.'))
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < c->count; low++) {
        const nyb_tensor *const t = &c->entries[low].tensor;
        if (strncmp(t->name, module, length) != 0 || t->name[length] != '.')
            break;
        const char *const part = t->name + length + 1;
        if (!strchr(part, '.') && nyb_part_of_matrix(part))
            bytes += t->bytes;
    }
    return bytes;
}

nyb_status nyb_checkpoint_get(const nyb_tensor **out, const nyb_checkpoint *c, const char *name,
                              nyb_err *err)
{
    *out = nyb_checkpoint_find(c, name);
    return *out ? NYB_OK : nyb_fail(err, NYB_E_FORMAT, "%s: has no tensor '%s'", c->path, name);
}

const char *nyb_checkpoint_file_of(const nyb_checkpoint *c, const nyb_tensor *tensor)
{
    if (c->gguf.path || c->keras)
        return c->path;
    return c->files[((const entry *) (const void *) tensor)->file].path;
}

size_t nyb_checkpoint_files(const nyb_checkpoint *c)
{
    return c->gguf.path ? 1 : c->keras ? c->map_count : c->file_count;
}

const char *nyb_checkpoint_file(const nyb_checkpoint *c, size_t index)
{
    return c->gguf.path ? c->gguf.path : c->keras ? c->map_paths[index] : c->files[index].path;
}

const void *nyb_checkpoint_file_bytes(const nyb_checkpoint *c, size_t index, size_t *bytes)
{
    const nyb_map *const map = c->gguf.path ? &c->gguf.map
                               : c->keras   ? &c->maps[index]
                                            : &c->files[index].map;
    *bytes = map->bytes;
    return map->at;
}

void nyb_checkpoint_release(const nyb_checkpoint *c)
{
    for (size_t i = 0; i < nyb_checkpoint_files(c); i++) {
        size_t bytes = 0;
        const void *const at = nyb_checkpoint_file_bytes(c, i, &bytes);
        nyb_map_release(at, bytes);
    }
}
