#include "calib/requantize.h"

#include <string.h>

#include "core/memory.h"
#include "nybble/float8.h"
#include "nybble/grid.h"

static nyb_status scales_of(nyb_scales *out, const nyb_qweight *q, nyb_err *err)
{
    const size_t block = NYB_FLOAT8_BLOCK, rows = q->scale_rows;
    *out = NYB_SCALES_CHANNEL;
    if (rows == SIZE_MAX && q->groups == 1)
        *out = NYB_SCALES_TENSOR;
    else if (rows == block && (q->group_size == block || q->cols <= block))
        *out = NYB_SCALES_BLOCK;
    else if (rows > 1 || q->groups > 1)
        return nyb_fail(
            err, NYB_E_UNSUPPORTED,
            "its scales are of blocks of %zu x %zu, and nybble rounds 8-bit floats with "
            "scales of a tensor, of outputs, and of blocks of %zu x %zu",
            rows ? rows : 1, q->group_size, block, block);
    return NYB_OK;
}

static nyb_status round_floats(const nyb_context *ctx, nyb_qweight *out, const nyb_qweight *like,
                               nyb_mat w, nyb_err *err)
{
    nyb_float8_params params = NYB_FLOAT8_DEFAULTS;
    params.kind = like->kind;
    params.scale_dtype = like->scale_dtype;
    const nyb_status status = scales_of(&params.scales, like, err);
    return status == NYB_OK ? nyb_round_float8(ctx, out, w, &params, err) : status;
}

static nyb_status round_numbers(const nyb_context *ctx, nyb_qweight *out, const nyb_qweight *like,
                                nyb_mat w, unsigned lowest_zero, nyb_err *err)
{
    nyb_grid_params params = NYB_GRID_DEFAULTS;
    params.bits = like->bits;
    params.group_size = like->groups == 1 ? 0 : like->group_size;
    params.symmetric = like->symmetric;
    params.scale_dtype = like->scale_dtype;
    params.lowest_zero = lowest_zero;
    return nyb_round_nearest(ctx, out, w, &params, err);
}

// The columns group by group, as the file's own order is within each. False: groups are not full.
static bool order_columns(size_t *order, const nyb_qweight *q)
{
    size_t place = 0;
    for (size_t g = 0; g < q->groups; g++) {
        for (size_t j = 0; j < q->cols; j++) {
            if (q->group_of[j] == g)
                order[place++] = j;
        }
        const size_t full = (g + 1) * q->group_size;
        if (place != (full < q->cols ? full : q->cols))
            return false;
    }
    return true;
}

static nyb_status reorder(nyb_mat w, const size_t *order, nyb_err *err)
{
    float *const row = nyb_alloc_raw(w.cols, sizeof(float));
    if (!row)
        return nyb_no_memory(err, "a row", w.cols, sizeof(float));
    for (size_t i = 0; i < w.rows; i++) {
        float *const at = nyb_row(w, i);
        for (size_t k = 0; k < w.cols; k++)
            row[k] = at[order[k]];
        memcpy(at, row, w.cols * sizeof(float));
    }
    nyb_free(row);
    return NYB_OK;
}

// Puts the codes back into the file's order.
static nyb_status restore(nyb_qweight *q, const nyb_qweight *like, const size_t *order,
                          nyb_err *err)
{
    uint8_t *const row = nyb_alloc_raw(q->cols, 1);
    if (!row)
        return nyb_no_memory(err, "a row", q->cols, 1);
    for (size_t i = 0; i < q->rows; i++) {
        uint8_t *const codes = q->codes + i * q->cols;
        for (size_t k = 0; k < q->cols; k++)
            row[order[k]] = codes[k];
        memcpy(codes, row, q->cols);
    }
    nyb_free(row);
    memcpy(q->group_of, like->group_of, q->cols * sizeof(*q->group_of));
    q->irregular = true;
    return NYB_OK;
}

static nyb_status round_ordered(const nyb_context *ctx, nyb_qweight *out, const nyb_qweight *like,
                                nyb_mat w, unsigned lowest_zero, nyb_err *err)
{
    size_t *const order = nyb_alloc_raw(w.cols, sizeof(*order));
    nyb_status status = order ? NYB_OK : nyb_no_memory(err, "columns", w.cols, sizeof(*order));
    if (status == NYB_OK && !order_columns(order, like))
        status = nyb_fail(err, NYB_E_UNSUPPORTED,
                          "its groups are not all of %zu columns, as rounding makes them",
                          like->group_size);
    if (status == NYB_OK)
        status = reorder(w, order, err);
    if (status == NYB_OK)
        status = round_numbers(ctx, out, like, w, lowest_zero, err);
    if (status == NYB_OK)
        status = restore(out, like, order, err);
    if (status != NYB_OK)
        nyb_qweight_clear(out);
    nyb_free(order);
    return status;
}

nyb_status nyb_requantize(const nyb_context *ctx, nyb_qweight *out, const nyb_qweight *like,
                          nyb_mat w, unsigned lowest_zero, nyb_err *err)
{
    *out = (nyb_qweight){0};
    if (like->kind != NYB_CODE_INT)
        return round_floats(ctx, out, like, w, err);
    if (like->irregular)
        return round_ordered(ctx, out, like, w, lowest_zero, err);
    return round_numbers(ctx, out, like, w, lowest_zero, err);
}
