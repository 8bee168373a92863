#include "tests/gptq/layer.h"

#include "kernels/blocks.h"

// Nothing can be moved between columns that do not meet: GPTQ is plain rounding, bit for bit.
static void white_inputs_give_plain_rounding(void **state)
{
    uint64_t seed = 11;
    (void) state;
    for (int trial = 0; trial < 60; trial++) {
        const size_t rows = 1 + (size_t) nyb_random_below(&seed, 70);
        const size_t cols = 1 + (size_t) nyb_random_below(&seed, 200);
        nyb_gptq_params params;
        nyb_gptq_report report;
        nyb_qweight q, plain;
        make(rows, cols, 1, seed, false);
        memset(f.hessian.h.at, 0, cols * cols * sizeof(float));
        for (size_t j = 0; j < cols; j++)
            nyb_row(f.hessian.h, j)[j] = 1.0f;
        random_params(&params, cols, &seed);
        assert_int_equal(solve(NULL, &params, &q, &report, NULL), NYB_OK);
        assert_int_equal(nyb_round_nearest(NULL, &plain, f.weight, &params.grid, NULL), NYB_OK);
        assert_same(&q, &plain);
        assert_false(q.irregular);
        assert_true(report.loss == report.rtn_loss);
        nyb_qweight_clear(&q);
        nyb_qweight_clear(&plain);
        nyb_hessian_clear(&f.hessian);
    }
}

// The solver sums squared scaled errors; that this is tr(D (H + lambda I) D^T) is a theorem
// (D = E U and U (H + lambda I) U^T = I), so it checks U, the updates and the losses at once.
static void losses_are_the_quadratic_forms(void **state)
{
    uint64_t seed = 21;
    double worst[2] = {0};
    (void) state;
    for (int trial = 0; trial < 120; trial++) {
        const size_t rows = 1 + (size_t) nyb_random_below(&seed, trial < 100 ? 20 : MAX_ROWS);
        const size_t cols = 1 + (size_t) nyb_random_below(&seed, MAX_COLS);
        const size_t tokens = 20 + (size_t) nyb_random_below(&seed, trial < 100 ? 100 : 400);
        nyb_gptq_params params;
        nyb_gptq_report report;
        nyb_qweight q;
        make(rows, cols, tokens, seed, trial % 3 == 0);
        random_params(&params, cols, &seed);
        assert_int_equal(solve(NULL, &params, &q, &report, NULL), NYB_OK);
        check_promises(&q, &params);

        double mean = 0.0;
        size_t alive = 0;
        for (size_t j = 0; j < cols; j++) {
            mean += (double) nyb_row(f.hessian.h, j)[j];
            alive += nyb_row(f.hessian.h, j)[j] > 0.0f;
        }
        mean = params.grid.reference ? (mean + (double) (cols - alive)) / (double) cols
                                     : mean / (double) alive;
        const double want = squared_error(&q, 0.0);
        const double damped = squared_error(&q, report.damping * mean);
        worst[0] = fmax(worst[0], fabs(report.loss / want - 1.0));
        worst[1] = fmax(worst[1], fabs(report.solver_loss / damped - 1.0));
        assert_near(report.loss / want, 1.0, 1e-4);
        assert_near(report.solver_loss / damped, 1.0, 1e-3);
        assert_near(report.relative_error * report.output_energy / report.loss, 1.0, 1e-9);
        assert_int_equal(report.dead_columns, cols - alive);
        assert_int_equal(report.tokens, tokens);
        nyb_qweight_clear(&q);
        nyb_hessian_clear(&f.hessian);
    }
    print_message("loss off by at most %.2g (tolerance 1e-4), solver's sum by %.2g (1e-3)\n",
                  worst[0], worst[1]);
}

static void gptq_beats_plain_rounding(void **state)
{
    uint64_t seed = 31;
    (void) state;
    for (int order = NYB_ORDER_GROUP; order <= NYB_ORDER_FULL; order++) {
        double worst = 0.0, mean = 0.0;
        for (int trial = 0; trial < 12; trial++) {
            nyb_gptq_params params = NYB_GPTQ_DEFAULTS;
            nyb_gptq_report report;
            nyb_qweight q;
            params.grid.bits = 2u + (unsigned) trial % 3u;
            params.grid.group_size = trial % 2 ? 64 : 0;
            params.order = (nyb_gptq_order) order;
            make(64, 256, 400, nyb_random_u64(&seed), false);
            assert_int_equal(solve(NULL, &params, &q, &report, NULL), NYB_OK);
            worst = fmax(worst, report.loss / report.rtn_loss);
            mean += report.loss / report.rtn_loss / 12;
            nyb_qweight_clear(&q);
            nyb_hessian_clear(&f.hessian);
        }
        print_message("order %d: loss %.3f of plain rounding's, at worst %.3f (tolerance 0.9)\n",
                      order, mean, worst);
        assert_true(worst < 0.9);
    }
}

static void threads_and_reruns_give_the_same_bits(void **state)
{
    (void) state;
    check_same_bits(12, 41, false);
}

// Blocks are a matter of speed alone: with group parameters always taken from weights that have
// seen every error so far, only rounding noise may tell block sizes apart.
static void blocks_change_nothing_but_noise(void **state)
{
    static const size_t blocks[] = {1, 48, 64, 100, 1000}, groups[] = {0, 16, 48, 64, 150};
    (void) state;
    make(40, 300, 500, 51, true);
    for (size_t g = 0; g < 5; g++) {
        nyb_gptq_params params = NYB_GPTQ_DEFAULTS;
        nyb_qweight base;
        size_t worst = 0;
        params.grid.group_size = groups[g];
        params.order = (nyb_gptq_order) (g % 3);
        assert_int_equal(solve(NULL, &params, &base, NULL, NULL), NYB_OK);
        for (size_t b = 0; b < 5; b++) {
            size_t differ = 0;
            nyb_qweight q;
            params.block_cols = blocks[b];
            assert_int_equal(solve(NULL, &params, &q, NULL, NULL), NYB_OK);
            for (size_t i = 0; i < 40 * 300; i++)
                differ += q.codes[i] != base.codes[i];
            worst = differ > worst ? differ : worst;
            nyb_qweight_clear(&q);
        }
        print_message("group %zu: %zu of 12000 codes differ between block sizes (tolerance 60)\n",
                      groups[g], worst);
        assert_true(worst <= 60);
        nyb_qweight_clear(&base);
    }
    nyb_hessian_clear(&f.hessian);
}

static void dead_columns_become_zero(void **state)
{
    nyb_gptq_params params = NYB_GPTQ_DEFAULTS;
    nyb_gptq_report report;
    nyb_qweight q;
    (void) state;
    make(20, 100, 150, 61, true);
    params.grid.group_size = 16;
    for (int order = NYB_ORDER_GROUP; order <= NYB_ORDER_FULL; order++) {
        params.order = (nyb_gptq_order) order;
        assert_int_equal(solve(NULL, &params, &q, &report, NULL), NYB_OK);
        assert_int_equal(report.dead_columns, 10);
        for (size_t i = 0; i < 20; i++) {
            for (size_t j = 3; j < 100; j += 10)
                assert_int_equal(q.codes[i * 100 + j], q.zeros[i * q.groups + q.group_of[j]]);
        }
        nyb_qweight_clear(&q);
    }
    nyb_hessian_clear(&f.hessian);

    make(20, 100, 1, 62, false); // no input at all: everything is dead
    memset(f.hessian.h.at, 0, 100 * 100 * sizeof(float));
    assert_int_equal(solve(NULL, &params, &q, &report, NULL), NYB_OK);
    assert_int_equal(report.dead_columns, 100);
    assert_true(report.loss == 0.0 && report.relative_error == 0.0);
    nyb_qweight_clear(&q);
    nyb_hessian_clear(&f.hessian);
}

static void preparing_in_place_gives_the_same_result(void **state)
{
    uint64_t seed = 71;
    (void) state;
    for (int trial = 0; trial < 12; trial++) {
        const size_t cols = 2 + (size_t) nyb_random_below(&seed, 300);
        nyb_gptq_params params;
        nyb_gptq_report want, got;
        nyb_gptq_factor factor;
        nyb_qweight a, b;
        make(30, cols, 2 * cols > MAX_TOKENS ? MAX_TOKENS : 2 * cols, seed, trial % 2);
        random_params(&params, cols, &seed);
        assert_int_equal(solve(NULL, &params, &a, &want, NULL), NYB_OK);
        assert_int_equal(nyb_gptq_prepare_in_place(NULL, &factor, &f.hessian, &params, NULL),
                         NYB_OK);
        assert_null(f.hessian.h.at);
        assert_int_equal(nyb_gptq_solve(NULL, &factor, f.weight, &params, &b, &got, NULL), NYB_OK);
        assert_same(&a, &b);
        assert_near(got.loss / want.loss, 1.0, 0.01);
        assert_true(isnan(got.rtn_loss));
        assert_int_equal(got.tokens, want.tokens);
        nyb_qweight_clear(&a);
        nyb_qweight_clear(&b);
        nyb_gptq_factor_clear(&factor);
    }
}

// An indefinite matrix, as rounding in storage can make one: 1 on the diagonal, 1.05 beside it.
static void damping_grows_until_it_works_or_its_limit(void **state)
{
    nyb_gptq_params params = NYB_GPTQ_DEFAULTS;
    nyb_gptq_report report;
    nyb_qweight q;
    nyb_err err = {0};
    (void) state;
    make(10, 200, 1, 81, false);
    params.order = NYB_ORDER_NONE;
    params.damping = 0.01;
    for (size_t i = 0; i < 200; i++) {
        for (size_t j = 0; j < 200; j++)
            nyb_row(f.hessian.h, i)[j] = i == j ? 1.0f : i / 2 == j / 2 ? 1.05f : 0.0f;
    }
    assert_int_equal(solve(NULL, &params, &q, &report, NULL), NYB_OK);
    assert_int_equal(report.attempts, 4); // 0.01, 0.02, 0.04, 0.08
    assert_near(report.damping, 0.08, 1e-12);
    nyb_qweight_clear(&q);

    params.damping_limit = 0.04;
    assert_int_equal(solve(NULL, &params, &q, &report, &err), NYB_E_NOT_PD);
    assert_non_null(strstr(err.text, "damping 0.01 to 0.04"));
    assert_null(q.codes);

    nyb_gptq_factor factor; // in place, the Hessian is gone
    assert_int_equal(nyb_gptq_prepare_in_place(NULL, &factor, &f.hessian, &params, NULL),
                     NYB_E_NOT_PD);
    assert_null(f.hessian.h.at);
    assert_null(factor.u.at);
}

static void errors_are_named_and_leave_nothing(void **state)
{
    nyb_gptq_params params = NYB_GPTQ_DEFAULTS;
    nyb_gptq_factor factor;
    nyb_gptq_report report = {.loss = 7.0};
    nyb_qweight q;
    nyb_err err = {0};
    (void) state;
    make(70, 140, 200, 91, false);
    params.grid.group_size = 32;
    f.w[69 * 140 + 139] = NAN;
    assert_int_equal(solve(NULL, &params, &q, &report, &err), NYB_E_NUMERIC);
    assert_string_equal(err.text, "weight (69, 139) is nan");
    assert_null(q.codes);
    assert_true(report.loss == 7.0);
    f.w[69 * 140 + 139] = 1e6f;
    params.grid.scale_dtype = NYB_F16;
    assert_int_equal(solve(NULL, &params, &q, &report, &err), NYB_E_NUMERIC);
    assert_non_null(strstr(err.text, "row 69"));
    f.w[69 * 140 + 139] = 0.0f;

    const float kept = nyb_row(f.hessian.h, 5)[77];
    nyb_row(f.hessian.h, 5)[77] = NAN;
    assert_int_equal(solve(NULL, &params, &q, &report, &err), NYB_E_NUMERIC);
    nyb_row(f.hessian.h, 5)[77] = kept;
    nyb_row(f.hessian.h, 5)[5] *= -1.0f;
    assert_int_equal(solve(NULL, &params, &q, &report, &err), NYB_E_NUMERIC);
    assert_non_null(strstr(err.text, "(5, 5)"));
    nyb_row(f.hessian.h, 5)[5] *= -1.0f;

    assert_int_equal(nyb_gptq_prepare(NULL, &factor, &f.hessian, &params, NULL), NYB_OK);
    params.grid.group_size = 16;
    assert_int_equal(nyb_gptq_solve(NULL, &factor, f.weight, &params, &q, NULL, &err), NYB_E_ARG);
    params.grid.group_size = 32;
    f.weight.cols--;
    assert_int_equal(nyb_gptq_solve(NULL, &factor, f.weight, &params, &q, NULL, &err), NYB_E_SHAPE);
    nyb_gptq_factor_clear(&factor);
    nyb_hessian_clear(&f.hessian);
}

static void bad_parameters_are_refused(void **state)
{
    (void) state;
    make(4, 20, 30, 95, false);
    for (int i = 0; i < 10; i++) {
        nyb_gptq_params p = NYB_GPTQ_DEFAULTS;
        nyb_gptq_factor factor;
        p.grid.group_size = i == 0 ? 21 : 4;
        p.damping = i == 1 ? 0.0 : i == 2 ? (double) NAN : i == 3 ? 2.0 : 0.01;
        p.damping_growth = i == 4 ? 1.0 : 2.0;
        p.damping_limit = i == 5 ? (double) INFINITY : 1.0;
        p.block_cols = i == 6 ? 0 : 128;
        p.grid.bits = i == 7 ? 16 : 4;
        p.order = i == 8 ? (nyb_gptq_order) 9 : NYB_ORDER_NONE;
        p.grid.kind = i == 9 ? NYB_GRID_ABSMAX : NYB_GRID_MINMAX;
        assert_int_equal(nyb_gptq_prepare(NULL, &factor, &f.hessian, &p, NULL), NYB_E_ARG);
        assert_null(factor.u.at);
    }
    nyb_hessian_clear(&f.hessian);
}

// On the grid of every block type, in every order: no worse than plain rounding, and what comes out
// are blocks of that type.
static void block_types_are_solved_on_their_grids(void **state)
{
    (void) state;
    static float row[MAX_COLS], again[MAX_COLS];
    size_t seen = 0;
    make(70, 256, 300, 31, true);
    for (int t = NYB_DTYPE_COUNT; t < NYB_DTYPE_END; t++) {
        const nyb_block_codec *const codec = nyb_block_codec_get((nyb_dtype) t);
        const nyb_block_size size = nyb_dtype_block((nyb_dtype) t);
        for (int order = NYB_ORDER_GROUP; codec->split && order <= NYB_ORDER_FULL; order++) {
            nyb_gptq_params params = NYB_GPTQ_DEFAULTS;
            nyb_gptq_report report;
            nyb_qweight q;
            unsigned char blocks[1024];
            params.grid.block = (nyb_dtype) t;
            params.grid.scale_dtype = NYB_F16;
            params.order = (nyb_gptq_order) order;
            params.static_groups = order == NYB_ORDER_FULL;
            params.refine = 0;
            assert_int_equal(solve(NULL, &params, &q, &report, NULL), NYB_OK);
            if (order == NYB_ORDER_GROUP)
                print_message("%s: loss %.4g, plain rounding %.4g\n", nyb_dtype_name((nyb_dtype) t),
                              report.loss, report.rtn_loss);
            assert_true(report.loss < report.rtn_loss);
            assert_true(report.solver_loss > 0.999 * report.loss); // it has the damping's part
            for (size_t i = 0; i < q.rows; i++) {
                nyb_qweight_dequantize(&q, i, nyb_mat_of(row, 1, q.cols));
                for (size_t k = 0; k < q.cols / size.values; k++) {
                    const size_t part = i * q.groups + k * size.values / codec->part;
                    assert_true(codec->join(blocks, q.codes + i * q.cols + k * size.values,
                                            q.scales + part, q.mins ? q.mins + part : NULL));
                    codec->dequantize(again, blocks, 1);
                    for (size_t j = 0; j < size.values; j++)
                        assert_true(again[j] == row[k * size.values + j]);
                }
            }
            nyb_qweight_clear(&q);
            seen++;
        }
    }
    nyb_hessian_clear(&f.hessian);
    assert_int_equal(seen, 30);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(block_types_are_solved_on_their_grids),
        cmocka_unit_test(white_inputs_give_plain_rounding),
        cmocka_unit_test(losses_are_the_quadratic_forms),
        cmocka_unit_test(gptq_beats_plain_rounding),
        cmocka_unit_test(threads_and_reruns_give_the_same_bits),
        cmocka_unit_test(blocks_change_nothing_but_noise),
        cmocka_unit_test(dead_columns_become_zero),
        cmocka_unit_test(preparing_in_place_gives_the_same_result),
        cmocka_unit_test(damping_grows_until_it_works_or_its_limit),
        cmocka_unit_test(errors_are_named_and_leave_nothing),
        cmocka_unit_test(bad_parameters_are_refused),
    };
    return cmocka_run_group_tests_name("solve", tests, NULL, NULL);
}
