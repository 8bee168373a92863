#include "tests/gptq/layer.h"

// What refinement starts from: the same pass, which searches its scales, alone.
static nyb_gptq_params pass_of(const nyb_gptq_params *params)
{
    nyb_gptq_params pass = *params;
    pass.refine = 0;
    pass.grid.scale_search = true;
    return pass;
}

static void no_rows_loss_rises(void **state)
{
    uint64_t seed = 7;
    double worst = 0.0, off[2] = {0}, sum[2] = {0};
    (void) state;
    for (int trial = 0; trial < 60; trial++) {
        const size_t rows = 1 + (size_t) nyb_random_below(&seed, trial < 50 ? 20 : MAX_ROWS);
        const size_t cols = 2 + (size_t) nyb_random_below(&seed, MAX_COLS - 1);
        nyb_gptq_params params;
        nyb_gptq_report report;
        nyb_qweight before, after;
        make(rows, cols, 20 + (size_t) nyb_random_below(&seed, 300), seed, trial % 3 == 0);
        random_params(&params, cols, &seed);
        params.refine = 1 + (unsigned) nyb_random_below(&seed, 4);
        const nyb_gptq_params pass = pass_of(&params);
        assert_int_equal(solve(NULL, &pass, &before, NULL, NULL), NYB_OK);
        assert_int_equal(solve(NULL, &params, &after, &report, NULL), NYB_OK);
        check_promises(&after, &params);

        double total[2] = {0};
        for (size_t i = 0; i < rows; i++) {
            const double old = row_error(&before, i, 0.0), new = row_error(&after, i, 0.0);
            worst = fmax(worst, old > 0.0 ? new / old - 1.0 : new);
            total[0] += old;
            total[1] += new;
        }
        off[0] = fmax(off[0], fabs(report.pass_loss / total[0] - 1.0));
        off[1] = fmax(off[1], fabs(report.loss / total[1] - 1.0));
        sum[0] += 1.0;
        sum[1] += total[1] / total[0];
        nyb_qweight_clear(&before);
        nyb_qweight_clear(&after);
        nyb_hessian_clear(&f.hessian);
    }
    print_message("refined loss is %.3f of the pass's in the mean (tolerance 0.85)\n",
                  sum[1] / sum[0]);
    print_message(
        "a row's loss rose by at most %.2g (tolerance 1e-5); the losses reported are off by "
        "%.2g before and %.2g after (1e-4)\n",
        worst, off[0], off[1]);
    assert_true(sum[1] / sum[0] < 0.85);
    assert_true(worst <= 1e-5 && off[0] <= 1e-4 && off[1] <= 1e-4);
}

static void threads_and_reruns_give_the_same_bits(void **state)
{
    (void) state;
    check_same_bits(8, 43, true);
}

#define RAISE 0.15 // of the diagonal, as refinement has it

enum { TINY = 6, CODES = 4 * 4 * 4 * 4 * 4 * 4 }; // columns, and all their codes of 2 bits

// The least loss that any codes give row 0 on its grid; `moved` gets the least that codes in which
// only one differs give.
static double least_error(nyb_qweight *q, double lambda, double *moved)
{
    uint8_t kept[TINY];
    double least = INFINITY;
    memcpy(kept, q->codes, TINY);
    *moved = INFINITY;
    for (unsigned all = 0; all < CODES; all++) {
        unsigned differ = 0;
        for (size_t j = 0; j < TINY; j++) {
            q->codes[j] = (uint8_t) (all >> 2 * j & 3);
            differ += q->codes[j] != kept[j];
        }
        const double error = raised_error(q, 0, RAISE, lambda);
        least = fmin(least, error);
        if (differ == 1)
            *moved = fmin(*moved, error);
    }
    memcpy(q->codes, kept, TINY);
    return least;
}

// On layers small enough to try every code: no change of one code helps any more, and hardly ever
// do any codes at all.
static void tiny_layers_against_all_codes(void **state)
{
    enum { TRIALS = 60 };
    uint64_t seed = 3;
    unsigned best = 0;
    double ratio = 0.0, excess = -INFINITY;
    (void) state;
    for (int trial = 0; trial < TRIALS; trial++) {
        nyb_gptq_params params = NYB_GPTQ_DEFAULTS;
        nyb_gptq_report report;
        nyb_qweight q;
        double lambda = 0.0, moved = 0.0;
        make(1, TINY, 12, nyb_random_u64(&seed), false);
        params.grid.bits = 2;
        params.grid.group_size = trial % 2 ? 3 : 0;
        params.grid.symmetric = trial % 4 < 2;
        params.refine = 30;
        assert_int_equal(solve(NULL, &params, &q, &report, NULL), NYB_OK);
        for (size_t j = 0; j < TINY; j++)
            lambda += report.damping * (double) nyb_row(f.hessian.h, j)[j] / TINY;
        const double got = raised_error(&q, 0, RAISE, lambda),
                     least = least_error(&q, lambda, &moved);
        best += got <= least * 1.000001;
        ratio += got / least / TRIALS;
        excess = fmax(excess, got / moved - 1.0);
        nyb_qweight_clear(&q);
        nyb_hessian_clear(&f.hessian);
    }
    print_message(
        "the best of all codes in %u of %d layers (at least 57), %.3f of their loss in the "
        "mean (tolerance 1.01); any one code moved lowers it by at most %.2g (1e-5)\n",
        best, TRIALS, ratio, excess);
    assert_true(best >= 57 && ratio <= 1.01 && excess <= 1e-5);
}

static void refinement_needs_the_hessian_itself(void **state)
{
    nyb_gptq_params params = NYB_GPTQ_DEFAULTS;
    nyb_gptq_factor factor;
    nyb_qweight q;
    nyb_err err = {0};
    (void) state;
    make(10, 64, 100, 5, false);
    params.grid.group_size = 32;
    params.refine = NYB_REFINE_MOST + 1;
    assert_int_equal(nyb_gptq_prepare(NULL, &factor, &f.hessian, &params, &err), NYB_E_ARG);
    assert_non_null(strstr(err.text, "101"));
    params.refine = 1;
    assert_int_equal(nyb_gptq_prepare_in_place(NULL, &factor, &f.hessian, &params, NULL), NYB_OK);
    assert_int_equal(nyb_gptq_solve(NULL, &factor, f.weight, &params, &q, NULL, &err), NYB_E_ARG);
    assert_non_null(strstr(err.text, "hessian"));
    assert_null(q.codes);
    nyb_gptq_factor_clear(&factor);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_rows_loss_rises),
        cmocka_unit_test(threads_and_reruns_give_the_same_bits),
        cmocka_unit_test(tiny_layers_against_all_codes),
        cmocka_unit_test(refinement_needs_the_hessian_itself),
    };
    return cmocka_run_group_tests_name("refine", tests, NULL, NULL);
}
