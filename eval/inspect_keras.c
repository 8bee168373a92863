#include "eval/inspect_keras.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/dtype.h"
#include "core/file.h"
#include "formats/keras_einsum.h"
#include "formats/keras_layers.h"

typedef struct looking {
    nyb_inspection *in;
    nyb_arena *arena;
    nyb_keras_file *file;
    nyb_inspect_layer *layers;
    size_t count;
    double packed_bits, packed, plain; // bits and weights of quantised layers; all other weights
    nyb_err *err;
} looking;

static nyb_status out_of_memory(const looking *l)
{
    return nyb_no_memory(l->err, l->in->path, 1, 1);
}

// ---- Tensors --------------------------------------------------------------------------------

static nyb_status list_tensors(looking *l, bool values)
{
    const size_t most = nyb_keras_count(l->file);
    nyb_tensor *const all = nyb_arena_alloc(l->arena, most, sizeof(*all));
    const nyb_tensor **const tensors = nyb_arena_alloc(l->arena, most, sizeof(*tensors));
    const char **const files = nyb_arena_alloc(l->arena, most, sizeof(*files));
    size_t count = 0;
    if (!all || !tensors || !files)
        return out_of_memory(l);
    for (size_t i = 0; i < most; i++) {
        const nyb_hdf5_item *const item = nyb_keras_item_at(l->file, i);
        if (item->is_group)
            continue;
        all[count] = item->tensor;
        const nyb_status status =
            values ? nyb_keras_read(l->file, item->path, &all[count], l->err) : NYB_OK;
        if (status != NYB_OK)
            return status;
        l->in->bytes += item->tensor.bytes;
        l->plain += (double) (item->tensor.bytes / nyb_dtype_bytes(item->tensor.dtype));
        files[count] = l->in->path;
        tensors[count] = &all[count];
        count++;
    }
    l->in->tensors = tensors;
    l->in->tensor_files = files;
    l->in->tensor_count = count;
    return NYB_OK;
}

static nyb_status list_files(const looking *l)
{
    struct stat info;
    nyb_inspect_file *const file = nyb_arena_alloc(l->arena, 1, sizeof(*file));
    if (!file)
        return out_of_memory(l);
    *file = (nyb_inspect_file){.path = l->in->path, .bytes = l->in->bytes};
    if (!nyb_path_is_folder(l->in->path) && stat(l->in->path, &info) == 0)
        file->bytes = (size_t) info.st_size;
    l->in->files = file;
    l->in->file_count = 1;
    return NYB_OK;
}

// ---- Layers ---------------------------------------------------------------------------------

static size_t axis(const nyb_tensor *t, unsigned index)
{
    return index < t->rank ? t->shape[index] : 1;
}

// [inputs, outputs] of a kernel that has its own shape.
static void kernel_shape(const nyb_keras_layer *layer, const nyb_tensor *kernel,
                         nyb_inspect_layer *to)
{
    nyb_keras_einsum einsum;
    const bool known = layer->equation && nyb_keras_einsum_read(&einsum, layer->equation,
                                                                kernel->rank, NULL) == NYB_OK;
    to->rows = to->cols = 1;
    for (unsigned i = 0; i < kernel->rank; i++) {
        const bool input = known ? einsum.reduced[i] : i == 0;
        *(input ? &to->cols : &to->rows) *= kernel->shape[i];
    }
}

// The arrays that tell the shape: the codes' and the scales'.
static void packed_shape(const nyb_keras_layer *layer, const nyb_tensor *codes,
                         const nyb_tensor *scales, nyb_inspect_layer *to)
{
    const json_t *const width = json_object_get(layer->config, "output_dim");
    if (strncmp(layer->mode, "gptq", 4) == 0) {
        to->rows = axis(scales, 0);
        to->cols = axis(codes, 1);
    } else if (strstr(layer->class_name, "Embedding")) {
        to->rows = axis(codes, 0);
        to->cols = width ? (size_t) json_integer_value(width) : axis(codes, 1);
    } else if (strncmp(layer->mode, "int4", 4) == 0) {
        to->rows = axis(scales, scales->rank ? scales->rank - 1 : 0);
        to->cols = axis(codes, 0);
    } else {
        kernel_shape(layer, codes, to);
    }
}

// "int4/128" as 4 bits in groups of 128.
static void read_mode(const char *mode, nyb_inspect_layer *to)
{
    const char *const first = strchr(mode, '/');
    const char *const second = first ? strchr(first + 1, '/') : NULL;
    const char *const group = second ? second : first;
    const long block = group ? strtol(group + 1, NULL, 10) : -1;
    to->bits = second                          ? (unsigned) strtoul(first + 1, NULL, 10)
               : strncmp(mode, "int4", 4) == 0 ? 4
                                               : 8;
    to->bits = to->bits > 8 ? 8 : to->bits;
    to->group_size = block > 0 ? (size_t) block : 0;
    to->symmetric = !second && block <= 0;
}

// Where a layer's arrays stand, as Keras orders them for its mode.
typedef struct order {
    bool packed;
    size_t codes, scales, bias; // bias: as many as there are arrays when there is none
    unsigned matrices;          // 2: an embedding has one of its own for the way back
} order;

static order order_of(const nyb_keras_layer *layer)
{
    const size_t count = layer->variables;
    const bool packed = layer->mode && strcmp(layer->mode, "float8") != 0;
    const bool gptq = packed && strncmp(layer->mode, "gptq", 4) == 0;
    const bool grouped = gptq || (packed && strncmp(layer->mode, "int4/", 5) == 0 &&
                                  strcmp(layer->mode, "int4/-1") != 0);
    const bool table = strstr(layer->class_name, "Embedding") != NULL;
    const size_t without = grouped ? 4 : packed ? 2 : 1; // arrays of a layer without a bias
    const bool biased = !table && count > without;
    order o = {.packed = packed,
               .bias = !biased ? count
                       : gptq  ? 0
                               : 1,
               .matrices = table && count > without ? 2 : 1};
    o.codes = gptq && biased;
    o.scales = !packed ? 0 : table ? 1 : count - (grouped ? 3 : 1);
    o.scales = o.scales < count ? o.scales : count - 1;
    return o;
}

static nyb_status sum_arrays(looking *l, const nyb_keras_layer *layer, order o,
                             nyb_inspect_layer *to)
{
    for (size_t i = 0; i < layer->variables; i++) {
        nyb_tensor part;
        const nyb_status status = nyb_keras_variable(l->file, layer, i, &part, l->err);
        if (status != NYB_OK)
            return status;
        if (i == o.bias)
            continue;
        to->bytes += part.bytes;
        l->plain -= o.packed ? (double) (part.bytes / nyb_dtype_bytes(part.dtype)) : 0.0;
    }
    return NYB_OK;
}

static nyb_status read_arrays(looking *l, const nyb_keras_layer *layer, nyb_inspect_layer *to)
{
    const order o = order_of(layer);
    nyb_tensor codes, scales;
    nyb_status status = nyb_keras_variable(l->file, layer, o.codes, &codes, l->err);
    if (status == NYB_OK)
        status = nyb_keras_variable(l->file, layer, o.scales, &scales, l->err);
    if (status == NYB_OK)
        status = sum_arrays(l, layer, o, to);
    if (status != NYB_OK)
        return status;
    to->dtype = scales.dtype;
    if (o.packed) {
        to->layout = "keras";
        to->format = layer->mode;
        read_mode(layer->mode, to);
        packed_shape(layer, &codes, &scales, to);
        l->in->method = "keras";
    } else if (strstr(layer->class_name, "Embedding")) {
        to->rows = axis(&codes, 0);
        to->cols = axis(&codes, 1);
    } else {
        kernel_shape(layer, &codes, to);
    }
    to->weights = o.matrices * (double) to->rows * (double) to->cols;
    l->packed += o.packed ? to->weights : 0.0;
    l->packed_bits += o.packed ? 8.0 * (double) to->bytes : 0.0;
    return NYB_OK;
}

static bool has_matrix(const nyb_keras_layer *layer)
{
    static const char *const classes[] = {"Dense", "EinsumDense", "Embedding",
                                          "ReversibleEmbedding"};
    bool known = false;
    for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++)
        known |= strcmp(layer->class_name, classes[i]) == 0;
    return known && layer->first == layer && layer->variables > 0;
}

static nyb_status list_layers(looking *l, const nyb_keras_layers *tree)
{
    l->layers = nyb_arena_alloc(l->arena, tree->count, sizeof(*l->layers));
    if (!l->layers)
        return out_of_memory(l);
    for (size_t i = 0; i < tree->count; i++) {
        const nyb_keras_layer *const layer = tree->all[i];
        const char *const name = *layer->scope ? layer->scope : layer->place;
        if (!has_matrix(layer))
            continue;
        nyb_inspect_layer *const to = &l->layers[l->count++];
        to->name = nyb_arena_text(l->arena, name, strlen(name));
        nyb_status status = to->name ? read_arrays(l, layer, to) : out_of_memory(l);
        if (status == NYB_OK && to->format) {
            to->format = nyb_arena_text(l->arena, to->format, strlen(to->format));
            status = to->format ? NYB_OK : out_of_memory(l);
        }
        if (status != NYB_OK)
            return status;
    }
    l->in->layers = l->layers;
    l->in->layer_count = l->count;
    return NYB_OK;
}

static nyb_status read_layers(looking *l)
{
    nyb_keras_layers tree;
    nyb_status status = nyb_keras_layers_read(&tree, l->file, l->err);
    if (status != NYB_OK)
        return status;
    const char *const kind = tree.all[0]->class_name;
    l->in->model_type = *kind ? nyb_arena_text(l->arena, kind, strlen(kind)) : NULL;
    l->in->family = "Keras";
    status = list_layers(l, &tree);
    nyb_keras_layers_clear(&tree);
    return status;
}

// ---- The whole ------------------------------------------------------------------------------

static void sum_up(const looking *l)
{
    const double all = l->plain + l->packed;
    // Damaged files can claim any shape: the sums stay within what a size holds.
    l->in->parameters = all > 0.0 && all < 0x1p63 ? (size_t) all : 0;
    l->in->layer_bits = l->packed > 0.0 ? l->packed_bits / l->packed : 0.0;
    l->in->bits = all > 0.0 ? 8.0 * (double) l->in->bytes / all : 0.0;
}

static nyb_status judge(const looking *l)
{
    nyb_inspect_reader *const reader = nyb_arena_alloc(l->arena, 1, sizeof(*reader));
    if (!reader)
        return out_of_memory(l);
    *reader = (nyb_inspect_reader){.name = "Keras", .verdict = NYB_LOADS};
    if (nyb_keras_kind_of(l->file) == NYB_KERAS_WEIGHTS) {
        reader->verdict = NYB_LOADS_IF;
        reader->reasons[reader->reason_count++] =
            "into a model of the same layers and dtype policies";
    }
    l->in->readers = reader;
    l->in->reader_count = 1;
    return NYB_OK;
}

nyb_status nyb_inspect_keras(nyb_inspection *in, nyb_arena *arena, nyb_keras_file **file,
                             const char *path, bool values, nyb_err *err)
{
    nyb_status status = nyb_keras_open(file, path, NULL, err);
    looking l = {.in = in, .arena = arena, .file = *file, .err = err};
    if (status == NYB_OK)
        status = list_tensors(&l, values);
    if (status == NYB_OK)
        status = list_files(&l);
    if (status == NYB_OK)
        status = read_layers(&l);
    if (status != NYB_OK)
        return status;
    sum_up(&l);
    return judge(&l);
}
