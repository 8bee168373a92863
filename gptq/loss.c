// The quadratic form tr(D H D^T), from H's upper triangle alone: with U = H's part above the
// diagonal and half of the diagonal itself, it is 2 tr(D U D^T). Rows of D are cut into tiles, U into
// square blocks that are packed once for all tiles.
#include <assert.h>
#include <math.h>
#include <string.h>

#include "core/memory.h"
#include "core/threads.h"
#include "gptq/squares.h"
#include "kernels/gemm.h"
#include "nybble/gptq.h"

enum { ROWS = 96, BLOCK = NYB_SQUARE };

typedef struct loss_job {
    const nyb_gemm *gemm;
    nyb_mat h, w;
    const nyb_qweight *q; // may be NULL
    uint32_t *packed;     // U, block by block as block_place() says
    size_t block_words;   // of one packed block
    float *scratch;
    size_t scratch_floats; // of one worker
    double *losses;        // of each tile
} loss_job;

// Block row i and block column j >= i, column by column.
static size_t block_place(const loss_job *job, size_t i, size_t j)
{
    return (j * (j + 1) / 2 + i) * job->block_words;
}

static void pack_block(void *arg, size_t index, unsigned worker)
{
    const loss_job *const job = arg;
    const size_t n = job->h.rows;
    float square[BLOCK * BLOCK];
    size_t j = 0;
    (void) worker;
    for (; index > j; j++)
        index -= j + 1;
    const size_t i = index, i0 = i * BLOCK, i1 = nyb_square_end(i, n), j0 = j * BLOCK,
                 j1 = nyb_square_end(j, n);
    nyb_mat part = nyb_block(job->h, i0, i1, j0, j1);
    if (i == j) {
        memset(square, 0, sizeof(square));
        for (size_t a = 0; a < part.rows; a++) {
            float *const row = square + a * BLOCK;
            memcpy(row + a, nyb_row(part, a) + a, (part.cols - a) * sizeof(float));
            row[a] *= 0.5f;
        }
        part = (nyb_mat){.at = square, .rows = part.rows, .cols = part.cols, .stride = BLOCK};
    }
    const nyb_operand turned = nyb_operand_turned(part);
    nyb_gemm_pack(job->gemm, job->packed + block_place(job, i, j), &turned, 0,
                  nyb_gemm_panels(part.cols, job->gemm->width));
}

// d = w - q for the rows from row0 on
static void load(const loss_job *job, nyb_mat d, size_t row0)
{
    if (job->q)
        nyb_qweight_dequantize(job->q, row0, d);
    for (size_t i = 0; i < d.rows; i++) {
        const float *const w = nyb_row(job->w, row0 + i);
        float *const at = nyb_row(d, i);
        for (size_t j = 0; j < d.cols; j++)
            at[j] = job->q ? w[j] - at[j] : w[j];
    }
}

static double inner_product(nyb_mat a, nyb_mat b)
{
    enum { LANES = 8 };
    double total = 0.0;
    for (size_t i = 0; i < a.rows; i++) {
        const float *const x = nyb_row(a, i), *const y = nyb_row(b, i);
        double sum[LANES] = {0};
        size_t j = 0;
        for (; j + LANES <= a.cols; j += LANES)
            for (size_t lane = 0; lane < LANES; lane++)
                sum[lane] += (double) x[j + lane] * (double) y[j + lane];
        for (; j < a.cols; j++)
            sum[0] += (double) x[j] * (double) y[j];
        for (size_t lane = 0; lane < LANES; lane++)
            total += sum[lane];
    }
    return total;
}

// Words of a packed tile's part that meets one block.
static size_t part_words(const nyb_gemm *g)
{
    return nyb_gemm_packed(g, ROWS, BLOCK);
}

static void measure_tile(void *arg, size_t tile, unsigned worker)
{
    const loss_job *const job = arg;
    const nyb_gemm *const g = job->gemm;
    const size_t n = job->h.rows, row0 = tile * ROWS, count = nyb_squares(n), words = part_words(g);
    const size_t rows = job->w.rows - row0 < ROWS ? job->w.rows - row0 : ROWS;
    float *const scratch = job->scratch + worker * job->scratch_floats;
    uint32_t *const packed = (uint32_t *) (void *) scratch;
    float *const product = scratch + count * words;
    const nyb_mat d = nyb_mat_of(product + ROWS * BLOCK, rows, n);
    double total = 0.0;
    load(job, d, row0);
    for (size_t k = 0; k < count; k++) {
        const nyb_operand part =
            nyb_operand_of(nyb_block(d, 0, rows, k * BLOCK, nyb_square_end(k, n)));
        nyb_gemm_pack(g, packed + k * words, &part, 0, nyb_gemm_panels(rows, g->width));
    }
    for (size_t j = 0; j < count; j++) {
        const nyb_mat here = nyb_block(d, 0, rows, j * BLOCK, nyb_square_end(j, n));
        const nyb_mat sum = nyb_mat_of(product, rows, here.cols);
        for (size_t k = 0; k <= j; k++)
            nyb_gemm_tile(g, sum, packed + k * words, job->packed + block_place(job, k, j),
                          nyb_square_end(k, n) - k * BLOCK, 1.0f, k > 0);
        total += inner_product(here, sum);
    }
    job->losses[tile] = 2.0 * total;
}

static nyb_status report_weight(nyb_mat w, nyb_err *err)
{
    for (size_t i = 0; i < w.rows; i++) {
        for (size_t j = 0; j < w.cols; j++) {
            if (!isfinite(nyb_row(w, i)[j]))
                return nyb_fail(err, NYB_E_NUMERIC, "weight (%zu, %zu) is %g", i, j,
                                (double) nyb_row(w, i)[j]);
        }
    }
    return nyb_fail(err, NYB_E_NUMERIC, "the loss is beyond what f32 holds, or the hessian is");
}

static nyb_status measure(const nyb_context *ctx, loss_job *job, double *loss, nyb_err *err)
{
    const size_t n = job->h.rows, count = nyb_squares(n), threads = nyb_threads(ctx);
    const size_t squares = count * (count + 1) / 2, tiles = (job->w.rows + ROWS - 1) / ROWS;
    job->gemm = nyb_gemm_get(NYB_COMPUTE_F32);
    job->block_words = nyb_gemm_packed(job->gemm, BLOCK, BLOCK);
    job->scratch_floats = count * part_words(job->gemm) + (size_t) ROWS * (BLOCK + n);
    job->packed = nyb_alloc_raw(squares, job->block_words * sizeof(uint32_t));
    job->scratch = nyb_alloc_raw(threads, job->scratch_floats * sizeof(float));
    job->losses = nyb_alloc(tiles, sizeof(*job->losses));
    const bool room = job->packed && job->scratch && job->losses;
    double total = 0.0;
    if (room) {
        nyb_parallel(ctx, squares, pack_block, job);
        nyb_parallel(ctx, tiles, measure_tile, job);
    }
    for (size_t i = 0; room && i < tiles; i++)
        total += job->losses[i];
    nyb_free(job->packed);
    nyb_free(job->scratch);
    nyb_free(job->losses);
    if (!room)
        return nyb_no_memory(err, "tiles of rows", threads, job->scratch_floats * sizeof(float));
    if (!isfinite(total))
        return report_weight(job->w, err);
    *loss = total;
    return NYB_OK;
}

size_t nyb_hessian_loss_bytes(const nyb_context *ctx, size_t n)
{
    const nyb_gemm *const g = nyb_gemm_get(NYB_COMPUTE_F32);
    const size_t count = nyb_squares(n);
    return (count * (count + 1) / 2 * nyb_gemm_packed(g, BLOCK, BLOCK) +
            nyb_threads(ctx) * (count * part_words(g) + ROWS * (BLOCK + n))) *
           sizeof(float);
}

nyb_status nyb_hessian_loss(const nyb_context *ctx, const nyb_hessian *hessian, nyb_mat w,
                            const nyb_qweight *q, double *loss, nyb_err *err)
{
    if (hessian->h.rows != w.cols)
        return nyb_fail(err, NYB_E_SHAPE, "hessian has order %zu, weight has %zu columns",
                        hessian->h.rows, w.cols);
    if (q && (q->rows != w.rows || q->cols != w.cols))
        return nyb_fail(err, NYB_E_SHAPE, "weight is %zu x %zu, its quantised form %zu x %zu",
                        w.rows, w.cols, q->rows, q->cols);
    return measure(ctx, &(loss_job){.h = hessian->h, .w = w, .q = q}, loss, err);
}
