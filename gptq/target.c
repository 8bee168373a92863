// The second objective: what a layer should give on the inputs that it will see, for its model to come
// back to what it was. W C^T U^T U, in the factor's order of columns, is made in three products of rows
// with a matrix. Rows are cut into tiles, the matrix into square blocks, which are packed once for all
// tiles; those that are zero are left out.
#include <string.h>

#include "core/memory.h"
#include "core/threads.h"
#include "gptq/squares.h"
#include "kernels/gemm.h"
#include "nybble/gptq.h"

enum { ROWS = 96, BLOCK = NYB_SQUARE };

typedef enum step {
    STEP_CROSS,  // rows of W times C^T; the columns get the factor's order
    STEP_FACTOR, // times U^T
    STEP_BACK,   // times U; back into the old order, and added to W
} step;

typedef struct moving {
    const nyb_gemm *gemm;
    const nyb_gptq_factor *factor;
    nyb_mat w, out;
    double strength;
    step step;
    nyb_mat matrix;      // of this step
    uint32_t *packed;    // its blocks, row by row
    size_t square_words; // of one packed block
    float *scratch;
    size_t scratch_floats; // of one worker
} moving;

// The step multiplies with the transpose of a matrix M [n, n]: C, U and U^T. Whether block (j, k) of M
// is zero.
static bool is_zero(const moving *m, size_t j, size_t k)
{
    return (m->step == STEP_FACTOR && k < j) || (m->step == STEP_BACK && k > j);
}

static void pack_block(void *arg, size_t index, unsigned worker)
{
    const moving *const m = arg;
    const size_t n = m->matrix.rows, j = index / nyb_squares(n), k = index % nyb_squares(n);
    const bool turned = m->step == STEP_BACK;
    const size_t row = turned ? k : j, col = turned ? j : k;
    float square[BLOCK * BLOCK];
    (void) worker;
    if (is_zero(m, j, k))
        return;
    nyb_mat part = nyb_block(m->matrix, row * BLOCK, nyb_square_end(row, n), col * BLOCK,
                             nyb_square_end(col, n));
    if (j == k && m->step != STEP_CROSS) { // nobody knows what is below U's diagonal
        memset(square, 0, sizeof(square));
        for (size_t i = 0; i < part.rows; i++)
            memcpy(square + i * BLOCK + i, nyb_row(part, i) + i, (part.cols - i) * sizeof(float));
        part = (nyb_mat){.at = square, .rows = part.rows, .cols = part.cols, .stride = BLOCK};
    }
    const nyb_operand operand = turned ? nyb_operand_turned(part) : nyb_operand_of(part);
    nyb_gemm_pack(m->gemm, m->packed + index * m->square_words, &operand, 0,
                  nyb_gemm_panels(operand.rows, m->gemm->width));
}

static void store_row(const moving *m, size_t row, const float *product)
{
    const uint32_t *const columns = m->factor->columns;
    const float *const w = nyb_row(m->w, row);
    float *const out = nyb_row(m->out, row);
    const size_t n = m->w.cols;
    if (m->step == STEP_FACTOR) {
        memcpy(out, product, n * sizeof(float));
        return;
    }
    for (size_t p = 0; p < n; p++) {
        const size_t j = columns[p];
        if (m->step == STEP_CROSS)
            out[p] = m->factor->dead[j] ? 0.0f : product[j];
        else
            out[j] = w[j] + (float) (m->strength * (double) product[p]);
    }
}

// Words of a packed tile's part that meets one block.
static size_t part_words(const nyb_gemm *g)
{
    return nyb_gemm_packed(g, ROWS, BLOCK);
}

static void move_rows(void *arg, size_t tile, unsigned worker)
{
    const moving *const m = arg;
    const nyb_gemm *const g = m->gemm;
    const size_t n = m->w.cols, count = nyb_squares(n), row0 = tile * ROWS, words = part_words(g);
    const size_t rows = m->w.rows - row0 < ROWS ? m->w.rows - row0 : ROWS;
    float *const scratch = m->scratch + worker * m->scratch_floats;
    uint32_t *const packed = (uint32_t *) (void *) scratch;
    const nyb_mat product = nyb_mat_of(scratch + count * words, rows, n);
    const nyb_mat from = m->step == STEP_CROSS ? m->w : m->out;
    for (size_t k = 0; k < count; k++) {
        const nyb_operand part =
            nyb_operand_of(nyb_block(from, row0, row0 + rows, k * BLOCK, nyb_square_end(k, n)));
        nyb_gemm_pack(g, packed + k * words, &part, 0, nyb_gemm_panels(rows, g->width));
    }
    for (size_t j = 0; j < count; j++) {
        const nyb_mat part = nyb_block(product, 0, rows, j * BLOCK, nyb_square_end(j, n));
        bool some = false;
        for (size_t k = 0; k < count; k++) {
            if (is_zero(m, j, k))
                continue;
            nyb_gemm_tile(g, part, packed + k * words,
                          m->packed + (j * count + k) * m->square_words,
                          nyb_square_end(k, n) - k * BLOCK, 1.0f, some);
            some = true;
        }
    }
    for (size_t i = 0; i < rows; i++)
        store_row(m, row0 + i, nyb_row(product, i));
}

static void run_step(const nyb_context *ctx, moving *m, step next, nyb_mat matrix)
{
    const size_t count = nyb_squares(matrix.rows);
    m->step = next;
    m->matrix = matrix;
    nyb_parallel(ctx, count * count, pack_block, m);
    nyb_parallel(ctx, (m->w.rows + ROWS - 1) / ROWS, move_rows, m);
}

static void measure(moving *m, size_t n)
{
    m->gemm = nyb_gemm_get(NYB_COMPUTE_F32);
    m->square_words = nyb_gemm_packed(m->gemm, BLOCK, BLOCK);
    m->scratch_floats = nyb_squares(n) * part_words(m->gemm) + ROWS * n;
}

size_t nyb_gptq_target_bytes(const nyb_context *ctx, size_t n)
{
    moving m;
    measure(&m, n);
    return (nyb_squares(n) * nyb_squares(n) * m.square_words +
            nyb_threads(ctx) * m.scratch_floats) *
           sizeof(float);
}

nyb_status nyb_gptq_target(const nyb_context *ctx, const nyb_gptq_factor *factor, nyb_mat w,
                           nyb_mat cross, double strength, nyb_mat out, nyb_err *err)
{
    const size_t n = w.cols, threads = nyb_threads(ctx);
    moving m = {.factor = factor, .w = w, .out = out, .strength = strength};
    if (factor->u.rows != n || cross.rows != n || cross.cols != n || out.rows != w.rows ||
        out.cols != n)
        return nyb_fail(err, NYB_E_SHAPE,
                        "weight is %zu x %zu, target %zu x %zu, cross-moment %zu x %zu, hessian of "
                        "order %zu",
                        w.rows, n, out.rows, out.cols, cross.rows, cross.cols, factor->u.rows);
    measure(&m, n);
    m.packed = nyb_alloc_raw(nyb_squares(n) * nyb_squares(n), m.square_words * sizeof(uint32_t));
    m.scratch = nyb_alloc_raw(threads, m.scratch_floats * sizeof(float));
    const bool room = m.packed && m.scratch;
    if (room) {
        run_step(ctx, &m, STEP_CROSS, cross);
        run_step(ctx, &m, STEP_FACTOR, factor->u);
        run_step(ctx, &m, STEP_BACK, factor->u);
    }
    nyb_free(m.packed);
    nyb_free(m.scratch);
    return room ? NYB_OK : nyb_no_memory(err, "a target", n, n * sizeof(float));
}
