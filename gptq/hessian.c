#include "gptq/hessian.h"

#include <assert.h>
#include <string.h>

#include "core/memory.h"

nyb_status nyb_hessian_init(nyb_hessian *out, size_t n, nyb_err *err)
{
    *out = (nyb_hessian){0};
    return nyb_hessian_renew(out, n, err);
}

nyb_status nyb_hessian_renew(nyb_hessian *hessian, size_t n, nyb_err *err)
{
    size_t count = 0;
    nyb_hessian_empty(hessian);
    if (n == 0)
        return nyb_fail(err, NYB_E_ARG, "hessian of 0 columns");
    const bool counted = nyb_mul_size(n, n, &count);
    if (hessian->kept && counted && count <= hessian->room) {
        memset(hessian->kept, 0, count * sizeof(float));
    } else {
        nyb_hessian_clear(hessian);
        hessian->kept = counted ? nyb_alloc(count, sizeof(float)) : NULL;
        hessian->room = count;
    }
    if (!hessian->kept)
        return nyb_no_memory(err, "hessian", n, n * sizeof(float));
    hessian->h = nyb_mat_of(hessian->kept, n, n);
    hessian->kept = NULL;
    return NYB_OK;
}

void nyb_hessian_empty(nyb_hessian *hessian)
{
    if (hessian->h.at)
        hessian->kept = hessian->h.at;
    hessian->h = (nyb_mat){0};
    hessian->tokens = 0;
}

void nyb_hessian_clear(nyb_hessian *hessian)
{
    nyb_free(hessian->h.at);
    nyb_free(hessian->kept);
    nyb_free(hessian->scratch);
    *hessian = (nyb_hessian){0};
}

static const nyb_gemm *gemm_of(const nyb_context *ctx)
{
    return nyb_gemm_get(ctx ? ctx->compute : NYB_COMPUTE_AUTO);
}

size_t nyb_hessian_scratch(const nyb_context *ctx, size_t n, size_t tokens)
{
    const size_t slice = tokens < NYB_HESSIAN_SLICE ? tokens : NYB_HESSIAN_SLICE;
    return nyb_gemm_packed(gemm_of(ctx), n, slice) * sizeof(uint32_t);
}

static nyb_status make_room(nyb_hessian *hessian, size_t bytes, nyb_err *err)
{
    if (bytes <= hessian->scratch_bytes)
        return NYB_OK;
    nyb_free(hessian->scratch);
    hessian->scratch_bytes = 0;
    hessian->scratch = nyb_alloc_raw(bytes, 1);
    if (!hessian->scratch)
        return nyb_no_memory(err, "packed activations", bytes, 1);
    hessian->scratch_bytes = bytes;
    return NYB_OK;
}

// Tokens [t, t + NYB_HESSIAN_SLICE) of x^T.
static nyb_operand slice_at(const nyb_operand *x, size_t t)
{
    const size_t left = x->rows - t, bytes = x->dtype == NYB_BF16 ? 2 : 4;
    return (nyb_operand){.at = (const unsigned char *) x->at + t * x->stride * bytes,
                         .dtype = x->dtype,
                         .rows = x->depth,
                         .depth = left < NYB_HESSIAN_SLICE ? left : NYB_HESSIAN_SLICE,
                         .stride = x->stride,
                         .down = true};
}

nyb_status nyb_hessian_add_operand(const nyb_context *ctx, nyb_hessian *hessian,
                                   const nyb_operand *x, nyb_err *err)
{
    const size_t n = hessian->h.rows;
    assert(!x->down);
    if (x->depth != n)
        return nyb_fail(err, NYB_E_SHAPE, "activations have %zu columns, the hessian %zu", x->depth,
                        n);
    const nyb_status status = make_room(hessian, nyb_hessian_scratch(ctx, n, x->rows), err);
    for (size_t t = 0; status == NYB_OK && t < x->rows; t += NYB_HESSIAN_SLICE) {
        const nyb_operand slice = slice_at(x, t);
        nyb_syrk_run(ctx, gemm_of(ctx), hessian->h, &slice, hessian->scratch);
    }
    if (status == NYB_OK)
        hessian->tokens += x->rows;
    return status;
}

nyb_status nyb_hessian_add(const nyb_context *ctx, nyb_hessian *hessian, nyb_mat x, nyb_err *err)
{
    const nyb_operand operand = nyb_operand_of(x);
    return nyb_hessian_add_operand(ctx, hessian, &operand, err);
}

nyb_status nyb_hessian_add_cross(const nyb_context *ctx, nyb_hessian *hessian, nyb_mat x,
                                 nyb_mat cross, nyb_mat d, nyb_err *err)
{
    const size_t n = hessian->h.rows;
    if (x.cols != n || d.cols != n || d.rows != x.rows || cross.rows != n || cross.cols != n)
        return nyb_fail(err, NYB_E_SHAPE,
                        "activations are %zu x %zu and %zu x %zu, the hessian is of order %zu, the "
                        "cross-moment %zu x %zu",
                        x.rows, x.cols, d.rows, d.cols, n, cross.rows, cross.cols);
    const nyb_status status = make_room(hessian, 2 * nyb_hessian_scratch(ctx, n, x.rows), err);
    const nyb_operand all_x = nyb_operand_of(x), all_d = nyb_operand_of(d);
    for (size_t t = 0; status == NYB_OK && t < x.rows; t += NYB_HESSIAN_SLICE) {
        const nyb_operand of_x = slice_at(&all_x, t), of_d = slice_at(&all_d, t);
        nyb_syrk_cross_run(ctx, gemm_of(ctx), hessian->h, cross, &of_x, &of_d, hessian->scratch);
    }
    if (status == NYB_OK)
        hessian->tokens += x.rows;
    return status;
}
