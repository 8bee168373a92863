#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ptq/observer.h"

enum { N = 20000 };

static const nyb_rounding_to int8 = {.kind = NYB_CODE_INT, .top = 127.0f};

// Values with a tail, from very small to `most`.
static void fill(float *x, float most, uint64_t *seed)
{
    for (size_t i = 0; i < N; i++)
        x[i] = most * test_uniform(seed) * test_uniform(seed) * test_uniform(seed);
    x[N / 2] = -most;
}

static int by_value(const void *a, const void *b)
{
    const float x = *(const float *) a, y = *(const float *) b;
    return x < y ? -1 : x > y;
}

// In one batch, in many of growing values, in falling ones, and merged from two halves.
static void order_and_batches_make_no_difference(void **state)
{
    static float x[N];
    static nyb_observer whole, rising, falling, halves[2];
    uint64_t seed = 1;
    (void) state;
    fill(x, 300.0f, &seed);
    nyb_observer_add(&whole, x, N, 1);
    qsort(x, N, sizeof(x[0]), by_value);
    for (size_t i = 0; i < N; i += 100)
        nyb_observer_add(&rising, x + i, 100, 1);
    for (size_t i = N; i > 0; i -= 100)
        nyb_observer_add(&falling, x + i - 100, 100, 1);
    nyb_observer_add(&halves[0], x, N / 2, 2);
    nyb_observer_add(&halves[1], x + 1, N / 2, 2);
    nyb_observer_merge(&halves[0], &halves[1]);
    assert_memory_equal(&whole, &rising, sizeof(whole));
    assert_memory_equal(&whole, &falling, sizeof(whole));
    assert_memory_equal(&whole, &halves[0], sizeof(whole));
    nyb_observer_merge(&halves[1], &(nyb_observer){0});
    assert_int_equal(halves[1].count, N / 2);
}

static void percentiles_are_those_of_sorted_values(void **state)
{
    static float x[N];
    static const double percents[] = {60.0, 90.0, 99.0, 99.9, 100.0};
    uint64_t seed = 2;
    (void) state;
    for (size_t p = 0; p < sizeof(percents) / sizeof(percents[0]); p++) {
        static nyb_observer o;
        const float most = ldexpf(1.3f, (int) p * 7 - 14);
        memset(&o, 0, sizeof(o));
        fill(x, most, &seed);
        nyb_observer_add(&o, x, N, 1);
        for (size_t i = 0; i < N; i++)
            x[i] = fabsf(x[i]);
        qsort(x, N, sizeof(x[0]), by_value);
        const nyb_range_params params = {NYB_RANGE_PERCENTILE, percents[p]};
        const float got = nyb_observer_range(&o, &params, int8);
        const float want = x[(size_t) ceil(percents[p] / 100.0 * N) - 1];
        print_message("%g %%: got %g, want %g (tolerance %g)\n", percents[p], (double) got,
                      (double) want, (double) most / 640.0);
        assert_near(got, want, (double) most / 640.0); // a bin
    }
}

static double error_of(const float *x, float range)
{
    double error = 0.0;
    for (size_t i = 0; i < N; i++) {
        const double step = (double) range / 7.0;
        const double steps = fmin(fmax(rint((double) x[i] / step), -7.0), 7.0);
        error += pow((double) x[i] - step * steps, 2.0);
    }
    return error;
}

// No range that is tried in steps of 1/50 has less than 0.99 of its error.
static void mse_finds_the_least_error(void **state)
{
    static float x[N];
    static nyb_observer o;
    uint64_t seed = 3;
    (void) state;
    fill(x, 5.0f, &seed);
    nyb_observer_add(&o, x, N, 1);
    const nyb_range_params params = {.kind = NYB_RANGE_MSE};
    const float range = nyb_observer_range(&o, &params, (nyb_rounding_to){.top = 7.0f});
    const double got = error_of(x, range), whole = error_of(x, 5.0f);
    double least = INFINITY;
    for (int k = 1; k <= 50; k++)
        least = fmin(least, error_of(x, 5.0f * (float) k / 50.0f));
    print_message("range %g: error %g, the least of 50 is %g, of absmax %g\n", (double) range, got,
                  least, whole);
    assert_true(got <= least / 0.99 && got < 0.9 * whole);
}

// A lone value far away is clipped; evenly spread ones are not.
static void entropy_clips_what_is_rare(void **state)
{
    static float x[N];
    static nyb_observer tail, even;
    uint64_t seed = 4;
    (void) state;
    const nyb_range_params params = {.kind = NYB_RANGE_ENTROPY};
    for (size_t i = 0; i < N; i++)
        x[i] = test_uniform(&seed);
    nyb_observer_add(&even, x, N, 1);
    const float whole = nyb_observer_range(&even, &params, int8);
    assert_true(whole > 0.9f && whole <= fmaxf(-even.low, even.high));
    x[7] = 8.0f;
    nyb_observer_add(&tail, x, N, 1);
    const float clipped = nyb_observer_range(&tail, &params, int8);
    print_message("even: %g of 1, with a value at 8: %g\n", (double) whole, (double) clipped);
    assert_true(clipped >= 0.9f && clipped < 4.0f);
}

static void nothing_and_zeros_have_no_range(void **state)
{
    (void) state;
    for (nyb_range r = NYB_RANGE_ABSMAX; r < NYB_RANGE_COUNT; r++) {
        static const float zeros[4];
        const nyb_range_params params = {.kind = r};
        static nyb_observer o;
        memset(&o, 0, sizeof(o));
        assert_true(nyb_observer_range(&o, &params, int8) == 0.0f);
        nyb_observer_add(&o, zeros, 4, 1);
        assert_true(nyb_observer_range(&o, &params, int8) == 0.0f);
        const float tiny = 1e-40f;
        nyb_observer_add(&o, &tiny, 1, 1);
        const float range = nyb_observer_range(&o, &params, int8);
        assert_true(range > 0.0f && range <= tiny);
        nyb_range back;
        assert_true(nyb_range_by_name(nyb_range_name(r), &back) && back == r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_and_batches_make_no_difference),
        cmocka_unit_test(percentiles_are_those_of_sorted_values),
        cmocka_unit_test(mse_finds_the_least_error),
        cmocka_unit_test(entropy_clips_what_is_rare),
        cmocka_unit_test(nothing_and_zeros_have_no_range),
    };
    return cmocka_run_group_tests_name("observer", tests, NULL, NULL);
}
