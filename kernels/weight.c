#include "kernels/weight.h"

#include <assert.h>
#include <string.h>

#include "core/dtype.h"
#include "core/linalg.h"
#include "kernels/rows.h"

size_t nyb_weight_input_bytes(const nyb_weight *w)
{
    return w->codes ? nyb_lowbit_input_bytes(w->codes, NYB_LOWBIT_FINE) : 0;
}

nyb_weight_input nyb_weight_input_make(const nyb_weight *w, void *memory, const float *x)
{
    nyb_weight_input input = {.floats = x};
    if (w->codes)
        input.codes = nyb_lowbit_ops_get()->input(w->codes, NYB_LOWBIT_FINE, memory, x);
    return input;
}

bool nyb_weight_same_input(const nyb_weight *a, const nyb_weight *b)
{
    const nyb_lowbit *const p = a->codes, *const q = b->codes;
    if (!p || !q)
        return !p && !q;
    return p->cols == q->cols && p->groups == q->groups && p->places == q->places &&
           !p->order == !q->order &&
           memcmp(p->first, q->first, (p->groups + 1) * sizeof(*p->first)) == 0 &&
           (!p->order || memcmp(p->order, q->order, p->places * sizeof(*p->order)) == 0);
}

static const void *row_of(const nyb_weight *w, size_t row)
{
    return (const unsigned char *) w->at + row * w->cols * nyb_dtype_bytes(w->dtype);
}

void nyb_weight_multiply_one(float *y, const nyb_weight *w, size_t row0, size_t rows,
                             const nyb_weight_input *input)
{
    assert(row0 + rows <= w->rows);
    if (w->codes)
        nyb_lowbit_ops_get()->multiply(y, w->codes, row0, rows, &input->codes);
    else
        nyb_rows_ops_get()->multiply(y, row_of(w, row0), w->dtype, rows, w->cols, input->floats);
}

static void multiply_panel(nyb_mat out, nyb_mat in, const nyb_weight *w, size_t row0, float keep,
                           float *panel)
{
    const size_t rows = out.cols;
    if (w->codes) {
        const nyb_mat columns = {
            .at = panel, .rows = w->cols, .cols = rows, .stride = NYB_WEIGHT_ROWS};
        nyb_lowbit_ops_get()->dequantize(panel, NYB_WEIGHT_ROWS, w->codes, row0, rows);
        nyb_gemm_nn(out, in, columns, 1.0f, keep);
        return;
    }
    nyb_rows_ops_get()->widen(panel, row_of(w, row0), w->dtype, rows * w->cols);
    nyb_gemm_nt(out, in, nyb_mat_of(panel, rows, w->cols), 1.0f, keep);
}

void nyb_weight_multiply(nyb_mat out, nyb_mat in, const nyb_weight *w, size_t row0, float keep,
                         float *panel)
{
    assert(row0 + out.cols <= w->rows && in.cols == w->cols && in.rows == out.rows);
    for (size_t i = 0; i < out.cols; i += NYB_WEIGHT_ROWS) {
        const size_t end = out.cols - i < NYB_WEIGHT_ROWS ? out.cols : i + NYB_WEIGHT_ROWS;
        multiply_panel(nyb_block(out, 0, out.rows, i, end), in, w, row0 + i, keep, panel);
    }
}
