// layer.h - a random layer, its solves, and what must hold of every result.
#ifndef NYB_TESTS_GPTQ_LAYER_H_
#define NYB_TESTS_GPTQ_LAYER_H_

#include "tests/test.h"

#include <math.h>
#include <string.h>

#include "core/dtype.h"
#include "nybble/gptq.h"

enum { MAX_ROWS = 130, MAX_COLS = 320, MAX_TOKENS = 500 };

// A layer and its input's sum.
typedef struct fixture {
    float w[MAX_ROWS * MAX_COLS], x[MAX_TOKENS * MAX_COLS];
    nyb_mat weight, inputs;
    nyb_hessian hessian;
} fixture;

static fixture f; // large

// Inputs that share a few directions, as a network's do, with columns of different size. Columns
// 3, 13, 23, ... never have an input when `dead` is set.
static inline void make(size_t rows, size_t cols, size_t tokens, uint64_t seed, bool dead)
{
    f.weight = nyb_mat_of(f.w, rows, cols);
    f.inputs = nyb_mat_of(f.x, tokens, cols);
    for (size_t i = 0; i < rows * cols; i++)
        f.w[i] = test_uniform(&seed) * test_uniform(&seed);
    for (size_t t = 0; t < tokens; t++) {
        float shared[4];
        for (size_t k = 0; k < 4; k++)
            shared[k] = test_uniform(&seed);
        for (size_t j = 0; j < cols; j++) {
            const float own = test_uniform(&seed), size = (float) (1 + j * 7 % 5);
            f.x[t * cols + j] = size * (shared[j % 4] - shared[j % 3] + 0.5f * own);
            if (dead && j % 10 == 3)
                f.x[t * cols + j] = 0.0f;
        }
    }
    assert_int_equal(nyb_hessian_init(&f.hessian, cols, NULL), NYB_OK);
    assert_int_equal(nyb_hessian_add(NULL, &f.hessian, f.inputs, NULL), NYB_OK);
}

static inline nyb_status solve(const nyb_context *ctx, const nyb_gptq_params *params,
                               nyb_qweight *q, nyb_gptq_report *report, nyb_err *err)
{
    nyb_gptq_factor factor;
    nyb_status status = nyb_gptq_prepare(ctx, &factor, &f.hessian, params, err);
    if (status == NYB_OK)
        status = nyb_gptq_solve(ctx, &factor, f.weight, params, q, report, err);
    else
        *q = (nyb_qweight){0};
    nyb_gptq_factor_clear(&factor);
    return status;
}

static inline void random_params(nyb_gptq_params *params, size_t cols, uint64_t *seed)
{
    static const unsigned bits[] = {2, 3, 4, 8};
    static const size_t blocks[] = {1, 7, 32, 100, 128, 1000};
    *params = NYB_GPTQ_DEFAULTS;
    params->grid.bits = bits[nyb_random_below(seed, 4)];
    params->grid.group_size = (size_t) nyb_random_below(seed, cols + 1);
    params->grid.symmetric = nyb_random_below(seed, 2);
    params->grid.scale_search = nyb_random_below(seed, 4) == 0;
    params->grid.scale_dtype = (nyb_dtype) nyb_random_below(seed, 3);
    params->grid.reference = nyb_random_below(seed, 4) == 0;
    params->grid.lowest_zero = (unsigned) nyb_random_below(seed, 2);
    params->order = (nyb_gptq_order) nyb_random_below(seed, 3);
    params->static_groups = nyb_random_below(seed, 2);
    params->block_cols = blocks[nyb_random_below(seed, 6)];
    params->refine = 0; // the pass alone
}

// D (H + raise diag(H) + lambda I) D^T of one row over the columns that have inputs, from the inputs
// themselves.
static inline double raised_error(const nyb_qweight *q, size_t i, double raise, double lambda)
{
    const size_t cols = f.weight.cols;
    float back[MAX_COLS];
    double total = 0.0;
    nyb_qweight_dequantize(q, i, nyb_mat_of(back, 1, cols));
    for (size_t t = 0; t < f.inputs.rows; t++) {
        double off = 0.0;
        for (size_t j = 0; j < cols; j++)
            off += (double) f.x[t * cols + j] * ((double) f.w[i * cols + j] - (double) back[j]);
        total += off * off;
    }
    for (size_t j = 0; (raise > 0.0 || lambda > 0.0) && j < cols; j++) {
        const double off = (double) f.w[i * cols + j] - (double) back[j];
        const double own = (double) nyb_row(f.hessian.h, j)[j];
        total += own > 0.0 ? (raise * own + lambda) * off * off : 0.0;
    }
    return total;
}

static inline double row_error(const nyb_qweight *q, size_t i, double lambda)
{
    return raised_error(q, i, 0.0, lambda);
}

static inline double squared_error(const nyb_qweight *q, double lambda)
{
    double total = 0.0;
    for (size_t i = 0; i < f.weight.rows; i++)
        total += row_error(q, i, lambda);
    return total;
}

static inline void assert_same(const nyb_qweight *a, const nyb_qweight *b)
{
    assert_int_equal(a->groups, b->groups);
    assert_memory_equal(a->codes, b->codes, a->rows * a->cols);
    assert_memory_equal(a->scales, b->scales, a->rows * a->groups * sizeof(float));
    assert_memory_equal(a->zeros, b->zeros, a->rows * a->groups);
    assert_memory_equal(a->group_of, b->group_of, a->cols * sizeof(uint32_t));
}

static inline void check_promises(const nyb_qweight *q, const nyb_gptq_params *params)
{
    const unsigned top = (1u << params->grid.bits) - 1;
    bool regular = true;
    for (size_t i = 0; i < q->rows * q->groups; i++) {
        assert_true(q->scales[i] > 0.0f && isfinite(q->scales[i]));
        assert_true(nyb_round_to(q->scales[i], params->grid.scale_dtype) == q->scales[i]);
        assert_in_range(q->zeros[i], params->grid.lowest_zero, top);
        assert_true(!params->grid.symmetric || q->zeros[i] == 1u << (params->grid.bits - 1));
    }
    for (size_t i = 0; i < q->rows * q->cols; i++)
        assert_in_range(q->codes[i], 0, top);
    size_t members[MAX_COLS] = {0};
    for (size_t j = 0; j < q->cols; j++) {
        assert_true(q->group_of[j] < q->groups);
        members[q->group_of[j]]++;
        regular &= q->group_of[j] == j / q->group_size;
    }
    for (size_t g = 0; g + 1 < q->groups; g++)
        assert_int_equal(members[g], q->group_size);
    assert_true(q->irregular != regular);
    assert_true(regular || (params->order == NYB_ORDER_FULL && !params->static_groups));
}

// Random layers solved by one to four threads, and once more by one.
static inline void check_same_bits(int trials, uint64_t seed, bool refined)
{
    for (int trial = 0; trial < trials; trial++) {
        nyb_gptq_params params;
        nyb_qweight first = {0};
        make(130, 300, 200, seed, trial % 2);
        random_params(&params, 300, &seed);
        if (refined)
            params.refine = 2;
        for (unsigned run = 0; run < 5; run++) {
            const nyb_context ctx = {.threads = run % 4 + 1};
            nyb_qweight q;
            assert_int_equal(solve(&ctx, &params, run ? &q : &first, NULL, NULL), NYB_OK);
            if (run) {
                assert_same(&q, &first);
                nyb_qweight_clear(&q);
            }
        }
        nyb_qweight_clear(&first);
        nyb_hessian_clear(&f.hessian);
    }
}

#endif // NYB_TESTS_GPTQ_LAYER_H_
