#include "tests/test.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "core/cpu.h"
#include "core/dtype.h"
#include "core/memory.h"
#include "kernels/codes.h"
#include "ptq/grid.h"

enum { MAX = 70 * 300 };

static void fill(float *w, size_t n, uint64_t *seed)
{
    for (size_t i = 0; i < n; i++)
        w[i] = test_uniform(seed) * test_uniform(seed);
}

static nyb_grid_params random_params(uint64_t *seed, size_t cols)
{
    static const unsigned bits[] = {2, 3, 4, 8};
    static const nyb_dtype dtypes[] = {NYB_F32, NYB_F16, NYB_BF16};
    nyb_grid_params params = {.bits = bits[nyb_random_below(seed, 4)],
                              .group_size = (size_t) nyb_random_below(seed, cols + 1),
                              .symmetric = nyb_random_below(seed, 2),
                              .scale_search = nyb_random_below(seed, 2),
                              .scale_dtype = dtypes[nyb_random_below(seed, 3)],
                              .reference = nyb_random_below(seed, 4) == 0};
    if (!params.reference)
        params.lowest_zero = (unsigned) nyb_random_below(seed, 2);
    return params;
}

// Every promise that qweight.h and grid.h make, for weights of every shape and setting.
static void results_keep_their_promises(void **state)
{
    static float w[MAX];
    uint64_t seed = 1;
    (void) state;
    for (int trial = 0; trial < 300; trial++) {
        const size_t rows = 1 + (size_t) nyb_random_below(&seed, 70);
        const size_t cols = 1 + (size_t) nyb_random_below(&seed, 300);
        const nyb_grid_params params = random_params(&seed, cols);
        const float top = nyb_grid_top(params.bits);
        nyb_qweight q;
        fill(w, rows * cols, &seed);
        assert_int_equal(nyb_round_nearest(NULL, &q, nyb_mat_of(w, rows, cols), &params, NULL),
                         NYB_OK);
        for (size_t i = 0; i < rows * q.groups; i++) {
            assert_true(q.scales[i] > 0.0f && isfinite(q.scales[i]));
            assert_true(nyb_round_to(q.scales[i], params.scale_dtype) == q.scales[i]);
            assert_true(q.zeros[i] >= params.lowest_zero && (float) q.zeros[i] <= top);
            assert_true(!params.symmetric || q.zeros[i] == 1u << (params.bits - 1));
        }
        for (size_t i = 0; i < rows * cols; i++) {
            const size_t at = i / cols * q.groups + q.group_of[i % cols];
            const double x = (double) w[i] / (double) q.scales[at] + q.zeros[at];
            const double nearest = fmin(fmax(x, 0.0), (double) top);
            assert_true((float) q.codes[i] <= top);
            assert_near(q.codes[i], nearest, 0.5 + 1e-4);
        }
        nyb_qweight_clear(&q);
    }
}

// Without a search no weight inside an asymmetric range is further from its point than half a
// step; that covers groups of one sign when zero points start at 1.
static void asymmetric_ranges_cover_their_group(void **state)
{
    static float w[64 * 96];
    uint64_t seed = 5;
    (void) state;
    for (int sign = -1; sign <= 1; sign++) {
        for (unsigned lowest = 0; lowest <= 1; lowest++) {
            const nyb_grid_params params = {.bits = 4, .group_size = 32, .lowest_zero = lowest};
            nyb_qweight q;
            double worst = 0.0;
            fill(w, 64 * 96, &seed);
            for (size_t i = 0; sign && i < 64 * 96; i++)
                w[i] = (float) sign * fabsf(w[i]);
            assert_int_equal(nyb_round_nearest(NULL, &q, nyb_mat_of(w, 64, 96), &params, NULL),
                             NYB_OK);
            for (size_t i = 0; i < 64 * 96; i++) {
                const size_t at = i / 96 * q.groups + i % 96 / 32;
                const float value = q.scales[at] * (float) (q.codes[i] - q.zeros[at]);
                worst = fmax(worst, (double) fabsf(w[i] - value) / (double) q.scales[at]);
            }
            print_message("sign %d, lowest zero %u: worst error %.3f steps (tolerance 1)\n", sign,
                          lowest, worst);
            assert_near(worst, 0.5, 0.5); // rounding the zero point costs up to half a step
            nyb_qweight_clear(&q);
        }
    }
}

// The grids that many ranges get at once, at every level, against those that one gets by itself.
static void grids_of_many_ranges_are_those_of_each(void **state)
{
    enum { MOST = 37, LEVELS = 3 };
    static const unsigned levels[LEVELS] = {0, NYB_CPU_AVX2, NYB_CPU_AVX2 | NYB_CPU_AVX512};
    uint64_t seed = 6;
    (void) state;
    for (int trial = 0; trial < 2000; trial++) {
        const size_t n = (size_t) nyb_random_below(&seed, MOST + 1);
        nyb_grid_params params = random_params(&seed, 1);
        params.reference = false;
        const nyb_code_span span = {.scale_dtype = params.scale_dtype,
                                    .top = nyb_grid_top(params.bits),
                                    .lowest = (float) params.lowest_zero,
                                    .symmetric = params.symmetric};
        float low[MOST], high[MOST], scale[MOST + 1], zero[MOST + 1];
        for (size_t i = 0; i < n; i++) {
            const int exponent = (int) nyb_random_below(&seed, 200) - 120;
            low[i] = trial % 5 == 0 ? 0.0f : -ldexpf(fabsf(test_uniform(&seed)), exponent);
            high[i] = trial % 7 == 0 ? 0.0f : ldexpf(fabsf(test_uniform(&seed)), exponent);
        }
        for (size_t l = 0; l < LEVELS; l++) {
            if ((nyb_cpu_detected() & levels[l]) != levels[l])
                continue;
            scale[n] = zero[n] = 42.0f;
            nyb_code_ops_for(levels[l])->spans(scale, zero, low, high, n, &span);
            assert_true(scale[n] == 42.0f && zero[n] == 42.0f);
            for (size_t i = 0; i < n; i++) {
                float from = low[i], to = high[i], want_scale, want_zero;
                if (params.symmetric) {
                    to = fmaxf(-from, to);
                    from = -to;
                }
                if (from == 0.0f && to == 0.0f) {
                    from = -1.0f;
                    to = 1.0f;
                }
                nyb_grid_span(&params, from, to, &want_scale, &want_zero);
                assert_true(scale[i] == want_scale && zero[i] == want_zero);
            }
        }
    }
}

// A matrix as a file holds it gets the grids and codes of its values in f32, whatever makes them.
static void stored_matrices_are_rounded_as_their_values(void **state)
{
    static float w[MAX];
    static unsigned char bytes[MAX * sizeof(float) + 1];
    static const nyb_dtype dtypes[] = {NYB_F32, NYB_F16, NYB_BF16};
    uint64_t seed = 9;
    (void) state;
    for (int trial = 0; trial < 100; trial++) {
        const nyb_dtype dtype = dtypes[trial % 3];
        const size_t rows = 1 + (size_t) nyb_random_below(&seed, 70);
        const size_t cols = 1 + (size_t) nyb_random_below(&seed, 300), n = rows * cols;
        const nyb_grid_params params = random_params(&seed, cols);
        const nyb_tensor tensor = {.name = "some",
                                   .dtype = dtype,
                                   .rank = 2,
                                   .shape = {rows, cols},
                                   .at = bytes + 1,
                                   .bytes = n * nyb_dtype_bytes(dtype)};
        nyb_qweight q, stored;
        fill(w, n, &seed);
        nyb_narrow(bytes + 1, dtype, w, n);
        nyb_widen(w, bytes + 1, dtype, n);
        assert_int_equal(nyb_round_nearest(NULL, &q, nyb_mat_of(w, rows, cols), &params, NULL),
                         NYB_OK);
        assert_int_equal(nyb_round_stored(NULL, &stored, &tensor, &params, NULL), NYB_OK);
        assert_memory_equal(q.codes, stored.codes, n);
        assert_memory_equal(q.scales, stored.scales, rows * q.groups * sizeof(float));
        assert_memory_equal(q.zeros, stored.zeros, rows * q.groups);
        assert_true(q.symmetric == stored.symmetric && q.scale_dtype == stored.scale_dtype);
        nyb_qweight_clear(&q);
        nyb_qweight_clear(&stored);
    }
    nyb_err err = {0};
    nyb_qweight q;
    const nyb_tensor codes = {.name = "some", .dtype = NYB_I8, .rank = 2, .shape = {1, 1}};
    assert_int_equal(nyb_round_stored(NULL, &q, &codes, &NYB_GRID_DEFAULTS, &err), NYB_E_ARG);
    assert_non_null(strstr(err.text, "'some'"));
    assert_null(q.codes);
}

static void search_never_raises_the_squared_error(void **state)
{
    static float w[64 * 128];
    uint64_t seed = 8;
    (void) state;
    for (int trial = 0; trial < 16; trial++) {
        nyb_grid_params params = {.bits = 2u + (unsigned) trial % 3u,
                                  .group_size = 64,
                                  .symmetric = trial & 4,
                                  .lowest_zero = (unsigned) trial / 8};
        double error[2] = {0};
        fill(w, 64 * 128, &seed);
        for (int search = 0; search < 2; search++) {
            nyb_qweight q;
            params.scale_search = search;
            assert_int_equal(nyb_round_nearest(NULL, &q, nyb_mat_of(w, 64, 128), &params, NULL),
                             NYB_OK);
            for (size_t i = 0; i < 64 * 128; i++) {
                const size_t at = i / 128 * q.groups + i % 128 / 64;
                const float value = q.scales[at] * (float) (q.codes[i] - q.zeros[at]);
                error[search] += (double) ((w[i] - value) * (w[i] - value));
            }
            nyb_qweight_clear(&q);
        }
        print_message("%u bits%s: squared error with search %.3f of without\n", params.bits,
                      params.symmetric ? ", symmetric" : "", error[1] / error[0]);
        assert_true(error[1] < error[0]);
    }
}

static nyb_status round_row(const float *w, size_t cols, nyb_dtype dtype, bool symmetric,
                            nyb_qweight *q, nyb_err *err)
{
    const nyb_grid_params params = {.bits = 4, .scale_dtype = dtype, .symmetric = symmetric};
    static float copy[300];
    memcpy(copy, w, cols * sizeof(float));
    return nyb_round_nearest(NULL, q, nyb_mat_of(copy, 1, cols), &params, err);
}

static void odd_ranges_give_usable_scales(void **state)
{
    static const float zeros[3] = {0.0f, -0.0f, 0.0f}, tiny[3] = {1e-44f, -1e-42f, 0.0f};
    static const float huge[3] = {3e38f, -3e38f, 1.0f}, big[3] = {3e6f, 1.0f, 2.0f};
    nyb_qweight q;
    nyb_err err = {0};
    (void) state;
    for (int symmetric = 0; symmetric <= 1; symmetric++) {
        for (int dtype = NYB_F32; dtype <= NYB_BF16; dtype++) {
            assert_int_equal(round_row(zeros, 3, (nyb_dtype) dtype, symmetric, &q, NULL), NYB_OK);
            for (size_t i = 0; i < 3; i++)
                assert_int_equal(q.codes[i], q.zeros[0]);
            nyb_qweight_clear(&q);
            assert_int_equal(round_row(tiny, 3, (nyb_dtype) dtype, symmetric, &q, NULL), NYB_OK);
            assert_true(q.scales[0] >= (dtype == NYB_F16 ? 0x1p-24f : FLT_MIN));
            nyb_qweight_clear(&q);
            const nyb_status wide = round_row(huge, 3, (nyb_dtype) dtype, symmetric, &q, &err);
            assert_int_equal(wide, dtype == NYB_F16 ? NYB_E_NUMERIC : NYB_OK);
            assert_true(wide != NYB_OK || isfinite(q.scales[0]));
            nyb_qweight_clear(&q);
        }
    }
    assert_int_equal(round_row(big, 3, NYB_F16, false, &q, &err), NYB_E_NUMERIC);
    assert_null(q.codes);
    assert_string_equal(err.text, "row 0, group 0 needs a scale too large for F16: choose a wider "
                                  "scale type");
}

static void bad_weights_are_named(void **state)
{
    static float w[70 * 80];
    static const float values[] = {NAN, INFINITY, -INFINITY};
    const nyb_grid_params params = {.bits = 4, .group_size = 32};
    (void) state;
    for (size_t i = 0; i < 3; i++) {
        nyb_qweight q;
        nyb_err err = {0};
        uint64_t seed = 2;
        fill(w, 70 * 80, &seed);
        w[66 * 80 + 71] = values[i];
        w[69 * 80 + 3] = values[i];
        assert_int_equal(nyb_round_nearest(NULL, &q, nyb_mat_of(w, 70, 80), &params, &err),
                         NYB_E_NUMERIC);
        assert_non_null(strstr(err.text, "(66, 71)"));
        assert_null(q.codes);
    }
}

static void bad_parameters_are_refused(void **state)
{
    static float w[32];
    static const nyb_grid_params wrong[] = {
        {.bits = 5},
        {.bits = 0},
        {.bits = 4, .group_size = 9},
        {.bits = 4, .lowest_zero = 9},
        {.bits = 4, .scale_dtype = NYB_F64},
        {.bits = 4, .kind = (nyb_grid_kind) 7},
    };
    (void) state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        nyb_qweight q;
        assert_int_equal(nyb_round_nearest(NULL, &q, nyb_mat_of(w, 4, 8), &wrong[i], NULL),
                         NYB_E_ARG);
        assert_null(q.codes);
    }
}

// Keras' formula with its own order of operations.
static void int4_is_keras(void **state)
{
    static float w[70 * 300];
    const nyb_grid_params params = {.kind = NYB_GRID_ABSMAX, .bits = 4};
    uint64_t seed = 77;
    nyb_qweight q;
    (void) state;
    fill(w, 70 * 300, &seed);
    memset(w, 0, 300 * sizeof(float));
    assert_int_equal(nyb_round_nearest(NULL, &q, nyb_mat_of(w, 70, 300), &params, NULL), NYB_OK);
    for (size_t i = 0; i < 70; i++) {
        float absmax = 0.0f;
        for (size_t j = 0; j < 300; j++)
            absmax = fmaxf(absmax, fabsf(w[i * 300 + j]));
        const float inverse = 7.0f / (absmax + 1e-7f);
        for (size_t j = 0; j < 300; j++)
            assert_int_equal(q.codes[i * 300 + j] - 8, (int) rintf(w[i * 300 + j] * inverse));
        assert_near((double) (q.scales[i] * inverse), 1.0, 3e-7);
        assert_int_equal(q.zeros[i], 8);
    }
    nyb_qweight_clear(&q);
}

static void threads_do_not_change_bits(void **state)
{
    static float w[70 * 300];
    const nyb_grid_params params = {.bits = 3, .group_size = 32, .scale_search = true};
    uint64_t seed = 4;
    nyb_qweight one, more;
    (void) state;
    fill(w, 70 * 300, &seed);
    for (unsigned threads = 1; threads <= 4; threads++) {
        const nyb_context ctx = {.threads = threads};
        nyb_qweight *const q = threads == 1 ? &one : &more;
        assert_int_equal(nyb_round_nearest(&ctx, q, nyb_mat_of(w, 70, 300), &params, NULL), NYB_OK);
        assert_memory_equal(q->codes, one.codes, 70 * 300);
        assert_memory_equal(q->scales, one.scales, 70 * q->groups * sizeof(float));
        assert_memory_equal(q->zeros, one.zeros, 70 * q->groups);
        if (threads > 1)
            nyb_qweight_clear(&more);
    }
    nyb_qweight_clear(&one);
}

static void ties_go_to_the_even_step(void **state)
{
    (void) state;
    assert_true(nyb_round_even(0.5f) == 0.0f && nyb_round_even(1.5f) == 2.0f);
    assert_true(nyb_round_even(2.5f) == 2.0f && nyb_round_even(-0.5f) == 0.0f);
    assert_true(nyb_round_even(-1.5f) == -2.0f && nyb_round_even(-2.5f) == -2.0f);
    for (float x = -600.0f; x < 600.0f; x += 0.37f)
        assert_true(nyb_round_even(x) == rintf(x));
    assert_true(nyb_grid_code(NAN, 1.0f, 3.0f, 15.0f) == 0.0f);
    assert_true(nyb_grid_code(INFINITY, 1.0f, 3.0f, 15.0f) == 15.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ties_go_to_the_even_step),
        cmocka_unit_test(results_keep_their_promises),
        cmocka_unit_test(asymmetric_ranges_cover_their_group),
        cmocka_unit_test(grids_of_many_ranges_are_those_of_each),
        cmocka_unit_test(stored_matrices_are_rounded_as_their_values),
        cmocka_unit_test(search_never_raises_the_squared_error),
        cmocka_unit_test(odd_ranges_give_usable_scales),
        cmocka_unit_test(bad_weights_are_named),
        cmocka_unit_test(bad_parameters_are_refused),
        cmocka_unit_test(int4_is_keras),
        cmocka_unit_test(threads_do_not_change_bits),
    };
    return cmocka_run_group_tests_name("round", tests, NULL, NULL);
}
