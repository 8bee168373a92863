#include "calib/keras_edit.h"

#include <string.h>

#include "core/dtype.h"
#include "formats/keras_einsum.h"
#include "formats/keras_policy.h"
#include "ptq/keras_round.h"

enum { HISTORY = 1024, MOST_ARRAYS = 8 };

typedef struct editing {
    const nyb_context *ctx;
    nyb_keras_file *file;
    const nyb_keras_layer *layer;
    const nyb_settings *settings;
    nyb_arena *arena;
    nyb_keras_edit *out;
    nyb_tensor *made; // [MOST_ARRAYS]
    nyb_err *err;
} editing;

typedef enum layer_kind { OTHER = 0, DENSE, EINSUM, EMBEDDING, REVERSIBLE } layer_kind;

static layer_kind kind_of(const nyb_keras_layer *layer)
{
    static const struct {
        const char *class_name;
        layer_kind kind;
    } kinds[] = {{"Dense", DENSE},
                 {"EinsumDense", EINSUM},
                 {"Embedding", EMBEDDING},
                 {"ReversibleEmbedding", REVERSIBLE}};
    // A class of the same name elsewhere is another one, which Keras leaves alone.
    const char *const module = json_string_value(json_object_get(layer->object, "module"));
    if (module && strcmp(module, "keras.layers") != 0)
        return OTHER;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(kinds[i].class_name, layer->class_name) == 0)
            return kinds[i].kind;
    }
    return OTHER;
}

size_t nyb_keras_matrices(const nyb_keras_layer *layer)
{
    return kind_of(layer) == REVERSIBLE ? layer->variables : 1;
}

bool nyb_keras_quantizes(const nyb_keras_layer *layer, nyb_method method)
{
    const layer_kind kind = kind_of(layer);
    const bool matrix = kind == DENSE || kind == EINSUM;
    const bool any = method == NYB_METHOD_INT8 || method == NYB_METHOD_INT4;
    return layer->variables > 0 && (any ? kind != OTHER : matrix);
}

// ---- Arrays ---------------------------------------------------------------------------------

static nyb_status out_of_memory(const editing *e, size_t bytes)
{
    return nyb_no_memory(e->err, e->layer->place, bytes, 1);
}

static nyb_status refuse(const editing *e, const char *why)
{
    return nyb_fail(e->err, NYB_E_UNSUPPORTED, "%s: '%s' (%s): %s", nyb_keras_path(e->file),
                    e->layer->place, e->layer->class_name, why);
}

// Adds an array to the layer's; NULL when there is no room.
static void *add(editing *e, nyb_dtype dtype, unsigned rank, const size_t *shape)
{
    nyb_tensor t = {.dtype = dtype, .rank = rank, .bytes = nyb_dtype_bytes(dtype)};
    for (unsigned i = 0; i < rank; i++) {
        t.shape[i] = shape[i];
        t.bytes *= shape[i]; // no larger than an array that is there
    }
    void *const at = nyb_arena_alloc(e->arena, t.bytes, 1);
    t.at = at;
    e->made[e->out->count++] = t;
    return at;
}

static nyb_status keep(editing *e, size_t index)
{
    return nyb_keras_variable(e->file, e->layer, index, &e->made[e->out->count++], e->err);
}

static nyb_status keep_bias(editing *e)
{
    if (e->layer->variables != 2)
        return NYB_OK;
    e->out->bias = &e->made[e->out->count];
    return keep(e, 1);
}

static nyb_status read_weight(editing *e, size_t index, nyb_tensor *w)
{
    const nyb_status status = nyb_keras_variable(e->file, e->layer, index, w, e->err);
    if (status != NYB_OK)
        return status;
    if (!nyb_dtype_is_float(w->dtype) || w->rank == 0 || w->bytes == 0)
        return refuse(e, "its weight is no array of floats");
    return NYB_OK;
}

// ---- Rounding -------------------------------------------------------------------------------

// Two codes a byte along the last axis, the first in the low half; [rows, ceil(cols / 2)].
static void pack_cols(int8_t *to, const int8_t *codes, size_t rows, size_t cols)
{
    const size_t half = (cols + 1) / 2;
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < half; j++) {
            const unsigned low = (unsigned) codes[i * cols + 2 * j] & 15;
            const unsigned high =
                2 * j + 1 < cols ? (unsigned) codes[i * cols + 2 * j + 1] & 15 : 0;
            to[i * half + j] = (int8_t) (uint8_t) (low | high << 4);
        }
    }
}

// Along the first axis: [ceil(rows / 2), cols].
static void pack_rows(int8_t *to, const int8_t *codes, size_t rows, size_t cols)
{
    for (size_t i = 0; i < rows; i += 2) {
        for (size_t j = 0; j < cols; j++) {
            const unsigned low = (unsigned) codes[i * cols + j] & 15;
            const unsigned high = i + 1 < rows ? (unsigned) codes[(i + 1) * cols + j] & 15 : 0;
            to[i / 2 * cols + j] = (int8_t) (uint8_t) (low | high << 4);
        }
    }
}

static int8_t *scratch_codes(editing *e, size_t count)
{
    return nyb_arena_alloc(e->arena, count, 1);
}

// How a matrix is rounded and stored.
typedef struct plan {
    unsigned axis;    // 0 or 1: along which scales are shared
    unsigned packing; // 0 or 1: along which two codes share a byte
    bool biased;      // the layer's second array is a bias, which stands behind the codes
} plan;

static const plan kernel_plan = {.axis = 0, .packing = 1, .biased = true};
static const plan table_plan = {.axis = 1, .packing = 1};
static const plan reverse_plan = {.axis = 0, .packing = 0};

// The group indices of Keras: as floats.
static nyb_status add_group_index(editing *e, size_t length, size_t block)
{
    float *const at = add(e, NYB_F32, 1, &length);
    for (size_t i = 0; at && i < length; i++)
        at[i] = (float) (i / block);
    return at ? NYB_OK : out_of_memory(e, length * 4);
}

// ---- One matrix -----------------------------------------------------------------------------

// Where the parts of a rounded matrix go, so that other arrays can stand between them.
typedef struct rounded {
    int8_t *codes;
    void *scales;
    int8_t *zeros;
} rounded;

static nyb_status round_matrix(editing *e, const nyb_tensor *w, plan how, const rounded *to)
{
    const bool int4 = e->settings->method == NYB_METHOD_INT4;
    const size_t rows = w->shape[0], cols = w->shape[1], block = e->settings->group_size;
    const bool reduced[2] = {how.axis == 0, how.axis == 1};
    int8_t *const codes = int4 ? scratch_codes(e, rows * cols) : to->codes;
    if (!codes)
        return out_of_memory(e, rows * cols);
    nyb_status status;
    if (int4 && block > 0)
        status = nyb_keras_round_groups(w, (nyb_keras_groups){block, how.axis}, codes, to->scales,
                                        to->zeros, e->err);
    else
        status = nyb_keras_round(w, reduced,
                                 int4 ? (nyb_keras_range){-8, 7} : (nyb_keras_range){-127, 127},
                                 codes, to->scales, e->err);
    if (status == NYB_OK && int4)
        (how.packing == 1 ? pack_cols : pack_rows)(to->codes, codes, rows, cols);
    return status;
}

static void code_shape(const editing *e, const nyb_tensor *w, plan how, size_t shape[2])
{
    shape[0] = w->shape[0];
    shape[1] = w->shape[1];
    if (e->settings->method == NYB_METHOD_INT4)
        shape[how.packing] = (shape[how.packing] + 1) / 2;
}

// Shape of scales and zero points; the number of its axes is returned.
static unsigned scale_shape(const editing *e, const nyb_tensor *w, plan how, size_t shape[2])
{
    const size_t block = e->settings->group_size, length = w->shape[how.axis];
    if (e->settings->method != NYB_METHOD_INT4 || block == 0) {
        shape[0] = w->shape[1 - how.axis];
        return 1;
    }
    shape[how.axis] = (length + block - 1) / block;
    shape[1 - how.axis] = w->shape[1 - how.axis];
    return 2;
}

static bool has_zeros(const editing *e)
{
    return e->settings->method == NYB_METHOD_INT4 && e->settings->group_size > 0;
}

// Codes, bias, scales and, of groups, zero points and indices.
static nyb_status edit_matrix(editing *e, const nyb_tensor *w, plan how)
{
    size_t codes[2], scales[2];
    rounded to = {0};
    code_shape(e, w, how, codes);
    const unsigned rank = scale_shape(e, w, how, scales);
    to.codes = add(e, NYB_I8, 2, codes);
    nyb_status status = how.biased ? keep_bias(e) : NYB_OK;
    if (status != NYB_OK)
        return status;
    to.scales = add(e, w->dtype, rank, scales);
    to.zeros = has_zeros(e) ? add(e, NYB_I8, rank, scales) : NULL;
    if (!to.codes || !to.scales || (has_zeros(e) && !to.zeros))
        return out_of_memory(e, w->bytes);
    status = round_matrix(e, w, how, &to);
    if (status == NYB_OK && has_zeros(e))
        status = add_group_index(e, w->shape[how.axis], e->settings->group_size);
    return status;
}

// ---- Layers ---------------------------------------------------------------------------------

static nyb_status edit_dense(editing *e)
{
    nyb_tensor w;
    const nyb_status status = read_weight(e, 0, &w);
    if (status != NYB_OK)
        return status;
    if (w.rank != 2 || e->layer->variables > 2)
        return refuse(e, "it has other arrays than a kernel of two axes and a bias");
    return edit_matrix(e, &w, kernel_plan);
}

// int8 keeps the kernel's shape, and its scales fit the layer's output.
static nyb_status edit_einsum_int8(editing *e, const nyb_tensor *w, const nyb_keras_einsum *einsum)
{
    const size_t size = nyb_dtype_bytes(w->dtype);
    size_t count = 1;
    for (unsigned i = 0; i < w->rank; i++)
        count *= einsum->reduced[i] ? 1 : w->shape[i];
    int8_t *const codes = add(e, NYB_I8, w->rank, w->shape);
    void *const plain = nyb_arena_alloc(e->arena, count, size);
    void *const stored = nyb_arena_alloc(e->arena, count, size);
    if (!codes || !plain || !stored)
        return out_of_memory(e, w->bytes);
    nyb_status status = keep_bias(e);
    if (status == NYB_OK)
        status =
            nyb_keras_round(w, einsum->reduced, (nyb_keras_range){-127, 127}, codes, plain, e->err);
    if (status != NYB_OK)
        return status;
    nyb_tensor *const scales = &e->made[e->out->count++];
    *scales = (nyb_tensor){.dtype = w->dtype};
    nyb_keras_einsum_store(einsum, w, plain, size, stored, scales);
    return NYB_OK;
}

static nyb_status edit_einsum(editing *e)
{
    nyb_tensor w;
    nyb_keras_einsum einsum;
    nyb_status status = read_weight(e, 0, &w);
    if (status != NYB_OK)
        return status;
    if (!e->layer->equation || e->layer->variables > 2)
        return refuse(e, "its equation is not known, or it has other arrays than kernel and bias");
    status = nyb_keras_einsum_read(&einsum, e->layer->equation, w.rank, e->err);
    if (status != NYB_OK)
        return status;
    if (e->settings->method == NYB_METHOD_INT8)
        return edit_einsum_int8(e, &w, &einsum);
    // Keras reads the kernel's values as a matrix, whatever the order of its axes.
    nyb_tensor flat = {
        .name = w.name, .dtype = w.dtype, .rank = 2, .at = w.at, .bytes = w.bytes, .shape = {1, 1}};
    for (unsigned i = 0; i < w.rank; i++)
        flat.shape[einsum.reduced[i] ? 0 : 1] *= w.shape[i];
    return edit_matrix(e, &flat, kernel_plan);
}

static nyb_status edit_embedding(editing *e)
{
    nyb_tensor w;
    const nyb_status status = read_weight(e, 0, &w);
    if (status != NYB_OK)
        return status;
    return w.rank == 2 ? edit_matrix(e, &w, table_plan) : refuse(e, "its table has not two axes");
}

// The matrix of a ReversibleEmbedding with untied weights, which leads back to the tokens.
static nyb_status edit_reverse(editing *e)
{
    nyb_tensor w;
    size_t codes[2], scales[2];
    rounded to = {0};
    nyb_status status = read_weight(e, 1, &w);
    if (status != NYB_OK)
        return status;
    if (w.rank != 2)
        return refuse(e, "its second matrix has not two axes");
    code_shape(e, &w, reverse_plan, codes);
    const unsigned rank = scale_shape(e, &w, reverse_plan, scales);
    to.codes = add(e, NYB_I8, 2, codes);
    to.scales = add(e, w.dtype, rank, scales);
    const size_t zero_bytes = scales[0] * (rank == 2 ? scales[1] : 1);
    to.zeros = has_zeros(e) ? nyb_arena_alloc(e->arena, zero_bytes, 1) : NULL;
    if (!to.codes || !to.scales || (has_zeros(e) && !to.zeros))
        return out_of_memory(e, w.bytes);
    status = round_matrix(e, &w, reverse_plan, &to);
    if (status == NYB_OK && has_zeros(e)) {
        // Keras has these in the layer's own type, unlike all other zero points.
        void *const wide = add(e, w.dtype, rank, scales);
        if (!wide)
            return out_of_memory(e, zero_bytes);
        for (size_t i = 0; i < zero_bytes; i++) {
            const float zero = to.zeros[i];
            nyb_narrow((unsigned char *) wide + i * nyb_dtype_bytes(w.dtype), w.dtype, &zero, 1);
        }
    }
    return status;
}

// Keras' float8 is a way to train: the weights stay, and scales and histories are as at its start.
static nyb_status edit_float8(editing *e)
{
    static const size_t length = HISTORY;
    nyb_tensor w;
    nyb_status status = read_weight(e, 0, &w);
    if (status == NYB_OK)
        status = keep(e, 0);
    if (status == NYB_OK)
        status = keep_bias(e);
    for (size_t i = 0; status == NYB_OK && i < 3; i++) {
        float *const scale = add(e, NYB_F32, 0, NULL);
        if (!scale || !add(e, NYB_F32, 1, &length))
            return out_of_memory(e, HISTORY * sizeof(float));
        *scale = 1.0f;
    }
    return status;
}

// ---- Plain rounding in the form of GPTQ -------------------------------------------------------

nyb_status nyb_keras_matrix(nyb_keras_file *file, const nyb_keras_layer *layer, nyb_arena *arena,
                            nyb_mat *out, nyb_err *err)
{
    nyb_tensor w;
    nyb_keras_einsum einsum = {.reduced = {true}};
    float *values = NULL;
    nyb_status status = nyb_keras_floats(file, layer, 0, arena, &values, &w, err);
    if (status == NYB_OK && kind_of(layer) == EINSUM && layer->equation)
        status = nyb_keras_einsum_read(&einsum, layer->equation, w.rank, err);
    if (status != NYB_OK)
        return status;
    size_t inputs = 1, outputs = 1;
    for (unsigned i = 0; i < w.rank; i++) {
        if (i > 0 && einsum.reduced[i] && !einsum.reduced[i - 1])
            return nyb_fail(err, NYB_E_UNSUPPORTED,
                            "%s: '%s': '%s' sums over axes of the kernel behind others, for which "
                            "Keras' GPTQ has no form",
                            nyb_keras_path(file), layer->place, layer->equation);
        *(einsum.reduced[i] ? &inputs : &outputs) *= w.shape[i];
    }
    *out = nyb_arena_mat(arena, outputs, inputs);
    if (!out->at)
        return nyb_no_memory(err, layer->place, outputs * inputs, sizeof(float));
    for (size_t k = 0; k < inputs; k++) {
        for (size_t n = 0; n < outputs; n++)
            nyb_row(*out, n)[k] = values[k * outputs + n];
    }
    return NYB_OK;
}

static nyb_status edit_rtn(editing *e)
{
    const nyb_settings *const s = e->settings;
    nyb_mat w;
    nyb_qweight q;
    nyb_tensor kernel;
    nyb_status status = read_weight(e, 0, &kernel);
    if (status == NYB_OK)
        status = nyb_keras_matrix(e->file, e->layer, e->arena, &w, e->err);
    if (status != NYB_OK)
        return status;
    const nyb_grid_params grid = {.bits = s->bits,
                                  .group_size = s->group_size < w.cols ? s->group_size : 0,
                                  .symmetric = s->symmetric,
                                  .scale_search = s->scale_search,
                                  .scale_dtype = kernel.dtype,
                                  .range = s->range};
    status = nyb_round_nearest(e->ctx, &q, w, &grid, e->err);
    if (status != NYB_OK)
        return status;
    status = nyb_keras_edit_gptq(e->file, e->layer, &q, e->arena, e->out, e->err);
    nyb_qweight_clear(&q);
    return status;
}

// ---- The policy -----------------------------------------------------------------------------

static nyb_status set_policy(editing *e)
{
    nyb_keras_edit *const out = e->out;
    const long long block = e->settings->group_size ? (long long) e->settings->group_size : -1;
    switch (e->settings->method) {
    case NYB_METHOD_INT8:
        out->mode = "int8";
        out->quantization = nyb_keras_int8_config();
        break;
    case NYB_METHOD_INT4:
        out->mode = nyb_arena_format(e->arena, "int4/%lld", block);
        out->quantization = nyb_keras_int4_config(block);
        break;
    default:
        out->mode = "float8";
        out->quantization = nyb_keras_float8_config();
        break;
    }
    return out->mode && out->quantization ? NYB_OK : out_of_memory(e, 1);
}

static nyb_status check_source(const editing *e)
{
    const char *const source = nyb_keras_source_policy(e->layer);
    if (!source)
        return refuse(e, "it is quantised already");
    if (json_integer_value(json_object_get(e->layer->config, "lora_rank")) > 0)
        return refuse(e, "it has LoRA weights: let Keras merge them first");
    if (e->settings->method == NYB_METHOD_INT8 &&
        (strcmp(source, "float16") == 0 || strcmp(source, "mixed_float16") == 0))
        return refuse(e, "Keras has no int8 for layers that compute in float16");
    return NYB_OK;
}

nyb_status nyb_keras_edit_layer(nyb_keras_run run, const nyb_keras_layer *layer,
                                const nyb_settings *settings, nyb_arena *arena, nyb_keras_edit *out,
                                nyb_err *err)
{
    editing e = {.ctx = run.ctx,
                 .file = run.file,
                 .layer = layer,
                 .settings = settings,
                 .arena = arena,
                 .out = out,
                 .err = err};
    e.made = nyb_arena_alloc(arena, MOST_ARRAYS, sizeof(*e.made));
    *out = (nyb_keras_edit){.layer = layer, .variables = e.made};
    nyb_status status = e.made ? check_source(&e) : out_of_memory(&e, sizeof(*e.made));
    if (status != NYB_OK)
        return status;
    const layer_kind kind = kind_of(layer);
    if (settings->method == NYB_METHOD_RTN)
        return edit_rtn(&e);
    if (settings->method == NYB_METHOD_FLOAT8)
        status = edit_float8(&e);
    else if (kind == DENSE)
        status = edit_dense(&e);
    else if (kind == EINSUM)
        status = edit_einsum(&e);
    else
        status = edit_embedding(&e);
    if (status == NYB_OK && kind == REVERSIBLE && layer->variables == 2)
        status = edit_reverse(&e);
    return status == NYB_OK ? set_policy(&e) : status;
}
