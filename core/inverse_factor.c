// H = V V^T with V upper triangular is Cholesky's factorisation begun at the last column, and
// U = inv(V), as inv(H) = inv(V)^T inv(V). That is one factorisation and one triangular inverse,
// half of what inverting H and factoring the inverse takes.
//
// Both are cut into tiles of TILE x TILE, a task each, so that the same sums are made in the same
// order on any number of threads.
#include "core/inverse_factor.h"

#include <math.h>

#include "core/linalg.h"
#include "core/threads.h"

enum { TILE = 128 };

typedef struct factor_job {
    nyb_mat h;
    size_t tiles; // tiles of one row
    size_t k;     // the tile column that is being eliminated
} factor_job;

static nyb_mat tile_of(const factor_job *job, size_t i, size_t j)
{
    const size_t n = job->h.rows;
    const size_t i1 = (i + 1) * TILE < n ? (i + 1) * TILE : n;
    const size_t j1 = (j + 1) * TILE < n ? (j + 1) * TILE : n;
    return nyb_block(job->h, i * TILE, i1, j * TILE, j1);
}

// The upper triangle of a becomes V with a = V V^T. Turned by 180 degrees this is an ordinary
// Cholesky factorisation. Returns 0, or 1 + the column at which it failed.
static size_t factor_diagonal(nyb_mat a)
{
    const size_t n = a.rows;
    float turned[TILE * TILE];
    const nyb_mat t = nyb_mat_of(turned, n, n);
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j <= i; j++)
            nyb_row(t, i)[j] = nyb_row(a, n - 1 - i)[n - 1 - j];
    }
    const size_t failed = nyb_cholesky(t);
    if (failed)
        return n - failed + 1;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j <= i; j++)
            nyb_row(a, n - 1 - i)[n - 1 - j] = nyb_row(t, i)[j];
    }
    return 0;
}

// V_ik = A_ik inv(V_kk)^T
static void solve_panel(void *arg, size_t i, unsigned worker)
{
    const factor_job *const job = arg;
    (void) worker;
    nyb_trsm_right(tile_of(job, i, job->k), tile_of(job, job->k, job->k));
}

// The position of the index-th tile on or above the diagonal, row by row.
static void locate(size_t index, size_t tiles, size_t *i, size_t *j)
{
    *i = 0;
    while (index >= tiles - *i)
        index -= tiles - (*i)++;
    *j = *i + index;
}

// A_ij -= V_ik V_jk^T. On the diagonal only the upper triangle may be touched.
static void update_tile(void *arg, size_t index, unsigned worker)
{
    const factor_job *const job = arg;
    size_t i = 0, j = 0;
    (void) worker;
    locate(index, job->k, &i, &j);
    const nyb_mat c = tile_of(job, i, j);
    const nyb_mat a = tile_of(job, i, job->k), b = tile_of(job, j, job->k);
    if (i != j) {
        nyb_gemm_nt(c, a, b, -1.0f, 1.0f);
        return;
    }
    float square[TILE * TILE];
    const nyb_mat s = nyb_mat_of(square, c.rows, c.cols);
    nyb_gemm_nt(s, a, b, 1.0f, 0.0f);
    for (size_t row = 0; row < c.rows; row++) {
        for (size_t col = row; col < c.cols; col++)
            nyb_row(c, row)[col] -= nyb_row(s, row)[col];
    }
}

static nyb_status factor(const nyb_context *ctx, factor_job *job, nyb_err *err)
{
    for (size_t k = job->tiles; k-- > 0;) {
        const size_t failed = factor_diagonal(tile_of(job, k, k));
        if (failed)
            return nyb_fail(err, NYB_E_NOT_PD,
                            "hessian is not positive definite at column %zu of %zu",
                            k * TILE + failed - 1, job->h.rows);
        job->k = k;
        nyb_parallel(ctx, k, solve_panel, job);
        nyb_parallel(ctx, k * (k + 1) / 2, update_tile, job);
    }
    return NYB_OK;
}

// Copies V_ij, transposed, to the place of tile (j, i), or inverts a diagonal tile.
static void stash_tile(void *arg, size_t index, unsigned worker)
{
    const factor_job *const job = arg;
    size_t i = 0, j = 0;
    (void) worker;
    locate(index, job->tiles, &i, &j);
    const nyb_mat v = tile_of(job, i, j);
    if (i == j) {
        nyb_invert_upper(v);
        return;
    }
    const nyb_mat to = tile_of(job, j, i);
    for (size_t row = 0; row < v.rows; row++) {
        for (size_t col = 0; col < v.cols; col++)
            nyb_row(to, col)[row] = nyb_row(v, row)[col];
    }
}

// Tile column j of U by back substitution, U_ij = -inv(V_ii) sum over i < m <= j of V_im U_mj,
// from V's copy below the diagonal: the columns do not need each other.
static void invert_column(void *arg, size_t index, unsigned worker)
{
    const factor_job *const job = arg;
    const size_t j = job->tiles - 1 - index; // the longest first
    const size_t end = j * TILE + tile_of(job, j, j).rows;
    (void) worker;
    for (size_t i = j; i-- > 0;) {
        const nyb_mat u = tile_of(job, i, j);
        const size_t below = (i + 1) * TILE;
        nyb_gemm_tn(u, nyb_block(job->h, below, end, i * TILE, below),
                    nyb_block(job->h, below, end, j * TILE, end), 1.0f, 0.0f);
        nyb_trmm_left(u, tile_of(job, i, i));
    }
}

// The diagonal tile at the bottom of column j has its strict lower triangle read by the product
// above, where U is zero.
static void clear_below_diagonal(factor_job *job)
{
    for (size_t i = 0; i < job->tiles; i++) {
        const nyb_mat d = tile_of(job, i, i);
        for (size_t row = 1; row < d.rows; row++) {
            for (size_t col = 0; col < row; col++)
                nyb_row(d, row)[col] = 0.0f;
        }
    }
}

static nyb_status check(nyb_mat h, nyb_err *err)
{
    if (h.rows != h.cols)
        return nyb_fail(err, NYB_E_SHAPE, "hessian is %zu x %zu", h.rows, h.cols);
    for (size_t i = 0; i < h.rows; i++) {
        for (size_t j = i; j < h.cols; j++) {
            if (!isfinite(nyb_row(h, i)[j]))
                return nyb_fail(err, NYB_E_NUMERIC, "hessian (%zu, %zu) is %g", i, j,
                                (double) nyb_row(h, i)[j]);
        }
    }
    return NYB_OK;
}

nyb_status nyb_inverse_factor(const nyb_context *ctx, nyb_mat h, nyb_err *err)
{
    factor_job job = {.h = h, .tiles = (h.rows + TILE - 1) / TILE};
    nyb_status status = check(h, err);
    if (status != NYB_OK)
        return status;
    status = factor(ctx, &job, err);
    if (status != NYB_OK)
        return status;
    clear_below_diagonal(&job);
    nyb_parallel(ctx, job.tiles * (job.tiles + 1) / 2, stash_tile, &job);
    nyb_parallel(ctx, job.tiles, invert_column, &job);
    return NYB_OK;
}
