#include "gptq/hessian_sum.h"

#include <math.h>
#include <string.h>

#include "core/memory.h"
#include "core/threads.h"

size_t nyb_triangle(size_t n)
{
    size_t product = 0;
    return n < SIZE_MAX && nyb_mul_size(n, n + 1, &product) ? product / 2 : 0;
}

nyb_status nyb_hessian_sum_init(nyb_hessian_sum *out, size_t n, nyb_err *err)
{
    const size_t size = nyb_triangle(n);
    *out = (nyb_hessian_sum){.n = n};
    if (size > 0) {
        out->high = nyb_alloc(size, sizeof(double));
        out->low = nyb_alloc(size, sizeof(double));
    }
    if (out->high && out->low)
        return NYB_OK;
    nyb_hessian_sum_clear(out);
    return nyb_no_memory(err, "sums of a hessian", n, n * sizeof(double));
}

void nyb_hessian_sum_clear(nyb_hessian_sum *sum)
{
    nyb_free(sum->high);
    nyb_free(sum->low);
    *sum = (nyb_hessian_sum){0};
}

// ---- One row --------------------------------------------------------------------------------

// high + low += x + rest, where all four are multiples of the step. Whether the result is a number
// within the range.
static inline bool accumulate(double *high, double *low, double x, double rest)
{
    const double sum = *high + x, part = sum - *high;
    const double lost = (*high - (sum - part)) + (x - part);
    const double small = (*low + rest) + lost;
    const double total = sum + small, added = total - sum;
    *high = total;
    *low = (sum - (total - added)) + (small - added);
    return fabs(total) <= 0x1p46; // false for NaN
}

// x as a multiple of the step. From 2^-32 on an f32 is one as it is; what is smaller loses its last
// bits to a number whose own step that is.
static inline double to_steps(float x)
{
    const double wide = (double) x, shift = 0x1.8p-4;
    return fabsf(x) < 0x1p-32f ? (wide + shift) - shift : wide;
}

static bool add_row(double *high, double *low, const float *x, size_t n)
{
    bool good = true;
    for (size_t j = 0; j < n; j++)
        good &= accumulate(&high[j], &low[j], to_steps(x[j]), 0.0);
    return good;
}

// A part may come from a file: it has to be made of steps, and high has to be the nearest to the sum.
static bool merge_row(double *high, double *low, const double *x, const double *rest, size_t n)
{
    const double steps = 0x1p56;
    bool good = true;
    for (size_t j = 0; j < n; j++) {
        good &= fabs(x[j]) <= 0x1p46 && x[j] * steps == rint(x[j] * steps) &&
                rest[j] * steps == rint(rest[j] * steps) && x[j] + rest[j] == x[j];
        good &= accumulate(&high[j], &low[j], x[j], rest[j]);
    }
    return good;
}

// ---- All rows -------------------------------------------------------------------------------

enum { ROWS = 16 }; // of a task

typedef struct adding {
    nyb_hessian_sum *sum;
    nyb_hessian *term;           // either this
    const nyb_hessian_sum *part; // or this
    unsigned char *bad;          // [tasks] 1: an element is out of range
} adding;

static void add_rows(void *arg, size_t task, unsigned worker)
{
    const adding *const a = arg;
    const size_t n = a->sum->n, end = (task + 1) * ROWS < n ? (task + 1) * ROWS : n;
    (void) worker;
    for (size_t i = task * ROWS; i < end; i++) {
        const size_t at = nyb_triangle_row(n, i), some = n - i;
        double *const high = a->sum->high + at, *const low = a->sum->low + at;
        bool good;
        if (a->term) {
            float *const row = nyb_row(a->term->h, i) + i;
            good = add_row(high, low, row, some);
            memset(row, 0, some * sizeof(*row));
        } else {
            good = merge_row(high, low, a->part->high + at, a->part->low + at, some);
        }
        a->bad[task] |= !good;
    }
}

static nyb_status add(const nyb_context *ctx, adding *a, nyb_err *err)
{
    const size_t tasks = (a->sum->n + ROWS - 1) / ROWS;
    size_t first = 0;
    a->bad = nyb_alloc(tasks, 1);
    if (!a->bad)
        return nyb_no_memory(err, "rows", tasks, 1);
    nyb_parallel(ctx, tasks, add_rows, a);
    while (first < tasks && !a->bad[first])
        first++;
    nyb_free(a->bad);
    if (first < tasks)
        return nyb_fail(err, NYB_E_NUMERIC,
                        "hessian rows %zu to %zu have an element that is not a number, or is more "
                        "than the sums of a store hold (2^%d): the inputs are too large",
                        first * ROWS, first * ROWS + ROWS - 1, NYB_HESSIAN_LIMIT_EXPONENT);
    return NYB_OK;
}

nyb_status nyb_hessian_sum_take(const nyb_context *ctx, nyb_hessian_sum *sum, nyb_hessian *term,
                                nyb_err *err)
{
    if (term->h.rows != sum->n)
        return nyb_fail(err, NYB_E_SHAPE, "hessian of order %zu added to one of %zu", term->h.rows,
                        sum->n);
    sum->tokens += term->tokens;
    term->tokens = 0;
    return add(ctx, &(adding){.sum = sum, .term = term}, err);
}

nyb_status nyb_hessian_sum_merge(const nyb_context *ctx, nyb_hessian_sum *sum,
                                 const nyb_hessian_sum *part, nyb_err *err)
{
    if (part->n != sum->n)
        return nyb_fail(err, NYB_E_SHAPE, "hessian of order %zu added to one of %zu", part->n,
                        sum->n);
    sum->tokens += part->tokens;
    return add(ctx, &(adding){.sum = sum, .part = part}, err);
}

nyb_status nyb_hessian_sum_round(const nyb_hessian_sum *sum, nyb_hessian *out, nyb_err *err)
{
    const nyb_status status = nyb_hessian_init(out, sum->n, err);
    if (status != NYB_OK)
        return status;
    for (size_t i = 0; i < sum->n; i++) {
        const double *const from = sum->high + nyb_triangle_row(sum->n, i);
        float *const to = nyb_row(out->h, i) + i;
        for (size_t j = 0; j < sum->n - i; j++)
            to[j] = (float) from[j];
    }
    out->tokens = sum->tokens;
    return NYB_OK;
}

bool nyb_hessian_sum_is_plain(const nyb_hessian_sum *sum)
{
    const size_t size = nyb_triangle(sum->n);
    for (size_t i = 0; i < size; i++) {
        if (sum->low[i] != 0.0)
            return false;
    }
    return true;
}
