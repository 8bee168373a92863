#include "calib/output_floats.h"

#include <math.h>

#include "core/dtype.h"

bool nyb_output_float_named(const char *name, nyb_dtype *out)
{
    static const struct {
        const char *name;
        nyb_dtype dtype;
    } types[] = {{"bf16", NYB_BF16}, {"f16", NYB_F16}, {"f32", NYB_F32}};
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (strcmp(types[i].name, name) == 0) {
            *out = types[i].dtype;
            return true;
        }
    }
    return false;
}

// Narrows n values that are finite, of the tensor from element `first` on.
static nyb_status narrow(unsigned char *to, const nyb_tensor *tensor, size_t first,
                         const float *values, size_t n, nyb_err *err)
{
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(values[i]))
            return nyb_fail(err, NYB_E_NUMERIC, "'%s' would hold %g at element %zu", tensor->name,
                            (double) values[i], first + i);
        if (!isfinite(nyb_round_to(values[i], tensor->dtype)))
            return nyb_fail(err, NYB_E_UNSUPPORTED,
                            "'%s' holds %g at element %zu, which is too large for %s; use --format "
                            "bf16 or f32",
                            tensor->name, (double) values[i], first + i,
                            nyb_dtype_name(tensor->dtype));
    }
    nyb_narrow(to + first * nyb_dtype_bytes(tensor->dtype), tensor->dtype, values, n);
    return NYB_OK;
}

static nyb_status allocate(void **bytes, const nyb_tensor *tensor, nyb_err *err)
{
    *bytes = nyb_alloc_raw(tensor->bytes, 1);
    return *bytes ? NYB_OK : nyb_no_memory(err, tensor->name, tensor->bytes, 1);
}

static nyb_status finish(void **bytes, nyb_status status)
{
    if (status != NYB_OK) {
        nyb_free(*bytes);
        *bytes = NULL;
    }
    return status;
}

// Row `row` of the tensor: of w, or of its transpose.
static void gather(float *out, bool turned, nyb_mat w, size_t row)
{
    if (!turned) {
        memcpy(out, nyb_row(w, row), w.cols * sizeof(float));
        return;
    }
    for (size_t i = 0; i < w.rows; i++)
        out[i] = nyb_row(w, i)[row];
}

nyb_status nyb_output_floats(void **bytes, const nyb_job *job, const nyb_output_item *item,
                             nyb_mat w, nyb_err *err)
{
    const bool turned = nyb_output_turned(job, item->layer);
    const nyb_tensor *const tensor = item->tensor;
    const size_t rows = tensor->shape[0], cols = tensor->shape[1];
    nyb_status status = allocate(bytes, tensor, err);
    if (status != NYB_OK)
        return status;
    float *const row = nyb_alloc_raw(cols, sizeof(float));
    if (!row)
        status = nyb_no_memory(err, tensor->name, cols, sizeof(float));
    for (size_t i = 0; status == NYB_OK && i < rows; i++) {
        gather(row, turned, w, i);
        status = narrow(*bytes, tensor, i * cols, row, cols, err);
    }
    nyb_free(row);
    return finish(bytes, status);
}

// A matrix of a block type, row by row.
static nyb_status cast_blocks(void **bytes, const nyb_output_item *item, nyb_err *err)
{
    const nyb_tensor *const from = item->source;
    const size_t cols = from->shape[from->rank - 1];
    const size_t rows = item->tensor->bytes / nyb_dtype_bytes(item->tensor->dtype) / cols;
    float *const row = nyb_alloc_raw(cols, sizeof(float));
    *bytes = NULL;
    if (!row)
        return nyb_no_memory(err, from->name, cols, sizeof(float));
    nyb_status status = allocate(bytes, item->tensor, err);
    for (size_t i = 0; status == NYB_OK && i < rows; i++) {
        status = nyb_tensor_widen(from, i, nyb_mat_of(row, 1, cols), err);
        if (status == NYB_OK)
            status = narrow(*bytes, item->tensor, i * cols, row, cols, err);
    }
    nyb_free(row);
    return finish(bytes, status);
}

nyb_status nyb_output_cast(void **bytes, const nyb_output_item *item, nyb_err *err)
{
    if (nyb_dtype_is_block(item->source->dtype))
        return cast_blocks(bytes, item, err);
    enum { STEP = 4096 };
    float values[STEP];
    const nyb_tensor *const from = item->source;
    const size_t size = nyb_dtype_bytes(from->dtype), n = from->bytes / size;
    nyb_status status = allocate(bytes, item->tensor, err);
    for (size_t i = 0; status == NYB_OK && i < n; i += STEP) {
        const size_t some = n - i < STEP ? n - i : STEP;
        nyb_widen(values, (const unsigned char *) from->at + i * size, from->dtype, some);
        status = narrow(*bytes, item->tensor, i, values, some, err);
    }
    return finish(bytes, status);
}

nyb_status nyb_output_dequantized(void **bytes, const nyb_job *job, const nyb_output_item *item,
                                  nyb_err *err)
{
    const nyb_linear *const l = item->layer->linear;
    float *const memory = nyb_alloc_raw(l->rows * l->cols, sizeof(float));
    *bytes = NULL;
    if (!memory)
        return nyb_no_memory(err, l->module, l->rows, l->cols * sizeof(float));
    const nyb_mat w = nyb_mat_of(memory, l->rows, l->cols);
    nyb_status status = nyb_linear_read(job->model, l, w, err);
    if (status == NYB_OK)
        status = nyb_output_floats(bytes, job, item, w, err);
    nyb_free(memory);
    return status;
}
