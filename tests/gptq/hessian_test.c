#include "tests/test.h"

#include <math.h>
#include <string.h>

#include "core/dtype.h"
#include "gptq/hessian.h"

enum { N = 410, TOKENS = 1300 };

static float x[TOKENS * N];

static void fill(uint64_t seed)
{
    for (size_t i = 0; i < TOKENS * N; i++)
        x[i] = test_uniform(&seed);
}

static void sum_is_that_of_f64(void **state)
{
    nyb_hessian hessian;
    double worst = 0.0;
    (void) state;
    fill(1);
    assert_int_equal(nyb_hessian_init(&hessian, N, NULL), NYB_OK);
    assert_int_equal(nyb_hessian_add(NULL, &hessian, nyb_mat_of(x, TOKENS, N), NULL), NYB_OK);
    assert_int_equal(hessian.tokens, TOKENS);
    for (size_t i = 0; i < N; i++) {
        for (size_t j = i; j < N; j++) {
            double want = 0.0;
            for (size_t t = 0; t < TOKENS; t++)
                want += (double) x[t * N + i] * (double) x[t * N + j];
            worst = fmax(worst, fabs((double) nyb_row(hessian.h, i)[j] - want));
        }
    }
    print_message("worst error %.2g of the diagonal's mean (tolerance 1e-6)\n",
                  worst / (TOKENS / 3.0));
    assert_near(worst / (TOKENS / 3.0), 0.0, 1e-6);
    nyb_hessian_clear(&hessian);
}

static void batches_and_threads_do_not_change_bits(void **state)
{
    nyb_hessian whole, parts;
    (void) state;
    fill(2);
    for (unsigned threads = 1; threads <= 4; threads++) {
        const nyb_context ctx = {.threads = threads};
        assert_int_equal(nyb_hessian_init(&whole, N, NULL), NYB_OK);
        assert_int_equal(nyb_hessian_init(&parts, N, NULL), NYB_OK);
        assert_int_equal(nyb_hessian_add(NULL, &whole, nyb_mat_of(x, TOKENS, N), NULL), NYB_OK);
        for (size_t t = 0; t < TOKENS; t += NYB_HESSIAN_CHUNK) {
            const size_t rows = TOKENS - t < NYB_HESSIAN_CHUNK ? TOKENS - t : NYB_HESSIAN_CHUNK;
            assert_int_equal(nyb_hessian_add(&ctx, &parts, nyb_mat_of(x + t * N, rows, N), NULL),
                             NYB_OK);
        }
        for (size_t i = 0; i < N; i++)
            assert_memory_equal(nyb_row(whole.h, i) + i, nyb_row(parts.h, i) + i,
                                (N - i) * sizeof(float));
        nyb_hessian_clear(&whole);
        nyb_hessian_clear(&parts);
    }
}

// Each factor of a product is off by 2^-9 of itself at most when it is rounded to bf16, so H is off
// by 2^-8 of its diagonal at most, and by far less where roundings cancel.
static void bf16_sums_are_near(void **state)
{
    nyb_hessian hessian[2];
    double worst = 0.0, largest = 0.0;
    (void) state;
    fill(5);
    for (size_t i = 0; i < 2; i++) {
        const nyb_context ctx = {.compute = i ? NYB_COMPUTE_BF16 : NYB_COMPUTE_F32};
        assert_int_equal(nyb_hessian_init(&hessian[i], N, NULL), NYB_OK);
        assert_int_equal(nyb_hessian_add(&ctx, &hessian[i], nyb_mat_of(x, TOKENS, N), NULL),
                         NYB_OK);
    }
    for (size_t i = 0; i < N; i++) {
        for (size_t j = i; j < N; j++) {
            const double want = (double) nyb_row(hessian[0].h, i)[j];
            worst = fmax(worst, fabs((double) nyb_row(hessian[1].h, i)[j] - want));
            largest = fmax(largest, fabs(want));
        }
    }
    print_message("off by %.2g of the largest element (tolerance 1e-3)\n", worst / largest);
    assert_true(worst > 0.0 && worst < 1e-3 * largest);
    nyb_hessian_clear(&hessian[0]);
    nyb_hessian_clear(&hessian[1]);
}

// Activations that lie as bf16 add up to what their f32 do, to the last bit.
static void rounded_activations_give_the_same_sum(void **state)
{
    enum { STRIDE = N + 22 };
    static uint16_t rounded[TOKENS * STRIDE];
    const nyb_context ctx = {.threads = 2, .compute = NYB_COMPUTE_BF16};
    nyb_hessian want, got;
    (void) state;
    fill(6);
    for (size_t t = 0; t < TOKENS; t++)
        nyb_narrow(rounded + t * STRIDE, NYB_BF16, x + t * N, N);
    const nyb_operand operand = {
        .at = rounded, .dtype = NYB_BF16, .rows = TOKENS, .depth = N, .stride = STRIDE};
    assert_int_equal(nyb_hessian_init(&want, N, NULL), NYB_OK);
    assert_int_equal(nyb_hessian_init(&got, N, NULL), NYB_OK);
    assert_int_equal(nyb_hessian_add(&ctx, &want, nyb_mat_of(x, TOKENS, N), NULL), NYB_OK);
    assert_int_equal(nyb_hessian_add_operand(&ctx, &got, &operand, NULL), NYB_OK);
    assert_int_equal(got.tokens, TOKENS);
    assert_true(nyb_row(got.h, 0)[0] > 0.0f);
    assert_memory_equal(want.h.at, got.h.at, N * N * sizeof(float));
    nyb_hessian_clear(&want);
    nyb_hessian_clear(&got);
}

// tr(W H W^T) is |X W^T|^2.
static void loss_is_the_error_of_the_output(void **state)
{
    enum { ROWS = 70 };
    static float w[ROWS * N];
    const nyb_grid_params grid = {.bits = 3, .group_size = 64};
    uint64_t seed = 3;
    nyb_hessian hessian;
    nyb_qweight q;
    (void) state;
    fill(3);
    for (size_t i = 0; i < ROWS * N; i++)
        w[i] = test_uniform(&seed);
    assert_int_equal(nyb_hessian_init(&hessian, N, NULL), NYB_OK);
    assert_int_equal(nyb_hessian_add(NULL, &hessian, nyb_mat_of(x, TOKENS, N), NULL), NYB_OK);
    assert_int_equal(nyb_round_nearest(NULL, &q, nyb_mat_of(w, ROWS, N), &grid, NULL), NYB_OK);

    static float back[ROWS * N];
    nyb_qweight_dequantize(&q, 0, nyb_mat_of(back, ROWS, N));
    double want[2] = {0}, got[2] = {0};
    for (size_t t = 0; t < TOKENS; t++) {
        for (size_t i = 0; i < ROWS; i++) {
            double y = 0.0, off = 0.0;
            for (size_t j = 0; j < N; j++) {
                y += (double) x[t * N + j] * (double) w[i * N + j];
                off += (double) x[t * N + j] * (double) (w[i * N + j] - back[i * N + j]);
            }
            want[0] += y * y;
            want[1] += off * off;
        }
    }
    const nyb_mat weight = nyb_mat_of(w, ROWS, N);
    assert_int_equal(nyb_hessian_loss(NULL, &hessian, weight, NULL, &got[0], NULL), NYB_OK);
    assert_int_equal(nyb_hessian_loss(NULL, &hessian, weight, &q, &got[1], NULL), NYB_OK);
    for (size_t i = 0; i < 2; i++) {
        print_message("loss off by %.2g of itself (tolerance 1e-5)\n", got[i] / want[i] - 1.0);
        assert_near(got[i] / want[i], 1.0, 1e-5);
    }
    for (int rounded = 0; rounded < 2; rounded++) {
        const nyb_context ctx = {.compute = rounded ? NYB_COMPUTE_BF16 : NYB_COMPUTE_F32};
        const double tolerance = rounded ? 1e-3 : 1e-5;
        double near[2] = {0}, alone[2] = {0};
        assert_int_equal(
            nyb_hessian_yardsticks(&ctx, &hessian, weight, &q, &near[1], &near[0], NULL), NYB_OK);
        assert_int_equal(nyb_hessian_yardsticks(&ctx, &hessian, weight, &q, &alone[1], NULL, NULL),
                         NYB_OK);
        assert_int_equal(
            nyb_hessian_yardsticks(&ctx, &hessian, weight, NULL, NULL, &alone[0], NULL), NYB_OK);
        for (size_t i = 0; i < 2; i++) {
            print_message("%s: beside it by %.2g (tolerance %g)\n", rounded ? "bf16" : "f32",
                          near[i] / want[i] - 1.0, tolerance);
            assert_near(near[i] / want[i], 1.0, tolerance);
            assert_true(near[i] == alone[i]);
        }
    }
    assert_int_equal(nyb_hessian_loss(NULL, &hessian, nyb_mat_of(w, ROWS, N - 1), NULL, got, NULL),
                     NYB_E_SHAPE);
    nyb_qweight_clear(&q);
    nyb_hessian_clear(&hessian);
}

static void shapes_are_checked(void **state)
{
    nyb_hessian hessian;
    (void) state;
    assert_int_equal(nyb_hessian_init(&hessian, 0, NULL), NYB_E_ARG);
    assert_int_equal(nyb_hessian_init(&hessian, (size_t) 1 << 33, NULL), NYB_E_NOMEM);
    assert_null(hessian.h.at);
    assert_int_equal(nyb_hessian_init(&hessian, 5, NULL), NYB_OK);
    assert_int_equal(nyb_hessian_add(NULL, &hessian, nyb_mat_of(x, 3, 4), NULL), NYB_E_SHAPE);
    assert_int_equal(nyb_hessian_add(NULL, &hessian, nyb_mat_of(x, 0, 5), NULL), NYB_OK);
    assert_int_equal(hessian.tokens, 0);
    nyb_hessian_clear(&hessian);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sum_is_that_of_f64),
        cmocka_unit_test(batches_and_threads_do_not_change_bits),
        cmocka_unit_test(bf16_sums_are_near),
        cmocka_unit_test(rounded_activations_give_the_same_sum),
        cmocka_unit_test(loss_is_the_error_of_the_output),
        cmocka_unit_test(shapes_are_checked),
    };
    return cmocka_run_group_tests_name("hessian", tests, NULL, NULL);
}
