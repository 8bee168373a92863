// The quadratic form tr(D H D^T), from H's upper triangle alone: with U = H's part above the
// diagonal and half of the diagonal itself, it is 2 tr(D U D^T). Rows of D are cut into tiles. U's
// columns are packed once for all tiles, each panel of them down to the diagonal and no further; the
// diagonal is added in f32, also where products are rounded.
#include <assert.h>
#include <math.h>
#include <string.h>

#include "core/memory.h"
#include "core/threads.h"
#include "kernels/gemm.h"
#include "nybble/gptq.h"

enum { ROWS = 96, FORMS = 2 };

typedef struct loss_job {
    const nyb_gemm *gemm;
    nyb_mat h, w;
    const nyb_qweight *q[FORMS]; // of each form; NULL: D = w
    size_t tiles;                // of rows, for each form
    uint32_t *packed;            // U above its diagonal, panel by panel as panel_place() says
    float *halves;               // of the diagonal
    float *scratch;
    size_t scratch_floats; // of one worker
    double *losses;        // of each form's tiles
} loss_job;

// Words in front of a panel, each as deep as the columns up to its own end.
static size_t panel_place(const nyb_gemm *g, size_t panel)
{
    return panel * (panel + 1) / 2 * g->width * nyb_gemm_depth(g, g->width);
}

static size_t panel_end(const loss_job *job, size_t panel)
{
    const size_t end = (panel + 1) * job->gemm->width;
    return end < job->h.rows ? end : job->h.rows;
}

// The part of a panel that the diagonal cuts: zeros at it and below.
static void pack_corner(const loss_job *job, uint32_t *to, size_t j0, size_t j1)
{
    float square[NYB_GEMM_WIDEST * NYB_GEMM_WIDEST] = {0};
    const nyb_mat corner = nyb_mat_of(square, j1 - j0, j1 - j0);
    for (size_t j = j0; j < j1; j++) {
        const float *const from = nyb_row(job->h, j);
        job->halves[j] = 0.5f * from[j];
        memcpy(nyb_row(corner, j - j0) + (j + 1 - j0), from + j + 1, (j1 - j - 1) * sizeof(*from));
    }
    const nyb_operand turned = nyb_operand_turned(corner);
    nyb_gemm_pack(job->gemm, to, &turned, 0, 1);
}

static void pack_panel(void *arg, size_t index, unsigned worker)
{
    const loss_job *const job = arg;
    const nyb_gemm *const g = job->gemm;
    const size_t j0 = index * g->width, j1 = panel_end(job, index);
    uint32_t *const to = job->packed + panel_place(g, index);
    (void) worker;
    if (j0 > 0) {
        const nyb_operand above = nyb_operand_turned(nyb_block(job->h, 0, j0, j0, j1));
        nyb_gemm_pack(g, to, &above, 0, 1);
    }
    pack_corner(job, to + g->width * nyb_gemm_depth(g, j0), j0, j1);
}

// d = w - q for the rows from row0 on
static void load(nyb_mat d, nyb_mat weight, const nyb_qweight *q, size_t row0)
{
    if (q)
        nyb_qweight_dequantize(q, row0, d);
    for (size_t i = 0; i < d.rows; i++) {
        const float *const w = nyb_row(weight, row0 + i);
        float *const at = nyb_row(d, i);
        for (size_t j = 0; j < d.cols; j++)
            at[j] = q ? w[j] - at[j] : w[j];
    }
}

// Of d with d U, where `sum` is d times U's part above the diagonal.
static double inner_product(nyb_mat d, nyb_mat sum, const float *halves)
{
    enum { LANES = 8 };
    double total = 0.0;
    for (size_t i = 0; i < d.rows; i++) {
        const float *const x = nyb_row(d, i), *const y = nyb_row(sum, i);
        double lanes[LANES] = {0};
        size_t j = 0;
        for (; j + LANES <= d.cols; j += LANES)
            for (size_t lane = 0; lane < LANES; lane++)
                lanes[lane] +=
                    (double) x[j + lane] * (double) (y[j + lane] + halves[j + lane] * x[j + lane]);
        for (; j < d.cols; j++)
            lanes[0] += (double) x[j] * (double) (y[j] + halves[j] * x[j]);
        for (size_t lane = 0; lane < LANES; lane++)
            total += lanes[lane];
    }
    return total;
}

static void measure_tile(void *arg, size_t index, unsigned worker)
{
    const loss_job *const job = arg;
    const nyb_gemm *const g = job->gemm;
    const size_t n = job->h.rows, wide = g->width, row0 = index % job->tiles * ROWS;
    const size_t rows = job->w.rows - row0 < ROWS ? job->w.rows - row0 : ROWS;
    float *const scratch = job->scratch + worker * job->scratch_floats;
    uint32_t *const packed = (uint32_t *) (void *) scratch;
    float *const product = scratch + nyb_gemm_packed(g, ROWS, n);
    const nyb_mat d = nyb_mat_of(product + ROWS * wide, rows, n);
    const nyb_operand operand = nyb_operand_of(d);
    double total = 0.0;
    load(d, job->w, job->q[index / job->tiles], row0);
    nyb_gemm_pack(g, packed, &operand, 0, nyb_gemm_panels(rows, wide));
    for (size_t p = 0; p * wide < n; p++) {
        const size_t end = panel_end(job, p);
        const nyb_mat sum = nyb_mat_of(product, rows, end - p * wide);
        // Row panel by row panel: those of d are deeper than this one of U.
        for (size_t i = 0; i < rows; i += wide)
            nyb_gemm_tile(g, nyb_block(sum, i, rows - i < wide ? rows : i + wide, 0, sum.cols),
                          packed + nyb_gemm_place(g, i, n), job->packed + panel_place(g, p), end,
                          1.0f, false);
        total += inner_product(nyb_block(d, 0, rows, p * wide, end), sum, job->halves + p * wide);
    }
    job->losses[index] = 2.0 * total;
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

static size_t scratch_floats(const nyb_gemm *g, size_t n)
{
    return nyb_gemm_packed(g, ROWS, n) + ROWS * (g->width + n);
}

static nyb_status measure(const nyb_context *ctx, loss_job *job, size_t forms, double *losses,
                          nyb_err *err)
{
    const size_t n = job->h.rows, threads = nyb_threads(ctx);
    const size_t panels = nyb_gemm_panels(n, job->gemm->width);
    job->tiles = (job->w.rows + ROWS - 1) / ROWS;
    job->scratch_floats = scratch_floats(job->gemm, n);
    job->packed = nyb_alloc_raw(panel_place(job->gemm, panels), sizeof(uint32_t));
    job->halves = nyb_alloc_raw(n, sizeof(float));
    job->scratch = nyb_alloc_raw(threads, job->scratch_floats * sizeof(float));
    job->losses = nyb_alloc(forms * job->tiles, sizeof(*job->losses));
    const bool room = job->packed && job->halves && job->scratch && job->losses;
    double sums[FORMS] = {0};
    bool finite = true;
    if (room) {
        nyb_parallel(ctx, panels, pack_panel, job);
        nyb_parallel(ctx, forms * job->tiles, measure_tile, job);
    }
    for (size_t i = 0; room && i < forms * job->tiles; i++)
        sums[i / job->tiles] += job->losses[i];
    for (size_t i = 0; i < forms; i++)
        finite &= isfinite(sums[i]) != 0;
    nyb_free(job->packed);
    nyb_free(job->halves);
    nyb_free(job->scratch);
    nyb_free(job->losses);
    if (!room)
        return nyb_no_memory(err, "tiles of rows", threads, job->scratch_floats * sizeof(float));
    if (!finite)
        return report_weight(job->w, err);
    memcpy(losses, sums, forms * sizeof(*losses));
    return NYB_OK;
}

size_t nyb_hessian_loss_bytes(const nyb_context *ctx, size_t n)
{
    const nyb_gemm *const g = nyb_gemm_get(NYB_COMPUTE_F32);
    return (panel_place(g, nyb_gemm_panels(n, g->width)) + n +
            nyb_threads(ctx) * scratch_floats(g, n)) *
           sizeof(float);
}

static nyb_status check(const nyb_hessian *hessian, nyb_mat w, const nyb_qweight *q, nyb_err *err)
{
    if (hessian->h.rows != w.cols)
        return nyb_fail(err, NYB_E_SHAPE, "hessian has order %zu, weight has %zu columns",
                        hessian->h.rows, w.cols);
    if (q && (q->rows != w.rows || q->cols != w.cols))
        return nyb_fail(err, NYB_E_SHAPE, "weight is %zu x %zu, its quantised form %zu x %zu",
                        w.rows, w.cols, q->rows, q->cols);
    return NYB_OK;
}

nyb_status nyb_hessian_loss(const nyb_context *ctx, const nyb_hessian *hessian, nyb_mat w,
                            const nyb_qweight *q, double *loss, nyb_err *err)
{
    loss_job job = {.gemm = nyb_gemm_get(NYB_COMPUTE_F32), .h = hessian->h, .w = w, .q = {q}};
    const nyb_status status = check(hessian, w, q, err);
    return status == NYB_OK ? measure(ctx, &job, 1, loss, err) : status;
}

nyb_status nyb_hessian_yardsticks(const nyb_context *ctx, const nyb_hessian *hessian, nyb_mat w,
                                  const nyb_qweight *q, double *loss, double *energy, nyb_err *err)
{
    loss_job job = {
        .gemm = nyb_gemm_get(ctx ? ctx->compute : NYB_COMPUTE_AUTO), .h = hessian->h, .w = w};
    double losses[FORMS] = {0};
    size_t forms = 0;
    nyb_status status = check(hessian, w, q, err);
    if (status != NYB_OK)
        return status;
    if (loss)
        job.q[forms++] = q;
    if (energy)
        job.q[forms++] = NULL;
    status = measure(ctx, &job, forms, losses, err);
    if (status == NYB_OK && loss)
        *loss = losses[0];
    if (status == NYB_OK && energy)
        *energy = losses[forms - 1];
    return status;
}
