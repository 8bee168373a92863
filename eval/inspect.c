#include "nybble/inspect.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/dtype.h"
#include "core/file.h"
#include "core/json.h"
#include "core/log.h"
#include "eval/inspect_keras.h"
#include "eval/inspect_readers.h"
#include "formats/checkpoint.h"
#include "formats/quantization.h"
#include "formats/safetensors.h"
#include "model/config.h"
#include "model/gguf_config.h"
#include "model/model.h"

typedef struct inspection_owner {
    nyb_arena arena;
    nyb_checkpoint *file;
    nyb_quantization *quantization;
    nyb_keras_file *keras;
} inspection_owner;

// What the workers below fill and what they read from.
typedef struct looking {
    nyb_inspection *in;
    inspection_owner *owner;
    nyb_inspect_layer *layers;
    size_t count;
    nyb_err *err;
} looking;

static nyb_status out_of_memory(const looking *l)
{
    return nyb_no_memory(l->err, l->in->path, l->in->tensor_count, sizeof(nyb_inspect_layer));
}

// ---- Tensors --------------------------------------------------------------------------------

static nyb_status list_tensors(const looking *l)
{
    nyb_inspection *const in = l->in;
    nyb_arena *const arena = &l->owner->arena;
    const size_t count = nyb_checkpoint_count(l->owner->file);
    const nyb_tensor **const tensors = nyb_arena_alloc(arena, count, sizeof(*tensors));
    const char **const files = nyb_arena_alloc(arena, count, sizeof(*files));
    if (!tensors || !files)
        return out_of_memory(l);

    for (size_t i = 0; i < count; i++) {
        tensors[i] = nyb_checkpoint_at(l->owner->file, i);
        files[i] = nyb_checkpoint_file_of(l->owner->file, tensors[i]);
        in->bytes += tensors[i]->bytes;
    }
    in->tensors = tensors;
    in->tensor_files = files;
    in->tensor_count = count;
    return NYB_OK;
}

static nyb_status list_files(const looking *l)
{
    const size_t count = nyb_checkpoint_files(l->owner->file);
    nyb_inspect_file *const files = nyb_arena_alloc(&l->owner->arena, count, sizeof(*files));
    if (!files)
        return out_of_memory(l);
    for (size_t i = 0; i < count; i++) {
        files[i].path = nyb_checkpoint_file(l->owner->file, i);
        (void) nyb_checkpoint_file_bytes(l->owner->file, i, &files[i].bytes);
    }
    l->in->files = files;
    l->in->file_count = count;
    return NYB_OK;
}

static nyb_status list_dtypes(const looking *l)
{
    nyb_inspect_dtype all[NYB_DTYPE_END] = {0};
    size_t count = 0;
    nyb_inspect_dtype *const kept = nyb_arena_alloc(&l->owner->arena, NYB_DTYPE_END, sizeof(*kept));
    if (!kept)
        return out_of_memory(l);
    for (size_t i = 0; i < l->in->tensor_count; i++) {
        nyb_inspect_dtype *const d = &all[l->in->tensors[i]->dtype];
        d->tensors++;
        d->bytes += l->in->tensors[i]->bytes;
    }
    for (size_t i = 0; i < NYB_DTYPE_END; i++) {
        all[i].dtype = (nyb_dtype) i;
        if (all[i].tensors)
            kept[count++] = all[i];
    }
    l->in->dtypes = kept;
    l->in->dtype_count = count;
    return NYB_OK;
}

// ---- Configuration --------------------------------------------------------------------------

// A config.json that is missing, or says nothing usable, leaves model_type NULL.
static nyb_status read_model_type(const looking *l, const char *path)
{
    json_t *config = NULL;
    const char *type = NULL;
    if (!nyb_path_exists(path))
        return NYB_OK;
    nyb_status status = nyb_json_load(&config, path, l->err);
    if (status == NYB_OK)
        status = nyb_json_text(config, "model_type", &type, path, l->err);
    if (status == NYB_OK) {
        l->in->model_type = nyb_arena_text(&l->owner->arena, type ? type : "unknown",
                                           strlen(type ? type : "unknown"));
        status = l->in->model_type ? NYB_OK : out_of_memory(l);
    }
    json_decref(config);
    return status;
}

static nyb_status keep_misses(const looking *l, const nyb_misses *misses)
{
    nyb_arena *const arena = &l->owner->arena;
    const char **const list = nyb_arena_alloc(arena, misses->count + 1, sizeof(*list));
    if (!list)
        return out_of_memory(l);
    for (size_t i = 0; i < misses->count; i++) {
        list[i] = nyb_arena_text(arena, misses->text[i], strlen(misses->text[i]));
        if (!list[i])
            return out_of_memory(l);
    }
    l->in->unsupported = list;
    l->in->unsupported_count = misses->count;
    return NYB_OK;
}

// Whether nybble can run the model: its configuration, and that every tensor is there and known.
static nyb_status read_model(const looking *l, const char *folder)
{
    nyb_model *model = NULL;
    const nyb_arch *arch = NULL;
    nyb_misses misses = {0};
    nyb_err fault;
    nyb_status status = nyb_model_look(&arch, &misses, folder, &fault);
    l->in->family = arch ? arch->about : NULL;
    if (status == NYB_OK)
        status = nyb_model_open(&model, folder, &fault);
    nyb_model_close(model);
    if (status != NYB_OK)
        l->in->model_fault = nyb_arena_text(&l->owner->arena, fault.text, strlen(fault.text));
    if (status != NYB_OK && !l->in->model_fault)
        return out_of_memory(l);
    return keep_misses(l, &misses);
}

// The configuration inside a GGUF file.
static nyb_status read_gguf(const looking *l, const nyb_gguf *file)
{
    nyb_model_config config;
    nyb_gguf_text arch = {"unknown", 7};
    nyb_misses misses = {0};
    nyb_err fault;
    json_t *doc = NULL;
    nyb_status status = nyb_gguf_string(file, "general.architecture", &arch, l->err);
    if (status != NYB_OK)
        return status;
    l->in->gguf = true;
    l->in->model_type = nyb_arena_text(&l->owner->arena, arch.at, arch.length);
    status = nyb_gguf_config(&doc, file, &fault);
    if (status == NYB_OK)
        status = nyb_model_config_look(&config, &misses, doc, file->path, &fault);
    if (status == NYB_OK && config.arch)
        l->in->family = config.arch->about;
    if (status == NYB_OK)
        status = nyb_misses_fail(&misses, file->path, &fault);
    json_decref(doc);
    if (status != NYB_OK)
        l->in->model_fault = nyb_arena_text(&l->owner->arena, fault.text, strlen(fault.text));
    if (!l->in->model_type || (status != NYB_OK && !l->in->model_fault))
        return out_of_memory(l);
    return keep_misses(l, &misses);
}

// The configuration of the folder, or of the folder that the file lies in.
static nyb_status read_config(const looking *l, const char *model)
{
    nyb_err fault;
    if (l->owner->file && nyb_checkpoint_gguf(l->owner->file))
        return read_gguf(l, nyb_checkpoint_gguf(l->owner->file));
    const char *const slash = strrchr(model, '/');
    const char *const folder =
        nyb_path_is_folder(model) ? model
        : slash ? nyb_arena_text(&l->owner->arena, model, (size_t) (slash + 1 - model))
                : ".";
    const char *const path = folder ? nyb_path_join(&l->owner->arena, folder, "config.json") : NULL;
    nyb_status status = path ? read_model_type(l, path) : out_of_memory(l);
    if (status != NYB_OK)
        return status;

    if (l->in->model_type)
        status = read_model(l, folder);
    if (status != NYB_OK)
        return status;
    status = nyb_quantization_load(&l->owner->quantization, folder, &fault);
    l->in->method = nyb_quantization_method(l->owner->quantization);
    if (status == NYB_OK)
        return NYB_OK;
    l->in->method = "unknown";
    l->in->fault = nyb_arena_text(&l->owner->arena, fault.text, strlen(fault.text));
    return l->in->fault ? NYB_OK : out_of_memory(l);
}

// ---- Layers ---------------------------------------------------------------------------------

// The module's name when `name` is "<module>.<suffix>", else NULL. In the arena.
static char *module_of(nyb_arena *arena, const char *name, const char *suffix)
{
    const size_t n = strlen(name), m = strlen(suffix);
    if (n < m + 2 || strcmp(name + n - m, suffix) != 0 || name[n - m - 1] != '.')
        return NULL;
    return nyb_arena_text(arena, name, n - m - 1);
}

static const nyb_tensor *part_of(const looking *l, const char *module, const char *suffix)
{
    const char *const name = nyb_arena_format(&l->owner->arena, "%s.%s", module, suffix);
    return name ? nyb_checkpoint_find(l->owner->file, name) : NULL;
}

static void add_fault(const looking *l, nyb_inspect_layer *layer, const char *text)
{
    layer->fault = nyb_arena_text(&l->owner->arena, text, strlen(text));
    if (l->in->faults++ == 0)
        l->in->first_fault = layer->fault;
}

static int64_t integer_at(const nyb_tensor *tensor, size_t index)
{
    int64_t wide = 0;
    int32_t narrow = 0;
    if (tensor->dtype == NYB_I64) {
        memcpy(&wide, (const unsigned char *) tensor->at + index * 8, 8);
        return wide;
    }
    memcpy(&narrow, (const unsigned char *) tensor->at + index * 4, 4);
    return narrow;
}

// Whether a tensor is a quantised weight with a byte for each code.
static bool is_byte_weight(const nyb_tensor *tensor)
{
    const char *const dot = strrchr(tensor->name, '.');
    return dot && strcmp(dot, ".weight") == 0 && tensor->rank == 2 &&
           (tensor->dtype == NYB_I8 || nyb_dtype_is_float8(tensor->dtype));
}

// Shape of the weight that a layer's tensors hold. False when they do not tell.
static bool find_shape(const looking *l, nyb_inspect_layer *layer, const nyb_tensor *marker)
{
    if (marker->rank != 2)
        return false;
    if (is_byte_weight(marker)) {
        layer->rows = marker->shape[0];
        layer->cols = marker->shape[1];
        return true;
    }
    if (strcmp(layer->layout, "compressed-tensors") == 0) {
        const nyb_tensor *const shape = part_of(l, layer->name, "weight_shape");
        if (!shape || shape->rank != 1 || shape->shape[0] != 2 ||
            (shape->dtype != NYB_I64 && shape->dtype != NYB_I32) || integer_at(shape, 0) <= 0 ||
            integer_at(shape, 1) <= 0)
            return false;
        layer->rows = (size_t) integer_at(shape, 0);
        layer->cols = (size_t) integer_at(shape, 1);
        return true;
    }
    if (strcmp(layer->layout, "awq") == 0) {
        layer->rows = marker->shape[1] * 8;
        layer->cols = marker->shape[0];
        return true;
    }
    const nyb_tensor *const order = part_of(l, layer->name, "g_idx");
    layer->rows = marker->shape[1];
    layer->cols = order && order->rank == 1 ? order->shape[0] : marker->shape[0] / layer->bits * 32;
    return true;
}

// Whether the group index, when there is one, is anything but column / group size.
static bool is_irregular(const nyb_inspect_layer *layer, const nyb_tensor *order)
{
    if (!order || order->dtype != NYB_I32 || order->rank != 1)
        return false;
    for (size_t j = 0; j < order->shape[0]; j++) {
        const int64_t want = layer->group_size ? (int64_t) (j / layer->group_size) : 0;
        if (integer_at(order, j) != want && integer_at(order, j) != -1)
            return true;
    }
    return false;
}

static void measure(const looking *l, nyb_inspect_layer *layer)
{
    static const char *const scales[] = {"scales", "weight_scale", "weight_scale_inv"};
    layer->bytes = nyb_checkpoint_layer_bytes(l->owner->file, layer->name);
    for (size_t i = 0; i < sizeof(scales) / sizeof(scales[0]); i++) {
        const nyb_tensor *const part = part_of(l, layer->name, scales[i]);
        layer->dtype = part ? part->dtype : layer->dtype;
    }
}

// Reads the layer in full, which checks everything about it.
static void check_layer(const looking *l, nyb_inspect_layer *layer)
{
    nyb_err fault;
    nyb_qweight q;
    const nyb_status status = nyb_quantization_read(&q, l->owner->quantization, l->owner->file,
                                                    layer->name, layer->rows, layer->cols, &fault);
    if (status == NYB_OK)
        nyb_qweight_clear(&q);
    else
        add_fault(l, layer, fault.text);
}

static nyb_status describe_packed(const looking *l, nyb_inspect_layer *layer,
                                  const nyb_tensor *marker, bool check)
{
    nyb_quantized found;
    const nyb_status status =
        nyb_quantization_of(&found, l->owner->quantization, layer->name, l->err);
    if (status != NYB_OK)
        return status;
    layer->layout = "unknown";
    measure(l, layer);
    if (!found.layout ||
        (is_byte_weight(marker) ? !part_of(l, layer->name, found.layout->marker) &&
                                      !part_of(l, layer->name, "weight_scale_inv")
                                : strcmp(strrchr(marker->name, '.') + 1, found.layout->marker))) {
        add_fault(l, layer,
                  l->in->fault ? l->in->fault
                               : "the quantization config says nothing about this layer");
        return NYB_OK;
    }
    layer->layout = found.layout->name;
    layer->format = found.layout->format;
    layer->bits = found.spec.bits;
    layer->group_size = found.spec.group_size;
    layer->symmetric = found.spec.symmetric;
    if (!find_shape(l, layer, marker)) {
        add_fault(l, layer, "its tensors do not tell the shape of its weight");
        return NYB_OK;
    }
    const nyb_tensor *const order = part_of(l, layer->name, "g_idx");
    layer->irregular = is_irregular(layer, order ? order : part_of(l, layer->name, "weight_g_idx"));
    layer->padded = layer->bits == 3 && marker->shape[1] == (layer->cols + 9) / 10 &&
                    marker->shape[1] != (layer->cols * 3 + 31) / 32;
    if (check)
        check_layer(l, layer);
    return NYB_OK;
}

// The first element that is not a number, when the tensor holds floats.
static bool find_not_finite(const nyb_tensor *tensor, size_t *index)
{
    float block[1024];
    const size_t size = nyb_dtype_bytes(tensor->dtype), count = tensor->bytes / size;
    if (!nyb_dtype_is_float(tensor->dtype))
        return false;
    for (size_t i = 0; i < count; i += 1024) {
        const size_t n = count - i < 1024 ? count - i : 1024;
        nyb_widen(block, (const unsigned char *) tensor->at + i * size, tensor->dtype, n);
        for (size_t k = 0; k < n; k++) {
            if (!isfinite(block[k])) {
                *index = i + k;
                return true;
            }
        }
    }
    return false;
}

static void check_tensor(const looking *l, const nyb_tensor *tensor)
{
    size_t index = 0;
    if (!find_not_finite(tensor, &index))
        return;
    nyb_inspect_layer unnamed = {.name = tensor->name};
    nyb_err text;
    (void) nyb_fail(&text, NYB_E_NUMERIC, "'%s' holds a NaN or infinity at element %zu",
                    tensor->name, index);
    add_fault(l, &unnamed, text.text);
}

// Adds the layer that this tensor marks, if it marks one.
static nyb_status look_at(looking *l, const nyb_tensor *tensor, bool check)
{
    static const char *const markers[] = {"qweight", "weight_packed", "weight"};
    nyb_arena *const arena = &l->owner->arena;
    const size_t count = is_byte_weight(tensor) ? 3 : 2;

    for (size_t i = 0; i < count; i++) {
        char *const name = module_of(arena, tensor->name, markers[i]);
        if (!name)
            continue;
        l->layers[l->count] = (nyb_inspect_layer){.name = name};
        return describe_packed(l, &l->layers[l->count++], tensor, check);
    }
    if (check)
        check_tensor(l, tensor);
    char *const name = tensor->rank == 2 ? module_of(arena, tensor->name, "weight") : NULL;
    if (name)
        l->layers[l->count++] = (nyb_inspect_layer){.name = name,
                                                    .dtype = tensor->dtype,
                                                    .rows = tensor->shape[0],
                                                    .cols = tensor->shape[1],
                                                    .bytes = tensor->bytes};
    return NYB_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const nyb_inspect_layer *) a)->name, ((const nyb_inspect_layer *) b)->name);
}

static nyb_status list_layers(looking *l, bool check, const nyb_context *ctx)
{
    l->layers = nyb_arena_alloc(&l->owner->arena, l->in->tensor_count, sizeof(*l->layers));
    if (!l->layers)
        return out_of_memory(l);
    for (size_t i = 0; i < l->in->tensor_count; i++) {
        const nyb_tensor *const tensor = l->in->tensors[i];
        const nyb_status status = look_at(l, tensor, check);
        if (status != NYB_OK)
            return status;
        if (check)
            nyb_step(ctx,
                     &(nyb_progress){"check", tensor->name, "tensors", i + 1, l->in->tensor_count});
    }
    if (l->count > 1)
        qsort(l->layers, l->count, sizeof(*l->layers), by_name);
    for (size_t i = 0; i < l->count; i++)
        l->layers[i].weights = (double) l->layers[i].rows * (double) l->layers[i].cols;
    l->in->layers = l->layers;
    l->in->layer_count = l->count;
    return NYB_OK;
}

// ---- Sums -----------------------------------------------------------------------------------

static bool is_packing(const nyb_tensor *tensor)
{
    static const char *const parts[] = {
        ".qweight",       ".qzeros",       ".scales",          ".g_idx",
        ".weight_packed", ".weight_scale", ".weight_shape",    ".weight_zero_point",
        ".weight_g_idx",  ".input_scale",  ".weight_scale_inv"};
    const char *const dot = strrchr(tensor->name, '.');
    if (is_byte_weight(tensor))
        return true;
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]) && dot; i++) {
        if (strcmp(dot, parts[i]) == 0)
            return true;
    }
    return false;
}

static void sum_up(nyb_inspection *in)
{
    double packed_bytes = 0, packed = 0, plain = 0;
    for (size_t i = 0; i < in->layer_count; i++) {
        const nyb_inspect_layer *const layer = &in->layers[i];
        if (!layer->layout)
            continue;
        packed += layer->weights;
        packed_bytes += (double) layer->bytes;
    }
    for (size_t i = 0; i < in->tensor_count; i++) {
        const nyb_block_size block = nyb_dtype_block(in->tensors[i]->dtype);
        if (!is_packing(in->tensors[i]))
            plain += (double) (in->tensors[i]->bytes / block.bytes * block.values);
    }
    // Damaged files can claim any shape: the sums stay within what a size holds.
    in->parameters = plain + packed < 0x1p63 ? (size_t) (plain + packed) : 0;
    in->layer_bits = packed > 0 ? 8.0 * packed_bytes / packed : 0.0;
    in->bits = plain + packed > 0 ? 8.0 * (double) in->bytes / (plain + packed) : 0.0;
}

static nyb_status judge(const looking *l)
{
    nyb_inspect_reader *const readers =
        nyb_arena_alloc(&l->owner->arena, nyb_inspect_reader_count(), sizeof(*readers));
    if (!readers)
        return out_of_memory(l);
    nyb_inspect_judge(readers, l->in);
    l->in->readers = readers;
    l->in->reader_count = nyb_inspect_reader_count();
    return NYB_OK;
}

// A folder that was fetched without its tensors still tells whether nybble would run the model.
static bool has_config_alone(const looking *l, const char *path)
{
    static const char *const files[] = {"model.safetensors", "model.safetensors.index.json"};
    nyb_arena *const arena = &l->owner->arena;
    nyb_checkpoint *file = NULL;
    const char *const config = nyb_path_join(arena, path, "config.json");
    if (!nyb_path_is_folder(path) || !config || !nyb_path_exists(config))
        return false;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        const char *const name = nyb_path_join(arena, path, files[i]);
        if (!name || nyb_path_exists(name))
            return false;
    }
    // Whatever else is there is told by whoever looks for tensors.
    const bool nothing = nyb_checkpoint_open(&file, path, NULL) == NYB_E_IO;
    nyb_checkpoint_close(file);
    return nothing;
}

static nyb_status look_at_keras(const looking *l, bool check)
{
    const nyb_status status =
        nyb_inspect_keras(l->in, &l->owner->arena, &l->owner->keras, l->in->path, check, l->err);
    for (size_t i = 0; status == NYB_OK && check && i < l->in->tensor_count; i++)
        check_tensor(l, l->in->tensors[i]);
    return status == NYB_OK ? list_dtypes(l) : status;
}

static nyb_status look(looking *l, const char *path, const nyb_inspect_params *params,
                       const nyb_context *ctx)
{
    l->in->method = "none";
    l->in->path = nyb_arena_text(&l->owner->arena, path, strlen(path));
    if (!l->in->path)
        return nyb_no_memory(l->err, path, strlen(path), 1);
    if (nyb_keras_is(path))
        return look_at_keras(l, params->check);
    const bool bare = has_config_alone(l, path);
    nyb_status status = bare ? NYB_OK : nyb_checkpoint_open(&l->owner->file, path, l->err);
    if (status == NYB_OK && !bare)
        status = list_files(l);
    if (status == NYB_OK && !bare)
        status = list_tensors(l);
    if (status == NYB_OK && !bare)
        status = list_dtypes(l);
    if (status == NYB_OK)
        status = read_config(l, path);
    if (status == NYB_OK && !bare)
        status = list_layers(l, params->check, ctx);
    if (status != NYB_OK)
        return status;
    sum_up(l->in);
    return judge(l);
}

nyb_status nyb_inspect_open(nyb_inspection *out, const char *path, const nyb_inspect_params *params,
                            const nyb_context *ctx, nyb_err *err)
{
    *out = (nyb_inspection){0};
    inspection_owner *const owner = nyb_alloc(1, sizeof(*owner));
    if (!owner)
        return nyb_no_memory(err, path, 1, sizeof(*owner));
    out->owner = owner;
    looking l = {.in = out, .owner = owner, .err = err};
    const nyb_status status = look(&l, path, params, ctx);
    if (status != NYB_OK)
        nyb_inspect_close(out);
    return status;
}

void nyb_inspect_close(nyb_inspection *inspection)
{
    inspection_owner *const owner = inspection->owner;
    if (owner) {
        nyb_quantization_close(owner->quantization);
        nyb_checkpoint_close(owner->file);
        nyb_keras_close(owner->keras);
        nyb_arena_clear(&owner->arena);
        nyb_free(owner);
    }
    *inspection = (nyb_inspection){0};
}
