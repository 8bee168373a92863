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
    if (!w->codes) {
        nyb_rows_ops_get()->multiply(y, row_of(w, row0), w->dtype, rows, w->cols, input->floats);
        return;
    }
    const nyb_lowbit_ops *const ops = nyb_lowbit_ops_get();
    const size_t skipped = row0 % NYB_LOWBIT_ROWS; // rows of the first tile that come before
    size_t done = 0;
    if (skipped) {
        float tile[NYB_LOWBIT_ROWS];
        done = rows < NYB_LOWBIT_ROWS - skipped ? rows : NYB_LOWBIT_ROWS - skipped;
        ops->multiply(tile, w->codes, row0 - skipped, skipped + done, &input->codes);
        memcpy(y, tile + skipped, done * sizeof(*y));
    }
    if (done < rows)
        ops->multiply(y + done, w->codes, row0 + done, rows - done, &input->codes);
}

// Rows [row0, row0 + rows), at most NYB_WEIGHT_ROWS, as f32 in `panel`: floats row by row, codes
// turned.
static nyb_operand open_rows(const nyb_weight *w, size_t row0, size_t rows, float *panel)
{
    nyb_operand open = {
        .at = panel, .dtype = NYB_F32, .rows = rows, .depth = w->cols, .stride = w->cols};
    if (!w->codes) {
        nyb_rows_ops_get()->widen(panel, row_of(w, row0), w->dtype, rows * w->cols);
        return open;
    }
    const size_t skipped = row0 % NYB_LOWBIT_ROWS;
    nyb_lowbit_ops_get()->dequantize(panel, NYB_WEIGHT_PANEL, w->codes, row0 - skipped,
                                     rows + skipped);
    open.at = panel + skipped;
    open.stride = NYB_WEIGHT_PANEL;
    open.down = true;
    return open;
}

void nyb_weight_multiply(nyb_mat out, nyb_mat in, const nyb_weight *w, size_t row0, float keep,
                         float *panel)
{
    assert(row0 + out.cols <= w->rows && in.cols == w->cols && in.rows == out.rows);
    for (size_t i = 0; i < out.cols; i += NYB_WEIGHT_ROWS) {
        const size_t end = out.cols - i < NYB_WEIGHT_ROWS ? out.cols : i + NYB_WEIGHT_ROWS;
        const nyb_mat to = nyb_block(out, 0, out.rows, i, end);
        const nyb_operand open = open_rows(w, row0 + i, end - i, panel);
        const size_t skipped = (size_t) ((const float *) open.at - panel);
        if (open.down)
            nyb_gemm_nn(
                to, in,
                (nyb_mat){
                    .at = panel + skipped, .rows = w->cols, .cols = end - i, .stride = open.stride},
                1.0f, keep);
        else
            nyb_gemm_nt(to, in, nyb_mat_of(panel, end - i, w->cols), 1.0f, keep);
    }
}

void nyb_weight_pack(const nyb_gemm *g, uint32_t *to, const nyb_weight_rows *rows, size_t first,
                     size_t end, float *panel)
{
    const nyb_weight *const w = rows->weight;
    const size_t width = g->width, together = NYB_WEIGHT_ROWS / width;
    assert(NYB_WEIGHT_ROWS % width == 0 && rows->first + rows->count <= w->rows);
    for (size_t last; first < end; first = last) {
        last = end - first < together ? end : first + together;
        const size_t row0 = first * width;
        const size_t count = last * width < rows->count ? last * width - row0 : rows->count - row0;
        const nyb_operand from = open_rows(w, rows->first + row0, count, panel);
        nyb_gemm_pack(g, to + nyb_gemm_place(g, row0, w->cols), &from, 0, last - first);
    }
}
