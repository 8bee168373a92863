#include "core/qweight.h"

#include "core/dtype.h"
#include "core/memory.h"

static nyb_status check(size_t rows, size_t cols, unsigned bits, size_t group_size, nyb_err *err)
{
    if (bits != 2 && bits != 3 && bits != 4 && bits != 8)
        return nyb_fail(err, NYB_E_ARG, "weight bits are %u, want 2, 3, 4 or 8", bits);
    if (rows == 0 || cols == 0 || cols > UINT32_MAX)
        return nyb_fail(err, NYB_E_ARG, "weight shape is %zu x %zu", rows, cols);
    if (group_size > cols)
        return nyb_fail(err, NYB_E_ARG, "group size %zu is more than the %zu columns", group_size,
                        cols);
    return NYB_OK;
}

nyb_status nyb_qweight_init(nyb_qweight *out, size_t rows, size_t cols, unsigned bits,
                            size_t group_size, nyb_err *err)
{
    const nyb_status status = check(rows, cols, bits, group_size, err);
    *out = (nyb_qweight){0};
    if (status != NYB_OK)
        return status;

    const size_t size = group_size ? group_size : cols;
    const size_t groups = (cols + size - 1) / size;
    size_t count = 0;
    if (!nyb_mul_size(rows, cols, &count))
        return nyb_no_memory(err, "codes", rows, cols);

    nyb_qweight q = {
        .rows = rows, .cols = cols, .groups = groups, .group_size = size, .bits = bits};
    q.codes = nyb_alloc(count, 1);
    q.scales = nyb_alloc(rows * groups, sizeof(float));
    q.zeros = nyb_alloc(rows * groups, 1);
    q.group_of = nyb_alloc(cols, sizeof(uint32_t));
    if (!q.codes || !q.scales || !q.zeros || !q.group_of) {
        nyb_qweight_clear(&q);
        return nyb_no_memory(err, "codes", rows, cols);
    }
    for (size_t j = 0; j < cols; j++)
        q.group_of[j] = (uint32_t) (j / size);
    *out = q;
    return NYB_OK;
}

nyb_status nyb_qweight_init_block(nyb_qweight *out, size_t rows, size_t cols, nyb_dtype block,
                                  const nyb_qweight *parts, nyb_err *err)
{
    // Codes have a byte each whatever their bits.
    const nyb_status status = nyb_qweight_init(out, rows, cols, 8, parts->group_size, err);
    if (status != NYB_OK)
        return status;
    out->block = block;
    out->bits = parts->bits;
    out->symmetric = parts->symmetric;
    if (parts->symmetric)
        return NYB_OK;
    out->mins = nyb_alloc(rows * out->groups, sizeof(float));
    if (out->mins)
        return NYB_OK;
    nyb_qweight_clear(out);
    return nyb_no_memory(err, "minima", rows, cols);
}

void nyb_qweight_clear(nyb_qweight *q)
{
    nyb_free(q->mins);
    nyb_free(q->codes);
    nyb_free(q->scales);
    nyb_free(q->zeros);
    nyb_free(q->group_of);
    *q = (nyb_qweight){0};
}

nyb_dtype nyb_code_dtype(nyb_code_kind kind)
{
    return kind == NYB_CODE_E4M3 ? NYB_F8_E4M3 : kind == NYB_CODE_E5M2 ? NYB_F8_E5M2 : NYB_I8;
}

void nyb_code_values(nyb_code_kind kind, float values[256])
{
    uint8_t codes[256];
    for (unsigned c = 0; c < 256; c++)
        codes[c] = (uint8_t) c;
    nyb_widen(values, codes, nyb_code_dtype(kind), 256);
}

static void dequantize_floats(const nyb_qweight *q, size_t row0, nyb_mat out)
{
    float values[256];
    nyb_code_values(q->kind, values);
    for (size_t i = 0; i < out.rows; i++) {
        const uint8_t *const codes = q->codes + (row0 + i) * q->cols;
        const float *const scales = q->scales + (row0 + i) * q->groups;
        float *const to = nyb_row(out, i);
        for (size_t j = 0; j < q->cols; j++)
            to[j] = scales[q->group_of[j]] * values[codes[j]];
    }
}

void nyb_qweight_dequantize(const nyb_qweight *q, size_t row0, nyb_mat out)
{
    if (q->kind != NYB_CODE_INT) {
        dequantize_floats(q, row0, out);
        return;
    }
    for (size_t i = 0; i < out.rows; i++) {
        const uint8_t *const codes = q->codes + (row0 + i) * q->cols;
        const float *const scales = q->scales + (row0 + i) * q->groups;
        const uint8_t *const zeros = q->zeros + (row0 + i) * q->groups;
        float *const to = nyb_row(out, i);
        for (size_t j = 0; q->irregular && j < q->cols; j++) {
            const uint32_t g = q->group_of[j];
            to[j] = scales[g] * (float) ((int) codes[j] - (int) zeros[g]);
        }
        for (size_t g = 0; !q->irregular && g < q->groups; g++) {
            const size_t end =
                (g + 1) * q->group_size < q->cols ? (g + 1) * q->group_size : q->cols;
            for (size_t j = g * q->group_size; j < end; j++)
                to[j] = scales[g] * (float) ((int) codes[j] - (int) zeros[g]);
        }
        const float *const mins = q->mins ? q->mins + (row0 + i) * q->groups : NULL;
        for (size_t j = 0; mins && j < q->cols; j++)
            to[j] -= mins[q->group_of[j]];
    }
}

nyb_status nyb_qweight_floats(float **out, const nyb_qweight *q, nyb_err *err)
{
    size_t count = 0;
    *out = nyb_mul_size(q->rows, q->cols, &count) ? nyb_alloc_raw(count, sizeof(float)) : NULL;
    if (!*out)
        return nyb_no_memory(err, "a dequantised weight", q->rows, q->cols);
    nyb_qweight_dequantize(q, 0, nyb_mat_of(*out, q->rows, q->cols));
    return NYB_OK;
}

double nyb_qweight_bits(const nyb_qweight *q)
{
    const nyb_block_size block = nyb_dtype_block(q->block);
    if (q->block != NYB_F32)
        return 8.0 * (double) block.bytes / (double) block.values;
    const size_t together = q->scale_rows < q->rows ? q->scale_rows : q->rows;
    const double share = together ? (double) together : 1.0;
    const double group_bits =
        8.0 * (double) nyb_dtype_bytes(q->scale_dtype) / share + (q->symmetric ? 0.0 : q->bits);
    return q->bits + group_bits * (double) q->groups / (double) q->cols;
}
