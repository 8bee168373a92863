#include <string.h>

#include "core/dtype.h"
#include "formats/keras_einsum.h"
#include "formats/keras_policy.h"
#include "formats/keras_save.h"

typedef struct packing {
    nyb_keras_file *file;
    const nyb_keras_layer *layer;
    const nyb_qweight *q;
    nyb_arena *arena;
    nyb_keras_edit *out;
    nyb_tensor *made;
    nyb_err *err;
} packing;

static nyb_status refuse(const packing *p, const char *why)
{
    return nyb_fail(p->err, NYB_E_UNSUPPORTED, "%s: '%s' (%s): %s", nyb_keras_path(p->file),
                    p->layer->place, p->layer->class_name, why);
}

// ---- The kernel as a matrix -------------------------------------------------------------------

static nyb_status check_einsum(const packing *p, const nyb_tensor *w, size_t *inputs)
{
    nyb_keras_einsum einsum;
    const nyb_status status =
        p->layer->equation ? nyb_keras_einsum_read(&einsum, p->layer->equation, w->rank, p->err)
                           : refuse(p, "its equation is not known");
    if (status != NYB_OK)
        return status;
    const unsigned summed = nyb_keras_gptq_inputs(w->rank, w->shape);
    if (summed == 0)
        return refuse(p, "Keras' GPTQ has kernels of two and three axes only");
    for (unsigned i = 0; i < w->rank; i++) {
        if (einsum.reduced[i] != (i < summed))
            return refuse(p, "Keras' GPTQ takes other axes of its kernel for the input than its "
                             "equation does");
        *inputs *= i < summed ? w->shape[i] : 1;
    }
    return NYB_OK;
}

static nyb_status check_shape(const packing *p, const nyb_tensor *w)
{
    const size_t values = w->bytes / nyb_dtype_bytes(w->dtype);
    size_t inputs = 1;
    nyb_status status = NYB_OK;
    if (strcmp(p->layer->class_name, "EinsumDense") == 0)
        status = check_einsum(p, w, &inputs);
    else if (strcmp(p->layer->class_name, "Dense") == 0 && w->rank == 2)
        inputs = w->shape[0];
    else
        status = refuse(p, "Keras has GPTQ for Dense and EinsumDense only");
    if (status != NYB_OK)
        return status;
    if (p->q->cols != inputs || inputs == 0 || p->q->rows != values / inputs)
        return nyb_fail(p->err, NYB_E_SHAPE,
                        "'%s' has %zu inputs and %zu outputs, its codes %zu "
                        "and %zu",
                        p->layer->place, inputs, inputs ? values / inputs : 0, p->q->cols,
                        p->q->rows);
    return NYB_OK;
}

static nyb_status check_codes(const packing *p, const nyb_tensor *w)
{
    const nyb_qweight *const q = p->q;
    if (q->kind != NYB_CODE_INT || q->block != NYB_F32 || q->mins || q->scale_rows > 1 ||
        (q->bits != 2 && q->bits != 3 && q->bits != 4 && q->bits != 8))
        return refuse(p, "Keras' GPTQ has whole numbers of 2, 3, 4 or 8 bits");
    if (q->groups > 1 && q->groups != (q->cols + q->group_size - 1) / q->group_size)
        return refuse(p, "its groups are not all of one size");
    for (size_t i = 0; w->dtype != NYB_F32 && i < q->rows * q->groups; i++) {
        if (nyb_round_to(q->scales[i], w->dtype) != q->scales[i])
            return refuse(p, "its scales are no values of the type that Keras stores them in");
    }
    return NYB_OK;
}

// ---- Arrays -----------------------------------------------------------------------------------

static void *add(packing *p, nyb_dtype dtype, unsigned rank, size_t rows, size_t cols)
{
    const size_t bytes = rows * (rank == 2 ? cols : 1) * nyb_dtype_bytes(dtype);
    void *const at = nyb_arena_alloc(p->arena, bytes, 1);
    p->made[p->out->count++] =
        (nyb_tensor){.dtype = dtype, .rank = rank, .shape = {rows, cols}, .at = at, .bytes = bytes};
    return at;
}

// Two rows share a byte, the first in the low half.
static void pack_pairs(uint8_t *to, const nyb_qweight *q)
{
    for (size_t i = 0; i < q->rows; i += 2) {
        const uint8_t *const low = q->codes + i * q->cols, *const high = low + q->cols;
        for (size_t j = 0; j < q->cols; j++)
            to[i / 2 * q->cols + j] =
                (uint8_t) (low[j] | (i + 1 < q->rows ? (unsigned) high[j] << 4 : 0));
    }
}

static nyb_status pack(packing *p, nyb_dtype dtype)
{
    const nyb_qweight *const q = p->q;
    const bool pairs = q->bits == 4;
    uint8_t *const codes = add(p, NYB_U8, 2, pairs ? (q->rows + 1) / 2 : q->rows, q->cols);
    void *const scales = add(p, dtype, 2, q->rows, q->groups);
    uint8_t *const zeros = add(p, NYB_U8, 2, q->rows, q->groups);
    float *const groups = add(p, NYB_F32, 1, q->cols, 0);
    if (!codes || !scales || !zeros || !groups)
        return nyb_no_memory(p->err, p->layer->place, q->rows * q->cols, 1);
    if (pairs)
        pack_pairs(codes, q);
    else
        memcpy(codes, q->codes, q->rows * q->cols);
    nyb_narrow(scales, dtype, q->scales, q->rows * q->groups);
    memcpy(zeros, q->zeros, q->rows * q->groups);
    for (size_t j = 0; j < q->cols; j++)
        groups[j] = (float) q->group_of[j];
    return NYB_OK;
}

nyb_status nyb_keras_edit_gptq(nyb_keras_file *file, const nyb_keras_layer *layer,
                               const nyb_qweight *q, nyb_arena *arena, nyb_keras_edit *out,
                               nyb_err *err)
{
    enum { ARRAYS = 5 };
    nyb_tensor w;
    const long long group = q->groups > 1 ? (long long) q->group_size : -1;
    packing p = {.file = file, .layer = layer, .q = q, .arena = arena, .out = out, .err = err};
    p.made = nyb_arena_alloc(arena, ARRAYS, sizeof(*p.made));
    *out = (nyb_keras_edit){.layer = layer, .variables = p.made};
    if (!p.made)
        return nyb_no_memory(err, layer->place, ARRAYS, sizeof(*p.made));
    nyb_status status = nyb_keras_variable(file, layer, 0, &w, err);
    if (status == NYB_OK && (!nyb_dtype_is_float(w.dtype) || layer->variables > 2))
        status = refuse(&p, "it has other arrays than a kernel of floats and a bias");
    if (status == NYB_OK)
        status = check_shape(&p, &w);
    if (status == NYB_OK)
        status = check_codes(&p, &w);
    if (status == NYB_OK && layer->variables == 2) {
        out->bias = &p.made[out->count++];
        status = nyb_keras_variable(file, layer, 1, &p.made[0], err);
    }
    if (status == NYB_OK)
        status = pack(&p, w.dtype);
    if (status != NYB_OK)
        return status;
    out->mode = nyb_arena_format(arena, "gptq/%u/%lld", q->bits, group);
    out->quantization = nyb_keras_gptq_config(q->bits, group, q->symmetric);
    return out->mode && out->quantization ? NYB_OK : nyb_no_memory(err, layer->place, 1, 1);
}
