#include "tests/test.h"

#include <math.h>
#include <string.h>

#include "nybble/gptq.h"

enum { N = 290, TOKENS = 700, ROWS = 131, DEAD = 7 }; // two blocks of columns, two tiles of rows

static float x[TOKENS * N], d[TOKENS * N], w[ROWS * N], got[ROWS * N];

// Inputs, and what other ones differ by, which is small and not independent of them.
static void fill(uint64_t seed)
{
    for (size_t t = 0; t < TOKENS; t++) {
        for (size_t j = 0; j < N; j++)
            x[t * N + j] = j == DEAD ? 0.0f : test_uniform(&seed) * (j % 5 == 0 ? 4.0f : 1.0f);
        for (size_t j = 0; j < N; j++)
            d[t * N + j] = 0.1f * x[t * N + (j + 3) % N] + 0.05f * test_uniform(&seed);
    }
    for (size_t i = 0; i < ROWS * N; i++)
        w[i] = test_uniform(&seed);
}

typedef struct sums {
    nyb_hessian hessian;
    nyb_gptq_factor factor;
    nyb_mat cross;
    float c[N * N];
} sums;

static void sum_up(sums *s, const nyb_context *ctx, nyb_gptq_order order)
{
    nyb_gptq_params params = NYB_GPTQ_DEFAULTS;
    params.order = order;
    params.grid.group_size = 0;
    memset(s->c, 0, sizeof(s->c));
    s->cross = nyb_mat_of(s->c, N, N);
    assert_int_equal(nyb_hessian_init(&s->hessian, N, NULL), NYB_OK);
    assert_int_equal(nyb_hessian_add_cross(ctx, &s->hessian, nyb_mat_of(x, TOKENS, N), s->cross,
                                           nyb_mat_of(d, TOKENS, N), NULL),
                     NYB_OK);
    assert_int_equal(nyb_gptq_prepare(ctx, &s->factor, &s->hessian, &params, NULL), NYB_OK);
}

static void clear(sums *s)
{
    nyb_gptq_factor_clear(&s->factor);
    nyb_hessian_clear(&s->hessian);
}

static double sum_of(const float *a, size_t i, const float *b, size_t j)
{
    double sum = 0.0;
    for (size_t t = 0; t < TOKENS; t++)
        sum += (double) a[t * N + i] * (double) b[t * N + j];
    return sum;
}

// The sums are those of the inputs as they are, or rounded, and H is what it is without the other sum.
// Parts of the tokens add up to the same.
static void sums_are_those_of_the_inputs(void **state)
{
    static sums s;
    static float parts[N * N];
    enum { CUT = NYB_HESSIAN_CHUNK };
    (void) state;
    fill(2);
    for (nyb_compute compute = NYB_COMPUTE_F32; compute <= NYB_COMPUTE_BF16; compute++) {
        const nyb_context ctx = {.compute = compute};
        nyb_hessian alone, cut;
        sum_up(&s, &ctx, NYB_ORDER_NONE);
        assert_int_equal(nyb_hessian_init(&alone, N, NULL), NYB_OK);
        assert_int_equal(nyb_hessian_init(&cut, N, NULL), NYB_OK);
        assert_int_equal(nyb_hessian_add(&ctx, &alone, nyb_mat_of(x, TOKENS, N), NULL), NYB_OK);
        memset(parts, 0, sizeof(parts));
        for (size_t t = 0; t < TOKENS; t += CUT) {
            const size_t rows = TOKENS - t < CUT ? TOKENS - t : CUT;
            assert_int_equal(nyb_hessian_add_cross(&ctx, &cut, nyb_mat_of(x + t * N, rows, N),
                                                   nyb_mat_of(parts, N, N),
                                                   nyb_mat_of(d + t * N, rows, N), NULL),
                             NYB_OK);
        }
        assert_int_equal(s.hessian.tokens, TOKENS);
        assert_memory_equal(s.hessian.h.at, alone.h.at, N * N * sizeof(float));
        assert_memory_equal(s.hessian.h.at, cut.h.at, N * N * sizeof(float));
        assert_memory_equal(s.c, parts, sizeof(parts));
        double worst = 0.0, largest = 0.0;
        for (size_t i = 0; i < N; i++) {
            for (size_t j = 0; j < N; j++) {
                const double want = sum_of(x, i, d, j);
                worst = fmax(worst, fabs((double) s.c[i * N + j] - want));
                largest = fmax(largest, fabs(want));
            }
        }
        const double tolerance = compute == NYB_COMPUTE_F32 ? 1e-5 : 4e-3;
        print_message("%s: off by %.2g of the largest (tolerance %.0g)\n",
                      compute == NYB_COMPUTE_F32 ? "f32" : "bf16", worst / largest, tolerance);
        assert_true(largest > 1.0);
        assert_near(worst / largest, 0.0, tolerance);
        nyb_hessian_clear(&alone);
        nyb_hessian_clear(&cut);
        clear(&s);
    }
}

// out (H + lambda I) = w (H + lambda I) + strength w C^T, summed in double from the inputs.
static void solves_the_normal_equations(void **state)
{
    static sums s;
    static double h[N * N], c[N * N];
    const double strength = 0.7;
    (void) state;
    fill(3);
    for (size_t i = 0; i < N; i++) {
        for (size_t j = 0; j < N; j++) {
            h[i * N + j] = sum_of(x, i, x, j);
            c[i * N + j] = sum_of(x, i, d, j);
        }
    }
    for (nyb_gptq_order order = NYB_ORDER_GROUP; order <= NYB_ORDER_FULL; order++) {
        sum_up(&s, NULL, order);
        assert_int_equal(nyb_gptq_target(NULL, &s.factor, nyb_mat_of(w, ROWS, N), s.cross, strength,
                                         nyb_mat_of(got, ROWS, N), NULL),
                         NYB_OK);
        double worst = 0.0, largest = 0.0;
        for (size_t r = 0; r < ROWS; r++) {
            for (size_t i = 0; i < N; i++) {
                double left = s.factor.lambda * ((double) got[r * N + i] - (double) w[r * N + i]);
                double right = 0.0;
                if (i == DEAD) {
                    assert_float_equal(got[r * N + i], w[r * N + i], 0.0f);
                    continue;
                }
                for (size_t j = 0; j < N; j++) {
                    left += ((double) got[r * N + j] - (double) w[r * N + j]) * h[j * N + i];
                    right += strength * (double) w[r * N + j] * c[i * N + j];
                }
                worst = fmax(worst, fabs(left - right));
                largest = fmax(largest, fabs(right));
            }
        }
        print_message("order %d: off by %.2g of the largest (tolerance 1e-4)\n", (int) order,
                      worst / largest);
        assert_true(largest > 1.0);
        assert_near(worst / largest, 0.0, 1e-4);
        clear(&s);
    }
}

static void threads_do_not_change_bits(void **state)
{
    static sums s;
    static float first[ROWS * N], cross[N * N];
    (void) state;
    fill(4);
    for (unsigned threads = 1; threads <= 4; threads++) {
        const nyb_context ctx = {.threads = threads};
        sum_up(&s, &ctx, NYB_ORDER_GROUP);
        assert_int_equal(nyb_gptq_target(&ctx, &s.factor, nyb_mat_of(w, ROWS, N), s.cross, 1.0,
                                         nyb_mat_of(threads == 1 ? first : got, ROWS, N), NULL),
                         NYB_OK);
        if (threads == 1)
            memcpy(cross, s.c, sizeof(cross));
        assert_memory_equal(cross, s.c, sizeof(cross));
        if (threads > 1)
            assert_memory_equal(first, got, sizeof(got));
        clear(&s);
    }
}

static void equal_inputs_ask_for_nothing(void **state)
{
    static sums s;
    (void) state;
    fill(5);
    memset(d, 0, sizeof(d));
    sum_up(&s, NULL, NYB_ORDER_NONE);
    assert_int_equal(nyb_gptq_target(NULL, &s.factor, nyb_mat_of(w, ROWS, N), s.cross, 1.0,
                                     nyb_mat_of(got, ROWS, N), NULL),
                     NYB_OK);
    assert_memory_equal(w, got, sizeof(got));
    clear(&s);
}

static void shapes_have_to_fit(void **state)
{
    static sums s;
    nyb_err err;
    (void) state;
    fill(6);
    sum_up(&s, NULL, NYB_ORDER_NONE);
    assert_int_equal(nyb_gptq_target(NULL, &s.factor, nyb_mat_of(w, ROWS, N - 1), s.cross, 1.0,
                                     nyb_mat_of(got, ROWS, N - 1), &err),
                     NYB_E_SHAPE);
    assert_int_equal(nyb_hessian_add_cross(NULL, &s.hessian, nyb_mat_of(x, TOKENS, N), s.cross,
                                           nyb_mat_of(d, TOKENS - 1, N), &err),
                     NYB_E_SHAPE);
    assert_int_equal(s.hessian.tokens, TOKENS);
    clear(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_those_of_the_inputs),
        cmocka_unit_test(solves_the_normal_equations),
        cmocka_unit_test(threads_do_not_change_bits),
        cmocka_unit_test(equal_inputs_ask_for_nothing),
        cmocka_unit_test(shapes_have_to_fit),
    };
    return cmocka_run_group_tests_name("target", tests, NULL, NULL);
}
