#include "calib/regrid.h"

#include "core/dtype.h"
#include "core/memory.h"

enum { BLOCK = 128 };

// The layout's own type of scales; where it takes the model's, the type that they have.
static nyb_status retype(nyb_qweight *q, const nyb_layout *layout, const char *module, nyb_err *err)
{
    const nyb_dtype dtype = layout->scale_dtype(NYB_F32);
    if (dtype != layout->scale_dtype(NYB_BF16))
        return NYB_OK;
    for (size_t k = 0; k < q->rows * q->groups; k++) {
        const float scale = q->scales[k], near = nyb_round_to(scale, dtype);
        if (near != scale)
            return nyb_fail(err, NYB_E_UNSUPPORTED,
                            "'%s': the scale %.9g at row %zu, group %zu is %s, and %s stores %s: "
                            "%.9g; use --format compressed-tensors, which keeps it, or nybble "
                            "quantize, which rounds anew",
                            module, (double) scale, k / q->groups, k % q->groups,
                            nyb_dtype_name(q->scale_dtype), layout->name, nyb_dtype_name(dtype),
                            (double) near);
    }
    q->scale_dtype = dtype;
    return NYB_OK;
}

// One scale for rows [row0, ...) and columns [col0, ...) of a block, if there is one.
static nyb_status scale_of(float *out, const nyb_qweight *q, size_t row0, size_t col0,
                           const char *module, nyb_err *err)
{
    const size_t rows = q->rows - row0 < BLOCK ? q->rows : row0 + BLOCK;
    const size_t cols = q->cols - col0 < BLOCK ? q->cols : col0 + BLOCK;
    *out = q->scales[row0 * q->groups + q->group_of[col0]];
    for (size_t i = row0; i < rows; i++) {
        for (size_t j = col0; j < cols; j++) {
            const float scale = q->scales[i * q->groups + q->group_of[j]];
            if (scale != *out)
                return nyb_fail(err, NYB_E_UNSUPPORTED,
                                "'%s': fp8 has one scale for a block of 128 x 128, and the one at "
                                "(%zu, %zu) has %.9g and %.9g; use --format compressed-tensors",
                                module, row0, col0, (double) *out, (double) scale);
        }
    }
    return NYB_OK;
}

static nyb_status fill_blocks(float *scales, size_t groups, const nyb_qweight *q,
                              const char *module, nyb_err *err)
{
    for (size_t i = 0; i < q->rows; i++) {
        for (size_t g = 0; g < groups; g++) {
            nyb_status status = NYB_OK;
            float *const scale = &scales[i * groups + g];
            if (i % BLOCK == 0)
                status = scale_of(scale, q, i, g * BLOCK, module, err);
            else
                *scale = scales[(i - 1) * groups + g];
            if (status != NYB_OK)
                return status;
        }
    }
    return NYB_OK;
}

// Scales of other blocks, or of the whole, become those of 128 x 128.
static nyb_status reblock(nyb_qweight *q, const char *module, nyb_err *err)
{
    const size_t groups = (q->cols + BLOCK - 1) / BLOCK;
    if (q->scale_rows == BLOCK && (q->group_size == BLOCK || q->cols <= BLOCK))
        return NYB_OK;
    float *const scales = nyb_alloc_raw(q->rows * groups, sizeof(float));
    uint8_t *const zeros = nyb_alloc(q->rows * groups, 1);
    nyb_status status = scales && zeros
                            ? fill_blocks(scales, groups, q, module, err)
                            : nyb_no_memory(err, module, q->rows * groups, sizeof(float));
    if (status != NYB_OK) {
        nyb_free(scales);
        nyb_free(zeros);
        return status;
    }
    nyb_free(q->scales);
    nyb_free(q->zeros);
    q->scales = scales;
    q->zeros = zeros;
    q->groups = groups;
    q->group_size = groups == 1 ? q->cols : BLOCK;
    q->scale_rows = BLOCK;
    for (size_t j = 0; j < q->cols; j++)
        q->group_of[j] = (uint32_t) (j / BLOCK);
    return NYB_OK;
}

nyb_status nyb_regrid(nyb_qweight *q, const nyb_layout *layout, const char *module, nyb_err *err)
{
    if (q->kind != NYB_CODE_INT && layout->blocks) {
        const nyb_status status = reblock(q, module, err);
        if (status != NYB_OK)
            return status;
    }
    return retype(q, layout, module, err);
}
