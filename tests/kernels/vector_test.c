#include "tests/test.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "core/cpu.h"
#include "core/dtype.h"
#include "kernels/vector.h"

enum { MOST = 700, GUARD = 24, LEVELS = 3 };

static const unsigned levels[LEVELS] = {0, NYB_CPU_AVX2, NYB_CPU_AVX2 | NYB_CPU_AVX512};

static bool has(unsigned level)
{
    return (nyb_cpu_detected() & level) == level;
}

static void fill(float *x, size_t n, float size, uint64_t *seed)
{
    for (size_t i = 0; i < n; i++)
        x[i] = size * test_uniform(seed);
}

static double absolute(double x)
{
    return x < 0 ? -x : x;
}

// Every operation, at every length, writes what the portable one writes and nothing behind it.
static void levels_give_the_same_bits(void **state)
{
    (void) state;
    static float a[MOST + GUARD], b[MOST], want[MOST + GUARD], got[MOST + GUARD];
    uint64_t seed = 3;
    const nyb_vector_ops *const ref = nyb_vector_ops_for(0);
    for (size_t l = 1; l < LEVELS; l++) {
        if (!has(levels[l])) {
            print_message("level %zu is not on this CPU\n", l);
            continue;
        }
        const nyb_vector_ops *const ops = nyb_vector_ops_for(levels[l]);
        for (size_t n = 1; n <= MOST; n += n < 70 ? 1 : 63) {
            fill(a, MOST + GUARD, 9.0f, &seed);
            fill(b, MOST, 2.0f, &seed);
#define SAME(call_ref, call_ops)                                                                   \
    memcpy(want, a, sizeof(a));                                                                    \
    memcpy(got, a, sizeof(a));                                                                     \
    call_ref;                                                                                      \
    call_ops;                                                                                      \
    assert_memory_equal(want, got, sizeof(want))
            SAME(ref->rms_norm(want, a, b, n, 1e-5), ops->rms_norm(got, a, b, n, 1e-5));
            SAME(ref->silu_gate(want, b, n), ops->silu_gate(got, b, n));
            SAME(ref->rotate(want, b, n / 2), ops->rotate(got, b, n / 2));
            SAME(ref->add(want, b, n), ops->add(got, b, n));
            SAME(ref->add_scaled(want, b, 0.7f, n), ops->add_scaled(got, b, 0.7f, n));
            SAME(ref->scale(want, 0.3f, n), ops->scale(got, 0.3f, n));
            SAME(ref->narrow(want, b, n), ops->narrow(got, b, n));
            SAME(ref->narrow(want, want, n), ops->narrow(got, got, n));
            SAME(ref->widen(want, b, n), ops->widen(got, b, n));
            double sum_want = 0, sum_got = 0;
            SAME(sum_want = ref->softmax(want, n), sum_got = ops->softmax(got, n));
            assert_true(sum_want == sum_got);
            assert_true(ref->log_sum_exp(a, n) == ops->log_sum_exp(a, n));
            assert_int_equal(ref->argmax(a, n), ops->argmax(a, n));
        }
    }
}

static void exponential_is_within_two_units(void **state)
{
    (void) state;
    const nyb_vector_ops *const ops = nyb_vector_ops_for(0);
    double worst = 0.0;
    float x[16];
    for (double v = -85.9; v <= 0.0; v += 0.0037) {
        memset(x, 0, sizeof(x));
        x[1] = (float) v;
        const float asked = x[1];
        (void) ops->softmax(x, 16);
        const double want = exp((double) asked);
        const double off = absolute((double) x[1] - want) / (want * FLT_EPSILON);
        worst = off > worst ? off : worst;
    }
    print_message("exponential: worst error %.3f units (bound 1.5)\n", worst);
    assert_true(worst > 0.0 && worst < 1.5);
}

// Against the formulas in f64.
static void operations_are_their_formulas(void **state)
{
    (void) state;
    static float x[MOST], g[MOST], y[MOST];
    uint64_t seed = 5;
    const nyb_vector_ops *const ops = nyb_vector_ops_for(0);
    double worst[4] = {0};
    for (size_t n = 1; n <= MOST; n += n < 40 ? 1 : 77) {
        fill(x, n, 20.0f, &seed);
        fill(g, n, 1.5f, &seed);
        double squares = 0.0, top = -1e30, total = 0.0;
        for (size_t i = 0; i < n; i++) {
            squares += (double) x[i] * (double) x[i];
            top = (double) x[i] > top ? (double) x[i] : top;
        }
        for (size_t i = 0; i < n; i++)
            total += exp((double) x[i] - top);

        ops->rms_norm(y, x, g, n, 1e-3);
        for (size_t i = 0; i < n; i++) {
            const double want = (double) g[i] * (double) x[i] / sqrt(squares / (double) n + 1e-3);
            worst[0] = fmax(worst[0], absolute((double) y[i] - want) / (absolute(want) + 1e-30));
        }
        memcpy(y, x, sizeof(x));
        ops->silu_gate(y, g, n);
        for (size_t i = 0; i < n; i++) {
            const double want = (double) x[i] / (1.0 + exp(-(double) x[i])) * (double) g[i];
            worst[1] = fmax(worst[1], absolute((double) y[i] - want) / (absolute(want) + 1e-30));
        }
        memcpy(y, x, sizeof(x));
        worst[2] = fmax(worst[2], absolute(ops->softmax(y, n) / total - 1.0));
        worst[3] = fmax(worst[3], absolute(ops->log_sum_exp(x, n) - (top + log(total))));
    }
    print_message("relative errors: rms_norm %.2g, silu_gate %.2g, softmax sum %.2g; "
                  "log_sum_exp %.2g (bounds 1e-6, 2e-6, 1e-6, 1e-6)\n",
                  worst[0], worst[1], worst[2], worst[3]);
    assert_true(worst[0] < 1e-6 && worst[1] < 2e-6 && worst[2] < 1e-6 && worst[3] < 1e-6);
}

// The limits of the exponential do not show: far-off scores vanish, large gates stay finite.
static void extremes_stay_sane(void **state)
{
    (void) state;
    const nyb_vector_ops *const ops = nyb_vector_ops_for(0);
    float x[3] = {0.0f, -1e30f, -200.0f};
    assert_near(ops->softmax(x, 3), 1.0, 1e-30);
    assert_near((double) x[1], 0.0, 1e-37);

    float gate[4] = {-1e4f, 1e4f, -100.0f, 100.0f};
    const float ones[4] = {1.0f, 1.0f, 1.0f, 1.0f};
    ops->silu_gate(gate, ones, 4);
    assert_near((double) gate[0], 0.0, 1e-30);
    assert_near((double) gate[1], 1e4, 1e-30);
    assert_near((double) gate[2], 0.0, 1e-30);
    assert_near((double) gate[3], 100.0, 1e-30);

    float big[2] = {3e38f, 1e38f};
    assert_near(ops->log_sum_exp(big, 2), (double) 3e38f, 1e31);
}

static void bad_numbers_are_found(void **state)
{
    (void) state;
    static float x[MOST];
    uint64_t seed = 9;
    const nyb_vector_ops *const ops = nyb_vector_ops_for(nyb_cpu_detected());
    fill(x, MOST, FLT_MAX, &seed);
    assert_int_equal(ops->first_not_finite(x, MOST), MOST);
    for (size_t i = 0; i < MOST; i += 37) {
        const float kept = x[i];
        x[i] = i % 2 ? NAN : -INFINITY;
        assert_int_equal(ops->first_not_finite(x, MOST), i);
        x[i] = kept;
    }
}

// Ties, numbers too small for a leading one, infinities and what is not a number among them.
static void narrowing_rounds_to_nearest_even(void **state)
{
    (void) state;
    static const uint32_t bits[] = {0x3f808000, 0x3f818000, 0x3f808001, 0x3f807fff, 0x00008000,
                                    0x00018000, 0x80000001, 0x7f7fffff, 0x7f800000, 0xff800000,
                                    0x7f800001, 0xffc12345, 0x80000000};
    enum { N = 4 * sizeof(bits) / sizeof(bits[0]) };
    float x[N], wide[N];
    uint16_t got[N];
    for (size_t l = 0; l < LEVELS; l++) {
        if (!has(levels[l]))
            continue;
        const nyb_vector_ops *const ops = nyb_vector_ops_for(levels[l]);
        for (size_t i = 0; i < N; i++)
            x[i] = nyb_f32_of_bits(bits[i % (N / 4)]);
        ops->narrow(got, x, N);
        ops->widen(wide, got, N);
        ops->narrow(x, x, N); // in place
        assert_memory_equal(x, got, sizeof(got));
        for (size_t i = 0; i < N; i++) {
            const float value = nyb_f32_of_bits(bits[i % (N / 4)]);
            assert_int_equal(got[i], nyb_bf16_of_f32(value));
            assert_int_equal(nyb_f32_bits(wide[i]), (uint32_t) got[i] << 16);
        }
    }
    assert_int_equal(got[0], 0x3f80);
    assert_int_equal(got[1], 0x3f82);
}

static void argmax_takes_the_first_of_equals(void **state)
{
    (void) state;
    static float x[MOST];
    const nyb_vector_ops *const ops = nyb_vector_ops_for(nyb_cpu_detected());
    for (size_t n = 1; n < MOST; n += 13) {
        for (size_t i = 0; i < n; i++)
            x[i] = -2.0f - (float) i;
        x[n / 3] = x[n / 2] = x[n - 1] = -1.0f;
        assert_int_equal(ops->argmax(x, n), n / 3);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels_give_the_same_bits),
        cmocka_unit_test(exponential_is_within_two_units),
        cmocka_unit_test(operations_are_their_formulas),
        cmocka_unit_test(extremes_stay_sane),
        cmocka_unit_test(bad_numbers_are_found),
        cmocka_unit_test(narrowing_rounds_to_nearest_even),
        cmocka_unit_test(argmax_takes_the_first_of_equals),
    };
    return cmocka_run_group_tests_name("vector", tests, NULL, NULL);
}
