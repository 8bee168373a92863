#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/inverse_factor.h"
#include "core/memory.h"

// H = X^T X + damping I for more columns than rows of X.
static void fill(float *h, size_t n, uint64_t seed, float damping)
{
    const size_t tokens = n / 2 + 1;
    float *const x = nyb_alloc(tokens * n, sizeof(float));
    assert_non_null(x);
    for (size_t i = 0; i < tokens * n; i++)
        x[i] = test_uniform(&seed);
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++) {
            double sum = i == j ? (double) damping : 0.0;
            for (size_t t = 0; t < tokens; t++)
                sum += (double) x[t * n + i] * (double) x[t * n + j];
            h[i * n + j] = (float) sum;
        }
    }
    nyb_free(x);
}

// The same by the book, in f64: V V^T = H from the last column on, then U = inv(V).
static void factor_f64(double *u, const float *h, size_t n)
{
    double *const v = nyb_alloc(n * n, sizeof(double));
    assert_non_null(v);
    for (size_t j = n; j-- > 0;) {
        for (size_t i = j + 1; i-- > 0;) {
            double sum = (double) h[i * n + j];
            for (size_t k = j + 1; k < n; k++)
                sum -= v[i * n + k] * v[j * n + k];
            v[i * n + j] = i == j ? sqrt(sum) : sum / v[j * n + j];
        }
    }
    for (size_t j = 0; j < n; j++) {
        for (size_t i = j + 1; i-- > 0;) {
            double sum = i == j ? 1.0 : 0.0;
            for (size_t k = i + 1; k <= j; k++)
                sum -= v[i * n + k] * u[k * n + j];
            u[i * n + j] = sum / v[i * n + i];
        }
    }
    nyb_free(v);
}

static void check_size(size_t n)
{
    float *const h = nyb_alloc(n * n, sizeof(float)), *const u = nyb_alloc(n * n, sizeof(float));
    float *const again = nyb_alloc(n * n, sizeof(float));
    double *const want = nyb_alloc(n * n, sizeof(double));
    double worst = 0.0, largest = 0.0;

    fill(h, n, n, 0.05f * (float) n);
    factor_f64(want, h, n);
    memcpy(u, h, n * n * sizeof(float));
    assert_int_equal(nyb_inverse_factor(NULL, nyb_mat_of(u, n, n), NULL), NYB_OK);
    for (size_t i = 0; i < n; i++) {
        for (size_t j = i; j < n; j++) {
            worst = fmax(worst, fabs((double) u[i * n + j] - want[i * n + j]));
            largest = fmax(largest, fabs(want[i * n + j]));
        }
    }
    if (n >= 256)
        print_message("n = %zu: factor off by %.2g of its largest element (tolerance 1e-4)\n", n,
                      worst / largest);
    assert_near(worst / largest, 0.0, 1e-4);

    for (unsigned threads = 1; threads <= 4; threads++) {
        const nyb_context ctx = {.threads = threads};
        memcpy(again, h, n * n * sizeof(float));
        assert_int_equal(nyb_inverse_factor(&ctx, nyb_mat_of(again, n, n), NULL), NYB_OK);
        for (size_t i = 0; i < n; i++)
            assert_memory_equal(again + i * n + i, u + i * n + i, (n - i) * sizeof(float));
    }
    nyb_free(h);
    nyb_free(u);
    nyb_free(again);
    nyb_free(want);
}

static void factor_is_that_of_f64_at_every_size_and_thread_count(void **state)
{
    static const size_t sizes[] = {63, 64, 65, 127, 128, 129, 255, 256, 257, 300};
    (void) state;
    for (size_t n = 1; n <= 20; n++)
        check_size(n);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        check_size(sizes[i]);
}

// The solver refills the upper triangle from the lower one and tries again.
static void an_indefinite_matrix_is_named_and_keeps_its_lower_triangle(void **state)
{
    enum { N = 290 };
    static float h[N * N], before[N * N];
    static const size_t places[] = {0, 100, 127, 128, 200, 289};
    (void) state;
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        char want[32];
        nyb_err err = {0};
        fill(h, N, 9, 20.0f);
        h[places[i] * N + places[i]] = -1.0f;
        memcpy(before, h, sizeof(h));
        assert_int_equal(nyb_inverse_factor(NULL, nyb_mat_of(h, N, N), &err), NYB_E_NOT_PD);
        (void) snprintf(want, sizeof(want), "column %zu of 290", places[i]);
        assert_non_null(strstr(err.text, want));
        for (size_t row = 1; row < N; row++)
            assert_memory_equal(h + row * N, before + row * N, row * sizeof(float));
    }
}

static void nan_and_infinity_are_refused(void **state)
{
    enum { N = 140 };
    static float h[N * N];
    static const float values[] = {NAN, INFINITY, -INFINITY};
    (void) state;
    for (size_t i = 0; i < 3; i++) {
        nyb_err err = {0};
        fill(h, N, 3, 9.0f);
        h[5 * N + 130] = values[i];
        assert_int_equal(nyb_inverse_factor(NULL, nyb_mat_of(h, N, N), &err), NYB_E_NUMERIC);
        assert_non_null(strstr(err.text, "(5, 130)"));
        assert_int_equal(nyb_inverse_factor(NULL, nyb_mat_of(h, N, N - 1), &err), NYB_E_SHAPE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(factor_is_that_of_f64_at_every_size_and_thread_count),
        cmocka_unit_test(an_indefinite_matrix_is_named_and_keeps_its_lower_triangle),
        cmocka_unit_test(nan_and_infinity_are_refused),
    };
    return cmocka_run_group_tests_name("inverse_factor", tests, NULL, NULL);
}
